"""The two ends of a channel between a lab process and a QNPU, in shared memory.

Theory of operation
-------------------
The lab makes a file for each of its devices (`DevicePort.create`), which both processes map
(`qnodeos.engine.layout`). One frame each way per tick would be two frames every 10 us of which
nearly all repeat the one before, so only what is new is written: a command when it differs from
the one before, with the tick at which it goes out; a response with the tick from which it holds,
which may lie in the future. Between two entries the wire carries the last one again and again;
the reader fills in the tick's own bits (`TICK_PATTERN`). The device tick is the clock's:
(CLOCK_MONOTONIC - epoch) / tick.

Whoever attaches counts up the generation; the device then writes again what it has on the wire,
so a QNPU that starts late or again misses nothing. A lab that starts again makes a new file.
"""

from __future__ import annotations

import mmap
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from qnodeos.engine.layout import (
    COMMANDS_AT,
    DEVICE_BYTE,
    FILE_BYTES,
    MAGIC,
    PAGE_BYTES,
    QNPU_BYTE,
    RESPONSES_AT,
    ChannelInfo,
    Word,
    decode_header,
    encode_header,
    open_file,
)
from qnodeos.engine.presence import (
    DEVICE_DOORBELL,
    QNPU_DOORBELL,
    Bell,
    Doorbell,
    doorbell_path,
    is_locked,
    lock_byte,
)
from qnodeos.engine.schedule import ResponseSchedule, frame_at
from qnodeos.engine.slots import SlotRing, slot_ring_type
from qnodeos.errors import ChannelError
from qnodeos.qdevice.capabilities import Capabilities

MAX_CHANNEL_NAME: Final = 200
"""Length of a channel's file name: with the endings added it must stay below 255."""


