"""What every layer knows of NetQASM's encoding: flavours, registers, instruction size.

An instruction is seven bytes: the opcode, its operands, zero padding. A register is one
byte, bank | index << 2 with the banks R, C, Q, M (0..3), so the 64 registers are numbered
0..63 by their own encoding. Source: netqasm 2.3.0, lang/encoding.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

INSTRUCTION_BYTES: Final = 7
REGISTERS: Final = 64
QALLOC_OPCODE: Final = 1
BRANCH_OPCODES: Final = frozenset(range(9, 16))
"""jmp, bez, bnz, beq, bne, blt, bge."""
CREATE_EPR_OPCODE: Final = 33
RECV_EPR_OPCODE: Final = 34

_BANKS: Final = "RCQM"


class Flavour(Enum):
    """The two NetQASM flavours with an instruction set of their own here."""

    VANILLA = "vanilla"
    NV = "nv"


def register_name(number: int) -> str:
    """Name of a register from its encoded byte: 0 is R0, 2 is Q0."""
    return f"{_BANKS[number & 3]}{number >> 2}"
