"""Every classical instruction against an independent model, in random programs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netqasm.backend.executor import Executor
from netqasm.lang.instr import core
from netqasm.lang.instr.core import CreateEPRInstruction

from qnodeos.api.host import ArrayResult, RegisterResult
from qnodeos.errors import (
    ArithmeticFaultError,
    ArrayAccessError,
    DeadlockError,
    InstructionBudgetError,
    LimitError,
    MalformedSubroutineError,
)
from qnodeos.limits import Limits
from qnodeos.qnpu.classical import BUILDERS, wrap_int32
from qnodeos.qnpu.compiler import compile_subroutine
from qnodeos.qnpu.context import CompileContext
from qnodeos.qnpu.execution import FINISHED, WAIT, YIELD, Execution, SubroutineFault
from qnodeos.qnpu.isa import Instruction
from qnodeos.qnpu.memory import ProcessMemory
from tests.unit.kernel_device import FakeDriver
from tests.unit.kernel_programs import register

LIMITS = Limits(array_length=8, instructions_per_tick=40, instructions_per_activation=10_000)
I32 = st.one_of(
    st.integers(-4, 4),
    st.sampled_from([-(2**31), 2**31 - 1, -(2**31) + 1, 2**16]),
    st.integers(-(2**31), 2**31 - 1),
)


class Services:
    """Just enough of the kernel for classical instructions."""

    def __init__(self) -> None:
        self.pending: set[int] = set()

    def is_result_pending(self, address: int) -> bool:
        return address in self.pending


@dataclass
class Machine:
    """A compiled subroutine and its process's memory."""

    program: Sequence[tuple[str, tuple[int, ...]]]
    limits: Limits = LIMITS
    services: Services = field(default_factory=Services)

    def __post_init__(self) -> None:
        self.memory = ProcessMemory(self.limits)
        self.execution = Execution(self.limits)
        context = CompileContext(
            self.memory,
            self.execution,
            self.services,  # type: ignore[arg-type]
            FakeDriver(),
            len(self.program),
        )
        instructions = [Instruction(*entry) for entry in self.program]
        self.execution.start(compile_subroutine(instructions, context))

    def run(self) -> int:
        """Run to the end, over all yields."""
        while (code := self.execution.run()) == YIELD:
            pass
        return code


# --- the model ------------------------------------------------------------------------


class ModelFault(Exception):
    """What the model thinks an instruction must fail with."""


BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
}
COMPARE = {
    "bez": lambda a, b: a == 0,
    "bnz": lambda a, b: a != 0,
    "beq": lambda a, b: a == b,
    "bne": lambda a, b: a != b,
    "blt": lambda a, b: a < b,
    "bge": lambda a, b: a >= b,
}


