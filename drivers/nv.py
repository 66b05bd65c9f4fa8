"""QDriver of a nitrogen-vacancy (NV) node in diamond.

The electron spin is the communication qubit. Microwave pulses rotate it about X and Y by
multiples of pi/16; there is no pulse for a rotation about Z, so that one is composed of
three. Gates are exact up to a global phase. Instructions are listed in the order in which
they are executed.

Carbon-13 memory qubits have other gates (conditional rotations driven by decoupling the
electron). Addresses declared as memory qubits are told apart here, and refused: no gate of
theirs is implemented.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qnodeos.errors import UnsupportedInstructionError
from qnodeos.qdevice import instructions
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import ANGLE_STEPS, Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState

NV_CAPABILITIES: Final = Capabilities(
    name="NV centre",
    communication_qubits=(0,),
    memory_qubits=(),
    instructions=frozenset(
        {Opcode.INI, Opcode.SQG, Opcode.MSR, Opcode.ENT, Opcode.ENM, Opcode.PMG}
    ),
    tick_ns=10_000,
)
"""One electron spin, one neighbour, a frame every 10 us (Delle Donne et al.)."""

MAX_EXPONENT: Final = 255
"""Largest exponent of a rotation angle: NetQASM stores it in one byte."""

Pulse = tuple[Axis, int]
"""Rotation axis (X or Y) and angle in units of pi/16."""

_QUARTER: Final = ANGLE_STEPS // 4
_HALF: Final = ANGLE_STEPS // 2


def _about_z(steps: int) -> tuple[Pulse, ...]:
    """Turn Z onto X, rotate about X, turn back."""
    return ((Axis.Y, _QUARTER), (Axis.X, steps), (Axis.Y, ANGLE_STEPS - _QUARTER))


_GATES: Final[dict[str, tuple[Pulse, ...]]] = {
    "x": ((Axis.X, _HALF),),
    "y": ((Axis.Y, _HALF),),
    "z": ((Axis.X, _HALF), (Axis.Y, _HALF)),
    "h": ((Axis.Y, _QUARTER), (Axis.X, _HALF)),
    "k": ((Axis.Y, _HALF), (Axis.X, _QUARTER)),
    "s": _about_z(_QUARTER),
    "t": _about_z(_QUARTER // 2),
}
"""NetQASM's named gates (k is (Y + Z)/sqrt 2) in the fewest pulses about X and Y."""

_CORRECTIONS: Final[dict[BellState, tuple[Pulse, ...]]] = {
    BellState.PHI_PLUS: (),
    BellState.PSI_PLUS: _GATES["x"],
    BellState.PSI_MINUS: _GATES["x"] + _about_z(_HALF),
    BellState.PHI_MINUS: _about_z(_HALF),
}
"""An X and a Z, each as the NetQASM SDK compiles it for NV."""

_SHORT_CORRECTIONS: Final[dict[BellState, tuple[Pulse, ...]]] = {
    BellState.PHI_PLUS: (),
    BellState.PSI_PLUS: _GATES["x"],
    BellState.PSI_MINUS: _GATES["y"],
    BellState.PHI_MINUS: _GATES["z"],
}


