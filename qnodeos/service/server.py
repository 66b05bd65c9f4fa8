"""The API server: connections of programs, from accepting to the end.

    accept -> SHAKING_HANDS -- Hello --> SERVED --> closed
                   |                       |
                   +------> LEAVING <------+   refused: told why, then closed

What must not happen, and why it does not: a connection takes at most `messages_per_turn`
messages per turn, so a flood waits in its own socket; what is not read is bounded by
`outbound_bytes`; connections that do not introduce themselves live in a pool of their own,
in which the newest replaces the oldest, so however many there are, a program that does
introduce itself finds its place.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from qnodeos.api.host import HostReply
from qnodeos.api.host_wire import (
    PROTOCOL_VERSION,
    Hello,
    Refused,
    Welcome,
    decode_client,
    encode,
    reply_of,
)
from qnodeos.errors import (
    MalformedMessageError,
    PeerError,
    QNodeOSError,
    SlowReaderError,
    UntrustedPeerError,
)
from qnodeos.service.client_requests import ClientRequests, Qnpu
from qnodeos.service.clients import Client, ClientState, ServerCounters
from qnodeos.service.events import EventStream, Subscriptions
from qnodeos.service.limits_config import LimitsConfig
from qnodeos.service.listeners import Listener
from qnodeos.service.loop import READ, WRITE, Loop
from qnodeos.transport import Address, Stream
from qnodeos.transport.keepalive import keep_alive
from qnodeos.transport.listening import address_of

_ACCEPTS_PER_TURN: Final = 4
"""Accepting takes some 50 us each."""
_LEAVE_NS: Final = 1_000_000_000
"""How long a refused connection is kept so that it can read why (assumed)."""
_PAUSE_NS: Final = 100_000_000
"""How long nothing is accepted when the system has no descriptor left (assumed)."""
_NS_PER_MS: Final = 1_000_000
_CHUNK_BYTES: Final = 8 << 10
"""Read of a connection at once: cut into the smallest frames, some 0.5 ms."""
_FRAME_OVERHEAD_BYTES: Final = 1_024
"""What a message is longer than the subroutine in it, at most."""
_OUT_OF_RESOURCES: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM}
)


class ApiServer:
    """Serves the connections of all listeners; what they ask is for `ClientRequests`.

    Args:
        loop: in whose thread everything happens.
        listeners: owned by this object from now on.
        limits: all bounds.
        welcome: what a client that introduces itself is told.
        qnpu: the QNPU behind the server.
        events: the trace, for those who subscribe.
    """

    def __init__(
        self,
        loop: Loop,
        listeners: Sequence[Listener],
        limits: LimitsConfig,
        welcome: Welcome,
        qnpu: Qnpu,
        events: EventStream,
    ) -> None:
        self.counters = ServerCounters()
        self._loop = loop
        self._listeners = tuple(listeners)
        self._limits = limits
        self._welcome = encode(welcome)
        self._qnpu = qnpu
        self._served: dict[int, Client] = {}
        self._others: dict[int, Client] = {}
        self._last_number = 0
        self._max_frame_bytes = limits.subroutine_bytes + _FRAME_OVERHEAD_BYTES
        self._subscriptions = Subscriptions(
            loop, events, limits.events, self._served, self.counters, self._send, self._fail
        )
        self._requests = ClientRequests(
            limits, qnpu, self._subscriptions, self._served, self.counters, self._send
        )
        for listener in self._listeners:
            self._listen(listener)
        sweep_ms = min(limits.handshake_ms, limits.idle_ms, 4_000) / 4
        self._sweep_ns = round(sweep_ms * _NS_PER_MS)
        self._sweeper = loop.call_after(self._sweep_ns, self._sweep)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens, with the ports the system chose."""
        return tuple(address_of(listener.socket) for listener in self._listeners)

    @property
    def connections(self) -> int:
        """Connections that are served."""
        return len(self._served)

    @property
    def open_sockets(self) -> int:
        """Connections that hold a descriptor, served or not."""
        return len(self._served) + len(self._others)

    @property
    def open_requests(self) -> int:
        """Requests that wait for their reply."""
        return sum(len(client.open) for client in self._served.values())

    def statistics(self) -> dict[str, Any]:
        """Counters, and what there is now."""
        return {
            "connections": self.connections,
            "open_sockets": self.open_sockets,
            "handshakes": len(self._others),
            "subscribers": sum(c.events_from is not None for c in self._served.values()),
            "open_requests": self.open_requests,
            **asdict(self.counters),
        }

    def welcome(self, welcome: Welcome) -> None:
        """Tell this to clients from now on."""
        self._welcome = encode(welcome)

    # --- connections ------------------------------------------------------------------

    def _listen(self, listener: Listener) -> None:
        self._loop.watch(listener.socket.fileno(), lambda _: self._accept(listener))

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                connection, _ = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    continue  # that one was gone before it was accepted
                # The descriptor would stay readable: look elsewhere for a while.
                self.counters.accept_pauses += 1
                self._loop.forget(listener.socket.fileno())
                self._loop.call_after(_PAUSE_NS, lambda: self._listen(listener))
                return
            self._admit(connection, listener.context)

    def _admit(self, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        self.counters.accepted += 1
        self._last_number += 1
        now_ns = self._loop.now_ns()
        try:
            keep_alive(connection)
            stream = Stream(
                connection,
                context=context,
                is_server=True,
                max_frame_bytes=self._max_frame_bytes,
                max_outbound_bytes=self._limits.outbound_bytes,
                chunk_bytes=_CHUNK_BYTES,
            )
            client = Client(
                self._last_number,
                connection,
                stream,
                now_ns,
                now_ns + self._limits.handshake_ms * _NS_PER_MS,
            )
        except OSError:  # it is gone already
            connection.close()
            return
        if len(self._others) >= self._limits.handshakes:
            oldest = next(iter(self._others.values()))
            self.counters.evicted_handshakes += oldest.state is ClientState.SHAKING_HANDS
            self._close(oldest)
        self._others[client.number] = client
        self._loop.watch(stream.fileno(), lambda events: self._ready(client, events))
        if context is None:
            self._refuse_beyond_limits(client)

    def _refuse_beyond_limits(self, client: Client) -> bool:
        """Refuse a connection for which there is no place; returns whether it was refused."""
        limits, served = self._limits, len(self._served)
        if client.is_operator:
            if served < limits.connections + limits.reserved_connections:
                return False
        elif served < limits.connections:
            own = sum(each.user == client.user for each in self._served.values())
            if client.user is None or own < limits.connections_per_user:
                return False
            reason = f"connections_per_user={limits.connections_per_user} of user {client.user}"
            self._refuse_connection(client, reason)
            return True
        self._refuse_connection(client, f"connections={limits.connections}")
        return True

    def _refuse_connection(self, client: Client, reached: str) -> None:
        self.counters.refused_connections += 1
        text = f"{reached} are served, the limit; try again later"
        self._refuse(client, "LimitError", text)

    def _ready(self, client: Client, events: int) -> None:
        """The socket of a connection can be read or written, or is broken."""
        try:
            if events & WRITE:
                client.stream.flush()
                self._set_interest(client)
            if events & ~WRITE:
                if client.inbox:
                    return  # what has been received comes first, also if the connection broke
                if client.state is ClientState.LEAVING:
                    client.stream.discard()
                    return
                self._take(client, client.stream.receive())
        except QNodeOSError as error:
            self._fail(client, error)

    def _take(self, client: Client, payloads: list[bytes]) -> None:
        most = self._limits.messages_per_turn
        for payload in payloads[:most]:
            self._serve(client, payload)
        if len(payloads) > most and client.state is ClientState.SERVED:
            client.inbox.extend(payloads[most:])
            self._set_interest(client)
            self._loop.call_soon(lambda: self._continue(client))

    def _continue(self, client: Client) -> None:
        """Look at more of what a connection has sent: its turn has come again."""
        inbox = client.inbox
        try:
            for _ in range(min(self._limits.messages_per_turn, len(inbox))):
                self._serve(client, inbox.popleft())
                if not inbox:  # also if it was closed
                    break
        except QNodeOSError as error:
            self._fail(client, error)
            return
        if inbox:
            self._loop.call_soon(lambda: self._continue(client))
        elif client.state is not ClientState.CLOSED:
            self._set_interest(client)

    def _serve(self, client: Client, payload: bytes) -> None:
        state = client.state
        if state is ClientState.SERVED:
            message = decode_client(payload)
            handler = self._requests.handlers.get(type(message))
            if handler is None:
                raise MalformedMessageError("a second Hello; it is the first message only")
            handler(client, message)
        elif state is ClientState.SHAKING_HANDS:
            self._shake_hands(client, payload)

    def _shake_hands(self, client: Client, payload: bytes) -> None:
        message = decode_client(payload)
        if not isinstance(message, Hello):
            raise MalformedMessageError(
                f"the first message is {type(message).__name__}; it must be Hello"
            )
        if message.version != PROTOCOL_VERSION:
            self.counters.refused_malformed += 1
            self._refuse(
                client,
                "MalformedMessageError",
                f"version {message.version} of the protocol is asked for; this QNPU speaks "
                f"{PROTOCOL_VERSION}: use matching versions of qnodeos",
            )
            return
        if self._refuse_beyond_limits(client):
            return
        self.counters.welcomed += 1
        client.name = message.client
        client.state = ClientState.SERVED
        del self._others[client.number]
        self._served[client.number] = client
        self._send(client, self._welcome)

    def _set_interest(self, client: Client) -> None:
        """Have the loop wait for what a connection waits for."""
        reading, writing = not client.inbox, client.stream.wants_write
        if (reading, writing) != (client.reading, client.writing):
            client.reading, client.writing = reading, writing
            self._loop.change(
                client.stream.fileno(), (READ if reading else 0) | (WRITE if writing else 0)
            )

    def _send(self, client: Client, payload: bytes) -> None:
        stream = client.stream
        stream.send(payload)
        if stream.wants_write and not client.writing:
            self._set_interest(client)

    def _fail(self, client: Client, error: QNodeOSError) -> None:
        """A connection did what it must not, or is gone."""
        counters = self.counters
        if isinstance(error, SlowReaderError):
            counters.slow_readers += 1
            self._close(client)
        elif isinstance(error, UntrustedPeerError):
            counters.refused_untrusted += 1
            self._close(client)
        elif isinstance(error, PeerError):
            counters.lost += client.state is not ClientState.LEAVING
            self._close(client)
        else:
            counters.refused_malformed += 1
            self._refuse(client, type(error).__name__, str(error))

    def _refuse(self, client: Client, kind: str, text: str) -> None:
        """Tell a connection why it ends; its programs end now."""
        if client.state in (ClientState.LEAVING, ClientState.CLOSED):
            return
        self._end_programs(client)
        client.state = ClientState.LEAVING
        client.deadline_ns = self._loop.now_ns() + _LEAVE_NS
        client.inbox.clear()
        client.open.clear()
        client.events_from = None
        self._others[client.number] = client
        try:
            self._send(client, encode(Refused(kind, text[:4096])))
            if client.stream.wants_write:
                raise SlowReaderError("it does not read; it need not be told")
            self._set_interest(client)
            # Closing with unread bytes would reset the connection, and what was sent with it.
            client.connection.shutdown(socket.SHUT_WR)
        except (QNodeOSError, OSError):
            self._close(client)

    def _end_programs(self, client: Client) -> None:
        if self._served.pop(client.number, None) is not None:
            self._qnpu.client_closed(client.number)

    def _close(self, client: Client) -> None:
        if client.state is ClientState.CLOSED:
            return
        self._loop.forget(client.stream.fileno())
        client.stream.close()
        self._end_programs(client)
        self._others.pop(client.number, None)
        client.state = ClientState.CLOSED
        client.inbox.clear()
        client.open.clear()

    def _sweep(self) -> None:
        """Look for those whose time is over."""
        self._sweeper = self._loop.call_after(self._sweep_ns, self._sweep)
        now_ns = self._loop.now_ns()
        for client in [c for c in self._others.values() if c.deadline_ns <= now_ns]:
            self.counters.timed_out_handshakes += client.state is ClientState.SHAKING_HANDS
            if client.state is ClientState.LEAVING or not client.stream.is_established:
                self._close(client)
            else:
                self._refuse(
                    client,
                    "MalformedMessageError",
                    f"no Hello came within handshake_ms={self._limits.handshake_ms}",
                )
        idle_ns = self._limits.idle_ms * _NS_PER_MS
        for client in [c for c in self._served.values() if c.silent_ns(now_ns) > idle_ns]:
            self.counters.timed_out_idle += 1
            self._refuse(
                client,
                "ConnectionLostError",
                f"nothing was heard for idle_ms={self._limits.idle_ms} and no request is open; "
                "send a Ping now and then",
            )

    def reply(self, host_reply: HostReply) -> None:
        """Send the kernel's answer to a request; dropped if the connection has ended."""
        client = self._served.get(host_reply.client)
        if client is None:
            return
        client.open.discard(host_reply.request)
        try:
            self._requests.answer(client, reply_of(host_reply))
        except QNodeOSError as error:
            self._fail(client, error)

    # --- the end ----------------------------------------------------------------------

    def stop_listening(self) -> None:
        """Accept nothing any more."""
        for listener in self._listeners:
            if listener.socket.fileno() >= 0:
                self._loop.forget(listener.socket.fileno())
                listener.close()

    def close(self, reason: str) -> None:
        """End all connections.

        Args:
            reason: what they are told.
        """
        self.stop_listening()
        self._sweeper.cancel()
        self._subscriptions.close()
        for client in [*self._served.values(), *self._others.values()]:
            if client.stream.is_established:
                self._refuse(client, "ConnectionLostError", reason)
            self._close(client)
