"""The TDMA controller: gives all nodes of a network the same time bins, and routes. No I/O here.

It connects to every QNPU and reads its device's tick, again and again. A reading is off by
at most half its round trip, far too much for a schedule; but the counters of all devices are
started by a common SYNC edge, so their low 12 bits agree. What a reading has to settle is only
the multiple of 4096 ticks (41 ms at 10 us), and it can, as long as the uncertainty is well
below half of that. If the low bits do not fit, the devices are not synchronised, and the node
gets no schedule but a clear error.

A controller that starts finds the bins that nodes already use and keeps them. A node that
comes later, or starts anew, gets the schedule of the others; one whose device was started anew
gets it with its new ticks. The others do not notice.

Routes to nodes that are no neighbours are made from the links and their estimated fidelities.
When nodes leave or come back, those whose routes change by that are told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qnodeos.api.peer_wire import (
    MAX_SCHEDULE,
    Install,
    Installed,
    PeerHello,
    PeerWireMessage,
    ReadTick,
    RoutesInstalled,
    TickReading,
)
from qnodeos.errors import (
    ConfigurationError,
    PeerError,
    PeerProtocolError,
    PeerRefusedError,
    QNodeOSError,
    TickMismatchError,
    UncertainTickError,
)
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.service.controller_file import ControllerFile
from qnodeos.service.peer_session import (
    CONTROLLER_ID,
    DEFAULT_TIMING,
    ROLE_CONTROLLER,
    ROLE_QNPU,
    Identity,
    PeerSession,
    PeerTiming,
    SessionState,
)
from qnodeos.service.route_plan import RoutePlan
from qnodeos.service.tick_grid import (
    COMMON_TICKS,
    DRIFT,
    TOO_UNCERTAIN_TICKS,
    Grid,
    Placement,
    TickFix,
)

_NS_PER_MS: Final = 1_000_000
_LATEST_START_NS: Final = 60_000 * _NS_PER_MS
"""A schedule begins at most so much later than it is installed: the bound of start_delay_ms."""
_LONGEST_TICKS: Final = 1 << 45
"""How long a schedule may have been in use: eleven years of 10 us."""
_LATENESS_NS: Final = 150_000
"""How late a node without cores of its own may be now and then (assumed)."""


@dataclass
class _Round:
    """Some readings in a row, of which the one with the shortest way counts."""

    left: int
    nonce: int = 0
    sent_ns: int = 0
    best: TickFix | None = None


@dataclass
class NodeView:
    """A node as the controller sees it.

    Attributes:
        name: of the node.
        session: of the connection, None without one.
        fix: its last good reading.
        reading: what it said last.
        placement: where its bin 0 begins, None if that is not known.
        installed: number of the schedule it has confirmed.
        error: what is wrong with it, empty if nothing.
        said: the last error that was put into words, without its numbers.
        mismatches: readings in a row that do not fit the grid, the last being ``mismatched``.
    """

    name: str
    node_id: int
    pattern: tuple[int, ...]
    retry_ns: int
    dial_at_ns: int | None
    connection: int | None = None
    connections: int = 0
    session: PeerSession | None = None
    incarnation: int = 0
    tick_ns: int = 0
    fix: TickFix | None = None
    reading: TickReading | None = None
    placement: Placement | None = None
    round: _Round | None = None
    next_round_ns: int | None = None
    installed: int = 0
    installed_epoch: int | None = None
    is_installing: bool = False
    installs: int = 0
    error: str = ""
    said: str = ""
    mismatches: int = 0
    mismatched: TickFix | None = None

    @property
    def has_link(self) -> bool:
        """Whether it makes entanglement with another; otherwise it needs no schedule."""
        return any(peer >= 0 for peer in self.pattern)

    @property
    def is_connected(self) -> bool:
        """Whether both ends have greeted."""
        return self.session is not None and self.session.state is SessionState.OPEN


class ControllerCore:
    """See the module's docstring; carried out by `qnodeos.service.peer_connections`.

    Args:
        file: the network.
        incarnation: number of this start.
        now_ns: of the owner's clock.
        timing: times of the protocol.
        say: takes lines about what changes, for people.

    Attributes:
        outbox, closing, dials: as for `qnodeos.service.peers.PeerManager`.
        nodes: what is known of each, by name.
        number: of the schedule, 0 until there is one.
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
        self.number = 0
        self._file = file
        self._identity = Identity(ROLE_CONTROLLER, CONTROLLER_ID, file.name, incarnation, 0)
        self._timing = timing
        self._say = say
        self._period_ns = file.synchronisation.period_ms * _NS_PER_MS
        self._first_round_ns = now_ns + file.synchronisation.first_round_ms * _NS_PER_MS
        self._grid: Grid | None = None
        self._lengths: NetworkSchedule | None = None
        self._from_bin = 0
        self._next_connection = 0
        self._next_nonce = 0
        self._by_connection: dict[int, NodeView] = {}
        self._routes = RoutePlan(file.fidelities())
        patterns = file.patterns()
        self.nodes = {
            name: NodeView(name, node.node_id, patterns[name], timing.first_retry_ns, now_ns)
            for name, node in file.nodes.items()
        }

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
                self._check_lengths(node)
                self._begin_round(node, now_ns)
                self._reroute()
        elif isinstance(message, TickReading):
            self._on_reading(node, message, now_ns)
        elif isinstance(message, Installed):
            self._on_installed(node, message)
        elif isinstance(message, RoutesInstalled):
            if message.error:
                self._say(f"{node.name}: does not take its routes: {message.error}")
        else:
            raise PeerProtocolError(f"a {type(message).__name__} makes no sense to a controller")

    def _check_lengths(self, node: NodeView) -> None:
        if self._lengths is not None:
            return
        try:
            self._lengths = lengths = self._file.schedule(node.tick_ns)
        except ValueError as error:
            raise ConfigurationError(
                f"bin_ms, guard_ms and batch_ms do not go together with ticks of {node.tick_ns} "
                f"ns: {error}"
            ) from error
        slack_ticks = lengths.bin_ticks - lengths.guard_ticks - lengths.batch_ticks
        if slack_ticks * node.tick_ns < _LATENESS_NS:
            self._say(
                f"a node that is more than {slack_ticks * node.tick_ns / 1_000:.0f} us late at the "
                "start of a bin misses all of it; lengthen bin_ms, or shorten guard_ms or batch_ms"
            )

    def _begin_round(self, node: NodeView, now_ns: int) -> None:
        node.round = _Round(self._file.synchronisation.exchanges)
        node.next_round_ns = None
        self._ask(node, node.round, now_ns)

    def _ask(self, node: NodeView, round_: _Round, now_ns: int) -> None:
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
        self._settle(now_ns)

    # --- the grid ---------------------------------------------------------------------

    def _settle(self, now_ns: int) -> None:
        """Something new is known: bring every node as far as possible."""
        grid = self._grid
        if grid is not None and not any(node.installed for node in self.nodes.values()):
            forgotten_ticks = DRIFT * (now_ns - grid.as_of_ns) / grid.tick_ns
            if forgotten_ticks >= TOO_UNCERTAIN_TICKS / 2:
                self._grid = None  # all nodes were away for so long that it is lost
        if self._grid is None:
            waits = any(node.fix is None for node in self.nodes.values() if node.has_link)
            if waits and now_ns < self._first_round_ns:
                return
            self._make_grid(now_ns)
        measured = [node for node in self.nodes.values() if node.is_connected and node.fix]
        self._track()
        for node in measured:
            self._bring_up(node)
        if measured and all(node.mismatches for node in measured):
            # Not one of them, but the grid is wrong: the devices were started anew, all at once.
            self._make_grid(now_ns)
            for node in measured:
                self._bring_up(node)

    def _make_grid(self, now_ns: int) -> None:
        """Keep the bins that are in use, or begin new ones."""
        assert self._lengths is not None
        measured = [node for node in self.nodes.values() if node.fix is not None]
        if not measured:
            return
        in_use = [
            node
            for node in measured
            if node.reading is not None
            and node.reading.schedule > 0
            and node.reading.bin_ticks == self._lengths.bin_ticks
            and self._can_be(node, node.reading)
        ]
        numbers = [node.reading.schedule for node in measured if node.reading is not None]
        # Nodes take a schedule with the number of the one before, so there is always a next.
        self.number = min(max(numbers, default=0) + 1, MAX_SCHEDULE)
        delay_ns = self._file.start_delay_ms * _NS_PER_MS
        if in_use:
            reference = max(in_use, key=lambda node: node.reading.schedule if node.reading else 0)
            assert reference.fix is not None
            assert reference.reading is not None
            epoch_tick = reference.reading.epoch_tick
        else:
            reference = measured[0]
            assert reference.fix is not None
            passed_ns = now_ns - reference.fix.at_ns
            epoch_tick = reference.fix.tick + (passed_ns + delay_ns) // reference.tick_ns
        self._grid = grid = Grid.of(reference.fix, epoch_tick, reference.tick_ns)
        bin_ns = self._lengths.bin_ticks * grid.tick_ns
        self._from_bin = max(0, -((grid.epoch_ns - now_ns - delay_ns) // bin_ns))
        kept = "bins in use are kept" if in_use else "new bins"
        self._say(
            f"schedule {self.number}: bins of {self._lengths.bin_ticks} ticks, pattern of "
            f"{len(reference.pattern)}, {kept}"
        )

    def _can_be(self, node: NodeView, reading: TickReading) -> bool:
        """Whether bins can begin where a node says; those of all would follow it."""
        past_ticks = reading.tick - reading.epoch_tick
        if -_LATEST_START_NS // node.tick_ns - COMMON_TICKS <= past_ticks <= _LONGEST_TICKS:
            return True
        self._say(
            f"{node.name}: says that its bins begin at tick {reading.epoch_tick}, and that it is "
            f"tick {reading.tick}; that cannot be, so they are not kept"
        )
        return False

    def _track(self) -> None:
        """Follow the clock of the first node that is on the grid."""
        for node in self.nodes.values():
            if node.fix is None or node.placement is None or node.error or self._grid is None:
                continue
            if node.installed_epoch == node.placement.epoch_tick:
                try:
                    node.placement = self._grid.place(
                        node.fix, self._file.synchronisation.tolerance_ticks
                    )
                except PeerError:
                    continue
                if node.placement.epoch_tick == node.installed_epoch:
                    self._grid = Grid.of(node.fix, node.installed_epoch, self._grid.tick_ns)
                    return

    def _bring_up(self, node: NodeView) -> None:
        assert node.fix is not None
        assert node.reading is not None
        if self._grid is None:
            return
        try:
            placement = self._grid.place(node.fix, self._file.synchronisation.tolerance_ticks)
        except UncertainTickError as error:
            if not node.installed:  # otherwise one bad reading does not matter
                self._blame(node, str(error))
            return
        except TickMismatchError as error:
            node.placement = None
            node.mismatches += node.fix is not node.mismatched
            node.mismatched = node.fix
            if node.mismatches > 1:  # the next round may show that all are like it
                self._blame(node, str(error))
            return
        node.placement, node.mismatches = placement, 0
        if node.reading.schedule > self.number:
            # Another controller was here.
            self.number = min(node.reading.schedule + 1, MAX_SCHEDULE)
        if node.is_installing:
            return
        if (node.reading.schedule, node.reading.epoch_tick) != (self.number, placement.epoch_tick):
            node.installed = 0
        node.error = ""
        if (node.installed, node.installed_epoch) != (self.number, placement.epoch_tick):
            self._install(node, placement)

    def _install(self, node: NodeView, placement: Placement) -> None:
        assert node.session is not None
        assert self._lengths is not None
        node.is_installing = True
        node.installs += 1
        node.installed_epoch = placement.epoch_tick
        node.session.send_control(
            Install(
                self.number,
                self._lengths.bin_ticks,
                self._lengths.guard_ticks,
                self._lengths.batch_ticks,
                placement.epoch_tick,
                node.pattern,
                self._from_bin,
            )
        )
        self._flush(node)

    def _on_installed(self, node: NodeView, answer: Installed) -> None:
        if not node.is_installing:
            raise PeerProtocolError(f"it confirms schedule {answer.schedule}, which nobody sent")
        node.is_installing = False
        if answer.error:
            node.installed_epoch = None
            self._blame(node, f"does not take schedule {answer.schedule}: {answer.error}")
            return
        if node.placement is None:
            return  # its ticks have ceased to fit meanwhile; it is installed anew when they do
        node.installed, node.error, node.said = answer.schedule, "", ""
        if node.reading is not None and node.installed_epoch is not None:
            assert self._lengths is not None
            # What it will report from now on; the next round asks it.
            node.reading = TickReading(
                node.reading.nonce,
                node.reading.tick,
                answer.schedule,
                node.installed_epoch,
                self._lengths.bin_ticks,
            )
        self._say(
            f"{node.name}: schedule {answer.schedule} from tick {node.placement.epoch_tick} "
            f"(known to {node.placement.error_ticks:.0f} ticks, "
            f"{node.placement.residual_ticks:+.1f} off)"
        )

    def _blame(self, node: NodeView, error: str) -> None:
        """Something is wrong with a node; said once, however often it is found."""
        # Numbers in it change from one reading to the next.
        if _without_numbers(error) != node.said:
            node.said = _without_numbers(error)
            self._say(f"{node.name}: {error}")
        node.error = error

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
        if self._grid is None and now_ns >= self._first_round_ns and self._lengths is not None:
            self._settle(now_ns)

    @property
    def due_ns(self) -> int | None:
        """When `poll` has something to do."""
        # Only a node whose ticks are known lets a schedule be made; until then nothing is due.
        is_first = self._grid is None and any(node.fix is not None for node in self.nodes.values())
        due = [self._first_round_ns] if is_first else []
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
        lengths = self._lengths
        return {
            "schedule": self.number,
            "ready": self.is_ready,
            "bin_ticks": None if lengths is None else lengths.bin_ticks,
            "nodes": {node.name: _describe(node) for node in self.nodes.values()},
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


def _without_numbers(text: str) -> str:
    return "".join(character for character in text if not character.isdigit())


def _describe(node: NodeView) -> dict[str, Any]:
    placement = node.placement
    return {
        "node_id": node.node_id,
        "connected": node.is_connected,
        "connections": node.connections,
        "schedule": node.installed,
        "installs": node.installs,
        "epoch_tick": None if placement is None else placement.epoch_tick,
        "residual_ticks": None if placement is None else round(placement.residual_ticks, 2),
        "uncertainty_ticks": None if placement is None else round(placement.error_ticks, 2),
        "round_trip_us": None if node.fix is None else round(node.fix.error_ns / 500, 1),
        "error": node.error,
    }
