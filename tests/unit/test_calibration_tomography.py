"""Single-qubit tomography: inversion inside the Bloch ball, likelihood outside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.readout import ReadoutFidelity
from calibration.tomography import QubitState, density_matrix, most_likely, reconstruct
from qnodeos.errors import InsufficientDataError
from tests.unit.test_calibration_readout import assert_coverage

READOUT = ReadoutFidelity(0.95, 0.99, 0.004, 0.002)
PERFECT = ReadoutFidelity(1, 1)


def log_likelihood(
    bloch: np.ndarray, zeros: np.ndarray, shots: np.ndarray, readout: ReadoutFidelity
) -> np.ndarray:
    """Of Bloch vectors of shape (..., 3)."""
    p0 = (1 + bloch) / 2
    seen = readout.f0 * p0 + (1 - readout.f1) * (1 - p0)
    floor = 1e-300
    terms: np.ndarray = zeros * np.log(np.maximum(seen, floor)) + (shots - zeros) * np.log(
        np.maximum(1 - seen, floor)
    )
    return np.asarray(terms.sum(axis=-1))


def ball(points: int) -> np.ndarray:
    """A spiral over the sphere at several radii, shape (n, 3)."""
    index = np.arange(points) + 0.5
    polar, azimuth = np.arccos(1 - 2 * index / points), np.pi * (1 + 5**0.5) * index
    sphere = np.stack(
        [np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1
    )
    return np.concatenate([radius * sphere for radius in (0.5, 0.9, 0.97, 0.99, 1.0)])


def test_linear_inversion_by_hand() -> None:
    state = reconstruct([75, 50, 30], [100, 100, 100], PERFECT)
    assert state.bloch == pytest.approx([0.5, 0, -0.4])
    assert state.sigma == pytest.approx(2 * np.sqrt(np.array([0.75 * 0.25, 0.25, 0.3 * 0.7]) / 100))
    assert not state.maximum_likelihood
    rho = state.density_matrix
    assert rho == pytest.approx(np.array([[0.3, 0.25], [0.25, 0.7]]))


def test_density_matrix_of_a_pure_state() -> None:
    assert density_matrix(np.array([0, 1, 0])) == pytest.approx(np.array([[1, -1j], [1j, 1]]) / 2)


@given(st.tuples(*[st.integers(0, 40)] * 3), st.sampled_from([READOUT, PERFECT]))
def test_result_is_a_state_and_most_likely(
    counts: tuple[int, int, int], readout: ReadoutFidelity
) -> None:
    zeros, shots = np.array(counts), np.array([40, 40, 40])
    state = reconstruct(counts, (40, 40, 40), readout)
    assert np.linalg.norm(state.bloch) <= 1 + 1e-9
    best = log_likelihood(state.bloch, zeros, shots, readout)
    assert best >= log_likelihood(ball(400), zeros, shots, readout).max() - 1e-4


def test_likelihood_takes_over_outside_the_ball() -> None:
    state = reconstruct([40, 40, 20], [40, 40, 40], PERFECT)
    assert state.maximum_likelihood
    assert state.bloch == pytest.approx([np.sqrt(0.5), np.sqrt(0.5), 0], abs=1e-4)


def test_basis_weights_follow_their_shots() -> None:
    # X says +1 with a hundred times the shots of Z: the state must lean to X.
    state = reconstruct([4000, 20, 40], [4000, 40, 40], PERFECT)
    assert state.maximum_likelihood
    assert state.bloch[0] > 0.99
    assert 0 < state.bloch[2] < 0.15


def test_error_bars_cover() -> None:
    rng = np.random.default_rng(31)
    bloch = np.array([0.2, -0.5, 0.4])
    p0 = (1 + bloch) / 2
    seen = READOUT.f0 * p0 + (1 - READOUT.f1) * (1 - p0)
    pulls = []
    for _ in range(1500):
        assumed = ReadoutFidelity(
            rng.normal(READOUT.f0, 0.004), rng.normal(READOUT.f1, 0.002), 0.004, 0.002
        )
        state = reconstruct(rng.binomial(700, seen).tolist(), [700] * 3, assumed)
        axis = rng.integers(3)
        pulls.append((state.bloch[axis] - bloch[axis]) / state.sigma[axis])
    assert_coverage(np.array(pulls))


def test_fidelity_with_a_target() -> None:
    state = QubitState(np.array([0.0, -0.6, 0.2]), np.zeros(3), maximum_likelihood=False)
    assert state.fidelity([0, -1, 0]) == pytest.approx(0.8)
    assert state.fidelity([0, 0, -1]) == pytest.approx(0.4)
    for wrong in ([0, 0, 0], [1, 1, 0], [1, 0]):
        with pytest.raises(InsufficientDataError, match="unit vector"):
            state.fidelity(wrong)


@pytest.mark.parametrize(
    ("zeros", "shots"),
    [([0, 0, 0], [0, 1, 1]), ([2, 0, 0], [1, 1, 1]), ([1, 1], [2, 2]), ([1, 1, 1], [2, 2])],
)
def test_impossible_counts_are_refused(zeros: list[int], shots: list[int]) -> None:
    with pytest.raises(InsufficientDataError):
        reconstruct(zeros, shots, READOUT)


@pytest.mark.parametrize("counts", [(38, 1, 20, 19, 22, 20), (40, 0, 40, 1, 20, 20)])
def test_the_most_likely_state_of_both_directions_of_three_axes(counts: tuple[int, ...]) -> None:
    axes = np.concatenate([[axis, -axis] for axis in np.eye(3)])
    bloch = most_likely(axes, counts, [40] * 6, READOUT)
    assert np.linalg.norm(bloch) <= 1 + 1e-9

    def likelihood(vectors: np.ndarray) -> np.ndarray:
        along = vectors @ axes.T
        return log_likelihood(along, np.array(counts), np.full(6, 40), READOUT)

    assert likelihood(bloch) >= likelihood(ball(400)).max() - 1e-4


@pytest.mark.parametrize(
    ("axes", "zeros", "shots", "message"),
    [
        (np.eye(3), [1, 2], [3, 3], "do not fit 2 and 2 counts"),
        (np.eye(2), [1, 2], [3, 3], "three components"),
        (2 * np.eye(3), [1, 2, 3], [3, 3, 3], "not Bloch unit vectors"),
        (np.eye(3), [1, 2, 4], [3, 3, 3], "4 of 3 shots"),
        (np.eye(3), [0, 0, 0], [3, 3, 0], "0 of 0 shots"),
    ],
)
def test_impossible_measurements_along_axes_are_refused(
    axes: np.ndarray, zeros: list[int], shots: list[int], message: str
) -> None:
    with pytest.raises(InsufficientDataError, match=message):
        most_likely(axes, zeros, shots, READOUT)
