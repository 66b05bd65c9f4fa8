"""Fits of counts, with lmfit, whose uncertainties can be believed.

Counts do not have errors of their own: their variance follows from what the model expects.
So counts are fitted with maximum likelihood: the sum of squares is the deviance (McCullagh
and Nelder, Generalized Linear Models (1989)). A last round with the variances that the
result implies, whose minimum is the same, gives the covariance, the inverse of the
information. It is not scaled by chi-square: a bad fit is an error, not a reason for larger
error bars. Other observations are fitted again with the variances of the last result until
nothing changes.

Goodness is Pearson's chi-square, of points put together where a single one expects next to
nothing. For few counts its variance is not 2 ndof; the p-value is that of a gamma
distribution with the mean and variance it really has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import lmfit
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import gamma

from calibration.errors import FitError

Floats = NDArray[np.float64]
Model = Callable[[Mapping[str, float]], Floats]

MIN_P_VALUE: Final = 1e-4
"""A fit worse than this does not describe its data."""

ROUNDS_MAX: Final = 30
EVALUATIONS_MAX: Final = 20_000
_CONVERGED: Final = 1e-3
"""Largest change of a parameter, in its standard uncertainty, in the last round."""
_LEAST_PROBABILITY: Final = 1e-9
_LEAST_VARIANCE: Final = 1.0
"""Points are put together, for the goodness, until their counts have this variance."""
_AT_BOUND: Final = 1e-5
"""Distance from a bound that counts as at it, as a fraction of the range."""


@dataclass(frozen=True)
class Fit:
    """A good fit.

    Attributes:
        values: of all parameters.
        sigmas: standard uncertainties; 0 for a fixed parameter.
        names: of the varied parameters, in the order of ``covariance``.
        covariance: shape (n_varied, n_varied).
        chi2: Pearson's chi-square.
        ndof: degrees of freedom.
        p_value: probability of a larger chi-square.
        report: many lines, for people.
    """

    values: dict[str, float]
    sigmas: dict[str, float]
    names: tuple[str, ...]
    covariance: Floats
    chi2: float
    ndof: int
    p_value: float
    report: str

    def derived(self, function: Callable[[Mapping[str, float]], float]) -> tuple[float, float]:
        """A function of the parameters and its uncertainty, to first order."""
        gradient = np.zeros(len(self.names))
        for index, name in enumerate(self.names):
            step = 1e-3 * self.sigmas[name]
            if step:
                up = function({**self.values, name: self.values[name] + step})
                down = function({**self.values, name: self.values[name] - step})
                gradient[index] = (up - down) / (2 * step)
        return function(self.values), float(np.sqrt(gradient @ self.covariance @ gradient))


def parameters(**settings: tuple[float, float, float] | float) -> lmfit.Parameters:
    """Parameters by name: ``(start, least, greatest)``, or one number to keep fixed."""
    result = lmfit.Parameters()
    for name, setting in settings.items():
        if isinstance(setting, tuple):
            start, least, greatest = setting
            result.add(name, value=start, min=least, max=greatest)
        else:
            result.add(name, value=setting, vary=False)
    return result


class CountStatistics(NamedTuple):
    """What makes an observation a count.

    Attributes:
        per_unit: counts in one unit of every observation, shape (n_points,).
        excess: excess kurtosis of the observations, from the expectations.
        deviance: of the observations, from the expectations.
    """

    per_unit: Floats
    excess: Callable[[Floats], Floats]
    deviance: Callable[[Floats], Floats]


def fit_binomial(
    model: Model,
    start: lmfit.Parameters,
    successes: ArrayLike,
    shots: ArrayLike,
    *,
    what: str,
    may_vanish: Collection[str] = (),
) -> Fit:
    """Fit probabilities to numbers of successes.

    Args:
        model: probabilities, shape (n_points,), from the parameters.
        start: parameters with bounds.
        successes: shape (n_points,).
        shots: shape (n_points,).
        what: is fitted, for messages.
        may_vanish: parameters whose lower bound is a result like any other.

    Raises:
        FitError: see `fit`.
    """
    n = np.asarray(shots, dtype=np.float64)
    k = np.asarray(successes, dtype=np.float64)
    if not (np.all(n >= 1) and np.all((k >= 0) & (k <= n))):
        raise FitError(f"{what}: every point needs shots, and no more successes than shots")

    def variance(p: Floats) -> Floats:
        return p * (1 - p) / n

    def excess(p: Floats) -> Floats:
        return (1 - 6 * p * (1 - p)) / (n * p * (1 - p))

    def deviance(p: Floats) -> Floats:
        return _poisson_deviance(k, n * p) + _poisson_deviance(n - k, n * (1 - p))

    def bounded(values: Mapping[str, float]) -> Floats:
        return np.clip(model(values), _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)

    return fit(
        bounded,
        start,
        k / n,
        variance,
        variance((k + 0.5) / (n + 1)),
        CountStatistics(n, excess, deviance),
        what=what,
        may_vanish=may_vanish,
    )


def fit_poisson(
    model: Model,
    start: lmfit.Parameters,
    counts: ArrayLike,
    *,
    what: str,
    may_vanish: Collection[str] = (),
    fixed_sums: int = 0,
) -> Fit:
    """Fit expected numbers to counts.

    Args:
        model: expected counts, shape (n_points,), from the parameters.
        start: parameters with bounds.
        counts: shape (n_points,).
        what: is fitted, for messages.
        may_vanish: parameters whose lower bound is a result like any other.
        fixed_sums: sums of counts that model and data share: 1 for a histogram of a fixed
            number of shots, whose likelihood is multinomial and has the same maximum.

    Raises:
        FitError: see `fit`.
    """
    n = np.asarray(counts, dtype=np.float64)
    if not np.all(n >= 0):
        raise FitError(f"{what}: counts must not be negative")

    def bounded(values: Mapping[str, float]) -> Floats:
        return np.maximum(model(values), _LEAST_PROBABILITY)

    return fit(
        bounded,
        start,
        n,
        lambda mu: mu,
        np.maximum(n, 1.0),
        CountStatistics(np.ones_like(n), lambda mu: 1 / mu, lambda mu: _poisson_deviance(n, mu)),
        what=what,
        may_vanish=may_vanish,
        lost_ndof=fixed_sums,
    )


def fit(
    model: Model,
    start: lmfit.Parameters,
    observed: Floats,
    variance: Callable[[Floats], Floats],
    first_variance: Floats,
    counts: CountStatistics | None = None,
    *,
    what: str,
    may_vanish: Collection[str] = (),
    lost_ndof: int = 0,
) -> Fit:
    """Fit a model to observations whose variance follows from what is expected.

    Args:
        model: expectations, shape (n_points,), from the parameters.
        start: parameters with bounds.
        observed: shape (n_points,).
        variance: of the observations, from the expectations.
        first_variance: for the first round.
        counts: of counted observations; None for normal ones.
        what: is fitted, for messages.
        may_vanish: parameters whose lower bound is a result like any other; one that ends
            there is kept there, and the others are fitted again.
        lost_ndof: degrees of freedom lost otherwise than to parameters.

    Raises:
        FitError: too few points, no convergence, a parameter at a bound or undetermined, or
            a p-value below `MIN_P_VALUE`.
    """
    current = start.copy()
    weights = first_variance
    while True:
        result = _converged(model, current, observed, variance, weights, counts, what, lost_ndof)
        vanished = [
            name for name in result.var_names if name in may_vanish and _at(result, name, "min")
        ]
        if not vanished:
            break
        current = result.params.copy()
        for name in vanished:
            current[name].set(value=current[name].min, vary=False)
    return _checked(result, model, observed, variance, counts, what, lost_ndof)


def _converged(
    model: Model,
    start: lmfit.Parameters,
    observed: Floats,
    variance: Callable[[Floats], Floats],
    weights: Floats,
    counts: CountStatistics | None,
    what: str,
    lost_ndof: int,
) -> Any:
    varied = [name for name in start if start[name].vary]
    if observed.size - lost_ndof <= len(varied):
        raise FitError(
            f"{what}: {observed.size} points cannot determine {len(varied)} parameters and tell "
            "whether they fit; measure more points"
        )
    current = start
    if counts is not None:

        def likelihood(tried: lmfit.Parameters) -> Floats:
            expected = model(tried.valuesdict())
            return np.sign(observed - expected) * np.sqrt(counts.deviance(expected))

        current = _minimised(likelihood, start, what).params
        weights = variance(model(current.valuesdict()))
    for _ in range(ROUNDS_MAX):
        scale = 1 / np.sqrt(weights)

        def residuals(tried: lmfit.Parameters, scale: Floats = scale) -> Floats:
            difference: Floats = (observed - model(tried.valuesdict())) * scale
            return difference

        result = _minimised(residuals, current, what)
        if counts is not None:
            return result
        moved = max(
            (
                abs(result.params[name].value - current[name].value)
                / (result.params[name].stderr or _range(result, name))
                for name in varied
            ),
            default=0.0,
        )
        weights = variance(model(result.params.valuesdict()))
        current = result.params
        if moved < _CONVERGED:
            return result
    raise FitError(
        f"{what}: no convergence in {ROUNDS_MAX} rounds; take more shots",
        lmfit.fit_report(result),
    )


def _minimised(
    residuals: Callable[[lmfit.Parameters], Floats], start: lmfit.Parameters, what: str
) -> Any:
    result = lmfit.minimize(
        residuals, start, method="leastsq", scale_covar=False, max_nfev=EVALUATIONS_MAX
    )
    if not result.success:
        raise FitError(f"{what}: the fit failed: {result.message}", lmfit.fit_report(result))
    return result


def _poisson_deviance(counts: Floats, expected: Floats) -> Floats:
    """2 (n ln(n / mu) - n + mu), without loss of precision where it is small."""
    some = counts > 0
    relative = (expected - counts) / np.where(some, counts, 1.0)
    with_counts = counts * (relative - np.log1p(np.where(some, relative, 0.0)))
    deviance: Floats = 2 * np.maximum(np.where(some, with_counts, expected), 0.0)
    return deviance


def _checked(
    result: Any,
    model: Model,
    observed: Floats,
    variance: Callable[[Floats], Floats],
    counts: CountStatistics | None,
    what: str,
    lost_ndof: int,
) -> Fit:
    report = lmfit.fit_report(result)
    names = tuple(result.var_names)
    for name in names:
        if _at(result, name, "min") or _at(result, name, "max"):
            value = result.params[name].value
            raise FitError(
                f"{what}: {name} = {value:.6g} is at a bound of the fit "
                f"({result.params[name].min:.6g}..{result.params[name].max:.6g}); measure over a "
                "range that contains it",
                report,
            )
    if names and (result.covar is None or not np.all(np.diag(result.covar) > 0)):
        raise FitError(f"{what}: the data do not determine {', '.join(names)}", report)
    values = {name: float(value) for name, value in result.params.valuesdict().items()}
    expected = model(values)
    chi2, points, excess = _pearson(observed, expected, variance(expected), counts)
    ndof = max(1, points - len(names) - lost_ndof)
    spread = max(2.0 * ndof + excess, 1e-3 * ndof)
    p_value = float(gamma.sf(chi2, ndof**2 / spread, scale=spread / ndof))
    if not p_value >= MIN_P_VALUE:
        raise FitError(
            f"{what}: the model does not describe the data: chi-square {chi2:.1f} for {ndof} "
            f"degrees of freedom, p = {p_value:.1e}; look at the plot of the run, and check that "
            "what is assumed known is right",
            report,
        )
    covariance = np.array(result.covar) if names else np.zeros((0, 0))
    sigmas = dict.fromkeys(values, 0.0)
    sigmas |= {
        name: float(np.sqrt(variance_))
        for name, variance_ in zip(names, np.diag(covariance), strict=True)
    }
    return Fit(values, sigmas, names, covariance, chi2, ndof, p_value, report)


def _pearson(
    observed: Floats, expected: Floats, variance: Floats, counts: CountStatistics | None
) -> tuple[float, int, float]:
    """Chi-square, number of terms in it, and the sum of their excess kurtosis."""
    if counts is None:
        return float(np.sum((observed - expected) ** 2 / variance)), observed.size, 0.0
    difference = (observed - expected) * counts.per_unit
    spread = variance * counts.per_unit**2
    fourth = counts.excess(expected) * spread**2  # cumulants add
    chi2 = excess = 0.0
    terms = 0
    group = np.zeros(3)
    for index in np.argsort(spread):
        group += difference[index], spread[index], fourth[index]
        if group[1] >= _LEAST_VARIANCE:
            chi2 += group[0] ** 2 / group[1]
            excess += group[2] / group[1] ** 2
            terms += 1
            group[:] = 0
    if group[1]:
        chi2 += group[0] ** 2 / group[1]
        excess += group[2] / group[1] ** 2
        terms += 1
    return float(chi2), terms, float(excess)


def _range(result: Any, name: str) -> float:
    parameter = result.params[name]
    return float(parameter.max - parameter.min)


def _at(result: Any, name: str, side: str) -> bool:
    parameter = result.params[name]
    distance = abs(parameter.value - getattr(parameter, side))
    return bool(distance <= _AT_BOUND * _range(result, name))
