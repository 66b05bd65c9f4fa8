"""The behavioural trapped-ion device: its table of durations, its physics, its statistics."""

from __future__ import annotations

import random
from functools import reduce

import numpy as np
import pytest

from qnodeos.qdevice.instructions import Axis, PhysicalInstruction, ini, msr, pmg, sqg
from qnodeos.qdevice.outcomes import Outcome
from sim.ion.physics import IonPhysics
from sim.ion_device import BehaviouralIonDevice
from sim.ion_timing import IonTiming
from tests.sim.wire import Wire
from tests.unit.test_nv_driver import rotation

TIMING = IonTiming(initialise_ticks=30, pi_ticks=3, half_pi_ticks=2, measure_ticks=50)
PULSES = [(Axis.X, 16), (Axis.Y, 16), (Axis.X, 8), (Axis.Y, 8), (Axis.X, 24)]


def device(
    noise: IonPhysics | None = None, timing: IonTiming = TIMING, seed: int = 0
) -> BehaviouralIonDevice:
    return BehaviouralIonDevice(timing, noise or IonPhysics.noiseless(), random.Random(seed))


def taken(wire: Wire, instruction: PhysicalInstruction) -> int:
    sent = wire.tick
    wire.run(instruction)
    return wire.tick - 1 - sent


def test_instructions_take_what_the_table_says():
    wire = Wire(device())
    found = {instruction: taken(wire, instruction)
             for instruction in (ini(), *(sqg(*pulse) for pulse in PULSES), msr())}  # fmt: skip
    assert found == {
        ini(): 30, sqg(Axis.X, 16): 3, sqg(Axis.Y, 16): 3, sqg(Axis.X, 8): 2,
        sqg(Axis.Y, 8): 2, sqg(Axis.X, 24): 2, msr(): 50,
    }  # fmt: skip


def test_a_measurement_is_named_in_advance_and_answered_then():
    ion = device(timing=IonTiming())
    wire = Wire(ion)
    wire.run(ini())
    wire.master.submit(msr())
    sent = wire.tick
    assert wire.exchange() is None
    assert ion.next_tick() == sent + IonTiming().measure_ticks
    for _ in range(IonTiming().measure_ticks - 1):
        assert wire.exchange() is None
        assert ion.next_tick() == sent + IonTiming().measure_ticks
    assert wire.exchange() is not None
    assert ion.next_tick() is None


@pytest.mark.parametrize(
    ("instruction", "outcome"),
    [
        (pmg(Axis.X, 8), Outcome.UNSUPPORTED_REQUEST),
        (sqg(Axis.Y, 24), Outcome.UNSUPPORTED_REQUEST),
        (sqg(Axis.Z, 16), Outcome.UNSUPPORTED_REQUEST),
        (sqg(Axis.X, 4, 1), Outcome.INVALID_QUBIT),
    ],
)
def test_what_the_ion_cannot_do_is_refused_in_a_tick(instruction, outcome):
    wire = Wire(device())
    assert taken(wire, instruction) == 1
    assert wire.run(instruction).outcome is outcome


def test_pulses_do_what_their_matrices_do():
    rng = random.Random(5)
    ion = device()
    wire = Wire(ion)
    wire.run(ini())
    state = np.array([1, 0], dtype=complex)
    for _ in range(60):
        pulse = rng.choice(PULSES)
        wire.run(sqg(*pulse))
        state = rotation(*pulse) @ state
        assert np.allclose(ion.state_of(), np.outer(state, state.conj()))


def test_an_ion_that_was_never_initialised_is_mixed():
    assert np.allclose(device().state_of(), np.eye(2) / 2)


def test_each_pulse_depolarises():
    noise = IonPhysics.noiseless().model_copy(update={"gate_depolarising": 0.02})
    ion = device(noise)
    wire = Wire(ion)
    wire.run(ini())
    for _ in range(3):
        wire.run(sqg(Axis.X, 16))
    pure = np.diag([0, 1])
    assert np.allclose(ion.state_of(), 0.98**3 * pure + (1 - 0.98**3) * np.eye(2) / 2)
    wire.run(ini())
    wire.run(sqg(Axis.Y, 8))
    assert np.allclose(ion.state_of(), np.array([[1, 0.98], [0.98, 1]]) / 2)
    wire.run(ini())
    wire.run(sqg(Axis.X, 8))
    assert np.allclose(ion.state_of(), np.array([[1, 0.98j], [-0.98j, 1]]) / 2)


