"""The trapped-ion driver: every decomposition against matrices, every refusal by its message."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import product
from math import pi

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netqasm.util.quantum_gates import get_rotation_matrix

from drivers import trapped_ion
from drivers.trapped_ion import ION_CAPABILITIES, PULSES, TrappedIonDriver
from qnodeos.errors import UnsupportedInstructionError
from qnodeos.qdevice.instructions import Axis, Opcode, PhysicalInstruction, ini, msr
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qdevice.protocols import QDriver
from sequences.ion import OPERATION_OF_INSTRUCTION
from tests.unit.test_nv_driver import BELL, NETQASM_GATES, rotation, same_up_to_phase

EXACT_GATES = sorted(set(NETQASM_GATES) - {"t"})
VECTOR = {Axis.X: [1, 0, 0], Axis.Y: [0, 1, 0], Axis.Z: [0, 0, 1]}


def unitary(instructions) -> np.ndarray:
    """What a sequence does; checks that the ion has each of its pulses."""
    pulses = [(instruction.axis, instruction.steps) for instruction in instructions]
    assert all(instruction.opcode is Opcode.SQG for instruction in instructions)
    assert set(pulses) <= set(PULSES)
    return reduce(lambda done, pulse: rotation(*pulse) @ done, pulses, np.eye(2, dtype=complex))


def is_shortest(instructions) -> bool:
    """Whether no fewer pulses do the same."""
    wanted = unitary(instructions)
    return not any(
        same_up_to_phase(
            reduce(lambda done, pulse: rotation(*pulse) @ done, pulses, np.eye(2)), wanted
        )
        for length in range(len(instructions))
        for pulses in product(PULSES, repeat=length)
    )


@pytest.fixture
def driver() -> QDriver:
    return TrappedIonDriver()


def test_capabilities(driver):
    assert driver.capabilities is ION_CAPABILITIES
    assert driver.capabilities.qubits == (0,)
    assert (driver.capabilities.tick_ns, driver.capabilities.links) == (20_000, 0)


def test_the_driver_sends_what_the_sequencer_has():
    driver = TrappedIonDriver()
    sent = {ini(), msr()}
    for axis, quarters in product(Axis, range(4)):
        sent |= set(driver.rotate(axis, quarters, 1, 0))
    assert {(i.opcode, i.argument) for i in sent} == set(OPERATION_OF_INSTRUCTION)


# --- rotations and gates -----------------------------------------------------------------


@given(st.sampled_from(list(Axis)), st.integers(-(2**40), 2**40), st.integers(0, 1))
def test_rotations_are_exact(axis, numerator, exponent):
    instructions = TrappedIonDriver().rotate(axis, numerator, exponent, 0)
    angle = (numerator * 2 ** (1 - exponent) % 4) * pi / 2
    assert same_up_to_phase(unitary(instructions), get_rotation_matrix(VECTOR[axis], angle))


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("axis", list(Axis))
def test_no_shorter_sequence_does_a_rotation(driver, axis, quarters):
    assert is_shortest(driver.rotate(axis, quarters, 1, 0))


@pytest.mark.parametrize("axis", list(Axis))
@pytest.mark.parametrize(("numerator", "exponent"), [(0, 0), (0, 7), (2, 0), (-4, 0), (64, 5)])
def test_a_whole_turn_takes_nothing(driver, axis, numerator, exponent):
    assert driver.rotate(axis, numerator, exponent, 0) == ()


def test_the_same_angle_in_smaller_parts(driver):
    assert driver.rotate(Axis.X, 8, 4, 0) == driver.rotate(Axis.X, 1, 1, 0)
    assert driver.rotate(Axis.X, -16, 5, 0) == driver.rotate(Axis.X, 3, 1, 0)


@pytest.mark.parametrize("mnemonic", EXACT_GATES)
def test_gates_are_those_of_netqasm(driver, mnemonic):
    instructions = driver.gate(mnemonic, 0)
    assert same_up_to_phase(unitary(instructions), NETQASM_GATES[mnemonic]().to_matrix())
    assert is_shortest(instructions)


def test_the_sequences_are_those_the_module_describes(driver):
    described = {
        mnemonic: " ".join(f"{i.axis.name}{i.steps}" for i in driver.gate(mnemonic, 0))
        for mnemonic in EXACT_GATES
    }
    line = next(line for line in (trapped_ion.__doc__ or "").splitlines() if "  h  " in line)
    assert dict(entry.split("  ", 1) for entry in line.strip().split("      ")) == described


def test_every_quarter_turn_of_the_axes_can_be_done():
    found = trapped_ion._SHORTEST
    assert len(found) == 24
    for matrix, pulses in found.items():
        done = reduce(lambda done, pulse: rotation(*pulse) @ done, pulses, np.eye(2))
        for column, axis in enumerate(Axis):
            sigma = 1j * rotation(axis, 16)
            image = [
                np.trace(1j * rotation(other, 16) @ done @ sigma @ done.conj().T).real / 2
                for other in Axis
            ]
            assert np.allclose(image, [row[column] for row in matrix])


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numerator", "exponent", "below", "above"),
    [(1, 2, 0, 1), (3, 2, 1, 2), (-1, 4, 3, 0), (15, 3, 3, 0), (1, 255, 0, 1)],
)
@pytest.mark.parametrize("axis", list(Axis))
def test_other_angles_are_refused_with_the_nearest(driver, axis, numerator, exponent, below, above):
    expected = (
        rf"{numerator} \* pi / 2\*\*{exponent} about {axis.name} .* {below} \* pi/2 and "
        rf"{above} \* pi/2"
    )
    with pytest.raises(UnsupportedInstructionError, match=expected):
        driver.rotate(axis, numerator, exponent, 0)


@pytest.mark.parametrize("exponent", [-1, 256, 10**12])
def test_absurd_exponents_are_refused_at_once(driver, exponent):
    with pytest.raises(UnsupportedInstructionError, match="exponent"):
        driver.rotate(Axis.X, 1, exponent, 0)


def test_t_is_refused_with_the_nearest(driver):
    with pytest.raises(UnsupportedInstructionError, match=r"'t' .*pi/4.*none and s.*it has x, y"):
        driver.gate("t", 0)


def test_unknown_gates_are_refused(driver):
    with pytest.raises(UnsupportedInstructionError, match="no gate 'w'; it has x, y, z, h, s, k"):
        driver.gate("w", 0)


@pytest.mark.parametrize("mnemonic", ["cnot", "cphase", "mov", "swp"])
def test_two_qubit_gates_are_refused(driver, mnemonic):
    with pytest.raises(UnsupportedInstructionError, match=rf"{mnemonic} on physical qubits 0 and"):
        driver.two_qubit_gate(mnemonic, 0, 1)


def test_controlled_rotations_are_refused(driver):
    with pytest.raises(UnsupportedInstructionError, match="crot_y on physical qubits 0 and 1"):
        driver.controlled_rotate(Axis.Y, 1, 4, 0, 1)


def test_entanglement_is_refused(driver):
    for call in (
        lambda: driver.entangle(0, 0),
        lambda: driver.entangle_and_measure(0, 0),
        lambda: driver.measurement_basis([], 0),
    ):
        with pytest.raises(UnsupportedInstructionError, match="has no link"):
            call()


# --- the rest ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(BellState))
def test_corrections_work_at_either_end(driver, state):
    gates = unitary(driver.correct(state, 0))
    for both in (np.kron(gates, np.eye(2)), np.kron(np.eye(2), gates)):
        assert same_up_to_phase(both @ BELL[state], BELL[BellState.PHI_PLUS])


def test_plain_instructions(driver):
    assert driver.initialise(0) == (ini(0),)
    assert driver.measure(0) == (msr(0),)


def on_qubit(driver: QDriver, qubit: int):
    """Every call that takes one qubit."""
    return [
        lambda: driver.initialise(qubit),
        lambda: driver.rotate(Axis.X, 1, 1, qubit),
        lambda: driver.gate("h", qubit),
        lambda: driver.measure(qubit),
        lambda: driver.correct(BellState.PSI_MINUS, qubit),
    ]


@pytest.mark.parametrize("qubit", [-1, 1, 15])
def test_there_is_one_ion(driver, qubit):
    for call in on_qubit(driver, qubit):
        with pytest.raises(UnsupportedInstructionError, match=rf"qubit {qubit}: .* are \(0,\)"):
            call()


def test_another_address_of_the_ion():
    driver = TrappedIonDriver(replace(ION_CAPABILITIES, communication_qubits=(4,)))
    for call in on_qubit(driver, 4):
        answer: list[PhysicalInstruction] = list(call())
        assert answer
        assert all(instruction.qubit == 4 for instruction in answer)
