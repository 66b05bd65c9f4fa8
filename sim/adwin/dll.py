"""The vendor's library, simulated: what ``libadwin.so`` would be to the vendor's Python wrapper.

`SimulatedADwin` is the wrapper of the package ADwin itself, on a `SimulatedDll` instead of the
shared library (Linux and macOS names of its functions). The dll sees nothing but an
`AdwinSystem`. Loading ``X.TB1`` transpiles ``X.bas`` beside it, as a binary is processor code
that cannot run here; an error in the source is raised as `AdbasicError`, which says more than
an error number would. The numbers follow the vendor's list as far as it is known, and what is
reported when is assumed.

Time passes only in `AdwinSystem.run_for_ns` and its like, not while the host waits.
"""

from __future__ import annotations

import ctypes
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import ADwin
import numpy as np
from numpy.typing import NDArray

from sim.adwin.arithmetic import single, wrap
from sim.adwin.errors import HardwareFault
from sim.adwin.memory import DataArray, MemoryExceeded
from sim.adwin.options import LONG_MAX, Processor
from sim.adwin.process import Process
from sim.adwin.system import PROCESSES, AdwinSystem
from sim.adwin.transpiler import transpile_file
from sim.adwin.tree import Kind

NO_ERROR: Final = 0
TIMEOUT: Final = 1
DEVICE_UNKNOWN: Final = 11
NOT_ALLOWED: Final = 15
INCOMPATIBLE: Final = 20
DATA_TOO_SMALL: Final = 100
FIFO_TOO_SMALL: Final = 101
FIFO_TOO_EMPTY: Final = 102
NO_MEMORY: Final = 150
FILE_NOT_FOUND: Final = 200
INVALID_FILE: Final = 203

ERROR_TEXTS: Final = {
    NO_ERROR: "No Error",
    TIMEOUT: "The ADwin system does not answer; it has not been booted.",
    DEVICE_UNKNOWN: "The device number is not known.",
    NOT_ALLOWED: "The function does not exist for this device, or its argument is out of range.",
    INCOMPATIBLE: "The file is for another processor.",
    DATA_TOO_SMALL: "The DATA array does not exist or is too small.",
    FIFO_TOO_SMALL: "The FIFO does not exist or has too few free elements.",
    FIFO_TOO_EMPTY: "The FIFO has too few values.",
    NO_MEMORY: "Not enough memory.",
    FILE_NOT_FOUND: "File not found.",
    INVALID_FILE: "The file is not valid.",
}
"""Texts of this simulation for the error numbers it uses."""

_PROCESSOR_CODES: Final[dict[Processor, int]] = {"T11": 1011, "T12": 1012}
_BOOT_FILES: Final[dict[Processor, str]] = {"T11": "adwin11.btl", "T12": "adwin12.btl"}
_BINARY: Final[dict[Processor, str]] = {"T11": "B", "T12": "C"}
_LOST_EVENTS_PAR: Final = 29_000
_CTYPES: Final[dict[int, Any]] = {
    1: ctypes.c_int8,
    2: ctypes.c_int16,
    3: ctypes.c_int32,
    5: ctypes.c_float,
    6: ctypes.c_double,
    7: ctypes.c_int64,
}
_DATA_TYPES: Final = {Kind.LONG: 3, Kind.STRING: 8}
_MAX_TEXT_BYTES: Final = 255


class _Refused(Exception):
    """A call ends with an error number."""

    def __init__(self, number: int) -> None:
        self.number = number


