"""QDriver of a nitrogen-vacancy (NV) node in diamond.

The electron spin is the communication qubit. Microwave pulses rotate it about X and Y by
multiples of pi/16 (or finer, if the device says so). Carbon-13 spins are memory qubits, if the
device has them and their gates with the electron: `drivers.nv_memory` makes every gate on every
pair of addresses of those, so that nobody else has to know which qubit is the electron. No
device with memories has been published for this system; the one in `sim.register_device` is
simulated.

Gates are exact up to a global phase. Instructions are listed in the order in which they are
executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from drivers.angles import played, turns
from drivers.nv_memory import NATIVE, MemoryGates
from drivers.nv_pulses import (
    CARBON_CORRECTIONS,
    CARBON_GATES,
    ELECTRON_GATES,
    SDK_CORRECTIONS,
    SHORT_CORRECTIONS,
    electron_turns,
)
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


class NVDriver:
    """NetQASM to physical instructions of an NV centre (`QDriver`).

    Args:
        capabilities: what the device declares.
        short_corrections: correct Bell states in the fewest pulses. By default a Psi-
            takes the four pulses of the NetQASM SDK, as in the published experiments'
            programs, so that latencies compare; a single Y rotation does the same. Memories
            are always corrected in the fewest rotations.
    """

    def __init__(
        self, capabilities: Capabilities = NV_CAPABILITIES, *, short_corrections: bool = False
    ) -> None:
        self._capabilities = capabilities
        self._corrections = SHORT_CORRECTIONS if short_corrections else SDK_CORRECTIONS
        self._memories = capabilities.memory_qubits if capabilities.instructions >= NATIVE else ()
        self._memory_gates = MemoryGates(
            capabilities.communication_qubits[0], capabilities.angle_halvings
        )

    @property
    def capabilities(self) -> Capabilities:
        """What the device behind this driver can do."""
        return self._capabilities

    def initialise(self, qubit: int) -> Sequence[PhysicalInstruction]:
        """|0> on a spin."""
        self._require_spin(qubit, "init")
        return (instructions.ini(qubit),)

    def rotate(
        self, axis: Axis, numerator: int, exponent: int, qubit: int
    ) -> Sequence[PhysicalInstruction]:
        """Rotation by ``numerator * pi / 2**exponent``; none for a multiple of 2 pi.

        Raises:
            UnsupportedInstructionError: the angle is too fine for the device (without
                `Capabilities.angle_halvings`: no multiple of pi/16), or the qubit has no such
                gate.
        """
        self._require_spin(qubit, f"rot_{axis.name.lower()}")
        asked = turns(axis, numerator, exponent, self._capabilities.angle_halvings)
        return played(asked if qubit in self._memories else electron_turns(asked), qubit)

    def gate(self, mnemonic: str, qubit: int) -> Sequence[PhysicalInstruction]:
        """A named single-qubit gate: x, y, z, h, s, k or t, exact up to global phase."""
        self._require_spin(qubit, mnemonic)
        gates = CARBON_GATES if qubit in self._memories else ELECTRON_GATES
        pulses = gates.get(mnemonic)
        if pulses is None:
            raise UnsupportedInstructionError(
                f"{self._capabilities.name} has no gate {mnemonic!r}; it has {', '.join(gates)}"
            )
        return played(pulses, qubit)

    def controlled_rotate(
        self, axis: Axis, numerator: int, exponent: int, control: int, target: int
    ) -> Sequence[PhysicalInstruction]:
        """NV's crot: rotate the target by +angle if the control is |0>, else by -angle.

        Raises:
            UnsupportedInstructionError: there are no memory qubits, or as for `rotate`.
        """
        self._require_pair(f"crot_{axis.name.lower()}", control, target)
        return self._memory_gates.controlled_rotate(axis, numerator, exponent, control, target)

    def two_qubit_gate(
        self, mnemonic: str, first: int, second: int
    ) -> Sequence[PhysicalInstruction]:
        """A named two-qubit gate on any two spins: cnot, cphase, mov or swp.

        Raises:
            UnsupportedInstructionError: there are no memory qubits.
        """
        self._require_pair(mnemonic, first, second)
        return self._memory_gates.two_qubit_gate(mnemonic, first, second)

    def measure(self, qubit: int) -> Sequence[PhysicalInstruction]:
        """Single-shot readout in the Z basis; a memory is swapped into the electron for it."""
        self._require_spin(qubit, "meas")
        if qubit in self._memories:
            return self._memory_gates.measure(qubit)
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
        """Bell measurement of any two spins; the outcome names the state as a herald does.

        Raises:
            UnsupportedInstructionError: there are no memory qubits.
        """
        self._require_pair("entanglement swap", first, second)
        if Opcode.ESW not in self._capabilities.instructions:
            raise UnsupportedInstructionError(
                f"entanglement swap: this {self._capabilities.name} has no Bell measurement (ESW)"
            )
        return instructions.esw(first, second)

    def measurement_basis(
        self, rotations: Sequence[tuple[Axis, int]], qubit: int
    ) -> Sequence[PhysicalInstruction]:
        """Rotations (axis, steps of pi/16) done before the measurement of later ENMs.

        The first one replaces what was set before, so an empty list takes one instruction.
        """
        self._require_electron(qubit, "measurement basis")
        pulses = [
            pulse
            for axis, steps in rotations
            if steps % ANGLE_STEPS
            for pulse in electron_turns(((axis, steps % ANGLE_STEPS, 0),))
        ] or [(Axis.X, 0, 0)]
        return tuple(
            instructions.pmg(axis, steps, qubit, append=place > 0)
            for place, (axis, steps, _) in enumerate(pulses)
        )

    def correct(self, state: BellState, qubit: int) -> Sequence[PhysicalInstruction]:
        """Local gates at one end, whichever, that turn a heralded Bell state into Phi+."""
        self._require_spin(qubit, "correction")
        corrections = CARBON_CORRECTIONS if qubit in self._memories else self._corrections
        return played(corrections[state], qubit)

    def _require_spin(self, qubit: int, what: str) -> None:
        self._require(qubit, what, self._capabilities.communication_qubits + self._memories)

    def _require_electron(self, qubit: int, what: str) -> None:
        self._require(qubit, what, self._capabilities.communication_qubits)

    def _require(self, qubit: int, what: str, able: tuple[int, ...]) -> None:
        if qubit in able:
            return
        kind = "a memory qubit" if qubit in self._capabilities.memory_qubits else "no qubit"
        raise UnsupportedInstructionError(
            f"{what} on physical qubit {qubit}, which is {kind} of this {self._capabilities.name}; "
            f"it has that on {able}"
        )

    def _require_link(self, link: int, qubit: int) -> None:
        self._require_electron(qubit, "entanglement")
        if not 0 <= link < self._capabilities.links:
            raise UnsupportedInstructionError(
                f"entanglement over link {link}: this {self._capabilities.name} has links "
                f"0..{self._capabilities.links - 1}"
            )

    def _require_pair(self, mnemonic: str, first: int, second: int) -> None:
        asked = f"{mnemonic} on physical qubits {first} and {second}"
        if not self._memories:
            memories = self._capabilities.memory_qubits
            raise UnsupportedInstructionError(
                f"{asked}: this {self._capabilities.name} has no two-qubit gate "
                f"({len(memories)} memory qubits); use programs with one qubit per node"
            )
        if first == second:
            raise UnsupportedInstructionError(f"{asked}: it needs two different qubits")
        for qubit in (first, second):
            self._require_spin(qubit, mnemonic)