class Model:
    """The semantics of NetQASM's classical instructions, on numpy's int32."""

    def __init__(self) -> None:
        self.registers = np.zeros(64, dtype=np.int32)
        self.arrays: dict[int, list[int | None]] = {}
        self.results: list[object] = []

    def cell(self, address: int, index: int) -> list[int | None]:
        array = self.arrays.get(address)
        if array is None or not 0 <= index < len(array):
            raise ModelFault(ArrayAccessError)
        return array

    def step(self, pc: int, name: str, operands: tuple[int, ...]) -> int:
        r = self.registers
        match name, operands:
            case (("set" | "lea"), (out, value)):
                r[out] = value
            case "array", (size, address):
                length = int(r[size])
                if length < 0 or address < 0:
                    raise ModelFault(ArrayAccessError)
                if length > LIMITS.array_length:
                    raise ModelFault(LimitError)
                self.arrays[address] = [None] * length
            case "store", (value, address, index):
                self.cell(address, int(r[index]))[int(r[index])] = int(r[value])
            case "undef", (address, index):
                self.cell(address, int(r[index]))[int(r[index])] = None
            case "load", (out, address, index):
                entry = self.cell(address, int(r[index]))[int(r[index])]
                if entry is None:
                    raise ModelFault(ArrayAccessError)
                r[out] = entry
            case "jmp", (target,):
                return target
            case (("bez" | "bnz"), (left, target)):
                return target if COMPARE[name](r[left], 0) else pc + 1
            case (("beq" | "bne" | "blt" | "bge"), (left, right, target)):
                return target if COMPARE[name](r[left], r[right]) else pc + 1
            case (("add" | "sub" | "mul"), (out, left, right)):
                with np.errstate(over="ignore"):
                    r[out] = BINARY[name](r[left : left + 1], r[right : right + 1])[0]
            case (("div" | "rem"), (out, left, right)):
                if r[right] == 0:
                    raise ModelFault(ArithmeticFaultError)
                divide = np.floor_divide if name == "div" else np.remainder
                wide = divide(r[left].astype(np.int64), r[right].astype(np.int64))
                r[out] = wide.astype(np.int32)
            case (("addm" | "subm"), (out, left, right, modulus)):
                if r[modulus] < 1:
                    raise ModelFault(ArithmeticFaultError)
                sign = 1 if name == "addm" else -1
                total = r[left].astype(np.int64) + sign * r[right].astype(np.int64)
                r[out] = (total % r[modulus].astype(np.int64)).astype(np.int32)
            case "ret_reg", (out,):
                self.results.append(RegisterResult(out, int(r[out])))
            case "ret_arr", (address,):
                if address not in self.arrays:
                    raise ModelFault(ArrayAccessError)
                self.results.append(ArrayResult(address, tuple(self.arrays[address])))
            case "breakpoint", _:
                pass
            case _:
                raise AssertionError(f"the model does not know {name} {operands}")
        return pc + 1

    def run(self, program: list[tuple[str, tuple[int, ...]]]) -> tuple[int, object] | None:
        """The index and class of the first fault, None if there is none."""
        pc = 0
        while pc < len(program):
            try:
                pc = self.step(pc, *program[pc])
            except ModelFault as fault:
                return pc, fault.args[0]
        return None


# --- random programs ------------------------------------------------------------------

REGISTER = st.integers(0, 7)
ADDRESS = st.integers(0, 2)
COUNTER, LAST, ONE = register("C13"), register("C14"), register("C15")


def operations(length: int) -> st.SearchStrategy[tuple[str, tuple[int, ...]]]:
    """Any instruction, with forward branches only."""
    target = st.integers(0, length)

    def one(name: str, *operands: st.SearchStrategy[int]):
        return st.tuples(st.just(name), st.tuples(*operands))

    return st.one_of(
        one("set", REGISTER, I32),
        one("lea", REGISTER, ADDRESS),
        one("array", REGISTER, ADDRESS),
        one("store", REGISTER, ADDRESS, REGISTER),
        one("load", REGISTER, ADDRESS, REGISTER),
        one("undef", ADDRESS, REGISTER),
        one("jmp", target),
        *(one(name, REGISTER, target) for name in ("bez", "bnz")),
        *(one(name, REGISTER, REGISTER, target) for name in ("beq", "bne", "blt", "bge")),
        *(one(name, REGISTER, REGISTER, REGISTER) for name in ("add", "sub", "mul", "div", "rem")),
        *(one(name, REGISTER, REGISTER, REGISTER, REGISTER) for name in ("addm", "subm")),
        one("ret_reg", REGISTER),
        one("ret_arr", ADDRESS),
        one("breakpoint", REGISTER, REGISTER),
    )


BRANCHES = frozenset({"jmp", *COMPARE})


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[str, tuple[int, ...]]]:
    """Registers of all kinds of values, arrays, then a loop around random instructions."""
    head: list[tuple[str, tuple[int, ...]]] = [("set", (i, draw(I32))) for i in range(6)]
    head += [("set", (6, 3)), ("set", (7, 1))]
    head += [("array", (6, 0)), ("array", (6, 1)), ("store", (7, 0, 7)), ("store", (0, 1, 7))]
    rounds = draw(st.integers(1, 4))
    head += [("set", (COUNTER, 0)), ("set", (LAST, rounds)), ("set", (ONE, 1))]
    body = draw(st.lists(operations(12), max_size=12))
    start, end = len(head), len(head) + len(body)
    for at, (name, operands) in enumerate(body):
        if name in BRANCHES:  # make it forward, and into the loop
            *registers, target = operands
            body[at] = name, (*registers, min(start + at + 1 + target, end))
    tail = [("add", (COUNTER, COUNTER, ONE)), ("blt", (COUNTER, LAST, start))]
    return [*head, *body, *tail]


