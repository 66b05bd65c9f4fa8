"""The network layer (QNP): pairs between nodes that are no neighbours.

A create request for a node that is no neighbour becomes a circuit along the route to it. The
messages are in `qnodeos.api.peer`, what a node knows of a circuit in `qnodeos.qnpu.circuits`,
the whole in docs/network-layer.md. In the terms of Kozlowski, Dahlberg, Wehner, "Designing a
quantum network protocol" (CoNEXT 2020): the link layer makes one pair per hop, repeaters swap
as soon as they hold two, and a message that follows the swaps (Track) tells the tail which Bell
state has come of it.

    create                                     a program here asks for pairs
    receive, peer_lost, peer_connected         what comes of neighbours
    offered, made, failed                      what comes of the link layer
    socket_opened, sockets_closed, withdraw    what comes of programs here
    expire, look                               what comes of time
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from qnodeos.api.peer import (
    MAX_PATH,
    CircuitId,
    CircuitTerms,
    Complete,
    Expire,
    Forward,
    NetworkLayerMessage,
    Offer,
    Pass,
    PeerMessage,
    Segment,
    Teardown,
    TeardownCause,
    Track,
)
from qnodeos.errors import (
    CallerError,
    EntanglementRequestError,
    EntanglementTimeoutError,
    LimitError,
    PeerLostError,
    PeerProtocolError,
    QNodeOSError,
)
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import HERALDS, BellState, Outcome
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.circuit_ends import Basis, Measured, creator_basis, pair_of, receiver_basis
from qnodeos.qnpu.circuits import Circuit, CircuitEvent, CircuitState, Half, join_states
from qnodeos.qnpu.entanglement import INT32_MAX, EntanglementManager, ErSocket, UserRequest
from qnodeos.qnpu.link_layer import LinkLayer, are_valid
from qnodeos.qnpu.link_queue import LinkRequest
from qnodeos.qnpu.network_process import Job
from qnodeos.qnpu.process import NETWORK_PID, ProcessState, UserProcess
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.routes import Route
from qnodeos.qnpu.turns import Turns
from qnodeos.trace.events import Event

_REASON_CHARACTERS: Final = 1_000
_OPENING_PATIENCE: Final = 2
"""Offer timeouts after which a node forgets a circuit whose head has forgotten it."""

_ERRORS: Final[Mapping[TeardownCause, type[QNodeOSError]]] = {
    TeardownCause.DONE: EntanglementRequestError,
    TeardownCause.REFUSED: EntanglementRequestError,
    TeardownCause.BUSY: EntanglementRequestError,
    TeardownCause.LOST: PeerLostError,
    TeardownCause.ENDED: EntanglementRequestError,
    TeardownCause.FAILED: EntanglementRequestError,
}
"""What a program is told of a circuit's end."""

_SENT: Final[Mapping[type[PeerMessage], Event]] = {
    Forward: Event.QNPD_FORWARD_SENT,
    Pass: Event.QNPD_PASS_SENT,
    Track: Event.QNPD_TRACK_SENT,
    Complete: Event.QNPD_COMPLETE_SENT,
    Expire: Event.QNPD_EXPIRE_SENT,
}
_RECEIVED: Final[Mapping[type[PeerMessage], Event]] = {
    Forward: Event.QNPD_FORWARD_RECEIVED,
    Pass: Event.QNPD_PASS_RECEIVED,
    Track: Event.QNPD_TRACK_RECEIVED,
    Complete: Event.QNPD_COMPLETE_RECEIVED,
    Expire: Event.QNPD_EXPIRE_RECEIVED,
}
"""Events of the messages; the published system has none of a teardown."""

_S, _E = CircuitState, CircuitEvent


@dataclass(frozen=True)
class Surroundings:
    """What the network layer needs of the kernel.

    Attributes:
        now: the present tick.
        next_bin: number of the time bin after the current one.
        send: sends a message to a neighbour.
        add_job: has the network process do something.
        fault: aborts a process because of an error in one of its requests.
        record: puts an event into the trace, with a number.
        random_choice: a random integer below its argument.
        count_pair: a pair with that node has been delivered.
    """

    now: Callable[[], int]
    next_bin: Callable[[], int]
    send: Callable[[int, PeerMessage], None]
    add_job: Callable[[Job], None]
    fault: Callable[[UserProcess, QNodeOSError], None]
    record: Callable[[Event, int], None]
    random_choice: Callable[[int], int]
    count_pair: Callable[[int], None]


