"""Hermite microwave pulses for the electron spin of an NV centre.

A pulse of length L has the envelope A (1 - c x^2) exp(-x^2), x = (t - L/2) / (0.1667 L),
with c = 0.956 for a pi and 0.667 for a pi/2 pulse: Hermite pulses (Warren, J. Chem. Phys.
81, 5437 (1984)), which turn the spin alike for all three 14N hyperfine lines. Lengths
default to the 126 ns and 60 ns used in NV laboratories.

The microwave source stays on resonance and the AWG supplies I and Q directly: a rotation
about X is played on I, one about Y on Q, and a negative angle is a negative amplitude.

Rotations up to pi/2 scale the amplitude of the pi/2 pulse, larger ones that of the pi
pulse, and those beyond pi turn the other way, so that no rotation needs a higher Rabi
frequency than the two calibrated pulses. At the 14N detunings of +-2.16 MHz (computed for
this module; tests/unit/test_pulses.py repeats it) a pulse equals the ideal rotation between
two stretches of free evolution of half its length, with an average gate infidelity of at
most 1.4e-4 up to pi/2, 3.4e-4 below pi, and 4.1e-4 at pi.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sequences.errors import PulseError
from sequences.program import SAMPLE_RATE_HZ, samples

HERMITE_PI: Final = 0.956
HERMITE_PI_HALF: Final = 0.667
HERMITE_WIDTH: Final = 0.1667
"""Width of the envelope, T_h / L."""

ANGLE_STEPS: Final = 32
"""Rotations are multiples of 2 pi / ANGLE_STEPS = pi/16 (published)."""

MIN_PULSE_SAMPLES: Final = 16
"""Shorter pulses do not resemble their envelope."""
MAX_PULSE_SAMPLES: Final = 2400
"""One microsecond: longer than any pulse that still covers the 14N lines."""

ASSUMED_FULL_SCALE_RABI_HZ: Final = 30e6
"""Rabi frequency at full scale of the AWG. Assumed: somewhat above the 26 MHz needed."""


class Axis(IntEnum):
    """Rotation axis, and the channel of the AWG that drives it: I for X, Q for Y."""

    X = 0
    Y = 1


def hermite_envelope(n_samples: int, coefficient: float) -> NDArray[np.float64]:
    """A Hermite envelope, sampled in the middle of every sample; its peak is 1 or less.

    Returns:
        Shape (n_samples,), symmetric about its middle.
    """
    x = (np.arange(n_samples) + 0.5 - n_samples / 2) / (HERMITE_WIDTH * n_samples)
    envelope: NDArray[np.float64] = (1 - coefficient * x**2) * np.exp(-(x**2))
    return envelope


def envelope_area_s(n_samples: int, coefficient: float) -> float:
    """Integral of a sampled envelope over time, in seconds."""
    return float(hermite_envelope(n_samples, coefficient).sum()) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Pulse:
    """One microwave pulse.

    Attributes:
        n_samples: its length, even, so that its centre lies between two samples.
        coefficient: c of the Hermite envelope.
        amplitude: factor of the envelope in units of full scale, negative for a negative angle.
        axis: X or Y.

    Raises:
        PulseError: the length or the amplitude cannot be played.
    """

    n_samples: int
    coefficient: float
    amplitude: float
    axis: Axis

    def __post_init__(self) -> None:
        _check_length(self.n_samples, "pulse")
        if not abs(self.amplitude) <= 1:
            raise PulseError(
                f"pulse of {self.n_samples} samples needs {self.amplitude:.4g} of full scale, "
                "and 1 is all there is; lengthen the pulse or raise the microwave power"
            )

    def envelope(self) -> NDArray[np.float64]:
        """The signed envelope in units of full scale, shape (n_samples,)."""
        return self.amplitude * hermite_envelope(self.n_samples, self.coefficient)


@dataclass(frozen=True)
class PulseCalibration:
    """What a calibration of the two microwave pulses finds.

    The default amplitudes are what the envelopes need, to four digits, at the assumed
    `ASSUMED_FULL_SCALE_RABI_HZ`; `for_full_scale_rabi` computes them for any other.

    Attributes:
        pi_amplitude: factor of the envelope that makes a pi rotation, in units of full scale.
        pi_half_amplitude: the same for pi/2.
        pi_ns: length of the pi pulse; sampled to the nearest even number of samples.
        pi_half_ns: length of the pi/2 pulse, likewise.

    Raises:
        PulseError: an amplitude is outside 0..1 or a length cannot be played.
    """

    pi_amplitude: float = 0.8585
    pi_half_amplitude: float = 0.7051
    pi_ns: float = 126.0
    pi_half_ns: float = 60.0

    def __post_init__(self) -> None:
        for name, amplitude in (
            ("pi_amplitude", self.pi_amplitude),
            ("pi_half_amplitude", self.pi_half_amplitude),
        ):
            if not 0 < amplitude <= 1:
                raise PulseError(
                    f"{name} is {amplitude:.4g} of full scale and must lie in 0..1; lengthen the "
                    "pulse or raise the microwave power"
                )
        for name, length_ns in (("pi_ns", self.pi_ns), ("pi_half_ns", self.pi_half_ns)):
            if not math.isfinite(length_ns):
                raise PulseError(f"{name} is {length_ns}; give a length in nanoseconds")
            _check_length(_even_samples(length_ns), f"{name} = {length_ns}")

    @classmethod
    def for_full_scale_rabi(
        cls, full_scale_rabi_hz: float, pi_ns: float = 126.0, pi_half_ns: float = 60.0
    ) -> PulseCalibration:
        """The amplitudes a linear microwave chain needs.

        Args:
            full_scale_rabi_hz: Rabi frequency at full scale.
            pi_ns: length of the pi pulse.
            pi_half_ns: length of the pi/2 pulse.

        Raises:
            PulseError: the pulses would need more than full scale.
        """
        if not (math.isfinite(full_scale_rabi_hz) and full_scale_rabi_hz > 0):
            raise PulseError(f"a Rabi frequency must be positive, not {full_scale_rabi_hz} Hz")
        unscaled = cls(pi_ns=pi_ns, pi_half_ns=pi_half_ns)
        radians_per_s = 2 * math.pi * full_scale_rabi_hz
        return cls(
            pi_amplitude=math.pi
            / (radians_per_s * envelope_area_s(unscaled.pi_samples, HERMITE_PI)),
            pi_half_amplitude=math.pi
            / 2
            / (radians_per_s * envelope_area_s(unscaled.pi_half_samples, HERMITE_PI_HALF)),
            pi_ns=pi_ns,
            pi_half_ns=pi_half_ns,
        )

    @property
    def pi_samples(self) -> int:
        """Length of the pi pulse."""
        return _even_samples(self.pi_ns)

    @property
    def pi_half_samples(self) -> int:
        """Length of the pi/2 pulse."""
        return _even_samples(self.pi_half_ns)


def rotation(angle_rad: float, axis: Axis, calibration: PulseCalibration) -> Pulse:
    """The pulse that rotates the spin by an angle, taken modulo 2 pi, about an axis.

    Raises:
        PulseError: the angle is not finite.
    """
    if not math.isfinite(angle_rad):
        raise PulseError(f"rotation about {axis.name} by {angle_rad}; give a finite angle")
    angle_rad = math.remainder(angle_rad, 2 * math.pi)
    # A quarter turn computed in floating point may be a rounding error beyond pi/2.
    if abs(angle_rad) <= math.pi / 2 * (1 + 1e-12):
        scale = angle_rad / (math.pi / 2)
        amplitude = calibration.pi_half_amplitude * max(-1.0, min(1.0, scale))
        return Pulse(calibration.pi_half_samples, HERMITE_PI_HALF, amplitude, axis)
    amplitude = calibration.pi_amplitude * (angle_rad / math.pi)
    return Pulse(calibration.pi_samples, HERMITE_PI, amplitude, axis)


def rotation_by_steps(steps: int, axis: Axis, calibration: PulseCalibration) -> Pulse:
    """Rotation by ``steps`` * pi/16, taken modulo 2 pi; half a turn is +pi."""
    steps %= ANGLE_STEPS
    if steps > ANGLE_STEPS // 2:
        steps -= ANGLE_STEPS
    return rotation(steps * 2 * math.pi / ANGLE_STEPS, axis, calibration)


def bright_state_angle(alpha: float) -> float:
    """Angle in radians that takes |0> to sqrt(alpha) |0> + sqrt(1 - alpha) |1>, up to phases.

    Only |0> emits a photon, so this sets the trade between the rate and the fidelity of
    single-photon entanglement (Humphreys et al., Nature 558, 268 (2018)).

    Raises:
        PulseError: ``alpha`` is no probability.
    """
    if not 0 <= alpha <= 1:
        raise PulseError(f"alpha is the population of the bright state, in 0..1, not {alpha}")
    return 2 * math.acos(math.sqrt(alpha))


def _even_samples(length_ns: float) -> int:
    return 2 * samples(length_ns / 2)


def _check_length(n_samples: int, what: str) -> None:
    if n_samples % 2 or not MIN_PULSE_SAMPLES <= n_samples <= MAX_PULSE_SAMPLES:
        raise PulseError(
            f"{what} has {n_samples} samples; a pulse has an even number of them, "
            f"{MIN_PULSE_SAMPLES}..{MAX_PULSE_SAMPLES}, at {SAMPLE_RATE_HZ / 1e9} per ns"
        )
