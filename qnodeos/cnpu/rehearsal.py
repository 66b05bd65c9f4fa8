"""Rehearsing: keeping the code of a program's next step warm while the program waits.

A program waits for its QNPU, or for a message, for tens of milliseconds, and then its qubit
waits for it. Meanwhile the processor's caches forget, and the same code takes several times as
long as when it has just run (docs/decisions/0017-rehearsal.md). So a thread that waits wakes
up now and then and goes through what comes next: a message is received, a block with gates
and a readout is built and sent, its outcome comes back and is sent on. All of that happens on
a stage of its own, with the real client, session and connection on sockets that lead nowhere
else. Nothing of the program's is touched.
"""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import ceil, inf
from threading import Lock, get_ident
from time import monotonic
from typing import Final, cast

from netqasm.sdk import Qubit

from qnodeos.api.app_wire import Consumed, TextMessage, cost_of
from qnodeos.api.app_wire import encode as encode_message
from qnodeos.api.framing import frame
from qnodeos.api.host_wire import PROTOCOL_VERSION, DeviceInfo, Reply, Welcome, encode
from qnodeos.api.netqasm import Flavour
from qnodeos.cnpu.app_session import Session
from qnodeos.cnpu.backend import QNodeOSConnection
from qnodeos.cnpu.host import NetworkDirectory
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.cnpu.remote import TRACE_UNIT_NS, RemoteCnpu, RemoteHost
from qnodeos.cnpu.sockets import AppSocket
from qnodeos.errors import ProgramError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.trace.recorder import TraceRecorder
from qnodeos.transport import BlockingStream, Stream

SHARE_MAX: Final = 0.2
"""Most of a process's time that goes to rehearsing: what comes meanwhile waits for its end."""

_LOG: Final = logging.getLogger("qnodeos.cnpu")
_HERE, _THERE = "here", "there"
_CHANNEL: Final = (_HERE, _THERE, 0)
_M0: Final = 3
"""Encoded register that the first outcome of a block comes back in."""
_ROUNDS_FIRST: Final = 3
"""Until blocks are prepared and everything has been seen once."""
_CHUNK_BYTES: Final = 4096
_LONGEST_S: Final = 1e6
"""That a poll can wait."""
_GIVEN_UP_S: Final = 0.5
"""A message that has not come by then, though it was sent before, does not come."""
_LATE_MAX: Final = 100
"""Times in a row that a message may be late."""
_ACKNOWLEDGED_ROUNDS: Final = 256
"""Messages sent on the stage before their room in the channel is given back."""


class Rehearsals:
    """What the waiting threads of one process share.

    One thread rehearses at a time, and at most once per period, however many wait.

    Args:
        period_s: how often; in whole milliseconds, rounded up.

    Attributes:
        count: rehearsals so far.
        failure: why there are none any more; None while all is well.
    """

    def __init__(self, period_s: float) -> None:
        if not 0 < period_s < inf:
            raise ValueError(f"rehearsals are a positive time apart, not {period_s} s")
        self.count = 0
        self.failure: Exception | None = None
        self._period_s = period_s
        self._mutex = Lock()
        self._stage: Stage | None = None
        self._steps: Iterator[bool] = iter(())
        self._waiting: set[int] = set()
        self._next_s = 0.0
        self._is_closed = False

    def begin(self, flavour: Flavour) -> None:
        """Set up the stage; does nothing if it is there.

        Args:
            flavour: of the node's QNPU.
        """
        with self._mutex:
            if self._stage is not None or self.failure is not None or self._is_closed:
                return
            try:
                self._stage = Stage(flavour)
                self._steps = self._stage.rehearse()
                for _ in range(_ROUNDS_FIRST):
                    while not next(self._steps):
                        pass
            except Exception as error:
                self._turn_off(error)

    def wait(self, is_ready: Callable[[int | None], object], timeout_s: float) -> bool:
        """Wait for something, and rehearse meanwhile.

        Args:
            is_ready: waits for so many milliseconds, None for ever; says whether it came.
            timeout_s: how long to wait; may be infinite.

        Returns:
            Whether it came.
        """
        deadline_s = monotonic() + timeout_s
        thread = get_ident()
        self._waiting.add(thread)  # not under the mutex, which may be held for a rehearsal
        try:
            while self._stage is not None:
                # The more threads wait, the less often each of them wakes up.
                pause_s = self._period_s * len(self._waiting)
                remaining_s = deadline_s - monotonic()
                if remaining_s <= pause_s:
                    break
                if is_ready(ceil(pause_s * 1_000)):
                    return True
                if self._rehearse(is_ready):
                    return True
            if deadline_s == inf:
                return bool(is_ready(None))
            remaining_s = min(max(0.0, deadline_s - monotonic()), _LONGEST_S)
            return bool(is_ready(ceil(remaining_s * 1_000)))
        finally:
            self._waiting.discard(thread)

    def _rehearse(self, is_ready: Callable[[int | None], object]) -> bool:
        """Rehearse, unless another thread does, or has just done so.

        Returns:
            Whether what is waited for came meanwhile; the rehearsal goes on next time then.
        """
        if not self._mutex.acquire(blocking=False):
            return False
        try:
            start_s = monotonic()
            if self._stage is None or start_s < self._next_s:
                return False
            is_done = came = False
            while not (is_done or came):
                try:
                    is_done = next(self._steps)
                except Exception as error:
                    self._turn_off(error)
                    return False
                came = bool(is_ready(0))
            self.count += is_done
            end_s = monotonic()
            took_s = end_s - start_s
            # Half a period only: who wakes up a little early need not wait for another one.
            self._next_s = end_s + max(self._period_s / 2, took_s * (1 / SHARE_MAX - 1))
            return came
        finally:
            self._mutex.release()

    def close(self) -> None:
        """No more rehearsals."""
        with self._mutex:
            self._is_closed = True
            self._close_stage()

    def _turn_off(self, error: Exception) -> None:
        self.failure = error
        self._close_stage()
        _LOG.warning(
            "programs no longer rehearse while they wait (%s: %s); they go on without",
            type(error).__name__,
            error,
        )

    def _close_stage(self) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.close()


