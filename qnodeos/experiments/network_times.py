"""When pairs over several links are there, computed without the operating system.

A request makes the segments of its path all at once, from the time bin after the one in which
the far end has agreed. In the bins of its link a segment is heralded at the first success of
attempts that fail independently, so the time of its herald has a known distribution, and the
pair is there when the last of them is: its distribution function is the product of theirs. The
bin in which the next request begins follows, and with it a Markov chain of the place of that bin
in the pattern, from which comes the mean time per pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.assembly.description import LinkDescription, NetworkDescription
from qnodeos.assembly.platforms import PLATFORMS
from qnodeos.errors import ConfigurationError
from qnodeos.qdevice.outcomes import BellState
from sim.noise import NS_PER_MS
from sim.register_physics import RegisterPhysics

Real = NDArray[np.float64]

SURVIVAL: Final = 1e-8
"""Probability, of no herald so far, at which a distribution is cut off."""
BINS_MAX: Final = 2_000
"""Bins of a link until then; more are not computed."""

# What a node takes for something, in ticks, beside the time of the device: an instruction
# goes out with the frame after it was made; a message that arrives in a tick in which the
# node has acted is taken in at the next.
INSTRUCTION: Final = 1
ANNOUNCEMENT: Final = 1
SUBMISSION: Final = 1
BASIS_CHOICE: Final = 2
"""An instruction before the first attempt, if neighbours measure in another basis than before."""
CROSSING: Final = 1
"""A request reaches a node whose own program has just asked for its end of it."""
FIRST_BIN: Final = 1
"""In which the segments of a request may be attempted that is made when time begins."""


def places_of(network: NetworkDescription, link: LinkDescription) -> frozenset[int]:
    """Places in the pattern at which a link is used."""
    return frozenset(
        place for place, links in enumerate(network.bins) if set(link.between) in map(set, links)
    )


def success_in_a_bin(network: NetworkDescription, link: LinkDescription) -> float:
    """Probability of a herald in a whole bin."""
    first = herald(network, link, min(places_of(network, link)))
    bin_ticks = network.schedules()[link.between[0]].bin_ticks
    return float(first.probabilities[first.ticks < bin_ticks].sum())


@dataclass(frozen=True)
class Herald:
    """When a segment is heralded: ticks after the start of the first bin, and probabilities."""

    ticks: NDArray[np.int64]
    probabilities: Real


def herald(network: NetworkDescription, link: LinkDescription, phase: int) -> Herald:
    """The distribution of the time of a segment's herald.

    Args:
        network: for its bins.
        link: of the segment.
        phase: place in the pattern of the first bin in which it may be attempted.

    Raises:
        ConfigurationError: it takes too many bins.
    """
    schedule = network.schedules()[link.between[0]]
    parameters, tick_ns = link.link, network.tick_ns
    places, period = places_of(network, link), len(network.bins)
    probability = parameters.protocol.success_probability
    batch = -(-parameters.batch_ns // tick_ns)
    starts = np.arange(
        schedule.guard_ticks,
        schedule.bin_ticks - schedule.batch_ticks + 1,
        batch + INSTRUCTION,
        dtype=np.int64,
    )
    attempts = np.arange(1, parameters.attempts_per_batch + 1, dtype=np.int64)
    offsets_ns = (
        (starts[:, None] + INSTRUCTION) * tick_ns + attempts * parameters.attempt_period_ns
    ).ravel()
    begins_ns = np.repeat((starts + INSTRUCTION) * tick_ns, len(attempts))
    preparation_ns = round(parameters.preparation_ms * NS_PER_MS)
    idle_ns = parameters.idle_reset_ms * NS_PER_MS
    ticks, survivals, survival, ready_ns, last_ns = [], [], 1.0, -1, -math.inf
    used = 0
    number = phase
    while survival > SURVIVAL:
        if number % period in places:
            used += 1
            if used > BINS_MAX:
                raise ConfigurationError(
                    f"a pair of nodes {' and '.join(link.between)} takes more than {BINS_MAX} "
                    "time bins; nothing is predicted for so slow a link"
                )
            start_ns = (number - phase) * schedule.bin_ticks * tick_ns
            if start_ns - last_ns > idle_ns:
                ready_ns = start_ns + int(begins_ns[0]) + preparation_ns
            last_ns = start_ns + int(offsets_ns[-1])
            useful = start_ns + offsets_ns - parameters.attempt_period_ns >= ready_ns
            at_ns = start_ns + offsets_ns[useful]
            left = survival * (1 - probability) ** np.arange(len(at_ns) + 1)
            ticks.append(-(-at_ns // tick_ns))
            survivals.append(left[:-1] - left[1:])
            survival = float(left[-1])
        number += 1
    probabilities = np.concatenate(survivals)
    return Herald(np.concatenate(ticks), probabilities / probabilities.sum())


class FlowTimes:
    """When things happen on the path of a flow.

    Args:
        network: nodes, links and bins.
        path: names of the nodes.
        measured: whether both ends measure at once.

    Attributes:
        links: in order; their places count from 0.
        nodes: the physics of the nodes, in order.
        gates: how many it takes to make Phi+ of each Bell state.
        is_circuit: whether there is a repeater.
        is_measured_herald: whether neighbours measure with the attempt itself.
    """

    def __init__(self, network: NetworkDescription, path: Sequence[str], measured: bool) -> None:
        self.network = network
        self.measured = measured
        self.links = [network.neighbours(first)[second] for first, second in pairwise(path)]
        self.nodes = [network.nodes[name].device.register_physics() for name in path]
        self.schedule = network.schedules()[path[0]]
        self.period = len(network.bins)
        driver = PLATFORMS["generic"].make_driver(PLATFORMS["generic"].capabilities)
        self.gates = {bell: len(driver.correct(bell, 0)) for bell in BellState}
        self.is_circuit = len(self.links) > 1
        self.is_measured_herald = measured and not self.is_circuit

    def correction_ticks(self, bell: BellState, physics: RegisterPhysics) -> int:
        """How long it takes to make a pair Phi+ at one end."""
        return self.gates[bell] * (INSTRUCTION + physics.communication.gate_ticks)

    def segment_ticks(self, place: int) -> list[int]:
        """From the herald of a segment until its far end has it as Phi+, for each Bell state."""
        if self.is_measured_herald:
            physics = self.nodes[0].communication
            readout = BASIS_CHOICE + physics.measure_ticks
            return [readout + physics.gate_ticks, readout + physics.gate_ticks, readout]
        return [
            ANNOUNCEMENT + self.correction_ticks(bell, self.nodes[place + 1])
            for bell in self.links[place].link.protocol.heralds
        ]

    def _swap_ticks(self, place: int) -> int:
        return INSTRUCTION + self.nodes[place].entanglement_swap_ticks

    def shifts(self, place: int) -> list[int]:
        """From the herald of a segment until the tail knows of it, if it is the last."""
        segment = self.segment_ticks(place)
        if not self.is_circuit:
            return segment
        if place < len(self.links) - 1:
            return [each + self._swap_ticks(place + 1) for each in segment]
        return [max(each, self._swap_ticks(place)) for each in segment]

    def end_ticks(self) -> list[int]:
        """From then until both ends have the pair, for each case, all equally likely."""
        ends = [0]
        if self.is_circuit:
            ends = [self.correction_ticks(bell, self.nodes[-1]) for bell in BellState]
        if not self.measured or not self.is_circuit:
            return ends
        return [each + both for each in ends for both in self.measurement_ticks()]

    def measurement_ticks(self) -> list[int]:
        """The far end measures, then the near one; in X and Y after a rotation."""
        both = [self.nodes[-1].communication, self.nodes[0].communication]
        readout = sum(INSTRUCTION + physics.measure_ticks for physics in both)
        rotation = sum(INSTRUCTION + physics.gate_ticks for physics in both)
        return [readout + rotation, readout + rotation, readout]

    def _between_ticks(self) -> int:
        """From one pair until the far end has agreed to the next."""
        ticks = SUBMISSION + CROSSING
        if not self.measured:  # the program reads its half out and has the result first
            ticks += INSTRUCTION + self.nodes[0].communication.measure_ticks + SUBMISSION
        return ticks

    def heralds(self, phase: int) -> list[Herald]:
        """Of all segments."""
        return [herald(self.network, link, phase) for link in self.links]

    def _last(self, heralds: Sequence[Herald]) -> Real:
        """Probability, for each tick, that the tail has all it needs then."""
        horizon = max(
            int(each.ticks[-1]) + max(self.shifts(place)) for place, each in enumerate(heralds)
        )
        together = np.ones(horizon + 1)
        for place, each in enumerate(heralds):
            density = np.zeros(horizon + 1)
            shifts = self.shifts(place)
            for shift in shifts:
                np.add.at(density, each.ticks + shift, each.probabilities / len(shifts))
            together *= np.cumsum(density)
        return np.diff(together, prepend=0.0)

    def phases_and_spacing(self, pairs: int) -> tuple[Real, float]:
        """How requests follow each other.

        Args:
            pairs: how many, from the start of the network on.

        Returns:
            How often one begins at each place of the pattern, shape (period,), and the mean
            number of ticks from one pair to the next.
        """
        bin_ticks, ends, between = self.schedule.bin_ticks, self.end_ticks(), self._between_ticks()
        chain = np.zeros((self.period, self.period))
        bins = np.zeros(self.period)
        for phase in range(self.period):
            density = self._last(self.heralds(phase))
            at = np.arange(len(density))
            for end in ends:
                steps = (at + end + between) // bin_ticks + 1
                weights = density / len(ends)
                np.add.at(chain[phase], (phase + steps) % self.period, weights)
                bins[phase] += float(steps @ weights)
        # Which places come up may depend on the first one, so there need be no one distribution
        # that is approached. Nothing is asked for before bin 0, so the first one is bin 1.
        now = np.zeros(self.period)
        now[FIRST_BIN % self.period] = 1.0
        phases, spacings = np.zeros(self.period), np.zeros(self.period)
        for number in range(pairs):
            phases += now / pairs
            if number:
                spacings += now / (pairs - 1)
            now = now @ chain
        return phases, float((spacings if pairs > 1 else phases) @ bins) * bin_ticks
