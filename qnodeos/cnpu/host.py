"""What a program needs from the CNPU it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from qnodeos.api.host import HostReply
from qnodeos.api.netqasm import Flavour
from qnodeos.errors import ConfigurationError, ProgramError
from qnodeos.qdevice.capabilities import Capabilities

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True)
class NetworkDirectory:
    """Who is who: node ids by name, and the node each application (role) runs on.

    Has the methods the SDK expects of its `NetworkInfo`, keyword names included.
    """

    nodes: Mapping[str, int]
    applications: Mapping[str, str]

    def get_node_id_for_app(self, app_name: str) -> int:
        """Id of the node an application runs on."""
        return self._get_node_id(self.get_node_name_for_app(app_name))

    def get_node_name_for_app(self, app_name: str) -> str:
        """Name of the node an application runs on.

        Raises:
            ConfigurationError: no such application.
        """
        return _find(self.applications, app_name, "application")

    def _get_node_id(self, node_name: str) -> int:
        return _find(self.nodes, node_name, "node")

    def _get_node_name(self, node_id: int) -> str:
        names = {number: name for name, number in self.nodes.items()}
        return _find(names, node_id, "node id")


def _find(table: Mapping[_K, _V], key: _K, what: str) -> _V:
    try:
        return table[key]
    except KeyError:
        known = ", ".join(str(name) for name in table)
        raise ConfigurationError(f"unknown {what} {key!r}; known are: {known}") from None


class ProgramHost(Protocol):
    """The machine a program runs on, seen from inside the program.

    All methods are called from the program's own thread or greenlet; those that wait
    suspend only that.
    """

    @property
    def node_name(self) -> str:
        """Name of the node."""
        ...

    @property
    def directory(self) -> NetworkDirectory:
        """Names and ids of the network."""
        ...

    @property
    def flavour(self) -> Flavour:
        """NetQASM flavour of the node's QNPU."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the node's device can do."""
        ...

    def open_client(self) -> int:
        """Connect to the QNPU; returns the connection's number."""
        ...

    def close_client(self, client: int) -> None:
        """Disconnect; programs of this connection end."""
        ...

    def register(self, client: int, app_id: int, max_qubits: int, priority: int) -> int:
        """Register a program with a priority; returns the request's number.

        Raises:
            ProgramError: there are no priorities here.
        """
        ...

    def submit(self, client: int, raw: bytes) -> int:
        """Send a message to the QNPU; returns the request's number."""
        ...

    def await_reply(self, request: int) -> HostReply:
        """Wait for the reply to a request."""
        ...

    def open_socket(self, source: str, destination: str, socket_id: int) -> None:
        """An application will exchange messages with another.

        Raises:
            ConfigurationError: the other application is not known, or not where it runs.
        """
        ...

    def send(self, source: str, destination: str, socket_id: int, message: Any) -> None:
        """Send a classical message to an application, from another."""
        ...

    def receive(
        self,
        source: str,
        destination: str,
        socket_id: int,
        *,
        block: bool = True,
        timeout_s: float | None = None,
    ) -> Any:
        """Take the next classical message.

        Raises:
            RuntimeError: none has come (``block`` False), or not in time. The type is what
                the SDK relies on.
        """
        ...


current_host: ContextVar[ProgramHost] = ContextVar("current_host")
"""The host of the running program; set by whoever starts it."""


def find_host() -> ProgramHost:
    """The host of the running program.

    Raises:
        ProgramError: called outside a program.
    """
    try:
        return current_host.get()
    except LookupError:
        raise ProgramError(
            "no CNPU here: connections and sockets can only be made inside a program that "
            "the CNPU runs (`qnodeos run`, or see `qnodeos.assembly`)"
        ) from None
