"""Machines that vanish without a word."""

from __future__ import annotations

import socket
from typing import Final

_OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
)
"""Notice within 20 s (assumed) that the machine at the other end is gone."""


def keep_alive(connection: socket.socket) -> None:
    """Let the system find out when the other end of a TCP connection is gone."""
    if connection.family != socket.AF_UNIX:
        for level, option, value in _OPTIONS:
            connection.setsockopt(level, option, value)
