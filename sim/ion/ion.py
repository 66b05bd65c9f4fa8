"""A 40Ca+ ion in the light of its lasers (simulated).

The light is constant for a while, then different; `Ion.advance` lives through one such stretch.

* 729 nm on the carrier turns the Bloch vector of every number of phonons by its own angle, about
  the axis that the phase of the DDS and the detuning give. Phase 0 turns about x, pi/2 about y;
  +z is S1/2. The frame is that of the DDS, whose accumulator goes on between pulses at the last
  frequency near the carrier. Every pulse depolarises once, however long it is.
* 729 nm on a sideband flips the ion with the rates of the thermal distribution and takes or gives a
  phonon each time. Coherence is lost. The distribution is then thermal again, with the new mean,
  which is an approximation; and recoil keeps the mean at `IonPhysics.mean_phonons` at least.
* In darkness the coherence decays with T2 and D5/2 with its lifetime.
* 397 and 866 nm make S1/2 fluoresce and project the ion. D5/2 may decay meanwhile, or be emptied by
  854 nm if that is on. One number is drawn for all photons of the stretch. The
  motion of a bright ion goes to the Doppler limit.
* 854 nm empties D5/2, sigma-polarised 397 nm with 866 nm ends with `preparation_error`.

Not modelled: the Zeeman structure, so that fluorescence does not spoil S1/2; D3/2, but that nothing
fluoresces or is pumped without 866 nm; light shifts; carrier excitation by light on a sideband and
the other way round; heating in darkness.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sequences.thermal_rabi import (
    MAX_MEAN_PHONONS,
    carrier_factors,
    flip,
    sideband_factors,
    thermal,
)
from sim.ion.physics import NS_PER_S, NS_PER_US, IonPhysics
from sim.pauli import Complex

Floats = NDArray[np.float64]

MAX_STRETCH_NS: Final = 10**13
"""Longest time of constant light: 10,000 s."""
_PHONON_DIGITS: Final = 6
"""Means are rounded to so many decimals, so that distributions come back and are kept."""


class IonFault(RuntimeError):
    """Light that the ion's model does not cover."""


class Light(NamedTuple):
    """What shines on the ion, constant for a while.

    Attributes:
        doppler_397: light for cooling and detection.
        repump_866: empties D3/2.
        reset_854: empties D5/2.
        pump_397: sigma-polarised, for optical pumping.
        rf_729: whether the switch to the modulator of the 729 nm laser is closed.
        frequency_hz: of the DDS.
        phase_rad: of the DDS.
        amplitude: of the DDS, 0 to 1.
    """

    doppler_397: bool = False
    repump_866: bool = False
    reset_854: bool = False
    pump_397: bool = False
    rf_729: bool = False
    frequency_hz: float = 0.0
    phase_rad: float = 0.0
    amplitude: float = 0.0


DARKNESS: Final = Light()