class _Mapping:
    """A mapped channel: its words and its two rings."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, FILE_BYTES)
        self._memory = memoryview(self._map)
        self.words = self._memory.cast("Q")
        ring = slot_ring_type()
        self.commands: SlotRing = ring(
            self._memory, COMMANDS_AT, Word.COMMAND_HEAD, Word.COMMAND_TAIL
        )
        self.responses: SlotRing = ring(
            self._memory, RESPONSES_AT, Word.RESPONSE_HEAD, Word.RESPONSE_TAIL
        )

    def header(self) -> bytes:
        return bytes(self._memory[:PAGE_BYTES])

    def close(self) -> None:
        self.commands.release()
        self.responses.release()
        self.words.release()
        self._memory.release()
        self._map.close()
        os.close(self.descriptor)


class DevicePort:
    """The lab's end of a channel. Make it with `create`; all methods belong to one thread.

    Attributes:
        info: what the channel says about the device.
        path: of the channel's file.
    """

    def __init__(self, path: Path, info: ChannelInfo, mapping: _Mapping, doorbell: Doorbell):
        self.path = path
        self.info = info
        self._mapping = mapping
        self._doorbell = doorbell
        self._bell = Bell(doorbell_path(path, QNPU_DOORBELL))
        self._schedule = ResponseSchedule()
        self._generation = 0
        self._closed = False

    @classmethod
    def create(
        cls, path: Path, *, name: str, tick_ns: int, epoch_ns: int, capabilities: Capabilities
    ) -> Self:
        """Make a channel, which a QNPU can then open.

        Args:
            path: of its file (mode 0600), in a directory that exists; best on a file system in
                memory, such as /run or /dev/shm. What a lab that has died left there is replaced.
            name: of the device, for messages; it replaces the one in ``capabilities``.
            tick_ns: length of a tick.
            epoch_ns: CLOCK_MONOTONIC at the begin of tick 0.
            capabilities: what the device can do; its ``tick_ns`` is replaced by the one given.

        Raises:
            ChannelError: another lab has a channel there, or it cannot be made.
        """
        if len(path.name) > MAX_CHANNEL_NAME:
            raise ChannelError(
                f"the name of the channel {path} is too long; use at most {MAX_CHANNEL_NAME} "
                "characters"
            )
        _refuse_living(path)
        info = ChannelInfo(
            tick_ns,
            epoch_ns,
            time.monotonic_ns(),
            replace(capabilities, name=name, tick_ns=tick_ns),
        )
        page = encode_header(info)
        doorbell = Doorbell(doorbell_path(path, DEVICE_DOORBELL))
        # Nobody sees the file before it is complete and locked.
        draft = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            mapping = _make_file(draft, page)
        except BaseException:
            doorbell.close()
            raise
        try:
            os.replace(draft, path)
        except BaseException as error:
            mapping.close()
            doorbell.close()
            with suppress(FileNotFoundError):
                os.unlink(draft)
            if isinstance(error, OSError):
                raise ChannelError(f"the channel {path} cannot be made: {error}") from error
            raise
        return cls(path, info, mapping, doorbell)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def generation(self) -> int:
        """How many QNPUs have attached to this channel; 0 before the first."""
        return self._mapping.words[Word.QNPU_GENERATION]

    @property
    def attached(self) -> bool:
        """Whether a QNPU is attached now (asks the kernel: a microsecond)."""
        return is_locked(self._mapping.descriptor, QNPU_BYTE)

    @property
    def damaged(self) -> int:
        """Commands that were left out because what stood in memory was damaged."""
        return self._mapping.commands.damaged

    def now_tick(self) -> int:
        """The device tick now."""
        return self.info.tick_at(time.monotonic_ns())

    def receive(self) -> tuple[int, int] | None:
        """The next new command, in order.

        Call it at least every 100 ms or so, even if `fileno` stays quiet: it is also how the
        device shows that it is alive, and how it notices a new QNPU.

        Returns:
            The tick at which it is on the wire first (which may not have come yet), and the
            frame, which stays on the wire until the next; None if there is none.

        Raises:
            ChannelError: a new QNPU has come, and there is no room to write for it what is on the
                wire. Its commands wait; the next call tries again.
        """
        mapping = self._mapping
        mapping.words[Word.DEVICE_HEARTBEAT] = time.monotonic_ns()
        generation = mapping.words[Word.QNPU_GENERATION]
        if generation != self._generation:
            self._greet()
            self._generation = generation
        return mapping.commands.pop()

    def respond(self, from_tick: int, frame: int) -> None:
        """Put a response on the wire from a tick on, in place of those that hold later.

        Args:
            from_tick: device tick. An answer to a command first on the wire at tick s can hold
                from tick s + 1 on. One that comes after its tick is on the wire from now on:
                nobody can have seen it before.
            frame: as it is at ``from_tick``.

        Raises:
            ChannelError: the QNPU does not take its responses, or there are too many for later
                ticks.
        """
        schedule = self._schedule
        now_tick = self.now_tick()
        while schedule.take(now_tick):
            pass
        if from_tick < now_tick:
            from_tick, frame = now_tick, frame_at(frame, from_tick, now_tick)
        if schedule.is_full:
            raise ChannelError(
                f"too many responses wait for their tick in the channel {self.path}; a device has "
                "one instruction at a time"
            )
        schedule.put(from_tick, frame)
        if self._generation:
            self._publish(from_tick, frame)
            self._bell.ring()

    def fileno(self) -> int:
        """Descriptor that is readable when `receive` may have something."""
        return self._doorbell.fileno()

    def acknowledge_doorbell(self) -> None:
        """Make `fileno` quiet; call it before `receive`, not after."""
        self._doorbell.acknowledge()

    def close(self) -> None:
        """Take the channel away; the QNPU notices. More than once does no harm."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(self._mapping.descriptor)):
                os.unlink(self.path)
        self._doorbell.close()
        self._bell.close()
        self._mapping.close()

    def _greet(self) -> None:
        """Write again what is on the wire and what will be: a new QNPU has not seen it."""
        self._bell.find()
        schedule = self._schedule
        while schedule.take(self.now_tick()):
            pass
        if schedule.current is not None:
            self._publish(*schedule.current)
        for response in schedule.pending:
            self._publish(*response)
        self._bell.ring()

    def _publish(self, from_tick: int, frame: int) -> None:
        if not self._mapping.responses.push(from_tick, frame) and self.attached:
            raise ChannelError(
                f"the QNPU at the channel {self.path} takes no responses; it has been stopped, or "
                "its policy thread hangs"
            )


