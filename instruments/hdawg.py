"""QCoDeS driver of the Zurich Instruments HDAWG.

`HDAWG` is the vendor's QCoDeS instrument (zhinst-qcodes) with what a laboratory needs on
top: one owner, checked versions, parameters with limits, and `load`, which puts a whole
`AwgProgram` into a core or says why not. Programs are compiled here, by the vendor's
offline compiler, so a wrong one is refused before the instrument has seen it.

Used with the simulated data server in every test; not verified on hardware.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray
from qcodes.instrument import ChannelList
from zhinst.core import compile_seqc
from zhinst.qcodes.driver.devices.hdawg import HDAWG as VendorHDAWG
from zhinst.toolkit import CommandTable, Session, Waveforms
from zhinst.toolkit.exceptions import ToolkitError, ValidationError

from instruments.errors import (
    CompilationRefused,
    ConfigurationRefused,
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentInUse,
    InstrumentUnavailable,
)
from instruments.hdawg_channels import (
    REFERENCE_BUSY,
    REFERENCE_LOCKED,
    REFERENCE_SOURCES,
    CoreChannel,
    DioChannel,
    MarkChannel,
    OutputChannel,
    ReferenceClock,
)
from instruments.ownership import Ownership
from sequences.program import AwgProgram

SAMPLE_RATE_HZ: Final = 2.4e9
"""The only sample rate used (HDAWG user manual: the highest)."""

GROUPS_OF_2: Final = "groups_of_2"
READY_TIMEOUT_S: Final = 5.0
LOCK_TIMEOUT_S: Final = 30.0
"""For the reference clock (assumed)."""

HARMLESS_WARNING: Final = "is deprecated"
"""Every other warning of the compiler means that it changed what is played."""


@dataclass(frozen=True)
class CompiledProgram:
    """A program that passed all checks that need no instrument.

    Attributes:
        elf: for the core.
        waveforms: words to upload, wave index -> unsigned 16-bit.
        command_table: JSON text to upload.
        warnings: harmless ones, lines of text.
        wave_memory_fraction: of the waveform cache.
        source_sha256: digest of the SeqC source, as hexadecimal digits.
    """

    elf: bytes
    waveforms: Mapping[int, NDArray[np.uint16]]
    command_table: str
    warnings: tuple[str, ...]
    wave_memory_fraction: float
    source_sha256: str


def compile_program(
    program: AwgProgram,
    *,
    device_type: str = "HDAWG8",
    options: str = "",
    core: int = 0,
    table_schema: Mapping[str, Any] | None = None,
) -> CompiledProgram:
    """Compile a program and check that its parts fit together; needs no instrument.

    Args:
        program: source, waveforms and command table.
        device_type: as in `/dev.../features/devtype`.
        options: as in `/dev.../features/options`.
        core: index of the AWG core.
        table_schema: JSON schema of the command table; None skips that check.

    Raises:
        CompilationRefused: the compiler refuses the source, or warns that it lengthened a
            waveform or a pause, or the waveforms exceed the cache.
        ConfigurationRefused: waveforms, source and command table do not fit together.
    """
    try:
        elf, info = compile_seqc(
            program.source, device_type, options, core, samplerate=SAMPLE_RATE_HZ
        )
    except RuntimeError as error:
        raise CompilationRefused(f"the SeqC compiler refuses the program: {error}") from error
    warnings = tuple(str(info["messages"]).strip().splitlines())
    for warning in warnings:
        if HARMLESS_WARNING not in warning:
            raise CompilationRefused(
                f"the SeqC compiler changes the program: {warning}; "
                "write the lengths that are really played"
            )
    memory = info["wavemem"]
    if memory["exceedsFpgaMemory"]:
        raise CompilationRefused(
            f"the waveforms take {memory['fpgaMemoryUsed']:.3f} of the waveform cache; "
            "shorten them or use fewer, because waveforms played from a table must all fit"
        )
    waveforms = _waveforms(program)
    try:
        waveforms.validate(elf, allow_missing=False)
    except (ValidationError, IndexError) as error:
        raise ConfigurationRefused(f"waveforms and SeqC source do not fit: {error}") from error
    _check_markers(waveforms, elf)
    if table_schema is not None:
        _check_schema(program.command_table, table_schema)
    _check_table(program)
    return CompiledProgram(
        elf=elf,
        waveforms={index: waveforms.get_raw_vector(index) for index in waveforms},
        command_table=json.dumps(program.command_table),
        warnings=warnings,
        wave_memory_fraction=float(memory["fpgaMemoryUsed"]),
        source_sha256=hashlib.sha256(program.source.encode()).hexdigest(),
    )


def _waveforms(program: AwgProgram) -> Waveforms:
    waveforms = Waveforms()  # type: ignore[no-untyped-call]
    for index, samples in enumerate(program.waveforms):
        # The vendor's conversion truncates fractions; whole steps pass it unchanged.
        steps = np.rint(samples * np.iinfo(np.int16).max).astype(np.int16)
        first, second = np.ascontiguousarray(steps.T)
        waveforms.assign_waveform(index, first, second, program.markers.get(index))
    return waveforms


def _check_markers(waveforms: Waveforms, elf: bytes) -> None:
    """The vendor's validation does not look at markers, and a wrong slot shifts every sample."""
    section: Any = ELFFile(BytesIO(elf)).get_section_by_name(".waveforms")
    for index, slot in enumerate(json.loads(section.data())["waveforms"] or ()):
        has_markers = any(int(bits) for bits in slot["marker_bits"].split(";"))
        if index in waveforms and has_markers != (waveforms[index][2] is not None):
            raise ConfigurationRefused(
                f"waveform {index} and its placeholder do not agree on markers: "
                f"the SeqC source {'reserves' if has_markers else 'does not reserve'} them"
            )


