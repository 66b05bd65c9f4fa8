"""The words of a pulse sequencer, prepared for execution, and where their execution stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

from sequences.errors import SequenceError
from sequences.sequencer_isa import (
    CALL_DEPTH,
    DELAY_SLOTS,
    NOPS_ONLY,
    REGISTERS,
    SLOTTED,
    Op,
    decode,
)

_BRANCH_CYCLES: Final = 1 + DELAY_SLOTS
_LOOPS: Final = (Op.J, Op.BTR)
"""What may branch to itself for ever."""


class PulseSequencerFault(RuntimeError):
    """The program did what is not documented, or what cannot be done."""


class Step(NamedTuple):
    """A word, ready to be executed.

    Attributes:
        op: opcode, or None if the word is no instruction.
        address: it branches to.
        number: register, or group of outputs.
        value: of the outputs or register, or cycles to wait; of btr the level that branches.
        mask: of the trigger input.
        slotted: it has delay slots.
        clean: only nops are in them.
        nops: number of nops from here on.
        problem: why it is no instruction.
    """

    op: Op | None
    address: int = 0
    number: int = 0
    value: int = 0
    mask: int = 0
    slotted: bool = False
    clean: bool = False
    nops: int = 0
    problem: str = ""


Prepared = Sequence[Step]


def prepared(words: Sequence[int]) -> Prepared:
    """The words of a program, ready to be executed."""
    steps: list[Step] = []
    nops = 0
    for word in reversed(words):
        try:
            instruction = decode(word)
        except SequenceError as error:
            nops = 0
            steps.append(Step(None, problem=str(error)))
            continue
        op = instruction.op
        slotted = op in SLOTTED
        clean = slotted and nops >= DELAY_SLOTS
        nops = nops + 1 if op is Op.NOP else 0
        value = 1 - instruction.invert if op is Op.BTR else instruction.value
        number = instruction.group if op is Op.P else instruction.register
        steps.append(
            Step(op, instruction.address, number, value, instruction.mask, slotted, clean, nops)
        )
    return tuple(reversed(steps))


class Thread:
    """Where execution stands: everything but the outputs.

    Attributes:
        cycle: in which the word at `address` will be executed.
        address: of the next word.

    Args:
        cycle: in which the word at address 0 is executed.
    """

    __slots__ = ("_owner", "_registers", "_slots", "_target", "_ways_back", "address", "cycle")

    def __init__(self, cycle: int) -> None:
        self.cycle = cycle
        self.address = 0
        self._slots = 0  # still to be executed, of the instruction `_owner`, then to `_target`
        self._owner = Op.NOP
        self._target = 0
        self._registers: tuple[int, ...] = (0,) * REGISTERS
        self._ways_back: tuple[int, ...] = ()

    def copy(self) -> Thread:
        """One that can be executed without changing this one."""
        other = Thread(self.cycle)
        other.address, other._slots = self.address, self._slots
        other._owner, other._target = self._owner, self._target
        other._registers, other._ways_back = self._registers, self._ways_back
        return other

    def spins(self, program: Prepared, inputs: int) -> bool:
        """Whether it branches from here to here, until an input changes."""
        if self.address >= len(program) or self._slots:
            return False
        step = program[self.address]
        if step.address != self.address or not step.clean:
            return False
        return step.op is Op.J or (step.op is Op.BTR and bool(inputs & step.mask) == step.value)

    def execute(self, program: Prepared, inputs: int, limit: int) -> Step:
        """Execute a word, and with it nops that follow; also many turns of the same branch.

        Args:
            program: to be executed.
            inputs: the trigger inputs.
            limit: cycle before which the turns of a branch to itself are passed over.

        Returns:
            The word; what it does to the outputs, or to the sequencer, is left to the caller.

        Raises:
            PulseSequencerFault: it cannot be executed; nothing has changed.
        """
        if self.address >= len(program):
            self._fail("the program ran off its end")
        step = program[self.address]
        if step.op is None:
            self._fail(step.problem)
        if self._slots:
            self._execute_slot(step)
        elif step.slotted:
            self._branch(step, step.op, inputs, limit)
        else:
            length = step.nops or 1
            if step.op is Op.LDC:
                self._set_register(step.number, step.value)
            self.cycle += length
            self.address += length
        return step

    def _execute_slot(self, step: Step) -> None:
        if step.op in SLOTTED or (self._owner in NOPS_ONLY and step.op is not Op.NOP):
            assert step.op is not None
            self._fail(f"{step.op.name.lower()} is in a delay slot of {self._owner.name.lower()}")
        if step.op is Op.LDC:
            self._set_register(step.number, step.value)
        self.cycle += 1
        self._slots -= 1
        self.address = self.address + 1 if self._slots else self._target

    def _branch(self, step: Step, op: Op, inputs: int, limit: int) -> None:
        """Execute an instruction that has delay slots, and these if they are nops."""
        here, straight_on = self.address, self.address + _BRANCH_CYCLES
        target = straight_on
        if op is Op.WAIT:
            self.cycle += step.value
        elif op is Op.BDEC:
            count = self._registers[step.number]
            if not count:
                self._fail(f"bdec of r{step.number}, which is 0 already")
            self._set_register(step.number, count - 1)
            if count > 1:
                target = step.address
        elif op is Op.BTR:
            if bool(inputs & step.mask) == step.value:
                target = step.address
        elif op is Op.J:
            target = step.address
        elif op is Op.CALL:
            if len(self._ways_back) == CALL_DEPTH:
                self._fail(f"more than {CALL_DEPTH} calls within calls")
            self._ways_back = (*self._ways_back, straight_on)
            target = step.address
        elif op is Op.RET:
            if not self._ways_back:
                self._fail("ret without a call")
            *ways_back, target = self._ways_back
            self._ways_back = tuple(ways_back)
        else:
            return  # halt
        if not step.clean:
            self.cycle += 1
            self.address += 1
            self._slots, self._owner, self._target = DELAY_SLOTS, op, target
            return
        turns = 1
        if target == here and op in _LOOPS:
            turns = -(-(limit - self.cycle) // _BRANCH_CYCLES)
        self.cycle += turns * _BRANCH_CYCLES
        self.address = target

    def _set_register(self, number: int, value: int) -> None:
        registers = self._registers
        self._registers = (*registers[:number], value, *registers[number + 1 :])

    def _fail(self, what: str) -> NoReturn:
        raise PulseSequencerFault(f"address {self.address}, cycle {self.cycle}: {what}")
