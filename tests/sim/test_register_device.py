"""The simulated register: physics against closed forms, refusals, order of nodes, inspection."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.generic import GenericDriver
from qnodeos.errors import LimitError
from qnodeos.qdevice.instructions import (
    Axis,
    Opcode,
    PhysicalInstruction,
    enm,
    ent,
    esw,
    ini,
    mov,
    msr,
    pmg,
    sqg,
    swp,
    tqg,
)
from qnodeos.qdevice.outcomes import HERALDS, BellState, Outcome
from sim.entangled_state import BELL_VECTORS, PerfectProtocol, WernerProtocol
from sim.link import EntanglementLink, LinkParameters
from sim.pauli import MAX_QUBITS
from sim.register_device import RegisterDevice, joint_state
from sim.register_physics import QubitPhysics, RegisterPhysics
from tests.sim.register_bench import Bench, Node

TICK_NS = 10_000
PLUS = np.array([1, 1]) / math.sqrt(2)
PHI_PLUS = BELL_VECTORS[BellState.PHI_PLUS]
Z_SCORE = 4.5
"""Statistics below fail by chance with probability 7e-6, were the seeds not fixed."""


def alone(physics: RegisterPhysics, seed: int = 0) -> Bench:
    return Bench([Node(physics, seed=seed)])


def link_of(protocol: PerfectProtocol | WernerProtocol, seed: int = 0) -> EntanglementLink:
    parameters = LinkParameters(attempt_period_ns=TICK_NS, attempts_per_batch=10, protocol=protocol)
    return EntanglementLink(parameters, random.Random(seed))


def certain(*heralds: BellState) -> PerfectProtocol:
    return PerfectProtocol(success_probability=1, heralds=heralds or (BellState.PHI_PLUS,))


def chain(physics: RegisterPhysics, protocols, seed: int = 0) -> Bench:
    """Nodes in a row; the link to the left is number 0, if there is one."""
    links = [link_of(protocol, seed + place) for place, protocol in enumerate(protocols)]
    nodes = []
    for place in range(len(links) + 1):
        own = links[max(0, place - 1) : place + 1]
        nodes.append(Node(physics, own, seed=100 * seed + place, name=f"node{place}"))
    return Bench(nodes)


def within(count: int, shots: int, probability: float) -> bool:
    mean = shots * probability
    return abs(count - mean) <= Z_SCORE * math.sqrt(mean * (1 - probability))


# --- noise against closed forms -----------------------------------------------------------


@given(st.floats(0.01, 10), st.floats(0.5, 2), st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=30)
def test_coherences_decay_with_the_age_of_the_state(time_ms, exponent, first, second):
    """Also when something happens to the qubit on the way: the age goes on."""
    qubit = QubitPhysics(coherence_time_ms=time_ms, coherence_exponent=exponent)
    bench = alone(RegisterPhysics(communication=qubit))
    bench.do([ini(2)])
    created = bench.tick - 1  # the tick in which the outcome was seen
    turned = bench.tick
    bench.do([sqg(Axis.Y, 8, 2)])
    bench.tick += first
    bench.do([sqg(Axis.Z, 16, 2)])
    bench.tick += second

    def loss(tick: int) -> float:
        return float(((tick - created) * TICK_NS / (time_ms * 1e6)) ** exponent)

    matrix = bench.nodes[0].device.state_of(2, bench.tick)
    kept = math.exp(loss(turned) - loss(bench.tick))
    np.testing.assert_allclose(matrix, [[0.5, -kept / 2], [-kept / 2, 0.5]], atol=1e-12)


@pytest.mark.parametrize("wait", [0, 100, 3_000])
def test_populations_relax_and_so_do_coherences_with_them(wait):
    qubit = QubitPhysics(relaxation_time_ms=10, coherence_time_ms=15)
    bench = alone(RegisterPhysics(communication=qubit))
    bench.do([ini(0), ini(1), sqg(Axis.X, 16, 1)])
    turned = bench.tick - 2
    bench.tick += wait
    waited_ms = (bench.tick - turned) * TICK_NS / 1e6
    before_ms = TICK_NS / 1e6  # from the end of the INI to the gate
    device = bench.nodes[0].device
    left = math.exp(-waited_ms / 10)
    expected = (1 - left * math.exp(-before_ms / 10)) / 2
    assert device.state_of(1, bench.tick)[0, 0].real == pytest.approx(expected, abs=1e-12)
    assert device.state_of(1)[1, 1].real == pytest.approx(1 - (1 - math.exp(-before_ms / 10)) / 2)


def test_each_qubit_decays_by_itself():
    physics = RegisterPhysics.nv(2).model_copy(update={"pair_depolarising": 0.0})
    bench = alone(physics)
    bench.do([ini(0), ini(1)])
    device = bench.nodes[0].device
    bench.do([sqg(Axis.Y, 8, 0), sqg(Axis.Y, 8, 1)])
    early, late = bench.tick, bench.tick + 1_000
    for address, time_ms in ((0, 13.0), (1, 1_000.0)):
        decay = abs(device.state_of(address, late)[0, 1] / device.state_of(address, early)[0, 1])
        assert decay == pytest.approx(math.exp(-10 / time_ms))


def test_the_age_starts_anew_where_a_state_is_brought():
    """An exponent of 2 makes an old state decay faster than a young one."""
    qubit = QubitPhysics(coherence_time_ms=1, coherence_exponent=2)
    bench = alone(RegisterPhysics(communication=qubit))
    bench.do([ini(0), sqg(Axis.Y, 8, 0)])
    bench.tick += 50
    moved = bench.tick
    bench.do([mov(0, 1)])
    before = abs(bench.nodes[0].device.state_of(1)[0, 1])
    bench.tick += 50
    after = abs(bench.nodes[0].device.state_of(1, bench.tick)[0, 1])
    assert after / before == pytest.approx(math.exp(-(((bench.tick - moved) / 100) ** 2)))


NOISY = RegisterPhysics(
    communication_qubits=3,
    communication=QubitPhysics(initialisation_error=0.1, gate_depolarising=0.2),
    pair_depolarising=0.3,
    move_depolarising=0.15,
    swap_depolarising=0.25,
)


@pytest.mark.parametrize(
    ("instructions", "address", "zero"),
    [
        ([ini(0)], 0, 0.9),
        ([ini(0), sqg(Axis.X, 16)], 0, 0.5 - 0.8 * 0.4),
        ([ini(0), sqg(Axis.X, 0)], 0, 0.5 + 0.8 * 0.4),
        ([ini(0), ini(1), tqg(Axis.X, 0, 0, 1)], 1, 0.5 + 0.7 * 0.4),
        ([ini(0), mov(0, 2)], 2, 0.5 + 0.85 * 0.4),
        ([ini(0), mov(0, 2)], 0, 0.5),
        ([ini(0), ini(1), sqg(Axis.X, 16), swp(0, 1)], 1, 0.5 - 0.75 * 0.8 * 0.4),
        ([ini(0), ini(1), sqg(Axis.X, 16), swp(0, 1)], 0, 0.5 + 0.75 * 0.4),
        ([swp(0, 1)], 1, 0.5),
    ],
)
def test_every_operation_has_its_error(instructions, address, zero):
    bench = alone(NOISY)
    bench.do(instructions)
    assert bench.nodes[0].device.state_of(address)[0, 0].real == pytest.approx(zero, abs=1e-12)


def test_a_gate_on_two_qubits_depolarises_both_together():
    bench = alone(RegisterPhysics(pair_depolarising=0.2))
    bench.do([ini(0), ini(1), sqg(Axis.X, 8, 0), tqg(Axis.X, 8, 0, 1), sqg(Axis.X, 24, 1)])
    state = bench.state((0, 0), (0, 1))
    assert state.fidelity(PHI_PLUS) == pytest.approx(1 - 0.2 * 3 / 4, abs=1e-12)


@pytest.mark.parametrize("bit", [0, 1])
def test_readouts_err_with_their_probabilities(bit):
    shots, correct = 2_000, (0.9, 0.97)[bit]
    qubit = QubitPhysics(readout_fidelity_0=0.9, readout_fidelity_1=0.97)
    bench = alone(RegisterPhysics(communication=qubit), seed=5)
    right = 0
    for _ in range(shots):
        (_, *_, outcome) = bench.do([ini(1), sqg(Axis.X, 16 * bit, 1), msr(1)])
        right += (outcome is Outcome.SUCCESS_ONE) == bool(bit)
        # What was wrong is the report, not the qubit.
        assert bench.nodes[0].device.state_of(1)[bit, bit].real == pytest.approx(1)
    assert within(right, shots, correct)


def test_a_qubit_that_nothing_was_prepared_in_is_mixed():
    device = alone(RegisterPhysics.generic(2)).nodes[0].device
    np.testing.assert_allclose(device.state_of(1), np.eye(2) / 2)
    assert device.entangled_with(1) == [(device, 1)]


def test_relaxation_that_is_no_map_of_states_is_refused():
    for arguments in ({"coherence_time_ms": 21}, {"coherence_time_ms": 5, "coherence_exponent": 2}):
        with pytest.raises(ValidationError, match=r"T2 <= 2 T1"):
            QubitPhysics(relaxation_time_ms=10, **arguments)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"communication_qubits": 9, "memory_qubits": 8}, "16 addresses"),
        ({"communication_qubits": 2, "star": True}, "one communication qubit"),
        ({"unheard_of": 1}, "Extra inputs"),
    ],
)
def test_registers_that_cannot_be_are_refused(arguments, problem):
    with pytest.raises(ValidationError, match=problem):
        RegisterPhysics(**arguments)


# --- what instructions do with qubits ------------------------------------------------------


@pytest.mark.parametrize("other", [swp(1, 2), mov(1, 2)])
def test_what_a_state_shares_with_a_third_qubit_survives(other):
    bench = alone(RegisterPhysics.generic(4))
    bench.do([ini(address) for address in range(3)])
    bench.do([sqg(Axis.X, 8, 0), tqg(Axis.X, 8, 0, 1), sqg(Axis.X, 24, 1)])
    bench.do([sqg(Axis.Y, 8, 2), other])
    assert bench.state((0, 0), (0, 2)).fidelity(PHI_PLUS) == pytest.approx(1)
    if other.opcode is Opcode.SWP:
        assert bench.state((0, 1)).fidelity(PLUS) == pytest.approx(1)
    device = bench.nodes[0].device
    assert device.entangled_with(0) == [(device, 0), (device, 2)]


@pytest.mark.parametrize("overwriting", [ini(0), mov(2, 0)])
def test_an_overwritten_qubit_leaves_its_partner_mixed_and_alone(overwriting):
    bench = alone(RegisterPhysics.generic(3))
    bench.do([ini(0), ini(1), ini(2), sqg(Axis.X, 8, 0), tqg(Axis.X, 8, 0, 1), overwriting])
    np.testing.assert_allclose(bench.nodes[0].device.state_of(1), np.eye(2) / 2, atol=1e-12)
    assert len(bench.nodes[0].device.entangled_with(1)) == 1


def test_a_bell_measurement_leaves_both_qubits_mixed():
    bench = alone(RegisterPhysics.generic(2))
    bench.do([ini(0), ini(1), esw(0, 1)])
    for address in range(2):
        np.testing.assert_allclose(bench.nodes[0].device.state_of(address), np.eye(2) / 2)


@pytest.mark.parametrize("bell", BellState)
def test_both_bits_of_a_bell_measurement_err(bell):
    """The bits are the parities of Z and X; 0 is read right with 0.8, 1 with 0.95."""
    qubit = QubitPhysics(readout_fidelity_0=0.8, readout_fidelity_1=0.95)
    bench = alone(RegisterPhysics(communication=qubit), seed=3)
    bits = {
        BellState.PHI_PLUS: (0, 0),
        BellState.PSI_PLUS: (1, 0),
        BellState.PHI_MINUS: (0, 1),
        BellState.PSI_MINUS: (1, 1),
    }
    before, after = {(0, 0): (8, 24), (1, 0): (8, 8), (1, 1): (24, 8), (0, 1): (24, 24)}[bits[bell]]
    shots = 500
    counts = dict.fromkeys(BellState, 0)
    for _ in range(shots):
        bench.do([ini(0), ini(1), sqg(Axis.X, before, 0), tqg(Axis.X, 8, 0, 1)])
        (_, outcome) = bench.do([sqg(Axis.X, after, 1), esw(0, 1)])
        counts[HERALDS[outcome]] += 1
    correct = [(0.8, 0.95)[bit] for bit in bits[bell]]
    for found, count in counts.items():
        probability = 1.0
        for right, asked, read in zip(correct, bits[bell], bits[found], strict=True):
            probability *= right if asked == read else 1 - right
        assert within(count, shots, probability)


# --- refusals --------------------------------------------------------------------------------


STAR = RegisterPhysics.nv_noiseless(2)
COARSE = STAR.model_copy(update={"angle_halvings": 3})


@pytest.mark.parametrize(
    "instruction",
    [
        tqg(Axis.X, 8, 1, 2),
        tqg(Axis.X, 8, 1, 0),
        tqg(Axis.Z, 8, 0, 1),
        mov(1, 2),
        swp(2, 1),
        msr(1),
        ent(0, 1),
        enm(0, 2),
        pmg(Axis.X, 8, 1),
        ent(1, 0),
        sqg(Axis.X, 1, 0, 4),
        sqg(Axis.X, 1, 2, 15),
        PhysicalInstruction(Opcode.SQG, 3 << 5, 0),
    ],
)
def test_what_a_star_has_not_is_unsupported(instruction):
    bench = Bench([Node(COARSE, [link_of(certain())])])
    (response,) = bench.run(instruction)
    assert response.outcome is Outcome.UNSUPPORTED_REQUEST


@pytest.mark.parametrize("instruction", [mov(0, 1), mov(2, 0), swp(1, 0), tqg(Axis.Y, 8, 0, 2)])
def test_what_a_star_has(instruction):
    alone(STAR).do([instruction])


@pytest.mark.parametrize(
    "instruction", [swp(0, 0), esw(2, 2), mov(0, 3), tqg(Axis.X, 1, 0, 15), ini(3), msr(15)]
)
def test_addresses_that_are_not_there_are_invalid(instruction):
    (response,) = alone(STAR).run(instruction)
    assert response.outcome is Outcome.INVALID_QUBIT


def test_a_device_declares_what_it_has():
    device = Node(STAR).device
    assert device.capabilities.communication_qubits == (0,)
    assert device.capabilities.memory_qubits == (1, 2)
    assert Opcode.ENT not in device.capabilities.instructions
    assert device.capabilities.angle_halvings == 15
    assert Node(RegisterPhysics.nv(1)).device.capabilities.angle_halvings == 0
    single = Node(RegisterPhysics.generic(1)).device.capabilities
    assert single.instructions == {Opcode.INI, Opcode.SQG, Opcode.MSR}
    assert device.charge_checks == [] and device.verify_charge(5)


def test_a_link_with_another_tick_is_refused():
    link = EntanglementLink(LinkParameters(), random.Random(0), tick_ns=20_000)
    with pytest.raises(ValueError, match="10000 ns on the device and 20000 ns on its link 0"):
        RegisterDevice(STAR, [link], random.Random(0))


def test_ticks_increase():
    device = Node(STAR).device
    device.exchange(5, 0)
    with pytest.raises(ValueError, match="tick 5 after 5"):
        device.exchange(5, 0)


def test_more_qubits_than_can_be_simulated_are_refused_by_name():
    bench = alone(RegisterPhysics.generic(MAX_QUBITS + 1))
    for address in range(MAX_QUBITS + 1):
        bench.do([ini(address)])
    with pytest.raises(LimitError, match=rf"{MAX_QUBITS} qubits at most.*measure or initialise"):
        for address in range(MAX_QUBITS):
            bench.do([tqg(Axis.X, 8, 0, address + 1)])


# --- links -----------------------------------------------------------------------------------


def test_each_link_has_its_place():
    """The node in the middle reaches one neighbour by each link, with any of its qubits."""
    bench = chain(RegisterPhysics.generic(3), [certain(), certain()])
    bench.run(ent(0, 2), ent(0, 1), None)
    bench.run(None, ent(1, 0), ent(0, 1))
    for pair in (((0, 2), (1, 1)), ((1, 0), (2, 1))):
        assert bench.state(*pair).fidelity(PHI_PLUS) == pytest.approx(1)
    left, middle, right = (node.device for node in bench.nodes)
    assert left.entangled_with(2) == [(left, 2), (middle, 1)]
    assert right.entangled_with(1) == [(right, 1), (middle, 0)]


def test_a_failed_batch_leaves_the_qubit_mixed():
    bench = chain(RegisterPhysics.generic(2), [PerfectProtocol(success_probability=1e-9)])
    for node in range(2):
        bench.do([ini(0), ini(1)], node)
    responses = bench.run(ent(0, 1), ent(0, 0))
    assert [each.outcome for each in responses] == [Outcome.ENTANGLEMENT_FAILURE] * 2
    np.testing.assert_allclose(bench.nodes[0].device.state_of(1), np.eye(2) / 2)
    np.testing.assert_allclose(bench.nodes[0].device.state_of(0), np.diag([1, 0]), atol=1e-12)


def test_a_lone_request_fails_and_the_next_one_does_not():
    bench = chain(RegisterPhysics.generic(1), [certain()])
    device = bench.nodes[0].device
    start = bench.tick
    (response,) = bench.run(ent(), None)
    assert response.outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
    assert bench.tick - start > LinkParameters().sync_window_ticks
    assert not device.waits_for_neighbour
    assert [each.outcome for each in bench.run(ent(), ent())] == [Outcome.SUCCESS_ZERO] * 2


def test_a_neighbour_that_comes_later_changes_the_next_news():
    bench = chain(RegisterPhysics.generic(1), [certain()])
    bench.do([ini()])
    first, second = (node.device for node in bench.nodes)
    woken: list[int] = []
    first.on_wake = woken.append
    bench.nodes[0].master.submit(ent())
    bench.nodes[1].master.submit(ent())
    first.exchange(bench.tick, bench.nodes[0].master.outgoing())
    assert first.waits_for_neighbour
    alone = first.next_tick()
    for tick in range(bench.tick, bench.tick + 4):
        bench.nodes[1].master.incoming(second.exchange(tick, bench.nodes[1].master.outgoing()))
    assert not first.waits_for_neighbour
    assert woken == [first.next_tick()]
    assert alone is not None and woken[0] < alone


@pytest.mark.parametrize("axis", Axis)
def test_pairs_measured_at_once_are_measured_in_the_basis_set_for_their_qubit(axis):
    """Phi+ has equal bits in Z and X, different ones in Y; each qubit has its own basis."""
    turn = {Axis.X: (Axis.Y, 24), Axis.Y: (Axis.X, 8), Axis.Z: (Axis.X, 0)}[axis]
    bench = chain(RegisterPhysics.generic(2), [certain()], seed=7)
    for node in range(2):
        bench.do([pmg(*turn, 1), pmg(Axis.X, 5, 0)], node)
    bits = set()
    for _ in range(20):
        first, second = bench.run(enm(0, 1), enm(0, 1))
        assert first.herald is second.herald is BellState.PHI_PLUS
        assert (first.outcome == second.outcome) == (axis is not Axis.Y)
        bits.add(first.outcome)
    assert len(bits) == 2
    bench.run(ent(0, 1), enm(0, 1))


def test_a_basis_takes_time_in_which_the_qubit_decays():
    """One rotation about Z changes no bit; but while it lasts the populations relax."""
    qubit = QubitPhysics(
        gate_ticks=50, measure_ticks=7, relaxation_time_ms=0.05, coherence_time_ms=0.05
    )
    bench = chain(RegisterPhysics(communication=qubit), [certain()], seed=4)
    bench.run(enm(), enm())  # which opens the sessions
    start = bench.tick
    pairs = [bench.run(enm(), enm()) for _ in range(30)]
    ticks = bench.tick - start
    assert all(first.outcome == second.outcome for first, second in pairs)
    for node in range(2):
        bench.do([pmg(Axis.Z, 8)], node)
    start = bench.tick
    pairs = [bench.run(enm(), enm()) for _ in range(30)]
    assert bench.tick - start == ticks + 30 * 50
    equal = sum(first.outcome == second.outcome for first, second in pairs)
    assert within(equal, 30, (1 + math.exp(-2 * 50 * TICK_NS / 50_000)) / 2)


def test_a_basis_has_a_bound():
    bench = Bench([Node(RegisterPhysics.generic(2), [link_of(certain())])])
    for _ in range(8):
        bench.do([pmg(Axis.Z, 1, 0, append=True)])
    (response,) = bench.run(pmg(Axis.Z, 1, 0, append=True))
    assert response.outcome is Outcome.UNSUPPORTED_REQUEST
    bench.do([pmg(Axis.Z, 1, 1, append=True), pmg(Axis.Z, 1, 0)])


# --- entanglement swapping ---------------------------------------------------------------------


@pytest.mark.parametrize("bell", BellState)
def test_the_outcome_names_the_state_of_the_far_halves(bell):
    bench = chain(RegisterPhysics.generic(2), [certain(), certain()], seed=int(bell))
    driver = GenericDriver()
    found = None
    for _ in range(60):
        bench.run(ent(0, 0), ent(0, 0), None)
        bench.run(None, ent(1, 1), ent(0, 0))
        (outcome,) = bench.do([esw(0, 1)], node=1)
        found = HERALDS[outcome]
        far = bench.state((0, 0), (2, 0))
        assert far.fidelity(BELL_VECTORS[found]) == pytest.approx(1)
        if found is bell:
            break
    assert found is bell
    end = random.Random(bell).choice([0, 2])
    bench.do(driver.correct(found, 0), end)
    assert bench.state((0, 0), (2, 0)).fidelity(PHI_PLUS) == pytest.approx(1)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_werner_pairs_swap_as_in_the_closed_form(first, second):
    """F = F1 F2 + (1 - F1)(1 - F2)/3 for every outcome, times the noise of the measurement."""
    f1, f2, error = 0.9, 0.8, 0.1
    protocols = [
        WernerProtocol(fidelity=f, success_probability=1, heralds=(BellState.PHI_PLUS,))
        for f in (f1, f2)
    ]
    bench = chain(RegisterPhysics(pair_depolarising=error), protocols, seed=2)
    outcomes = set()
    for _ in range(20):
        bench.run(ent(0, 0), ent(0, first), None)
        bench.run(None, ent(1, second), ent(0, 0))
        (outcome,) = bench.do([esw(first, second)], node=1)
        outcomes.add(outcome)
        ideal = f1 * f2 + (1 - f1) * (1 - f2) / 3
        far = bench.state((0, 0), (2, 0)).fidelity(BELL_VECTORS[HERALDS[outcome]])
        assert far == pytest.approx((1 - error) * ideal + error / 4, abs=1e-12)
    assert len(outcomes) == 4


def test_two_memories_of_a_star_are_swapped_through_the_electron():
    physics = STAR.model_copy(
        update={"swap_depolarising": 0.1, "swap_ticks": 7, "entanglement_swap_ticks": 20}
    )
    bench = alone(physics)
    bench.do([ini(0), ini(1), ini(2), sqg(Axis.X, 16, 0)])
    start = bench.tick
    bench.do([esw(1, 2)])
    assert bench.tick - start == 20 + 2 * 7 + 1
    electron = bench.nodes[0].device.state_of(0)
    assert electron[1, 1].real == pytest.approx((1 + 0.9**2) / 2)  # two swaps, then itself again
    start = bench.tick
    bench.do([esw(0, 1)])
    assert bench.tick - start == 20 + 1


def test_a_long_chain_is_swapped_at_once():
    """All repeaters in the same tick; no state ever has more than four qubits."""
    length = 16
    bench = chain(RegisterPhysics.generic(2), [certain()] * length, seed=1)
    for place in range(length):
        requests: list[PhysicalInstruction | None] = [None] * (length + 1)
        requests[place] = ent(0 if place == 0 else 1, 1)
        requests[place + 1] = ent(0, 0)
        bench.run(*requests)
    outcomes = bench.run(None, *[esw(0, 1)] * (length - 1), None)
    far = bench.state((0, 1), (length, 0))
    signs = {"PHI_PLUS": 0, "PSI_PLUS": 1, "PHI_MINUS": 2, "PSI_MINUS": 3}
    product = 0
    for outcome in outcomes:
        product ^= signs[HERALDS[outcome.outcome].name]
    (bell,) = [BellState[name] for name, sign in signs.items() if sign == product]
    assert far.fidelity(BELL_VECTORS[bell]) == pytest.approx(1)


# --- order of nodes ------------------------------------------------------------------------------


INSTRUCTIONS = st.sampled_from(
    [
        None,
        msr(0),
        msr(1),
        esw(0, 1),
        tqg(Axis.X, 8, 0, 1),
        tqg(Axis.Y, 5, 1, 0),
        sqg(Axis.Y, 5, 0),
        swp(0, 1),
        ini(1),
    ]
)


@given(st.integers(0, 1000), st.lists(st.tuples(*[INSTRUCTIONS] * 3), min_size=1, max_size=6))
@settings(max_examples=60)
def test_results_do_not_depend_on_who_exchanges_first(seed, rounds):
    physics = RegisterPhysics.generic(2).model_copy(
        update={
            "communication": QubitPhysics(readout_fidelity_0=0.9, measure_ticks=2),
            "entanglement_swap_ticks": 2,
            "pair_depolarising": 0.05,
        }
    )
    protocol = WernerProtocol(fidelity=0.9, success_probability=0.7, heralds=tuple(BellState))
    seen = []
    for reverse in (False, True):
        bench = chain(physics, [protocol, protocol], seed)
        told = [bench.run(ent(0, 0), ent(0, 0), None, reverse=reverse)]
        told.append(bench.run(None, ent(1, 1), ent(0, 0), reverse=reverse))
        for instructions in rounds:
            if any(instructions):
                told.append(bench.run(*instructions, reverse=reverse))
        halves = [(node, address) for node in range(3) for address in range(2)]
        seen.append((told, bench.tick, bench.state(*halves).tensor))
    assert seen[0][:2] == seen[1][:2]
    np.testing.assert_allclose(seen[0][2], seen[1][2], atol=1e-9)


# --- inspection -------------------------------------------------------------------------------


def test_a_joint_state_is_of_any_qubits_and_changes_nothing():
    bench = chain(RegisterPhysics.generic(2), [certain(BellState.PSI_MINUS)])
    bench.run(ent(0, 1), ent(0, 0))
    bench.do([ini(1), sqg(Axis.Y, 8, 1)], node=1)
    whole = bench.state((1, 1), (1, 0), (0, 1), (0, 0))
    pair = np.kron(BELL_VECTORS[BellState.PSI_MINUS], PLUS)
    parts = whole.reduced(1, 2, 0)  # Psi- is the same from either side, up to its sign
    assert parts.fidelity(pair) == pytest.approx(1)
    np.testing.assert_allclose(whole.reduced(3).density_matrix(), np.eye(2) / 2)
    whole.qubits[1].discard()
    assert bench.state((0, 1), (1, 0)).fidelity(BELL_VECTORS[BellState.PSI_MINUS]) == pytest.approx(
        1
    )


def test_a_joint_state_that_cannot_be_is_refused():
    bench = chain(RegisterPhysics.generic(8), [certain()])
    left, right = (node.device for node in bench.nodes)
    with pytest.raises(ValueError, match="one qubit or more"):
        joint_state([], 0)
    with pytest.raises(ValueError, match="each of them once"):
        joint_state([(left, 0), (left, 0)], 0)
    with pytest.raises(ValueError, match=r"qubits 0\.\.7, not 8"):
        joint_state([(left, 8)], 0)
    with pytest.raises(LimitError, match="10 qubits at most"):
        joint_state([(device, address) for device in (left, right) for address in range(6)], 0)
    with pytest.raises(ValueError, match=r"qubits 0\.\.7, not -1"):
        left.qubit(-1)
