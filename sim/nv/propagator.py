"""What sampled microwaves do to a spin 1/2: propagators as Cayley-Klein pairs.

In the frame that rotates at the frequency of the source, one sample of I and Q is a constant
Hamiltonian

    H / hbar = 2 pi [ detuning/2 Z + rabi/2 (I X + Q Y) ],    |0> the +1 state of Z,

and its propagator is the SU(2) matrix ``[[a, -b*], [b, a*]]``, kept as the pair (a, b). A
waveform is the product of its samples, taken as a binary tree over arrays and for several
detunings at once. The sign of a rotation is that of `sim.pauli`: a positive I turns by
exp(-i angle X / 2).
"""

from __future__ import annotations

import cmath
import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.hdawg.timeline import Waveform
from sim.hdawg.timing import SAMPLE_RATE_HZ

Complex = NDArray[np.complex128]

MAX_CACHED_PULSES: Final = 8192
"""Bound on the pulses a library keeps; when it is reached all are dropped."""


class Rotation(NamedTuple):
    """An SU(2) matrix ``[[a, -b*], [b, a*]]``."""

    a: complex
    b: complex

    def after(self, earlier: Rotation) -> Rotation:
        """The product: ``earlier`` first, then this one."""
        a, b = self
        c, d = earlier
        return Rotation(a * c - b.conjugate() * d, b * c + a.conjugate() * d)

    @property
    def flip_probability(self) -> float:
        """Probability that |0> becomes |1>."""
        return abs(self.b) ** 2

    def unitary(self) -> Complex:
        """The matrix, shape (2, 2)."""
        a, b = self
        return np.array([[a, -b.conjugate()], [b, a.conjugate()]], dtype=np.complex128)

    def bloch(self) -> NDArray[np.float64]:
        """How it turns the Bloch vector, shape (3, 3)."""
        a, b = self
        squared = a.conjugate() ** 2
        of_x, of_y, of_z = squared - b * b, 1j * (squared + b * b), 2 * a.conjugate() * b
        ab = a * b
        return np.array(
            [
                [of_x.real, of_y.real, of_z.real],
                [of_x.imag, of_y.imag, of_z.imag],
                [-2 * ab.real, -2 * ab.imag, abs(a) ** 2 - abs(b) ** 2],
            ]
        )


IDENTITY: Final = Rotation(1 + 0j, 0j)


def precession(n_samples: float, detuning_hz: float) -> Rotation:
    """Free evolution: a turn about Z by 2 pi detuning t."""
    # The full turns go first: the phase of a long wait would lose digits.
    turns = math.fmod(detuning_hz * n_samples / SAMPLE_RATE_HZ, 2.0)
    return Rotation(cmath.exp(-1j * math.pi * turns), 0j)


class Drive(NamedTuple):
    """The microwaves behind the AWG.

    Attributes:
        detuning_hz: resonance of the middle 14N line less the frequency of the source.
        rabi_i_hz: Rabi frequency at full scale of I.
        rabi_q_hz: the same for Q.
    """

    detuning_hz: float
    rabi_i_hz: float
    rabi_q_hz: float


def propagators(
    values: ArrayLike, rabi_hz: tuple[float, float], detunings_hz: ArrayLike
) -> list[Rotation]:
    """The propagator of a waveform for every detuning.

    Args:
        values: I and Q of full scale, shape (n_samples, 2), at 2.4 GSa/s.
        rabi_hz: Rabi frequencies at full scale of I and Q.
        detunings_hz: shape (n_detunings,).

    Returns:
        One rotation a detuning; the whole waveform, first sample first.
    """
    per_sample = 2 * math.pi / SAMPLE_RATE_HZ
    x, y = (np.asarray(values, dtype=np.float64) * rabi_hz).T * per_sample
    z = np.asarray(detunings_hz, dtype=np.float64)[:, None] * per_sample
    half_angle = np.sqrt(x**2 + y**2 + z**2) / 2
    # sin(h)/2h, finite where nothing turns.
    scaled = np.sinc(half_angle / np.pi) / 2
    return _product(np.cos(half_angle) - 1j * scaled * z, -1j * scaled * (x + 1j * y))


