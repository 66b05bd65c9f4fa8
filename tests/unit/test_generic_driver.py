"""The generic driver: every gate, executed by the simulated device, against QuTiP."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from math import pi

import pytest
import qutip
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.generic import GENERIC_CAPABILITIES, GenericDriver
from qnodeos.errors import UnsupportedInstructionError
from qnodeos.qdevice.instructions import Axis, Opcode, enm, ent, esw, ini, msr, pmg, sqg
from qnodeos.qdevice.outcomes import BellState
from sim.entangled_state import BELL_VECTORS
from sim.pauli import PauliState, rotation
from sim.register_physics import RegisterPhysics
from tests.sim.register_bench import check_unitary, controlled, turned
from tests.unit.test_nv_driver import NETQASM_GATES

PHYSICS = RegisterPhysics.generic(3)
DRIVER = GenericDriver()
PAIRS = list(permutations(range(3), 2))
FINEST_RAD = pi / 2**20
"""How far from the angle asked a device with the finest angles may be."""


@pytest.mark.parametrize("qubit", range(3))
@pytest.mark.parametrize("mnemonic", NETQASM_GATES)
def test_gates_are_those_of_netqasm(mnemonic, qubit):
    wanted = qutip.Qobj(NETQASM_GATES[mnemonic]().to_matrix())
    check_unitary(PHYSICS, DRIVER.gate(mnemonic, qubit), wanted, [qubit])
    assert len(DRIVER.gate(mnemonic, qubit)) == (2 if mnemonic in "hk" else 1)


@given(
    st.sampled_from(list(Axis)),
    st.integers(-(2**40), 2**40),
    st.integers(0, 19),
    st.integers(0, 2),
)
@settings(max_examples=60)
def test_rotations_are_exact(axis, numerator, exponent, qubit):
    instructions = DRIVER.rotate(axis, numerator, exponent, qubit)
    angle = numerator % 2 ** (exponent + 1) * pi / 2**exponent
    check_unitary(PHYSICS, instructions, turned(axis, angle), [qubit])
    assert len(instructions) <= 4


@pytest.mark.parametrize(("numerator", "exponent"), [(3, 21), (1, 20), (255, 27), (5, 22)])
def test_more_than_half_a_unit_is_rounded_up(numerator, exponent):
    assert DRIVER.rotate(Axis.Z, numerator, exponent, 0) == (sqg(Axis.Z, 1, 0, 15),)
    assert DRIVER.rotate(Axis.Z, 1, exponent + 1, 0) == ()


@given(st.sampled_from(list(Axis)), st.integers(0, 255), st.integers(20, 28))
def test_finer_rotations_are_the_nearest(axis, numerator, exponent):
    instructions = DRIVER.rotate(axis, numerator, exponent, 0)
    turn = sum(i.steps / 2**i.halvings for i in instructions) * pi / 16
    assert abs(turn - numerator * pi / 2**exponent) <= FINEST_RAD * (1 + 1e-9)
    assert all(i.axis is axis for i in instructions)


def test_an_angle_takes_an_instruction_for_five_bits():
    assert DRIVER.rotate(Axis.X, 1, 4, 2) == (sqg(Axis.X, 1, 2),)
    assert DRIVER.rotate(Axis.X, 1, 19, 2) == (sqg(Axis.X, 1, 2, 15),)
    assert DRIVER.rotate(Axis.Z, 31, 7, 0) == (sqg(Axis.Z, 31, 0, 3),)
    assert DRIVER.rotate(Axis.Z, 33, 7, 0) == (sqg(Axis.Z, 1, 0, 3), sqg(Axis.Z, 4, 0, 0))
    assert len(DRIVER.rotate(Axis.Z, 2**20 - 1, 19, 0)) == 4


def test_a_device_with_coarser_angles_refuses_the_others_with_the_nearest():
    driver = GenericDriver(replace(GENERIC_CAPABILITIES, angle_halvings=2))
    assert driver.rotate(Axis.Y, 3, 6, 1) == (sqg(Axis.Y, 3, 1, 2),)
    with pytest.raises(UnsupportedInstructionError, match=r"nearest .* 1 \* pi/64 and 2 \* pi/64"):
        driver.rotate(Axis.Y, 3, 7, 1)


@pytest.mark.parametrize("exponent", [-1, 256])
def test_absurd_exponents_are_refused(exponent):
    with pytest.raises(UnsupportedInstructionError, match="exponent"):
        DRIVER.rotate(Axis.X, 1, exponent, 0)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(
    ("mnemonic", "wanted"),
    [
        ("cnot", qutip.Qobj([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])),
        ("cphase", qutip.qdiags([[1, 1, 1, -1]], [0])),
        ("swp", qutip.Qobj([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])),
    ],
)
def test_two_qubit_gates_on_every_pair(mnemonic, wanted, pair):
    wanted = qutip.Qobj(wanted.full(), dims=[[2, 2], [2, 2]])
    check_unitary(PHYSICS, DRIVER.two_qubit_gate(mnemonic, *pair), wanted, pair)


@given(
    st.sampled_from(list(Axis)),
    st.integers(-(2**20), 2**20),
    st.integers(0, 19),
    st.sampled_from(PAIRS),
)
@settings(max_examples=60)
def test_controlled_rotations_on_every_pair(axis, numerator, exponent, pair):
    instructions = DRIVER.controlled_rotate(axis, numerator, exponent, *pair)
    angle = numerator % 2 ** (exponent + 1) * pi / 2**exponent
    check_unitary(PHYSICS, instructions, controlled(axis, angle), pair)
    if exponent <= 4:
        assert len(instructions) <= 1


@pytest.mark.parametrize("state", list(BellState))
def test_a_correction_works_at_either_end_and_is_one_rotation(state):
    for end in range(2):
        pair = PauliState.from_pure(BELL_VECTORS[state])
        instructions = DRIVER.correct(state, 3)
        for instruction in instructions:
            pair.apply(end, rotation(instruction.axis, instruction.steps))
        assert pair.fidelity(BELL_VECTORS[BellState.PHI_PLUS]) == pytest.approx(1)
        assert len(instructions) == (state is not BellState.PHI_PLUS)


def test_plain_instructions():
    driver = GenericDriver(replace(GENERIC_CAPABILITIES, links=3))
    assert driver.initialise(4) == (ini(4),)
    assert driver.measure(3) == (msr(3),)
    assert driver.entangle(2, 1) == ent(2, 1)
    assert driver.entangle_and_measure(0, 2) == enm(0, 2)
    assert driver.swap_entanglement(3, 1) == esw(3, 1)
    with pytest.raises(UnsupportedInstructionError, match=r"link 3: .* 3 links"):
        driver.entangle(3, 0)


def test_the_basis_of_measurements():
    assert DRIVER.measurement_basis([], 1) == (pmg(Axis.X, 0, 1),)
    assert DRIVER.measurement_basis([(Axis.Z, 32)], 1) == (pmg(Axis.X, 0, 1),)
    assert DRIVER.measurement_basis([(Axis.Z, 3), (Axis.Y, 0), (Axis.X, -1)], 1) == (
        pmg(Axis.Z, 3, 1),
        pmg(Axis.X, 31, 1, append=True),
    )


def test_what_is_not_there_is_refused():
    driver = GenericDriver()
    for call in (
        lambda: driver.initialise(5),
        lambda: driver.rotate(Axis.X, 1, 1, 5),
        lambda: driver.gate("h", 5),
        lambda: driver.measure(-1),
        lambda: driver.entangle(0, 7),
        lambda: driver.measurement_basis([], 5),
        lambda: driver.correct(BellState.PSI_PLUS, 5),
        lambda: driver.two_qubit_gate("cnot", 0, 5),
        lambda: driver.swap_entanglement(5, 0),
    ):
        with pytest.raises(UnsupportedInstructionError, match=r"physical qubit (-1|5|7): the"):
            call()
    with pytest.raises(UnsupportedInstructionError, match="no gate 'w'; it has x, y, z"):
        driver.gate("w", 0)
    with pytest.raises(UnsupportedInstructionError, match="no gate 'w' on two qubits"):
        driver.two_qubit_gate("w", 0, 1)
    with pytest.raises(UnsupportedInstructionError, match="two different qubits"):
        driver.two_qubit_gate("cnot", 1, 1)


def test_what_the_driver_needs_is_what_its_devices_declare():
    assert GENERIC_CAPABILITIES.instructions == set(Opcode) - {Opcode.NOP}
