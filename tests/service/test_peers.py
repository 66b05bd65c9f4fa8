"""The peer protocol between QNPUs: who is let in, epochs, silence, and whatever goes wrong."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnodeos.api.peer import Accept, Announce, Cancel, PeerMessage
from qnodeos.api.peer_wire import (
    PROTOCOL_VERSION,
    Heartbeat,
    Install,
    Installed,
    PeerHello,
    PeerRefused,
    ReadTick,
    TickReading,
    WireCancel,
    decode,
    encode,
)
from qnodeos.errors import ConfigurationError, MalformedMessageError
from qnodeos.qdevice.outcomes import BellState
from qnodeos.service.peer_session import (
    DEFAULT_TIMING,
    MAX_UNACKNOWLEDGED,
    ROLE_CONTROLLER,
    Identity,
    PeerSession,
    connection_epoch,
)
from qnodeos.service.peers import MAX_CONTROLLERS, MAX_GREETING, PeerManager
from tests.service.peer_net import TICK_NS, TIMING, Host, Net

NAMES = {1: "one", 2: "two", 3: "three"}
HELLO = PeerHello(PROTOCOL_VERSION, "qnpu", 1, "one", 10**9, 1, TICK_NS)


def manager_of(host: Host) -> PeerManager:
    assert isinstance(host.machine, PeerManager)
    return host.machine


def two(net: Net, **second: int) -> tuple[Host, Host]:
    """Nodes 1 and 2, neighbours; node 1 dials."""
    return (
        net.start(1, "one", {2: "two"}),
        net.start(2, "two", {1: "one"}, **second),  # type: ignore[arg-type]
    )


def epochs(host: Host) -> set[int]:
    """Epochs of the connections to neighbours."""
    connections = manager_of(host)._connections.values()
    return {known.session.epoch for known in connections if known.neighbour is not None}


def answers(host: Host, connection: int) -> list[Any]:
    """What a node has sent over a connection that was made by hand."""
    return [decode(payload) for number, payload in host.machine.outbox if number == connection]


def greet(net: Net, node_id: int, hello: PeerHello) -> tuple[list[Any], bool]:
    """Connect to a node by hand and say hello; its answers, and whether it closes."""
    host = net.hosts[node_id]
    connection, send = net.dial(node_id)
    send(encode(hello))
    return answers(host, connection), connection in host.machine.closing


# --- connecting -----------------------------------------------------------------------


def test_two_nodes_connect_and_agree_on_an_epoch():
    net = Net()
    first, second = two(net)
    net.run(50)
    assert first.kernel.connected == {2}
    assert second.kernel.connected == {1}
    assert len(epochs(first)) == 1
    assert epochs(first) == epochs(second)
    assert first.said == ["connected to two"]
    assert manager_of(first).statistics()["neighbours"]["two"]["connections"] == 1


def test_only_the_lower_node_id_dials():
    net = Net()
    net.start(2, "two", {1: "one"})
    net.run(500)
    assert net.wires == []
    net.start(1, "one", {2: "two"})
    net.run(50)
    assert net.hosts[2].kernel.connected == {1}


def test_three_nodes_have_a_connection_for_each_pair():
    net = Net()
    for node_id, name in NAMES.items():
        net.start(node_id, name, {n: NAMES[n] for n in NAMES if n != node_id})
    net.run(50)
    for node_id, host in net.hosts.items():
        assert host.kernel.connected == set(NAMES) - {node_id}
    assert len(net.wires) == 3


def test_a_node_without_itself_as_neighbour():
    with pytest.raises(ConfigurationError, match="its own node id"):
        Net().start(1, "one", {1: "one"})


def test_dialling_is_tried_again_with_growing_waits():
    net = Net()
    first = net.start(1, "one", {2: "two"})
    net.run(1_000)
    connections = manager_of(first).neighbours[2].connections
    # Waits of 10, 20, 40, 80, 160, 160, ... ms: about ten in a second.
    assert 8 <= connections <= 12
    assert first.said == ["no connection to two: nobody answers"], "said once"
    net.start(2, "two", {1: "one"})
    net.run(200)
    assert first.kernel.connected == {2}


# --- messages -------------------------------------------------------------------------


def test_messages_arrive_in_order_and_ticks_are_those_of_the_other_node():
    net = Net()
    first, second = two(net)
    net.run(50)
    for host, epoch_tick in ((first, 1_000), (second, 42_000)):
        install(net, host, epoch_tick)
    announce = Announce(3, 0, 5, BellState.PSI_MINUS, 1_234)
    sent: list[PeerMessage] = [Cancel(1), Accept(2, 17), announce, Cancel(4)]
    for message in sent:
        net.send(1, 2, message)
    net.run(50)
    assert second.kernel.messages(1) == [sent[0], sent[1], replace(announce, tick=42_234), sent[3]]
    net.send(2, 1, Announce(3, 0, 5, BellState.PHI_PLUS, 42_000))
    net.run(50)
    assert first.kernel.messages(2) == [Announce(3, 0, 5, BellState.PHI_PLUS, 1_000)]


def test_messages_to_a_node_that_is_away_are_dropped_and_counted():
    net = Net()
    first = net.start(1, "one", {2: "two"})
    net.send(1, 2, Cancel(1))
    net.run(50)
    assert manager_of(first).statistics()["dropped"] == 1


def test_a_message_of_another_epoch_is_refused_and_counted():
    net = Net()
    _, second = two(net)
    net.run(50)
    [epoch] = epochs(second)
    [wire] = net.wires
    second.machine.received(wire.ends[1][1], encode(WireCancel(epoch ^ 1, 7)), net.now_ns)
    second.machine.received(wire.ends[1][1], encode(WireCancel(epoch, 8)), net.now_ns)
    assert second.kernel.messages(1) == [Cancel(8)]
    assert manager_of(second).statistics()["neighbours"]["one"]["old_epoch"] == 1
    assert second.kernel.connected == {1}


@given(st.tuples(*[st.integers(0, 1 << 62)] * 4), st.tuples(*[st.integers(0, 1 << 62)] * 4))
def test_epochs_differ(one, other):
    def epoch(words: tuple[int, int, int, int]) -> int:
        ends = [
            msgspec.structs.replace(HELLO, incarnation=words[i], connections=words[i + 1])
            for i in (0, 2)
        ]
        return connection_epoch(*ends)

    assert (epoch(one) == epoch(other)) is (one == other)
    assert 0 <= epoch(one) < 1 << 63


# --- what ends a connection -----------------------------------------------------------


@pytest.mark.parametrize("silently", [False, True])
def test_a_connection_that_breaks_is_noticed_at_both_ends_and_made_anew(silently):
    net = Net()
    first, second = two(net)
    net.run(50)
    before = epochs(first)
    net.cut(silently=silently)
    net.run(600)
    assert first.kernel.losses(2) == second.kernel.losses(1) == 1
    assert first.kernel.connected == {2}
    assert epochs(first) == epochs(second)
    assert epochs(first) != before
    assert "two was lost" in " ".join(first.said)


def test_a_connection_open_at_one_end_only_is_replaced_at_once():
    """The dialling end has lost it and dials again; the other has heard of nothing."""
    net = Net()
    first, second = two(net)
    net.run(50)
    [wire] = net.wires
    wire.is_silent = True
    first.machine.closed(wire.ends[0][1], "the connection broke", net.now_ns)
    net.run(50)
    assert second.kernel.log[-2][:2] == ("lost", 1)
    assert second.kernel.log[-1] == ("connected", 1)
    assert epochs(first) == epochs(second)


def test_a_node_that_was_killed_and_started_anew():
    net = Net()
    first, second = two(net)
    net.run(50)
    net.send(1, 2, Cancel(1))
    net.kill(2)
    net.run(100)
    assert first.kernel.losses(2) == 1
    second = net.start(2, "two", {1: "one"})
    net.run(200)
    assert first.kernel.connected == {2}
    assert second.kernel.messages(1) == []
    assert "two has started anew" in first.said


@pytest.mark.parametrize(
    ("payload", "ends_it"),
    [
        (b"\x00", True),
        (b"not a message", True),
        (encode(HELLO), True),
        (encode(TickReading(1, 2, 3)), True),
        (encode(ReadTick(1)), True),
        (encode(Install(1, 100, 1, 10, 0, (1,))), True),
        (encode(Heartbeat(1)), False),
    ],
    ids=["zero", "text", "hello", "reading", "read", "install", "heartbeat of another epoch"],
)
def test_nonsense_of_a_neighbour_ends_the_connection_and_it_comes_back(payload, ends_it):
    net = Net()
    first, second = two(net)
    net.run(50)
    [wire] = net.wires
    second.machine.received(wire.ends[1][1], payload, net.now_ns)
    assert (second.kernel.connected == set()) is ends_it
    net.run(300)
    assert first.kernel.connected == {2}
    assert second.kernel.connected == {1}
    assert manager_of(second).statistics()["malformed"] == int(ends_it)
    if ends_it:
        assert "the other end refuses: " in " ".join(first.said)


def test_a_stream_that_cannot_be_cut_into_messages():
    net = Net()
    first, second = two(net)
    net.run(50)
    [wire] = net.wires
    second.machine.garbled(wire.ends[1][1], MalformedMessageError("too long"), net.now_ns)
    net.run(300)
    assert "the other end refuses: MalformedMessageError: too long" in " ".join(first.said)
    assert first.kernel.connected == {2}


def test_a_peer_that_acknowledges_more_than_it_was_sent():
    net = Net()
    _, second = two(net)
    net.run(50)
    [epoch] = epochs(second)
    [wire] = net.wires
    second.machine.received(wire.ends[1][1], encode(Heartbeat(epoch, 5)), net.now_ns)
    assert second.kernel.connected == set()
    assert "acknowledges 5 messages and was sent 0" in " ".join(second.said)


def test_what_is_not_acknowledged_is_in_doubt():
    """The kernel learns from which tick on its messages may not have arrived."""
    net = Net()
    first, _ = two(net)
    net.run(50)
    net.send(1, 2, Cancel(1))
    net.run(100)  # two heartbeats: acknowledged
    early = net.tick(first)
    net.send(1, 2, Announce(3, 0, 5, BellState.PSI_MINUS, early - 3))
    net.send(1, 2, Cancel(2))
    net.cut()
    net.run(1)
    assert first.kernel.log[-1] == ("lost", 2, early - 3)


def test_what_is_acknowledged_is_not_in_doubt():
    net = Net()
    first, _ = two(net)
    net.run(50)
    net.send(1, 2, Announce(3, 0, 5, BellState.PSI_MINUS, net.tick(first)))
    net.run(100)
    net.cut()
    net.run(1)
    [(_, _, heard_tick)] = [entry for entry in first.kernel.log[1:] if entry[0] == "lost"]
    assert heard_tick == net.tick(first) - 100 + 1


def test_messages_are_acknowledged_one_heartbeat_late():
    """What there was to say to them has been sent by then, and arrives before."""
    sessions = [
        PeerSession(Identity("qnpu", n, name, n, TICK_NS), lambda hello: 1, 0, dials=dials)
        for n, name, dials in ((1, "one", 1), (2, "two", None))
    ]
    first, second = sessions

    def pass_on(source: PeerSession, target: PeerSession) -> list[Any]:
        payloads, source.outgoing[:] = list(source.outgoing), []
        for payload in payloads:
            target.receive(payload, 0)
        return [decode(payload) for payload in payloads]

    pass_on(first, second)
    pass_on(second, first)
    first.send_link(WireCancel(first.epoch, 1), 100)
    pass_on(first, second)
    heartbeat_ns = DEFAULT_TIMING.heartbeat_ns
    acknowledged = []
    for number in range(3):
        second.poll(number * heartbeat_ns)
        acknowledged += [message.received for message in pass_on(second, first)]
        assert first.heard_tick(200) == (100 if number == 0 else 201)
    assert acknowledged == [0, 1, 1]


def test_a_peer_that_acknowledges_nothing_is_given_up():
    net = Net()
    first, _ = two(net)
    net.run(50)
    assert first.kernel.connected == {2}
    for number in range(MAX_UNACKNOWLEDGED + 1):
        net.send(1, 2, Cancel(number))
    net.run(1)
    assert first.kernel.losses(2) == 1
    assert "are not acknowledged" in " ".join(first.said)


# --- who is let in --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 99}, "speaks version 99 of the peer protocol"),
        ({"node_id": 7}, "'one' (node 7) is no neighbour of 'two'"),
        ({"node_id": 2}, "'one' (node 2) is no neighbour of 'two'"),
        ({"node_name": "eve"}, "node 1 is called 'one' in the node file of 'two'"),
        ({"tick_ns": 20_000}, "a tick lasts 20000 ns at 'one' (node 1) and 10000 ns at 'two'"),
        ({"role": "qpu"}, "no business with a 'qpu'"),
        ({"role": "controller"}, "obeys the controller 'controller', not 'one'"),
        ({"node_id": 3, "node_name": "three"}, "the one with the lower node id dials"),
    ],
)
def test_strangers_are_refused_with_a_reason(changes, words):
    net = Net()
    host = net.start(2, "two", {1: "one", 3: "three"})
    [answer], closes = greet(net, 2, msgspec.structs.replace(HELLO, **changes))
    assert isinstance(answer, PeerRefused)
    assert answer.kind == "PeerRefusedError"
    assert words in answer.text
    assert closes
    assert host.kernel.connected == set()
    assert manager_of(host).statistics()["refused"] == 1
    assert words in host.said[0]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"name": "zwei"}, "node 2 is called 'two' in the node file of 'one'"),
        ({"tick_ns": 20_000}, "a tick lasts"),
        ({"node_id": 3}, "is no neighbour of"),
    ],
)
def test_both_ends_say_why_they_do_not_talk(second, words):
    net = Net()
    first = net.start(1, "one", {2: "two"})
    arguments = {"name": "two", "tick_ns": TICK_NS} | second
    node_id = arguments.pop("node_id", 2)
    other = net.start(
        node_id,
        arguments["name"],
        {1: "one"},
        tick_ns=arguments["tick_ns"],
    )
    net.hosts[2] = net.hosts.pop(node_id)  # it listens where node 2 is expected
    net.run(300)
    for host in (first, other):
        assert words in " ".join(host.said)
        assert host.kernel.connected == set()
    assert len(first.said) <= 2, "said once, not at every attempt"


def test_a_certificate_of_somebody_else_is_refused():
    net = Net()
    host = net.start(2, "two", {1: "one"})
    connection = host.machine.new_connection()
    host.machine.opened(connection, net.now_ns, ["eve", "mallory"])
    host.machine.received(connection, encode(HELLO), net.now_ns)
    [answer] = answers(host, connection)
    assert "the certificate is of eve, mallory, not of 'one'" in answer.text


def test_a_message_before_the_hello_is_refused():
    net = Net()
    host = net.start(2, "two", {1: "one"})
    connection, send = net.dial(2)
    send(encode(WireCancel(1, 2)))
    [answer] = answers(host, connection)
    assert "the first message must be a hello" in answer.text


def test_a_second_process_that_runs_as_the_same_node():
    """The later start is the real one, and the earlier one learns why."""
    net = Net()
    early = net.start(1, "one", {2: "two"})
    net.start(2, "two", {1: "one"})
    net.run(50)
    net.hosts[5] = net.hosts.pop(1)  # it runs on, but the name is taken over
    for wire in net.wires:
        net._by_end[5, wire.ends[0][1]] = net._by_end.pop(wire.ends[0])
        wire.ends = (5, wire.ends[0][1]), wire.ends[1]
    late = net.start(1, "one", {2: "two"})
    net.run(1_000)
    assert late.kernel.connected == {2}
    assert early.kernel.connected == set()
    assert "do two processes run as node 1?" in " ".join(early.said)


@pytest.mark.parametrize("silently", [False, True])
def test_a_node_whose_clock_was_set_back_is_taken_when_its_old_connection_is_over(silently):
    """Killed, its system closes the connection; without power, it is silent."""
    net = Net()
    net._starts = count(1_000)
    net.start(1, "one", {2: "two"})
    other = net.start(2, "two", {1: "one"})
    net.run(50)
    if silently:
        net.cut(silently=True)
        del net.hosts[1]
    else:
        net.kill(1)
    net._starts = count(7)
    again = net.start(1, "one", {2: "two"})
    net.run(20)
    if silently:
        assert "by a later start" in " ".join(again.said)
        net.run(500)
    assert again.kernel.connected == {2}
    assert other.kernel.connected == {1}
    assert epochs(again) == epochs(other)
    assert "one has started anew" in other.said


def test_connections_that_say_nothing_make_room_and_time_out():
    net = Net()
    host = net.start(2, "two", {1: "one"})
    for _ in range(MAX_GREETING + 5):
        net.dial(2)
    assert len(host.machine.closing) == 5
    assert len(manager_of(host)._connections) == MAX_GREETING
    net.start(1, "one", {2: "two"})
    net.run(50)
    assert host.kernel.connected == {1}
    net.run(400)
    assert len(manager_of(host)._connections) == 1


def test_a_flood_of_refused_connections_is_counted_and_not_told_one_by_one():
    net = Net()
    host = net.start(2, "two", {1: "one"})
    for _ in range(100):
        greet(net, 2, msgspec.structs.replace(HELLO, node_name="eve"))
    assert manager_of(host).statistics()["refused"] == 100
    assert len(host.said) == 1


# --- the controller -------------------------------------------------------------------


def controller_hello(name: str = "controller") -> PeerHello:
    return Identity(ROLE_CONTROLLER, -1, name, 1, 0).hello(1)


def install(net: Net, host: Host, epoch_tick: int, **changes: int) -> list[Any]:
    """Install a schedule by hand; the node's answers."""
    [node_id] = [number for number, other in net.hosts.items() if other is host]
    [peer] = manager_of(host).neighbours
    connection, send = net.dial(node_id)
    send(encode(controller_hello()))
    values: dict[str, Any] = {
        "schedule": 1,
        "bin_ticks": 1_000,
        "guard_ticks": 10,
        "batch_ticks": 100,
        "epoch_tick": epoch_tick,
        "pattern": (peer, -1),
        "from_bin": 3,
    }
    send(encode(ReadTick(99)))
    send(encode(Install(**(values | changes))))
    return answers(host, connection)[1:]


