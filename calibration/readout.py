"""Correction of measured counts for the errors of single-shot readout (SSRO).

A readout that answers 0 for |0> with probability F0 and 1 for |1> with probability F1
turns true probabilities p into observed ones f = E p, with the response matrix

    E = [[F0, 1 - F1],
         [1 - F0, F1]]

and the Kronecker product of such matrices for several qubits. Two ways back: inversion of
E, unbiased, with first-order error propagation (Delle Donne et al., Nature 639, 321
(2025)); and iterative Bayesian unfolding (D'Agostini, Nucl. Instrum. Methods A
362, 487 (1995)), which stays inside 0..1 and is what the analysis library published with
that paper's dataset uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qnodeos.errors import InsufficientDataError

QUBITS_MAX: Final = 6
"""Most qubits corrected together; a response matrix has 4**qubits elements."""

UNFOLDING_TOLERANCE: Final = 1e-3
UNFOLDING_DRAWS: Final = 250_000
"""Stopping rule and number of Dirichlet draws of the published analysis library."""

UNFOLDING_ITERATIONS_MAX: Final = 10_000


@dataclass(frozen=True)
class Estimate:
    """A measured value with its standard uncertainty.

    Attributes:
        value: the estimate.
        statistical: standard deviation from the finite number of shots.
        systematic: change of the value for one standard deviation of the calibration,
            with its sign, so that results sharing a calibration combine correctly.
    """

    value: float
    statistical: float
    systematic: float = 0.0

    @property
    def sigma(self) -> float:
        """Combined standard uncertainty."""
        return math.hypot(self.statistical, self.systematic)


@dataclass(frozen=True)
class ReadoutFidelity:
    """Single-shot readout fidelities of one qubit.

    Attributes:
        f0: probability to read 0 from |0>.
        f1: probability to read 1 from |1>.
        sigma_f0: standard uncertainty of ``f0``.
        sigma_f1: standard uncertainty of ``f1``.

    Raises:
        InsufficientDataError: a value is outside its range, or f0 + f1 <= 1: such a
            readout tells nothing and cannot be inverted.
    """

    f0: float
    f1: float
    sigma_f0: float = 0.0
    sigma_f1: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.f0 <= 1 and 0 <= self.f1 <= 1):
            raise InsufficientDataError(
                f"readout fidelities must lie in 0..1, not F0 = {self.f0}, F1 = {self.f1}"
            )
        if not (self.sigma_f0 >= 0 and self.sigma_f1 >= 0):
            raise InsufficientDataError(
                f"readout uncertainties must be >= 0, not {self.sigma_f0}, {self.sigma_f1}"
            )
        if self.contrast <= 0:
            raise InsufficientDataError(
                f"readout with F0 = {self.f0}, F1 = {self.f1} cannot be inverted: F0 + F1 must "
                "exceed 1; calibrate the readout again"
            )

    @classmethod
    def from_counts(
        cls, zeros_of_0: int, shots_of_0: int, ones_of_1: int, shots_of_1: int
    ) -> ReadoutFidelity:
        """Fidelities from calibration shots with |0> and with |1> prepared.

        Raises:
            InsufficientDataError: a count is impossible, or the readout tells nothing.
        """
        check_binomial(zeros_of_0, shots_of_0)
        check_binomial(ones_of_1, shots_of_1)
        return cls(
            zeros_of_0 / shots_of_0,
            ones_of_1 / shots_of_1,
            math.sqrt(proportion_variance(zeros_of_0, shots_of_0)),
            math.sqrt(proportion_variance(ones_of_1, shots_of_1)),
        )

    @property
    def contrast(self) -> float:
        """D = F0 + F1 - 1, the determinant of the response matrix."""
        return self.f0 + self.f1 - 1

    @property
    def response(self) -> NDArray[np.float64]:
        """E with ``E[observed, true]``, shape (2, 2)."""
        return np.array([[self.f0, 1 - self.f1], [1 - self.f0, self.f1]])


# --- proportions --------------------------------------------------------------------


def check_binomial(successes: int, shots: int) -> None:
    """Raise `InsufficientDataError` unless 0 <= successes <= shots and shots >= 1."""
    if shots < 1 or not 0 <= successes <= shots:
        raise InsufficientDataError(
            f"{successes} of {shots} shots is no proportion; at least one shot is needed"
        )


def proportion_variance(successes: int, shots: int) -> float:
    """Variance of the estimate successes / shots.

    f (1 - f) / N, except where f is 0 or 1 and that would be 0: there the variance of the
    posterior Beta(successes + 1, failures + 1) of a uniform prior is used.
    """
    f = successes / shots
    if 0 < f < 1:
        return f * (1 - f) / shots
    smoothed = (successes + 1) / (shots + 2)
    return smoothed * (1 - smoothed) / (shots + 3)


# --- inversion ----------------------------------------------------------------------


def correct_zeros(zeros: int, shots: int, readout: ReadoutFidelity) -> Estimate:
    """P(0) of one qubit, corrected: p = (f - 1 + F1) / D with f = zeros / shots.

    The result may lie outside 0..1: clipping it would bias averages. ``systematic`` is
    positive here, as the contributions of F0 and F1 have no common sign.

    Raises:
        InsufficientDataError: the counts are impossible.
    """
    check_binomial(zeros, shots)
    contrast = readout.contrast
    p = (zeros / shots - 1 + readout.f1) / contrast
    return Estimate(
        p,
        math.sqrt(proportion_variance(zeros, shots)) / contrast,
        math.hypot(p * readout.sigma_f0, (1 - p) * readout.sigma_f1) / contrast,
    )


@dataclass(frozen=True)
class CorrectedCounts:
    """Probabilities of the outcomes of several qubits, corrected for readout.

    The first qubit is the most significant bit of an outcome.

    Attributes:
        probabilities: shape (2**qubits,); sums to 1, single values may leave 0..1.
        statistical: covariance from the finite number of shots, shape (2**qubits,) * 2.
        gradient: change of the probabilities for one standard deviation of each readout
            fidelity, shape (2 * qubits, 2**qubits): F0, F1 of the first qubit, and so on.
    """

    probabilities: NDArray[np.float64]
    statistical: NDArray[np.float64]
    gradient: NDArray[np.float64]

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Combined covariance, shape (2**qubits,) * 2."""
        return self.statistical + self.gradient.T @ self.gradient


