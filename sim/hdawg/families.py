"""The node families of the simulated HDAWG, and those of its data server."""

from __future__ import annotations

from typing import Final

from sim.hdawg.nodes import SETTING, WRITE, Node, NodeType
from sim.hdawg.sequencer import N_USER_REGISTERS
from sim.hdawg.timing import SAMPLE_RATE_HZ

OUTPUTS_PER_CORE: Final = 2

DIO_MODES: Final = {
    0: "manual",
    1: "awg_sequencer_commands",
    2: "dio_codeword",
    3: "qccs",
}

MARK_SOURCES: Final = {
    **{trigger: f"awg_trigger{trigger}" for trigger in range(4)},
    **{4 + marker: f"output{marker // 2}_marker{marker % 2}" for marker in range(4)},
    **{8 + trigger: f"trigin{trigger}" for trigger in range(8)},
    17: "high",
    18: "low",
}
"""What a Mark connector carries, of the core that feeds it."""

_INTEGER = NodeType.INTEGER
_ENUMERATED = NodeType.ENUMERATED
_DOUBLE = NodeType.DOUBLE
_STRING = NodeType.STRING
_VECTOR = NodeType.VECTOR

DEVICE_FAMILIES: Final = (
    Node("features/serial", _STRING),
    Node("features/devtype", _STRING),
    Node("features/options", _STRING),
    Node("clockbase", _DOUBLE, unit="Hz", default=SAMPLE_RATE_HZ),
    Node("system/fwrevision", _INTEGER),
    Node(
        "system/awg/channelgrouping",
        _ENUMERATED,
        SETTING,
        keywords={0: "groups_of_2", 1: "groups_of_4", 2: "groups_of_8"},
    ),
    Node("system/clocks/sampleclock/freq", _DOUBLE, SETTING, "Hz", default=SAMPLE_RATE_HZ),
    Node(
        "system/clocks/referenceclock/source",
        _ENUMERATED,
        SETTING,
        keywords={0: "internal", 1: "external", 2: "zsync"},
    ),
    Node(
        "system/clocks/referenceclock/status",
        _ENUMERATED,
        keywords={0: "locked", 1: "error", 2: "busy"},
    ),
    Node("dios/{dio}/mode", _ENUMERATED, SETTING, keywords=DIO_MODES),
    Node("dios/{dio}/interface", _INTEGER, SETTING),
    Node("dios/{dio}/drive", _INTEGER, SETTING),
    Node("dios/{dio}/input", _INTEGER),
    Node("dios/{dio}/output", _INTEGER, SETTING),
    Node("triggers/out/{channel}/source", _ENUMERATED, SETTING, keywords=MARK_SOURCES),
    Node("sigouts/{channel}/on", _INTEGER, SETTING),
    Node("sigouts/{channel}/range", _DOUBLE, SETTING, "V", default=1.0),
    Node("sigouts/{channel}/offset", _DOUBLE, SETTING, "V"),
    Node("awgs/{core}/enable", _INTEGER, SETTING),
    Node("awgs/{core}/single", _INTEGER, SETTING),
    Node("awgs/{core}/reset", _INTEGER, SETTING),
    Node("awgs/{core}/ready", _INTEGER),
    Node("awgs/{core}/userregs/{register}", _INTEGER, SETTING),
    Node("awgs/{core}/elf/data", _VECTOR, WRITE, default=b""),
    Node("awgs/{core}/elf/length", _INTEGER),
    Node("awgs/{core}/elf/progress", _DOUBLE, unit="%"),
    Node("awgs/{core}/sequencer/status", _INTEGER),
    Node("awgs/{core}/sequencer/memoryusage", _DOUBLE),
    Node("awgs/{core}/sequencer/program", _VECTOR),
    Node("awgs/{core}/sequencer/assembly", _VECTOR),
    Node("awgs/{core}/waveform/descriptors", _VECTOR, default='{"waveforms":[]}'),
    Node("awgs/{core}/waveform/memoryusage", _DOUBLE, unit="%"),
    Node("awgs/{core}/commandtable/data", _VECTOR, WRITE),
    Node("awgs/{core}/commandtable/schema", _VECTOR),
    Node("awgs/{core}/commandtable/status", _INTEGER),
    Node("awgs/{core}/commandtable/clear", _INTEGER, SETTING),
    Node("awgs/{core}/dio/strobe/index", _INTEGER, SETTING),
    Node(
        "awgs/{core}/dio/strobe/slope",
        _ENUMERATED,
        SETTING,
        keywords={0: "off", 1: "rising_edge", 2: "falling_edge", 3: "both_edges"},
    ),
    Node("awgs/{core}/dio/valid/index", _INTEGER, SETTING),
    Node(
        "awgs/{core}/dio/valid/polarity",
        _ENUMERATED,
        SETTING,
        keywords={0: "none", 1: "low", 2: "high", 3: "both"},
    ),
    Node("awgs/{core}/dio/mask/value", _INTEGER, SETTING, default=1023),
    Node("awgs/{core}/dio/mask/shift", _INTEGER, SETTING),
    Node("awgs/{core}/outputs/{output}/amplitude", _DOUBLE, SETTING, default=1.0),
)
"""Paths are relative to the device.

`commandtable/schema` is not in the published node documentation, but current firmware has
it, and zhinst-toolkit reads it. `waveform/waves/i` appear with the program.
"""

SERVER_NODES: Final = (
    Node("/zi/about/dataserver", _STRING, default="DataServer (simulated)"),
    Node("/zi/about/version", _STRING),
    Node("/zi/about/fullversion", _STRING),
    Node("/zi/about/revision", _INTEGER),
    Node("/zi/devices/visible", _STRING),
    Node("/zi/devices/connected", _STRING),
    Node("/zi/devices", _STRING, is_listed=False),
)


def counts(n_channels: int) -> dict[str, int]:
    """How many there are of each name in the families."""
    return {
        "dio": 1,
        "channel": n_channels,
        "core": n_channels // OUTPUTS_PER_CORE,
        "output": OUTPUTS_PER_CORE,
        "register": N_USER_REGISTERS,
    }


def waveform_node(prefix: str, core: int, index: int) -> Node:
    """The node of one waveform in memory."""
    return Node(f"{prefix}awgs/{core}/waveform/waves/{index}", _VECTOR, WRITE)
