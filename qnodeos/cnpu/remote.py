"""Programs as threads in real time.

Each NetQASM connection of a program is one connection to the QNPU service of its node, and
the program's own thread reads the replies from it, as it reads classical messages. What
happens is recorded as in virtual time, with the machine's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from threading import Event as Flag
from threading import Lock, Thread
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final

from qnodeos.api.host import HostReply
from qnodeos.api.host_wire import DeviceInfo
from qnodeos.api.netqasm import Flavour
from qnodeos.cnpu.app_network import AppNetwork
from qnodeos.cnpu.app_session import Channel, Session
from qnodeos.cnpu.host import NetworkDirectory
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.errors import (
    ConfigurationError,
    ConnectionLostError,
    ProgramStoppedError,
    UnknownProcessError,
)
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode
from qnodeos.trace.events import Event
from qnodeos.trace.recorder import TraceRecorder

if TYPE_CHECKING:
    from qnodeos.cnpu.rehearsal import Rehearsals

TRACE_UNIT_NS: Final = 1_000
"""Unit of the times of a host trace."""
TRACE_CAPACITY: Final = 1 << 16
"""Events kept per recorder."""

_SUBROUTINE_TYPE: Final = 2

Connect = Callable[[Iterator[int]], QnpuClient]
"""Connects to the QNPU of the node; takes where request numbers come from."""


class RemoteCnpu:
    """What the programs of one process share.

    Args:
        node_name: of the node.
        directory: names and ids of the network.
        connect: connects to the node's QNPU.
        network: the classical sockets.
        rehearsals: what programs that wait for the QNPU do meanwhile; None for nothing. This
            object begins and ends them.
    """

    def __init__(
        self,
        *,
        node_name: str,
        directory: NetworkDirectory,
        connect: Connect,
        network: AppNetwork,
        rehearsals: Rehearsals | None = None,
    ) -> None:
        self.node_name = node_name
        self.directory = directory
        self.network = network
        self._connect = connect
        self._rehearsals = rehearsals
        self._mutex = Lock()
        self._clients: set[QnpuClient] = set()
        self._flavour: Flavour | None = None
        self._capabilities: Capabilities | None = None
        self._limits: Mapping[str, int] = {}
        self._keeper: Thread | None = None
        self._stopped = Flag()

    @property
    def is_stopped(self) -> bool:
        """Whether programs are being stopped."""
        return self._stopped.is_set()

    @property
    def flavour(self) -> Flavour:
        """NetQASM flavour of the node's QNPU.

        Raises:
            ConfigurationError: the QNPU is another node's, or speaks a flavour we do not know.
            QnpuUnavailableError: it does not answer.
        """
        if self._flavour is None:
            self.close_client(self.open_client(count()))
        assert self._flavour is not None
        return self._flavour

    @property
    def capabilities(self) -> Capabilities:
        """What the node's device can do; raises as `flavour` does."""
        if self._capabilities is None:
            self.close_client(self.open_client(count()))
        assert self._capabilities is not None
        return self._capabilities

    @property
    def most_programs(self) -> int | None:
        """Programs of one connection each that the QNPU serves at once; None if it does not say.

        Raises:
            ConfigurationError: the QNPU is another node's, or speaks a flavour we do not know.
            QnpuUnavailableError: it does not answer.
        """
        if self._flavour is None:
            self.close_client(self.open_client(count()))
        limits = self._limits
        if not {"processes", "connections"} <= limits.keys():
            return None
        connections = limits["connections"] + limits.get("reserved_connections", 0)
        return min(limits["processes"], connections)

    def open_client(self, numbers: Iterator[int]) -> QnpuClient:
        """Connect to the QNPU.

        Args:
            numbers: request numbers.

        Raises:
            ConfigurationError: the QNPU is another node's, or speaks a flavour we do not know.
            QnpuUnavailableError: it does not answer.
            ProgramStoppedError: programs are being stopped.
        """
        client = self._connect(numbers)
        try:
            welcome = client.welcome
            if welcome.node_name != self.node_name:
                raise ConfigurationError(
                    f"the QNPU there is that of node {welcome.node_name}, not {self.node_name}; "
                    "mend api.listen in the node file"
                )
            try:
                flavour = Flavour(welcome.flavour)
                self._capabilities = _capabilities(welcome.device)
                self._flavour = flavour
            except ValueError:
                raise ConfigurationError(
                    f"the QNPU speaks the NetQASM flavour {welcome.flavour!r}, which this version "
                    "does not know"
                ) from None
            self._limits = welcome.limits
            if self._rehearsals is not None:
                self._rehearsals.begin(self._flavour)
                client.rehearsals = self._rehearsals
            with self._mutex:
                self._check_running()
                self._clients.add(client)
                if self._keeper is None:
                    self._keeper = Thread(
                        target=self._keep_alive,
                        args=[client.heartbeat_s],
                        name="qnodeos keep alive",
                        daemon=True,
                    )
                    self._keeper.start()
        except BaseException:
            client.close()
            raise
        return client

    def close_client(self, client: QnpuClient) -> None:
        """Disconnect from the QNPU."""
        with self._mutex:
            self._clients.discard(client)
        client.close()

    def stop(self) -> None:
        """Make every program that waits, now or later, fail with ProgramStoppedError."""
        self._stopped.set()
        with self._mutex:
            for client in self._clients:
                client.shut_down()
        self.network.stop()

    def close(self) -> None:
        """Disconnect from everything; programs must have ended, or be stopped."""
        self._stopped.set()
        with self._mutex:
            clients, self._clients = self._clients, set()
        for client in clients:
            client.close()
        if self._keeper is not None:
            self._keeper.join()
        self.network.close()
        if self._rehearsals is not None:
            self._rehearsals.close()

    def _check_running(self) -> None:
        if self._stopped.is_set():
            raise ProgramStoppedError("the program was stopped")

    def _keep_alive(self, period_s: float) -> None:
        while not self._stopped.wait(period_s / 2):
            with self._mutex:
                clients = list(self._clients)
            for client in clients:
                client.keep_alive()


