"""Every outcome of a simulated node, by its cause."""

from __future__ import annotations

import pytest

from qnodeos.qdevice.instructions import (
    Axis,
    Opcode,
    PhysicalInstruction,
    enm,
    ent,
    ini,
    msr,
    pmg,
    sqg,
)
from qnodeos.qdevice.outcomes import Outcome
from sim.adwin.hardware import DAC_ZERO_CODE
from tests.sim.lab_harness import (
    lone_laboratory,
    state_name,
)

X180 = sqg(Axis.X, 16)


@pytest.fixture(scope="module")
def shared_lone():
    with lone_laboratory() as runner:
        yield runner


@pytest.fixture
def lone(shared_lone):
    assert state_name(shared_lone.node) == "idle"
    return shared_lone


def is_dark(node):
    return all(
        code == DAC_ZERO_CODE
        for (_, channel), code in node._hardware.dac_codes.items()
        if channel <= 3
    )


# --- 0 and 1: failures ------------------------------------------------------------------------


@pytest.mark.parametrize("instruction", [ini(), X180, msr()])
def test_an_awg_that_does_not_play_is_a_hardware_failure(lone, instruction):
    awg = lone.nodes[0].instruments.station.awg
    failures = lone.controller.read("hardware_failures")
    awg.stop(0)
    [[answer]] = lone.run([instruction])
    assert answer.outcome is Outcome.HARDWARE_FAILURE
    timeout_ticks = lone.controller.read("play_timeout_us") // 10
    assert timeout_ticks < answer.answered - answer.sent <= timeout_ticks + 3
    assert lone.controller.read("hardware_failures") == failures + 1
    assert is_dark(lone.node)
    awg.start(0)
    assert lone.outcomes([ini(), X180, msr()]) == [
        [Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ONE]
    ]


@pytest.mark.parametrize("instruction", [ini(), ent()])
def test_a_charge_check_that_never_passes_is_a_hardware_failure(lone, instruction):
    adwin = lone.controller.adwin
    counted = {
        name: lone.controller.read(name) for name in ("charge_checks", "failed_charge_checks")
    }
    passes = adwin.cr_threshold()
    adwin.cr_threshold(1_000)
    [[answer]] = lone.run([instruction])
    adwin.cr_threshold(passes)
    assert answer.outcome is Outcome.HARDWARE_FAILURE
    repumps = lone.controller.read("max_repumps")
    for name, before in counted.items():
        assert lone.controller.read(name) == before + repumps + 1
    tries_us = (repumps + 1) * lone.controller.read("cr_us") + repumps * lone.controller.read(
        "repump_us"
    )
    assert tries_us // 10 <= answer.answered - answer.sent <= tries_us // 10 + 2
    assert is_dark(lone.node)
    assert lone.tell(ini())[0].outcome is Outcome.SUCCESS_ZERO


def test_one_charge_check_speaks_for_any_number_of_readouts(lone):
    readouts = 300
    lone.tell(ini())
    before = len(lone.device.charge_checks)
    outcomes = lone.outcomes([*[msr()] * readouts, ini()])
    assert outcomes == [[Outcome.SUCCESS_ZERO] * (readouts + 1)]
    assert len(lone.device.charge_checks) - before == readouts
    assert lone.controller.adwin.processes[0].lost_events() == 0


def test_an_ionised_centre_is_repumped(lone):
    checks, failed = (lone.controller.read(n) for n in ("charge_checks", "failed_charge_checks"))
    lone.node.centre.ionise(lone.node.event * 1_000 + 999)
    [answer] = lone.tell(ini())
    assert answer.outcome is Outcome.SUCCESS_ZERO
    assert lone.controller.read("charge_checks") == checks + 2
    assert lone.controller.read("failed_charge_checks") == failed + 1
    assert answer.answered - answer.sent > lone.controller.read("repump_us") // 10
    assert lone.node.centre.good


def test_without_light_an_ionised_centre_is_a_hardware_failure(lone):
    repump = lone.nodes[0].instruments.station.lasers["repump"].levels["repump"]
    lone.node.centre.ionise(lone.node.event * 1_000 + 999)
    repump.voltage_v(0.0)
    assert lone.tell(ini())[0].outcome is Outcome.HARDWARE_FAILURE
    repump.voltage_v(1.0)
    assert lone.tell(ini())[0].outcome is Outcome.SUCCESS_ZERO


