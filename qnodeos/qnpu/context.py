"""What the builders of the compiler may use, bound to one process.

That is its memory, its execution, and the kernel's services for qubits and entanglement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from qnodeos.errors import MalformedSubroutineError
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.execution import Execution, Operation
from qnodeos.qnpu.isa import Instruction
from qnodeos.qnpu.memory import ProcessMemory


class ProcessServices(Protocol):
    """What a running subroutine may ask of the kernel, on behalf of its process."""

    def physical(self, virtual: int) -> int | None:
        """Physical address of a virtual qubit, None if it is not mapped."""
        ...

    def is_expected(self, virtual: int) -> bool:
        """Whether an outstanding entanglement request will map this virtual qubit."""
        ...

    def should_pause(self, pc: int) -> bool:
        """Whether to give way before the instruction at ``pc``, if no qubit is held."""
        ...

    def allocate(self, virtual: int) -> bool:
        """Map a free physical qubit; False if another process must free one first."""
        ...

    def free(self, virtual: int) -> None:
        """Give a virtual qubit back."""
        ...

    def create_entanglement(
        self,
        remote_node: int,
        socket_id: int,
        qubits: Sequence[int | None],
        arguments: Sequence[int | None],
        results: int,
    ) -> None:
        """Ask for entanglement, as creator; ``results`` is an array address."""
        ...

    def receive_entanglement(
        self, remote_node: int, socket_id: int, qubits: Sequence[int | None] | None, results: int
    ) -> None:
        """Ask for entanglement, as receiver."""
        ...

    def is_result_pending(self, address: int) -> bool:
        """Whether an outstanding entanglement request still writes to this array."""
        ...


@dataclass(frozen=True)
class CompileContext:
    """Everything a builder binds into its closure.

    Attributes:
        length: number of instructions of the subroutine.
        instructions: the subroutine.
    """

    memory: ProcessMemory
    execution: Execution
    services: ProcessServices
    driver: QDriver
    length: int
    instructions: Sequence[Instruction] = ()

    def target(self, target: int) -> int:
        """Check a branch target; one past the end means the end.

        Raises:
            MalformedSubroutineError: outside the subroutine.
        """
        if not 0 <= target <= self.length:
            raise MalformedSubroutineError(
                f"branch to instruction {target} of a subroutine of {self.length}"
            )
        return target


Builder = Callable[..., Operation]
"""Builds the closure of one instruction from (context, pc, *operands)."""
