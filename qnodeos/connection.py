"""Connections to a QNPU, for programs that make them themselves.

The names are those that `netqasm.sdk.external` imports when NetQASM is set to use hardware.
Programs that `qnodeos run` starts need none of it: they use `NetQASMConnection`.

    spec = TcpIPConnectionSpecification("127.0.0.1", 7001)
    factory = QNodeOSConnectionFactory(spec, "client", nodes={"client": 0, "server": 1})
    with factory.create("client", epr_sockets=[EPRSocket("server")]) as connection:
        ...
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

from netqasm.sdk.connection import BaseNetQASMConnection

from qnodeos.cnpu.app_network import AppNetwork
from qnodeos.cnpu.backend import QNodeOSConnection
from qnodeos.cnpu.host import NetworkDirectory
from qnodeos.cnpu.qnpu_client import CONNECT_TIMEOUT_S, QnpuClient
from qnodeos.cnpu.remote import TRACE_CAPACITY, TRACE_UNIT_NS, RemoteCnpu, RemoteHost
from qnodeos.trace.recorder import TraceRecorder
from qnodeos.transport import Address, TlsFiles

__all__ = [
    "ABCQNodeOSConnection",
    "ApplicationRole",
    "ConnectionSpecification",
    "QNodeOSConnection",
    "QNodeOSConnectionFactory",
    "TcpIPConnectionSpecification",
    "UnixConnectionSpecification",
]

_CLIENT_NAME: Final = "qnodeos.connection"


class ApplicationRole(Enum):
    """The two roles of a two-party application; the value is the usual application name."""

    CLIENT = "client"
    SERVER = "server"


class ConnectionSpecification(ABC):
    """How a QNPU is reached."""

    @property
    @abstractmethod
    def address(self) -> Address:
        """Where it listens."""

    @property
    def tls(self) -> TlsFiles | None:
        """Certificates, for addresses that leave the machine."""
        return None


class TcpIPConnectionSpecification(ConnectionSpecification):
    """A QNPU that listens on a TCP port.

    Args:
        host: name or number of its machine.
        port: TCP port.
        tls: certificates; needed unless it is this machine.
    """

    def __init__(self, host: str, port: int, tls: TlsFiles | None = None) -> None:
        self._address = Address(host=host, port=port)
        self._tls = tls

    @property
    def address(self) -> Address:
        """See `ConnectionSpecification`."""
        return self._address

    @property
    def tls(self) -> TlsFiles | None:
        """See `ConnectionSpecification`."""
        return self._tls


class UnixConnectionSpecification(ConnectionSpecification):
    """A QNPU that listens on a Unix socket.

    Args:
        path: of the socket.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._address = Address(path=os.fspath(path))

    @property
    def address(self) -> Address:
        """See `ConnectionSpecification`."""
        return self._address


class ABCQNodeOSConnection(BaseNetQASMConnection):  # type: ignore[misc]
    """What `QNodeOSConnectionFactory` makes: the SDK's connection, to a QNPU service."""

    @property
    @abstractmethod
    def trace(self) -> TraceRecorder:
        """What the host did and when, in microseconds of this machine's monotonic clock."""


class _OwnedConnection(QNodeOSConnection, ABCQNodeOSConnection):
    """A connection that has a CNPU of its own, and ends with it."""

    def __init__(self, cnpu: RemoteCnpu, app_name: str, **options: Any) -> None:
        self._cnpu = cnpu
        self._trace = TraceRecorder(TRACE_UNIT_NS, TRACE_CAPACITY)
        try:
            super().__init__(
                app_name,
                node_name=cnpu.node_name,
                host=RemoteHost(cnpu, 0, self._trace),
                **options,
            )
        except BaseException:
            cnpu.close()
            raise

    @property
    def trace(self) -> TraceRecorder:
        """See `ABCQNodeOSConnection`."""
        return self._trace

    def _disconnect(self) -> None:
        was_open = self._is_open
        super()._disconnect()
        if was_open:
            self._cnpu.close()


class QNodeOSConnectionFactory:
    """Makes connections to the QNPU of one node.

    Args:
        specification: how it is reached.
        end_node: name of the node.
        nodes: numbers of all nodes a program has to do with, by name.
        applications: nodes that run applications whose name is not that of their node.
        timeout_s: for connecting, and then again for being welcomed.
    """

    def __init__(
        self,
        specification: ConnectionSpecification,
        end_node: str,
        *,
        nodes: Mapping[str, int] | None = None,
        applications: Mapping[str, str] | None = None,
        timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._specification = specification
        self._end_node = end_node
        self._nodes = dict(nodes or {})
        self._applications = dict(applications or {})
        self._timeout_s = timeout_s

    @classmethod
    def from_node_file(cls, path: str | os.PathLike[str]) -> QNodeOSConnectionFactory:
        """A factory for the node that a file describes.

        Raises:
            ConfigurationError: the file is wrong.
        """
        from qnodeos.service.node_file import load_node

        node = load_node(path)
        address = node.api.listen[0]
        specification: ConnectionSpecification
        if address.is_unix:
            specification = UnixConnectionSpecification(address.path)
        else:
            specification = TcpIPConnectionSpecification(address.host, address.port, node.tls)
        return cls(specification, node.name, nodes=node.node_ids, applications=node.roles)

    def create(
        self, app_name: str | ApplicationRole, *, priority: int = 0, **options: Any
    ) -> ABCQNodeOSConnection:
        """Connect, and register an application.

        Args:
            app_name: name or role of the application.
            priority: of the program at the QNPU; higher runs first.
            options: of the SDK's connection: max_qubits, epr_sockets, ...

        Raises:
            ConfigurationError: a name is unknown, or the QNPU is another node's.
            QnpuUnavailableError: it does not answer.
        """
        name = app_name.value if isinstance(app_name, ApplicationRole) else app_name
        nodes = self._nodes
        if self._end_node not in nodes:
            nodes = nodes | {self._end_node: self._own_number()}
        applications = {node: node for node in nodes} | self._applications | {name: self._end_node}
        cnpu = RemoteCnpu(
            node_name=self._end_node,
            directory=NetworkDirectory(nodes, applications),
            connect=self._connect,
            network=AppNetwork(
                node_name=self._end_node,
                node_ids=nodes,
                applications=applications,
                listen_on=None,
                peers={},
            ),
        )
        return _OwnedConnection(cnpu, name, priority=priority, **options)

    def _own_number(self) -> int:
        with self._connect(None) as client:
            return client.welcome.node_id

    def _connect(self, numbers: Iterator[int] | None) -> QnpuClient:
        return QnpuClient.connect(
            self._specification.address,
            self._specification.tls,
            name=_CLIENT_NAME,
            timeout_s=self._timeout_s,
            expected_name=self._end_node,
            numbers=numbers,
        )
