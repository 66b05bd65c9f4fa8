"""Prepared subroutines: a block that repeats is assembled once, then filled in.

The SDK assembles and transpiles every flush anew, which takes longer than everything the
operating system does with the result. But which instructions come out depends only on the
*shape* of a block: the constants that the assembler moves into registers, the addresses of
arrays, and the numerators of angles that are multiples of pi/16 are carried through
untouched. So for each shape we have the SDK assemble the block once with markers in these
places, find where the markers ended up, and from then on write the values there.

What is not a value of that kind (other angles, virtual qubits, branch labels, named
registers) belongs to the shape. Before a template is used for the first time it is
compared with what the SDK makes of the block itself; a shape for which they differ is left
to the SDK for good.

The SDK's `Template` operands are such values too, which come later: `PreparedSubroutine` is
what `compile()` returns.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Final, TypeAlias

from netqasm.lang.ir import ICmd, ProtoSubroutine
from netqasm.lang.operand import Address, ArrayEntry, ArraySlice, Register, Template
from netqasm.lang.subroutine import Subroutine
from netqasm.runtime.settings import get_is_using_hardware
from netqasm.sdk.transpile import NVSubroutineTranspiler

from qnodeos.cnpu.markers import (
    IN_PLACE,
    INT32,
    MAX_ANGLES,
    ROTATIONS,
    find_angles,
    find_markers,
    is_fillable,
    mark,
)
from qnodeos.cnpu.nv_compiler import NVCompiler
from qnodeos.cnpu.ranges import check_subroutine
from qnodeos.errors import CallerError

MAX_SHAPES: Final = 1024
"""Shapes remembered per transpiler; the oldest are forgotten."""

# What follows in a shape. An instruction is its number and that of its operands.
_VALUE, _FIXED, _ADDRESS, _ENTRY, _SLICE, _ANGLE, _OTHER, _LABEL = range(-8, 0)
_REGISTER: Final = 1 << 8
_OPERANDS_FACTOR: Final = 16

Shape = tuple[Any, ...]
Numerator: TypeAlias = Any
"""Of an angle: a number, or a `Template`, the name of one that comes later."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A template: the bytes, and the offset of every value, in order of appearance.

    Attributes:
        template: bytes of the subroutine.
        offsets: of the 32-bit values.
        angles: offsets of the numerators of angles, one byte each.
    """

    template: bytes
    offsets: tuple[int, ...]
    angles: tuple[int, ...]

    def fill(self, values: Sequence[int], numerators: Sequence[Numerator]) -> bytes:
        """The bytes with values and numerators filled in.

        Raises:
            CallerError: a value is no 32-bit integer (the SDK would cut it silently).
            TypeError: a numerator is none, but a template.
        """
        filled = bytearray(self.template)
        try:
            for offset, value in zip(self.offsets, values, strict=True):
                INT32.pack_into(filled, offset, value)
        except struct.error:
            raise CallerError(
                f"the program uses the number {value}, which is no 32-bit integer"
            ) from None
        for offset, numerator in zip(self.angles, numerators, strict=True):
            # The SDK cuts to a byte too; 256 steps of pi/16 are eight whole turns.
            filled[offset] = numerator & 0xFF
        return bytes(filled)


class Shapes:
    """What is prepared with one transpiler, for any number of connections and threads.

    Attributes:
        known: templates by shape; None for a shape that is left to the SDK.
    """

    def __init__(self) -> None:
        self.known: dict[Shape, Prepared | None] = {}
        self._mutex = Lock()

    def keep(self, shape: Shape, prepared: Prepared | None) -> None:
        """Remember a template."""
        with self._mutex:
            while len(self.known) >= MAX_SHAPES:
                del self.known[next(iter(self.known))]
            self.known[shape] = prepared


_shared: Final[dict[Any, Shapes]] = {}


def shapes_of(compiler: Any) -> Shapes:
    """What this process has prepared with a transpiler of the SDK, or what nobody else has.

    Args:
        compiler: the transpiler's class, None for none.
    """
    if not carries_angles(compiler):
        return Shapes()
    return _shared.setdefault((compiler, get_is_using_hardware()), Shapes())


def carries_angles(compiler: Any) -> bool:
    """Whether a transpiler is known to leave numerators of angles in units of pi/16 alone."""
    return compiler in (None, NVCompiler, NVSubroutineTranspiler)


class SubroutineCache:
    """Assembles the blocks of one connection.

    Args:
        compile_block: the SDK's assembler and transpiler.
        to_bytes: from a subroutine without templates to its bytes, app id included.
        compiler: the transpiler.
    """

    def __init__(
        self,
        compile_block: Callable[[ProtoSubroutine], Subroutine],
        to_bytes: Callable[[Subroutine], bytes],
        compiler: Any,
    ) -> None:
        self._compile = compile_block
        self._to_bytes = to_bytes
        self._max_angles = MAX_ANGLES if carries_angles(compiler) else 0
        self._shapes = shapes_of(compiler)
        self._new: Callable[[], object] | None = None

    def assemble(self, block: ProtoSubroutine) -> bytes:
        """The bytes of a block without templates, as the SDK would make them.

        Raises:
            CallerError: a constant is no 32-bit integer (the SDK would cut it silently), or
                the block has templates.
        """
        shape, values, numerators = self._shape_of(block)
        known = self._shapes.known
        prepared = known.get(shape)
        if prepared is not None:
            try:
                return prepared.fill(values, numerators)
            except TypeError:
                raise _templates_left(block) from None
        if block.arguments:
            raise _templates_left(block)
        if shape in known:
            return self._assemble(block)
        marked = _copy_of(block)
        raw = self._assemble(block)
        self._new = partial(self._prepare, shape, marked, raw, values, numerators)
        return raw

    def prepare_new(self) -> None:
        """Prepare the shape that was assembled last, if it is new.

        For when the bytes are on their way: it takes longer than assembling.
        """
        new, self._new = self._new, None
        if new is not None:
            new()

    def compile(self, block: ProtoSubroutine) -> Subroutine:
        """A block as a subroutine to instantiate and commit later, any number of times."""
        shape, values, numerators = self._shape_of(block)
        templates = sum(type(numerator) is Template for numerator in numerators)
        if templates != len(block.arguments):
            return self._compile(block)  # one stands for something else than such an angle
        prepared = self._shapes.known.get(shape)
        if prepared is None:
            marked, filled = _copy_of(block), _copy_of(block)
            _replace_templates(filled)
            expected = self._assemble(filled)
            sample = [numerator if type(numerator) is int else 0 for numerator in numerators]
            prepared = self._prepare(shape, marked, expected, values, sample)
            if prepared is None:
                return self._compile(block)
        return PreparedSubroutine(prepared, values, numerators, block, self._compile)

    def _assemble(self, block: ProtoSubroutine) -> bytes:
        return self._to_bytes(self._compile(block))

    def _prepare(
        self,
        shape: Shape,
        marked: ProtoSubroutine,
        expected: bytes,
        values: Sequence[int],
        numerators: Sequence[Numerator],
    ) -> Prepared | None:
        """Keep a template for a shape, or None if its values cannot simply be filled in."""
        mark(marked, len(numerators))
        template = self._assemble(marked)
        offsets = find_markers(template, len(values))
        angles = find_angles(template, len(numerators))
        prepared = None
        if offsets is not None and angles is not None:
            prepared = Prepared(template, offsets, angles)
            if prepared.fill(values, numerators) != expected:
                prepared = None
        self._shapes.keep(shape, prepared)
        return prepared

    def _shape_of(self, block: ProtoSubroutine) -> tuple[Shape, list[int], list[Numerator]]:
        """What the instructions depend on, and the values and numerators only carried through."""
        shape: list[Any] = [block.app_id]
        values: list[int] = []
        numerators: list[Numerator] = []
        note = shape.append
        for command in block.commands:
            if type(command) is not ICmd:
                note(_LABEL)
                note(command.name)
                continue
            instruction = command.instruction._value_
            operands = command.operands
            note(instruction * _OPERANDS_FACTOR + len(operands))
            if command.args:
                note(tuple(command.args))
            if (
                instruction in ROTATIONS
                and len(numerators) < self._max_angles
                and is_fillable(operands)
            ):
                register = operands[0]
                note(_ANGLE)
                note(register.index << 2 | register.name._value_)
                numerators.append(operands[1])
                continue
            for position, operand in enumerate(operands):
                kind = type(operand)
                if kind is Register:
                    note(_REGISTER + (operand.index << 2 | operand.name._value_))
                elif kind is int:
                    if (instruction, position) in IN_PLACE:
                        note(_FIXED)
                        note(operand)
                    else:
                        note(_VALUE)
                        values.append(operand)
                elif kind is Address:
                    note(_ADDRESS)
                    values.append(operand.address)
                elif kind is ArrayEntry:
                    note(_ENTRY)
                    values.append(operand.address.address)
                    _note_index(operand.index, shape, values)
                elif kind is ArraySlice:
                    note(_SLICE)
                    values.append(operand.address.address)
                    _note_index(operand.start, shape, values)
                    _note_index(operand.stop, shape, values)
                else:
                    note(_OTHER)
                    note(kind)
                    note(operand)
        return tuple(shape), values, numerators


class PreparedSubroutine(Subroutine):  # type: ignore[misc]
    """A compiled subroutine whose arguments are written into its bytes.

    Other than the SDK's, it can be instantiated again with other arguments. Its instructions
    are made when somebody asks; who changes them gets what they have made of them.
    """

    def __init__(
        self,
        prepared: Prepared,
        values: Sequence[int],
        numerators: Sequence[Numerator],
        block: ProtoSubroutine,
        compile_block: Callable[[ProtoSubroutine], Subroutine],
    ) -> None:
        self._prepared = prepared
        self._values = values
        self._numerators = numerators
        self._block = block
        self._compile_block = compile_block
        self._given: Mapping[str, int] | None = None if block.arguments else {}
        self._own: list[Any] | None = None
        self._as_compiled: list[Any] = []
        super().__init__(
            arguments=list(block.arguments),
            netqasm_version=block.netqasm_version,
            app_id=block.app_id,
        )

    def instantiate(self, app_id: int, arguments: Mapping[str, int] | None = None) -> None:
        """Give the arguments their values.

        Raises:
            CallerError: an argument has none.
        """
        given = arguments if arguments is not None else {}
        missing = [name for name in self._arguments if name not in given]
        if missing:
            raise CallerError(
                f"the subroutine has no value for {', '.join(missing)}; give it in the arguments "
                "of instantiate"
            )
        if self._is_changed:
            changed = Subroutine(self._own, list(self._arguments))
            changed.instantiate(app_id, dict(given))
            self._own = changed.instructions
        else:
            self._own = None
        self._app_id = app_id
        self._given = given

    @property
    def instructions(self) -> list[Any]:
        """The instructions, as the SDK makes them."""
        if self._own is None:
            compiled = self._compile_block(_copy_of(self._block))
            if self._given is not None:
                compiled.instantiate(self._app_id or 0, dict(self._given))
            self._own = compiled.instructions
            self._as_compiled = deepcopy(compiled.instructions)
        return self._own

    @instructions.setter
    def instructions(self, new_instructions: list[Any]) -> None:
        if self.instructions is not new_instructions:
            self._own = new_instructions

    @property
    def _is_changed(self) -> bool:
        return self._own is not None and self._own != self._as_compiled

    def __bytes__(self) -> bytes:
        """The bytes, with the arguments.

        Raises:
            CallerError: an argument has no value, or no whole number; or a number of changed
                instructions does not fit.
        """
        given = self._given
        if given is None:
            raise _templates_left(self)
        if self._is_changed:
            check_subroutine(self)
            return bytes(super().__bytes__())
        numerators = [
            given[numerator.name] if isinstance(numerator, Template) else numerator
            for numerator in self._numerators
        ]
        try:
            raw = self._prepared.fill(self._values, numerators)
        except TypeError:
            raise CallerError(
                f"the arguments of a subroutine are whole numbers, unlike some of {dict(given)}"
            ) from None
        app_id = self._app_id
        if app_id != self._block.app_id:
            raw = raw[:2] + struct.pack("<H", app_id & 0xFFFF) + raw[4:]
        return raw


def _templates_left(block: ProtoSubroutine | Subroutine) -> CallerError:
    return CallerError(
        f"the block has templates ({', '.join(block.arguments)}) that have no value; compile it "
        "and call instantiate before commit_subroutine"
    )


def _note_index(index: Any, shape: list[Any], values: list[int]) -> None:
    if type(index) is int:
        shape.append(_VALUE)
        values.append(index)
    elif type(index) is Register:
        shape.append(_REGISTER + (index.index << 2 | index.name._value_))
    else:
        shape.append(_OTHER)
        shape.append(type(index))
        shape.append(index)


def _copy_of(block: ProtoSubroutine) -> ProtoSubroutine:
    """A copy as deep as the assembler changes things."""
    commands = []
    for command in block.commands:
        if isinstance(command, ICmd):
            operands = [
                copy(operand) if isinstance(operand, ArrayEntry | ArraySlice) else operand
                for operand in command.operands
            ]
            commands.append(ICmd(command.instruction, list(command.args), operands, command.lineno))
        else:
            commands.append(command)
    return ProtoSubroutine(
        commands, list(block.arguments), netqasm_version=block.netqasm_version, app_id=block.app_id
    )


def _replace_templates(block: ProtoSubroutine) -> None:
    """Put 0 for every template; the SDK's own way loses the labels."""
    for command in block.commands:
        if isinstance(command, ICmd):
            command.operands = [
                0 if isinstance(operand, Template) else operand for operand in command.operands
            ]
    block._arguments = []
