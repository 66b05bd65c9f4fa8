"""The trace as a stream: what subscribers have not seen yet, straight from the recorder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qnodeos.api.host_wire import TraceEvents
from qnodeos.trace import TraceRecorder

MAX_EVENTS: Final = 2_048
"""Trace events in one message: 30 kB."""


class EventStream:
    """Reads a recorder's ring by the number of the event, counted from the start.

    Recording costs nothing more for it.

    Args:
        recorder: of the QNPU's trace.
        epoch_ns: tells when tick 0 was, on the monotonic clock.
        interval_ns: how often subscribers should be served (assumed: 20 ms).
    """

    def __init__(
        self,
        recorder: TraceRecorder,
        epoch_ns: Callable[[], int],
        interval_ns: int = 20_000_000,
    ) -> None:
        self._recorder = recorder
        self._epoch_ns = epoch_ns
        self.interval_ns = interval_ns

    @property
    def next_number(self) -> int:
        """Number of the next event that will be recorded."""
        return self._recorder.recorded

    def catch_up(self, number: int, most: int) -> tuple[int, int]:
        """Where a reader is after dropping what it is too late for.

        Args:
            number: of the next event it has not seen.
            most: events that may wait for it.

        Returns:
            The number to go on with, and how many were dropped before it.
        """
        oldest = self._recorder.recorded - min(most, self._recorder.capacity)
        return (oldest, oldest - number) if oldest > number else (number, 0)

    def take(self, number: int, dropped: int) -> TraceEvents | None:
        """The events from a number on, at most `MAX_EVENTS`.

        Args:
            number: of the first; `catch_up` has made sure that it is still there.
            dropped: what the reader missed before.

        Returns:
            None if there is nothing to tell.
        """
        events = self._recorder.since(number, MAX_EVENTS)
        if not events and not dropped:
            return None
        return TraceEvents(dropped, self._epoch_ns(), self._recorder.unit_ns, events)
