"""QDriver of a trapped-ion node: one 40Ca+ ion, five pulses.

The laser at 729 nm rotates the qubit about X by pi, pi/2 and -pi/2 and about Y by pi and pi/2;
there is no other pulse. Products of these are the 24 rotations that map the axes onto each
other, so that every rotation by a multiple of pi/2 about X, Y or Z is exact up to a global
phase, and so are x, y, z, h, s and k. Each is done in the fewest pulses, found by search when
this module is loaded, in the order in which they are executed:

    about   pi/2         pi        3 pi/2
    X       X8           X16       X24
    Y       Y8           Y16       Y16 Y8
    Z       X24 Y8 X8    X16 Y16   X8 Y8 X24

    x  X16      y  Y16      z  X16 Y16      h  Y8 X16      k  Y16 X8      s  X24 Y8 X8

Anything else is refused: other angles and t, gates on two qubits, and entanglement, for which a
node without a link has no instruction.

Programs in both NetQASM flavours run on a node that speaks vanilla: on one qubit the NV flavour
is vanilla without the named gates, and the instructions that differ act on two qubits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from drivers.angles import MAX_EXPONENT
from qnodeos.errors import UnsupportedInstructionError
from qnodeos.qdevice import instructions
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import ANGLE_STEPS, Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState

ION_CAPABILITIES: Final = Capabilities(
    name="trapped ion",
    communication_qubits=(0,),
    memory_qubits=(),
    instructions=frozenset({Opcode.INI, Opcode.SQG, Opcode.MSR}),
    tick_ns=20_000,
    links=0,
)
"""One ion, no neighbour, a frame every 20 us (Delle Donne et al.)."""

Pulse = tuple[Axis, int]
"""Rotation axis (X or Y) and angle in units of pi/16."""

_QUARTER: Final = ANGLE_STEPS // 4
_HALF: Final = ANGLE_STEPS // 2
_QUARTERS: Final = ANGLE_STEPS // _QUARTER
"""Quarter turns in a whole one."""

PULSES: Final[tuple[Pulse, ...]] = (
    (Axis.X, _HALF),
    (Axis.Y, _HALF),
    (Axis.X, _QUARTER),
    (Axis.Y, _QUARTER),
    (Axis.X, ANGLE_STEPS - _QUARTER),
)
"""All there are."""

# --- the 24 rotations -----------------------------------------------------------------------

_Matrix = tuple[tuple[int, ...], ...]
"""What a rotation does to vectors: shape (3, 3), entries -1, 0 and 1."""

_IDENTITY: Final[_Matrix] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_QUARTER_TURN: Final[Mapping[Axis, _Matrix]] = {
    Axis.X: ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    Axis.Y: ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
    Axis.Z: ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
}


def _product(second: _Matrix, first: _Matrix) -> _Matrix:
    columns = tuple(zip(*first, strict=True))
    return tuple(
        tuple(sum(a * b for a, b in zip(row, column, strict=True)) for column in columns)
        for row in second
    )


def _turned(axis: Axis, quarters: int) -> _Matrix:
    matrix = _IDENTITY
    for _ in range(quarters % _QUARTERS):
        matrix = _product(_QUARTER_TURN[axis], matrix)
    return matrix


def _shortest() -> dict[_Matrix, tuple[Pulse, ...]]:
    """The fewest pulses for every rotation they can do; of equally many, the first in order."""
    found: dict[_Matrix, tuple[Pulse, ...]] = {_IDENTITY: ()}
    latest = dict(found)
    while latest:
        longer: dict[_Matrix, tuple[Pulse, ...]] = {}
        for matrix, pulses in latest.items():
            for axis, steps in PULSES:
                reached = _product(_turned(axis, steps // _QUARTER), matrix)
                if reached not in found:
                    longer.setdefault(reached, (*pulses, (axis, steps)))
        found |= longer
        latest = longer
    return found


_SHORTEST: Final = _shortest()

_ROTATIONS: Final[Mapping[tuple[Axis, int], tuple[Pulse, ...]]] = {
    (axis, quarters): _SHORTEST[_turned(axis, quarters)]
    for axis in Axis
    for quarters in range(_QUARTERS)
}

_GATES: Final[Mapping[str, tuple[Pulse, ...]]] = {
    "x": _ROTATIONS[Axis.X, 2],
    "y": _ROTATIONS[Axis.Y, 2],
    "z": _ROTATIONS[Axis.Z, 2],
    "h": _SHORTEST[((0, 0, 1), (0, -1, 0), (1, 0, 0))],
    "s": _ROTATIONS[Axis.Z, 1],
    "k": _SHORTEST[((-1, 0, 0), (0, 0, 1), (0, 1, 0))],
}
"""NetQASM's named gates: h is (X + Z)/sqrt 2, k is (Y + Z)/sqrt 2."""

_CORRECTIONS: Final[Mapping[BellState, str | None]] = {
    BellState.PHI_PLUS: None,
    BellState.PSI_PLUS: "x",
    BellState.PSI_MINUS: "y",
    BellState.PHI_MINUS: "z",
}

_NEAREST: Final[Mapping[str, str]] = {
    "t": " (a rotation about Z by pi/4; the nearest it can do are none and s)"
}
"""What is said of gates of NetQASM that no pulses make up."""