def test_a_controller_reads_the_tick_and_installs_a_schedule():
    net = Net()
    host = net.start(2, "two", {1: "one"}, offset_ticks=77)
    reading, installed = install(net, host, 12_345)
    assert reading == TickReading(99, net.tick(host), 0, 0, 0)
    assert installed == Installed(1)
    [(_, schedule, from_bin)] = [entry for entry in host.kernel.log if entry[0] == "schedule"]
    assert (schedule.bin_ticks, schedule.epoch_tick, schedule.pattern) == (1_000, 12_345, (1, None))
    assert from_bin == 3
    reading, installed = install(net, host, 12_345)
    assert reading == TickReading(99, net.tick(host), 1, 12_345, 1_000)
    assert installed == Installed(1)
    assert sum(entry[0] == "schedule" for entry in host.kernel.log) == 1, "it is in use already"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"guard_ticks": 5_000}, "guard_ticks=5000 must lie in"),
        ({"batch_ticks": 0}, "a batch of 0 ticks"),
        ({"schedule": 1}, "schedule 1 is older than 5"),
    ],
)
def test_a_schedule_that_cannot_be_is_answered_with_the_reason(changes, words):
    net = Net()
    host = net.start(2, "two", {1: "one"})
    assert install(net, host, 0, schedule=5)[1] == Installed(5)
    _, installed = install(net, host, 0, **({"schedule": 6} | changes))
    assert words in installed.error
    assert manager_of(host).statistics()["schedule"] == 5


