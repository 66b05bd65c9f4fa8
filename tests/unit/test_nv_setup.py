"""Setting up the instruments of an NV node, on mocks of their drivers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from drivers.nv_setup import AWG_CORES, MARKS, NVInstruments, NVSettings
from instruments.adwin import AdwinProcess, AdwinProII
from instruments.errors import ConfigurationRefused, DeviceRefused, IncompatibleInstrument
from instruments.hdawg import HDAWG
from instruments.heralding import HeraldingStation
from instruments.lasers import AdwinLaser
from instruments.microwave import MicrowaveSource
from instruments.nv_controller import VERSION, ControllerSettings
from instruments.station import NodeStation
from qnodeos.qdevice.outcomes import BellState, Outcome
from sequences.errors import ProgramError
from sequences.nv_seqc import TOGGLE_LINE, HeraldTiming, attempt_period_ns
from sequences.program import AwgProgram
from sequences.waveform_table import FIRST_ATTEMPT, TableSettings, build_table

LEVELS = {
    "repump": ("repump",),
    "e_laser": ("readout", "charge_check"),
    "a_laser": ("charge_check", "spin_pump"),
}


class Mocks:
    """Autospecs of a node's instruments, and one record of all calls in their order."""

    def __init__(self, mocker: Any) -> None:
        def spec(kind: type, **attributes: Any) -> Any:
            mock = mocker.create_autospec(kind, instance=True)
            for name, value in attributes.items():
                setattr(mock, name, value)
            return mock

        self.process = spec(AdwinProcess, loaded=None)
        self.adwin = spec(
            AdwinProII,
            processes=[self.process],
            parameters={},
            processor_type="T12",
            name="adwin",
            booted=MagicMock(**{"get.return_value": False}),
        )
        self.adwin.get_par.return_value = VERSION
        self.elements: dict[str, MagicMock] = {}
        self.adwin.add_data_element.side_effect = self._element
        self.cores = [MagicMock() for _ in range(4)]
        self.outputs = [MagicMock() for _ in range(8)]
        self.marks = [MagicMock() for _ in range(8)]
        self.awg = spec(
            HDAWG, cores=self.cores, outputs=self.outputs, marks=self.marks, dio=MagicMock()
        )
        self.source = spec(
            MicrowaveSource,
            **{name: MagicMock() for name in ("frequency", "power", "IQ_state", "status")},
        )
        self.heralding = spec(
            HeraldingStation, window_delay_ns=MagicMock(), window_length_ns=MagicMock()
        )
        self.lasers = {
            name: spec(AdwinLaser, levels={level: MagicMock() for level in levels})
            for name, levels in LEVELS.items()
        }
        self.station = spec(
            NodeStation,
            adwin=self.adwin,
            awg=self.awg,
            microwave=self.source,
            heralding=self.heralding,
            instruments={"heralding": self.heralding},
        )
        self.station.one.side_effect = lambda name, kind: self.lasers[name]
        self.record = MagicMock()
        for name in ("process", "adwin", "awg", "source", "station"):
            self.record.attach_mock(getattr(self, name), name)
        for name, channels in (("core", self.cores), ("mark", self.marks)):
            for index, channel in enumerate(channels):
                self.record.attach_mock(channel, f"{name}{index}")

    def _element(self, name: str, number: int, index: int, **kwargs: Any) -> MagicMock:
        element = self.elements[name] = MagicMock(name=name)
        self.record.attach_mock(element, f"setting_{name}")
        return element

    def place(self, name: str, *arguments: Any) -> int:
        """Where in the record a call is that was made once."""
        found = [
            place
            for place, each in enumerate(self.record.mock_calls)
            if each[0] == name and each.args == arguments
        ]
        assert len(found) == 1, f"{name}{arguments} is called {len(found)} times"
        return found[0]


@pytest.fixture
def mocks(mocker):
    return Mocks(mocker)


@pytest.fixture
def instruments(mocks):
    return NVInstruments(mocks.station)


