"""`ion-detection`: the threshold between bright and dark, and the errors of the readout.

Photon counts after an initialisation, and after one with a pi pulse. Each histogram is a mixture of
the counts of S1/2 and of D5/2, which may decay during the window (`sequences.fluorescence`), its
lifetime taken from the literature. One maximum likelihood fit gives the two rates and how much of
the other state either preparation has; the threshold is the best one for the rates, and the errors
are those of the fitted distributions: they do not contain the preparation's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from calibration import plots
from calibration.errors import CalibrationError
from calibration.file import Calibrated
from calibration.fits import Fit, Floats, fit_poisson, parameters
from calibration.ion_bench import IonBench
from calibration.ion_file import US_PER_S, IonCalibration
from calibration.measurement import (
    CalibrationResult,
    Column,
    Data,
    Measurement,
    Rows,
    Value,
    check_positive,
)
from sequences.fluorescence import Window, bright_pmf, dark_pmf, optimal_threshold, readout_errors
from sequences.ion import IonOperation

_BATCH: Final = 500
_LEAST_SHOTS: Final = 100
_SEPARATION: Final = 3.0
"""Least distance of the two means, in the sum of their standard deviations."""

_PROGRAMS: Final = (
    (IonOperation.INITIALISE,),
    (IonOperation.INITIALISE, IonOperation.X_PI),
)
"""By the state prepared."""


@dataclass(frozen=True)
class IonDetection(Measurement[IonBench]):
    """Histograms of photon counts.

    Attributes:
        shots: for each of the two states.
    """

    name: ClassVar[str] = "ion-detection"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("prepared", "state prepared", setpoint=True),
        Column("shot", "shot", setpoint=True),
        Column("photons", "photons"),
    )
    on_ion: ClassVar[bool] = True

    shots: int = 3000

    def check(self) -> None:
        """Numbers in their ranges."""
        check_positive("shots", self.shots)

    def context(self, bench: IonBench) -> dict[str, Any]:
        """The window, and the lifetime of D5/2."""
        calibration = bench.calibration
        return {
            "detection_us": calibration.detection_us,
            "d_lifetime_s": calibration.d_lifetime_s,
        }

    def points(self, bench: IonBench) -> Iterator[Rows]:
        """In batches of shots, the two states in turn, so that drifts hit both."""
        for first in range(0, self.shots, _BATCH):
            for prepared, program in enumerate(_PROGRAMS):
                photons = bench.counts(program, min(_BATCH, self.shots - first))
                yield {
                    "prepared": prepared,
                    "shot": np.arange(first, first + photons.size),
                    "photons": photons,
                }

    def analyse(self, data: Data) -> CalibrationResult:
        """Rates from one fit of both histograms; threshold and errors from the rates."""
        fit = _fit(data)
        seconds = data.context["detection_us"] / US_PER_S
        threshold = optimal_threshold(_window(fit.values, data.context))

        def error(which: int) -> Value:
            def of(values: Mapping[str, float]) -> float:
                return readout_errors(_window(values, data.context), threshold)[which]

            return Value(*fit.derived(of))

        values = {
            "threshold": Value(float(threshold), 0.0),
            "dark_of_s": error(0),
            "bright_of_d": error(1),
            "background_cps": _scaled(fit, "background", seconds),
            "signal_cps": _scaled(fit, "signal", seconds),
            "dark_fraction_0": Value(fit.values["wrong_0"], fit.sigmas["wrong_0"]),
            "bright_fraction_1": Value(fit.values["wrong_1"], fit.sigmas["wrong_1"]),
        }
        return CalibrationResult.of_fit(data, fit, values, {"parameters": fit.values})

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """Both histograms, and the fit."""
        made, (axes,) = plots.figure("Photon counts", "photons", "shots")
        axes.set_yscale("log")
        axes.set_ylim(0.3, max(1.0, float(data.rows)))
        for style, histogram in enumerate(_histograms(data)):
            k = np.flatnonzero(histogram)
            plots.points(axes, k, histogram[k], np.sqrt(histogram[k]), f"|{style}>", style)
            if result is not None:
                fitted = _mixtures(histogram.size, data.context, result.details["parameters"])
                grid = np.arange(histogram.size)
                plots.curve(axes, grid, histogram.sum() * fitted[style], None, style)
        if result is not None:
            plots.mark(axes, result.values["threshold"].value + 0.5, "threshold")
        plots.save(made, path)

    def update(self, calibration: IonCalibration, result: CalibrationResult) -> IonCalibration:
        """Sets ``threshold``, both errors, and both rates."""
        changes = {
            name: result.calibrated(name)
            for name in ("threshold", "dark_of_s", "bright_of_d", "background_cps", "signal_cps")
        }
        changes["threshold"] = Calibrated(
            value=changes["threshold"].value, source=changes["threshold"].source
        )
        return calibration.replaced(**changes)


def _histograms(data: Data) -> tuple[Floats, Floats]:
    """Shots by number of photons, of both preparations, of the same length."""
    size = int(data["photons"].max()) + 2 if data.rows else 1
    zero, one = (
        np.bincount(data.select("prepared", state)["photons"].astype(np.int64), minlength=size)
        for state in (0, 1)
    )
    return zero.astype(np.float64), one.astype(np.float64)


def _fit(data: Data) -> Fit:
    """Mean counts in a window, and the share of the wrong state in both preparations."""
    histograms = _histograms(data)
    shots = [float(histogram.sum()) for histogram in histograms]
    if min(shots) < _LEAST_SHOTS:
        raise CalibrationError(
            f"ion-detection: {min(shots):.0f} shots of a state; at least {_LEAST_SHOTS} are needed"
        )
    bright, dark = (float(np.median(data.select("prepared", state)["photons"])) for state in (0, 1))
    if bright - dark < _SEPARATION * (np.sqrt(bright) + np.sqrt(dark)):
        raise CalibrationError(
            f"ion-detection: {bright:.0f} photons of |0> and {dark:.0f} of |1> cannot be told "
            "apart; look at the 397 and 866 nm lasers and at the pi pulse, or count for longer"
        )
    between = (bright + dark) / 2
    size = histograms[0].size
    k = np.arange(size)
    wrong_0 = float(histograms[0][k < between].sum()) / shots[0]
    wrong_1 = float(histograms[1][k >= between].sum()) / shots[1]

    def model(values: Mapping[str, float]) -> Floats:
        both = _mixtures(size, data.context, values)
        # The last bin holds all that is more.
        for mixture in both:
            mixture[-1] = max(0.0, 1 - float(mixture[:-1].sum()))
        return np.concatenate([n * mixture for n, mixture in zip(shots, both, strict=True)])

    return fit_poisson(
        model,
        parameters(
            background=(dark + 0.1, 0.0, between + 1),
            signal=(bright - dark, 0.5 * (bright - dark), 2 * (bright - dark)),
            wrong_0=(wrong_0 + 1e-4, 0.0, 0.5),
            wrong_1=(wrong_1 + 1e-4, 0.0, 0.5),
        ),
        np.concatenate(histograms),
        what="ion-detection",
        may_vanish=("background", "wrong_0", "wrong_1"),
        fixed_sums=2,
    )


def _window(values: Mapping[str, float], context: Mapping[str, Any]) -> Window:
    decays = context["detection_us"] / US_PER_S / context["d_lifetime_s"]
    return Window(values["background"], values["signal"], decays)


def _mixtures(
    size: int, context: Mapping[str, Any], values: Mapping[str, float]
) -> tuple[Floats, Floats]:
    """Probabilities of 0 .. size - 1 photons after both preparations."""
    window, k = _window(values, context), np.arange(size)
    bright, dark = bright_pmf(k, window), dark_pmf(k, window)
    e, f = values["wrong_0"], values["wrong_1"]
    return (1 - e) * bright + e * dark, (1 - f) * dark + f * bright


def _scaled(fit: Fit, name: str, seconds: float) -> Value:
    return Value(fit.values[name] / seconds, fit.sigmas[name] / seconds)
