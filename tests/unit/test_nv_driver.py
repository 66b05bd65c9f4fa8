"""The NV driver: every decomposition against matrices, every refusal against its message."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import product
from math import pi

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netqasm.lang.instr import vanilla
from netqasm.util.quantum_gates import get_rotation_matrix

from drivers.nv import NV_CAPABILITIES, NVDriver
from qnodeos.errors import UnsupportedInstructionError
from qnodeos.qdevice.instructions import Axis, Opcode, PhysicalInstruction, enm, ent, ini, msr, pmg
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qdevice.protocols import QDriver

PAULI = {
    Axis.X: np.array([[0, 1], [1, 0]], dtype=complex),
    Axis.Y: np.array([[0, -1j], [1j, 0]]),
    Axis.Z: np.diag([1, -1]).astype(complex),
}
PHYSICAL_PULSES = [(axis, steps) for axis in (Axis.X, Axis.Y) for steps in range(1, 32)]
NETQASM_GATES = {
    "x": vanilla.GateXInstruction,
    "y": vanilla.GateYInstruction,
    "z": vanilla.GateZInstruction,
    "h": vanilla.GateHInstruction,
    "k": vanilla.GateKInstruction,
    "s": vanilla.GateSInstruction,
    "t": vanilla.GateTInstruction,
}
BELL = {
    BellState.PHI_PLUS: np.array([1, 0, 0, 1]) / np.sqrt(2),
    BellState.PSI_PLUS: np.array([0, 1, 1, 0]) / np.sqrt(2),
    BellState.PSI_MINUS: np.array([0, 1, -1, 0]) / np.sqrt(2),
    BellState.PHI_MINUS: np.array([1, 0, 0, -1]) / np.sqrt(2),
}


def rotation(axis: Axis, steps: int) -> np.ndarray:
    """exp(-i angle/2 sigma), shape (2, 2)."""
    half = steps * pi / 32
    matrix: np.ndarray = np.cos(half) * np.eye(2) - 1j * np.sin(half) * PAULI[axis]
    return matrix


def unitary(instructions) -> np.ndarray:
    """What a sequence of SQG (or PMG) does; checks that each is physical on NV."""
    for instruction in instructions:
        assert instruction.opcode in (Opcode.SQG, Opcode.PMG)
        assert instruction.axis in (Axis.X, Axis.Y)
    pulses = [rotation(instruction.axis, instruction.steps) for instruction in instructions]
    return reduce(lambda done, pulse: pulse @ done, pulses, np.eye(2, dtype=complex))


def same_up_to_phase(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two unitaries (or state vectors) differ by a global phase only."""
    overlap = abs(np.vdot(first, second))
    return bool(np.isclose(overlap, np.linalg.norm(first) * np.linalg.norm(second), atol=1e-12))


def numbers(instructions) -> list[tuple[Opcode, Axis, int]]:
    """Opcode, axis and steps of each instruction."""
    return [(i.opcode, i.axis, i.steps) for i in instructions]


@pytest.fixture
def driver() -> QDriver:
    return NVDriver()


def test_capabilities(driver):
    assert driver.capabilities is NV_CAPABILITIES
    assert driver.capabilities.qubits == (0,)
    assert driver.capabilities.tick_ns == 10_000


# --- rotations ---------------------------------------------------------------------------


@given(
    st.sampled_from(list(Axis)),
    st.integers(-(2**40), 2**40),
    st.integers(0, 4),
)
def test_rotations_are_exact(axis, numerator, exponent):
    instructions = NVDriver().rotate(axis, numerator, exponent, 0)
    angle = (numerator * 2 ** (4 - exponent) % 32) * pi / 16
    vector = [axis is Axis.X, axis is Axis.Y, axis is Axis.Z]
    assert same_up_to_phase(unitary(instructions), get_rotation_matrix(vector, angle))
    assert len(instructions) == (0 if angle == 0 else 3 if axis is Axis.Z else 1)


