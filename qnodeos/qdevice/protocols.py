"""The two seams under the kernel: QDriver (instructions) and QDevice (frames)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Axis, PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState


class QDriver(Protocol):
    """Turns NetQASM's quantum instructions into physical instructions.

    The only hardware-dependent part of the QNPU. Every method returns the physical
    instructions to run in order (possibly none) and raises
    `qnodeos.errors.UnsupportedInstructionError` for what the hardware cannot do.
    Implementations are pure: same arguments, same answer.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What the device behind this driver can do."""
        ...

    def initialise(self, qubit: int) -> Sequence[PhysicalInstruction]:
        """|0> on a physical qubit."""
        ...

    def rotate(
        self, axis: Axis, numerator: int, exponent: int, qubit: int
    ) -> Sequence[PhysicalInstruction]:
        """Rotation by ``numerator * pi / 2**exponent`` about an axis."""
        ...

    def gate(self, mnemonic: str, qubit: int) -> Sequence[PhysicalInstruction]:
        """A named single-qubit gate: x, y, z, h, s, k or t, exact up to global phase."""
        ...

    def controlled_rotate(
        self, axis: Axis, numerator: int, exponent: int, control: int, target: int
    ) -> Sequence[PhysicalInstruction]:
        """NV's crot: rotate the target by +angle if the control is |0>, else by -angle."""
        ...

    def two_qubit_gate(
        self, mnemonic: str, first: int, second: int
    ) -> Sequence[PhysicalInstruction]:
        """A named two-qubit gate: cnot, cphase, mov or swp."""
        ...

    def measure(self, qubit: int) -> Sequence[PhysicalInstruction]:
        """Measurement in the Z basis; exactly one instruction is an MSR, which has the result."""
        ...

    def entangle(self, link: int, qubit: int) -> PhysicalInstruction:
        """One batch of attempts, keeping the qubit."""
        ...

    def entangle_and_measure(self, link: int, qubit: int) -> PhysicalInstruction:
        """One batch of attempts, measuring at once."""
        ...

    def swap_entanglement(self, first: int, second: int) -> PhysicalInstruction:
        """Bell measurement of two qubits; the outcome names the Bell state as a herald does."""
        ...

    def measurement_basis(
        self, rotations: Sequence[tuple[Axis, int]], qubit: int
    ) -> Sequence[PhysicalInstruction]:
        """Rotations (axis, steps of pi/16) done before the measurement of later ENMs."""
        ...

    def correct(self, state: BellState, qubit: int) -> Sequence[PhysicalInstruction]:
        """Local gates at one end that turn a heralded Bell state into Phi+."""
        ...


class QDevice(Protocol):
    """A quantum device at the end of the wire: one frame each way per tick.

    The exchange is full duplex: the frame returned at a tick was prepared before the
    frame sent at that tick was read, so the answer to an instruction can come back one
    tick later at the earliest.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What the device can do."""
        ...

    def exchange(self, tick: int, frame: int) -> int:
        """Swap one 32-bit frame. Ticks of successive calls increase."""
        ...


class SimulatedQDevice(QDevice, Protocol):
    """A QDevice in virtual time, which can say when something will happen next."""

    def next_tick(self) -> int | None:
        """First tick at which `exchange` has news without new input, None if never."""
        ...
