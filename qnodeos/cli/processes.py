"""Child processes that belong together: start, readiness, end; nothing is restarted silently.

Readiness is told as to systemd: every child gets NOTIFY_SOCKET and sends READY=1, STATUS=... and
STOPPING=1 (`qnodeos.service.notify`). Who sent it is what the kernel says, so no other process can
speak for a child.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from qnodeos._orphans import SUPERVISOR_VARIABLE
from qnodeos.errors import CallerError, ChildProcessFailedError

READY_S: Final = 30.0
"""How long a child may take to be ready (assumed: Python starts in a second or two)."""
STOP_S: Final = 5.0
"""How long a child may take to end when asked, before it is killed (assumed)."""
LOG_LINES: Final = 20
"""Last lines of the log of a child that are shown when it has died."""
MAX_LOG_TAIL_BYTES: Final = 16_384
MAX_MESSAGE_BYTES: Final = 8_192
MAX_CHILDREN: Final = 64

_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""
_POLL_S: Final = 0.1
_GOOD_EXITS: Final = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


class ChildState(StrEnum):
    """Where a child stands."""

    NOT_STARTED = "not started"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DIED = "died"


@dataclass(frozen=True)
class ChildSpec:
    """What to run.

    Attributes:
        name: of the child, unique; also of its log.
        arguments: of the command `qnodeos`.
    """

    name: str
    arguments: tuple[str, ...]


class Child:
    """One child process; made and driven by `Processes`.

    Attributes:
        spec: what it runs.
        log: file with its output.
        state: where it stands.
        status: its last status line.
        ready_s: how long it took to be ready, None if it is not.
        exit_code: of its last run, negative for a signal; None while it runs.
    """

    def __init__(self, spec: ChildSpec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self.state = ChildState.NOT_STARTED
        self.status = ""
        self.ready_s: float | None = None
        self.exit_code: int | None = None
        self.started_s = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """Of the child."""
        return self.spec.name

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return None if self.process is None else self.process.pid

    @property
    def ended_well(self) -> bool:
        """Whether it ended because it was asked to, and without complaint."""
        return self.state is ChildState.STOPPED and self.exit_code in _GOOD_EXITS

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None

    def last_lines(self, count: int = LOG_LINES) -> list[str]:
        """The end of its log."""
        try:
            with self.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - MAX_LOG_TAIL_BYTES))
                text = file.read(MAX_LOG_TAIL_BYTES).decode("utf-8", "replace")
        except OSError:
            return []
        return text.splitlines()[-count:]

    def obituary(self) -> str:
        """How it ended, and its last words."""
        lines = self.last_lines()
        words = "\n".join(f"  {line}" for line in lines) if lines else "  (it wrote nothing)"
        return f"{self.name} {_ending(self.exit_code)}; the end of {self.log}:\n{words}"


class Processes:
    """Children that are started in order and stopped in reverse. Close it, or use `with`.

    Args:
        specs: the children, in the order of their start.
        logs: directory of their logs, which exists.

    Raises:
        CallerError: two children have one name, or there are too many.
    """

    def __init__(self, specs: Sequence[ChildSpec], logs: Path) -> None:
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names) or len(names) > MAX_CHILDREN:
            raise CallerError(
                f"children need names of their own and may be {MAX_CHILDREN} at most: {names}"
            )
        self._children = {spec.name: Child(spec, logs / f"{spec.name}.log") for spec in specs}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        # A name, not a path: a path must be short, and would be left behind.
        self._address = f"qnodeos-{os.getpid()}-{secrets.token_hex(8)}"
        self._socket.bind(self.notify_address)

    @property
    def notify_address(self) -> str:
        """Address of the socket that the children send to."""
        return "\0" + self._address

    @property
    def children(self) -> Sequence[Child]:
        """In the order of their start."""
        return list(self._children.values())

    def __getitem__(self, name: str) -> Child:
        """The child of that name.

        Raises:
            CallerError: there is none.
        """
        if name not in self._children:
            raise CallerError(f"there is no process {name!r}; there are {list(self._children)}")
        return self._children[name]

    # --- starting ---------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a child that does not run; does not wait for it.

        Raises:
            CallerError: it runs.
        """
        child = self[name]
        if child.is_running:
            raise CallerError(f"{name} runs already; stop it first")
        environment = dict(os.environ)
        environment |= {
            "NOTIFY_SOCKET": f"@{self._address}",
            "PYTHONUNBUFFERED": "1",
            SUPERVISOR_VARIABLE: str(os.getpid()),
        }
        for inherited in ("WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"):
            environment.pop(inherited, None)
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                [sys.executable, "-m", "qnodeos", *child.spec.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                # Ctrl-C is for the parent, which stops its children in order.
                start_new_session=True,
            )
        child.state = ChildState.STARTING
        child.status = ""
        child.ready_s = child.exit_code = None
        child.started_s = time.monotonic()

    def wait_ready(
        self, name: str, timeout_s: float = READY_S, give_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until a child is ready.

        Args:
            name: of the child.
            timeout_s: how long.
            give_up: asked now and then; wait no longer if it says so.

        Raises:
            ChildProcessFailedError: it died, or did not become ready in time; with its last words.
        """
        child = self[name]
        deadline_s = time.monotonic() + timeout_s
        while child.state is ChildState.STARTING:
            if time.monotonic() > deadline_s:
                lines = "\n".join(f"  {line}" for line in child.last_lines())
                raise ChildProcessFailedError(
                    f"{name} was not ready after {timeout_s:g} s; the end of {child.log}:\n{lines}"
                )
            if give_up():
                return
            self.poll(_POLL_S)
        if child.state is not ChildState.READY:
            raise ChildProcessFailedError(child.obituary())

    # --- watching ---------------------------------------------------------------------------

    def poll(self, timeout_s: float = 0.0) -> list[Child]:
        """Take in what has happened.

        Args:
            timeout_s: how long to wait for a message of a child.

        Returns:
            The children whose state has changed.
        """
        before = {name: child.state for name, child in self._children.items()}
        select.select([self._socket], (), (), timeout_s)
        # Who has ended is looked up after, so that what it said last is not lost.
        ended = [
            child
            for child in self.children
            if child.process is not None and child.process.poll() is not None
        ]
        self._take_messages()
        for child in ended:
            assert child.process is not None
            child.exit_code = child.process.returncode
            asked = child.state is ChildState.STOPPING
            child.state = ChildState.STOPPED if asked else ChildState.DIED
            child.process = None
        return [child for name, child in self._children.items() if child.state is not before[name]]

    # --- stopping ---------------------------------------------------------------------------

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a child; none if it does not run."""
        child = self[name]
        if child.process is not None:
            child.process.send_signal(number)

    def kill(self, name: str) -> None:
        """End a child without asking, and wait until it is gone."""
        self.signal(name, signal.SIGKILL)
        self._wait_gone(self[name], STOP_S)

    def stop(self, name: str, timeout_s: float = STOP_S) -> None:
        """Ask a child to end; kill it if it does not in time."""
        child = self[name]
        self.poll()
        if child.process is None:
            return
        child.state = ChildState.STOPPING
        child.process.terminate()
        if not self._wait_gone(child, timeout_s) and child.process is not None:
            child.status = f"killed: it had not ended {timeout_s:g} s after SIGTERM"
            child.process.kill()
            self._wait_gone(child, timeout_s)

    def stop_all(self, timeout_s: float = STOP_S) -> None:
        """Stop all children, the last one first."""
        for child in reversed(self.children):
            self.stop(child.name, timeout_s)

    def close(self) -> None:
        """Stop all children, and release the socket; more than once does no harm."""
        if self._socket.fileno() < 0:
            return
        try:
            self.stop_all()
        finally:
            for child in self.children:
                if child.process is not None:
                    child.process.kill()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.process.wait(STOP_S)
            self._socket.close()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- inside -----------------------------------------------------------------------------

    def _wait_gone(self, child: Child, timeout_s: float) -> bool:
        """Wait until a process has ended, and note that; whether it has."""
        if child.process is not None:
            try:
                child.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return False
        self.poll()
        return True

    def _take_messages(self) -> None:
        by_pid = {child.pid: child for child in self.children}
        for _ in range(1_000):
            try:
                text, extra, _, _ = self._socket.recvmsg(
                    MAX_MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except BlockingIOError:
                return
            child = by_pid.get(_sender(extra))
            if child is not None:
                _take_lines(child, text.decode("utf-8", "replace").splitlines())


def _sender(extra: Iterable[tuple[int, int, bytes]]) -> int:
    """Process id of who sent a message, 0 if it is not told."""
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid: int = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
            return pid
    return 0


def _take_lines(child: Child, lines: Iterable[str]) -> None:
    for line in lines:
        key, _, value = line.partition("=")
        if key == "STATUS":
            child.status = value
        elif (key, value) == ("READY", "1") and child.state is ChildState.STARTING:
            child.state = ChildState.READY
            child.ready_s = time.monotonic() - child.started_s


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "has not ended"
    if exit_code < 0:
        try:
            name = signal.Signals(-exit_code).name
        except ValueError:
            name = f"signal {-exit_code}"
        return f"was ended by {name}"
    return f"ended with exit code {exit_code}"
