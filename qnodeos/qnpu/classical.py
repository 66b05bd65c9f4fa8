"""Compiling the classical instructions: one builder per mnemonic.

A builder takes the compile context, the instruction's index and its operands, checks all
that can be checked now, and returns the closure that does the work. Every value is an
int32 and wraps; every array access is checked; every loop is counted, and so is work whose
length the program chooses.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Final

from qnodeos.api.host import ArrayResult, RegisterResult
from qnodeos.errors import ArithmeticFaultError, ArrayAccessError, DeadlockError
from qnodeos.qnpu.context import Builder, CompileContext
from qnodeos.qnpu.execution import Execution, Operation
from qnodeos.qnpu.isa import INT32_MAX, INT32_MIN
from qnodeos.qnpu.memory import Array

_ENTRIES_PER_INSTRUCTION: Final = 16
"""Array entries made, looked at or returned in the time of one instruction (rough)."""


def wrap_int32(value: int) -> int:
    """Reduce to a two's complement 32-bit integer."""
    return (value - INT32_MIN & 0xFFFF_FFFF) + INT32_MIN


# --- moving values --------------------------------------------------------------------


def _set(context: CompileContext, pc: int, register: int, value: int) -> Operation:
    registers, following = context.memory.registers, pc + 1

    def operation() -> int:
        registers[register] = value
        return following

    return operation


def _array(context: CompileContext, pc: int, size: int, address: int) -> Operation:
    registers, create, following = context.memory.registers, context.memory.create_array, pc + 1
    execution = context.execution

    def operation() -> int:
        length = registers[size]
        create(address, length)
        if length >= _ENTRIES_PER_INSTRUCTION:
            return _charge(execution, length, following)
        return following

    return operation


def _store(context: CompileContext, pc: int, register: int, address: int, index: int) -> Operation:
    registers, arrays, following = context.memory.registers, context.memory.arrays, pc + 1
    complain = context.memory.entry  # checks again, and raises; too slow for every access

    def operation() -> int:
        at = registers[index]
        array = arrays.get(address)
        if array is None or not 0 <= at < len(array):
            array = complain(address, at)
        array[at] = registers[register]
        return following

    return operation


def _load(context: CompileContext, pc: int, register: int, address: int, index: int) -> Operation:
    registers, arrays, following = context.memory.registers, context.memory.arrays, pc + 1
    complain = context.memory.entry  # checks again, and raises; too slow for every access

    def operation() -> int:
        at = registers[index]
        array = arrays.get(address)
        if array is None or not 0 <= at < len(array):
            array = complain(address, at)
        value = array[at]
        if value is None:
            raise ArrayAccessError(f"entry {at} of array @{address} is read but undefined")
        registers[register] = value
        return following

    return operation


def _undef(context: CompileContext, pc: int, address: int, index: int) -> Operation:
    registers, entry, following = context.memory.registers, context.memory.entry, pc + 1

    def operation() -> int:
        at = registers[index]
        entry(address, at)[at] = None
        return following

    return operation


def _charge(execution: Execution, entries: int, following: int) -> int:
    """Count work on array entries as instructions; where to go on."""
    execution.spent += entries // _ENTRIES_PER_INSTRUCTION
    if execution.spent > execution.allowance:
        return execution.out_of_allowance(following)
    return following


# --- branches -------------------------------------------------------------------------


def _jmp(context: CompileContext, pc: int, target: int) -> Operation:
    """Only a jump backwards can make a loop, so only that one counts instructions."""
    target = context.target(target)
    execution, length = context.execution, pc - target + 1
    if length <= 0:
        return lambda: target

    def operation() -> int:
        execution.spent += length
        if execution.spent > execution.allowance:
            return execution.out_of_allowance(target)
        return target

    return operation


def _branch(
    context: CompileContext,
    pc: int,
    left: int,
    right: int | None,
    target: int,
    compare: Callable[[int, int], bool],
) -> Operation:
    """Branch if ``compare(left, right)``; ``right`` None compares with zero."""
    registers, following = context.memory.registers, pc + 1
    jump = _jmp(context, pc, target)
    if target > pc:  # nothing to count: spare the call
        if right is None:
            return lambda: target if compare(registers[left], 0) else following
        other = right
        return lambda: target if compare(registers[left], registers[other]) else following
    if right is None:
        return lambda: jump() if compare(registers[left], 0) else following
    other = right
    return lambda: jump() if compare(registers[left], registers[other]) else following


def _unary_branch(compare: Callable[[int, int], bool]) -> Builder:
    def build(context: CompileContext, pc: int, register: int, target: int) -> Operation:
        return _branch(context, pc, register, None, target, compare)

    return build


def _binary_branch(compare: Callable[[int, int], bool]) -> Builder:
    def build(context: CompileContext, pc: int, left: int, right: int, target: int) -> Operation:
        return _branch(context, pc, left, right, target, compare)

    return build


