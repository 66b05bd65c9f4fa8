"""States in the Pauli basis against QuTiP, operation by operation."""

import math
from functools import partial

import numpy as np
import pytest
import qutip
from hypothesis import given, settings
from hypothesis import strategies as st

from qnodeos.errors import LimitError
from qnodeos.qdevice.instructions import Axis
from qnodeos.qdevice.outcomes import BellState
from sim import pauli
from sim.entangled_state import BELL_VECTORS
from sim.pauli import MAX_QUBITS, PauliState, Readout

ATOL = 1e-12
SIGMA = (qutip.sigmax(), qutip.sigmay(), qutip.sigmaz())


def oracle_rotation(axis, steps):
    return (-0.5j * steps * math.pi / 16 * SIGMA[axis]).expm()


def oracle_controlled_rotation(axis, steps):
    zero, one = qutip.fock_dm(2, 0), qutip.fock_dm(2, 1)
    return qutip.tensor(zero, oracle_rotation(axis, steps)) + qutip.tensor(
        one, oracle_rotation(axis, -steps)
    )


def on(operator, targets, count):
    return qutip.expand_operator(operator, dims=[2] * count, targets=targets)


def oracle_dephase(rho, target, factor, count):
    z = on(qutip.sigmaz(), target, count)
    return (1 + factor) / 2 * rho + (1 - factor) / 2 * z * rho * z


def oracle_depolarise(rho, target, p, count):
    twirled = (rho + sum(on(s, target, count) * rho * on(s, target, count) for s in SIGMA)) / 4
    return (1 - p) * rho + p * twirled


def random_state(count, seed):
    """A full-rank random state, as ours and as QuTiP's."""
    rho = qutip.rand_dm([2] * count, seed=seed)
    return PauliState.from_density_matrix(rho.full()), rho


def assert_same(state, rho):
    np.testing.assert_allclose(state.density_matrix(), rho.full(), rtol=0, atol=ATOL)


@pytest.mark.parametrize("axis", list(Axis))
def test_every_rotation_is_the_exponential_of_its_pauli_matrix(axis):
    for steps in range(32):
        state, rho = random_state(1, steps + 1)
        state.apply(0, pauli.rotation(axis, steps))
        unitary = oracle_rotation(axis, steps)
        assert_same(state, unitary * rho * unitary.dag())
        np.testing.assert_allclose(
            pauli.rotation_unitary(axis, steps), unitary.full(), rtol=0, atol=ATOL
        )


def test_quarter_turns_have_no_rounding_error():
    for axis in Axis:
        for steps in (0, 8, 16, 24):
            assert set(np.unique(pauli.rotation(axis, steps))) <= {-1.0, 0.0, 1.0}


def test_angles_are_taken_modulo_a_full_turn():
    assert np.array_equal(pauli.rotation(Axis.Y, -5), pauli.rotation(Axis.Y, 27))


OPERATIONS = st.one_of(
    st.tuples(st.just("rotate"), st.sampled_from(list(Axis)), st.integers(0, 31)),
    st.tuples(st.just("dephase"), st.floats(0, 1), st.none()),
    st.tuples(st.just("depolarise"), st.floats(0, 1), st.none()),
    st.tuples(st.just("noisy"), st.floats(0, 1), st.integers(0, 31)),
    st.tuples(st.just("crot"), st.sampled_from(list(Axis)), st.integers(0, 31)),
    st.tuples(st.just("swap"), st.none(), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 4),
    seed=st.integers(0, 1000),
    circuit=st.lists(st.tuples(OPERATIONS, st.integers(0, 3), st.integers(1, 3)), max_size=6),
)
def test_random_noisy_circuits_follow_the_density_matrix(count, seed, circuit):
    state, rho = random_state(count, seed)
    for (name, first, second), position, offset in circuit:
        target = position % count
        partner = (target + offset) % count
        match name:
            case "rotate":
                state.apply(target, pauli.rotation(first, second))
                unitary = on(oracle_rotation(first, second), target, count)
                rho = unitary * rho * unitary.dag()
            case "dephase":
                state.apply(target, pauli.dephasing(first))
                rho = oracle_dephase(rho, target, first, count)
            case "depolarise":
                state.apply(target, pauli.depolarising(first))
                rho = oracle_depolarise(rho, target, first, count)
            case "noisy":
                state.apply(target, pauli.noisy_rotation(Axis.Y, second, first, first / 2))
                unitary = on(oracle_rotation(Axis.Y, second), target, count)
                rho = unitary * oracle_dephase(rho, target, first, count) * unitary.dag()
                rho = oracle_depolarise(rho, target, first / 2, count)
            case "crot" if partner != target:
                state.apply_pair(target, partner, pauli.controlled_rotation(first, second))
                unitary = on(oracle_controlled_rotation(first, second), [target, partner], count)
                rho = unitary * rho * unitary.dag()
            case "swap" if partner != target:
                state.apply_pair(target, partner, pauli.swap())
                unitary = on(qutip.gates.swap(), [target, partner], count)
                rho = unitary * rho * unitary.dag()
    assert_same(state, rho)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_measurement_probability_and_collapse_are_exact(count):
    for target in range(count):
        for wanted in (0, 1):
            state, rho = random_state(count, 40 + target)
            projector = on(qutip.fock_dm(2, wanted), target, count)
            probability = (projector * rho).tr().real
            zero = probability if wanted == 0 else 1 - probability
            assert state.probability_of_zero(target) == pytest.approx(zero, abs=ATOL)
            # Just inside the interval of the wanted outcome, so the border is tested as well.
            uniform = zero - 1e-9 if wanted == 0 else zero + 1e-9
            handles = list(state.qubits)
            assert handles[target].measure(uniform) == wanted
            if count == 1:
                assert state.qubits == []
                continue
            others = [index for index in range(count) if index != target]
            assert_same(state, (projector * rho * projector / probability).ptrace(others))
            assert [handles[index].index for index in others] == list(range(count - 1))