@pytest.mark.parametrize(
    ("numerator", "exponent", "steps"),
    [
        (1, 4, 1),
        (-1, 4, 31),
        (33, 4, 1),
        (1, 0, 16),
        (3, 1, 24),
        (2, 5, 1),
        (96, 6, 24),
        (-3, 2, 20),
    ],
)
def test_angles_in_units_of_a_sixteenth(driver, numerator, exponent, steps):
    assert numbers(driver.rotate(Axis.Y, numerator, exponent, 0)) == [(Opcode.SQG, Axis.Y, steps)]


@pytest.mark.parametrize("axis", list(Axis))
@pytest.mark.parametrize(("numerator", "exponent"), [(0, 0), (0, 7), (2, 0), (-4, 0), (64, 5)])
def test_a_whole_turn_takes_nothing(driver, axis, numerator, exponent):
    assert driver.rotate(axis, numerator, exponent, 0) == ()


def test_z_is_turned_onto_x(driver):
    assert numbers(driver.rotate(Axis.Z, 5, 4, 0)) == [
        (Opcode.SQG, Axis.Y, 8),
        (Opcode.SQG, Axis.X, 5),
        (Opcode.SQG, Axis.Y, 24),
    ]


@pytest.mark.parametrize(
    ("numerator", "exponent", "below", "above"),
    [(1, 5, 0, 1), (3, 5, 1, 2), (-1, 5, 31, 0), (63, 5, 31, 0), (1, 255, 0, 1)],
)
def test_other_angles_are_refused_with_the_nearest(driver, numerator, exponent, below, above):
    expected = (
        rf"{numerator} \* pi / 2\*\*{exponent} about X .* {below} \* pi/16 and {above} \* pi/16"
    )
    with pytest.raises(UnsupportedInstructionError, match=expected):
        driver.rotate(Axis.X, numerator, exponent, 0)


@pytest.mark.parametrize("exponent", [-1, 256, 10**12])
def test_absurd_exponents_are_refused_at_once(driver, exponent):
    with pytest.raises(UnsupportedInstructionError, match="exponent"):
        driver.rotate(Axis.X, 1, exponent, 0)


# --- gates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mnemonic", NETQASM_GATES)
def test_gates_are_those_of_netqasm(driver, mnemonic):
    wanted = NETQASM_GATES[mnemonic]().to_matrix()
    assert same_up_to_phase(unitary(driver.gate(mnemonic, 0)), wanted)


@pytest.mark.parametrize("mnemonic", NETQASM_GATES)
def test_no_shorter_sequence_of_pulses_exists(driver, mnemonic):
    wanted = NETQASM_GATES[mnemonic]().to_matrix()
    taken = len(driver.gate(mnemonic, 0))
    for length in range(taken):
        for pulses in product(PHYSICAL_PULSES, repeat=length):
            done = reduce(lambda done, pulse: rotation(*pulse) @ done, pulses, np.eye(2))
            assert not same_up_to_phase(done, wanted)


def test_unknown_gates_are_refused(driver):
    with pytest.raises(UnsupportedInstructionError, match="no gate 'w'; it has x, y, z"):
        driver.gate("w", 0)


# --- Bell states ---------------------------------------------------------------------------


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("state", list(BellState))
def test_corrections_work_at_either_end(state, short):
    gates = unitary(NVDriver(short_corrections=short).correct(state, 0))
    for both in (np.kron(gates, np.eye(2)), np.kron(np.eye(2), gates)):
        assert same_up_to_phase(both @ BELL[state], BELL[BellState.PHI_PLUS])


def test_corrections_are_those_of_the_sdk():
    driver = NVDriver()
    z = [(Opcode.SQG, Axis.Y, 8), (Opcode.SQG, Axis.X, 16), (Opcode.SQG, Axis.Y, 24)]
    x = [(Opcode.SQG, Axis.X, 16)]
    assert numbers(driver.correct(BellState.PHI_PLUS, 0)) == []
    assert numbers(driver.correct(BellState.PSI_PLUS, 0)) == x
    assert numbers(driver.correct(BellState.PSI_MINUS, 0)) == x + z
    assert numbers(driver.correct(BellState.PHI_MINUS, 0)) == z