def test_preparation_leaves_the_stated_error():
    noise = IonPhysics.noiseless().model_copy(update={"preparation_error": 0.25})
    ion = device(noise)
    Wire(ion).run(ini())
    assert np.allclose(ion.state_of(), np.diag([0.75, 0.25]))


def test_waiting_costs_coherence_and_the_dark_state():
    noise = IonPhysics()
    ion = device(noise.model_copy(update={"gate_depolarising": 0.0, "preparation_error": 0.0}))
    wire = Wire(ion)
    wire.run(ini())
    wire.run(sqg(Axis.Y, 8))
    done, waited = wire.tick - 1, 1_000
    kept = noise.coherence_factor(waited * 20_000)
    assert 0.5 < kept < 0.9
    state = ion.state_of(tick=done + waited)
    assert state[0, 1] == pytest.approx(kept / 2)
    assert state[1, 1] == pytest.approx(noise.dark_survival(waited * 20_000) / 2)
    # The next pulse finds the state like this.
    wire.tick = done + waited
    wire.run(sqg(Axis.X, 16))
    assert ion.state_of()[0, 1].real == pytest.approx(kept / 2)


def share_dark(ion: BehaviouralIonDevice, pulses: list[tuple[Axis, int]], shots: int) -> float:
    wire = Wire(ion)
    dark = 0
    for _ in range(shots):
        for instruction in (ini(), *(sqg(*pulse) for pulse in pulses)):
            wire.run(instruction)
        dark += wire.run(msr()).outcome is Outcome.SUCCESS_ONE
    return dark / shots


SEQUENCES = [
    ([], 0.001),
    ([(Axis.X, 16)], 0.989),
    ([(Axis.Y, 16)], 0.989),
    ([(Axis.X, 8)], 0.5),
    ([(Axis.Y, 8)], 0.5),
    ([(Axis.X, 8), (Axis.X, 8)], 0.979),
    ([(Axis.X, 8), (Axis.X, 24)], 0.021),
]
"""The published seven sequences as assumed, and P(dark) for 2 % per pulse and 0.1 % preparation."""


@pytest.mark.parametrize(("pulses", "expected"), SEQUENCES)
def test_the_seven_sequences_are_dark_as_predicted(pulses, expected):
    shots = 4_000
    sigma = max(1e-3, np.sqrt(expected * (1 - expected) / shots))
    found = share_dark(device(IonPhysics(), IonTiming(), seed=3), pulses, shots)
    # 4.5 sigma, and 1e-3 for rounding, decay and readout.
    assert abs(found - expected) < 4.5 * sigma + 1e-3


def test_a_measured_ion_stays_what_it_was_found_to_be():
    wire = Wire(device())
    seen = set()
    for _ in range(40):
        wire.run(ini())
        wire.run(sqg(Axis.X, 8))
        first = wire.run(msr()).outcome
        assert wire.run(msr()).outcome is first
        seen.add(first)
    assert seen == {Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ONE}


def test_readout_errors_are_those_of_the_counts(monkeypatch):
    monkeypatch.setattr(IonPhysics, "readout_errors", lambda self, detection_us, threshold: (1, 0))
    assert share_dark(device(), [], 20) == 1
    assert share_dark(device(), [(Axis.X, 16)], 20) == 1
    monkeypatch.setattr(IonPhysics, "readout_errors", lambda self, detection_us, threshold: (0, 1))
    assert share_dark(device(), [(Axis.X, 16)], 20) == 0


def test_the_same_seed_gives_the_same_outcomes():
    def outcomes(seed: int) -> list[Outcome]:
        wire = Wire(device(seed=seed))
        found = []
        for _ in range(30):
            wire.run(ini())
            wire.run(sqg(Axis.X, 8))
            found.append(wire.run(msr()).outcome)
        return found

    assert outcomes(1) == outcomes(1)
    assert outcomes(1) != outcomes(2)


def test_ticks_must_increase_and_there_is_one_qubit():
    ion = device()
    ion.exchange(5, 0)
    with pytest.raises(ValueError, match="tick 5 after 5"):
        ion.exchange(5, 0)
    with pytest.raises(ValueError, match="qubit 0 only"):
        ion.state_of(1)


def test_the_conventions_of_rotations_are_those_of_the_other_platform():
    turned = reduce(lambda s, p: rotation(*p) @ s, [(Axis.X, 8), (Axis.Y, 8)], np.array([1, 0]))
    ion = device()
    wire = Wire(ion)
    for instruction in (ini(), sqg(Axis.X, 8), sqg(Axis.Y, 8)):
        wire.run(instruction)
    assert np.allclose(ion.state_of(), np.outer(turned, turned.conj()))
