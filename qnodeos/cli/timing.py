"""`qnodeos timing`: durations of instructions, measured at instrument level."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def timing(
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0,
    json: Annotated[
        bool, typer.Option("--json", help="Print them as `timing` of a configuration file.")
    ] = False,
) -> None:
    """Measure the durations of instructions on simulated instruments.

    They are the defaults of the behavioural device, which stand beside them.
    """
    from drivers.errors import instrument_errors
    from sim.lab.durations import measure_durations
    from sim.nv_timing import NVTiming

    with instrument_errors():
        measured = measure_durations(seed)
    if json:
        typer.echo(measured.model_dump_json(indent=1))
        return
    default = NVTiming()
    table = Table(title="Durations (simulated instruments)", box=SIMPLE_HEAD)
    for column in ("field", "measured", "behavioural device"):
        table.add_column(column)
    for name, value in measured.model_dump().items():
        table.add_row(name, str(value), str(getattr(default, name)))
    Console().print(table)
