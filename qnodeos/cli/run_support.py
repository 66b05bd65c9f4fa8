"""What the commands that run experiments share: destinations, progress, what was run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from qnodeos import __version__
from qnodeos.assembly import NetworkConfig
from qnodeos.errors import ConfigurationError

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
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"cannot make this directory: {error.strerror}; choose another --out",
                file=str(out),
            ) from error
    if json_path is None:
        return
    problem = None
    if json_path.is_dir():
        problem = "it is a directory"
    else:
        try:
            json_path.parent.mkdir(exist_ok=True)
        except OSError as error:
            problem = f"{json_path.parent}: {error.strerror}"
        else:
            if not os.access(json_path if json_path.exists() else json_path.parent, os.W_OK):
                problem = "permission denied"
    if problem is not None:
        raise ConfigurationError(
            f"cannot write the result there: {problem}; choose another --json",
            file=str(json_path),
        )


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


def write_whole(path: Path, text: str) -> None:
    """Write a file as a whole or not at all; what is in /dev, and a pipe, is written to.

    Raises:
        OSError: it cannot be written; there is no part of it.
    """
    if path.absolute().parts[1] in {"dev", "proc"} or (path.exists() and not path.is_file()):
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
        return
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_text(text, "utf-8")
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


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
