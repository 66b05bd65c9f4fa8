"""Quantum states as real vectors in the Pauli basis.

A state of n qubits is the real tensor of its Pauli expectation values, shape ``(4,) * n``
with index order I, X, Y, Z on every axis: ``tensor[a, b] = Tr(rho sigma_a (x) sigma_b)``.
A map on one qubit is then a real 4x4 matrix (its Pauli transfer matrix), a partial trace
is the slice at I, and a measurement is the sum or difference of the slices at I and Z.
Against complex density matrices this halves the memory and makes a noisy gate on a pair
one small real matrix product.

Conventions: |0> is the +1 eigenstate of Z; R_axis(a) = exp(-i a sigma_axis / 2). The maps
returned by this module are shared and read-only.

States are joined and split as qubits meet and are measured, so whoever holds a qubit keeps
a `Qubit` handle, which follows the qubit through all that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qnodeos.errors import LimitError
from qnodeos.qdevice.instructions import ANGLE_STEPS, MAX_HALVINGS, Axis
from qnodeos.qdevice.outcomes import BellState

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

MAX_QUBITS: Final = 10
"""Bound on the qubits of one state (4**10 numbers, 8 megabytes)."""
TOLERANCE: Final = 1e-9
"""How far a given tensor or matrix may be from normalised or Hermitian."""

PAULIS: Final[Complex] = np.array(
    [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]],
    dtype=np.complex128,
)
"""I, X, Y, Z; shape (4, 2, 2)."""
PAULIS.setflags(write=False)

_QUARTER_TURNS: Final = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
_QUARTER: Final = ANGLE_STEPS // 4


def _shared(matrix: Real) -> Real:
    matrix.setflags(write=False)
    return matrix


_BELL_SIGNS: Final[dict[BellState, tuple[float, ...]]] = {
    BellState.PHI_PLUS: (1.0, 1.0, -1.0, 1.0),
    BellState.PSI_PLUS: (1.0, 1.0, 1.0, -1.0),
    BellState.PSI_MINUS: (1.0, -1.0, -1.0, -1.0),
    BellState.PHI_MINUS: (1.0, -1.0, 1.0, 1.0),
}
"""Expectation values of II, XX, YY and ZZ in each Bell state; all others are 0."""


@lru_cache(maxsize=3 * ANGLE_STEPS * (MAX_HALVINGS + 1))
def rotation(axis: Axis, steps: int, halvings: int = 0) -> Real:
    """Transfer matrix of a rotation; quarter turns are exact.

    Args:
        axis: rotation axis.
        steps: angle in units of pi/16 / 2**halvings.
        halvings: how often the unit is halved.

    Returns:
        shape (4, 4).
    """
    quarter = _QUARTER << halvings
    steps %= ANGLE_STEPS << halvings
    if steps % quarter == 0:
        cosine, sine = _QUARTER_TURNS[steps // quarter]
    else:
        angle = _angle(steps, halvings)
        cosine, sine = math.cos(angle), math.sin(angle)
    first, second = 1 + (axis + 1) % 3, 1 + (axis + 2) % 3
    matrix = np.eye(4)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[second, first], matrix[first, second] = sine, -sine
    return _shared(matrix)


@lru_cache(maxsize=1024)
def depolarising(probability: float) -> Real:
    """Transfer matrix, shape (4, 4), of rho -> (1 - p) rho + p I/2."""
    kept = 1 - probability
    return _shared(np.diag([1.0, kept, kept, kept]))


@lru_cache(maxsize=4096)
def dephasing(factor: float) -> Real:
    """Transfer matrix, shape (4, 4), that multiplies the coherences by ``factor``."""
    return _shared(np.diag([1.0, factor, factor, 1.0]))


@lru_cache(maxsize=16384)
def noisy_rotation(
    axis: Axis, steps: int, coherence: float, depolarised: float, halvings: int = 0
) -> Real:
    """Transfer matrix of dephasing, then a rotation, then depolarising.

    Args:
        axis: rotation axis.
        steps: angle in units of pi/16 / 2**halvings.
        coherence: factor on the coherences before the rotation, 0..1.
        depolarised: depolarising probability after it.
        halvings: how often the unit of the angle is halved.

    Returns:
        shape (4, 4).
    """
    turned = rotation(axis, steps, halvings)
    return _shared(depolarising(depolarised) @ turned @ dephasing(coherence))


def _angle(steps: int, halvings: int) -> float:
    """``steps`` * pi/16 / 2**halvings, in radians."""
    return math.ldexp(steps * 2 * math.pi / ANGLE_STEPS, -halvings)


def rotation_unitary(axis: Axis, steps: int, halvings: int = 0) -> Complex:
    """The rotation by ``steps`` * pi/16 / 2**halvings as a 2x2 unitary, exp(-i a sigma/2)."""
    half = _angle(steps, halvings) / 2
    unitary: Complex = math.cos(half) * PAULIS[0] - 1j * math.sin(half) * PAULIS[1 + axis]
    return unitary


def transfer_matrix(unitary: Complex) -> Real:
    """Transfer matrix, shape (4**n, 4**n), of a unitary on n qubits, shape (2**n, 2**n)."""
    qubits = unitary.shape[0].bit_length() - 1
    basis = PAULIS
    for _ in range(qubits - 1):
        basis = np.einsum("aij,bkl->abikjl", basis, PAULIS).reshape(
            -1, 2 * basis.shape[1], 2 * basis.shape[1]
        )
    moved = unitary @ basis @ unitary.conj().T
    return _shared(np.einsum("aij,bji->ab", basis, moved).real / unitary.shape[0])


@lru_cache(maxsize=3 * ANGLE_STEPS)
def controlled_rotation(axis: Axis, steps: int) -> Real:
    """NV's two-qubit gate, shape (16, 16): +angle if the first qubit is |0>, else -angle."""
    unitary = np.zeros((4, 4), dtype=np.complex128)
    unitary[:2, :2] = rotation_unitary(axis, steps)
    unitary[2:, 2:] = rotation_unitary(axis, -steps)
    return transfer_matrix(unitary)


