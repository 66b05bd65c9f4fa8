"""The network layer (QNP): pairs between nodes that are no neighbours.

A create request for a node that is no neighbour becomes a circuit along the route to it. The
messages are in `qnodeos.api.peer`, what a node knows of a circuit in `qnodeos.qnpu.circuits`,
the whole in docs/network-layer.md. In the terms of Kozlowski, Dahlberg, Wehner, "Designing a
quantum network protocol" (CoNEXT 2020): the link layer makes one pair per hop, repeaters swap
as soon as they hold two, and a message that follows the swaps (Track) tells the tail which Bell
state has come of it.

    openings       from a request to the acceptance at the other end
    attempts       segments, turns and swaps of a pair
    circuit_ends   correction, measurement and delivery
    far_sockets    that ER sockets between such nodes open and close
    this module    the messages of neighbours, deadlines, and the end of circuits
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from qnodeos.api.peer import (
    CircuitMessage,
    Complete,
    Expire,
    FarMessage,
    Forward,
    NetworkLayerMessage,
    Pass,
    Teardown,
    TeardownCause,
    Track,
)
from qnodeos.errors import (
    EntanglementRequestError,
    EntanglementTimeoutError,
    PeerLostError,
    PeerProtocolError,
    QNodeOSError,
)
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.attempts import Attempts
from qnodeos.qnpu.circuit_ends import Ends
from qnodeos.qnpu.circuit_table import RECEIVED, CircuitTable, Surroundings, short
from qnodeos.qnpu.circuits import Circuit, CircuitEvent, CircuitState, Half
from qnodeos.qnpu.er_sockets import ErSocket, UserRequest
from qnodeos.qnpu.far_sockets import FarSockets
from qnodeos.qnpu.openings import Openings
from qnodeos.qnpu.routes import Route

_ERRORS: Final[Mapping[TeardownCause, type[QNodeOSError]]] = {
    TeardownCause.DONE: EntanglementRequestError,
    TeardownCause.REFUSED: EntanglementRequestError,
    TeardownCause.BUSY: EntanglementRequestError,
    TeardownCause.LOST: PeerLostError,
    TeardownCause.ENDED: EntanglementRequestError,
    TeardownCause.FAILED: EntanglementRequestError,
}
"""What a program is told of a circuit's end."""

_S, _E = CircuitState, CircuitEvent