# --- 2 and 3: refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        (sqg(Axis.Z, 8), Outcome.UNSUPPORTED_REQUEST),
        (PhysicalInstruction(Opcode.SQG, 64), Outcome.UNSUPPORTED_REQUEST),
        (PhysicalInstruction(Opcode.TQG, 8), Outcome.UNSUPPORTED_REQUEST),
        (PhysicalInstruction(Opcode.MOV, 0, 0, 1), Outcome.UNSUPPORTED_REQUEST),
        (PhysicalInstruction(Opcode.TQG, 8, 1), Outcome.UNSUPPORTED_REQUEST),
        # A code without a name, so the type is overruled.
        (PhysicalInstruction(15, 8), Outcome.UNSUPPORTED_REQUEST),  # type: ignore[arg-type]
        (pmg(Axis.Z, 0), Outcome.UNSUPPORTED_REQUEST),
        (PhysicalInstruction(Opcode.PMG, 8, 0, 2), Outcome.UNSUPPORTED_REQUEST),
        (ent(1), Outcome.UNSUPPORTED_REQUEST),
        (enm(255), Outcome.UNSUPPORTED_REQUEST),
        (ini(1), Outcome.INVALID_QUBIT),
        (sqg(Axis.X, 16, 15), Outcome.INVALID_QUBIT),
        (sqg(Axis.Z, 16, 1), Outcome.INVALID_QUBIT),
        (msr(2), Outcome.INVALID_QUBIT),
        (ent(1, 1), Outcome.INVALID_QUBIT),
        (enm(0, 3), Outcome.INVALID_QUBIT),
        (pmg(Axis.X, 8, 4), Outcome.INVALID_QUBIT),
    ],
)
def test_what_is_refused_is_refused_at_once_and_does_nothing(lone, instruction, expected):
    lone.run([ini(), X180])
    outputs, light = lone.node._hardware.output_word(2), dict(lone.node._hardware.dac_codes)
    [answer] = lone.tell(instruction)
    assert answer.outcome is expected
    assert answer.answered == answer.sent + 1
    assert lone.node._hardware.output_word(2) == outputs
    assert lone.node._hardware.dac_codes == light
    assert lone.tell(msr())[0].outcome is Outcome.SUCCESS_ONE


def test_no_more_rotations_before_a_measurement_than_fit(lone):
    assert lone.outcomes([pmg(Axis.X, 1)]) == [[Outcome.SUCCESS_ZERO]]
    more = [pmg(Axis.Y, 2, append=True)] * 8
    assert lone.outcomes(more) == [[Outcome.SUCCESS_ZERO] * 7 + [Outcome.UNSUPPORTED_REQUEST]]
    # Nothing is nothing, also when there is no room.
    assert lone.outcomes([pmg(Axis.X, 0, append=True)]) == [[Outcome.UNSUPPORTED_REQUEST]]
    assert lone.outcomes([pmg(Axis.X, 0), *more]) == [[Outcome.SUCCESS_ZERO] * 9]


# --- 4 and 5: no entanglement -----------------------------------------------------------------


def test_a_neighbour_that_does_not_answer_is_a_failure_to_synchronise(lone):
    [answer] = lone.tell(ent())
    assert answer.outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
    window = lone.controller.read("sync_window_us") // 10
    assert window < answer.answered - answer.sent <= window + 3


# --- 8 to 12: successes -----------------------------------------------------------------------


def test_both_results_of_a_measurement(lone):
    assert lone.outcomes([ini(), msr(), X180, msr(), ini(), X180, msr()]) == [
        [
            Outcome.SUCCESS_ZERO,
            Outcome.SUCCESS_ZERO,
            Outcome.SUCCESS_ZERO,
            Outcome.SUCCESS_ONE,
            Outcome.SUCCESS_ZERO,
            Outcome.SUCCESS_ZERO,
            Outcome.SUCCESS_ONE,
        ]
    ]
