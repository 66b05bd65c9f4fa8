"""Real time for the ticks of a wire that nobody else paces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from qnodeos.errors import ConfigurationError, DeviceError

NS_PER_S: Final = 1_000_000_000
SPIN_NS: Final = 200_000
"""The end of a wait that is spent looking at the clock: a sleep of Linux without real-time
priority ends up to so much late (assumed)."""
LONGEST_WAIT_NS: Final = 600 * NS_PER_S
"""Bound on one wait (assumed: no program of a calibration waits for minutes)."""


class TickPacer:
    """Lets every tick come in its time, and no two of them too close to each other.

    The first tick comes at once. Each later one comes as long after the one before as their
    numbers say, and not a nanosecond sooner: a device that takes the arrival of a frame for the
    start of a tick has written no answer by then. So whoever is late never catches up; what
    remains is moved on by the delay. A delay between here and the wire is not seen, and the frame
    after it may come too soon; that costs an answer. A device has a pacer of its own.

    Args:
        tick_ns: length of a tick.
        now_ns: a clock that never goes back.
        sleep: waits for so many seconds, or somewhat longer.

    Raises:
        ConfigurationError: a tick has no length.
    """

    def __init__(
        self,
        tick_ns: int,
        now_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if tick_ns <= 0:
            raise ConfigurationError(
                f"a tick of {tick_ns} ns cannot be kept; it must be longer than 0",
                field="tick_ns",
            )
        self._tick_ns = tick_ns
        self._now_ns = now_ns
        self._sleep = sleep
        self._epoch_ns: int | None = None
        self._tick = 0
        self._late_ns = 0

    @property
    def lost_ticks(self) -> int:
        """By how many whole ticks the first one has been moved on so far."""
        return self._late_ns // self._tick_ns

    def wait(self, tick: int) -> None:
        """Return when a tick begins.

        Args:
            tick: later than the last one.

        Raises:
            DeviceError: it is not, or is further ahead than anybody should wait.
        """
        if self._epoch_ns is None:
            self._epoch_ns = self._now_ns() - tick * self._tick_ns
            self._tick = tick
            return
        due_ns = self._epoch_ns + tick * self._tick_ns
        ahead_ns = due_ns - self._now_ns()
        if tick <= self._tick or ahead_ns > LONGEST_WAIT_NS:
            raise DeviceError(
                f"tick {tick} cannot be waited for after tick {self._tick}: it must be later, by "
                f"{LONGEST_WAIT_NS // NS_PER_S} s at most; use one clock for one device"
            )
        while ahead_ns > 0:
            if ahead_ns > SPIN_NS:
                self._sleep((ahead_ns - SPIN_NS) / NS_PER_S)
            ahead_ns = due_ns - self._now_ns()
        self._epoch_ns -= ahead_ns
        self._late_ns -= ahead_ns
        self._tick = tick
