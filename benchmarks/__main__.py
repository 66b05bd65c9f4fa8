"""`python -m benchmarks [--json FILE] [--check] [--long] [NAME...]`.

Exit codes: 0 done; 1 with --check, a ratio that is wanted was missed; 2 the command is wrong.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.measure import Effort
from benchmarks.report import as_document, print_report
from benchmarks.suite import BENCHMARKS, LONG, ON_REQUEST

EXIT_MISSED = 1

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _known(names: list[str] | None) -> list[str] | None:
    known = BENCHMARKS | ON_REQUEST
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise typer.BadParameter(f"no benchmark {unknown[0]!r}; there are {', '.join(known)}")
    return names


@app.command()
def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help=(
                f"Which to run: {', '.join(BENCHMARKS)}. All but the long ones without. Only "
                f"when named: {', '.join(ON_REQUEST)}."
            ),
            callback=_known,
            show_default=False,
        ),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if a wanted ratio is missed.")
    ] = False,
    long: Annotated[
        bool, typer.Option("--long", help=f"Run {', '.join(sorted(LONG))} too: minutes.")
    ] = False,
    rounds: Annotated[
        int, typer.Option(min=1, max=100, help="Alternations after the warm-up.")
    ] = Effort.rounds,
    fraction: Annotated[
        float, typer.Option(min=1e-4, max=1.0, help="Do only this part of the work in each.")
    ] = Effort.fraction,
) -> None:
    """Measure how fast qnodeos is, as ratios."""
    chosen = [name for name in names or BENCHMARKS if long or name not in LONG]
    if not chosen:
        raise typer.BadParameter(f"{', '.join(sorted(LONG))} needs --long")
    console = Console()
    outcomes = {}
    for name in chosen:
        with console.status(f"{name} ..."):
            outcomes[name] = (BENCHMARKS | ON_REQUEST)[name](Effort(rounds, fraction))
    print_report(console, outcomes)
    if json_path is not None:
        json_path.write_text(
            json.dumps(as_document(outcomes), indent=1, allow_nan=False) + "\n", "utf-8"
        )
        console.print(f"\nFigures: {json_path}")
    missed = [
        figure.name for outcome in outcomes.values() for figure in outcome.figures
        if figure.is_missed
    ]  # fmt: skip
    if check and missed:
        console.print(f"Missed: {', '.join(missed)}")
        raise typer.Exit(EXIT_MISSED)


if __name__ == "__main__":
    app()
