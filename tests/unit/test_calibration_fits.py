"""Fits of counts: against closed forms, and that bad ones are errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.errors import FitError
from calibration.fits import fit, fit_binomial, fit_poisson, parameters

Z = 4.5


def constant(n):
    return lambda values: np.full(n, values["level"])


def test_binomial_maximum_likelihood_of_a_constant():
    successes, shots = np.array([3, 30, 8]), np.array([100, 1000, 300])
    result = fit_binomial(
        constant(3), parameters(level=(0.5, 0.0, 1.0)), successes, shots, what="test"
    )
    p = 41 / 1400
    assert result.values["level"] == pytest.approx(p, rel=1e-6)
    assert result.sigmas["level"] == pytest.approx(math.sqrt(p * (1 - p) / 1400), rel=1e-3)
    assert result.ndof == 2


def test_poisson_maximum_likelihood_of_a_constant():
    counts = np.array([0, 1, 0, 4, 2, 1])
    result = fit_poisson(constant(6), parameters(level=(1.0, 0.0, 50.0)), counts, what="test")
    assert result.values["level"] == pytest.approx(8 / 6, rel=1e-6)
    assert result.sigmas["level"] == pytest.approx(math.sqrt(8) / 6, rel=1e-3)


def test_derived_value_propagates_correlations():
    x = np.linspace(0, 10, 20)
    rng = np.random.default_rng(3)
    y = 2 + 0.5 * x + rng.normal(0, 0.1, x.size)
    variance = np.full(x.size, 0.01)
    line = fit(
        lambda v: v["a"] + v["b"] * x,
        parameters(a=(0.0, -10.0, 10.0), b=(0.0, -10.0, 10.0)),
        y,
        lambda _: variance,
        variance,
        what="test",
    )
    design = np.stack([np.ones_like(x), x], axis=1)
    covariance = np.linalg.inv(design.T @ design / 0.01)
    at = np.array([1, 5.0])
    value, sigma = line.derived(lambda v: v["a"] + 5 * v["b"])
    assert value == pytest.approx(at @ np.linalg.lstsq(design, y, rcond=None)[0])
    assert sigma == pytest.approx(math.sqrt(at @ covariance @ at), rel=1e-3)


@pytest.mark.parametrize("mean", [0.02, 0.3, 30.0])
def test_p_values_of_good_fits(mean):
    """At most 5 % and its error below 0.05; few counts must not be called bad."""
    rng, low, n = np.random.default_rng(1), 0, 400
    for _ in range(n):
        counts = rng.poisson(mean, 60)
        counts[0] = max(counts[0], 1)
        found = fit_poisson(constant(60), parameters(level=(mean, 0.0, 100.0)), counts, what="test")
        low += found.p_value < 0.05
    assert low / n < 0.05 + Z * math.sqrt(0.05 * 0.95 / n)


def test_model_that_does_not_fit():
    with pytest.raises(FitError, match=r"does not describe the data.*p = .*look at") as caught:
        fit_binomial(
            constant(3),
            parameters(level=(0.5, 0.0, 1.0)),
            [100, 500, 900],
            [1000] * 3,
            what="test",
        )
    assert "Variables" in caught.value.report


def test_result_at_a_bound():
    with pytest.raises(FitError, match=r"level = 0.2\d* is at a bound .*0.1..0.2"):
        fit_binomial(
            constant(3), parameters(level=(0.15, 0.1, 0.2)), [50] * 3, [100] * 3, what="test"
        )


def test_parameter_that_may_vanish_does():
    x = np.arange(10.0)
    counts = np.random.default_rng(2).poisson(20 * np.exp(-x / 3))
    result = fit_poisson(
        lambda v: v["height"] * np.exp(-x / 3) + v["floor"],
        parameters(height=(10.0, 0.0, 100.0), floor=(1.0, 0.0, 10.0)),
        np.where(x > 5, 0, counts),
        what="test",
        may_vanish=("floor",),
    )
    assert result.values["floor"] == 0
    assert result.sigmas["floor"] == 0
    assert result.names == ("height",)


def test_too_few_points():
    with pytest.raises(FitError, match="1 points cannot determine 1 parameters"):
        fit_binomial(constant(1), parameters(level=(0.5, 0.0, 1.0)), [5], [10], what="test")


def test_impossible_counts():
    with pytest.raises(FitError, match="no more successes than shots"):
        fit_binomial(constant(2), parameters(level=(0.5, 0.0, 1.0)), [5, 11], [10, 10], what="test")


def test_parameter_without_influence():
    with pytest.raises(FitError, match="test"):
        fit_binomial(
            constant(4),
            parameters(level=(0.5, 0.0, 1.0), idle=(0.5, 0.0, 1.0)),
            [50, 51, 49, 50],
            [100] * 4,
            what="test",
        )
