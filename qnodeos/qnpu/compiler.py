"""From decoded instructions to closures bound to one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qnodeos.errors import CallerError
from qnodeos.qnpu import classical, quantum
from qnodeos.qnpu.context import Builder, CompileContext
from qnodeos.qnpu.execution import FINISHED, Operation, SubroutineFault
from qnodeos.qnpu.isa import Instruction

_BUILDERS: Final[dict[str, Builder]] = {**classical.BUILDERS, **quantum.BUILDERS}


def compile_subroutine(
    instructions: Sequence[Instruction], context: CompileContext
) -> list[Operation]:
    """One closure per instruction, and a last one that ends the subroutine.

    Raises:
        SubroutineFault: an instruction that can never run on this node: a branch out of
            the subroutine, an angle or a gate the hardware does not have.
    """
    operations: list[Operation] = []
    for pc, (mnemonic, operands) in enumerate(instructions):
        try:
            operations.append(_BUILDERS[mnemonic](context, pc, *operands))
        except CallerError as error:
            raise SubroutineFault(pc, error) from error
    operations.append(lambda: FINISHED)
    return operations
