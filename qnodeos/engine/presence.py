"""Who is at a channel, and the doorbells between them.

Presence is an open file description lock on one byte of the channel's file: the kernel takes it
back from a process that dies. A doorbell is a named pipe that its owner reads and the other end
writes a byte to; a byte says nothing but that it is time to look.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from qnodeos.errors import ChannelError

DEVICE_DOORBELL: Final = ".device"
QNPU_DOORBELL: Final = ".qnpu"
"""Endings of the doorbells' names, behind that of the channel: who reads them."""

_FLOCK: Final = struct.Struct("@hhqqi4x")
"""struct flock of Linux, 64 bits: type, whence, start, length, pid."""
_F_OFD_GETLK: Final = 36
_F_OFD_SETLK: Final = 37
"""Of linux/fcntl.h; the module fcntl has no names for them before Python 3.13."""
_DRAIN_BYTES: Final = 65_536


def lock_byte(descriptor: int, byte: int) -> bool:
    """Take the lock on one byte, until the descriptor is closed; False if another has it."""
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    try:
        fcntl.fcntl(descriptor, _F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_locked(descriptor: int, byte: int) -> bool:
    """Whether another open file description holds the lock on this byte."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(descriptor, _F_OFD_GETLK, asked))[0]
    return found != fcntl.F_UNLCK


def doorbell_path(channel: Path, ending: str) -> Path:
    """Where a doorbell of a channel is."""
    return channel.with_name(channel.name + ending)


class Doorbell:
    """One's own doorbell: a new named pipe, open for reading.

    Args:
        path: where; a pipe that an earlier owner has left there is removed.

    Raises:
        ChannelError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            _remove_pipe(path)
            os.mkfifo(path, 0o600)
            # Open for writing too: without a writer, the pipe would always be readable.
            self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ChannelError(f"the doorbell {path} cannot be made: {error.strerror}") from error
        self._identity = os.fstat(self._descriptor)
        self._owner = os.getpid()

    def fileno(self) -> int:
        """Readable when the other end has rung."""
        return self._descriptor

    def acknowledge(self) -> None:
        """Take back every ring so far."""
        with suppress(BlockingIOError):
            os.read(self._descriptor, _DRAIN_BYTES)

    def close(self) -> None:
        """Remove it; more than once does no harm. A fork of its owner only lets go of it."""
        if self._descriptor < 0:
            return
        with suppress(OSError):
            # Another may have made its own in the same place.
            if self._owner == os.getpid() and os.path.samestat(
                os.stat(self._path, follow_symlinks=False), self._identity
            ):
                os.unlink(self._path)
        os.close(self._descriptor)
        self._descriptor = -1


def _remove_pipe(path: Path) -> None:
    """Remove what an earlier owner has left.

    Raises:
        ChannelError: it is something else.
        OSError: it cannot be removed.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISFIFO(os.lstat(path).st_mode):
            raise ChannelError(
                f"{path} is something else than a doorbell; remove it, or choose another place for "
                "the channel"
            )
        os.unlink(path)


class Bell:
    """The button of the other end's doorbell, which may not be there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def find(self) -> None:
        """Look for the doorbell anew: the other end has started, and made its own."""
        self.close()
        with suppress(OSError):
            descriptor = os.open(
                self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
            )
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                self._descriptor = descriptor
            else:
                os.close(descriptor)

    def ring(self) -> None:
        """Ring. A pipe that is full has been rung often enough."""
        if self._descriptor >= 0:
            try:
                os.write(self._descriptor, b"\0")
            except BlockingIOError:
                pass
            except OSError:
                self.close()

    def close(self) -> None:
        """Forget it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
