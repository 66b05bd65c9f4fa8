"""A machine that runs subroutines of either flavour, from the definitions.

Gates are what NetQASM's documents say they are: ``rot_x n d`` is exp(-i n pi/2**d X/2), NV's
``crot_x`` rotates by +angle if its control is |0> and by -angle if it is |1>. It shares no code
with the kernel, the simulated devices or the SDK's own matrices, one of which is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from netqasm.lang.instr.flavour import VanillaFlavour
from netqasm.lang.operand import Register
from netqasm.lang.parsing.text import parse_text_subroutine
from netqasm.lang.subroutine import Subroutine

from tests.unit.spin_half import Unitary, X, Y, Z, rotation_matrix

MAX_STEPS: Final = 10_000
_IDENTITY: Final = np.eye(2, dtype=complex)
_PAULIS: Final = {"x": X, "y": Y, "z": Z}
_ZERO: Final = np.diag([1, 0]).astype(complex)
_ONE: Final = np.diag([0, 1]).astype(complex)
_NAMED: Final = {
    "x": X,
    "y": Y,
    "z": Z,
    "h": (X + Z) / np.sqrt(2),
    "k": (Y + Z) / np.sqrt(2),
    "s": np.diag([1, 1j]),
    "t": np.diag([1, np.exp(1j * np.pi / 4)]),
}
_COMPARISONS: Final = {
    "bez": lambda a, b: a == 0,
    "bnz": lambda a, b: a != 0,
    "beq": lambda a, b: a == b,
    "bne": lambda a, b: a != b,
    "blt": lambda a, b: a < b,
    "bge": lambda a, b: a >= b,
}
_ARITHMETIC: Final = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b}


def assemble(text: str) -> Subroutine:
    """A vanilla subroutine from text, without the header the SDK's parser wants."""
    return parse_text_subroutine(f"# NETQASM 0.10\n# APPID 0\n{text}", flavour=VanillaFlavour())


def are_equal(first: Unitary, second: Unitary) -> bool:
    """Whether two unitaries are the same up to a phase."""
    overlap = np.trace(first.conj().T @ second) / len(first)
    return bool(abs(abs(overlap) - 1) < 1e-9)


class UnallocatedError(Exception):
    """A gate acts on a virtual qubit that is not there."""