@lru_cache(maxsize=1)
def swap() -> Real:
    """Transfer matrix, shape (16, 16), that exchanges two qubits."""
    return transfer_matrix(np.eye(4, dtype=np.complex128)[[0, 2, 1, 3]])


@lru_cache(maxsize=64)
def depolarising_pair(probability: float) -> Real:
    """Transfer matrix, shape (16, 16), of rho -> (1 - p) rho + p I/4 on two qubits."""
    kept = np.full(16, 1 - probability)
    kept[0] = 1.0
    return _shared(np.diag(kept))


class Readout(NamedTuple):
    """A measurement that is under way.

    Attributes:
        tick: when it is due.
        carry_out: measures.
        reader: who reads, for the order of readouts that are due at the same tick.
        qubits: what is read, the qubits that have this readout; empty if it is one.
    """

    tick: int
    carry_out: Callable[[], None]
    reader: str = ""
    qubits: tuple[Qubit, ...] = ()


class Qubit:
    """A handle on one qubit of a `PauliState`; valid until the qubit is measured or discarded.

    Attributes:
        state: the state the qubit is part of.
        index: its axis there.
        readout: the measurement under way, if any; see `settle`.
        holder: who has the qubit, if that wants to be known; copies have none.
    """

    __slots__ = ("holder", "index", "readout", "state")

    def __init__(self, state: PauliState, index: int) -> None:
        self.state = state
        self.index = index
        self.readout: Readout | None = None
        self.holder: object = None

    def settle(self) -> None:
        """Carry out the readout of this qubit, and before it those that come first.

        Which of two entangled qubits is measured first does not change the statistics, but it
        does change which results the same random numbers give. So they are measured in the
        order of their ticks, then of their readers, then of their axes, whoever asks first.
        (The axes of a state that several nodes have joined depend on who joined it first.) A
        readout of two qubits waits for what comes first in the states of both.
        """
        readout = self.readout
        if readout is None:
            return
        qubits = readout.qubits or (self,)
        while True:
            first = min(
                (qubit for one in qubits for qubit in one.state.qubits if qubit.readout),
                key=Qubit._turn,
            )
            if first.readout is readout:
                break
            first.settle()
        for qubit in qubits:
            qubit.readout = None
        readout.carry_out()

    def _turn(self) -> tuple[int, str, int]:
        """The place of its readout among others."""
        assert self.readout is not None
        return self.readout.tick, self.readout.reader, self.index

    def apply(self, matrix: Real) -> None:
        """Apply a map on this qubit; see `PauliState.apply`."""
        self.state.apply(self.index, matrix)

    def probability_of_zero(self) -> float:
        """Probability of finding |0>."""
        return self.state.probability_of_zero(self.index)

    def measure(self, uniform: float) -> int:
        """Measure Z and drop the qubit; see `PauliState.measure`."""
        return self.state.measure(self.index, uniform)

    def discard(self) -> None:
        """Forget the qubit (partial trace)."""
        self.state.discard(self.index)

    def reduced(self) -> PauliState:
        """A copy of the state of this qubit alone."""
        return self.state.reduced(self.index)


