"""A process that echoes: `python -m benchmarks.echo PATH`, the reference of `service`.

It waits in the system for bytes and sends them back, one connection after the other, over TCP
and, at PATH, a Unix socket; it prints the number of the TCP port.
"""

from __future__ import annotations

import socket
import sys
from threading import Thread
from typing import Final

_CHUNK_BYTES: Final = 64 << 10


def serve(listener: socket.socket) -> None:
    """Echo until the process is ended."""
    while True:
        connection, _ = listener.accept()
        with connection:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(_CHUNK_BYTES):
                connection.sendall(data)


def main() -> None:
    """Listen on both."""
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(sys.argv[1])
    unix.listen()
    print(tcp.getsockname()[1], flush=True)
    Thread(target=serve, args=(unix,), daemon=True).start()
    serve(tcp)


if __name__ == "__main__":
    main()
