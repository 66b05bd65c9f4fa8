"""The simulated heralding station between two nodes: attempts in, heralds out.

An attempt succeeds only together with one of the other node: the station pairs what the two
AWGs have played by the times at which the photons arrive. Which attempt is heralded is drawn
ahead (attempts are independent, so that the number of the next herald is geometrically
distributed) and attempts are counted in bulk, so that a batch of a thousand costs no more than
one of ten.

The chance of a herald and the state it leaves are those of the single-photon protocol
(`sim.entangled_state`), with the bright-state populations that the microwave pulses really make.
A click without a partner at the other node, which would herald nothing but noise, is left out:
attempts of one node alone never herald.

A shutter can block the optical pulses of a node: its attempts then emit nothing, and none is
heralded. What a time tagger sees of single photons is in `sim.lab.arrivals`.

The link has to be prepared (phase-locked) after a herald and after a long idle time, as in
`sim.link`: attempts before that cannot succeed.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NamedTuple

from qnodeos.errors import LimitError
from qnodeos.qdevice.outcomes import BellState
from sim.entangled_state import ALPHA_MAX, ALPHA_MIN, SinglePhotonProtocol
from sim.heralding import SimulatedCpld
from sim.lab.arrivals import PhotonArrivals
from sim.lab.timing import SAMPLES_PER_NS, LabTiming
from sim.link import LinkParameters
from sim.noise import NS_PER_MS
from sim.pauli import Qubit

ASSUMED_WINDOW_NS: Final = 15.0
"""Detection window of a protocol that has none (assumed, as `SinglePhotonProtocol.window_ns`)."""
MAX_GROUPS: Final = 10_000
"""Bound on the groups of attempts of one node that wait for the other's."""

_NO_HERALD: Final = 1 << 40
"""More attempts than will ever be made."""


@dataclass
class Attempts:
    """Equal attempts of one node, one after the other.

    Attributes:
        arrival_sample: when the photon of the first one arrives at the detectors.
        gate: how long before that its detection gate opened, and how long it is, in samples;
            None without a gate.
        period_samples: from one to the next.
        count: how many.
        alpha: bright-state population that the microwave pulse makes.
        alpha_sample: middle of that pulse of the first one.
    """

    arrival_sample: float
    gate: tuple[float, int] | None
    period_samples: int
    count: int
    alpha: float
    alpha_sample: int

    def drop(self, count: int) -> None:
        """Take attempts off the front."""
        self.arrival_sample += count * self.period_samples
        self.alpha_sample += count * self.period_samples
        self.count -= count


class Herald(NamedTuple):
    """A herald.

    Attributes:
        time_ns: at which the herald line rises at both nodes.
        bell: which state.
        spins: of the two nodes.
        alpha_samples: since when they have been in that state, at each node.
    """

    time_ns: float
    bell: BellState
    spins: tuple[Qubit, Qubit]
    alpha_samples: tuple[int, int]


