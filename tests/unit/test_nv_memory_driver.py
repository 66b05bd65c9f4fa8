"""The NV driver with memories: every gate on every pair, executed by the device, against QuTiP."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from math import pi

import numpy as np
import pytest
import qutip
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.nv import NV_CAPABILITIES, NVDriver
from qnodeos.errors import UnsupportedInstructionError
from qnodeos.qdevice.instructions import Axis, Opcode, esw, ini, mov, msr, sqg, swp, tqg
from qnodeos.qdevice.outcomes import BellState, Outcome
from sim.entangled_state import BELL_VECTORS
from sim.pauli import PauliState, rotation
from sim.register_physics import RegisterPhysics
from tests.sim.register_bench import (
    Bench,
    Node,
    check_unitary,
    controlled,
    entangle_all,
    turned,
)
from tests.unit.test_nv_driver import NETQASM_GATES

PHYSICS = RegisterPhysics.nv_noiseless(2)
FINE = Node(PHYSICS).device.capabilities
COARSE = replace(FINE, angle_halvings=0)
DRIVER = NVDriver(FINE)
PAIRS = list(permutations(range(3), 2))


@pytest.mark.parametrize("qubit", range(3))
@pytest.mark.parametrize("mnemonic", NETQASM_GATES)
def test_gates_are_those_of_netqasm(mnemonic, qubit):
    wanted = qutip.Qobj(NETQASM_GATES[mnemonic]().to_matrix())
    check_unitary(PHYSICS, DRIVER.gate(mnemonic, qubit), wanted, [qubit])


def test_the_electron_has_no_pulse_about_z():
    for mnemonic in NETQASM_GATES:
        assert all(i.axis is not Axis.Z for i in DRIVER.gate(mnemonic, 0))
    assert all(i.axis is not Axis.Z for i in DRIVER.rotate(Axis.Z, 1, 17, 0))
    assert DRIVER.gate("z", 1) == (sqg(Axis.Z, 16, 1),)


@given(
    st.sampled_from(list(Axis)),
    st.integers(-(2**40), 2**40),
    st.integers(0, 19),
    st.integers(0, 2),
)
@settings(max_examples=60)
def test_rotations_are_exact(axis, numerator, exponent, qubit):
    angle = numerator % 2 ** (exponent + 1) * pi / 2**exponent
    check_unitary(
        PHYSICS, DRIVER.rotate(axis, numerator, exponent, qubit), turned(axis, angle), [qubit]
    )


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(
    ("mnemonic", "wanted"),
    [
        ("cnot", np.eye(4)[[0, 1, 3, 2]]),
        ("cphase", np.diag([1, 1, 1, -1])),
        ("swp", np.eye(4)[[0, 2, 1, 3]]),
    ],
)
def test_two_qubit_gates_on_every_pair(mnemonic, wanted, pair):
    """The qubits that are not of the pair, such as the electron between two carbons, too."""
    operator = qutip.Qobj(wanted, dims=[[2, 2], [2, 2]])
    check_unitary(PHYSICS, DRIVER.two_qubit_gate(mnemonic, *pair), operator, pair)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("axis", Axis)
def test_controlled_rotations_by_what_the_device_has(axis, pair):
    for steps in (1, 8, 16, 27):
        instructions = NVDriver(COARSE).controlled_rotate(axis, steps, 4, *pair)
        check_unitary(PHYSICS, instructions, controlled(axis, steps * pi / 16), pair)
        assert sum(i.opcode is Opcode.TQG for i in instructions) == 1


@given(
    st.sampled_from(list(Axis)),
    st.integers(-(2**20), 2**20),
    st.integers(0, 19),
    st.sampled_from(PAIRS),
)
@settings(max_examples=80)
def test_controlled_rotations_by_any_angle(axis, numerator, exponent, pair):
    angle = numerator % 2 ** (exponent + 1) * pi / 2**exponent
    instructions = DRIVER.controlled_rotate(axis, numerator, exponent, *pair)
    check_unitary(PHYSICS, instructions, controlled(axis, angle), pair)
    assert all(i.axis is not Axis.Z for i in instructions if i.opcode is Opcode.TQG)


def test_what_is_native_takes_one_instruction():
    assert DRIVER.controlled_rotate(Axis.X, 3, 4, 0, 2) == (tqg(Axis.X, 3, 0, 2),)
    assert DRIVER.controlled_rotate(Axis.Y, -1, 1, 0, 1) == (tqg(Axis.Y, 24, 0, 1),)
    assert DRIVER.controlled_rotate(Axis.X, 2, 0, 2, 1) == ()
    assert DRIVER.two_qubit_gate("swp", 2, 0) == (swp(2, 0),)
    assert DRIVER.two_qubit_gate("mov", 0, 1) == (mov(0, 1),)
    assert DRIVER.initialise(2) == (ini(2),)
    assert DRIVER.swap_entanglement(1, 2) == esw(1, 2)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_move_keeps_what_the_state_shares_with_others(pair):
    source, target = pair
    (bystander,) = {0, 1, 2} - set(pair)
    bench = Bench([Node(PHYSICS)])
    references = entangle_all(bench)
    bench.do(DRIVER.two_qubit_gate("mov", source, target))
    for address, reference in ((target, references[source]), (bystander, references[bystander])):
        held = bench.nodes[0].device.held(address)
        assert held is not None
        pair_state = reference.state.reduced(held.qubit.index, reference.index)
        assert pair_state.fidelity(BELL_VECTORS[BellState.PHI_PLUS]) == pytest.approx(1)


@pytest.mark.parametrize("memory", [1, 2])
@pytest.mark.parametrize("bit", [0, 1])
def test_a_memory_is_read_by_the_electron_which_keeps_its_state(memory, bit):
    instructions = DRIVER.measure(memory)
    assert instructions == (swp(0, memory), msr(0), swp(0, memory))
    bench = Bench([Node(PHYSICS)])
    bench.do([ini(0), ini(memory), *DRIVER.gate("h", 0)])
    if bit:
        bench.do(DRIVER.gate("x", memory))
    outcomes = bench.do(instructions)
    assert outcomes[1] is (Outcome.SUCCESS_ONE if bit else Outcome.SUCCESS_ZERO)
    assert bench.state((0, 0)).fidelity(np.array([1, 1]) / np.sqrt(2)) == pytest.approx(1)
    assert bench.state((0, memory)).fidelity(np.eye(2)[bit]) == pytest.approx(1)


@pytest.mark.parametrize("qubit", [0, 1])
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("state", list(BellState))
def test_corrections_work_at_either_end(state, short, qubit):
    driver = NVDriver(FINE, short_corrections=short)
    for end in range(2):
        pair = PauliState.from_pure(BELL_VECTORS[state])
        for instruction in driver.correct(state, qubit):
            assert instruction.qubit == qubit
            pair.apply(end, rotation(instruction.axis, instruction.steps))
        assert pair.fidelity(BELL_VECTORS[BellState.PHI_PLUS]) == pytest.approx(1)
    if qubit:
        assert len(driver.correct(state, qubit)) == (state is not BellState.PHI_PLUS)


def test_coarse_devices_refuse_fine_angles_with_the_nearest():
    driver = NVDriver(COARSE)
    with pytest.raises(UnsupportedInstructionError, match=r"nearest .* 0 \* pi/16 and 1 \* pi/16"):
        driver.controlled_rotate(Axis.X, 1, 5, 1, 2)
    with pytest.raises(UnsupportedInstructionError, match=r"nearest"):
        driver.rotate(Axis.Z, 1, 5, 1)


def test_what_is_not_there_is_refused():
    with pytest.raises(UnsupportedInstructionError, match=r"physical qubit 3, which is no qubit"):
        DRIVER.two_qubit_gate("cnot", 1, 3)
    with pytest.raises(UnsupportedInstructionError, match=r"different qubits"):
        DRIVER.two_qubit_gate("cnot", 1, 1)
    with pytest.raises(UnsupportedInstructionError, match=r"no gate 'w' on two qubits"):
        DRIVER.two_qubit_gate("w", 1, 2)
    for call in (DRIVER.entangle, DRIVER.entangle_and_measure):
        with pytest.raises(UnsupportedInstructionError, match=r"1, which is a memory .* on \(0,\)"):
            call(0, 1)


def test_memories_without_gates_are_not_used():
    driver = NVDriver(replace(NV_CAPABILITIES, memory_qubits=(1, 2)))
    with pytest.raises(UnsupportedInstructionError, match=r"no two-qubit gate \(2 memory qubits\)"):
        driver.two_qubit_gate("cnot", 0, 1)
    with pytest.raises(UnsupportedInstructionError, match=r"which is a memory qubit"):
        driver.initialise(1)
    without_esw = replace(FINE, instructions=FINE.instructions - {Opcode.ESW})
    with pytest.raises(UnsupportedInstructionError, match=r"no Bell measurement"):
        NVDriver(without_esw).swap_entanglement(0, 1)
