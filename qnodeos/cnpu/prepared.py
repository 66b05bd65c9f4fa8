"""Prepared subroutines: a block that repeats is assembled once, then filled in.

The SDK assembles and transpiles every flush anew, which takes longer than everything the
operating system does with the result. But which instructions come out depends only on the
*shape* of a block: the constants that the assembler moves into registers, and the
addresses of arrays, are carried through untouched. So for each shape we have the SDK
assemble the block once with markers in these places, find where the markers ended up, and
from then on write the values there.

What is not a constant of that kind (angles, virtual qubits, branch labels, named
registers) belongs to the shape. Before a template is used for the first time it is
compared with what the SDK makes of the block itself; a shape for which they differ is left
to the SDK for good.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from netqasm.lang.ir import ICmd, ProtoSubroutine
from netqasm.lang.operand import Address, ArrayEntry, ArraySlice
from netqasm.lang.parsing import text as assembler

from qnodeos.api.netqasm import INSTRUCTION_BYTES
from qnodeos.errors import CallerError

HEADER_BYTES: Final = 4
MAX_SHAPES: Final = 256
"""Shapes remembered per connection; the oldest are forgotten."""

_MARKER: Final = 0x5EED0000
_INT32: Final = struct.Struct("<i")
_IN_PLACE: Final = frozenset(assembler._REPLACE_CONSTANTS_EXCEPTION)
"""(instruction, operand) pairs whose constants stay in the instruction."""

Shape = tuple[Any, ...]


@dataclass(frozen=True)
class _Prepared:
    """A template: the bytes, and the offset of every value, in order of appearance."""

    template: bytes
    offsets: tuple[int, ...]

    def fill(self, values: Sequence[int]) -> bytes:
        filled = bytearray(self.template)
        for offset, value in zip(self.offsets, values, strict=True):
            try:
                _INT32.pack_into(filled, offset, value)
            except struct.error:
                raise CallerError(
                    f"the program uses the number {value}, which is no 32-bit integer"
                ) from None
        return bytes(filled)


class SubroutineCache:
    """Assembles the blocks of one connection.

    Args:
        assemble: the SDK's way: from a protosubroutine to its bytes.
    """

    def __init__(self, assemble: Callable[[ProtoSubroutine], bytes]) -> None:
        self._assemble = assemble
        self._prepared: dict[Shape, _Prepared | None] = {}

    def assemble(self, block: ProtoSubroutine) -> bytes:
        """The bytes of a block, as the SDK would make them.

        Raises:
            CallerError: a constant is no 32-bit integer (the SDK would cut it silently).
        """
        shape, values = _shape_of(block)
        if shape in self._prepared:
            prepared = self._prepared[shape]
            return self._assemble(block) if prepared is None else prepared.fill(values)
        marked = deepcopy(block)
        raw = self._assemble(block)
        while len(self._prepared) >= MAX_SHAPES:
            del self._prepared[next(iter(self._prepared))]
        self._prepared[shape] = self._prepare(marked, raw, values)
        return raw

    def _prepare(
        self, marked: ProtoSubroutine, expected: bytes, values: Sequence[int]
    ) -> _Prepared | None:
        """A template for a shape, or None if its values cannot simply be filled in."""
        _mark(marked)
        template = self._assemble(marked)
        offsets = _find_markers(template, len(values))
        if offsets is None:
            return None
        prepared = _Prepared(template, offsets)
        return prepared if prepared.fill(values) == expected else None


def _shape_of(block: ProtoSubroutine) -> tuple[Shape, list[int]]:
    """What the instructions depend on, and the values that are only carried through."""
    shape: list[Any] = [block.app_id]
    values: list[int] = []
    for command in block.commands:
        if not isinstance(command, ICmd):
            shape.append(command.name)
            continue
        instruction = command.instruction
        shape.append(instruction)
        shape.extend(command.args)
        for position, operand in enumerate(command.operands):
            kind = type(operand)
            if kind is int:
                if (instruction, position) in _IN_PLACE:
                    shape.append(operand)
                else:
                    shape.append(int)
                    values.append(operand)
            elif kind is Address:
                shape.append(Address)
                values.append(operand.address)
            elif kind is ArrayEntry:
                shape.append(ArrayEntry)
                values.append(operand.address.address)
                _note_index(operand.index, shape, values)
            elif kind is ArraySlice:
                shape.append(ArraySlice)
                values.append(operand.address.address)
                _note_index(operand.start, shape, values)
                _note_index(operand.stop, shape, values)
            else:
                shape.append(operand)
    return tuple(shape), values


def _note_index(index: Any, shape: list[Any], values: list[int]) -> None:
    if type(index) is int:
        shape.append(int)
        values.append(index)
    else:
        shape.append(index)


def _markers() -> Iterator[int]:
    number = _MARKER
    while True:
        yield number
        number += 1


def _mark(block: ProtoSubroutine) -> None:
    """Replace the values, in the order in which `_shape_of` lists them, by markers."""
    markers = _markers()
    for command in block.commands:
        if not isinstance(command, ICmd):
            continue
        for position, operand in enumerate(command.operands):
            if type(operand) is int:
                if (command.instruction, position) not in _IN_PLACE:
                    command.operands[position] = next(markers)
            elif isinstance(operand, Address):
                command.operands[position] = Address(next(markers))
            elif isinstance(operand, ArrayEntry | ArraySlice):
                operand.address = Address(next(markers))
                names = ("index",) if isinstance(operand, ArrayEntry) else ("start", "stop")
                for name in names:
                    if type(getattr(operand, name)) is int:
                        setattr(operand, name, next(markers))


def _find_markers(template: bytes, count: int) -> tuple[int, ...] | None:
    """Where each marker is in the template; None unless each is there exactly once."""
    found: dict[int, int] = {}
    for start in range(HEADER_BYTES, len(template), INSTRUCTION_BYTES):
        for offset in range(start + 1, start + INSTRUCTION_BYTES - _INT32.size + 1):
            marker = _INT32.unpack_from(template, offset)[0] - _MARKER
            if 0 <= marker < count:
                if marker in found:
                    return None
                found[marker] = offset
    if len(found) != count:
        return None
    return tuple(found[marker] for marker in range(count))
