"""The vendor's own wrapper on the simulated library: every method of it, and its errors."""

from __future__ import annotations

import array
import ctypes
import re
import sys
from pathlib import Path

import ADwin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.adwin.dll import ERROR_TEXTS, SimulatedADwin
from sim.adwin.errors import AdbasicError, HardwareFault
from sim.adwin.hardware import InMemoryHardware
from sim.adwin.options import ProcessorModel
from sim.adwin.system import AdwinSystem
from tests.sim.adbasic_harness import PROGRAMS, write_source

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names of the Linux library")

BODY = """
DIM DATA_1[10] AS LONG
DIM DATA_2[10] AS FLOAT
DIM DATA_3[5] AS LONG AS FIFO
DIM DATA_4[8] AS STRING
DIM DATA_5[4] AS FLOAT AS FIFO
EVENT:
  INC(PAR_1)
  DATA_3 = PAR_1
  CPU_SLEEP(PAR_2)
"""


def booted(processor="T12", **options):
    model = ProcessorModel.t12() if processor == "T12" else ProcessorModel.t11()
    adwin = SimulatedADwin(AdwinSystem(InMemoryHardware(), model), **options)
    adwin.Boot(f"/opt/adwin/ADwin{processor[1:]}.btl")
    return adwin


@pytest.fixture
def adwin(tmp_path):
    """A booted T12 with a program loaded as process 1."""
    write_source(tmp_path, BODY, delay=1_000)
    adwin = booted()
    adwin.Load_Process(str(tmp_path / "program.TC1"))
    return adwin


def refused(number, call, *arguments):
    with pytest.raises(ADwin.ADwinError) as caught:
        call(*arguments)
    assert caught.value.errorNumber == number
    assert caught.value.errorText == ERROR_TEXTS[number]
    assert caught.value.functionName == call.__name__


# --- the system ----------------------------------------------------------------------------


def test_only_the_initialisation_of_the_wrapper_is_replaced():
    assert [name for name in vars(SimulatedADwin) if not name.startswith("__")] == []
    assert vars(SimulatedADwin).keys() & vars(ADwin.ADwin).keys() <= {
        "__init__",
        "__module__",
        "__doc__",
    }


def test_every_function_that_the_wrapper_calls_is_there(adwin):
    text = Path(ADwin.__file__).read_text("cp1252")
    called = set(re.findall(r"self\.dll\.(\w+)[(.]", text))
    missing = {name for name in called if not hasattr(adwin.dll, name)}
    windows_only = {"e_GetDataTyp", "GETRETRY", "GETRETRY_DEVICE", "Get_Known_Deviceno"}
    assert missing == windows_only | {"Set_DeviceNo"}  # which only its initialisation calls
    assert len(called) > 40


def test_boot_and_version():
    adwin = SimulatedADwin(AdwinSystem(InMemoryHardware()))
    assert adwin.Test_Version() == 1
    refused(1, adwin.Get_Par, 1)
    refused(20, adwin.Boot, "ADwin12.btl")
    refused(203, adwin.Boot, "linux.img")
    adwin.Boot("C:\\ADwin\\ADwin11.btl")
    assert adwin.Test_Version() == 0
    assert adwin.Processor_Type() == "T11"
    assert booted("T12").Processor_Type() == "T12"


def test_booting_forgets(adwin):
    adwin.Set_Par(5, 7)
    adwin.Boot("ADwin12.btl")
    assert adwin.Get_Par(5) == 0
    assert adwin.Data_Length(1) == 0
    refused(15, adwin.Start_Process, 1)


def test_another_device_number_is_unknown(adwin):
    adwin.DeviceNo = 2
    refused(11, adwin.Processor_Type)


def test_errors_can_be_asked_for_instead(adwin):
    adwin.raiseExceptions = False
    assert adwin.Get_Par(81) == 0
    assert adwin.Get_Last_Error() == 15
    adwin.Get_Par(80)
    assert adwin.Get_Last_Error() == 0
    assert adwin.Get_Error_Text(0) == "No Error"
    assert adwin.Get_Error_Text(999) == "unknown error 999"


def test_workload_and_memory(adwin):
    adwin.Workload()
    adwin.Set_Par(2, 50)
    adwin.Start_Process(1)
    adwin.dll.system.run_for_ns(1e6)
    # 500 ns of every microsecond, and the 50 ns or so of the rest of the program.
    assert 51 <= adwin.Workload() <= 58
    free = adwin.Free_Mem(5)
    adwin.Stop_Process(1)
    adwin.Clear_Process(1)
    assert adwin.Free_Mem(5) - free == 4 * (10 + 5 + 8) + 8 * (10 + 4)
    refused(15, adwin.Free_Mem, 4)


