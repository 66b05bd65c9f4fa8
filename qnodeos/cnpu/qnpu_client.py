"""A client of the QNPU service, for a thread that waits.

The thread that asks reads the answer from the socket itself: no other thread stands between
a result and the program that waits for it. Answers to other requests that arrive meanwhile
are kept until they are asked for.

What is sent and received is described in `qnodeos.api.host_wire`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import count
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from qnodeos.api.host import HostReply
from qnodeos.api.host_wire import (
    PROTOCOL_VERSION,
    Cancel,
    GetStatistics,
    Hello,
    ListProcesses,
    Message,
    Netqasm,
    Ping,
    Pong,
    ProcessInfo,
    ProcessList,
    Refused,
    Register,
    Reply,
    Statistics,
    Subscribe,
    TraceEvents,
    Welcome,
    decode_server,
    encode,
    host_reply_of,
)
from qnodeos.errors import (
    ConnectionLostError,
    LimitError,
    MalformedMessageError,
    QnpuRefusedError,
    QnpuUnavailableError,
    SubroutineFailedError,
)
from qnodeos.transport import Address, BlockingStream, TlsFiles

if TYPE_CHECKING:
    from qnodeos.cnpu.rehearsal import Rehearsals

CONNECT_TIMEOUT_S: Final = 5.0
"""Default time to connect, and then again to be welcomed (assumed)."""
ANSWER_TIMEOUT_S: Final = 30.0
"""Default time for what the QNPU answers at once: lists, statistics, pings (assumed)."""
OPEN_REQUESTS_MAX: Final = 4096
"""Requests of one client that may wait for their answer."""
KEPT_EVENTS_MAX: Final = 1 << 20
"""Trace events kept until they are asked for; the oldest are dropped and counted."""

_HEARTBEATS_PER_TIMEOUT: Final = 3
_HEARTBEAT_MAX_S: Final = 10.0
_HEARTBEAT_MIN_S: Final = 0.05

_Answer = Reply | ProcessList | Statistics


class QnpuClient:
    """One connection to a QNPU; ends the programs registered over it when it closes.

    One thread uses it at a time; `keep_alive` and `shut_down` may be called by any.

    Args:
        stream: connected; this object closes it.
        name: who this is, as the QNPU is told.
        timeout_s: how long to wait to be welcomed.
        numbers: request numbers, for clients that share a count; its own if not given.

    Attributes:
        welcome: what the QNPU said of itself.
        rehearsals: what to do while waiting; None for nothing.

    Raises:
        QnpuUnavailableError: it did not answer, or not like a QNPU of our version.
        QnpuRefusedError: it does not want us.
    """

    def __init__(
        self,
        stream: BlockingStream,
        *,
        name: str = "",
        timeout_s: float = CONNECT_TIMEOUT_S,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self.rehearsals: Rehearsals | None = None
        self._stream = stream
        self._lock = Lock()
        self._numbers = numbers if numbers is not None else count()
        self._open: set[int] = set()
        self._answers: dict[int, _Answer] = {}
        self._last_pong = -1
        self._events: deque[TraceEvents] = deque()
        self._kept_events = 0
        self._dropped_events = 0
        self._is_closed = False
        try:
            self.welcome = self._shake_hands(name, timeout_s)
        except BaseException:
            stream.close()
            raise
        heartbeat_s = self.welcome.idle_timeout_s / _HEARTBEATS_PER_TIMEOUT
        self.heartbeat_s = max(_HEARTBEAT_MIN_S, min(heartbeat_s, _HEARTBEAT_MAX_S))
        self._last_sent_s = monotonic()
        self._silences = 0

    @classmethod
    def connect(
        cls,
        address: Address,
        tls: TlsFiles | None = None,
        *,
        name: str = "",
        timeout_s: float = CONNECT_TIMEOUT_S,
        expected_name: str | None = None,
        numbers: Iterator[int] | None = None,
    ) -> QnpuClient:
        """Connect to a QNPU.

        Args:
            address: where it listens.
            tls: for addresses that are not local.
            name: who this is, as the QNPU is told.
            timeout_s: for connecting, and then again for being welcomed.
            expected_name: name in the QNPU's certificate; the host if not given.
            numbers: request numbers, for clients that share a count.

        Raises:
            ConfigurationError: the address is unknown, or needs TLS that is not configured.
            UntrustedPeerError: the other end is not who it should be.
            QnpuUnavailableError: no QNPU answers there.
            QnpuRefusedError: it does not want us.
        """
        try:
            stream = BlockingStream.connect(
                address, tls, timeout_s=timeout_s, expected_name=expected_name
            )
        except ConnectionLostError as error:
            raise QnpuUnavailableError(
                f"no QNPU answers at {address} ({error}); is `qnodeos serve` running?"
            ) from error
        return cls(stream, name=name, timeout_s=timeout_s, numbers=numbers)

    # --- requests of programs ---------------------------------------------------------

    def submit(self, raw: bytes) -> int:
        """Send a message of the NetQASM SDK; returns the number to await its reply by.

        Raises:
            QnpuUnavailableError: the connection is gone.
            LimitError: too many requests wait for their answer.
        """
        with self._lock:
            request = self._new_request()
            self._send(Netqasm(request, raw))
            return request

    def register(self, app_id: int, max_qubits: int, priority: int) -> int:
        """Register a program with a priority; returns the number to await the reply by."""
        with self._lock:
            request = self._new_request()
            self._send(Register(request, app_id, max_qubits, priority))
            return request

    def await_reply(self, request: int, timeout_s: float | None = None) -> HostReply:
        """Wait for the reply to a request; an error the QNPU reports is part of it.

        Args:
            request: a number that `submit` or `register` returned; each can be awaited once.
            timeout_s: None waits for as long as the QNPU lives.

        Raises:
            TimeoutError: the reply did not come in time; it can be awaited again.
            QnpuUnavailableError: the connection is gone, or the QNPU shows no sign of life.
        """
        with self._lock:
            answer = self._await(request, timeout_s)
            if not isinstance(answer, Reply):
                raise self._give_up(f"request {request} was answered by {type(answer).__name__}")
            return host_reply_of(answer, 0)

    def cancel(self, target: int, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Withdraw a subroutine; the request itself is then answered with an error.

        Raises:
            SubroutineFailedError: the QNPU could not, and says why.
        """
        self._do(lambda request: Cancel(request, target), timeout_s)

    # --- questions --------------------------------------------------------------------

    def processes(self, timeout_s: float = ANSWER_TIMEOUT_S) -> tuple[ProcessInfo, ...]:
        """The processes alive at the QNPU."""
        with self._lock:
            request = self._new_request()
            self._send(ListProcesses(request))
            answer = self._await(request, timeout_s)
        if not isinstance(answer, ProcessList):
            raise self._unanswered(answer)
        return answer.processes

    def statistics(self, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, dict[str, Any]]:
        """The counters of the QNPU, by group and name."""
        with self._lock:
            request = self._new_request()
            self._send(GetStatistics(request))
            answer = self._await(request, timeout_s)
        if not isinstance(answer, Statistics):
            raise self._unanswered(answer)
        return answer.groups

    def ping(self, timeout_s: float = ANSWER_TIMEOUT_S) -> float:
        """Ask for a sign of life; returns how long it took in seconds."""
        with self._lock:
            nonce = next(self._numbers)
            start_s = monotonic()
            self._send(Ping(nonce))
            deadline_s = start_s + timeout_s
            while self._last_pong != nonce:
                self._read(deadline_s)
            return monotonic() - start_s

    # --- events -----------------------------------------------------------------------

    def subscribe(
        self, on: bool = True, past: int = 0, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        """Turn the stream of trace events on or off.

        Args:
            on: whether events are to come.
            past: how many events that have happened already come first; those beyond
                limits.events of the node file are dropped and counted.
            timeout_s: how long to wait for the answer.

        Raises:
            SubroutineFailedError: the QNPU could not, and says why.
        """
        self._do(lambda request: Subscribe(request, on, past), timeout_s)

    def events(self, timeout_s: float) -> TraceEvents | None:
        """The next events of the trace, None if none come in time.

        Args:
            timeout_s: how long to wait; the connection is kept alive meanwhile.
        """
        with self._lock:
            now_s = monotonic()
            deadline_s = now_s + timeout_s
            if now_s - self._last_sent_s >= self.heartbeat_s:
                self._send(Ping(next(self._numbers)))  # also if the waits are all short
            while not self._events:
                try:
                    self._read(deadline_s)
                except TimeoutError:
                    return None
            events = self._events.popleft()
            self._kept_events -= len(events.events)
            if self._dropped_events:
                events = TraceEvents(
                    events.dropped + self._dropped_events,
                    events.epoch_ns,
                    events.tick_ns,
                    events.events,
                )
                self._dropped_events = 0
            return events

    # --- life and end -----------------------------------------------------------------

    def keep_alive(self) -> None:
        """Tell the QNPU that a client that has nothing to say is there.

        For another thread than the one that uses the client; does nothing while that one is
        waiting for an answer. Call it every `heartbeat_s` seconds.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._is_closed or monotonic() - self._last_sent_s < self.heartbeat_s / 2:
                return
            self._send(Ping(next(self._numbers)))
            while True:
                self._take(self._stream.receive(0))
        except (TimeoutError, ConnectionLostError, MalformedMessageError):
            return  # the thread that uses the client will see what is wrong
        finally:
            self._lock.release()

    def shut_down(self) -> None:
        """Make a thread that waits in this client fail with QnpuUnavailableError."""
        self._stream.shut_down()

    def close(self) -> None:
        """Disconnect; the programs registered over this connection end."""
        if not self._is_closed:
            self._is_closed = True
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- inside -----------------------------------------------------------------------

    def _shake_hands(self, name: str, timeout_s: float) -> Welcome:
        try:
            self._stream.send(encode(Hello(PROTOCOL_VERSION, name[:256])))
            answer = decode_server(self._stream.receive(timeout_s))
        except TimeoutError:
            raise QnpuUnavailableError(
                f"the QNPU did not answer within {timeout_s:g} s; is something else listening "
                "there?"
            ) from None
        except (ConnectionLostError, MalformedMessageError) as error:
            raise QnpuUnavailableError(f"the QNPU did not say welcome: {error}") from error
        if isinstance(answer, Refused):
            raise QnpuRefusedError(f"the QNPU refuses the connection: {answer.text}", answer.kind)
        if not isinstance(answer, Welcome):
            raise QnpuUnavailableError(
                f"the QNPU answered the greeting with {type(answer).__name__}; is something else "
                "listening there?"
            )
        if answer.version != PROTOCOL_VERSION:
            raise QnpuUnavailableError(
                f"the QNPU ({answer.server}) speaks version {answer.version} of the protocol, and "
                f"this program {PROTOCOL_VERSION}; install the same qnodeos on both sides"
            )
        return answer

    def _new_request(self) -> int:
        if len(self._open) + len(self._answers) >= OPEN_REQUESTS_MAX:
            raise LimitError(
                f"the answers to {OPEN_REQUESTS_MAX} requests have not been awaited; await some "
                "of them first"
            )
        request = next(self._numbers)
        self._open.add(request)
        return request

    def _do(self, message: Any, timeout_s: float) -> None:
        with self._lock:
            request = self._new_request()
            self._send(message(request))
            answer = self._await(request, timeout_s)
        if not isinstance(answer, Reply) or answer.error is not None:
            raise self._unanswered(answer)

    @staticmethod
    def _unanswered(answer: _Answer) -> SubroutineFailedError:
        """What to raise for an answer that is not what was asked for."""
        failure = answer.error if isinstance(answer, Reply) else None
        if failure is None:
            text = f"a question was answered by {type(answer).__name__}"
            return SubroutineFailedError("PeerProtocolError", text, None, None)
        return SubroutineFailedError(failure.kind, failure.text, failure.subroutine, failure.pc)

    def _send(self, message: Message) -> None:
        if self._is_closed:
            raise QnpuUnavailableError("this connection to the QNPU has been closed")
        try:
            self._stream.send(encode(message))
        except ConnectionLostError as error:
            raise self._lost(error) from error
        self._last_sent_s = monotonic()

    def _await(self, request: int, timeout_s: float | None) -> _Answer:
        answers = self._answers
        if request not in answers and request not in self._open:
            raise KeyError(f"request {request} is not open on this connection")
        deadline_s = None if timeout_s is None else monotonic() + timeout_s
        while request not in answers:
            self._read(deadline_s)
        return answers.pop(request)

    def _read(self, deadline_s: float | None) -> None:
        """Wait for one message and put it where it belongs.

        A QNPU that is silent is pinged, and given up when it does not answer.
        """
        wait_s = self.heartbeat_s
        if deadline_s is not None:
            wait_s = min(wait_s, deadline_s - monotonic())
        try:
            if self._is_closed:
                raise QnpuUnavailableError("this connection to the QNPU has been closed")
            if self.rehearsals is not None and wait_s > 0:
                end_s = monotonic() + wait_s
                self.rehearsals.wait(self._stream.wait, wait_s)
                wait_s = end_s - monotonic()
            payload = self._stream.receive(max(wait_s, 0.0))
        except TimeoutError:
            if deadline_s is not None and monotonic() >= deadline_s:
                raise TimeoutError("the QNPU has not answered in time") from None
            self._silences += 1
            if self._silences > _HEARTBEATS_PER_TIMEOUT:
                raise self._give_up(
                    f"it has shown no sign of life for {self._silences * self.heartbeat_s:.3g} s"
                ) from None
            self._send(Ping(next(self._numbers)))
            return
        except ConnectionLostError as error:
            raise self._lost(error) from error
        except MalformedMessageError as error:
            raise self._give_up(str(error)) from error
        self._silences = 0
        try:
            self._take(payload)
        except MalformedMessageError as error:
            raise self._give_up(str(error)) from error

    def _take(self, payload: bytes) -> None:
        message = decode_server(payload)
        if isinstance(message, Reply | ProcessList | Statistics):
            if message.request not in self._open:
                raise MalformedMessageError(
                    f"a request that is not open, {message.request}, was answered"
                )
            self._open.discard(message.request)
            self._answers[message.request] = message
        elif isinstance(message, TraceEvents):
            self._keep(message)
        elif isinstance(message, Pong):
            self._last_pong = message.nonce
        elif isinstance(message, Refused):
            self.close()
            raise QnpuRefusedError(f"the QNPU ends the connection: {message.text}", message.kind)
        else:
            raise MalformedMessageError("the QNPU said welcome twice")

    def _keep(self, message: TraceEvents) -> None:
        self._events.append(message)
        self._kept_events += len(message.events)
        while self._kept_events > KEPT_EVENTS_MAX and len(self._events) > 1:
            oldest = self._events.popleft()
            self._kept_events -= len(oldest.events)
            self._dropped_events += oldest.dropped + len(oldest.events)

    def _lost(self, error: ConnectionLostError) -> QnpuUnavailableError:
        self.close()
        if isinstance(error, QnpuUnavailableError):
            return error
        return QnpuUnavailableError(
            f"the connection to the QNPU ended ({error}); its programs have ended with it. See "
            "whether the service runs, and start the program again"
        )

    def _give_up(self, reason: str) -> QnpuUnavailableError:
        self.close()
        return QnpuUnavailableError(f"the connection to the QNPU is given up: {reason}")