class Machine:
    """Runs subroutines on virtual qubits 0..qubits-1.

    A pair is received as a qubit in |0>, with results that name Phi+.

    Args:
        qubits: how many.
        allocated: those that are there from the start; all by default.

    Attributes:
        unitary: what the gates so far do, shape (2**qubits, 2**qubits); qubit 0 is the first
            factor.
        outcomes: of measurements, which must have been certain, by the qubit's address.
    """

    def __init__(self, qubits: int, allocated: Iterable[int] | None = None) -> None:
        self._qubits = qubits
        self.allocated = set(range(qubits) if allocated is None else allocated)
        self.unitary: Unitary = np.eye(2**qubits, dtype=complex)
        self.registers: dict[Register, int] = {}
        self.arrays: dict[int, dict[int, int]] = {}
        self.outcomes: dict[int, int] = {}

    def run(self, subroutine: Subroutine) -> Machine:
        """Execute it to its end; the qubits start in |0...0> as far as outcomes go."""
        line = 0
        for _ in range(MAX_STEPS):
            if line >= len(subroutine.instructions):
                return self
            line = self._step(subroutine.instructions[line], line)
        raise AssertionError("the subroutine does not end")

    def gate(self, name: str, *qubits: int) -> None:
        """Apply a named gate of one or two qubits."""
        first, *rest = qubits
        if not rest:
            self._apply({first: _NAMED[name]})
        elif name == "cnot":
            self._apply({first: _ZERO}, {first: _ONE, rest[0]: X})
        elif name == "cphase":
            self._apply({first: _ZERO}, {first: _ONE, rest[0]: Z})
        else:
            self._swap(first, rest[0])

    def rotate(self, axis: str, angle: float, qubit: int) -> None:
        """Rotate a qubit by an angle in radians."""
        self._apply({qubit: rotation_matrix(angle, _PAULIS[axis])})

    def reduced_state(self, qubit: int) -> Unitary:
        """Density matrix of one qubit, if all started in |0>; shape (2, 2)."""
        state = self.unitary[:, 0].reshape((2,) * self._qubits)
        rows = np.moveaxis(state, qubit, 0).reshape(2, -1)
        return rows @ rows.conj().T

    def _step(self, instruction: Any, line: int) -> int:
        name = instruction.mnemonic
        operands = instruction.operands
        if name in _COMPARISONS:
            values = [self.registers.get(operand, 0) for operand in operands[:-1]]
            if _COMPARISONS[name](values[0], values[-1]):
                return int(operands[-1].value)
        elif name == "jmp":
            return int(operands[0].value)
        elif name == "set":
            self.registers[operands[0]] = operands[1].value
        elif name in _ARITHMETIC:
            left, right = (self.registers.get(operand, 0) for operand in operands[1:])
            self.registers[operands[0]] = _ARITHMETIC[name](left, right)
        elif name in ("load", "store"):
            array = self.arrays.setdefault(operands[1].address.address, {})
            index = self.registers.get(operands[1].index, 0)
            if name == "load":
                self.registers[operands[0]] = array[index]
            else:
                array[index] = self.registers.get(operands[0], 0)
        elif name == "recv_epr":
            qubits, results = (self.registers[operand] for operand in operands[2:])
            self.allocated.update(self.arrays[qubits].values())
            self.arrays[results] = defaultdict(int)  # Phi+ is 0
        elif name not in ("array", "init", "wait_all", "ret_reg", "ret_arr"):
            self._quantum(name, operands)
        return line + 1

    def _quantum(self, name: str, operands: list[Any]) -> None:
        registers = [operand for operand in operands if isinstance(operand, Register)]
        qubits = [self.registers[each] for each in registers[: 1 if name == "meas" else 2]]
        if name == "qalloc":
            self.allocated.add(qubits[0])
            return
        missing = set(qubits) - self.allocated
        if missing:
            raise UnallocatedError(f"{name} on virtual qubits {qubits}: no {missing}")
        if name == "qfree":
            self.allocated.remove(qubits[0])
        elif name == "meas":
            self.outcomes[qubits[0]] = self.registers[operands[1]] = self._measure(qubits[0])
        elif name.startswith("rot_"):
            self.rotate(name[-1], _angle(operands), qubits[0])
        elif name.startswith("crot_"):
            control, target = qubits
            angle, axis = _angle(operands), _PAULIS[name[-1]]
            self._apply(
                {control: _ZERO, target: rotation_matrix(angle, axis)},
                {control: _ONE, target: rotation_matrix(-angle, axis)},
            )
        else:
            self.gate(name, *qubits)

    def _swap(self, first: int, second: int) -> None:
        for control, target in ((first, second), (second, first), (first, second)):
            self.gate("cnot", control, target)

    def _apply(self, *terms: dict[int, Unitary]) -> None:
        """Multiply by a sum of tensor products."""
        total = np.zeros_like(self.unitary)
        for term in terms:
            product: Any = np.eye(1)
            for qubit in range(self._qubits):
                product = np.kron(product, term.get(qubit, _IDENTITY))
            total += product
        self.unitary = total @ self.unitary

    def _measure(self, qubit: int) -> int:
        probabilities = np.abs(self.unitary[:, 0]) ** 2
        shape = (2,) * self._qubits
        one = probabilities.reshape(shape).take(1, axis=qubit).sum()
        assert min(one, 1 - one) < 1e-9, "the machine does not throw dice"
        return round(float(one))


def _angle(operands: list[Any]) -> float:
    numerator, exponent = operands[-2:]
    return float(numerator.value * np.pi / 2**exponent.value)
