"""Clients that mean harm, or do it: nobody else's program is touched, seen or starved."""

from __future__ import annotations

import os
import resource
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qnodeos.api.framing import frame
from qnodeos.api.host_wire import (
    PROTOCOL_VERSION,
    Cancel,
    GetStatistics,
    Hello,
    ListProcesses,
    Netqasm,
    Ping,
    Pong,
    ProcessList,
    Refused,
    Register,
    Reply,
    Subscribe,
    encode,
)
from tests.service.service_bench import (
    ENDLESS,
    MEASURE_ONE,
    Bench,
    Peer,
    benches,
    nv,
    nv_device,
)
from tests.unit.kernel_programs import init_app, stop_app
from tests.unit.kernel_programs import register as register_code

FLOOD = 10_000
HOLD_ONE = "set Q0 0\nqalloc Q0\ninit Q0\nrot_x Q0 16 4"
READ_IT = "set Q0 0\nmeas Q0 M0\nqfree Q0\nret_reg M0"


@pytest.fixture
def make():
    yield from benches()


@pytest.fixture
def many_descriptors():
    """As many as the flood needs, or as many as there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FLOOD + 1_000
    raised = max(soft, wanted if hard == resource.RLIM_INFINITY else min(hard, wanted))
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    yield raised
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- other programs ---------------------------------------------------------------------


def test_the_program_of_another_connection_cannot_be_touched(make):
    bench = make(instructions_per_activation=100_000_000, activation_ms=3_600_000)
    victim, attacker = bench.client(), bench.client(tcp=True)
    victim.register(0)
    assert victim.run(HOLD_ONE).error is None
    running = victim.request(nv(0, ENDLESS))
    bench.turns(2)
    for raw in (nv(0, READ_IT), stop_app(0), nv(1, READ_IT)):
        error = attacker.ask(raw).error
        assert error is not None
        assert error.kind == "UnknownProcessError"
    attacker.send(Cancel(90, running))
    assert attacker.reply(90).error.kind == "UnknownSubroutineError"
    victim.send(Cancel(90, running))
    assert victim.reply(90).error is None
    # A program of its own with the same number is another program.
    attacker.register(0)
    assert attacker.run("set R0 1\nret_reg R0").error is None
    assert victim.run(READ_IT).results == ((register_code("M0"), 1),)


@pytest.mark.parametrize(
    "program",
    [
        "set Q0 0\nmeas Q0 M0",
        "set Q0 0\nqfree Q0",
        "set Q0 0\nrot_x Q0 16 4",
        "set Q0 0\ninit Q0",
        "set Q0 1\nmeas Q0 M0",
        "set Q0 2147483647\nmeas Q0 M0",
        "set Q0 -1\nqfree Q0",
    ],
)
def test_the_qubit_of_another_program_cannot_be_touched(make, program):
    bench = make()
    victim, attacker = bench.client(), bench.client(tcp=True)
    victim.register(0)
    assert victim.run(HOLD_ONE).error is None
    attacker.register(0, qubits=255)
    before = len(bench.engine.submitted)
    assert attacker.run(program).error is not None
    assert len(bench.engine.submitted) == before
    assert victim.run(READ_IT).results == ((register_code("M0"), 1),)


def test_arrays_and_registers_are_not_shared(make):
    bench = make()
    victim, attacker = bench.client(), bench.client(tcp=True)
    for peer in (victim, attacker):
        peer.register(0)
    assert victim.run("set R0 1\nset R1 42\narray R0 @0\nset R2 0\nstore R1 @0[R2]").error is None
    assert attacker.run("ret_reg R1").results == ((register_code("R1"), 0),)
    assert attacker.run("ret_arr @0").error.kind == "ArrayAccessError"


def test_numbers_of_others_in_the_list_are_not_shown(make):
    bench = make()
    victim, attacker = bench.client(), bench.client(tcp=True)
    victim.register(0)
    assert victim.run(HOLD_ONE).error is None
    attacker.send(ListProcesses(0))
    assert attacker.take(ProcessList).processes == ()


# --- starving -----------------------------------------------------------------------------


def test_endless_loops_end_and_others_have_their_turn(make):
    bench = make(instructions_per_activation=1_000, instructions_per_tick=100)
    victim, attacker = bench.client(), bench.client(tcp=True)
    victim.register(0)
    attempts: dict[int, int] = {}
    numbers = count(1_000)

    def attack(app_id: int) -> None:
        attempt = next(numbers)
        attempts[attempt] = app_id
        attacker.send(Register(next(numbers), app_id, 1, 0), Netqasm(attempt, nv(app_id, ENDLESS)))

    for app_id in range(4):
        attack(app_id)
    ended = 0
    longest = 0
    for _ in range(5):
        since = bench.engine.now_tick()
        waiting = victim.request(nv(0, MEASURE_ONE))
        while victim.find(waiting) is None:
            bench.turn()
            while attacker.messages:
                reply = attacker.messages.popleft()
                if reply.error is not None:
                    assert reply.error.kind == "InstructionBudgetError"
                    ended += 1
                    attack(attempts.pop(reply.request))
        assert victim.reply(waiting).error is None
        longest = max(longest, bench.engine.now_tick() - since)
    assert ended >= 16
    # Each of the four holds the QNPU for some 10 ticks before it is the victim's turn, which
    # takes as long as its device does.
    assert longest < 200


def test_a_qubit_that_is_kept_goes_to_who_waits_for_it(make):
    bench = make(qubit_ms=10)
    attacker, victim = bench.client(tcp=True), bench.client()
    attacker.register(0)
    victim.register(0)
    assert attacker.run(HOLD_ONE).error is None
    bench.engine.advance(2_000)
    assert attacker.run("").error is None, "nobody wanted it"
    waiting = victim.request(nv(0, MEASURE_ONE))
    bench.turns(3)
    bench.engine.advance(900)
    assert attacker.run("").error is None
    assert victim.find(waiting) is None
    bench.engine.advance(200)
    assert victim.reply(waiting).error is None
    error = attacker.run(READ_IT).error
    assert error is not None
    assert "qubit_ticks=1000" in error.text


def test_priorities_are_not_for_strangers(make):
    bench = make()
    attacker = bench.client(tcp=True)
    attacker.send(Register(0, 0, 1, 1))
    assert attacker.reply(0).error.kind == "LimitError"
    bench.client().register(0, priority=1)


def test_a_flood_of_requests_does_not_hold_up_another(make):
    bench = make(messages_per_turn=4)
    victim, attacker = bench.client(), bench.client(tcp=True)
    victim.register(0)
    attacker.register(0)
    attacker.is_reading = False
    data = b"".join(frame(encode(Netqasm(n, nv(0, "set R0 1")))) for n in range(1_000, 5_000))
    sent = attacker.socket.send(data)
    bench.turns(2)
    for _ in range(20):
        before = bench.service.statistics()["service"]["turns"]
        assert victim.run("").error is None
        assert bench.service.statistics()["service"]["turns"] - before <= 2
        if sent < len(data):
            try:
                sent += attacker.socket.send(data[sent:])
            except BlockingIOError:
                continue


def test_however_many_flood_the_device_is_looked_after_in_every_turn(make):
    bench = make()
    victim = bench.client()
    victim.register(0)

    def ticks_of_a_program(attack: Callable[[], None]) -> Any:
        """From the first physical instruction on; before, the subroutine waits to be read."""
        number = victim.request(nv(0, MEASURE_ONE))
        since: int | None = None
        while victim.find(number) is None:
            attack()
            bench.turn()
            if since is None and not bench.engine.idle:
                since = bench.engine.now_tick()
        assert since is not None
        return bench.engine.now_tick() - since

    def attack() -> None:
        for attacker in attackers[:30]:
            attacker.socket.send(ping)

    alone = ticks_of_a_program(lambda: None)
    ping = frame(encode(Ping(0)))
    attackers = [bench.client() for _ in range(45)]
    for attacker in attackers[30:]:  # some have said all at once, the others go on and on
        attacker.socket.send(ping * 1_000)
    turns = bench.service.statistics()["service"]["turns"]
    answered = bench.service.server.counters.replies
    assert ticks_of_a_program(attack) <= alone + 1
    turns = bench.service.statistics()["service"]["turns"] - turns
    assert bench.service.server.counters.replies - answered <= 32 * turns


def test_a_flood_of_programs_does_not_take_all_places(make):
    bench = make(programs_per_client=2, processes=8)
    attacker = bench.client(tcp=True)
    attacker.send(*(Register(number, number, 1, 0) for number in range(50)))
    bench.until(lambda: len(attacker.messages) == 50)
    bench.client().register(0)
    assert len(bench.kernel.processes) == 3


def test_a_flood_of_sockets_and_arrays_stays_within_its_bounds(make):
    bench = make(array_entries=1_000, array_length=100)
    attacker = bench.client(tcp=True)
    attacker.register(0)
    for number in range(200):
        assert attacker.run(f"set R0 100\narray R0 @{number}").error is None
    [process] = bench.kernel.processes.values()
    assert sum(map(len, process.memory.arrays.values())) <= 1_000


# --- connections ---------------------------------------------------------------------------


def flood(bench: Bench, number: int, most: int, victim: Peer, *, tcp: bool) -> int:
    """Connect often and say nothing; meanwhile the victim works. How many were made."""
    address = bench.service.server.addresses[1 if tcp else 0]
    family, place = address.resolve()
    held: list[socket.socket] = []
    counters = bench.service.server.counters
    made = 0
    try:
        while made < number:
            before, expected = len(held), counters.accepted
            for _ in range(min(50, number - made)):  # what the backlog holds
                connection = socket.socket(family, socket.SOCK_STREAM)
                connection.setblocking(False)
                held.append(connection)
                with suppress(BlockingIOError):
                    connection.connect(place)
                made += 1
            expected += len(held) - before
            bench.until(lambda: counters.accepted >= expected)  # noqa: B023
            assert bench.service.server.open_sockets <= 2 + bench.node.limits.handshakes
            while len(held) > most:
                held.pop(0).close()
            if made % 1_000 == 0:
                assert victim.run(MEASURE_ONE).error is None
                newcomer = bench.client(tcp=tcp)
                assert newcomer.ask(init_app(0)).error is None
                newcomer.close()
        return made
    finally:
        for connection in held:
            connection.close()


@pytest.mark.parametrize("tcp", [False, True])
def test_ten_thousand_idle_connections(make, many_descriptors, tcp):
    bench = make(handshakes=64, connections=2)
    victim = bench.client()
    victim.register(0)
    most = many_descriptors - len(os.listdir("/proc/self/fd")) - 300
    assert flood(bench, FLOOD, most, victim, tcp=tcp) == FLOOD
    bench.turns(5)
    assert victim.run(MEASURE_ONE).error is None
    assert bench.service.server.counters.accepted >= FLOOD
    assert bench.service.server.counters.evicted_handshakes + bench.service.server.counters.lost > (
        FLOOD - 100
    )
    victim.close()
    bench.pass_ms(6_000)
    bench.check_clean()


def test_ten_thousand_connections_beyond_the_limit(make, many_descriptors):
    """All places are taken, by connections that introduced themselves; the others are told so."""
    bench = make(connections=2)
    victim, other = bench.client(), bench.client()
    victim.register(0)
    told = 0
    for _ in range(200):
        batch = [bench.connect(tcp=True) for _ in range(50)]
        bench.until(lambda: all(peer.messages for peer in batch))  # noqa: B023
        for peer in batch:
            told += bool(peer.messages) and isinstance(peer.messages[0], Refused)
            peer.close()
        bench._peers = [victim, other]
        assert victim.run("").error is None
        bench.turn()
    assert told == FLOOD
    assert bench.service.server.counters.refused_connections == FLOOD
    assert bench.service.server.connections == 2


def test_half_a_message_is_not_waited_for(make):
    bench = make(idle_ms=1_000)
    client, other = bench.client(), bench.client()
    client.register(0)
    client.send_bytes(struct.pack("<I", 100) + b"half")
    for nonce in range(6):
        bench.pass_ms(300)
        other.send(Ping(nonce))
        assert other.take(Pong)
    assert client.refusal().kind == "ConnectionLostError"
    assert not bench.kernel.processes


def test_a_hello_in_slow_drops_runs_out_of_time(make):
    bench = make(handshake_ms=1_000)
    peer = bench.connect()
    for byte in frame(encode(Hello(PROTOCOL_VERSION, "drop by drop")))[:-1]:
        peer.send_bytes(bytes([byte]))
        bench.pass_ms(100)
        if peer.is_over:
            break
    assert "handshake_ms" in peer.refusal().text


def test_the_system_watches_for_machines_that_vanish(make):
    bench = make()
    bench.client(tcp=True)
    [client] = bench.service.server._served.values()
    assert client.connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert client.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000


def test_a_connection_that_is_reset_leaves_nothing(make):
    bench = make()
    client = bench.client(tcp=True)
    client.register(0)
    client.request(nv(0, ENDLESS))
    bench.turns(2)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    bench.turns(3)
    bench.check_clean()
    assert bench.service.server.counters.lost == 1


@pytest.mark.parametrize("version", [PROTOCOL_VERSION, PROTOCOL_VERSION + 1])
@pytest.mark.parametrize("tcp", [False, True])
def test_one_that_says_much_and_is_gone(make, version, tcp):
    """By the time it is refused, or answered, there is nobody to tell."""
    bench = make()
    client = bench.connect(tcp=tcp)
    client.send(
        Hello(version, "hasty"), Register(0, 0, 1, 0), Subscribe(1, True), Subscribe(2, True),
        *(Ping(number) for number in range(20)),
    )  # fmt: skip
    client.close()
    bench.turns(20)
    bench.check_clean()


def test_a_flood_that_ends_in_a_reset_is_dropped(make):
    """What had been received and not been looked at is forgotten with the connection."""
    bench = make(messages_per_turn=1)
    client = bench.client(tcp=True)
    client.send(*(Ping(number) for number in range(1_000)))
    bench.turns(3)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    bench.turns(5)
    bench.check_clean()


# --- garbage ---------------------------------------------------------------------------------

TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=40)
    | st.text(max_size=20) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)  # fmt: skip
SMALL = st.integers(0, 5)
MESSAGES = st.one_of(
    st.builds(Hello, st.integers(0, 3), st.text(max_size=10)),
    st.builds(Netqasm, SMALL, st.binary(max_size=60)),
    st.builds(
        Netqasm,
        st.integers(0, 50),
        st.sampled_from(
            [init_app(0), init_app(1), stop_app(0), nv(0, ENDLESS), nv(0, MEASURE_ONE), nv(1, "")]
        ),
    ),
    st.builds(
        Register, st.integers(0, 50), SMALL, st.integers(0, 255), st.integers(-(1 << 31), 200)
    ),
    st.builds(Cancel, st.integers(0, 50), SMALL),
    st.builds(ListProcesses, SMALL),
    st.builds(GetStatistics, SMALL),
    st.builds(Subscribe, SMALL, st.booleans()),
    st.builds(Ping, SMALL),
)
PIECES = st.one_of(
    st.binary(max_size=200),
    st.binary(min_size=1, max_size=200).map(frame),
    TREES.map(lambda tree: frame(msgspec.msgpack.encode(tree))),
    MESSAGES.map(lambda message: frame(encode(message))),
)


@pytest.fixture
def shared():
    makers = benches()
    make = next(makers)
    yield make(instructions_per_activation=1_000, requests_per_client=5, messages_per_turn=3)
    with pytest.raises(StopIteration):
        next(makers)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pieces=st.lists(PIECES, max_size=12), tcp=st.booleans(), greets=st.booleans())
def test_garbage_harms_only_its_sender(shared, pieces, tcp, greets):
    bench = shared
    attacker, victim = bench.connect(tcp=tcp), bench.client()
    if greets:
        attacker.greet()
    victim.register(0)
    for piece in pieces:
        try:
            attacker.send_bytes(piece)
        except ConnectionError:
            break
        bench.turn()
    assert victim.run(MEASURE_ONE).error is None
    if attacker.is_over:
        assert isinstance(attacker.messages[-1], Refused)
        assert attacker.messages[-1].text
    elif greets:
        attacker.read()
    replies = [message.request for message in attacker.messages if isinstance(message, Reply)]
    assert len(replies) <= len(pieces)
    attacker.close()
    victim.close()
    bench._peers.clear()
    bench.turns(30)
    bench.check_clean()


ACTIONS = st.one_of(
    st.tuples(st.just("connect"), st.booleans()),
    st.tuples(st.just("greet"), SMALL),
    st.tuples(st.just("send"), SMALL, st.lists(PIECES, min_size=1, max_size=25)),
    st.tuples(st.just("deaf"), SMALL),
    st.tuples(st.just("close"), SMALL),
    st.tuples(st.just("reset"), SMALL),
    st.tuples(st.just("turn"), st.integers(1, 30)),
    st.tuples(st.just("wait_ms"), st.integers(1, 3_000)),
    st.tuples(st.just("device"), st.booleans()),
)


def act(bench: Bench, peers: list[Peer], action: tuple[Any, ...]) -> None:
    """Do one of the `ACTIONS`; those on a peer that is not there do nothing."""
    kind, which, *rest = action
    if kind == "connect":
        if len(peers) < 6:
            peers.append(bench.connect(tcp=which))
    elif kind == "turn":
        bench.turns(which)
    elif kind == "wait_ms":
        bench.pass_ms(which)
    elif kind == "device":
        if not which and bench.engine.is_device_alive:
            bench.engine.kill_device()
        elif which and not bench.engine.is_device_alive and bench.engine.idle:
            bench.engine.revive_device(nv_device())
    elif which < len(peers):
        peer = peers[which]
        if kind == "deaf":
            peer.is_reading = False
        elif kind in ("close", "reset"):
            if kind == "reset":
                linger = struct.pack("ii", 1, 0)
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            peers.pop(which).close()
        else:
            hello = frame(encode(Hello(PROTOCOL_VERSION, "x")))
            with suppress(OSError):  # its buffers are full, or the service has hung up
                peer.socket.send(hello if kind == "greet" else b"".join(rest[0]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(actions=st.lists(ACTIONS, max_size=40))
def test_whatever_clients_and_devices_do_nothing_is_left(shared, actions):
    bench = shared
    peers: list[Peer] = []
    for action in actions:
        act(bench, peers, action)
    if not bench.engine.is_device_alive:
        bench.until(lambda: bench.engine.idle)
        bench.engine.revive_device(nv_device())
    for peer in peers:
        peer.close()
    bench._peers.clear()
    bench.until(lambda: not bench.service.server.open_sockets and bench.engine.idle)
    bench.check_clean()
    victim = bench.client()
    victim.register(0)
    assert victim.run(MEASURE_ONE).error is None
    victim.close()
    bench._peers.clear()
    bench.turns(5)


def test_what_is_not_a_message_is_named(make):
    bench = make()
    for payload, words in (
        (b"GET / HTTP/1.1\r\n\r\n", "frame announces"),
        (frame(b"\xc1"), "not a message of a client"),
        (frame(encode(Pong(3))), "not a message of a client"),
    ):
        peer = bench.connect()
        peer.send_bytes(payload)
        refusal = peer.refusal()
        assert refusal.kind == "MalformedMessageError"
        assert words in refusal.text
