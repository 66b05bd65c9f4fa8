"""SIGTERM and Ctrl-C as a flag, and as a descriptor to wait for."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Final, Self

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Notes signals as long as it is entered; main thread only.

    The interpreter itself writes to the descriptor, so a signal that comes just before a wait
    ends that wait.

    Args:
        numbers: of the signals.
    """

    def __init__(self, numbers: Sequence[int] = STOPPING) -> None:
        self._numbers = tuple(numbers)
        self._came = False
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._previous: dict[int, Any] = {}
        self._previous_fd = -1

    def is_set(self) -> bool:
        """Whether one of them has come."""
        return self._came

    def fileno(self) -> int:
        """Readable once a signal has come, until `take`."""
        return self._receiver.fileno()

    def take(self) -> list[int]:
        """The signals that have come since the last call, in order."""
        with contextlib.suppress(BlockingIOError):
            return [number for number in self._receiver.recv(64) if number in self._numbers]
        return []

    def __enter__(self) -> Self:
        self._previous_fd = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        self._receiver.close()
        self._sender.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True
