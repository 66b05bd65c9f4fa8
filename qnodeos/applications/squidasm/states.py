"""States as SquidASM-style scripts compare them: density matrices, with qubit 0 first."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import numpy as np

from qnodeos.applications.names import qubit_from

_HALF: Final = 2**-0.5

KETS: Final = MappingProxyType(
    {
        name: np.array(amplitudes, dtype=complex).reshape(-1, 1)
        for name, amplitudes in {
            "s0": [1, 0],
            "s1": [0, 1],
            "h0": [_HALF, _HALF],
            "h1": [_HALF, -_HALF],
            "y0": [_HALF, 1j * _HALF],
            "y1": [_HALF, -1j * _HALF],
            "b00": [_HALF, 0, 0, _HALF],
            "b01": [0, _HALF, _HALF, 0],
            "b10": [_HALF, 0, 0, -_HALF],
            "b11": [0, _HALF, -_HALF, 0],
        }.items()
    }
)
"""Column vectors by the name the simulator gives them: eigenstates of Z, X and Y, and the Bell
states Phi+, Psi+, Phi- and Psi-."""


def get_reference_state(phi: float, theta: float) -> np.ndarray:
    """The density matrix of a point on the Bloch sphere.

    Args:
        phi: angle from the x axis, in radians.
        theta: angle from the z axis, in radians.

    Returns:
        2x2, complex: of Rz(phi) Ry(theta) |0>.
    """
    return qubit_from(phi, theta)


def dm_fidelity(dm1: Any, dm2: Any, dm_check: bool = True, squared: bool = False) -> float:
    """Fidelity of two states: Tr sqrt(sqrt(a) b sqrt(a)), or its square.

    Args:
        dm1: density matrix, or a state as a column vector.
        dm2: the same.
        dm_check: not used; matrices are taken as they are.
        squared: whether to give the square, the overlap of pure states.
    """
    singular_values = np.linalg.svd(_root(_matrix(dm1)) @ _root(_matrix(dm2)), compute_uv=False)
    overlap = float(singular_values.sum())
    return overlap**2 if squared else overlap


def _root(matrix: np.ndarray) -> np.ndarray:
    """Square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    root: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.conj().T
    return root


def ket2dm(ket: Any) -> np.ndarray:
    """The density matrix of a state, given as a column vector."""
    return _matrix(ket)


def _matrix(state: Any) -> np.ndarray:
    array = np.asarray(state, dtype=complex)
    if array.ndim == 2 and array.shape[0] == array.shape[1]:
        return array
    vector = array.reshape(-1)
    return np.outer(vector, vector.conj())