def test_short_corrections():
    driver = NVDriver(short_corrections=True)
    assert numbers(driver.correct(BellState.PSI_MINUS, 0)) == [(Opcode.SQG, Axis.Y, 16)]
    assert [len(driver.correct(state, 0)) for state in BellState] == [0, 1, 1, 2]


# --- entanglement and measurement --------------------------------------------------------------


def test_plain_instructions(driver):
    assert driver.initialise(0) == (ini(0),)
    assert driver.measure(0) == (msr(0),)
    assert driver.entangle(0, 0) == ent(0, 0)
    assert driver.entangle_and_measure(0, 0) == enm(0, 0)


def test_links_are_those_declared():
    driver = NVDriver(replace(NV_CAPABILITIES, links=3))
    assert driver.entangle(2, 0) == ent(2, 0)
    for attempt in (driver.entangle, driver.entangle_and_measure):
        for link in (-1, 3):
            with pytest.raises(UnsupportedInstructionError, match=r"links 0\.\.2"):
                attempt(link, 0)


def test_no_basis_rotation_clears_the_basis(driver):
    assert driver.measurement_basis([], 0) == (pmg(Axis.X, 0),)
    assert driver.measurement_basis([(Axis.Z, 0), (Axis.Y, 32)], 0) == (pmg(Axis.X, 0),)


@given(st.lists(st.tuples(st.sampled_from(list(Axis)), st.integers(-40, 40)), max_size=3))
def test_basis_rotations_are_exact_and_start_afresh(rotations):
    instructions = NVDriver().measurement_basis(rotations, 0)
    wanted = reduce(lambda done, r: rotation(*r) @ done, rotations, np.eye(2, dtype=complex))
    assert same_up_to_phase(unitary(instructions), wanted)
    assert [instruction.other for instruction in instructions] == [0] + [1] * (
        len(instructions) - 1
    )
    assert all(instruction.opcode is Opcode.PMG for instruction in instructions)


# --- what an NV node without memory cannot do ------------------------------------------------


@pytest.mark.parametrize("mnemonic", ["cnot", "cphase", "mov", "swp"])
def test_two_qubit_gates_are_refused(driver, mnemonic):
    with pytest.raises(
        UnsupportedInstructionError, match=rf"{mnemonic} on physical qubits 0 and 1"
    ):
        driver.two_qubit_gate(mnemonic, 0, 1)


def test_controlled_rotations_are_refused(driver):
    with pytest.raises(UnsupportedInstructionError, match="crot_y on physical qubits 0 and 1"):
        driver.controlled_rotate(Axis.Y, 1, 4, 0, 1)


def on_qubit(driver: QDriver, qubit: int):
    """Every call that takes one qubit."""
    return [
        lambda: driver.initialise(qubit),
        lambda: driver.rotate(Axis.X, 1, 4, qubit),
        lambda: driver.gate("h", qubit),
        lambda: driver.measure(qubit),
        lambda: driver.entangle(0, qubit),
        lambda: driver.entangle_and_measure(0, qubit),
        lambda: driver.measurement_basis([], qubit),
        lambda: driver.correct(BellState.PHI_PLUS, qubit),
    ]


@pytest.mark.parametrize(
    ("qubit", "kind"), [(1, "a memory qubit"), (2, "no qubit"), (-1, "no qubit")]
)
def test_only_the_electron_is_driven(qubit, kind):
    driver = NVDriver(replace(NV_CAPABILITIES, memory_qubits=(1,)))
    for call in on_qubit(driver, qubit):
        with pytest.raises(UnsupportedInstructionError, match=f"qubit {qubit}, which is {kind}"):
            call()


def test_another_address_of_the_electron():
    driver = NVDriver(replace(NV_CAPABILITIES, communication_qubits=(4,)))
    for call in on_qubit(driver, 4):
        answer = call()
        answer = [answer] if isinstance(answer, PhysicalInstruction) else answer
        assert all(instruction.qubit == 4 for instruction in answer)
