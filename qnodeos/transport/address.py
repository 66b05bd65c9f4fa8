"""Where to connect or listen: "unix:/run/qnodeos/client.sock" or "tcp:127.0.0.1:7001"."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from qnodeos.errors import ConfigurationError

UNIX_PATH_MAX: Final = 107
"""Longest path of a Unix socket in bytes (Linux, unix(7), sun_path less its zero)."""
PORT_MAX: Final = 65_535


@dataclass(frozen=True)
class Address:
    """A Unix socket (``path``) or a TCP port (``host``, ``port``).

    Attributes:
        path: of the socket; empty for TCP.
        host: name or number of the machine; empty for a Unix socket.
        port: TCP port, 0 lets the system choose when listening.
    """

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            ConfigurationError: it is none.
        """
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest:
            return cls(path=rest)
        if kind == "tcp":
            host, _, port = rest.rpartition(":")
            if host.startswith("[") and host.endswith("]"):
                host = host[1:-1]
            if host and port.isascii() and port.isdigit() and int(port) <= PORT_MAX:
                return cls(host=host, port=int(port))
        raise ConfigurationError(
            f"{text!r} is no address; write unix:/path/of/a.sock or tcp:host:port, with the "
            "host of IPv6 in brackets: tcp:[::1]:7001"
        )

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"

    def relative_to(self, folder: Path) -> Address:
        """The address with the path of a Unix socket taken from a folder."""
        return replace(self, path=str(folder / self.path)) if self.path else self

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return bool(self.path)

    @property
    def is_local(self) -> bool:
        """Whether it cannot be reached from another machine."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def resolve(self) -> tuple[int, Any]:
        """Address family and the address in the form of the socket module.

        Raises:
            ConfigurationError: the path is too long, or the host is not known.
        """
        if self.path:
            if len(self.path.encode()) > UNIX_PATH_MAX:
                raise ConfigurationError(
                    f"the path of a Unix socket has at most {UNIX_PATH_MAX} bytes: {self.path}"
                )
            return socket.AF_UNIX, self.path
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(f"{self}: the host is not known: {error}") from error
        family, _, _, _, place = found[0]
        return family, place
