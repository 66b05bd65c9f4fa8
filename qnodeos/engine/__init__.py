"""The tick engine: exchanges frames with the device in real time, for one thread that decides.

`open_engine` opens one; `TickEngine` says what it does. `DevicePort` is the other end of a
channel, for a process that simulates a laboratory. See docs/decisions/0013-tick-engine.md.
"""

from __future__ import annotations

from qnodeos.engine.channel import DevicePort, read_channel
from qnodeos.engine.histogram import Histogram
from qnodeos.engine.interface import (
    EngineEvent,
    EngineStatistics,
    SkippedSlots,
    TickEngine,
)
from qnodeos.engine.layout import ChannelInfo
from qnodeos.engine.links import Link, LoopbackLink, ShmLink, SpidevLink
from qnodeos.engine.opening import choose_mode, open_engine, usable_cores

__all__ = [
    "ChannelInfo",
    "DevicePort",
    "EngineEvent",
    "EngineStatistics",
    "Histogram",
    "Link",
    "LoopbackLink",
    "ShmLink",
    "SkippedSlots",
    "SpidevLink",
    "TickEngine",
    "choose_mode",
    "open_engine",
    "read_channel",
    "usable_cores",
]
