"""The calibration of a trapped-ion node; its file is that of `calibration.file`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from calibration.file import Calibrated, CalibrationFile
from drivers.ion_setup import IonSettings
from instruments.pmt_counter import MAX_THRESHOLD
from sequences.errors import SequenceError
from sequences.fluorescence import Window
from sequences.ion import PULSE_STEP_NS
from sequences.thermal_rabi import MAX_MEAN_PHONONS

ION_RANGES: Final = {
    "carrier_hz": (1e6, 400e6),
    "sideband_hz": (1e6, 400e6),
    "pi_ns": (1_000.0, 100_000.0),
    "mean_phonons": (0.0, MAX_MEAN_PHONONS),
    "threshold": (0.0, float(MAX_THRESHOLD)),
    "background_cps": (0.0, 1e7),
    "signal_cps": (1e3, 1e8),
    "dark_of_s": (0.0, 1.0),
    "bright_of_d": (0.0, 1.0),
    "preparation_error": (0.0, 1.0),
}
"""What the instruments and the models of the measurements take."""

PUBLISHED_LIFETIME: Final = "Barton et al., Phys. Rev. A 62, 032503 (2000)"
US_PER_S: Final = 1e6


def _assumed(value: float) -> Any:
    return Field(default_factory=lambda: Calibrated(value=value))


class IonCalibration(CalibrationFile):
    """Everything about a trapped-ion node that is measured rather than chosen.

    Defaults are assumed unless they name a source. |0> is S1/2 and bright, |1> is D5/2 and dark.
    """

    carrier_hz: Calibrated = _assumed(80e6)
    sideband_hz: Calibrated = _assumed(79e6)
    carrier_amplitude: float = Field(
        1.0, gt=0, le=1, description="of the DDS in pulses; the pi time belongs to it"
    )
    pi_ns: Calibrated = _assumed(10_000.0)
    eta: float = Field(0.097, ge=0, le=0.5, description="Lamb-Dicke parameter (assumed)")
    mean_phonons: Calibrated = _assumed(0.05)
    detection_us: int = Field(
        1_500,
        ge=1,
        le=100_000,
        description="window of the readout (Delle Donne et al., Nature 639, 321 (2025))",
    )
    threshold: Calibrated = _assumed(33.0)
    background_cps: Calibrated = _assumed(1_500.0)
    signal_cps: Calibrated = _assumed(40_000.0)
    d_lifetime_s: float = Field(
        1.168, ge=0.01, le=1e6, description=f"of D5/2 ({PUBLISHED_LIFETIME})"
    )
    dark_of_s: Calibrated = _assumed(3.5e-5)
    bright_of_d: Calibrated = _assumed(6.0e-4)
    preparation_error: Calibrated = _assumed(1e-3)

    @field_validator(*ION_RANGES)
    @classmethod
    def _in_range(cls, calibrated: Calibrated, info: ValidationInfo) -> Calibrated:
        assert info.field_name is not None
        low, high = ION_RANGES[info.field_name]
        if not low <= calibrated.value <= high:
            raise ValueError(
                f"the value must lie in {low:.12g}..{high:.12g}, and is {calibrated.value:.12g}"
            )
        return calibrated

    @field_validator("threshold")
    @classmethod
    def _whole(cls, calibrated: Calibrated) -> Calibrated:
        if not calibrated.value.is_integer():
            raise ValueError(f"a threshold is a whole number of photons, not {calibrated.value}")
        return calibrated

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            self.window.checked()
            self.to_settings(IonSettings())
        except SequenceError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def window(self) -> Window:
        """Counts expected in a readout."""
        seconds = self.detection_us / US_PER_S
        return Window(
            self.background_cps.value * seconds,
            self.signal_cps.value * seconds,
            seconds / self.d_lifetime_s,
        )

    @property
    def pulse_ns(self) -> int:
        """The pi pulse that the sequencer can play, closest to `pi_ns`."""
        return PULSE_STEP_NS * round(self.pi_ns.value / PULSE_STEP_NS)

    def to_settings(self, base: IonSettings) -> IonSettings:
        """What a node is set up with; what is not calibrated comes from ``base``.

        Raises:
            SequenceError: the sequences cannot be played.
        """
        return replace(
            base,
            sequences=replace(
                base.sequences, pi_time_ns=self.pulse_ns, detection_us=self.detection_us
            ),
            carrier_hz=self.carrier_hz.value,
            sideband_hz=self.sideband_hz.value,
            carrier_amplitude=self.carrier_amplitude,
            threshold=int(self.threshold.value),
        )
