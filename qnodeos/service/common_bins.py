"""The time bins that all nodes have in common: found, kept, and installed at every node.

A controller that starts finds the bins that nodes already use and keeps them. A node that
comes later, or starts anew, gets the schedule of the others; one whose device was started anew
gets it with its new ticks. The others do not notice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from qnodeos.api.peer_wire import MAX_SCHEDULE, Install, Installed, TickReading
from qnodeos.errors import (
    ConfigurationError,
    PeerError,
    PeerProtocolError,
    TickMismatchError,
    UncertainTickError,
)
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.service.controller_file import ControllerFile
from qnodeos.service.node_view import NodeView
from qnodeos.service.tick_grid import COMMON_TICKS, DRIFT, TOO_UNCERTAIN_TICKS, Grid, Placement

_NS_PER_MS: Final = 1_000_000
_LATEST_START_NS: Final = 60_000 * _NS_PER_MS
"""A schedule begins at most so much later than it is installed: the bound of start_delay_ms."""
_LONGEST_TICKS: Final = 1 << 45
"""How long a schedule may have been in use: eleven years of 10 us."""
_LATENESS_NS: Final = 150_000
"""How late a node without cores of its own may be now and then (assumed)."""


class CommonBins:
    """See the module's docstring.

    Args:
        file: the network.
        nodes: what is known of each.
        now_ns: of the owner's clock.
        flush: passes on what a node's session has to send.
        say: takes lines about what changes, for people.

    Attributes:
        number: of the schedule, 0 until there is one.
        lengths: of the bins, in the ticks of the devices; None until these are known.
    """

    def __init__(
        self,
        file: ControllerFile,
        nodes: Collection[NodeView],
        now_ns: int,
        flush: Callable[[NodeView], None],
        say: Callable[[str], None],
    ) -> None:
        self.number = 0
        self.lengths: NetworkSchedule | None = None
        self._file = file
        self._nodes = nodes
        self._first_round_ns = now_ns + file.synchronisation.first_round_ms * _NS_PER_MS
        self._flush = flush
        self._say = say
        self._grid: Grid | None = None
        self._from_bin = 0

    @property
    def first_due_ns(self) -> int | None:
        """When bins are made though not all nodes have come, None if that is not the question."""
        # Only a node whose ticks are known lets a schedule be made; until then nothing is due.
        is_first = self._grid is None and any(node.fix is not None for node in self._nodes)
        return self._first_round_ns if is_first else None

    def poll(self, now_ns: int) -> None:
        """Make bins if that is due."""
        if self._grid is None and now_ns >= self._first_round_ns and self.lengths is not None:
            self.settle(now_ns)

    def measure(self, tick_ns: int) -> None:
        """Learn how long a tick is, which all devices have in common.

        Raises:
            ConfigurationError: the lengths in the file make no bins of such ticks.
        """
        if self.lengths is not None:
            return
        try:
            self.lengths = lengths = self._file.schedule(tick_ns)
        except ValueError as error:
            raise ConfigurationError(
                f"bin_ms, guard_ms and batch_ms do not go together with ticks of {tick_ns} "
                f"ns: {error}"
            ) from error
        slack_ticks = lengths.bin_ticks - lengths.guard_ticks - lengths.batch_ticks
        if slack_ticks * tick_ns < _LATENESS_NS:
            self._say(
                f"a node that is more than {slack_ticks * tick_ns / 1_000:.0f} us late at the "
                "start of a bin misses all of it; lengthen bin_ms, or shorten guard_ms or batch_ms"
            )

    def settle(self, now_ns: int) -> None:
        """Something new is known: bring every node as far as possible."""
        grid = self._grid
        if grid is not None and not any(node.installed for node in self._nodes):
            forgotten_ticks = DRIFT * (now_ns - grid.as_of_ns) / grid.tick_ns
            if forgotten_ticks >= TOO_UNCERTAIN_TICKS / 2:
                self._grid = None  # all nodes were away for so long that it is lost
        if self._grid is None:
            waits = any(node.fix is None for node in self._nodes if node.has_link)
            if waits and now_ns < self._first_round_ns:
                return
            self._make_grid(now_ns)
        measured = [node for node in self._nodes if node.is_connected and node.fix]
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
        assert self.lengths is not None
        measured = [node for node in self._nodes if node.fix is not None]
        if not measured:
            return
        in_use = [
            node
            for node in measured
            if node.reading is not None
            and node.reading.schedule > 0
            and node.reading.bin_ticks == self.lengths.bin_ticks
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
        bin_ns = self.lengths.bin_ticks * grid.tick_ns
        self._from_bin = max(0, -((grid.epoch_ns - now_ns - delay_ns) // bin_ns))
        kept = "bins in use are kept" if in_use else "new bins"
        self._say(
            f"schedule {self.number}: bins of {self.lengths.bin_ticks} ticks, pattern of "
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
        for node in self._nodes:
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
        assert self.lengths is not None
        node.is_installing = True
        node.installs += 1
        node.installed_epoch = placement.epoch_tick
        node.session.send_control(
            Install(
                self.number,
                self.lengths.bin_ticks,
                self.lengths.guard_ticks,
                self.lengths.batch_ticks,
                placement.epoch_tick,
                node.pattern,
                self._from_bin,
            )
        )
        self._flush(node)

    def installed(self, node: NodeView, answer: Installed) -> None:
        """A node has answered to a schedule.

        Raises:
            PeerProtocolError: it was not asked.
        """
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
            assert self.lengths is not None
            # What it will report from now on; the next round asks it.
            node.reading = TickReading(
                node.reading.nonce,
                node.reading.tick,
                answer.schedule,
                node.installed_epoch,
                self.lengths.bin_ticks,
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


def _without_numbers(text: str) -> str:
    return "".join(character for character in text if not character.isdigit())
