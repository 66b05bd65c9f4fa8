"""The simulated laboratory: two nodes instrument by instrument against real time, and start-up.

Delegated quantum computation at instrument level, the whole stack with it, against the clock:
simulated time over the time it takes. Setting up a node, and importing the package in a fresh
interpreter, against what a user will wait for.
"""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.measure import GC_FROZEN, Effort, Figure, Outcome, Timing, gc_frozen
from benchmarks.system import TRACE_CAPACITY, dqc_programs
from qnodeos.assembly import NetworkConfig, TwoNodeSystem, build_two_nodes, load_profile

if TYPE_CHECKING:
    from sim.lab.node import LabNode

CIRCUITS: Final = {"fast": 100, "paper": 10}
"""Per round, by link: some seconds of simulated time."""
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


def _real_time(link: str, circuits: int, rounds: int) -> tuple[Figure, str]:
    """One system a round, as in an experiment; setting it up does not count."""
    times_ns, executed, simulated_s = [], 0, 0.0
    for seed in range(rounds):
        config = NetworkConfig.preset(link)
        with build_two_nodes(
            config, load_profile("zero"), seed, TRACE_CAPACITY, "instrument"
        ) as system:
            before = _executed(system)
            programs = dqc_programs(circuits)
            with gc_frozen():
                start_ns = time.process_time_ns()
                system.network.run(programs)
                taken_ns = max(time.process_time_ns() - start_ns, 1)
            executed += _executed(system) - before
            tick = max(system.client.node.tick, system.server.node.tick)
            simulated_ms = tick * config.client.timing.tick_ns / 1e6
        simulated_s += simulated_ms / 1e3
        times_ns.append(taken_ns / simulated_ms)
    figure = Figure(
        f"DQC at instrument level, link {link}",
        "times as fast as",
        Timing("simulated laboratory", "ms simulated", median(times_ns)),
        Timing("real time", "ms simulated", 1e6),
        tuple(1e6 / time_ns for time_ns in times_ns),
        (REAL_TIME_AT_LEAST, float("inf")),
    )
    return figure, (
        f"link {link}: {rounds * circuits} circuits in {simulated_s:.2f} s simulated, in which "
        f"both nodes' ADwins executed {executed:,} events of {2e6 * simulated_s:,.0f}; the others "
        "would have done nothing"
    )


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
