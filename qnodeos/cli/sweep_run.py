"""Running a sweep from the command line: where, progress, result, report."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from qnodeos.cli.run_support import RunOutcome, check_destinations, write_json
from qnodeos.errors import ConfigurationError
from qnodeos.experiments.sweep import Runner, run_here, run_sweep
from qnodeos.experiments.sweep_dataset import sweep_dataset, write_dataset
from qnodeos.experiments.sweep_journal import Journal, set_aside
from qnodeos.experiments.sweep_results import PointResult, Status, SweepResults, versions
from qnodeos.experiments.sweep_spec import SweepPlan
from qnodeos.files import check_writable
from qnodeos.transport import TlsFiles

ERRORS_SHOWN: Final = 5
ERRORS_IN_SUMMARY: Final = 100


@dataclass(frozen=True)
class Place:
    """Where points are run.

    Attributes:
        workers: processes of this machine; 0 for this one alone, None for one per core.
        scheduler: address of a dask scheduler instead, None for no other.
        tls: certificate, key and authority, for that scheduler.
    """

    workers: int | None = None
    scheduler: str | None = None
    tls: TlsFiles | None = None

    def check(self) -> None:
        """Refuse what cannot be, before anything is run.

        Raises:
            ConfigurationError: the address of the scheduler is none, or not safe.
        """
        if self.scheduler is not None:
            from qnodeos.experiments.sweep_cluster import check_address

            check_address(self.scheduler, self.tls)

    @contextmanager
    def runner(self, points: int) -> Iterator[Runner]:
        """What runs points there.

        Args:
            points: how many there will be.

        Raises:
            ConfigurationError: workers differ from us.
            ConnectionLostError: no scheduler or no worker answers.
        """
        workers = min(points, os.cpu_count() or 1 if self.workers is None else self.workers)
        if self.scheduler is None and workers == 0:
            yield run_here
            return
        from qnodeos.experiments.sweep_cluster import local_cluster, remote_cluster

        cluster = (
            local_cluster(workers)
            if self.scheduler is None
            else remote_cluster(self.scheduler, self.tls)
        )
        with cluster as found:
            found.check()
            yield found.run


def run_and_report(
    plan: SweepPlan,
    place: Place,
    *,
    out: Path,
    restart: bool,
    retry_failed: bool,
    json_path: Path | None,
    quiet: bool,
) -> None:
    """Run the points that are missing, and write what was asked for.

    After Ctrl-C the points that are done are written all the same, then KeyboardInterrupt goes
    on to the caller.

    Args:
        plan: the sweep.
        place: where points are run.
        out: the netCDF file; the journal stands beside it.
        restart: put aside what there is.
        retry_failed: run points that failed once more.
        json_path: where to write a summary, None for nowhere.
        quiet: no report and no progress bar.

    Raises:
        ConfigurationError: there is nowhere to write, or what is there belongs to another sweep.
        ResultsNotWrittenError: a file cannot be written.
        ConnectionLostError: scheduler or workers are gone.
        typer.Exit: points failed.
    """
    console = Console(quiet=quiet)
    place.check()
    check_destinations(json_path, None)
    journal_path = _journal_beside(out, restart=restart)
    if restart:
        for path in (journal_path, out):
            kept = set_aside(path)
            if kept is not None:
                console.print(f"Kept: {kept}", soft_wrap=True)
    started_s = time.perf_counter()
    with Journal(journal_path, plan, versions()) as journal:
        results = journal.results
        known = plan.points - _wanted(results, retry_failed)
        outcome = RunOutcome()
        with outcome.measuring():
            _run(console, plan, place, journal, retry_failed)
        if results.count(Status.MISSING) < plan.points:
            summary = _summary(plan, results) | {
                "points_known_before": known,
                "result": str(out),
                "journal": str(journal_path),
                "wall_s": time.perf_counter() - started_s,
            }
            with outcome.measuring():
                with outcome.writing():
                    write_dataset(sweep_dataset(plan, results, ["qnodeos", *sys.argv[1:]]), out)
                if json_path is not None:
                    with outcome.writing():
                        write_json(json_path, summary)
                _report(console, summary)
    if outcome.interrupted is not None:
        console.print("Interrupted: the same command goes on with what is missing.")
    outcome.finish()
    if results.errors:
        raise typer.Exit(1)


def _run(
    console: Console, plan: SweepPlan, place: Place, journal: Journal, retry_failed: bool
) -> None:
    wanted = _wanted(journal.results, retry_failed)
    if wanted == 0:
        return
    if wanted < plan.points:
        console.print(f"Going on: {plan.points - wanted} of {plan.points} points are there.")
    with (
        _progress(console, plan, plan.points - wanted) as on_point,
        place.runner(wanted) as runner,
    ):
        run_sweep(plan, journal, runner, on_point, retry_failed=retry_failed)


def _wanted(results: SweepResults, retry_failed: bool) -> int:
    again = results.count(Status.FAILED) if retry_failed else 0
    return results.count(Status.MISSING) + again


@contextmanager
def _progress(
    console: Console, plan: SweepPlan, known: int
) -> Iterator[Callable[[PointResult], None]]:
    columns = (
        TextColumn("points (simulated)"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=plan.points, completed=known)
        yield lambda result: progress.advance(task)


def _journal_beside(out: Path, *, restart: bool) -> Path:
    """The journal of a result, when both can be written; makes their folder.

    Raises:
        ConfigurationError: they cannot, or a file is in the way.
    """
    check_writable(out, "--out")
    journal = out.with_name(out.name + ".points.jsonl")
    check_writable(journal, "--out")
    if out.exists() and not journal.exists() and not restart:
        raise ConfigurationError(
            f"cannot write the result there: it exists, and {journal.name}, which would say what "
            "it is, does not; choose another --out, or --restart, which keeps it under another "
            "name",
            file=str(out),
        )
    return journal


def _summary(plan: SweepPlan, results: SweepResults) -> dict[str, Any]:
    return {
        "experiment": plan.experiment.name,
        "simulated": True,
        "seed": plan.seed,
        "sweep_digest": plan.digest,
        "points": plan.points,
        "shape": plan.shape,
        "axes": [axis.name for axis in plan.axes],
        "outputs": plan.outputs,
        "complete": results.complete,
        "done": results.count(Status.DONE),
        "failed": results.count(Status.FAILED),
        "errors": [
            {"point": number, "error": error}
            for number, error in sorted(results.errors.items())[:ERRORS_IN_SUMMARY]
        ],
    }


def _report(console: Console, summary: dict[str, Any]) -> None:
    for each in summary["errors"][:ERRORS_SHOWN]:
        console.print(f"Point {each['point']} failed: {each['error']}", markup=False)
    failed = f", {summary['failed']} failed" if summary["failed"] else ""
    console.print(
        f"{summary['done']} of {summary['points']} points done{failed} (simulated), "
        f"{summary['points_known_before']} of them before"
    )
    console.print(f"Result: {summary['result']} (netCDF)", soft_wrap=True)
    console.print(f"Points: {summary['journal']}", soft_wrap=True)
