"""Connections of the API server: the state of each, and counters of what happened to all."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

from qnodeos.transport import Stream

_PEER_CREDENTIALS: Final = struct.Struct("iII")
"""struct ucred of unix(7): process, user and group id."""


class ClientState(Enum):
    """Where a connection is in its life."""

    SHAKING_HANDS = "shaking hands"
    SERVED = "served"
    LEAVING = "leaving"
    """It has been told why it is refused; it is kept a moment so that it can read that."""
    CLOSED = "closed"

    __hash__ = object.__hash__


class Client:
    """A connection.

    Args:
        number: of the connection; never used again.
        connection: the accepted socket.
        stream: the frames on it.
        now_ns: when it came.

    Attributes:
        open: numbers of the requests that wait for their reply.
        inbox: payloads received and not looked at yet.
        name: what the client calls itself.
        user: number of the user at the other end; None where the system cannot tell.
        is_operator: whether it may see what other clients' programs do.
        deadline_ns: when it is given up, while it shakes hands or leaves.
        heard_ns: when it was last seen to say something, or to wait for a reply.
        events_from: number of the next trace event to send; None if it does not want any.
        events_dropped: trace events it has missed and not been told of.
        writing: whether the loop waits until the socket takes more.
        reading: whether the loop waits for more to read.
    """

    __slots__ = (
        "_heard_bytes",
        "connection",
        "deadline_ns",
        "events_dropped",
        "events_from",
        "heard_ns",
        "inbox",
        "is_operator",
        "name",
        "number",
        "open",
        "reading",
        "state",
        "stream",
        "user",
        "writing",
    )

    def __init__(
        self, number: int, connection: socket.socket, stream: Stream, now_ns: int, deadline_ns: int
    ) -> None:
        self.number = number
        self.connection = connection
        self.stream = stream
        self.state = ClientState.SHAKING_HANDS
        self.open: set[int] = set()
        self.inbox: deque[bytes] = deque()
        self.name = ""
        self.user = user_of(connection)
        self.is_operator = is_operator(self.user)
        self.deadline_ns = deadline_ns
        self.heard_ns = now_ns
        self._heard_bytes = 0
        self.events_from: int | None = None
        self.events_dropped = 0
        self.writing = False
        self.reading = True

    def silent_ns(self, now_ns: int) -> int:
        """How long nothing has come and no request was open, as far as earlier calls saw."""
        received = self.stream.received_bytes
        if received != self._heard_bytes or self.open:
            self._heard_bytes = received
            self.heard_ns = now_ns
        return now_ns - self.heard_ns


@dataclass
class ServerCounters:
    """What has happened to connections since the start.

    Attributes:
        accepted: connections made.
        welcomed: those that introduced themselves properly.
        refused_connections: refused because as many as may be are served, in all or of the user.
        refused_malformed: refused or ended because of what they sent.
        refused_untrusted: ended because of their certificate.
        evicted_handshakes: that made room for newer ones before they had introduced themselves.
        timed_out_handshakes: that did not introduce themselves in time.
        timed_out_idle: silent for too long.
        slow_readers: ended because they did not read.
        lost: ended by the other end, or by the network.
        accept_pauses: times when the system had no descriptor left.
        requests: requests taken.
        refused_requests: beyond `requests_per_client` or `processes_per_user`.
        replies: sent.
        events_dropped: trace events that subscribers missed.
    """

    accepted: int = 0
    welcomed: int = 0
    refused_connections: int = 0
    refused_malformed: int = 0
    refused_untrusted: int = 0
    evicted_handshakes: int = 0
    timed_out_handshakes: int = 0
    timed_out_idle: int = 0
    slow_readers: int = 0
    lost: int = 0
    accept_pauses: int = 0
    requests: int = 0
    refused_requests: int = 0
    replies: int = 0
    events_dropped: int = 0


def user_of(connection: socket.socket) -> int | None:
    """Number of the user at the other end; only a Unix socket can tell, else None."""
    if connection.family != socket.AF_UNIX:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    return int(_PEER_CREDENTIALS.unpack(raw)[1])


def is_operator(user: int | None) -> bool:
    """Whether a user runs this service, or is root."""
    return user in (0, os.geteuid())
