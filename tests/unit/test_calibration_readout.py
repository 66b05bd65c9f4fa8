"""Readout correction and unfolding, against closed forms and Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.readout import (
    QUBITS_MAX,
    Estimate,
    ReadoutFidelity,
    correct_counts,
    correct_zeros,
    proportion_variance,
    unfold,
    unfold_counts,
)
from qnodeos.errors import InsufficientDataError

READOUT = ReadoutFidelity(0.95, 0.995, 0.004, 0.002)
ONE_SIGMA = math.erf(1 / math.sqrt(2))
Z = 4.5
"""Acceptance of the statistical tests: a right program fails one in 150,000 of them."""

FIDELITIES = st.floats(0.55, 1.0)
COUNTS = st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(lambda c: sum(c) > 0)


def assert_coverage(pulls: np.ndarray) -> None:
    """One-sigma bars must cover the truth 68 % of the time and pulls must average to 0."""
    n = pulls.size
    covered = np.count_nonzero(np.abs(pulls) < 1) / n
    assert abs(covered - ONE_SIGMA) < Z * math.sqrt(ONE_SIGMA * (1 - ONE_SIGMA) / n)
    assert abs(pulls.mean()) < Z / math.sqrt(n)


def test_correction_is_the_published_formula() -> None:
    zeros, shots = 620, 1000
    d = 0.945
    p = (0.62 - 1 + 0.995) / d
    u = math.sqrt(0.62 * 0.38 / 1000 + (p * 0.004) ** 2 + ((1 - p) * 0.002) ** 2) / d
    corrected = correct_zeros(zeros, shots, READOUT)
    assert corrected.value == pytest.approx(p, rel=1e-12)
    assert corrected.sigma == pytest.approx(u, rel=1e-12)


def test_perfect_readout_changes_nothing() -> None:
    assert correct_zeros(3, 4, ReadoutFidelity(1, 1)) == Estimate(
        0.75, math.sqrt(0.75 * 0.25 / 4), 0.0
    )


@given(zeros=st.integers(1, 99), f0=FIDELITIES, f1=FIDELITIES)
def test_one_qubit_of_the_general_correction_is_the_closed_form(
    zeros: int, f0: float, f1: float
) -> None:
    readout = ReadoutFidelity(f0, f1, 0.01, 0.02)
    single = correct_zeros(zeros, 100, readout)
    general = correct_counts([zeros, 100 - zeros], [readout])
    assert general.probabilities[0] == pytest.approx(single.value, abs=1e-9)
    assert math.sqrt(general.covariance[0, 0]) == pytest.approx(single.sigma, rel=1e-6)


@given(counts=COUNTS, a0=FIDELITIES, a1=FIDELITIES, b0=FIDELITIES, b1=FIDELITIES)
def test_two_qubit_correction_inverts_the_response(
    counts: list[int], a0: float, a1: float, b0: float, b1: float
) -> None:
    a, b = ReadoutFidelity(a0, a1), ReadoutFidelity(b0, b1)
    corrected = correct_counts(counts, (a, b))
    observed = np.zeros(4)
    for true, probability in enumerate(corrected.probabilities):
        for seen in range(4):
            observed[seen] += (
                a.response[seen >> 1, true >> 1] * b.response[seen & 1, true & 1] * probability
            )
    assert observed == pytest.approx(np.array(counts) / sum(counts), abs=1e-9)
    assert corrected.probabilities.sum() == pytest.approx(1, abs=1e-9)
    assert np.abs(corrected.covariance.sum(axis=0)).max() < 1e-6


def test_two_qubit_gradient_is_the_derivative() -> None:
    counts, step = [400, 60, 90, 450], 1e-6
    values = {"f0": 0.95, "f1": 0.98}
    b = ReadoutFidelity(0.9, 0.97)
    for row, name in enumerate(("f0", "f1")):
        sigma = {f"sigma_{name}": 1.0}
        gradient = correct_counts(counts, (ReadoutFidelity(**values, **sigma), b)).gradient
        moved = correct_counts(counts, (ReadoutFidelity(**values | {name: values[name] + step}), b))
        still = correct_counts(counts, (ReadoutFidelity(**values), b))
        derivative = (moved.probabilities - still.probabilities) / step
        assert gradient[row] == pytest.approx(derivative, abs=1e-4)
        assert not gradient[2:].any()


def test_one_qubit_error_bars_cover() -> None:
    rng = np.random.default_rng(11)
    truth, shots, pulls = 0.3, 800, []
    for _ in range(4000):
        f0, f1 = rng.normal(READOUT.f0, READOUT.sigma_f0), rng.normal(0.98, READOUT.sigma_f1)
        assumed = ReadoutFidelity(f0, f1, READOUT.sigma_f0, READOUT.sigma_f1)
        seen = truth * READOUT.f0 + (1 - truth) * (1 - 0.98)
        corrected = correct_zeros(int(rng.binomial(shots, seen)), shots, assumed)
        pulls.append((corrected.value - truth) / corrected.sigma)
    assert_coverage(np.array(pulls))


def test_two_qubit_error_bars_cover() -> None:
    rng = np.random.default_rng(12)
    truth = np.array([0.4, 0.1, 0.15, 0.35])
    a, b = ReadoutFidelity(0.93, 0.97), ReadoutFidelity(0.95, 0.98)
    seen = np.kron(a.response, b.response) @ truth
    parity = np.array([1, -1, -1, 1])
    pulls = []
    for _ in range(2000):
        readouts = [
            ReadoutFidelity(rng.normal(r.f0, 0.006), rng.normal(r.f1, 0.004), 0.006, 0.004)
            for r in (a, b)
        ]
        corrected = correct_counts(rng.multinomial(1500, seen), readouts)
        sigma = math.sqrt(parity @ corrected.covariance @ parity)
        pulls.append((parity @ (corrected.probabilities - truth)) / sigma)
    assert_coverage(np.array(pulls))


def test_readout_from_counts() -> None:
    readout = ReadoutFidelity.from_counts(950, 1000, 1980, 2000)
    assert (readout.f0, readout.f1) == (0.95, 0.99)
    assert readout.sigma_f0 == pytest.approx(math.sqrt(0.95 * 0.05 / 1000))
    assert readout.sigma_f1 == pytest.approx(math.sqrt(0.99 * 0.01 / 2000))


@pytest.mark.parametrize("shots", [1, 10, 1000])
def test_unanimous_outcomes_have_an_uncertainty(shots: int) -> None:
    # Posterior Beta(1, n + 1): variance (n + 1) / ((n + 2)^2 (n + 3)).
    expected = (shots + 1) / ((shots + 2) ** 2 * (shots + 3))
    for zeros in (0, shots):
        assert proportion_variance(zeros, shots) == pytest.approx(expected)
        counts = [zeros, shots - zeros]
        perfect = correct_counts(counts, [ReadoutFidelity(1, 1)])
        assert perfect.covariance[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("f0", "f1", "sigma"),
    [(0.5, 0.5, 0), (0.3, 0.2, 0), (1.1, 0.9, 0), (0.9, -0.1, 0), (0.9, 0.9, -1), (math.nan, 1, 0)],
)
def test_impossible_readout_is_refused(f0: float, f1: float, sigma: float) -> None:
    with pytest.raises(InsufficientDataError, match="readout"):
        ReadoutFidelity(f0, f1, sigma)


@pytest.mark.parametrize(("zeros", "shots"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(zeros: int, shots: int) -> None:
    with pytest.raises(InsufficientDataError, match="no proportion"):
        correct_zeros(zeros, shots, READOUT)
    with pytest.raises(InsufficientDataError, match="no proportion"):
        ReadoutFidelity.from_counts(9, 10, zeros, shots)


@pytest.mark.parametrize("counts", [[0, 0, 0, 0], [1, 2], [-1, 2, 3, 4], [math.nan, 1, 1, 1]])
def test_impossible_tables_are_refused(counts: list[float]) -> None:
    with pytest.raises(InsufficientDataError, match="counts of 2 qubits"):
        correct_counts(counts, (READOUT, READOUT))


def test_number_of_qubits_is_bounded() -> None:
    for readouts in ([], [READOUT] * (QUBITS_MAX + 1)):
        with pytest.raises(InsufficientDataError, match="qubits"):
            correct_counts([1], readouts)


# --- unfolding ----------------------------------------------------------------------


@given(truth=st.lists(st.floats(0.05, 1), min_size=4, max_size=4), f0=st.floats(0.85, 1))
def test_unfolding_finds_the_truth_behind_exact_frequencies(truth: list[float], f0: float) -> None:
    p = np.array(truth) / sum(truth)
    response = np.kron(ReadoutFidelity(f0, 0.99).response, ReadoutFidelity(0.93, 0.97).response)
    found = unfold((response @ p)[np.newaxis], response, tolerance=1e-12)[0]
    assert found == pytest.approx(p, abs=1e-8)


def test_unfolding_stays_inside_where_inversion_leaves() -> None:
    assert correct_zeros(0, 100, READOUT).value < 0
    response = READOUT.response
    unfolded = unfold(np.array([[0.0, 1.0], [1.0, 0.0]]), response)
    assert ((unfolded >= 0) & (unfolded <= 1)).all()
    assert unfolded.sum(axis=1) == pytest.approx([1, 1])
    assert unfolded[0, 1] == pytest.approx(1, abs=1e-3)


def test_unfolding_stops_at_the_tolerance() -> None:
    # Two by hand: from (1/2, 1/2) one step of this response gives (0.7, 0.3).
    response = np.array([[0.9, 0.1], [0.1, 0.9]])
    frequencies = np.array([[0.75, 0.25]])
    assert unfold(frequencies, response, tolerance=0.3)[0] == pytest.approx([0.7, 0.3])
    fine = unfold(frequencies, response, tolerance=1e-9)[0]
    assert fine == pytest.approx([0.8125, 0.1875], abs=1e-6)


def test_samples_of_a_batch_do_not_influence_each_other() -> None:
    rng = np.random.default_rng(3)
    frequencies = rng.dirichlet(np.ones(4), size=20)
    response = np.kron(READOUT.response, READOUT.response)
    alone = [unfold(row[np.newaxis], response)[0] for row in frequencies]
    assert unfold(frequencies, response) == pytest.approx(np.array(alone), abs=1e-15)


def test_unfolding_that_does_not_converge_says_so() -> None:
    with pytest.raises(InsufficientDataError, match="did not converge"):
        unfold(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5], [0.5, 0.5]]), tolerance=-1)


def test_unfolding_uncertainty_covers_and_counts_the_calibration() -> None:
    rng = np.random.default_rng(13)
    truth, f0, f1, shots, calibration_shots = 0.6, 0.94, 0.98, 1000, 1000
    pulls = []
    for _ in range(400):
        zeros = rng.binomial(shots, truth * f0 + (1 - truth) * (1 - f1))
        right = rng.binomial(calibration_shots, [f0, f1])
        table = np.array(
            [[right[0], calibration_shots - right[1]], [calibration_shots - right[0], right[1]]]
        )
        result = unfold_counts([zeros, shots - zeros], [table], rng, draws=400, tolerance=1e-8)
        pulls.append((result.probabilities[0] - truth) / math.sqrt(result.covariance[0, 0]))
    assert_coverage(np.array(pulls))


def test_unfolding_agrees_with_inversion_far_from_the_edge() -> None:
    table = [[9500, 200], [500, 9800]]
    readout = ReadoutFidelity.from_counts(9500, 10000, 9800, 10000)
    counts, draws = [3000, 800, 900, 3300], 20_000
    result = unfold_counts(
        counts, [table, table], np.random.default_rng(14), draws=draws, tolerance=1e-9
    )
    inverted = correct_counts(counts, (readout, readout))
    assert result.probabilities == pytest.approx(inverted.probabilities, abs=1e-6)
    # Standard deviations of draws scatter by 1/sqrt(2 draws); priors move them by 1 in 800.
    relative = np.sqrt(np.diag(result.covariance) / np.diag(inverted.covariance)) - 1
    assert np.abs(relative).max() < Z / math.sqrt(2 * draws) + 1 / 800


def test_unfolding_is_reproducible() -> None:
    first, second = (
        unfold_counts([5, 7], [[[90, 5], [10, 95]]], np.random.default_rng(5), draws=50)
        for _ in range(2)
    )
    assert (first.covariance == second.covariance).all()


@pytest.mark.parametrize(
    ("counts", "table", "draws", "match"),
    [
        ([0, 0], [[9, 1], [1, 9]], 10, "counts of 1 qubits"),
        ([5, 5], [[9, 0], [1, 0]], 10, "calibration must be counts"),
        ([5, 5], [[9, 1]], 10, "calibration must be counts"),
        ([5, 5], [[9, 1], [1, 9]], 1, "draws"),
    ],
)
def test_unfolding_refuses_empty_input(
    counts: list[int], table: list[list[int]], draws: int, match: str
) -> None:
    with pytest.raises(InsufficientDataError, match=match):
        unfold_counts(counts, [table], np.random.default_rng(0), draws=draws)
