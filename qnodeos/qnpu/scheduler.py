"""The scheduler: which ready process runs next.

Non-pre-emptive: a running process keeps the QNPU until it ends its work or waits. The policy
is one small object, so that others can be plugged in and compared; `POLICIES` has those that
come with the system, docs/schedulers.md what they are for.

Every ready process has a place in a heap, so a decision costs the logarithm of their number.
Where a policy may hold processes back, the first `LOOK_AHEAD` in its order are considered.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from qnodeos.qnpu.process import Process

LOOK_AHEAD: Final = 16
"""Processes looked at, in the policy's order, to find one that need not be held back."""


_DEAD_ENTRIES: Final = 64


class SchedulingPolicy(Protocol):
    """Decides about ready processes; priorities come before everything it says.

    Attributes:
        name: as users give it.
        spares_bins: whether it may hold processes back for the sake of the network process.
            Then programs are also asked to pause where they hold no qubit.
        prepares_ahead: whether a process is made ready to run while the device works for
            another one, and not only when its turn has come.
    """

    name: str
    spares_bins: bool
    prepares_ahead: bool

    def order(self, process: Process) -> int:
        """Place among the ready processes of one priority: the smallest runs first.

        Must not change while the process is ready, unless it is handed a qubit.
        """
        ...

    def may_start(self, process: Process, start_tick: int, network_tick: int | None) -> bool:
        """Whether a process may have the QNPU now; for those that spare bins.

        Args:
            process: a ready process, or a running one that could pause.
            start_tick: when it would run its first instruction.
            network_tick: when the network process will want the QNPU, None for not at all as
                far as is known.
        """
        ...

    def latest_start(self, process: Process) -> int:
        """Tick from which on `may_start` is true whatever the network process wants."""
        ...


class PriorityFcfs:
    """The paper's policy: highest priority first, first come first served within one."""

    name = "fcfs"
    spares_bins = False

    def __init__(self, *, prepares_ahead: bool = False) -> None:
        self.prepares_ahead = prepares_ahead

    def order(self, process: Process) -> int:
        """See `SchedulingPolicy`."""
        return process.arrival

    def may_start(self, process: Process, start_tick: int, network_tick: int | None) -> bool:
        """See `SchedulingPolicy`."""
        return True

    def latest_start(self, process: Process) -> int:
        """See `SchedulingPolicy`."""
        return process.arrival_tick


class EarliestDeadline(PriorityFcfs):
    """Processes whose qubits decay first: the longer a qubit has been kept, the sooner.

    A process without a qubit has a deadline too, so it is never passed over for ever: one
    that has been ready for ``patience_ticks - qubit_ticks`` goes before every process whose
    qubit is new. One whose next block takes no time costs the others nothing, and may be a
    request for entanglement that the network process could serve: it need not be patient.

    Args:
        qubit_ticks: from the start of a qubit's life to the deadline of its process (13 ms at
            10 us, the published coherence time; only its distance from the patience matters).
        patience_ticks: from the arrival of a process without a qubit to its deadline.
    """

    name = "deadline"

    def __init__(
        self,
        *,
        qubit_ticks: int = 1_300,
        patience_ticks: int = 20_000,
        prepares_ahead: bool = False,
    ) -> None:
        super().__init__(prepares_ahead=prepares_ahead)
        self._qubit_ticks = qubit_ticks
        self._patience_ticks = patience_ticks

    def order(self, process: Process) -> int:
        """See `SchedulingPolicy`."""
        if process.qubit_tick is not None:
            return max(process.qubit_tick + self._qubit_ticks, process.arrival_tick)
        patient = process.expected_ticks > 0
        return process.arrival_tick + (self._patience_ticks if patient else self._qubit_ticks)


class BinAware:
    """Does not let a process without qubits run into the start of a time bin.

    How long a process will take is known from the last times the same instructions ran; what
    has never run is let through. A process that holds a qubit is not held back: the bin could
    not be used without that qubit, and it decays.

    Args:
        base: decides the order.
        patience_ticks: a process held back for so long runs at the next opportunity, whatever
            bin that costs (200 ms at 10 us).
    """

    name = "bin-aware"
    spares_bins = True

    def __init__(self, base: PriorityFcfs | None = None, *, patience_ticks: int = 20_000) -> None:
        self._base = base if base is not None else PriorityFcfs()
        self._patience_ticks = patience_ticks
        self.prepares_ahead = self._base.prepares_ahead

    def order(self, process: Process) -> int:
        """See `SchedulingPolicy`."""
        return self._base.order(process)

    def may_start(self, process: Process, start_tick: int, network_tick: int | None) -> bool:
        """See `SchedulingPolicy`."""
        return (
            network_tick is None
            or process.qubit_tick is not None
            or start_tick + process.expected_ticks <= network_tick
            or start_tick >= self.latest_start(process)
        )

    def latest_start(self, process: Process) -> int:
        """See `SchedulingPolicy`."""
        return process.ready_tick + self._patience_ticks


class Combined(BinAware):
    """All improvements at once: bins are spared, decaying qubits first, prepared ahead."""

    name = "combined"

    def __init__(self) -> None:
        super().__init__(EarliestDeadline(prepares_ahead=True))


class PreparingFcfs(PriorityFcfs):
    """The paper's order, with processes prepared while the device works."""

    name = "prepare-ahead"

    def __init__(self) -> None:
        super().__init__(prepares_ahead=True)


