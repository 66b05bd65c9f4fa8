"""The simulated HDAWG: its node tree, its cores and its connectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from zhinst.core.errors import InvalidArgumentError, NotFoundError

from sim.hdawg.command_table import SCHEMA, TableRefused
from sim.hdawg.core import AwgCore, UploadRefused
from sim.hdawg.dio import DioInput
from sim.hdawg.elf import MAX_INSTRUCTIONS
from sim.hdawg.families import (
    DEVICE_FAMILIES,
    DIO_MODES,
    MARK_SOURCES,
    OUTPUTS_PER_CORE,
    counts,
    waveform_node,
)
from sim.hdawg.nodes import NodeTree, NodeValue, expand
from sim.hdawg.sequencer import N_USER_REGISTERS
from sim.hdawg.timing import SAMPLE_RATE_HZ, HdawgTiming

CHANNELS: Final = {"HDAWG4": 4, "HDAWG8": 8}

RANGES_V: Final = (0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 3.0, 4.0, 5.0)
"""Output ranges; a value in between is raised to the next (HDAWG user manual)."""

TABLE_OK: Final = 1
TABLE_JSON_ERROR: Final = 1 << 3
"""Bits of `/awgs/n/commandtable/status` (HDAWG user manual)."""

SETTINGS_READ: Final = (
    "dio/mask/value",
    "dio/mask/shift",
    "dio/strobe/index",
    "dio/strobe/slope",
    "dio/valid/index",
    "dio/valid/polarity",
    *(f"userregs/{register}" for register in range(N_USER_REGISTERS)),
)
"""Nodes below `/awgs/n/` that a program reads while it runs."""

MARKERS_PER_OUTPUT: Final = 2
TRIGGER_INPUTS: Final = frozenset(
    name for name in MARK_SOURCES.values() if name.startswith("trigin")
)

STATUS_RUNNING: Final = 1
STATUS_WAITING: Final = 4
"""Bits of `/awgs/n/sequencer/status` (HDAWG user manual)."""


class SimulatedHdawg:
    """One instrument. The data server works on its nodes, the laboratory on its connectors.

    Time is a count of samples at 2.4 GSa/s since the instrument was switched on, and passes
    only in `run_until`. Every time at a connector is in the same count.

    Attributes:
        serial: such as "dev8001".
        device_type: "HDAWG4" or "HDAWG8".
        nodes: the node tree.
        cores: one per two channels.

    Args:
        serial: of the instrument.
        device_type: how many channels it has.
        options: installed, as LabOne lists them.
        timing: knobs.
        skips_loops: see `AwgCore`.
        observed: cores at whose connectors somebody looks; the others take programs and say that
            they run, and are spared the work. None for all.

    Raises:
        ValueError: there is no such type or core, or the serial does not start with "dev".
    """

    def __init__(
        self,
        serial: str,
        device_type: str = "HDAWG8",
        options: tuple[str, ...] = ("MF", "ME", "SKW", "PC"),
        timing: HdawgTiming | None = None,
        skips_loops: bool = True,
        observed: Collection[int] | None = None,
    ) -> None:
        if device_type not in CHANNELS:
            raise ValueError(f"no simulated {device_type}; there are {', '.join(CHANNELS)}")
        if not serial.lower().startswith("dev"):
            raise ValueError(f"serial {serial!r} does not start with 'dev'")
        self.serial = serial.lower()
        self.device_type = device_type
        self.timing = timing or HdawgTiming()
        self._prefix = f"/{self.serial}/"
        self._now = 0
        n_channels = CHANNELS[device_type]
        self.nodes = NodeTree(expand(DEVICE_FAMILIES, counts(n_channels), self._prefix))
        self._dio = DioInput(self.timing)
        self.cores = tuple(
            AwgCore(self.timing, self._dio, partial(self._read_core_setting, index), skips_loops)
            for index in range(n_channels // OUTPUTS_PER_CORE)
        )
        self._observed = tuple(range(len(self.cores)) if observed is None else sorted(observed))
        if not set(self._observed) <= set(range(len(self.cores))):
            raise ValueError(
                f"cores {self._observed} of a {device_type}, which has {len(self.cores)}"
            )
        self._put("features/serial", self.serial.removeprefix("dev"))
        self._put("features/devtype", device_type)
        self._put("features/options", "\n".join(options))
        self._refuse_other("system/awg/channelgrouping", 0)
        self._refuse_other("system/clocks/sampleclock/freq", SAMPLE_RATE_HZ)
        self._refuse_other("dios/0/interface", 0)
        self._refuse_other("dios/0/drive", 0)
        self._refuse_keywords("system/clocks/referenceclock/source", ("zsync",))
        self._on_write("dios/0/mode", self._write_dio_mode)
        for channel in range(n_channels):
            self._on_write(f"sigouts/{channel}/range", _next_range)
            self._refuse_keywords(f"triggers/out/{channel}/source", TRIGGER_INPUTS)
        for index in range(len(self.cores)):
            self._attach_core(index)

    def _attach_core(self, index: int) -> None:
        base, core = f"awgs/{index}/", self.cores[index]
        self._put(f"{base}commandtable/schema", json.dumps(SCHEMA))
        self._on_write(f"{base}elf/data", partial(self._write_elf, index))
        self._on_write(f"{base}enable", partial(self._write_enable, index))
        self._on_write(f"{base}reset", partial(self._write_reset, index))
        self._on_write(f"{base}commandtable/data", partial(self._write_table, index))
        self._on_write(f"{base}commandtable/clear", partial(self._clear_table, index))
        for setting in SETTINGS_READ:
            self._on_write(f"{base}{setting}", partial(self._write_setting, core))
        self._on_read(f"{base}enable", lambda: int(core.is_running))
        self._on_read(
            f"{base}sequencer/status",
            lambda: STATUS_RUNNING * core.is_running | STATUS_WAITING * core.is_waiting,
        )

    # --- connectors -------------------------------------------------------------------

    @property
    def now(self) -> int:
        """The sample up to which the instrument has run."""
        return self._now

    def write_dio(self, sample: int, word: int) -> None:
        """Drive the 32 DIO input lines from a sample on.

        Raises:
            ValueError: the time has passed, or the word does not fit.
        """
        if sample < self._now:
            raise ValueError(f"a DIO word at sample {sample}, but it is {self._now} already")
        self._dio.write(sample, word)
        self._put("dios/0/input", word)

    def run_until(self, sample: int) -> None:
        """Let time pass.

        Every DIO word before that sample must have been written.

        Raises:
            SequencerFault: a program did what hardware cannot.
            ValueError: the time has passed.
        """
        if sample < self._now:
            raise ValueError(f"cannot run until sample {sample}: it is {self._now} already")
        for index in self._observed:
            self.cores[index].run_until(sample)
        self._now = sample

    def output(self, core: int, start: int, stop: int) -> NDArray[np.float64]:
        """The two signal outputs of a core in a window.

        Args:
            core: its index.
            start: first sample.
            stop: sample after the last.

        Returns:
            Of full scale of the output range, shape (stop - start, 2); zero where the output
            is switched off.
        """
        return self.cores[core].player.timeline.output(start, stop) * self.output_gains(core)

    def output_gains(self, core: int) -> tuple[float, float]:
        """Factors of the two outputs of a core; 0 for one that is switched off."""
        first, second = (
            float(self._read(f"sigouts/{OUTPUTS_PER_CORE * core + output}/on"))
            * float(self._read(f"awgs/{core}/outputs/{output}/amplitude"))
            for output in range(OUTPUTS_PER_CORE)
        )
        return first, second

    def mark(self, connector: int, start: int, stop: int) -> list[tuple[int, int]]:
        """Changes of the level of a Mark connector in a window, as (sample, new level).

        Args:
            connector: its index; the core of that channel feeds it.
            start: first sample; the level before it counts as low.
            stop: sample after the last.

        Raises:
            ValueError: nobody runs that core.
        """
        index = connector // OUTPUTS_PER_CORE
        if index not in self._observed:
            raise ValueError(f"Mark {connector + 1} belongs to core {index}, which is not observed")
        source, core = self.mark_source(connector), self.cores[index]
        if source in {"high", "low"}:
            return [(start, 1)] if source == "high" else []
        if source.startswith("awg_trigger"):
            bit = int(source[-1])
            before = [word for sample, word in core.trigger_edges if sample < start]
            edges = [(start, word) for word in before[-1:]]
            edges += [edge for edge in core.trigger_edges if start <= edge[0] < stop]
        else:
            output, marker = int(source[len("output")]), int(source[-1])
            bit = output * MARKERS_PER_OUTPUT + marker
            edges = core.player.timeline.marker_edges(start, stop)
        changes, level = [], 0
        for sample, word in edges:
            if word >> bit & 1 != level:
                level = word >> bit & 1
                changes.append((sample, level))
        return changes

    def mark_source(self, connector: int) -> str:
        """Keyword of the signal that a Mark connector carries."""
        return MARK_SOURCES[int(self._read(f"triggers/out/{connector}/source"))]

    def forget_before(self, sample: int) -> None:
        """Drop plays and edges before a sample, which otherwise are all kept."""
        for core in self.cores:
            core.forget_before(sample)

    # --- behind the nodes -------------------------------------------------------------

    def discovery(self) -> dict[str, Any]:
        """What `/zi/devices` says of it."""
        return {
            "DEVTYPE": self.device_type,
            "INTERFACE": "none",
            "INTERFACES": "1GbE,USB",
            "STATUS": "Available",
            "STATUSFLAGS": 0,
            "OWNER": "",
        }

    def provide(self, path: str) -> None:
        """Make a node that exists only while a program assigns its waveform.

        Raises:
            NotFoundError: the program of that core assigns no such waveform.
        """
        head, _, number = path.rpartition("/")
        for index, core in enumerate(self.cores):
            if head == f"{self._prefix}awgs/{index}/waveform/waves" and number.isdigit():
                wave = int(number)
                if wave not in core.words:
                    raise NotFoundError(f"{path}: no program assigns waveform {wave}")
                if path not in self.nodes:
                    self.nodes.add(waveform_node(self._prefix, index, wave))
                    self.nodes.on_read(path, partial(self._read_waveform, core, wave))
                    self.nodes.on_write(path, partial(self._write_waveform, core, wave))
                return

    def _read(self, path: str) -> Any:
        return self.nodes.read(self._prefix + path)

    def _put(self, path: str, value: NodeValue) -> None:
        self.nodes.put(self._prefix + path, value)

    def _on_write(self, path: str, action: Callable[[Any], NodeValue]) -> None:
        self.nodes.on_write(self._prefix + path, action)

    def _on_read(self, path: str, value: Callable[[], NodeValue]) -> None:
        self.nodes.on_read(self._prefix + path, value)

    def _read_core_setting(self, core: int, path: str) -> Any:
        return self._read(f"awgs/{core}/{path}")

    def _refuse_other(self, path: str, only: NodeValue) -> None:
        def action(value: NodeValue) -> NodeValue:
            if value != only:
                raise InvalidArgumentError(
                    f"{self._prefix}{path} cannot be {value!r}: only {only!r} is simulated"
                )
            return value

        self._on_write(path, action)

    def _refuse_keywords(self, path: str, refused: Collection[str]) -> None:
        keywords = self.nodes.node(self._prefix + path).keywords

        def action(value: int) -> int:
            if keywords[value] in refused:
                raise InvalidArgumentError(
                    f"{self._prefix}{path} cannot be {keywords[value]!r}: it is not simulated"
                )
            return value

        self._on_write(path, action)

    @staticmethod
    def _write_setting(core: AwgCore, value: int) -> int:
        core.settle()
        return value

    def _write_dio_mode(self, mode: int) -> int:
        if mode not in {0, 1}:
            raise InvalidArgumentError(f"DIO mode {DIO_MODES[mode]!r} is not simulated")
        for core in self.cores:
            core.settle()
        self._dio.is_forwarded = mode == 1
        return mode

    def _write_elf(self, index: int, data: Any) -> bytes:
        core, base = self.cores[index], f"awgs/{index}/"
        elf = data.encode("latin1") if isinstance(data, str) else bytes(data)
        self._put(f"{base}ready", 0)
        try:
            program = core.load(elf)
        except UploadRefused as error:
            raise InvalidArgumentError(f"{self._prefix}{base}elf/data: {error}") from error
        self._put(f"{base}elf/length", len(elf))
        self._put(f"{base}elf/progress", 100.0)
        self._put(f"{base}sequencer/program", program.source)
        self._put(f"{base}sequencer/assembly", program.listing)
        self._put(f"{base}sequencer/memoryusage", len(program.instructions) / MAX_INSTRUCTIONS)
        self._put(f"{base}waveform/descriptors", program.descriptors)
        self._put(f"{base}waveform/memoryusage", program.wave_memory_fraction)
        # At once: who waits for it sleeps in real time, which has nothing to do with ours.
        self._put(f"{base}ready", 1)
        return elf

    @staticmethod
    def _read_waveform(core: AwgCore, index: int) -> NDArray[np.uint16]:
        # Empty once a later program assigns no such waveform.
        return core.words.get(index, np.zeros(0, np.uint16))

    @staticmethod
    def _write_waveform(core: AwgCore, index: int, words: Any) -> NDArray[np.uint16]:
        try:
            core.set_waveform(index, words)
        except UploadRefused as error:
            raise InvalidArgumentError(str(error)) from error
        return core.words[index]

    def _write_enable(self, index: int, wanted: int) -> int:
        core = self.cores[index]
        if not wanted:
            core.stop()
        elif not core.is_running:
            if not self._read(f"awgs/{index}/single"):
                raise InvalidArgumentError(
                    f"{self._prefix}awgs/{index}/enable: starting the program again at its end "
                    "is not simulated; set single to 1"
                )
            # Without a program the instrument ignores it, and the node reads back 0.
            core.start(self._now)
        return int(core.is_running)

    def _write_reset(self, index: int, value: int) -> int:
        if value:
            self.cores[index].unload()
            self._put(f"awgs/{index}/ready", 0)
        return 0

    def _write_table(self, index: int, text: Any) -> str:
        base = f"awgs/{index}/commandtable/"
        table = text if isinstance(text, str) else bytes(text).decode()
        try:
            self.cores[index].set_table(table)
        except TableRefused:
            # The device raises nothing; whoever uploads has to read the status.
            self._put(f"{base}status", TABLE_JSON_ERROR)
            return str(self._read(f"{base}data"))
        self._put(f"{base}status", TABLE_OK)
        return table

    def _clear_table(self, index: int, value: int) -> int:
        if value:
            self.cores[index].clear_table()
            self._put(f"awgs/{index}/commandtable/status", 0)
            self._put(f"awgs/{index}/commandtable/data", "")
        return 0


def _next_range(wanted_v: float) -> float:
    return next((limit for limit in RANGES_V if limit >= wanted_v), RANGES_V[-1])
