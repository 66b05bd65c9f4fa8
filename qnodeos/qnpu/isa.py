"""NetQASM's instruction set as a table: opcode, mnemonic, operand layout.

Opcodes 20 to 31 mean different things in different flavours.

Source: netqasm 2.3.0 (lang/encoding.py, lang/instr/), checked against it in the tests.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from qnodeos.api.netqasm import Flavour

INT32_MIN: Final = -(2**31)
INT32_MAX: Final = 2**31 - 1


class Instruction(NamedTuple):
    """One decoded instruction."""

    mnemonic: str
    operands: tuple[int, ...]


_WRITES_FIRST: Final = frozenset(
    ("set", "load", "lea", "add", "sub", "addm", "subm", "mul", "div", "rem")
)
_WRITES_SECOND: Final = frozenset(("meas", "meas_basis", "meas_basis_yzy", "meas_basis_zxz"))


def written_register(instruction: Instruction) -> int | None:
    """Encoded number of the register an instruction writes to, None if there is none."""
    mnemonic, operands = instruction
    if mnemonic in _WRITES_FIRST:
        return operands[0]
    return operands[1] if mnemonic in _WRITES_SECOND else None


@dataclass(frozen=True)
class Layout:
    """Operand layout: a struct format, and which of its fields are registers."""

    format: str
    registers: tuple[int, ...]


_R = Layout("<B", (0,))
_RR = Layout("<BB", (0, 1))
_RRR = Layout("<BBB", (0, 1, 2))
_RRRR = Layout("<BBBB", (0, 1, 2, 3))
_RRRRR = Layout("<BBBBB", (0, 1, 2, 3, 4))
_R_I32 = Layout("<Bi", (0,))
_RR_I32 = Layout("<BBi", (0, 1))
_I32 = Layout("<i", ())
_R_ENTRY = Layout("<BiB", (0, 2))
_ENTRY = Layout("<iB", (1,))
_SLICE = Layout("<iBB", (1, 2))
_R_U8_U8 = Layout("<BBB", (0,))
_RR_U8_U8 = Layout("<BBBB", (0, 1))
_RR_U8X4 = Layout("<BBBBBB", (0, 1))
_U8_U8 = Layout("<BB", ())

CORE: Final[dict[int, tuple[str, Layout]]] = {
    1: ("qalloc", _R),
    2: ("init", _R),
    3: ("array", _R_I32),
    4: ("set", _R_I32),
    5: ("store", _R_ENTRY),
    6: ("load", _R_ENTRY),
    7: ("undef", _ENTRY),
    8: ("lea", _R_I32),
    9: ("jmp", _I32),
    10: ("bez", _R_I32),
    11: ("bnz", _R_I32),
    12: ("beq", _RR_I32),
    13: ("bne", _RR_I32),
    14: ("blt", _RR_I32),
    15: ("bge", _RR_I32),
    16: ("add", _RRR),
    17: ("sub", _RRR),
    18: ("addm", _RRRR),
    19: ("subm", _RRRR),
    32: ("meas", _RR),
    33: ("create_epr", _RRRRR),
    34: ("recv_epr", _RRRR),
    35: ("wait_all", _SLICE),
    36: ("wait_any", _SLICE),
    37: ("wait_single", _ENTRY),
    38: ("qfree", _R),
    39: ("ret_reg", _R),
    40: ("ret_arr", _I32),
    41: ("meas_basis", _RR_U8X4),
    48: ("meas_basis_yzy", _RR_U8X4),
    49: ("meas_basis_zxz", _RR_U8X4),
    100: ("breakpoint", _U8_U8),
    200: ("mul", _RRR),
    201: ("div", _RRR),
    202: ("rem", _RRR),
}

_ROTATIONS: Final[dict[int, tuple[str, Layout]]] = {
    27: ("rot_x", _R_U8_U8),
    28: ("rot_y", _R_U8_U8),
    29: ("rot_z", _R_U8_U8),
}

FLAVOURS: Final[dict[Flavour, dict[int, tuple[str, Layout]]]] = {
    Flavour.VANILLA: {
        **{20 + i: (name, _R) for i, name in enumerate(("x", "y", "z", "h", "s", "k", "t"))},
        **_ROTATIONS,
        30: ("cnot", _RR),
        31: ("cphase", _RR),
        51: ("mov", _RR),
        52: ("swp", _RR),
    },
    Flavour.NV: {
        **_ROTATIONS,
        30: ("crot_x", _RR_U8_U8),
        31: ("crot_y", _RR_U8_U8),
        51: ("mov", _RR),
        52: ("swp", _RR),
    },
}


class Decoding(NamedTuple):
    """How to decode one opcode."""

    mnemonic: str
    unpack_from: Callable[[bytes, int], tuple[Any, ...]]
    registers: tuple[int, ...]


def decoding_table(flavour: Flavour) -> tuple[Decoding | None, ...]:
    """The 256-entry table of a flavour: opcode -> how to decode it, None if unknown."""
    table: list[Decoding | None] = [None] * 256
    for opcode, (mnemonic, layout) in {**CORE, **FLAVOURS[flavour]}.items():
        table[opcode] = Decoding(
            mnemonic, struct.Struct(layout.format).unpack_from, layout.registers
        )
    return tuple(table)