@settings(max_examples=250)
@given(programs())
def test_random_programs_do_what_the_model_does(program):
    model, machine = Model(), Machine(program)
    fault = model.run(program)
    if fault is None:
        assert machine.run() == FINISHED
    else:
        with pytest.raises(SubroutineFault) as info:
            machine.run()
        assert (info.value.pc, type(info.value.error)) == fault
    assert machine.memory.registers == model.registers.tolist()
    assert machine.memory.arrays == model.arrays
    assert machine.execution.results == model.results


def test_the_model_knows_every_instruction_but_the_waits():
    drawn = {"set", "lea", "array", "store", "load", "undef", "ret_reg", "ret_arr", "breakpoint"}
    drawn |= BRANCHES | {"add", "sub", "mul", "div", "rem", "addm", "subm"}
    assert BUILDERS.keys() - drawn == {"wait_all", "wait_any", "wait_single"}


@given(st.integers(-(2**70), 2**70))
def test_wrapping(value):
    assert wrap_int32(value) == int(np.array(value % 2**32, dtype=np.uint32).astype(np.int32))


@given(I32, I32, st.integers(1, 2**31 - 1))
def test_arithmetic_agrees_with_netqasms_executor_where_that_does_not_overflow(a, b, modulus):
    reference = Executor(name="reference")
    classes = {
        "add": core.AddInstruction,
        "sub": core.SubInstruction,
        "mul": core.MulInstruction,
        "div": core.DivInstruction,
        "rem": core.RemInstruction,
        "addm": core.AddmInstruction,
        "subm": core.SubmInstruction,
    }
    for name, cls in classes.items():
        if name in ("div", "rem") and b == 0:
            continue
        instruction = cls.__new__(cls)
        expected = reference._compute_binary_classical_instr(instruction, a, b, modulus)
        operands = (3, 0, 1, 2) if name in ("addm", "subm") else (3, 0, 1)
        machine = Machine([(name, operands)])
        machine.memory.registers[:3] = [a, b, modulus]
        machine.run()
        assert machine.memory.registers[3] == wrap_int32(expected)


# --- loops ----------------------------------------------------------------------------

LOOP = [("add", (0, 0, 1)), ("jmp", (0,))]


@pytest.mark.parametrize(
    "branch",
    [
        ("jmp", (0,)),
        ("bez", (5, 0)),
        ("bnz", (1, 0)),
        ("beq", (5, 6, 0)),
        ("bne", (1, 5, 0)),
        ("blt", (5, 1, 0)),
        ("bge", (1, 5, 0)),
    ],
)
def test_every_backward_branch_counts(branch):
    machine = Machine([("set", (1, 1)), branch])
    yields = 0
    with pytest.raises(SubroutineFault) as info:
        while machine.execution.run() == YIELD:
            yields += 1
    assert isinstance(info.value.error, InstructionBudgetError)
    assert info.value.pc == 1
    assert "instructions_per_activation=10000" in str(info.value.error)
    assert yields == pytest.approx(10_000 / 40, rel=0.1)


def test_a_jump_to_itself_counts():
    machine = Machine([("jmp", (0,))])
    with pytest.raises(SubroutineFault):
        machine.run()


def test_a_loop_yields_after_the_instructions_of_a_tick_and_goes_on():
    machine = Machine(LOOP)
    machine.memory.registers[1] = 1
    seen = []
    for _ in range(3):
        assert machine.execution.run() == YIELD
        seen.append(machine.memory.registers[0])
    assert [second - first for first, second in itertools.pairwise(seen)] == [21, 21]
    assert 2 * seen[0] <= LIMITS.instructions_per_tick + 2


def test_a_new_activation_has_a_new_budget():
    limits = Limits(instructions_per_activation=30, instructions_per_tick=30)
    program = [*LOOP[:1], ("blt", (0, 2, 0))]
    for renews in (False, True):
        machine = Machine(program, limits)
        machine.memory.registers[1:3] = [1, 15]
        assert machine.run() == FINISHED
        machine.execution.pc = 0
        machine.memory.registers[0] = 0
        if renews:
            machine.execution.renew_budget()
            assert machine.run() == FINISHED
        else:
            with pytest.raises(SubroutineFault, match="instructions_per_activation=30"):
                machine.run()


