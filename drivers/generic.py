"""QDriver of a generic node: every rotation about X, Y and Z, and gates between all qubits.

The device has rotations about all three axes, and NV's controlled rotation (TQG: by +angle if
the first qubit is |0>, by -angle if it is |1>) between any two qubits. Gates are exact up to a
global phase; instructions are listed in the order in which they are executed.

    cnot     TQG X by -pi/2, then the target about X and the control about Z by pi/2 each
    cphase   TQG Z by -pi/2, then both about Z by pi/2

A controlled rotation by an angle that TQG cannot say is a rotation of the target about another
axis between two TQG: with A, B and C the axes in cyclic order, exp(-i a/2 Z x A) is
exp(-i pi/4 Z x B) exp(-i a/2 C) exp(+i pi/4 Z x B).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from drivers.angles import GATES_ABOUT_XYZ, Turn, corrections, played, turns
from qnodeos.errors import UnsupportedInstructionError
from qnodeos.qdevice import instructions
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import (
    ANGLE_STEPS,
    MAX_HALVINGS,
    NOP,
    Axis,
    Opcode,
    PhysicalInstruction,
)
from qnodeos.qdevice.outcomes import BellState

GENERIC_CAPABILITIES: Final = Capabilities(
    name="generic register",
    communication_qubits=tuple(range(5)),
    memory_qubits=(),
    instructions=frozenset(Opcode) - {NOP.opcode},
    tick_ns=10_000,
    angle_halvings=MAX_HALVINGS,
)
"""Five qubits, one neighbour, a frame every 10 us (assumed: there is no such hardware)."""

_QUARTER: Final = ANGLE_STEPS // 4

_CORRECTIONS: Final = corrections(GATES_ABOUT_XYZ)


class GenericDriver:
    """NetQASM to physical instructions of a generic register (`QDriver`).

    Args:
        capabilities: what the device declares.
    """

    def __init__(self, capabilities: Capabilities = GENERIC_CAPABILITIES) -> None:
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """What the device behind this driver can do."""
        return self._capabilities

    def initialise(self, qubit: int) -> Sequence[PhysicalInstruction]:
        """|0> on any qubit."""
        self._require("init", qubit)
        return (instructions.ini(qubit),)

    def rotate(
        self, axis: Axis, numerator: int, exponent: int, qubit: int
    ) -> Sequence[PhysicalInstruction]:
        """Rotation by ``numerator * pi / 2**exponent``; none for a multiple of 2 pi.

        An angle that is not exact, as `drivers.angles.turns` explains, is wrong by 3 microradians
        at most.

        Raises:
            UnsupportedInstructionError: the angle is too fine for the device, or there is no
                such qubit.
        """
        self._require(f"rot_{axis.name.lower()}", qubit)
        return played(self._turns(axis, numerator, exponent), qubit)

    def gate(self, mnemonic: str, qubit: int) -> Sequence[PhysicalInstruction]:
        """A named single-qubit gate: x, y, z, h, s, k or t, exact up to global phase."""
        self._require(mnemonic, qubit)
        found = GATES_ABOUT_XYZ.get(mnemonic)
        if found is None:
            raise UnsupportedInstructionError(
                f"{self._capabilities.name} has no gate {mnemonic!r}; it has "
                f"{', '.join(GATES_ABOUT_XYZ)}"
            )
        return played(found, qubit)

    def controlled_rotate(
        self, axis: Axis, numerator: int, exponent: int, control: int, target: int
    ) -> Sequence[PhysicalInstruction]:
        """NV's crot: rotate the target by +angle if the control is |0>, else by -angle.

        Raises:
            UnsupportedInstructionError: as for `rotate`.
        """
        self._require(f"crot_{axis.name.lower()}", control, target)
        asked = self._turns(axis, numerator, exponent)
        if not asked:
            return ()
        if len(asked) == 1 and asked[0][2] == 0:
            return (instructions.tqg(axis, asked[0][1], control, target),)
        across, along = Axis((axis + 1) % 3), Axis((axis + 2) % 3)
        return (
            instructions.tqg(across, -_QUARTER, control, target),
            *played(self._turns(along, numerator, exponent), target),
            instructions.tqg(across, _QUARTER, control, target),
        )

    def two_qubit_gate(
        self, mnemonic: str, first: int, second: int
    ) -> Sequence[PhysicalInstruction]:
        """A named two-qubit gate: cnot, cphase, mov or swp, on any two qubits."""
        self._require(mnemonic, first, second)
        if mnemonic == "mov":
            return (instructions.mov(first, second),)
        if mnemonic == "swp":
            return (instructions.swp(first, second),)
        if mnemonic not in ("cnot", "cphase"):
            raise UnsupportedInstructionError(
                f"{self._capabilities.name} has no gate {mnemonic!r} on two qubits; it has "
                "cnot, cphase, mov, swp"
            )
        axis = Axis.X if mnemonic == "cnot" else Axis.Z
        return (
            instructions.tqg(axis, -_QUARTER, first, second),
            instructions.sqg(axis, _QUARTER, second),
            instructions.sqg(Axis.Z, _QUARTER, first),
        )

    def measure(self, qubit: int) -> Sequence[PhysicalInstruction]:
        """Readout in the Z basis."""
        self._require("meas", qubit, communication=True)
        return (instructions.msr(qubit),)

    def entangle(self, link: int, qubit: int) -> PhysicalInstruction:
        """One batch of attempts, keeping the qubit."""
        self._require_link(link, qubit)
        return instructions.ent(link, qubit)

    def entangle_and_measure(self, link: int, qubit: int) -> PhysicalInstruction:
        """One batch of attempts, measuring at once."""
        self._require_link(link, qubit)
        return instructions.enm(link, qubit)

    def swap_entanglement(self, first: int, second: int) -> PhysicalInstruction:
        """Bell measurement of two qubits; the outcome names the Bell state as a herald does."""
        self._require("entanglement swap", first, second)
        return instructions.esw(first, second)

    def measurement_basis(
        self, rotations: Sequence[tuple[Axis, int]], qubit: int
    ) -> Sequence[PhysicalInstruction]:
        """Rotations (axis, steps of pi/16) done before the measurement of later ENMs.

        The first one replaces what was set before, so an empty list takes one instruction.
        """
        self._require("measurement basis", qubit, communication=True)
        asked = [(axis, steps) for axis, steps in rotations if steps % ANGLE_STEPS]
        return tuple(
            instructions.pmg(axis, steps, qubit, append=place > 0)
            for place, (axis, steps) in enumerate(asked or [(Axis.X, 0)])
        )

    def correct(self, state: BellState, qubit: int) -> Sequence[PhysicalInstruction]:
        """The rotation at one end, whichever, that turns a heralded Bell state into Phi+."""
        self._require("correction", qubit)
        return played(_CORRECTIONS[state], qubit)

    def _turns(self, axis: Axis, numerator: int, exponent: int) -> tuple[Turn, ...]:
        return turns(axis, numerator, exponent, self._capabilities.angle_halvings)

    def _require(self, what: str, *qubits: int, communication: bool = False) -> None:
        """Refuse an operation unless its qubits are there and different from each other."""
        capabilities = self._capabilities
        there = capabilities.communication_qubits if communication else capabilities.qubits
        for qubit in qubits:
            if qubit not in there:
                raise UnsupportedInstructionError(
                    f"{what} on physical qubit {qubit}: the qubits of this {capabilities.name} "
                    f"that can do that are {there}"
                )
        if len(set(qubits)) < len(qubits):
            raise UnsupportedInstructionError(
                f"{what} needs two different qubits, not physical qubit {qubits[0]} twice"
            )

    def _require_link(self, link: int, qubit: int) -> None:
        self._require("entanglement", qubit, communication=True)
        if not 0 <= link < self._capabilities.links:
            raise UnsupportedInstructionError(
                f"entanglement over link {link}: this {self._capabilities.name} has "
                f"{self._capabilities.links} links, counted from 0"
            )