def test_certain_outcomes_never_err():
    for zero in (0.0, 1.0):
        for uniform in (0.0, 0.5, math.nextafter(1.0, 0.0)):
            state = PauliState.from_populations(zero)
            assert state.measure(0, uniform) == 1 - zero


def test_discard_and_reduced_are_partial_traces():
    state, rho = random_state(3, 7)
    assert_same(state.reduced(2, 0), rho.ptrace([0, 2]).permute([1, 0]))
    assert_same(state.qubits[1].reduced(), rho.ptrace(1))
    state.qubits[1].discard()
    assert_same(state, rho.ptrace([0, 2]))


def test_states_join_and_the_handles_follow():
    first, rho_first = random_state(2, 11)
    second, rho_second = random_state(1, 12)
    handle = second.qubits[0]
    first.absorb(second)
    assert handle.state is first
    assert handle.index == 2
    handle.apply(pauli.rotation(Axis.X, 5))
    unitary = oracle_rotation(Axis.X, 5)
    assert_same(first, qutip.tensor(rho_first, unitary * rho_second * unitary.dag()))


def test_fidelity_and_expectation():
    state, rho = random_state(2, 21)
    ket = qutip.rand_ket([2, 2], seed=22)
    expected = qutip.expect(rho, ket)
    assert state.fidelity(ket.full().ravel()) == pytest.approx(expected, abs=ATOL)
    xy = qutip.expect(qutip.tensor(qutip.sigmax(), qutip.sigmay()), rho)
    assert state.expectation(1, 2) == pytest.approx(xy, abs=ATOL)
    with pytest.raises(ValueError, match="a vector of 1 qubits for a state of 2"):
        state.fidelity([1, 0])


@pytest.mark.parametrize("asked", [0, 1, 2, 3])
def test_readouts_are_settled_in_the_order_of_ticks_and_axes(asked):
    state, _ = random_state(4, 13)
    carried_out = []

    def readout(number, tick):
        qubit = state.qubits[number]

        def carry_out():
            carried_out.append(number)
            qubit.measure(0.5)

        return pauli.Readout(tick, carry_out)

    for number, tick in ((0, 30), (1, 20), (3, 20)):
        state.qubits[number].readout = readout(number, tick)
    state.qubits[asked].settle()
    assert carried_out == {0: [1, 3, 0], 1: [1], 2: [], 3: [1, 3]}[asked]


def test_a_copy_is_independent():
    state, rho = random_state(2, 31)
    copy = state.copy()
    copy.qubits[0].measure(0.5)
    assert_same(state, rho)


def test_the_number_of_qubits_is_bounded():
    half = PauliState.from_populations(0.5)
    for _ in range(MAX_QUBITS - 1):
        half.absorb(PauliState.from_populations(1))
    with pytest.raises(LimitError, match=f"{MAX_QUBITS} qubits at most, not {MAX_QUBITS + 1}"):
        half.absorb(PauliState.from_populations(1))
    with pytest.raises(LimitError):
        PauliState.from_density_matrix(np.broadcast_to(np.complex128(0), (2 << MAX_QUBITS,) * 2))
    with pytest.raises(LimitError):
        PauliState(np.broadcast_to(1.0, (4,) * (MAX_QUBITS + 1)))


