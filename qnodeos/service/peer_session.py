"""One connection between two QNPUs, or a controller and a QNPU: the protocol, without I/O.

    GREETING -- both have said who they are --> OPEN --> CLOSED
        +------------- refused, silent -------------------^

Payloads go in with their time, payloads come out; the owner carries them. The epoch of the
connection follows from what both ends said in their hello: how often each has started and
connected. So both know it without agreeing further, and no two connections share one. A
message that carries another epoch is counted and dropped.

Both ends send heartbeats. Silence ends a connection, so one that is open only at one end, or
whose network has gone, is noticed. A heartbeat also acknowledges the messages that had arrived
by the heartbeat before: those have been dealt with, and if there was anything to say to them,
it has come before the acknowledgement. What is not acknowledged when a connection ends is in
doubt, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from qnodeos.api.peer_wire import (
    PROTOCOL_VERSION,
    Heartbeat,
    LinkMessage,
    PeerHello,
    PeerMessageBase,
    PeerRefused,
    PeerWireMessage,
    decode,
    encode,
)
from qnodeos.errors import (
    ConnectionLostError,
    LimitError,
    PeerProtocolError,
    PeerRefusedError,
    QNodeOSError,
)

ROLE_QNPU: Final = "qnpu"
ROLE_CONTROLLER: Final = "controller"
CONTROLLER_ID: Final = -1
"""Node id in the hello of a controller."""

MAX_UNACKNOWLEDGED: Final = 4_096
"""Messages that may be under way; a peer further behind than that is not alive."""
MAX_FRAME_BYTES: Final = 64 << 10
"""Longest message of this protocol: the pattern of a schedule, five bytes per bin."""
_MAX_TEXT: Final = 1_000


@dataclass(frozen=True)
class PeerTiming:
    """Times of the protocol, in nanoseconds of the owner's clock (all assumed).

    Attributes:
        heartbeat_ns: between two signs of life.
        silence_ns: silence that ends a connection.
        handshake_ns: how long both may take to say who they are.
        first_retry_ns: wait before the first attempt to connect again; doubled each time.
        longest_retry_ns: bound on that wait.
    """

    heartbeat_ns: int = 200_000_000
    silence_ns: int = 2_000_000_000
    handshake_ns: int = 5_000_000_000
    first_retry_ns: int = 50_000_000
    longest_retry_ns: int = 2_000_000_000


DEFAULT_TIMING: Final = PeerTiming()


@dataclass(frozen=True)
class Identity:
    """Who one is; see `qnodeos.api.peer_wire.PeerHello`."""

    role: str
    node_id: int
    name: str
    incarnation: int
    tick_ns: int

    def hello(self, connections: int) -> PeerHello:
        """The first message of a connection.

        Args:
            connections: how many connections to that peer there have been, with this one.
        """
        return PeerHello(
            PROTOCOL_VERSION,
            self.role,
            self.node_id,
            self.name,
            self.incarnation,
            connections,
            self.tick_ns,
        )


def connection_epoch(dialler: PeerHello, listener: PeerHello) -> int:
    """Number of a connection, the same at both ends and different for every other one."""
    words = (
        dialler.incarnation,
        dialler.connections,
        listener.incarnation,
        listener.connections,
    )
    digest = hashlib.blake2b(repr(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # 63 bits, as the wire format has it


class SessionState(Enum):
    """Where a connection is in its life."""

    GREETING = "greeting"
    OPEN = "open"
    CLOSED = "closed"


@dataclass
class SessionCounters:
    """What has passed, over all connections that share it.

    Attributes:
        sent, received: link layer messages.
        old_epoch: messages refused because they were meant for another connection.
    """

    sent: int = 0
    received: int = 0
    old_epoch: int = 0


class PeerSession:
    """See the module's docstring.

    Args:
        identity: of this end.
        admit: checks the other end's hello; returns the number of this connection, counted
            at this end, or raises `PeerRefusedError`.
        now_ns: of the owner's clock.
        dials: number of this connection, if this end made it; None if it was accepted.
        timing: times of the protocol.

    Attributes:
        counters: where messages are counted.
        outgoing: payloads to be sent; the owner empties it.
        state: of the connection.
        hello: what the other end said, once it has.
        epoch: of the connection, once it is open.
    """

    def __init__(
        self,
        identity: Identity,
        admit: Callable[[PeerHello], int],
        now_ns: int,
        *,
        dials: int | None = None,
        timing: PeerTiming = DEFAULT_TIMING,
    ) -> None:
        self._identity = identity
        self._admit = admit
        self._timing = timing
        self.counters = SessionCounters()
        self._mine = identity.hello(dials) if dials is not None else None
        self.outgoing: list[bytes] = []
        self.state = SessionState.GREETING
        self.hello: PeerHello | None = None
        self.epoch = 0
        self._is_dialler = dials is not None
        self._silent_at_ns = now_ns + timing.handshake_ns
        self._heartbeat_at_ns = self._silent_at_ns
        self._received = 0
        self._dealt_with = 0
        self._sent = 0
        self._under_way: deque[int] = deque()
        if self._mine is not None:
            self._send(self._mine)

    # --- sending ----------------------------------------------------------------------

    def _send(self, message: PeerMessageBase) -> None:
        self.outgoing.append(encode(message))

    def send_control(self, message: PeerMessageBase) -> None:
        """Send a message that carries no epoch."""
        if self.state is SessionState.OPEN:
            self._send(message)

    def send_link(self, message: LinkMessage, tick: int) -> None:
        """Send a link layer message, which must carry the epoch of this connection.

        Args:
            message: to send.
            tick: now, for `heard_tick`.

        Raises:
            LimitError: the peer has acknowledged nothing for too long.
        """
        if self.state is not SessionState.OPEN:
            return
        if len(self._under_way) >= MAX_UNACKNOWLEDGED:
            raise LimitError(
                f"{MAX_UNACKNOWLEDGED} messages to the peer are not acknowledged; it does not keep "
                "up, or does not run the same protocol"
            )
        self._under_way.append(tick)
        self._sent += 1
        self.counters.sent += 1
        self._send(message)

    def refuse(self, error: QNodeOSError) -> None:
        """Tell the other end why, and close."""
        if self.state is not SessionState.CLOSED:
            self._send(PeerRefused(type(error).__name__, str(error)[:_MAX_TEXT]))
            self.state = SessionState.CLOSED

    def close(self) -> None:
        """The connection has ended."""
        self.state = SessionState.CLOSED

    # --- receiving --------------------------------------------------------------------

    def receive(self, payload: bytes, now_ns: int) -> PeerWireMessage | None:
        """Take a payload.

        Returns:
            What the owner has to act on: the other end's `PeerHello`, with which the
            connection is open, a link layer message of this epoch, or a controller's
            question or answer; None if there is nothing to do.

        Raises:
            MalformedMessageError: it is no message of this protocol.
            PeerProtocolError: it makes no sense now.
            PeerRefusedError: one end does not want the other; the connection is over.
        """
        if self.state is SessionState.CLOSED:
            return None
        message = decode(payload)
        if isinstance(message, PeerRefused):
            self.state = SessionState.CLOSED
            raise PeerRefusedError(f"the other end refuses: {message.kind}: {message.text}")
        if self.state is SessionState.GREETING:
            return self._greeted(message, now_ns)
        self._silent_at_ns = now_ns + self._timing.silence_ns
        if isinstance(message, Heartbeat):
            self._on_heartbeat(message)
            return None
        if isinstance(message, PeerHello):
            raise PeerProtocolError("a second hello came over one connection")
        if isinstance(message, LinkMessage):
            self._received += 1
            if message.epoch != self.epoch:
                self.counters.old_epoch += 1
                return None
            self.counters.received += 1
        return message

    def _greeted(self, message: PeerWireMessage, now_ns: int) -> PeerHello:
        if not isinstance(message, PeerHello):
            raise PeerProtocolError(
                f"the first message must be a hello, not {type(message).__name__}"
            )
        if message.version != PROTOCOL_VERSION:
            raise PeerRefusedError(
                f"{message.node_name!r} speaks version {message.version} of the peer protocol, "
                f"{self._identity.name!r} version {PROTOCOL_VERSION}; run the same release at both"
            )
        connections = self._admit(message)
        if self._mine is None:
            self._mine = self._identity.hello(connections)
            self._send(self._mine)
            self.epoch = connection_epoch(message, self._mine)
        else:
            self.epoch = connection_epoch(self._mine, message)
        self.hello = message
        self.state = SessionState.OPEN
        self._silent_at_ns = now_ns + self._timing.silence_ns
        self._heartbeat_at_ns = now_ns
        return message

    def _on_heartbeat(self, message: Heartbeat) -> None:
        if message.epoch != self.epoch:
            self.counters.old_epoch += 1
            return
        if message.received > self._sent:
            raise PeerProtocolError(
                f"the peer acknowledges {message.received} messages and was sent {self._sent}"
            )
        while len(self._under_way) > self._sent - message.received:
            self._under_way.popleft()

    # --- time -------------------------------------------------------------------------

    def poll(self, now_ns: int) -> None:
        """Do what is due.

        Raises:
            ConnectionLostError: the other end was silent for too long.
        """
        if self.state is SessionState.CLOSED:
            return
        if now_ns >= self._silent_at_ns:
            is_open = self.state is SessionState.OPEN
            limit_ns = self._timing.silence_ns if is_open else self._timing.handshake_ns
            what = "was silent" if is_open else "did not say who it is"
            raise ConnectionLostError(f"the other end {what} for {limit_ns / 1e9:g} s")
        if self.state is SessionState.OPEN and now_ns >= self._heartbeat_at_ns:
            self._heartbeat_at_ns = now_ns + self._timing.heartbeat_ns
            self._send(Heartbeat(self.epoch, self._dealt_with))
            self._dealt_with = self._received

    @property
    def due_ns(self) -> int:
        """When `poll` has something to do."""
        return min(self._silent_at_ns, self._heartbeat_at_ns)

    def heard_tick(self, tick: int) -> int:
        """Everything sent before this tick has arrived at the other end.

        Args:
            tick: now.
        """
        return min(self._under_way, default=tick + 1)