class NVDriver:
    """NetQASM to physical instructions of an NV centre (`QDriver`).

    Args:
        capabilities: what the device declares.
        short_corrections: correct Bell states in the fewest pulses. By default a Psi-
            takes the four pulses of the NetQASM SDK, as in the published experiments'
            programs, so that latencies compare; a single Y rotation does the same.
    """

    def __init__(
        self, capabilities: Capabilities = NV_CAPABILITIES, *, short_corrections: bool = False
    ) -> None:
        self._capabilities = capabilities
        self._corrections = _SHORT_CORRECTIONS if short_corrections else _CORRECTIONS

    @property
    def capabilities(self) -> Capabilities:
        """What the device behind this driver can do."""
        return self._capabilities

    def initialise(self, qubit: int) -> Sequence[PhysicalInstruction]:
        """|0> on the electron spin."""
        self._require_electron(qubit, "init")
        return (instructions.ini(qubit),)

    def rotate(
        self, axis: Axis, numerator: int, exponent: int, qubit: int
    ) -> Sequence[PhysicalInstruction]:
        """Rotation by ``numerator * pi / 2**exponent``; none for a multiple of 2 pi.

        Raises:
            UnsupportedInstructionError: the angle is no multiple of pi/16, or the qubit
                has no such gate.
        """
        self._require_electron(qubit, f"rot_{axis.name.lower()}")
        return _single_qubit_gates(_pulses(axis, _steps(axis, numerator, exponent)), qubit)

    def gate(self, mnemonic: str, qubit: int) -> Sequence[PhysicalInstruction]:
        """A named single-qubit gate: x, y, z, h, s, k or t, exact up to global phase."""
        self._require_electron(qubit, mnemonic)
        pulses = _GATES.get(mnemonic)
        if pulses is None:
            raise UnsupportedInstructionError(
                f"{self._capabilities.name} has no gate {mnemonic!r}; it has {', '.join(_GATES)}"
            )
        return _single_qubit_gates(pulses, qubit)

    def controlled_rotate(
        self, axis: Axis, numerator: int, exponent: int, control: int, target: int
    ) -> Sequence[PhysicalInstruction]:
        """Always refused: conditional rotations need a memory qubit."""
        raise self._two_qubit_error(f"crot_{axis.name.lower()}", control, target)

    def two_qubit_gate(
        self, mnemonic: str, first: int, second: int
    ) -> Sequence[PhysicalInstruction]:
        """Always refused: two-qubit gates need a memory qubit."""
        raise self._two_qubit_error(mnemonic, first, second)

    def measure(self, qubit: int) -> Sequence[PhysicalInstruction]:
        """Single-shot readout of the electron spin in the Z basis."""
        self._require_electron(qubit, "meas")
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
        """Always refused: entanglement swapping needs a memory qubit."""
        raise self._two_qubit_error("entanglement swap", first, second)

    def measurement_basis(
        self, rotations: Sequence[tuple[Axis, int]], qubit: int
    ) -> Sequence[PhysicalInstruction]:
        """Rotations (axis, steps of pi/16) done before the measurement of later ENMs.

        The first one replaces what was set before, so an empty list takes one instruction.
        """
        self._require_electron(qubit, "measurement basis")
        pulses = [
            pulse for axis, steps in rotations for pulse in _pulses(axis, steps % ANGLE_STEPS)
        ] or [(Axis.X, 0)]
        return tuple(
            instructions.pmg(axis, steps, qubit, append=place > 0)
            for place, (axis, steps) in enumerate(pulses)
        )

    def correct(self, state: BellState, qubit: int) -> Sequence[PhysicalInstruction]:
        """Local gates at one end, whichever, that turn a heralded Bell state into Phi+."""
        self._require_electron(qubit, "correction")
        return _single_qubit_gates(self._corrections[state], qubit)

    def _require_electron(self, qubit: int, what: str) -> None:
        if qubit in self._capabilities.communication_qubits:
            return
        kind = "a memory qubit" if qubit in self._capabilities.memory_qubits else "no qubit"
        raise UnsupportedInstructionError(
            f"{what} on physical qubit {qubit}, which is {kind} of this {self._capabilities.name}; "
            f"the gates implemented act on {self._capabilities.communication_qubits}"
        )

    def _require_link(self, link: int, qubit: int) -> None:
        self._require_electron(qubit, "entanglement")
        if not 0 <= link < self._capabilities.links:
            raise UnsupportedInstructionError(
                f"entanglement over link {link}: this {self._capabilities.name} has links "
                f"0..{self._capabilities.links - 1}"
            )

    def _two_qubit_error(
        self, mnemonic: str, first: int, second: int
    ) -> UnsupportedInstructionError:
        memories = self._capabilities.memory_qubits
        return UnsupportedInstructionError(
            f"{mnemonic} on physical qubits {first} and {second}: this "
            f"{self._capabilities.name} has no two-qubit gate ({len(memories)} memory qubits); "
            "use programs with one qubit per node"
        )


def _single_qubit_gates(pulses: Sequence[Pulse], qubit: int) -> tuple[PhysicalInstruction, ...]:
    return tuple(instructions.sqg(axis, steps, qubit) for axis, steps in pulses)


def _pulses(axis: Axis, steps: int) -> tuple[Pulse, ...]:
    """A rotation in pulses about X and Y; none for a zero angle."""
    if not steps:
        return ()
    return _about_z(steps) if axis is Axis.Z else ((axis, steps),)


def _steps(axis: Axis, numerator: int, exponent: int) -> int:
    """``numerator * pi / 2**exponent`` in units of pi/16, modulo 2 pi."""
    if not 0 <= exponent <= MAX_EXPONENT:
        raise UnsupportedInstructionError(
            f"rotation by {numerator} * pi / 2**{exponent} about {axis.name}: the exponent "
            f"must lie in 0..{MAX_EXPONENT}"
        )
    steps, remainder = divmod(numerator * _HALF, 1 << exponent)
    if remainder:
        below, above = steps % ANGLE_STEPS, (steps + 1) % ANGLE_STEPS
        raise UnsupportedInstructionError(
            f"rotation by {numerator} * pi / 2**{exponent} about {axis.name} is no multiple of "
            f"pi/16; the nearest this hardware can do are {below} * pi/16 and {above} * pi/16"
        )
    return steps % ANGLE_STEPS
