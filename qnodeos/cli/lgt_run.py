"""Running LGT from the command line: progress, storage, report."""

from __future__ import annotations

import time
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
from qnodeos.experiments.lgt import (
    BLOCK_REPETITIONS,
    LgtSettings,
    merged,
    run_blocks,
)
from qnodeos.experiments.lgt_analysis import analyse_lgt
from qnodeos.experiments.lgt_storage import add_block, open_lgt_run
from qnodeos.experiments.lgt_table import lgt_table
from qnodeos.experiments.storage import DATABASE

LGT_TRACES: Final = "lgt_traces"
"""Directory of the traces in the directory of results."""


def run_and_report(
    settings: LgtSettings, *, workers: int, json_path: Path | None, out: Path | None, quiet: bool
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
        ("LGT subroutines", settings.subroutines),
        None if out is None else partial(open_lgt_run, out / DATABASE, _metadata(settings)),
        partial(run_blocks, settings, workers),
        lambda run, block, data: add_block(run, block.mode, block.number * BLOCK_REPETITIONS, data),
    )
    if parts:
        noise = settings.network.client.noise
        result = analyse_lgt(
            merged(parts, settings),
            ReadoutFidelity(noise.readout_fidelity_0, noise.readout_fidelity_1),
            seed=settings.seed,
            wall_s=time.perf_counter() - started_s,
        )
        result["complete"] = outcome.complete
        result["settings"] = _metadata(settings)
        _report(console, result, settings, json_path, out, outcome)
    if outcome.interrupted is not None:
        done = sum(data.state.size for data in parts.values())
        console.print(
            f"Interrupted: {done} of {settings.subroutines} LGT subroutines are done and kept."
        )
    outcome.finish()


def _report(
    console: Console,
    result: dict[str, Any],
    settings: LgtSettings,
    json_path: Path | None,
    out: Path | None,
    outcome: RunOutcome,
) -> None:
    console.print(lgt_table(result))
    if json_path is not None:
        with outcome.writing():
            write_json(json_path, result)
            console.print(f"Result: {json_path}")
    if out is not None:
        from qnodeos.experiments.figures.saving import save_lgt_figures

        with outcome.writing():
            for figure in save_lgt_figures(result, out):
                console.print(f"Plot: {figure}")
        console.print(f"Dataset: {out / DATABASE} (QCoDeS)")
        if settings.trace_formats and outcome.traces_written:
            console.print(f"Traces of the first block beside DQC: {settings.trace_directory}")


def _metadata(settings: LgtSettings) -> dict[str, Any]:
    """What was run, as text and numbers."""
    return run_metadata(
        settings.backend,
        settings.seed,
        settings.profile,
        settings.network,
        repetitions=settings.repetitions,
        scheduler=settings.scheduler,
    )