# --- processes -----------------------------------------------------------------------------


def test_the_life_of_a_process(adwin):
    system = adwin.dll.system
    assert adwin.Process_Status(1) == 0
    assert adwin.Get_Processdelay(1) == 1_000
    adwin.Set_Processdelay(1, 2_000)
    adwin.Start_Process(1)
    assert adwin.Process_Status(1) == 1
    system.run_for_ns(1e6)
    assert adwin.Get_Par(1) == 500 - 1
    adwin.Set_Processdelay(1, 500)
    system.run_for_ns(1e6)
    assert adwin.Get_Processdelay(1) == 500
    assert adwin.Get_Par(1) == pytest.approx(499 + 2_000, abs=3)
    adwin.Stop_Process(1)
    assert adwin.Process_Status(1) == 0
    adwin.Clear_Process(1)
    refused(15, adwin.Get_Processdelay, 1)
    refused(15, adwin.Start_Process, 1)
    assert adwin.Process_Status(1) == 0


def test_lost_events(adwin):
    adwin.Set_Par(2, 250)
    adwin.Start_Process(1)
    assert adwin.Get_Lost_Events(1) == 0
    adwin.dll.system.run_for_ns(1e6)
    lost = adwin.Get_Lost_Events(1)
    assert lost + adwin.Get_Par(1) == pytest.approx(999, abs=2)
    assert lost > 550
    with pytest.raises(ADwin.ADwinError, match="errorNumber 15"):
        booted("T11").Get_Lost_Events(1)
    refused(15, adwin.Set_Processdelay, 1, 0)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("program.TB1", 20),
        ("program.TC2", 203),
        ("program.bas", 203),
        ("other.TC1", 200),
        ("none/program.TC1", 200),
    ],
)
def test_wrong_binaries(tmp_path, name, number):
    write_source(tmp_path, BODY)
    refused(number, booted().Load_Process, str(tmp_path / name))


def test_process_ten_is_called_zero(tmp_path):
    write_source(tmp_path, BODY, number=10)
    adwin = booted()
    adwin.Load_Process(str(tmp_path / "PROGRAM.TC0"))
    adwin.Start_Process(10)
    assert adwin.Process_Status(10) == 1


def test_a_program_that_needs_too_much_memory(tmp_path):
    write_source(tmp_path, "DIM a[9000000] AS LONG AT EM_LOCAL\nINIT:\n  PAR_1 = 1\n")
    refused(150, booted("T11").Load_Process, str(tmp_path / "program.TB1"))


def test_a_wrong_source_is_named(tmp_path):
    write_source(tmp_path, "INIT:\n  PAR_1 = x\n")
    with pytest.raises(AdbasicError, match=r"program\.bas:8: x is not declared"):
        booted().Load_Process(str(tmp_path / "program.TC1"))


def test_a_program_of_the_laboratory_runs():
    adwin = booted("T11")
    adwin.Load_Process(str(PROGRAMS / "ticks.TB1"))
    adwin.Set_Par(2, 100)
    adwin.Start_Process(1)
    adwin.dll.system.run_for_ns(2e6)
    assert adwin.Get_Par(3) == 100
    assert list(adwin.GetData_Long(1, 99, 2))[1] - adwin.GetData_Long(1, 99, 1)[0] == 3_000


# --- PAR and FPAR --------------------------------------------------------------------------


@pytest.mark.parametrize("arrays", [False, True])
def test_pars(arrays):
    adwin = booted(use_numpy_arrays=arrays)
    for index in range(1, 81):
        adwin.Set_Par(index, -index)
        adwin.Set_FPar_Double(index, index / 7)
    assert adwin.Get_Par(80) == -80
    assert list(adwin.Get_Par_Block(3, 4)) == [-3, -4, -5, -6]
    assert list(adwin.Get_Par_All()) == [-index for index in range(1, 81)]
    assert adwin.Get_FPar(3) == np.float32(3 / 7)
    assert adwin.Get_FPar_Double(3) == 3 / 7
    assert list(adwin.Get_FPar_Block(3, 2)) == [np.float32(3 / 7), np.float32(4 / 7)]
    assert list(adwin.Get_FPar_Block_Double(3, 2)) == [3 / 7, 4 / 7]
    assert list(adwin.Get_FPar_All()) == [np.float32(index / 7) for index in range(1, 81)]
    assert list(adwin.Get_FPar_All_Double()) == [index / 7 for index in range(1, 81)]
    adwin.Set_FPar(3, 0.1)
    assert adwin.Get_FPar_Double(3) == np.float32(0.1)


