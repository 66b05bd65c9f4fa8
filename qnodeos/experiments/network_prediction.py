"""What pairs between far nodes of a network should be like, beside what the system delivers.

`network_times` says when they come, `network_fidelity` how good they are. Assumed: software without
latencies, programs that ask for the next pair at once, nodes with generic devices, and flows that
have their links for themselves. Where they wait for each other at one repeater, `network_sharing`
says when their turns come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from qnodeos.assembly.description import GenericDevice, NetworkDescription
from qnodeos.errors import ConfigurationError
from qnodeos.experiments.network_fidelity import FlowFidelity
from qnodeos.experiments.network_sharing import Hop, shared_turns
from qnodeos.experiments.network_times import FlowTimes, places_of, success_in_a_bin
from sim.noise import NS_PER_MS

NO_LATENCIES: Final = "zero"
"""The latency profile for which something is predicted."""
QUBITS_EACH: Final = 2
"""Qubits of a repeater that a circuit needs."""


@dataclass(frozen=True)
class Prediction:
    """What a flow should give.

    Attributes:
        path: names of the nodes.
        fidelity: to Phi+, of a pair when both ends have it; if the ends measure, what follows
            from the correlations of their outcomes, readout errors included.
        rate_hz: pairs per second.
        spacing_ms: mean time from one pair to the next.
    """

    path: tuple[str, ...]
    fidelity: float
    rate_hz: float
    spacing_ms: float


def predict(
    network: NetworkDescription,
    flows: Sequence[tuple[str, str]],
    pairs: int,
    *,
    measured: bool = False,
) -> list[Prediction]:
    """Fidelity and rate of pairs of several flows at once, each asked for one after another.

    Args:
        network: nodes, links and bins.
        flows: for each, the node that asks, and the other end.
        pairs: of each flow, from the start of the network on.
        measured: whether both ends measure at once, in X, Y and Z in turn.

    Raises:
        ConfigurationError: there is no path, nothing is predicted for the devices on it or for
            the software, or flows wait for each other at more than one node.
    """
    if network.latencies != NO_LATENCIES:
        raise ConfigurationError(
            f"nothing is predicted for software with the latencies of the profile "
            f"{network.latencies}"
        )
    paths = [find_path(network, source, destination) for source, destination in flows]
    for name in dict.fromkeys(name for path in paths for name in path):
        if not isinstance(network.nodes[name].device, GenericDevice):
            raise ConfigurationError(
                f"nothing is predicted for paths over node {name}: its device is no generic one"
            )
    models = [FlowTimes(network, path, measured) for path in paths]
    repeater = _crowded(network, paths)
    if repeater is None:
        found = [model.phases_and_spacing(pairs) for model in models]
    else:
        hops = [
            [Hop(places_of(network, link), success_in_a_bin(network, link)) for link in model.links]
            for model in models
        ]
        room = network.nodes[repeater].device.register_physics().qubits // QUBITS_EACH
        found = [
            (phases, bins * models[0].schedule.bin_ticks)
            for phases, bins in shared_turns(hops, room, len(network.bins))
        ]
    predictions = []
    for path, model, (phases, spacing_ticks) in zip(paths, models, found, strict=True):
        spacing_ms = spacing_ticks * network.tick_ns / NS_PER_MS
        predictions.append(
            Prediction(path, FlowFidelity(model).average(phases), 1e3 / spacing_ms, spacing_ms)
        )
    return predictions


def _crowded(network: NetworkDescription, paths: Sequence[Sequence[str]]) -> str | None:
    """The repeater at which flows have to wait for each other, if there is one."""
    links = Counter(frozenset(hop) for path in paths for hop in pairwise(path))
    shared = [sorted(link) for link, count in links.items() if count > 1]
    if shared:
        raise ConfigurationError(
            f"nothing is predicted for flows that share a link, as that of "
            f"{' and '.join(shared[0])}"
        )
    through = Counter(name for path in paths for name in path[1:-1])
    crowded = [
        name
        for name, count in through.items()
        if QUBITS_EACH * count > network.nodes[name].device.register_physics().qubits
    ]
    if crowded and any(set(path[1:-1]) != {crowded[0]} for path in paths):
        raise ConfigurationError(
            f"nothing is predicted for flows that wait for each other at node {crowded[0]} and "
            "lead over other repeaters, too; give it more qubits"
        )
    return crowded[0] if crowded else None


def find_path(network: NetworkDescription, source: str, destination: str) -> tuple[str, ...]:
    """The nodes of the route between two nodes.

    Raises:
        ConfigurationError: there is no such node, or no route.
    """
    ids, names = network.node_ids, list(network.nodes)
    for name in (source, destination):
        if name not in ids:
            raise ConfigurationError(
                f"there is no node {name!r}; the nodes are: {', '.join(names)}"
            )
    routes = network.routes()
    path = [source]
    while path[-1] != destination:
        route = routes.get(ids[path[-1]], {}).get(ids[destination])
        if route is None:
            raise ConfigurationError(f"no path leads from node {source} to node {destination}")
        path.append(names[route.next_hop])
    return tuple(path)
