"""A DQC circuit through the whole stack: what it costs, where, and whether that stays so.

Everything takes part: the SDK programs, both CNPUs, kernels and drivers, frames, the
physics of the devices and the link, and the traces. The link is the fast one, with about
11 batches of attempts per pair, and the software latencies are zero; in virtual time
neither costs anything by itself. Building the nodes is not counted.

`run_cost` compares a circuit with the calibration loop, a number that can be compared
between machines, and takes the time apart (`benchmarks.breakdown`). `run_flat` compares
one long program with short ones: whatever is not emptied between circuits (labels, arrays,
queues) makes the long one dearer. Every round has the same seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from benchmarks.breakdown import shares_of_a_run
from benchmarks.calibration import calibration
from benchmarks.measure import (
    GC_FROZEN,
    NS_PER_MS,
    Effort,
    Outcome,
    Work,
    compare,
    gc_frozen,
)
from benchmarks.system import dqc_programs, fast_system

CIRCUITS: Final = 300
SHORT_CIRCUITS: Final = 100
SHORT_PROGRAMS: Final = 10
"""Short programs per round, so that chance in the number of attempts averages out."""
LONG_CIRCUITS: Final = 5_000
"""In the long program. 10,000, six times over, would take more than a minute."""
FLAT_ROUNDS: Final = 5
WANTED_FLATNESS: Final = (0.85, 1.15)


def run_cost(effort: Effort) -> Outcome:
    """Measure what a circuit costs, and where."""
    circuits = effort.of(CIRCUITS)
    figure = compare(
        Work("DQC circuit", "circuit", circuits, partial(_prepare, [circuits])),
        calibration(units=effort.of(1_000)),
        effort,
        gc_state=gc_frozen,
    ).cost("DQC circuit")
    return Outcome(
        [figure],
        GC_FROZEN,
        shares=shares_of_a_run(circuits),
        notes=[
            f"{figure.ours.ns / NS_PER_MS:.3f} ms per circuit on this machine",
            "the shares come from a separate run in which every call across a seam is timed",
        ],
    )


def run_flat(effort: Effort) -> Outcome:
    """Measure whether a circuit costs the same in a long program."""
    long, short = effort.of(LONG_CIRCUITS), effort.of(SHORT_CIRCUITS)
    programs = effort.of(SHORT_PROGRAMS)
    figure = compare(
        Work(f"program of {long:,}", "circuit", long, partial(_prepare, [long])),
        Work(
            f"programs of {short:,}",
            "circuit",
            short * programs,
            partial(_prepare, [short] * programs),
        ),
        Effort(min(effort.rounds, FLAT_ROUNDS), effort.fraction),
        gc_state=gc_frozen,
    ).cost("DQC flatness", wanted=WANTED_FLATNESS)
    return Outcome(
        [figure],
        GC_FROZEN,
        notes=[f"one program of {long:,} circuits against {programs} of {short:,}"],
    )


def _prepare(programs: list[int]) -> Callable[[], None]:
    """Build a pair of nodes for each program pair; seeds differ, but not between rounds."""
    systems = [(fast_system(seed), circuits) for seed, circuits in enumerate(programs)]

    def run() -> None:
        for system, circuits in systems:
            system.network.run(dqc_programs(circuits))

    return run
