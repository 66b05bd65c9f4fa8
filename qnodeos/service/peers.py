"""The other nodes' QNPUs and the controller, as one node sees them: a state machine without I/O.

Of two neighbours the one with the lower node id dials, the other listens, so there is one
connection and no race. Who dials tries again with growing waits for as long as it takes.
A connection that is lost ends what was agreed over it (`Kernel.peer_lost`); a new one has a
new epoch (`qnodeos.service.peer_session`), so nothing sent over an old one can count.

A controller connects to every node, reads its tick and installs the network schedule, and the
routes to nodes that are no neighbours (`qnodeos.service.network_control`).

    opened, received, closed, poll, send     what happens, with the owner's time
    outbox, closing, dials                   what the owner has to carry out, and empties
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from qnodeos.api.peer import Announce, PeerMessage
from qnodeos.api.peer_wire import (
    Install,
    InstallRoutes,
    LinkMessage,
    PeerHello,
    PeerWireMessage,
    ReadTick,
    from_wire,
    to_wire,
)
from qnodeos.errors import (
    ConfigurationError,
    LimitError,
    PeerProtocolError,
    PeerRefusedError,
    QNodeOSError,
)
from qnodeos.service.neighbour import Neighbour, identify
from qnodeos.service.network_control import ControlledKernel, NetworkControl
from qnodeos.service.peer_session import (
    CONTROLLER_ID,
    DEFAULT_TIMING,
    ROLE_CONTROLLER,
    ROLE_QNPU,
    Identity,
    PeerSession,
    PeerTiming,
    SessionState,
)

MAX_GREETING: Final = 16
"""Accepted connections that have not said who they are yet; the oldest makes room."""
MAX_CONTROLLERS: Final = 2
"""Connections of controllers: one, and one that takes over."""
_REFUSALS_SAID_NS: Final = 1_000_000_000
"""At most one refused connection in this time is put into words; all are counted."""


class PeerKernel(ControlledKernel, Protocol):
    """The kernel, as far as peers go."""

    def peer_message(self, peer: int, message: PeerMessage, tick: int) -> None:
        """See `qnodeos.qnpu.kernel.Kernel.peer_message`."""
        ...

    def peer_lost(self, peer: int, tick: int, heard_tick: int | None = None) -> None:
        """See `qnodeos.qnpu.kernel.Kernel.peer_lost`."""
        ...

    def peer_connected(self, peer: int, tick: int) -> None:
        """See `qnodeos.qnpu.kernel.Kernel.peer_connected`."""
        ...


@dataclass
class _Connection:
    """A connection, and whose it is once that is known."""

    session: PeerSession
    names: tuple[str, ...]
    neighbour: Neighbour | None = None
    is_controller: bool = False


class PeerManager:
    """See the module's docstring.

    Args:
        identity: of this node.
        neighbours: name by node id.
        kernel: told of what comes.
        now_ns: of the owner's clock.
        tick: now, for the kernel.
        read_tick: the device's counter at this very moment, for the controller.
        controller: name of the controller that is obeyed.
        timing: times of the protocol.
        say: takes lines about what changes, for people.

    Attributes:
        outbox: (connection, payload) to be sent.
        closing: connections to be closed once what was sent before is written.
        dials: (connection, node id) to be made; answer with `opened` or `closed`.
    """

    def __init__(
        self,
        identity: Identity,
        neighbours: Mapping[int, str],
        kernel: PeerKernel,
        now_ns: int,
        *,
        tick: Callable[[], int],
        read_tick: Callable[[], int],
        controller: str = "controller",
        timing: PeerTiming = DEFAULT_TIMING,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        if identity.node_id in neighbours:
            raise ConfigurationError(
                f"node {identity.node_id} has a neighbour with its own node id; each node needs "
                "another one"
            )
        self.outbox: list[tuple[int, bytes]] = []
        self.closing: list[int] = []
        self.dials: list[tuple[int, int]] = []
        self._identity = identity
        self._kernel = kernel
        self._tick = tick
        self._control = NetworkControl(kernel, read_tick, say)
        self._controller = controller
        self._timing = timing
        self._say = say
        self._connections: dict[int, _Connection] = {}
        self._dialling: dict[int, Neighbour] = {}
        self._next_connection = 0
        self._controllers = 0
        self._refused = 0
        self._malformed = 0
        self._dropped = 0
        self._say_refusal_at_ns = now_ns
        self.neighbours = {
            node_id: Neighbour(
                node_id,
                name,
                is_dialled=identity.node_id < node_id,
                retry_ns=timing.first_retry_ns,
                dial_at_ns=now_ns if identity.node_id < node_id else None,
            )
            for node_id, name in neighbours.items()
        }
        for node_id in self.neighbours:
            kernel.peer_lost(node_id, tick())  # a kernel starts with its links up

    # --- connections ------------------------------------------------------------------

    def new_connection(self) -> int:
        """A number for a connection that was accepted."""
        self._next_connection += 1
        return self._next_connection

    def opened(self, connection: int, now_ns: int, names: Sequence[str] = ()) -> None:
        """A connection can be used; with TLS, after its handshake.

        Args:
            connection: from `dials` or `new_connection`.
            now_ns: of the owner's clock.
            names: in the other end's certificate; none without TLS.
        """
        neighbour = self._dialling.get(connection)
        if neighbour is None:
            self._make_room()
        session = PeerSession(
            self._identity,
            lambda hello: self._admit(connection, hello),
            now_ns,
            dials=neighbour.connections if neighbour is not None else None,
            timing=self._timing,
        )
        self._connections[connection] = _Connection(session, tuple(names), neighbour)
        self._flush(connection)

    def _make_room(self) -> None:
        greeting = [
            number
            for number, connection in self._connections.items()
            if connection.neighbour is None and not connection.is_controller
        ]
        if len(greeting) >= MAX_GREETING:
            self._end(greeting[0], "made room for newer ones before it said who it is")

    def received(self, connection: int, payload: bytes, now_ns: int) -> None:
        """A payload came over a connection."""
        known = self._connections.get(connection)
        if known is None:
            return
        try:
            message = known.session.receive(payload, now_ns)
            if message is not None:
                self._act(known, message, now_ns)
        except QNodeOSError as error:
            self._fail(connection, error, now_ns)
        self._flush(connection)

    def garbled(self, connection: int, error: QNodeOSError, now_ns: int) -> None:
        """What came over a connection cannot be cut into payloads."""
        if connection in self._connections:
            self._fail(connection, error, now_ns)
            self._flush(connection)

    def untrusted(self, error: QNodeOSError, now_ns: int) -> None:
        """Somebody tried to connect and could not prove who it is."""
        self._refused += 1
        self._say_refusal(error, now_ns)

    def _say_refusal(self, error: QNodeOSError, now_ns: int) -> None:
        if now_ns >= self._say_refusal_at_ns:
            self._say_refusal_at_ns = now_ns + _REFUSALS_SAID_NS
            self._say(f"a connection was refused: {error}")

    def closed(self, connection: int, reason: str, now_ns: int) -> None:
        """A connection has ended, or could not be made."""
        neighbour = self._dialling.pop(connection, None)
        known = self._connections.pop(connection, None)
        if known is not None:
            neighbour = known.neighbour or neighbour
            known.session.close()
            self._controllers -= known.is_controller
            if known.is_controller:
                self._say(f"the connection to the controller ended: {reason}")
        if neighbour is None or neighbour.connection != connection:
            return
        neighbour.connection = None
        if neighbour.is_connected:
            neighbour.is_connected = False
            neighbour.lost += 1
            assert known is not None
            tick = self._tick()
            self._kernel.peer_lost(neighbour.node_id, tick, known.session.heard_tick(tick))
            self._say(f"the connection to {neighbour.name} was lost: {reason}")
        elif reason != neighbour.last_error:  # once, however often it is tried
            self._say(f"no connection to {neighbour.name}: {reason}")
        neighbour.last_error = reason
        if neighbour.is_dialled:
            neighbour.dial_at_ns = now_ns + neighbour.retry_ns
            neighbour.retry_ns = min(2 * neighbour.retry_ns, self._timing.longest_retry_ns)

    def _end(self, connection: int, reason: str, now_ns: int = 0) -> None:
        """End a connection from this end."""
        self.closing.append(connection)
        self.closed(connection, reason, now_ns)

    def _fail(self, connection: int, error: QNodeOSError, now_ns: int) -> None:
        """End a connection because of an error, and say which to the other end."""
        known = self._connections[connection]
        if known.session.state is SessionState.CLOSED:  # it refused us
            self._refused += 1
        else:
            self._refused += isinstance(error, PeerRefusedError)
            self._malformed += not isinstance(error, PeerRefusedError)
            known.session.refuse(error)
            if known.neighbour is None:
                self._say_refusal(error, now_ns)
        self._flush(connection)
        self._end(connection, str(error), now_ns)

    def _flush(self, connection: int) -> None:
        known = self._connections.get(connection)
        if known is not None and known.session.outgoing:
            self.outbox.extend((connection, payload) for payload in known.session.outgoing)
            known.session.outgoing.clear()

    # --- who is there -----------------------------------------------------------------

    def _admit(self, connection: int, hello: PeerHello) -> int:
        known = self._connections[connection]
        if known.names and hello.node_name not in known.names:
            raise PeerRefusedError(
                f"the certificate is of {', '.join(known.names)}, not of {hello.node_name!r}"
            )
        if hello.role == ROLE_CONTROLLER:
            return self._admit_controller(known, hello)
        if hello.role != ROLE_QNPU:
            raise PeerRefusedError(f"nodes have no business with a {hello.role!r}")
        return self._admit_node(connection, known, hello)

    def _admit_controller(self, known: _Connection, hello: PeerHello) -> int:
        me = self._identity.name
        if known.neighbour is not None:
            raise PeerRefusedError(f"{me} dialled {known.neighbour.name}, a controller answered")
        if hello.node_name != self._controller or hello.node_id != CONTROLLER_ID:
            raise PeerRefusedError(
                f"{me} obeys the controller {self._controller!r}, not {hello.node_name!r}; see "
                "peer.controller in its node file"
            )
        if self._controllers >= MAX_CONTROLLERS:
            raise PeerRefusedError(f"{me} has {MAX_CONTROLLERS} controllers connected already")
        known.is_controller = True
        self._controllers += 1
        return 0

    def _admit_node(self, connection: int, known: _Connection, hello: PeerHello) -> int:
        neighbour = identify(hello, self._identity, self.neighbours, known.neighbour)
        if known.neighbour is None:
            self._replace(neighbour, hello)
            neighbour.connection = connection
            neighbour.connections += 1
            known.neighbour = neighbour
        return neighbour.connections

    def _replace(self, neighbour: Neighbour, hello: PeerHello) -> None:
        """A neighbour connects while it is connected: the newer connection is the real one."""
        if neighbour.connection is None:
            return
        present = self._connections[neighbour.connection].session.hello
        if present is not None and (hello.incarnation, hello.connections) <= (
            present.incarnation,
            present.connections,
        ):
            raise PeerRefusedError(
                f"{neighbour.name!r} is connected, by a later start or connection; do two "
                f"processes run as node {neighbour.node_id}?"
            )
        self._end(neighbour.connection, "it has connected anew")

    # --- what they say ----------------------------------------------------------------

    def _act(self, known: _Connection, message: PeerWireMessage, now_ns: int) -> None:
        if isinstance(message, PeerHello):
            self._greeted(known, message)
            return
        neighbour = known.neighbour
        if isinstance(message, LinkMessage):
            if neighbour is None:
                raise PeerProtocolError("only neighbours send messages of the link layer")
            self._kernel.peer_message(
                neighbour.node_id, from_wire(message, self._control.epoch_tick), self._tick()
            )
        elif isinstance(message, ReadTick) and known.is_controller:
            known.session.send_control(self._control.reading(message.nonce))
        elif isinstance(message, Install) and known.is_controller:
            self._install(known, message, now_ns)
        elif isinstance(message, InstallRoutes) and known.is_controller:
            known.session.send_control(self._control.install_routes(message))
        else:
            raise PeerProtocolError(f"a {type(message).__name__} makes no sense here")

    def _greeted(self, known: _Connection, hello: PeerHello) -> None:
        if known.is_controller:
            self._say(f"controller {hello.node_name!r} is connected")
            return
        neighbour = known.neighbour
        assert neighbour is not None
        known.session.counters = neighbour.counters
        if neighbour.incarnation not in (0, hello.incarnation):
            self._say(f"{neighbour.name} has started anew")
        neighbour.is_connected = True
        neighbour.incarnation = hello.incarnation
        neighbour.retry_ns = self._timing.first_retry_ns
        neighbour.last_error = ""
        self._say(f"connected to {neighbour.name}")
        self._kernel.peer_connected(neighbour.node_id, self._tick())

    def _install(self, known: _Connection, install: Install, now_ns: int) -> None:
        answer, is_reset = self._control.install(install)
        known.session.send_control(answer)
        if is_reset:
            for neighbour in self.neighbours.values():
                if neighbour.connection is not None:
                    self._end(neighbour.connection, "the network schedule has other bins", now_ns)

    # --- the kernel's messages --------------------------------------------------------

    def send(self, messages: Sequence[tuple[int, PeerMessage]], now_ns: int) -> None:
        """Send the kernel's messages.

        Args:
            messages: (node id, message).
            now_ns: of the owner's clock.
        """
        tick = self._tick()
        for node_id, message in messages:
            connection = self.neighbours[node_id].connection
            known = self._connections.get(connection) if connection is not None else None
            if connection is None or known is None or known.session.state is not SessionState.OPEN:
                self._dropped += 1
                continue
            session = known.session
            sent_tick = message.tick if isinstance(message, Announce) else tick
            try:
                session.send_link(
                    to_wire(message, session.epoch, self._control.epoch_tick), sent_tick
                )
            except LimitError as error:
                self._fail(connection, error, now_ns)
            self._flush(connection)

    # --- time -------------------------------------------------------------------------

    def poll(self, now_ns: int) -> None:
        """Do what is due: heartbeats, connections that are silent, dialling."""
        for connection, known in list(self._connections.items()):
            try:
                known.session.poll(now_ns)
            except QNodeOSError as error:
                self._end(connection, str(error), now_ns)
            self._flush(connection)
        for neighbour in self.neighbours.values():
            if neighbour.dial_at_ns is not None and now_ns >= neighbour.dial_at_ns:
                neighbour.dial_at_ns = None
                neighbour.connections += 1
                neighbour.connection = self.new_connection()
                self._dialling[neighbour.connection] = neighbour
                self.dials.append((neighbour.connection, neighbour.node_id))

    @property
    def due_ns(self) -> int | None:
        """When `poll` has something to do, None if never."""
        due = [known.session.due_ns for known in self._connections.values()]
        due += [n.dial_at_ns for n in self.neighbours.values() if n.dial_at_ns is not None]
        return min(due, default=None)

    def statistics(self) -> dict[str, Any]:
        """Counters and states."""
        return {
            "schedule": self._control.schedule_number,
            "controllers": self._controllers,
            "greeting": sum(
                known.session.state is SessionState.GREETING for known in self._connections.values()
            ),
            "refused": self._refused,
            "malformed": self._malformed,
            "dropped": self._dropped,
            "neighbours": {
                neighbour.name: {
                    "node_id": neighbour.node_id,
                    "connected": neighbour.is_connected,
                    "connections": neighbour.connections,
                    "lost": neighbour.lost,
                    "last_error": neighbour.last_error,
                    **asdict(neighbour.counters),
                }
                for neighbour in self.neighbours.values()
            },
        }

    def close(self) -> None:
        """End all connections."""
        self.closing.extend(self._connections)
        for known in self._connections.values():
            known.session.close()
        self._connections.clear()
        self._dialling.clear()
