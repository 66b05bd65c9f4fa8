"""Running `qnodeos network pairs`: progress, prediction, report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from rich.console import Console

from qnodeos import __version__
from qnodeos.assembly import GenericDevice, NetworkDescription
from qnodeos.assembly.description import MAX_GENERIC_QUBITS, quick_link
from qnodeos.cli.run_support import check_destinations, progress_bar, write_json
from qnodeos.errors import ConfigurationError
from qnodeos.experiments.network_analysis import analyse_pairs
from qnodeos.experiments.network_pairs import PairsSettings, run_pairs
from qnodeos.experiments.network_prediction import Prediction, predict
from qnodeos.experiments.network_table import pairs_table
from sim.entangled_state import WernerProtocol
from sim.link import LinkParameters

_LEAF_QUBITS: Final = 5


def shaped(topology: str, nodes: int, link_fidelity: float) -> NetworkDescription:
    """A chain or a star of generic nodes with quick links.

    Args:
        topology: ``chain`` or ``star``.
        nodes: how many; the hub of a star is one of them.
        link_fidelity: of the Werner pairs of every link.
    """
    quick = quick_link()
    link = LinkParameters(
        attempt_period_ns=quick.attempt_period_ns,
        attempts_per_batch=quick.attempts_per_batch,
        protocol=WernerProtocol(
            fidelity=link_fidelity, success_probability=quick.protocol.success_probability
        ),
    )
    if topology == "chain":
        return NetworkDescription.chain(nodes, GenericDevice(), link)
    # A hub with two qubits for each flow, as far as there are addresses.
    qubits = min(max(nodes - 1, _LEAF_QUBITS), MAX_GENERIC_QUBITS)
    return NetworkDescription.star(nodes, GenericDevice(qubits=qubits), link)


def run_and_report(settings: PairsSettings, json_path: Path | None, *, quiet: bool) -> None:
    """Run the flows, print what came of them beside the prediction, and write it.

    Args:
        settings: what to run.
        json_path: where to write the result as JSON, None for nowhere.
        quiet: no table and no progress bar.

    Raises:
        KeyboardInterrupt: there was a Ctrl-C; nothing is kept.
    """
    console = Console(quiet=quiet)
    check_destinations(json_path, None)
    predictions: list[Prediction] | None = None
    why_not = ""
    try:
        predictions = predict(
            settings.network, settings.flows, settings.pairs, measured=settings.measured
        )
    except ConfigurationError as error:
        why_not = str(error)
    started_s = time.perf_counter()
    with progress_bar(console, "pairs", settings.pairs * len(settings.flows)) as on_progress:
        try:
            data = run_pairs(settings, on_progress)
        except KeyboardInterrupt:
            console.print("Interrupted: nothing is kept; ask for fewer --pairs.")
            raise
    result = analyse_pairs(settings, data, predictions)
    result |= {
        "version": __version__,
        "not_predicted": why_not,
        "wall_s": time.perf_counter() - started_s,
        "network": settings.network.model_dump_json(),
    }
    console.print(pairs_table(result))
    if json_path is not None:
        write_json(json_path, result)
        console.print(f"Result: {json_path}")