class Ion:
    """One ion. At first it is Doppler cooled and maximally mixed.

    Args:
        physics: its numbers.
        rng: its seed decides about measurements and photons.

    Attributes:
        physics: see there.
    """

    def __init__(self, physics: IonPhysics, rng: random.Random) -> None:
        self.physics = physics
        self._rng = np.random.default_rng(rng.getrandbits(128))
        self._detuning = 0.0
        self._in_pulse = False
        self._set(0.5, physics.doppler_phonons)

    # --- for inspection ---------------------------------------------------------------------

    @property
    def mean_phonons(self) -> float:
        """Of the thermal distribution."""
        return self._mean_phonons

    @property
    def p_d(self) -> float:
        """Probability of D5/2."""
        return float(1 - self._mean_bloch()[2]) / 2

    @property
    def density(self) -> Complex:
        """Density matrix in the frame of the DDS, shape (2, 2), basis S1/2, D5/2."""
        x, y, z = self._mean_bloch()
        return np.array([[1 + z, x - 1j * y], [x + 1j * y, 1 - z]], dtype=np.complex128) / 2

    def _mean_bloch(self) -> Floats:
        bloch = self._bloch
        return bloch[0] if len(bloch) == 1 else _thermal(self._mean_phonons) @ bloch

    # --- light ------------------------------------------------------------------------------

    def advance(self, duration_ns: int, light: Light = DARKNESS) -> int:
        """Live through a stretch of constant light.

        Args:
            duration_ns: its length.
            light: what shines.

        Returns:
            Photons that the photomultiplier sees.

        Raises:
            ValueError: the duration is negative or longer than `MAX_STRETCH_NS`.
            IonFault: 729 nm together with light that empties or excites the ion.
        """
        if not 0 <= duration_ns <= MAX_STRETCH_NS:
            raise ValueError(f"a stretch of {duration_ns} ns is outside 0..{MAX_STRETCH_NS}")
        if not duration_ns:
            return 0
        pulse = light.rf_729 and light.amplitude > 0
        incoherent = light.doppler_397 or light.reset_854 or light.pump_397
        if pulse and incoherent:
            raise IonFault("729 nm light together with 397 or 854 nm light is not modelled")
        if pulse:
            self._pulse(duration_ns, light)
            return 0
        self._in_pulse = False
        if not incoherent:
            self._wait(duration_ns)
            return 0
        if light.doppler_397:
            return self._scatter(duration_ns, light)
        p_d = self.p_d * self.physics.dark_survival(duration_ns)
        if light.reset_854:
            p_d *= math.exp(-duration_ns / (self.physics.reset_us * NS_PER_US))
        if light.pump_397 and light.repump_866:
            missing = max(0.0, self.physics.preparation_error - p_d)
            p_d -= missing * math.expm1(-duration_ns / (self.physics.pump_us * NS_PER_US))
        self._set(p_d, self._mean_phonons)
        return 0

    def windows(self, duration_ns: int, number: int) -> NDArray[np.int64]:
        """Photons of detection windows that each follow the present state, which stays.

        They are those that `advance` would give, drawn all at once.

        Args:
            duration_ns: of a window with 397 and 866 nm light.
            number: of windows.

        Returns:
            Counts, shape (number,).
        """
        physics, rng = self.physics, self._rng
        dark = rng.random(number) < self.p_d
        decay_ns = rng.exponential(size=number) * physics.d_lifetime_s * NS_PER_S
        bright_ns = np.where(dark, np.maximum(0.0, duration_ns - decay_ns), duration_ns)
        counts = physics.dark_cps * duration_ns + physics.bright_cps * bright_ns
        return rng.poisson(counts / NS_PER_S)

    def _set(self, p_d: float, mean_phonons: float) -> None:
        """A state without coherence, the same for all numbers of phonons: one row."""
        self._mean_phonons = min(MAX_MEAN_PHONONS, round(mean_phonons, _PHONON_DIGITS))
        self._bloch: Floats = np.array([[0.0, 0.0, 1 - 2 * p_d]])

    def _scatter(self, duration_ns: int, light: Light) -> int:
        """397 nm light: project the ion and draw its photons."""
        physics, rng = self.physics, self._rng
        bright_ns = float(duration_ns)
        if rng.random() < self.p_d:
            per_ns = 1 / (physics.d_lifetime_s * NS_PER_S)
            if light.reset_854:
                per_ns += 1 / (physics.reset_us * NS_PER_US)
            # The time at which D5/2 is left is exponential with this rate.
            bright_ns = max(0.0, duration_ns - rng.exponential() / per_ns) if per_ns else 0.0
        mean_phonons = self._mean_phonons
        counts = physics.dark_cps * duration_ns
        if light.repump_866:
            counts += physics.bright_cps * bright_ns
            left = math.exp(-bright_ns / (physics.doppler_us * NS_PER_US))
            limit = physics.doppler_phonons
            mean_phonons = limit + (mean_phonons - limit) * left
        self._set(0.0 if bright_ns else 1.0, mean_phonons)
        return int(rng.poisson(counts / NS_PER_S))

    # --- 729 nm -----------------------------------------------------------------------------

    def _pulse(self, duration_ns: int, light: Light) -> None:
        physics = self.physics
        detuning_hz = light.frequency_hz - physics.carrier_hz
        sideband = round(detuning_hz / physics.trap_hz)
        if sideband == 0:
            self._carrier(duration_ns, light, 2 * math.pi * detuning_hz / NS_PER_S)
        elif abs(sideband) == 1:
            self._sideband(duration_ns, light, detuning_hz, sideband)
        else:
            self._wait(duration_ns)

    def _carrier(self, duration_ns: int, light: Light, detuning: float) -> None:
        physics = self.physics
        self._detuning = detuning
        turns = _carrier_turns(
            _thermal(self._mean_phonons).size,
            physics.eta,
            math.pi / physics.pi_time_ns * light.amplitude,
            light.phase_rad,
            detuning,
            duration_ns,
        )
        if not self._in_pulse:
            self._in_pulse = True
            self._bloch *= 1 - physics.gate_depolarising
        self._bloch = np.matmul(turns, self._bloch[:, :, np.newaxis])[:, :, 0]
        self._decay(duration_ns)

    def _sideband(self, duration_ns: int, light: Light, detuning_hz: float, sideband: int) -> None:
        physics = self.physics
        rabi = math.pi / physics.pi_time_ns * light.amplitude
        detuning = 2 * math.pi * (detuning_hz - sideband * physics.trap_hz) / NS_PER_S
        pulse = (physics.eta, rabi, detuning, duration_ns)
        down, up = _sideband_flips(self._mean_phonons, *pulse)
        least, _ = _sideband_flips(physics.mean_phonons, *pulse)
        p_d = self.p_d
        # On the red sideband S1/2 loses a phonon and D5/2 gains one.
        losing = 1 - p_d if sideband < 0 else p_d
        mean = self._mean_phonons - losing * (down - least) + (1 - losing) * up
        flips = losing * down - (1 - losing) * up
        p_d += flips if sideband < 0 else -flips
        self._in_pulse = True
        self._set(p_d * physics.dark_survival(duration_ns), max(0.0, mean))

    # --- darkness ---------------------------------------------------------------------------

    def _wait(self, duration_ns: int) -> None:
        if self._detuning:
            angle = self._detuning * duration_ns
            cosine, sine = math.cos(angle), math.sin(angle)
            x, y = self._bloch[:, 0].copy(), self._bloch[:, 1].copy()
            self._bloch[:, 0] = cosine * x - sine * y
            self._bloch[:, 1] = sine * x + cosine * y
        self._decay(duration_ns)

    def _decay(self, duration_ns: int) -> None:
        bloch = self._bloch
        bloch[:, :2] *= self.physics.coherence_factor(duration_ns)
        bloch[:, 2] = 1 - (1 - bloch[:, 2]) * self.physics.dark_survival(duration_ns)