class QnpuPort:
    """The QNPU's end of a channel.

    Args:
        path: of the channel's file.

    Raises:
        ChannelError: there is no channel, it is damaged, or another QNPU has it.

    Attributes:
        info: what the channel says about the device.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bell = Bell(doorbell_path(path, DEVICE_DOORBELL))
        self._mapping = _map(open_file(path))
        try:
            self.info = decode_header(self._mapping.header(), str(path))
            if not self.has_device:
                raise ChannelError(f"the lab that made the channel {path} has gone; start it again")
            if not lock_byte(self._mapping.descriptor, QNPU_BYTE):
                raise ChannelError(f"another QNPU is attached to the channel {path}; stop it first")
        except BaseException:
            self._mapping.close()
            raise

    @property
    def has_device(self) -> bool:
        """Whether the lab that made this channel is alive (asks the kernel)."""
        return is_locked(self._mapping.descriptor, DEVICE_BYTE)

    @property
    def damaged(self) -> int:
        """Responses that were left out because what stood in memory was damaged."""
        return self._mapping.responses.damaged

    def attach(self) -> int:
        """Begin to receive; the device will write what is on the wire.

        Returns:
            The generation: how many QNPUs have attached so far, with this one.
        """
        words = self._mapping.words
        self._mapping.responses.skip_all()
        generation: int = words[Word.QNPU_GENERATION] + 1 & (1 << 64) - 1
        words[Word.QNPU_GENERATION] = generation
        self._bell.find()
        self._bell.ring()
        return generation

    def send(self, tick: int, frame: int) -> bool:
        """Write a command, on the wire from that tick on; False if there is no room."""
        if not self._mapping.commands.push(tick, frame):
            return False
        self._bell.ring()
        return True

    def take(self) -> tuple[int, int] | None:
        """The next response: from which tick on it holds, and the frame as it is then."""
        return self._mapping.responses.pop()

    def beat(self, now_ns: int) -> None:
        """Show that the QNPU is alive."""
        self._mapping.words[Word.QNPU_HEARTBEAT] = now_ns

    def close(self) -> None:
        """Detach."""
        self._bell.close()
        self._mapping.close()


def _map(descriptor: int) -> _Mapping:
    try:
        return _Mapping(descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def read_channel(path: Path) -> ChannelInfo:
    """What a channel says about its device, without attaching to it.

    Raises:
        ChannelError: there is none, or it is damaged.
    """
    descriptor = open_file(path)
    try:
        return decode_header(os.pread(descriptor, PAGE_BYTES, 0), str(path))
    finally:
        os.close(descriptor)


def _refuse_living(path: Path) -> None:
    """Make sure that no living lab has this channel, and that it is no other file.

    Raises:
        ChannelError: one has, or it is.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ChannelError(f"the channel {path} cannot be replaced: {error.strerror}") from error
    try:
        if os.pread(descriptor, len(MAGIC), 0) not in {MAGIC, b""}:
            raise ChannelError(f"{path} is something else than a channel; choose another place")
        if is_locked(descriptor, DEVICE_BYTE):
            raise ChannelError(
                f"another lab has the channel {path}; stop it, or choose another place"
            )
    finally:
        os.close(descriptor)


def _make_file(draft: Path, page: bytes) -> _Mapping:
    """A complete channel file under a name of its own, locked and mapped."""
    with suppress(FileNotFoundError):
        os.unlink(draft)
    try:
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ChannelError(f"no channel can be made at {draft}: {error.strerror}") from error
    try:
        # Written in full: a page without room on its disk would stop whoever touches it.
        if os.pwrite(descriptor, page.ljust(FILE_BYTES, b"\0"), 0) != FILE_BYTES:
            raise ChannelError(f"no room for the channel {draft}; choose a place that has some")
        lock_byte(descriptor, DEVICE_BYTE)
        return _Mapping(descriptor)
    except BaseException as error:
        os.close(descriptor)
        os.unlink(draft)
        if isinstance(error, OSError):
            raise ChannelError(f"no channel can be made at {draft}: {error.strerror}") from error
        raise
