"""Classical sockets between processes: here, between networks in one process."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netqasm.sdk.classical_communication.message import StructuredMessage

from qnodeos.api import app_wire
from qnodeos.api.app_wire import (
    WINDOW_BYTES,
    AppHello,
    AppRefused,
    AppWelcome,
    Consumed,
    TextMessage,
)
from qnodeos.api.framing import Deframer, frame
from qnodeos.cnpu import app_network, app_session
from qnodeos.cnpu.app_network import AppNetwork
from qnodeos.cnpu.app_session import Session
from qnodeos.errors import (
    ApplicationLostError,
    CallerError,
    ConfigurationError,
    LimitError,
    MalformedMessageError,
    PeerProtocolError,
    ProgramStoppedError,
    UntrustedPeerError,
)
from qnodeos.transport import Address
from tests.service.certificates import Authority
from tests.service.fake_qnpu import DEADLINE_S, connected

IDS = {"client": 0, "server": 1}
ROLES = {"client": "client", "server": "server", "alice": "client"}
LOOPBACK = Address(host="127.0.0.1")
FORTH = ("client", "server", 0)
BACK = ("server", "client", 0)


@dataclass
class World:
    """Two nodes' networks, made and unmade by a test, and threads that use them."""

    folder: Path
    networks: list[AppNetwork] = field(default_factory=list)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))
    addresses: dict[str, Address] = field(default_factory=dict)

    def network(self, node: str, **options: Any) -> AppNetwork:
        options.setdefault("listen_on", self.addresses.get(node, LOOPBACK))
        network = AppNetwork(
            node_name=node,
            node_ids=IDS,
            applications=ROLES,
            peers={name: at for name, at in self.addresses.items() if name != node},
            **({"start_timeout_s": DEADLINE_S, "send_timeout_s": DEADLINE_S} | options),
        )
        self.networks.append(network)
        assert network.address is not None
        self.addresses[node] = network.address
        return network

    def pair(self, **options: Any) -> tuple[Session, Session]:
        """Sessions of the client and the server, connected."""
        server = self.network("server", **options)
        client = self.network("client", **options)
        sessions = client.session_with("server"), server.session_with("client")
        sessions[0].send(FORTH, "hello")
        assert sessions[1].receive(FORTH) == "hello"
        return sessions

    def close(self, network: AppNetwork) -> None:
        self.networks.remove(network)
        network.close()

    def spawn(self, work: Callable[..., Any], *arguments: Any, **keywords: Any) -> Future[Any]:
        return self.pool.submit(work, *arguments, **keywords)


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for network in world.networks:
        network.stop()
    world.pool.shutdown()
    for network in world.networks:
        network.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something another thread does."""
    tick = threading.Event()
    for _ in range(int(DEADLINE_S / 0.005)):
        if condition():
            return
        tick.wait(0.005)
    raise AssertionError("it did not happen")


# --- messages -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_messages_in_both_directions_keep_their_order(world, kind):
    if kind == "unix":
        world.addresses = {
            name: Address(path=str(world.folder / f"{name}.sock")) for name in ("server", "client")
        }
    client, server = world.pair()
    for number in range(20):
        client.send(FORTH, f"forth {number}")
        server.send(BACK, f"back {number}")
    assert [server.receive(FORTH) for _ in range(20)] == [f"forth {n}" for n in range(20)]
    assert [client.receive(BACK) for _ in range(20)] == [f"back {n}" for n in range(20)]


def test_structured_messages_and_any_text(world):
    client, server = world.pair()
    message = StructuredMessage("header", "päylöad")
    client.send(FORTH, message)
    client.send(FORTH, "")
    client.send(FORTH, "\0\n\U0001f600")
    assert server.receive(FORTH) == message
    assert server.receive(FORTH) == ""
    assert server.receive(FORTH) == "\0\n\U0001f600"


def test_channels_do_not_mix(world):
    client, server = world.pair()
    channels = [("client", "server", 1), ("client", "server", 2), ("alice", "server", 1)]
    for channel in channels:
        client.send(channel, repr(channel))
    for channel in reversed(channels):
        assert server.receive(channel) == repr(channel)


def test_each_of_many_waiting_threads_gets_its_message(world):
    client, server = world.pair()
    waiting = [world.spawn(server.receive, ("client", "server", n)) for n in range(6)]
    wait_until(lambda: len(server._followers) == 5)
    for number in (5, 0, 3, 1, 4, 2):
        client.send(("client", "server", number), str(number))
    assert [one.result(DEADLINE_S) for one in waiting] == list("012345")
    assert not server._has_leader
    assert not server._followers


def test_the_leader_hands_out_what_others_wait_for(world):
    client, server = world.pair()
    leader = world.spawn(server.receive, ("client", "server", 7))
    wait_until(lambda: server._has_leader)
    follower = world.spawn(server.receive, FORTH)
    wait_until(lambda: bool(server._followers))
    client.send(FORTH, "for the follower")
    assert follower.result(DEADLINE_S) == "for the follower"
    assert not leader.done()


def test_the_lead_is_passed_on_when_the_leader_gives_up(world):
    client, server = world.pair()
    leader = world.spawn(server.receive, ("client", "server", 7), timeout_s=0.2)
    wait_until(lambda: server._has_leader or leader.done())
    follower = world.spawn(server.receive, FORTH)
    with pytest.raises(RuntimeError, match=r"within 0\.2 s"):
        leader.result(DEADLINE_S)
    client.send(FORTH, "late")
    assert follower.result(DEADLINE_S) == "late"


@pytest.mark.parametrize("spin_s", [0.0, 0.001])
def test_ping_pong(world, spin_s):
    client, server = world.pair(spin_s=spin_s)

    def answer() -> None:
        for _ in range(200):
            server.send(BACK, server.receive(FORTH))

    answering = world.spawn(answer)
    for number in range(200):
        client.send(FORTH, str(number))
        assert client.receive(BACK) == str(number)
    answering.result(DEADLINE_S)


def test_looking_does_not_wait(world):
    client, server = world.pair()
    with pytest.raises(RuntimeError, match="no message from client has arrived"):
        server.receive(FORTH, block=False)
    client.send(FORTH, "there")

    def look() -> bool:
        with contextlib.suppress(RuntimeError):
            return bool(server.receive(FORTH, block=False) == "there")
        return False

    wait_until(look)


def test_a_wait_ends_in_time(world):
    _, server = world.pair()
    with pytest.raises(RuntimeError, match="within 0 s"):
        server.receive(FORTH, timeout_s=0)


def test_who_keeps_looking_sees_the_end_too(world):
    _, server = world.pair(spin_s=DEADLINE_S)
    with pytest.raises(RuntimeError, match="within"):
        server.receive(FORTH, timeout_s=0.01)
    waiting = world.spawn(server.receive, FORTH)
    wait_until(lambda: server._has_leader)
    world.networks[0].stop()
    with pytest.raises(ProgramStoppedError):
        waiting.result(DEADLINE_S)


def test_two_programs_at_one_channel(world):
    _, server = world.pair()
    first = world.spawn(server.receive, FORTH)
    wait_until(lambda: server._has_leader)
    with pytest.raises(LimitError, match="distinct socket ids"):
        server.receive(FORTH)
    assert not first.done()


def test_programs_of_one_process(world):
    network = world.network("client")
    session = network.session_with("client")
    waiting = world.spawn(session.receive, ("alice", "client", 0))
    wait_until(lambda: bool(session._followers))
    session.send(("alice", "client", 0), "hello")
    assert waiting.result(DEADLINE_S) == "hello"
    with pytest.raises(RuntimeError):
        session.receive(("alice", "client", 0), block=False)


# --- bounds ---------------------------------------------------------------------------

BIG = "x" * (1 << 19)


@pytest.mark.parametrize("where", ["other process", "same process"])
def test_a_sender_waits_for_a_receiver_that_is_slow(world, where):
    if where == "same process":
        network = world.network("client")
        sender = receiver = network.session_with("client")
        channel = ("alice", "client", 0)
    else:
        sender, receiver = world.pair()
        channel = FORTH
    sent: list[int] = []

    def send() -> None:
        for number in range(12):
            sender.send(channel, BIG)
            sent.append(number)

    sending = world.spawn(send)
    wait_until(lambda: len(sent) == 3)  # 3 of these, with their overhead, fit the window
    assert not sending.done()
    for _ in range(12):
        assert receiver.receive(channel) == BIG
    sending.result(DEADLINE_S)


def test_a_full_channel_does_not_hold_up_another(world):
    client, server = world.pair()
    for _ in range(3):
        client.send(FORTH, BIG)
    blocked = world.spawn(client.send, FORTH, BIG)
    client.send(("client", "server", 1), "past it")
    assert server.receive(("client", "server", 1)) == "past it"
    assert not blocked.done()
    for _ in range(4):
        server.receive(FORTH)
    blocked.result(DEADLINE_S)


def test_two_processes_that_send_much_to_each_other(world):
    client, server = world.pair()

    def flood(session: Session, out: str, back: str) -> int:
        for socket_id in range(8):
            for _ in range(3):
                session.send((out, back, socket_id), BIG)
        return sum(
            len(session.receive((back, out, socket_id))) for socket_id in range(8) for _ in range(3)
        )

    floods = [
        world.spawn(flood, client, "client", "server"),
        world.spawn(flood, server, "server", "client"),
    ]
    assert [one.result(DEADLINE_S) for one in floods] == [24 * len(BIG)] * 2


def test_a_receiver_that_never_takes_its_messages(world):
    client, _ = world.pair(send_timeout_s=0.05)
    for _ in range(3):
        client.send(FORTH, BIG)
    with pytest.raises(LimitError, match="does it call recv"):
        client.send(FORTH, BIG)


def test_long_messages_and_what_is_no_text(world):
    client, server = world.pair()
    with pytest.raises(LimitError, match="in parts"):
        client.send(FORTH, "x" * (1 << 20))
    with pytest.raises(CallerError, match="cannot be sent"):
        client.send(FORTH, "\ud800")
    with pytest.raises(CallerError, match="cannot be sent"):
        client.send(FORTH, StructuredMessage("header", 1 << 70))
    with pytest.raises(CallerError, match="plain data, not object"):
        client.send(FORTH, StructuredMessage("header", [object()]))
    with pytest.raises(CallerError, match="is a string"):
        client.send(FORTH, StructuredMessage(3, "payload"))
    deep: list[Any] = []
    for _ in range(20):
        deep = [deep]
    with pytest.raises(CallerError, match="nested"):
        client.send(FORTH, StructuredMessage("header", deep))
    client.send(FORTH, "fine")
    assert server.receive(FORTH) == "fine"


def test_channels_are_bounded(world, monkeypatch):
    client, server = world.pair()
    monkeypatch.setattr(app_session, "CHANNELS_MAX", 2)
    client.send(("client", "server", 1), "x")
    with pytest.raises(LimitError, match="one too many"):
        client.send(("client", "server", 2), "x")
    assert server.receive(("client", "server", 1)) == "x"
    with pytest.raises(LimitError, match="one too many"):
        server.receive(("client", "server", 2))


@pytest.mark.parametrize("where", ["other process", "same process"])
def test_programs_that_end_give_back_their_channels(world, monkeypatch, where):
    if where == "same process":
        network = world.network("client")
        sender = receiver = network.session_with("client")
        names = "alice", "client"
    else:
        sender, receiver = world.pair()
        names = "client", "server"
    monkeypatch.setattr(app_session, "CHANNELS_MAX", 3)
    for socket_id in range(10):
        channel = *names, socket_id
        reverse = *names[::-1], socket_id
        sender.send(channel, "question")
        assert receiver.receive(channel) == "question"
        receiver.send(reverse, "answer")
        assert sender.receive(reverse) == "answer"
        receiver.release(reverse)
        sender.look()  # the answer has brought what the release gives back, or will
        sender.release(channel)
        receiver.look()
        wait_until(lambda: (sender.look(), len(sender._on_the_way) <= 2)[1])
        wait_until(lambda: (receiver.look(), len(receiver._on_the_way) <= 2)[1])


def test_what_a_program_has_not_received_stays_for_the_next(world):
    client, server = world.pair()
    client.send(FORTH, "kept")
    client.release(FORTH)
    with contextlib.suppress(RuntimeError):
        server.receive(("alice", "server", 0), timeout_s=0.0)
    server.release(BACK)
    assert server.receive(FORTH) == "kept"
    client.send(FORTH, "again")
    assert server.receive(FORTH) == "again"


# --- who is there ---------------------------------------------------------------------


@pytest.mark.parametrize("first", ["client", "server"])
def test_either_may_start_first(world, first):
    # A port that is free now; the other process will listen there.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        world.addresses["server"] = Address(host="127.0.0.1", port=probe.getsockname()[1])
    if first == "client":
        client = world.network("client").session_with("server")
        sending = world.spawn(client.send, FORTH, "early")
        wait_until(lambda: "cannot connect" in client.problem)
        server = world.network("server").session_with("client")
    else:
        server = world.network("server").session_with("client")
        receiving = world.spawn(server.receive, FORTH)
        wait_until(lambda: bool(server._followers))
        client = world.network("client").session_with("server")
        sending = world.spawn(client.send, FORTH, "early")
        assert receiving.result(DEADLINE_S) == "early"
        sending.result(DEADLINE_S)
        return
    assert server.receive(FORTH) == "early"
    sending.result(DEADLINE_S)


@pytest.mark.parametrize("node", ["client", "server"])
def test_a_process_that_never_comes(world, node):
    world.addresses = {"client": Address(path="/nowhere/client"), "server": LOOPBACK}
    other = "server" if node == "client" else "client"
    options: dict[str, Any] = {"listen_on": LOOPBACK, "start_timeout_s": 0.1}
    session = world.network(node, **options).session_with(other)
    with pytest.raises(ApplicationLostError, match=f"node {other} has been there"):
        session.receive((other, node, 0))
    with pytest.raises(ApplicationLostError, match="qnodeos run"):
        session.send((node, other, 0), "x")
    with pytest.raises(RuntimeError, match="within"):
        session.receive((other, node, 0), timeout_s=0.0)


@pytest.mark.parametrize("dies", ["client", "server"])
def test_a_process_that_ends_while_another_waits(world, dies):
    client, server = world.pair()
    survivor, channel = (server, FORTH) if dies == "client" else (client, BACK)
    waiting = world.spawn(survivor.receive, channel)
    wait_until(lambda: survivor._has_leader)
    world.close(world.networks[1 if dies == "client" else 0])
    with pytest.raises(ApplicationLostError, match=f"node {dies} is gone"):
        waiting.result(DEADLINE_S)
    with pytest.raises(ApplicationLostError):
        survivor.send((channel[1], channel[0], 0), "x")
    with pytest.raises(ApplicationLostError):
        survivor.receive(channel, block=False)


def test_what_was_sent_before_the_end_is_received(world):
    client, server = world.pair()
    for number in range(5):
        client.send(FORTH, str(number))
    world.close(world.networks[1])
    assert [server.receive(FORTH) for _ in range(5)] == list("01234")
    with pytest.raises(ApplicationLostError, match="its programs have ended"):
        server.receive(FORTH)


@pytest.mark.parametrize("reset", [False, True])
def test_the_end_does_not_wait_for_one_who_has_gone_first(world, monkeypatch, reset):
    naps: list[float] = []
    monkeypatch.setattr(app_session, "sleep", naps.append)
    client, server = world.pair()
    if reset:  # the last word then meets a closed connection
        assert client._connection is not None
        client._connection.close()
        monkeypatch.setattr(server, "_read_now", lambda: None)
    else:
        world.close(world.networks[1])
    naps.clear()
    server.drain(DEADLINE_S)
    assert len(naps) < 1000  # it may take a moment until the other end's answer is here
    assert server.is_over or reset


def test_a_connection_that_breaks(world):
    client, server = world.pair()
    waiting = world.spawn(server.receive, FORTH)
    wait_until(lambda: server._has_leader)
    assert client._connection is not None
    client._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client._connection.close()
    with pytest.raises(ApplicationLostError, match="is gone"):
        waiting.result(DEADLINE_S)


@pytest.mark.parametrize("restarted", ["client", "server"])
def test_programs_that_start_later_talk_to_the_new_process(world, restarted):
    old_client, old_server = world.pair()
    index = 1 if restarted == "client" else 0
    remaining = world.networks[1 - index]
    world.close(world.networks[index])
    (old_server if restarted == "client" else old_client).look()
    fresh = world.network(restarted)
    new = fresh.session_with("server" if restarted == "client" else "client")
    again = remaining.session_with(restarted)
    assert again not in (old_client, old_server)
    client, server = (new, again) if restarted == "client" else (again, new)
    client.send(FORTH, "new")
    assert server.receive(FORTH) == "new"


def test_a_second_process_of_a_node_is_refused_while_the_first_is_there(world):
    world.pair()
    second = world.network("client", listen_on=LOOPBACK, start_timeout_s=0.1)
    session = second.session_with("server")
    wait_until(lambda: "another process of node client" in session.problem)
    with pytest.raises(ApplicationLostError, match="--listen and --reach"):
        session.receive(BACK)


def test_an_address_in_use(world):
    network = world.network("server")
    with pytest.raises(ConfigurationError, match="--listen"):
        world.network("server", listen_on=network.address)


def test_an_address_that_leaves_the_machine_needs_tls(world):
    with pytest.raises(ConfigurationError, match="TLS"):
        world.network("server", listen_on=Address(host="0.0.0.0"))
    world.addresses["server"] = Address(host="192.0.2.1", port=7)
    session = world.network("client").session_with("server")
    with pytest.raises(ConfigurationError, match="TLS"):
        session.receive(BACK)


def test_nothing_says_where_the_others_are(world):
    session = world.network("client").session_with("server")
    with pytest.raises(ConfigurationError, match="applications"):
        session.receive(BACK)


def test_stopping_ends_every_wait(world):
    _, server = world.pair()
    waiting = [world.spawn(server.receive, ("client", "server", n)) for n in range(3)]
    wait_until(lambda: len(server._followers) == 2)
    world.networks[0].stop()
    for one in waiting:
        with pytest.raises(ProgramStoppedError):
            one.result(DEADLINE_S)
    with pytest.raises(ProgramStoppedError):
        server.receive(FORTH)
    with pytest.raises(ProgramStoppedError):
        world.networks[0].session_with("client")


# --- hostile peers --------------------------------------------------------------------


def greeted(address: Address, node: str = "client", version: int = 1) -> socket.socket:
    """A connection that has said hello."""
    connection = connected(address)
    connection.sendall(frame(app_wire.encode(AppHello(version, node))))
    return connection


def answer_of(connection: socket.socket) -> Any:
    """The next message on a plain socket; None if it was closed."""
    deframer = Deframer()
    while data := connection.recv(4096):
        for payload in deframer.feed(data):
            return app_wire.decode(payload)
    return None


@pytest.mark.parametrize(
    ("node", "version"), [("client", 99), ("server", 1), ("nobody", 1), ("", 1)]
)
def test_a_wrong_greeting_is_refused(world, node, version):
    server = world.network("server")
    with greeted(server.address, node, version) as connection:
        assert isinstance(answer_of(connection), AppRefused)
        assert answer_of(connection) is None


@settings(max_examples=20, deadline=None)
@given(garbage=st.binary(min_size=5, max_size=64))
def test_garbage_instead_of_a_greeting(garbage):
    with contextlib.ExitStack() as stack:
        network = AppNetwork(
            node_name="server", node_ids=IDS, applications=ROLES, listen_on=LOOPBACK, peers={}
        )
        stack.callback(network.close)
        assert network.address is not None
        with connected(network.address) as connection, contextlib.suppress(OSError):
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            assert answer_of(connection) is None


def test_greetings_that_never_come_do_not_keep_others_away(world, monkeypatch):
    monkeypatch.setattr(app_network, "HANDSHAKE_TIMEOUT_S", 1_000.0)
    server = world.network("server")
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(connected(server.address))
            for _ in range(app_network.HANDSHAKES_MAX + 2)
        ]
        client = world.network("client").session_with("server")
        client.send(FORTH, "through")
        assert server.session_with("client").receive(FORTH) == "through"
        # The newest replace the oldest: two beyond the bound, and the client.
        for replaced in silent[:3]:
            assert replaced.recv(1) == b""
        wait_until(lambda: len(server._greeting) == app_network.HANDSHAKES_MAX - 1)
        assert not select.select(silent[3:], (), (), 0)[0]


def test_without_descriptors_it_does_not_ask_again_and_again(world):
    network = world.network("server")
    readable = os.eventfd(1)
    tries: list[int] = []
    waits: list[float | None] = []

    class Listener:
        def fileno(self) -> int:
            return readable

        def accept(self) -> None:
            tries.append(len(tries))
            if len(tries) == 10:
                network._stopped.set()
            raise OSError(errno.EMFILE, "too many")

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            if len(waits) == 3:
                self.set()
            return self.is_set()

    network._stopped = Stopped()
    network._accept(Listener())
    os.close(readable)
    assert len(tries) == len(waits) == 3


FOREIGN = [
    TextMessage("server", "server", 0, "forged"),
    TextMessage("client", "elsewhere", 0, "forged"),
    TextMessage("nobody", "server", 0, "forged"),
    Consumed("server", "client", 0, 5),
    AppWelcome(1, "client"),
]


@pytest.mark.parametrize("message", FOREIGN, ids=lambda message: type(message).__name__)
def test_messages_that_cannot_be(world, message):
    server = world.network("server")
    with greeted(server.address) as connection:
        assert isinstance(answer_of(connection), AppWelcome)
        connection.sendall(frame(app_wire.encode(message)))
        with pytest.raises(PeerProtocolError):
            server.session_with("client").receive(FORTH)
        assert answer_of(connection) is None


@pytest.mark.parametrize("data", [frame(b"rubbish"), b"\xff\xff\xff\xff", frame(b"\x91\x7f")])
def test_garbage_in_a_session(world, data):
    server = world.network("server")
    with greeted(server.address) as connection:
        assert isinstance(answer_of(connection), AppWelcome)
        connection.sendall(data)
        with pytest.raises(ApplicationLostError, match="is gone"):
            server.session_with("client").receive(FORTH)


def test_a_flood_beyond_the_window(world):
    server = world.network("server")
    payload = frame(app_wire.encode(TextMessage("client", "server", 1, BIG)))
    with greeted(server.address) as connection:
        assert isinstance(answer_of(connection), AppWelcome)

        def flood() -> None:
            with contextlib.suppress(OSError):
                for _ in range(100):
                    connection.sendall(payload)

        flooding = world.spawn(flood)
        session = server.session_with("client")
        with pytest.raises(PeerProtocolError, match=str(WINDOW_BYTES)):
            session.receive(FORTH)
        flooding.result(DEADLINE_S)


def test_a_server_that_is_none_of_ours(world):
    with socket.create_server(("127.0.0.1", 0)) as impostor:
        world.addresses["server"] = Address(host="127.0.0.1", port=impostor.getsockname()[1])
        session = world.network("client").session_with("server")
        connection, _ = impostor.accept()
        with connection:
            assert isinstance(answer_of(connection), AppHello)
            connection.sendall(frame(app_wire.encode(AppWelcome(1, "someone else"))))
            with pytest.raises(PeerProtocolError, match="of node someone else"):
                session.receive(BACK)


# --- the codec ------------------------------------------------------------------------

names = st.text(max_size=20)
socket_ids = st.integers(-(1 << 31), (1 << 31) - 1)
texts = st.text(max_size=50)
messages = st.one_of(
    st.builds(AppHello, st.integers(0, 9), names),
    st.builds(AppWelcome, st.integers(0, 9), names),
    st.builds(AppRefused, texts),
    st.builds(TextMessage, names, names, socket_ids, texts),
    st.builds(app_wire.StructuredContent, names, names, socket_ids, texts, texts),
    st.builds(Consumed, names, names, socket_ids, st.integers(1, WINDOW_BYTES)),
    st.just(app_wire.Goodbye()),
)


@given(messages)
def test_messages_survive_the_wire(message):
    assert app_wire.decode(app_wire.encode(message)) == message


plain = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | texts | st.binary()
values = st.recursive(
    plain | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(plain, inner, max_size=3)
    ),
    max_leaves=10,
)


@given(values)
def test_payloads_are_what_they_were(value):
    message = app_wire.StructuredContent("a", "b", 0, "header", app_wire.pack(value))
    decoded = app_wire.decode(app_wire.encode(message))
    assert isinstance(decoded, app_wire.StructuredContent)
    assert decoded.payload == value


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_an_error(data):
    with contextlib.suppress(MalformedMessageError):
        app_wire.decode(data)


@given(messages, st.data())
def test_cut_messages_are_errors(message, data):
    payload = app_wire.encode(message)
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(MalformedMessageError):
        app_wire.decode(payload[:cut])


# --- across machines ------------------------------------------------------------------

ANYWHERE = Address(host="0.0.0.0")
"""Leaves the machine, so TLS is used; as a destination it is this machine."""


def secure_pair(world: World, client_files: Any, server_files: Any) -> tuple[Session, Session]:
    server = world.network("server", listen_on=ANYWHERE, tls=server_files)
    client = world.network("client", listen_on=LOOPBACK, tls=client_files, start_timeout_s=1.0)
    return client.session_with("server"), server.session_with("client")


def test_messages_over_tls(world, tmp_path):
    authority = Authority()
    client, server = secure_pair(
        world,
        authority.issue(tmp_path / "client", "client"),
        authority.issue(tmp_path / "server", "server"),
    )
    client.send(FORTH, BIG)
    assert server.receive(FORTH) == BIG
    for _ in range(6):
        server.send(BACK, "x" * 300_000)
    assert [len(client.receive(BACK)) for _ in range(6)] == [300_000] * 6
    waiting = world.spawn(server.receive, FORTH)
    world.close(world.networks[1])
    with pytest.raises(ApplicationLostError, match="its programs have ended"):
        waiting.result(DEADLINE_S)


@pytest.mark.parametrize(
    "wrong", ["name of the server", "authority of the server", "name of the client"]
)
def test_certificates_that_are_not_right(world, tmp_path, wrong):
    authority = Authority()
    client_name = "other" if wrong == "name of the client" else "client"
    server_name = "other" if wrong == "name of the server" else "server"
    server_authority = Authority() if wrong == "authority of the server" else authority
    client, server = secure_pair(
        world,
        authority.issue(tmp_path / "client", client_name),
        server_authority.issue(tmp_path / "server", server_name, trusts=authority),
    )
    expected = ApplicationLostError if wrong == "name of the client" else UntrustedPeerError
    with pytest.raises(expected, match="certificate"):
        client.send(FORTH, "x")
    with pytest.raises(RuntimeError):
        server.receive(FORTH, block=False)


def test_a_client_without_a_certificate(world, tmp_path):
    authority = Authority()
    files = authority.issue(tmp_path / "server", "server")
    network = world.network("server", listen_on=ANYWHERE, tls=files)
    assert network.address is not None
    context = ssl.create_default_context(cafile=str(files.authority))
    with (
        connected(network.address) as plain,
        context.wrap_socket(plain, server_hostname="server") as secure,
        pytest.raises(OSError, match="certificate required"),
    ):
        secure.sendall(frame(app_wire.encode(AppHello(1, "client"))))
        secure.recv(1)
