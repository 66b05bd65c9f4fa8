"""How long blocks of instructions have taken, to foresee how long they will take.

A block is what a process runs from where it is chosen, or could have paused, to where it
waits, ends or could pause again. It is known by the operation codes of its subroutine and by
the instruction it begins with: angles make no difference to how long it takes.
"""

from __future__ import annotations

from typing import Final

from qnodeos.api.netqasm import INSTRUCTION_BYTES
from qnodeos.qnpu.process import UserProcess

BLOCKS_MAX: Final = 4_096
"""Blocks remembered; the one that was first seen longest ago makes room."""

_Block = tuple[bytes, int]


class BlockDurations:
    """The longest time each block has taken, in ticks."""

    def __init__(self) -> None:
        self._longest_ticks: dict[_Block, int] = {}
        self._current: _Block | None = None
        self._begin_tick = 0

    def expected(self, process: UserProcess, pc: int | None = None) -> int:
        """How long a process will run; 0 if its next block never has.

        Args:
            process: a process that has work.
            pc: the instruction it goes on with, if not where it stands.
        """
        return self._longest_ticks.get(_block(process, pc), 0)

    def begin(self, process: UserProcess, tick: int, pc: int | None = None) -> None:
        """A block begins; arguments as for `expected`."""
        self._current, self._begin_tick = _block(process, pc), tick

    def end(self, tick: int) -> None:
        """The block that began last has ended."""
        block, self._current = self._current, None
        if block is None:
            return
        longest, took = self._longest_ticks, tick - self._begin_tick
        if block not in longest and len(longest) >= BLOCKS_MAX:
            del longest[next(iter(longest))]
        longest[block] = max(took, longest.get(block, 0))


def _block(process: UserProcess, pc: int | None) -> _Block:
    subroutine, begins_at = process.current, process.execution.pc
    if subroutine is None:
        subroutine, begins_at = process.pending[0], 0
    return subroutine.body[::INSTRUCTION_BYTES], begins_at if pc is None else pc
