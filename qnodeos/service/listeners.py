"""The sockets on which programs connect, and the descriptors that their connections take."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
from collections.abc import Iterable
from typing import Final, NamedTuple

from qnodeos.errors import ConfigurationError
from qnodeos.service.limits_config import LimitsConfig
from qnodeos.service.node_file import NodeFile
from qnodeos.service.notify import ActivatedSocket
from qnodeos.transport import listen
from qnodeos.transport.listening import address_of, check_address

_OTHER_DESCRIPTORS: Final = 128
"""For everything but connections of programs: peers, engine, files."""


class Listener(NamedTuple):
    """A listening, non-blocking socket.

    Attributes:
        socket: the socket.
        context: the TLS it asks for; None for none.
        path: of a Unix socket that is ours to remove at the end; empty otherwise.
    """

    socket: socket.socket
    context: ssl.SSLContext | None = None
    path: str = ""

    def close(self) -> None:
        """Close it, and remove what it has left in the file system."""
        self.socket.close()
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def open_listeners(node: NodeFile, activated: Iterable[ActivatedSocket] = ()) -> list[Listener]:
    """The sockets of the API: those that systemd opened, and the others of the node file.

    Args:
        node: the node.
        activated: sockets passed to this process; owned by the result, or closed.

    Raises:
        ConfigurationError: an address cannot be listened on, or leaves the machine and there
            is no TLS.
    """
    listeners: list[Listener] = []
    waiting = list(activated)
    passed = set()
    try:
        while waiting:
            address = address_of(waiting[-1].socket)
            check_address(address, node.tls)
            context = None if address.is_local or node.tls is None else node.tls.server_context()
            listeners.append(Listener(waiting.pop().socket, context))
            # Numbers: the node file may say localhost.
            passed.add(address.resolve())
        for address in node.api.listen:
            if address.resolve() in passed:
                continue
            context = None if address.is_local or node.tls is None else node.tls.server_context()
            listeners.append(Listener(listen(address, node.tls), context, address.path))
    except BaseException:
        close_all(listeners)
        for each in waiting:
            each.socket.close()
        raise
    return listeners


def close_all(listeners: Iterable[Listener]) -> None:
    """Close listeners that no server owns yet."""
    for listener in listeners:
        listener.close()


def reserve_descriptors(limits: LimitsConfig) -> None:
    """Let this process open as many descriptors as its connections may need.

    Raises:
        ConfigurationError: the system does not allow so many.
    """
    connections = limits.connections + limits.reserved_connections
    needed = connections + limits.handshakes + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigurationError(
            f"limits.connections={limits.connections}, limits.reserved_connections="
            f"{limits.reserved_connections} and limits.handshakes={limits.handshakes} need "
            f"{needed} descriptors, and the system allows {hard}; lower them, or raise "
            "LimitNOFILE= of the unit (ulimit -Hn)"
        )
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
