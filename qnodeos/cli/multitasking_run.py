"""Running the multitasking experiment from the command line: progress, report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from calibration.readout import ReadoutFidelity
from qnodeos.cli.run_support import (
    RunOutcome,
    check_destinations,
    run_metadata,
    run_stored,
    write_json,
)
from qnodeos.experiments.multitasking import (
    BLOCK_STEPS,
    TRACE_S,
    Block,
    BlockResult,
    MultitaskingSettings,
    blocks_of,
    run_block,
)
from qnodeos.experiments.multitasking_analysis import summarise
from qnodeos.experiments.multitasking_storage import add_block, open_multitasking_run
from qnodeos.experiments.multitasking_table import (
    comparison_table,
    published_table,
    runs_table,
)
from qnodeos.experiments.pool import run_jobs
from qnodeos.experiments.storage import DATABASE

MULTITASKING_TRACES: Final = "multitasking_traces"
"""Directory of the traces in the directory of results."""


def run_and_report(
    settings: MultitaskingSettings,
    *,
    workers: int,
    json_path: Path | None,
    out: Path | None,
    quiet: bool,
) -> None:
    """Run the experiment and write what was asked for.

    After Ctrl-C the runs that have data are analysed and written all the same, then
    KeyboardInterrupt goes on to the caller.

    Args:
        settings: the experiment.
        workers: processes.
        json_path: where to write the result as JSON, None for nowhere.
        out: directory for plots and dataset (and of the traces), None for none.
        quiet: no tables and no progress bar.
    """
    console = Console(quiet=quiet)
    check_destinations(json_path, out)
    started_s = time.perf_counter()
    blocks = blocks_of(settings)
    outcome = RunOutcome()
    parts = run_stored(
        console,
        outcome,
        ("steps", BLOCK_STEPS * len(blocks)),
        None
        if out is None
        else partial(open_multitasking_run, out / DATABASE, _metadata(settings)),
        partial(run_jobs, blocks, partial(run_block, settings), workers),
        add_block,
    )
    if parts:
        result = {
            **analyse_multitasking(settings, parts),
            "complete": outcome.complete,
            "wall_s": time.perf_counter() - started_s,
        }
        _report(console, result, settings, json_path, out, outcome)
    if outcome.interrupted is not None:
        console.print(
            f"Interrupted: {len(parts)} of {len(blocks)} blocks of virtual time are done and kept."
        )
    outcome.finish()


def analyse_multitasking(
    settings: MultitaskingSettings, parts: Mapping[Block, BlockResult]
) -> dict[str, Any]:
    """The result of the blocks that are done, ready for JSON.

    Args:
        settings: the experiment.
        parts: what its blocks found, in any order; runs without any are left out.
    """
    noise = settings.network.server.noise
    readout = ReadoutFidelity(noise.readout_fidelity_0, noise.readout_fidelity_1, 0.0, 0.0)
    runs = []
    for scheduler in settings.schedulers:
        for n in settings.pairs:
            found = [
                parts[block]
                for block in blocks_of(settings)
                if (block.scheduler, block.n) == (scheduler, n) and block in parts
            ]
            for multitasking in (True, False) if found else ():
                observed = [each.multitasked if multitasking else each.alone for each in found]
                runs.append(
                    {
                        "n": n,
                        "scheduler": scheduler,
                        "multitasking": multitasking,
                        **summarise(observed, readout),
                    }
                )
    return {
        "experiment": "multitasking",
        "seed": settings.seed,
        "seconds": settings.seconds,
        "runs": runs,
        "settings": _metadata(settings),
    }


def _metadata(settings: MultitaskingSettings) -> dict[str, Any]:
    """What was run, as text and numbers."""
    return run_metadata(
        settings.backend,
        settings.seed,
        settings.profile,
        settings.network,
        n=",".join(map(str, settings.pairs)),
        scheduler=",".join(settings.schedulers),
        seconds=settings.seconds,
    )


def _report(
    console: Console,
    result: Mapping[str, Any],
    settings: MultitaskingSettings,
    json_path: Path | None,
    out: Path | None,
    outcome: RunOutcome,
) -> None:
    for table in (runs_table(result), comparison_table(result), published_table(result)):
        if table is not None:
            console.print(table)
    if json_path is not None:
        with outcome.writing():
            write_json(json_path, result)
            console.print(f"Result: {json_path}")
    if out is not None:
        from qnodeos.experiments.figures.saving import save_multitasking_figures

        with outcome.writing():
            for figure in save_multitasking_figures(result, out):
                console.print(f"Plot: {figure}")
        console.print(f"Dataset: {out / DATABASE} (QCoDeS)")
        if settings.trace_formats and outcome.traces_written:
            console.print(f"Traces of the first {TRACE_S:g} s: {settings.trace_directory}")