class SimulatedDll:
    """The functions of the vendor's library, by the names the wrapper uses.

    Args:
        system: the simulated ADwin.
        device_number: under which the library knows it.
    """

    def __init__(self, system: AdwinSystem, device_number: int = 1) -> None:
        self.system = system
        self.device_number = device_number
        self.booted = False
        self._retries = 0
        self._transfer_bytes = 336
        calls: dict[str, tuple[Callable[..., Any], Any, int]] = {
            # Name: (method, value in case of an error, position of the device number).
            # The error cell is the argument behind the device number, or the last.
            "e_ADboot": (self._boot, 0, 1),
            "e_ADTest_Version": (self._test_version, 1, 0),
            "e_ADProzessorTyp": (self._processor_type, 0, 0),
            "e_AD_Workload": (self._workload, 0, 1),
            "e_AD_Memory_all_byte": (self._free_memory, 0, 1),
            "e_ADBload": (self._load, 255, 1),
            "e_ADB_Start": (self._start, 255, 1),
            "e_ADB_Stop": (self._stop, 255, 1),
            "e_Clear_Process": (self._clear_process, 255, 1),
            "e_Get_ADBPar": (self._get_par, 0, 1),
            "e_Set_ADBPar": (self._set_par, 255, 2),
            "e_Get_ADBPar_All": (self._get_pars, 255, 3),
            "e_Get_ADBFPar": (self._get_fpar_single, 0.0, 1),
            "e_Get_ADBFPar_Double": (self._get_fpar, 0.0, 1),
            "e_Set_ADBFPar": (self._set_fpar, 255, 2),
            "e_Set_ADBFPar_Double": (self._set_fpar, 255, 2),
            "e_Get_ADBFPar_All": (self._get_fpars, 255, 3),
            "e_Get_ADBFPar_All_Double": (self._get_fpars, 255, 3),
            "e_GetDataLength": (self._data_length, 0, 1),
            "e_Set_Data": (self._set_data, 255, 5),
            "e_Get_Data": (self._get_data, 255, 5),
            "e_Get_Fifo_Empty": (self._fifo_free, 0, 1),
            "e_Get_Fifo_Count": (self._fifo_count, 0, 1),
            "e_Clear_Fifo": (self._fifo_clear, 255, 1),
            "e_Set_Fifo": (self._set_fifo, 255, 4),
            "e_Get_Fifo": (self._get_fifo, 255, 4),
            "e_SaveFast": (self._save_data, 255, 5),
            "e_Get_Data_String_Length": (self._string_length, 0, 1),
            "e_Set_Data_String": (self._set_string, 255, 2),
            "e_Get_Data_String": (self._get_string, 255, 3),
            "Clear_Data": (self._clear_data, 255, 1),
            "e_Set_GD_Transsize": (self._set_transfer_bytes, 255, 1),
            "e_Get_GD_Transsize": (self._get_transfer_bytes, 0, 0),
        }
        for name, (method, failed, position) in calls.items():
            setattr(self, name, self._function(method, failed, position))
        # Those of the library that have no error cell.
        plain: dict[str, Callable[..., Any]] = {
            "adwin_get_data_type": self._data_type,
            "ADGetErrorText": self._error_text,
            "File2Data": self._load_data,
            "SanitizeFloatingPointValues": lambda flag: None,
            "getRetryCounter": lambda: self._retries,
            "incRetryCounter": self._retry,
            "resetRetryCounter": self._reset_retries,
            "getDeviceRetryCounter": lambda device: self._retries,
            "resetDeviceRetryCounter": lambda device: self._reset_retries(),
        }
        for name, method in plain.items():
            setattr(self, name, _plain_function(method))

    def _function(
        self, method: Callable[..., Any], failed: Any, position: int
    ) -> Callable[..., Any]:
        """A function as the library has it: with a device number and a cell for the error."""

        def function(*arguments: Any) -> Any:
            device, cell = arguments[position], arguments[-1]
            cell[0] = NO_ERROR
            try:
                if device != self.device_number:
                    raise _Refused(DEVICE_UNKNOWN)
                return method(*arguments[:position])
            except _Refused as refused:
                cell[0] = refused.number
                return failed

        return function

    # --- the system ---------------------------------------------------------------------

    def _boot(self, file: bytes) -> int:
        name = re.split(r"[/\\]", file.decode())[-1].lower()
        if name != _BOOT_FILES[self.system.model.name]:
            known = name in _BOOT_FILES.values()
            raise _Refused(INCOMPATIBLE if known else INVALID_FILE)
        self.system.reset()
        self.booted = True
        return 8_000

    def _test_version(self) -> int:
        return 0 if self.booted else 1

    def _processor_type(self) -> int:
        return _PROCESSOR_CODES[self.system.model.name]

    def _workload(self, priority: int) -> int:
        return self._ready().workload()

    def _free_memory(self, memory: int) -> int:
        system = self._ready()
        if memory not in system.model.memory_bytes:
            raise _Refused(NOT_ALLOWED)
        return system.memory.free(memory)

    def _ready(self) -> AdwinSystem:
        if not self.booted:
            raise _Refused(TIMEOUT)
        return self.system

    # --- processes ----------------------------------------------------------------------

    def _load(self, file: bytes) -> int:
        system = self._ready()
        path = Path(file.decode())
        binary = re.fullmatch(r"\.T(.)(\d)", path.suffix.upper())
        if binary is None:
            raise _Refused(INVALID_FILE)
        if binary[1] != _BINARY[system.model.name]:
            raise _Refused(INCOMPATIBLE)
        wanted = path.with_suffix(".bas").name.lower()
        beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
        sources = [source for source in beside if source.name.lower() == wanted]
        if not sources:
            raise _Refused(FILE_NOT_FOUND)
        program = transpile_file(sources[0], system.model)
        if program.number % 10 != int(binary[2]):
            raise _Refused(INVALID_FILE)
        try:
            system.load(program)
        except MemoryExceeded as error:
            raise _Refused(NO_MEMORY) from error
        return 1

    def _start(self, number: int) -> int:
        self._process(number)
        self.system.start(number)
        return 0

    def _stop(self, number: int) -> int:
        self._process(number)
        self.system.stop(number)
        return 0

    def _clear_process(self, number: int) -> int:
        self._process(number)
        self.system.clear(number)
        return 0

    def _process(self, number: int) -> Process:
        process = self._ready().processes.get(number)
        if process is None:
            raise _Refused(NOT_ALLOWED)
        return process

    # --- PAR and FPAR -------------------------------------------------------------------

    def _get_par(self, index: int) -> int:
        # Negative numbers and those from 29000 are not PARs but properties of processes.
        if index + 100 in PROCESSES:
            process = self._ready().processes.get(index + 100)
            return int(process is not None and process.running)
        if index + 90 in PROCESSES:
            return self._process(index + 90).delay
        if index - _LOST_EVENTS_PAR in PROCESSES and self.system.model.name != "T11":
            return min(LONG_MAX, self._process(index - _LOST_EVENTS_PAR).lost_events)
        return self._ready().memory.par[_par_index(index)]

    def _set_par(self, index: int, value: int) -> int:
        if index + 90 in PROCESSES:
            if value < 1:
                raise _Refused(NOT_ALLOWED)
            self._process(index + 90).delay = value
        else:
            self._ready().memory.par[_par_index(index)] = wrap(int(value))
        return 0

    def _get_pars(self, start: int, count: int, buffer: Any) -> int:
        return self._copy(self._ready().memory.par, start, count, buffer)

    def _get_fpar(self, index: int) -> float:
        return float(self._ready().memory.fpar[_par_index(index)])

    def _get_fpar_single(self, index: int) -> float:
        return single(self._get_fpar(index))

    def _set_fpar(self, index: int, value: Any) -> int:
        wide = self.system.model.semantics.float_bits == 64
        number = float(value.value)
        self._ready().memory.fpar[_par_index(index)] = number if wide else single(number)
        return 0

    def _get_fpars(self, start: int, count: int, buffer: Any) -> int:
        return self._copy(self._ready().memory.fpar, start, count, buffer)

    def _copy(self, values: list[Any], start: int, count: int, buffer: Any) -> int:
        if count < 1:
            raise _Refused(NOT_ALLOWED)
        _par_index(start)
        _par_index(start + count - 1)
        buffer[:count] = values[start : start + count]
        return 0

    # --- DATA ---------------------------------------------------------------------------

    def _array(self, number: int, fifo: bool = False) -> DataArray:
        array = self._ready().memory.data.get(number)
        if array is None or array.shape.fifo is not fifo:
            raise _Refused(FIFO_TOO_SMALL if fifo else DATA_TOO_SMALL)
        return array

    def _elements(self, number: int, start: int, count: int) -> tuple[DataArray, list[Any]]:
        array = self._array(number)
        if start < 1 or count < 1 or start + count - 1 > array.shape.length:
            raise _Refused(DATA_TOO_SMALL)
        assert isinstance(array.values, list)
        return array, array.values

    def _data_length(self, number: int) -> int:
        array = self._ready().memory.data.get(number)
        return array.shape.length if array else 0

    def _data_type(self, number: int, device: int) -> int:
        array = self.system.memory.data.get(number)
        if array is None or device != self.device_number:
            return 0
        wide = self.system.model.semantics.float_bits == 64
        return _DATA_TYPES.get(array.shape.kind, 6 if wide else 5)

    def _set_data(self, pointer: Any, kind: int, number: int, start: int, count: int) -> int:
        array, values = self._elements(number, start, count)
        values[start : start + count] = self._stored(array, _view(pointer, kind, count))
        return 0

    def _get_data(self, pointer: Any, kind: int, number: int, start: int, count: int) -> int:
        _, values = self._elements(number, start, count)
        _assign(_view(pointer, kind, count), values[start : start + count])
        return 0

    def _clear_data(self, number: int) -> int:
        array = self._ready().memory.data.get(number)
        if array is None:
            raise _Refused(DATA_TOO_SMALL)
        if isinstance(array.values, deque):
            array.values.clear()
        else:
            zero = 0.0 if array.shape.kind is Kind.FLOAT else 0
            array.values[1:] = [zero] * array.shape.length
        return 0

    def _stored(self, array: DataArray, values: NDArray[Any]) -> list[Any]:
        """Numbers from the host as an array keeps them."""
        if array.shape.kind is not Kind.FLOAT:
            if np.issubdtype(values.dtype, np.floating):
                values = np.trunc(np.nan_to_num(values))
            return [wrap(int(value)) for value in values.tolist()]
        if self.system.model.semantics.float_bits == 32:
            with np.errstate(over="ignore"):
                values = values.astype(np.float32)
        return [float(value) for value in values.tolist()]

    # --- FIFO ---------------------------------------------------------------------------

    def _queue(self, number: int) -> tuple[DataArray, deque[Any]]:
        array = self._array(number, fifo=True)
        assert isinstance(array.values, deque)
        return array, array.values

    def _fifo_free(self, number: int) -> int:
        array, queue = self._queue(number)
        return array.shape.length - len(queue)

    def _fifo_count(self, number: int) -> int:
        return len(self._queue(number)[1])

    def _fifo_clear(self, number: int) -> int:
        self._queue(number)[1].clear()
        return 0

    def _set_fifo(self, pointer: Any, kind: int, number: int, count: int) -> int:
        array, queue = self._queue(number)
        if not 1 <= count <= array.shape.length - len(queue):
            raise _Refused(FIFO_TOO_SMALL)
        queue.extend(self._stored(array, _view(pointer, kind, count)))
        return 0

    def _get_fifo(self, pointer: Any, kind: int, number: int, count: int) -> int:
        _, queue = self._queue(number)
        if not 1 <= count <= len(queue):
            raise _Refused(FIFO_TOO_EMPTY)
        _assign(_view(pointer, kind, count), [queue.popleft() for _ in range(count)])
        return 0

    # --- files and strings --------------------------------------------------------------

    def _save_data(self, file: bytes, number: int, start: int, count: int, mode: int) -> int:
        _, values = self._elements(number, start, count)
        kind = self._data_type(number, self.device_number)
        content = np.array(values[start : start + count], dtype=_CTYPES.get(kind, ctypes.c_int32))
        with Path(file.decode()).open("ab" if mode else "wb") as output:
            output.write(content.tobytes())
        return 0

    def _load_data(self, file: bytes, kind: int, number: int, start: int, device: int) -> int:
        """Fill an array from a file; the result is the error number."""
        path = Path(file.decode())
        if device != self.device_number:
            return DEVICE_UNKNOWN
        if kind not in _CTYPES:
            return NOT_ALLOWED
        if not path.is_file():
            return FILE_NOT_FOUND
        width = ctypes.sizeof(_CTYPES[kind])
        count = path.stat().st_size // width
        try:
            array, values = self._elements(number, start, count)
        except _Refused as refused:
            return refused.number
        content = np.frombuffer(path.read_bytes()[: count * width], dtype=_CTYPES[kind])
        values[start : start + count] = self._stored(array, content)
        return NO_ERROR

    def _string(self, number: int) -> list[Any]:
        array = self._array(number)
        if array.shape.kind is not Kind.STRING:
            raise _Refused(DATA_TOO_SMALL)
        assert isinstance(array.values, list)
        return array.values

    def _string_length(self, number: int) -> int:
        values = self._string(number)[1:]
        return values.index(0) if 0 in values else len(values)

    def _set_string(self, text: bytes, number: int) -> int:
        values = self._string(number)
        if len(text) > len(values) - 1:
            raise _Refused(DATA_TOO_SMALL)
        values[1:] = [*text, *[0] * (len(values) - 1 - len(text))]
        return 0

    def _get_string(self, buffer: Any, size: int, number: int) -> int:
        length = min(self._string_length(number), size - 1)
        buffer.value = bytes(self._string(number)[1 : 1 + length])
        return length

    # --- the library itself -------------------------------------------------------------

    def _error_text(self, number: int, pointer: Any, size: int) -> int:
        text = ERROR_TEXTS.get(number, f"unknown error {number}")
        # The wrapper passes `byref` of its buffer, which keeps the buffer under this name.
        pointer._obj.value = text.encode()[: min(size - 1, _MAX_TEXT_BYTES)]
        return 0

    def _retry(self) -> None:
        self._retries += 1

    def _reset_retries(self) -> None:
        self._retries = 0

    def _set_transfer_bytes(self, size: int) -> int:
        if not 1 <= size <= 4_000:
            raise _Refused(NOT_ALLOWED)
        self._transfer_bytes = size
        return 0

    def _get_transfer_bytes(self) -> int:
        return self._transfer_bytes


