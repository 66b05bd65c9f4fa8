"""The peer protocol on real sockets: nodes, a controller, TLS, and what strangers do."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any

import pytest

from qnodeos.api.framing import Deframer, frame
from qnodeos.api.peer import Cancel, Reject
from qnodeos.api.peer_wire import (
    PROTOCOL_VERSION,
    PeerHello,
    PeerRefused,
    WireCancel,
    decode,
    encode,
)
from qnodeos.cli.two_nodes import free_ports
from qnodeos.errors import ConfigurationError
from qnodeos.service.controller_file import ControllerFile
from qnodeos.service.controller_run import run_controller
from qnodeos.service.loop import Loop
from qnodeos.service.node_file import NodeFile
from qnodeos.service.peer_connections import PeerConnections
from qnodeos.service.peer_session import PeerTiming, connection_epoch
from qnodeos.service.peers import MAX_GREETING
from qnodeos.transport import TlsFiles
from tests.service.certificates import Authority
from tests.service.peer_net import MS, TICK_NS, FakeKernel

TIMING = PeerTiming(
    heartbeat_ns=20 * MS,
    silence_ns=3_000 * MS,
    handshake_ns=300 * MS,
    first_retry_ns=5 * MS,
    longest_retry_ns=50 * MS,
)
DEADLINE_S = 20.0
NAMES = {1: "one", 2: "two"}


class Node:
    """One node on a loop that several may share."""

    def __init__(self, loop: Loop, file: NodeFile, incarnation: int = 1) -> None:
        self.kernel = FakeKernel()
        self.said: list[str] = []
        self.file = file
        self.connections = PeerConnections(
            file,
            self.kernel,
            loop=loop,
            incarnation=incarnation,
            tick_ns=TICK_NS,
            tick=lambda: monotonic_ns() // TICK_NS,
            read_tick=lambda: monotonic_ns() // TICK_NS,
            timing=TIMING,
            say=self.said.append,
        )

    @property
    def port(self) -> int:
        address = self.connections.address
        assert address is not None
        return address.port

    def close(self) -> None:
        self.connections.close()


def node_file(
    node_id: int, addresses: dict[int, str], tls: TlsFiles | None = None, **changes: Any
) -> NodeFile:
    values: dict[str, Any] = {
        "name": NAMES[node_id],
        "node_id": node_id,
        "device": {"link": "loopback"},
        "api": {"listen": ["unix:api.sock"]},
        "peer": {"listen": addresses[node_id]},
        "peers": {NAMES[3 - node_id]: {"node_id": 3 - node_id, "address": addresses[3 - node_id]}},
        "tls": None if tls is None else tls.model_dump(),
    }
    return NodeFile.model_validate(values | changes)


@contextmanager
def nodes(
    host: str = "127.0.0.1", tls: dict[int, TlsFiles] | None = None
) -> Iterator[tuple[Loop, Node, Node]]:
    """Two neighbours on TCP."""
    addresses = {
        node_id: f"tcp:{host}:{port}" for node_id, port in zip(NAMES, free_ports(2), strict=True)
    }
    with ExitStack() as cleanup:
        loop = cleanup.enter_context(closing(Loop()))
        both = [
            cleanup.enter_context(
                closing(Node(loop, node_file(node_id, addresses, (tls or {}).get(node_id))))
            )
            for node_id in NAMES
        ]
        yield loop, both[0], both[1]


def turn_until(loop: Loop, condition: Callable[[], bool], what: str = "") -> None:
    deadline = monotonic() + DEADLINE_S
    while not condition():
        assert monotonic() < deadline, what
        loop.dispatch(loop.wait(0.01))


def attempts(node: Node) -> int:
    """Connections node 1 has tried to make."""
    number: int = node.connections.statistics()["neighbours"]["two"]["connections"]
    return number


def connected(*both: Node) -> bool:
    return all(len(node.kernel.connected) == 1 for node in both)


# --- nodes ----------------------------------------------------------------------------


def test_two_nodes_connect_talk_and_notice_the_end():
    with nodes() as (loop, one, two):
        turn_until(loop, lambda: connected(one, two))
        one.connections.send([(2, Cancel(7))])
        two.connections.send([(1, Cancel(8))])
        turn_until(loop, lambda: bool(two.kernel.messages(1) and one.kernel.messages(2)))
        assert one.kernel.messages(2) == [Cancel(8)]
        assert two.kernel.messages(1) == [Cancel(7)]
        two.close()
        turn_until(loop, lambda: not one.kernel.connected)
        with closing(Node(loop, two.file, incarnation=2)) as again:
            turn_until(loop, lambda: connected(one, again))
        assert one.connections.statistics()["neighbours"]["two"]["lost"] >= 1


def test_unix_sockets(tmp_path):
    addresses = {node_id: f"unix:{tmp_path}/{node_id}.sock" for node_id in NAMES}
    with closing(Loop()) as loop, closing(Node(loop, node_file(1, addresses))) as one:
        turn_until(loop, lambda: bool(one.said))
        assert "no connection to two: nobody answers" in one.said[0]
        with closing(Node(loop, node_file(2, addresses))) as two:
            turn_until(loop, lambda: connected(one, two))
            turn_until(loop, lambda: two.connections.statistics()["refused"] == 0)


def test_a_node_that_must_listen_and_does_not():
    addresses = {1: "tcp:127.0.0.1:1", 2: "tcp:127.0.0.1:2"}
    with closing(Loop()) as loop, pytest.raises(ConfigurationError, match=r"give peer\.listen"):
        Node(loop, node_file(2, addresses, peer=None))


def test_an_address_in_use():
    with nodes() as (loop, one, _), pytest.raises(ConfigurationError, match="cannot listen on"):
        Node(loop, one.file)


# --- strangers ------------------------------------------------------------------------


def exchange(loop: Loop, port: int, data: bytes) -> tuple[list[bytes], bool]:
    """Send something to a port; the payloads that come back, once the other end has closed."""
    deframer, payloads = Deframer(), []
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(data)
        stranger.setblocking(False)
        closed: list[bool] = []

        def look() -> bool:
            try:
                received = stranger.recv(65_536)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                received = b""
            if received:
                payloads.extend(deframer.feed(received))
                return False
            closed.append(True)
            return True

        turn_until(loop, look, "the node does not close the connection")
    return payloads, bool(closed)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: one\r\n\r\n", "a frame announces"),
        (struct.pack("<I", 1 << 31) + b"x", "a frame announces 2147483648 bytes"),
        (struct.pack("<I", 0), "a frame announces 0 bytes"),
        (frame(b"\xc1" * 20), "not a message of a QNPU"),
        (
            frame(encode(PeerHello(PROTOCOL_VERSION, "qnpu", 2, "eve", 1, 1, TICK_NS))),
            "is called 'two'",
        ),
    ],
)
def test_strangers_are_told_why_and_disturb_nobody(data, words):
    with nodes() as (loop, one, two):
        turn_until(loop, lambda: connected(one, two))
        payloads, _ = exchange(loop, one.port, data)
        answer = decode(payloads[0])
        assert isinstance(answer, PeerRefused)
        assert words in answer.text
        assert connected(one, two)
        assert one.kernel.losses(2) == 0


def test_connections_that_stay_silent_are_closed_and_a_node_finds_its_place():
    with nodes() as (loop, one, two), ExitStack() as cleanup:
        two.close()
        turn_until(loop, lambda: not one.kernel.connected)
        with closing(Node(loop, two.file, incarnation=2)) as again:
            for _ in range(4 * MAX_GREETING):
                cleanup.enter_context(socket.create_connection(("127.0.0.1", again.port)))
            turn_until(loop, lambda: connected(one, again), "the strangers are in its way")
            quiet = [s for s in (exchange(loop, again.port, b""),) if s[1]]
            assert len(quiet) == 1, "closed after its time for the handshake"
            assert connected(one, again)


def test_a_neighbour_that_hangs_is_given_up():
    """Its kernel still accepts bytes, but nobody answers."""
    timing = PeerTiming(20 * MS, 150 * MS, 150 * MS, 5 * MS, 50 * MS)
    [port] = free_ports(1)
    addresses = {1: f"tcp:127.0.0.1:{port}", 2: "tcp:127.0.0.1:1"}
    with ExitStack() as cleanup:
        hanging = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        addresses[2] = f"tcp:127.0.0.1:{hanging.getsockname()[1]}"
        loop = cleanup.enter_context(closing(Loop()))
        said: list[str] = []
        file = node_file(1, addresses)
        cleanup.enter_context(
            closing(
                PeerConnections(
                    file,
                    FakeKernel(),
                    loop=loop,
                    incarnation=1,
                    tick_ns=TICK_NS,
                    tick=lambda: 0,
                    read_tick=lambda: 0,
                    timing=timing,
                    say=said.append,
                )
            )
        )
        turn_until(loop, lambda: bool(said))
    assert "no connection to two: the other end did not say who it is for 0.15 s" in said[0]


def test_a_neighbour_that_does_not_read_is_given_up():
    addresses = {1: f"tcp:127.0.0.1:{free_ports(1)[0]}"}
    with ExitStack() as cleanup:
        listener = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        addresses[2] = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        loop = cleanup.enter_context(closing(Loop()))
        one = cleanup.enter_context(closing(Node(loop, node_file(1, addresses))))
        turn_until(loop, lambda: one.connections.statistics()["greeting"] == 1)
        lazy, _ = listener.accept()
        with lazy:
            hello = PeerHello(PROTOCOL_VERSION, "qnpu", 2, "two", 1, 1, TICK_NS)
            lazy.sendall(frame(encode(hello)))
            turn_until(loop, lambda: one.kernel.connected == {2})
            one.connections.send([(2, Reject(number, "x" * 4_000)) for number in range(10_000)])
            assert one.kernel.losses(2) == 1
            assert "two was lost: " in one.said[-1]
        statistics = one.connections.statistics()
        assert statistics["dropped"] > 0, "the rest is nobody's"


def test_a_flood_of_a_neighbour_has_its_turn_and_no_more():
    """And what was said before the end counts, though the end is seen first."""
    addresses = {1: f"tcp:127.0.0.1:{free_ports(1)[0]}"}
    with ExitStack() as cleanup:
        listener = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        addresses[2] = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        loop = cleanup.enter_context(closing(Loop()))
        one = cleanup.enter_context(closing(Node(loop, node_file(1, addresses))))
        turn_until(loop, lambda: one.connections.statistics()["greeting"] == 1)
        flood, _ = listener.accept()
        with flood:
            turn_until(loop, lambda: bool(select.select([flood], (), (), 0)[0]))
            theirs = decode(Deframer().feed(flood.recv(4_096))[0])
            assert isinstance(theirs, PeerHello)
            hello = PeerHello(PROTOCOL_VERSION, "qnpu", 2, "two", 1, 1, TICK_NS)
            flood.sendall(frame(encode(hello)))
            turn_until(loop, lambda: one.kernel.connected == {2})
            epoch = connection_epoch(theirs, hello)
            messages = [frame(encode(WireCancel(epoch, number))) for number in range(200)]
            flood.sendall(b"".join(messages))
        most = 0

        def is_over() -> bool:
            nonlocal most
            before = len(one.kernel.messages(2))
            loop.dispatch(loop.wait(0.01))
            most = max(most, len(one.kernel.messages(2)) - before)
            return not one.kernel.connected

        turn_until(loop, is_over)
        assert one.kernel.messages(2) == [Cancel(number) for number in range(200)]
        assert 0 < most <= 32, "what is left comes in later turns"


# --- TLS ------------------------------------------------------------------------------
# 0.0.0.0 is this machine too, but could be reached from elsewhere, so it asks for TLS.


def test_nodes_prove_who_they_are(tmp_path):
    authority = Authority()
    tls = {number: authority.issue(tmp_path / name, name) for number, name in NAMES.items()}
    with nodes("0.0.0.0", tls) as (loop, one, two):
        turn_until(loop, lambda: connected(one, two))
        one.connections.send([(2, Cancel(7))])
        turn_until(loop, lambda: two.kernel.messages(1) == [Cancel(7)])


def test_strangers_that_never_finish_the_handshake_make_room(tmp_path):
    authority = Authority()
    tls = {number: authority.issue(tmp_path / name, name) for number, name in NAMES.items()}
    with nodes("0.0.0.0", tls) as (loop, one, two), ExitStack() as cleanup:
        for _ in range(4 * MAX_GREETING):
            cleanup.enter_context(socket.create_connection(("127.0.0.1", two.port)))
        before = loop.watched
        turn_until(loop, lambda: connected(one, two))
        assert loop.watched <= before + MAX_GREETING + 2


@pytest.mark.parametrize(
    "kind", ["name of the dialler", "no name", "name of the listener", "authority"]
)
def test_wrong_certificates_are_refused(tmp_path, kind):
    authority = Authority()
    tls = {number: authority.issue(tmp_path / name, name) for number, name in NAMES.items()}
    if kind == "name of the dialler":
        tls[1] = authority.issue(tmp_path / "eve", "eve")
    elif kind == "no name":
        tls[1] = authority.issue(tmp_path / "eve", "192.0.2.7")
    elif kind == "name of the listener":
        tls[2] = authority.issue(tmp_path / "eve", "eve")
    else:
        tls[1] = Authority().issue(tmp_path / "eve", "one", trusts=authority)
    with nodes("0.0.0.0", tls) as (loop, one, two):
        turn_until(loop, lambda: bool(one.said))
        turn_until(
            loop, lambda: one.connections.statistics()["neighbours"]["two"]["connections"] > 3
        )
        assert not one.kernel.connected
        assert not two.kernel.connected
        said, refused = " ".join(one.said), two.said[0]
    assert refused.startswith("a connection was refused: ")
    assert said.startswith("no connection to two: ")
    if kind == "name of the dialler":
        assert "the certificate is of eve, not of 'one'" in said
        assert "the certificate is of eve, not of 'one'" in refused
    elif kind == "no name":
        assert "no DNS entry" in refused
    elif kind == "name of the listener":
        assert "certificate is not valid for 'two'" in said
    else:
        assert "unable to get local issuer certificate" in refused


def test_an_expired_certificate_is_refused(tmp_path):
    authority = Authority()
    expired = datetime.now(UTC) - timedelta(days=1)
    tls = {
        1: authority.issue(tmp_path / "one", "one", not_after=expired),
        2: authority.issue(tmp_path / "two", "two"),
    }
    with nodes("0.0.0.0", tls) as (loop, one, two):
        turn_until(
            loop, lambda: one.connections.statistics()["neighbours"]["two"]["connections"] > 3
        )
        assert not two.kernel.connected


def test_without_certificates_nothing_leaves_the_machine():
    addresses = {1: "tcp:0.0.0.0:1", 2: "tcp:0.0.0.0:2"}
    with pytest.raises(ValueError, match="leaves this machine"):
        node_file(1, addresses)


# --- the controller -------------------------------------------------------------------


def controller_file(one: Node, two: Node, **changes: Any) -> ControllerFile:
    values: dict[str, Any] = {
        "nodes": {
            node.file.name: {
                "node_id": node.file.node_id,
                "address": str(node.file.peer and node.file.peer.listen),
            }
            for node in (one, two)
        },
        "links": [["one", "two"]],
        "synchronisation": {"period_ms": 50},
    }
    return ControllerFile.model_validate(values | changes)


@contextmanager
def controller(file: ControllerFile) -> Iterator[list[dict[str, Any]]]:
    """A controller in a thread; yields the states it has been in, the last one last."""
    stop = threading.Event()
    states: list[dict[str, Any]] = [{}]

    def run() -> None:
        run_controller(
            file,
            stop,
            incarnation=monotonic_ns(),
            timing=TIMING,
            on_status=lambda status: states.__setitem__(0, status),
        )

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield states
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_a_controller_gives_both_nodes_the_same_bins():
    with nodes() as (loop, one, two):
        with controller(controller_file(one, two)) as states:
            turn_until(loop, lambda: bool(states[0].get("ready")))
        schedules = [node.kernel.schedule for node in (one, two)]
        assert schedules[0] is not None
        assert schedules[1] is not None
        # Both read the same clock, and what was settled is exact.
        assert schedules[0].epoch_tick == schedules[1].epoch_tick
        turn_until(loop, lambda: one.connections.statistics()["controllers"] == 0)
        with controller(controller_file(one, two)) as states:
            turn_until(loop, lambda: states[0].get("schedule") == 2 and states[0]["ready"])
        assert [node.kernel.schedule for node in (one, two)] == schedules


def test_a_controller_proves_who_it_is(tmp_path):
    authority = Authority()
    tls = {number: authority.issue(tmp_path / name, name) for number, name in NAMES.items()}
    with nodes("0.0.0.0", tls) as (loop, one, two):
        turn_until(loop, lambda: connected(one, two))
        eve = authority.issue(tmp_path / "eve", "eve")
        with controller(controller_file(one, two, tls=eve.model_dump())) as states:
            turn_until(loop, lambda: "certificate is of eve" in str(states[0]))
        assert one.kernel.schedule is None
        good = authority.issue(tmp_path / "controller", "controller")
        with controller(controller_file(one, two, tls=good.model_dump())) as states:
            turn_until(loop, lambda: bool(states[0].get("ready")))
        assert connected(one, two)


def test_a_controller_whose_file_names_no_certificates(tmp_path: Path):
    with nodes() as (_, one, two), pytest.raises(ConfigurationError, match="TLS cannot use it"):
        run_controller(
            controller_file(
                one,
                two,
                tls={name: str(tmp_path / name) for name in ("certificate", "key", "authority")},
            ),
            threading.Event(),
            incarnation=1,
        )