# --- arithmetic -----------------------------------------------------------------------


def _floor_div(left: int, right: int) -> int:
    if right == 0:
        raise ArithmeticFaultError(f"{left} div 0")
    return left // right


def _remainder(left: int, right: int) -> int:
    if right == 0:
        raise ArithmeticFaultError(f"{left} rem 0")
    return left % right


def _arithmetic(apply: Callable[[int, int], int]) -> Builder:
    def build(context: CompileContext, pc: int, out: int, left: int, right: int) -> Operation:
        registers, following = context.memory.registers, pc + 1

        def operation() -> int:
            value = apply(registers[left], registers[right])
            if not INT32_MIN <= value <= INT32_MAX:
                value = wrap_int32(value)
            registers[out] = value
            return following

        return operation

    return build


def _modular(apply: Callable[[int, int], int]) -> Builder:
    def build(
        context: CompileContext, pc: int, out: int, left: int, right: int, modulus: int
    ) -> Operation:
        registers, following = context.memory.registers, pc + 1

        def operation() -> int:
            divisor = registers[modulus]
            if divisor < 1:
                raise ArithmeticFaultError(f"modulus {divisor} is not positive")
            registers[out] = apply(registers[left], registers[right]) % divisor
            return following

        return operation

    return build


# --- waiting and returning ------------------------------------------------------------


def _wait_for_slice(enough: Callable[[list[bool]], bool], words: str) -> Builder:
    def build(context: CompileContext, pc: int, address: int, start: int, stop: int) -> Operation:
        registers, memory, following = context.memory.registers, context.memory, pc + 1

        def operation() -> int:
            first, last = registers[start], registers[stop]
            entries: Array = memory.slice(address, first, last)
            if enough([entry is not None for entry in entries]):
                return _charge(context.execution, last - first, following)
            return _wait(context, pc, address, f"{words} of @{address}[{first}:{last}]")

        return operation

    return build


def _wait_single(context: CompileContext, pc: int, address: int, index: int) -> Operation:
    registers, entry, following = context.memory.registers, context.memory.entry, pc + 1

    def operation() -> int:
        at = registers[index]
        if entry(address, at)[at] is not None:
            return following
        return _wait(context, pc, address, f"entry @{address}[{at}]")

    return operation


def _wait(context: CompileContext, pc: int, address: int, what: str) -> int:
    if not context.services.is_result_pending(address):
        raise DeadlockError(
            f"waiting for {what}, but no outstanding entanglement request writes to it"
        )
    return context.execution.wait(pc, what)


def _ret_reg(context: CompileContext, pc: int, register: int) -> Operation:
    registers, execution, following = context.memory.registers, context.execution, pc + 1

    def operation() -> int:
        execution.give_back(RegisterResult(register, registers[register]), 1)
        return following

    return operation


def _ret_arr(context: CompileContext, pc: int, address: int) -> Operation:
    memory, execution, services = context.memory, context.execution, context.services
    following = pc + 1

    def operation() -> int:
        # The SDK emits no wait instruction when it is told of a single qubit: returning
        # the result array of a request is where such a program means to wait.
        if services.is_result_pending(address):
            return execution.wait(pc, f"entanglement results in @{address}")
        array = memory.array(address)
        execution.give_back(ArrayResult(address, tuple(array)), len(array))
        return _charge(execution, len(array), following)

    return operation


def _lea(context: CompileContext, pc: int, register: int, address: int) -> Operation:
    return _set(context, pc, register, address)


def _breakpoint(context: CompileContext, pc: int, action: int, role: int) -> Operation:
    """Breakpoints are for simulators that dump state; here they do nothing."""
    following = pc + 1
    return lambda: following


BUILDERS: Final[dict[str, Builder]] = {
    "set": _set,
    "array": _array,
    "store": _store,
    "load": _load,
    "undef": _undef,
    "lea": _lea,
    "jmp": _jmp,
    "bez": _unary_branch(operator.eq),
    "bnz": _unary_branch(operator.ne),
    "beq": _binary_branch(operator.eq),
    "bne": _binary_branch(operator.ne),
    "blt": _binary_branch(operator.lt),
    "bge": _binary_branch(operator.ge),
    "add": _arithmetic(operator.add),
    "sub": _arithmetic(operator.sub),
    "mul": _arithmetic(operator.mul),
    "div": _arithmetic(_floor_div),
    "rem": _arithmetic(_remainder),
    "addm": _modular(operator.add),
    "subm": _modular(operator.sub),
    "wait_all": _wait_for_slice(all, "all entries"),
    "wait_any": _wait_for_slice(any, "any entry"),
    "wait_single": _wait_single,
    "ret_reg": _ret_reg,
    "ret_arr": _ret_arr,
    "breakpoint": _breakpoint,
}
