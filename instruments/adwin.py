"""QCoDeS driver of the ADwin-Pro II, over the vendor's Python wrapper.

The wrapper (package ADwin) is handed in, so that the driver is the same on hardware, on a
simulated ADwin and on a mock: `open_library` makes the real one. The driver adds what the
wrapper leaves out: every index and count is checked before it goes to the vendor's library,
which writes beyond the end of a buffer otherwise; one lock, because all wrappers of a process
share one error cell; and errors that say what to do.

Limits of PAR, FPAR, DATA and processes: ADbasic manual. Not verified on hardware.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from threading import RLock
from typing import Any, ClassVar, Final, Literal

import ADwin
import numpy as np
from numpy.typing import NDArray
from qcodes.instrument import ChannelTuple, Instrument, InstrumentChannel
from qcodes.parameters import Parameter
from qcodes.validators import Ints, Numbers

from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentInUse,
    InstrumentNotReady,
    InstrumentUnavailable,
)
from instruments.ownership import Ownership

PARS: Final = 80
"""PAR and FPAR go from 1 to this number."""
DATA_ARRAYS: Final = 200
PROCESSES: Final = 10
LONG_MIN: Final = -(2**31)
LONG_MAX: Final = 2**31 - 1
MAX_TRANSFER: Final = 50_000_000
"""Bound on the elements of one transfer (assumed: several times what a T11 can hold)."""

Processor = Literal["T11", "T12", "T12.1"]
BOOT_FILES: Final[dict[Processor, str]] = {
    "T11": "ADwin11.btl",
    "T12": "ADwin12.btl",
    "T12.1": "ADwin121.btl",
}
"""Operating system of each processor, in the vendor's directory."""
BINARY_SUFFIXES: Final[dict[Processor, str]] = {"T11": ".TB", "T12": ".TC", "T12.1": ".TC1"}
"""How the vendor's compiler ends a file name, before the last digit of the process number."""

MEMORIES: Final[dict[Processor, dict[str, int]]] = {
    "T11": {"pm_local": 1, "em_local": 2, "dm_local": 3, "dram_extern": 4},
    "T12": {"cacheable": 5},
    "T12.1": {"cacheable": 5},
}
"""Kinds of memory of each processor, and their numbers for Free_Mem."""

STATES: Final = {"stopped": 0, "running": 1, "stopping": -1}

_FILE_NOT_FOUND: Final = 200
_LIBRARY_HELP: Final = (
    "Install the ADwin software for Linux from the vendor (libadwin.so, and its directory in "
    "/etc/adwin/ADWINDIR), and configure the device number with adconfig."
)


def open_library(device_number: int = 1) -> ADwin.ADwin:
    """The vendor's wrapper on the vendor's library.

    Args:
        device_number: as configured with the vendor's tool adconfig.

    Raises:
        InstrumentUnavailable: the library is not installed.
    """
    try:
        return ADwin.ADwin(DeviceNo=device_number, raiseExceptions=True, useNumpyArrays=True)
    except ADwin.ADwinError as error:
        raise InstrumentUnavailable(
            f"ADwin device {device_number}: {error.errorText} {_LIBRARY_HELP}"
        ) from error