class PauliState:
    """A mixed state of up to `MAX_QUBITS` qubits.

    Attributes:
        tensor: Pauli expectation values, shape ``(4,) * n``. A state whose last qubit was
            dropped has n = 0 and is the number 1.
        qubits: the handles, in the order of the axes.
    """

    __slots__ = ("qubits", "tensor")

    def __init__(self, tensor: ArrayLike) -> None:
        """Take the tensor over.

        Args:
            tensor: shape ``(4,) * n``, n >= 1, with ``tensor[0, ..., 0] == 1``.

        Raises:
            LimitError: more than `MAX_QUBITS` qubits.
            ValueError: wrong shape or normalisation.
        """
        values = np.asarray(tensor, dtype=np.float64)
        if values.ndim > MAX_QUBITS:
            raise LimitError(f"a state may have {MAX_QUBITS} qubits at most, not {values.ndim}")
        if not values.ndim or values.shape != (4,) * values.ndim:
            raise ValueError(f"a Pauli tensor has 4 entries on each axis, not shape {values.shape}")
        if abs(values.item(0) - 1) > TOLERANCE:
            raise ValueError(f"the state is not normalised: its trace is {values.item(0)}")
        self.tensor: Real = values
        self.qubits = [Qubit(self, index) for index in range(values.ndim)]

    @classmethod
    def from_populations(cls, zero: float) -> PauliState:
        """One qubit without coherence: |0> with probability ``zero``, otherwise |1>."""
        return cls([1.0, 0.0, 0.0, 2 * zero - 1])

    @classmethod
    def from_density_matrix(cls, matrix: ArrayLike) -> PauliState:
        """The state of a density matrix, shape (2**n, 2**n).

        Raises:
            LimitError: more than `MAX_QUBITS` qubits.
            ValueError: wrong shape, not Hermitian, or trace not 1.
        """
        rho = np.asarray(matrix, dtype=np.complex128)
        qubits = rho.shape[0].bit_length() - 1 if rho.ndim else 0
        if qubits > MAX_QUBITS:
            raise LimitError(f"a state may have {MAX_QUBITS} qubits at most, not {qubits}")
        if qubits < 1 or rho.shape != (2**qubits, 2**qubits):
            raise ValueError(f"a density matrix has shape (2**n, 2**n), not {rho.shape}")
        if not np.allclose(rho, rho.conj().T, rtol=0, atol=TOLERANCE):
            raise ValueError("the density matrix is not Hermitian")
        remaining = rho.reshape((2,) * (2 * qubits))
        for qubit in range(qubits):
            # Axis 0 is this qubit's row, its column follows the rows still to come.
            remaining = np.tensordot(remaining, PAULIS, axes=([0, qubits - qubit], [2, 1]))
        return cls(np.ascontiguousarray(remaining.real))

    @classmethod
    def from_pure(cls, vector: ArrayLike) -> PauliState:
        """The state of a normalised vector of 2**n amplitudes."""
        amplitudes = np.asarray(vector, dtype=np.complex128)
        return cls.from_density_matrix(np.outer(amplitudes, amplitudes.conj()))

    def density_matrix(self) -> Complex:
        """The density matrix, shape (2**n, 2**n); the first qubit is the most significant."""
        count = self.tensor.ndim
        remaining = self.tensor.astype(np.complex128) / 2.0**count
        for _ in range(count):
            remaining = np.tensordot(remaining, PAULIS, axes=([0], [0]))
        rows, columns = range(0, 2 * count, 2), range(1, 2 * count, 2)
        return np.transpose(remaining, (*rows, *columns)).reshape(2**count, 2**count)

    def copy(self) -> PauliState:
        """An independent copy with handles of its own."""
        return PauliState(self.tensor.copy())

    def fidelity(self, vector: ArrayLike) -> float:
        """Overlap <psi| rho |psi> with a normalised vector of 2**n amplitudes."""
        other = PauliState.from_pure(vector).tensor
        if other.shape != self.tensor.shape:
            raise ValueError(f"a vector of {other.ndim} qubits for a state of {self.tensor.ndim}")
        return float(np.vdot(other, self.tensor)) / 2.0**other.ndim

    def expectation(self, *paulis: int) -> float:
        """Expectation value of a Pauli string, one index 0..3 (I, X, Y, Z) per qubit."""
        value: float = self.tensor.item(*paulis)
        return value

    def apply(self, index: int, matrix: Real) -> None:
        """Apply a map, given as a (4, 4) transfer matrix, to one qubit."""
        tensor = self.tensor
        last = tensor.ndim - 1
        if index == last:
            self.tensor = tensor.dot(matrix.T)
        elif last == 1:
            self.tensor = matrix.dot(tensor)
        else:
            stacked = tensor.reshape(4**index, 4, -1)
            self.tensor = (matrix @ stacked).reshape(tensor.shape)

    def apply_pair(self, first: int, second: int, matrix: Real) -> None:
        """Apply a map, given as a (16, 16) transfer matrix, to two different qubits."""
        if first == second:
            raise ValueError(f"a two-qubit map needs two qubits, not qubit {first} twice")
        mapped = np.tensordot(
            matrix.reshape(4, 4, 4, 4), self.tensor, axes=([2, 3], [first, second])
        )
        self.tensor = np.moveaxis(mapped, (0, 1), (first, second))

    def probability_of_zero(self, index: int) -> float:
        """Probability of finding |0> when one qubit is measured in the Z basis."""
        return (1 + self.tensor.item(3 * 4 ** (self.tensor.ndim - 1 - index))) / 2

    def measure(self, index: int, uniform: float) -> int:
        """Measure one qubit in the Z basis and drop it.

        Args:
            index: which qubit.
            uniform: a random number, uniform in [0, 1), that decides.

        Returns:
            0 or 1. The other qubits are left in the state this projects them to.
        """
        zero = min(1.0, max(0.0, self.probability_of_zero(index)))
        bit = 0 if uniform < zero else 1
        probability = 1 - zero if bit else zero
        sign = -1.0 if bit else 1.0
        kept = self._slice(index, 0) + sign * self._slice(index, 3)
        self._drop(index, kept / (2 * probability))
        return bit

    def measure_bell(self, first: int, second: int, uniform: float) -> BellState:
        """Measure in which Bell state two qubits are, and drop both.

        Args:
            first: which qubit is the first of the pair; only the sign of Psi- depends on it.
            second: which one is the second.
            uniform: a random number, uniform in [0, 1), that decides.

        Returns:
            The state found. The other qubits are left in the state this projects them to.

        Raises:
            ValueError: the two are the same qubit.
        """
        if first == second:
            raise ValueError(f"a Bell measurement needs two qubits, not qubit {first} twice")
        diagonal = np.moveaxis(self.tensor, (first, second), (0, 1))[range(4), range(4)]
        kept = np.tensordot(list(_BELL_SIGNS.values()), diagonal, axes=1)
        weights = np.maximum(kept.reshape(len(_BELL_SIGNS), -1)[:, 0], 0.0)
        limits = np.cumsum(weights)
        # Below the last limit even after rounding, as uniform < 1.
        found = int(np.searchsorted(limits, uniform * limits[-1], side="right"))
        for place in sorted((first, second), reverse=True):
            del self.qubits[place]
        self.tensor = kept[found] / weights[found]
        self._renumber()
        return list(_BELL_SIGNS)[found]

    def discard(self, index: int) -> None:
        """Forget one qubit (partial trace)."""
        self._drop(index, self._slice(index, 0))

    def reduced(self, *indices: int) -> PauliState:
        """A copy of the state of the given qubits alone, in the given order."""
        others = tuple(axis for axis in range(self.tensor.ndim) if axis not in indices)
        front = np.transpose(self.tensor, (*others, *indices))
        return PauliState(front[(0,) * len(others)].copy())

    def absorb(self, other: PauliState) -> None:
        """Take the qubits of another state into this one (tensor product), behind its own.

        The handles of the other state stay valid; the other object must not be used again.

        Raises:
            LimitError: the two together have more than `MAX_QUBITS` qubits.
        """
        total = self.tensor.ndim + other.tensor.ndim
        if total > MAX_QUBITS:
            raise LimitError(f"a state may have {MAX_QUBITS} qubits at most, not {total}")
        self.tensor = np.multiply.outer(self.tensor, other.tensor)
        self.qubits += other.qubits
        self._renumber()

    def _slice(self, index: int, pauli: int) -> Real:
        """The part of the tensor with one Pauli on one axis; shape ``(4,) * (n - 1)``."""
        part: Real = self.tensor[(slice(None),) * index + (pauli, ...)]
        return part

    def _drop(self, index: int, tensor: Real) -> None:
        self.tensor = tensor
        del self.qubits[index]
        self._renumber()

    def _renumber(self) -> None:
        for index, qubit in enumerate(self.qubits):
            qubit.state, qubit.index = self, index
