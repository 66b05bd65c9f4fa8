"""A spin 1/2 under sampled microwaves: the reference the sequence tests compare with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sequences.program import SAMPLE_RATE_HZ

FULL_SCALE_RABI_HZ = 30e6
HYPERFINE_HZ = 2.16e6
"""Distance of the outer 14N lines from the middle one."""

Unitary = NDArray[np.complex128]

X = np.array([[0, 1], [1, 0]], dtype=complex)
Y = np.array([[0, -1j], [1j, 0]])
Z = np.diag([1.0 + 0j, -1])


def rotation_matrix(angle_rad: float, pauli: Unitary) -> Unitary:
    """exp(-i angle/2 pauli)."""
    matrix: Unitary = np.cos(angle_rad / 2) * np.eye(2) - 1j * np.sin(angle_rad / 2) * pauli
    return matrix


def free(n_samples: float, detuning_hz: float) -> Unitary:
    """Free evolution in the frame of the microwave."""
    return rotation_matrix(2 * np.pi * detuning_hz * n_samples / SAMPLE_RATE_HZ, Z)


def propagator(
    waveform: NDArray[np.float64],
    detuning_hz: float = 0.0,
    full_scale_rabi_hz: float = FULL_SCALE_RABI_HZ,
) -> Unitary:
    """Evolution under I and Q, shape (n_samples, 2), each sample a constant Hamiltonian."""
    dt = 1 / SAMPLE_RATE_HZ
    total = np.eye(2, dtype=complex)
    for in_phase, quadrature in 2 * np.pi * full_scale_rabi_hz * waveform:
        field = np.array([in_phase, quadrature, 2 * np.pi * detuning_hz])
        strength = float(np.linalg.norm(field))
        if strength:
            direction = (field[0] * X + field[1] * Y + field[2] * Z) / strength
            total = rotation_matrix(strength * dt, direction) @ total
    return total


def infidelity(actual: Unitary, ideal: NDArray[np.inexact]) -> float:
    """One minus the average gate fidelity, blind to a global phase."""
    return float(1 - (abs(np.trace(ideal.conj().T @ actual)) ** 2 + 2) / 6)