def test_a_schedule_with_other_bins_renews_the_connections():
    net = Net()
    first, second = two(net)
    net.run(50)
    before = epochs(second)
    for host in (first, second):
        install(net, host, 1_000)
    net.run(50)
    assert epochs(first) == epochs(second) == before
    for host in (first, second):
        install(net, host, 1_003, schedule=2)
    net.run(200)
    assert first.kernel.connected == {2}
    assert epochs(first) == epochs(second) != before


def test_controllers_are_few():
    net = Net()
    host = net.start(2, "two", {1: "one"})
    for number in range(MAX_CONTROLLERS + 1):
        [answer], closes = greet(net, 2, controller_hello())
        assert closes is (number == MAX_CONTROLLERS)
    assert "controllers connected already" in answer.text
    assert manager_of(host).statistics()["controllers"] == MAX_CONTROLLERS


# --- whatever happens -----------------------------------------------------------------


@settings(max_examples=80)
@given(st.data())
def test_whatever_happens_the_nodes_find_each_other_again(data):
    """Broken, silent and replaced connections, restarts, garbage and old messages.

    `FakeKernel` checks that messages come only over connections, one at a time. Whatever
    arrives was sent in the same epoch: every start and every connection numbers its messages.
    """
    chances = Random(data.draw(st.integers(0, 999)))
    net = Net(lambda: chances.randint(1, 15_000_000))
    two(net)
    old: list[bytes] = []
    sent: dict[int, list[int]] = {1: [], 2: []}
    numbers = 0
    acts = st.sampled_from(
        ["wait", "send", "cut", "silence", "restart 1", "restart 2", "garbage", "replay", "down"]
    )
    for act in data.draw(st.lists(acts, min_size=1, max_size=15)):
        for host in net.hosts.values():
            old += [payload for _, payload in host.machine.outbox]
        if act == "send":
            for source, target in ((1, 2), (2, 1)):
                numbers += 1
                sent[source].append(numbers)
                net.send(source, target, Cancel(numbers))
                old += [payload for _, payload in net.hosts[source].machine.outbox]
        elif act in ("cut", "silence"):
            net.cut(silently=act == "silence")
        elif act.startswith("restart"):
            node_id = int(act[-1])
            net.kill(node_id)
            net.run(chances.randint(0, 50))
            net.start(node_id, NAMES[node_id], {3 - node_id: NAMES[3 - node_id]})
        elif act == "garbage":
            _, send = net.dial(2)
            send(chances.randbytes(chances.randint(1, 40)))
        elif act == "replay" and old:
            for end in list(net._by_end):
                if net._by_end[end].is_open:
                    host = net.hosts[end[0]]
                    host.machine.received(end[1], chances.choice(old), net.now_ns)
        elif act == "down":
            net.is_down = not net.is_down
        net.run(chances.randint(0, 120))
    net.is_down = False
    net.run(3_000)
    first, second = net.hosts[1], net.hosts[2]
    assert first.kernel.connected == {2}
    assert second.kernel.connected == {1}
    assert epochs(first) == epochs(second)
    for source, host in ((1, second), (2, first)):
        messages = host.kernel.messages(source)
        got = [message.create_id for message in messages if isinstance(message, Cancel)]
        assert set(got) <= set(sent[source])
    net.send(1, 2, Cancel(10**6))
    net.run(100)
    assert second.kernel.messages(1)[-1] == Cancel(10**6)
    assert TIMING.longest_retry_ns == 160_000_000
