"""Connections between the processes of a network: addresses, TLS, framed streams.

    address     "unix:/path" and "tcp:host:port", and which of them leave the machine
    tls         mutual TLS from three files
    listening   sockets to accept from; refuses to leave the machine without TLS
    keepalive   noticing machines that vanish
    stream      a framed connection for an event loop: never blocks, bounded
    blocking    a framed connection for a thread

What travels in the frames is the business of `qnodeos.api`.
"""

from __future__ import annotations

from qnodeos.transport.address import Address
from qnodeos.transport.blocking import BlockingStream
from qnodeos.transport.listening import listen
from qnodeos.transport.stream import Stream
from qnodeos.transport.tls import TlsFiles

__all__ = ["Address", "BlockingStream", "Stream", "TlsFiles", "listen"]