# --- kept results -----------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _thermal(mean_phonons: float) -> Floats:
    weights = thermal(mean_phonons)
    weights.flags.writeable = False
    return weights


@lru_cache(maxsize=1024)
def _carrier_turns(
    levels: int, eta: float, rabi: float, phase_rad: float, detuning: float, duration_ns: int
) -> Floats:
    """Rotations by a pulse, shape (levels, 3, 3); angular frequencies in rad/ns."""
    omega = rabi * carrier_factors(levels, eta)
    axis = np.stack(
        [omega * math.cos(phase_rad), omega * math.sin(phase_rad), np.full(levels, detuning)]
    )
    length = np.linalg.norm(axis, axis=0)
    axis = np.divide(axis, length, out=np.zeros_like(axis), where=length > 0)
    angle = length * duration_ns
    cross = np.zeros((levels, 3, 3))
    for row, column, component in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        cross[:, row, column] = -axis[component]
        cross[:, column, row] = axis[component]
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    turns: Floats = np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)
    turns[length == 0] = np.eye(3)
    turns.flags.writeable = False
    return turns


@lru_cache(maxsize=8192)
def _sideband_flips(
    mean_phonons: float, eta: float, rabi: float, detuning: float, duration_ns: int
) -> tuple[float, float]:
    """Probabilities that a pulse takes a phonon of a thermal ion, and that it gives one."""
    weights = _thermal(mean_phonons)
    factors = sideband_factors(weights.size + 1, eta)
    flips = flip(rabi * factors, detuning, duration_ns)
    return float(weights @ flips[:-1]), float(weights @ flips[1:])
