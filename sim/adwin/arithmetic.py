"""What generated programs call: 32-bit integers, conversions, built-in functions, loop guard."""

from __future__ import annotations

import ctypes
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from sim.adwin.options import LONG_MAX, LONG_MIN, ProcessorModel


class Fault(Exception):
    """Something illegal at run time; `Process` adds where."""


class ExitSection(Exception):
    """EXIT: leave the section."""


class EndProcess(Exception):
    """END: leave the section and end the process."""


def wrap(value: int) -> int:
    """The 32-bit two's complement number with the low bits of `value`."""
    return (value + 0x8000_0000 & 0xFFFF_FFFF) - 0x8000_0000


def truncated(value: float) -> int:
    """A FLOAT as a LONG, rounded towards zero; saturates, and NaN is 0 (assumed)."""
    if math.isnan(value):
        return 0
    return int(max(LONG_MIN, min(LONG_MAX, value)))


def nearest(value: float) -> int:
    """A FLOAT as a LONG, rounded to the nearest, halves to even; saturates (assumed)."""
    if math.isnan(value):
        return 0
    return round(max(LONG_MIN, min(LONG_MAX, value)))


def single(value: float) -> float:
    """The nearest number of 32 bits; infinite beyond their range."""
    return ctypes.c_float(value).value


def divide_long(left: int, right: int) -> int:
    """Quotient rounded towards zero."""
    if right == 0:
        raise Fault("division of a LONG by zero")
    quotient = abs(left) // abs(right)
    return wrap(quotient if (left < 0) == (right < 0) else -quotient)


def divide_float(left: float, right: float) -> float:
    """Quotient as IEEE 754 has it, with infinities."""
    if right != 0:
        return left / right
    if left == 0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def modulo(left: int, right: int) -> int:
    """Remainder with the sign of the dividend."""
    if right == 0:
        raise Fault("MOD by zero")
    remainder = abs(left) % abs(right)
    return remainder if left >= 0 else -remainder


def power_long(base: int, exponent: int) -> int:
    """``base ^ exponent`` in 32 bits; a negative exponent gives the truncated fraction."""
    if exponent >= 0:
        return wrap(pow(base, exponent, 0x1_0000_0000))
    if base == 0:
        raise Fault("zero to a negative power")
    return {1: 1, -1: -1 if exponent % 2 else 1}.get(base, 0)


def power_float(base: float, exponent: float) -> float:
    """``base ^ exponent``; infinite beyond the range."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf


def exponential(value: float) -> float:
    """``EXP(value)``; infinite beyond the range."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def shift_left(value: int, bits: int) -> int:
    """Bits shifted towards the sign."""
    if not 0 <= bits <= 31:
        raise Fault(f"a shift by {bits} bits; 0 to 31 are possible")
    return wrap(value << bits)


def shift_right(value: int, bits: int) -> int:
    """Bits shifted away from the sign, with zeros following."""
    if not 0 <= bits <= 31:
        raise Fault(f"a shift by {bits} bits; 0 to 31 are possible")
    return wrap((value & 0xFFFF_FFFF) >> bits)


def below(index: int) -> int:
    """Refuse an index less than 1; Python would count it from the end."""
    raise Fault(f"array index {index}; the first element is 1")


def flat(row: int, column: int, columns: int) -> int:
    """Index into the elements of an array with two dimensions, row by row (assumed)."""
    if row < 1 or not 1 <= column <= columns:
        raise Fault(f"array index [{row}][{column}]; rows count from 1, columns 1 to {columns}")
    return (row - 1) * columns + column


def pop(fifo: deque[Any]) -> Any:
    """Oldest value of a FIFO; 0 if it is empty (assumed)."""
    return fifo.popleft() if fifo else 0


def free_slots(fifo: deque[Any]) -> int:
    """How many values a FIFO can still take."""
    return (fifo.maxlen or 0) - len(fifo)


def sleep_cycles(duration: int, cycles_per_10_ns: int) -> int:
    """Cycles of ``CPU_SLEEP(duration)``, which counts in units of 10 ns."""
    if duration < 0:
        raise Fault(f"CPU_SLEEP({duration}); a time cannot be negative")
    return duration * cycles_per_10_ns


def processdelay(value: int) -> int:
    """Check a Processdelay that a program sets."""
    if value < 1:
        raise Fault(f"PROCESSDELAY = {value}; it must be at least 1 cycle")
    return value


def runaway(cycles: int) -> None:
    """Refuse to go on with a loop that has used up its section's time."""
    raise Fault(
        f"a runaway loop: its section has run for more than {cycles} cycles; bound the loop"
    )


def make_overrun(pending_events: int) -> Callable[[int, int, int, int], tuple[int, int, int]]:
    """A function that decides what follows an event that took too long.

    Args:
        pending_events: how many missed timer events are made up for.

    Returns:
        From (now, next timer tick not after now, Processdelay, events lost so far) to (start of
        the next event, its timer tick, events lost).
    """

    def overrun(now: int, tick: int, delay: int, lost: int) -> tuple[int, int, int]:
        passed = (now - tick) // delay + 1
        last = tick + (passed - 1) * delay
        if pending_events:
            return now, last, lost + passed - 1
        return last + delay, last + delay, lost + passed

    return overrun


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": abs,
    "single": single,
    "divide_long": divide_long,
    "divide_float": divide_float,
    "modulo": modulo,
    "power_long": power_long,
    "power_float": power_float,
    "shift_left": shift_left,
    "shift_right": shift_right,
    "below": below,
    "flat": flat,
    "pop": pop,
    "free_slots": free_slots,
    "sleep_cycles": sleep_cycles,
    "checked_delay": processdelay,
    "runaway": runaway,
    "wrap": wrap,
    "len": len,
    "float": float,
    "min": min,
    "max": max,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "arcsin": math.asin,
    "arccos": math.acos,
    "arctan": math.atan,
    "exp": exponential,
    "ln": math.log,
    "log": math.log10,
    "sqrt": math.sqrt,
    "ExitSection": ExitSection,
    "EndProcess": EndProcess,
}
"""Names that generated programs may use, besides those that depend on the processor."""


def namespace(model: ProcessorModel) -> dict[str, Any]:
    """Everything a generated program can see; it has no builtins."""
    nearest_long = model.semantics.float_to_long == "nearest"
    return {
        "__builtins__": {},
        **FUNCTIONS,
        "to_long": nearest if nearest_long else truncated,
        "overrun": make_overrun(model.pending_events),
    }
