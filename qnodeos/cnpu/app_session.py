"""Classical messages between this process's programs and those of one other process.

The thread that waits reads the connection itself. If several wait, one of them leads: it
reads for all, hands out what comes, and passes the lead on when it has what it waited for.
So a message wakes exactly the thread that wants it, and no other stands between.

A channel is (from, to, socket id). What a channel may have on the way is bounded; a sender
waits for the receiver then, and reads the connection meanwhile, so that two processes that
send to each other never wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import termios
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from math import ceil, inf
from threading import Lock
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from netqasm.sdk.classical_communication.message import StructuredMessage

from qnodeos.api.app_wire import (
    MAX_MESSAGE_BYTES,
    WINDOW_BYTES,
    AppMessage,
    AppRefused,
    Consumed,
    Goodbye,
    StructuredContent,
    TextMessage,
    cost_of,
    decode,
    encode,
    pack,
)
from qnodeos.errors import (
    ApplicationLostError,
    CallerError,
    ConnectionLostError,
    LimitError,
    MalformedMessageError,
    PeerError,
    PeerProtocolError,
    QNodeOSError,
)
from qnodeos.transport import Stream

if TYPE_CHECKING:
    from qnodeos.cnpu.rehearsal import Rehearsals

Channel = tuple[str, str, int]
"""Source and destination application, and socket id."""

CHANNELS_MAX: Final = 1024
"""Channels of one session, each way."""
START_TIMEOUT_S: Final = 60.0
"""Default time to wait for the other node's process to be there (assumed)."""
SEND_TIMEOUT_S: Final = 300.0
"""Default time to wait for a receiver that does not take its messages (assumed)."""

_ACKNOWLEDGE_BYTES: Final = WINDOW_BYTES // 4
_DRAIN_POLL_S: Final = 0.001


class _Inbox:
    """What has come over one channel."""

    __slots__ = ("has_reader", "held", "messages", "taken")

    def __init__(self) -> None:
        self.messages: deque[tuple[Any, int]] = deque()
        self.held = 0  # cost of what has come and has not been given back to the sender
        self.taken = 0  # part of it that programs have taken
        self.has_reader = False