POLICIES: Final[Mapping[str, Callable[[], SchedulingPolicy]]] = {
    policy.name: policy
    for policy in (PriorityFcfs, PreparingFcfs, BinAware, EarliestDeadline, Combined)
}
"""The policies by name."""


class _Place(NamedTuple):
    """Where a ready process stands; the smallest runs first."""

    priority: int
    order: int
    arrival: int
    entry: int


class Scheduler:
    """Holds the ready processes and asks the policy.

    Args:
        policy: who runs next.
        dispatch_ticks: ticks it takes to make a user process ready to run.
    """

    def __init__(self, policy: SchedulingPolicy, dispatch_ticks: int = 0) -> None:
        self.policy = policy
        self._dispatch_ticks = dispatch_ticks
        self._heap: list[tuple[_Place, Process]] = []
        self._places: dict[int, _Place] = {}
        self._arrivals = self._entries = 0
        self._preparing_until = 0

    @property
    def ready(self) -> Sequence[Process]:
        """The ready processes, in order of arrival."""
        ready = [process for place, process in self._heap if self._is_at(process, place)]
        return sorted(ready, key=lambda process: process.arrival)

    def __len__(self) -> int:
        """How many processes are ready."""
        return len(self._places)

    def arrive(self, process: Process, tick: int, prepared_tick: int | None = None) -> None:
        """A process has become ready.

        Args:
            process: the process.
            tick: now.
            prepared_tick: when it is prepared to run, if that has begun already.
        """
        self._arrivals += 1
        process.arrival = self._arrivals
        process.arrival_tick = process.ready_tick = tick
        if prepared_tick is not None:
            process.prepared_tick = prepared_tick
        elif self.policy.prepares_ahead and not process.is_network:
            first = self._first()
            goes_first = first is None or self._place(process) < self._places[first.pid]
            urgent = goes_first or process.qubit_tick is not None
            process.prepared_tick = self.prepare(tick, urgent=urgent)
        self._enter(process)

    def prepare(self, tick: int, *, urgent: bool = False) -> int:
        """Begin to prepare a process or subroutine, one after the other; when it will be done.

        Args:
            tick: now.
            urgent: whether it goes before those that are being prepared.
        """
        begin = tick if urgent else max(tick, self._preparing_until)
        self._preparing_until = max(tick, self._preparing_until) + self._dispatch_ticks
        return begin + self._dispatch_ticks

    def pause(self, process: Process, tick: int) -> None:
        """A running process gives way; it keeps its place among the others."""
        process.ready_tick = tick
        if self.policy.prepares_ahead:
            process.prepared_tick = self.prepare(tick)
        self._enter(process)

    def move(self, process: Process) -> None:
        """Something that the policy's order depends on has changed, for a ready process."""
        self.withdraw(process)
        self._enter(process)

    def withdraw(self, process: Process) -> None:
        """A ready process has ended."""
        del self._places[process.pid]
        if len(self._heap) > 2 * len(self._places) + _DEAD_ENTRIES:
            self._heap = [entry for entry in self._heap if self._is_at(entry[1], entry[0])]
            heapq.heapify(self._heap)

    def start_tick(self, process: Process, tick: int) -> int:
        """When a process would run its first instruction if it were chosen now."""
        if process.is_network:
            return tick
        if self.policy.prepares_ahead:
            return max(tick, process.prepared_tick)
        return tick + self._dispatch_ticks

    def choose(self, tick: int, network_tick: int | None = None) -> Process | None:
        """Take the process to run next out of the ready ones, None if none is to run now.

        Args:
            tick: now.
            network_tick: see `SchedulingPolicy.may_start`.
        """
        heap = self._heap
        held_back: list[tuple[_Place, Process]] = []
        chosen: Process | None = None
        while heap and chosen is None and len(held_back) < LOOK_AHEAD:
            place, process = entry = heapq.heappop(heap)
            if not self._is_at(process, place):
                continue
            start_tick = self.start_tick(process, tick)
            if process.is_network or self.policy.may_start(process, start_tick, network_tick):
                chosen = process
            else:
                held_back.append(entry)
        for entry in held_back:
            heapq.heappush(heap, entry)
        if chosen is not None:
            del self._places[chosen.pid]
        return chosen

    def next_tick(self, tick: int) -> int:
        """When `choose` finds somebody at the latest, if processes are ready.

        Args:
            tick: when it was asked last.
        """
        first = self._first()
        return tick + 1 if first is None else max(self.policy.latest_start(first), tick + 1)

    def prefers_another(self, process: Process) -> bool:
        """Whether a ready process goes before one that runs."""
        first = self._first()
        return first is not None and self._places[first.pid] < self._place(process)

    def _first(self) -> Process | None:
        heap = self._heap
        while heap:
            place, process = heap[0]
            if self._is_at(process, place):
                return process
            heapq.heappop(heap)
        return None

    def _enter(self, process: Process) -> None:
        place = self._places[process.pid] = self._place(process)
        heapq.heappush(self._heap, (place, process))

    def _place(self, process: Process) -> _Place:
        self._entries += 1
        order = self.policy.order(process)
        return _Place(-process.priority, order, process.arrival, self._entries)

    def _is_at(self, process: Process, place: _Place) -> bool:
        """Whether an entry of the heap is the present one of its process."""
        return self._places.get(process.pid) is place
