"""The TDMA controller: gives all nodes of a network the same time bins, and routes. No I/O here.

It connects to every QNPU and reads its device's tick, again and again. A reading is off by
at most half its round trip, far too much for a schedule; but the counters of all devices are
started by a common SYNC edge, so their low 12 bits agree. What a reading has to settle is only
the multiple of 4096 ticks (41 ms at 10 us), and it can, as long as the uncertainty is well
below half of that. If the low bits do not fit, the devices are not synchronised, and the node
gets no schedule but a clear error.

What it makes of the readings is in `qnodeos.service.common_bins`.

Routes to nodes that are no neighbours are made from the links and their estimated fidelities.
When nodes leave or come back, those whose routes change by that are told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from qnodeos.api.peer_wire import (
    Installed,
    PeerHello,
    PeerWireMessage,
    ReadTick,
    RoutesInstalled,
    TickReading,
)
from qnodeos.errors import PeerProtocolError, PeerRefusedError, QNodeOSError
from qnodeos.service.common_bins import CommonBins
from qnodeos.service.controller_file import ControllerFile
from qnodeos.service.node_view import NodeView, Round
from qnodeos.service.peer_session import (
    CONTROLLER_ID,
    DEFAULT_TIMING,
    ROLE_CONTROLLER,
    ROLE_QNPU,
    Identity,
    PeerSession,
    PeerTiming,
)
from qnodeos.service.route_plan import RoutePlan
from qnodeos.service.tick_grid import TickFix

_NS_PER_MS: Final = 1_000_000


class ControllerCore:
    """See the module's docstring; carried out by `qnodeos.service.peer_sockets`.

    Args:
        file: the network.
        incarnation: number of this start.
        now_ns: of the owner's clock.
        timing: times of the protocol.
        say: takes lines about what changes, for people.

    Attributes:
        outbox, closing, dials: as for `qnodeos.service.peers.PeerManager`.
        nodes: what is known of each, by name.
    """

    def __init__(
        self,
        file: ControllerFile,
        *,
        incarnation: int,
        now_ns: int,
        timing: PeerTiming = DEFAULT_TIMING,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.outbox: list[tuple[int, bytes]] = []
        self.closing: list[int] = []
        self.dials: list[tuple[int, int]] = []
        self._file = file
        self._identity = Identity(ROLE_CONTROLLER, CONTROLLER_ID, file.name, incarnation, 0)
        self._timing = timing
        self._say = say
        self._period_ns = file.synchronisation.period_ms * _NS_PER_MS
        self._next_connection = 0
        self._next_nonce = 0
        self._by_connection: dict[int, NodeView] = {}
        self._routes = RoutePlan(file.fidelities())
        patterns = file.patterns()
        self.nodes = {
            name: NodeView(name, node.node_id, patterns[name], timing.first_retry_ns, now_ns)
            for name, node in file.nodes.items()
        }
        self._bins = CommonBins(file, self.nodes.values(), now_ns, self._flush, say)

    @property
    def number(self) -> int:
        """Number of the schedule, 0 until there is one."""
        return self._bins.number

    @property
    def is_ready(self) -> bool:
        """Whether all nodes have confirmed the schedule."""
        return self.number > 0 and all(
            node.is_connected and (node.installed == self.number or not node.has_link)
            for node in self.nodes.values()
        )

    # --- connections ------------------------------------------------------------------

    def new_connection(self) -> int:
        """A number for a connection."""
        self._next_connection += 1
        return self._next_connection

    def opened(self, connection: int, now_ns: int, names: Sequence[str] = ()) -> None:
        """A connection can be used; with TLS, after its handshake."""
        node = self._by_connection[connection]
        node.session = PeerSession(
            self._identity,
            lambda hello: self._admit(node, hello, names),
            now_ns,
            dials=node.connections,
            timing=self._timing,
        )
        self._flush(node)

    def _admit(self, node: NodeView, hello: PeerHello, names: Sequence[str]) -> int:
        there = f"{hello.node_name!r} (node {hello.node_id})"
        if hello.role != ROLE_QNPU:
            raise PeerRefusedError(f"a {hello.role!r} answered, not the QNPU of {node.name!r}")
        if (hello.node_id, hello.node_name) != (node.node_id, node.name):
            raise PeerRefusedError(
                f"{there} answered, not {node.name!r} (node {node.node_id}); check the addresses "
                "and ids in the controller's file and the node files"
            )
        if names and hello.node_name not in names:
            raise PeerRefusedError(f"the certificate is of {', '.join(names)}, not of {there}")
        if hello.tick_ns == 0:
            raise PeerRefusedError(f"a tick lasts 0 ns at {there}; that is no QNPU's")
        for other in self.nodes.values():
            if other is node or not (node.has_link and other.has_link):
                continue
            if other.tick_ns not in (0, hello.tick_ns):
                raise PeerRefusedError(
                    f"a tick lasts {hello.tick_ns} ns at {there} and {other.tick_ns} ns at "
                    f"{other.name!r}; nodes joined by links need devices with the same tick"
                )
        return node.connections

    def received(self, connection: int, payload: bytes, now_ns: int) -> None:
        """A payload came over a connection."""
        node = self._by_connection.get(connection)
        if node is None or node.session is None:
            return
        try:
            message = node.session.receive(payload, now_ns)
            if message is not None:
                self._act(node, message, now_ns)
        except QNodeOSError as error:
            self._fail(node, connection, error, now_ns)
        self._flush(node)

    def garbled(self, connection: int, error: QNodeOSError, now_ns: int) -> None:
        """What came over a connection cannot be cut into payloads."""
        node = self._by_connection.get(connection)
        if node is not None:
            self._fail(node, connection, error, now_ns)

    def untrusted(self, error: QNodeOSError, now_ns: int) -> None:
        """Nobody connects to a controller, so this does not happen."""

    def closed(self, connection: int, reason: str, now_ns: int) -> None:
        """A connection has ended, or could not be made."""
        node = self._by_connection.pop(connection, None)
        if node is None:
            return
        was_connected = node.is_connected
        if node.session is not None:
            was_connected = node.session.hello is not None
            node.session.close()
        node.session = node.connection = node.round = node.next_round_ns = None
        node.fix = node.reading = node.placement = None
        node.mismatches = 0
        node.is_installing = False
        node.installed, node.installed_epoch = 0, None
        self._routes.forget(node.node_id)
        self._reroute()
        if was_connected or reason != node.error:  # once, however often it is tried
            self._say(f"{node.name}: {reason}")
        node.error = reason
        node.dial_at_ns = now_ns + node.retry_ns
        node.retry_ns = min(2 * node.retry_ns, self._timing.longest_retry_ns)

    def _fail(self, node: NodeView, connection: int, error: QNodeOSError, now_ns: int) -> None:
        if node.session is not None:
            node.session.refuse(error)
            self._flush(node)
        self.closing.append(connection)
        self.closed(connection, str(error), now_ns)

    def _flush(self, node: NodeView) -> None:
        if node.session is not None and node.connection is not None and node.session.outgoing:
            self.outbox.extend((node.connection, payload) for payload in node.session.outgoing)
            node.session.outgoing.clear()

    # --- reading ticks ----------------------------------------------------------------

    def _act(self, node: NodeView, message: PeerWireMessage, now_ns: int) -> None:
        if isinstance(message, PeerHello):
            if node.incarnation not in (0, message.incarnation):
                self._say(f"{node.name}: has started anew")
            else:
                self._say(f"{node.name}: connected")
            node.incarnation, node.tick_ns = message.incarnation, message.tick_ns
            node.retry_ns = self._timing.first_retry_ns
            node.error = ""
            if node.has_link:
                self._bins.measure(node.tick_ns)
                self._begin_round(node, now_ns)
                self._reroute()
        elif isinstance(message, TickReading):
            self._on_reading(node, message, now_ns)
        elif isinstance(message, Installed):
            self._bins.installed(node, message)
        elif isinstance(message, RoutesInstalled):
            if message.error:
                self._say(f"{node.name}: does not take its routes: {message.error}")
        else:
            raise PeerProtocolError(f"a {type(message).__name__} makes no sense to a controller")

    def _begin_round(self, node: NodeView, now_ns: int) -> None:
        node.round = Round(self._file.synchronisation.exchanges)
        node.next_round_ns = None
        self._ask(node, node.round, now_ns)

    def _ask(self, node: NodeView, round_: Round, now_ns: int) -> None:
        assert node.session is not None
        self._next_nonce += 1
        round_.left -= 1
        round_.nonce, round_.sent_ns = self._next_nonce, now_ns
        node.session.send_control(ReadTick(round_.nonce))

    def _on_reading(self, node: NodeView, reading: TickReading, now_ns: int) -> None:
        round_ = node.round
        if round_ is None or reading.nonce != round_.nonce:
            return  # of a round that was given up
        trip_ns = now_ns - round_.sent_ns
        fix = TickFix(reading.tick, round_.sent_ns + trip_ns // 2, (trip_ns + 1) // 2)
        if round_.best is None or fix.error_ns < round_.best.error_ns:
            round_.best = fix
        node.reading = reading
        if round_.left > 0:
            self._ask(node, round_, now_ns)
            return
        node.round = None
        node.next_round_ns = now_ns + self._period_ns
        node.fix = round_.best
        self._bins.settle(now_ns)

    # --- routes -----------------------------------------------------------------------

    def _reroute(self) -> None:
        """Tell their routes to those who do not have them yet."""
        connected = {node.node_id: node for node in self.nodes.values() if node.is_connected}
        for number, message in self._routes.changes(connected):
            node = connected[number]
            assert node.session is not None
            node.session.send_control(message)
            self._flush(node)

    # --- time -------------------------------------------------------------------------

    def poll(self, now_ns: int) -> None:
        """Do what is due: dialling, heartbeats, readings."""
        for node in self.nodes.values():
            if node.dial_at_ns is not None and now_ns >= node.dial_at_ns:
                node.dial_at_ns = None
                node.connections += 1
                node.connection = self.new_connection()
                self._by_connection[node.connection] = node
                self.dials.append((node.connection, node.node_id))
            if node.session is None or node.connection is None:
                continue
            connection = node.connection
            try:
                node.session.poll(now_ns)
                if node.next_round_ns is not None and now_ns >= node.next_round_ns:
                    self._begin_round(node, now_ns)
            except QNodeOSError as error:
                self._fail(node, connection, error, now_ns)
            self._flush(node)
        self._bins.poll(now_ns)

    @property
    def due_ns(self) -> int | None:
        """When `poll` has something to do."""
        first_ns = self._bins.first_due_ns
        due = [] if first_ns is None else [first_ns]
        for node in self.nodes.values():
            due += [at for at in (node.dial_at_ns, node.next_round_ns) if at is not None]
            if node.session is not None:
                due.append(node.session.due_ns)
        return min(due, default=None)

    def close(self) -> None:
        """End all connections."""
        self.closing.extend(self._by_connection)
        self._by_connection.clear()

    # --- how things are ---------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The schedule, and how each node stands."""
        lengths = self._bins.lengths
        return {
            "schedule": self.number,
            "ready": self.is_ready,
            "bin_ticks": None if lengths is None else lengths.bin_ticks,
            "nodes": {node.name: node.describe() for node in self.nodes.values()},
        }

    def summary(self) -> str:
        """The same in one line."""
        ready = sum(
            node.is_connected and 0 < node.installed == self.number for node in self.nodes.values()
        )
        away = [node.name for node in self.nodes.values() if not node.is_connected]
        wrong = [node.name for node in self.nodes.values() if node.is_connected and node.error]
        linked = sum(node.has_link for node in self.nodes.values())
        parts = [f"schedule {self.number} at {ready} of {linked} nodes"]
        parts += [f"not connected: {', '.join(away)}"] if away else []
        parts += [f"without a schedule: {', '.join(wrong)}"] if wrong else []
        return "; ".join(parts)
