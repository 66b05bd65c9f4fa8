"""Running the trapped-ion demonstration from the command line: progress, storage, report."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from qnodeos import __version__
from qnodeos.cli.run_support import (
    RunOutcome,
    check_destinations,
    run_stored,
    write_json,
)
from qnodeos.experiments.ion import (
    BLOCK_REPETITIONS,
    IonSettings,
    merged,
    run_blocks,
)
from qnodeos.experiments.ion_analysis import analyse_ion
from qnodeos.experiments.ion_storage import add_block, open_ion_run
from qnodeos.experiments.ion_table import ion_table
from qnodeos.experiments.storage import DATABASE

ION_TRACES: Final = "ion_traces"
"""Directory of the traces in the directory of results."""


def run_and_report(
    settings: IonSettings, *, workers: int, json_path: Path | None, out: Path | None, quiet: bool
) -> None:
    """Run the experiment and write what was asked for.

    After Ctrl-C what was measured is analysed and written all the same, then
    KeyboardInterrupt goes on to the caller.

    Args:
        settings: the experiment.
        workers: processes.
        json_path: where to write the result as JSON, None for nowhere.
        out: directory for plot and dataset (and of the traces), None for none.
        quiet: no table and no progress bar.
    """
    console = Console(quiet=quiet)
    check_destinations(json_path, out)
    started_s = time.perf_counter()
    outcome = RunOutcome()
    parts = run_stored(
        console,
        outcome,
        ("circuits", settings.circuits),
        None if out is None else partial(open_ion_run, out / DATABASE, _metadata(settings)),
        partial(run_blocks, settings, workers),
        lambda run, block, data: add_block(run, block.number * BLOCK_REPETITIONS, data),
    )
    if parts:
        result = analyse_ion(
            merged(parts, settings),
            settings.expected(),
            seed=settings.seed,
            wall_s=time.perf_counter() - started_s,
        )
        result["complete"] = outcome.complete
        result["settings"] = _metadata(settings)
        _report(console, result, settings, json_path, out, outcome)
    if outcome.interrupted is not None:
        done = sum(data.repetitions for data in parts.values())
        console.print(
            f"Interrupted: {done} of {settings.repetitions} repetitions are done and kept."
        )
    outcome.finish()


def _report(
    console: Console,
    result: dict[str, Any],
    settings: IonSettings,
    json_path: Path | None,
    out: Path | None,
    outcome: RunOutcome,
) -> None:
    console.print(ion_table(result))
    if json_path is not None:
        with outcome.writing():
            write_json(json_path, result)
            console.print(f"Result: {json_path}")
    if out is not None:
        from qnodeos.experiments.figures.ion import ion_figure
        from qnodeos.experiments.figures.saving import save_figures

        with outcome.writing():
            for figure in save_figures({"ion_p_dark": ion_figure(result)}, out, ("png",)):
                console.print(f"Plot: {figure}")
        console.print(f"Dataset: {out / DATABASE} (QCoDeS)")
        if settings.trace_formats and outcome.traces_written:
            console.print(f"Traces of the first block: {settings.trace_directory}")


def _metadata(settings: IonSettings) -> dict[str, Any]:
    """What was run, as text and numbers."""
    return {
        "version": __version__,
        "backend": f"{settings.backend} (simulated)",
        "seed": settings.seed,
        "profile": settings.profile,
        "repetitions": settings.repetitions,
        "node": settings.node.model_dump_json(),
    }
