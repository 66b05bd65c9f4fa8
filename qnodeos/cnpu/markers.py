"""Markers: finding out where the values of a block end up in its bytes.

A block is assembled with numbers in place of its values that occur nowhere else. Where they
are in the bytes is where the values belong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from netqasm.lang.ir import GenericInstr, ICmd, ProtoSubroutine
from netqasm.lang.operand import Address, ArrayEntry, ArraySlice, Register, Template
from netqasm.lang.parsing import text as assembler

from qnodeos.api.netqasm import INSTRUCTION_BYTES

HEADER_BYTES: Final = 4
INT32: Final = struct.Struct("<i")
IN_PLACE: Final = frozenset(
    (instruction.value, position)
    for instruction, position in assembler._REPLACE_CONSTANTS_EXCEPTION
)
"""(instruction, operand) pairs whose constants stay in the instruction."""
ROTATIONS: Final = frozenset(
    instruction.value
    for instruction in (GenericInstr.ROT_X, GenericInstr.ROT_Y, GenericInstr.ROT_Z)
)
_MARKER: Final = 0x5EED0000
_ROTATION_OPCODES: Final = frozenset((27, 28, 29))
"""rot_x, rot_y and rot_z, in every flavour: opcode, register, numerator, exponent."""
_NUMERATOR_OFFSET: Final = 2
_EXPONENT: Final = 4
"""Of angles in units of pi/16, which every step to the bytes leaves alone."""
_ANGLE_MARKER: Final = 0x80
"""Above every numerator that a transpiler puts there itself (at most 31)."""
MAX_ANGLES: Final = 0x100 - _ANGLE_MARKER
"""Angles of a block that can be filled in."""


def is_fillable(operands: Sequence[Any]) -> bool:
    """Whether a rotation's numerator is carried through to the bytes."""
    if len(operands) != 3:
        return False
    register, numerator, exponent = operands
    kind = type(numerator)
    return (
        exponent == _EXPONENT
        and type(register) is Register
        and ((kind is int and 0 <= numerator <= 0xFF) or kind is Template)
    )


def _markers() -> Iterator[int]:
    number = _MARKER
    while True:
        yield number
        number += 1


def mark(block: ProtoSubroutine, angles: int) -> None:
    """Replace the values, in the order in which a shape lists them, by markers.

    Args:
        block: to be changed.
        angles: how many of its numerators are values; the first ones.
    """
    markers = _markers()
    numerators = iter(range(_ANGLE_MARKER, _ANGLE_MARKER + angles))
    for command in block.commands:
        if not isinstance(command, ICmd):
            continue
        instruction = command.instruction.value
        if instruction in ROTATIONS and is_fillable(command.operands):
            numerator = next(numerators, None)
            if numerator is not None:
                command.operands[1] = numerator
                continue
        for position, operand in enumerate(command.operands):
            if type(operand) is int:
                if (instruction, position) not in IN_PLACE:
                    command.operands[position] = next(markers)
            elif isinstance(operand, Address):
                command.operands[position] = Address(next(markers))
            elif isinstance(operand, ArrayEntry | ArraySlice):
                operand.address = Address(next(markers))
                names = ("index",) if isinstance(operand, ArrayEntry) else ("start", "stop")
                for name in names:
                    if type(getattr(operand, name)) is int:
                        setattr(operand, name, next(markers))
    block._arguments = []


def find_markers(template: bytes, count: int) -> tuple[int, ...] | None:
    """Where each marker is in the template; None unless each is there exactly once."""
    found = (
        (INT32.unpack_from(template, offset)[0] - _MARKER, offset)
        for start in range(HEADER_BYTES, len(template), INSTRUCTION_BYTES)
        for offset in range(start + 1, start + INSTRUCTION_BYTES - INT32.size + 1)
    )
    return _each_once(found, count)


def find_angles(template: bytes, count: int) -> tuple[int, ...] | None:
    """Where each marker of an angle is; None unless each is there exactly once."""
    found = (
        (template[start + _NUMERATOR_OFFSET] - _ANGLE_MARKER, start + _NUMERATOR_OFFSET)
        for start in range(HEADER_BYTES, len(template), INSTRUCTION_BYTES)
        if template[start] in _ROTATION_OPCODES
        and template[start + _NUMERATOR_OFFSET + 1] == _EXPONENT
    )
    return _each_once(found, count)


def _each_once(found: Iterable[tuple[int, int]], count: int) -> tuple[int, ...] | None:
    """Offsets of the markers 0..count-1 among what was found; None if one is not there once."""
    offsets: dict[int, int] = {}
    for marker, offset in found:
        if 0 <= marker < count:
            if marker in offsets:
                return None
            offsets[marker] = offset
    if len(offsets) != count:
        return None
    return tuple(offsets[marker] for marker in range(count))
