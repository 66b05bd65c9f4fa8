"""A framed connection for a thread, which waits in it."""

from __future__ import annotations

import select
import socket
import ssl
from collections import deque
from math import ceil
from time import monotonic
from typing import Final

from qnodeos.api.framing import MAX_FRAME_BYTES, Deframer, frame
from qnodeos.errors import ConnectionLostError, UntrustedPeerError
from qnodeos.transport.address import Address
from qnodeos.transport.listening import check_address
from qnodeos.transport.tls import TlsFiles, names_of

_CHUNK_BYTES: Final = 64 << 10


class BlockingStream:
    """One connection, used by one thread at a time.

    Without TLS, one thread may send while another receives.

    Args:
        connection: connected, after the TLS handshake if there is one; this object closes it.
        max_frame_bytes: longest payload accepted.
    """

    __slots__ = ("_complete", "_deframer", "_poll", "_socket")

    def __init__(
        self, connection: socket.socket, *, max_frame_bytes: int = MAX_FRAME_BYTES
    ) -> None:
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._socket = connection
        self._deframer = Deframer(max_frame_bytes)
        self._complete: deque[bytes] = deque()

    @classmethod
    def connect(
        cls,
        address: Address,
        tls: TlsFiles | None,
        *,
        timeout_s: float,
        expected_name: str | None = None,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> BlockingStream:
        """Connect, and shake hands if the address leaves the machine.

        Args:
            address: where to.
            tls: used for addresses that are not local; None if there are none.
            timeout_s: for connecting and the handshake together.
            expected_name: name in the other end's certificate; the host if not given.
            max_frame_bytes: longest payload accepted.

        Raises:
            ConfigurationError: the host is unknown, or TLS is needed and not configured.
            ConnectionLostError: nobody answers there.
            UntrustedPeerError: the other end is not who it should be.
        """
        family, place = address.resolve()
        context = None
        if not address.is_local:
            check_address(address, tls)
            assert tls is not None
            context = tls.client_context()
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_s)
            connection.connect(place)
            if context is not None:
                connection = context.wrap_socket(
                    connection, server_hostname=expected_name or address.host
                )
            return cls(connection, max_frame_bytes=max_frame_bytes)
        except ssl.SSLError as error:
            connection.close()
            raise UntrustedPeerError(f"{address}: the TLS handshake failed: {error}") from error
        except OSError as error:
            connection.close()
            raise ConnectionLostError(
                f"cannot connect to {address}: {error}; does it run?"
            ) from error
        except BaseException:
            connection.close()
            raise

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    @property
    def peer_names(self) -> tuple[str, ...]:
        """Names in the certificate of the other end; none without TLS."""
        return names_of(self._socket) if isinstance(self._socket, ssl.SSLSocket) else ()

    def send(self, payload: bytes) -> None:
        """Send a payload; waits while the other end does not read.

        Raises:
            ConnectionLostError: the connection broke.
        """
        try:
            self._socket.sendall(frame(payload))
        except OSError as error:
            raise ConnectionLostError(f"the connection broke: {error}") from error

    def receive(self, timeout_s: float | None = None) -> bytes:
        """The next payload.

        Args:
            timeout_s: how long to wait; None for as long as it takes, 0 for not at all.

        Raises:
            TimeoutError: it did not come in time; what came of it is kept.
            ConnectionLostError: the other end closed, or the connection broke.
            MalformedMessageError: what came is no frame, or too long a one.
        """
        complete = self._complete
        deadline_s = None if timeout_s is None else monotonic() + timeout_s
        while not complete:
            if deadline_s is not None and not self._is_readable(deadline_s):
                raise TimeoutError(f"nothing came within {timeout_s} s")
            try:
                data = self._socket.recv(_CHUNK_BYTES)
            except OSError as error:
                raise ConnectionLostError(f"the connection broke: {error}") from error
            if not data:
                raise ConnectionLostError("the other end closed the connection")
            complete.extend(self._deframer.feed(data))
        return complete.popleft()

    def wait(self, timeout_ms: int | None) -> bool:
        """Wait until `receive` has something to work on; it may want more still.

        Args:
            timeout_ms: how long to wait; None for as long as it takes.

        Returns:
            Whether something came, or the connection ended.
        """
        return bool(self._complete) or self._has_pending() or bool(self._poll.poll(timeout_ms))

    def shut_down(self) -> None:
        """Make a thread that waits in `receive` return, with ConnectionLostError."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _is_readable(self, deadline_s: float) -> bool:
        # Not by the socket's own timeout: another thread may be sending.
        if self._has_pending():
            return True
        return bool(self._poll.poll(max(0, ceil((deadline_s - monotonic()) * 1_000))))

    def _has_pending(self) -> bool:
        """Whether TLS has read what it has not given out."""
        return isinstance(self._socket, ssl.SSLSocket) and bool(self._socket.pending())
