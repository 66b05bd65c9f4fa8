"""A simulated laboratory: one or two nodes on one clock, run as far ahead as is certain.

The nodes act event by event, the earlier one first, so that what one does to its lines reaches
the other in time. `run_ahead` lets all of them work on their instructions until nothing more
can be said without new input: while a node is busy no frame changes what it does, so its
outcome can be known before its time has come. Only a node that waits for its neighbour stops
there (it is *parked*): the neighbour may still get the same instruction.

While both nodes attempt entanglement their AWGs are run together, from herald to herald.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from instruments.nv_controller import TICK_EVENTS
from sim.adwin.frames import NEVER
from sim.lab.heralding import HeraldingStation
from sim.lab.node import ATTEMPTING, ATTEMPTS, IDLE, LISTENING, LabNode
from sim.lab.timing import NS_PER_EVENT, SAMPLES_PER_EVENT, LabTiming
from sim.link import LinkParameters

MAX_NODES: Final = 2
MAX_ACTIONS: Final = 10_000_000
"""Bound on the events of one run ahead."""

_STRIDE: Final = 2 * SAMPLES_PER_EVENT
"""How far the AWGs run together while the period of the attempts is unknown: less than the
time from the start of an attempt to its decision."""
_AFTER_START: Final = 1200
"""Samples from the start of an attempt by which it has surely been ordered."""


class Laboratory:
    """Nodes on one clock.

    Args:
        link: physics of the link between two nodes.
        timing: delays.
        seed: of the heralding station.

    Attributes:
        station: the heralding station.
        nodes: one or two.
        zero_event: the event at tick 0 of the QNPUs, once the clock runs.
    """

    def __init__(self, link: LinkParameters, timing: LabTiming, seed: str) -> None:
        self.timing = timing
        self.station = HeraldingStation(link, timing, random.Random(f"{seed}/heralds"))
        self.nodes: list[LabNode] = []
        self.zero_event = 0

    def add(self, node: LabNode) -> None:
        """Connect a node; the second one becomes the neighbour of the first.

        Raises:
            ValueError: there are two already.
        """
        if len(self.nodes) == MAX_NODES:
            raise ValueError(f"a laboratory has {MAX_NODES} nodes at most")
        self.nodes.append(node)
        if len(self.nodes) == MAX_NODES:
            first, second = self.nodes
            first.peer, second.peer = second, first

    def begin(self) -> None:
        """Start the common clock, when all nodes have been set up.

        The tick before the first is run with a frame that says nothing, so that the programs
        know where a tick begins.
        """
        latest = max(node.process.start // NS_PER_EVENT for node in self.nodes)
        self.zero_event = (latest // TICK_EVENTS + 3) * TICK_EVENTS
        for node in self.nodes:
            node.begin(self.zero_event - TICK_EVENTS - 1)
            node.receive(0)
            for event in range(self.zero_event - TICK_EVENTS, self.zero_event):
                node.act(event)

    def run_ahead(self) -> None:
        """Let every node work until it is idle or parked.

        Raises:
            RuntimeError: it does not come to an end.
        """
        for _ in range(MAX_ACTIONS):
            chosen = self._next()
            if chosen is None:
                return
            node, event = chosen
            if self._is_attempting(node, event) and self._advance_attempts(event):
                continue
            node.act(event)
        raise RuntimeError(f"the nodes are still busy after {MAX_ACTIONS} events")

    def run_to(self, node: LabNode, event: int) -> None:
        """Let a parked node go on until an event, its neighbour having had its chance."""
        while node.event < event:
            following = node.next_action()
            if following > event:
                break
            node.act(following)
        if node.event < event:
            node.act(event)

    def is_parked(self, node: LabNode) -> bool:
        """Whether a node waits for its neighbour, which has nothing to do."""
        # An idle neighbour may be given an instruction at any time, and then change its lines.
        return node.state in LISTENING and (node.peer is None or node.peer.state == IDLE)

    # --- inside -------------------------------------------------------------------------------

    def _next(self) -> tuple[LabNode, int] | None:
        """The node that acts next, and when; None if all are idle or parked."""
        best: tuple[LabNode, int] | None = None
        for node in self.nodes:
            event = node.next_action()
            if event == NEVER or self.is_parked(node):
                continue
            if best is None or event < best[1]:
                best = node, event
        return best

    def _is_attempting(self, node: LabNode, event: int) -> bool:
        """Whether it depends on the AWGs what the node does at that event."""
        return (
            node.state in ATTEMPTING
            and event > node.event + 1
            and node.awg_sample < event * SAMPLES_PER_EVENT
        )

    def _advance_attempts(self, event: int) -> bool:
        """Let the AWGs attempt on, until an event at most; whether there was something left."""
        both = [node for node in self.nodes if node.state in ATTEMPTING]
        limit = event * SAMPLES_PER_EVENT
        # What was ordered while a node executed an event may be heralded before a stride is over.
        if self._match():
            return True
        reached = min(node.awg_sample for node in both)
        if reached >= limit:
            return False
        goal = min(limit, self._stride(both, reached))
        for node in both:
            if node.awg_sample < goal:
                node.run_awg(goal)
        self._match()
        return True

    def _match(self) -> bool:
        """Have the station pair what was attempted, and tell both nodes of a herald, if any."""
        herald = self.station.match()
        if herald is None:
            return False
        detector = self.station.parameters.protocol.heralds.index(herald.bell)
        for node, spin, sample in zip(self.nodes, herald.spins, herald.alpha_samples, strict=True):
            node.raise_herald(herald.time_ns, detector)
            node.centre.spin.adopt(spin, sample)
        return True

    def _stride(self, both: Sequence[LabNode], reached: int) -> int:
        """Up to where the AWGs can run without passing the decision on a herald."""
        node = both[0]
        period, start = node.attempt_period_samples, node.last_attempt_sample
        if (
            len(both) < MAX_NODES
            or period is None
            or start is None
            or any(other.state != ATTEMPTS for other in both)
            or node.last_arrival != self.station.last_arrival
        ):
            return reached + _STRIDE
        return max(reached + 1, start + self.station.attempts_to_herald() * period + _AFTER_START)
