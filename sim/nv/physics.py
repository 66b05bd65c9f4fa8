"""The numbers of one simulated NV centre, with their sources.

Rates of what light does are those at the nominal voltage of a laser; `NVPhysics.relative_power`
scales them. Readout under the E laser is a jump process (see `sim.nv.optics`):

    |0>      --bright_rate-->                a detected photon, the spin stays
    |0>      --bright_rate * flips_per_photon-->  |1>
    |0>, |1> --ionisation_rate-->            ionised, dark until repumped

and dark counts come always. A readout that stops at the first pulse then has the closed forms
`readout_fidelities` and `ionisation_per_readout`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import brentq

from qnodeos.errors import CallerError
from sim.noise import NS_PER_MS, NVNoise, Probability
from sim.nv.propagator import Drive

US_PER_S: Final = 1e6
READOUT_US: Final = 190.0
"""Duration of a readout (assumed: fits the published durations of two gates and a readout)."""

HIGH_FIDELITY: Final = 0.98
"""A fidelity of |0> above this takes more light than the default has."""
TOLERATED: Final = 1e-3
"""How far a fidelity may be missed, for instance 1 by a centre that ionises."""

MAX_RATE_HZ: Final = 1e9

Rate = Annotated[float, Field(ge=0, le=MAX_RATE_HZ)]
Duration = Annotated[float, Field(gt=0, le=1e6)]


class NVPhysics(BaseModel):
    """One NV centre and what drives it.

    Sources: "published" is Delle Donne et al., Nature 639, 321 (2025),
    doi:10.1038/s41586-025-08704-w, with its supplement and data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resonance_hz: float = Field(
        2.0e9,
        ge=0,
        le=2e10,
        description="transition |0> to |1> of the middle 14N line (assumed: some 310 G)",
    )
    full_scale_rabi_hz: float = Field(
        30e6,
        gt=0,
        le=1e9,
        description="Rabi frequency at full scale of the AWG and the reference power (assumed)",
    )
    reference_power_dbm: float = Field(
        0.0, ge=-120, le=40, description="power of the source at which that holds (assumed)"
    )
    hyperfine_hz: float = Field(
        2.16e6,
        ge=0,
        le=1e8,
        description=(
            "distance of the outer 14N lines from the middle one "
            "(Felton et al., Phys. Rev. B 79, 075203 (2009))"
        ),
    )
    amplitude_error: float = Field(
        0.0, gt=-1, le=1, description="relative error of the Rabi frequency (assumed none)"
    )
    coherence_time_ms: float = Field(
        13.0,
        ge=1e-6,
        description=(
            "1/e time of the coherences under decoupling (published); may be infinite. With 16 "
            "shifted copies the decoupling pulses cost 1e-5 in 14 ms "
            "(tests/sim/test_nv_spin_program.py), so all of the published decay is left to the "
            "surroundings"
        ),
    )
    coherence_exponent: float = Field(
        1.0, gt=0, le=4, description="n in exp(-(t/T)**n) (assumed: exponential)"
    )
    bright_rate_hz: Rate = Field(
        36.3e3,
        description=(
            "detected photons of |0> under the readout laser (assumed: makes 190 us the duration "
            "with the best mean fidelity)"
        ),
    )
    flips_per_photon: float = Field(
        0.0483,
        ge=0,
        le=1e3,
        description=(
            "spin flips of |0> to |1> for each detected photon under the readout laser (assumed: "
            "makes the published fidelity 0.95 of |0> in 190 us)"
        ),
    )
    ionisation_rate_hz: Rate = Field(
        138.0,
        description=(
            "ionisation under the readout laser, the same for both spin states (assumed: "
            "0.015 per readout of 190 us that stops at the first photon, as NVNoise)"
        ),
    )
    dark_rate_hz: Rate = Field(
        26.4,
        description=(
            "dark and background counts, at all times (derived from the published fidelity "
            "0.995 of |1>, in 190 us)"
        ),
    )
    cr_rate_hz: Rate = Field(
        800e3,
        description=(
            "photons detected of a good centre while the E and A lasers both shine, whatever "
            "its spin (assumed: 40 in a charge check of 50 us)"
        ),
    )
    pump_time_constant_us: Duration = Field(
        0.2, description="of spin pumping to |0> by the A laser (assumed)"
    )
    initialisation_error: Probability = Field(
        0.01, description="probability of |1> after long spin pumping (published)"
    )
    repump_time_constant_us: Duration = Field(
        30.0,
        description=(
            "of the recovery of an ionised centre under the repump laser (assumed: after the "
            "300 us of a repump 5e-5 are left)"
        ),
    )
    saturation: float = Field(
        0.1,
        ge=0,
        le=1e3,
        description=(
            "power at the nominal voltage in units of the saturation power, of every laser "
            "(assumed)"
        ),
    )

    @classmethod
    def noiseless(cls) -> NVPhysics:
        """A perfect centre: nothing errs or decays, and there is one line only."""
        return cls(
            hyperfine_hz=0,
            coherence_time_ms=math.inf,
            bright_rate_hz=2e6,
            flips_per_photon=0,
            ionisation_rate_hz=0,
            dark_rate_hz=0,
            pump_time_constant_us=0.02,
            initialisation_error=0,
            repump_time_constant_us=5,
        )

    @classmethod
    def from_noise(cls, noise: NVNoise, readout_us: float = READOUT_US) -> NVPhysics:
        """The centre that errs as often as the behavioural one does.

        The depolarising of gates is not taken over: here it comes from the pulses and the 14N
        lines. Without any the lines are left out. The light is as bright as the duration asks.

        Args:
            noise: of the behavioural device.
            readout_us: duration of a readout.

        Raises:
            CallerError: no rates give these fidelities in that duration.
        """
        perfect = cls.noiseless()
        if noise.readout_fidelity_1 == 0 or readout_us <= 0:
            raise CallerError(
                f"readout of {readout_us} us with a fidelity {noise.readout_fidelity_1} of |1>: "
                "no rate of dark counts makes that; both must be positive"
            )
        base = cls(
            hyperfine_hz=cls().hyperfine_hz if noise.gate_depolarising else 0,
            coherence_time_ms=noise.coherence_time_ms,
            coherence_exponent=noise.coherence_exponent,
            initialisation_error=noise.initialisation_error,
            dark_rate_hz=math.log(1 / noise.readout_fidelity_1) * US_PER_S / readout_us,
            pump_time_constant_us=(
                cls().pump_time_constant_us
                if noise.initialisation_error
                else perfect.pump_time_constant_us
            ),
        )
        bright = perfect if noise.readout_fidelity_0 > HIGH_FIDELITY else cls()
        rate_hz = min(MAX_RATE_HZ, bright.bright_rate_hz * READOUT_US / readout_us)
        base = base.model_copy(update={"bright_rate_hz": rate_hz})
        # The two unknowns hardly depend on each other: a few rounds settle them.
        for _ in range(8):
            base = base._ionising(noise.ionisation_per_readout, readout_us)
            base = base._flipping(noise.readout_fidelity_0, readout_us)
        return base

    # --- microwaves -----------------------------------------------------------------------

    def drive(self, frequency_hz: float, power_dbm: float, gains: tuple[float, float]) -> Drive:
        """What the spin feels of a source.

        Args:
            frequency_hz: of the source.
            power_dbm: of the source.
            gains: factors of the AWG's outputs for I and Q.
        """
        rabi_hz = (
            self.full_scale_rabi_hz
            * (1 + self.amplitude_error)
            * 10 ** ((power_dbm - self.reference_power_dbm) / 20)
        )
        return Drive(self.resonance_hz - frequency_hz, rabi_hz * gains[0], rabi_hz * gains[1])

    def coherence_factor(self, start_ns: float, stop_ns: float) -> float:
        """What the coherences keep between two ages of the qubit; see `NVNoise`."""
        scale = self.coherence_time_ms * NS_PER_MS
        exponent = self.coherence_exponent
        return math.exp((start_ns / scale) ** exponent - (stop_ns / scale) ** exponent)

    # --- light ------------------------------------------------------------------------------

    def relative_power(self, volts: float, nominal_volts: float) -> float:
        """Factor of a laser's rates at a voltage: saturating, 1 at the nominal one.

        Args:
            volts: on the modulator; light is proportional to it, and none below 0 V.
            nominal_volts: at which the rates of this class hold.
        """
        ratio = max(0.0, volts / nominal_volts)
        return ratio * (1 + self.saturation) / (1 + ratio * self.saturation)

    def readout_fidelities(self, duration_us: float) -> tuple[float, float]:
        """F0 and F1 of a readout: P(a pulse | |0>), and P(no pulse | |1>).

        Of a centre that is good when the readout begins, at the nominal voltage.
        """
        time_s = duration_us / US_PER_S
        bright, leaving = self._bright_and_leaving_hz
        survival = math.exp(-(bright + leaving) * time_s)
        lost = leaving / (bright + leaving) if bright + leaving else 0.0
        no_dark = math.exp(-self.dark_rate_hz * time_s)
        return 1 - no_dark * (survival + lost * (1 - survival)), no_dark

    def ionisation_per_readout(self, duration_us: float) -> tuple[float, float]:
        """P(ionised by a readout) of |0> and of |1>, if it stops at its first pulse."""
        time_s = duration_us / US_PER_S
        bright, _ = self._bright_and_leaving_hz
        flip, ionise = bright * self.flips_per_photon, self.ionisation_rate_hz
        ending = self.dark_rate_hz + ionise

        def spent(rate_hz: float) -> float:
            """Time in a state left at a rate, in seconds."""
            return -math.expm1(-rate_hz * time_s) / rate_hz if rate_hz else time_s

        in_dark, in_bright = spent(ending), spent(ending + bright + flip)
        # A spin that flipped spends the rest of the readout in the dark state.
        after_flip = flip / (bright + flip) * (in_dark - in_bright) if bright + flip else 0.0
        return ionise * (in_bright + after_flip), ionise * in_dark

    @property
    def _bright_and_leaving_hz(self) -> tuple[float, float]:
        flips_hz = self.bright_rate_hz * self.flips_per_photon
        return self.bright_rate_hz, flips_hz + self.ionisation_rate_hz

    def _ionising(self, probability: float, readout_us: float) -> NVPhysics:
        """The same with the mean ionisation of the two states."""

        def excess(rate_hz: float) -> float:
            changed = self.model_copy(update={"ionisation_rate_hz": rate_hz})
            return sum(changed.ionisation_per_readout(readout_us)) / 2 - probability

        return self._solved("ionisation_rate_hz", excess, 100 * US_PER_S / readout_us)

    def _flipping(self, fidelity_0: float, readout_us: float) -> NVPhysics:
        """The same with the flips that make a fidelity of |0>."""

        def excess(flips: float) -> float:
            changed = self.model_copy(update={"flips_per_photon": flips})
            return fidelity_0 - changed.readout_fidelities(readout_us)[0]

        return self._solved("flips_per_photon", excess, 1e3)

    def _solved(self, name: str, excess: Callable[[float], float], largest: float) -> NVPhysics:
        """The same with a number at which ``excess``, which grows with it, is 0."""
        lowest, highest = excess(0.0), excess(largest)
        if lowest > TOLERATED or highest < 0:
            raise CallerError(
                f"no {name} makes a readout as asked: 0 misses it by {lowest:+.4f} and "
                f"{largest:g} by {highest:+.4f}; ask for other fidelities or another duration"
            )
        value = float(brentq(excess, 0, largest, xtol=1e-12)) if lowest < 0 else 0.0
        return self.model_copy(update={name: value})
