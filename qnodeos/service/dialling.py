"""Beginning a connection to another process of the network."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import Any, Final

from qnodeos.service.peer_session import MAX_FRAME_BYTES
from qnodeos.transport import Address, Stream, TlsFiles
from qnodeos.transport.listening import check_address

CHUNK_BYTES: Final = 4 << 10
"""Read of a connection at once."""
MAX_OUTBOUND_BYTES: Final = 1 << 20
"""What may wait until the other end takes it."""


@dataclass(frozen=True)
class Endpoint:
    """Where to dial, and who should answer.

    Attributes:
        family, place: as the socket module takes them.
        address: as it was written.
        name: in the certificate of who answers.
    """

    family: int
    place: Any
    address: Address
    name: str

    @classmethod
    def of(cls, address: Address, name: str, tls: TlsFiles | None) -> Endpoint:
        """Look an address up; done once, because it may take long.

        Raises:
            ConfigurationError: the host is unknown, or TLS is needed and not configured.
        """
        check_address(address, tls)
        family, place = address.resolve()
        return cls(family, place, address, name)


def dial(endpoint: Endpoint, tls: TlsFiles | None) -> Stream:
    """Begin to connect; the stream is writable when that is over.

    Raises:
        OSError: it has failed already.
        PeerError: the same, seen by TLS.
    """
    connection = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        code = connection.connect_ex(endpoint.place)
        # A Unix socket whose backlog is full says EAGAIN and will not connect by itself.
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        context = None
        if tls is not None and not endpoint.address.is_local:
            context = tls.client_context()
        return Stream(
            connection,
            context=context,
            expected_name=endpoint.name,
            max_frame_bytes=MAX_FRAME_BYTES,
            max_outbound_bytes=MAX_OUTBOUND_BYTES,
            chunk_bytes=CHUNK_BYTES,
        )
    except BaseException:
        connection.close()
        raise


def connect_error(fd: int) -> str | None:
    """Why a connection that was begun has failed, None if it stands."""
    with socket.socket(fileno=os.dup(fd)) as probe:
        code = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return os.strerror(code) if code else None
