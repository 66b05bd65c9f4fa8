"""The driver of the NV node's ADbasic program, on a mock and on a simulated ADwin."""

from __future__ import annotations

import re
import shutil
from dataclasses import fields
from pathlib import Path
from unittest.mock import call

import numpy as np
import pytest
from qcodes.instrument import Instrument

from instruments import nv_controller
from instruments.adwin import AdwinProcess, AdwinProII
from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentNotReady,
    InstrumentUnavailable,
)
from instruments.nv_controller import (
    COUNTERS,
    LIMITS,
    START_POLL_S,
    START_POLLS,
    STATES,
    VERSION,
    ControllerSettings,
    NVController,
)
from sim.adwin.dll import SimulatedADwin
from sim.adwin.hardware import InMemoryHardware
from sim.adwin.options import ProcessorModel
from sim.adwin.system import AdwinSystem

SOURCES = Path(nv_controller.__file__).parent / "adbasic"
CLOCKED = ProcessorModel.t12().model_copy(update={"external_clock_cycles": 1_000})


# --- on a mock ----------------------------------------------------------------------------------


@pytest.fixture
def mock(mocker):
    """An autospec of the ADwin's driver, whose process 1 says it is the right version."""
    adwin = mocker.create_autospec(AdwinProII, instance=True)
    adwin.processes = [mocker.create_autospec(AdwinProcess, instance=True) for _ in range(10)]
    adwin.parameters = {}
    for process in adwin.processes:
        process.loaded = None
    adwin.processor_type = "T12"
    adwin.name = "adwin"
    adwin.get_par.return_value = VERSION
    return adwin


@pytest.mark.parametrize(
    ("processor", "suffix"), [("T11", ".TB1"), ("T12", ".TC1"), ("T12.1", ".TC11")]
)
def test_the_binary_beside_the_source_is_loaded(mock, processor, suffix):
    mock.processor_type = processor
    NVController(mock).load()
    [[path], _] = mock.processes[0].load.call_args
    assert path == SOURCES / f"qdevice_nv{suffix}"
    assert (SOURCES / "qdevice_nv.bas").exists()
    assert not any(process.load.called for process in mock.processes[1:])


def test_another_binary_is_loaded_as_it_is(mock):
    NVController(mock).load(Path("/somewhere/else.TC1"))
    mock.processes[0].load.assert_called_once_with(Path("/somewhere/else.TC1"))


def test_every_setting_becomes_an_element_with_its_limits(mock):
    controller = NVController(mock)
    controller.load()
    controller.load()
    calls = mock.add_data_element.call_args_list
    # Once, however often the program is loaded.
    assert [each.args for each in calls] == [
        (field.name, 20, index) for index, field in enumerate(fields(ControllerSettings), start=1)
    ]
    for each in calls:
        name = each.args[0]
        limits = each.kwargs["vals"]
        assert (limits.min_value, limits.max_value) == LIMITS[name]
        assert each.kwargs["unit"] == ("us" if name.endswith("_us") else "")
    assert mock.add_par.call_args_list == [call(name, par) for name, par in COUNTERS.items()]


def test_the_defaults_are_within_their_limits():
    for name, value in vars(ControllerSettings()).items():
        least, most = LIMITS[name]
        assert least <= value <= most
    assert set(LIMITS) == {field.name for field in fields(ControllerSettings)}


def test_heralds_are_outcomes_and_one_more_than_codes(mock):
    NVController(mock).set_heralds((10, 11), (1, 2))
    assert mock.set_data.call_args_list == [call(23, [10, 11]), call(24, [2, 3])]


def test_what_runs_in_its_place_is_stopped_first(mock, mocker):
    mock.processes[0].loaded = "qdevice_nv.TC1"
    sleep = mocker.Mock()
    NVController(mock).load(sleep=sleep)
    names = [each[0] for each in mock.processes[0].method_calls]
    assert names == ["stop", "wait_until_stopped", "load"]
    assert mock.processes[0].wait_until_stopped.call_args.kwargs == {"sleep": sleep}


def test_the_version_is_asked_for_once_the_program_runs(mock):
    NVController(mock).start()
    mock.processes[0].start.assert_called_once_with()
    # What an earlier program left is gone before this one starts.
    mock.set_par.assert_called_once_with(80, 0)
    mock.get_par.assert_called_once_with(80)
    mock.processes[0].stop.assert_not_called()


def test_a_program_that_prepares_itself_is_waited_for(mock, mocker):
    mock.get_par.side_effect = [0, 0, VERSION]
    sleep = mocker.Mock()
    NVController(mock).start(sleep)
    assert sleep.call_args_list == [call(START_POLL_S)] * 2
    mock.processes[0].stop.assert_not_called()


@pytest.mark.parametrize(("found", "polls"), [(0, START_POLLS), (VERSION + 1, 1)])
def test_another_version_is_stopped_and_refused(mock, mocker, found, polls):
    mock.get_par.return_value = found
    with pytest.raises(IncompatibleInstrument, match=f"version {found}, and this driver needs"):
        NVController(mock).start(mocker.Mock())
    assert mock.get_par.call_count == polls
    mock.processes[0].stop.assert_called_once_with()


