"""Counts of bright and dark windows: closed forms against integrals, and the published case."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import poisson

from sequences.errors import SequenceError
from sequences.fluorescence import (
    Window,
    bright_pmf,
    dark_pmf,
    optimal_threshold,
    readout_errors,
)

PAPER = Window(2.25, 60.0, 1.5e-3 / 1.168)


def integrated(k: int, window: Window) -> float:
    """The definition: no decay, or one at a share s of the window."""
    background, signal, decays = window
    decayed, _ = quad(
        lambda s: decays * math.exp(-s * decays) * poisson.pmf(k, background + signal * (1 - s)),
        0,
        1,
        epsabs=1e-13,
        limit=200,
    )
    return float(math.exp(-decays) * poisson.pmf(k, background) + decayed)


@pytest.mark.parametrize(
    "window",
    [PAPER, Window(0.0, 30.0, 0.5), Window(40.0, 5.0, 2.0), Window(0.7, 300.0, 0.01)],
)
@pytest.mark.parametrize("k", [0, 1, 5, 30, 70, 250])
def test_dark_counts_are_the_integral(window, k):
    assert dark_pmf([k], window)[0] == pytest.approx(integrated(k, window), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("window", [PAPER, Window(0.0, 1e5, 1e-3), Window(3.0, 20.0, 0.0)])
def test_probabilities_add_up_to_one(window):
    k = np.arange(int(2 * (window.background + window.signal)) + 50)
    assert dark_pmf(k, window).sum() == pytest.approx(1, abs=1e-9)
    assert bright_pmf(k, window).sum() == pytest.approx(1, abs=1e-9)


def test_without_decay_the_dark_state_has_the_background():
    k = np.arange(30)
    assert dark_pmf(k, Window(3.0, 20.0, 0.0)) == pytest.approx(poisson.pmf(k, 3.0))


def test_the_published_window():
    # facts of the platform: 40 and 1.5 kcps, 1.5 ms, up to 33 photons are dark
    assert optimal_threshold(PAPER) == 33
    dark_of_s, bright_of_d = readout_errors(PAPER, 33)
    assert dark_of_s == pytest.approx(3.5e-5, rel=0.02)
    assert bright_of_d == pytest.approx(6.0e-4, rel=0.02)


@pytest.mark.parametrize("window", [PAPER, Window(8.0, 10.0, 0.1), Window(0.0, 40.0, 0.02)])
def test_no_other_threshold_is_better(window):
    best = optimal_threshold(window)
    errors = [sum(readout_errors(window, threshold)) for threshold in range(80)]
    assert errors[best] == pytest.approx(min(errors), rel=1e-9)


def test_no_threshold_makes_everything_bright():
    assert readout_errors(PAPER, -1) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (Window(-1.0, 10.0, 0.1), "background"),
        (Window(1.0, 0.0, 0.0), "signal"),
        (Window(1.0, 2e6, 0.1), "signal"),
        (Window(math.nan, 10.0, 0.1), "background"),
        (Window(1.0, 10.0, 10.0), "lifetimes"),
        (Window(1.0, 10.0, -0.1), "lifetimes"),
    ],
)
def test_windows_that_cannot_be_are_refused(window, message):
    for function in (bright_pmf, dark_pmf):
        with pytest.raises(SequenceError, match=message):
            function([0], window)
