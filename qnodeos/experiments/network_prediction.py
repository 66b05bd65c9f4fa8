"""What pairs over several links should be like, computed without the operating system.

Fidelity
--------
Every imperfection is taken as a random Pauli operator, so that a state is described by its
correlations t = (XX, YY, ZZ), those of Phi+ being (1, 1, 1) after the sign of YY is turned, and
all that happens multiplies them; the fidelity is (1 + XX + YY + ZZ) / 4. Swapping multiplies the
correlations of the two pairs, which for Werner pairs is the product of their weights. For pairs
that are no mixtures of Bell states that holds on average over the outcomes of the swaps, each
corrected (Bowen and Bose, Phys. Rev. Lett. 87, 267901 (2001)). Factors are

    link           of the state heralded
    gates          1 - p for a rotation or a gate on two qubits with depolarising probability p
    swap           1 - 2 e where a readout error e means the wrong correction: ZZ and YY for the
                   first bit, XX and YY for the second; e is averaged over the two readings
    waiting        exp(-t/T2) for XX and YY, exp(-t/T1) for ZZ, averaged over the times t

Rate
----
A request makes the segments of its path all at once, from the time bin after the one in which
the far end has agreed. In the bins of its link a segment is heralded at the first success of
attempts that fail independently, so the time of its herald has a known distribution, and the
pair is there when the last of them is: its distribution function is the product of theirs. The
bin in which the next request begins follows, and with it a Markov chain of the place of that bin
in the pattern, from whose stationary distribution comes the mean time per pair. The average over
waiting times is taken over the same distributions, along the path.

Assumed: software without latencies, programs that ask for the next pair at once, nodes with
generic devices, and flows that have their links for themselves. Where they wait for each other
at one repeater, `network_sharing` says when their turns come.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.assembly.description import GenericDevice, LinkDescription, NetworkDescription
from qnodeos.assembly.platforms import PLATFORMS
from qnodeos.errors import ConfigurationError
from qnodeos.experiments.network_sharing import Hop, shared_turns
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.routes import make_routes
from sim.entangled_state import BELL_VECTORS
from sim.noise import NS_PER_MS
from sim.pauli import PauliState
from sim.register_physics import QubitPhysics, RegisterPhysics

Real = NDArray[np.float64]

SURVIVAL: Final = 1e-9
"""Probability, of no herald so far, at which a distribution is cut off."""
BINS_MAX: Final = 20_000
"""Bins of a link until then; more are not computed."""
QUBITS_EACH: Final = 2
"""Qubits of a repeater that a circuit needs."""
CELLS: Final = 128
"""Into how many times heralds are sorted when waiting is averaged."""

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
    network: NetworkDescription, flows: Sequence[tuple[str, str]], *, measured: bool = False
) -> list[Prediction]:
    """Fidelity and rate of pairs of several flows at once, each asked for one after another.

    Args:
        network: nodes, links and bins.
        flows: for each, the node that asks, and the other end.
        measured: whether both ends measure at once, in X, Y and Z in turn.

    Raises:
        ConfigurationError: there is no path, nothing is predicted for the devices on it, or
            flows wait for each other at more than one node.
    """
    paths = [find_path(network, source, destination) for source, destination in flows]
    for name in dict.fromkeys(name for path in paths for name in path):
        if not isinstance(network.nodes[name].device, GenericDevice):
            raise ConfigurationError(
                f"nothing is predicted for paths over node {name}: its device is no generic one"
            )
    models = [_Flow(network, path, measured) for path in paths]
    repeater = _crowded(network, paths)
    if repeater is None:
        found = [model.phases_and_spacing() for model in models]
    else:
        hops = [
            [Hop(_places(network, link), _in_one_bin(network, link)) for link in model.links]
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
        predictions.append(Prediction(path, model.fidelity(phases), 1e3 / spacing_ms, spacing_ms))
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


def _places(network: NetworkDescription, link: LinkDescription) -> frozenset[int]:
    """Places in the pattern at which a link is used."""
    return frozenset(
        place for place, links in enumerate(network.bins) if set(link.between) in map(set, links)
    )


def _in_one_bin(network: NetworkDescription, link: LinkDescription) -> float:
    """Probability of a herald in a whole bin."""
    first = herald(network, link, min(_places(network, link)))
    bin_ticks = network.schedules()[link.between[0]].bin_ticks
    return float(first.probabilities[first.ticks < bin_ticks].sum())


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
    routes = make_routes(
        {(ids[link.between[0]], ids[link.between[1]]): link.estimate for link in network.links}
    )
    path = [source]
    while path[-1] != destination:
        route = routes.get(ids[path[-1]], {}).get(ids[destination])
        if route is None:
            raise ConfigurationError(f"no path leads from node {source} to node {destination}")
        path.append(names[route.next_hop])
    return tuple(path)


# --- one link ---------------------------------------------------------------------------


def correlations(link: LinkDescription) -> Real:
    """XX, YY and ZZ of a heralded pair, as of Phi+; shape (3,), averaged over the heralds."""
    protocol = link.link.protocol
    found = []
    for bell in protocol.heralds:
        state = protocol.state(bell)
        if link.link.mocked:
            state = _product(state)
        signs = PauliState.from_pure(BELL_VECTORS[bell])
        found.append([state.expectation(n, n) * signs.expectation(n, n) for n in (1, 2, 3)])
    average: Real = np.mean(np.array(found), axis=0)
    return average


def _product(state: PauliState) -> PauliState:
    product = state.reduced(0)
    product.absorb(state.reduced(1))
    return product


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
    places, period = _places(network, link), len(network.bins)
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


# --- a path -----------------------------------------------------------------------------


class _Flow:
    """One flow: a path, its physics, and when things happen on it."""

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

    # --- times ------------------------------------------------------------------------

    def correction_ticks(self, bell: BellState, physics: RegisterPhysics) -> int:
        """How long it takes to make a pair Phi+ at one end."""
        return self.gates[bell] * (INSTRUCTION + physics.communication.gate_ticks)

    def _segment_ticks(self, place: int) -> list[int]:
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

    def _shifts(self, place: int) -> list[int]:
        """From the herald of a segment until the tail knows of it, if it is the last."""
        segment = self._segment_ticks(place)
        if not self.is_circuit:
            return segment
        if place < len(self.links) - 1:
            return [each + self._swap_ticks(place + 1) for each in segment]
        return [max(each, self._swap_ticks(place)) for each in segment]

    def _end_ticks(self) -> list[int]:
        """From then until both ends have the pair, for each case, all equally likely."""
        ends = [0]
        if self.is_circuit:
            ends = [self.correction_ticks(bell, self.nodes[-1]) for bell in BellState]
        if not self.measured or not self.is_circuit:
            return ends
        return [each + both for each in ends for both in self._measurement_ticks()]

    def _measurement_ticks(self) -> list[int]:
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
            int(each.ticks[-1]) + max(self._shifts(place)) for place, each in enumerate(heralds)
        )
        together = np.ones(horizon + 1)
        for place, each in enumerate(heralds):
            density = np.zeros(horizon + 1)
            shifts = self._shifts(place)
            for shift in shifts:
                np.add.at(density, each.ticks + shift, each.probabilities / len(shifts))
            together *= np.cumsum(density)
        return np.diff(together, prepend=0.0)

    def phases_and_spacing(self) -> tuple[Real, float]:
        """How often a request begins at each place of the pattern, and ticks per pair."""
        bin_ticks, ends, between = self.schedule.bin_ticks, self._end_ticks(), self._between_ticks()
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
        # Some places may never be reached again, so that power iteration is not enough.
        system = np.vstack([chain.T - np.eye(self.period), np.ones(self.period)])
        wanted = np.append(np.zeros(self.period), 1.0)
        phases = np.linalg.lstsq(system, wanted, rcond=None)[0].clip(min=0)
        phases /= phases.sum()
        return phases, float(phases @ bins) * bin_ticks

    # --- fidelity ---------------------------------------------------------------------

    def fidelity(self, phases: Real) -> float:
        """Of the pairs delivered, averaged over the places at which their requests begin."""
        kept = np.ones(3)
        for place, link in enumerate(self.links):
            kept *= correlations(link)
            if not self.is_measured_herald:
                kept *= self._gate_factor(link.link.protocol.heralds, place + 1)
        for physics in self.nodes[1:-1]:
            kept *= _swap_factors(physics)
        if self.is_circuit:
            kept *= self._gate_factor(tuple(BellState), len(self.nodes) - 1)
        if not self.is_measured_herald:
            kept *= self._waiting(phases)
        if not self.measured:
            return float(1 + kept.sum()) / 4
        return self._measured_fidelity(kept)

    def _gate_factor(self, bells: Sequence[BellState], place: int) -> float:
        kept = 1 - self.nodes[place].communication.gate_depolarising
        return sum(kept ** self.gates[bell] for bell in bells) / len(bells)

    def _measured_fidelity(self, kept: Real) -> float:
        first, last = (self.nodes[place].communication for place in (0, -1))
        rotated = (1 - first.gate_depolarising) * (1 - last.gate_depolarising)
        contrast = _contrast(first) * _contrast(last)
        bias = _bias(first) * _bias(last)
        x, y, z = contrast * kept * np.array([rotated, rotated, 1.0])
        return float(1 + (x + bias) + (y - bias) + (z + bias)) / 4

    def _waiting(self, phases: Real) -> Real:
        """Average of what waiting leaves of the correlations; shape (3,)."""
        comms = [physics.communication for physics in self.nodes]
        kept = np.ones(3)
        if any(math.isfinite(each.coherence_time_ms) for each in comms):
            kept[:2] = self._average(phases, _coherence)
        if any(math.isfinite(each.relaxation_time_ms) for each in comms):
            kept[2] = self._average(phases, _population)
        return kept

    def _average(self, phases: Real, decay: Decay) -> float:
        """Average, over the times of the heralds, of what all halves together keep."""
        return float(
            sum(
                weight * self._average_from(phase, decay)
                for phase, weight in enumerate(phases)
                if weight > SURVIVAL
            )
        )

    def _average_from(self, phase: int, decay: Decay) -> float:
        heralds = self.heralds(phase)
        cells = _Cells(heralds)
        last = len(self.nodes) - 1
        tail = float(np.mean(self._end_ticks()))
        if self.measured:  # each end reads its half out at the end of its own measurement
            tail -= float(np.mean(self._measurement_ticks())) / 2
        shift = float(np.mean(self._shifts(0))) + tail
        matrices = []
        for place in range(1, last):
            first, second = cells.times[place - 1], cells.times[place]
            ready = (
                np.maximum(
                    first[:, None] + float(np.mean(self._segment_ticks(place - 1))), second[None, :]
                )
                + INSTRUCTION
            )
            keeps = self._keeps(place, decay)
            matrices.append(keeps(ready - first[:, None]) * keeps(ready - second[None, :]))
        head, far = self._keeps(0, decay), self._keeps(last, decay)
        total = 0.0
        for cell, done in enumerate(cells.last + shift):
            left = head(done - cells.times[0]) * cells.weights[0]
            right = far(done - cells.times[-1])
            total += _restricted(left, matrices, right, cells, cell + 1)
            total -= _restricted(left, matrices, right, cells, cell)
        return total

    def _keeps(self, place: int, decay: Decay) -> Callable[[Real], Real]:
        physics, tick_ms = self.nodes[place].communication, self.network.tick_ns / NS_PER_MS
        return lambda ticks: decay(physics, np.maximum(ticks, 0) * tick_ms)


Decay = Callable[[QubitPhysics, Real], Real]
"""What of a correlation is left of a qubit that has waited, in ms."""


def _coherence(physics: QubitPhysics, waited_ms: Real) -> Real:
    kept: Real = np.exp(-((waited_ms / physics.coherence_time_ms) ** physics.coherence_exponent))
    return kept


def _population(physics: QubitPhysics, waited_ms: Real) -> Real:
    kept: Real = np.exp(-waited_ms / physics.relaxation_time_ms)
    return kept


class _Cells:
    """The heralds of all segments, sorted into cells of time.

    Attributes:
        times: mean time in each cell, for each segment; shape (segments, cells).
        weights: probability of each cell, for each segment; the same shape.
        last: mean time of the last herald of all, for each cell that it may be in.
    """

    def __init__(self, heralds: Sequence[Herald]) -> None:
        horizon = max(int(each.ticks[-1]) for each in heralds) + 1
        densities = np.zeros((len(heralds), horizon))
        for density, each in zip(densities, heralds, strict=True):
            np.add.at(density, each.ticks, each.probabilities)
        latest = np.diff(np.cumsum(densities, axis=1).prod(axis=0), prepend=0.0)
        everything = np.cumsum(densities.mean(axis=0) + latest) / 2
        places = np.minimum((everything * CELLS).astype(np.int64), CELLS - 1)
        cell = np.unique(places, return_inverse=True)[1]
        count = int(cell[-1]) + 1
        ticks = np.arange(horizon)
        self.weights = np.array([np.bincount(cell, each, count) for each in densities])
        sums = np.array([np.bincount(cell, each * ticks, count) for each in densities])
        middle = np.bincount(cell, ticks, count) / np.bincount(cell, minlength=count)
        self.times = np.divide(
            sums, self.weights, out=np.tile(middle, (len(heralds), 1)), where=self.weights > 0
        )
        weight = np.bincount(cell, latest, count)
        self.last = np.divide(
            np.bincount(cell, latest * ticks, count), weight, out=middle, where=weight > 0
        )


def _restricted(
    left: Real, matrices: Sequence[Real], right: Real, cells: _Cells, count: int
) -> float:
    """Sum over the times of all segments, of the first cells only."""
    if not count:
        return 0.0
    vector = left[:count]
    for place, matrix in enumerate(matrices, start=1):
        vector = (vector @ matrix[:count, :count]) * cells.weights[place][:count]
    return float(vector @ right[:count])


def _swap_factors(physics: RegisterPhysics) -> Real:
    error = 1 - (_contrast(physics.communication) + 1) / 2
    right = 1 - 2 * error
    factors: Real = (1 - physics.pair_depolarising) * np.array([right, right * right, right])
    return factors


def _contrast(physics: QubitPhysics) -> float:
    """What readout leaves of an expectation value."""
    return physics.readout_fidelity_0 + physics.readout_fidelity_1 - 1


def _bias(physics: QubitPhysics) -> float:
    """What readout adds to the expectation value."""
    return physics.readout_fidelity_0 - physics.readout_fidelity_1
