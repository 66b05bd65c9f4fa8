"""Opens all instruments of a node from one QCoDeS Station file.

The files in `stations` describe the same node twice, with the laboratory's instruments and with
their simulated twins. They differ in `CONNECTION_FIELDS` only, so what runs on one runs on the
other. Where a file says ``simulated`` for a field that takes an object (the ADwin's library, the
AWG's data server, a line or port, the time tagger's library), that object comes from
`Connections`.

Files are checked before anything is opened. A node is opened as a whole: if one instrument
cannot be opened, those before it are closed again, and the error names file and instrument.
"""

from __future__ import annotations

import atexit
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from qcodes.instrument import Instrument
from qcodes.station import Station
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from instruments.ad9910 import AD9910
from instruments.adwin import AdwinProII
from instruments.errors import ConfigurationRefused, InstrumentError
from instruments.hdawg import HDAWG
from instruments.heralding import HeraldingStation
from instruments.ion_board import IonBoard
from instruments.lasers import AdwinLaser
from instruments.microwave import MicrowaveSource
from instruments.pmt_counter import PmtCounter
from instruments.pulse_sequencer import PulseSequencer
from instruments.timetagger import TimeTagger

SIMULATED: Final = "simulated"
"""What a file says in place of an object, and the name of the field that says it by itself."""

CONNECTION_FIELDS: Final = frozenset(
    {
        "address",
        "connection",
        "device_number",
        "host",
        "interface",
        "library",
        "port",
        "resource",
        "serial",
        "simulated",
        "wrapper",
    }
)
"""Fields that say where an instrument is, and nothing else about it."""

MAX_FILE_BYTES: Final = 1_000_000
MAX_INSTRUMENTS: Final = 32


@dataclass(frozen=True)
class Kind:
    """A type of instrument that a file may name.

    Attributes:
        driver: its class.
        injected: the field that takes an object of the laboratory; None if there is none.
        has_lock: whether it owns something on this computer.
    """

    driver: type[Instrument]
    injected: str | None = None
    has_lock: bool = True

    @property
    def fields(self) -> frozenset[str]:
        """Fields that a file may give under ``init``."""
        named = inspect.signature(self.driver.__init__).parameters.values()
        variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        names = {parameter.name for parameter in named if parameter.kind not in variadic}
        return frozenset(names - {"self", "lock_directory"})


KINDS: Final[Mapping[str, Kind]] = {
    "instruments.ad9910.AD9910": Kind(AD9910, "port"),
    "instruments.adwin.AdwinProII": Kind(AdwinProII, "wrapper"),
    "instruments.hdawg.HDAWG": Kind(HDAWG, "connection"),
    "instruments.heralding.HeraldingStation": Kind(HeraldingStation, "resource"),
    "instruments.ion_board.IonBoard": Kind(IonBoard, "resource"),
    "instruments.lasers.AdwinLaser": Kind(AdwinLaser, has_lock=False),
    "instruments.microwave.MicrowaveSource": Kind(MicrowaveSource),
    "instruments.pmt_counter.PmtCounter": Kind(PmtCounter, "resource"),
    "instruments.pulse_sequencer.PulseSequencer": Kind(PulseSequencer, "resource"),
    "instruments.timetagger.TimeTagger": Kind(TimeTagger, "library"),
}

_SECTIONS: Final = {"type": str, "init": dict, "parameters": dict}
"""What an instrument's entry may have."""


@dataclass(frozen=True)
class Connections:
    """What a Station file cannot hold, by the instruments' names in the file.

    Attributes:
        simulated: objects for the fields that say ``simulated``: the ADwin's wrapper, the AWG's
            data server, the time tagger's library, the lines of heralding station, board, pulse
            sequencer and photon counter, the port of the DDS.
        shared: instruments that another node has opened, to be used and not opened again nor
            closed.
        without: instruments to leave out.
    """

    simulated: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, Instrument] = field(default_factory=dict)
    without: frozenset[str] = frozenset()


InstrumentT = TypeVar("InstrumentT", bound=Instrument)