def loaded_program(mocks: Mocks) -> AwgProgram:
    [cores, program] = mocks.awg.load_all.call_args.args
    assert cores == AWG_CORES == (0, 1, 2)
    assert isinstance(program, AwgProgram)
    return program


def test_everything_is_set_before_the_program_starts(mocks, instruments):
    settings = NVSettings()
    instruments.set_up(settings)
    in_order = [
        mocks.place("adwin.boot"),
        mocks.place("awg.lock_reference", "external"),
        mocks.place("awg.dio.drive", 0),
        mocks.place("awg.dio.interface", 0),
        mocks.place("awg.dio.mode", "awg_sequencer_commands"),
        *(mocks.place(f"mark{index}.source", mark.source) for index, mark in MARKS.items()),
        next(
            place for place, each in enumerate(mocks.record.mock_calls) if each[0] == "process.load"
        ),
        *(mocks.place("awg.stop", core) for core in AWG_CORES),
        mocks.place("awg.load_all", AWG_CORES, loaded_program(mocks)),
        *(
            place
            for core in AWG_CORES
            for place in (
                mocks.place(f"core{core}.strobe_line", TOGGLE_LINE),
                mocks.place(f"core{core}.strobe_slope", "both_edges"),
            )
        ),
        *(mocks.place("awg.start", core) for core in AWG_CORES),
        mocks.place("setting_readout_us.set", settings.controller.readout_us),
        mocks.place("source.status", "on"),
        mocks.place("process.start"),
        mocks.place("adwin.get_par", 80),
    ]
    assert in_order == sorted(in_order)
    levels = [[each.args for each in output.on.call_args_list] for output in mocks.outputs]
    # The outputs of core 3 are not the node's.
    assert levels == [[(1,)]] * 2 + [[(0,)]] * 4 + [[]] * 2
    for name in vars(settings.controller):
        mocks.elements[name].set.assert_called_once()
    assert instruments.settings is settings


def test_what_is_booted_is_not_booted_again(mocks, instruments):
    mocks.adwin.booted.get.return_value = True
    instruments.set_up(NVSettings())
    mocks.adwin.boot.assert_not_called()


def test_light_microwaves_and_heralds_are_those_of_the_settings(mocks, instruments):
    settings = NVSettings(
        mw_frequency_hz=2.1e9,
        mw_power_dbm=-3.0,
        detectors=(BellState.PHI_MINUS, BellState.PSI_PLUS),
        laser_volts={"repump": {"repump": 0.7}, "a_laser": {"spin_pump": 0.4}},
    )
    instruments.set_up(settings)
    mocks.source.frequency.assert_called_once_with(2.1e9)
    mocks.source.power.assert_called_once_with(-3.0)
    mocks.source.IQ_state.assert_called_once_with("on")
    assert [call.args for call in mocks.adwin.set_data.call_args_list] == [
        (23, [Outcome.SUCCESS_PHI_MINUS, Outcome.SUCCESS_PSI_PLUS]),
        (24, [1 + BellState.PHI_MINUS, 1 + BellState.PSI_PLUS]),
    ]
    for laser in mocks.lasers.values():
        laser.to_nominal.assert_called_once_with()
    mocks.lasers["repump"].levels["repump"].voltage_v.assert_called_once_with(0.7)
    mocks.lasers["a_laser"].levels["spin_pump"].voltage_v.assert_called_once_with(0.4)
    mocks.lasers["a_laser"].levels["charge_check"].voltage_v.assert_not_called()


@pytest.mark.parametrize(
    ("volts", "unknown"),
    [({"b_laser": {"readout": 1.0}}, "no b_laser"), ({"e_laser": {"pump": 1.0}}, "with pump")],
)
def test_levels_that_no_laser_has_are_refused(mocks, instruments, volts, unknown):
    with pytest.raises(ConfigurationRefused, match=unknown):
        instruments.set_up(NVSettings(laser_volts=volts))


def test_what_the_station_file_forbids_is_refused(mocks, instruments):
    mocks.source.power.full_name = "microwave_power"
    mocks.source.power.validate.side_effect = ValueError("20 is not below 10")
    with pytest.raises(ConfigurationRefused, match=r"microwave_power = 20: .*; change the setting"):
        instruments.set_up(NVSettings(mw_power_dbm=20.0))
    mocks.source.power.assert_not_called()
    mocks.source.status.assert_not_called()


