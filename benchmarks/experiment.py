"""The DQC experiment as a user runs it: `qnodeos experiment dqc`, in a process of its own.

Wall-clock time, start of the interpreter and all worker processes included, against the
calibration loop in this process. The full size is the paper's, 1,200 circuits per set, and
takes long, so there is one round and no warm-up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final

from benchmarks.calibration import calibration
from benchmarks.measure import Effort, Outcome, Work, compare
from qnodeos.experiments.dqc import BLOCK_CIRCUITS

CIRCUITS_PER_SET: Final = 1_200
ROUNDS: Final = 1
SEED: Final = 1

_COMMAND: Final = "from qnodeos.cli import main; main()"


def run(effort: Effort) -> Outcome:
    """Measure."""
    # Half of the circuits verify each orientation, so there is at least one of either.
    circuits = max(2, effort.of(CIRCUITS_PER_SET))
    # A few circuits are done before a second process has started.
    workers = 1 if circuits < BLOCK_CIRCUITS else os.cpu_count() or 1
    arguments = [
        "experiment", "dqc", "--quiet", "--json", os.devnull,
        "--circuits-per-set", str(circuits),
        "--seed", str(SEED),
        "--workers", str(workers),
    ]  # fmt: skip

    def command() -> None:
        subprocess.run([sys.executable, "-c", _COMMAND, *arguments], check=True)

    figure = compare(
        Work("experiment dqc", "experiment", 1, lambda: command),
        calibration(units=effort.of(10_000)),
        Effort(ROUNDS, effort.fraction),
        clock=time.perf_counter_ns,
        warm_up=False,
    ).cost("experiment dqc")
    return Outcome(
        [figure],
        "on in the experiment's own processes",
        notes=[
            f"{circuits:,} circuits in each of six sets, processes: {workers}; "
            f"{figure.ours.ns / 1e9:.1f} s of wall-clock time on this machine",
            "wall-clock time and a single round: other programs on the machine count",
        ],
    )
