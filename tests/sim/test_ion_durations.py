"""The behavioural trapped-ion device takes as long as the instrument level, and does the same."""

from __future__ import annotations

import random
from math import sqrt

import pytest

from drivers.ion_setup import IonSettings
from qnodeos.qdevice.outcomes import Outcome
from sequences.ion import OPERATION_OF_INSTRUCTION, IonOperation, IonSequenceSettings
from sim.ion.build import SimulatedIonNode
from sim.ion.durations import INSTRUCTIONS, measure_durations
from sim.ion.physics import IonPhysics, predicted_p_dark
from sim.ion_device import BehaviouralIonDevice
from sim.ion_timing import IonTiming
from tests.sim.wire import Wire

INIT, X, Y = IonOperation.INITIALISE, IonOperation.X_PI, IonOperation.Y_PI
X_HALF, Y_HALF, X_MINUS = IonOperation.X_HALF, IonOperation.Y_HALF, IonOperation.X_MINUS_HALF
SEQUENCES: list[list[IonOperation]] = [
    [], [X], [Y], [X_HALF], [Y_HALF], [X_HALF, X_HALF], [X_HALF, X_MINUS],
]  # fmt: skip


@pytest.fixture(autouse=True)
def private_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_the_instructions_measured_are_those_of_the_wire():
    found = {(int(i.opcode), i.argument): operation for operation, i in INSTRUCTIONS.items()}
    assert found == OPERATION_OF_INSTRUCTION


def test_the_default_table_is_what_the_instrument_level_takes():
    assert measure_durations() == IonTiming()


@pytest.mark.parametrize(
    "sequences",
    [
        IonSequenceSettings(detection_us=1_000),
        IonSequenceSettings(detection_us=5_000),
        IonSequenceSettings(pi_time_ns=60_000, sideband_us=510, sideband_cycles=10),
        IonSequenceSettings(sideband_cycles=0, doppler_us=36),
    ],
)
def test_any_program_takes_as_many_ticks_at_both_depths(sequences):
    settings = IonSettings(sequences=sequences)
    timing = measure_durations(settings)
    behavioural = Wire(BehaviouralIonDevice(timing, IonPhysics(), random.Random(0)))
    rng = random.Random(1)
    with SimulatedIonNode(settings=settings) as node:
        instrument = Wire(node.device)
        for _ in range(60):
            instruction = INSTRUCTIONS[rng.choice(list(IonOperation))]
            behavioural.run(instruction)
            instrument.run(instruction)
            assert behavioural.tick == instrument.tick, instruction
            pause = rng.randrange(3)
            behavioural.tick += pause
            instrument.tick += pause


def test_a_measurement_takes_50_to_250_ticks():
    for detection_us, least, most in ((1_000, 50, 55), (5_000, 250, 255)):
        sequences = IonSequenceSettings(detection_us=detection_us)
        assert least <= measure_durations(IonSettings(sequences=sequences)).measure_ticks <= most


def share_dark(wire: Wire, operations: list[IonOperation], shots: int) -> float:
    dark = 0
    for _ in range(shots):
        for operation in (INIT, *operations):
            assert wire.run(INSTRUCTIONS[operation]).outcome is Outcome.SUCCESS_ZERO
        dark += wire.run(INSTRUCTIONS[IonOperation.MEASURE]).outcome is Outcome.SUCCESS_ONE
    return dark / shots


@pytest.mark.parametrize("operations", SEQUENCES)
def test_both_depths_are_dark_as_the_closed_forms_say(operations):
    shots = 400
    # The sequences are short, so the ion must be cold without them.
    physics = IonPhysics(doppler_phonons=0.01, mean_phonons=0.01)
    sequences = IonSequenceSettings(doppler_us=100, sideband_cycles=1)
    expected = predicted_p_dark(operations, physics)
    bound = 4.5 * sqrt(max(expected * (1 - expected), 1e-3) / shots)
    with SimulatedIonNode(physics, IonSettings(sequences=sequences), seed=7) as node:
        instrument = share_dark(Wire(node.device), operations, shots)
    device = BehaviouralIonDevice(IonTiming(), physics, random.Random(7))
    behavioural = share_dark(Wire(device), operations, shots)
    assert abs(instrument - expected) < bound
    assert abs(behavioural - expected) < bound
