"""What the commands that run experiments share: destinations, progress, what was run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from qnodeos import __version__
from qnodeos.assembly import NetworkConfig
from qnodeos.errors import (
    ConfigurationError,
    QNodeOSError,
    ResultsNotWrittenError,
    ResultStorageError,
)
from qnodeos.files import check_directory, check_writable, write_whole

if TYPE_CHECKING:
    from qnodeos.experiments.storage import RunWriter

Job = TypeVar("Job")
Data = TypeVar("Data")

STOPPING: Final = (
    "Stopping: the blocks that are running are finished first; press Ctrl-C again to discard them."
)
"""What to say when a run has been interrupted once."""


def check_destinations(json_path: Path | None, out: Path | None) -> None:
    """Fail now rather than after the run; makes the directories.

    Args:
        json_path: where the result will be written as JSON, None for nowhere.
        out: directory for everything else, None for none.

    Raises:
        ConfigurationError: the result could not be written there.
    """
    if out is not None:
        check_directory(out, "--out")
    if json_path is not None:
        check_writable(json_path, "--json", streams=True)


class RunOutcome:
    """How a run went: what ended it early, and what of it could not be written.

    One thing that cannot be written keeps nothing else from being written.

    Attributes:
        interrupted: the Ctrl-C that ended it, None for none.
        complete: whether all was measured.
        traces_written: whether traces are where they were wanted; False if it is not known.
    """

    def __init__(self) -> None:
        self.interrupted: KeyboardInterrupt | None = None
        self.complete = True
        self.traces_written = True
        self._problems: list[QNodeOSError] = []

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Around the database: where it cannot be written, the run ends with what it has."""
        try:
            yield
        except ResultStorageError as error:
            self._problems.append(error)
            self.complete = False
            self.traces_written = False

    @contextmanager
    def measuring(self, stored: RunWriter | None = None) -> Iterator[None]:
        """Around what measures: Ctrl-C, or a file that cannot be written, ends it.

        Args:
            stored: the run in the database, None for none.
        """
        try:
            yield
        except KeyboardInterrupt as interrupt:
            self.interrupted = interrupt
            self.complete = False
            if isinstance(interrupt.__cause__, ResultsNotWrittenError):
                self._note_traces(interrupt.__cause__)
            if stored is not None:
                stored.mark_interrupted()
        except ResultsNotWrittenError as error:
            self._note_traces(error)

    def _note_traces(self, error: ResultsNotWrittenError) -> None:
        self._problems.append(error)
        self.traces_written = False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around each file to write."""
        try:
            yield
        except ResultsNotWrittenError as error:
            self._problems.append(error)

    def finish(self) -> None:
        """Say what could not be written, or else that the run was interrupted.

        Raises:
            ResultsNotWrittenError: several things could not be written.
            ResultStorageError: the database could not.
            KeyboardInterrupt: there was a Ctrl-C.
        """
        if len(self._problems) > 1:
            raise ResultsNotWrittenError("; ".join(map(str, self._problems)))
        if self._problems:
            raise self._problems[0]
        if self.interrupted is not None:
            raise self.interrupted


def run_stored(
    console: Console,
    outcome: RunOutcome,
    steps: tuple[str, int],
    open_run: Callable[[], AbstractContextManager[RunWriter]] | None,
    run: Callable[[Callable[[int], None], Callable[[], None]], Iterable[tuple[Job, Data]]],
    store: Callable[[RunWriter, Job, Data], None],
) -> dict[Job, Data]:
    """Run the blocks of an experiment with a progress bar, and store each as it is done.

    Args:
        console: where to show progress.
        outcome: takes note of how it ends.
        steps: what is counted, and how many there will be.
        open_run: opens the run in the database, None for none.
        run: yields the blocks that are done, given what to call with the number of steps done
            so far and what to call when the first Ctrl-C is noticed.
        store: appends a block to the run in the database.

    Returns:
        The blocks that are done.
    """
    parts: dict[Job, Data] = {}
    with outcome.storing(), ExitStack() as stack:
        on_progress = stack.enter_context(progress_bar(console, *steps))
        stored = None if open_run is None else stack.enter_context(open_run())
        with outcome.measuring(stored):
            for block, data in run(on_progress, lambda: console.print(STOPPING)):
                parts[block] = data
                if stored is not None:
                    store(stored, block, data)
    return parts


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, as a whole or not at all.

    Raises:
        ResultsNotWrittenError: it cannot be written.
    """
    write_whole(path, json.dumps(result, indent=1, allow_nan=False) + "\n")


def trace_formats(text: str | None, out: Path | None) -> tuple[str, ...]:
    """The formats in which traces are to be written.

    Args:
        text: as given on the command line, with commas; None for the default.
        out: directory for everything, None for none.

    Raises:
        ConfigurationError: a format is unknown, its packages are missing, or there is nowhere
            to write to.
    """
    from qnodeos.experiments.run_traces import DEFAULT_FORMATS
    from qnodeos.trace.export import load_otel, parse_formats

    if text is None:
        return DEFAULT_FORMATS
    formats = parse_formats(text)
    if formats and out is None:
        raise ConfigurationError("traces are written to a directory: add --out to --trace")
    if "otel" in formats:
        load_otel()
    return formats


def run_metadata(
    backend: str, seed: int, profile: str, network: NetworkConfig, **others: str | int | float
) -> dict[str, Any]:
    """What was run, as text and numbers.

    Args:
        backend: depth of the simulation.
        seed: of all randomness.
        profile: name of the latency profile.
        network: nodes, link and schedule.
        others: what else this experiment can be told.
    """
    return {
        "version": __version__,
        "backend": f"{backend} (simulated)",
        "seed": seed,
        "profile": profile,
        **others,
        "network": network.model_dump_json(),
    }


@contextmanager
def progress_bar(console: Console, steps: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar that shows how far a run is.

    Args:
        console: where to; nothing is shown if it is quiet.
        steps: what is counted.
        total: how many there will be.

    Yields:
        A function to be called with the number done so far.
    """
    columns = (
        TextColumn(f"{steps} (simulated)"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)
