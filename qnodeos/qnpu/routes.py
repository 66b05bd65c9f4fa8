"""Routes: over which neighbour a node reaches the others, and how good pairs with them are.

A route is a path of links. Its pairs are made of one pair per link, joined by entanglement
swapping. If those are Werner states, so is the result: with the weight w = (4 F - 1) / 3 of
the Bell state in a state of fidelity F, the weights multiply (Duer et al., Phys. Rev. A 59,
169 (1999)). Swaps are taken as perfect and waiting as harmless, so the fidelity of a route is
an upper estimate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

PERFECT: Final = 1.0
"""Fidelity of a link of which nothing is said: routes then have the fewest hops."""


@dataclass(frozen=True, slots=True)
class Route:
    """How one node reaches another.

    Attributes:
        next_hop: the neighbour to go to first.
        hops: links on the way, 1 to a neighbour.
        fidelity: estimate for the pairs of the two ends, to the Bell state announced.
    """

    next_hop: int
    hops: int
    fidelity: float


def werner_weight(fidelity: float) -> float:
    """Weight of the Bell state in a Werner state; 0 if there is no more of it than of others."""
    return max((4 * fidelity - 1) / 3, 0.0)


def make_routes(
    links: Mapping[tuple[int, int], float],
    avoid: Collection[int] = (),
    ends: Collection[int] = (),
) -> dict[int, dict[int, Route]]:
    """The best routes of all nodes: those of the highest fidelity.

    Among equals those with fewer hops, then those over the neighbour with the lower number.
    All nodes go by the same tree of paths to a destination, so that no route has a loop.

    Args:
        links: the fidelity of each link, by the node ids of its ends.
        avoid: nodes through which a route leads only if there is no other, for example
            because nobody hears of them.
        ends: nodes through which no route leads, because they cannot swap.

    Returns:
        For each node that has a link, its route to every node it can reach.

    Raises:
        ValueError: a link joins a node to itself, or a fidelity is outside 0..1.
    """
    weights: dict[int, dict[int, float]] = {}
    for (first, second), fidelity in links.items():
        if first == second:
            raise ValueError(f"a link joins node {first} to itself")
        if not 0 <= fidelity <= 1:
            raise ValueError(
                f"the link of nodes {first} and {second} has fidelity {fidelity}, outside 0..1"
            )
        weights.setdefault(first, {})[second] = werner_weight(fidelity)
        weights.setdefault(second, {})[first] = werner_weight(fidelity)
    routes: dict[int, dict[int, Route]] = {node: {} for node in sorted(weights)}
    for destination in routes:
        for node, route in _tree(weights, destination, avoid, ends).items():
            routes[node][destination] = route
    return routes


def _tree(
    weights: Mapping[int, Mapping[int, float]],
    destination: int,
    avoid: Collection[int],
    ends: Collection[int],
) -> dict[int, Route]:
    """Routes of all other nodes to a destination (Dijkstra's algorithm, from there)."""
    done: dict[int, Route] = {}
    # Nodes to avoid on the way, minus the weight, hops: the smallest is the best.
    reached: list[tuple[int, float, int, int, int]] = [(0, -1.0, 0, destination, destination)]
    while reached:
        avoided, weight, hops, next_hop, node = heappop(reached)
        if node in done:
            continue
        done[node] = Route(next_hop, hops, (1 - 3 * weight) / 4)
        if node in ends and node != destination:
            continue
        through = avoided + (node in avoid and node != destination)
        for neighbour, link_weight in weights[node].items():
            if neighbour not in done:
                heappush(reached, (through, weight * link_weight, hops + 1, node, neighbour))
    del done[destination]
    return done
