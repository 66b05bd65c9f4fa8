"""`qnodeos selftest`: does this machine hold the tick?"""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from qnodeos.errors import ConfigurationError

NV_RATE_HZ: Final = 100_000
MAX_RATE_HZ: Final = 1_000_000
MODES: Final = ("auto", "spinning", "event-paced")


def selftest(
    rates: Annotated[
        list[int] | None,
        typer.Option(
            "--rate",
            min=100,
            max=MAX_RATE_HZ,
            metavar="HZ",
            help=f"Ticks per second; can be given several times. [default: {NV_RATE_HZ}]",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, max=3600, help="How long, for each rate.")
    ] = 10.0,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the figures here."),
    ] = None,
    mode: Annotated[
        str, typer.Option(help=f"How to pace frames: {', '.join(MODES)}.", metavar="MODE")
    ] = "auto",
    core: Annotated[
        int | None,
        typer.Option(
            help="Core of the tick thread. [default: the last one]", min=0, show_default=False
        ),
    ] = None,
    priority: Annotated[
        int, typer.Option(min=0, max=99, help="SCHED_FIFO priority of the tick thread; 0: none.")
    ] = 80,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Measure the pure-Python engine instead.")
    ] = False,
) -> None:
    """Measure how well this machine holds the device's tick while Python is busy.

    The tick engine talks to a device inside it. A skipped tick is one at which no frame could
    go out; the reaction is the time from the device's outcome to the next instruction on the
    wire, of which the protocol takes 2 ticks.
    """
    from qnodeos.engine.selftest import SelfTest, best_mode, run_selftest

    if mode not in MODES:
        raise typer.BadParameter(f"no mode {mode!r}; there are {', '.join(MODES)}")
    chosen = best_mode() if mode == "auto" else mode
    if fallback:
        chosen = "event-paced"
    if chosen == "spinning" and core is None:
        core = max(os.sched_getaffinity(0))
    _check_writable(json_path)
    console = Console()
    documents: list[dict[str, Any]] = []
    try:
        for rate in rates or [NV_RATE_HZ]:
            test = SelfTest(
                rate_hz=rate,
                seconds=seconds,
                mode="spinning" if chosen == "spinning" else "event-paced",
                tick_core=core if chosen == "spinning" else None,
                tick_priority=priority,
                native=False if fallback else None,
            )
            with _progress(console, rate, seconds) as progress:
                task = None if progress is None else progress.task_ids[0]

                def report(
                    passed: float, progress: Progress | None = progress, task: Any = task
                ) -> None:
                    if progress is not None:
                        progress.update(task, completed=passed, refresh=True)

                documents.append(run_selftest(test, report))
    finally:
        # What was measured before an interruption is kept.
        if documents:
            _print(console, documents)
            if json_path is not None:
                _write(json_path, documents)
                console.print(f"Figures: {json_path}")


def _check_writable(path: Path | None) -> None:
    """Make sure, before minutes of measuring, that the result can be written.

    Raises:
        ConfigurationError: it cannot.
    """
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise ConfigurationError(
            f"{path} cannot be written: it is a directory, or lies in none", field="--json"
        )


def _progress(console: Console, rate: int, seconds: float) -> Any:
    """A bar that this thread draws: one of its own would take the interpreter from it."""
    if not console.is_terminal:
        return nullcontext()
    progress = Progress(
        TextColumn(f"{rate:,} Hz"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        console=console,
        auto_refresh=False,
        transient=True,
    )
    progress.add_task("", total=seconds)
    return progress


def _write(path: Path, documents: list[dict[str, Any]]) -> None:
    document = dict(documents[0])
    if len(documents) > 1:
        document["runs"] = documents
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", "utf-8")


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _print(console: Console, documents: list[dict[str, Any]]) -> None:
    first = documents[0]
    engine = "C" if first["native"] else "pure Python"
    table = Table(title=f"Tick engine: {engine}, {first['mode']}", box=SIMPLE_HEAD)
    for column in ("rate (Hz)", "ticks", "skipped", "lateness (us)", "reaction (ticks)"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row("", "", "", "p50/p99/p99.9/max", "p50/p99/p99.9", style="dim")
    for document in documents:
        late, reaction = document["lateness_us"], document["reaction_ticks"]
        table.add_row(
            f"{document['rate_hz']:,}",
            f"{document['ticks']:,}",
            f"{100 * document['skipped_share']:.3f} %",
            "/".join(_short(late[name]) for name in ("p50", "p99", "p999", "max")),
            "/".join(str(reaction[name]) for name in ("p50", "p99", "p999")),
        )
    console.print(table)
    where = "" if first["tick_core"] is None else f" on core {first['tick_core']}"
    if first["mode"] == "spinning":
        rank = f"SCHED_FIFO {first['priority']}" if first["priority"] else "no real-time priority"
        console.print(f"Tick thread{where}, {rank}; ", end="")
    else:
        console.print("No tick thread: only exchanges that say something count. ", end="")
    console.print(f"{first['cores']} cores, load {first['load_before']:.2f} before.")
    for warning in dict.fromkeys(text for one in documents for text in one["warnings"]):
        console.print(f"Note: {warning}.")
