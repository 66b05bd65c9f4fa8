"""The rounds of `qnodeos run --app-dir`, in one process or several."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import typer

from qnodeos.applications import Application, load_application, names
from qnodeos.applications.logs import RunLogs
from qnodeos.applications.simulation import Round, simulate_round
from qnodeos.cnpu.results import plain
from qnodeos.errors import ConfigurationError, StalledProgramsError
from qnodeos.experiments.pool import run_jobs

FEW_ROUNDS: Final = 100
"""With fewer, starting processes takes longer than rounds of a few pairs (assumed)."""
_STOPPING: Final = (
    "Stopping: the rounds that are running are finished first; press Ctrl-C again to discard them."
)


@dataclass(frozen=True)
class ErrorReport:
    """What a program raised.

    Attributes:
        kind: name of the exception.
        text: its message.
        place: the line of the application it comes from, for messages; may be empty.
        is_stalled: whether it is what the problem of the round says already.
    """

    kind: str
    text: str
    place: str
    is_stalled: bool


@dataclass(frozen=True)
class RoundReport:
    """What is shown and written of a `Round`; all but the results can be pickled.

    Attributes:
        number: from 0.
        results: what each program returned, by ``app_<role>``.
        errors: what each program that did not return raised, by role.
        problem: the error of the round as a whole; None if all returned.
        duration_ns: virtual time it took.
    """

    number: int
    results: dict[str, Any]
    errors: dict[str, ErrorReport]
    problem: str | None
    duration_ns: int

    @classmethod
    def of(cls, one: Round, directory: Path | None = None) -> RoundReport:
        """The report of a round.

        Args:
            one: the round.
            directory: of the application; None if it has none.
        """
        errors = {
            role: ErrorReport(
                type(error).__name__,
                str(error),
                "" if directory is None else _place(error, directory),
                isinstance(error, StalledProgramsError),
            )
            for role, error in one.errors.items()
        }
        problem = None if one.problem is None else str(one.problem)
        return cls(one.number, one.results, errors, problem, one.duration_ns)


_Packed: TypeAlias = tuple[RoundReport, bytes]


@dataclass(frozen=True)
class RoundWork:
    """How to run the rounds of an application; it can be pickled for several processes.

    Attributes:
        directory: of the application.
        inputs: keyword arguments by role.
        rounds: how many there are.
        logs: directory of all log files, None for none.
        options: further arguments of `simulate_round`.
    """

    directory: Path
    inputs: Mapping[str, Mapping[str, Any]]
    rounds: int
    logs: Path | None
    options: Mapping[str, Any]

    def __call__(self, number: int, on_step: Callable[[], None]) -> _Packed:
        """Run a round in a process that has not loaded the application yet, or here before."""
        return self.run(_load_once(self.directory), number, on_step)

    def run(self, application: Application, number: int, on_step: Callable[[], None]) -> _Packed:
        """Run a round.

        Args:
            application: as loaded.
            number: of the round.
            on_step: called when it has ended.

        Returns:
            The report without results, and these as bytes.
        """
        # Programs may change the lists they are given.
        ready = application.with_inputs(deepcopy(dict(self.inputs)))
        one = simulate_round(ready, number, self.rounds, directory=self.logs, **self.options)
        report = RoundReport.of(one, self.directory)
        with names.simulated(), application.active():
            results = _packed(report.results)
        on_step()
        return replace(report, results={}), results


_load_once = lru_cache(maxsize=1)(load_application)


def choose_workers(asked: int, rounds: int, application: Application) -> int:
    """The number of processes.

    Args:
        asked: for so many; 0 for one per core, or one if there are few rounds.
        rounds: of the application.
        application: which may need to run in this process.

    Raises:
        ConfigurationError: several were asked for, and it needs to.
    """
    if application.post_function is not None:
        if asked > 1:
            raise ConfigurationError(
                f"{application.name} has a post_function.py, which looks at the simulation in "
                "this process; leave --workers out"
            )
        return 1
    if asked == 0:
        asked = 1 if rounds < FEW_ROUNDS else os.cpu_count() or 1
    return min(asked, rounds)


def run_rounds(
    work: RoundWork,
    application: Application,
    workers: int,
    on_progress: Callable[[int], None],
) -> Generator[RoundReport]:
    """Run all rounds, and yield them in order; the first that fails is the last.

    Args:
        work: how to run them.
        application: the one in `work.directory`, loaded, with inputs.
        workers: processes. What is yielded does not depend on it, unless programs keep something
            in global variables, of which every process has its own.
        on_progress: called with the number of rounds done so far, now and then.

    Raises:
        KeyboardInterrupt: there was a Ctrl-C, and the rounds that are done have been yielded.
        ConfigurationError: the application cannot start.
        ResultsNotWrittenError: logs cannot be written.
        Exception: what the post function raised.
    """

    def run_here(number: int, on_step: Callable[[], None]) -> _Packed:
        return work.run(application, number, on_step)

    yielded: list[Mapping[str, Any]] = []
    early: dict[int, RoundReport] = {}
    failed: int | None = None
    with RunLogs(work.logs, work.rounds, work.directory) as logs:
        try:
            jobs = run_jobs(
                range(work.rounds),
                run_here if workers == 1 else work,
                workers,
                on_progress,
                on_interrupt=lambda: typer.echo(_STOPPING, err=True),
            )
            # Results that come from another process may be of classes of the application.
            with names.simulated(), application.active(), closing(jobs):
                for number, (report, results) in jobs:
                    early[number] = replace(report, results=pickle.loads(results))
                    while failed is None and len(yielded) in early:
                        next_one = early.pop(len(yielded))
                        yielded.append(next_one.results)
                        yield next_one
                        if next_one.problem is not None:
                            failed = next_one.number
                    if failed is not None:
                        break
        except KeyboardInterrupt:
            for _, report in sorted(early.items()):
                yielded.append(report.results)
                yield report
            raise
        finally:
            if failed is not None:
                logs.drop_after(failed)
            logs.run_done(yielded)


def _packed(results: dict[str, Any]) -> bytes:
    """What a program returned, for another process; as in JSON if it cannot be had there."""
    try:
        packed = pickle.dumps(results)
        pickle.loads(packed)
    except Exception:  # whatever a class of a program raises
        return pickle.dumps(plain(results))
    return packed


def _place(error: Exception, directory: Path) -> str:
    """The line of the application that an error comes from, if one of its own is there."""
    inside = directory.resolve()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).resolve().is_relative_to(inside):
            return f" ({frame.filename}, line {frame.lineno})"
    return ""