@pytest.mark.parametrize("attempts", [1, 2, 115, 1790])
@pytest.mark.parametrize("period_ns", [5_500.0, 76_520.0])
def test_a_batch_ends_between_two_attempts(mocks, instruments, attempts, period_ns):
    herald = HeraldTiming(attempt_period_ns=period_ns)
    instruments.set_up(NVSettings(herald=herald, attempts_per_batch=attempts))
    [batch_us] = mocks.elements["batch_us"].set.call_args.args
    exactly_ns = attempt_period_ns(build_table(TableSettings()), herald)
    # After the start of the last attempt, before that of the one that must not follow.
    assert (attempts - 1) * exactly_ns < batch_us * 1_000 < attempts * exactly_ns


def test_without_links_the_batch_is_left_alone(mocks, instruments):
    controller = ControllerSettings(links=0, batch_us=123, alpha_entry=127)
    settings = NVSettings(table=TableSettings(alphas=()), controller=controller)
    instruments.set_up(settings)
    mocks.elements["batch_us"].set.assert_called_once_with(123)


# --- what is set up anew ------------------------------------------------------------------------


def test_only_what_differs_is_loaded_again(mocks, instruments):
    settings = NVSettings()
    instruments.set_up(settings)
    first = loaded_program(mocks)
    instruments.apply(replace(settings, mw_power_dbm=-6.0, attempts_per_batch=7))
    assert mocks.awg.load_all.call_count == 1
    mocks.source.power.assert_called_with(-6.0)
    assert mocks.elements["batch_us"].set.call_count == 2
    instruments.apply(replace(settings, herald=HeraldTiming(attempt_period_ns=8_000)))
    assert mocks.awg.load_all.call_count == 2
    assert loaded_program(mocks).source != first.source
    table = TableSettings(alphas=(0.1, 0.2))
    instruments.apply(replace(settings, table=table))
    assert mocks.awg.load_all.call_count == 3
    assert instruments.table is not None
    assert instruments.table.settings == table
    # The program in the ADwin has not been touched.
    assert mocks.process.load.call_count == mocks.process.start.call_count == 1


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "alphas"), [(FIRST_ATTEMPT + 1, (0.2,)), (FIRST_ATTEMPT, ()), (127, (0.1, 0.2))]
)
def test_an_attempt_that_is_not_in_the_table_is_refused_before_anything_changes(
    mocks, instruments, entry, alphas
):
    good = NVSettings()
    instruments.set_up(good)
    mocks.record.reset_mock()
    bad = replace(
        good,
        table=TableSettings(alphas=alphas),
        controller=ControllerSettings(alpha_entry=entry),
    )
    with pytest.raises(ConfigurationRefused, match=f"alpha_entry {entry} .* has {len(alphas)}"):
        instruments.apply(bad)
    assert mocks.record.mock_calls == []
    assert instruments.settings is good


def test_attempts_that_cannot_be_played_leave_the_old_program_running(mocks, instruments):
    good = NVSettings()
    instruments.set_up(good)
    mocks.record.reset_mock()
    with pytest.raises(ProgramError, match="attempt_period_ns"):
        instruments.apply(replace(good, herald=HeraldTiming(attempt_period_ns=1_000)))
    mocks.awg.stop.assert_not_called()
    assert instruments.settings is good


def test_after_a_table_that_was_refused_the_old_one_is_loaded_again(mocks, instruments):
    good = NVSettings()
    instruments.set_up(good)
    before = loaded_program(mocks)
    mocks.awg.load_all.side_effect = DeviceRefused("no memory")
    with pytest.raises(DeviceRefused, match="no memory"):
        instruments.apply(replace(good, table=replace(good.table, alphas=(0.1,))))
    mocks.awg.load_all.side_effect = None
    mocks.awg.load_all.reset_mock()
    mocks.record.reset_mock()
    instruments.apply(good)
    after = loaded_program(mocks)
    assert (after.source, after.command_table) == (before.source, before.command_table)
    assert all(map(np.array_equal, after.waveforms, before.waveforms))
    for core in AWG_CORES:
        mocks.place("awg.start", core)


