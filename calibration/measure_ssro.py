"""`ssro` and `readout-correction`: fidelities of single-shot readout.

The spin is prepared in |0> and in |1> and read out; 0 means that a photon came. Where INI can
pump to |0> only, as on instruments (`calibration.instrument_bench`), |1> is that and a pi pulse,
so that what errs in the pulse counts as an error of the readout of |1>. As a readout is over with
its first photon, one run with a long readout gives the fidelities of every shorter one:

    F0(t) = P(first photon before t | |0>),    F1(t) = P(no photon before t | |1>).

The rates behind it: a bright spin sends photons and, now and then, is flipped or ionised and
stays dark; dark counts come at all times. Pumping errs, with a probability that is
not measured here but assumed known (0.01, Delle Donne et al.), and the fidelities are
corrected for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from scipy.stats import chi2 as chi2_distribution

from calibration import plots
from calibration.bench import NO_PHOTON, CalibrationNode, restored
from calibration.errors import CalibrationError
from calibration.file import Calibrated, NodeCalibration
from calibration.fits import MIN_P_VALUE, Fit, Floats, fit_poisson, parameters
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
from calibration.readout import check_binomial, proportion_variance
from qnodeos.qdevice.instructions import ini, msr

INITIALISATION_ERROR: Final = 0.01
"""Probability that pumping leaves the other state (Delle Donne et al., Methods)."""

WINDOW_MAX_US: Final = 5000

_BATCH: Final = 500
_TIME_BINS: Final = 24


@dataclass(frozen=True)
class SingleShotReadout(Measurement[CalibrationNode]):
    """F0 and F1 against the duration of the readout, and the best duration.

    Attributes:
        shots: for each of the two states.
        window_us: the longest duration looked at.
        duration_us: the duration to use; None for the one with the best mean fidelity.
        initialisation_error: of pumping, the same for both states.
        initialisation_error_sigma: how well that is known.
    """

    name: ClassVar[str] = "ssro"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("prepared", "state prepared", setpoint=True),
        Column("shot", "shot", setpoint=True),
        Column("first_photon", "first photon, -1 for none", "us"),
    )

    shots: int = 5000
    window_us: int = 400
    duration_us: int | None = None
    initialisation_error: float = INITIALISATION_ERROR
    initialisation_error_sigma: float = 0.0

    def check(self) -> None:
        """Numbers in their ranges."""
        check_positive("shots", self.shots)
        check_positive("window_us", self.window_us, WINDOW_MAX_US)
        if self.duration_us is not None:
            check_positive("duration_us", self.duration_us, self.window_us)
        check_within("initialisation_error", self.initialisation_error, 0, 0.5)
        check_within("initialisation_error_sigma", self.initialisation_error_sigma, 0)

    def context(self, bench: CalibrationNode) -> dict[str, Any]:
        """The window, and what is assumed of pumping."""
        return {
            "window_us": self.window_us,
            "duration_us": self.duration_us,
            "initialisation_error": self.initialisation_error,
            "initialisation_error_sigma": self.initialisation_error_sigma,
        }

    def points(self, bench: CalibrationNode) -> Iterator[Rows]:
        """In batches of shots, the two states in turn, so that drifts hit both."""
        window = Calibrated(value=float(self.window_us))
        for prepared, first, shots in prepared_batches(bench, self.shots, readout_us=window):
            photon = shots.first_photon_us[:, 0]
            yield {
                "prepared": prepared,
                "shot": np.arange(first, first + photon.size),
                "first_photon": photon,
            }

    def analyse(self, data: Data) -> CalibrationResult:
        """Rates from a fit of the first photons; fidelities from the counts themselves."""
        fit = _fit_rates(data)
        window = int(data.context["window_us"])
        best, best_sigma = math.inf, 0.0
        if fit.values["dark"] > 0:
            best, best_sigma = fit.derived(_best_duration)
        chosen = data.context["duration_us"]
        duration = round(min(max(1.0, best), window)) if chosen is None else int(chosen)
        observed = {state: _clicks(data, state, duration) for state in (0, 1)}
        values = _corrected(observed[0], observed[1], data.context)
        values |= {
            "readout_us": Value(float(duration), 0.0 if chosen is not None else best_sigma),
            "bright_rate_hz": _scaled(fit, "rate"),
            "stuck_fraction": Value(fit.values["stuck"], fit.sigmas["stuck"]),
            "dark_rate_hz": _scaled(fit, "dark"),
        }
        grid = np.unique(np.geomspace(1, window, 60).astype(int))
        curve: dict[str, list[Any]] = {"duration_us": grid.tolist(), "f0": [], "f1": []}
        for t in curve["duration_us"]:
            both = _corrected(_clicks(data, 0, t), _clicks(data, 1, t), data.context)
            curve["f0"].append(both["f0"])
            curve["f1"].append(both["f1"])
        return CalibrationResult.of_fit(
            data, fit, values, {"parameters": fit.values, "durations": curve}
        )

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """Fidelities against duration, measured and fitted."""
        made, (axes,) = plots.figure("Single-shot readout", "duration (us)", "fidelity")
        if result is None:
            for state in (0, 1):
                times = np.arange(1, int(data.context["window_us"]) + 1)
                clicks = [_clicks(data, state, float(t))[0] for t in times]
                plots.curve(axes, times, clicks, f"photons of |{state}>", state)
        else:
            curve = result.details["durations"]
            durations: Floats = np.asarray(curve["duration_us"], dtype=np.float64)
            for style, name in enumerate(("f0", "f1")):
                value, sigma = np.array(curve[name]).T
                plots.points(axes, durations, value, sigma, name.upper(), style)
            silent = _silent(durations, result.details["parameters"])
            plots.curve(axes, durations, 1 - silent[0], "fit", 0)
            plots.curve(axes, durations, silent[1], None, 1)
            duration = result.values["readout_us"].value
            plots.mark(axes, duration, f"{duration:.0f} us")
            axes.set_ylim(0.5, 1.01)
        plots.save(made, path)

    def update(self, calibration: NodeCalibration, result: CalibrationResult) -> NodeCalibration:
        """Sets ``readout_us``, ``f0`` and ``f1``."""
        return calibration.replaced(
            **{name: result.calibrated(name) for name in ("readout_us", "f0", "f1")}
        )


@dataclass(frozen=True)
class ReadoutCorrection(Measurement[CalibrationNode]):
    """F0 and F1 of the readout in use, as analyses of other measurements need them.

    Attributes:
        shots: for each of the two states.
        initialisation_error: of pumping, the same for both states.
        initialisation_error_sigma: how well that is known.
    """

    name: ClassVar[str] = "readout-correction"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("prepared", "state prepared", setpoint=True),
        Column("first_shot", "first shot of the batch", setpoint=True),
        Column("shots", "shots"),
        Column("ones", "outcomes 1"),
    )

    shots: int = 10_000
    initialisation_error: float = INITIALISATION_ERROR
    initialisation_error_sigma: float = 0.0

    def check(self) -> None:
        """Numbers in their ranges."""
        check_positive("shots", self.shots)
        check_within("initialisation_error", self.initialisation_error, 0, 0.5)
        check_within("initialisation_error_sigma", self.initialisation_error_sigma, 0)

    def context(self, bench: CalibrationNode) -> dict[str, Any]:
        """The duration in use, and what is assumed of pumping."""
        return {
            "readout_us": bench.calibration.readout_us.value,
            "initialisation_error": self.initialisation_error,
            "initialisation_error_sigma": self.initialisation_error_sigma,
        }

    def points(self, bench: CalibrationNode) -> Iterator[Rows]:
        """In batches of shots, the two states in turn."""
        for prepared, first, shots in prepared_batches(bench, self.shots):
            bits = shots.bits[:, 0]
            yield {
                "prepared": prepared,
                "first_shot": first,
                "shots": bits.size,
                "ones": int(bits.sum()),
            }

    def analyse(self, data: Data) -> CalibrationResult:
        """From the counts; fails if they drift from batch to batch."""
        totals: dict[int, tuple[float, int]] = {}
        chi2, ndof = 0.0, 0
        for state in (0, 1):
            rows = data.select("prepared", state)
            shots, ones = rows["shots"], rows["ones"]
            if not shots.sum():
                raise CalibrationError(f"readout-correction: no shots with |{state}> prepared")
            mean = float(ones.sum() / shots.sum())
            totals[state] = (1 - mean, int(shots.sum()))
            if 0 < mean < 1:
                chi2 += float(np.sum((ones - shots * mean) ** 2 / (shots * mean * (1 - mean))))
                ndof += shots.size - 1
        p_value = float(chi2_distribution.sf(chi2, ndof)) if ndof else 1.0
        if p_value < MIN_P_VALUE:
            raise CalibrationError(
                f"readout-correction: the fidelity drifts between batches (p = {p_value:.1e}); "
                "look at the laser power and the charge check"
            )
        values = _corrected(totals[0], totals[1], data.context)
        return CalibrationResult(data.measurement, values, data.source, "", chi2, ndof, p_value, {})

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """Outcomes of both states, batch by batch."""
        made, (axes,) = plots.figure("Readout", "first shot of the batch", "outcomes 1")
        for state in (0, 1):
            rows = data.select("prepared", state)
            plots.proportions(
                axes, rows["first_shot"], rows["ones"], rows["shots"], f"|{state}>", state
            )
        plots.save(made, path)

    def update(self, calibration: NodeCalibration, result: CalibrationResult) -> NodeCalibration:
        """Sets ``f0`` and ``f1``."""
        return calibration.replaced(f0=result.calibrated("f0"), f1=result.calibrated("f1"))


def prepared_batches(
    bench: CalibrationNode, shots: int, **changes: Calibrated
) -> Iterator[tuple[int, int, Any]]:
    """Read out |0> and |1>: state, number of the first shot, and the shots, batch by batch."""
    with restored(bench):
        original = bench.calibration
        for first in range(0, shots, _BATCH):
            for state in (0, 1):
                bench.apply(original.replaced(ini_state=state, **changes))
                yield state, first, bench.shots([ini(), msr()], min(_BATCH, shots - first))


# --- analysis ---------------------------------------------------------------------------


def _clicks(data: Data, state: int, duration_us: float) -> tuple[float, int]:
    """Fraction of the readouts of a state with a photon within a duration; and how many."""
    photon = data["first_photon"][data["prepared"] == state]
    if photon.size == 0:
        raise CalibrationError(f"ssro: there are no shots with |{state}> prepared")
    seen = (photon != NO_PHOTON) & (photon < duration_us)
    return float(np.mean(seen)), photon.size


def _corrected(
    clicks_0: tuple[float, int], clicks_1: tuple[float, int], context: Mapping[str, Any]
) -> dict[str, Value]:
    """F0 and F1 from fractions with a photon, corrected for the errors of pumping.

    The fractions are c0 = (1 - e) F0 + e (1 - F1) and c1 = e F0 + (1 - e) (1 - F1).
    """
    e, sigma_e = context["initialisation_error"], context["initialisation_error_sigma"]
    if not 0 <= e < 0.5:
        raise CalibrationError(f"an initialisation error of {e} cannot be corrected")
    c0, c1 = clicks_0[0], clicks_1[0]
    contrast = 1 - 2 * e
    variances = []
    for fraction, n in (clicks_0, clicks_1):
        successes = round(fraction * n)
        check_binomial(successes, n)
        variances.append(proportion_variance(successes, n))
    # d F / d e is (c0 - c1) / (1 - 2 e)^2 for both.
    systematic = abs(c0 - c1) / contrast**2 * sigma_e
    f0 = ((1 - e) * c0 - e * c1) / contrast
    f1 = 1 - ((1 - e) * c1 - e * c0) / contrast
    result = {}
    for name, value, own, other in (("f0", f0, 0, 1), ("f1", f1, 1, 0)):
        statistical = math.sqrt((1 - e) ** 2 * variances[own] + e**2 * variances[other]) / contrast
        # The corrected value may exceed 1 by its uncertainty, a fidelity may not.
        result[name] = Value(min(1.0, value), math.hypot(statistical, systematic))
    return result


def _fit_rates(data: Data) -> Fit:
    """Rates per microsecond from the times of first photons, of both states together."""
    window = int(data.context["window_us"])
    e = data.context["initialisation_error"]
    edges = np.unique(np.concatenate([[0], np.geomspace(1, window, _TIME_BINS).astype(int)]))
    counts, shots = [], []
    for state in (0, 1):
        photon = data["first_photon"][data["prepared"] == state]
        if photon.size < 100:
            raise CalibrationError(
                f"ssro: {photon.size} shots with |{state}> prepared; at least 100 are needed"
            )
        inside = np.histogram(photon[photon != NO_PHOTON], bins=edges)[0]
        counts.append(np.append(inside, photon.size - inside.sum()))
        shots.append(photon.size)

    def model(values: Mapping[str, float]) -> Floats:
        silent = _silent(edges.astype(np.float64), values)
        parts = []
        for state, total in enumerate(shots):
            mixed = (1 - e) * silent[state] + e * silent[1 - state]
            parts.append(total * np.append(-np.diff(mixed), mixed[-1]))
        return np.concatenate(parts)

    clicked = data["first_photon"][(data["prepared"] == 0) & (data["first_photon"] != NO_PHOTON)]
    if clicked.size < 100:
        raise CalibrationError(
            f"ssro: only {clicked.size} readouts of |0> saw a photon; look at the readout laser "
            "and the counter"
        )
    ratio = 1 - counts[1][-1] / shots[1]
    return fit_poisson(
        model,
        parameters(
            rate=(1 / (float(np.mean(clicked)) + 0.5), 1e-5, 20.0),
            stuck=(counts[0][-1] / shots[0] + 1e-3, 0.0, 0.9),
            dark=(max(1e-7, ratio / window), 0.0, 0.1),
        ),
        np.concatenate(counts),
        what="ssro",
        may_vanish=("stuck", "dark"),
        fixed_sums=2,
    )


def _silent(time_us: Floats, values: Mapping[str, float]) -> tuple[Floats, Floats]:
    """Probabilities of no photon until a time, for |0> and |1>.

    A bright spin stops being silent or bright at ``rate``, and stays dark after a fraction
    ``stuck`` of these events.
    """
    no_dark = np.exp(-values["dark"] * time_us)
    stuck = values["stuck"]
    return no_dark * (stuck + (1 - stuck) * np.exp(-values["rate"] * time_us)), no_dark


def _best_duration(values: Mapping[str, float]) -> float:
    """Where F0 + F1 is largest, in microseconds; there is no such place without dark counts."""
    rate, dark = values["rate"], values["dark"]
    return math.log1p(rate / dark) / rate


def _scaled(fit: Fit, name: str) -> Value:
    return Value(fit.values[name] * 1e6, fit.sigmas[name] * 1e6)
