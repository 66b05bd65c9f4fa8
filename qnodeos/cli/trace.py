"""`qnodeos trace ...`: what recorded traces show."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qnodeos.errors import ConfigurationError, MalformedTraceError

if TYPE_CHECKING:
    from qnodeos.trace.load import LoadedTraces

app = typer.Typer(help="Look at the traces an experiment has written.", no_args_is_help=True)

_Paths = Annotated[
    list[Path],
    typer.Argument(help="Directories with trace_*.csv, or such files.", show_default=False),
]


class Format(StrEnum):
    """What traces can be converted to."""

    CSV = "csv"
    PERFETTO = "perfetto"
    OTEL = "otel"


@app.callback()
def _traces() -> None:
    """Keep every command a subcommand."""


@app.command()
def summary(
    paths: _Paths,
    json: Annotated[Path | None, typer.Option(help="Write the numbers here as JSON.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No tables.")] = False,
) -> None:
    """Device utilisation, segments of delegated computation, and how often each event happened."""
    from rich.console import Console

    from qnodeos.cli.run_support import check_destinations, write_json
    from qnodeos.experiments.trace_summary import summarise, summary_tables

    if quiet and json is None:
        raise typer.BadParameter("nothing would be kept: add --json", param_hint="--quiet")
    check_destinations(json, None)
    loaded = _load(paths)
    result = summarise(loaded.nodes, loaded.description, loaded.created)
    console = Console(quiet=quiet)
    console.print(f"{loaded.description} ({loaded.created})\n", markup=False)
    for table in summary_tables(result):
        console.print(table)
    if json is not None:
        write_json(json, result)


@app.command()
def convert(
    paths: _Paths,
    to: Annotated[Format, typer.Option(help="Format to write.")],
    out: Annotated[
        Path | None, typer.Option(help="Directory to write to.", show_default=False)
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="With --to otel: send the spans to this collector (OTLP over HTTP, for example "
            "http://localhost:4318).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write traces in another format."""
    from qnodeos.cli.run_support import check_destinations
    from qnodeos.trace.export import load_otel, write_traces
    from qnodeos.trace.timeline import build_timeline

    if out is None and endpoint is None:
        raise typer.BadParameter("say where to: add --out or --endpoint", param_hint="--out")
    if endpoint is not None and to is not Format.OTEL:
        raise typer.BadParameter("only --to otel can be sent", param_hint="--endpoint")
    if to is Format.OTEL:
        load_otel()
    check_destinations(None, out)
    loaded = _load(paths)
    if out is not None:
        created = _moment(loaded.created)
        for file in write_traces(out, loaded.nodes, [to.value], loaded.description, created):
            typer.echo(file)
    if endpoint is not None:
        sent = load_otel().send_otlp(
            endpoint,
            build_timeline(loaded.nodes),
            {"description": loaded.description, "created": loaded.created},
            _moment(loaded.created),
        )
        typer.echo(f"{sent} spans sent to {endpoint}")


def _load(paths: list[Path]) -> LoadedTraces:
    """Read traces; a damaged file is a mistake of whoever named it.

    Raises:
        ConfigurationError: they cannot be read.
    """
    from qnodeos.trace.load import load_traces

    try:
        return load_traces(paths)
    except MalformedTraceError as error:
        raise ConfigurationError(str(error)) from error


def _moment(text: str) -> datetime:
    """The generation time of a trace; now, if it was written by a tool with another style."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC)