class RemoteHost:
    """The `ProgramHost` of one program; used by its thread only.

    Args:
        cnpu: what it shares with others.
        number: of the program, for the trace.
        trace: takes its events.
    """

    def __init__(self, cnpu: RemoteCnpu, number: int, trace: TraceRecorder) -> None:
        self._cnpu = cnpu
        self._number = number
        self._record = trace.record
        self._numbers = count()
        self._clients: list[QnpuClient | None] = []
        self._serials: list[int] = []
        self._open: dict[int, tuple[QnpuClient, int | None]] = {}
        self._sessions: dict[str, Session] = {}
        self._channels: set[Channel] = set()

    @property
    def node_name(self) -> str:
        """See `ProgramHost`."""
        return self._cnpu.node_name

    @property
    def directory(self) -> NetworkDirectory:
        """See `ProgramHost`."""
        return self._cnpu.directory

    @property
    def flavour(self) -> Flavour:
        """See `ProgramHost`."""
        return self._cnpu.flavour

    @property
    def capabilities(self) -> Capabilities:
        """See `ProgramHost`."""
        return self._cnpu.capabilities

    def close(self) -> None:
        """The program has ended: close what it left open."""
        for client in range(len(self._clients)):
            self.close_client(client)
        for channel in self._channels:
            self._sessions[channel[1]].release(channel)

    # --- the QNPU ---------------------------------------------------------------------

    def open_client(self) -> int:
        """See `ProgramHost`."""
        self._clients.append(self._cnpu.open_client(self._numbers))
        self._serials.append(0)
        return len(self._clients) - 1

    def close_client(self, client: int) -> None:
        """See `ProgramHost`."""
        connection, self._clients[client] = self._clients[client], None
        if connection is not None:
            self._cnpu.close_client(connection)

    def register(self, client: int, app_id: int, max_qubits: int, priority: int) -> int:
        """See `ProgramHost`."""
        connection = self._client(client)
        try:
            request = connection.register(app_id, max_qubits, priority)
        except ConnectionLostError as error:
            raise self._explained(error) from error
        self._open[request] = connection, None
        return request

    def submit(self, client: int, raw: bytes) -> int:
        """See `ProgramHost`."""
        is_subroutine = raw[0] == _SUBROUTINE_TYPE
        attempt_ns = monotonic_ns()
        connection = self._client(client)
        try:
            request = connection.submit(raw)
        except ConnectionLostError as error:
            raise self._explained(error) from error
        serial = None
        if is_subroutine:
            sent_ns = monotonic_ns()
            serial = self._serials[client]
            self._serials[client] = serial + 1
            number = self._number
            self._record(attempt_ns // TRACE_UNIT_NS, Event.SUBROUTINE_SEND_ATTEMPT, number, serial)
            self._record(sent_ns // TRACE_UNIT_NS, Event.SUBROUTINE_SENT, number, serial)
        self._open[request] = connection, serial
        return request

    def await_reply(self, request: int) -> HostReply:
        """See `ProgramHost`."""
        try:
            connection, serial = self._open.pop(request)
        except KeyError:
            raise UnknownProcessError(f"request {request} was never sent, or awaited") from None
        try:
            reply = connection.await_reply(request)
        except ConnectionLostError as error:
            raise self._explained(error) from error
        if serial is not None:
            self._now(Event.RESULT_RCVD, serial)
        return reply

    # --- classical messages -----------------------------------------------------------

    def open_socket(self, source: str, destination: str, socket_id: int) -> None:
        """See `ProgramHost`."""
        self._session(destination)
        self._channels.add((source, destination, socket_id))

    def send(self, source: str, destination: str, socket_id: int, message: Any) -> None:
        """See `ProgramHost`."""
        session = self._session(destination)
        start_ns = monotonic_ns()  # never after the receiver has it
        session.send((source, destination, socket_id), message)
        self._record(start_ns // TRACE_UNIT_NS, Event.CLAS_MSG_SENT, self._number, socket_id)

    def receive(
        self,
        source: str,
        destination: str,
        socket_id: int,
        *,
        block: bool = True,
        timeout_s: float | None = None,
    ) -> Any:
        """See `ProgramHost`."""
        session = self._session(source)
        message = session.receive(
            (source, destination, socket_id), block=block, timeout_s=timeout_s
        )
        self._now(Event.CLAS_MSG_RCVD, socket_id)
        return message

    # --- inside -----------------------------------------------------------------------

    def _client(self, client: int) -> QnpuClient:
        connection = self._clients[client]
        if connection is None:
            raise UnknownProcessError("this connection to the QNPU has been closed")
        return connection

    def _session(self, application: str) -> Session:
        """The messages exchanged with the node of an application.

        A program stays with the process it has found there: when that is gone, messages of
        another that was started later are for programs started later.
        """
        session = self._sessions.get(application)
        if session is None:
            node = self.directory.get_node_name_for_app(application)
            session = self._sessions[application] = self._cnpu.network.session_with(node)
        return session

    def _now(self, event: Event, serial_or_socket: int) -> None:
        self._record(monotonic_ns() // TRACE_UNIT_NS, event, self._number, serial_or_socket)

    def _explained(self, error: ConnectionLostError) -> Exception:
        return ProgramStoppedError("the program was stopped") if self._cnpu.is_stopped else error


def _capabilities(device: DeviceInfo) -> Capabilities:
    return Capabilities(
        name=device.name,
        communication_qubits=device.communication_qubits,
        memory_qubits=device.memory_qubits,
        instructions=frozenset(Opcode(code) for code in device.instructions),
        tick_ns=device.tick_ns,
        links=device.links,
        angle_halvings=device.angle_halvings,
    )
