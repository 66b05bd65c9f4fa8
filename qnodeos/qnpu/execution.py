"""Running a compiled subroutine.

A subroutine is compiled into one closure per instruction. A closure does its work and
returns the index of the next instruction, or one of the negative codes below after it
has recorded in the `Execution` what it wants. So the inner loop is three bytecodes long,
and an instruction that has to wait is simply run again later: it checks its own condition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from qnodeos.api.host import ArrayResult, RegisterResult
from qnodeos.errors import CallerError, InstructionBudgetError, LimitError
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import PhysicalInstruction

FINISHED: Final = -1
"""The subroutine has run to its end."""
DEVICE: Final = -2
"""`Execution.queue` holds physical instructions to run before going on."""
WAIT: Final = -3
"""The instruction at `Execution.pc` cannot proceed yet; run it again when woken."""
YIELD: Final = -4
"""Enough for this tick; go on at the next."""
PAUSE: Final = -5
"""Others should run first; go on with the instruction at `Execution.pc` when chosen again."""

Operation = Callable[[], int]


class SubroutineFault(Exception):
    """An instruction raised a `CallerError`; carries where."""

    def __init__(self, pc: int, error: CallerError) -> None:
        super().__init__(f"instruction {pc}: {error}")
        self.pc = pc
        self.error = error


class Execution:
    """The state of a process's current subroutine.

    Attributes:
        pc: where to go on.
        queue: physical instructions still to be sent, in order.
        result_register: register that takes the result of the MSR in the queue.
        waiting_for: what the subroutine waits for, in words.
        spent: instructions counted since the last wait (loops only: straight code is
            bounded by the size of the subroutine).
        results: what was returned to the host so far.
    """

    __slots__ = (
        "_limits",
        "_operations",
        "_returned",
        "allowance",
        "pc",
        "queue",
        "result_register",
        "results",
        "spent",
        "waiting_for",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._operations: Sequence[Operation] = ()
        self._returned = 0
        self.pc = 0
        self.queue: list[PhysicalInstruction] = []
        self.result_register: int | None = None
        self.waiting_for = ""
        self.spent = 0
        self.allowance = limits.instructions_per_tick
        self.results: list[RegisterResult | ArrayResult] = []

    def start(self, operations: Sequence[Operation]) -> None:
        """Begin a subroutine."""
        self._operations = operations
        self.pc = 0
        self.queue = []
        self.result_register = None
        self.results = []
        self._returned = 0
        self.renew_budget()

    def discard(self) -> None:
        """Give the subroutine up where it is; physical instructions not sent are not sent."""
        self._operations = ()
        self.queue = []
        self.result_register = None
        self.results = []

    def renew_budget(self) -> None:
        """A new activation begins: count its instructions from zero."""
        self.spent = 0
        self.allowance = self._limits.instructions_per_tick

    def run(self) -> int:
        """Run until the end or a reason to stop; return one of the codes above.

        Raises:
            SubroutineFault: an instruction erred.
        """
        operations = self._operations
        pc = self.pc
        try:
            while pc >= 0:
                pc = operations[pc]()
        except CallerError as error:  # pc is still that of the instruction that raised
            raise SubroutineFault(pc, error) from error
        return pc

    def issue(
        self, instructions: Sequence[PhysicalInstruction], resume: int, result: int | None = None
    ) -> int:
        """Hand physical instructions to the device, then go on at ``resume``."""
        self.queue.extend(instructions)
        self.result_register = result
        self.pc = resume
        return DEVICE

    def give_back(self, result: RegisterResult | ArrayResult, entries: int) -> None:
        """Return something to the host when the subroutine ends.

        Raises:
            LimitError: it has returned more entries than a reply may hold.
        """
        self._returned += entries
        if self._returned > self._limits.result_entries:
            raise LimitError(
                f"the subroutine returns more than result_entries={self._limits.result_entries} "
                "registers and array entries"
            )
        self.results.append(result)

    def wait(self, pc: int, reason: str) -> int:
        """Suspend; the instruction at ``pc`` is run again after a wake-up."""
        self.pc = pc
        self.waiting_for = reason
        return WAIT

    def pause(self, pc: int) -> int:
        """Give way; the instruction at ``pc`` is run when the process is chosen again."""
        self.pc = pc
        return PAUSE

    def out_of_allowance(self, target: int) -> int:
        """A loop, or work on long arrays, used up the instructions of this tick.

        Raises:
            InstructionBudgetError: it used up those of the whole activation.
        """
        if self.spent > self._limits.instructions_per_activation:
            raise InstructionBudgetError(
                f"more than instructions_per_activation="
                f"{self._limits.instructions_per_activation} instructions without a wait; "
                "is this loop endless?"
            )
        self.allowance = self.spent + self._limits.instructions_per_tick
        self.pc = target
        return YIELD
