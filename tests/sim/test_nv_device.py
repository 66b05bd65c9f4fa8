"""The behavioural NV device, driven through its frames."""

import math
import random

import numpy as np
import pytest
import qutip
from pydantic import ValidationError

from qnodeos.qdevice.endpoint import FrameMaster
from qnodeos.qdevice.instructions import (
    Axis,
    Opcode,
    PhysicalInstruction,
    enm,
    ent,
    ini,
    mov,
    msr,
    pmg,
    sqg,
    swp,
    tqg,
)
from qnodeos.qdevice.outcomes import HERALDS, Outcome
from sim.charge import ChargeState
from sim.link import EntanglementLink
from sim.noise import NVNoise
from sim.nv_timing import NVTiming
from tests.sim.bench import (
    CERTAIN,
    NOISELESS,
    WHOLE_TICKS,
    assert_proportion,
    lone_device,
    outcomes,
    rotation_operator,
    run_sequences,
    two_devices,
)

X90, X180 = sqg(Axis.X, 8), sqg(Axis.X, 16)
T_MS = 13.0
SUCCESS = Outcome.SUCCESS_ZERO


# --- timing ---------------------------------------------------------------------------


def test_durations_follow_the_table():
    timing = NVTiming(
        initialise_ticks=3, gate_ticks=2, measure_ns=100_000, dd_block_ns=0, repump_ticks=30
    )
    [station] = run_sequences([lone_device(timing=timing)], [ini(), X90, 5, msr(), ini()])
    assert [answer.answered - answer.sent for answer in station.answers] == [3, 2, 11, 3]


@pytest.mark.parametrize("wait", range(18))
@pytest.mark.parametrize("instruction", [X90, msr()])
def test_gates_and_measurements_start_between_decoupling_blocks(wait, instruction):
    timing = NVTiming()
    [station] = run_sequences([lone_device(timing=timing)], [ini(), wait, X90, wait, instruction])
    _, first, second = station.answers
    # Nothing is decoupled before the first gate, so it starts at once.
    assert first.answered == first.sent + 1
    origin_ns, came_ns = first.sent * timing.tick_ns, second.sent * timing.tick_ns
    taken_ns = 0 if instruction is X90 else timing.measure_ns
    [start_ns] = [
        boundary_ns
        for block in range(1, 6)
        if timing.tick_after((boundary_ns := origin_ns + block * timing.dd_block_ns) + taken_ns)
        == second.answered
    ]
    latest_ns = came_ns + timing.dd_lead_ns
    assert latest_ns <= start_ns < latest_ns + timing.dd_block_ns


def test_blocks_are_counted_from_the_herald_too():
    devices = two_devices()
    stations = run_sequences(devices, [ent(), 3, X90, 6, msr()], [4, ent(), msr()])
    herald = stations[0].answers[0].answered
    assert stations[1].answers[0].answered == herald
    # Boundaries 70.94 and 231.62 us after the herald's tick, and 191 us for a readout.
    assert [answer.answered - herald for answer in stations[0].answers[1:]] == [8, 43]
    assert stations[1].answers[1].answered - herald == 27


def test_news_is_announced_exactly():
    device = lone_device()
    master = FrameMaster()
    for tick in range(5):
        master.incoming(device.exchange(tick, master.outgoing()))
    assert device.next_tick() is None
    master.submit(ini())
    master.incoming(device.exchange(5, master.outgoing()))
    assert device.next_tick() == 7
    assert master.incoming(device.exchange(6, master.outgoing())) is None
    assert device.next_tick() == 7
    assert master.incoming(device.exchange(7, master.outgoing())) == (SUCCESS, None)
    assert device.next_tick() is None


def test_a_late_exchange_reports_what_was_due_and_changes_no_physics():
    prompt, late = lone_device(NVNoise(), seed=3), lone_device(NVNoise(), seed=3)
    run_sequences([prompt], [ini(), 8, X90])
    master = FrameMaster()
    tick = 0
    for instruction in (None, ini(), X90):
        if instruction is not None:
            master.submit(instruction)
        for _ in range(3):
            tick += 3
            master.incoming(late.exchange(tick, master.outgoing()))
        assert master.idle
    np.testing.assert_array_equal(late.state_of(), prompt.state_of())


