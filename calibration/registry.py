"""The calibration measurements by name."""

from __future__ import annotations

from typing import Any, Final

from calibration.errors import CalibrationError
from calibration.measure_alpha import FidelityAlpha
from calibration.measure_coherence import CoherenceTime
from calibration.measure_cr import ChargeResonance
from calibration.measure_delay import AwgDelay
from calibration.measure_ion_detection import IonDetection
from calibration.measure_ion_frequency import IonFrequency
from calibration.measure_ion_preparation import IonPreparation
from calibration.measure_ion_rabi import IonRabi
from calibration.measure_rabi import Rabi
from calibration.measure_resonance import Resonance
from calibration.measure_ssro import ReadoutCorrection, SingleShotReadout
from calibration.measurement import Measurement

MEASUREMENTS: Final[dict[str, type[Measurement[Any]]]] = {
    kind.name: kind
    for kind in (
        ChargeResonance,
        Resonance,
        Rabi,
        SingleShotReadout,
        ReadoutCorrection,
        CoherenceTime,
        AwgDelay,
        FidelityAlpha,
        IonDetection,
        IonFrequency,
        IonRabi,
        IonPreparation,
    )
}

NODE_ORDER: Final = ("cr", "resonance", "rabi", "ssro", "t-coh")
"""What a complete calibration of one node does: each rests on those before it."""

ION_ORDER: Final = ("ion-detection", "ion-frequency", "ion-rabi", "ion-preparation")
"""The same of a trapped-ion node."""

PAIR_ORDER: Final = ("fidelity-alpha",)
"""And what is left for a pair of calibrated nodes."""


def measurement(name: str, **settings: Any) -> Measurement[Any]:
    """A measurement by name, with other settings than its defaults.

    Raises:
        CalibrationError: there is no such measurement or setting.
    """
    if name not in MEASUREMENTS:
        raise CalibrationError(
            f"there is no measurement {name!r}; there are {', '.join(MEASUREMENTS)}"
        )
    try:
        return MEASUREMENTS[name](**settings)
    except TypeError as error:
        raise CalibrationError(f"{name}: {error}") from error
