"""Running DQC from the command line: progress, storage, report."""

from __future__ import annotations

import time
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from rich.console import Console

from calibration.fidelity import time_to_fidelity_ms
from calibration.readout import ReadoutFidelity
from qnodeos.assembly import NetworkConfig
from qnodeos.cli.run_support import (
    RunOutcome,
    check_destinations,
    run_metadata,
    run_stored,
    write_json,
)
from qnodeos.errors import InsufficientDataError
from qnodeos.experiments.dqc import (
    BLOCK_CIRCUITS,
    Block,
    DqcSettings,
    blocks_of,
    merge,
    run_blocks,
)
from qnodeos.experiments.dqc_analysis import DqcSetData, analyse_dqc
from qnodeos.experiments.dqc_storage import add_block, open_dqc_run
from qnodeos.experiments.dqc_table import fidelity_table, segments_table
from qnodeos.experiments.storage import DATABASE
from sim.entangled_state import SinglePhotonProtocol


def run_and_report(
    settings: DqcSettings, *, workers: int, json_path: Path | None, out: Path | None, quiet: bool
) -> None:
    """Run the experiment and write what was asked for.

    After Ctrl-C the sets that have data are analysed and written all the same, then
    KeyboardInterrupt goes on to the caller.

    Args:
        settings: the experiment.
        workers: processes.
        json_path: where to write the result as JSON, None for nowhere.
        out: directory for plots and dataset, None for none.
        quiet: no table and no progress bar.
    """
    console = Console(quiet=quiet)
    check_destinations(json_path, out)
    started_s = time.perf_counter()
    outcome = RunOutcome()
    circuits = settings.circuits_per_set * len(settings.sets)
    parts = run_stored(
        console,
        outcome,
        ("circuits", circuits),
        None if out is None else partial(open_dqc_run, out / DATABASE, _metadata(settings)),
        partial(run_blocks, settings, workers),
        lambda run, block, data: add_block(
            run, block.set_index, block.number * BLOCK_CIRCUITS, data
        ),
    )
    sets = _merged(settings, parts)
    if sets:
        noise = settings.network.server.noise
        result = analyse_dqc(
            sets,
            ReadoutFidelity(noise.readout_fidelity_0, noise.readout_fidelity_1, 0.0, 0.0),
            seed=settings.seed,
            wall_s=time.perf_counter() - started_s,
        )
        result["latency_bound_ms"] = latency_bound_ms(settings.network)
        result["complete"] = outcome.complete
        result["settings"] = _metadata(settings)
        _report(console, result, settings, sets, json_path, out, outcome)
    if outcome.interrupted is not None:
        console.print(
            f"Interrupted: {sum(block.circuits for block in parts)} of {circuits} circuits "
            "are done and kept."
        )
    outcome.finish()


def latency_bound_ms(network: NetworkConfig) -> float | None:
    """How long the server's qubit may live for a mean fidelity of 2/3, None for ever.

    From the state that the link delivers and the coherence time of the server alone: gates,
    readout and the client's decoherence are left out, as in the published bound.
    """
    protocol, noise = network.link.protocol, network.server.noise
    if not isinstance(protocol, SinglePhotonProtocol) or not isfinite(noise.coherence_time_ms):
        return None
    try:
        return time_to_fidelity_ms(
            (1 + abs(protocol.correlators.xx)) / 2,
            noise.coherence_time_ms,
            exponent=noise.coherence_exponent,
        )
    except InsufficientDataError:
        return None  # the state is below the bound from the start


def _merged(settings: DqcSettings, parts: dict[Block, DqcSetData]) -> list[DqcSetData]:
    by_set: list[list[DqcSetData]] = [[] for _ in settings.sets]
    for block in blocks_of(settings):
        if block in parts:
            by_set[block.set_index].append(parts[block])
    return [merge(blocks) for blocks in by_set if blocks]


def _report(
    console: Console,
    result: dict[str, Any],
    settings: DqcSettings,
    sets: list[DqcSetData],
    json_path: Path | None,
    out: Path | None,
    outcome: RunOutcome,
) -> None:
    console.print(fidelity_table(result))
    console.print(segments_table(result))
    if json_path is not None:
        with outcome.writing():
            write_json(json_path, result)
            console.print(f"Result: {json_path}")
    if out is not None:
        from qnodeos.experiments.figures.saving import save_dqc_figures

        with outcome.writing():
            for figure in save_dqc_figures(result, sets, out):
                console.print(f"Plot: {figure}")
        console.print(f"Dataset: {out / DATABASE} (QCoDeS)")
        if settings.trace_formats and outcome.traces_written:
            console.print(f"Traces of the first block: {out}/trace*")


def _metadata(settings: DqcSettings) -> dict[str, Any]:
    """What was run, as text and numbers."""
    return run_metadata(
        settings.backend,
        settings.seed,
        settings.profile,
        settings.network,
        circuits_per_set=settings.circuits_per_set,
    )
