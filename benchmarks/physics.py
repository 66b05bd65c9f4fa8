"""A noisy gate on one qubit of an entangled pair: Pauli tensors against density matrices.

The gate is what the simulated NV device does for every rotation: dephasing for the time
that has passed, the rotation, depolarising. The reference applies the same channel to a
4x4 density matrix with its Kraus operators, as well as that can be done in numpy: the
fewest operators (from the Choi matrix, rank 4), made once, stacked, in three array
operations. Both look the map up by its parameters, as the device does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import GC_OFF, Effort, Outcome, Work, compare
from qnodeos.qdevice.instructions import Axis
from sim.pauli import PAULIS, PauliState, noisy_rotation

GATES: Final = 20_000
COHERENCE: Final = 0.999
DEPOLARISED: Final = 0.0028
AXES: Final = (Axis.X, Axis.Y)
STEPS: Final = (8, 16, 3, 29)

Complex = NDArray[np.complex128]

_PHI_PLUS: Final = np.array([1, 0, 0, 1]) / np.sqrt(2)


@lru_cache(maxsize=1024)
def kraus_operators(
    axis: Axis, steps: int, coherence: float, depolarised: float
) -> tuple[Complex, Complex]:
    """The channel of `noisy_rotation` on the first of two qubits.

    Returns:
        Kraus operators and their adjoints, each of shape (4, 4, 4).
    """
    transfer = noisy_rotation(axis, steps, coherence, depolarised)
    # Choi matrix: sum_ij |i><j| (x) channel(|i><j|), with |i><j| written in Paulis.
    choi = np.zeros((4, 4), dtype=np.complex128)
    for i in range(2):
        for j in range(2):
            unit = np.zeros((2, 2), dtype=np.complex128)
            unit[i, j] = 1
            expectations = np.einsum("ij,aji->a", unit, PAULIS)
            image = np.einsum("a,aij->ij", transfer @ expectations, PAULIS) / 2
            choi += np.kron(unit, image)
    weights, vectors = np.linalg.eigh(choi)
    single = [
        np.sqrt(max(weight, 0.0)) * vector.reshape(2, 2).T
        for weight, vector in zip(weights, vectors.T, strict=True)
    ]
    operators = np.array([np.kron(operator, np.eye(2)) for operator in single])
    return operators, operators.conj().transpose(0, 2, 1).copy()


def run_pauli(gates: int) -> PauliState:
    """Apply gates to a pair of qubits, as a Pauli tensor."""
    state = PauliState.from_pure(_PHI_PLUS)
    for gate in range(gates):
        axis, steps = AXES[gate % len(AXES)], STEPS[gate % len(STEPS)]
        state.apply(0, noisy_rotation(axis, steps, COHERENCE, DEPOLARISED))
    return state


def run_density_matrix(gates: int) -> Complex:
    """Apply the same gates to a density matrix, shape (4, 4)."""
    rho: Complex = np.outer(_PHI_PLUS, _PHI_PLUS).astype(np.complex128)
    for gate in range(gates):
        axis, steps = AXES[gate % len(AXES)], STEPS[gate % len(STEPS)]
        operators, adjoints = kraus_operators(axis, steps, COHERENCE, DEPOLARISED)
        rho = (operators @ rho @ adjoints).sum(axis=0)
    return rho


def run(effort: Effort) -> Outcome:
    """Measure."""
    gates = effort.of(GATES)
    difference = run_pauli(5).density_matrix() - run_density_matrix(5)
    if np.abs(difference).max() > 1e-12:
        raise RuntimeError("the two pictures disagree; nothing to compare")
    figure = compare(
        Work("Pauli tensor", "gate", gates, lambda: lambda: run_pauli(gates)),
        Work("Kraus operators", "gate", gates, lambda: lambda: run_density_matrix(gates)),
        effort,
    ).speed("noisy gate on a pair")
    return Outcome([figure], GC_OFF)
