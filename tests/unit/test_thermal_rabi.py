"""Rabi frequencies of a moving ion against matrix elements of the displacement operator."""

from __future__ import annotations

import math

import numpy as np
import pytest
import qutip

from sequences.errors import SequenceError
from sequences.thermal_rabi import (
    MAX_LEVELS,
    MAX_MEAN_PHONONS,
    carrier_factors,
    flip,
    sideband_factors,
    thermal,
)

ETA = 0.2


def elements():
    """|<n'| exp(i eta (a + a^dagger)) |n>|, in units of the one of n = n' = 0."""
    size = 60  # large enough that its end is not felt at n < 10
    a = qutip.destroy(size)
    displaced = np.abs((1j * ETA * (a + a.dag())).expm().full())
    return displaced / displaced[0, 0]


def test_carrier():
    assert np.abs(carrier_factors(10, ETA)) == pytest.approx(elements().diagonal()[:10], rel=1e-9)


def test_red_sideband():
    expected = [0.0, *elements().diagonal(1)[:9]]
    assert np.abs(sideband_factors(10, ETA)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("mean", [0.0, 0.05, 1.0, 10.8, MAX_MEAN_PHONONS])
def test_thermal_distribution(mean):
    weights = thermal(mean)
    assert weights.sum() == pytest.approx(1)
    assert weights @ np.arange(weights.size) == pytest.approx(mean, rel=1e-4)
    assert weights.size <= MAX_LEVELS
    if mean:
        assert weights[1] / weights[0] == pytest.approx(mean / (mean + 1))


def test_thermal_distribution_of_a_given_length():
    weights = thermal(0.0, 5)
    assert weights.tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("mean", [-0.1, MAX_MEAN_PHONONS + 1, math.nan])
def test_means_out_of_range(mean):
    with pytest.raises(SequenceError, match="phonons is outside"):
        thermal(mean)


@pytest.mark.parametrize("detuning", [0.0, 0.7, -3.0])
def test_flip_is_that_of_a_two_level_system(detuning):
    rabi, time = 1.3, 2.1
    hamiltonian = (rabi * qutip.sigmax() + detuning * qutip.sigmaz()) / 2
    final = (-1j * hamiltonian * time).expm() * qutip.basis(2, 0)
    assert flip(rabi, detuning, time) == pytest.approx(abs(final.full()[1, 0]) ** 2)


def test_no_light_flips_nothing():
    assert flip([0.0, 0.0], [0.0, 1.0], 5.0).tolist() == [0.0, 0.0]
