"""How good pairs over several links are, computed without the operating system.

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
    waiting        exp(-t/T2) for XX and YY, exp(-t/T1) for ZZ, averaged over the times t at
                   which the links herald, along the path
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.assembly.description import LinkDescription
from qnodeos.experiments.network_times import INSTRUCTION, SURVIVAL, FlowTimes, Herald
from qnodeos.qdevice.outcomes import BellState
from sim.entangled_state import BELL_VECTORS
from sim.noise import NS_PER_MS
from sim.pauli import PauliState
from sim.register_physics import QubitPhysics, RegisterPhysics

Real = NDArray[np.float64]

CELLS: Final = 128
"""Into how many times heralds are sorted when waiting is averaged."""


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


class FlowFidelity:
    """The fidelity of the pairs of a flow.

    Args:
        times: of the flow.
    """

    def __init__(self, times: FlowTimes) -> None:
        self._times = times

    def average(self, phases: Real) -> float:
        """Fidelity of the pairs delivered.

        Args:
            phases: how often a request begins at each place of the pattern, shape (period,).
        """
        kept = np.ones(3)
        for place, link in enumerate(self._times.links):
            kept *= correlations(link)
            if not self._times.is_measured_herald:
                kept *= self._gate_factor(link.link.protocol.heralds, place + 1)
        for physics in self._times.nodes[1:-1]:
            kept *= _swap_factors(physics)
        if self._times.is_circuit:
            kept *= self._gate_factor(tuple(BellState), len(self._times.nodes) - 1)
        if not self._times.is_measured_herald:
            kept *= self._waiting(phases)
        if not self._times.measured:
            return float(1 + kept.sum()) / 4
        return self._measured_fidelity(kept)

    def _gate_factor(self, bells: Sequence[BellState], place: int) -> float:
        kept = 1 - self._times.nodes[place].communication.gate_depolarising
        return sum(kept ** self._times.gates[bell] for bell in bells) / len(bells)

    def _measured_fidelity(self, kept: Real) -> float:
        first, last = (self._times.nodes[place].communication for place in (0, -1))
        rotated = (1 - first.gate_depolarising) * (1 - last.gate_depolarising)
        contrast = _contrast(first) * _contrast(last)
        bias = _bias(first) * _bias(last)
        x, y, z = contrast * kept * np.array([rotated, rotated, 1.0])
        return float(1 + (x + bias) + (y - bias) + (z + bias)) / 4

    def _waiting(self, phases: Real) -> Real:
        """Average of what waiting leaves of the correlations; shape (3,)."""
        comms = [physics.communication for physics in self._times.nodes]
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
        heralds = self._times.heralds(phase)
        cells = _Cells(heralds)
        last = len(self._times.nodes) - 1
        tail = float(np.mean(self._times.end_ticks()))
        if self._times.measured:  # each end reads its half out at the end of its own measurement
            tail -= float(np.mean(self._times.measurement_ticks())) / 2
        shift = float(np.mean(self._times.shifts(0))) + tail
        matrices = []
        for place in range(1, last):
            first, second = cells.times[place - 1], cells.times[place]
            delay = float(np.mean(self._times.segment_ticks(place - 1)))
            ready = np.maximum(first[:, None] + delay, second[None, :]) + INSTRUCTION
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
        physics = self._times.nodes[place].communication
        tick_ms = self._times.network.tick_ns / NS_PER_MS
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