def test_ticks_must_increase():
    device = lone_device()
    device.exchange(3, 0)
    with pytest.raises(ValueError, match="exchange at tick 3 after 3"):
        device.exchange(3, 0)


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        (sqg(Axis.Z, 8), Outcome.UNSUPPORTED_REQUEST),
        (PhysicalInstruction(Opcode.SQG, 255), Outcome.UNSUPPORTED_REQUEST),
        (pmg(Axis.Z, 8), Outcome.UNSUPPORTED_REQUEST),
        (PhysicalInstruction(Opcode.PMG, 8, 0, 2), Outcome.UNSUPPORTED_REQUEST),
        (tqg(Axis.X, 8, 0, 1), Outcome.UNSUPPORTED_REQUEST),
        (mov(0, 1), Outcome.UNSUPPORTED_REQUEST),
        (swp(0, 1), Outcome.UNSUPPORTED_REQUEST),
        (PhysicalInstruction(Opcode.ESW, 0, 0, 1), Outcome.UNSUPPORTED_REQUEST),
        (ent(1), Outcome.UNSUPPORTED_REQUEST),
        (enm(1), Outcome.UNSUPPORTED_REQUEST),
        (ini(1), Outcome.INVALID_QUBIT),
        (sqg(Axis.X, 8, 2), Outcome.INVALID_QUBIT),
        (msr(15), Outcome.INVALID_QUBIT),
        (ent(0, 1), Outcome.INVALID_QUBIT),
        (pmg(Axis.X, 8, 1), Outcome.INVALID_QUBIT),
    ],
)
def test_what_the_centre_cannot_do_is_refused_and_touches_nothing(instruction, expected):
    device = two_devices(noise=NVNoise())[0]
    [station] = run_sequences([device], [ini(), X90, instruction])
    last = station.answers[-1]
    assert last.response.outcome is expected
    assert last.answered == last.sent + 1
    untouched = lone_device(NVNoise())
    run_sequences([untouched], [ini(), X90])
    np.testing.assert_array_equal(device.state_of(), untouched.state_of())


def test_without_a_link_there_is_no_entanglement():
    device = lone_device()
    assert device.capabilities.links == 0
    [station] = run_sequences([device], [ent(), enm(), pmg(Axis.X, 8)])
    assert set(outcomes(station)) == {Outcome.UNSUPPORTED_REQUEST}


def test_capabilities_say_what_is_executed():
    device = two_devices()[0]
    assert device.capabilities.communication_qubits == (0,)
    assert device.capabilities.instructions == {
        Opcode.INI,
        Opcode.SQG,
        Opcode.MSR,
        Opcode.ENT,
        Opcode.ENM,
        Opcode.PMG,
    }


def test_device_and_link_must_agree_about_the_tick():
    link = EntanglementLink(CERTAIN, random.Random(1), tick_ns=20_000)
    with pytest.raises(ValueError, match="10000 ns on the device and 20000 ns on its link"):
        lone_device(link=link)


@pytest.mark.parametrize("model", [NVNoise, NVTiming])
def test_unknown_fields_are_refused(model):
    with pytest.raises(ValidationError):
        model(temperature_kelvin=4)


# --- one qubit --------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [1.0, 1.7])
def test_a_short_circuit_matches_its_kraus_operators(exponent):
    noise = NVNoise(gate_depolarising=0.013, coherence_exponent=exponent)
    gates = (sqg(Axis.X, 5), sqg(Axis.Y, 11), sqg(Axis.X, 27))
    device = lone_device(noise, WHOLE_TICKS)
    [station] = run_sequences([device], [ini(), 40, gates[0], 131, gates[1], 77, gates[2]])
    created = station.answers[0].answered
    rho = 0.99 * qutip.fock_dm(2, 0) + 0.01 * qutip.fock_dm(2, 1)
    age_ms = 0.0
    for answer, gate in zip(station.answers[1:], gates, strict=True):
        later_ms = (answer.answered - 1 - created) / 100
        kept = math.exp((age_ms / T_MS) ** exponent - (later_ms / T_MS) ** exponent)
        age_ms = later_ms
        dephasing = [math.sqrt((1 + kept) / 2) * qutip.qeye(2)]
        dephasing.append(math.sqrt((1 - kept) / 2) * qutip.sigmaz())
        rho = sum(kraus * rho * kraus.dag() for kraus in dephasing)
        rho = rotation_operator(gate) * rho * rotation_operator(gate).dag()
        rho = (1 - 0.013) * rho + 0.013 * qutip.qeye(2) / 2
    np.testing.assert_allclose(device.state_of(), rho.full(), rtol=0, atol=1e-9)
    assert abs(rho.full()[0, 1]) > 0.1


def test_decay_matches_the_master_equation():
    noise = NVNoise(initialisation_error=0, gate_depolarising=0)
    device = lone_device(noise)
    [station] = run_sequences([device], [ini(), 500, X90])
    prepared = station.answers[1].answered - 1
    rate_per_ms = 1 / T_MS
    times_ms = np.array([0.0, 1.0, 4.82, 8.95])
    start = rotation_operator(X90) * qutip.fock_dm(2, 0) * rotation_operator(X90).dag()
    solution = qutip.mesolve(
        0 * qutip.sigmaz(),
        start,
        times_ms,
        [math.sqrt(rate_per_ms / 2) * qutip.sigmaz()],
        options={"atol": 1e-12, "rtol": 1e-10},
    )
    for time_ms, expected in zip(times_ms, solution.states, strict=True):
        observed = device.state_of(tick=prepared + round(time_ms * 100))
        np.testing.assert_allclose(observed, expected.full(), rtol=0, atol=1e-8)


