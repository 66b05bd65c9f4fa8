"""The ADwin driver on a mock of the vendor's wrapper, and on the simulated ADwin.

The tests with a mock need no simulation: they are an example for whoever wants to test code
that uses the driver.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import ADwin
import numpy as np
import pytest
from qcodes.instrument import Instrument
from qcodes.utils import NumpyJSONEncoder

from instruments.adwin import AdwinProII, open_library
from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentInUse,
    InstrumentNotReady,
    InstrumentUnavailable,
)
from sim.adwin.dll import SimulatedADwin
from sim.adwin.hardware import InMemoryHardware
from sim.adwin.options import ProcessorModel
from sim.adwin.system import AdwinSystem

PROGRAMS = Path(__file__).parents[1] / "data" / "adbasic"


@pytest.fixture(autouse=True)
def close_all(tmp_path, monkeypatch):
    # The tests of several runs at once must not take each other's instruments.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    Instrument.close_all()


@pytest.fixture
def wrapper(mocker):
    """A mock with the shape of the vendor's wrapper: a booted T12."""
    mock = mocker.create_autospec(ADwin.ADwin, instance=True)
    mock.Processor_Type.return_value = "T12"
    mock.Test_Version.return_value = 0
    mock.Data_Length.return_value = 10
    mock.Data_Type.return_value = (4, "long")
    mock.version = "0.21.0"
    mock.ADwindir = "/opt/adwin/"
    return mock


@pytest.fixture
def adwin(wrapper):
    return AdwinProII("adwin", wrapper)


# --- opening -------------------------------------------------------------------------------


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    def missing(*arguments):
        raise OSError

    monkeypatch.setattr(ADwin, "open", missing, raising=False)
    with pytest.raises(InstrumentUnavailable, match=r"libadwin\.so not found.*Install the ADwin"):
        open_library(3)


def test_another_processor_is_refused_and_can_be_opened_again(wrapper):
    with pytest.raises(IncompatibleInstrument, match="is a T12, not a T11"):
        AdwinProII("adwin", wrapper, processor="T11")
    AdwinProII("adwin", wrapper, processor="T12").close()


def test_a_device_is_opened_once(adwin, wrapper):
    with pytest.raises(InstrumentInUse, match="adwin-1 is open already, in this process"):
        AdwinProII("again", wrapper)
    AdwinProII("second_device", wrapper, device_number=2)
    adwin.close()
    AdwinProII("again", wrapper)


