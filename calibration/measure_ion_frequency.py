"""`ion-frequency`: the DDS frequency at which the 729 nm laser is resonant.

Rabi spectroscopy: a weak pulse, longer than the pi pulse and as much smaller in amplitude, shelves
the ion in D5/2 near the resonance only. The fit is of the line of a two-level system, averaged over
a thermal distribution of phonons. The tone of sideband cooling stays where it was, so far from the
right place the ion is hot; the distribution's mean is free for that.

Errors of preparation and pulse are taken to be the same for S1/2 and D5/2: a share of wrong
readouts far from the line is the same on its top.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from calibration import plots
from calibration.bench import restored
from calibration.errors import CalibrationError
from calibration.file import Calibrated
from calibration.fits import Floats, fit_binomial, parameters
from calibration.ion_bench import IonBench, check_varies, count_dark
from calibration.ion_file import IonCalibration
from calibration.measurement import (
    CalibrationResult,
    Column,
    Data,
    Measurement,
    Rows,
    Value,
    check_above_zero,
    check_positive,
    check_within,
)
from sequences.ion import IonOperation
from sequences.thermal_rabi import carrier_factors, flip, thermal

LEVELS: Final = 160
"""Numbers of phonons in the fit: always as many, so that it is smooth."""
MOST_PHONONS: Final = 25.0
"""Highest mean in the fit, of which `LEVELS` leave out 0.2 %."""
_PROGRAM: Final = (IonOperation.INITIALISE, IonOperation.X_PI)


@dataclass(frozen=True)
class IonFrequency(Measurement[IonBench]):
    """Sweep of the carrier's frequency about the present one.

    Attributes:
        span_hz: of the sweep.
        n_points: in it.
        shots: at each.
        pulse_us: length of the weak pulse.
    """

    name: ClassVar[str] = "ion-frequency"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("frequency", "DDS frequency", "Hz", setpoint=True),
        Column("shots", "shots"),
        Column("dark", "dark readouts"),
    )
    on_ion: ClassVar[bool] = True

    span_hz: float = 60e3
    n_points: int = 41
    shots: int = 100
    pulse_us: float = 60.0

    def check(self) -> None:
        """Numbers in their ranges."""
        check_above_zero("span_hz", self.span_hz)
        check_positive("n_points", self.n_points, 10_000)
        check_positive("shots", self.shots)
        check_within("pulse_us", self.pulse_us, 1, 100.1)

    def context(self, bench: IonBench) -> dict[str, Any]:
        """The frequency in use and the weak pulse."""
        weak = self._weak(bench.calibration)
        return {
            "frequency_hz": bench.calibration.carrier_hz.value,
            "pulse_ns": weak.pulse_ns,
            "eta": weak.eta,
        }

    def points(self, bench: IonBench) -> Iterator[Rows]:
        """One row for each frequency."""
        weak = self._weak(bench.calibration)
        centre = weak.carrier_hz.value
        with restored(bench):
            for offset in np.linspace(-self.span_hz / 2, self.span_hz / 2, self.n_points):
                frequency = centre + float(offset)
                bench.apply(weak.replaced(carrier_hz=Calibrated(value=frequency)))
                yield {"frequency": frequency, **count_dark(bench, _PROGRAM, self.shots)}

    def analyse(self, data: Data) -> CalibrationResult:
        """Fits the centre, the pulse's angle, the phonons, and what errors add."""
        if data.rows == 0:
            raise CalibrationError(f"{self.name}: there are no points")
        offset = data["frequency"] - data.context["frequency_hz"]
        check_varies(data, "sweep further, or look at the power of the 729 nm laser")
        proportion = data["dark"] / data["shots"]
        low, high = float(proportion.min()), float(proportion.max())
        above = np.maximum(proportion - (low + high) / 2, 0)
        start = float(above @ offset / above.sum()) if above.sum() else 0.0
        half_span = float(np.ptp(offset)) / 2
        fit = fit_binomial(
            lambda values: _line(offset, data.context, values),
            parameters(
                centre_hz=(start, -half_span, half_span) if half_span else 0.0,
                angle=(0.9 * math.pi, 0.05 * math.pi, 1.9 * math.pi),
                phonons=(1.0, 0.0, MOST_PHONONS),
                error=(min(low + 1e-3, 0.4), 0.0, 0.5),
            ),
            data["dark"],
            data["shots"],
            what=self.name,
            may_vanish=("error", "phonons"),
        )
        centre = data.context["frequency_hz"] + fit.values["centre_hz"]
        values = {
            "carrier_hz": Value(centre, fit.sigmas["centre_hz"]),
            "angle_pi": Value(fit.values["angle"] / math.pi, fit.sigmas["angle"] / math.pi),
        }
        details = {"parameters": fit.values, "moved_hz": fit.values["centre_hz"]}
        return CalibrationResult.of_fit(data, fit, values, details)

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """The sweep, and the fitted line."""
        middle = data.context["frequency_hz"]
        made, (axes,) = plots.figure(
            "729 nm resonance", f"DDS frequency - {middle / 1e6:.6f} MHz (kHz)", "dark readouts"
        )
        offset = data["frequency"] - middle
        plots.proportions(axes, offset / 1e3, data["dark"], data["shots"], "measured")
        if result is not None:
            fine = np.linspace(offset.min(), offset.max(), 401)
            fitted = _line(fine, data.context, result.details["parameters"])
            plots.curve(axes, fine / 1e3, fitted, "fit", 1)
            value, sigma = result.values["carrier_hz"]
            plots.mark(axes, (value - middle) / 1e3, f"centre, +-{sigma:.0f} Hz")
        plots.save(made, path)

    def update(self, calibration: IonCalibration, result: CalibrationResult) -> IonCalibration:
        """Sets ``carrier_hz``, and moves ``sideband_hz`` by as much."""
        carrier = result.calibrated("carrier_hz")
        moved = float(result.details["moved_hz"])
        return calibration.replaced(
            carrier_hz=carrier,
            sideband_hz=carrier.model_copy(update={"value": calibration.sideband_hz.value + moved}),
        )

    def _weak(self, calibration: IonCalibration) -> IonCalibration:
        """The calibration with a pi pulse as long as the weak pulse, and of the same area."""
        ratio = calibration.pi_ns.value / (1e3 * self.pulse_us)
        return calibration.replaced(
            pi_ns=Calibrated(value=1e3 * self.pulse_us),
            carrier_amplitude=min(1.0, calibration.carrier_amplitude * ratio),
        )


def _line(offset_hz: Floats, context: Mapping[str, Any], values: Mapping[str, float]) -> Floats:
    """Probability of a dark readout at offsets from the frequency in use."""
    detuning = 2 * math.pi * (offset_hz - values["centre_hz"]) * context["pulse_ns"] / 1e9
    angles = values["angle"] * carrier_factors(LEVELS, context["eta"])
    flips = flip(angles[:, np.newaxis], detuning, 1.0)
    error = values["error"]
    return error + (1 - 2 * error) * (thermal(values["phonons"], LEVELS) @ flips)