def correct_counts(counts: ArrayLike, readouts: Sequence[ReadoutFidelity]) -> CorrectedCounts:
    """Invert the Kronecker product of the response matrices.

    Args:
        counts: shape (2**qubits,), of each outcome.
        readouts: of each qubit, at most ``QUBITS_MAX``.

    Raises:
        InsufficientDataError: the counts are empty, negative or of the wrong shape.
    """
    frequencies, shots = _frequencies(counts, len(readouts))
    responses = [readout.response for readout in readouts]
    inverse = _kronecker([np.linalg.inv(response) for response in responses])
    probabilities = inverse @ frequencies
    # From E p = f follows dp = -E^-1 (dE) p, with dE the change of one qubit's matrix.
    gradient = []
    for qubit, readout in enumerate(readouts):
        for change in (
            readout.sigma_f0 * np.array([[1.0, 0.0], [-1.0, 0.0]]),
            readout.sigma_f1 * np.array([[0.0, -1.0], [0.0, 1.0]]),
        ):
            changed = _kronecker([*responses[:qubit], change, *responses[qubit + 1 :]])
            gradient.append(-inverse @ changed @ probabilities)
    statistical = inverse @ _multinomial_covariance(frequencies, shots) @ inverse.T
    return CorrectedCounts(probabilities, statistical, np.array(gradient))


def _kronecker(matrices: Sequence[NDArray[Any]]) -> NDArray[Any]:
    product: NDArray[Any] = np.ones((1, 1))
    for matrix in matrices:
        product = np.kron(product, matrix)
    return product


def _multinomial_covariance(frequencies: NDArray[np.float64], shots: float) -> NDArray[np.float64]:
    """Covariance of frequencies; the same smoothing as in `proportion_variance`."""
    f, n = frequencies, shots
    if not (f > 0).all():
        f, n = (f * shots + 1) / (shots + f.size), shots + f.size + 1
    covariance: NDArray[np.float64] = (np.diag(f) - np.outer(f, f)) / n
    return covariance


def _frequencies(counts: ArrayLike, qubits: int) -> tuple[NDArray[np.float64], float]:
    if not 1 <= qubits <= QUBITS_MAX:
        raise InsufficientDataError(f"{qubits} qubits: 1 to {QUBITS_MAX} are corrected together")
    values = np.asarray(counts, dtype=np.float64)
    if values.shape != (2**qubits,) or not (values >= 0).all() or not values.sum() >= 1:
        raise InsufficientDataError(
            f"counts of {qubits} qubits must be {2**qubits} numbers >= 0 with at least one shot, "
            f"not {values.tolist()}"
        )
    return values / values.sum(), float(values.sum())


