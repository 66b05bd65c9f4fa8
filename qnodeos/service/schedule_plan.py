"""Which links may be used in the same time bin: a colouring of the links of a network.

In a bin a node makes entanglement with at most one neighbour, so links that share a node need
different bins. Links get the first bin in which both ends are free, those of busy nodes first;
that takes fewer than twice as many bins as the busiest node has links. Every bin is then filled
up with links that still fit, in turn, so that no node idles that has a free neighbour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

MAX_NODES: Final = 256
MAX_LINKS: Final = 1_024

LinkName = tuple[str, str]
"""The names of its two nodes."""


def plan_bins(links: Sequence[LinkName]) -> list[list[LinkName]]:
    """The links of each time bin of a pattern; every link has at least one bin.

    Args:
        links: pairs of different nodes, none twice.
    """
    degrees = Counter(name for link in links for name in link)
    order = sorted(range(len(links)), key=lambda i: -max(degrees[name] for name in links[i]))
    bins: list[list[LinkName]] = []
    busy: list[set[str]] = []
    for index in order:
        link = links[index]
        number = next((n for n, names in enumerate(busy) if names.isdisjoint(link)), len(bins))
        if number == len(bins):
            bins.append([])
            busy.append(set())
        bins[number].append(link)
        busy[number].update(link)
    for number, names in enumerate(busy):
        # Each bin begins to look at another link, so that none is always the last.
        for offset in range(len(links)):
            link = links[(number + offset) % len(links)]
            if names.isdisjoint(link):
                bins[number].append(link)
                names.update(link)
    return bins
