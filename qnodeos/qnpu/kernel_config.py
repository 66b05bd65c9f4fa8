"""What a kernel is given: what distinguishes its node from others, and where its events go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from qnodeos.api.netqasm import Flavour
from qnodeos.limits import Limits


class Trace(Protocol):
    """Where events go."""

    def record(self, time: int, event: int, process: int = 0, detail: int = 0) -> None:
        """Keep one event."""
        ...


@dataclass(frozen=True)
class KernelConfig:
    """What distinguishes one node's kernel from another's.

    Attributes:
        node_id: number of this node.
        flavour: NetQASM flavour its device speaks.
        peers: node ids of its neighbours, and the device's link to each.
        dispatch_ticks: ticks between choosing a user process and its first instruction.
            Zero unless a slower QNPU is to be modelled.
        limits: all bounds.
        link_fidelity: estimate of the fidelity of pairs with a neighbour, from 0 to 1, where
            there is one. A request for more is refused.
    """

    node_id: int
    flavour: Flavour
    peers: Mapping[int, int]
    dispatch_ticks: int = 0
    limits: Limits = Limits()
    link_fidelity: Mapping[int, float] = field(default_factory=dict)