class NetworkLayer:
    """See the module's docstring.

    Args:
        around: what the kernel gives.
    """

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._table = CircuitTable(around)
        self._routes: Mapping[int, Route] = {}
        self.attempts: Final = Attempts(around, self._table, self._finish, self._tear_down)
        self._ends = Ends(around, self._table, self.attempts)
        self._far_sockets = FarSockets(around, self._table, lambda: self._routes)
        self._openings = Openings(
            around, self._table, self.attempts, self._tear_down, self._far_sockets.refuse
        )
        around.link_layer.segments = self.attempts

    # --- how things are ---------------------------------------------------------------

    @property
    def circuits(self) -> int:
        """How many circuits this node takes part in."""
        return len(self._table)

    @property
    def is_creating(self) -> bool:
        """Whether a program here has asked for pairs that have not come."""
        return any(circuit.is_head for circuit in self._table)

    @property
    def deadline_tick(self) -> int | None:
        """First tick at which `expire` has something to do."""
        return self._table.deadline_tick

    def install(self, routes: Mapping[int, Route]) -> None:
        """Use these routes for circuits still to be forwarded."""
        self._routes = routes
        self._openings.install(routes)
        self._far_sockets.try_again()

    # --- programs of this node --------------------------------------------------------

    def create(self, user: UserRequest) -> None:
        """Begin a circuit for a create request of a process here.

        Raises:
            LimitError: this node takes part in too many.
        """
        self._openings.create(user)

    def socket_opened(self, socket: ErSocket) -> None:
        """Tell the other end, and accept the circuits that waited for this socket."""
        self._far_sockets.opened(socket)
        self._openings.socket_opened(socket)

    def sockets_closed(self, sockets: Iterable[ErSocket]) -> None:
        """A program here has ended: so do its circuits, and the other ends are told."""
        closed = list(sockets)
        reason = f"the program at node {self._around.node_id} has ended"
        self._withdraw([each for each in self._table if each.socket in closed], reason)
        self._far_sockets.closed(closed)

    def withdraw(self, users: Iterable[UserRequest]) -> None:
        """Withdraw create requests of programs here."""
        gone = set(users)
        reason = f"the program at node {self._around.node_id} has withdrawn its request"
        self._withdraw([each for each in self._table if each.user in gone], reason)

    def _withdraw(self, circuits: list[Circuit], reason: str) -> None:
        for circuit in circuits:
            circuit.is_withdrawn = True
        for circuit in circuits:
            self._tear_down(circuit, TeardownCause.ENDED, reason)

    # --- the neighbours ---------------------------------------------------------------

    def receive(self, peer: int, message: NetworkLayerMessage) -> None:
        """Take in a message of a neighbour.

        Raises:
            PeerProtocolError: it comes from no neighbour, or not from where it should.
        """
        if not self._table.is_up(peer):
            raise PeerProtocolError(f"a message came from node {peer}, which is not connected")
        if isinstance(message, FarMessage):
            self._far_sockets.receive(message)
            return
        event = RECEIVED.get(type(message))
        if event is not None:
            self._around.record(event, message.circuit.number)
        if isinstance(message, Forward):
            self._openings.on_forward(peer, message)
            return
        circuit = self._table.get(message.circuit)
        if circuit is None:
            return  # it has ended here; the other node will hear of it, or knows
        if not _may_come_from(peer, circuit, message):
            raise PeerProtocolError(
                f"node {peer} sent a {type(message).__name__} of a circuit that does not lead "
                f"through it that way: {message}"
            )
        self._act(peer, circuit, message)
        self._table.arm(circuit)

    def _act(self, peer: int, circuit: Circuit, message: CircuitMessage) -> None:
        match message:
            case Pass(_, turn_bin):
                if circuit.state is _S.OPENING:
                    self._openings.on_pass(circuit, turn_bin)
                    return
            case Track(_, pair, attempt, bell_state):
                if (pair, attempt) != circuit.place:
                    return  # that attempt is off
                if circuit.is_attempting and circuit.track is None:
                    self.attempts.on_track(circuit, bell_state)
                    return
            case Complete(_, pair, attempt):
                if (pair, attempt) == circuit.place and circuit.state is _S.JOINED:
                    self._complete(circuit, message)
                    return
            case Expire(_, pair, attempt, turn_bin):
                if (pair, attempt) < circuit.place:
                    return  # we know
                if (pair, attempt) == circuit.place and circuit.is_attempting:
                    self._table.send_along(circuit, message, peer)
                    self.attempts.begin(circuit, pair, attempt + 1, turn_bin)
                    return
            case Teardown(_, cause, reason):
                self._on_teardown(peer, circuit, cause, reason)
                return
        self._tear_down(
            circuit,
            TeardownCause.FAILED,
            f"the circuit was broken off at node {self._around.node_id}, where it was "
            f"{circuit.state.value}, at pair and attempt {circuit.place}, when node {peer} sent "
            f"{message}",
        )

    def _complete(self, circuit: Circuit, complete: Complete) -> None:
        self._ends.complete(circuit, complete)
        if circuit.user is not None and circuit.state is _S.DONE:
            self._far_sockets.done(circuit.user)
            self._tear_down(circuit, TeardownCause.DONE, "")

    def peer_lost(self, peer: int, why: str) -> None:
        """The connection to a neighbour has ended, and with it every circuit over it."""
        for circuit in self._table:
            if circuit.has_ended or peer not in (circuit.predecessor, circuit.successor):
                continue
            if circuit.is_head and circuit.state is _S.OPENING:
                self._openings.turned_away(circuit, why)
            else:
                self._tear_down(circuit, TeardownCause.LOST, why, peer)

    def peer_connected(self, peer: int) -> None:
        """There is a connection to a neighbour (again)."""
        self._openings.try_again()
        self._far_sockets.try_again()

    def _finish(self, circuit: Circuit, half: Half, bell_state: BellState) -> None:
        self._ends.finish(circuit, half, bell_state)

    # --- the end of circuits ----------------------------------------------------------

    def _on_teardown(self, peer: int, circuit: Circuit, cause: TeardownCause, why: str) -> None:
        if cause is TeardownCause.BUSY and circuit.is_head and circuit.state is _S.OPENING:
            self._openings.turned_away(circuit, why)
        else:
            self._tear_down(circuit, cause, why, peer)

    def _tear_down(
        self, circuit: Circuit, cause: TeardownCause, reason: str, source: int | None = None
    ) -> None:
        """End a circuit, and tell all who have to do with it.

        Args:
            circuit: to be ended.
            cause: why.
            reason: for people.
            source: the neighbour that is not told, because it has told us, or is lost.
        """
        if circuit.has_ended:
            return
        before = circuit.state
        self._table.send_along(circuit, Teardown(circuit.id, cause, short(reason)), source)
        circuit.handle(_E.ENDED)
        self._table.remove(circuit)
        self.attempts.drop_parts(circuit)
        self._openings.leave_queue(circuit)
        if circuit.socket is not None and not circuit.is_withdrawn:
            error = _ERRORS[cause](reason)
            if circuit.is_tail:
                self._tell_tail(circuit, circuit.socket, error, is_done=before is _S.DONE)
            elif before is not _S.DONE:
                self._around.fault(circuit.socket.process, error)
        self.attempts.let_in()

    def _tell_tail(
        self, circuit: Circuit, socket: ErSocket, error: QNodeOSError, *, is_done: bool
    ) -> None:
        if not is_done:
            process = self._around.entanglement.break_promise(
                socket, circuit.terms.create_id, error
            )
            if process is not None:
                self._around.fault(process, error)
        elif isinstance(error, PeerLostError):
            head = circuit.id.head
            self._around.fault(
                socket.process,
                PeerLostError(f"{error}; node {head} may not know of the pair delivered last"),
            )

    # --- time -------------------------------------------------------------------------

    def expire(self, tick: int) -> None:
        """Do what is due: give up what has come to nothing, forward anew."""
        while (circuit := self._table.pop_due(tick)) is not None:
            if circuit.user is not None:
                self._head_is_late(circuit, circuit.user, tick)
            elif circuit.state is _S.OPENING:
                self._tear_down(
                    circuit,
                    TeardownCause.REFUSED,
                    f"node {self._around.node_id} has heard nothing more of it",
                )
            else:
                self.attempts.is_late(circuit, tick)
            self._table.arm(circuit)

    def _head_is_late(self, circuit: Circuit, user: UserRequest, tick: int) -> None:
        process, destination = user.socket.process, circuit.destination
        last = f". What was heard last: {circuit.why_not}" if circuit.why_not else ""
        if user.deadline_tick is not None and tick >= user.deadline_tick:
            error = EntanglementTimeoutError(
                f"{user.delivered} of {user.pairs} pairs with node {destination} came within "
                f"max_time{last}"
            )
            self._around.fault(process, error)
        elif circuit.offer_tick is not None and tick >= circuit.offer_tick:
            error = EntanglementTimeoutError(
                f"node {destination} could not be reached, or did not open ER socket "
                f"{circuit.terms.remote_socket_id}, within offer_timeout_ticks="
                f"{self._around.limits.offer_timeout_ticks}{last}. Does the program there run, "
                "and do the socket ids match?"
            )
            self._around.fault(process, error)
        elif circuit.retry_tick is not None and tick >= circuit.retry_tick:
            self._openings.forward(circuit)


def _may_come_from(peer: int, circuit: Circuit, message: CircuitMessage) -> bool:
    match message:
        case Pass() | Complete():
            return peer == circuit.successor
        case Track():
            return peer == circuit.predecessor
        case _:
            return peer in (circuit.predecessor, circuit.successor)
