"""A descriptor that becomes readable at a time of CLOCK_MONOTONIC (Linux' timerfd)."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from time import CLOCK_MONOTONIC
from typing import Any, Final

from qnodeos.errors import DeviceError

_CLOEXEC: Final = os.O_CLOEXEC
_NONBLOCK: Final = os.O_NONBLOCK
_ABSOLUTE: Final = 1
"""TFD_TIMER_ABSTIME; the module os has these calls from Python 3.13 on only."""


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


@cache
def _library() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "timerfd_create"):
        raise DeviceError("this system has no timerfd; a QNPU that serves a device needs Linux")
    return library


class Timer:
    """A timer that is not set yet.

    Raises:
        DeviceError: this system has none.
    """

    def __init__(self) -> None:
        self._library = _library()
        self._descriptor = int(self._library.timerfd_create(CLOCK_MONOTONIC, _CLOEXEC | _NONBLOCK))
        if self._descriptor < 0:
            raise DeviceError(f"no timer can be made: {os.strerror(ctypes.get_errno())}")
        self._set_ns: int | None = None

    def fileno(self) -> int:
        """Readable from the time that was set."""
        return self._descriptor

    def set(self, time_ns: int | None) -> None:
        """Set it, and take back that it was readable; None for never."""
        if time_ns == self._set_ns:
            return
        self._set_ns = time_ns
        seconds, nanoseconds = (0, 0) if time_ns is None else divmod(max(time_ns, 1), 10**9)
        setting = _Setting(_Timespec(0, 0), _Timespec(seconds, nanoseconds))
        self._library.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(setting), None)

    def close(self) -> None:
        """Give it back; more than once does no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
