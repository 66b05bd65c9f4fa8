"""Fidelities and the latency bound, against closed forms and Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.fidelity import (
    Basis,
    bell_fidelity,
    fidelity_after,
    mean_estimate,
    time_to_fidelity_ms,
    two_orientation_fidelity,
)
from calibration.readout import Estimate, ReadoutFidelity, correct_zeros
from qnodeos.errors import InsufficientDataError
from qnodeos.qdevice.outcomes import BellState
from tests.unit.test_calibration_readout import assert_coverage

PERFECT = ReadoutFidelity(1, 1)
BASES: tuple[Basis, ...] = ("XX", "YY", "ZZ")
PARITY = np.array([1, -1, -1, 1])


# --- two orientations ---------------------------------------------------------------


def test_two_orientations_by_hand() -> None:
    estimate = two_orientation_fidelity(70, 100, 20, 100, PERFECT)
    assert estimate.value == pytest.approx((0.7 + 1 - 0.2) / 2)
    assert estimate.sigma == pytest.approx(math.sqrt(0.7 * 0.3 + 0.2 * 0.8) / 10 / 2)


@given(plus=st.integers(0, 50), minus=st.integers(0, 70), f0=st.floats(0.6, 1))
def test_two_orientations_are_the_mean_of_corrected_probabilities(
    plus: int, minus: int, f0: float
) -> None:
    readout = ReadoutFidelity(f0, 0.97)
    p_plus, p_minus = correct_zeros(plus, 50, readout), correct_zeros(minus, 70, readout)
    estimate = two_orientation_fidelity(plus, 50, minus, 70, readout)
    assert estimate.value == pytest.approx((p_plus.value + 1 - p_minus.value) / 2)
    assert estimate.statistical == pytest.approx(
        math.hypot(p_plus.statistical, p_minus.statistical) / 2
    )


def test_two_orientations_recover_the_fidelity_with_a_lopsided_readout() -> None:
    readout, fidelity = ReadoutFidelity(0.8, 1.0), 0.75
    shots = 10_000
    along = fidelity * 0.8
    against = (1 - fidelity) * 0.8
    estimate = two_orientation_fidelity(
        round(along * shots), shots, round(against * shots), shots, readout
    )
    assert estimate.value == pytest.approx(fidelity, abs=1e-12)


def test_two_orientation_error_bars_cover() -> None:
    rng = np.random.default_rng(21)
    fidelity, f0, f1, sigma, shots = 0.9, 0.85, 0.88, 0.02, 400
    seen = [p * f0 + (1 - p) * (1 - f1) for p in (fidelity, 1 - fidelity)]
    pulls = []
    for _ in range(4000):
        # One calibration error for both orientations: treating them as independent fails.
        readout = ReadoutFidelity(rng.normal(f0, sigma), rng.normal(f1, sigma), sigma, sigma)
        zeros = rng.binomial(shots, seen)
        estimate = two_orientation_fidelity(int(zeros[0]), shots, int(zeros[1]), shots, readout)
        pulls.append((estimate.value - fidelity) / estimate.sigma)
    # Inversion is biased by (sigma / D)^2 of the excess, far below the statistical error.
    assert_coverage(np.array(pulls))


def test_mean_keeps_what_calibration_shares() -> None:
    estimates = [Estimate(0.7, 0.03, -0.01), Estimate(0.8, 0.04, -0.02)]
    mean = mean_estimate(estimates)
    assert mean.value == pytest.approx(0.75)
    assert mean.statistical == pytest.approx(0.025)
    assert mean.systematic == pytest.approx(-0.015)
    assert mean.sigma == pytest.approx(math.hypot(0.025, 0.015))


@pytest.mark.parametrize("counts", [(0, 0, 1, 2), (1, 2, 0, 0), (3, 2, 1, 2)])
def test_an_orientation_without_shots_is_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(InsufficientDataError, match="no proportion"):
        two_orientation_fidelity(*counts, PERFECT)


def test_mean_of_nothing_is_refused() -> None:
    with pytest.raises(InsufficientDataError, match="no estimates"):
        mean_estimate([])


# --- Bell states --------------------------------------------------------------------


def bell_projector(state: BellState) -> np.ndarray:
    vector = {
        BellState.PHI_PLUS: [1, 0, 0, 1],
        BellState.PHI_MINUS: [1, 0, 0, -1],
        BellState.PSI_PLUS: [0, 1, 1, 0],
        BellState.PSI_MINUS: [0, 1, -1, 0],
    }[state]
    return np.outer(vector, vector) / 2


def outcome_probabilities(rho: np.ndarray, basis: Basis) -> np.ndarray:
    """Of 00, 01, 10, 11 when both qubits are measured in X, Y or Z, shape (4,)."""
    pauli = {
        "XX": np.array([[0, 1], [1, 0]]),
        "YY": np.array([[0, -1j], [1j, 0]]),
        "ZZ": np.array([[1, 0], [0, -1]]),
    }[basis]
    projectors = [(np.eye(2) + pauli) / 2, (np.eye(2) - pauli) / 2]
    return np.array([np.trace(rho @ np.kron(p, q)).real for p in projectors for q in projectors])


@pytest.mark.parametrize("state", BellState)
@pytest.mark.parametrize("target", BellState)
def test_bell_states_are_told_apart(state: BellState, target: BellState) -> None:
    rho = 0.8 * bell_projector(state) + 0.2 * np.eye(4) / 4
    a, b = ReadoutFidelity(0.9, 0.97), ReadoutFidelity(0.95, 0.8)
    response = np.kron(a.response, b.response)
    counts = {basis: 1e6 * response @ outcome_probabilities(rho, basis) for basis in BASES}
    expected = np.trace(rho @ bell_projector(target)).real
    assert bell_fidelity(counts, a, b, target).value == pytest.approx(expected, abs=1e-12)


def test_bell_statistics_by_hand() -> None:
    counts: dict[Basis, list[int]] = {
        "XX": [50, 10, 10, 30],
        "YY": [5, 45, 45, 5],
        "ZZ": [40, 5, 5, 50],
    }
    estimate = bell_fidelity(counts, PERFECT, PERFECT)
    assert estimate.value == pytest.approx((1 + 0.6 + 0.8 + 0.8) / 4)
    # A correlator E of N shots has variance (1 - E^2) / N.
    variance = (1 - 0.6**2) / 100 + (1 - 0.8**2) / 100 + (1 - 0.8**2) / 100
    assert estimate.sigma == pytest.approx(math.sqrt(variance) / 4)


def test_bell_error_bars_cover() -> None:
    rng = np.random.default_rng(22)
    rho = 0.7 * bell_projector(BellState.PSI_MINUS) + 0.3 * np.diag([0.25, 0.25, 0.25, 0.25])
    truth = 0.7 + 0.3 / 4
    a, b, sigma = ReadoutFidelity(0.9, 0.93), ReadoutFidelity(0.91, 0.92), 0.01
    response = np.kron(a.response, b.response)
    seen = {basis: response @ outcome_probabilities(rho, basis) for basis in BASES}
    pulls = []
    for _ in range(2000):
        measured_a, measured_b = [
            ReadoutFidelity(rng.normal(r.f0, sigma), rng.normal(r.f1, sigma), sigma, sigma)
            for r in (a, b)
        ]
        counts = {basis: rng.multinomial(1200, seen[basis]) for basis in BASES}
        estimate = bell_fidelity(counts, measured_a, measured_b, BellState.PSI_MINUS)
        pulls.append((estimate.value - truth) / estimate.sigma)
    assert_coverage(np.array(pulls))


def test_all_even_outcomes_still_have_an_error_bar() -> None:
    counts: dict[Basis, list[int]] = {"XX": [9, 0, 0, 0], "YY": [0, 9, 0, 0], "ZZ": [9, 0, 0, 0]}
    estimate = bell_fidelity(counts, PERFECT, PERFECT)
    assert estimate.value == 1
    assert 0.03 < estimate.sigma < 0.3


def test_missing_bases_are_named() -> None:
    with pytest.raises(InsufficientDataError, match="YY, ZZ"):
        bell_fidelity({"XX": [1, 1, 1, 1]}, PERFECT, PERFECT)


# --- the latency bound --------------------------------------------------------------


def test_latency_bound_of_the_published_state() -> None:
    single_photon = time_to_fidelity_ms((1 + 0.666) / 2, 13.0)
    assert single_photon == pytest.approx(8.97, abs=0.005)
    # A Werner state of fidelity 0.72 has |XX| = (4 F - 1) / 3.
    assert time_to_fidelity_ms((1 + (4 * 0.72 - 1) / 3) / 2, 13.0) == pytest.approx(8.18, abs=0.005)


@given(
    f0=st.floats(0.7, 1), t=st.floats(0.1, 100), n=st.floats(0.5, 3), target=st.floats(0.51, 0.69)
)
def test_latency_bound_inverts_the_decay(f0: float, t: float, n: float, target: float) -> None:
    time_ms = time_to_fidelity_ms(f0, t, target, n)
    assert fidelity_after(time_ms, f0, t, n) == pytest.approx(target)


def test_exponent_shapes_the_decay() -> None:
    assert fidelity_after(13, 1, 13) == pytest.approx(0.5 + 0.5 / math.e)
    assert fidelity_after(26, 1, 13, 2) == pytest.approx(0.5 + 0.5 * math.exp(-4))


@pytest.mark.parametrize(
    ("f0", "t", "target", "n"),
    [(0.6, 13, 0.667, 1), (0.8, 13, 0.5, 1), (0.8, 0, 0.667, 1), (0.8, 13, 0.667, 0)],
)
def test_a_bound_that_does_not_exist_is_refused(
    f0: float, t: float, target: float, n: float
) -> None:
    with pytest.raises(InsufficientDataError):
        time_to_fidelity_ms(f0, t, target, n)