def _check_schema(table: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    try:
        CommandTable(dict(schema)).update(dict(table))
    except ValidationError as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationRefused(f"the command table breaks its schema: {reason}") from error


def _check_table(program: AwgProgram) -> None:
    """What no schema can say: entries are unique, and play waveforms that exist."""
    seen = set()
    for entry in program.command_table.get("table", ()):
        index = entry["index"]
        if index in seen:
            raise ConfigurationRefused(f"command table entry {index} is given twice")
        seen.add(index)
        waveform = entry.get("waveform", {})
        wave = waveform.get("index")
        if wave is None:
            continue
        if not 0 <= wave < len(program.waveforms):
            raise ConfigurationRefused(
                f"command table entry {index} plays waveform {wave}; "
                f"there are {len(program.waveforms)}"
            )
        n_samples = len(program.waveforms[wave])
        if waveform.get("length", n_samples) > n_samples:
            raise ConfigurationRefused(
                f"command table entry {index} plays {waveform['length']} samples of waveform "
                f"{wave}, which has {n_samples}"
            )


class HDAWG(VendorHDAWG):
    """One HDAWG. It has all nodes of the vendor's driver, and these.

    The object holds its session to the data server. QCoDeS holds instruments by weak
    references only, so keep this object, or give it to a Station.

    Attributes:
        cores: one AWG core for every two channels, see `CoreChannel`.
        outputs: the signal outputs, see `OutputChannel`.
        marks: the Mark connectors, see `MarkChannel`.
        dio: the DIO lines, see `DioChannel`.
        reference: the reference clock, see `ReferenceClock`.
        toolkit: the vendor's device object of zhinst-toolkit.

    Args:
        name: of the QCoDeS instrument.
        serial: such as "dev8001", on the instrument's back.
        host: of the data server.
        port: of the data server.
        interface: between data server and instrument, None for what the server finds.
        connection: an existing data server object, real or simulated.
        lock_directory: see `Ownership`.

    Raises:
        InstrumentInUse: it is open already on this computer.
        InstrumentUnavailable: no data server, or no such instrument there.
        IncompatibleInstrument: it is no HDAWG, or the versions do not fit.
    """

    def __init__(
        self,
        name: str,
        serial: str,
        host: str = "localhost",
        port: int = 8004,
        *,
        interface: str | None = None,
        connection: Any = None,
        lock_directory: Path | None = None,
    ) -> None:
        if self.exist(name):
            raise InstrumentInUse(f"there is a QCoDeS instrument {name!r} already; close it first")
        self._ownership = Ownership(f"hdawg-{serial.lower()}", lock_directory)
        try:
            session = _open_session(host, port, connection)
            self.toolkit = _connect(session, serial, interface)
            super().__init__(self.toolkit, session, name=name)
            self.cores = self._channels("cores", CoreChannel, len(self.toolkit.awgs))
            self.outputs = self._channels("outputs", OutputChannel, len(self.toolkit["sigouts"]))
            self.marks = self._channels("marks", MarkChannel, len(self.outputs))
            self.dio = self.add_submodule("dio", DioChannel(self))
            self.reference = self.add_submodule("reference", ReferenceClock(self))
        except BaseException:
            self._ownership.release()
            raise

    def _channels(
        self, name: str, kind: type[CoreChannel | OutputChannel | MarkChannel], count: int
    ) -> ChannelList[Any]:
        channels: ChannelList[Any] = ChannelList(
            self, name, kind, [kind(self, index) for index in range(count)]
        )
        self.add_submodule(name, channels)
        return channels

    def load(self, core: int, program: AwgProgram) -> CompiledProgram:
        """Compile, check, upload and read back a program. The core must not be running.

        Args:
            core: its index.
            program: source, waveforms and command table.

        Returns:
            What was uploaded.

        Raises:
            CompilationRefused: see `compile_program`.
            ConfigurationRefused: the parts do not fit together, there is no such core, or
                it is running or in another grouping or sample rate.
            DeviceRefused: the instrument did not take it, or reads back something else.
        """
        return self.load_all((core,), program)

    def load_all(self, cores: Sequence[int], program: AwgProgram) -> CompiledProgram:
        """Put one program into several cores, none of which is running; it is compiled once.

        The compiler makes the same of a program whatever the core.

        Args:
            cores: at least one.
            program: source, waveforms and command table.

        Returns:
            What was uploaded to each.

        Raises:
            CompilationRefused: see `load`.
            ConfigurationRefused: see `load`; nothing has been uploaded.
            DeviceRefused: see `load`.
        """
        if not cores:
            raise ConfigurationRefused(f"{self.serial}: a program needs a core")
        for core in cores:
            self._core(core)
            self._check_settings(core)
        compiled = compile_program(
            program,
            device_type=self.device_type,
            options=self.toolkit.device_options,
            core=cores[0],
            table_schema=self.toolkit.awgs[cores[0]].commandtable.load_validation_schema(),
        )
        for core in cores:
            self._upload(core, compiled)
        return compiled

    def _upload(self, core: int, compiled: CompiledProgram) -> None:
        channel, awg = self._core(core), self.toolkit.awgs[core]
        channel.loaded = None
        try:
            awg.elf.data(compiled.elf)
            awg.ready.wait_for_state_change(1, timeout=READY_TIMEOUT_S)
            with self.toolkit.set_transaction():
                for index, words in compiled.waveforms.items():
                    awg.waveform.waves[index](words)
            awg.commandtable.upload_to_device(compiled.command_table)
        except (RuntimeError, TimeoutError) as error:
            raise DeviceRefused(f"{self.serial}, core {core}: {error}") from error
        self._verify(core, compiled)
        channel.loaded = compiled

    def lock_reference(self, source: str) -> None:
        """Choose the reference clock and wait until the instrument has locked to it.

        Locking interrupts what plays, so nothing is done if it is locked to that one already.

        Args:
            source: one of `instruments.hdawg_channels.REFERENCE_SOURCES`.

        Raises:
            ValueError: there is no such source.
            DeviceRefused: it is refused, or not locked within `LOCK_TIMEOUT_S`.
        """
        reference, node = self.reference, self.toolkit.system.clocks.referenceclock
        reference.source.validate(source)
        if (reference.source(), reference.status()) == (source, REFERENCE_LOCKED):
            return
        try:
            node.source(REFERENCE_SOURCES.index(source), deep=True)
            node.status.wait_for_state_change(REFERENCE_BUSY, invert=True, timeout=LOCK_TIMEOUT_S)
        except (RuntimeError, TimeoutError) as error:
            raise DeviceRefused(f"{self.serial}, reference clock {source}: {error}") from error
        # After an error the instrument goes back to its own clock by itself.
        found, status = reference.source(), reference.status()
        if (found, status) != (source, REFERENCE_LOCKED):
            raise DeviceRefused(
                f"{self.serial}: the reference clock is {found} and {status}, not {source} and "
                f"{REFERENCE_LOCKED}; check the clock at the instrument's back"
            )

    def start(self, core: int) -> None:
        """Start a loaded program at its beginning.

        Raises:
            ConfigurationRefused: nothing was loaded.
            DeviceRefused: the sequencer does not start.
        """
        if self._core(core).loaded is None:
            raise ConfigurationRefused(f"{self.serial}, core {core}: load a program first")
        try:
            self.toolkit.awgs[core].enable_sequencer(single=True)
        except RuntimeError as error:
            raise DeviceRefused(f"{self.serial}, core {core}: {error}") from error

    def stop(self, core: int) -> None:
        """Stop the sequencer.

        Raises:
            DeviceRefused: it does not stop.
        """
        self._core(core)
        if self.toolkit.awgs[core].enable(0, deep=True):
            raise DeviceRefused(f"{self.serial}, core {core}: the sequencer does not stop")

    def close(self) -> None:
        """Close the instrument; what runs on it goes on."""
        # QCoDeS strips a closed instrument of its attributes, and may close it once more.
        ownership: Ownership | None = self.__dict__.get("_ownership")
        super().close()
        if ownership is not None:
            ownership.release()

    def _core(self, core: int) -> CoreChannel:
        if not 0 <= core < len(self.cores):
            raise ConfigurationRefused(
                f"{self.serial} has {len(self.cores)} cores, there is no core {core}"
            )
        channel: CoreChannel = self.cores[core]
        return channel

    def _check_settings(self, core: int) -> None:
        toolkit = self.toolkit
        if toolkit.awgs[core].enable():
            raise ConfigurationRefused(f"{self.serial}, core {core} is running; stop it first")
        if toolkit.system.awg.channelgrouping().name != GROUPS_OF_2:
            raise ConfigurationRefused(
                f"{self.serial}: set system/awg/channelgrouping to groups_of_2"
            )
        rate_hz = toolkit.system.clocks.sampleclock.freq()
        if abs(rate_hz - SAMPLE_RATE_HZ) > 1:
            raise ConfigurationRefused(
                f"{self.serial}: the sample clock is {rate_hz:g} Hz; set it to {SAMPLE_RATE_HZ:g}"
            )

    def _verify(self, core: int, compiled: CompiledProgram) -> None:
        awg = self.toolkit.awgs[core]
        what = f"{self.serial}, core {core}"
        if bytes(awg.elf.data()) != compiled.elf:
            raise DeviceRefused(f"{what}: the program reads back changed; load it again")
        base = awg.waveform.node_info.path
        paths = {f"{base}/waves/{index}": index for index in compiled.waveforms}
        if paths:
            read = self.toolkit.session.daq_server.get(
                ",".join(paths), settingsonly=False, flat=True
            )
            for path, index in paths.items():
                words = read[path][0]["vector"] if path in read else None
                if words is None or not np.array_equal(words, compiled.waveforms[index]):
                    raise DeviceRefused(
                        f"{what}: waveform {index} reads back changed; load it again"
                    )
        if json.loads(awg.commandtable.data()) != json.loads(compiled.command_table):
            raise DeviceRefused(f"{what}: the command table reads back changed; load it again")


def _open_session(host: str, port: int, connection: Any) -> Any:
    # zhinst-toolkit's session, not that of zhinst-qcodes 0.8.3: the latter is a QCoDeS
    # instrument named after the number of open sessions, so that opening one after closing
    # another fails; and one with the same host name would be shared, whoever opened it.
    try:
        return Session(host, port, hf2=False, connection=connection)
    except RuntimeError as error:
        raise InstrumentUnavailable(
            f"no data server at {host}:{port}: {error}; start LabOne there, or correct the address"
        ) from error


def _connect(session: Any, serial: str, interface: str | None) -> Any:
    try:
        toolkit = session.connect_device(serial, interface=interface)
    except (KeyError, RuntimeError) as error:
        raise InstrumentUnavailable(
            f"{session.server_host} does not have {serial}: {error}; "
            "check its power, its cable and the serial number"
        ) from error
    if not toolkit.device_type.startswith("HDAWG"):
        raise IncompatibleInstrument(f"{serial} is a {toolkit.device_type}, not an HDAWG")
    try:
        # Not through zhinst-qcodes 0.8.3, whose method of this name calls nothing.
        toolkit.check_compatibility()
    except (ToolkitError, ConnectionError) as error:
        raise IncompatibleInstrument(f"{serial}: {error}") from error
    return toolkit