@pytest.mark.parametrize("target", [-1, 3, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("branch", [("jmp",), ("bez", 0), ("beq", 0, 1)])
def test_a_branch_out_of_the_subroutine(branch, target):
    name, *registers = branch
    program = [("set", (0, 0)), (name, (*registers, target))]
    with pytest.raises(SubroutineFault, match=f"branch to instruction {target}") as info:
        Machine(program)
    assert info.value.pc == 1
    assert isinstance(info.value.error, MalformedSubroutineError)


def test_a_branch_to_the_end_ends():
    assert Machine([("jmp", (2,)), ("div", (0, 0, 0))]).run() == FINISHED


# --- waiting --------------------------------------------------------------------------

WAITS = [("wait_all", (4, 0, 1)), ("wait_any", (4, 0, 1)), ("wait_single", (4, 0))]


def waiting(wait, entries: list[int | None], start: int, stop: int) -> Machine:
    machine = Machine([wait, ("set", (9, 1))])
    machine.memory.registers[:2] = [start, stop]
    machine.memory.arrays[4] = list(entries)
    return machine


@given(
    st.sampled_from(WAITS),
    st.lists(st.one_of(st.none(), I32), min_size=1, max_size=4),
    st.integers(0, 3),
    st.integers(0, 4),
)
def test_a_wait_goes_on_when_its_entries_are_defined(wait, entries, start, stop):
    start, stop = min(start, len(entries) - 1), min(stop, len(entries))
    stop = max(start, stop)
    part = [entry is not None for entry in entries[start:stop]]
    enough = {
        "wait_all": all(part),
        "wait_any": any(part),
        "wait_single": entries[start] is not None,
    }[wait[0]]
    machine = waiting(wait, entries, start, stop)
    machine.services.pending.add(4)
    assert machine.run() == (FINISHED if enough else WAIT)
    assert machine.memory.registers[9] == int(enough)
    if not enough and stop > start:
        assert "@4" in machine.execution.waiting_for
        machine.memory.arrays[4] = [1] * len(entries)
        assert machine.run() == FINISHED


@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_that_nothing_can_satisfy(wait):
    machine = waiting(wait, [None, None], 0, 2)
    machine.services.pending.add(5)
    with pytest.raises(SubroutineFault, match="no outstanding entanglement request") as info:
        machine.run()
    assert isinstance(info.value.error, DeadlockError)
    assert info.value.pc == 0


@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_outside_its_array(wait):
    machine = waiting(wait, [1, 2], 2, 3)
    with pytest.raises(SubroutineFault) as info:
        machine.run()
    assert isinstance(info.value.error, ArrayAccessError)


def test_returning_an_array_waits_for_the_results_in_it():
    machine = Machine([("ret_arr", (4,))])
    machine.memory.arrays[4] = [None, 3]
    machine.services.pending.add(4)
    assert machine.run() == WAIT
    machine.services.pending.clear()
    assert machine.run() == FINISHED
    assert machine.execution.results == [ArrayResult(4, (None, 3))]


# --- results --------------------------------------------------------------------------


def test_what_is_returned_is_what_it_was_then():
    program = [("ret_reg", (0,)), ("ret_arr", (4,)), ("set", (0, 7)), ("store", (0, 4, 1))]
    machine = Machine(program)
    machine.memory.arrays[4] = [5]
    machine.run()
    assert machine.memory.arrays[4] == [7]
    assert machine.execution.results == [RegisterResult(0, 0), ArrayResult(4, (5,))]


@pytest.mark.parametrize(("entries", "fits"), [(10, True), (9, False)])
def test_the_size_of_a_reply_is_bounded(entries, fits):
    program = [("ret_arr", (4,)), ("ret_arr", (4,)), ("ret_reg", (0,)), ("ret_reg", (0,))]
    machine = Machine(program, Limits(result_entries=entries))
    machine.memory.arrays[4] = [1] * 4
    if fits:
        assert machine.run() == FINISHED
        assert len(machine.execution.results) == 4
    else:
        with pytest.raises(SubroutineFault, match="result_entries=9") as info:
            machine.run()
        assert info.value.pc == 3
        assert isinstance(info.value.error, LimitError)


def test_an_entanglement_instruction_is_not_classical():
    assert CreateEPRInstruction.mnemonic not in BUILDERS
