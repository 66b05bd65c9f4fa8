"""The parts of an HDAWG as QCoDeS channels: their settings as parameters with limits.

`instruments.hdawg.HDAWG` has them. Names of nodes and keywords are those of LabOne's node
documentation.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from qcodes.instrument import InstrumentChannel
from qcodes.validators import Enum, Ints, Numbers, Validator

if TYPE_CHECKING:
    from instruments.hdawg import CompiledProgram

DIO_LINES: Final = 32
RANGES_V: Final = (0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 3.0, 4.0, 5.0)
MAX_OFFSET_V: Final = 1.25
"""Output ranges and greatest offset (HDAWG user manual)."""

DIO_MODES: Final = ("manual", "awg_sequencer_commands", "dio_codeword", "qccs")
STROBE_SLOPES: Final = ("off", "rising_edge", "falling_edge", "both_edges")
VALID_POLARITIES: Final = ("none", "low", "high", "both")
"""Keywords of LabOne's nodes."""
MARK_SOURCES: Final = (
    *(f"awg_trigger{trigger}" for trigger in range(4)),
    *(f"output{output}_marker{marker}" for output in range(2) for marker in range(2)),
    "high",
    "low",
)
"""What a Mark connector can carry, of the core that feeds it; trigger inputs are left out."""
DIO_BYTES: Final = 4
DIO_CMOS: Final = 0
DIO_LVDS: Final = 1
REFERENCE_SOURCES: Final = ("internal", "external", "zsync")
"""In the order of their values."""
REFERENCE_LOCKED: Final = "locked"
REFERENCE_BUSY: Final = "busy"


class NodeChannel(InstrumentChannel):
    """A channel whose parameters are nodes with limits."""

    def _add(self, name: str, node: Any, vals: Validator[Any], unit: str = "") -> Any:
        # Plain functions: QCoDeS would take a node itself for something else.
        def get() -> Any:
            value = node()
            return value.name if isinstance(value, enum.Enum) else value

        def set_(value: Any) -> None:
            node(value)

        label = name.replace("_", " ")
        return self.add_parameter(
            name, get_cmd=get, set_cmd=set_, vals=vals, unit=unit, label=label
        )


class OutputChannel(NodeChannel):
    """One signal output.

    Attributes:
        on: whether it is switched on.
        range_v: output range in volts.
        offset_v: offset in volts.
    """

    def __init__(self, parent: Any, index: int) -> None:
        super().__init__(parent, f"output{index}")
        node = parent.toolkit.sigouts[index]
        self.on = self._add("on", node.on, Enum(0, 1))
        self.range_v = self._add("range_v", node.range, Enum(*RANGES_V), "V")
        self.offset_v = self._add(
            "offset_v", node.offset, Numbers(-MAX_OFFSET_V, MAX_OFFSET_V), "V"
        )


class CoreChannel(NodeChannel):
    """One AWG core: how it listens to the DIO lines, and what is loaded.

    Attributes:
        strobe_line: number of the DIO line whose edges trigger.
        strobe_slope: which edges.
        valid_line: number of the DIO line that qualifies a word.
        valid_polarity: its active level.
        running: whether the sequencer executes.
        program_sha256: digest of the SeqC source loaded by this driver, "" before.
        wave_memory_fraction: used by that program, of the waveform cache.
        loaded: the program loaded by this driver, None before.
    """

    def __init__(self, parent: Any, index: int) -> None:
        super().__init__(parent, f"core{index}")
        self.loaded: CompiledProgram | None = None
        node = parent.toolkit.awgs[index]
        dio, line = node.dio, Ints(0, DIO_LINES - 1)
        self.strobe_line = self._add("strobe_line", dio.strobe.index, line)
        self.strobe_slope = self._add("strobe_slope", dio.strobe.slope, Enum(*STROBE_SLOPES))
        self.valid_line = self._add("valid_line", dio.valid.index, line)
        self.valid_polarity = self._add(
            "valid_polarity", dio.valid.polarity, Enum(*VALID_POLARITIES)
        )
        self.running = self.add_parameter("running", get_cmd=lambda: bool(node.enable()))
        self.program_sha256 = self.add_parameter(
            "program_sha256", get_cmd=lambda: self.loaded.source_sha256 if self.loaded else ""
        )
        self.wave_memory_fraction = self.add_parameter(
            "wave_memory_fraction",
            get_cmd=lambda: self.loaded.wave_memory_fraction if self.loaded else 0.0,
        )


class DioChannel(NodeChannel):
    """The 32 DIO lines.

    Attributes:
        mode: who uses them.
        interface: `DIO_CMOS` (3.3 V) or `DIO_LVDS`.
        drive: bit k is 1 if the instrument drives byte k, and 0 if it listens to it.
    """

    def __init__(self, parent: Any) -> None:
        super().__init__(parent, "dio")
        node = parent.toolkit.dios[0]
        self.mode = self._add("mode", node.mode, Enum(*DIO_MODES))
        self.interface = self._add("interface", node.interface, Enum(DIO_CMOS, DIO_LVDS))
        self.drive = self._add("drive", node.drive, Ints(0, (1 << DIO_BYTES) - 1))


class MarkChannel(NodeChannel):
    """One Mark connector on the front panel; channel k's is fed by the core of channel k.

    Attributes:
        source: the signal it carries, one of `MARK_SOURCES`.
    """

    def __init__(self, parent: Any, index: int) -> None:
        super().__init__(parent, f"mark{index}")
        node = parent.toolkit.triggers.out[index]
        self.source = self._add("source", node.source, Enum(*MARK_SOURCES))


class ReferenceClock(NodeChannel):
    """The reference clock. To change it and wait for it, use `HDAWG.lock_reference`.

    Attributes:
        source: one of `REFERENCE_SOURCES`; external is 10 or 100 MHz at the back.
        status: locked, error or busy.
    """

    def __init__(self, parent: Any) -> None:
        super().__init__(parent, "reference")
        node = parent.toolkit.system.clocks.referenceclock
        self.source = self._add("source", node.source, Enum(*REFERENCE_SOURCES))
        self.status = self.add_parameter(
            "status", get_cmd=lambda: node.status().name, label="status"
        )
