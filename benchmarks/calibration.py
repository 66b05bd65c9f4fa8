"""A fixed piece of pure Python, by which machines can be compared.

One unit is 1,000 passes of `calibration_loop`: a method call, integer arithmetic on 32
bits, a dictionary look-up, a list element read and written, a branch, and a tuple made and
unpacked per pass, which is what the operating system itself spends its time on. It uses
nothing but the interpreter and fits in any cache. Changing it makes all earlier figures
worthless.
"""

from __future__ import annotations

from typing import Final

from benchmarks.measure import Work

PASSES_PER_UNIT: Final = 1_000
UNIT: Final = "unit"
_SLOTS: Final = 64


class _Counter:
    """Something with a method."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0

    def add(self, value: int) -> int:
        self.total = self.total + value & 0xFFFF_FFFF
        return self.total


def calibration_loop(passes: int) -> int:
    """Run the loop; the result depends on every pass, so none can be left out."""
    counter = _Counter()
    slots = [0] * _SLOTS
    names = {number: _SLOTS - 1 - number for number in range(_SLOTS)}
    state = 1
    for _ in range(passes):
        state = state * 1_664_525 + 1_013_904_223 & 0xFFFF_FFFF
        slot, value = names[state >> 26], state & 0xFF
        if value & 1:
            slots[slot] += counter.add(value)
        else:
            slots[slot] = counter.add(slot) ^ value
    return sum(slots) & 0xFFFF_FFFF


def calibration(units: int) -> Work:
    """The calibration loop as work to compare with.

    Args:
        units: how many units to do at once.
    """
    passes = units * PASSES_PER_UNIT
    return Work("calibration loop", UNIT, units, lambda: lambda: calibration_loop(passes))
