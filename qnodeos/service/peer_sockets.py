"""Sockets on a loop for the state machines of the peer protocol.

`Connections` carries out what a machine wants: `qnodeos.service.peers.PeerManager` or
`qnodeos.service.controller.ControllerCore`.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from qnodeos.errors import MalformedMessageError, PeerError, QNodeOSError, UntrustedPeerError
from qnodeos.service.dialling import CHUNK_BYTES, MAX_OUTBOUND_BYTES, Endpoint, connect_error, dial
from qnodeos.service.loop import BROKEN, READ, WRITE, Loop, Timer
from qnodeos.service.peer_session import DEFAULT_TIMING, MAX_FRAME_BYTES, PeerTiming
from qnodeos.service.peers import MAX_GREETING
from qnodeos.transport import Address, Stream, TlsFiles
from qnodeos.transport.listening import address_of

_ACCEPTS_PER_TURN: Final = 16
_MESSAGES_PER_TURN: Final = 16
"""Of one connection, before all else has its turn: some 0.1 ms of work."""
_LEAVE_NS: Final = 1_000_000_000
"""How long a connection that is being closed may take to write what was sent (assumed)."""
_PAUSE_NS: Final = 100_000_000
"""How long nothing is accepted when the system has no descriptor left (assumed)."""


@dataclass
class _Wire:
    """A socket and how far it is.

    Attributes:
        is_accepted: the other end made the connection.
        is_connecting: the connection is being made.
        is_open: payloads can pass.
        is_leaving: to be closed as soon as everything is written.
        deadline: until it must be open, or gone.
        inbox: payloads that have come and wait for their turn.
    """

    stream: Stream
    deadline: Timer
    is_accepted: bool = False
    is_connecting: bool = False
    is_open: bool = False
    is_leaving: bool = False
    events: int = READ
    inbox: deque[bytes] = field(default_factory=deque)


class Machine(Protocol):
    """A state machine without I/O; see `qnodeos.service.peers.PeerManager`."""

    outbox: list[tuple[int, bytes]]
    closing: list[int]
    dials: list[tuple[int, int]]

    def new_connection(self) -> int:
        """A number for a connection that was accepted."""
        ...

    def opened(self, connection: int, now_ns: int, names: Sequence[str] = ()) -> None:
        """A connection can be used."""
        ...

    def received(self, connection: int, payload: bytes, now_ns: int) -> None:
        """A payload came over a connection."""
        ...

    def garbled(self, connection: int, error: QNodeOSError, now_ns: int) -> None:
        """What came over a connection cannot be cut into payloads."""
        ...

    def untrusted(self, error: QNodeOSError, now_ns: int) -> None:
        """Somebody tried to connect and could not prove who it is."""
        ...

    def closed(self, connection: int, reason: str, now_ns: int) -> None:
        """A connection has ended, or could not be made."""
        ...

    def poll(self, now_ns: int) -> None:
        """Do what is due."""
        ...

    @property
    def due_ns(self) -> int | None:
        """When `poll` has something to do, None if never."""
        ...

    def close(self) -> None:
        """End all connections."""
        ...


class Connections:
    """Carries out what a machine wants; close it after use.

    Args:
        machine: says what to do, and is told what happens.
        endpoints: where its dials lead.
        loop: calls this object.
        tls: for what leaves the machine.
        timing: times of the protocol.
        listener: where to accept connections, None for nowhere; owned by this object.
        accepts_tls: whether who connects there has to use TLS.

    Raises:
        ConfigurationError: TLS cannot use its files.
    """

    def __init__(
        self,
        machine: Machine,
        endpoints: Mapping[int, Endpoint],
        loop: Loop,
        tls: TlsFiles | None,
        *,
        timing: PeerTiming = DEFAULT_TIMING,
        listener: socket.socket | None = None,
        accepts_tls: bool = False,
    ) -> None:
        self._machine = machine
        self._endpoints = endpoints
        self._loop = loop
        self._tls = tls
        self._timing = timing
        self._listener = listener
        self._context = tls.server_context() if tls is not None and accepts_tls else None
        self._wires: dict[int, _Wire] = {}
        self._timer: Timer | None = None
        if listener is not None:
            loop.watch(listener.fileno(), self._accept)
        self.carry_out()

    @property
    def address(self) -> Address | None:
        """Where it listens, None if nowhere."""
        return address_of(self._listener) if self._listener is not None else None

    def close(self) -> None:
        """End all connections, and accept none any more."""
        self._machine.close()
        self._machine.closing.clear()
        for connection in list(self._wires):
            self._drop(connection)
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None

    # --- carrying out what the machine wants ------------------------------------------

    def carry_out(self) -> None:
        """Do what the machine wants."""
        machine = self._machine
        while machine.dials or machine.outbox or machine.closing:
            outbox, machine.outbox = machine.outbox, []
            closing, machine.closing = machine.closing, []
            dials, machine.dials = machine.dials, []
            for connection, payload in outbox:
                wire = self._wires.get(connection)
                if wire is not None:
                    with self._blaming(connection):
                        wire.stream.send(payload)
            for connection in closing:
                self._leave(connection)
            for connection, node_id in dials:
                self._dial(connection, self._endpoints[node_id])
        for connection in list(self._wires):
            self._look_after(connection)
        self._arm()

    def _arm(self) -> None:
        due_ns = self._machine.due_ns
        timer = self._timer
        if timer is not None and timer.is_pending:
            if due_ns is not None and timer.when_ns <= due_ns:
                return  # it is set anew when it has fired
            timer.cancel()
        self._timer = None if due_ns is None else self._loop.call_at(due_ns, self._poll)

    def _poll(self) -> None:
        self._machine.poll(self._loop.now_ns())
        self.carry_out()

    # --- making connections -----------------------------------------------------------

    def _dial(self, connection: int, endpoint: Endpoint) -> None:
        try:
            stream = dial(endpoint, self._tls)
        except (OSError, PeerError) as error:
            text = f"nobody answers at {endpoint.address}: {error}"
            self._machine.closed(connection, text, self._loop.now_ns())
            return
        self._add(connection, _Wire(stream, self._deadline(connection), is_connecting=True))

    def _accept(self, events: int) -> None:
        listener = self._listener
        if listener is None:
            return
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError:  # no descriptor left: do not spin on it
                self._loop.change(listener.fileno(), 0)
                self._loop.call_after(_PAUSE_NS, self._accept_again)
                break
            self._greet(accepted)
        self.carry_out()

    def _accept_again(self) -> None:
        if self._listener is not None:
            self._loop.change(self._listener.fileno(), READ)

    def _greet(self, accepted: socket.socket) -> None:
        shaking_hands = [
            number
            for number, wire in self._wires.items()
            if not (wire.is_open or wire.is_connecting or wire.is_leaving)
        ]
        if len(shaking_hands) >= MAX_GREETING:
            self._drop(shaking_hands[0])
        try:
            stream = Stream(
                accepted,
                context=self._context,
                is_server=True,
                max_frame_bytes=MAX_FRAME_BYTES,
                max_outbound_bytes=MAX_OUTBOUND_BYTES,
                chunk_bytes=CHUNK_BYTES,
            )
        except OSError:  # whoever it was is gone already
            accepted.close()
            return
        connection = self._machine.new_connection()
        self._add(connection, _Wire(stream, self._deadline(connection), is_accepted=True))
        if stream.is_established:
            self._open(connection)

    def _deadline(self, connection: int) -> Timer:
        return self._loop.call_after(self._timing.handshake_ns, lambda: self._too_late(connection))

    def _too_late(self, connection: int) -> None:
        self._lose(connection, "the connection was not made in time")
        self.carry_out()

    def _add(self, connection: int, wire: _Wire) -> None:
        self._wires[connection] = wire
        wire.events = WRITE if wire.is_connecting else READ
        self._loop.watch(
            wire.stream.fileno(), lambda events: self._ready(connection, events), wire.events
        )

    def _open(self, connection: int) -> None:
        wire = self._wires[connection]
        names = wire.stream.peer_names
        if wire.is_accepted and self._context is not None and not names:
            # The machine takes nobody's name for a connection without TLS.
            raise UntrustedPeerError("its certificate has no DNS entry in its subjectAltName")
        wire.is_open = True
        wire.deadline.cancel()
        self._machine.opened(connection, self._loop.now_ns(), names)

    # --- sockets that are ready -------------------------------------------------------

    def _ready(self, connection: int, events: int) -> None:
        wire = self._wires.get(connection)
        if wire is None:
            return
        with self._blaming(connection):
            if wire.is_connecting:
                error = connect_error(wire.stream.fileno())
                if error is not None:
                    self._lose(connection, f"nobody answers: {error}")
                    self.carry_out()
                    return
                wire.is_connecting = False
                if wire.stream.is_established:
                    self._open(connection)
            if events & WRITE:
                wire.stream.flush()
            if events & (READ | BROKEN):
                self._receive(connection, wire)
        self.carry_out()

    def _receive(self, connection: int, wire: _Wire) -> None:
        if wire.inbox:
            return  # what has been received comes first, also if the connection broke
        wire.inbox.extend(wire.stream.receive())
        if not wire.is_open and wire.stream.is_established:
            self._open(connection)
        self._pass_on(connection, wire)

    def _pass_on(self, connection: int, wire: _Wire) -> None:
        """Tell the machine some of what has come; more in the next turn."""
        for _ in range(min(_MESSAGES_PER_TURN, len(wire.inbox))):
            self._machine.received(connection, wire.inbox.popleft(), self._loop.now_ns())
        if wire.inbox:
            self._loop.call_soon(lambda: self._continue(connection))

    def _continue(self, connection: int) -> None:
        wire = self._wires.get(connection)
        if wire is not None:
            self._pass_on(connection, wire)
            self.carry_out()

    def _look_after(self, connection: int) -> None:
        """Wait for the right events, and go if that is all that is left to do."""
        wire = self._wires[connection]
        if wire.is_leaving and not wire.stream.wants_write:
            self._drop(connection)
            return
        events = WRITE if wire.is_connecting or wire.stream.wants_write else 0
        if not (wire.is_connecting or wire.is_leaving or wire.inbox):
            events |= READ
        if events != wire.events:
            wire.events = events
            self._loop.change(wire.stream.fileno(), events)

    # --- the end ----------------------------------------------------------------------

    @contextlib.contextmanager
    def _blaming(self, connection: int) -> Iterator[None]:
        """End the connection whose error this is."""
        try:
            yield
        except MalformedMessageError as error:
            self._machine.garbled(connection, error, self._loop.now_ns())
        except (PeerError, OSError) as error:
            wire = self._wires.get(connection)
            if isinstance(error, UntrustedPeerError) and wire is not None and wire.is_accepted:
                self._machine.untrusted(error, self._loop.now_ns())
            self._lose(connection, str(error))

    def _leave(self, connection: int) -> None:
        wire = self._wires.get(connection)
        if wire is None:
            return
        wire.is_leaving = True
        wire.inbox.clear()
        wire.deadline.cancel()
        wire.deadline = self._loop.call_after(_LEAVE_NS, lambda: self._drop(connection))

    def _lose(self, connection: int, reason: str) -> None:
        self._drop(connection)
        self._machine.closed(connection, reason, self._loop.now_ns())

    def _drop(self, connection: int) -> None:
        wire = self._wires.pop(connection, None)
        if wire is not None:
            wire.deadline.cancel()
            self._loop.forget(wire.stream.fileno())
            wire.stream.close()
