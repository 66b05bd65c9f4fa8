"""Single-qubit state tomography.

Linear inversion gives an unbiased Bloch vector. Noise can push it out of the Bloch ball;
then the state of maximum likelihood is found instead with the R rho R iteration (Hradil,
Phys. Rev. A 55, R1561 (1997); Lvovsky, J. Opt. B 6, S556 (2004)), with the imperfect
readout as part of the measurement operators, so that the raw counts are fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.readout import ReadoutFidelity, check_binomial, correct_zeros
from qnodeos.errors import InsufficientDataError

ITERATIONS_MAX: Final = 100_000
TOLERANCE: Final = 1e-9
"""Largest change of an element of rho in the last R rho R step."""

PAULIS: Final = np.array(
    [[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=np.complex128
)
_IDENTITY: Final = np.eye(2, dtype=np.complex128)


@dataclass(frozen=True)
class QubitState:
    """A reconstructed qubit.

    Attributes:
        bloch: expectation values of X, Y, Z, shape (3,).
        sigma: their standard uncertainties from linear inversion, shape (3,); beside a
            maximum-likelihood state they are only an indication.
        maximum_likelihood: whether ``bloch`` comes from maximum likelihood.
    """

    bloch: NDArray[np.float64]
    sigma: NDArray[np.float64]
    maximum_likelihood: bool

    @property
    def density_matrix(self) -> NDArray[np.complex128]:
        """(1 + r . sigma) / 2, shape (2, 2)."""
        return density_matrix(self.bloch)

    def fidelity(self, target: ArrayLike) -> float:
        """Fidelity with the pure state of a Bloch vector of shape (3,) and length 1.

        Raises:
            InsufficientDataError: the target is not a pure state.
        """
        vector = np.asarray(target, dtype=np.float64)
        if vector.shape != (3,) or abs(np.linalg.norm(vector) - 1) > 1e-9:
            raise InsufficientDataError(f"target {vector.tolist()} is not a Bloch unit vector")
        return float((1 + self.bloch @ vector) / 2)


def density_matrix(bloch: NDArray[np.float64]) -> NDArray[np.complex128]:
    """(1 + r . sigma) / 2, shape (2, 2)."""
    pauli_part: NDArray[np.complex128] = np.einsum("k,kij->ij", bloch, PAULIS)
    return (_IDENTITY + pauli_part) / 2


def reconstruct(zeros: Sequence[int], shots: Sequence[int], readout: ReadoutFidelity) -> QubitState:
    """Reconstruct a qubit from measurements of X, Y and Z.

    Args:
        zeros: outcomes 0 (eigenvalue +1) per basis, three numbers.
        shots: shots per basis, three numbers.
        readout: of the qubit.

    Raises:
        InsufficientDataError: a basis has no shots or impossible counts, or maximum
            likelihood does not converge.
    """
    if len(zeros) != 3 or len(shots) != 3:
        raise InsufficientDataError(
            f"tomography needs counts in X, Y and Z, not {len(zeros)} and {len(shots)} numbers"
        )
    estimates = [correct_zeros(z, n, readout) for z, n in zip(zeros, shots, strict=True)]
    bloch = np.array([2 * estimate.value - 1 for estimate in estimates])
    sigma = np.array([2 * estimate.sigma for estimate in estimates])
    if np.linalg.norm(bloch) <= 1:
        return QubitState(bloch, sigma, maximum_likelihood=False)
    return QubitState(most_likely(np.eye(3), zeros, shots, readout), sigma, maximum_likelihood=True)


def most_likely(
    axes: ArrayLike, zeros: Sequence[int], shots: Sequence[int], readout: ReadoutFidelity
) -> NDArray[np.float64]:
    """The state of maximum likelihood for measurements along any axes.

    Args:
        axes: Bloch vectors, of length 1, of the states that ideally read 0; shape (n, 3).
        zeros: outcomes 0 per axis, n numbers.
        shots: shots per axis, n numbers.
        readout: of the qubit.

    Returns:
        Its Bloch vector, shape (3,): the R rho R fixed point.

    Raises:
        InsufficientDataError: the axes are no unit vectors, one has no shots or impossible
            counts, or there is no convergence.
    """
    vectors = np.asarray(axes, dtype=np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != 3 or not len(vectors) == len(zeros) == len(shots):
        raise InsufficientDataError(
            f"axes of shape {vectors.shape} do not fit {len(zeros)} and {len(shots)} counts; "
            "three components and one count each are needed"
        )
    if (np.abs(np.linalg.norm(vectors, axis=1) - 1) > 1e-9).any():
        raise InsufficientDataError(f"axes {vectors.tolist()} are not Bloch unit vectors")
    for zero, shot in zip(zeros, shots, strict=True):
        check_binomial(zero, shot)
    along = np.einsum("nk,kij->nij", vectors, PAULIS)
    up, down = (_IDENTITY + along) / 2, (_IDENTITY - along) / 2
    f0, f1 = readout.f0, readout.f1
    operators = np.concatenate([f0 * up + (1 - f1) * down, (1 - f0) * up + f1 * down])
    counts = np.array([*zeros, *(n - z for z, n in zip(zeros, shots, strict=True))])
    operators, counts = operators[counts > 0], counts[counts > 0]
    weights = counts / counts.sum()
    rho = _IDENTITY / 2
    for _ in range(ITERATIONS_MAX):
        expected = np.einsum("kij,ji->k", operators, rho).real
        r = np.tensordot(weights / expected, operators, axes=1)
        step = r @ rho @ r
        step /= np.trace(step)
        change = np.abs(step - rho).max()
        rho = step
        if change < TOLERANCE:
            bloch: NDArray[np.float64] = np.einsum("kij,ji->k", PAULIS, rho).real
            return bloch
    raise InsufficientDataError(
        f"maximum likelihood did not converge to {TOLERANCE} in {ITERATIONS_MAX} steps for "
        f"zeros {list(zeros)} of {list(shots)}"
    )
