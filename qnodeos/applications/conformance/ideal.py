"""What the protocols of the applications promise: states of one and two qubits, in numpy.

Independent of the simulator and of the compilers: vectors and 2x2 matrices as in a textbook,
with R_axis(a) = exp(-i a sigma / 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qnodeos.applications.conformance.observation import Matrix

Vector: TypeAlias = NDArray[np.complex128]
"""Amplitudes, shape (2**n,)."""

X: Final[Matrix] = np.array([[0, 1], [1, 0]], dtype=np.complex128)
Z: Final[Matrix] = np.diag([1, -1]).astype(np.complex128)
H: Final[Matrix] = np.array([[1, 1], [1, -1]], dtype=np.complex128) / math.sqrt(2)
CNOT: Final[Matrix] = np.eye(4, dtype=np.complex128)[[0, 1, 3, 2]]
PLUS: Final[Vector] = np.array([1, 1], dtype=np.complex128) / math.sqrt(2)


def rz(angle: float) -> Matrix:
    """Rotation about Z by an angle in radians."""
    return np.diag([np.exp(-0.5j * angle), np.exp(0.5j * angle)])


def prepared(phi: float, theta: float) -> Vector:
    """What the SDK's `set_qubit_state` makes of |0>; angles in radians.

    Returns:
        cos(theta/2) |0> + exp(i phi) sin(theta/2) |1>, shape (2,).
    """
    return np.array([math.cos(theta / 2), np.exp(1j * phi) * math.sin(theta / 2)])


def fidelity(state: ArrayLike, vector: Vector) -> float:
    """Overlap of a density matrix with a pure state; 0 if the shapes do not fit."""
    matrix = np.asarray(state, dtype=np.complex128)
    if matrix.shape != (vector.size, vector.size):
        return 0.0
    return float((vector.conj() @ matrix @ vector).real)


def purity(state: Matrix) -> float:
    """Tr(rho^2): 1 of a pure state."""
    return float(np.trace(state @ state).real)


def trace_distance(first: ArrayLike, second: ArrayLike) -> float:
    """Half the sum of the absolute eigenvalues of the difference; 1 if the shapes differ."""
    one, other = (np.asarray(state, dtype=np.complex128) for state in (first, second))
    if one.shape != other.shape:
        return 1.0
    return float(np.abs(np.linalg.eigvalsh(one - other)).sum()) / 2


def each_alone(state: Vector) -> tuple[Matrix, Matrix]:
    """The two qubits of a pure state of shape (4,), each seen alone."""
    amplitudes = state.reshape(2, 2)
    return amplitudes @ amplitudes.conj().T, amplitudes.T @ amplitudes.conj()


def distributed_cnot(control: Vector, target: Vector) -> Vector:
    """A CNOT on two qubits that were apart, shape (4,); the control is the first."""
    both: Vector = CNOT @ np.kron(control, target)
    return both


def after_measurements(angles: Sequence[float]) -> Vector:
    """A chain of measurements along a cluster state, without its byproducts.

    Args:
        angles: of the measurements, in radians.

    Returns:
        H Rz(angles[-1]) ... H Rz(angles[0]) |+>, shape (2,).
    """
    state = PLUS
    for angle in angles:
        state = H @ rz(angle) @ state
    return state


def blind_rotation(
    phi: Sequence[float],
    theta: Sequence[float],
    flips: Sequence[int],
    measured: Sequence[int],
) -> Vector:
    """The server's last qubit after a blind rotation of n steps.

    Each step leaves X to the power of its outcome, which the next H turns into Z; the angles
    compensate for both up to the last two steps. The last qubit itself came with Z to the power
    of the client's outcome and with the client's last secret angle, both of which commute with
    the CPHASE and are not compensated.

    Args:
        phi: the angles of the computation, in radians, n of them.
        theta: the secret angles, n + 1.
        flips: the server's outcomes with the client's secret bits taken off (s xor r), n.
        measured: the client's outcomes, n + 1.

    Returns:
        shape (2,).
    """
    last, before = ([0, 0, *flips])[:-3:-1]
    state = after_measurements(phi)
    state = np.linalg.matrix_power(X, last) @ state
    state = np.linalg.matrix_power(Z, before ^ measured[-1]) @ state
    turned: Vector = rz(theta[-1]) @ state
    return turned


def blind_computation(alpha: float, beta: float, flip1: int, r2: int) -> Vector:
    """The server's qubit before its last measurement in a blind computation of two angles.

    Args:
        alpha: the first angle of the computation, in radians.
        beta: the second.
        flip1: the server's first outcome, with the client's secret bit taken off (m1 xor r1).
        r2: the client's second secret bit.

    Returns:
        Z^flip1 X^r2 H Rz(beta) H Rz(alpha) |+>, shape (2,).
    """
    state = after_measurements([alpha, beta])
    flipped: Vector = np.linalg.matrix_power(X, r2) @ state
    return np.linalg.matrix_power(Z, flip1) @ flipped


def bell_measurement(phi: float, theta: float) -> NDArray[np.float64]:
    """Probabilities of the outcomes of a Bell measurement on a prepared qubit and |0>.

    Returns:
        of (m1, m2) = 00, 01, 10, 11, shape (4,).
    """
    state = np.kron(H, np.eye(2)) @ CNOT @ np.kron(prepared(phi, theta), [1, 0])
    probabilities: NDArray[np.float64] = np.abs(state) ** 2
    return probabilities