class Stage:
    """A program whose QNPU and whose partner are the same thread.

    Args:
        flavour: of the node's QNPU.
    """

    node_name = _HERE
    directory = NetworkDirectory({_HERE: 0, _THERE: 1}, {_HERE: _HERE, _THERE: _THERE})
    capabilities = Capabilities("none", (0,), (), frozenset(), tick_ns=1)
    is_stopped = False

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self._partner, session_end = _tcp_pair()
        self._qnpu, self._client_end = socket.socketpair()
        for end in (self._qnpu, self._partner):
            end.setblocking(False)  # if the other end does not do what it should, fail
        self._session = Session(_HERE, _THERE, self.directory.applications)
        self._session.opened(session_end, Stream(session_end))
        self._has_arrived = select.poll()
        self._has_arrived.register(session_end, select.POLLIN)
        self._client: QnpuClient | None = None
        self._requests = 0
        try:
            device = DeviceInfo("none", (0,), (), (), 1, 0)
            welcome = Welcome(
                PROTOCOL_VERSION, "rehearsal", _HERE, 0, 0, flavour.value, device, {}, _GIVEN_UP_S
            )
            self._qnpu.sendall(frame(encode(welcome)))
            # Stands in for all a host asks of what it shares with other programs.
            host = RemoteHost(cast(RemoteCnpu, self), 0, TraceRecorder(TRACE_UNIT_NS, 16))
            self._expect()
            self._connection = QNodeOSConnection(_HERE, host=host, max_qubits=1, prepared=True)
            self._partner_socket = AppSocket(_HERE, _THERE, host=host)
            self._qubit = Qubit(self._connection)
            self._expect()
            self._connection.flush()
        except BaseException:
            self.close()
            raise
        message = encode_message(TextMessage(_THERE, _HERE, 0, "13"))
        self._message = frame(message)
        self._cost = cost_of(encode_message(TextMessage(*_CHANNEL, "1")))

    def rehearse(self) -> Iterator[bool]:
        """Receive a message, do a block that depends on it, send its outcome on, and again.

        Yields:
            After every step, whether it was the last of a round.

        Raises:
            ProgramError: the outcome is not what was sent.
            RuntimeError: the message does not arrive.
        """
        qubit, partner = self._qubit, self._partner_socket
        rounds = 0
        while True:
            self._partner.sendall(self._message)
            for _ in range(_LATE_MAX):
                if self._has_arrived.poll(0):
                    break
                yield True  # the kernel has other things to do; next time it is there
            delta = int(partner.recv(timeout=_GIVEN_UP_S))
            yield False
            qubit.rot_Y(n=8, d=4)
            qubit.rot_X(n=(delta + 16) % 32, d=4)
            qubit.rot_X(n=(16 - delta) % 32, d=4)
            outcome = qubit.measure(inplace=True, store_array=False)
            self._expect(((_M0, 1),))
            yield False
            self._connection.flush()
            value = int(outcome)
            yield False
            partner.send(str(value))
            self._qnpu.recv(_CHUNK_BYTES)
            with suppress(BlockingIOError):  # then it is taken with the next
                self._partner.recv(_CHUNK_BYTES)
            if value != 1:
                raise ProgramError(f"an outcome of 1 came back as {value}")
            rounds += 1
            if rounds % _ACKNOWLEDGED_ROUNDS == 0:
                consumed = Consumed(*_CHANNEL, _ACKNOWLEDGED_ROUNDS * self._cost)
                self._partner.sendall(frame(encode_message(consumed)))
            yield True

    def close(self) -> None:
        """Close all sockets."""
        self._session.end(ProgramError("the rehearsal is over"))
        for end in (self._qnpu, self._partner, self._client_end):
            end.close()
        if self._client is not None:
            self._client.close()

    def _expect(self, results: tuple[tuple[int, int], ...] = ()) -> None:
        """The QNPU's part: answer the next request, before it is sent."""
        self._qnpu.sendall(frame(encode(Reply(self._requests, results))))
        self._requests += 1

    # --- what `RemoteHost` asks of its `RemoteCnpu` -------------------------------------

    @property
    def network(self) -> Stage:
        """Itself: has the one session there is."""
        return self

    def session_with(self, node: str) -> Session:
        """The session with the partner."""
        return self._session

    def open_client(self, numbers: Iterator[int]) -> QnpuClient:
        """The connection to the QNPU, which has said welcome and more already."""
        self._client = QnpuClient(BlockingStream(self._client_end), numbers=numbers)
        return self._client

    def close_client(self, client: QnpuClient) -> None:
        """Nothing to do: all is closed at once."""


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection within this machine, as messages mostly travel.

    Raises:
        OSError: there is none to be had.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        there = socket.create_connection(listener.getsockname())
        here, caller = listener.accept()
    if caller != there.getsockname():
        here.close()
        there.close()
        raise ConnectionRefusedError(f"{caller} called, who was not expected")
    there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return there, here
