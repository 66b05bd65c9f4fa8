"""What a device says about itself: qubits, instructions, tick rate."""

from __future__ import annotations

from dataclasses import dataclass

from qnodeos.qdevice.instructions import MAX_HALVINGS, MAX_QUBIT, Opcode


@dataclass(frozen=True)
class Capabilities:
    """The part of a device the kernel and the drivers may rely on.

    Attributes:
        name: what kind of device this is, for messages and reports.
        communication_qubits: physical addresses that can be entangled with a neighbour.
        memory_qubits: physical addresses that can only store and be acted on.
        instructions: the opcodes the device executes; others get UNSUPPORTED_REQUEST.
        tick_ns: time between two frames (10 us NV, 20 us trapped ion; published).
        links: number of neighbours the device can attempt entanglement with.
        angle_halvings: rotations are possible by multiples of pi/16 / 2**angle_halvings.
    """

    name: str
    communication_qubits: tuple[int, ...]
    memory_qubits: tuple[int, ...]
    instructions: frozenset[Opcode]
    tick_ns: int
    links: int = 1
    angle_halvings: int = 0

    def __post_init__(self) -> None:
        qubits = self.qubits
        if not qubits or len(set(qubits)) != len(qubits):
            raise ValueError(f"qubit addresses must be distinct and at least one: {qubits}")
        if min(qubits) < 0 or max(qubits) > MAX_QUBIT:
            raise ValueError(f"qubit addresses must lie in 0..{MAX_QUBIT}: {qubits}")
        if not 0 <= self.angle_halvings <= MAX_HALVINGS:
            raise ValueError(f"angle_halvings must lie in 0..{MAX_HALVINGS}")
        if self.tick_ns <= 0:
            raise ValueError(f"tick_ns must be positive, not {self.tick_ns}")

    @property
    def qubits(self) -> tuple[int, ...]:
        """All physical addresses, communication qubits first."""
        return self.communication_qubits + self.memory_qubits