@pytest.mark.parametrize("tensor", [1.0, np.ones(3), np.ones((4, 2)), [0.5, 0, 0, 0]])
def test_a_tensor_that_is_no_state_is_refused(tensor):
    with pytest.raises(ValueError, match=r"4 entries|not normalised"):
        PauliState(tensor)


@pytest.mark.parametrize(
    "matrix", [1.0, np.eye(3) / 3, np.eye(2), [[0.5, 1], [0, 0.5]], np.ones((2, 4))]
)
def test_a_matrix_that_is_no_state_is_refused(matrix):
    with pytest.raises(ValueError, match=r"shape|Hermitian|normalised"):
        PauliState.from_density_matrix(matrix)


def test_a_pair_map_needs_two_qubits():
    state, _ = random_state(2, 1)
    with pytest.raises(ValueError, match="qubit 1 twice"):
        state.apply_pair(1, 1, pauli.swap())


def test_shared_maps_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        pauli.rotation(Axis.X, 3)[0, 0] = 2


@given(st.sampled_from(list(Axis)), st.integers(-100, 100), st.integers(0, 15))
@settings(max_examples=30)
def test_rotations_by_fine_angles_are_the_exponentials(axis, steps, halvings):
    state, rho = random_state(1, 7)
    state.apply(0, pauli.rotation(axis, steps, halvings))
    assert_same(
        state,
        oracle_rotation(axis, steps / 2**halvings)
        * rho
        * oracle_rotation(axis, steps / 2**halvings).dag(),
    )
    unitary = pauli.rotation_unitary(axis, steps, halvings)
    expected = oracle_rotation(axis, steps / 2**halvings).full()
    np.testing.assert_allclose(unitary, expected, atol=ATOL)


def test_two_qubits_are_depolarised_together():
    state, rho = random_state(2, 11)
    state.apply_pair(1, 0, pauli.depolarising_pair(0.3))
    assert_same(state, 0.7 * rho + 0.3 * qutip.qeye([2, 2]) / 4)


@pytest.mark.parametrize("pair", [(0, 1), (2, 0), (1, 2)])
def test_a_bell_measurement_projects_as_the_bell_state_it_finds(pair):
    state, rho = random_state(3, 5)
    limit, expected = 0.0, []
    for bell, vector in BELL_VECTORS.items():
        ket = qutip.Qobj(vector, dims=[[2, 2], [1, 1]])
        projector = on(ket.proj(), list(pair), 3)
        probability = (projector * rho).tr().real
        left = ({0, 1, 2} - set(pair)).pop()
        rest = (projector * rho * projector / probability).ptrace(left)
        expected.append((bell, limit + 1e-9, rest))
        expected.append((bell, limit + probability - 1e-9, rest))
        limit += probability
    assert limit == pytest.approx(1)
    for bell, uniform, rest in expected:
        copy = state.copy()
        handle = copy.qubits[({0, 1, 2} - set(pair)).pop()]
        assert copy.measure_bell(*pair, uniform) is bell
        assert (handle.state, handle.index, len(copy.qubits)) == (copy, 0, 1)
        assert_same(copy, rest)


@pytest.mark.parametrize("bell", BellState)
@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_a_bell_state_is_found_for_certain(bell, uniform):
    state = PauliState.from_pure(BELL_VECTORS[bell])
    assert state.measure_bell(0, 1, uniform) is bell
    assert state.qubits == []
    with pytest.raises(ValueError, match="two qubits"):
        state.measure_bell(0, 0, uniform)


def test_readouts_due_together_are_done_in_the_order_of_their_readers():
    done = []
    state = PauliState.from_pure(BELL_VECTORS[BellState.PHI_PLUS])
    first, second = state.qubits
    first.readout = Readout(5, lambda: done.append("first"), reader="b")
    second.readout = Readout(5, lambda: done.append("second"), reader="a")
    second.settle()
    assert done == ["second"]
    first.settle()
    second.settle()
    assert done == ["second", "first"]


def test_a_readout_of_two_states_waits_for_what_comes_first_in_either():
    done: list[str] = []
    pairs = [PauliState.from_pure(BELL_VECTORS[BellState.PHI_PLUS]) for _ in range(3)]
    (a, b), (c, d), (e, f) = (pair.qubits for pair in pairs)
    for reader, qubits in (("x", (b, c)), ("w", (d, e))):
        readout = Readout(5, partial(done.append, reader), reader, qubits)
        for qubit in qubits:
            qubit.readout = readout
    f.readout = Readout(4, lambda: done.append("f"), "z")
    a.readout = Readout(6, lambda: done.append("a"), "a")
    c.settle()
    assert done == ["f", "w", "x"]
    a.settle()
    assert done == ["f", "w", "x", "a"]
