"""What a service and systemd say to each other: readiness, watchdog, activated sockets.

All of it is in the environment (sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)); where
the environment has none of it, nobody supervises us and every call does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Final, NamedTuple, Self

from qnodeos.errors import ConfigurationError

FIRST_ACTIVATED_FD: Final = 3
"""SD_LISTEN_FDS_START: the first descriptor after stdin, stdout and stderr."""

MAX_ACTIVATED: Final = 64
"""Most sockets taken from one activation; a unit of ours passes a handful."""

MAX_STATUS: Final = 1_000
"""Longest status line sent, in characters."""


class Notifier:
    """Tells the supervisor of this process how it is.

    Sending never blocks and never raises: a supervisor that does not listen must not cost
    the policy thread a tick.

    Args:
        environment: where NOTIFY_SOCKET and the WATCHDOG variables are looked up.
        clock_ns: monotonic clock in nanoseconds.

    Attributes:
        watchdog_interval_ns: time between two signs of life in nanoseconds, which is a
            quarter of what the supervisor allows; None if it expects none.
    """

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.watchdog_interval_ns = _watchdog_interval_ns(environment)
        self._clock_ns = clock_ns
        self._next_sign_ns = 0
        self._socket: socket.socket | None = None
        address = environment.get("NOTIFY_SOCKET", "")
        # systemd writes an abstract address with @ for the leading NUL.
        if address.startswith(("/", "@")):
            self._address = "\0" + address[1:] if address[0] == "@" else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self, status: str = "") -> bool:
        """Say that the service serves.

        Args:
            status: one line for `systemctl status`.

        Returns:
            Whether it was sent.
        """
        return self._send("READY=1", status)

    def status(self, status: str) -> bool:
        """Say in one line what the service is doing; returns whether it was sent."""
        return self._send("", status)

    def stopping(self, status: str = "") -> bool:
        """Say that the service is going down on purpose; returns whether it was sent."""
        return self._send("STOPPING=1", status)

    def alive(self) -> bool:
        """Give a sign of life if one is due; cheap enough for every turn of a loop.

        Call it only where the loop has really come round: a sign given by a helper thread
        would hide the hang that the watchdog is there to find.

        Returns:
            Whether one was sent.
        """
        if self.watchdog_interval_ns is None or self._socket is None:
            return False
        now_ns = self._clock_ns()
        if now_ns < self._next_sign_ns:
            return False
        # A little less than the interval: a timer with that period comes always just before
        # or just after it, and must not be turned away every other time.
        self._next_sign_ns = now_ns + self.watchdog_interval_ns * 3 // 4
        return self._send("WATCHDOG=1", "")

    def close(self) -> None:
        """Close the socket to the supervisor; later calls do nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, state: str, status: str) -> bool:
        if self._socket is None:
            return False
        # A newline would end the assignment and start one of the status's making.
        line = " ".join(status.split())[:MAX_STATUS]
        parts = [state] if state else []
        parts += [f"STATUS={line}"] if line else []
        try:
            self._socket.sendto("\n".join(parts).encode(), self._address)
        except OSError:  # gone, or its queue is full
            return False
        return True


class ActivatedSocket(NamedTuple):
    """A listening socket that systemd opened for us.

    Attributes:
        name: FileDescriptorName= of its unit; "unknown" if it has none.
        socket: the socket, non-blocking, closed on exec, owned by the receiver.
    """

    name: str
    socket: socket.socket


def take_sockets(
    environment: MutableMapping[str, str] = os.environ, first_fd: int = FIRST_ACTIVATED_FD
) -> list[ActivatedSocket]:
    """Take over the sockets that systemd passed to this process, once.

    The variables are removed, so that neither a second call nor a child takes them again.

    Args:
        environment: where the LISTEN variables are looked up.
        first_fd: number of the first passed descriptor.

    Returns:
        The sockets in the order of their unit files; none if none were passed to this very
        process.

    Raises:
        ConfigurationError: the variables are not numbers, or what was passed is not a
            listening stream socket, or there are too many.
    """
    pid, count = environment.get("LISTEN_PID"), environment.get("LISTEN_FDS")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    if pid is None or count is None:
        return []
    if not (pid.isdecimal() and count.isdecimal()):
        raise ConfigurationError(
            f"LISTEN_PID={pid!r} and LISTEN_FDS={count!r} must be numbers, as systemd sets them; "
            "unset them if nothing was passed on purpose"
        )
    if int(pid) != os.getpid():  # meant for a parent of ours
        return []
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environment.pop(name, None)
    if int(count) > MAX_ACTIVATED:
        raise ConfigurationError(
            f"systemd passed {count} sockets, and at most {MAX_ACTIVATED} are taken; "
            "remove ListenStream= lines from the socket unit"
        )
    taken: list[ActivatedSocket] = []
    try:
        for index in range(int(count)):
            name = names[index] if index < len(names) and names[index] else "unknown"
            taken.append(ActivatedSocket(name, _listening_socket(first_fd + index, name)))
    except ConfigurationError:
        for item in taken:
            item.socket.close()
        raise
    return taken


def _listening_socket(fd: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        taken = socket.socket(fileno=fd)
    except OSError as error:
        raise ConfigurationError(
            f"the descriptor {fd} ({name}) that systemd passed is not a socket: {error}; "
            "only ListenStream= may stand in the socket unit"
        ) from error
    listens = taken.type == socket.SOCK_STREAM and taken.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    )
    if not listens:
        taken.close()
        raise ConfigurationError(
            f"the descriptor {fd} ({name}) that systemd passed does not listen for connections; "
            "the socket unit needs ListenStream= and Accept=no"
        )
    taken.setblocking(False)
    return taken


def _watchdog_interval_ns(environment: Mapping[str, str]) -> int | None:
    microseconds, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    if pid and pid != str(os.getpid()):  # meant for a parent of ours
        return None
    # sd_watchdog_enabled(3) advises half; a quarter survives one sign that was not sent.
    return int(microseconds) * 1_000 // 4
