"""A preallocated ring of events.

Recording happens inside the loops whose latency the trace is there to show, so it must
cost little and never allocate a container. In CPython, storing a reference in a
preallocated list is about twice as fast as packing the value into an array or a struct,
and creates nothing the garbage collector has to follow; the columns become numpy arrays
only when somebody reads them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.errors import LimitError
from qnodeos.trace.events import Event

CAPACITY_MAX: Final = 1 << 26
"""Most events one recorder may hold: 2 GiB of references, far beyond any experiment."""

_COLUMN_TYPES: Final = {
    "time": np.int64,
    "event": np.uint16,
    "process": np.int32,
    "detail": np.int32,
}


class TraceRecorder:
    """Records (time, event, process, detail) and keeps the last ``capacity`` of them.

    One thread records and reads.

    Args:
        unit_ns: duration of one unit of the recorded times (1000 for a host trace,
            the tick for a QNPU trace).
        capacity: how many events are kept; older ones are dropped and counted.

    Raises:
        ValueError: the unit or the capacity is not positive.
        LimitError: the capacity exceeds ``CAPACITY_MAX``.
    """

    __slots__ = ("_details", "_events", "_processes", "_recorded", "_times", "capacity", "unit_ns")

    def __init__(self, unit_ns: int, capacity: int) -> None:
        if unit_ns <= 0:
            raise ValueError(f"unit_ns must be positive, not {unit_ns}")
        if capacity <= 0:
            raise ValueError(f"capacity must be positive, not {capacity}")
        if capacity > CAPACITY_MAX:
            raise LimitError(
                f"trace capacity {capacity} exceeds CAPACITY_MAX = {CAPACITY_MAX}; "
                "read and clear the recorder more often instead"
            )
        self.unit_ns = unit_ns
        self.capacity = capacity
        self._times = [0] * capacity
        self._events = [0] * capacity
        self._processes = [0] * capacity
        self._details = [0] * capacity
        self._recorded = 0

    def __len__(self) -> int:
        """Number of events kept."""
        return min(self._recorded, self.capacity)

    @property
    def dropped(self) -> int:
        """Number of events overwritten since the last `clear`."""
        return max(0, self._recorded - self.capacity)

    @property
    def recorded(self) -> int:
        """Number of events recorded since the last `clear`, kept or not."""
        return self._recorded

    def record(self, time: int, event: int, process: int = 0, detail: int = 0) -> None:
        """Keep one event. Values are checked when they are read, not here."""
        recorded = self._recorded
        slot = recorded % self.capacity
        self._times[slot] = time
        self._events[slot] = event
        self._processes[slot] = process
        self._details[slot] = detail
        self._recorded = recorded + 1

    def columns(self) -> dict[str, NDArray[Any]]:
        """The kept events, oldest first.

        Returns:
            ``time`` int64, ``event`` uint16, ``process`` int32 and ``detail`` int32, each
            of shape (n,), in the order of recording.

        Raises:
            LimitError: a recorded value does not fit its column.
        """
        sources = (self._times, self._events, self._processes, self._details)
        return {
            name: self._unrolled(name, source)
            for name, source in zip(_COLUMN_TYPES, sources, strict=True)
        }

    def times(self, event: Event, process: int | None = None) -> NDArray[np.int64]:
        """Times of one event, oldest first, shape (n,), in units of ``unit_ns``.

        Args:
            event: which event.
            process: only those of this process; None for all.
        """
        columns = self.columns()
        chosen = columns["event"] == event
        if process is not None:
            chosen &= columns["process"] == process
        times: NDArray[np.int64] = columns["time"][chosen]
        return times

    def since(self, number: int, most: int) -> tuple[tuple[int, int, int, int], ...]:
        """Events in the order of recording, without copying the others.

        Args:
            number: of the first, counted from the last `clear`; it must be kept still.
            most: how many at most.

        Returns:
            (time, event, process, detail) of each.

        Raises:
            ValueError: the first has been overwritten.
        """
        recorded, capacity = self._recorded, self.capacity
        if number < recorded - capacity:
            raise ValueError(f"event {number} has been overwritten; {recorded} were recorded")
        times, events, processes, details = (
            self._times,
            self._events,
            self._processes,
            self._details,
        )
        return tuple(
            (times[slot], events[slot], processes[slot], details[slot])
            for slot in (each % capacity for each in range(number, min(recorded, number + most)))
        )

    def clear(self) -> None:
        """Forget all events and the count of dropped ones."""
        self._recorded = 0

    def _unrolled(self, name: str, source: list[int]) -> NDArray[Any]:
        try:
            kept = np.array(source[: len(self)], dtype=_COLUMN_TYPES[name])
        except OverflowError as error:
            raise LimitError(
                f"trace column '{name}' holds a value outside {_COLUMN_TYPES[name].__name__}; "
                "record smaller numbers"
            ) from error
        return np.roll(kept, -(self._recorded % self.capacity)) if self.dropped else kept
