"""What traces show, in numbers: events, device utilisation, and segments of DQC circuits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from qnodeos.experiments.dqc_recognition import find_circuits
from qnodeos.experiments.dqc_segments import PUBLISHED_SEGMENTS_MS, Floats
from qnodeos.experiments.dqc_table import SEGMENT_LABELS
from qnodeos.trace import Event
from qnodeos.trace.node_traces import Columns, NodeTraces
from qnodeos.trace.utilisation import device_utilisation

_MS_IN_NS: Final = 1e6


def summarise(
    nodes: Sequence[NodeTraces], description: str = "", created: str = ""
) -> dict[str, Any]:
    """Everything `qnodeos trace summary` says, ready for JSON.

    Args:
        nodes: traces of the nodes.
        description: of the experiment.
        created: when the traces were generated.

    Returns:
        ``nodes``: for each its ``device`` (``utilisation``, None if the trace has no time
        without entanglement attempts; ``busy_ms``, ``entanglement_ms``, ``total_ms``), and the
        number of each event; ``dqc``: for each pair of programs that did DQC circuits how many,
        and ``segments_ms`` with ``mean`` and ``sd`` (None for one circuit).
    """
    return {
        "description": description,
        "created": created,
        "nodes": [
            {
                "node": node.name,
                "device": _device(node),
                "events": _counts(node.host) | _counts(node.qnpu),
            }
            for node in nodes
        ],
        "dqc": [
            {
                "client": pair.client.node,
                "client_process": pair.client.process,
                "server": pair.server.node,
                "server_process": pair.server.process,
                "circuits": pair.circuits,
                "segments_ms": {name: _mean_sd(values) for name, values in pair.segments.items()},
            }
            for pair in find_circuits(nodes)
        ],
    }


def _device(node: NodeTraces) -> dict[str, float | None]:
    found = device_utilisation(node.qnpu)
    in_ms = node.tick_ns / _MS_IN_NS
    return {
        "utilisation": None if isnan(found.share) else found.share,
        "busy_ms": found.busy * in_ms,
        "entanglement_ms": found.entanglement * in_ms,
        "total_ms": found.total * in_ms,
    }


def _counts(columns: Columns) -> dict[str, int]:
    numbers, counts = np.unique(columns["event"], return_counts=True)
    return {
        Event(number).name: count
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
    }


def _mean_sd(values: NDArray[Any] | Floats) -> dict[str, float | None]:
    sd = float(np.std(values, ddof=1)) if values.size > 1 else None
    return {"mean": float(np.mean(values)), "sd": sd}


# --- for people -------------------------------------------------------------------------


def summary_tables(summary: Mapping[str, Any]) -> list[RenderableType]:
    """The same as tables."""
    shown: list[RenderableType] = [_utilisation_table(summary["nodes"])]
    shown += [_segments_table(pair) for pair in summary["dqc"]]
    if not summary["dqc"]:
        shown.append("No DQC circuits are recognised in these traces, so there are no segments.\n")
    shown.append(_events_table(summary["nodes"]))
    return shown


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _utilisation_table(nodes: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(
        "Quantum devices", "node", "utilisation", "busy, ms", "entanglement attempts, ms", "all, ms"
    )
    for node in nodes:
        device = node["device"]
        share = device["utilisation"]
        table.add_row(
            node["node"],
            "-" if share is None else f"{share:.2%}",
            *(f"{device[name]:.2f}" for name in ("busy_ms", "entanglement_ms", "total_ms")),
        )
    table.caption = "Utilisation leaves the time of entanglement attempts out.\n"
    return table


def _segments_table(pair: Mapping[str, Any]) -> Table:
    ends = [
        pair[end] + ("" if pair[f"{end}_process"] is None else f" P{pair[f'{end}_process']}")
        for end in ("client", "server")
    ]
    table = _table(
        f"DQC from {ends[0]} to {ends[1]}: segments of {pair['circuits']} circuits, ms",
        "segment",
        "mean",
        "sd",
        "published",
    )
    for name, label in SEGMENT_LABELS.items():
        if name in pair["segments_ms"]:
            values = pair["segments_ms"][name]
            sd = "-" if values["sd"] is None else f"{values['sd']:.3f}"
            published = PUBLISHED_SEGMENTS_MS.get(name)
            table.add_row(
                label,
                f"{values['mean']:.3f}",
                sd,
                "-" if published is None else f"{published[0]:g}",
            )
    return table


def _events_table(nodes: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("Events", "event", *(node["node"] for node in nodes))
    for event in Event:
        counts = [node["events"].get(event.name, 0) for node in nodes]
        if any(counts):
            table.add_row(event.name, *map(str, counts))
    return table
