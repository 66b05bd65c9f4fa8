"""Classical sockets between two processes, for programs that make them themselves.

The names are those that `netqasm.sdk.external` imports when NetQASM is set to use hardware:
one process listens with a `ServerAppSocket`, the other connects with a `ClientAppSocket`, in
any order. Programs that `qnodeos run` starts need neither: they use `Socket`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from types import TracebackType
from typing import Any, Self

from qnodeos.cnpu.app_network import AppNetwork
from qnodeos.cnpu.app_session import START_TIMEOUT_S, Session
from qnodeos.cnpu.sockets import AppSocket
from qnodeos.transport import Address, TlsFiles

__all__ = [
    "ABCAppSocket",
    "AppSocket",
    "AppSocketRole",
    "ClientAppSocket",
    "ServerAppSocket",
]


class AppSocketRole(Enum):
    """Which end of a connection a socket is."""

    CLIENT = "client"
    SERVER = "server"


class _Peer:
    """The other process, in place of the CNPU that a socket usually asks."""

    def __init__(self, network: AppNetwork, remote_app_name: str) -> None:
        self._network = network
        self._remote_app_name = remote_app_name
        self._session: Session | None = None

    def open_socket(self, source: str, destination: str, socket_id: int) -> None:
        self._session = self._network.session_with(self._remote_app_name)

    def send(self, source: str, destination: str, socket_id: int, message: Any) -> None:
        assert self._session is not None
        self._session.send((source, destination, socket_id), message)

    def receive(
        self,
        source: str,
        destination: str,
        socket_id: int,
        *,
        block: bool = True,
        timeout_s: float | None = None,
    ) -> Any:
        assert self._session is not None
        return self._session.receive(
            (source, destination, socket_id), block=block, timeout_s=timeout_s
        )


class ABCAppSocket(AppSocket, ABC):
    """One end of a connection of its own between two applications; close it.

    Args:
        app_name: this application.
        remote_app_name: the other.
        host, port: where the server listens.
        socket_id: must be the same at both ends.
        timeout: seconds a `recv` waits at most; None for ever.
        connect_timeout: seconds to wait for the other end to be there.
        tls: certificates, which carry the names of the applications; needed unless the address
            is of this machine.
    """

    def __init__(
        self,
        app_name: str,
        remote_app_name: str,
        host: str,
        port: int,
        *,
        socket_id: int = 0,
        timeout: float | None = None,
        connect_timeout: float = START_TIMEOUT_S,
        tls: TlsFiles | None = None,
    ) -> None:
        address = Address(host=host, port=port)
        is_server = self.role is AppSocketRole.SERVER
        self._network = AppNetwork(
            node_name=app_name,
            # The one with the smaller number connects to the other.
            node_ids={app_name: int(is_server), remote_app_name: int(not is_server)},
            applications={app_name: app_name, remote_app_name: remote_app_name},
            listen_on=address if is_server else None,
            peers={} if is_server else {remote_app_name: address},
            tls=tls,
            start_timeout_s=connect_timeout,
        )
        try:
            super().__init__(
                app_name,
                remote_app_name,
                socket_id,
                timeout,
                host=_Peer(self._network, remote_app_name),
            )
        except BaseException:
            self._network.close()
            raise

    @property
    @abstractmethod
    def role(self) -> AppSocketRole:
        """Which end this is."""

    @property
    def address(self) -> Address | None:
        """Where a server listens, with the port the system chose for port 0; None for a client."""
        return self._network.address

    def close(self) -> None:
        """Tell the other end that nothing more will come, and close."""
        self._network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class ClientAppSocket(ABCAppSocket):
    """The end that connects."""

    @property
    def role(self) -> AppSocketRole:
        """See `ABCAppSocket`."""
        return AppSocketRole.CLIENT


class ServerAppSocket(ABCAppSocket):
    """The end that listens."""

    @property
    def role(self) -> AppSocketRole:
        """See `ABCAppSocket`."""
        return AppSocketRole.SERVER