def test_a_device_is_opened_by_one_process(adwin, tmp_path):
    code = (
        "import tempfile\nfrom instruments.ownership import Ownership\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\nOwnership('adwin-1')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert "InstrumentInUse" in done.stderr


# --- booting and processes -----------------------------------------------------------------


def test_boot_uses_the_vendors_file(adwin, wrapper):
    adwin.boot()
    wrapper.Boot.assert_called_once_with("/opt/adwin/ADwin12.btl")
    with pytest.raises(ConfigurationRefused, match=r"boot ADwin12\.btl"):
        adwin.boot("/opt/adwin/ADwin11.btl")
    wrapper.Boot.side_effect = ADwin.ADwinError("Boot", "File not found.", 200)
    with pytest.raises(InstrumentUnavailable, match=r"there is no elsewhere/ADwin12\.btl"):
        adwin.boot("elsewhere/ADwin12.btl")
    wrapper.Boot.side_effect = None
    wrapper.Test_Version.return_value = 1
    with pytest.raises(InstrumentNotReady, match=r"call boot\(\) first"):
        adwin.boot()


def test_loading_checks_name_and_state(adwin, wrapper):
    adwin.process_3.load("a/qdevice.tc3")
    wrapper.Load_Process.assert_called_once_with("a/qdevice.tc3")
    assert adwin.process_3.file.get() == "a/qdevice.tc3"
    for name in ("qdevice.TB3", "qdevice.TC4", "qdevice.bas"):
        with pytest.raises(ConfigurationRefused, match=r"would end in \.TC3"):
            adwin.process_3.load(name)
    adwin.processes[9].load("qdevice.TC0")
    wrapper.Test_Version.return_value = 1
    with pytest.raises(InstrumentNotReady, match="boot"):
        adwin.process_3.load("qdevice.TC3")
    wrapper.Test_Version.return_value = 0
    wrapper.Load_Process.side_effect = ADwin.ADwinError("Load_Process", "File not found.", 200)
    with pytest.raises(InstrumentUnavailable, match=r"compile none\.bas"):
        adwin.process_3.load("none.TC3")
    wrapper.Load_Process.side_effect = ADwin.ADwinError("Load_Process", "Not enough memory", 150)
    with pytest.raises(DeviceRefused, match=r"Load_Process\(big.TC3\) failed with error 150"):
        adwin.process_3.load("big.TC3")


@pytest.mark.parametrize("action", ["start", "stop", "clear"])
def test_a_process_must_be_loaded_first(adwin, wrapper, action):
    with pytest.raises(InstrumentNotReady, match="adwin_process_2: load a binary first"):
        getattr(adwin.process_2, action)()
    with pytest.raises(InstrumentNotReady):
        adwin.process_2.processdelay.set(300)
    assert adwin.process_2.processdelay.get() is None
    assert adwin.process_2.lost_events.get() is None
    wrapper.Start_Process.assert_not_called()


def test_a_process_is_controlled(adwin, wrapper):
    process = adwin.process_2
    process.load("x.TC2")
    process.start()
    wrapper.Start_Process.assert_called_once_with(2)
    wrapper.Process_Status.return_value = -1
    assert process.status.get() == "stopping"
    with pytest.raises(InstrumentNotReady, match="stop it before clearing"):
        process.clear()
    wrapper.Process_Status.return_value = 0
    process.clear()
    wrapper.Clear_Process.assert_called_once_with(2)
    process.load("x.TC2")
    process.processdelay.set(3_000)
    wrapper.Set_Processdelay.assert_called_once_with(2, 3_000)
    with pytest.raises(ValueError, match="processdelay"):
        process.processdelay.set(0)
    wrapper.Get_Lost_Events.return_value = 4
    assert process.lost_events.get() == 4


def test_waiting_ends(adwin, wrapper):
    process = adwin.process_2
    wrapper.Process_Status.side_effect = [1, 1, 0]
    passed: list[float] = []
    process.wait_until_stopped(1.0, 0.1, passed.append, lambda: sum(passed))
    assert passed == [0.1, 0.1]
    wrapper.Process_Status.side_effect = None
    wrapper.Process_Status.return_value = 1
    with pytest.raises(DeviceRefused, match=r"still runs after 1\.0 s"):
        process.wait_until_stopped(1.0, 0.1, passed.append, lambda: sum(passed))
    assert sum(passed) == pytest.approx(1.2, abs=0.11)


# --- limits: nothing wrong reaches the library ---------------------------------------------


@pytest.mark.parametrize("index", [0, -90, 81, 29_001, 1.5, "1"])
def test_pars_have_limits(adwin, wrapper, index):
    for call in (adwin.get_par, adwin.get_fpar):
        with pytest.raises(ConfigurationRefused, match="does not exist; 1 to 80 do"):
            call(index)
    for call in (adwin.set_par, adwin.set_fpar):
        with pytest.raises(ConfigurationRefused, match="does not exist"):
            call(index, 1)
    with pytest.raises(ConfigurationRefused):
        adwin.add_par("wrong", index)
    for method in (wrapper.Get_Par, wrapper.Set_Par, wrapper.Get_FPar_Double):
        method.assert_not_called()


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 1.5, "1"])
def test_pars_are_32_bits(adwin, wrapper, value):
    with pytest.raises(ConfigurationRefused, match="not a 32-bit integer"):
        adwin.set_par(1, value)
    wrapper.Set_Par.assert_not_called()


@pytest.mark.parametrize(
    ("start", "count"), [(0, 1), (1, 11), (10, 2), (11, None), (1, 0), (1, -1)]
)
def test_counts_are_checked_before_the_library_is_called(adwin, wrapper, start, count):
    with pytest.raises(ConfigurationRefused, match="the array has 10 elements"):
        adwin.get_data(1, start, count)
    if count is not None:
        with pytest.raises(ConfigurationRefused):
            adwin.set_data(1, [0] * max(count, 0), start)
    wrapper.GetData_Long.assert_not_called()
    wrapper.SetData_Long.assert_not_called()


def test_data_goes_by_type(adwin, wrapper):
    wrapper.GetData_Long.return_value = np.array([1, 2], np.int32)
    values = adwin.get_data(1, 9)
    wrapper.GetData_Long.assert_called_once_with(1, 9, 2)
    assert values.dtype == np.int32
    adwin.set_data(1, [1.0, 2.0], 3)
    (content, *others), _ = wrapper.SetData_Long.call_args
    assert (content.tolist(), content.dtype, others) == ([1, 2], np.int32, [1, 3, 2])
    for wrong in ([0.5], [2**31], [[1]], ["a"], [float("nan")]):
        with pytest.raises(ConfigurationRefused):
            adwin.set_data(1, wrong)
    wrapper.Data_Type.return_value = (6, "float64")
    adwin.set_data(1, [1, 2.5])
    (content, *others), _ = wrapper.SetData_Double.call_args
    assert (content.tolist(), others) == ([1.0, 2.5], [1, 1, 2])
    wrapper.Data_Type.return_value = (0, "undefined")
    with pytest.raises(ConfigurationRefused, match="load the process that declares it"):
        adwin.get_data(1)
    with pytest.raises(ConfigurationRefused, match="DATA_201 does not exist"):
        adwin.get_data(201)


