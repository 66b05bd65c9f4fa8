"""Our NV compiler: from NetQASM's vanilla flavour to the gates of a nitrogen-vacancy centre.

The SDK's own (`netqasm.sdk.transpile.NVSubroutineTranspiler`) has to know which qubit is the
electron, the only one that controls gates. It guesses from the last `set` it has seen in the
text, which after a branch, a loop or a `load` is not what the register holds, and it swaps
with virtual qubit 0 whether that exists or not. Here nothing is guessed: a gate on two
registers becomes controlled rotations on the same two registers, whatever they hold, and the
node's driver, which sees physical addresses, makes each of them from what the device can do
(docs/decisions/0020-nv-compilation.md).

What the SDK compiles correctly is compiled to the same instructions, so that programs of one
qubit per node are what they were: gate for gate and byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from netqasm.lang.instr import NetQASMInstruction, core, nv, vanilla
from netqasm.lang.operand import Immediate, Register
from netqasm.lang.subroutine import Subroutine
from netqasm.sdk.transpile import SubroutineTranspiler

from qnodeos.errors import MalformedSubroutineError, UnsupportedInstructionError

_EXPONENT: Final = 4
"""All angles the compiler itself writes are in units of pi/16."""
_EIGHTH, _QUARTER, _HALF, _THREE_QUARTERS = 4, 8, 16, 24
"""Of a turn, in units of pi/16."""


class _Rotation(NamedTuple):
    """One rotation of a decomposition; the qubit by its place among the gate's operands."""

    kind: type[core.RotationInstruction]
    steps: int
    qubit: int = 0


class _Controlled(NamedTuple):
    """The first qubit of the gate in |0> turns the second by +angle, in |1> by -angle."""

    kind: type[core.ControlledRotationInstruction]
    steps: int


_Step: TypeAlias = _Rotation | _Controlled

_ONE_QUBIT: Final[dict[type, tuple[_Step, ...]]] = {
    vanilla.GateXInstruction: (_Rotation(nv.RotXInstruction, _HALF),),
    vanilla.GateYInstruction: (_Rotation(nv.RotYInstruction, _HALF),),
    vanilla.GateZInstruction: (
        _Rotation(nv.RotXInstruction, _THREE_QUARTERS),
        _Rotation(nv.RotYInstruction, _HALF),
        _Rotation(nv.RotXInstruction, _QUARTER),
    ),
    vanilla.GateHInstruction: (
        _Rotation(nv.RotYInstruction, _QUARTER),
        _Rotation(nv.RotXInstruction, _HALF),
    ),
    vanilla.GateKInstruction: (
        _Rotation(nv.RotXInstruction, _THREE_QUARTERS),
        _Rotation(nv.RotYInstruction, _HALF),
    ),
    vanilla.GateSInstruction: (_Rotation(nv.RotZInstruction, _QUARTER),),
    vanilla.GateTInstruction: (_Rotation(nv.RotZInstruction, _EIGHTH),),
}
"""X, Y, Z, H and K as the SDK writes them; its S and T turn the wrong way."""

_CNOT: Final[tuple[_Step, ...]] = (
    _Controlled(nv.ControlledRotXInstruction, _QUARTER),
    _Rotation(nv.RotZInstruction, _THREE_QUARTERS, 0),
    _Rotation(nv.RotXInstruction, _THREE_QUARTERS, 1),
)
"""exp(-i pi/4 ZX), then what its Z and X lack to exp(-i pi/4 (1-Z)(1-X)); up to a phase."""

_TWO_QUBIT: Final[dict[type, tuple[_Step, ...]]] = {
    vanilla.CnotInstruction: _CNOT,
    vanilla.CphaseInstruction: (
        _Rotation(nv.RotYInstruction, _QUARTER, 1),
        *_CNOT,
        _Rotation(nv.RotYInstruction, _THREE_QUARTERS, 1),
    ),
}

_RENAMED: Final[dict[type, type]] = {
    vanilla.RotXInstruction: nv.RotXInstruction,
    vanilla.RotYInstruction: nv.RotYInstruction,
    vanilla.RotZInstruction: nv.RotZInstruction,
    vanilla.MovInstruction: nv.MovInstruction,
    vanilla.SwpInstruction: nv.SwpInstruction,
}
"""What NV has too, operands and all. Whether the device can do an angle is for its driver."""

_GATES: Final = (
    core.SingleQubitInstruction,
    core.RotationInstruction,
    core.TwoQubitInstruction,
    core.ControlledRotationInstruction,
)
_BRANCHES: Final = (core.JmpInstruction, core.BranchUnaryInstruction, core.BranchBinaryInstruction)


class NVCompiler(SubroutineTranspiler):  # type: ignore[misc]
    """Compiles one subroutine; what the SDK calls a transpiler.

    Every instruction is compiled by itself, so the meaning of a subroutine does not depend on
    the way its branches take. No registers are used but those of the instruction.
    """

    def transpile(self) -> Subroutine:
        """Replace the subroutine's instructions by NV's.

        A branch to the end of the subroutine stays one.

        Returns:
            The same subroutine.

        Raises:
            UnsupportedInstructionError: a gate that is neither vanilla's nor NV's.
            MalformedSubroutineError: a branch out of the subroutine.
        """
        compiled: list[NetQASMInstruction] = []
        moved: list[int] = []
        for instruction in self._subroutine.instructions:
            moved.append(len(compiled))
            compiled += _compile(instruction)
        moved.append(len(compiled))
        for instruction in compiled:
            if isinstance(instruction, _BRANCHES):
                target = instruction.line.value
                if not 0 <= target < len(moved):
                    raise MalformedSubroutineError(
                        f"branch to instruction {target} of a subroutine of {len(moved) - 1}"
                    )
                instruction.line = Immediate(moved[target])
        self._subroutine.instructions = compiled
        return self._subroutine


def _compile(instruction: NetQASMInstruction) -> Sequence[NetQASMInstruction]:
    kind = type(instruction)
    steps = _ONE_QUBIT.get(kind)
    if steps is not None:
        return _write(steps, (instruction.reg,), instruction.lineno)
    steps = _TWO_QUBIT.get(kind)
    if steps is not None:
        return _write(steps, (instruction.reg0, instruction.reg1), instruction.lineno)
    renamed = _RENAMED.get(kind)
    if renamed is not None:
        return (_renamed(renamed, instruction),)
    if isinstance(instruction, _GATES) and kind.__module__ != nv.__name__:
        raise UnsupportedInstructionError(f"there is no NV instruction for {instruction}")
    return (instruction,)


def _write(
    steps: Sequence[_Step], qubits: Sequence[Register], line: Any
) -> list[NetQASMInstruction]:
    written: list[NetQASMInstruction] = []
    for step in steps:
        angle = {"imm0": Immediate(step.steps), "imm1": Immediate(_EXPONENT), "lineno": line}
        if isinstance(step, _Controlled):
            written.append(step.kind(reg0=qubits[0], reg1=qubits[1], **angle))
        else:
            written.append(step.kind(reg=qubits[step.qubit], **angle))
    return written


def _renamed(kind: Callable[..., NetQASMInstruction], instruction: Any) -> NetQASMInstruction:
    """The same operands, which may be templates, under NV's name."""
    if isinstance(instruction, core.RotationInstruction):
        return kind(
            reg=instruction.reg,
            imm0=instruction.imm0,
            imm1=instruction.imm1,
            lineno=instruction.lineno,
        )
    return kind(reg0=instruction.reg0, reg1=instruction.reg1, lineno=instruction.lineno)
