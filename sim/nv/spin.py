"""The electron spin of a simulated NV centre, driven by what an AWG really played.

Theory of operation
-------------------
The spin follows the timeline of the AWG, in samples, in the frame that rotates at the
frequency of the microwave source. Between pulses it precesses with its detuning, which
depends on the state of the 14N nucleus: one of three lines, drawn anew whenever the spin is
reset by light. Pulses act by their propagators, and repeated stretches (decoupling) by a
power of that of one period.

All this is a product of SU(2) matrices, and it is kept as one (`_pending`). The quantum state,
which may be half of an entangled pair, is only touched when something does not commute with
dephasing. The surroundings take the coherences as exp(-(t/T)^n) of the qubit's age, and a
turn about Z or a pi pulse commutes with that; so before any other pulse, and before somebody
looks, the pending rotation and the decay up to then are applied together. Within a repeat
the decay acts once in every period.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.hdawg.timeline import Play, Repeat
from sim.hdawg.timing import SAMPLE_RATE_HZ
from sim.nv.physics import NVPhysics
from sim.nv.propagator import IDENTITY, Drive, Pulse, PulseLibrary, Rotation, precession
from sim.pauli import PauliState, Qubit

LINES: Final = (-1, 0, 1)
"""The 14N lines, by nuclear spin; equally likely (assumed: the nucleus is not polarised)."""

COMMUTING: Final = 2e-3
"""How far a pulse's flip probability may be from 0 or 1 for it to commute with dephasing.

