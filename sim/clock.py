"""Virtual time: a queue of things to do, in order of time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class VirtualClock:
    """Jumps from event to event; idle time costs nothing.

    Events at the same time happen in the order in which they were scheduled, so a run is
    determined by its seeds.
    """

    def __init__(self) -> None:
        self._now_ns = 0
        self._scheduled = 0
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    @property
    def now_ns(self) -> int:
        """The current time."""
        return self._now_ns

    def call_at(self, time_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        """Do something at a time not before now.

        Raises:
            ValueError: the time has passed.
        """
        if time_ns < self._now_ns:
            raise ValueError(f"cannot schedule for {time_ns} ns: it is {self._now_ns} ns")
        self._scheduled += 1
        heapq.heappush(self._events, (time_ns, self._scheduled, action, arguments))

    def run_while(self, condition: Callable[[], bool]) -> bool:
        """Let time pass while a condition holds; False if nothing is left to happen."""
        events, pop = self._events, heapq.heappop
        while condition():
            if not events:
                return False
            self._now_ns, _, action, arguments = pop(events)
            action(*arguments)
        return True
