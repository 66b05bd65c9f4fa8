"""Sweeps: an experiment at every point of a grid of its parameters.

`sweep_spec` reads the file and numbers the points, `sweep_results` runs one, `sweep_journal`
keeps what has come out, `sweep_cluster` runs many at once, and `sweep_dataset` writes the
result. Why a sweep can stop at any time and go on: a point depends on nothing but the plan and
its number, and the journal has every point that is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from qnodeos.experiments.sweep_journal import Journal
from qnodeos.experiments.sweep_results import PointResult, Status, run_point
from qnodeos.experiments.sweep_spec import PointTask, SweepPlan

Runner = Callable[[Iterator[PointTask]], Iterator[PointResult]]
"""Runs points somewhere; yields the results in any order."""


def run_here(tasks: Iterator[PointTask]) -> Iterator[PointResult]:
    """Run points one after the other in this process."""
    return map(run_point, tasks)


def run_sweep(
    plan: SweepPlan,
    journal: Journal,
    runner: Runner,
    on_point: Callable[[PointResult], None] = lambda result: None,
    *,
    retry_failed: bool = False,
) -> None:
    """Run the points that the journal does not have, and put them in it one by one.

    Args:
        plan: the sweep.
        journal: of this sweep.
        runner: where.
        on_point: called when a result is on the disk.
        retry_failed: run those that failed again.

    Raises:
        ResultsNotWrittenError: a result cannot be kept; those before it are.
        ConnectionLostError: the runner lost its workers.
    """
    wanted = (Status.MISSING, Status.FAILED) if retry_failed else (Status.MISSING,)
    numbers = [int(number) for number in journal.results.numbers(*wanted)]
    for result in runner(plan.task(number) for number in numbers):
        journal.append(result)
        on_point(result)