def test_a_t11_keeps_floats_of_32_bits():
    adwin = booted("T11")
    adwin.Set_FPar_Double(1, 0.1)
    assert adwin.Get_FPar_Double(1) == np.float32(0.1)


def test_pars_outside_the_range(adwin):
    for call in (adwin.Get_Par, adwin.Get_FPar, adwin.Get_FPar_Double):
        refused(15, call, 0)
        refused(15, call, 81)
    refused(15, adwin.Set_Par, 81, 1)
    refused(15, adwin.Set_FPar, 81, 1)
    refused(15, adwin.Set_FPar_Double, 81, 1)
    refused(15, adwin.Get_Par_Block, 70, 12)
    refused(15, adwin.Get_FPar_Block, 0, 2)


# --- DATA ----------------------------------------------------------------------------------

KINDS = {
    "Byte": (np.int8, 127),
    "Short": (np.int16, 32_767),
    "Long": (np.int32, 2**31 - 1),
    "Int64": (np.int64, 2**31 - 1),
    "Float": (np.float32, 1e30),
    "Double": (np.float64, 1e30),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [1, 2])
def test_data_of_every_type(adwin, kind, number):
    dtype, _ = KINDS[kind]
    values = [1, -2, 3] if number == 1 else [1, -2, 100]
    getattr(adwin, f"SetData_{kind}")(values, number, 4, 3)
    assert adwin.dll.system.memory.elements(number)[4:7] == values
    assert list(getattr(adwin, f"GetData_{kind}")(number, 4, 3)) == values
    adwin.useNumpyArrays = True
    result = getattr(adwin, f"GetData_{kind}")(number, 4, 3)
    assert result.dtype == dtype
    assert result.tolist() == values


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=10), st.data())
def test_data_round_trip(values, data):
    adwin = ROUND_TRIP
    start = data.draw(st.integers(1, 11 - len(values)))
    adwin.SetData_Long(values, 1, start, len(values))
    assert list(adwin.GetData_Long(1, start, len(values))) == values
    assert list(adwin.GetData_Double(1, start, len(values))) == values
    low = np.array(values, np.int64).astype(np.int8).tolist()
    assert list(adwin.GetData_Byte(1, start, len(values))) == low


ROUND_TRIP = booted("T11")


@pytest.fixture(scope="module", autouse=True)
def load_round_trip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("round")
    write_source(folder, BODY)
    ROUND_TRIP.Load_Process(str(folder / "program.TB1"))


def test_floats_lose_their_fraction_in_a_long(adwin):
    adwin.SetData_Double([1.9, -1.9, float("nan"), 2.0**31], 1, 1, 4)
    assert adwin.dll.system.memory.elements(1)[1:5] == [1, -1, 0, -(2**31)]
    adwin.SetData_Double([1.9, -1.9], 2, 1, 2)
    assert list(adwin.GetData_Long(2, 1, 2)) == [1, -1]


def test_lengths_and_types(adwin):
    assert [adwin.Data_Length(number) for number in range(1, 7)] == [10, 10, 5, 8, 4, 0]
    assert adwin.Data_Type(1) == (4, "long")
    assert adwin.Data_Type(2) == (6, "float64")
    assert adwin.Data_Type(4) == (8, "string")
    assert adwin.Data_Type(6) == adwin.Data_Type(201) == (0, "undefined")
    assert ROUND_TRIP.Data_Type(1) == (3, "int32")
    assert ROUND_TRIP.Data_Type(2) == (5, "float32")


def test_data_outside_the_range(adwin):
    refused(100, adwin.GetData_Long, 1, 0, 1)
    refused(100, adwin.GetData_Long, 1, 8, 4)
    refused(100, adwin.GetData_Long, 6, 1, 1)
    refused(100, adwin.SetData_Long, [1, 2], 1, 10, 2)
    refused(100, adwin.GetData_Long, 3, 1, 1)


def test_reading_beyond_the_hosts_memory_is_caught(adwin):
    with pytest.raises(HardwareFault, match="3 values were asked of a buffer of 2"):
        adwin.SetData_Long([1, 2], 1, 1, 3)


