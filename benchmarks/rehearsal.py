"""What sleeping costs, and what a rehearsal saves: the critical path of a QNPU, cold and warm.

The path is `qnodeos.service.rehearsal.Rehearsal.delegate`: a pair is asked for and heralded,
gates and a readout follow, results are encoded. Cold is after 20 ms of sleep, as between two
time bins and more; awake is after as long a loop that does nothing; rehearsed is 2 ms after the
same; warm is the same again at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Final

from benchmarks.measure import GC_OFF, Effort, Figure, Outcome, Timing, gc_off
from drivers.nv import NVDriver
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode
from qnodeos.service.rehearsal import Rehearsal

RUNS: Final = 50
"""Per round."""
SLEEP_S: Final = 0.020
REHEARSED_S: Final = 0.002
TICK_NS: Final = 10_000
CAPABILITIES: Final = Capabilities("none", (0,), (), frozenset(Opcode), TICK_NS)


def _stay_awake() -> None:
    end_ns = time.perf_counter_ns() + round(SLEEP_S * 1e9)
    while time.perf_counter_ns() < end_ns:
        pass


def _round(runs: int) -> dict[str, float]:
    """Median times in ns of the four kinds."""
    rehearsal = Rehearsal(NVDriver(CAPABILITIES), TICK_NS)
    pauses: dict[str, Callable[[], None]] = {
        "cold": lambda: time.sleep(SLEEP_S),
        "rehearsed": lambda: time.sleep(REHEARSED_S),
        "warm": lambda: None,
        "awake": _stay_awake,
    }
    times_ns: dict[str, list[int]] = {name: [] for name in pauses}
    for _ in range(runs):
        for name, pause in pauses.items():
            pause()
            start_ns = time.perf_counter_ns()
            rehearsal.delegate()
            times_ns[name].append(time.perf_counter_ns() - start_ns)
    return {name: median(values) for name, values in times_ns.items()}


def run(effort: Effort) -> Outcome:
    """Measure."""
    rounds = []
    with gc_off():
        for _ in range(effort.rounds):
            rounds.append(_round(effort.of(RUNS)))

    def timing(name: str) -> Timing:
        return Timing(name, "run", median(one[name] for one in rounds))

    figures = [
        Figure(
            f"critical path, {name}",
            "times as fast as",
            timing(name),
            timing("cold"),
            tuple(one["cold"] / one[name] for one in rounds),
        )
        for name in ("awake", "rehearsed", "warm")
    ]
    notes = ("wall-clock times: what else runs on this core counts",)
    return Outcome(figures, GC_OFF, notes=notes)
