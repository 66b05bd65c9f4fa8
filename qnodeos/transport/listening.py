"""Sockets to accept connections from."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import Final

from qnodeos.errors import ConfigurationError
from qnodeos.transport.address import Address
from qnodeos.transport.tls import TlsFiles

BACKLOG: Final = 128
"""Connections the system holds until they are accepted."""
SOCKET_MODE: Final = 0o660
"""Who may connect to a Unix socket: its owner and its group."""


def check_address(address: Address, tls: TlsFiles | None) -> None:
    """Refuse an address that can be reached from elsewhere, unless TLS guards it.

    Raises:
        ConfigurationError: it can, and there is no TLS.
    """
    if tls is None and not address.is_local:
        raise ConfigurationError(
            f"{address} can be reached from other machines, and no TLS is configured; give "
            "certificates (tls: in the file), or a loopback address or Unix socket"
        )


def listen(address: Address, tls: TlsFiles | None) -> socket.socket:
    """A listening, non-blocking socket.

    A Unix socket that a process left behind is replaced; one that answers is not.

    Raises:
        ConfigurationError: TLS is needed and missing, or the address is in use or not ours.
    """
    check_address(address, tls)
    family, place = address.resolve()
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_UNIX:
            _remove_stale(address)
            previous = os.umask(0o777 & ~SOCKET_MODE)
            try:
                listener.bind(place)
            finally:
                os.umask(previous)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {address}: {error.strerror or error}; does another process of "
            "this node run, or is the address not of this machine?"
        ) from error
    except BaseException:
        listener.close()
        raise
    return listener


def address_of(listener: socket.socket) -> Address:
    """The address a socket listens on, with the port the system chose."""
    place = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return Address(path=place)
    return Address(host=place[0], port=place[1])


def _remove_stale(address: Address) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.stat(address.path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise ConfigurationError(
            f"{address.path} exists and is no socket; remove it, or choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address.path)
            return
        except OSError:
            pass
    raise ConfigurationError(f"{address} is in use: another process listens there")
