"""From power-on to a trapped-ion node that answers frames, through its drivers alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from qcodes.instrument import Instrument
from qcodes.utils import NumpyJSONEncoder

from drivers.ion_setup import MIN_DONE_NS, IonInstruments, IonSettings
from instruments.errors import ConfigurationRefused, DeviceRefused
from instruments.ion_board import CODES, BoardSettings
from instruments.station import Connections, open_station, station_file
from qnodeos.qdevice.instructions import Axis, ini, msr, sqg
from qnodeos.qdevice.outcomes import Outcome
from sequences.errors import SequenceError
from sequences.ion import IonOperation, IonSequenceSettings, ion_program
from sim.ion.dds import SimulatedAd9910
from sim.ion.sequencer import CoreState
from sim.serial_line import SerialLine
from tests.sim.ion_harness import SHORT, simulated_node
from tests.sim.wire import Wire

SETTINGS = IonSettings(sequences=SHORT, carrier_hz=81.5e6, sideband_hz=80.25e6, threshold=20)


@pytest.fixture(autouse=True)
def private_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def nodes() -> Iterator[Any]:
    """Makes nodes with a fake ion, and closes them."""
    made: list[Any] = []

    def make(settings: IonSettings = SETTINGS) -> Any:
        made.append(simulated_node(settings))
        return made[-1]

    yield make
    for node in made:
        node.close()
    assert not Instrument.instances()


def pulses(node: Any) -> list[tuple[int, float, float, float]]:
    """Duration and tone of all 729 nm light so far."""
    return [
        (duration, light.frequency_hz, light.phase_rad, light.amplitude)
        for duration, light in node.node.ion.seen
        if light.rf_729
    ]


def test_the_node_is_set_up_as_it_was_asked_to(nodes):
    node = nodes()
    instruments = node.instruments
    assert instruments.settings == SETTINGS
    assert instruments.pmt.threshold() == 20
    assert instruments.board.codes() == dict(CODES)
    assert instruments.sequencer.state() == "RUNNING"
    assert [profile.amplitude() for profile in instruments.dds.profiles[:5]] == [0, 1, 1, 1, 1]
    assert instruments.dds.profiles[2].phase_rad() == pytest.approx(math.pi / 2)
    assert instruments.dds.profiles[4].frequency_hz() == pytest.approx(80.25e6, abs=0.2)
    instruments.dds.verify()


ROTATIONS = [
    (Axis.X, 16, 10_000, 0),
    (Axis.Y, 16, 10_000, math.pi / 2),
    (Axis.X, 8, 5_000, 0),
    (Axis.Y, 8, 5_000, math.pi / 2),
    (Axis.X, 24, 5_000, math.pi),
]


@pytest.mark.parametrize(("axis", "steps", "duration_ns", "phase_rad"), ROTATIONS)
def test_a_rotation_is_one_pulse_of_the_right_length_and_phase(
    nodes, axis, steps, duration_ns, phase_rad
):
    node = nodes(replace(SETTINGS, carrier_amplitude=0.5))
    assert Wire(node.device).run(sqg(axis, steps)).outcome is Outcome.SUCCESS_ZERO
    ((duration, frequency_hz, phase, amplitude),) = pulses(node)
    assert duration == duration_ns
    assert frequency_hz == pytest.approx(81.5e6, abs=0.2)
    assert phase == pytest.approx(phase_rad, abs=1e-4)
    assert amplitude == pytest.approx(0.5, abs=1e-4)


def test_initialisation_cools_on_the_sideband_and_pumps_last(nodes):
    node = nodes()
    wire = Wire(node.device)
    wire.run(ini())
    assert [(duration, round(f / 1e6, 3)) for duration, f, _, _ in pulses(node)] == [
        (10_000, 80.25)
    ] * 2
    wire.run(sqg(Axis.X, 16))  # the ion has lived through all light of before
    lit = [light for _, light in node.node.ion.seen[:-1] if any(light[:5])]
    assert lit[0].doppler_397
    assert [lit[-1].pump_397, lit[-1].repump_866, lit[-1].rf_729] == [True, True, False]


def test_no_light_falls_on_the_ion_between_instructions(nodes):
    node = nodes()
    wire = Wire(node.device)
    wire.run(sqg(Axis.X, 16))
    wire.tick += 1_000
    wire.run(sqg(Axis.X, 16))
    waiting = [duration for duration, light in node.node.ion.seen if not any(light[:5])]
    assert max(waiting) == pytest.approx(1_000 * 20_000, rel=0.01)


def test_a_threshold_reaches_the_outcome(nodes):
    node = nodes()
    wire = Wire(node.device)
    node.node.ion.photons = 21
    assert wire.run(msr()).outcome is Outcome.SUCCESS_ZERO
    node.instruments.apply(replace(SETTINGS, threshold=21))
    assert wire.run(msr()).outcome is Outcome.SUCCESS_ONE


def test_apply_changes_what_differs(nodes):
    node = nodes()
    wire = Wire(node.device)
    wire.run(ini())
    changed = replace(SETTINGS, carrier_hz=82e6, sequences=replace(SHORT, pi_time_ns=8_000))
    node.instruments.apply(changed)
    assert node.instruments.settings == changed
    # The session goes on.
    assert wire.run(sqg(Axis.X, 16)).outcome is Outcome.SUCCESS_ZERO
    duration, frequency_hz, _, _ = pulses(node)[-1]
    assert (duration, round(frequency_hz / 1e6, 3)) == (8_000, 82.0)


def test_another_tone_alone_leaves_the_program_running(nodes):
    node = nodes()
    node.instruments.apply(replace(SETTINGS, carrier_hz=82e6))
    assert Wire(node.device).run(sqg(Axis.X, 16)).outcome is Outcome.SUCCESS_ZERO
    assert round(pulses(node)[-1][1] / 1e6, 3) == 82.0


def test_what_failed_half_way_is_set_up_as_a_whole_the_next_time(nodes):
    node = nodes()
    bad = BoardSettings(codes={**CODES, IonOperation.X_PI: 1})
    with pytest.raises(ConfigurationRefused, match="same code"):
        node.instruments.apply(replace(SETTINGS, carrier_hz=82e6, board=bad))
    assert node.instruments.settings is None
    node.instruments.apply(SETTINGS)
    assert Wire(node.device).run(sqg(Axis.X, 16)).outcome is Outcome.SUCCESS_ZERO
    assert round(pulses(node)[-1][1] / 1e6, 3) == 81.5


def test_nothing_is_loaded_again_that_has_not_changed(nodes, mocker):
    node = nodes()
    load = mocker.spy(node.instruments.sequencer, "load")
    node.instruments.apply(SETTINGS)
    node.instruments.apply(replace(SETTINGS, threshold=3))
    assert load.call_count == 0
    node.instruments.apply(replace(SETTINGS, sequences=replace(SHORT, detection_us=70)))
    assert load.call_count == 1


def test_set_up_again_ends_the_session(nodes):
    node = nodes()
    wire = Wire(node.device)
    wire.run(ini())
    node.instruments.set_up(SETTINGS)
    for _ in range(3):
        wire.exchange()
    assert wire.master.device_restarts == 1
    assert wire.run(ini()).outcome is Outcome.SUCCESS_ZERO


def test_the_board_waits_longer_than_any_subroutine_takes():
    long = IonSettings(sequences=replace(SHORT, detection_us=100_000))
    assert long.done_timeout_us() >= 200_000
    assert IonSettings().done_timeout_us() == 20_081


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (replace(SETTINGS, sequences=replace(SHORT, done_ns=MIN_DONE_NS - 10)),
         ConfigurationRefused, "done_ns = 490"),
        (replace(SETTINGS, carrier_hz=600e6), ConfigurationRefused, "600000000"),
        (replace(SETTINGS, carrier_amplitude=1.1), ConfigurationRefused, "1.1"),
        (replace(SETTINGS, board=BoardSettings(codes={**CODES, IonOperation.X_PI: 1})),
         ConfigurationRefused, "same code 1"),
        (replace(SETTINGS, board=BoardSettings(codes={
            **CODES, IonOperation.X_PI: CODES[IonOperation.Y_PI],
            IonOperation.Y_PI: CODES[IonOperation.X_PI]})),
         ConfigurationRefused, "code 3 for X_PI is that of Y_PI"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_and_the_right_ones_taken_afterwards(
    nodes, settings, error, message
):
    node = nodes()
    with pytest.raises(error, match=message):
        node.instruments.apply(settings)
    node.instruments.apply(SETTINGS)
    assert Wire(node.device).run(ini()).outcome is Outcome.SUCCESS_ZERO


def test_sequences_that_cannot_be_are_refused():
    with pytest.raises(SequenceError, match="pi_time_ns"):
        IonSequenceSettings(pi_time_ns=10_005)


def test_a_dds_that_does_not_take_a_tone_is_noticed(monkeypatch):
    monkeypatch.setattr(SimulatedAd9910, "set_io_update", lambda self, time_ns, level: None)
    with pytest.raises(DeviceRefused, match=r"ion_dds: CFR1 is .* check the power of the chip"):
        simulated_node(SETTINGS)
    assert not Instrument.instances()


def test_a_sequencer_that_never_halts_is_noticed(nodes, monkeypatch):
    node = nodes()
    monkeypatch.setattr("drivers.ion_setup.UPDATE_PROGRAM", ion_program(SHORT))
    with pytest.raises(DeviceRefused, match="does not end a program of"):
        node.instruments.apply(replace(SETTINGS, carrier_hz=82e6))


def test_close_takes_all_lines_low(nodes):
    node = nodes()
    node.close()
    assert node.node.sequencer.state is CoreState.STOPPED
    assert node.node.sequencer.ttl == 0


def test_an_instrument_that_is_missing_is_named(nodes):
    node = nodes()
    node.close()
    connections = Connections(
        {"board": SerialLine(node.node.board)}, without=frozenset({"sequencer", "dds", "pmt"})
    )
    with (
        open_station(station_file("ion", simulation=True), connections) as station,
        pytest.raises(ConfigurationRefused, match="there is no sequencer of type"),
    ):
        IonInstruments(station)


def test_a_snapshot_between_instructions_costs_time_and_nothing_else(nodes):
    node = nodes()
    wire = Wire(node.device)
    wire.run(ini())
    begun_ns = node.node.time_ns
    node.instruments.snapshot()
    asked_ns = node.node.time_ns - begun_ns
    assert asked_ns > 0
    sent = wire.tick
    assert wire.run(sqg(Axis.X, 16)).outcome is Outcome.SUCCESS_ZERO
    assert wire.tick - sent <= asked_ns // 20_000 + 3
    assert len(pulses(node)) == 3


def test_the_snapshot_can_be_stored(nodes):
    snapshot = json.loads(json.dumps(nodes().instruments.snapshot(), cls=NumpyJSONEncoder))
    found = snapshot["instruments"]
    assert set(found) == {"ion_board", "ion_sequencer", "ion_dds", "ion_pmt"}
    assert found["ion_pmt"]["parameters"]["threshold"]["value"] == 20