class NetworkLayer:
    """See the module's docstring.

    Args:
        node_id: of this node.
        driver: makes the instructions of swaps, corrections and measurements.
        qmmu: knows who owns which qubit.
        entanglement: knows the ER sockets.
        link_layer: makes the segments.
        limits: all bounds.
        kernel: everything else.

    Attributes:
        deadline_tick: first tick at which `expire` has something to do.
        swaps: how many have been made.
    """

    def __init__(
        self,
        node_id: int,
        driver: QDriver,
        qmmu: QMMU,
        entanglement: EntanglementManager,
        link_layer: LinkLayer,
        limits: Limits,
        kernel: Surroundings,
    ) -> None:
        self._node_id = node_id
        self._driver = driver
        self._qmmu = qmmu
        self._entanglement = entanglement
        self._link_layer = link_layer
        self._limits = limits
        self._kernel = kernel
        self._routes: Mapping[int, Route] = {}
        self._circuits: dict[CircuitId, Circuit] = {}
        self._created: dict[ErSocket, deque[Circuit]] = {}  # of programs here, not accepted yet
        self._blocked: dict[Circuit, None] = {}  # heads whose program has no place for a qubit
        self._turns = Turns(self._room)
        self._halves: dict[int, Half] = {}
        self._number = 0
        self._sequences: dict[int, int] = {}
        self._deadlines: list[tuple[int, int, Circuit]] = []
        self._armed = 0
        self.deadline_tick: int | None = None
        self.swaps = 0
        link_layer.segments = self

    # --- routes -----------------------------------------------------------------------

    def install(self, routes: Mapping[int, Route]) -> None:
        """Use these routes for circuits still to be forwarded."""
        self._routes = routes
        self._try_again()

    # --- how things are ---------------------------------------------------------------

    @property
    def is_creating(self) -> bool:
        """Whether a program here has asked for pairs that have not come."""
        return bool(self._created) or any(each.is_head for each in self._circuits.values())

    @property
    def circuits(self) -> int:
        """How many circuits this node takes part in."""
        return len(self._circuits)

    @property
    def must_look(self) -> bool:
        """Whether `look` may have something to do once a qubit is free."""
        return self._turns.is_waiting or bool(self._blocked)

    # --- programs of this node --------------------------------------------------------

    def create(self, user: UserRequest) -> None:
        """Begin a circuit for a create request of a process here.

        Raises:
            LimitError: this node takes part in too many.
        """
        if len(self._circuits) >= self._limits.circuits:
            raise LimitError(
                f"this node takes part in circuits={self._limits.circuits} circuits, the limit; "
                "wait until some are done"
            )
        arguments, socket = user.arguments, user.socket
        assert arguments is not None
        terms = CircuitTerms(
            socket_id=socket.socket_id,
            remote_socket_id=socket.remote_socket_id,
            kind=arguments.kind,
            pairs=arguments.pairs,
            create_id=user.create_id,
            since_tick=user.since_tick,
            remote_rotations=tuple((int(axis), n) for axis, n in arguments.remote_rotations),
            remote_random_basis=arguments.remote_random_basis,
            priority=arguments.priority,
            remote_weights=arguments.remote_weights,
            atomic=arguments.atomic,
        )
        circuit = Circuit(
            self._new_id(), socket.remote_node, terms, None, None, _S.QUEUED, socket, user
        )
        circuit.offer_tick = self._kernel.now() + self._limits.offer_timeout_ticks
        self._circuits[circuit.id] = circuit
        queue = self._created.setdefault(socket, deque())
        queue.append(circuit)
        if queue[0] is circuit:
            self._forward(circuit)
        self._arm(circuit)

    def _new_id(self) -> CircuitId:
        number = self._number
        self._number = (number + 1) & INT32_MAX
        return CircuitId(self._node_id, number)

    def _forward(self, circuit: Circuit) -> None:
        """Send the first of a socket's requests on its way, now or when it is possible.

        Those behind it wait until it is accepted, so that both ends have them in one order.
        """
        circuit.retry_tick = None
        next_hop, circuit.why_not = self._next_hop(circuit.destination)
        if next_hop is None:
            circuit.retry_tick = self._kernel.now() + self._limits.circuit_retry_ticks
        else:
            circuit.successor = next_hop
            circuit.handle(_E.FORWARDED)
            self._send(
                next_hop, Forward(circuit.id, circuit.destination, (self._node_id,), circuit.terms)
            )
        self._arm(circuit)

    def _next_hop(self, destination: int) -> tuple[int | None, str]:
        """The neighbour towards a node; None and the reason if there is none."""
        route = self._routes.get(destination)
        if route is None:
            return None, f"node {self._node_id} has no route to node {destination}"
        if not self._is_up(route.next_hop):
            return None, f"node {self._node_id} has no connection to node {route.next_hop}"
        return route.next_hop, ""

    def _is_up(self, peer: int) -> bool:
        link = self._link_layer.links.get(peer)
        return link is not None and link.is_up

    def _try_again(self) -> None:
        """Something has changed: forward what could not be forwarded, or was turned away."""
        for queue in list(self._created.values()):
            if queue[0].state is _S.QUEUED:
                self._forward(queue[0])

    def _leave_queue(self, circuit: Circuit) -> None:
        """A request of a program here is accepted, or off: the next of its socket may go."""
        socket = circuit.socket
        queue = self._created.get(socket) if socket is not None else None
        if socket is None or queue is None or circuit not in queue:
            return
        queue.remove(circuit)
        if not queue:
            del self._created[socket]
        elif queue[0].state is _S.QUEUED:
            self._forward(queue[0])

    def socket_opened(self, socket: ErSocket) -> None:
        """Accept the circuits that waited for this socket."""
        for circuit in list(self._circuits.values()):
            if (
                circuit.is_tail
                and circuit.socket is None
                and circuit.id.head == socket.remote_node
                and circuit.terms.remote_socket_id == socket.socket_id
            ):
                self._accept(circuit, socket)

    def sockets_closed(self, sockets: Iterable[ErSocket]) -> None:
        """A program here has ended: so do its circuits."""
        if not self._circuits:
            return
        closed = set(sockets)
        reason = f"the program at node {self._node_id} has ended"
        for circuit in list(self._circuits.values()):
            if circuit.socket in closed:
                circuit.is_withdrawn = True
                self._tear_down(circuit, TeardownCause.ENDED, reason)

    def withdraw(self, users: Iterable[UserRequest]) -> None:
        """Withdraw create requests of programs here."""
        gone = set(users)
        for circuit in list(self._circuits.values()):
            if circuit.user is not None and circuit.user in gone:
                circuit.is_withdrawn = True
                self._tear_down(
                    circuit,
                    TeardownCause.DONE,
                    f"the program at node {self._node_id} has withdrawn its request",
                )

    # --- the neighbours ---------------------------------------------------------------

    def receive(self, peer: int, message: NetworkLayerMessage) -> None:
        """Take in a message of a neighbour.

        Raises:
            PeerProtocolError: it comes from no neighbour, or not from where it should.
        """
        if not self._is_up(peer):
            raise PeerProtocolError(f"a message came from node {peer}, which is not connected")
        event = _RECEIVED.get(type(message))
        if event is not None:
            self._kernel.record(event, message.circuit.number)
        if isinstance(message, Forward):
            self._on_forward(peer, message)
            return
        circuit = self._circuits.get(message.circuit)
        if circuit is None:
            return  # it has ended here; the other node will hear of it, or knows
        self._check_direction(peer, circuit, message)
        match message:
            case Pass(_, turn_bin):
                self._on_pass(circuit, turn_bin)
            case Track(_, pair, attempt, bell_state):
                if (pair, attempt) == circuit.place:
                    self._on_track(circuit, bell_state)
            case Complete(_, pair, attempt):
                self._on_complete(circuit, message, (pair, attempt))
            case Expire(_, pair, attempt, turn_bin, reason):
                if (pair, attempt) == circuit.place:
                    self._pass_on(peer, circuit, message)
                    self._begin(circuit, pair, attempt + 1, turn_bin)
            case Teardown(_, cause, reason):
                self._on_teardown(peer, circuit, cause, reason)

    @staticmethod
    def _check_direction(peer: int, circuit: Circuit, message: NetworkLayerMessage) -> None:
        if isinstance(message, Pass | Complete):
            fits = peer == circuit.successor
        elif isinstance(message, Track):
            fits = peer == circuit.predecessor
        else:
            fits = peer in (circuit.predecessor, circuit.successor)
        if not fits:
            raise PeerProtocolError(
                f"node {peer} sent a {type(message).__name__} of a circuit that does not lead "
                f"through it that way: {message}"
            )

    def peer_lost(self, peer: int, why: str) -> None:
        """The connection to a neighbour has ended, and with it every circuit over it."""
        for circuit in list(self._circuits.values()):
            if peer not in (circuit.predecessor, circuit.successor):
                continue
            if circuit.is_head and circuit.state is _S.OPENING:
                self._turned_away(circuit, why)
            else:
                self._on_teardown(peer, circuit, TeardownCause.LOST, why)

    def peer_connected(self, peer: int) -> None:
        """There is a connection to a neighbour (again)."""
        self._try_again()

    def _send(self, peer: int, message: NetworkLayerMessage) -> None:
        if not self._is_up(peer):
            return  # every circuit over it ends, or has ended
        event = _SENT.get(type(message))
        if event is not None:
            self._kernel.record(event, message.circuit.number)
        self._kernel.send(peer, message)

    def _pass_on(self, source: int | None, circuit: Circuit, message: NetworkLayerMessage) -> None:
        """Send a message to the neighbours on the path that it has not come from."""
        for peer in (circuit.predecessor, circuit.successor):
            if peer is not None and peer != source:
                self._send(peer, message)

    # --- opening a circuit ------------------------------------------------------------

    def _on_forward(self, peer: int, forward: Forward) -> None:
        path = forward.path
        if path[-1] != peer or path[0] != forward.circuit.head or forward.circuit in self._circuits:
            raise PeerProtocolError(f"node {peer} forwarded a circuit it cannot have: {forward}")
        cause, reason, next_hop = self._how_to_serve(forward)
        if reason:
            self._send(peer, Teardown(forward.circuit, cause, reason[:_REASON_CHARACTERS]))
            return
        circuit = Circuit(
            forward.circuit, forward.destination, forward.terms, peer, next_hop, _S.OPENING
        )
        patience_ticks = _OPENING_PATIENCE * self._limits.offer_timeout_ticks
        circuit.part_tick = self._kernel.now() + patience_ticks
        self._circuits[circuit.id] = circuit
        if next_hop is None:
            socket = self._entanglement.socket(forward.circuit.head, forward.terms.remote_socket_id)
            if socket is not None:
                self._accept(circuit, socket)
        else:
            self._send(
                next_hop,
                Forward(circuit.id, circuit.destination, (*path, self._node_id), circuit.terms),
            )
        self._arm(circuit)

    def _how_to_serve(self, forward: Forward) -> tuple[TeardownCause, str, int | None]:
        """Why a circuit cannot be served here; if it can, over whom it goes on, if anyone."""
        me, path, terms = self._node_id, forward.path, forward.terms
        if not are_valid(terms, self._limits):
            return TeardownCause.REFUSED, f"its terms are out of range: {terms}", None
        if len(self._circuits) >= self._limits.circuits:
            return (
                TeardownCause.BUSY,
                f"node {me} takes part in circuits={self._limits.circuits} circuits, the limit",
                None,
            )
        if forward.destination == me:
            return TeardownCause.DONE, "", None
        if me in path:
            return (
                TeardownCause.BUSY,
                f"the route to node {forward.destination} has a loop: {[*path, me]}",
                None,
            )
        if len(path) >= MAX_PATH - 1:
            return (
                TeardownCause.REFUSED,
                f"the route to node {forward.destination} has more than {MAX_PATH} nodes",
                None,
            )
        capabilities = self._driver.capabilities
        if len(self._usable_qubits()) < 2 or Opcode.ESW not in capabilities.instructions:
            return (
                TeardownCause.REFUSED,
                f"node {me}, on the route to node {forward.destination}, cannot swap "
                "entanglement: that takes two qubits and the instruction ESW",
                None,
            )
        next_hop, why_not = self._next_hop(forward.destination)
        return TeardownCause.BUSY, why_not, next_hop

    def _accept(self, circuit: Circuit, socket: ErSocket) -> None:
        """At the tail: the program is there."""
        terms = circuit.terms
        if socket.remote_socket_id != terms.socket_id:
            self._tear_down(
                circuit,
                TeardownCause.REFUSED,
                f"ER socket {socket.socket_id} at node {self._node_id} is connected to socket "
                f"{socket.remote_socket_id} here, not to {terms.socket_id}",
            )
            return
        try:
            self._entanglement.promised(
                socket,
                terms.create_id,
                terms.kind,
                terms.pairs,
                lambda reason: self._refuse(circuit, reason),
                atomic=terms.atomic,
            )
        except CallerError as error:
            self._tear_down(circuit, TeardownCause.REFUSED, str(error))
            self._kernel.fault(socket.process, error)
            return
        circuit.socket = socket
        turn_bin = self._kernel.next_bin()
        assert circuit.predecessor is not None
        self._send(circuit.predecessor, Pass(circuit.id, turn_bin))
        self._begin(circuit, 0, 0, turn_bin)

    def _refuse(self, circuit: Circuit, reason: str) -> None:
        """The program at the tail does not want it any more."""
        if circuit.state is not _S.ENDED:
            circuit.is_withdrawn = True
            self._tear_down(circuit, TeardownCause.REFUSED, reason)

    def _on_pass(self, circuit: Circuit, turn_bin: int) -> None:
        if circuit.state is not _S.OPENING:
            self._break_off(circuit, "it was accepted twice")
            return
        if circuit.predecessor is not None:
            self._send(circuit.predecessor, Pass(circuit.id, turn_bin))
        circuit.offer_tick = None
        self._leave_queue(circuit)
        self._begin(circuit, 0, 0, turn_bin)

    def _turned_away(self, circuit: Circuit, why: str) -> None:
        """At the head: nobody has accepted it yet, and it has to be forwarded once more."""
        del self._circuits[circuit.id]
        circuit.handle(_E.TURNED_AWAY)
        circuit.id, circuit.successor, circuit.why_not = self._new_id(), None, why
        circuit.retry_tick = self._kernel.now() + self._limits.circuit_retry_ticks
        self._circuits[circuit.id] = circuit
        self._arm(circuit)

    # --- attempts ---------------------------------------------------------------------

    def _begin(self, circuit: Circuit, pair: int, attempt: int, turn_bin: int) -> None:
        """Begin an attempt; what was made for the one before is given up."""
        self._drop_parts(circuit)
        circuit.handle(_E.BEGUN)
        circuit.pair, circuit.attempt = pair, attempt
        circuit.turn = turn_bin, *circuit.id
        circuit.part_tick = None
        if circuit.is_repeater:
            circuit.part_tick = self._kernel.now() + self._limits.circuit_turn_ticks
            self._turns.wait(circuit)
            self._let_in()
        elif circuit.is_head:
            self._blocked[circuit] = None
            self._unblock(circuit)
        else:
            self._make(circuit)
        self._arm(circuit)

    def _make(self, circuit: Circuit) -> None:
        """Make our segments: offer the one to the successor, accept that of the predecessor."""
        circuit.handle(_E.ADMITTED)
        circuit.part_tick = None
        if circuit.is_repeater:
            circuit.part_tick = self._kernel.now() + self._limits.circuit_turn_ticks
        if circuit.successor is not None:
            circuit.downstream_request = self._link_layer.offer_segment(
                circuit.successor, circuit.segment, circuit.terms.priority
            )
        self._take_offer(circuit)
        self._arm(circuit)

    def _take_offer(self, circuit: Circuit) -> None:
        offer = circuit.offer
        if offer is not None and circuit.state is _S.MAKING:
            assert circuit.predecessor is not None
            circuit.offer = None
            circuit.upstream_request = self._link_layer.accept_segment(circuit.predecessor, offer)

    def look(self) -> None:
        """Go on with circuits that waited for qubits, if there are any now."""
        for circuit in list(self._blocked):
            self._unblock(circuit)
        self._let_in()

    def _unblock(self, circuit: Circuit) -> None:
        """At the head: begin, if the program has a place for the pair."""
        user = circuit.user
        assert user is not None
        if self._entanglement.may_take(user):
            del self._blocked[circuit]
            if user.max_ticks is not None:
                user.deadline_tick = self._kernel.now() + user.max_ticks
            self._make(circuit)

    def _let_in(self) -> None:
        """At a repeater: serve those whose turn it is."""
        while True:
            circuit = self._turns.admit()
            if circuit is not None:
                self._make(circuit)
                continue
            later = self._turns.must_make_room()
            if later is None:
                return
            self._expire(later, f"node {self._node_id} made room for an earlier circuit")

    def _room(self) -> int:
        """How many circuits can be served at once: each needs two qubits."""
        usable = self._usable_qubits()
        served = self._turns.served
        elsewhere = sum(
            (circuit.upstream is not None) + (circuit.downstream is not None)
            for circuit in self._circuits.values()
            if circuit not in served
        )
        owners = [self._qmmu.owner(physical) for physical in usable]
        of_programs = sum(owner not in (None, NETWORK_PID) for owner in owners)
        return (len(usable) - of_programs - self._entanglement.kept - elsewhere) // 2

    def _usable_qubits(self) -> Sequence[int]:
        """Qubits that can hold halves: memories only if states can be moved to them."""
        capabilities = self._driver.capabilities
        if Opcode.MOV in capabilities.instructions:
            return capabilities.qubits
        return capabilities.communication_qubits

    def _drop_parts(self, circuit: Circuit) -> None:
        """Give up what was made for an attempt, or is being made."""
        self._turns.leave(circuit)
        self._blocked.pop(circuit, None)
        for request in (circuit.upstream_request, circuit.downstream_request):
            if request is not None:
                self._link_layer.drop_segment(request)
        for half in (circuit.upstream, circuit.downstream):
            if half is not None:
                self._release(half)
        circuit.upstream_request = circuit.downstream_request = None
        circuit.upstream = circuit.downstream = None
        circuit.offer = circuit.track = circuit.swapped = None

    def _release(self, half: Half) -> None:
        if half.physical is not None:
            del self._halves[half.physical]
            self._qmmu.release(half.physical)

    def relocated(self, old: int, new: int | None) -> None:
        """The state of one of our qubits is in another one now; None: it was lost."""
        half = self._halves.pop(old, None)
        if half is None:
            return
        half.physical = new
        if new is not None:
            self._halves[new] = half
            return
        self._qmmu.release(old)
        for circuit in self._circuits.values():
            if half in (circuit.upstream, circuit.downstream):
                self._expire(circuit, f"node {self._node_id} lost a qubit when moving it")
                return

    def _expire(self, circuit: Circuit, reason: str, turn_bin: int | None = None) -> None:
        """Our part of an attempt has come to nothing.

        Args:
            circuit: of the attempt.
            reason: for people.
            turn_bin: of the next attempt; that of this one if not given.
        """
        if circuit.attempt + 1 >= self._limits.circuit_attempts:
            self._tear_down(
                circuit,
                TeardownCause.FAILED,
                f"circuit_attempts={self._limits.circuit_attempts} attempts at pair "
                f"{circuit.pair} between nodes {circuit.id.head} and {circuit.destination} came "
                f"to nothing; the last: {reason}",
            )
            return
        pair, attempt = circuit.place
        turn_bin = circuit.turn[0] if turn_bin is None else turn_bin
        self._pass_on(
            None, circuit, Expire(circuit.id, pair, attempt, turn_bin, reason[:_REASON_CHARACTERS])
        )
        self._begin(circuit, pair, attempt + 1, turn_bin)

    # --- the link layer's segments ----------------------------------------------------

    def offered(self, peer: int, offer: Offer) -> None:
        """See `qnodeos.qnpu.link_layer.Segments`."""
        segment = offer.terms.segment
        circuit = None if segment is None else self._circuits.get(segment.circuit)
        if circuit is None or circuit.predecessor != peer or circuit.segment != segment:
            return  # of an attempt that is off; its creator will hear of that
        if circuit.state in (_S.WAITING, _S.MAKING) and circuit.upstream_request is None:
            circuit.offer = offer
            self._take_offer(circuit)

    def made(self, request: LinkRequest, physical: int, tick: int) -> None:
        """See `qnodeos.qnpu.link_layer.Segments`."""
        segment = request.segment
        circuit = None if segment is None else self._circuits.get(segment.circuit)
        if circuit is None or request.cancelled:
            self._qmmu.release(physical)
            return
        half = self._halves[physical] = Half(physical)
        if request is circuit.upstream_request:
            circuit.upstream, circuit.upstream_request = half, None
        else:
            circuit.downstream, circuit.downstream_request = half, None
        if circuit.is_head:
            circuit.handle(_E.JOINED)
            circuit.part_tick = None
            self._track(circuit, BellState.PHI_PLUS)
        elif circuit.is_repeater and circuit.upstream and circuit.downstream:
            self._swap(circuit, circuit.upstream, circuit.downstream)
        else:
            self._hold(circuit, tick)
            if circuit.is_tail and circuit.track is not None:
                self._finish(circuit, circuit.track)
        self._arm(circuit)

    def _hold(self, circuit: Circuit, tick: int) -> None:
        """A half has to wait for its partner, or to hear of it: but not for ever."""
        cutoff_ticks = self._limits.pair_cutoff_ticks
        if cutoff_ticks:
            until = tick + cutoff_ticks
            circuit.part_tick = min(until, circuit.part_tick or until)

    def failed(self, segment: Segment, reason: str) -> None:
        """See `qnodeos.qnpu.link_layer.Segments`."""
        circuit = self._circuits.get(segment.circuit)
        if circuit is not None and circuit.segment == segment and circuit.state is not _S.DONE:
            self._expire(circuit, reason)

    # --- swapping ---------------------------------------------------------------------

    def _swap(self, circuit: Circuit, first: Half, second: Half) -> None:
        """At a repeater: join the two segments of an attempt."""
        place = circuit.place
        circuit.handle(_E.PARTS_HERE)
        circuit.upstream = circuit.downstream = circuit.part_tick = None

        def done(outcomes: Sequence[Outcome], tick: int) -> None:
            self._release(first)
            self._release(second)
            if circuit.state is _S.JOINING and circuit.place == place:
                self._swapped(circuit, outcomes[-1] if outcomes else Outcome.UNKNOWN_FAILURE)
            else:
                self._let_in()

        self._kernel.add_job(
            Job(
                lambda: self._swap_instructions(first, second),
                done,
                Event.QNETWORK_SWAP_PULL,
                Event.QNETWORK_SWAP_RET,
                circuit.id.number,
            )
        )

    def _swap_instructions(self, first: Half, second: Half) -> Sequence[PhysicalInstruction]:
        if first.physical is None or second.physical is None:
            return ()
        return (self._driver.swap_entanglement(first.physical, second.physical),)

    def _swapped(self, circuit: Circuit, outcome: Outcome) -> None:
        found = HERALDS.get(outcome)
        if found is None:
            self._expire(circuit, f"the swap at node {self._node_id} failed with {outcome.name}")
            return
        self.swaps += 1
        self._turns.leave(circuit)
        circuit.handle(_E.JOINED)
        circuit.swapped = found
        if circuit.track is not None:
            self._track(circuit, join_states(circuit.track, found))
        self._let_in()

    def _track(self, circuit: Circuit, bell_state: BellState) -> None:
        assert circuit.successor is not None
        self._send(circuit.successor, Track(circuit.id, *circuit.place, bell_state))

    def _on_track(self, circuit: Circuit, bell_state: BellState) -> None:
        if circuit.track is not None or circuit.state not in (
            _S.WAITING, _S.MAKING, _S.JOINING, _S.JOINED,
        ):  # fmt: skip
            self._break_off(circuit, "its state was tracked twice")
            return
        circuit.track = bell_state
        if circuit.is_tail and circuit.upstream is not None:
            self._finish(circuit, bell_state)
        elif circuit.swapped is not None:
            self._track(circuit, join_states(bell_state, circuit.swapped))
        else:
            self._kernel.record(Event.QNPD_TRACK_CACHED, circuit.id.number)

    # --- the ends ---------------------------------------------------------------------

    def _finish(self, circuit: Circuit, bell_state: BellState) -> None:
        """At the tail: make our half that of Phi+, measure it if asked to, and deliver it."""
        half, place, socket = circuit.upstream, circuit.place, circuit.socket
        assert half is not None
        assert socket is not None
        circuit.handle(_E.PARTS_HERE)
        circuit.upstream = circuit.part_tick = None

        def done(measured: Measured, tick: int) -> None:
            if circuit.state is not _S.JOINING or circuit.place != place:
                self._release(half)
            elif not measured.is_success:
                self._release(half)
                self._expire(
                    circuit,
                    f"the correction or measurement at node {self._node_id} failed with "
                    f"{measured.outcome.name}",
                )
            else:
                self._deliver_at_tail(circuit, socket, half, measured, tick)

        basis = receiver_basis(circuit.terms, self._kernel.random_choice)
        self._handle_half(circuit, half, bell_state, basis, done)

    def _handle_half(
        self,
        circuit: Circuit,
        half: Half,
        bell_state: BellState,
        basis: Basis | None,
        done: Callable[[Measured, int], None],
    ) -> None:
        measured = Measured(self._driver, bell_state, basis)
        self._kernel.add_job(
            Job(
                lambda: measured.instructions(half.physical),
                lambda outcomes, tick: done(measured.result(outcomes), tick),
                detail=circuit.id.number,
            )
        )

    def _keep_or_release(self, half: Half, basis: Basis | None) -> int | None:
        """The qubit of a half that is to be delivered; measured ones are free."""
        if basis is not None:
            self._release(half)
            return None
        assert half.physical is not None
        del self._halves[half.physical]
        return half.physical

    def _deliver_at_tail(
        self, circuit: Circuit, socket: ErSocket, half: Half, measured: Measured, tick: int
    ) -> None:
        head, (pair, attempt) = circuit.id.head, circuit.place
        sequence = self._sequences.get(head, 0)
        self._sequences[head] = (sequence + 1) & INT32_MAX
        turn_bin = self._kernel.next_bin()
        circuit.handle(_E.JOINED)
        assert circuit.predecessor is not None
        self._send(
            circuit.predecessor,
            Complete(circuit.id, pair, attempt, sequence, tick, turn_bin),
        )
        physical = self._keep_or_release(half, measured.basis)
        self._kernel.count_pair(head)
        try:
            self._entanglement.deliver_to_receiver(
                socket, pair_of(circuit.terms, sequence, physical, measured, tick)
            )
        except CallerError as error:
            self._kernel.fault(socket.process, error)
        if circuit.state is not _S.ENDED:
            self._next_pair(circuit, turn_bin)

    def _next_pair(self, circuit: Circuit, turn_bin: int) -> None:
        if circuit.pair + 1 < circuit.terms.pairs:
            self._begin(circuit, circuit.pair + 1, 0, turn_bin)
            return
        circuit.handle(_E.COMPLETED)
        circuit.track = circuit.swapped = None
        self._arm(circuit)

    def _on_complete(self, circuit: Circuit, complete: Complete, place: tuple[int, int]) -> None:
        if circuit.state is not _S.JOINED or circuit.place != place:
            self._break_off(circuit, f"pair {place[0]} was complete before its parts were")
            return
        if circuit.predecessor is not None:
            self._send(circuit.predecessor, complete)
            self._next_pair(circuit, complete.turn_bin)
            return
        half, circuit.downstream = circuit.downstream, None
        assert half is not None
        self._deliver_at_head(circuit, half, complete)
        if circuit.state is _S.ENDED:
            return
        self._next_pair(circuit, complete.turn_bin)
        if circuit.state is _S.DONE:
            self._tear_down(circuit, TeardownCause.DONE, "")

    def _deliver_at_head(self, circuit: Circuit, half: Half, complete: Complete) -> None:
        user = circuit.user
        assert user is not None

        def done(measured: Measured, tick: int) -> None:
            process = user.socket.process
            if circuit.is_withdrawn or process.state is ProcessState.ENDED:
                self._release(half)
                return
            if not measured.is_success:
                self._release(half)
                self._kernel.fault(process, measured.error())
                return
            physical = self._keep_or_release(half, measured.basis)
            self._kernel.count_pair(circuit.destination)
            if user.max_ticks is not None:
                user.deadline_tick = self._kernel.now() + user.max_ticks
            try:
                self._entanglement.deliver_to_creator(
                    user,
                    pair_of(circuit.terms, complete.sequence, physical, measured, complete.tick),
                )
            except CallerError as error:
                self._kernel.fault(process, error)

        basis = creator_basis(user, self._kernel.random_choice)
        if basis is None:
            done(Measured(self._driver, BellState.PHI_PLUS, None), self._kernel.now())
        else:
            self._handle_half(circuit, half, BellState.PHI_PLUS, basis, done)

    # --- the end of circuits ----------------------------------------------------------

    def _break_off(self, circuit: Circuit, what: str) -> None:
        """A neighbour has said what cannot be."""
        self._tear_down(
            circuit,
            TeardownCause.FAILED,
            f"the circuit was broken off at node {self._node_id}: {what}",
            tell=True,
        )

    def _on_teardown(self, peer: int, circuit: Circuit, cause: TeardownCause, reason: str) -> None:
        if cause is TeardownCause.BUSY and circuit.is_head and circuit.state is _S.OPENING:
            self._turned_away(circuit, reason)
        else:
            self._tear_down(circuit, cause, reason, source=peer, tell=True)

    def _tear_down(
        self,
        circuit: Circuit,
        cause: TeardownCause,
        reason: str,
        *,
        source: int | None = None,
        tell: bool = False,
    ) -> None:
        """End a circuit.

        Args:
            circuit: to be ended.
            cause: why.
            reason: for people.
            source: the neighbour that is not told, because it has told us, or is lost.
            tell: whether the program here has to be told, if it is still there.
        """
        was_done, was_accepted = circuit.state is _S.DONE, circuit.state is not _S.OPENING
        self._pass_on(source, circuit, Teardown(circuit.id, cause, reason[:_REASON_CHARACTERS]))
        circuit.handle(_E.ENDED)
        del self._circuits[circuit.id]
        self._drop_parts(circuit)
        self._leave_queue(circuit)
        self._find_deadline()
        if not circuit.is_withdrawn and circuit.socket is not None:
            error = _ERRORS[cause](reason)
            if circuit.is_head:
                if not was_done:
                    self._kernel.fault(circuit.socket.process, error)
            elif was_accepted:
                self._tell_tail(circuit, circuit.socket, cause, error, was_done=was_done)
        self._let_in()

    def _tell_tail(
        self,
        circuit: Circuit,
        socket: ErSocket,
        cause: TeardownCause,
        error: QNodeOSError,
        *,
        was_done: bool,
    ) -> None:
        if not was_done:
            process = self._entanglement.break_promise(socket, circuit.terms.create_id, error)
            if process is not None:
                self._kernel.fault(process, error)
        elif cause is TeardownCause.LOST:
            # We cannot know whether the head has heard of the last pair.
            self._kernel.fault(
                socket.process,
                PeerLostError(f"{error}; node {circuit.id.head} may not know of the last pair"),
            )

    # --- time -------------------------------------------------------------------------

    def _arm(self, circuit: Circuit) -> None:
        """Watch the first deadline of a circuit."""
        if circuit.state is _S.ENDED:
            return
        due = circuit.due_tick
        if due != circuit.armed_tick:
            circuit.armed_tick = due
            if due is not None:
                self._armed += 1
                heappush(self._deadlines, (due, self._armed, circuit))
            self._find_deadline()

    def _find_deadline(self) -> None:
        deadlines = self._deadlines
        while deadlines and (
            deadlines[0][2].state is _S.ENDED or deadlines[0][2].armed_tick != deadlines[0][0]
        ):
            heappop(deadlines)
        self.deadline_tick = deadlines[0][0] if deadlines else None

    def expire(self, tick: int) -> None:
        """Do what is due: give up what has come to nothing, forward anew."""
        while self.deadline_tick is not None and self.deadline_tick <= tick:
            _, _, circuit = heappop(self._deadlines)
            circuit.armed_tick = None
            if circuit.is_head:
                self._head_is_late(circuit, tick)
            else:
                self._node_is_late(circuit, tick)
            self._arm(circuit)
            self._find_deadline()

    def _head_is_late(self, circuit: Circuit, tick: int) -> None:
        user = circuit.user
        assert user is not None
        offer_tick, deadline = circuit.offer_tick, user.deadline_tick
        if deadline is not None and tick >= deadline:
            error = EntanglementTimeoutError(
                f"{user.delivered} of {user.pairs} pairs with node {circuit.destination} came "
                "within max_time"
            )
            self._kernel.fault(user.socket.process, error)
        elif offer_tick is not None and tick >= offer_tick:
            last = f" Last heard: {circuit.why_not}." if circuit.why_not else ""
            error = EntanglementTimeoutError(
                f"node {circuit.destination} did not open ER socket "
                f"{circuit.terms.remote_socket_id} within offer_timeout_ticks="
                f"{self._limits.offer_timeout_ticks}, or could not be reached.{last} Does the "
                "program there run, and do the socket ids match?"
            )
            self._kernel.fault(user.socket.process, error)
        else:
            self._forward(circuit)

    def _node_is_late(self, circuit: Circuit, tick: int) -> None:
        me, state = self._node_id, circuit.state
        if state is _S.OPENING:
            self._tear_down(circuit, TeardownCause.REFUSED, f"node {me} heard nothing more of it")
        elif state is _S.WAITING:
            if self._room() < 1:
                self._expire(circuit, f"programs keep the qubits of node {me}")
            else:
                circuit.part_tick = tick + self._limits.circuit_turn_ticks
        else:
            held = circuit.upstream is not None or circuit.downstream is not None
            what = "waited too long for its partner" if held else "took too long to be made"
            self._expire(circuit, f"a segment at node {me} {what}", self._kernel.next_bin())