def test_errors_of_the_adwin_come_through(mock):
    mock.processes[0].start.side_effect = DeviceRefused("adwin: Start_Process(1) failed")
    with pytest.raises(DeviceRefused, match="Start_Process"):
        NVController(mock).start()


def test_logs_are_the_fifos_of_the_program(mock):
    controller = NVController(mock)
    for take, number in (
        (controller.take_photon_log, 31),
        (controller.take_check_log, 32),
    ):
        assert take() is mock.get_fifo.return_value
        mock.get_fifo.assert_called_with(number)


def test_the_charge_log_has_an_entry_for_every_readout(mock):
    # Three readouts and a check that passed; one and a check that did not.
    mock.get_fifo.return_value = np.array([2 * 3 + 1, 2 * 1], dtype=np.int32)
    assert NVController(mock).take_charge_log().tolist() == [1, 1, 1, 0]
    mock.get_fifo.assert_called_once_with(33)


# --- on a simulated ADwin -----------------------------------------------------------------------


@pytest.fixture
def system():
    return AdwinSystem(InMemoryHardware(), CLOCKED)


@pytest.fixture
def adwin(system, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    instrument = AdwinProII("adwin", SimulatedADwin(system, use_numpy_arrays=True))
    yield instrument
    Instrument.close_all()


@pytest.fixture
def controller(adwin):
    adwin.boot()
    controller = NVController(adwin)
    controller.load()
    return controller


def test_a_second_driver_of_the_same_adwin_has_the_same_parameters(controller, adwin):
    other = NVController(adwin)
    other.load()
    other.configure(ControllerSettings(readout_us=77))
    assert controller.read("readout_us") == other.read("readout_us") == 77


def test_a_program_needs_an_operating_system(adwin):
    with pytest.raises(InstrumentNotReady, match=r"call boot\(\) first"):
        NVController(adwin).load()


def test_a_missing_program_is_named(adwin, tmp_path):
    adwin.boot()
    with pytest.raises(InstrumentUnavailable, match=r"no .*qdevice_nv\.TC1; compile qdevice_nv"):
        NVController(adwin).load(tmp_path / "qdevice_nv.TC1")


def test_a_program_for_another_processor_is_refused(adwin, tmp_path):
    adwin.boot()
    with pytest.raises(ConfigurationRefused, match="not a binary for process 1 of a T12"):
        NVController(adwin).load(tmp_path / "qdevice_nv.TB1")


def test_settings_arrive_and_show_in_the_snapshot(controller, adwin, system):
    settings = ControllerSettings(**{name: most for name, (_, most) in LIMITS.items()})
    controller.configure(settings)
    assert system.memory.elements(20)[1 : len(LIMITS) + 1] == list(vars(settings).values())
    parameters = adwin.snapshot(update=True)["parameters"]
    for name, value in vars(settings).items():
        assert controller.read(name) == value
        assert parameters[name]["value"] == value
    assert set(COUNTERS) <= set(parameters)
    with pytest.raises(KeyError):
        controller.read("no_such_counter")


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_beyond_a_limit_is_refused(controller, system, name, side):
    controller.configure(ControllerSettings())
    before = list(system.memory.elements(20))
    with pytest.raises(ValueError, match=name):
        controller.configure(ControllerSettings(**{name: LIMITS[name][side] + (-1, 1)[side]}))
    assert controller.read(name) == getattr(ControllerSettings(), name)
    assert system.memory.elements(20) == before


def test_the_program_counts_and_says_what_it_does(controller, system):
    controller.configure(ControllerSettings(cr_threshold=0))
    controller.start()
    assert controller.state == "idle"
    # INIT takes its time.
    system.run_for_ns(1e5)
    before = controller.read("ticks")
    system.run_for_ns(1e6)
    assert controller.read("ticks") == before + 100
    controller.request_charge_check()
    system.run_for_ns(2_000)
    assert controller.state == "charge"
    system.run_for_ns(100_000)
    assert controller.state == "idle"
    assert controller.read("charge_checks") == 1
    assert controller.read("failed_charge_checks") == 0
    assert controller.take_photon_log().shape == (0,)
    controller.stop()
    assert controller.adwin.processes[0].status() == "stopped"


@pytest.mark.parametrize("number", [-1, len(STATES)])
def test_a_state_that_does_not_exist_is_an_error(controller, system, number):
    controller.start()
    system.memory.par[COUNTERS["state_number"]] = number
    with pytest.raises(DeviceRefused, match=f"in state {number}, which does not exist"):
        assert controller.state


def test_a_program_of_another_version_does_not_stay(adwin, tmp_path):
    for source in SOURCES.iterdir():
        shutil.copy(source, tmp_path)
    program = tmp_path / "qdevice_nv.bas"
    text = program.read_text("latin-1")
    newer = re.sub(r"(#DEFINE VERSION +)\d+", rf"\g<1>{VERSION + 1}", text)
    assert newer != text
    program.write_text(newer, "latin-1")
    adwin.boot()
    controller = NVController(adwin)
    controller.load(tmp_path / "qdevice_nv.TC1")
    controller.configure(ControllerSettings())
    with pytest.raises(IncompatibleInstrument, match=r"adwin: .* compile .*qdevice_nv\.bas anew"):
        controller.start()
    assert adwin.processes[0].status() == "stopped"