def held(
    level: tuple[float, float],
    n_samples: int,
    rabi_hz: tuple[float, float],
    detunings_hz: ArrayLike,
) -> list[Rotation]:
    """The propagators of a constant I and Q; see `propagators`."""
    rates = np.asarray([level], dtype=np.float64) * n_samples
    return propagators(rates, rabi_hz, np.asarray(detunings_hz) * n_samples)


def _product(a: Complex, b: Complex) -> list[Rotation]:
    """Multiply along the last axis, later samples from the left."""
    while (count := a.shape[1]) > 1:
        odd_a, odd_b = a[:, count - count % 2 :], b[:, count - count % 2 :]
        first_a, first_b = a[:, 0 : count - 1 : 2], b[:, 0 : count - 1 : 2]
        later_a, later_b = a[:, 1:count:2], b[:, 1:count:2]
        a = np.concatenate([later_a * first_a - later_b.conj() * first_b, odd_a], axis=1)
        b = np.concatenate([later_b * first_a + later_a.conj() * first_b, odd_b], axis=1)
    # Rounding leaves the length of the pair a little off 1, and products would add that up.
    norm = np.sqrt(np.abs(a) ** 2 + np.abs(b) ** 2)
    pairs = zip((a / norm)[:, 0].tolist(), (b / norm)[:, 0].tolist(), strict=True)
    return [Rotation(one, other) for one, other in pairs]


class Pulse(NamedTuple):
    """The part of a waveform in which something is played.

    Attributes:
        start: its first sample in the waveform.
        stop: the sample after its last.
        lines: its propagator for each of the 14N lines -1, 0, +1, in this order.
    """

    start: int
    stop: int
    lines: tuple[Rotation, Rotation, Rotation]


class PulseLibrary:
    """Propagators of waveforms, computed once each.

    A waveform is known by its object: whatever is uploaded to an AWG, or one sample of it
    changed, is a new one.

    Args:
        hyperfine_hz: distance of the outer 14N lines from the middle one.
    """

    def __init__(self, hyperfine_hz: float) -> None:
        self._offsets_hz = np.array([-hyperfine_hz, 0.0, hyperfine_hz])
        self._pulses: dict[tuple[Waveform, Drive, tuple[float, float]], Pulse | None] = {}

    def pulse(
        self, waveform: Waveform, drive: Drive, amplitudes: tuple[float, float] = (1.0, 1.0)
    ) -> Pulse | None:
        """What a waveform does; None if it plays nothing but zeros.

        Args:
            waveform: from an AWG's timeline.
            drive: the microwaves.
            amplitudes: factors of I and Q.
        """
        key = (waveform, drive, amplitudes)
        try:
            return self._pulses[key]
        except KeyError:
            if len(self._pulses) >= MAX_CACHED_PULSES:
                self._pulses.clear()
            pulse = self._pulses[key] = self._computed(*key)
            return pulse

    def hold(self, level: tuple[float, float], n_samples: int, drive: Drive) -> Pulse:
        """What a level held does, as a pulse that starts at 0."""
        rabi_hz = (drive.rabi_i_hz, drive.rabi_q_hz)
        lines = held(level, n_samples, rabi_hz, drive.detuning_hz + self._offsets_hz)
        return Pulse(0, n_samples, (lines[0], lines[1], lines[2]))

    def _computed(
        self, waveform: Waveform, drive: Drive, amplitudes: tuple[float, float]
    ) -> Pulse | None:
        played = np.flatnonzero(waveform.values.any(axis=1))
        if not len(played):
            return None
        start, stop = int(played[0]), int(played[-1]) + 1
        lines = propagators(
            waveform.values[start:stop],
            (drive.rabi_i_hz * amplitudes[0], drive.rabi_q_hz * amplitudes[1]),
            drive.detuning_hz + self._offsets_hz,
        )
        return Pulse(start, stop, (lines[0], lines[1], lines[2]))
