"""`qnodeos bench ...`: measurements of a whole system on this machine."""

from __future__ import annotations

import json as json_module
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer(help="Measure a whole system of processes on this machine.", no_args_is_help=True)


@app.callback()
def _benches() -> None:
    """Keep `live-time` a subcommand even while it is the only one."""


@app.command("live-time")
def live_time(
    circuits_per_set: Annotated[
        int, typer.Option(min=2, max=2_000, help="Circuits per (alpha, theta), of six.")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulated physics.")] = 1,
    rehearse: Annotated[
        bool,
        typer.Option(help="Let services and programs keep their code warm while they wait."),
    ] = True,
    json: Annotated[Path | None, typer.Option(help="Write the result here.")] = None,
) -> None:
    """Delegated computation over real processes: the software's share of the live time.

    Laboratory, two services, controller and the programs run in real time. Everything is
    measured twice: with quantum blocks prepared, and without.
    """
    from qnodeos.cli.live_time import measure, report
    from qnodeos.experiments.dqc import SETS

    console = Console()
    started_s = time.perf_counter()
    runs = {}
    with Progress(console=console) as progress:
        task = progress.add_task("circuits", total=2 * len(SETS))
        for prepared in (True, False):
            with tempfile.TemporaryDirectory(prefix="qnodeos-") as directory:
                runs[prepared] = measure(
                    Path(directory),
                    circuits_per_set=circuits_per_set,
                    seed=seed,
                    prepared=prepared,
                    rehearse=rehearse,
                    on_set=lambda: progress.advance(task),
                )
    result = report(
        runs[True],
        runs[False],
        seed=seed,
        rehearse=rehearse,
        wall_s=round(time.perf_counter() - started_s, 1),
    )
    _show(console, result)
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(json_module.dumps(result, indent=1) + "\n", "utf-8")


def _show(console: Console, result: Mapping[str, Any]) -> None:
    fidelity = result["fidelity"]
    console.print(
        f"{result['circuits']} circuits on simulated devices; fidelity "
        f"{fidelity['value']:.3f} +- {fidelity['sigma']:.3f} (classical bound 0.667)"
    )
    for node, mode in result["engine"].items():
        console.print(f"{node}: {mode}")
    table = Table(box=SIMPLE_HEAD, title="ms")
    for name in ("", "p50", "p90", "max", "published"):
        table.add_column(name, justify="left" if not name else "right")
    published = result["published"]
    rows = (
        ("live time of the server's qubit", result["live_time_ms"], published["live_time_ms"]),
        ("software in it", result["software_ms"], published["software_ms"]),
        ("  without prepared blocks", result["without_prepared"]["software_ms"], None),
    )
    for name, values, reference in rows:
        numbers = [f"{values[key]:.3f}" for key in ("p50", "p90", "max")]
        table.add_row(name, *numbers, "" if reference is None else f"{reference:.2f} (mean)")
    console.print(table)
    segments = Table(box=SIMPLE_HEAD, title="segments of the circuits, ms")
    for name in ("", "mean", "sd"):
        segments.add_column(name, justify="left" if not name else "right")
    for name, values in result["segments_ms"].items():
        spread = "" if values["sd"] is None else f"{values['sd']:.3f}"
        segments.add_row(name, f"{values['mean']:.3f}", spread)
    console.print(segments)