A pi pulse on the outer lines lacks 6e-4, the smallest rotation (pi/16) has 1e-2.
"""
MAX_CACHED_PERIODS: Final = 1024
"""Bound on the periods a spin remembers; when it is reached all are dropped."""

_NS_PER_SAMPLE: Final = 1e9 / SAMPLE_RATE_HZ


class Microwaves(NamedTuple):
    """What the source of the microwaves does.

    Attributes:
        frequency_hz: of the source.
        power_dbm: of the source.
        on: whether its output is on; it is the frame of the spin also when it is off.
        gains: factors of the two outputs of the AWG, for I and Q; 0 for one switched off.
    """

    frequency_hz: float
    power_dbm: float
    on: bool = True
    gains: tuple[float, float] = (1.0, 1.0)


class Period(NamedTuple):
    """One period of a repeat, on one line.

    Attributes:
        start: where its first pulse starts, in samples after the period's start.
        stop: where its last pulse stops.
        rotation: from the first to the last.
    """

    start: int
    stop: int
    rotation: Rotation


class _Known(NamedTuple):
    """What is remembered of a repeat: its plays, what they do on each line, and leave held."""

    plays: tuple[Play, ...]
    lines: tuple[Period, ...]
    held: tuple[float, float]


class ElectronSpin:
    """The electron spin of one centre.

    Args:
        physics: of the centre.
        microwaves: asked for the state of the source whenever something is played.
        rng: draws the 14N lines.

    Attributes:
        physics: of the centre.
        line: the 14N line the spin is on, one of `LINES`.
    """

    def __init__(
        self, physics: NVPhysics, microwaves: Callable[[], Microwaves], rng: random.Random
    ) -> None:
        self.physics = physics
        self._microwaves = microwaves
        self._rng = rng
        self._library = PulseLibrary(physics.hyperfine_hz)
        self._periods: dict[tuple[int, Drive], _Known] = {}
        self._driven_by: Microwaves | None = None
        self._drive: Drive
        self.current_drive()
        self._held = (0.0, 0.0)
        self._qubit: Qubit
        self._hold(PauliState.from_populations(0.5).qubits[0], 0)

    @property
    def sample(self) -> int:
        """Up to where the spin was brought: nothing can be done to it before."""
        return self._reached

    @property
    def age_samples(self) -> int:
        """How long the state has existed, up to `sample`."""
        return self._reached - self._origin

    # --- what light and heralds do ------------------------------------------------------

    def reset(self, sample: int, zero: float | None = None) -> None:
        """Prepare |0> by light, on a line of its own.

        Args:
            sample: when the light goes off.
            zero: population of |0>; None for what long spin pumping makes.

        Raises:
            ValueError: something happened to the spin after that time.
        """
        self._check(sample)
        self._qubit.discard()
        population = 1 - self.physics.initialisation_error if zero is None else zero
        self._hold(PauliState.from_populations(population).qubits[0], sample)

    def pump(self, sample: int, left: float, uniform: float) -> None:
        """Pump towards |0>, on a new line.

        Args:
            sample: when the light goes off; it destroys the coherences.
            left: part of the way to the end that is left, exp(-duration / time constant).
            uniform: a random number that decides what an entangled spin was.

        Raises:
            ValueError: something happened to the spin after that time.
        """
        self._check(sample)
        if self._qubit.state.tensor.ndim > 1:
            # As good as keeping the correlations: what light leaves of them is classical.
            self.measure(sample, uniform)
        self._apply_pending_to_z(sample)
        one = 1 - self._qubit.probability_of_zero()
        end = self.physics.initialisation_error
        self.reset(sample, 1 - (end + (one - end) * left))

    def adopt(self, qubit: Qubit, sample: int) -> None:
        """Hold one half of a heralded pair, on a new line.

        Args:
            qubit: the half; the spin's own state before is forgotten.
            sample: when it came to be: the middle of the pulse that set alpha. What was
                played before must not be played to the spin afterwards.
        """
        self._qubit.discard()
        self._hold(qubit, sample)

    def measure(self, sample: int, uniform: float) -> int:
        """Measure Z and keep the spin, in the state found.

        Args:
            sample: when; nothing that was played before may be missing.
            uniform: a random number, uniform in [0, 1), that decides.

        Returns:
            0 or 1.

        Raises:
            ValueError: something happened to the spin after that time.
        """
        self._check(sample)
        self._apply_pending_to_z(sample)
        bit = self._qubit.measure(uniform)
        self._qubit = PauliState.from_populations(1 - bit).qubits[0]
        self._origin = sample
        return bit

    # --- what the AWG plays ---------------------------------------------------------------

    def play(self, items: Iterable[Play | Repeat]) -> None:
        """Let the AWG's output act; items in the order of time, none left out.

        Raises:
            ValueError: a pulse begins before `sample`.
        """
        self.current_drive()
        for item in items:
            if isinstance(item, Play):
                pulse = self._pulse(item)
                if pulse is not None:
                    self._play(pulse, item.start_sample)
            else:
                self._repeat(item)

    def current_drive(self) -> Drive:
        """What the microwaves there are now do to the spin."""
        state = self._microwaves()
        if state is not self._driven_by:
            self._driven_by = state
            gains = state.gains if state.on else (0.0, 0.0)
            self._drive = self.physics.drive(state.frequency_hz, state.power_dbm, gains)
        return self._drive

    # --- looking ----------------------------------------------------------------------------

    def bring_to(self, sample: int) -> Qubit:
        """Let the spin be as it is at a sample, and return its handle, to look at.

        Raises:
            ValueError: something happened to the spin after that time.
        """
        self._check(sample)
        self._apply_pending(sample)
        return self._qubit

    def state_at(self, sample: int) -> PauliState:
        """A copy of the spin's own state at a sample; changes nothing.

        Raises:
            ValueError: something happened to the spin after that time.
        """
        self._check(sample)
        copy = self._qubit.reduced()
        copy.apply(0, self._pending_map(sample))
        return copy

    # --- behind -----------------------------------------------------------------------------

    @property
    def _detuning_hz(self) -> float:
        return self._drive.detuning_hz + self.line * self.physics.hyperfine_hz

    def _hold(self, qubit: Qubit, sample: int) -> None:
        self._qubit = qubit
        self.line = self._rng.choice(LINES)
        self._origin = self._decayed_to = self._reached = sample
        self._pending = IDENTITY

    def _check(self, sample: int) -> None:
        if sample < self._reached:
            raise ValueError(
                f"the spin is at sample {self._reached} already and cannot go back to {sample}; "
                "give it light and microwaves in the order of time"
            )

    def _pulse(self, play: Play) -> Pulse | None:
        amplitudes = play.levels.amplitudes
        if play.waveform is not None:
            last_i, last_q = play.waveform.values[-1].tolist()
            self._held = (last_i * amplitudes[0], last_q * amplitudes[1])
            return self._library.pulse(play.waveform, self._drive, amplitudes)
        if play.is_held and any(self._held):
            return self._library.hold(self._held, play.n_samples, self._drive)
        return None

    def _play(self, pulse: Pulse, at: int) -> None:
        start = at + pulse.start
        self._check(start)
        rotation = pulse.lines[1 + self.line]
        flipped = rotation.flip_probability
        if min(flipped, 1 - flipped) > COMMUTING:
            self._apply_pending(start)
            self._pending = rotation
        else:
            waited = precession(start - self._reached, self._detuning_hz)
            self._pending = rotation.after(waited).after(self._pending)
        self._reached = at + pulse.stop

    def _repeat(self, repeat: Repeat) -> None:
        period = self._period(repeat.plays)
        if period is None:
            return
        first = repeat.start_sample + period.start
        length = repeat.period_samples
        self._check(first)
        self._apply_pending(first)
        # From first pulse to first pulse as often as that is whole, then the last pulses.
        turns = repeat.count - 1
        if turns:
            idle = length - (period.stop - period.start)
            unit = precession(idle, self._detuning_hz).after(period.rotation)
            reached = first + turns * length
            # Half of a period's decay before it and half after it, as it really is spread.
            half = self._kept(reached) ** (0.5 / turns)
            decay = np.array([half, half, 1.0])
            one_turn = decay[:, None] * unit.bloch() * decay
            self._qubit.apply(_padded(np.linalg.matrix_power(one_turn, turns)))
            self._decayed_to = reached
        self._pending = period.rotation
        self._reached = first + turns * length + period.stop - period.start

    def _period(self, plays: tuple[Play, ...]) -> Period | None:
        # By identity: to hash a tuple of plays takes longer than all the rest. The entry
        # keeps the tuple, so its id stays its own.
        key = (id(plays), self._drive)
        known = self._periods.get(key)
        if known is None:
            if len(self._periods) >= MAX_CACHED_PERIODS:
                self._periods.clear()
            lines = self._computed_period(plays)
            known = self._periods[key] = _Known(plays, lines, self._held)
        self._held = known.held
        return known.lines[1 + self.line] if known.lines else None

    def _computed_period(self, plays: tuple[Play, ...]) -> tuple[Period, ...]:
        """The period on each of the lines; empty if it plays nothing."""
        played = [(play.start_sample, pulse) for play in plays if (pulse := self._pulse(play))]
        if not played:
            return ()
        periods = []
        start = played[0][0] + played[0][1].start
        for index, line in enumerate(LINES):
            detuning_hz = self._drive.detuning_hz + line * self.physics.hyperfine_hz
            total, reached = IDENTITY, start
            for at, pulse in played:
                waited = precession(at + pulse.start - reached, detuning_hz)
                total = pulse.lines[index].after(waited).after(total)
                reached = at + pulse.stop
            periods.append(Period(start, reached, total))
        return tuple(periods)

    def _kept(self, sample: int) -> float:
        """Factor of the coherences from the last decay applied up to a sample."""
        return self.physics.coherence_factor(
            (self._decayed_to - self._origin) * _NS_PER_SAMPLE,
            (sample - self._origin) * _NS_PER_SAMPLE,
        )

    def _pending_map(self, sample: int) -> NDArray[np.float64]:
        waited = precession(sample - self._reached, self._detuning_hz)
        kept = self._kept(sample)
        decay = np.array([[kept], [kept], [1.0]])
        return _padded(decay * waited.after(self._pending).bloch())

    def _apply_pending(self, sample: int) -> None:
        if sample > self._decayed_to or self._pending is not IDENTITY:
            self._qubit.apply(self._pending_map(sample))
        self._decayed_to = self._reached = sample
        self._pending = IDENTITY

    def _apply_pending_to_z(self, sample: int) -> None:
        """The same where all but Z is lost: waiting alone changes nothing of it."""
        if self._pending is not IDENTITY:
            self._apply_pending(sample)
        self._decayed_to = self._reached = sample


def _padded(bloch: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transfer matrix, shape (4, 4), of what happens to the Bloch vector."""
    matrix = np.zeros((4, 4))
    matrix[0, 0] = 1
    matrix[1:, 1:] = bloch
    return matrix