class SimulatedADwin(ADwin.ADwin):  # type: ignore[misc]
    """The vendor's wrapper on a simulated ADwin instead of the shared library.

    Args:
        system: the simulated ADwin.
        device_number: the number it has at the library.
        raise_exceptions: as the wrapper's argument raiseExceptions.
        use_numpy_arrays: as the wrapper's argument useNumpyArrays.
    """

    def __init__(
        self,
        system: AdwinSystem,
        device_number: int = 1,
        raise_exceptions: bool = True,
        use_numpy_arrays: bool = False,
    ) -> None:
        # Deliberately without the wrapper's own initialisation: it opens the shared library.
        self.version = ADwin.version
        self.ADwindir = ""
        self.dll = SimulatedDll(system, device_number)
        self.raiseExceptions = raise_exceptions
        self.DeviceNo = device_number
        self.useNumpyArrays = use_numpy_arrays


def _plain_function(method: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function, whose attribute `restype` the wrapper can set; a method has none."""

    def function(*arguments: Any) -> Any:
        return method(*arguments)

    return function


def _par_index(index: int) -> int:
    if not 1 <= index <= 80:
        raise _Refused(NOT_ALLOWED)
    return index


def _view(pointer: Any, kind: int, count: int) -> NDArray[Any]:
    """The host's memory behind a pointer, shape (count,).

    Raises:
        HardwareFault: it is shorter than that; the real library would go beyond its end.
    """
    if kind not in _CTYPES:
        raise _Refused(NOT_ALLOWED)
    owner = getattr(pointer, "_arr", pointer)  # set by numpy, or an array of ctypes itself
    size = owner.size if isinstance(owner, np.ndarray) else len(owner)
    if count > size:
        raise HardwareFault(
            f"{count} values were asked of a buffer of {size}; the real library would read or "
            "write beyond its end"
        )
    typed = ctypes.cast(pointer, ctypes.POINTER(_CTYPES[kind]))
    return np.ctypeslib.as_array(typed, (count,))


def _assign(view: NDArray[Any], values: list[Any]) -> None:
    """Write numbers to the host's memory in its type; integers keep their low bits."""
    numbers = np.array(values)
    if np.issubdtype(view.dtype, np.integer) and np.issubdtype(numbers.dtype, np.floating):
        numbers = np.trunc(np.nan_to_num(numbers)).astype(np.int64)
    with np.errstate(over="ignore"):
        view[:] = numbers.astype(view.dtype)
