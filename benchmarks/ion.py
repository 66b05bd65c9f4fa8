"""The trapped-ion demonstration: the behavioural depth against a minute, the other against time.

Through QNodeOS and without it, as the experiment does: processes, analysis and all, at the
behavioural depth on two cores; at instrument level one process, node and instruments set up before
the clock starts.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median
from typing import Final

from benchmarks.measure import GC_FROZEN, Effort, Figure, Outcome, Timing, gc_frozen
from qnodeos.assembly import load_profile
from qnodeos.assembly.ion import NODE, IonNodeConfig, build_ion_node
from qnodeos.cnpu.external import install
from qnodeos.experiments.ion import IonSettings, merged, run_blocks
from qnodeos.experiments.ion_analysis import analyse_ion
from qnodeos.experiments.ion_circuits import SEQUENCES
from sim.network import ProgramSpec

WORKERS: Final = 2
REPETITIONS: Final = 2_000
"""Per round, at the behavioural depth: a fifth of the demonstration."""
INSTRUMENT_REPETITIONS: Final = 20
LIMIT_S: Final = 60.0
"""For `FULL_REPETITIONS`."""
FULL_REPETITIONS: Final = 10_000
_TRACE_CAPACITY: Final = 1 << 14


def run(effort: Effort) -> Outcome:
    """Measure."""
    behavioural, note = _behavioural(effort.of(REPETITIONS), effort.rounds)
    instrument, second = _instrument(effort.of(INSTRUMENT_REPETITIONS), effort.rounds)
    return Outcome([behavioural, instrument], GC_FROZEN, notes=[note, second])


def _behavioural(repetitions: int, rounds: int) -> tuple[Figure, str]:
    times_s = []
    for seed in range(rounds):
        settings = IonSettings(repetitions, seed)
        start_s = time.perf_counter()
        blocks = dict(run_blocks(settings, WORKERS, lambda done: None))
        analyse_ion(merged(blocks, settings), settings.expected(), seed=seed, wall_s=0.0)
        times_s.append(time.perf_counter() - start_s)
    circuits = repetitions * len(SEQUENCES)
    limit_s = LIMIT_S * repetitions / FULL_REPETITIONS
    figure = Figure(
        "seven sequences, behavioural",
        "times as fast as",
        Timing(f"with and without QNodeOS, {WORKERS} processes", "circuit",
               median(times_s) * 1e9 / circuits),
        Timing(f"{FULL_REPETITIONS * len(SEQUENCES):,} in {LIMIT_S:g} s", "circuit",
               limit_s * 1e9 / circuits),
        tuple(limit_s / each for each in times_s),
        (1.0, float("inf")),
    )  # fmt: skip
    return figure, (
        f"behavioural: {circuits:,} circuits through QNodeOS, and as many without, in "
        f"{median(times_s):.1f} s, the start of the processes included"
    )


def _instrument(repetitions: int, rounds: int) -> tuple[Figure, str]:
    install()
    from qnodeos.experiments.programs import ion_sequences

    ratios, simulated_s = [], 0.0
    program = ProgramSpec(
        NODE, "seven", ion_sequences.main, {"node": NODE, "repetitions": repetitions}
    )
    for seed in range(rounds):
        with ExitStack() as stack:
            system = stack.enter_context(
                build_ion_node(
                    IonNodeConfig(), load_profile("zero"), seed, _TRACE_CAPACITY, "instrument"
                )
            )
            stack.enter_context(gc_frozen())
            start_s = time.perf_counter()
            system.network.run([program])
            taken_s = time.perf_counter() - start_s
            passed_s = system.network.clock.now_ns / 1e9
        ratios.append(passed_s / taken_s)
        simulated_s += passed_s
    figure = Figure(
        "seven sequences at instrument level",
        "times as fast as",
        Timing("simulated node, one process", "ms simulated", 1e6 / median(ratios)),
        Timing("real time", "ms simulated", 1e6),
        tuple(ratios),
    )
    circuits = rounds * repetitions * len(SEQUENCES)
    return figure, (
        f"instrument level: {circuits:,} circuits in {simulated_s:.2f} s simulated, no software "
        "latencies"
    )
