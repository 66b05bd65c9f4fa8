"""Opening circuits: from a program's request to the acceptance at the other end.

The head forwards a request when it knows a way; nodes on the way check whether they can serve
it, and pass it on; the tail accepts it once the ER socket it names is open. A node that could
serve it at another time turns it away, and the head forwards it again. All of that has to be
done within the time that a request waits for an ER socket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from qnodeos.api.peer import MAX_PATH, CircuitTerms, Forward, Pass, Teardown, TeardownCause
from qnodeos.errors import CallerError, LimitError, PeerProtocolError
from qnodeos.qnpu.attempts import Attempts
from qnodeos.qnpu.circuit_table import CircuitTable, Surroundings, short
from qnodeos.qnpu.circuits import Circuit, CircuitEvent, CircuitState
from qnodeos.qnpu.er_sockets import ErSocket, UserRequest
from qnodeos.qnpu.link_terms import are_valid
from qnodeos.qnpu.routes import Route

_PATIENCE: Final = 2
"""Offer timeouts after which a node forgets a circuit that its head must have forgotten."""

_S, _E = CircuitState, CircuitEvent


class Openings:
    """See the module's docstring.

    Args:
        around: what the kernel gives.
        table: the circuits of this node.
        attempts: begins a circuit that is accepted.
        tear_down: ends a circuit, with a cause and a reason.
        refuse_pairs: tells a head that the pairs of a circuit that has ended are not wanted;
            takes the head, its number of the request, and the reason.
    """

    def __init__(
        self,
        around: Surroundings,
        table: CircuitTable,
        attempts: Attempts,
        tear_down: Callable[[Circuit, TeardownCause, str], None],
        refuse_pairs: Callable[[int, int, str], None],
    ) -> None:
        self._around = around
        self._table = table
        self._attempts = attempts
        self._tear_down = tear_down
        self._refuse_pairs = refuse_pairs
        self._routes: Mapping[int, Route] = {}
        self._created: dict[ErSocket, deque[Circuit]] = {}  # not accepted yet, in order

    # --- the head ---------------------------------------------------------------------

    def create(self, user: UserRequest) -> None:
        """Begin a circuit for a create request of a process here.

        Raises:
            LimitError: this node takes part in too many.
        """
        if self._table.is_full:
            raise LimitError(self._too_many())
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
            self._table.new_id(), socket.remote_node, terms, None, None, _S.QUEUED, socket, user
        )
        circuit.offer_tick = self._around.now() + self._around.limits.offer_timeout_ticks
        self._table.add(circuit)
        queue = self._created.setdefault(socket, deque())
        queue.append(circuit)
        if queue[0] is circuit:
            self.forward(circuit)
        self._table.arm(circuit)

    def forward(self, circuit: Circuit) -> None:
        """Send the first of a socket's requests on its way, now or when it is possible.

        Those behind it wait until it is accepted, so that both ends have them in one order.
        """
        me = self._around.node_id
        circuit.retry_tick = None
        next_hop, circuit.why_not = self._next_hop(circuit.destination)
        if next_hop is None:
            self._retry_later(circuit)
        else:
            circuit.successor = next_hop
            circuit.handle(_E.FORWARDED)
            self._table.send(
                next_hop, Forward(circuit.id, circuit.destination, (me,), circuit.terms)
            )
        self._table.arm(circuit)

    def _retry_later(self, circuit: Circuit) -> None:
        circuit.retry_tick = self._around.now() + self._around.limits.circuit_retry_ticks

    def turned_away(self, circuit: Circuit, why: str) -> None:
        """At the head: nobody has accepted it yet, and it has to be forwarded once more."""
        self._table.remove(circuit)
        circuit.handle(_E.TURNED_AWAY)
        circuit.id, circuit.successor, circuit.why_not = self._table.new_id(), None, why
        self._table.add(circuit)
        self._retry_later(circuit)
        self._table.arm(circuit)

    def try_again(self) -> None:
        """Something has changed: forward what could not be forwarded, or was turned away."""
        for queue in list(self._created.values()):
            if queue[0].state is _S.QUEUED:
                self.forward(queue[0])

    def leave_queue(self, circuit: Circuit) -> None:
        """A request of a program here is accepted, or off: the next of its socket may go."""
        socket = circuit.socket
        queue = self._created.get(socket) if socket is not None else None
        if socket is None or queue is None or circuit not in queue:
            return
        queue.remove(circuit)
        if not queue:
            del self._created[socket]
        elif queue[0].state is _S.QUEUED and not queue[0].is_withdrawn:
            self.forward(queue[0])

    # --- routes -----------------------------------------------------------------------

    def install(self, routes: Mapping[int, Route]) -> None:
        """Use these routes for circuits still to be forwarded."""
        self._routes = routes
        self.try_again()

    def _next_hop(self, destination: int) -> tuple[int | None, str]:
        """The neighbour towards a node; None and the reason if there is none."""
        me, route = self._around.node_id, self._routes.get(destination)
        if route is None:
            return None, f"node {me} has no route to node {destination}"
        if not self._table.is_up(route.next_hop):
            return None, f"node {me} has no connection to node {route.next_hop}"
        return route.next_hop, ""

    # --- on the way -------------------------------------------------------------------

    def on_forward(self, peer: int, forward: Forward) -> None:
        """A neighbour forwards a circuit to us.

        Raises:
            PeerProtocolError: it cannot be as the neighbour says.
        """
        path, me = forward.path, self._around.node_id
        is_known = me not in path and self._table.get(forward.circuit) is not None
        if path[-1] != peer or path[0] != forward.circuit.head or is_known:
            raise PeerProtocolError(f"node {peer} forwarded a circuit it cannot have: {forward}")
        next_hop, cause, why_not = self._how_to_serve(forward)
        if why_not:
            self._table.send(peer, Teardown(forward.circuit, cause, short(why_not)))
            return
        circuit = Circuit(
            forward.circuit, forward.destination, forward.terms, peer, next_hop, _S.OPENING
        )
        patience_ticks = _PATIENCE * self._around.limits.offer_timeout_ticks
        circuit.part_tick = self._around.now() + patience_ticks
        self._table.add(circuit)
        if next_hop is None:
            head, number = forward.circuit.head, forward.terms.remote_socket_id
            socket = self._around.entanglement.socket(head, number)
            if socket is not None:
                self._accept(circuit, socket)
        else:
            self._table.send(
                next_hop, Forward(circuit.id, circuit.destination, (*path, me), circuit.terms)
            )
        self._table.arm(circuit)

    def _how_to_serve(self, forward: Forward) -> tuple[int | None, TeardownCause, str]:
        """Over whom a circuit goes on, if it is not to end here; else why it cannot."""
        me, path, destination = self._around.node_id, forward.path, forward.destination
        if me in path:  # its id may be that of a circuit we know: so this comes first
            return None, TeardownCause.BUSY, _loop(destination, *path, me)
        if not are_valid(forward.terms, self._around.limits):
            return None, TeardownCause.REFUSED, f"its terms are out of range: {forward.terms}"
        if self._table.is_full:
            return None, TeardownCause.BUSY, self._too_many()
        if destination == me:
            return None, TeardownCause.DONE, ""
        if len(path) >= MAX_PATH - 1:
            return (
                None,
                TeardownCause.REFUSED,
                f"the route to node {destination} has more than {MAX_PATH} nodes",
            )
        if not self._around.can_swap:
            return (
                None,
                TeardownCause.REFUSED,
                f"node {me}, on the route to node {destination}, cannot swap entanglement: that "
                "takes two qubits and the instruction ESW",
            )
        next_hop, why_not = self._next_hop(destination)
        if next_hop in path:
            why_not = _loop(destination, *path, me, next_hop)
        return next_hop, TeardownCause.BUSY, why_not

    def _too_many(self) -> str:
        most = self._around.limits.circuits
        return (
            f"node {self._around.node_id} takes part in circuits={most} circuits, the limit; wait "
            "until some are done"
        )

    def on_pass(self, circuit: Circuit, turn_bin: int) -> None:
        """The tail has accepted a circuit."""
        if circuit.predecessor is not None:
            self._table.send(circuit.predecessor, Pass(circuit.id, turn_bin))
        circuit.offer_tick = None
        self.leave_queue(circuit)
        self._attempts.begin(circuit, 0, 0, turn_bin)

    # --- the tail ---------------------------------------------------------------------

    def socket_opened(self, socket: ErSocket) -> None:
        """Accept the circuits that waited for this socket."""
        for circuit in self._table:
            if (
                circuit.is_tail
                and circuit.state is _S.OPENING
                and circuit.id.head == socket.remote_node
                and circuit.terms.remote_socket_id == socket.socket_id
            ):
                self._accept(circuit, socket)

    def _accept(self, circuit: Circuit, socket: ErSocket) -> None:
        terms = circuit.terms
        if socket.remote_socket_id != terms.socket_id:
            self._tear_down(
                circuit,
                TeardownCause.REFUSED,
                f"ER socket {socket.socket_id} at node {self._around.node_id} is connected to "
                f"socket {socket.remote_socket_id} here, not to {terms.socket_id}",
            )
            return
        try:
            self._around.entanglement.promised(
                socket,
                terms.create_id,
                terms.kind,
                terms.pairs,
                lambda reason: self._refuse(circuit, reason),
                atomic=terms.atomic,
            )
        except CallerError as error:
            self._tear_down(circuit, TeardownCause.REFUSED, str(error))
            self._around.fault(socket.process, error)
            return
        circuit.socket = socket
        turn_bin = self._around.next_bin()
        assert circuit.predecessor is not None
        self._table.send(circuit.predecessor, Pass(circuit.id, turn_bin))
        self._attempts.begin(circuit, 0, 0, turn_bin)

    def _refuse(self, circuit: Circuit, reason: str) -> None:
        """The program at the tail does not want it any more."""
        if circuit.has_ended:
            self._refuse_pairs(circuit.id.head, circuit.terms.create_id, reason)
        else:
            circuit.is_withdrawn = True
            self._tear_down(circuit, TeardownCause.REFUSED, reason)


def _loop(destination: int, *path: int | None) -> str:
    """Routes that have a loop may be about to change, so it is no reason to give up."""
    return f"the route to node {destination} has a loop: {list(path)}"