class NodeStation:
    """The opened instruments of a node. Keep it: QCoDeS holds instruments by weak references.

    Args:
        path: of the Station file.
        station: of QCoDeS, for snapshots and datasets.
        instruments: all of them by their names in the file.
        cleanup: what has to be done to close them.

    Attributes:
        path: see there.
        station: see there.
        instruments: see there.
    """

    def __init__(
        self,
        path: Path,
        station: Station,
        instruments: Mapping[str, Instrument],
        cleanup: ExitStack,
    ) -> None:
        self.path = path
        self.station = station
        self.instruments = instruments
        self._cleanup = cleanup

    @property
    def adwin(self) -> AdwinProII:
        """The real-time controller."""
        return self.one("adwin", AdwinProII)

    @property
    def awg(self) -> HDAWG:
        """The waveform generator."""
        return self.one("awg", HDAWG)

    @property
    def microwave(self) -> MicrowaveSource:
        """The microwave source."""
        return self.one("microwave", MicrowaveSource)

    @property
    def heralding(self) -> HeraldingStation:
        """The heralding station, which the nodes share."""
        return self.one("heralding", HeraldingStation)

    @property
    def timetagger(self) -> TimeTagger:
        """The time tagger at the heralding station, which the nodes share."""
        return self.one("timetagger", TimeTagger)

    @property
    def board(self) -> IonBoard:
        """The board between QNPU and pulse sequencer of a trapped-ion node."""
        return self.one("board", IonBoard)

    @property
    def sequencer(self) -> PulseSequencer:
        """The pulse sequencer of a trapped-ion node."""
        return self.one("sequencer", PulseSequencer)

    @property
    def dds(self) -> AD9910:
        """The DDS of the 729 nm laser of a trapped-ion node."""
        return self.one("dds", AD9910)

    @property
    def pmt(self) -> PmtCounter:
        """The photon counter of a trapped-ion node."""
        return self.one("pmt", PmtCounter)

    @property
    def lasers(self) -> dict[str, AdwinLaser]:
        """All lasers by name."""
        found = self.instruments.items()
        return {name: laser for name, laser in found if isinstance(laser, AdwinLaser)}

    def one(self, name: str, driver: type[InstrumentT]) -> InstrumentT:
        """An instrument by its name in the file.

        Raises:
            ConfigurationRefused: the file has none of that name and type.
        """
        found = self.instruments.get(name)
        if not isinstance(found, driver):
            raise ConfigurationRefused(
                f"{self.path}: there is no {name} of type {driver.__name__}; it has "
                f"{', '.join(self.instruments) or 'nothing'}"
            )
        return found

    def snapshot(self) -> dict[str, Any]:
        """State of all instruments, asked for now, as QCoDeS stores it."""
        return dict(self.station.snapshot(update=True))

    def close(self) -> None:
        """Close all instruments but the shared ones; more than once does no harm."""
        self._cleanup.close()

    def __enter__(self) -> NodeStation:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def station_file(node: str, *, simulation: bool) -> Path:
    """The Station file of a node that comes with this package.

    Args:
        node: "client", "server" or "ion".
        simulation: with simulated instruments.
    """
    variant = "simulation" if simulation else "hardware"
    return Path(str(files("instruments") / "stations" / f"{node}_{variant}.yaml"))


def open_station(
    path: Path | str,
    connections: Connections | None = None,
    *,
    lock_directory: Path | None = None,
) -> NodeStation:
    """Open the instruments of a node, in the order of the file.

    Args:
        path: of the Station file.
        connections: what the file cannot hold.
        lock_directory: see `Ownership`; None for the system's directory for temporary files,
            and for simulated instruments one of this process alone.

    Raises:
        ConfigurationRefused: the file is wrong, or does not fit the connections.
        InstrumentError: an instrument cannot be opened, as its driver says. Nothing is left open.
    """
    path = Path(path)
    connections = connections or Connections()
    entries = read_entries(path)
    _check(path, entries, connections)
    instruments: dict[str, Instrument] = {}
    with ExitStack() as cleanup:
        station = Station(config_file=str(path), default=False, use_monitor=False)
        for name, entry in entries.items():
            if name in connections.without:
                continue
            shared = connections.shared.get(name)
            if shared is None:
                extra = _arguments(name, entry, connections, lock_directory)
                instruments[name] = _open(path, station, name, entry, extra)
                cleanup.callback(instruments[name].close)
            else:
                station.add_component(shared, update_snapshot=False)
                instruments[name] = shared
        return NodeStation(path, station, instruments, cleanup.pop_all())


def _open(
    path: Path, station: Station, name: str, entry: Mapping[str, Any], extra: Mapping[str, Any]
) -> Instrument:
    own_name = str(entry.get("init", {}).get("name", name))
    existed = Instrument.exist(own_name)
    try:
        return station.load_instrument(name, update_snapshot=False, **extra)
    except Exception as error:
        # An instrument that was opened and did not take one of its parameters is in nobody's
        # hands.
        if not existed and Instrument.exist(own_name):
            Instrument.find_instrument(own_name).close()
        message = f"{path}: {name}: {error.args[0] if error.args else error}"
        if isinstance(error, InstrumentError):
            raise type(error)(message) from error
        if isinstance(error, AttributeError | KeyError | RuntimeError | TypeError | ValueError):
            raise ConfigurationRefused(message) from error
        raise


