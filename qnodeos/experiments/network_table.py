"""Networks and their pairs as tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from qnodeos.assembly.description import GenericDevice, NetworkDescription
from qnodeos.experiments.network_prediction import find_path

FLOWS_SHOWN: Final = 8
ROUTES_SHOWN: Final = 24
_WIDTH: Final = 72
"""At least, so that titles and captions have room."""


def pairs_table(result: Mapping[str, Any]) -> Table:
    """Fidelity and rate of every flow beside their predictions.

    Args:
        result: of `qnodeos.experiments.network_analysis.analyse_pairs`, with
            ``not_predicted`` and ``wall_s``.
    """
    table = _table(f"Pairs across a network, simulated, {result['pairs']:,} per flow")
    table.add_column("flow", no_wrap=True)
    for name in ("hops", "pairs", "fidelity", "expected", "pairs/s", "expected"):
        table.add_column(name, justify="right", no_wrap=True)
    flows = result["flows"]
    for flow in flows[:FLOWS_SHOWN]:
        table.add_row(
            f"{flow['from']} - {flow['to']}",
            str(flow["hops"]),
            str(flow["delivered"]),
            *_columns(flow),
        )
    if len(flows) > 1:
        table.add_row(
            f"mean of {len(flows)}",
            "",
            str(sum(flow["delivered"] for flow in flows)),
            *_columns(result["mean"]),
        )
    table.caption = _caption(result)
    return table


def _columns(flow: Mapping[str, Any]) -> tuple[str, ...]:
    return (*_beside(flow["fidelity"], 4), *_beside(flow["rate_hz"], 1))


def _beside(value: Mapping[str, Any], digits: int) -> tuple[str, str]:
    predicted = value["predicted"]
    return (
        f"{value['value']:.{digits}f} ± {value['half_width']:.{digits}f}",
        "-" if predicted is None else f"{predicted:.{digits}f}",
    )


def _caption(result: Mapping[str, Any]) -> str:
    how = (
        "from the outcomes in X, Y and Z, readout errors included"
        if result["measured"]
        else "of the simulated state when both ends have it"
    )
    leaked = result["leaked"]
    differing = [
        f"{flow['from']} - {flow['to']}" for flow in result["flows"] if not flow["ids_agreed"]
    ]
    lines = [
        f"\nFidelity to Phi+, {how}. ±: confidence of 95 %.",
        "Both ends of every flow were told the same numbers of their pairs, in the same order."
        if not differing
        else f"The ends were told DIFFERENT numbers of their pairs: {', '.join(differing)}.",
        "All qubits are free again."
        if not leaked
        else f"Qubits that are not free: {', '.join(f'{n} {q}' for n, q in leaked.items())}.",
    ]
    if result["not_predicted"]:
        lines.append(f"No prediction: {result['not_predicted']}.")
    lines.append(f"{result['simulated_s']:.3f} s of virtual time in {result['wall_s']:.2f} s.")
    return "\n".join(lines)


def description_tables(network: NetworkDescription) -> Iterator[Table]:
    """Nodes, links, bins and routes of a network."""
    yield _nodes(network)
    if network.links:
        yield _links(network)
        yield _bins(network)
        yield _routes(network)


def _nodes(network: NetworkDescription) -> Table:
    table = _table(f"{len(network.nodes)} nodes")
    for name in ("node", "id", "device", "qubits", "neighbours"):
        table.add_column(name)
    for name, number in network.node_ids.items():
        device = network.nodes[name].device
        if isinstance(device, GenericDevice):
            qubits = f"{device.qubits}"
        else:
            qubits = f"1 + {device.memories} memories"
        table.add_row(
            name, str(number), device.kind, qubits, ", ".join(network.neighbours(name)) or "none"
        )
    return table


def _links(network: NetworkDescription) -> Table:
    table = _table(f"{len(network.links)} links")
    for name in ("link", "protocol", "fidelity", "per batch", "batch"):
        table.add_column(name, justify="left" if name in ("link", "protocol") else "right")
    for link in network.links:
        parameters = link.link
        table.add_row(
            " - ".join(link.between),
            parameters.protocol.kind + (" (mocked)" if parameters.mocked else ""),
            f"{link.estimate:.4f}",
            f"{parameters.batch_success_probability:.3g}",
            f"{parameters.batch_ns / 1e6:.3g} ms",
        )
    table.caption = (
        "\nFidelity: estimate for requests that ask for one. Per batch: probability of a herald."
    )
    return table


def _bins(network: NetworkDescription) -> Table:
    schedule = network.schedule
    table = _table(
        f"{len(network.bins)} time bins of {schedule.bin_ms:g} ms, "
        f"{schedule.guard_ms:g} ms of guard, repeating"
    )
    table.add_column("bin", justify="right")
    table.add_column("links")
    for number, links in enumerate(network.bins):
        table.add_row(str(number), ", ".join(" - ".join(link) for link in links))
    return table


def _routes(network: NetworkDescription) -> Table:
    names = list(network.nodes)
    table = _table("Routes between nodes that are no neighbours")
    table.add_column("path")
    table.add_column("fidelity", justify="right")
    far = [
        (source, destination, route)
        for source, mine in network.routes().items()
        for destination, route in mine.items()
        if source < destination and route.hops > 1
    ]
    for source, destination, route in far[:ROUTES_SHOWN]:
        path = find_path(network, names[source], names[destination])
        table.add_row(" - ".join(path), f"{route.fidelity:.4f}")
    if len(far) > ROUTES_SHOWN:
        table.add_row(f"and {len(far) - ROUTES_SHOWN} more", "")
    table.caption = "\nFidelity: of the links' estimates alone, perfect swaps and no waiting."
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        min_width=_WIDTH,
        box=SIMPLE_HEAD,
        caption_justify="left",
        caption_style="",
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
