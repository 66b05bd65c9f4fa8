"""What the calibrated pulses do to a spin with three hyperfine lines.

The model that microwave measurements are fitted with, and by which the pulse of an attempt is
chosen. The 14N nucleus of the NV centre
detunes the electron spin by -2.16, 0 or +2.16 MHz, a third of the time each, and a pulse of
finite length turns a detuned spin less, and about a tilted axis. So a calibration amplitude
found with the textbook's sin^2 is some per cent off; with this model it is the one that
turns a resonant spin by its nominal angle, as `sequences.pulses.PulseCalibration` means it.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from sequences.decoupling import GATE_EXCESS_SAMPLES
from sequences.program import SAMPLE_RATE_HZ
from sequences.pulses import (
    HERMITE_PI,
    HERMITE_PI_HALF,
    PulseCalibration,
    bright_state_angle,
    hermite_envelope,
)

HYPERFINE_HZ: Final = 2.16e6
"""Splitting of the 14N lines (Doherty et al., Physics Reports 528, 1 (2013))."""

_PIECE_SAMPLES: Final = 4
_PIECES_MAX: Final = 192
"""A pulse is taken in pieces, which is within 3e-4 of a probability (computed)."""

Floats = NDArray[np.float64]


class Turns(NamedTuple):
    """SU(2) elements [[a, -b*], [b, a*]] of pulses about X, shape (n_pulses, n_lines) each."""

    a: NDArray[np.complex128]
    b: NDArray[np.complex128]

    @property
    def flip(self) -> Floats:
        """Probability to leave |0> or |1>, mean of the lines, shape (n_pulses,)."""
        return np.asarray(np.mean(np.abs(self.b) ** 2, axis=1), dtype=np.float64)


def lines_hz(detuning_hz: ArrayLike, hyperfine_hz: float = HYPERFINE_HZ) -> Floats:
    """Detunings of the three lines, shape (..., 3)."""
    centre = np.asarray(detuning_hz, dtype=np.float64)
    lines: Floats = centre[..., np.newaxis] + hyperfine_hz * np.array([-1.0, 0.0, 1.0])
    return lines


def turns(
    angle_rad: ArrayLike, n_samples: int, coefficient: float, detunings_hz: ArrayLike
) -> Turns:
    """Hermite pulses about X.

    Args:
        angle_rad: by which each would turn a resonant spin, shape (n_pulses,).
        n_samples: length.
        coefficient: c of the envelope.
        detunings_hz: of the lines, shape (n_lines,) or (n_pulses, n_lines).
    """
    angle = np.asarray(angle_rad, dtype=np.float64)[:, np.newaxis]
    lines = np.asarray(detunings_hz, dtype=np.float64)
    detuning = np.broadcast_to(lines, (angle.size, lines.shape[-1]))
    envelope = hermite_envelope(n_samples, coefficient)
    pieces = 1 if not detuning.any() else min(_PIECES_MAX, n_samples // _PIECE_SAMPLES)
    shares = np.array([part.sum() for part in np.array_split(envelope, pieces)]) / envelope.sum()
    lengths = np.array([part.size for part in np.array_split(envelope, pieces)]) / SAMPLE_RATE_HZ
    a = np.ones(detuning.shape, dtype=np.complex128)
    b = np.zeros(detuning.shape, dtype=np.complex128)
    for share, length_s in zip(shares, lengths, strict=True):
        x, z = angle * share / 2, math.pi * detuning * length_s
        half = np.hypot(x, z)
        sinc = np.sinc(half / math.pi)
        c, s = np.cos(half) - 1j * z * sinc, -1j * x * sinc
        a, b = c * a - np.conj(s) * b, s * a + np.conj(c) * b
    return Turns(a, b)


def attempt_angle(
    alpha: float, calibration: PulseCalibration, hyperfine_hz: float = HYPERFINE_HZ
) -> float:
    """Angle of the pulse that leaves a population in |0>, on the mean of the lines.

    A pulse between pi/2 and pi turns a detuned spin further than a resonant one, so the angle
    is some per cent less than `sequences.pulses.bright_state_angle`.

    Args:
        alpha: the population; below what detuned spins keep, the pi pulse is all there is.
        calibration: of the pulses.
        hyperfine_hz: splitting of the lines; 0 for a single one.

    Raises:
        PulseError: ``alpha`` is no probability.
    """
    nominal = bright_state_angle(alpha)
    lines = lines_hz(0.0, hyperfine_hz)

    def excess(angle: float) -> float:
        if angle <= math.pi / 2:
            pulse = calibration.pi_half_samples, HERMITE_PI_HALF
        else:
            pulse = calibration.pi_samples, HERMITE_PI
        return float(turns([angle], *pulse, lines).flip[0]) - (1 - alpha)

    if not hyperfine_hz or nominal == 0 or excess(math.pi) <= 0:
        return nominal
    return float(brentq(excess, 0.0, math.pi, xtol=1e-9))


def refocused(pulses: Turns, n_samples: int, detunings_hz: ArrayLike) -> Turns:
    """The same pulses as they act between decoupling.

    Decoupling refocuses the free evolution around the pulses as if each were instantaneous
    at its centre, `GATE_EXCESS_SAMPLES` more than half its length away.
    """
    away_s = (n_samples / 2 + GATE_EXCESS_SAMPLES) / SAMPLE_RATE_HZ
    phase = math.pi * np.asarray(detunings_hz, dtype=np.float64) * away_s
    return Turns(pulses.a * np.exp(2j * phase), pulses.b)


def repeated_flip(pulses: Turns, repeats: int, loss: float) -> Floats:
    """Probability of |1> after equal pulses on |0>, shape (n_pulses,).

    Args:
        pulses: one after the other, refocused.
        repeats: how many, at least 1.
        loss: of coherence from one pulse to the next, 0..1.
    """
    a, b = pulses
    unitary = np.stack([np.stack([a, -b.conj()], -1), np.stack([b, a.conj()], -1)], -2)
    rho = np.zeros_like(unitary)
    rho[..., 0, 0] = 1
    keep = np.array([[1, 1 - loss], [1 - loss, 1]])
    for _ in range(repeats):
        rho = keep * (unitary @ rho @ np.conj(np.swapaxes(unitary, -1, -2)))
    flip: Floats = rho[..., 1, 1].real.mean(axis=1)
    return flip