def _arguments(
    name: str, entry: Mapping[str, Any], connections: Connections, lock_directory: Path | None
) -> dict[str, Any]:
    """What the driver gets besides what the file says."""
    kind = KINDS[entry["type"]]
    arguments: dict[str, Any] = {}
    if name in connections.simulated:
        assert kind.injected is not None
        arguments[kind.injected] = connections.simulated[name]
    if kind.has_lock:
        is_simulated = bool(arguments) or entry.get("init", {}).get(SIMULATED) is True
        private = _private_locks(os.getpid()) if is_simulated else None
        arguments["lock_directory"] = lock_directory or private
    return arguments


@cache
def _private_locks(process: int) -> Path:
    """A directory of this process alone, because simulated instruments are of this process."""
    directory = tempfile.mkdtemp(prefix="qnodeos-simulated-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


# --- checks of the file --------------------------------------------------------------------


def read_entries(path: Path) -> dict[str, dict[str, Any]]:
    """The instruments' entries of a Station file, by name.

    Raises:
        ConfigurationRefused: it cannot be read, or an entry is not what its instrument takes.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationRefused(f"{path}: longer than {MAX_FILE_BYTES} bytes")
        document = YAML(typ="safe").load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationRefused(f"{path}: cannot be read: {error}") from error
    except YAMLError as error:
        raise ConfigurationRefused(f"{path}: this is no YAML: {error}") from error
    except RecursionError as error:
        raise ConfigurationRefused(
            f"{path}: nested too deeply to be read; see instruments/stations for what is needed"
        ) from error
    if not isinstance(document, dict) or set(document) != {"instruments"}:
        raise ConfigurationRefused(f"{path}: there must be one section, instruments")
    entries = document["instruments"]
    if not isinstance(entries, dict) or not 1 <= len(entries) <= MAX_INSTRUMENTS:
        raise ConfigurationRefused(f"{path}: instruments: 1 to {MAX_INSTRUMENTS} are allowed")
    for name, entry in entries.items():
        _check_entry(partial(_refuse, path, name), name, entry)
    return entries


def _check(path: Path, entries: Mapping[str, Any], connections: Connections) -> None:
    named = {
        "simulated objects": connections.simulated,
        "shared instruments": connections.shared,
        "instruments to leave out": connections.without,
    }
    for what, names in named.items():
        for name in names:
            if name not in entries:
                _refuse(path, str(name), f"not in the file, but among the {what}")
    for name, entry in entries.items():
        if name in connections.without:
            continue
        shared = connections.shared.get(name)
        if shared is not None:
            if not isinstance(shared, KINDS[entry["type"]].driver):
                _refuse(path, name, f"the shared instrument is no {entry['type']}")
            continue
        injected = KINDS[entry["type"]].injected
        says_simulated = injected is not None and entry.get("init", {}).get(injected) == SIMULATED
        if says_simulated and connections.simulated.get(name) is None:
            _refuse(path, name, f"{injected} is simulated, and no object for it was handed in")
        if not says_simulated and name in connections.simulated:
            _refuse(path, name, "a simulated object was handed in for what is not simulated")


def _check_entry(refuse: Callable[[str], NoReturn], name: Any, entry: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        refuse("this cannot be the name of an instrument")
    if not isinstance(entry, dict) or "type" not in entry:
        refuse("an instrument needs a type")
    for section, content in entry.items():
        if section not in _SECTIONS:
            refuse(f"unknown field {section}; there are {', '.join(_SECTIONS)}")
        if not isinstance(content, _SECTIONS[section]):
            refuse(f"{section} must be a {_SECTIONS[section].__name__}")
    if entry["type"] not in KINDS:
        refuse(f"unknown type {entry['type']}; there are {', '.join(KINDS)}")
    kind = KINDS[entry["type"]]
    for given, value in entry.get("init", {}).items():
        if given not in kind.fields:
            refuse(f"unknown field init.{given}; there are {', '.join(sorted(kind.fields))}")
        if given == kind.injected and value not in (SIMULATED, None):
            refuse(f"init.{given} can only be {SIMULATED}, or left out")
    for parameter, options in entry.get("parameters", {}).items():
        if not isinstance(options, dict):
            refuse(f"parameters.{parameter} must be a dict, such as {{initial_value: 1}}")


def _refuse(path: Path, name: Any, text: str) -> NoReturn:
    raise ConfigurationRefused(f"{path}: {name}: {text}")
