"""Rings of slots in the file of a channel, in pure Python (csrc/channel.h is the native twin).

One end writes a ring, the other reads it. `qnodeos.engine.layout` says how a slot looks.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable
from typing import Final, Protocol

from qnodeos.engine.layout import SLOT_BYTES, SLOTS

_SLOT: Final = struct.Struct("@qII")
_MASK_64: Final = (1 << 64) - 1
_INDEX_FACTOR: Final = 0x9E3779B97F4A7C15
_MIX_FACTOR: Final = 0xD6E8FEB86659FD93
"""Odd numbers without structure: the golden ratio's, and one of `rrmxmx`, a published mixer."""

PATIENCE: Final = 1000
"""Looks at a slot whose check is wrong before it is taken for damaged and left out (assumed)."""


def slot_check(index: int, tick: int, frame: int) -> int:
    """The check of the slot with this number since the beginning: 32 bits."""
    mixed = (tick ^ index * _INDEX_FACTOR ^ (frame << 32 | frame)) & _MASK_64
    mixed = (mixed ^ mixed >> 32) * _MIX_FACTOR & _MASK_64
    return mixed >> 32


class SlotRing(Protocol):
    """One direction of a channel; an end only pushes or only pops.

    `damaged` counts slots that were left out because their check never was right.
    """

    @property
    def damaged(self) -> int:
        """Slots that were left out."""
        ...

    def push(self, tick: int, frame: int) -> bool:
        """Write; False if there is no room."""
        ...

    def pop(self) -> tuple[int, int] | None:
        """Read the next (tick, frame), None if there is none yet."""
        ...

    def skip_all(self) -> None:
        """Read all there is, and forget it."""
        ...

    def release(self) -> None:
        """Let the memory go."""
        ...


class PythonSlotRing:
    """A ring in a writable buffer.

    Args:
        memory: the whole file.
        slots_at: where its slots begin, in bytes.
        head: word that counts what was written.
        tail: word that counts what was read.
    """

    __slots__ = ("_attempts", "_head", "_memory", "_slots_at", "_tail", "_words", "damaged")

    def __init__(self, memory: memoryview, slots_at: int, head: int, tail: int) -> None:
        self.damaged = 0
        self._memory = memory[:]
        # One store of 8 bytes for each assignment, so that nobody sees half a number.
        self._words = self._memory.cast("B").cast("Q")
        self._slots_at = slots_at
        self._head = head
        self._tail = tail
        self._attempts = 0

    def push(self, tick: int, frame: int) -> bool:
        """See `SlotRing`."""
        words = self._words
        head = words[self._head]
        if (head - words[self._tail] & _MASK_64) >= SLOTS:
            return False
        at = self._slots_at + head % SLOTS * SLOT_BYTES
        _SLOT.pack_into(self._memory, at, tick, frame, slot_check(head, tick, frame))
        words[self._head] = head + 1 & _MASK_64
        return True

    def pop(self) -> tuple[int, int] | None:
        """See `SlotRing`."""
        words = self._words
        tail = words[self._tail]
        waiting = words[self._head] - tail & _MASK_64
        if not waiting:
            return None
        if waiting > SLOTS:
            self.damaged += 1
            self.skip_all()
            return None
        at = self._slots_at + tail % SLOTS * SLOT_BYTES
        tick, frame, check = _SLOT.unpack_from(self._memory, at)
        if check != slot_check(tail, tick, frame):
            self._attempts += 1
            if self._attempts < PATIENCE:
                return None
            self.damaged += 1
        self._attempts, complete = 0, check == slot_check(tail, tick, frame)
        words[self._tail] = tail + 1 & _MASK_64
        return (tick, frame) if complete else None

    def skip_all(self) -> None:
        """See `SlotRing`."""
        self._attempts = 0
        self._words[self._tail] = self._words[self._head]

    def release(self) -> None:
        """See `SlotRing`."""
        self._words.release()
        self._memory.release()


def slot_ring_type() -> Callable[[memoryview, int, int, int], SlotRing]:
    """What makes a ring: the native one where it was built, which orders its stores itself."""
    try:
        native: Callable[[memoryview, int, int, int], SlotRing] = importlib.import_module(
            "qnodeos.engine._native"
        ).SlotRing
    except ImportError:
        return PythonSlotRing
    return native
