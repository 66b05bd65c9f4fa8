"""What the pure-Python engine's frames travel on: a channel, or a device of its own."""

from __future__ import annotations

from pathlib import Path
from secrets import randbelow
from typing import Final, Protocol

from qnodeos.engine.channel import QnpuPort
from qnodeos.engine.layout import ChannelInfo
from qnodeos.engine.links import LoopbackLink
from qnodeos.engine.presence import QNPU_DOORBELL, Doorbell, doorbell_path
from qnodeos.engine.schedule import ResponseSchedule
from qnodeos.errors import ChannelError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.endpoint import FrameSlave
from qnodeos.qdevice.frames import MAX_SESSION, TICK_MASK, unwrap_tick
from qnodeos.qdevice.outcomes import Outcome

FURTHEST_NS: Final = 1 << 61
"""Responses for ticks further from the epoch are damage, as in csrc/links.c: 73 years."""


class Wire(Protocol):
    """The way to a device that says from which tick on its responses hold.

    Attributes:
        tick_ns: length of a tick.
        capabilities: of the device, if it tells.
        schedule: its responses; `receive` fills it.
        attached: whether there is a device.
        session: the number with which to begin.
        damaged: responses that were left out.
    """

    tick_ns: int
    capabilities: Capabilities | None
    schedule: ResponseSchedule
    attached: bool
    session: int
    damaged: int

    def start(self, now_ns: int) -> None:
        """Begin."""
        ...

    def tick_at(self, time_ns: int) -> int:
        """Device tick at a time."""
        ...

    def time_of(self, tick: int) -> int:
        """When a tick begins."""
        ...

    def send(self, tick: int, frame: int) -> bool:
        """A command that is on the wire from that tick on; False if it has to wait."""
        ...

    def receive(self) -> None:
        """Take what the device has said."""
        ...

    def maintain(self, now_ns: int) -> None:
        """Look whether the device is there; attach to it if it has come back."""
        ...

    def filenos(self) -> tuple[int, ...]:
        """Readable when `receive` may find something."""
        ...

    def acknowledge(self) -> None:
        """Make them quiet."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class LoopbackWire:
    """A device that answers SUCCESS_ZERO after some ticks."""

    def __init__(self, link: LoopbackLink) -> None:
        self.tick_ns = link.tick_ns
        self.capabilities: Capabilities | None = None
        self.schedule = ResponseSchedule()
        self.attached = True
        self.damaged = 0
        self.session = randbelow(MAX_SESSION + 1)
        self._answer_ticks = link.answer_ticks
        self._slave = FrameSlave()
        self._epoch_ns = 0

    def start(self, now_ns: int) -> None:
        """See `Wire`."""
        self._epoch_ns = now_ns
        self._slave = FrameSlave()
        self.schedule = ResponseSchedule()
        self.schedule.put(0, self._slave.outgoing(0))

    def tick_at(self, time_ns: int) -> int:
        """See `Wire`."""
        return (time_ns - self._epoch_ns) // self.tick_ns

    def time_of(self, tick: int) -> int:
        """See `Wire`."""
        return self._epoch_ns + tick * self.tick_ns

    def send(self, tick: int, frame: int) -> bool:
        """See `Wire`."""
        slave = self._slave
        instruction = slave.incoming(frame)
        if slave.has_news:
            self.schedule.put(tick + 1, slave.outgoing(tick + 1))
        if instruction is not None:
            slave.complete(Outcome.SUCCESS_ZERO)
            answered = tick + self._answer_ticks + 1
            self.schedule.put(answered, slave.outgoing(answered))
        return True

    def receive(self) -> None:
        """See `Wire`."""

    def maintain(self, now_ns: int) -> None:
        """See `Wire`."""

    def filenos(self) -> tuple[int, ...]:
        """See `Wire`."""
        return ()

    def acknowledge(self) -> None:
        """See `Wire`."""

    def close(self) -> None:
        """See `Wire`."""


class ShmWire:
    """A device in a lab process.

    If the lab starts again, its ticks begin anew; the low bits count then, as on any wire, and
    the higher ones go on as they were.

    Raises:
        ChannelError: see `QnpuPort`.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._port: QnpuPort | None = QnpuPort(path)
        self._info = self._port.info
        self._turns_ticks = 0
        self.tick_ns = self._info.tick_ns
        self.capabilities: Capabilities | None = self._info.capabilities
        self.schedule = ResponseSchedule()
        self.attached = True
        self.damaged = 0
        try:
            self._doorbell = Doorbell(doorbell_path(path, QNPU_DOORBELL))
        except BaseException:
            self._port.close()
            raise
        # One after that of the QNPU before, whose frames can then not be confused with ours.
        self.session = self._port.attach() & MAX_SESSION

    def start(self, now_ns: int) -> None:
        """See `Wire`."""
        if self._port is not None:
            self._port.attach()
            self._port.beat(now_ns)
        self.schedule = ResponseSchedule()

    def tick_at(self, time_ns: int) -> int:
        """See `Wire`."""
        return self._info.tick_at(time_ns) + self._turns_ticks

    def time_of(self, tick: int) -> int:
        """See `Wire`."""
        return self._info.epoch_ns + (tick - self._turns_ticks) * self.tick_ns

    def send(self, tick: int, frame: int) -> bool:
        """See `Wire`."""
        return self._port is not None and self._port.send(tick - self._turns_ticks, frame)

    def receive(self) -> None:
        """See `Wire`."""
        schedule = self.schedule
        while self._port is not None and not schedule.is_full:
            response = self._port.take()
            if response is None:
                return
            from_tick, frame = response
            if abs(from_tick) > FURTHEST_NS // self.tick_ns:
                self.damaged += 1
            else:
                schedule.put(from_tick + self._turns_ticks, frame)

    def maintain(self, now_ns: int) -> None:
        """See `Wire`."""
        if self._port is not None:
            if self._port.has_device:
                self._port.beat(now_ns)
                return
            # Even if another is there already: what was outstanding is lost, and has to be told.
            self._port.close()
            self._port = None
            self.attached = False
            self.schedule = ResponseSchedule()
            return
        try:
            port = QnpuPort(self._path)
        except ChannelError:
            return
        if port.info.capabilities != self.capabilities:
            port.close()  # another device: whoever has opened this engine relies on the first
            return
        self._continue(port.info, now_ns)
        self._port = port
        self.attached = True
        port.attach()

    def _continue(self, info: ChannelInfo, now_ns: int) -> None:
        near = self.tick_at(now_ns)
        fresh = info.tick_at(now_ns)
        self._info = info
        self._turns_ticks = unwrap_tick(fresh & TICK_MASK, near) - fresh

    def filenos(self) -> tuple[int, ...]:
        """See `Wire`."""
        return (self._doorbell.fileno(),)

    def acknowledge(self) -> None:
        """See `Wire`."""
        self._doorbell.acknowledge()

    def close(self) -> None:
        """See `Wire`."""
        if self._port is not None:
            self._port.close()
            self._port = None
        self._doorbell.close()
