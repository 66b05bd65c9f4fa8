"""Nodes and controllers on a network in virtual time, for the tests of the peer protocol."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from qnodeos.api.peer import PeerMessage
from qnodeos.qnpu.routes import Route
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.service.controller import ControllerCore
from qnodeos.service.controller_file import ControllerFile
from qnodeos.service.peer_session import ROLE_QNPU, Identity, PeerTiming
from qnodeos.service.peer_sockets import Machine
from qnodeos.service.peers import PeerKernel, PeerManager

MS: Final = 1_000_000
TICK_NS: Final = 10_000
TIMING: Final = PeerTiming(
    heartbeat_ns=20 * MS,
    silence_ns=200 * MS,
    handshake_ns=300 * MS,
    first_retry_ns=10 * MS,
    longest_retry_ns=160 * MS,
)
CONTROLLER: Final = -1


@dataclass
class FakeKernel:
    """Keeps what it is told, and checks that it makes sense.

    Attributes:
        log: ("lost", peer, heard tick), ("connected", peer), ("message", peer, message) and
            ("schedule", schedule, from bin).
        connected: peers there is a connection to.
    """

    log: list[tuple[Any, ...]] = field(default_factory=list)
    connected: set[int] = field(default_factory=set)
    schedule: NetworkSchedule | None = None
    routes: dict[int, Route] = field(default_factory=dict)
    tick: int = -(1 << 60)

    def _at(self, tick: int) -> None:
        assert tick >= self.tick, "time goes backwards"
        self.tick = tick

    def peer_message(self, peer: int, message: PeerMessage, tick: int) -> None:
        self._at(tick)
        assert peer in self.connected, f"{message} of node {peer}, which is not connected"
        self.log.append(("message", peer, message))

    def peer_lost(self, peer: int, tick: int, heard_tick: int | None = None) -> None:
        self._at(tick)
        self.connected.discard(peer)
        self.log.append(("lost", peer, heard_tick))

    def install_routes(self, routes: Mapping[int, Route]) -> None:
        self.routes = dict(routes)

    def peer_connected(self, peer: int, tick: int) -> None:
        self._at(tick)
        assert peer not in self.connected, f"node {peer} is connected twice"
        self.connected.add(peer)
        self.log.append(("connected", peer))

    def install_schedule(self, schedule: NetworkSchedule, from_bin: int | None = None) -> bool:
        self.log.append(("schedule", schedule, from_bin))
        present, self.schedule = self.schedule, schedule
        return present is not None and not schedule.has_bins_of(present)

    def messages(self, peer: int) -> list[PeerMessage]:
        """What came of a peer, in order."""
        return [entry[2] for entry in self.log if entry[0] == "message" and entry[1] == peer]

    def losses(self, peer: int) -> int:
        """How often the peer was lost, not counting the start."""
        return sum(entry[:2] == ("lost", peer) for entry in self.log) - 1


@dataclass
class Wire:
    """A connection: its two ends, each (host, connection), and whether they hear each other."""

    ends: tuple[tuple[int, int], tuple[int, int]]
    is_silent: bool = False
    is_open: bool = True


@dataclass
class Host:
    """A process on the network.

    Attributes:
        offset_ticks: what its device's counter shows more than others do.
        accepts: whether somebody listens.
    """

    machine: Machine
    kernel: FakeKernel = field(default_factory=FakeKernel)
    said: list[str] = field(default_factory=list)
    offset_ticks: int = 0
    accepts: bool = True


class Net:
    """Carries what machines send; a payload takes ``delay_ns()``, in order.

    Attributes:
        hosts: by node id; `CONTROLLER` is the controller.
        now_ns: virtual time.
        drift: how much faster than it the devices' clocks run.
    """

    def __init__(
        self, delay_ns: Callable[[], int] = lambda: 100_000, timing: PeerTiming = TIMING
    ) -> None:
        self.timing = timing
        self.hosts: dict[int, Host] = {}
        self.now_ns = 1_000 * MS
        self.delay_ns = delay_ns
        self.wires: list[Wire] = []
        self.is_down = False
        self.drift = 0.0
        self._by_end: dict[tuple[int, int], Wire] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self._starts = count(1)
        self._arrivals: dict[tuple[int, int], int] = {}

    # --- processes --------------------------------------------------------------------

    def tick(self, host: Host) -> int:
        """Its device's counter."""
        return round(self.now_ns * (1 + self.drift)) // TICK_NS + host.offset_ticks

    def start(
        self,
        node_id: int,
        name: str,
        neighbours: dict[int, str],
        *,
        offset_ticks: int = 0,
        tick_ns: int = TICK_NS,
        controller: str = "controller",
        kernel: PeerKernel | None = None,
    ) -> Host:
        """Start the QNPU of a node, as its newest incarnation."""
        host = Host(None, offset_ticks=offset_ticks)  # type: ignore[arg-type]
        host.machine = PeerManager(
            Identity(ROLE_QNPU, node_id, name, next(self._starts), tick_ns),
            neighbours,
            host.kernel if kernel is None else kernel,
            self.now_ns,
            tick=lambda: self.tick(host),
            read_tick=lambda: self.tick(host),
            controller=controller,
            timing=self.timing,
            say=host.said.append,
        )
        self.hosts[node_id] = host
        return host

    def start_controller(self, file: ControllerFile) -> ControllerCore:
        """Start a controller."""
        host = Host(None, accepts=False)  # type: ignore[arg-type]
        core = ControllerCore(
            file,
            incarnation=next(self._starts),
            now_ns=self.now_ns,
            timing=self.timing,
            say=host.said.append,
        )
        host.machine = core
        self.hosts[CONTROLLER] = host
        return core

    def kill(self, node_id: int) -> None:
        """A process dies; the system closes its connections."""
        host = self.hosts.pop(node_id)
        for wire in [w for w in self.wires if w.is_open]:
            for end, other in (wire.ends, wire.ends[::-1]):
                if end[0] == node_id and wire.is_open:
                    self._by_end.pop(end, None)
                    self._close(wire, other, "the other end closed the connection")
        host.machine.close()

    # --- connections ------------------------------------------------------------------

    def _connect(self, source: int, connection: int, target: int) -> None:
        host = self.hosts.get(source)
        if host is None:
            return
        other = self.hosts.get(target)
        if other is None or not other.accepts or self.is_down:
            host.machine.closed(connection, "nobody answers", self.now_ns)
            return
        accepted = other.machine.new_connection()
        wire = Wire(((source, connection), (target, accepted)))
        self.wires.append(wire)
        for end in wire.ends:
            self._by_end[end] = wire
        other.machine.opened(accepted, self.now_ns)
        host.machine.opened(connection, self.now_ns)

    def dial(self, target: int) -> tuple[int, Callable[[bytes], None]]:
        """Connect to a node by hand; returns its connection, and what sends it a payload."""
        machine = self.hosts[target].machine
        accepted = machine.new_connection()
        machine.opened(accepted, self.now_ns)
        return accepted, lambda payload: machine.received(accepted, payload, self.now_ns)

    def _close(self, wire: Wire, end: tuple[int, int], reason: str) -> None:
        """An end learns that the connection has ended, after what is on its way to it."""
        wire.is_open = False

        def tell() -> None:
            host = self.hosts.get(end[0])
            if host is not None and self._by_end.pop(end, None) is wire:
                host.machine.closed(end[1], reason, self.now_ns)

        self._later(max(self.now_ns, self._arrivals.get(end, 0)), tell)

    def cut(self, *, silently: bool = False) -> None:
        """All connections break: at once, or so that neither end hears of it."""
        for wire in [w for w in self.wires if w.is_open]:
            if silently:
                wire.is_silent = True
            else:
                for end in wire.ends:
                    self._close(wire, end, "the connection broke")

    # --- time -------------------------------------------------------------------------

    def _later(self, at_ns: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_ns, next(self._numbers), action))

    def _carry(self, node_id: int, host: Host) -> None:
        machine = host.machine
        outbox, machine.outbox = machine.outbox, []
        closing, machine.closing = machine.closing, []
        dials, machine.dials = machine.dials, []
        for connection, payload in outbox:
            wire = self._by_end.get((node_id, connection))
            if wire is None or wire.is_silent or not wire.is_open:
                continue
            target = wire.ends[wire.ends[0] == (node_id, connection)]
            arrival = max(self.now_ns + self.delay_ns(), self._arrivals.get(target, 0))
            self._arrivals[target] = arrival
            self._later(arrival, lambda t=target, p=payload: self._deliver(t, p))  # type: ignore[misc]
        for connection in closing:
            end = node_id, connection
            wire = self._by_end.pop(end, None)
            if wire is not None and not wire.is_silent:
                other = wire.ends[wire.ends[0] == end]
                self._close(wire, other, "the other end closed the connection")
        for connection, target_id in dials:
            self._later(
                self.now_ns + self.delay_ns(),
                lambda c=connection, t=target_id: self._connect(node_id, c, t),  # type: ignore[misc]
            )

    def _deliver(self, end: tuple[int, int], payload: bytes) -> None:
        wire = self._by_end.get(end)
        if wire is not None and not wire.is_silent:
            self.hosts[end[0]].machine.received(end[1], payload, self.now_ns)

    def run(self, duration_ms: float) -> None:
        """Let time pass."""
        end_ns = self.now_ns + round(duration_ms * MS)
        while True:
            for node_id, host in list(self.hosts.items()):
                self._carry(node_id, host)
            due = [host.machine.due_ns for host in self.hosts.values()]
            times = [at for at in due if at is not None] + [e[0] for e in self._events[:1]]
            following = min(times, default=end_ns)
            if following > end_ns:
                break
            self.now_ns = max(self.now_ns, following)
            if self._events and self._events[0][0] <= self.now_ns:
                heapq.heappop(self._events)[2]()
                continue
            for host in list(self.hosts.values()):
                if host.machine.due_ns is not None and host.machine.due_ns <= self.now_ns:
                    host.machine.poll(self.now_ns)
            if not times:
                break
        self.now_ns = end_ns

    def send(self, source: int, target: int, message: PeerMessage) -> None:
        """A kernel sends a message."""
        manager = self.hosts[source].machine
        assert isinstance(manager, PeerManager)
        manager.send([(target, message)], self.now_ns)
