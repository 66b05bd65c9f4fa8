"""The tick engine in C (csrc/), behind the interface of all engines."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from secrets import randbelow
from typing import Any, Final

from qnodeos.engine import _native
from qnodeos.engine.histogram import from_counts
from qnodeos.engine.interface import (
    BUSY_LIMIT_NS,
    SHARED_SILENCE_NS,
    EngineEvent,
    EngineStatistics,
    LinkName,
    Mode,
    SkippedSlots,
)
from qnodeos.engine.layout import PAGE_BYTES, decode_header, open_file
from qnodeos.engine.links import Link, LoopbackLink, ShmLink, SpidevLink
from qnodeos.engine.presence import DEVICE_DOORBELL, QNPU_DOORBELL, Doorbell, doorbell_path
from qnodeos.engine.privileges import ordinary_share_ns, realtime_warnings
from qnodeos.errors import ChannelError, DeviceError, FrameError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.endpoint import SILENCE_LIMIT_FRAMES
from qnodeos.qdevice.frames import HERALD_OF_DETAIL, MAX_SESSION
from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import Outcome

_OUTSTANDING: Final = 1
_NOT_RUNNING: Final = 2
_OUTCOMES: Final = {int(outcome): outcome for outcome in Outcome}


class NativeEngine:
    """See `qnodeos.engine.interface.TickEngine`; `open_engine` explains the arguments.

    Raises:
        DeviceError: the device cannot be opened (`ChannelError` for a channel).
    """

    is_native: Final = True

    def __init__(
        self,
        link: Link,
        *,
        mode: Mode,
        tick_core: int | None,
        tick_priority: int,
        silence_limit_ticks: int | None,
        busy_limit_ticks: int | None,
    ) -> None:
        self.mode: Mode = mode
        self.capabilities: Capabilities | None = None
        self._core = tick_core if mode == "spinning" else None
        self._priority = tick_priority if mode == "spinning" else 0
        self._closed = False
        self._doorbell: Doorbell | None = None
        arguments: dict[str, Any]
        if isinstance(link, ShmLink):
            self.link: LinkName = "shm"
            page = _first_page(link.path)
            info = decode_header(page, str(link.path))
            self.tick_ns = info.tick_ns
            self.capabilities = info.capabilities
            if mode == "event-paced":
                self._doorbell = Doorbell(doorbell_path(link.path, QNPU_DOORBELL))
            arguments = {
                "path": link.path,
                "bell": doorbell_path(link.path, DEVICE_DOORBELL),
                "page": page,
            }
        elif isinstance(link, LoopbackLink):
            self.link = "loopback"
            self.tick_ns = link.tick_ns
            arguments = {"answer_ticks": link.answer_ticks}
        else:
            self.link = "spidev"
            self.tick_ns = link.tick_ns
            arguments = {
                "path": _spi_path(link),
                "spi_mode": link.mode,
                "speed_hz": link.speed_hz,
            }
        if silence_limit_ticks is None:
            silence_limit_ticks = (
                SILENCE_LIMIT_FRAMES
                if self.link == "spidev"
                else max(SHARED_SILENCE_NS // self.tick_ns, 2)
            )
        try:
            self._engine = _native.Engine(
                kind=self.link,
                spinning=mode == "spinning",
                core=-1 if self._core is None else self._core,
                priority=self._priority,
                doorbell=-1 if self._doorbell is None else self._doorbell.fileno(),
                silence_limit=silence_limit_ticks,
                busy_limit=busy_limit_ticks or max(BUSY_LIMIT_NS // self.tick_ns, 2),
                session=randbelow(MAX_SESSION + 1),
                share_ns=ordinary_share_ns() if self._priority else 0,
                tick_ns=self.tick_ns,
                **arguments,
            )
        except OSError as error:
            self._close_doorbell()
            raise _explained(error, link) from error
        self._take: Callable[[], tuple[int, int, int] | None] = self._engine.poll

    @property
    def idle(self) -> bool:
        """See `TickEngine`."""
        return self._engine.idle

    def start(self) -> None:
        """See `TickEngine`."""
        self._check_open()
        try:
            self._engine.start()
        except OSError as error:
            raise DeviceError(
                f"the tick thread cannot be started: {error.strerror}; check the core it is to run "
                "on, and the limits on threads"
            ) from error

    def stop(self) -> None:
        """See `TickEngine`."""
        self._engine.stop()

    def close(self) -> None:
        """See `TickEngine`."""
        self._closed = True
        self._take = _no_event
        self._engine.close()
        self._close_doorbell()

    def _close_doorbell(self) -> None:
        if self._doorbell is not None:
            self._doorbell.close()

    def now_tick(self) -> int:
        """See `TickEngine`."""
        return self._engine.now_tick()

    def tick_reading(self) -> tuple[int, int]:
        """See `TickEngine`."""
        return self._engine.tick_reading()

    def submit(self, instruction: PhysicalInstruction) -> None:
        """See `TickEngine`."""
        if instruction.opcode is Opcode.NOP:
            raise FrameError("a NOP is never answered; submit nothing instead")
        refused = _NOT_RUNNING if self._closed else self._engine.submit(instruction.word)
        if not refused:
            return
        if refused == _OUTSTANDING:
            raise FrameError(
                f"{instruction.opcode.name} submitted while another instruction is "
                "outstanding; wait for its event"
            )
        raise FrameError("the engine is not started; start it before the first instruction")

    def poll(self) -> EngineEvent | None:
        """See `TickEngine`."""
        found = self._take()
        if found is None:
            return None
        tick, response, command_tick = found
        return EngineEvent(
            tick, _OUTCOMES[response & 15], HERALD_OF_DETAIL[response >> 4], command_tick
        )

    def filenos(self) -> tuple[int, ...]:
        """See `TickEngine`."""
        return tuple(descriptor for descriptor in self._engine.filenos() if descriptor >= 0)

    def wake_at(self, tick: int | None) -> None:
        """See `TickEngine`."""
        self._engine.wake_at(tick)

    def take_skips(self) -> list[SkippedSlots]:
        """See `TickEngine`."""
        return [SkippedSlots(*skip) for skip in self._engine.take_skips()]

    def inject_stall(self, duration_ns: int) -> None:
        """Make the tick thread miss ticks for a while, to see what comes of it (spinning)."""
        self._engine.inject_stall(duration_ns)

    def run_ticks(self, ticks: int) -> None:
        """Exchange the frames of some ticks without waiting for any, to measure what they cost.

        Raises:
            DeviceError: the engine has been closed.
            ValueError: it is running.
        """
        self._check_open()
        self._engine.run_ticks(ticks)

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("the engine has been closed; open another")

    def statistics(self) -> EngineStatistics:
        """See `TickEngine`."""
        counted = self._engine.counters()
        counted.pop("session")
        has_fifo, is_running = bool(counted.pop("has_fifo")), bool(counted.pop("is_running"))
        attached = bool(counted.pop("device_attached"))
        priority = self._priority if has_fifo else 0
        warnings: tuple[str, ...] = ()
        if self.mode == "spinning" and is_running:
            warnings = realtime_warnings(self._priority, priority, self._core)
        return EngineStatistics(
            mode=self.mode,
            link=self.link,
            is_native=True,
            tick_ns=self.tick_ns,
            priority=priority,
            core=self._core,
            lateness_ns=from_counts(*self._engine.lateness()),
            reaction_ticks=from_counts(*self._engine.reaction()),
            device_attached=attached,
            warnings=warnings,
            **counted,
        )


def _no_event() -> None:
    """What a closed engine has to tell."""


def _first_page(path: Path) -> bytes:
    descriptor = open_file(path)
    try:
        return os.pread(descriptor, PAGE_BYTES, 0)
    finally:
        os.close(descriptor)


def _spi_path(link: SpidevLink) -> Path:
    return Path(f"/dev/spidev{link.bus}.{link.device}")


def _explained(error: OSError, link: Link) -> DeviceError:
    """What went wrong while a link was opened, and what to do about it."""
    if isinstance(link, SpidevLink):
        path = _spi_path(link)
        return DeviceError(
            f"{path} cannot be used: {error.strerror}; enable this SPI bus in the device tree, "
            "give this user access to the file, and choose a mode and a clock it supports"
        )
    if not isinstance(link, ShmLink):
        return DeviceError(f"the engine cannot be opened: {error.strerror}")
    what = {
        errno.ENODEV: f"the lab that made the channel {link.path} has gone; start it again",
        errno.EBUSY: f"another QNPU is attached to the channel {link.path}; stop it first",
        errno.EILSEQ: f"the channel {link.path} changed while it was opened; try again",
    }
    return ChannelError(
        what.get(error.errno or 0, f"the channel {link.path} cannot be opened: {error.strerror}")
    )
