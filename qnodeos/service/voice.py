"""What a service says to people, without ever being held up or brought down by it."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Final

_BURST: Final = 50
"""Lines that may follow each other at once (assumed)."""
_PER_LINE_NS: Final = 1_000_000_000
"""Time after which there is room for one more line (assumed)."""
_MOST_CHARACTERS: Final = 1_000
"""Of a line: a pipe that takes anything takes 4096 bytes."""


class Voice:
    """Passes lines on, in moderation: who floods a service must not flood its log.

    Args:
        write: takes a line; what it fails at is forgotten, as nobody listens.
        clock_ns: monotonic clock in nanoseconds.
        descriptor: where ``write`` writes to; while it takes nothing (a reader that hangs, a
            terminal that is stopped), lines are not passed on. None if it never waits.

    Attributes:
        silenced: lines that were not passed on.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
        descriptor: int | None = None,
    ) -> None:
        self.silenced = 0
        self._write = write
        self._poll: select.poll | None = None
        if descriptor is not None:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)
        self._clock_ns = clock_ns
        self._room = _BURST
        self._since_ns = clock_ns()
        self._untold = 0

    def __call__(self, line: str) -> None:
        """Say a line, if there has not been too much lately."""
        now_ns = self._clock_ns()
        lines = (now_ns - self._since_ns) // _PER_LINE_NS
        if lines:
            self._since_ns += lines * _PER_LINE_NS
            self._room = min(self._room + lines, _BURST)
        if not self._room or (self._poll is not None and not self._poll.poll(0)):
            self.silenced += 1
            self._untold += 1
            return
        self._room -= 1
        line = line[:_MOST_CHARACTERS]
        if self._untold:
            line = f"{line} (and {self._untold} lines before that were too many)"
            self._untold = 0
        try:
            self._write(line)
        except OSError:
            self.silenced += 1