# --- iterative Bayesian unfolding ---------------------------------------------------


@dataclass(frozen=True)
class UnfoldedCounts:
    """Result of Bayesian unfolding.

    Attributes:
        probabilities: shape (2**qubits,), inside 0..1.
        covariance: of the draws, shape (2**qubits,) * 2.
    """

    probabilities: NDArray[np.float64]
    covariance: NDArray[np.float64]


def unfold(
    frequencies: NDArray[Any],
    response: NDArray[Any],
    *,
    tolerance: float = UNFOLDING_TOLERANCE,
) -> NDArray[np.float64]:
    """Iterative Bayesian unfolding from a uniform prior.

    Each step multiplies every probability by how much more often its outcomes were seen
    than it predicts. A sample stops when no probability of it changes by more than
    ``tolerance``; the coarser that is, the nearer to the prior the result stays.

    Args:
        frequencies: observed, shape (n, d).
        response: ``response[..., observed, true]``, shape (d, d) or (n, d, d).
        tolerance: largest change of a probability in the last step.

    Returns:
        Shape (n, d).

    Raises:
        InsufficientDataError: no convergence in ``UNFOLDING_ITERATIONS_MAX`` steps.
    """
    n, d = frequencies.shape
    responses = np.broadcast_to(response, (n, d, d))
    result = np.full((n, d), 1 / d)
    active = np.arange(n)
    for _ in range(UNFOLDING_ITERATIONS_MAX):
        prior, chosen = result[active], responses[active]
        predicted = np.einsum("nij,nj->ni", chosen, prior)
        # Where nothing is predicted nothing can have been seen, unless the model is wrong.
        ratio = np.divide(
            frequencies[active], predicted, out=np.zeros_like(predicted), where=predicted > 0
        )
        result[active] = prior * np.einsum("nij,ni->nj", chosen, ratio)
        active = active[np.abs(result[active] - prior).max(axis=1) > tolerance]
        if active.size == 0:
            return result
    raise InsufficientDataError(
        f"unfolding of {active.size} of {n} samples did not converge to {tolerance} in "
        f"{UNFOLDING_ITERATIONS_MAX} steps; use a larger tolerance"
    )


def unfold_counts(
    counts: ArrayLike,
    calibrations: Sequence[ArrayLike],
    rng: np.random.Generator,
    *,
    draws: int = UNFOLDING_DRAWS,
    tolerance: float = UNFOLDING_TOLERANCE,
) -> UnfoldedCounts:
    """Unfold counts, with the uncertainty of the shots and of the calibration.

    Both are drawn from the Dirichlet posterior of a uniform prior (the prior is assumed),
    and each draw is unfolded.

    Args:
        counts: shape (2**qubits,), of each outcome.
        calibrations: of each qubit, counts ``[observed, prepared]``, shape (2, 2).
        rng: where the draws come from.
        draws: how many, at least 2.
        tolerance: as in `unfold`.

    Raises:
        InsufficientDataError: counts are empty, negative or of the wrong shape, there are
            too few draws, or the unfolding does not converge.
    """
    frequencies, shots = _frequencies(counts, len(calibrations))
    tables = [np.asarray(table, dtype=np.float64) for table in calibrations]
    for table in tables:
        if table.shape != (2, 2) or not (table >= 0).all() or not (table.sum(axis=0) >= 1).all():
            raise InsufficientDataError(
                "calibration must be counts [observed, prepared] of shape (2, 2) with shots in "
                f"each column, not {table.tolist()}"
            )
    if draws < 2:
        raise InsufficientDataError(f"{draws} draws give no uncertainty; use at least 2")
    response = _kronecker([table / table.sum(axis=0) for table in tables])
    drawn_frequencies = rng.dirichlet(frequencies * shots + 1, size=draws)
    drawn_response = np.ones((draws, 1, 1))
    for table in tables:
        columns = [rng.dirichlet(table[:, prepared] + 1, size=draws) for prepared in (0, 1)]
        single = np.stack(columns, axis=2)
        size = 2 * drawn_response.shape[1]
        drawn_response = np.einsum("nab,ncd->nacbd", drawn_response, single).reshape(
            draws, size, size
        )
    drawn = unfold(drawn_frequencies, drawn_response, tolerance=tolerance)
    return UnfoldedCounts(
        unfold(frequencies[np.newaxis], response, tolerance=tolerance)[0],
        np.cov(drawn, rowvar=False),
    )