def test_fifos_have_limits(adwin, wrapper):
    wrapper.Fifo_Full.return_value = 3
    wrapper.Fifo_Empty.return_value = 2
    wrapper.GetFifo_Long.return_value = np.array([1, 2, 3], np.int32)
    assert adwin.get_fifo(5).tolist() == [1, 2, 3]
    wrapper.GetFifo_Long.assert_called_once_with(5, 3)
    with pytest.raises(ConfigurationRefused, match="4 values asked of FIFO 5, which holds 3"):
        adwin.get_fifo(5, 4)
    with pytest.raises(ConfigurationRefused, match="3 values for FIFO 5 with room for 2"):
        adwin.set_fifo(5, [1, 2, 3])
    adwin.set_fifo(5, [])
    wrapper.SetFifo_Long.assert_not_called()
    assert adwin.get_fifo(5, 0).tolist() == []


def test_named_parameters(adwin, wrapper):
    threshold = adwin.add_par("cr_threshold", 68, unit="counts", label="CR threshold")
    wrapper.Get_Par.return_value = 12
    assert threshold.get() == 12
    threshold.set(15)
    wrapper.Set_Par.assert_called_once_with(68, 15)
    with pytest.raises(TypeError):
        threshold.set(1.5)
    power = adwin.add_fpar("power", 3)
    power.set(0.25)
    wrapper.Set_FPar_Double.assert_called_once_with(3, 0.25)
    wrapper.GetData_Long.return_value = np.array([7], np.int32)
    duration = adwin.add_data_element("duration", 20, 4)
    assert duration.get() == 7
    duration.set(9)
    assert wrapper.SetData_Long.call_args.args[1:] == (20, 4, 1)


def test_the_library_is_called_by_one_thread_at_a_time(wrapper):
    """All wrappers of a process share the error cell, so one lock is for all instruments."""
    inside = threading.Semaphore(1)
    clashes: list[int] = []

    def slow(index):
        if not inside.acquire(blocking=False):
            clashes.append(index)
            return 0
        for _ in range(2_000):
            pass
        inside.release()
        return index

    wrapper.Get_Par.side_effect = slow
    both = [AdwinProII(f"adwin_{n}", wrapper, device_number=n) for n in (1, 2)]
    threads = [
        threading.Thread(target=lambda adwin=adwin: [adwin.get_par(5) for _ in range(200)])
        for adwin in both * 2
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrapper.Get_Par.call_count == 800
    assert clashes == []


# --- on the simulated ADwin ----------------------------------------------------------------


@pytest.fixture
def simulated():
    model = ProcessorModel.t11()
    wrapper = SimulatedADwin(AdwinSystem(InMemoryHardware(), model), use_numpy_arrays=True)
    return AdwinProII("sim", wrapper, processor="T11")


def test_from_boot_to_result(simulated):
    system = simulated._wrapper.dll.system
    assert simulated.booted.get() is False
    with pytest.raises(InstrumentNotReady):
        simulated.process_1.load(PROGRAMS / "ticks.TB1")
    simulated.boot()
    process = simulated.process_1
    process.load(PROGRAMS / "ticks.TB1")
    wanted = simulated.add_par("wanted_ticks", 2)
    wanted.set(500)
    process.start()
    assert process.status.get() == "running"
    process.wait_until_stopped(
        1.0, 1e-3, lambda s: system.run_for_ns(s * 1e9), lambda: system.now_ns * 1e-9
    )
    assert simulated.get_par(3) == 500
    times = simulated.get_data(1, 1, 500)
    assert set(np.diff(times)) == {3_000}
    assert simulated.get_data(1).shape == (1_000,)
    simulated.set_data(1, [5, 6], 999)
    assert simulated.get_data(1, 999).tolist() == [5, 6]
    simulated.set_fpar(1, 0.5)
    assert simulated.get_fpar(1) == 0.5
    process.clear()


def test_the_snapshot_can_be_read(simulated):
    before = simulated.snapshot(update=True)
    assert before["parameters"]["pars"]["value"] is None
    assert before["parameters"]["booted"]["value"] is False
    simulated.boot()
    simulated.process_1.load(PROGRAMS / "ticks.TB1")
    simulated.set_par(7, 42)
    snapshot = simulated.snapshot(update=True)
    text = json.dumps(snapshot, cls=NumpyJSONEncoder)
    assert json.loads(text)["parameters"]["pars"]["value"][6] == 42
    process = snapshot["submodules"]["process_1"]["parameters"]
    assert process["status"]["value"] == "stopped"
    assert process["processdelay"]["value"] == 3_000
    assert process["file"]["value"].endswith("ticks.TB1")
    assert snapshot["parameters"]["free_dram_extern"]["value"] == (1 << 28) - 4_000
    assert simulated.get_idn()["model"] == "ADwin-Pro II T11"


def test_what_the_simulated_library_refuses_is_a_typed_error(simulated, tmp_path):
    simulated.boot()
    with pytest.raises(InstrumentUnavailable, match=r"compile none\.bas"):
        simulated.process_1.load(tmp_path / "none.TB1")
    with pytest.raises(DeviceRefused, match="error 203"):
        simulated.process_2.load(PROGRAMS / "ticks.TB2")