class AdwinProcess(InstrumentChannel):
    """One of the ten processes.

    Args:
        parent: the ADwin.
        name: of the submodule.
        number: 1 to 10.
    """

    def __init__(self, parent: AdwinProII, name: str, number: int) -> None:
        super().__init__(parent, name)
        self.number = number
        self._adwin = parent
        self.loaded: str | None = None
        self.file: Parameter = self.add_parameter(
            "file", get_cmd=lambda: self.loaded, docstring="binary that this driver has loaded"
        )
        self.status: Parameter = self.add_parameter(
            "status",
            get_cmd=lambda: parent.call("Process_Status", number),
            val_mapping=STATES,
            docstring="whether the process runs",
        )
        self.processdelay: Parameter = self.add_parameter(
            "processdelay",
            get_cmd=self._get_processdelay,
            set_cmd=self._set_processdelay,
            unit="cycles",
            vals=Ints(1, LONG_MAX),
            docstring="time between two events, in cycles of the processor (T11: 1/300 us)",
        )
        self.lost_events: Parameter = self.add_parameter(
            "lost_events",
            get_cmd=self._get_lost_events,
            docstring="events that came too early to be served; None on a T11, which cannot tell",
        )

    def load(self, file: str | PurePath) -> None:
        """Load a binary that the vendor's ADbasic compiler has made.

        Raises:
            ConfigurationRefused: it is for another processor or process, by its name.
            InstrumentUnavailable: there is no such file.
            DeviceRefused: the ADwin does not take it.
        """
        path = PurePath(file)
        wanted = BINARY_SUFFIXES[self._adwin.processor_type] + str(self.number % 10)
        if path.suffix.upper() != wanted:
            raise ConfigurationRefused(
                f"{self.full_name}: {path.name} is not a binary for process {self.number} of a "
                f"{self._adwin.processor_type}, whose name would end in {wanted}; compile it for "
                "that, or load it as the process it is for"
            )
        self._adwin.require_booted()
        try:
            self._adwin.call("Load_Process", str(path))
        except DeviceRefused as error:
            cause = error.__cause__
            if isinstance(cause, ADwin.ADwinError) and cause.errorNumber == _FILE_NOT_FOUND:
                raise InstrumentUnavailable(
                    f"{self.full_name}: there is no {path}; compile {path.stem}.bas with the "
                    "vendor's ADbasic compiler, or correct the path"
                ) from error
            raise
        self.loaded = str(path)

    def start(self) -> None:
        """Start the loaded process.

        Raises:
            InstrumentNotReady: this driver has not loaded it.
        """
        self._require_loaded()
        self._adwin.call("Start_Process", self.number)

    def stop(self) -> None:
        """Ask the process to stop after the event at hand; `wait_until_stopped` waits for it.

        Raises:
            InstrumentNotReady: this driver has not loaded it.
        """
        self._require_loaded()
        self._adwin.call("Stop_Process", self.number)

    def clear(self) -> None:
        """Remove the process from the ADwin's memory; it must have stopped.

        Raises:
            InstrumentNotReady: this driver has not loaded it, or it runs.
        """
        self._require_loaded()
        if self.status.get() != "stopped":
            raise InstrumentNotReady(f"{self.full_name} runs; stop it before clearing it")
        self._adwin.call("Clear_Process", self.number)
        self.loaded = None

    def wait_until_stopped(
        self,
        timeout_s: float,
        poll_s: float = 0.01,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wait until the process has ended.

        Args:
            timeout_s: how long to wait at most.
            poll_s: time between two questions.
            sleep: lets time pass; for a simulated ADwin, its virtual time.
            clock: tells the time in seconds.

        Raises:
            DeviceRefused: it still runs after that time.
        """
        deadline = clock() + timeout_s
        while self.status.get() != "stopped":
            if clock() >= deadline:
                raise DeviceRefused(
                    f"{self.full_name} still runs after {timeout_s} s; stop it, or allow more time"
                )
            sleep(poll_s)

    def _require_loaded(self) -> None:
        if self.loaded is None:
            raise InstrumentNotReady(f"{self.full_name}: load a binary first")

    def _get_processdelay(self) -> int | None:
        if self.loaded is None:
            return None
        return int(self._adwin.call("Get_Processdelay", self.number))

    def _set_processdelay(self, cycles: int) -> None:
        self._require_loaded()
        self._adwin.call("Set_Processdelay", self.number, cycles)

    def _get_lost_events(self) -> int | None:
        if self.loaded is None or self._adwin.processor_type == "T11":
            return None
        return int(self._adwin.call("Get_Lost_Events", self.number))


class AdwinProII(Instrument):
    """An ADwin-Pro II.

    Args:
        name: of the QCoDeS instrument.
        wrapper: the vendor's wrapper, real or simulated; None for the vendor's library on the
            device of that number (`open_library`).
        processor: which processor it must have.
        device_number: as configured with the vendor's tool; names the instrument's owner.
        lock_directory: see `Ownership`.
        **kwargs: for `qcodes.Instrument`.

    Attributes:
        processes: the ten processes; `processes[0]` is process 1. Also `process_1` and so on.
        processor_type: which processor it has.

    Raises:
        InstrumentInUse: this computer has opened the same device already.
        InstrumentUnavailable: the vendor's library is not installed.
        IncompatibleInstrument: the ADwin has another processor.
        DeviceRefused: the ADwin does not answer.
    """

    # The wrapper keeps the number of the last error in one cell for the whole process.
    _lock: ClassVar[RLock] = RLock()

    def __init__(
        self,
        name: str,
        wrapper: ADwin.ADwin | None = None,
        *,
        processor: Processor = "T12",
        device_number: int = 1,
        lock_directory: Path | None = None,
        **kwargs: Any,
    ) -> None:
        if self.exist(name):
            raise InstrumentInUse(f"there is a QCoDeS instrument {name!r} already; close it first")
        self._ownership = Ownership(f"adwin-{device_number}", lock_directory)
        try:
            super().__init__(name, **kwargs)
            self._wrapper = open_library(device_number) if wrapper is None else wrapper
            self.device_number = device_number
            self.processor_type: Processor = processor
            found = self.call("Processor_Type")
            if found != processor:
                raise IncompatibleInstrument(
                    f"{name}: the processor of ADwin device {device_number} is a {found}, not a "
                    f"{processor}; correct the configuration or the device number"
                )
            self._add_parameters()
        except BaseException:
            self._ownership.release()
            raise

    def _add_parameters(self) -> None:
        self.booted: Parameter = self.add_parameter(
            "booted",
            get_cmd=self._is_booted,
            docstring="whether the operating system for this processor has been loaded",
        )
        self.workload: Parameter = self.add_parameter(
            "workload",
            get_cmd=lambda: self._if_booted("Workload"),
            unit="%",
            docstring="share of the processor's time in use; None before booting",
        )
        for memory, number in MEMORIES[self.processor_type].items():
            self.add_parameter(
                f"free_{memory}",
                get_cmd=lambda number=number: self._if_booted("Free_Mem", number),
                unit="B",
                docstring=f"free memory of kind {memory.upper()}; None before booting",
            )
        self.pars: Parameter = self.add_parameter(
            "pars",
            get_cmd=lambda: self._all_if_booted("Get_Par_All"),
            docstring=f"PAR_1 to PAR_{PARS}, at the indices 0 to {PARS - 1}; None before booting",
        )
        self.fpars: Parameter = self.add_parameter(
            "fpars",
            get_cmd=lambda: self._all_if_booted("Get_FPar_All_Double"),
            docstring=f"FPAR_1 to FPAR_{PARS}, at the indices 0 to {PARS - 1}; None before booting",
        )
        numbers = range(1, PROCESSES + 1)
        channels = [AdwinProcess(self, f"process_{number}", number) for number in numbers]
        for channel in channels:
            self.add_submodule(channel.short_name, channel)
        self.processes: ChannelTuple[AdwinProcess] = ChannelTuple(
            self, "processes", AdwinProcess, channels
        )

    def close(self) -> None:
        """Close the instrument; the ADwin itself goes on with what it is doing."""
        # QCoDeS empties the object when it closes it, and may close it twice.
        ownership: Ownership | None = self.__dict__.get("_ownership")
        super().close()
        if ownership is not None:
            ownership.release()

    def get_idn(self) -> dict[str, str | None]:
        """Vendor, model, device number and version of the vendor's wrapper."""
        return {
            "vendor": "Jäger Messtechnik",
            "model": f"ADwin-Pro II {self.processor_type}",
            "serial": str(self.device_number),
            "firmware": f"wrapper {self._wrapper.version}",
        }

    # --- calls to the library -------------------------------------------------------------

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the vendor's wrapper, one at a time in the whole process.

        Its arguments are not checked: prefer the methods and parameters of this class.

        Raises:
            DeviceRefused: the library reports an error.
        """
        with self._exclusive(function, arguments):
            return getattr(self._wrapper, function)(*arguments)

    @contextmanager
    def _exclusive(self, function: str, arguments: Sequence[Any]) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except ADwin.ADwinError as error:
                shown = ", ".join(
                    f"<{len(argument)} values>"
                    if isinstance(argument, np.ndarray)
                    else str(argument)
                    for argument in arguments
                )
                raise DeviceRefused(
                    f"{self.name}: {function}({shown}) failed with error {error.errorNumber}: "
                    f"{error.errorText}"
                ) from error

    def _is_booted(self) -> bool:
        return bool(self.call("Test_Version") == 0)

    def _if_booted(self, function: str, *arguments: Any) -> Any:
        return self.call(function, *arguments) if self._is_booted() else None

    def _all_if_booted(self, function: str) -> list[Any] | None:
        return _listed(self.call(function)) if self._is_booted() else None

    def require_booted(self) -> None:
        """Make sure that the ADwin's operating system runs.

        Raises:
            InstrumentNotReady: it does not.
        """
        if not self._is_booted():
            raise InstrumentNotReady(
                f"{self.name}: ADwin device {self.device_number} has no operating system for a "
                f"{self.processor_type} running; call boot() first"
            )

    def boot(self, file: str | PurePath | None = None) -> None:
        """Load the operating system; this stops and forgets all processes and data.

        Args:
            file: the ``.btl`` file; None for the one of this processor that the vendor installs.

        Raises:
            ConfigurationRefused: the file is for another processor, by its name.
            InstrumentUnavailable: there is no such file.
            DeviceRefused: the ADwin does not take it.
            InstrumentNotReady: it took the file and still does not run.
        """
        name = BOOT_FILES[self.processor_type]
        path = PurePath(file) if file is not None else PurePath(self._wrapper.ADwindir) / name
        if path.name.lower() != name.lower():
            raise ConfigurationRefused(
                f"{self.name}: {path.name} is not the operating system of a "
                f"{self.processor_type}; boot {name}"
            )
        try:
            self.call("Boot", str(path))
        except DeviceRefused as error:
            cause = error.__cause__
            if isinstance(cause, ADwin.ADwinError) and cause.errorNumber == _FILE_NOT_FOUND:
                raise InstrumentUnavailable(
                    f"{self.name}: there is no {path}. {_LIBRARY_HELP}"
                ) from error
            raise
        for process in self.processes:
            process.loaded = None
        self.require_booted()

    # --- PAR and FPAR -----------------------------------------------------------------------

    def get_par(self, index: int) -> int:
        """PAR_index.

        Raises:
            ConfigurationRefused: there is no such PAR.
        """
        return int(self.call("Get_Par", self._checked("PAR", index, PARS)))

    def set_par(self, index: int, value: int) -> None:
        """Set PAR_index to an integer of 32 bits.

        Raises:
            ConfigurationRefused: there is no such PAR, or the value does not fit.
        """
        if not isinstance(value, int | np.integer) or not LONG_MIN <= value <= LONG_MAX:
            raise ConfigurationRefused(
                f"{self.name}: PAR_{index} = {value!r} is not a 32-bit integer"
            )
        self.call("Set_Par", self._checked("PAR", index, PARS), int(value))

    def get_fpar(self, index: int) -> float:
        """FPAR_index; a T11 keeps 32 bits of it.

        Raises:
            ConfigurationRefused: there is no such FPAR.
        """
        return float(self.call("Get_FPar_Double", self._checked("FPAR", index, PARS)))

    def set_fpar(self, index: int, value: float) -> None:
        """Set FPAR_index; a T11 keeps 32 bits of it.

        Raises:
            ConfigurationRefused: there is no such FPAR.
        """
        self.call("Set_FPar_Double", self._checked("FPAR", index, PARS), float(value))

    def add_par(self, name: str, index: int, **kwargs: Any) -> Parameter:
        """A QCoDeS parameter for one PAR, with `kwargs` such as label, unit, vals and docstring."""
        self._checked("PAR", index, PARS)
        kwargs.setdefault("vals", Ints(LONG_MIN, LONG_MAX))
        return self.add_parameter(
            name,
            get_cmd=lambda: self.get_par(index),
            set_cmd=lambda value: self.set_par(index, value),
            **kwargs,
        )

    def add_fpar(self, name: str, index: int, **kwargs: Any) -> Parameter:
        """A QCoDeS parameter for one FPAR; see `add_par`."""
        self._checked("FPAR", index, PARS)
        kwargs.setdefault("vals", Numbers())
        return self.add_parameter(
            name,
            get_cmd=lambda: self.get_fpar(index),
            set_cmd=lambda value: self.set_fpar(index, value),
            **kwargs,
        )

    def add_data_element(self, name: str, number: int, index: int, **kwargs: Any) -> Parameter:
        """A QCoDeS parameter for one element of a DATA array; see `add_par`."""
        self._checked("DATA", number, DATA_ARRAYS)
        return self.add_parameter(
            name,
            get_cmd=lambda: _listed(self.get_data(number, index, 1))[0],
            set_cmd=lambda value: self.set_data(number, [value], index),
            **kwargs,
        )

    # --- DATA and FIFO ----------------------------------------------------------------------

    def data_length(self, number: int) -> int:
        """Number of elements of a DATA array or FIFO; 0 if no process declares it.

        Raises:
            ConfigurationRefused: there is no such array.
        """
        return int(self.call("Data_Length", self._checked("DATA", number, DATA_ARRAYS)))

    def get_data(self, number: int, start: int = 1, count: int | None = None) -> NDArray[Any]:
        """Elements of a DATA array, shape (count,): int32, or float64 for FLOAT.

        Args:
            number: of the array.
            start: first element, counted from 1.
            count: how many; None for all from there.

        Raises:
            ConfigurationRefused: the array is shorter than that.
        """
        with self._lock:
            count = self._checked_range(number, start, count)
            function = "GetData_Double" if self._is_float(number) else "GetData_Long"
            values = self.call(function, number, start, count)
        return np.array(values, dtype=np.float64 if function == "GetData_Double" else np.int32)

    def set_data(self, number: int, values: Sequence[float] | NDArray[Any], start: int = 1) -> None:
        """Set elements of a DATA array.

        Args:
            number: of the array.
            values: shape (count,); integers of 32 bits unless the array is FLOAT.
            start: first element, counted from 1.

        Raises:
            ConfigurationRefused: the array is shorter than that, or is LONG and a value is not.
        """
        with self._lock:
            content = self._content(number, values)
            self._checked_range(number, start, len(content))
            function = "SetData_Double" if content.dtype == np.float64 else "SetData_Long"
            self.call(function, content, number, start, len(content))

    def fifo_used(self, number: int) -> int:
        """How many values wait in a FIFO.

        Raises:
            ConfigurationRefused: there is no such array.
        """
        return int(self.call("Fifo_Full", self._checked("DATA", number, DATA_ARRAYS)))

    def get_fifo(self, number: int, count: int | None = None) -> NDArray[Any]:
        """Take the oldest values from a FIFO, shape (count,): int32, or float64 for FLOAT.

        Args:
            number: of the array.
            count: how many; None for all that are there.

        Raises:
            ConfigurationRefused: there are fewer.
        """
        with self._lock:
            used = self.fifo_used(number)
            count = used if count is None else count
            if not 0 <= count <= min(used, MAX_TRANSFER):
                raise ConfigurationRefused(
                    f"{self.name}: {count} values asked of FIFO {number}, which holds {used}"
                )
            is_float = self._is_float(number)
            function = "GetFifo_Double" if is_float else "GetFifo_Long"
            values = self.call(function, number, count) if count else []
        return np.array(values, dtype=np.float64 if is_float else np.int32)

    def set_fifo(self, number: int, values: Sequence[float] | NDArray[Any]) -> None:
        """Put values into a FIFO.

        Raises:
            ConfigurationRefused: there is not so much room, or it is LONG and a value is not.
        """
        with self._lock:
            content = self._content(number, values)
            free = int(self.call("Fifo_Empty", number))
            if len(content) > free:
                raise ConfigurationRefused(
                    f"{self.name}: {len(content)} values for FIFO {number} with room for {free}"
                )
            function = "SetFifo_Double" if content.dtype == np.float64 else "SetFifo_Long"
            if len(content):
                self.call(function, number, content, len(content))

    def clear_fifo(self, number: int) -> None:
        """Empty a FIFO.

        Raises:
            ConfigurationRefused: there is no such array.
        """
        self.call("Fifo_Clear", self._checked("DATA", number, DATA_ARRAYS))

    # --- checks -----------------------------------------------------------------------------

    def _checked(self, what: str, index: int, most: int) -> int:
        if not isinstance(index, int | np.integer) or not 1 <= index <= most:
            raise ConfigurationRefused(
                f"{self.name}: {what}_{index} does not exist; 1 to {most} do"
            )
        return int(index)

    def _is_float(self, number: int) -> bool:
        kind = str(self.call("Data_Type", self._checked("DATA", number, DATA_ARRAYS))[1])
        if kind in ("undefined", "string"):
            raise ConfigurationRefused(
                f"{self.name}: DATA_{number} holds no numbers ({kind}); load the process that "
                "declares it"
            )
        return kind.startswith("float")

    def _checked_range(self, number: int, start: int, count: int | None) -> int:
        length = self.data_length(number)
        count = length - start + 1 if count is None else count
        if start < 1 or not 1 <= count <= MAX_TRANSFER or start + count - 1 > length:
            raise ConfigurationRefused(
                f"{self.name}: DATA_{number}[{start}] to [{start + count - 1}] are not all there; "
                f"the array has {length} elements"
            )
        return count

    def _content(self, number: int, values: Sequence[float] | NDArray[Any]) -> NDArray[Any]:
        """Values in the type of an array."""
        content = np.asarray(values)
        if content.ndim != 1 or not (content.size == 0 or np.issubdtype(content.dtype, np.number)):
            raise ConfigurationRefused(f"{self.name}: DATA_{number} takes a list of numbers")
        if self._is_float(number):
            return content.astype(np.float64)
        is_integer = np.all(content == np.round(content)) if content.size else True
        if not is_integer or np.any(content < LONG_MIN) or np.any(content > LONG_MAX):
            raise ConfigurationRefused(
                f"{self.name}: DATA_{number} is LONG; it takes integers of 32 bits only"
            )
        return content.astype(np.int32)


def _listed(values: Any) -> list[Any]:
    """Values of an array as plain numbers, which a snapshot can hold."""
    return [value.item() for value in np.asarray(values)]
