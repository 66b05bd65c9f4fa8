"""Responses that hold from a tick on, in the order of their ticks."""

from __future__ import annotations

from collections import deque
from typing import Final

from qnodeos.qdevice.frames import TICK_MASK, TICK_PATTERN

MAX_PENDING: Final = 256
"""Responses for later ticks that are kept; a device needs two for each instruction."""


def frame_at(frame: int, from_tick: int, tick: int) -> int:
    """What a response, encoded for one tick, is at another."""
    return frame ^ TICK_PATTERN[from_tick & TICK_MASK] ^ TICK_PATTERN[tick & TICK_MASK]


class ResponseSchedule:
    """What is and will be on the wire. A later response replaces those it does not follow."""

    __slots__ = ("current", "pending")

    def __init__(self) -> None:
        self.current: tuple[int, int] | None = None
        self.pending: deque[tuple[int, int]] = deque()

    @property
    def is_full(self) -> bool:
        """Whether no more can be taken."""
        return len(self.pending) >= MAX_PENDING

    @property
    def next_tick(self) -> int | None:
        """From which tick on the next response holds."""
        return self.pending[0][0] if self.pending else None

    def put(self, from_tick: int, frame: int) -> None:
        """From that tick on, this response is on the wire."""
        pending = self.pending
        while pending and pending[-1][0] >= from_tick:
            pending.pop()
        pending.append((from_tick, frame))

    def take(self, tick: int) -> tuple[int, int] | None:
        """The next response that has come to hold, which is `current` then; None if none has."""
        if not self.pending or self.pending[0][0] > tick:
            return None
        self.current = self.pending.popleft()
        return self.current
