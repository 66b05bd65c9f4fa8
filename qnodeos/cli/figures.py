"""`qnodeos figures`: the paper's figures from what the experiments wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qnodeos.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qnodeos.experiments.figures.sources import Source

RUN_CIRCUITS_PER_SET = 60
RUN_REPETITIONS = 50
RUN_PAIRS = "1,2,3"
RUN_SECONDS = 5.0
RUN_SCHEDULERS = "fcfs,combined"


def figures(
    data: Annotated[
        Path, typer.Option(help="Directory with results; its folders are looked into, too.")
    ] = Path("results"),
    out: Annotated[
        Path | None, typer.Option(help="Where to write; by default the folder figures in --data.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Figures with commas, such as 4b,4d; all by default.")
    ] = None,
    run: Annotated[
        bool,
        typer.Option("--run", help="Run the experiments whose results are missing first, small."),
    ] = False,
) -> None:
    """Figures 4b, 4c, 4d, 5c and 5d of the paper, as PNG and PDF, from results and traces.

    Drawn from dqc.json, lgt.json, multitasking.json and trace_*.csv, as `qnodeos experiment`
    writes them. What is missing is named with the command that makes it.
    """
    from qnodeos.experiments.figures.catalogue import FIGURES, parse_names
    from qnodeos.experiments.figures.saving import save_figures
    from qnodeos.files import check_directory

    names = parse_names(only) if only is not None else tuple(FIGURES)
    out = data / "figures" if out is None else out
    sources = {id(FIGURES[name].source): FIGURES[name].source for name in names}
    check_directory(out, "--out", make=False)
    if run:
        _run_missing(data, sources.values())
    found = {key: source.find_below(data) for key, source in sources.items()}
    loaded = {key: sources[key].load(path) for key, path in found.items() if path is not None}
    drawn = {
        name: FIGURES[name].draw(loaded[id(FIGURES[name].source)])
        for name in names
        if id(FIGURES[name].source) in loaded
    }
    missing = [name for name in names if name not in drawn]
    if not drawn:
        raise ConfigurationError(
            "nothing to draw figures from in it or its folders:\n"
            + "\n".join(_missing_text(name, data) for name in missing)
            + "\nor let --run run small ones",
            file=str(data),
        )
    save_figures({FIGURES[name].stem: figure for name, figure in drawn.items()}, out)
    for name in drawn:
        figure = FIGURES[name]
        path = out / figure.stem
        typer.echo(f"Figure {name}, {figure.title}: {path}.png, {path}.pdf")
        typer.echo(f"  from {found[id(figure.source)]}")
    for name in missing:
        typer.echo(_missing_text(name, data))


def _missing_text(name: str, data: Path) -> str:
    from qnodeos.experiments.figures.catalogue import FIGURES

    figure = FIGURES[name]
    return (
        f"Figure {name}, {figure.title}: not drawn, there is no {figure.source.files}; make it "
        f"with: {figure.source.how_to_make(data)}"
    )


def _run_missing(data: Path, sources: Iterable[Source]) -> None:
    """Run the experiments whose results are not there, at a small size."""
    from qnodeos.cli import experiment
    from qnodeos.experiments.figures.sources import DQC, LGT, MULTITASKING, TRACES

    missing = [source for source in sources if source.find_below(data) is None]
    if missing:
        data.mkdir(parents=True, exist_ok=True)
    if DQC in missing or TRACES in missing:
        # Neither overwrites the other where one of them is there already.
        experiment.dqc(
            circuits_per_set=RUN_CIRCUITS_PER_SET,
            json=data / "dqc.json" if DQC in missing else None,
            out=data / "traces" if TRACES in missing else None,
        )
    if LGT in missing:
        experiment.lgt(repetitions=RUN_REPETITIONS, json=data / "lgt.json")
    if MULTITASKING in missing:
        experiment.multitasking(
            n=RUN_PAIRS,
            scheduler=RUN_SCHEDULERS,
            seconds=RUN_SECONDS,
            json=data / "multitasking.json",
        )