class TrappedIonDriver:
    """NetQASM to physical instructions of a trapped ion (`QDriver`).

    Args:
        capabilities: what the device declares.
    """

    def __init__(self, capabilities: Capabilities = ION_CAPABILITIES) -> None:
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """What the device behind this driver can do."""
        return self._capabilities

    def initialise(self, qubit: int) -> Sequence[PhysicalInstruction]:
        """|0>: cooled, and pumped into S1/2."""
        self._require_ion(qubit, "init")
        return (instructions.ini(qubit),)

    def rotate(
        self, axis: Axis, numerator: int, exponent: int, qubit: int
    ) -> Sequence[PhysicalInstruction]:
        """Rotation by ``numerator * pi / 2**exponent``; none for a multiple of 2 pi.

        Raises:
            UnsupportedInstructionError: the angle is no multiple of pi/2, or there is no such
                qubit.
        """
        self._require_ion(qubit, f"rot_{axis.name.lower()}")
        return _gates(_ROTATIONS[axis, _quarters(axis, numerator, exponent)], qubit)

    def gate(self, mnemonic: str, qubit: int) -> Sequence[PhysicalInstruction]:
        """A named single-qubit gate: x, y, z, h, s or k, exact up to global phase.

        Raises:
            UnsupportedInstructionError: it is another one, such as t, or there is no such qubit.
        """
        self._require_ion(qubit, mnemonic)
        pulses = _GATES.get(mnemonic)
        if pulses is None:
            raise UnsupportedInstructionError(
                f"{self._capabilities.name} has no gate {mnemonic!r}"
                f"{_NEAREST.get(mnemonic, '')}; it has {', '.join(_GATES)}"
            )
        return _gates(pulses, qubit)

    def controlled_rotate(
        self, axis: Axis, numerator: int, exponent: int, control: int, target: int
    ) -> Sequence[PhysicalInstruction]:
        """Always refused: there is one ion."""
        self._refuse_two_qubits(f"crot_{axis.name.lower()}", control, target)

    def two_qubit_gate(
        self, mnemonic: str, first: int, second: int
    ) -> Sequence[PhysicalInstruction]:
        """Always refused: there is one ion."""
        self._refuse_two_qubits(mnemonic, first, second)

    def measure(self, qubit: int) -> Sequence[PhysicalInstruction]:
        """Fluorescence at 397 nm: bright is 0, dark is 1."""
        self._require_ion(qubit, "meas")
        return (instructions.msr(qubit),)

    def entangle(self, link: int, qubit: int) -> PhysicalInstruction:
        """Always refused: this node has no link."""
        self._refuse_entanglement(f"entanglement over link {link}")

    def entangle_and_measure(self, link: int, qubit: int) -> PhysicalInstruction:
        """Always refused: this node has no link."""
        self._refuse_entanglement(f"entanglement over link {link}, measured at once,")

    def swap_entanglement(self, first: int, second: int) -> PhysicalInstruction:
        """Always refused: this node has no link."""
        self._refuse_entanglement(f"an entanglement swap of qubits {first} and {second}")

    def measurement_basis(
        self, rotations: Sequence[tuple[Axis, int]], qubit: int
    ) -> Sequence[PhysicalInstruction]:
        """Always refused: it is part of entanglement that is measured at once."""
        self._refuse_entanglement("the basis of such a measurement")

    def correct(self, state: BellState, qubit: int) -> Sequence[PhysicalInstruction]:
        """Local gates at one end, whichever, that turn a Bell state into Phi+."""
        self._require_ion(qubit, "correction")
        gate = _CORRECTIONS[state]
        return () if gate is None else self.gate(gate, qubit)

    def _require_ion(self, qubit: int, what: str) -> None:
        if qubit not in self._capabilities.communication_qubits:
            raise UnsupportedInstructionError(
                f"{what} on physical qubit {qubit}: the qubits of this {self._capabilities.name} "
                f"are {self._capabilities.communication_qubits}"
            )

    def _refuse_two_qubits(self, mnemonic: str, first: int, second: int) -> NoReturn:
        raise UnsupportedInstructionError(
            f"{mnemonic} on physical qubits {first} and {second}: this "
            f"{self._capabilities.name} has no two-qubit gate; use programs with one qubit per node"
        )

    def _refuse_entanglement(self, what: str) -> NoReturn:
        raise UnsupportedInstructionError(
            f"{what}: this {self._capabilities.name} has no link to another node; use programs "
            "without entanglement, or a node that has one"
        )


def _gates(pulses: Sequence[Pulse], qubit: int) -> tuple[PhysicalInstruction, ...]:
    return tuple(instructions.sqg(axis, steps, qubit) for axis, steps in pulses)


def _quarters(axis: Axis, numerator: int, exponent: int) -> int:
    """``numerator * pi / 2**exponent`` in units of pi/2, modulo 2 pi."""
    asked = f"rotation by {numerator} * pi / 2**{exponent} about {axis.name}"
    if not 0 <= exponent <= MAX_EXPONENT:
        raise UnsupportedInstructionError(f"{asked}: the exponent must lie in 0..{MAX_EXPONENT}")
    quarters, remainder = divmod(2 * numerator, 1 << exponent)
    below, above = quarters % _QUARTERS, (quarters + 1) % _QUARTERS
    if remainder:
        raise UnsupportedInstructionError(
            f"{asked} is no multiple of pi/2; the nearest this hardware can do are "
            f"{below} * pi/2 and {above} * pi/2"
        )
    return below
