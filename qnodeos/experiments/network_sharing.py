"""Flows that wait for each other at a repeater: when their turns come (simulated bins only).

A repeater serves as many circuits at once as it has pairs of qubits, in the order of their
turns (`qnodeos.qnpu.turns`). Where more flows than that lead through it, how often each begins
at which place of the pattern follows from a Markov chain of the bins: in its bin a segment of a
circuit that is served is made with the probability of a herald in a whole bin, and a circuit that
has both its segments makes place for the next. The chain has too many states to be solved, so it
is sampled; where heralds are nearly certain, it hardly varies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

SAMPLED_PAIRS: Final = 400
"""Pairs of each flow, on average, after as many bins as it takes to forget the beginning."""
SEED: Final = 1

Real = NDArray[np.float64]


@dataclass(frozen=True)
class Hop:
    """A segment of a flow.

    Attributes:
        bins: places in the pattern at which its link is used.
        success: probability of a herald in one bin.
    """

    bins: frozenset[int]
    success: float


@dataclass
class _Circuit:
    number: int
    hops: Sequence[Hop]
    turn_bin: int = 0
    missing: set[int] = field(default_factory=set)

    @property
    def turn(self) -> tuple[int, int]:
        return self.turn_bin, self.number


def shared_turns(
    flows: Sequence[Sequence[Hop]], room: int, period: int
) -> list[tuple[Real, float]]:
    """When flows over one repeater begin their attempts, and how many bins a pair takes.

    Args:
        flows: the segments of each, in the order of the node ids of their heads.
        room: how many are served at once.
        period: bins of the pattern.

    Returns:
        For each flow, the probability of each place of the pattern at which its segments are
        first attempted, shape (period,), and the mean number of bins per pair.
    """
    rng = Random(SEED)
    circuits = [_Circuit(number, hops) for number, hops in enumerate(flows)]
    starts = np.zeros((len(flows), period))
    done = np.zeros(len(flows))
    warm_up = period * len(flows)
    waiting = list(circuits)
    served: list[_Circuit] = []
    number = 0
    while done.mean() < SAMPLED_PAIRS:
        waiting.sort(key=lambda circuit: circuit.turn)
        while waiting and len(served) < room:
            circuit = waiting.pop(0)
            circuit.missing = set(range(len(circuit.hops)))
            served.append(circuit)
            if number >= warm_up:
                starts[circuit.number, number % period] += 1
        for circuit in list(served):
            for place in list(circuit.missing):
                hop = circuit.hops[place]
                if number % period in hop.bins and rng.random() < hop.success:
                    circuit.missing.remove(place)
            if not circuit.missing:
                served.remove(circuit)
                circuit.turn_bin = number + 1
                waiting.append(circuit)
                done[circuit.number] += number >= warm_up
        number += 1
    return [
        (each / each.sum(), float((number - warm_up) / count))
        for each, count in zip(starts, done, strict=True)
    ]
