"""`cr`: the threshold of the charge-resonance (CR) check.

A good centre, negative and on resonance, answers the check with many photons, an ionised
one with hardly any. Programs with several readouts ionise it often enough to see both. The
histogram of the first check of every INI is fitted with two Poisson distributions, and a
third for centres that were ionised during the check, at any time of it alike.

A failed check sees so few photons that there may be none in all of them. That says that their
mean is not much more than one photon in all of them, and not that it is 0. So the mean is not
the most likely one: of ``n`` photons in ``N`` failed checks it is ``(n + 1) / N``, the mean of
its posterior for a flat prior. The threshold is then as low as the data allow, and no lower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc
from scipy.stats import poisson

from calibration import plots
from calibration.bench import CalibrationNode
from calibration.errors import CalibrationError
from calibration.file import NodeCalibration
from calibration.fits import fit_poisson, parameters
from calibration.measurement import (
    CalibrationResult,
    Column,
    Data,
    Measurement,
    Rows,
    Value,
    check_positive,
)
from qnodeos.qdevice.instructions import ini, msr

COUNTS_MAX: Final = 5000
"""Most photons in a check: one in 10 ns of a check of 50 us."""

_BATCH: Final = 500
_FAILED_MIN: Final = 20
"""Fewest failed checks that determine what a failed check looks like."""


@dataclass(frozen=True)
class ChargeResonance(Measurement[CalibrationNode]):
    """Histogram of CR counts, and the threshold between the two kinds.

    Attributes:
        shots: repetitions.
        readouts: in each repetition; they ionise the centre now and then.
    """

    name: ClassVar[str] = "cr"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("shot", "shot", setpoint=True),
        Column("photons", "photons in the check"),
    )

    shots: int = 5000
    readouts: int = 4

    def check(self) -> None:
        """Numbers in their ranges."""
        check_positive("shots", self.shots)
        check_positive("readouts", self.readouts, 100)

    def context(self, bench: CalibrationNode) -> dict[str, Any]:
        """The check in use."""
        return {
            "cr_us": bench.calibration.cr_us.value,
            "cr_threshold": bench.calibration.cr_threshold.value,
        }

    def points(self, bench: CalibrationNode) -> Iterator[Rows]:
        """In batches of shots."""
        program = [ini(), *[msr()] * self.readouts]
        for first in range(0, self.shots, _BATCH):
            count = min(_BATCH, self.shots - first)
            photons = bench.shots(program, count).cr_counts[:, 0]
            yield {"shot": np.arange(first, first + count), "photons": photons}

    def analyse(self, data: Data) -> CalibrationResult:
        """The threshold is where both kinds are equally likely, for equal numbers of both."""
        histogram = _histogram(data)
        shots = float(histogram.sum())
        # Start: split half way, in the root of the counts, to the mean of the upper half.
        upper = float(np.mean(data["photons"][data["photons"] >= np.mean(data["photons"]) / 2]))
        failed = int(histogram[: math.ceil(upper / 4)].sum())
        if failed < _FAILED_MIN or failed > shots - _FAILED_MIN:
            raise CalibrationError(
                f"cr: {failed} of {shots:.0f} checks failed, and at least {_FAILED_MIN} of both "
                "kinds are needed; use more shots, more readouts in each, or align the lasers"
            )
        k = np.arange(histogram.size - 1)
        fit = fit_poisson(
            lambda values: shots * _mixture(k, values),
            parameters(
                bad_photons=(0.05, 1e-6, upper / 2),
                good_photons=(upper, upper / 2, upper * 1.5),
                bad_fraction=(failed / shots, 1e-6, 1.0),
                ionising_fraction=(1e-3, 0.0, 0.5),
            ),
            histogram,
            what="cr",
            may_vanish=("bad_photons", "ionising_fraction"),
            fixed_sums=1,
        )
        values = dict(fit.values)
        n_failed = values["bad_fraction"] * shots
        limit, sigma = fit.derived(lambda tried: _equally_likely(tried, shots))
        n_photons = values["bad_photons"] * n_failed
        bad_photons = (n_photons + 1) / n_failed
        # The width of the posterior beyond that of the fit, which knows of n photons only.
        step = 1 / (n_photons + 1)
        up, down = (
            _limit(values["good_photons"], bad_photons * math.exp(sign * step)) for sign in (1, -1)
        )
        threshold = math.ceil(limit)
        sigmas = {
            **fit.sigmas,
            "bad_photons": math.hypot(fit.sigmas["bad_photons"], 1 / n_failed),
            # One ionised check would have been seen, at most times of its ionisation.
            "ionising_fraction": max(fit.sigmas["ionising_fraction"], 1 / shots),
        }
        found = {**values, "bad_photons": bad_photons}
        return CalibrationResult.of_fit(
            data,
            fit,
            {
                "cr_threshold": Value(float(threshold), math.hypot(sigma, (up - down) / 2)),
                **{
                    name: Value(found[name], sigmas[name])
                    for name in ("good_photons", "bad_photons", "bad_fraction", "ionising_fraction")
                },
            },
            {
                "equally_likely": limit,
                "pass_when_bad": float(poisson.sf(threshold - 1, bad_photons)),
                "fail_when_good": float(poisson.cdf(threshold - 1, values["good_photons"])),
                "parameters": values,
            },
        )

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """The histogram with the fitted mixture."""
        histogram = _histogram(data)[:-1]
        made, (axes,) = plots.figure("CR check", "photons in the check", "checks")
        k = np.arange(histogram.size)
        axes.bar(k, histogram, width=1.0, color=plots.BLUE, alpha=0.5, label="measured")
        axes.set_yscale("log")
        axes.set_ylim(0.5, None)
        if result is not None:
            fitted = _mixture(k, result.details["parameters"])[:-1] * data.rows
            plots.curve(axes, k, fitted, "fit", 1)
            threshold = result.values["cr_threshold"].value
            plots.mark(axes, threshold - 0.5, f"threshold {threshold:.0f}")
        plots.save(made, path)

    def update(self, calibration: NodeCalibration, result: CalibrationResult) -> NodeCalibration:
        """Sets ``cr_threshold``."""
        return calibration.replaced(cr_threshold=result.calibrated("cr_threshold"))


def _histogram(data: Data) -> NDArray[np.float64]:
    """Checks with 0, 1, ... photons, and in the last bin with more than were ever seen."""
    photons = data["photons"].astype(np.int64)
    if photons.size == 0 or photons.min() < 0 or photons.max() > COUNTS_MAX:
        raise CalibrationError(
            f"cr: needs checks with 0..{COUNTS_MAX} photons each; look at the counter"
        )
    return np.append(np.bincount(photons), 0).astype(np.float64)


def _mixture(k: NDArray[np.int64], values: Mapping[str, float]) -> NDArray[np.float64]:
    """Probabilities of k photons, and of more than the largest k, shape (k.size + 1,)."""
    bad, ionising = values["bad_fraction"], values["ionising_fraction"]
    good_photons = values["good_photons"]
    probabilities = (
        bad * poisson.pmf(k, values["bad_photons"])
        # Photons until an ionisation, at any time alike: a Poisson mean uniform in 0..good.
        + ionising * gammainc(k + 1, good_photons) / good_photons
        + (1 - bad - ionising) * poisson.pmf(k, good_photons)
    )
    return np.append(probabilities, max(0.0, 1 - float(probabilities.sum())))


def _equally_likely(values: Mapping[str, float], shots: float) -> float:
    """Photons at which a good and a bad centre are equally likely, from a fit of checks."""
    bad_photons = values["bad_photons"] + 1 / (values["bad_fraction"] * shots)
    return _limit(values["good_photons"], bad_photons)


def _limit(good_photons: float, bad_photons: float) -> float:
    """Photons that are equally likely for two means."""
    return (good_photons - bad_photons) / math.log(good_photons / bad_photons)
