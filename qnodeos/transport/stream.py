"""A framed connection for an event loop: never blocks, and holds a bounded number of bytes."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from qnodeos.api.framing import MAX_FRAME_BYTES, Deframer, frame
from qnodeos.errors import ConnectionLostError, SlowReaderError, UntrustedPeerError
from qnodeos.transport.tls import names_of

CHUNK_BYTES: Final = 64 << 10
"""Default bound on bytes read in one call of `Stream.receive`."""
MAX_OUTBOUND_BYTES: Final = 16 << 20
"""Default bound on bytes waiting to be sent."""


class Stream:
    """One connection.

    Call `receive` when the socket is readable and `flush` when it is writable and
    `wants_write` says so. After any exception the connection is of no use: close it.

    Args:
        connection: connected, or connecting, stream socket; this object closes it.
        context: for TLS; None for none.
        is_server: whether this end accepted the connection.
        expected_name: name the certificate of the other end must carry (who dials).
        max_frame_bytes: longest payload accepted.
        max_outbound_bytes: bytes that may wait to be sent.
        chunk_bytes: most bytes read at once; fewer for whom others wait, because cutting many
            into small frames takes time (64 KiB: 4 ms).

    Attributes:
        sent_bytes, received_bytes: payload and overhead that passed, without that of TLS.
    """

    __slots__ = (
        "_chunk_bytes",
        "_deframer",
        "_handshake_done",
        "_incoming",
        "_outbound",
        "_outgoing",
        "_socket",
        "_tls",
        "max_outbound_bytes",
        "received_bytes",
        "sent_bytes",
    )

    def __init__(
        self,
        connection: socket.socket,
        *,
        context: ssl.SSLContext | None = None,
        is_server: bool = False,
        expected_name: str | None = None,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        max_outbound_bytes: int = MAX_OUTBOUND_BYTES,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._deframer = Deframer(max_frame_bytes)
        self._outbound = bytearray()
        self._chunk_bytes = chunk_bytes
        self.max_outbound_bytes = max_outbound_bytes
        self.sent_bytes = 0
        self.received_bytes = 0
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            self._tls = context.wrap_bio(
                self._incoming,
                self._outgoing,
                server_side=is_server,
                server_hostname=None if is_server else expected_name,
            )
        self._handshake_done = self._tls is None
        if not is_server and self._tls is not None:
            self._shake_hands()

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    @property
    def is_established(self) -> bool:
        """Whether the TLS handshake, if any, is over."""
        return self._handshake_done

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait until the socket takes them."""
        return bool(self._outbound)

    @property
    def outbound_bytes(self) -> int:
        """Bytes that wait."""
        return len(self._outbound)

    @property
    def peer_names(self) -> tuple[str, ...]:
        """Names in the certificate of the other end; none without TLS."""
        return () if self._tls is None else names_of(self._tls)

    def receive(self) -> list[bytes]:
        """Read what is there, at most a chunk; the payloads that are complete now.

        Raises:
            ConnectionLostError: the other end has closed, or the connection broke.
            MalformedMessageError: what came is no frame, or too long a one.
            UntrustedPeerError: the TLS handshake failed.
        """
        data = self._read(self._chunk_bytes)
        if not data:
            return []
        if self._tls is None:
            return self._deframer.feed(data)
        self._incoming.write(data)
        if not self._handshake_done:
            self._shake_hands()
            if not self._handshake_done:
                return []
        payloads: list[bytes] = []
        try:
            while plain := self._tls.read(CHUNK_BYTES):
                payloads += self._deframer.feed(plain)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError) as error:
            raise ConnectionLostError("the other end closed the connection") from error
        except ssl.SSLError as error:
            # With TLS 1.3 a client learns only now that its certificate was refused.
            raise UntrustedPeerError(f"TLS failed: {error}") from error
        self._pass_on()
        return payloads

    def discard(self) -> None:
        """Read what is there and forget it; the stream can be used for nothing else then.

        Raises:
            ConnectionLostError: the other end has closed, or the connection broke.
        """
        self._read(CHUNK_BYTES)

    def _read(self, most: int) -> bytes:
        """Bytes of the socket, none if there are none yet.

        Raises:
            ConnectionLostError: the other end has closed, or the connection broke.
        """
        try:
            data = self._socket.recv(most)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise ConnectionLostError(f"the connection broke: {error}") from error
        if not data:
            raise ConnectionLostError("the other end closed the connection")
        self.received_bytes += len(data)
        return data

    def send(self, payload: bytes) -> None:
        """Send a payload, now as far as the socket takes it.

        Raises:
            SlowReaderError: more would wait than may.
            ConnectionLostError: the connection broke.
        """
        data = frame(payload)
        if len(self._outbound) + len(data) > self.max_outbound_bytes:
            raise SlowReaderError(
                f"{len(self._outbound)} bytes wait for the other end to read, and "
                f"{len(data)} more would exceed {self.max_outbound_bytes}"
            )
        if self._tls is None:
            self._queue(data)
        elif self._handshake_done:
            self._tls.write(data)
            self._pass_on()
        else:
            raise ConnectionLostError("nothing can be sent before the TLS handshake is over")

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it.

        Raises:
            ConnectionLostError: the connection broke.
        """
        while self._outbound:
            try:
                sent = self._socket.send(self._outbound)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise ConnectionLostError(f"the connection broke: {error}") from error
            self.sent_bytes += sent
            del self._outbound[:sent]

    def close(self) -> None:
        """Close at once; what waits is lost."""
        self._socket.close()

    def _queue(self, data: bytes) -> None:
        if not self._outbound:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                raise ConnectionLostError(f"the connection broke: {error}") from error
            self.sent_bytes += sent
            if sent == len(data):
                return
            data = data[sent:]
        self._outbound += data

    def _pass_on(self) -> None:
        """Send what TLS wants to have sent."""
        if self._outgoing.pending:
            self._queue(self._outgoing.read())

    def _shake_hands(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._pass_on()  # the alert that tells the other end why
            raise UntrustedPeerError(f"the TLS handshake failed: {error}") from error
        else:
            self._handshake_done = True
        self._pass_on()