class Session:
    """The messages exchanged with one other process, from its appearance to its end.

    Any thread may use it.

    Args:
        node_name: of this node.
        remote_name: of the other node; this node's own for programs in this process.
        applications: node of each application; who may send what.
        start_timeout_s: how long to wait for the other process to be there.
        send_timeout_s: how long to wait for a receiver that takes no messages.
        spin_s: how long a thread looks again and again before it sleeps until something
            comes: that takes a core, and spares the time to wake up.
        rehearsals: what a thread that waits does after that; None for nothing.

    Attributes:
        problem: the latest reason why there is no connection yet, for messages.
    """

    def __init__(
        self,
        node_name: str,
        remote_name: str,
        applications: Mapping[str, str],
        *,
        start_timeout_s: float = START_TIMEOUT_S,
        send_timeout_s: float = SEND_TIMEOUT_S,
        spin_s: float = 0.0,
        rehearsals: Rehearsals | None = None,
    ) -> None:
        self.problem = ""
        self._node_name = node_name
        self._remote_name = remote_name
        self._applications = applications
        self._start_timeout_s = start_timeout_s
        self._send_timeout_s = send_timeout_s
        self._spin_s = spin_s
        self._rehearsals = rehearsals
        self._is_local = node_name == remote_name
        self._mutex = Lock()
        self._connection: socket.socket | None = None
        self._stream: Stream | None = None
        self._poll = select.poll()
        self._end: QNodeOSError | None = None
        self._inboxes: dict[Channel, _Inbox] = {}
        self._on_the_way: dict[Channel, int] = {}
        self._released: set[Channel] = set()
        self._has_leader = False
        self._pollers = 0
        self._followers: dict[Lock, object] = {}

    # --- its life ---------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the other process is gone; what it sent before can still be received."""
        return self._end is not None

    @property
    def is_open(self) -> bool:
        """Whether the other process is connected, as far as is known."""
        return self._end is None and self._stream is not None

    def opened(
        self, connection: socket.socket, stream: Stream, payloads: Sequence[bytes] = ()
    ) -> bool:
        """The connection is there.

        Args:
            connection: the socket, to shut down.
            stream: on it.
            payloads: what has been read from it already.

        Returns:
            False (and it is not taken) if the session is over or has a connection.
        """
        with self._mutex:
            if self._end is not None or self._stream is not None:
                return False
            self._connection, self._stream = connection, stream
            self._poll.register(stream, select.POLLIN)
            self._take_all(payloads)
            self._wake_all()
            return True

    def look(self) -> None:
        """Notice whether the other process has gone, without waiting."""
        with self._mutex:
            self._read_now()

    def end(self, reason: QNodeOSError) -> None:
        """End the session and close its connection; threads that wait fail with the reason."""
        with self._mutex:
            self._finish(reason)

    def drain(self, timeout_s: float) -> None:
        """Tell the other process that nothing more will come, and see that it has all.

        Closing a TCP connection on which something unread has come discards what the other
        machine has not acknowledged yet, so that is waited for.

        Args:
            timeout_s: how long to wait at most.
        """
        with self._mutex:
            self._read_now()  # the other may have gone meanwhile
            if self._stream is None or self._connection is None or self._end is not None:
                return
            with contextlib.suppress(QNodeOSError, OSError):
                self._stream.send(encode(Goodbye()))
                self._stream.flush()
                deadline_s = monotonic() + timeout_s
                while self._has_unacknowledged() and monotonic() < deadline_s:
                    sleep(_DRAIN_POLL_S)

    def _has_unacknowledged(self) -> bool:
        """Whether the other machine has yet to acknowledge something."""
        assert self._connection is not None
        if self._connection.family == socket.AF_UNIX:
            return False
        gone = select.poll()
        gone.register(self._connection, 0)
        unacknowledged = array("i", [0])
        fcntl.ioctl(self._connection, termios.TIOCOUTQ, unacknowledged)
        return unacknowledged[0] > 0 and not gone.poll(0)

    # --- programs ---------------------------------------------------------------------

    def send(self, channel: Channel, message: str | StructuredMessage) -> None:
        """Send a message; waits while the channel is full.

        Raises:
            LimitError: the message is too long, there are too many channels, or the receiver
                does not take its messages.
            CallerError: the text is none.
            ApplicationLostError: the other process is gone, or never came.
        """
        payload = _encoded(channel, message)
        cost = cost_of(payload)
        with self._mutex:
            self._released.discard(channel)
            if channel not in self._on_the_way:
                _check_channels(self._on_the_way, channel)
                self._on_the_way[channel] = 0
            now_s = monotonic()
            deadline_s = now_s + self._send_timeout_s
            if self._stream is None and not self._is_local:
                self._await_connection(now_s)
            try:
                while self._on_the_way.get(channel, 0) + cost > WINDOW_BYTES:
                    self._wait_once(("window", channel), deadline_s)
                if self._end is not None:
                    raise self._end_again()
                self._on_the_way[channel] = self._on_the_way.get(channel, 0) + cost
                if self._is_local:
                    self._take(payload)
                    return
                assert self._stream is not None
                self._try(self._stream.send, payload)
                while self._end is None and self._stream.wants_write:
                    self._wait_once("write", deadline_s, is_writing=True)
            except TimeoutError:
                raise LimitError(
                    f"{channel[1]} has not taken its messages from {channel[0]} (socket "
                    f"{channel[2]}) for {self._send_timeout_s:g} s; does it call recv?"
                ) from None
            finally:
                self._pass_lead_on()
            if self._end is not None:
                raise self._end_again()

    def receive(
        self, channel: Channel, *, block: bool = True, timeout_s: float | None = None
    ) -> Any:
        """Take the next message of a channel.

        Raises:
            RuntimeError: none is there (``block`` False), or none came in time.
            LimitError: another program waits at this channel, or there are too many.
            ApplicationLostError: the other process is gone, or never came.
        """
        with self._mutex:
            inbox = self._inbox(channel)
            if not inbox.messages:
                if not block:
                    self._read_now()
                    if not inbox.messages:
                        if self._end is not None:
                            raise self._end_again()
                        raise RuntimeError(f"no message from {channel[0]} has arrived")
                else:
                    self._await_message(channel, inbox, timeout_s)
            message, cost = inbox.messages.popleft()
            inbox.taken += cost
            if inbox.taken >= _ACKNOWLEDGE_BYTES:
                self._acknowledge(channel, inbox)
            return message

    def release(self, channel: Channel) -> None:
        """The program that sent over a channel, and received over its reverse, has ended.

        What has come for it and was not received stays for a later program of the same name.
        """
        source, destination, socket_id = channel
        reverse = destination, source, socket_id
        with self._mutex:
            inbox = self._inboxes.get(reverse)
            if inbox is not None and not inbox.messages and not inbox.has_reader:
                if inbox.taken:
                    self._acknowledge(reverse, inbox)
                del self._inboxes[reverse]
            if channel in self._on_the_way:
                self._released.add(channel)
                self._drop_outbound(channel)

    # --- waiting ----------------------------------------------------------------------

    def _await_message(self, channel: Channel, inbox: _Inbox, timeout_s: float | None) -> None:
        if inbox.has_reader:
            source, destination, socket_id = channel
            raise LimitError(
                f"two programs wait for messages from {source} to {destination} on socket "
                f"{socket_id}; programs that run at once need distinct socket ids"
            )
        now_s = monotonic()
        deadline_s = inf if timeout_s is None else now_s + timeout_s
        inbox.has_reader = True
        try:
            if self._stream is None and not self._is_local:
                self._await_connection(now_s, deadline_s)
            while not inbox.messages:
                self._wait_once(channel, deadline_s)
        except TimeoutError:
            raise RuntimeError(f"no message from {channel[0]} came within {timeout_s} s") from None
        finally:
            inbox.has_reader = False
            self._pass_lead_on()

    def _await_connection(self, now_s: float, deadline_s: float = inf) -> None:
        start_s = now_s + self._start_timeout_s
        while self._stream is None and self._end is None:
            try:
                self._wait_once("connection", min(start_s, deadline_s))
            except TimeoutError:
                if deadline_s <= start_s:
                    raise
                why = f" ({self.problem})" if self.problem else ""
                raise ApplicationLostError(
                    f"no process that runs programs of node {self._remote_name} has been there "
                    f"for {self._start_timeout_s:g} s{why}; start it with `qnodeos run` at that "
                    "node"
                ) from None

    def _wait_once(self, key: object, deadline_s: float, *, is_writing: bool = False) -> None:
        """Wait until something happens that may be what ``key`` names; the mutex is held.

        Raises:
            TimeoutError: the deadline passed first.
            ApplicationLostError: the session is over.
        """
        if self._end is not None:
            raise self._end_again()
        remaining_s = deadline_s - monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        if self._stream is None or (self._has_leader and not is_writing):
            self._follow(key, remaining_s)
        elif self._has_leader:
            self._await_writable(remaining_s)
        else:
            self._lead(remaining_s, is_writing)

    def _follow(self, key: object, remaining_s: float) -> None:
        wake = Lock()
        wake.acquire()
        self._followers[wake] = key
        self._mutex.release()
        try:
            wake.acquire(timeout=-1 if remaining_s == inf else min(remaining_s, 1e6))
        finally:
            self._mutex.acquire()
            self._followers.pop(wake, None)

    def _lead(self, remaining_s: float, is_writing: bool) -> None:
        stream = self._stream
        assert stream is not None
        poll = self._poll
        is_writing = is_writing or stream.wants_write
        if is_writing:
            poll = select.poll()
            poll.register(stream, select.POLLIN | select.POLLOUT)
        self._has_leader = True
        try:
            ready = self._poll_with(poll, remaining_s, self._spin_s, self._rehearsals)
        finally:
            self._has_leader = False
        if ready and self._end is None:
            if is_writing:
                self._try(stream.flush)
            self._read_now()

    def _await_writable(self, remaining_s: float) -> None:
        stream = self._stream
        assert stream is not None
        poll = select.poll()
        poll.register(stream, select.POLLOUT)
        self._poll_with(poll, remaining_s)
        if self._end is None:
            self._try(stream.flush)

    def _poll_with(
        self,
        poll: select.poll,
        remaining_s: float,
        spin_s: float = 0.0,
        rehearsals: Rehearsals | None = None,
    ) -> bool:
        self._pollers += 1
        self._mutex.release()
        try:
            if spin_s:
                stop_s = monotonic() + min(spin_s, remaining_s)
                while monotonic() < stop_s:
                    if poll.poll(0):
                        return True
                remaining_s = max(0.0, remaining_s - spin_s)
            if rehearsals is not None:
                return rehearsals.wait(poll.poll, remaining_s)
            return bool(poll.poll(_milliseconds(remaining_s)))
        finally:
            self._mutex.acquire()
            self._pollers -= 1
            if self._end is not None:
                self._close_unused()

    def _pass_lead_on(self) -> None:
        if self._followers and not self._has_leader:
            wake = next(iter(self._followers))
            del self._followers[wake]
            wake.release()

    def _wake(self, key: object) -> None:
        for wake in [wake for wake, wanted in self._followers.items() if wanted == key]:
            del self._followers[wake]
            wake.release()

    def _wake_all(self) -> None:
        for wake in self._followers:
            wake.release()
        self._followers.clear()

    # --- the connection; the mutex is held --------------------------------------------

    def _read_now(self) -> None:
        if self._stream is None or self._end is not None or self._has_leader:
            return
        try:
            payloads = self._stream.receive()
        except (PeerError, MalformedMessageError) as error:
            self._finish(error)
        else:
            self._take_all(payloads)

    def _take_all(self, payloads: Sequence[bytes]) -> None:
        try:
            for payload in payloads:
                self._take(payload)
        except (PeerError, MalformedMessageError, LimitError) as error:
            self._finish(error)

    def _try(self, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except PeerError as error:
            self._finish(error)

    def _take(self, payload: bytes) -> None:
        message = decode(payload)
        if isinstance(message, TextMessage):
            self._arrived(message, message.text, cost_of(payload))
        elif isinstance(message, StructuredContent):
            content = StructuredMessage(message.header, message.payload)
            self._arrived(message, content, cost_of(payload))
        elif isinstance(message, Consumed):
            channel = message.source, message.destination, message.socket_id
            if message.cost > self._on_the_way.get(channel, 0):
                raise PeerProtocolError(f"more messages of {channel} are gone than were sent")
            self._give_back(channel, message.cost)
        elif isinstance(message, Goodbye):
            self._finish(ApplicationLostError("its programs have ended"))
        elif isinstance(message, AppRefused):
            self._finish(ApplicationLostError(message.text))
        else:
            raise PeerProtocolError(f"{type(message).__name__} in the middle of a session")

    def _arrived(self, message: TextMessage | StructuredContent, content: Any, cost: int) -> None:
        places = self._applications
        if (
            places.get(message.source) != self._remote_name
            or places.get(message.destination) != self._node_name
        ):
            raise PeerProtocolError(
                f"a message from {message.source!r} to {message.destination!r} came from node "
                f"{self._remote_name}; do both node files have the same roles?"
            )
        self._deliver((message.source, message.destination, message.socket_id), content, cost)

    def _deliver(self, channel: Channel, content: Any, cost: int) -> None:
        inbox = self._inbox(channel)
        inbox.held += cost
        if inbox.held > WINDOW_BYTES:
            raise PeerProtocolError(f"more than {WINDOW_BYTES} bytes of {channel} are on the way")
        inbox.messages.append((content, cost))
        self._wake(channel)

    def _acknowledge(self, channel: Channel, inbox: _Inbox) -> None:
        taken, inbox.taken = inbox.taken, 0
        inbox.held -= taken
        if self._is_local:
            self._give_back(channel, taken)
        elif self._stream is not None and self._end is None:
            self._try(self._stream.send, encode(Consumed(*channel, taken)))

    def _give_back(self, channel: Channel, cost: int) -> None:
        self._on_the_way[channel] -= cost
        if channel in self._released:
            self._drop_outbound(channel)
        self._wake(("window", channel))

    def _drop_outbound(self, channel: Channel) -> None:
        """Forget a channel that no program sends over, once nothing of it is on the way."""
        if self._on_the_way.get(channel) == 0:
            del self._on_the_way[channel]
            self._released.discard(channel)

    def _inbox(self, channel: Channel) -> _Inbox:
        inbox = self._inboxes.get(channel)
        if inbox is None:
            _check_channels(self._inboxes, channel)
            inbox = self._inboxes[channel] = _Inbox()
        return inbox

    def _finish(self, reason: QNodeOSError) -> None:
        if self._end is not None:
            return
        self._end = reason
        if self._connection is not None:
            with contextlib.suppress(OSError):  # it may have gone already
                self._connection.shutdown(socket.SHUT_RDWR)
        self._close_unused()
        self._wake_all()

    def _close_unused(self) -> None:
        """Close the connection once no thread polls it: its number may be used anew at once."""
        if self._pollers == 0 and self._stream is not None:
            self._stream.close()

    def _end_again(self) -> QNodeOSError:
        """The reason of the end, as a new exception for each thread."""
        reason = self._end
        assert reason is not None
        if isinstance(reason, ConnectionLostError | MalformedMessageError | LimitError):
            return ApplicationLostError(
                f"the process that runs the programs of node {self._remote_name} is gone: {reason}"
            )
        return copy(reason)


def _check_channels(known: Mapping[Channel, object], channel: Channel) -> None:
    if len(known) >= CHANNELS_MAX:
        raise LimitError(
            f"{CHANNELS_MAX} pairs of applications and socket ids exchange messages between two "
            f"nodes, the limit; {channel} is one too many"
        )


def _encoded(channel: Channel, message: str | StructuredMessage) -> bytes:
    wire: AppMessage
    if isinstance(message, str):
        wire = TextMessage(*channel, message)
    elif isinstance(message.header, str):
        wire = StructuredContent(*channel, message.header, pack(message.payload))
    else:
        raise CallerError(
            f"the header of a structured message is a string, not {type(message.header).__name__}"
        )
    try:
        payload = encode(wire)
    except (UnicodeEncodeError, OverflowError) as error:
        raise CallerError(f"a classical message cannot be sent: {error}") from None
    if len(payload) > MAX_MESSAGE_BYTES:
        raise LimitError(
            f"a classical message of {len(payload)} bytes exceeds {MAX_MESSAGE_BYTES}; send it in "
            "parts"
        )
    return payload


def _milliseconds(seconds: float) -> int | None:
    """For poll: None for ever, rounded up so that a wait never ends before its deadline."""
    return None if seconds == inf else ceil(min(seconds, 1e6) * 1_000)
