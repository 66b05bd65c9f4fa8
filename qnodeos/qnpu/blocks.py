"""How long blocks of instructions have taken, to foresee how long they will take.

A block is what a process runs from where it is chosen, or could have paused, to where it
waits, ends or could pause next, which is where it allocates a qubit. Blocks of straight-line
code are known by their operation codes: angles and addresses make no difference to how long
they take. Where there are branches, operands may count, and a block is known by all its bytes.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, TypeVar

from qnodeos.api.netqasm import BRANCH_OPCODES, INSTRUCTION_BYTES, QALLOC_OPCODE
from qnodeos.qnpu.process import UserProcess

BLOCKS_MAX: Final = 4_096
"""Blocks remembered; the one that was first seen longest ago makes room."""

_CACHED_BYTES_MAX: Final = 2_048
"""Size of a subroutine whose blocks are looked up instead of found anew."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class BlockDurations:
    """The longest time each block has taken, in ticks."""

    def __init__(self) -> None:
        self._longest_ticks: dict[bytes, int] = {}
        self._blocks: dict[tuple[bytes, int], bytes] = {}
        self._current: bytes | None = None
        self._begin_tick = 0

    def expected(self, process: UserProcess, pc: int | None = None) -> int:
        """How long a process will run; 0 if nobody has run that block yet.

        Args:
            process: a process that has work.
            pc: the instruction it goes on with, if not where it stands.
        """
        return self._longest_ticks.get(self._block(process, pc), 0)

    def begin(self, process: UserProcess, tick: int, pc: int | None = None) -> None:
        """A block begins; arguments as for `expected`."""
        self._current, self._begin_tick = self._block(process, pc), tick

    def end(self, tick: int) -> None:
        """The block that began last has ended."""
        block, self._current = self._current, None
        if block is not None:
            took = max(tick - self._begin_tick, self._longest_ticks.get(block, 0))
            _keep(self._longest_ticks, block, took)

    def _block(self, process: UserProcess, pc: int | None) -> bytes:
        subroutine, begins_at = process.current, process.execution.pc
        if subroutine is None:
            subroutine, begins_at = process.pending[0], 0
        place = subroutine.body, begins_at if pc is None else pc
        block = self._blocks.get(place)
        if block is None:
            block = _block_at(*place)
            if len(subroutine.body) <= _CACHED_BYTES_MAX:
                _keep(self._blocks, place, block)
        return block


def _block_at(body: bytes, pc: int) -> bytes:
    """Digest of what tells a block from others."""
    opcodes = body[::INSTRUCTION_BYTES]
    allocates = opcodes.find(QALLOC_OPCODE, pc)
    end = opcodes.find(QALLOC_OPCODE, allocates + 1) if allocates >= 0 else -1
    block = opcodes[pc:] if end < 0 else opcodes[pc:end]
    if not BRANCH_OPCODES.isdisjoint(block):
        block = body[pc * INSTRUCTION_BYTES :]
    return blake2b(block, digest_size=16).digest()


def _keep(entries: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    if key not in entries and len(entries) >= BLOCKS_MAX:
        del entries[next(iter(entries))]
    entries[key] = value