class HeraldingStation:
    """Detectors and logic between two nodes.

    Args:
        parameters: protocol, preparation and mocking; periods and batches are the nodes' own.
        timing: delays.
        rng: decides about heralds only.
        cpld: its chip, with the detection window and the counters.

    Attributes:
        attempts: pairs of attempts that coincided so far.
        heralds: how many of them were heralded.
        last_arrival: of the photons of the last pair, in samples, at the first node's clock.
        arrivals: told of all attempts and toggle lines; None without a time tagger.
        blocked: nodes, 0 and 1, whose optical pulses a shutter blocks.
    """

    def __init__(
        self,
        parameters: LinkParameters,
        timing: LabTiming,
        rng: random.Random,
        cpld: SimulatedCpld | None = None,
    ) -> None:
        self.cpld = cpld or SimulatedCpld()
        self.parameters = parameters
        self.attempts = 0
        self.heralds = 0
        self._timing = timing
        self._rng = rng
        self.arrivals: PhotonArrivals | None = None
        self.blocked: Collection[int] = ()
        self._is_hopeless = False
        self._waiting: tuple[deque[Attempts], deque[Attempts]] = (deque(), deque())
        self._window_samples = parameters_window_ns(parameters) * SAMPLES_PER_NS
        self._protocols: dict[tuple[float, ...], SinglePhotonProtocol] = {}
        self._drawn_for = -1.0
        self._remaining = 0
        self._prepared_at: float | None = None
        self.last_arrival = -math.inf
        self._last_period = 0

    def add(self, node: int, attempts: Attempts) -> None:
        """Take what one node has played.

        Raises:
            LimitError: the other node is far behind.
        """
        waiting = self._waiting[node]
        if len(waiting) >= MAX_GROUPS:
            raise LimitError(f"{MAX_GROUPS} groups of attempts wait for those of the other node")
        if node:
            offset = self._timing.arrival_offset_ns * SAMPLES_PER_NS
            attempts.arrival_sample += offset
            if attempts.gate is not None:
                attempts.gate = attempts.gate[0] + offset, attempts.gate[1]
        if self.arrivals is not None and node not in self.blocked:
            self.arrivals.attempt(
                node,
                attempts.alpha,
                attempts.arrival_sample,
                attempts.period_samples,
                attempts.count,
            )
        waiting.append(attempts)

    def toggle(self, node: int, time_ns: int, level: bool) -> None:
        """The toggle line of a node's ADwin changes; see `PhotonArrivals.mark`."""
        if self.arrivals is not None:
            self.arrivals.mark(node, time_ns, level)

    def clear(self) -> None:
        """Forget attempts that found no partner: what was played before a herald ended it all."""
        for waiting in self._waiting:
            waiting.clear()

    def match(self) -> Herald | None:
        """Pair the attempts that both nodes have played, up to a herald.

        Raises:
            RuntimeError: the nodes were let run beyond a herald: a fault of the simulation.
        """
        first, second = self._waiting
        while first and second:
            a, b = first[0], second[0]
            early = a.arrival_sample - b.arrival_sample
            if abs(early) > self._window_samples:
                alone = first if early < 0 else second
                alone[0].drop(1)
                if not alone[0].count:
                    alone.popleft()
                continue
            count = min(a.count, b.count)
            if a.period_samples != b.period_samples:
                count = 1
            number = self._count(a, b, count)
            if number is not None:
                if number < count or len(first) > 1 or len(second) > 1:
                    raise RuntimeError("attempts were played beyond their herald")
                herald = self._herald(a, b, number)
                self.clear()
                return herald
            for waiting in (first, second):
                waiting[0].drop(count)
                if not waiting[0].count:
                    waiting.popleft()
        return None

    def attempts_to_herald(self) -> int:
        """How many more pairs of attempts it takes, if they go on as the last ones did."""
        if self._is_hopeless:
            return _NO_HERALD
        if self._prepared_at is None:
            return 1
        missing = self._prepared_at - (self.last_arrival + self._last_period)
        useless = max(0, math.ceil(missing / self._last_period)) if self._last_period else 0
        return useless + self._remaining

    def _count(self, a: Attempts, b: Attempts, count: int) -> int | None:
        """Count pairs of attempts; which of them, from 1, is heralded, or None."""
        arrival, period = a.arrival_sample, a.period_samples
        idle_samples = self.parameters.idle_reset_ms * NS_PER_MS * SAMPLES_PER_NS
        if self._prepared_at is None or arrival - self.last_arrival > idle_samples:
            preparation_ns = self.parameters.preparation_ms * NS_PER_MS
            self._prepared_at = arrival + preparation_ns * SAMPLES_PER_NS
        self._draw(self._chance(a, b))
        self.attempts += count
        self.cpld.count_attempts(count)
        useless = 0
        self._is_hopeless = bool(self.blocked) or not (
            self._is_in_window(a) and self._is_in_window(b)
        )
        if self._is_hopeless:
            useless = count
        elif self._prepared_at > arrival:
            useless = math.ceil((self._prepared_at - arrival) / period) if period else 1
        useful = max(0, count - useless)
        self.last_arrival = arrival + (count - 1) * period
        self._last_period = period
        if useful < self._remaining:
            self._remaining -= useful
            return None
        return min(useless, count) + self._remaining

    def _is_in_window(self, attempts: Attempts) -> bool:
        if attempts.gate is None:
            return False
        late, length = attempts.gate
        opens_ns, closes_ns = self.cpld.window_ns
        return 0 <= late < length and opens_ns <= late / SAMPLES_PER_NS < closes_ns

    def _chance(self, a: Attempts, b: Attempts) -> float:
        protocol = self.parameters.protocol
        if isinstance(protocol, SinglePhotonProtocol):
            protocol = self._played(protocol, a, b)
        return protocol.success_probability

    def _played(
        self, protocol: SinglePhotonProtocol, a: Attempts, b: Attempts
    ) -> SinglePhotonProtocol:
        """The protocol with what was really played."""
        # Rounded: the sum of samples and an offset is not the same to the last bit every time.
        late_ns = round(abs(a.arrival_sample - b.arrival_sample) / SAMPLES_PER_NS, 3)
        key = (a.alpha, b.alpha, late_ns)
        played = self._protocols.get(key)
        if played is None:
            if len(self._protocols) >= MAX_GROUPS:
                self._protocols.clear()
            overlap = math.exp(-late_ns / self._timing.lifetime_ns)
            # Not `model_copy`, which would copy the state that the protocol has cached.
            played = self._protocols[key] = SinglePhotonProtocol.model_validate(
                {
                    **protocol.model_dump(),
                    "alpha_a": min(ALPHA_MAX, max(ALPHA_MIN, a.alpha)),
                    "alpha_b": min(ALPHA_MAX, max(ALPHA_MIN, b.alpha)),
                    "visibility": protocol.visibility * overlap,
                }
            )
        return played

    def _draw(self, chance: float) -> None:
        # Drawing again for another chance is fair: that an attempt failed says nothing about
        # the next.
        if chance != self._drawn_for or not self._remaining:
            self._drawn_for = chance
            failure = math.log1p(-chance) if chance < 1 else -math.inf
            self._remaining = int(math.log1p(-self._rng.random()) / failure) + 1

    def _herald(self, a: Attempts, b: Attempts, number: int) -> Herald:
        self.heralds += 1
        self._remaining = 0
        self._prepared_at = None
        protocol = self.parameters.protocol
        if isinstance(protocol, SinglePhotonProtocol):
            protocol = self._played(protocol, a, b)
        bell = protocol.heralds[int(self._rng.random() * len(protocol.heralds))]
        pair = protocol.state(bell)
        spins = pair.qubits[0], pair.qubits[1]
        if self.parameters.mocked:
            spins = pair.reduced(0).qubits[0], pair.reduced(1).qubits[0]
        assert a.gate is not None
        self.cpld.click(protocol.heralds.index(bell), a.gate[0] / SAMPLES_PER_NS)
        self.cpld.count_herald()
        for attempts in (a, b):
            attempts.drop(number - 1)
        late = max(a.arrival_sample, b.arrival_sample)
        return Herald(
            late / SAMPLES_PER_NS + self._timing.herald_ns,
            bell,
            spins,
            (a.alpha_sample, b.alpha_sample),
        )


def parameters_window_ns(parameters: LinkParameters) -> float:
    """The detection window, in which both photons have to arrive."""
    protocol = parameters.protocol
    return protocol.window_ns if isinstance(protocol, SinglePhotonProtocol) else ASSUMED_WINDOW_NS
