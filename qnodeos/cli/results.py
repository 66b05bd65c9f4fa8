"""`qnodeos results`: the runs in a database of results, and their data in other formats."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from qnodeos.errors import ConfigurationError

if TYPE_CHECKING:
    from qnodeos.experiments.results import StoredRun

MAX_RUNS: Final = 10_000
_DEFAULT: Final = "list"


class _ListByDefault(TyperGroup):
    """`qnodeos results DIR` is `qnodeos results list DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the command that is left out."""
        if not args or args[0] not in {*self.commands, "--help"}:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault,
    help="List the runs of a database of results, or export one.\n\n"
    "`qnodeos results DIR` lists those in DIR.",
)

Place = Annotated[
    Path, typer.Argument(metavar="[DIR|FILE]", help="A directory of results, or a database in it.")
]


class Form(StrEnum):
    """What a run can be exported to."""

    CSV = "csv"
    NETCDF = "netcdf"


@app.command(_DEFAULT)
def list_(
    place: Place = Path(),
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the list here.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, max=MAX_RUNS, help="How many runs, newest.")] = 50,
) -> None:
    """List the runs of a database: of every experiment, complete or not.

    A run is *unfinished* while it goes on, and for good if its process was killed.
    """
    from qnodeos.cli.run_support import check_destinations, write_json
    from qnodeos.experiments.results import database_at, list_runs

    check_destinations(json, None)
    path = database_at(place)
    runs = list_runs(path, last)
    Console().print(_table(runs))
    if json is not None:
        report = {"database": str(path), "runs": [run.to_dict() for run in runs]}
        write_json(json, report)


@app.command()
def export(
    run: Annotated[int, typer.Argument(metavar="RUN", min=1, help="The number of the run.")],
    place: Place = Path(),
    to: Annotated[Form, typer.Option("--to", help="Format of the file.")] = Form.CSV,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to write; by default beside the database, run_RUN.csv or .nc.",
        ),
    ] = None,
) -> None:
    """Write the rows of a run to a file: CSV, or netCDF with its metadata."""
    from qnodeos.experiments.results import SUFFIXES, Format, database_at, export_run
    from qnodeos.files import check_writable

    path, form = database_at(place), Format(to.value)
    destination = out or path.with_name(f"run_{run}{SUFFIXES[form]}")
    check_writable(destination, "--out")
    if destination.resolve() == path.resolve():
        raise ConfigurationError("this is the database; choose another --out", file=str(out))
    rows = export_run(path, run, form, destination)
    Console().print(f"{rows} rows: {destination}", soft_wrap=True)


def _table(runs: list[StoredRun]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("run", justify="right")
    for column in ("experiment", "name", "started (UTC)", "state"):
        # Only the name may be long: where there is no room, it takes a second line.
        table.add_column(column, no_wrap=column != "name", overflow="fold")
    for column in ("rows", "seed"):
        table.add_column(column, justify="right")
    for run in runs:
        started = "" if run.started is None else f"{run.started:%Y-%m-%d %H:%M:%S}"
        table.add_row(
            str(run.run_id),
            _printable(run.experiment),
            _printable(run.name),
            started,
            run.state.value,
            str(run.rows),
            "" if run.seed is None else str(run.seed),
        )
    return table


def _printable(name: str) -> Text:
    """A name is whatever somebody wrote: not as it came to a terminal."""
    return Text("".join(c if c.isprintable() else "?" for c in name))