def test_looking_at_a_state_leaves_it_alone():
    device = lone_device(NVNoise())
    run_sequences([device], [ini(), X90])
    before = device.state_of()
    device.state_of(tick=10**6)
    device.qubit(tick=10**6).measure(0.5)
    np.testing.assert_array_equal(device.state_of(), before)
    with pytest.raises(ValueError, match="qubit 0 only, not 1"):
        device.state_of(1)


def test_a_qubit_nobody_initialised_is_maximally_mixed():
    device = lone_device()
    np.testing.assert_array_equal(device.state_of(), np.eye(2) / 2)
    fresh = [lone_device(seed=seed) for seed in range(2_000)]
    results = []
    for device in fresh:
        [station] = run_sequences([device], [X90, msr()])
        assert station.answers[0].response.outcome is SUCCESS
        results.append(station.answers[1].response.outcome)
    assert_proportion(results.count(Outcome.SUCCESS_ONE), 2_000, 0.5)


@pytest.mark.parametrize(("flip", "probability_of_one"), [(False, 0.05), (True, 0.995)])
def test_readout_errors_depend_on_the_state(flip, probability_of_one):
    noise = NVNoise(initialisation_error=0, gate_depolarising=0, ionisation_per_readout=0)
    shot = [ini(), X180, msr()] if flip else [ini(), msr()]
    [station] = run_sequences([lone_device(noise, seed=4)], shot * 4_000)
    ones = outcomes(station, Opcode.MSR).count(Outcome.SUCCESS_ONE)
    assert_proportion(ones, 4_000, probability_of_one)


def test_initialisation_and_gate_errors_show_in_the_populations():
    noise = NVNoise(initialisation_error=0.1, gate_depolarising=0.2)
    device = lone_device(noise)
    run_sequences([device], [ini()])
    assert device.state_of()[1, 1] == pytest.approx(0.1)
    run_sequences([lone := lone_device(noise)], [ini(), X180])
    assert lone.state_of()[0, 0] == pytest.approx(0.5 - 0.8 * 0.4)


def test_a_measured_qubit_stays_what_it_was_found_to_be():
    [station] = run_sequences([lone_device(seed=2)], [ini(), X90, msr(), msr(), X180, msr()] * 200)
    results = outcomes(station, Opcode.MSR)
    first, again, flipped = results[::3], results[1::3], results[2::3]
    assert first == again
    assert all(a is not b for a, b in zip(first, flipped, strict=True))
    assert_proportion(first.count(SUCCESS), 200, 0.5)


# --- the charge state -------------------------------------------------------------------


def test_an_ionised_centre_reads_dark_and_fails_one_check():
    noise = NOISELESS.model_copy(update={"ionisation_per_readout": 1.0})
    device = lone_device(noise)
    [station] = run_sequences([device], [ini(), msr(), ini(), msr()])
    assert outcomes(station) == [SUCCESS, Outcome.SUCCESS_ONE] * 2
    durations = [answer.answered - answer.sent for answer in station.answers[::2]]
    assert durations == [2, 34]
    assert device.verify_charge(10_000) is False
    assert device.verify_charge(10_001) is True
    assert [check.passed for check in device.charge_checks] == [False, False]
    assert [check.tick for check in device.charge_checks] == [station.answers[2].sent, 10_000]


def test_an_ionised_centre_keeps_its_partner_waiting():
    devices = two_devices()
    devices[0].noise = NOISELESS.model_copy(update={"ionisation_per_readout": 1.0})
    stations = run_sequences(devices, [msr(), 10, ent()], [ent()])
    asked = stations[0].answers[1].sent
    heralds = [station.answers[-1] for station in stations]
    assert [answer.answered for answer in heralds] == [asked + 33] * 2
    assert all(answer.response.outcome in HERALDS for answer in heralds)


def test_checks_fail_as_often_as_readouts_ionise():
    noise = NVNoise(ionisation_per_readout=0.15)
    device = lone_device(noise, seed=6)
    [station] = run_sequences([device], [ini(), msr()] * 3_000)
    device.verify_charge(10**8)
    assert len(device.charge_checks) == 3_000
    failed = sum(not check.passed for check in device.charge_checks)
    assert_proportion(failed, 3_000, 0.15)
    zeros = outcomes(station, Opcode.MSR).count(SUCCESS)
    assert_proportion(zeros, 3_000, 0.85 * (0.99 * 0.95 + 0.01 * 0.005) + 0.15 * 0.005)


def test_three_percent_of_two_node_iterations_lose_their_charge():
    ionised = NVNoise().ionisation_per_readout
    assert 1 - (1 - ionised) ** 2 == pytest.approx(0.03, abs=5e-4)


def test_every_readout_has_one_entry_even_without_a_check_between():
    device = lone_device()
    run_sequences([device], [ini(), msr(), X90, msr(), ini(), ini()])
    assert len(device.charge_checks) == 2


def test_the_charge_log_is_bounded():
    charge = ChargeState(max_checks=10)
    for tick in range(25):
        charge.read_out(ionised=False)
        charge.check(tick)
    assert len(charge.checks) <= 10
    assert charge.dropped + len(charge.checks) == 25
    assert charge.checks[-1].tick == 24
    assert charge.checks[0].tick == charge.dropped
