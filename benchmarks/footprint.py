"""What a process costs in memory: among few and many, and at most.

In the kernel, Python's allocations are traced:

    typical   what each process adds that has an ER socket and a few compiled subroutines
    greedy    one process that fills what its limits allow: arrays (with numbers that Python does
              not share), compiled subroutines (of the instruction that takes most) and
              those that wait. It does so twice over, so that anything kept beyond a limit shows
    bound     the same, computed from the limits

Of the whole system, the resident memory of a process of its own is read while all programs
run: it includes the stacks of the greenlets, which are not among Python's allocations.
"""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from benchmarks import pairs
from benchmarks.decisions import KINDS, Kind, Machine, body, message
from benchmarks.measure import Effort
from qnodeos.limits import Limits

CANDIDATES: Final = (
    "add R0 R1 R2", "store R0 @0[R1]", "wait_all @0[R0:R1]", "beq R0 R1 0",
    "rot_x Q0 3 4", "rot_z Q0 3 4", "meas Q0 M0", "create_epr R0 R1 R2 R3 R4",
)  # fmt: skip
"""Instructions one of which takes most when compiled."""
PROCESSES: Final = (10, 100, 1_000)
PAIRS: Final = (10, 100, 500)
KB: Final = 1e3
MB: Final = 1e6
ENTRY_BYTES: Final = 8 + sys.getsizeof(1 << 30)
"""An array's entry: a reference, and a number; those of 31 bits take most."""
WAITING_BYTES: Final = 256
"""What a subroutine that waits takes beside its bytes."""

_FILL: Final = """
set R0 0
set R1 {length}
set R2 1
set R3 1000
array R1 @{address}
NEXT:
store R3 @{address}[R0]
add R3 R3 R2
add R0 R0 R2
blt R0 R1 NEXT
"""


@dataclass(frozen=True)
class Bound:
    """The most memory a process may take, in bytes, by what takes it."""

    arrays: int
    compiled: int
    waiting: int
    rest: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.arrays + self.compiled + self.waiting + self.rest


def traced(work: Callable[[], object]) -> int:
    """Bytes that are allocated after some work and were not before it."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = work()
        gc.collect()
        allocated, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del kept
    return allocated


def typical(processes: int) -> float:
    """Bytes that one of so many processes takes, with a subroutine of each kind compiled."""

    def work() -> Machine:
        machine = Machine("fcfs", Kind("mixed", KINDS[0].text, queued=True), processes)
        for kind in KINDS[1:]:
            machine.queue(machine.subroutines(kind.text))
            machine.run(processes)
        return machine

    work()  # what is made once and for all
    return traced(work) / processes


def long_subroutine(number: int, instruction: str, size: int) -> bytes:
    """A subroutine of a size in bytes that does nothing, unlike those of other numbers."""
    filling = body(instruction)
    repeats = max(1, size // len(filling) - 2)
    return body(f"set R1 {number}\njmp {2 + repeats}") + filling * repeats


def compiled_factor(instruction: str, size: int) -> float:
    """Bytes that a compiled subroutine of a size takes for every byte as sent."""
    sent = long_subroutine(0, instruction, size)
    machine = _alone(Limits())

    def work() -> None:
        machine.queue([message(sent)])
        machine.run(1)

    return traced(work) / len(sent)


def bound_of(limits: Limits) -> tuple[Bound, str]:
    """What limits allow one process, and the instruction that takes most when compiled."""
    size = limits.compiled_bytes // limits.compiled_subroutines
    factors = {instruction: compiled_factor(instruction, size) for instruction in CANDIDATES}
    worst = max(factors, key=lambda instruction: factors[instruction])
    compiled = round(limits.compiled_bytes * factors[worst])
    bound = Bound(
        arrays=limits.array_entries * ENTRY_BYTES,
        compiled=compiled,
        waiting=limits.pending_bytes + limits.pending_subroutines * WAITING_BYTES,
        rest=round(typical(1)),
    )
    return bound, worst


def greedy(limits: Limits, instruction: str) -> int:
    """Bytes that a process takes which does all that it may, twice over."""
    machine = _alone(limits)
    length = min(limits.array_length, limits.array_entries // 4)
    fills = [
        message(body(_FILL.format(length=length, address=address)))
        for address in range(2 * (limits.array_entries // length))
    ]
    size = limits.compiled_bytes // limits.compiled_subroutines
    longs = [
        message(long_subroutine(number, instruction, size))
        for number in range(2 * limits.compiled_subroutines)
    ]
    waiting = limits.pending_bytes // limits.pending_subroutines

    def work() -> None:
        for raw in fills + longs:
            machine.queue([raw])
            machine.run(1)
        for number in range(limits.pending_subroutines):
            machine.queue([message(long_subroutine(number, instruction, waiting))])

    return traced(work)


def _alone(limits: Limits) -> Machine:
    return Machine("fcfs", KINDS[0], 1, limits=limits)


def notes(effort: Effort) -> list[str]:
    """What was found, in words."""
    sizes = sorted({effort.of(size) for size in PROCESSES})
    per_process = [typical(size) / KB for size in sizes]
    default = Limits()
    limits = replace(
        default,
        array_entries=effort.of(default.array_entries),
        compiled_bytes=effort.of(default.compiled_bytes),
        compiled_subroutines=effort.of(default.compiled_subroutines),
        pending_bytes=effort.of(default.pending_bytes),
    )
    bound, worst = bound_of(limits)
    pair_sizes = sorted({effort.of(size) for size in PAIRS})
    per_pair = [of_pairs(size) / KB for size in pair_sizes]
    return [
        f"memory of a process in the kernel: {_listed(per_process)} kB among {_listed(sizes)}",
        f"a process that takes all it may: {greedy(limits, worst) / MB:.1f} MB",
        f"bound by the limits: {bound.total / MB:.1f} MB (arrays {bound.arrays / MB:.1f}, "
        f"compiled subroutines {bound.compiled / MB:.1f}, those that wait "
        f"{bound.waiting / MB:.1f}, the rest {bound.rest / MB:.1f}), times "
        f"processes={limits.processes} by default",
        f"resident memory of a pair of DQC programs, SDK and greenlets included: "
        f"{_listed(per_pair)} kB among {_listed(pair_sizes)}",
    ]


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:,.0f}" for number in numbers)


def resident_bytes() -> int:
    """Memory of this process that is in use, in bytes."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def of_pairs(number: int) -> float:
    """Bytes of memory that each of so many pairs of DQC programs takes, in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_of_pairs, number).result()


def _of_pairs(number: int) -> float:
    done, while_running = 0, 0

    def on_round(*_: object) -> None:
        nonlocal done, while_running
        done += 1
        if done == 2 * number:
            while_running = resident_bytes()

    system = pairs.system_for(number)
    programs = [spec for each in range(number) for spec in pairs.DQC.programs(each, 3, on_round)]
    before = resident_bytes()
    system.network.run(programs)
    return (while_running - before) / number
