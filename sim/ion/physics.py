"""The numbers of one simulated 40Ca+ ion, with their sources, and what follows from them.

|0> is S1/2, bright at 397 nm; |1> is D5/2, dark. The Zeeman structure is not modelled: an ion
that pumping leaves in the wrong state counts as D5/2 (`IonPhysics.preparation_error`). Nothing
was verified on hardware.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sequences.fluorescence import Window, optimal_threshold, readout_errors
from sequences.ion import IonOperation
from sequences.thermal_rabi import MAX_MEAN_PHONONS
from sim.noise import NS_PER_MS, Probability

NS_PER_US: Final = 1e3
NS_PER_S: Final = 1e9
US_PER_S: Final = 1e6

DETECTION_US: Final = 1_500
"""Detection window (Delle Donne et al.: the simulator's set of parameters)."""
THRESHOLD: Final = 33
"""Highest dark count: optimal for the default physics and `DETECTION_US`."""

Phonons = Annotated[float, Field(ge=0, le=MAX_MEAN_PHONONS)]
Bloch = tuple[float, float, float]


class IonPhysics(BaseModel):
    """One ion, its lasers and its detection.

    Sources: "published" is Delle Donne et al., Nature 639, 321 (2025),
    doi:10.1038/s41586-025-08704-w, with its supplement and data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    carrier_hz: float = Field(
        80e6,
        ge=0,
        le=1e9,
        description=(
            "frequency of the DDS at which the 729 nm light is resonant with S1/2 - D5/2 (assumed: "
            "an acousto-optic modulator in single pass, so that a hertz of the DDS is one of the "
            "light)"
        ),
    )
    trap_hz: float = Field(
        1.0e6,
        ge=1e4,
        le=1e8,
        description="oscillation along the 729 nm beam; the sidebands are as far off (assumed)",
    )
    eta: float = Field(
        0.097,
        ge=0,
        le=0.5,
        description=(
            "Lamb-Dicke parameter (derived: 2 pi / 729 nm times the extent of the ground state of "
            "40Ca+ at 1 MHz, the beam along the motion)"
        ),
    )
    pi_time_ns: float = Field(
        10_000.0,
        ge=100,
        le=1e9,
        description=(
            "pi pulse on the carrier without phonons at full amplitude of the DDS, to which the "
            "Rabi frequency is proportional (assumed, within the usual 5 to 30 us)"
        ),
    )
    gate_depolarising: Probability = Field(
        0.02,
        description=(
            "depolarising probability p of one 729 nm pulse, rho -> (1-p) rho + p I/2 (published)"
        ),
    )
    preparation_error: Probability = Field(
        1e-3, description="probability of D5/2 after optical pumping (assumed)"
    )
    coherence_time_ms: float = Field(
        85.0,
        ge=1e-3,
        description="1/e time T2 of the coherence in darkness (published); may be infinite",
    )
    d_lifetime_s: float = Field(
        1.168,
        ge=0.01,
        description=(
            "mean lifetime of D5/2 (Barton et al., Phys. Rev. A 62, 032503 (2000)); may be infinite"
        ),
    )
    bright_cps: float = Field(
        40_000.0,
        ge=1_000,
        le=1e8,
        description="counts per second that S1/2 adds under 397 and 866 nm light (assumed)",
    )
    dark_cps: float = Field(
        1_500.0,
        ge=0,
        le=1e7,
        description=(
            "counts per second with 397 nm light and no fluorescence: scattered light and dark "
            "counts (assumed)"
        ),
    )
    doppler_phonons: Phonons = Field(
        10.8,
        description=(
            "mean phonons that Doppler cooling leads to (derived: half of the 21.6 MHz linewidth "
            "of the 397 nm transition over the trap frequency)"
        ),
    )
    doppler_us: float = Field(
        100.0, gt=0, le=1e6, description="1/e time of Doppler cooling (assumed)"
    )
    mean_phonons: Phonons = Field(
        0.05, description="mean phonons that sideband cooling leads to (assumed)"
    )
    reset_us: float = Field(
        1.0, gt=0, le=1e6, description="1/e time in which 854 and 866 nm empty D5/2 (assumed)"
    )
    pump_us: float = Field(1.0, gt=0, le=1e6, description="1/e time of optical pumping (assumed)")

    @model_validator(mode="after")
    def _physical(self) -> Self:
        if self.coherence_time_ms > 2 * 1e3 * self.d_lifetime_s:
            raise ValueError(
                f"coherence_time_ms = {self.coherence_time_ms:g} is longer than twice the lifetime "
                f"of D5/2, {self.d_lifetime_s:g} s"
            )
        return self

    @classmethod
    def noiseless(cls, **changes: float) -> Self:
        """An ion without decay, phonons, background, or errors of pulses and preparation.

        It is five times as bright, so that counts are practically never mistaken.

        Args:
            **changes: parameters to set otherwise.
        """
        ideal = {
            "gate_depolarising": 0.0,
            "preparation_error": 0.0,
            "coherence_time_ms": math.inf,
            "d_lifetime_s": math.inf,
            "bright_cps": 200_000.0,
            "dark_cps": 0.0,
            "doppler_phonons": 0.0,
            "mean_phonons": 0.0,
        }
        return cls(**(ideal | changes))

    # --- closed forms -----------------------------------------------------------------------

    def coherence_factor(self, duration_ns: float) -> float:
        """What is left of the coherence of S1/2 and D5/2 after a time in darkness."""
        return math.exp(-duration_ns / (self.coherence_time_ms * NS_PER_MS))

    def dark_survival(self, duration_ns: float) -> float:
        """Probability that D5/2 has not decayed after a time."""
        return math.exp(-duration_ns / (self.d_lifetime_s * NS_PER_S))

    def window(self, detection_us: float) -> Window:
        """Counts expected in a detection window; see `sequences.fluorescence`."""
        seconds = detection_us / US_PER_S
        return Window(
            self.dark_cps * seconds, self.bright_cps * seconds, seconds / self.d_lifetime_s
        )

    def readout_errors(self, detection_us: float, threshold: int) -> tuple[float, float]:
        """P(dark|S1/2) and P(bright|D5/2), if counts up to a threshold are dark."""
        return readout_errors(self.window(detection_us), threshold)

    def optimal_threshold(self, detection_us: float) -> int:
        """The highest dark count that makes the sum of both errors least."""
        return optimal_threshold(self.window(detection_us))


TURNS: Final[Mapping[IonOperation, Callable[[float, float, float], Bloch]]] = MappingProxyType(
    {
        IonOperation.X_PI: lambda x, y, z: (x, -y, -z),
        IonOperation.Y_PI: lambda x, y, z: (-x, y, -z),
        IonOperation.X_HALF: lambda x, y, z: (x, -z, y),
        IonOperation.Y_HALF: lambda x, y, z: (z, y, -x),
        IonOperation.X_MINUS_HALF: lambda x, y, z: (x, z, -y),
    }
)
"""What exp(-i a sigma/2) does to a Bloch vector."""


def predicted_p_dark(
    operations: Iterable[IonOperation],
    physics: IonPhysics,
    detection_us: float = DETECTION_US,
    threshold: int = THRESHOLD,
    spacing_ns: float = 0.0,
) -> float:
    """Probability that a measurement after some operations counts as dark, in closed form.

    Pulses are on resonance, of the right length, and their errors those of `gate_depolarising`
    alone: the little that phonons add is left out. A measurement among the operations projects
    the ion; that it heats a bright one, so that pulses behind it err more, is left out as well.

    Args:
        operations: what is done to an initialised ion; a measurement at the end is the one that
            is asked about, and if there is none it follows.
        physics: of the ion.
        detection_us: window of the measurement.
        threshold: highest dark count.
        spacing_ns: darkness before each operation and before the measurement.
    """
    done = list(operations)
    if done and done[-1] is IonOperation.MEASURE:
        done.pop()
    initial = (0.0, 0.0, 1 - 2 * physics.preparation_error)
    kept = 1 - physics.gate_depolarising
    coherence = physics.coherence_factor(spacing_ns)
    survival = physics.dark_survival(spacing_ns)
    x, y, z = initial
    for operation in (*done, IonOperation.MEASURE):
        x, y, z = coherence * x, coherence * y, 1 - (1 - z) * survival
        if operation is IonOperation.INITIALISE:
            x, y, z = initial
        elif operation is IonOperation.MEASURE:
            x = y = 0.0
        else:
            x, y, z = (kept * part for part in TURNS[operation](x, y, z))
    dark_of_s, bright_of_d = physics.readout_errors(detection_us, threshold)
    p_d = (1 - z) / 2
    return p_d * (1 - bright_of_d) + (1 - p_d) * dark_of_s
