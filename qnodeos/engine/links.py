"""Which device an engine is to talk to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

NV_TICK_NS: Final = 10_000
"""Length of a tick of the published NV nodes."""
MAX_ANSWER_TICKS: Final = 1_000_000
"""Bound on how long the loopback device takes for an instruction (assumed)."""


@dataclass(frozen=True)
class LoopbackLink:
    """A device inside the engine that answers SUCCESS_ZERO to everything, for self-tests.

    Attributes:
        tick_ns: length of a tick.
        answer_ticks: from the tick that brings an instruction to the one at which its outcome
            exists; the next frame carries it.
    """

    tick_ns: int = NV_TICK_NS
    answer_ticks: int = 0


@dataclass(frozen=True)
class ShmLink:
    """A device in a lab process on the same machine (`qnodeos.engine.channel`).

    Attributes:
        path: of the channel's file.
    """

    path: Path


@dataclass(frozen=True)
class SpidevLink:
    """A device at an SPI bus, ``/dev/spidev<bus>.<device>``: one transfer per tick.

    Best effort: what a transfer costs decides the machine (docs/decisions/0013). Not verified on
    hardware.

    Attributes:
        bus: number of the SPI controller.
        device: number of its chip select.
        tick_ns: length of a tick.
        speed_hz: of the clock, at most (assumed: see `drivers.spi`).
        mode: clock polarity and phase, 0 to 3 (assumed: see `drivers.spi`).
    """

    bus: int
    device: int
    tick_ns: int = NV_TICK_NS
    speed_hz: int = 12_500_000
    mode: int = 1


Link = LoopbackLink | ShmLink | SpidevLink