@pytest.mark.parametrize("fifo", [False, True])
def test_without_numpy_the_wrapper_passes_ctypes(adwin, monkeypatch, fifo):
    monkeypatch.setattr(ADwin, "_isNumpyAvailable", False)
    for kind in KINDS:
        if fifo:
            getattr(adwin, f"SetFifo_{kind}")(5, [1, 2], 2)
            assert list(getattr(adwin, f"GetFifo_{kind}")(5, 2)) == [1, 2]
        else:
            getattr(adwin, f"SetData_{kind}")(array.array("b", [1, 2]), 1, 1, 2)
            assert list(getattr(adwin, f"GetData_{kind}")(1, 1, 2)) == [1, 2]
            getattr(adwin, f"SetData_{kind}")((ctypes.c_int32 * 2)(3, 4), 1, 1, 1)


def test_clear_data(adwin):
    adwin.SetData_Long([5] * 10, 1, 1, 10)
    adwin.SetFifo_Long(3, [1], 1)
    adwin.Clear_Data(1)
    adwin.Clear_Data(3)
    assert list(adwin.GetData_Long(1, 1, 10)) == [0] * 10
    assert adwin.Fifo_Full(3) == 0


# --- FIFO ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [3, 5])
def test_fifos_of_every_type(adwin, kind, number):
    length = adwin.Data_Length(number)
    assert (adwin.Fifo_Empty(number), adwin.Fifo_Full(number)) == (length, 0)
    getattr(adwin, f"SetFifo_{kind}")(number, [1, -2, 3], 3)
    assert (adwin.Fifo_Empty(number), adwin.Fifo_Full(number)) == (length - 3, 3)
    assert list(getattr(adwin, f"GetFifo_{kind}")(number, 2)) == [1, -2]
    adwin.useNumpyArrays = True
    assert getattr(adwin, f"GetFifo_{kind}")(number, 1).dtype == KINDS[kind][0]


def test_fifos_are_bounded(adwin):
    refused(101, adwin.SetFifo_Long, 3, [1] * 6, 6)
    refused(102, adwin.GetFifo_Long, 3, 1)
    refused(101, adwin.Fifo_Full, 1)
    adwin.SetFifo_Long(3, [1] * 5, 5)
    adwin.Fifo_Clear(3)
    assert adwin.Fifo_Empty(3) == 5


def test_a_process_fills_a_fifo(adwin):
    adwin.Start_Process(1)
    adwin.dll.system.run_for_ns(3_500)
    assert list(adwin.GetFifo_Long(3, adwin.Fifo_Full(3))) == [1, 2, 3]


# --- files, strings and the rest -----------------------------------------------------------


@pytest.mark.parametrize(("number", "kind"), [(1, 3), (2, 6)])
def test_files(adwin, tmp_path, number, kind):
    file = str(tmp_path / "data.bin")
    adwin.SetData_Double([1, 2, 3], number, 1, 3)
    adwin.Data2File(file, number, 1, 2, 0)
    adwin.Data2File(file, number, 3, 1, 1)
    adwin.File2Data(file, kind, number, 5)
    assert list(adwin.GetData_Double(number, 5, 3)) == [1, 2, 3]
    adwin.Data2File(file, number, 1, 1, 0)
    assert (tmp_path / "data.bin").stat().st_size == (4 if number == 1 else 8)
    refused(100, adwin.Data2File, file, 1, 1, 99, 0)
    refused(200, adwin.File2Data, file + "x", kind, number, 1)
    refused(100, adwin.File2Data, file, kind, 6, 1)
    refused(15, adwin.File2Data, file, 4, number, 1)
    adwin.DeviceNo = 3
    refused(11, adwin.File2Data, file, kind, number, 1)


def test_strings(adwin):
    adwin.SetData_String(4, "state")
    assert adwin.String_Length(4) == 5
    assert adwin.GetData_String(4, 20) == b"state"
    assert adwin.GetData_String(4, 3) == b"sta"
    adwin.SetData_String(4, "12345678")
    assert adwin.GetData_String(4, 8) == b"12345678"
    refused(100, adwin.SetData_String, 4, "123456789")
    refused(100, adwin.String_Length, 1)


def test_the_rest_of_the_wrapper(adwin):
    for flag in (True, False, 1, 0):
        adwin.SanitizeFloatingPointValues(flag)
    adwin.Inc_Retry_Counter()
    assert adwin.Get_Retry_Counter() == adwin.Get_Device_Retry_Counter(1) == 1
    adwin.Reset_Retry_Counter()
    assert adwin.Get_Retry_Counter() == 0
    adwin.Inc_Retry_Counter()
    adwin.Reset_Device_Retry_Counter()
    assert adwin.Get_Retry_Counter() == 0
    adwin.Set_GD_Transsize(4_000)
    assert adwin.Get_GD_Transsize() == 4_000
    refused(15, adwin.Set_GD_Transsize, 4_001)
    assert adwin.Get_Known_Deviceno() == []
