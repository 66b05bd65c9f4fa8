"""The entanglement management unit: ER sockets, requests, and delivery of pairs.

A program opens ER sockets, each naming a remote node and the socket at its other end. A
create request on one makes both nodes generate pairs; at the other end it is a promise, until
a receive request takes it and says where its pairs go. The creator suffices: a pair may arrive
before anybody asked for it, and then waits, owned by the network process, for the receive
request. The two have to agree on the number of pairs and on whether the receiver measures;
if they do not, both programs are told as soon as the two meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from qnodeos.errors import (
    EntanglementRequestError,
    LimitError,
    NoQubitError,
    QNodeOSError,
    QubitAccessError,
    UnreachableFidelityError,
)
from qnodeos.limits import Limits
from qnodeos.qnpu.deliveries import Deliveries, check_fit
from qnodeos.qnpu.er_sockets import ErSocket, Pair, UserRequest
from qnodeos.qnpu.isa import INT32_MAX
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.requests import RESULTS_PER_PAIR, CreateArguments
from qnodeos.qnpu.routes import Route

_NO_WISH_PERCENT: Final = 100
"""min_fidelity of an ER socket that says nothing: netqasm 2.3.0 opens every socket with it."""


class EntanglementManager(Deliveries):
    """Sockets, requests and delivery; pure bookkeeping.

    Args:
        qmmu, limits, tick_ns, delivered: see `Deliveries`.
        peers: node ids that can be named, and the device's link to each.
        link_fidelity: estimate, from 0 to 1, of the pairs with neighbours, where known.

    Attributes:
        routes: how to reach nodes that are no neighbours.
    """

    def __init__(
        self,
        qmmu: QMMU,
        limits: Limits,
        tick_ns: int,
        peers: Mapping[int, int],
        delivered: Callable[[UserProcess, Pair], None],
        link_fidelity: Mapping[int, float] | None = None,
    ) -> None:
        super().__init__(qmmu, limits, tick_ns, delivered)
        self._peers = peers
        self._sockets: dict[tuple[int, int], ErSocket] = {}
        self._sockets_of: dict[int, list[ErSocket]] = {}
        self._next_create_id = 0
        self._link_fidelity = link_fidelity or {}
        self.routes: Mapping[int, Route] = {}

    # --- sockets ----------------------------------------------------------------------

    def open_socket(
        self,
        process: UserProcess,
        socket_id: int,
        remote_node: int,
        remote_socket_id: int,
        min_fidelity: int,
    ) -> ErSocket:
        """Open one end of an ER socket.

        Raises:
            EntanglementRequestError: unknown node, bad number, or the socket is in use.
            LimitError: the process has too many.
        """
        if remote_node not in self._peers and remote_node not in self.routes:
            raise EntanglementRequestError(
                f"ER socket {socket_id} names node {remote_node}, which is no neighbour of "
                f"this node, and to which there is no route; neighbours are "
                f"{sorted(self._peers)}, reachable over them {self._reachable()}"
            )
        if socket_id < 0 or remote_socket_id < 0:
            raise EntanglementRequestError(
                f"ER socket ids {socket_id} and {remote_socket_id} must not be negative"
            )
        holder = self._sockets.get((remote_node, socket_id))
        if holder is not None:
            raise EntanglementRequestError(
                f"ER socket {socket_id} to node {remote_node} is already open (process "
                f"{holder.process.pid}); programs that run at once need distinct socket ids"
            )
        mine = self._sockets_of.setdefault(process.pid, [])
        if len(mine) >= self._limits.er_sockets:
            raise LimitError(f"process {process.pid} has er_sockets={len(mine)} open, the limit")
        socket = ErSocket(process, socket_id, remote_node, remote_socket_id, min_fidelity)
        self._sockets[remote_node, socket_id] = socket
        mine.append(socket)
        return socket

    def _reachable(self) -> list[int]:
        return sorted(set(self.routes) - set(self._peers))

    def socket(self, remote_node: int, socket_id: int) -> ErSocket | None:
        """The open socket of that number to that node."""
        return self._sockets.get((remote_node, socket_id))

    def _socket_of(self, process: UserProcess, remote_node: int, socket_id: int) -> ErSocket:
        socket = self._sockets.get((remote_node, socket_id))
        if socket is None or socket.process is not process:
            raise EntanglementRequestError(
                f"process {process.pid} has no ER socket {socket_id} to node {remote_node}; "
                "open it first"
            )
        return socket

    # --- requests ---------------------------------------------------------------------

    def create(
        self,
        process: UserProcess,
        remote_node: int,
        socket_id: int,
        qubits: Sequence[int | None],
        arguments: CreateArguments,
        results: int,
        tick: int,
    ) -> UserRequest:
        """Register a create request.

        Raises:
            EntanglementRequestError: no such socket, or arrays that do not fit.
            UnreachableFidelityError: better pairs are wanted than can be expected.
            NoQubitError: all pairs are wanted at once, but there are not as many qubits.
            LimitError: too many outstanding requests.
        """
        socket = self._socket_of(process, remote_node, socket_id)
        self._check_fidelity(socket, arguments)
        keep = not arguments.kind.creator_measures
        if keep and arguments.atomic:
            self._check_room(process, arguments.pairs)
        virtuals = self._virtuals(qubits, arguments.pairs) if keep else None
        self._check_results(process, results, arguments.pairs)
        max_ticks = deadline = None
        if arguments.max_time_us:
            max_ticks = -(-arguments.max_time_us * 1000 // self._tick_ns)
            deadline = tick + max_ticks
        request = UserRequest(
            socket,
            arguments.pairs,
            virtuals,
            results,
            tick,
            arguments,
            self.take_create_id(),
            max_ticks,
            deadline,
            serial=_serial(process),
        )
        self._add(process, request)
        return request

    def fidelity_estimate(self, remote_node: int) -> float | None:
        """What fidelity pairs with a node have, from 0 to 1; None if nobody knows."""
        estimate = self._link_fidelity.get(remote_node)
        if estimate is None and remote_node in self.routes:
            estimate = self.routes[remote_node].fidelity
        return estimate

    def _check_fidelity(self, socket: ErSocket, arguments: CreateArguments) -> None:
        wish = arguments.min_fidelity_percent
        if not wish and socket.min_fidelity < _NO_WISH_PERCENT:
            wish = socket.min_fidelity
        estimate = self.fidelity_estimate(socket.remote_node)
        if estimate is not None and wish > 100 * estimate:
            raise UnreachableFidelityError(
                f"the request on ER socket {socket.socket_id} is for a fidelity of {wish} % at "
                f"least; pairs with node {socket.remote_node} have an estimated "
                f"{100 * estimate:.1f} %"
            )

    def take_create_id(self) -> int:
        """A number for a create request of this node."""
        number = self._next_create_id
        self._next_create_id = (number + 1) & INT32_MAX
        return number

    def receive(
        self,
        process: UserProcess,
        remote_node: int,
        socket_id: int,
        qubits: Sequence[int | None] | None,
        results: int,
        tick: int,
    ) -> UserRequest:
        """Register a receive request; takes pairs that already wait.

        Args:
            process: whose request it is.
            remote_node: node of the other end.
            socket_id: our end of the ER socket.
            qubits: virtual qubit per pair; None, or too few, if all are to be measured.
            results: address of the result array, whose length says how many pairs.
            tick: now.

        Raises:
            EntanglementRequestError: no such socket, arrays that do not fit, the other end
                has asked for something else, or will not ask for anything.
            LimitError: too many outstanding requests.
            PeerLostError: the pairs promised on this socket will not come.
        """
        socket = self._socket_of(process, remote_node, socket_id)
        promise = socket.first_untaken()
        if socket.lost is not None and promise is None:
            raise socket.lost
        if socket.receiving >= self._limits.receive_requests:
            raise LimitError(
                f"ER socket {socket_id} has receive_requests="
                f"{self._limits.receive_requests} outstanding, the limit"
            )
        pairs = len(process.memory.array(results)) // RESULTS_PER_PAIR
        self._check_results(process, results, pairs)
        # A receive request does not say its type; qubits are needed only if pairs are kept.
        virtuals = self._virtuals(qubits, pairs, required=False) if qubits else None
        request = UserRequest(socket, pairs, virtuals, results, tick, serial=_serial(process))
        if promise is not None:
            try:
                check_fit(promise, request)
            except EntanglementRequestError as error:
                promise.refuse(str(error))
                self._drop(promise)
                raise
        self._add(process, request)
        if promise is None:
            socket.receives.append(request)
            return request
        self._take(promise, request)
        self._hand_over_kept(promise)
        return request

    def _add(self, process: UserProcess, request: UserRequest) -> None:
        mine = self._outstanding.setdefault(process.pid, {})
        if len(mine) >= self._limits.entanglement_requests:
            raise LimitError(
                f"process {process.pid} has entanglement_requests={len(mine)} outstanding, "
                "the limit"
            )
        mine[request] = None

    def _virtuals(
        self, qubits: Sequence[int | None], pairs: int, *, required: bool = True
    ) -> tuple[int, ...] | None:
        virtuals = [virtual for virtual in qubits[:pairs] if virtual is not None]
        if len(virtuals) < pairs:
            if not required:
                return None
            raise EntanglementRequestError(
                f"the request is for {pairs} pairs but its array names {len(virtuals)} qubits"
            )
        return tuple(virtuals)

    @staticmethod
    def _check_results(process: UserProcess, results: int, pairs: int) -> None:
        length = len(process.memory.array(results))
        if length < pairs * RESULTS_PER_PAIR:
            raise EntanglementRequestError(
                f"result array @{results} has {length} entries; {pairs} pairs need "
                f"{pairs * RESULTS_PER_PAIR}"
            )

    def is_expected(self, pid: int, virtual: int) -> bool:
        """Whether an outstanding request will map this virtual qubit of the process."""
        return any(
            virtual in request.virtuals[request.delivered :]
            for request in self._outstanding.get(pid, ())
            if request.virtuals is not None
        )

    def outstanding(self, pid: int) -> int:
        """How many requests of a process are not done."""
        return len(self._outstanding.get(pid, ()))

    def requests_of(self, pid: int) -> tuple[UserRequest, ...]:
        """The requests of a process that are not done, oldest first."""
        return tuple(self._outstanding.get(pid, ()))

    def is_result_pending(self, pid: int, address: int) -> bool:
        """Whether an outstanding request of the process still writes to this array."""
        return any(request.results == address for request in self._outstanding.get(pid, ()))

    def check_wait(self, process: UserProcess) -> None:
        """Whether what a process begins to wait for can come while it waits.

        Raises:
            NoQubitError: it would need a qubit, and the process has all it may have, or all
                there are.
            QubitAccessError: it would go to a virtual qubit that is in use.
        """
        mine = self._outstanding.get(process.pid)
        if not mine:
            return
        held = len(self._qmmu.owned(process.pid)) + sum(
            promise.socket.process is process for promise in self._keepers.values()
        )
        if held >= self._qmmu.size:
            raise NoQubitError(
                f"the program waits for entanglement, but holds all {held} qubits of the "
                "device, pairs it has not received included; measure or free one first"
            )
        if any(self.may_take(request) for request in mine):
            return
        virtual = next(iter(mine)).next_virtual
        assert virtual is not None
        if self._qmmu.physical(process.pid, virtual) is not None:
            raise QubitAccessError(
                f"the program waits for an entangled qubit as virtual qubit {virtual}, which is "
                "already allocated; free it first or use another address"
            )
        raise NoQubitError(
            f"the program waits for an entangled qubit, but registered for {process.max_qubits} "
            "and holds as many; free one first, or register with a larger max_qubits"
        )

    # --- the end of requests, sockets and processes -----------------------------------

    def other_end_closed(self, socket: ErSocket, error: QNodeOSError) -> UserProcess | None:
        """The program at the other end of a socket has ended.

        What it has promised may still come: what it made last is on its way.

        Returns:
            The process if it waits for something that was not promised, to be told.
        """
        socket.lost = error
        return socket.process if socket.receives else None

    def forget(self, pid: int, serial: int) -> list[UserRequest]:
        """Forget the requests one subroutine of a process made; returns the create requests.

        The promise a receive request had taken is there for the next one, unless some of its
        pairs have been handed over: then the creator is told that its request is off.
        """
        mine = self._outstanding.get(pid, {})
        forgotten = [request for request in mine if request.serial == serial]
        for request in forgotten:
            del mine[request]
            promise = request.promise
            if promise is not None and not request.delivered:
                promise.taker = None
                self._unblock(promise)
            elif promise is not None:
                promise.refuse(
                    "the program there has cancelled its receive request after "
                    f"{request.delivered} of {request.pairs} pairs"
                )
                self._drop(promise)
            elif request.arguments is None:
                request.socket.receives.remove(request)
        return [request for request in forgotten if request.arguments is not None]

    def neglected(self, pid: int) -> EntanglementRequestError | None:
        """What to tell a program that ends without having received what was made for it."""
        for socket in self._sockets_of.get(pid, ()):
            for promise in socket.promises.values():
                if promise.unclaimed:
                    return EntanglementRequestError(
                        f"the program has ended, but {len(promise.unclaimed)} of {promise.pairs} "
                        f"pairs that node {socket.remote_node} asked for on ER socket "
                        f"{socket.socket_id} were never received; every create request needs a "
                        "receive request"
                    )
        return None

    def close_process(self, pid: int) -> list[ErSocket]:
        """Forget the sockets and requests of a process; returns its sockets.

        Qubits of unclaimed pairs are released. The sockets still name what they were promised.
        """
        self._outstanding.pop(pid, None)
        self._blocked.pop(pid, None)
        closed = self._sockets_of.pop(pid, [])
        for socket in closed:
            del self._sockets[socket.remote_node, socket.socket_id]
            socket.receives.clear()
            for promise in socket.promises.values():
                self._release(promise)
        return closed

    def sockets_to(self, remote_node: int) -> list[ErSocket]:
        """The open sockets to a node."""
        return [socket for (node, _), socket in self._sockets.items() if node == remote_node]


def _serial(process: UserProcess) -> int:
    return process.current.serial if process.current is not None else -1