@pytest.mark.parametrize("attempts", [0, -1, 10**9])
def test_a_batch_of_no_length_is_refused_before_anything_is_loaded(mocks, instruments, attempts):
    with pytest.raises(ConfigurationRefused, match=f"a batch of {attempts} attempts"):
        instruments.set_up(NVSettings(attempts_per_batch=attempts))
    mocks.awg.load_all.assert_not_called()


def test_an_awg_with_too_few_connectors_is_refused_before_it_is_touched(mocks, instruments):
    del mocks.cores[2:]
    with pytest.raises(IncompatibleInstrument, match="2 cores; the signals of a node take 3"):
        instruments.set_up(NVSettings())
    assert not [each for each in mocks.record.mock_calls if each[0].startswith("awg")]


def test_a_connector_is_fed_by_the_core_of_its_channel():
    assert [mark.core for mark in MARKS.values()] == [connector // 2 for connector in MARKS]
    assert set(AWG_CORES) == {mark.core for mark in MARKS.values()}


def test_a_program_of_another_version_is_refused(mocks, instruments):
    mocks.adwin.get_par.return_value = VERSION + 1
    with pytest.raises(IncompatibleInstrument, match=f"version {VERSION + 1}"):
        instruments.set_up(NVSettings())
    mocks.process.stop.assert_called_once_with()


@pytest.mark.parametrize(
    "failing", ["process.load", "awg.lock_reference", "awg.load_all", "source.frequency"]
)
def test_nothing_starts_after_an_instrument_has_refused(mocks, instruments, failing):
    owner, _, name = failing.partition(".")
    getattr(getattr(mocks, owner), name).side_effect = DeviceRefused(f"{failing} is refused")
    with pytest.raises(DeviceRefused, match=failing):
        instruments.set_up(NVSettings())
    mocks.process.start.assert_not_called()
    assert instruments.settings is None


# --- the end ------------------------------------------------------------------------------------


def test_closing_stops_both_programs_before_the_instruments(mocks, instruments):
    instruments.set_up(NVSettings())
    mocks.record.reset_mock()
    instruments.close()
    in_order = [
        mocks.place("process.stop"),
        *(mocks.place("awg.stop", core) for core in AWG_CORES),
        mocks.place("source.status", "off"),
        mocks.place("station.close"),
    ]
    assert in_order == sorted(in_order)


def test_closing_goes_on_after_an_instrument_that_does_not_answer(mocks, instruments):
    instruments.set_up(NVSettings())
    mocks.record.reset_mock()
    mocks.process.stop.side_effect = DeviceRefused("no answer")
    with pytest.raises(DeviceRefused, match="no answer"):
        instruments.close()
    for core in AWG_CORES:
        mocks.place("awg.stop", core)
    mocks.place("source.status", "off")
    mocks.place("station.close")


def test_what_was_set_up_in_part_is_stopped_in_part(mocks, instruments):
    mocks.awg.start.side_effect = DeviceRefused("no program")
    with pytest.raises(DeviceRefused, match="no program"):
        instruments.set_up(NVSettings())
    mocks.record.reset_mock()
    instruments.close()
    for core in AWG_CORES:
        mocks.place("awg.stop", core)
    mocks.place("station.close")
    mocks.process.stop.assert_not_called()


def test_what_was_never_set_up_is_only_closed(mocks, instruments):
    instruments.close()
    assert [each[0] for each in mocks.record.mock_calls] == ["station.close"]


def test_the_binary_and_the_snapshot_are_passed_on(mocks):
    instruments = NVInstruments(mocks.station, Path("/lab/qdevice_nv.TC1"))
    instruments.set_up(NVSettings())
    mocks.process.load.assert_called_once_with(Path("/lab/qdevice_nv.TC1"))
    assert instruments.snapshot() is mocks.station.snapshot.return_value
