"""Gates on two qubits of an NV centre with carbon-13 memories, on every pair of addresses.

What the hardware has (TQG, MOV, SWP) joins the electron spin and one carbon. TQG rotates the
carbon about X or Y, by +angle if the electron is |0> and by -angle if it is |1>: that is
exp(-i angle/2 Z x X) or the same with Y. Everything else is made of it:

* about Z, and with the carbon as control: rotations before and after turn the axes of both spins
  onto those of TQG and back;
* by an angle that TQG cannot say: with A, B and C a right-handed set of axes of the carbon,
  exp(-i angle/2 Z x A) = exp(-i pi/4 Z x B) exp(-i angle/2 C) exp(+i pi/4 Z x B);
* between two carbons: the electron and the first carbon are swapped before and after, so that
  the electron's own state waits in that carbon;
* a carbon is read out in the same way, by the electron.

Instructions are listed in the order in which they are executed; gates are exact up to a global
phase.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from drivers.angles import Turn, played, turns
from drivers.nv_pulses import QUARTER, electron_turns
from qnodeos.errors import UnsupportedInstructionError
from qnodeos.qdevice import instructions
from qnodeos.qdevice.instructions import ANGLE_STEPS, Axis, Opcode, PhysicalInstruction

NATIVE: Final = frozenset({Opcode.TQG, Opcode.MOV, Opcode.SWP})
"""What a device must have for its memories to be used."""
PAIR_GATES: Final = ("cnot", "cphase", "mov", "swp")

_FINE: Final[dict[Axis, tuple[Axis, Axis, int]]] = {
    Axis.X: (Axis.Y, Axis.Z, 1),
    Axis.Y: (Axis.X, Axis.Z, -1),
    Axis.Z: (Axis.X, Axis.Y, 1),
}
"""B, C and the sign of the angle about C for each A, with B one of TQG's axes."""

_TO_Z: Final[dict[Axis, tuple[Turn, ...]]] = {
    Axis.X: ((Axis.Y, ANGLE_STEPS - QUARTER, 0),),
    Axis.Y: ((Axis.X, QUARTER, 0),),
    Axis.Z: (),
}
"""What turns an axis of the electron onto Z."""
_Z_TO_X: Final[tuple[Turn, ...]] = ((Axis.Y, QUARTER, 0),)
"""What turns Z of a carbon onto X."""


class MemoryGates:
    """Gates that need a memory.

    Args:
        electron: physical address of the electron spin.
        angle_halvings: how small the unit of rotation angles is (`Capabilities`).
    """

    def __init__(self, electron: int, angle_halvings: int) -> None:
        self._electron = electron
        self._angle_halvings = angle_halvings

    def measure(self, memory: int) -> tuple[PhysicalInstruction, ...]:
        """Readout of a memory: by the electron, whose own state waits in the memory."""
        return self._in_electron(memory, (instructions.msr(self._electron),))

    def controlled_rotate(
        self, axis: Axis, numerator: int, exponent: int, control: int, target: int
    ) -> tuple[PhysicalInstruction, ...]:
        """NV's crot on any pair; none for a multiple of 2 pi, which is a global phase.

        Raises:
            UnsupportedInstructionError: the angle is too fine for the device.
        """
        if not turns(axis, numerator, exponent, self._angle_halvings):
            return ()
        if control == self._electron:
            return self._from_electron(axis, numerator, exponent, target)
        if target == self._electron:
            return self._onto_electron(axis, numerator, exponent, control)
        return self._in_electron(control, self._from_electron(axis, numerator, exponent, target))

    def two_qubit_gate(
        self, mnemonic: str, first: int, second: int
    ) -> tuple[PhysicalInstruction, ...]:
        """cnot, cphase, mov or swp on any pair.

        Raises:
            UnsupportedInstructionError: it is another gate.
        """
        if mnemonic in ("mov", "swp"):
            return self._exchange(mnemonic, first, second)
        if mnemonic not in PAIR_GATES:
            raise UnsupportedInstructionError(
                f"an NV centre has no gate {mnemonic!r} on two qubits; it has "
                f"{', '.join(PAIR_GATES)}"
            )
        if mnemonic == "cphase" and second == self._electron:
            first, second = second, first  # the same either way, and shorter like this
        axis = Axis.X if mnemonic == "cnot" else Axis.Z
        return (
            *self.controlled_rotate(axis, -1, 1, first, second),
            *self._rotate(axis, QUARTER, second),
            *self._rotate(Axis.Z, QUARTER, first),
        )

    def _exchange(self, mnemonic: str, first: int, second: int) -> tuple[PhysicalInstruction, ...]:
        instruction: Callable[[int, int], PhysicalInstruction]
        instruction = instructions.mov if mnemonic == "mov" else instructions.swp
        if self._electron in (first, second):
            return (instruction(first, second),)
        return self._in_electron(first, (instruction(self._electron, second),))

    def _in_electron(
        self, memory: int, done: Sequence[PhysicalInstruction]
    ) -> tuple[PhysicalInstruction, ...]:
        """Have something done while the electron and a memory are swapped."""
        swap = instructions.swp(self._electron, memory)
        return (swap, *done, swap)

    def _from_electron(
        self, axis: Axis, numerator: int, exponent: int, memory: int
    ) -> tuple[PhysicalInstruction, ...]:
        """The electron controls the rotation of a memory."""
        asked = turns(axis, numerator, exponent, self._angle_halvings)
        electron = self._electron
        if len(asked) > 1 or asked[0][2]:
            across, along, sign = _FINE[axis]
            rotation = turns(along, sign * numerator, exponent, self._angle_halvings)
            return (
                instructions.tqg(across, -QUARTER, electron, memory),
                *played(rotation, memory),
                instructions.tqg(across, QUARTER, electron, memory),
            )
        steps = asked[0][1]
        if axis is Axis.Z:
            about_x = instructions.tqg(Axis.X, steps, electron, memory)
            return (*played(_Z_TO_X, memory), about_x, *played(_inverse(_Z_TO_X), memory))
        return (instructions.tqg(axis, steps, electron, memory),)

    def _onto_electron(
        self, axis: Axis, numerator: int, exponent: int, memory: int
    ) -> tuple[PhysicalInstruction, ...]:
        """A memory controls the rotation of the electron."""
        to_z, electron = _TO_Z[axis], self._electron
        return (
            *played(to_z, electron),
            *played(_Z_TO_X, memory),
            *self._from_electron(Axis.X, numerator, exponent, memory),
            *played(_inverse(_Z_TO_X), memory),
            *played(_inverse(to_z), electron),
        )

    def _rotate(self, axis: Axis, steps: int, qubit: int) -> tuple[PhysicalInstruction, ...]:
        turn: tuple[Turn, ...] = ((axis, steps, 0),)
        return played(electron_turns(turn) if qubit == self._electron else turn, qubit)


def _inverse(found: Sequence[Turn]) -> tuple[Turn, ...]:
    return tuple((axis, ANGLE_STEPS - steps, halvings) for axis, steps, halvings in found[::-1])
