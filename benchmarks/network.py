"""What a pair between the ends of a chain costs to simulate, per link.

Everything takes part: programs at both ends, kernels, link and network layers, devices, states.
The links herald within a bin, so that a pair takes two time bins whatever the length. If the
cost grew faster than the number of links, the cost per link would rise with it, and the last seven
links of a chain would cost more than the seven before.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Final

from benchmarks.measure import GC_OFF, Effort, Figure, Outcome, Samples, Timing, Work, compare
from qnodeos.assembly import NetworkDescription
from qnodeos.experiments.network_pairs import PairsSettings, ends_of_chain, run_pairs
from sim.entangled_state import WernerProtocol
from sim.link import LinkParameters

NODES: Final = (2, 4, 8, 16)
STEPS: Final = (2, 9, 16)
"""Nodes, with equally many links between one and the next."""
REFERENCE: Final = 3
"""Nodes of the shortest chain with a repeater."""
PAIRS: Final = 60
REPETITIONS: Final = 5
WANTED: Final = (0.0, 1.2)
WANTED_MORE: Final = (0.0, 1.5)
"""Of differences of times, which vary more."""
LINK: Final = LinkParameters(
    attempt_period_ns=10_000,
    attempts_per_batch=10,
    protocol=WernerProtocol(fidelity=0.99, success_probability=0.5),
)


def _chain(nodes: int, effort: Effort) -> Work:
    network = NetworkDescription.chain(nodes, link=LINK)
    pairs = effort.of(PAIRS)

    def prepare() -> Callable[[], object]:
        settings = PairsSettings(network, ends_of_chain(network), pairs)
        return lambda: run_pairs(settings)

    return Work(f"a chain of {nodes} nodes", "pair and link", pairs * (nodes - 1), prepare)


def _more_links(effort: Effort, rounds: Effort) -> Figure:
    """The cost of the last links of a long chain beside that of as many before them."""
    few, some, many = (_chain(nodes, effort) for nodes in STEPS)
    later, earlier = compare(many, some, rounds), compare(some, few, rounds)

    def added(samples: Samples) -> list[float]:
        """Time per pair that each of the links added takes, round by round."""
        links = [work.count / few.count for work in (samples.ours, samples.reference)]
        return [
            max(ours * links[0] - reference * links[1], 1.0) / (links[0] - links[1])
            for ours, reference in zip(samples.ours_ns, samples.reference_ns, strict=True)
        ]

    last, before = added(later), added(earlier)
    return Figure(
        f"links {STEPS[1]} to {STEPS[2] - 1} of a chain",
        "times the time of",
        Timing(f"from {STEPS[1]} to {STEPS[2]} nodes", "pair and link", median(last)),
        Timing(f"links {STEPS[0]} to {STEPS[1] - 1}", "pair and link", median(before)),
        tuple(ours / reference for ours, reference in zip(last, before, strict=True)),
        WANTED_MORE,
    )


def run(effort: Effort) -> Outcome:
    """Measure."""
    rounds = Effort(min(effort.rounds, REPETITIONS), effort.fraction)
    figures = [
        compare(_chain(nodes, effort), _chain(REFERENCE, effort), rounds).cost(
            f"pair across {nodes} nodes, per link",
            wanted=WANTED if nodes > REFERENCE else None,
        )
        for nodes in NODES
    ]
    figures.append(_more_links(effort, rounds))
    costs = ", ".join(
        f"{nodes} nodes {figure.ratio * (nodes - 1) / (REFERENCE - 1):.2f}"
        for nodes, figure in zip(NODES, figures, strict=False)
    )
    return Outcome(
        figures,
        GC_OFF,
        notes=[f"a pair, in units of one across {REFERENCE} nodes: {costs}; the set-up included"],
    )
