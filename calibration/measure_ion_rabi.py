"""`ion-rabi`: the length of the pi pulse.

Pulses on the carrier of growing length. Every number of phonons has a Rabi frequency of
its own, so thermal oscillations fade; the fit has the mean of the distribution and the mean of the
Rabi frequencies, which a pi pulse is made for, as its parameters. Errors of preparation and pulse
are taken to be the same for S1/2 and D5/2 and all lengths.
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
from calibration.ion_file import ION_RANGES, IonCalibration
from calibration.measure_ion_frequency import LEVELS, MOST_PHONONS
from calibration.measurement import (
    CalibrationResult,
    Column,
    Data,
    Measurement,
    Rows,
    Value,
    check_positive,
    check_within,
)
from sequences.ion import PULSE_STEP_NS, IonOperation
from sequences.thermal_rabi import carrier_factors, thermal

_PROGRAM: Final = (IonOperation.INITIALISE, IonOperation.X_PI)
_FINE: Final = 60
"""Pi times tried for the start of the fit, which may have several minima."""


@dataclass(frozen=True)
class IonRabi(Measurement[IonBench]):
    """Sweep of the length of a pulse.

    Attributes:
        pi_pulses: length of the sweep in units of the present pi time.
        n_points: in it.
        shots: at each.
    """

    name: ClassVar[str] = "ion-rabi"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("length", "length of the pulse", "ns", setpoint=True),
        Column("shots", "shots"),
        Column("dark", "dark readouts"),
    )
    on_ion: ClassVar[bool] = True

    pi_pulses: float = 6.0
    n_points: int = 40
    shots: int = 100

    def check(self) -> None:
        """Numbers in their ranges."""
        check_within("pi_pulses", self.pi_pulses, 1, 100)
        check_positive("n_points", self.n_points, 10_000)
        check_positive("shots", self.shots)

    def context(self, bench: IonBench) -> dict[str, Any]:
        """The pi time in use."""
        return {"pi_ns": bench.calibration.pi_ns.value, "eta": bench.calibration.eta}

    def points(self, bench: IonBench) -> Iterator[Rows]:
        """One row for each length, none first."""
        original = bench.calibration
        least, greatest = ION_RANGES["pi_ns"]
        end = min(greatest, self.pi_pulses * original.pi_ns.value)
        lengths = np.linspace(least, max(least, end), self.n_points)
        with restored(bench):
            for length in np.unique(PULSE_STEP_NS * np.rint(lengths / PULSE_STEP_NS)):
                bench.apply(original.replaced(pi_ns=Calibrated(value=float(length))))
                yield {"length": float(length), **count_dark(bench, _PROGRAM, self.shots)}

    def analyse(self, data: Data) -> CalibrationResult:
        """Fits the pi time, the phonons, and what errors add."""
        if data.rows == 0:
            raise CalibrationError(f"{self.name}: there are no points")
        check_varies(data, "find the resonance first, and look at the 729 nm laser")
        proportion = data["dark"] / data["shots"]
        start = _best_start(data, proportion)
        fit = fit_binomial(
            lambda values: _oscillation(data["length"], data.context, values),
            parameters(
                pi_ns=(start, 0.7 * start, 1.4 * start),
                phonons=(0.5, 0.0, MOST_PHONONS),
                error=(min(float(proportion.min()) + 1e-3, 0.4), 0.0, 0.5),
            ),
            data["dark"],
            data["shots"],
            what=self.name,
            may_vanish=("error", "phonons"),
        )
        values = {"pi_ns": Value(fit.values["pi_ns"], fit.sigmas["pi_ns"])}
        return CalibrationResult.of_fit(data, fit, values, {"parameters": fit.values})

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """The oscillation, and the fit."""
        made, (axes,) = plots.figure("729 nm Rabi oscillation", "pulse (us)", "dark readouts")
        plots.proportions(axes, data["length"] / 1e3, data["dark"], data["shots"], "measured")
        if result is not None:
            fine = np.linspace(0, data["length"].max(), 601)
            fitted = _oscillation(fine, data.context, result.details["parameters"])
            plots.curve(axes, fine / 1e3, fitted, "fit", 1)
            value, sigma = result.values["pi_ns"]
            plots.mark(axes, value / 1e3, f"pi, {value:.0f} +- {sigma:.0f} ns")
        plots.save(made, path)

    def update(self, calibration: IonCalibration, result: CalibrationResult) -> IonCalibration:
        """Sets ``pi_ns``; the phonons are there to be looked at."""
        return calibration.replaced(pi_ns=result.calibrated("pi_ns"))


def _oscillation(
    length_ns: Floats, context: Mapping[str, Any], values: Mapping[str, float]
) -> Floats:
    """Probability of a dark readout after pulses of some lengths."""
    weights = thermal(values["phonons"], LEVELS)
    factors = carrier_factors(LEVELS, context["eta"])
    factors = factors / (weights @ factors)
    angles = math.pi * factors[:, np.newaxis] * length_ns / values["pi_ns"]
    flips: Floats = weights @ np.sin(angles / 2) ** 2
    error = values["error"]
    return error + (1 - 2 * error) * flips


def _best_start(data: Data, proportion: Floats) -> float:
    """The best pi time of a grid about the one in use, with offset and contrast fitted."""
    grid = data.context["pi_ns"] * np.geomspace(0.4, 2.5, _FINE)
    misfit = []
    for pi_ns in grid:
        shape = np.sin(math.pi * data["length"] / pi_ns / 2) ** 2
        model = np.stack([shape, np.ones(data.rows)], axis=1)
        solution, _, _, _ = np.linalg.lstsq(model, proportion, rcond=None)
        rest = proportion - model @ solution
        misfit.append(float(rest @ rest))
    return float(grid[int(np.argmin(misfit))])
