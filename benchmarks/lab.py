"""The simulated laboratory: two nodes instrument by instrument against real time, and start-up.

Delegated quantum computation at instrument level, the whole stack with it, against the clock:
simulated time over the time it takes, with a block of circuits on each of two cores, as the
experiment runs them. Setting up a node, and importing the package in a fresh
interpreter, against what a user will wait for.
"""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from statistics import median
from threading import BrokenBarrierError
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from benchmarks.measure import GC_FROZEN, Effort, Figure, Outcome, Timing, gc_frozen
from benchmarks.system import TRACE_CAPACITY, dqc_programs
from qnodeos.assembly import NetworkConfig, TwoNodeSystem, build_two_nodes, load_profile

if TYPE_CHECKING:
    from sim.lab.node import LabNode

T = TypeVar("T")

CIRCUITS: Final = {"fast": 100, "paper": 10}
"""Per round, by link: some seconds of simulated time."""
CORES: Final = 2
BARRIER_TIMEOUT_S: Final = 60.0
"""How long a worker waits for the other, which may have failed."""
REAL_TIME_AT_LEAST: Final = 5.0
SET_UP_LIMIT_S: Final = 3.0
IMPORT_LIMIT_S: Final = 0.5


def run(effort: Effort) -> Outcome:
    """Measure."""
    figures, notes = [], []
    for link, circuits in CIRCUITS.items():
        figure, note = _real_time(link, effort.of(circuits), effort.rounds)
        figures.append(figure)
        notes.append(note)
    figures.append(
        _within("set up a node", "instruments, table, compiler, upload, programs", "node",
                SET_UP_LIMIT_S, [_set_up_ns() for _ in range(effort.rounds)])
    )  # fmt: skip
    figures.append(
        _within("import qnodeos", "a fresh interpreter", "import",
                IMPORT_LIMIT_S, [_import_ns() for _ in range(effort.rounds)])
    )  # fmt: skip
    return Outcome(figures, GC_FROZEN, notes=notes)


class _Run(NamedTuple):
    """One system's run: when it began and ended, and what it simulated."""

    start_ns: int
    stop_ns: int
    simulated_ms: float
    executed: int


def _real_time(link: str, circuits: int, rounds: int) -> tuple[Figure, str]:
    """New systems every round, as in an experiment; setting them up does not count."""
    context = get_context("spawn")
    ratios, executed, simulated_s = [], 0, 0.0
    with ProcessPoolExecutor(
        CORES,
        context,
        initializer=_use_barrier,
        initargs=(context.Barrier(CORES, timeout=BARRIER_TIMEOUT_S),),
    ) as pool:
        for number in range(rounds):
            seeds = range(CORES * number, CORES * (number + 1))
            runs = results([pool.submit(_simulate, link, circuits, seed) for seed in seeds])
            taken_ms = (max(r.stop_ns for r in runs) - min(r.start_ns for r in runs)) / 1e6
            ratios.append(sum(r.simulated_ms for r in runs) / taken_ms)
            executed += sum(r.executed for r in runs)
            simulated_s += sum(r.simulated_ms for r in runs) / 1e3
    figure = Figure(
        f"DQC at instrument level, link {link}",
        "times as fast as",
        Timing(f"simulated laboratory, {CORES} cores", "ms simulated", 1e6 / median(ratios)),
        Timing("real time", "ms simulated", 1e6),
        tuple(ratios),
        (REAL_TIME_AT_LEAST, float("inf")),
    )
    return figure, (
        f"link {link}: {CORES * rounds * circuits} circuits in {simulated_s:.2f} s simulated, in "
        f"which both nodes' ADwins executed {executed:,} events of {2e6 * simulated_s:,.0f}; the "
        "others would have done nothing"
    )


def results(futures: Sequence[Future[T]]) -> list[T]:
    """Results of workers that waited for each other; raises the error that was the cause.

    A worker that fails breaks the barrier, so that the others fail as well.
    """
    errors = [error for future in futures if (error := future.exception()) is not None]
    causes = [error for error in errors if not isinstance(error, BrokenBarrierError)]
    for error in causes or errors:
        raise error
    return [future.result() for future in futures]


_barrier: Barrier | None = None
"""In a worker: where it waits for the others before the clock starts."""


def _use_barrier(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 (the initialiser has no other way in)
    _barrier = barrier


def _simulate(link: str, circuits: int, seed: int) -> _Run:
    assert _barrier is not None
    with breaking(_barrier):
        return _simulate_together(link, circuits, seed, _barrier)


@contextmanager
def breaking(barrier: Barrier) -> Iterator[None]:
    """Let nobody wait at a barrier for one who has failed."""
    try:
        yield
    except BaseException:
        barrier.abort()
        raise


def _simulate_together(link: str, circuits: int, seed: int, barrier: Barrier) -> _Run:
    config = NetworkConfig.preset(link)
    profile = load_profile("zero")
    with build_two_nodes(config, profile, seed, TRACE_CAPACITY, "instrument") as system:
        before = _executed(system)
        programs = dqc_programs(circuits)
        with gc_frozen():
            barrier.wait()
            start_ns = time.monotonic_ns()
            system.network.run(programs)
            stop_ns = max(time.monotonic_ns(), start_ns + 1)
        tick = max(system.client.node.tick, system.server.node.tick)
        simulated_ms = tick * config.client.timing.tick_ns / 1e6
        return _Run(start_ns, stop_ns, simulated_ms, _executed(system) - before)


def _executed(system: TwoNodeSystem) -> int:
    nodes: list[LabNode] = [
        handles.device.node  # type: ignore[attr-defined]
        for handles in (system.client, system.server)
    ]
    return sum(node.executed for node in nodes)


def _set_up_ns() -> float:
    # Late: the vendor's libraries are an extra of this project.
    from sim.lab.build import NodeSpec, SimulatedLaboratory

    gc.collect()
    start_ns = time.process_time_ns()
    with SimulatedLaboratory([NodeSpec("client")]):
        return max(time.process_time_ns() - start_ns, 1)


def _import_ns() -> float:
    """Processor time of a process that does nothing else."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import qnodeos"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return max(taken_s * 1e9, 1)


def _within(name: str, ours: str, unit: str, limit_s: float, times_ns: list[float]) -> Figure:
    limit = Timing("limit", unit, limit_s * 1e9)
    return Figure(
        name,
        "times as fast as",
        Timing(ours, unit, median(times_ns)),
        limit,
        tuple(limit.ns / time_ns for time_ns in times_ns),
        (1.0, float("inf")),
    )
