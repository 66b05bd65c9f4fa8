"""The entanglement management unit: ER sockets, requests, and delivery of pairs.

A program opens ER sockets, each naming a remote node and the socket at its other end. A
create request on one makes both nodes generate pairs; at the other end it is a promise, until
a receive request takes it and says where its pairs go. The creator suffices: a pair may arrive
before anybody asked for it, and then waits, owned by the network process, for the receive
request. The two have to agree on the number of pairs and on whether the receiver measures;
if they do not, both programs are told as soon as the two meet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from qnodeos.api.peer import EntanglementType
from qnodeos.errors import (
    CallerError,
    EntanglementRequestError,
    LimitError,
    NoQubitError,
    QNodeOSError,
    QubitAccessError,
    UnreachableFidelityError,
)
from qnodeos.limits import Limits
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.er_sockets import ErSocket, Pair, Promise, UserRequest
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.requests import (
    RESULTS_PER_PAIR,
    CreateArguments,
    PairResult,
    as_phi_plus,
)
from qnodeos.qnpu.routes import Route

INT32_MAX: Final = 2**31 - 1

_NO_WISH_PERCENT: Final = 100
"""min_fidelity of an ER socket that says nothing: netqasm 2.3.0 opens every socket with it."""

__all__ = ["INT32_MAX", "EntanglementManager", "ErSocket", "Pair", "Promise", "UserRequest"]


class EntanglementManager:
    """Sockets, requests and delivery; pure bookkeeping.

    Args:
        peers: node ids that can be named, and the device's link to each.
        delivered: called after a pair was handed to a process.
        link_fidelity: estimate, from 0 to 1, of the pairs with neighbours, where known.
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
        self._qmmu = qmmu
        self._limits = limits
        self._tick_ns = tick_ns
        self._peers = peers
        self._delivered = delivered
        self._sockets: dict[tuple[int, int], ErSocket] = {}
        self._sockets_of: dict[int, list[ErSocket]] = {}
        self._keepers: dict[int, Promise] = {}  # of the qubits of unclaimed pairs
        self._blocked: dict[int, dict[Promise, None]] = {}  # by process: its qubit is in use
        self._outstanding: dict[int, dict[UserRequest, None]] = {}
        self._next_create_id = 0
        self._link_fidelity = link_fidelity or {}
        self.routes: Mapping[int, Route] = {}
        """How to reach nodes that are no neighbours."""

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

    def _check_room(self, process: UserProcess, pairs: int) -> None:
        if pairs > min(self._qmmu.size, process.max_qubits):
            raise NoQubitError(
                f"{pairs} pairs are to be held at once (atomic), but a program may hold "
                f"{process.max_qubits} qubits, of {self._qmmu.size} of the device"
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
        self._add(process, request)
        if promise is None:
            socket.receives.append(request)
            return request
        try:
            _check_fit(promise, request)
        except EntanglementRequestError as error:
            promise.refuse(str(error))
            self._drop(promise)
            raise
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

    def is_result_pending(self, pid: int, address: int) -> bool:
        """Whether an outstanding request of the process still writes to this array."""
        return any(request.results == address for request in self._outstanding.get(pid, ()))

    def may_take(self, request: UserRequest) -> bool:
        """Whether the program has room for the next pair of a request.

        With pairs one after the other in the same virtual qubit, the next is not made before
        the program has freed it.
        """
        virtual, process = request.next_virtual, request.socket.process
        return virtual is None or (
            self._qmmu.physical(process.pid, virtual) is None
            and len(self._qmmu.owned(process.pid)) < process.max_qubits
        )

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

    # --- promises ---------------------------------------------------------------------

    def promised(
        self,
        socket: ErSocket,
        create_id: int,
        kind: EntanglementType,
        pairs: int,
        refuse: Callable[[str], None],
        *,
        atomic: bool = False,
    ) -> None:
        """The other end's create request is agreed to; its pairs will be delivered here.

        Args:
            socket: our end.
            create_id: the creator's number of it.
            kind: what becomes of the halves.
            pairs: how many.
            refuse: tells the creator, with a reason, that it is off.
            atomic: whether all pairs have to be held at once.

        Raises:
            EntanglementRequestError: the receive request that waits is for something else.
            NoQubitError: the program cannot hold that many.
        """
        if atomic and not kind.receiver_measures:
            self._check_room(socket.process, pairs)
        promise = Promise(socket, create_id, kind, pairs, refuse)
        if socket.receives:
            _check_fit(promise, socket.receives[0])
            self._take(promise, socket.receives.popleft())
        socket.lost = None
        socket.promises[create_id] = promise

    @staticmethod
    def _take(promise: Promise, request: UserRequest) -> None:
        promise.taker, request.promise = request, promise

    def break_promise(
        self, socket: ErSocket, create_id: int, error: QNodeOSError
    ) -> UserProcess | None:
        """Pairs that were promised will not come.

        Args:
            socket: our end.
            create_id: the creator's number of the request.
            error: why.

        Returns:
            The process that waits for them, to be told. If there is none, the next receive
            request is told.
        """
        promise = socket.promises.get(create_id)
        if promise is None:
            return None
        self._drop(promise)
        if promise.taker is not None:
            return socket.process
        socket.lost = error
        return None

    def _drop(self, promise: Promise) -> None:
        promise.socket.promises.pop(promise.create_id, None)
        self._unblock(promise)
        while promise.unclaimed:
            physical = self._claim(promise).physical
            if physical is not None:
                self._qmmu.release(physical)

    # --- delivery ---------------------------------------------------------------------

    def deliver_to_creator(self, request: UserRequest, pair: Pair) -> None:
        """Hand the next pair of a create request to its process.

        Raises:
            CallerError: the process cannot take the qubit; it is at fault.
        """
        self._hand_over(request, pair)

    def deliver_to_receiver(self, socket: ErSocket, pair: Pair) -> None:
        """Hand a pair to the receive request that takes it, or keep it.

        Raises:
            CallerError: the process cannot take the qubit; it is at fault.
        """
        promise = socket.promises.get(pair.create_id)
        if promise is None:  # it was broken while the pair was being made
            if pair.physical is not None:
                self._qmmu.release(pair.physical)
            return
        if socket.unclaimed >= self._limits.unclaimed_pairs:
            if pair.physical is not None:
                self._qmmu.release(pair.physical)
            raise LimitError(
                f"ER socket {socket.socket_id} to node {socket.remote_node} holds "
                f"unclaimed_pairs={self._limits.unclaimed_pairs}, the limit; receive them"
            )
        promise.unclaimed.append(pair)
        if pair.physical is not None:
            self._keepers[pair.physical] = promise
        self._hand_over_kept(promise)

    def _hand_over_kept(self, promise: Promise) -> None:
        request = promise.taker
        while request is not None and promise.unclaimed:
            if not self.may_take(request):
                self._blocked.setdefault(promise.socket.process.pid, {})[promise] = None
                return
            self._hand_over(request, self._claim(promise))
        self._unblock(promise)

    def _unblock(self, promise: Promise) -> None:
        pid = promise.socket.process.pid
        blocked = self._blocked.get(pid, {})
        if blocked.pop(promise, promise) is None and not blocked:
            del self._blocked[pid]

    def freed(self, process: UserProcess) -> None:
        """A process has freed a qubit: hand over pairs that waited for that.

        Raises:
            CallerError: the process cannot take one; it is at fault.
        """
        for promise in list(self._blocked.get(process.pid, ())):
            self._hand_over_kept(promise)

    def is_ready_for(self, socket: ErSocket, create_id: int) -> bool:
        """Whether the next pair of the other end's request has a place to go to."""
        promise = socket.promises.get(create_id)
        if promise is None or promise.taker is None:
            return True
        return not promise.unclaimed and self.may_take(promise.taker)

    def _hand_over(self, request: UserRequest, pair: Pair) -> None:
        socket = request.socket
        process = socket.process
        is_receiver = request.arguments is None
        duration_us = (pair.ready_tick - pair.since_tick) * self._tick_ns // 1000
        result = PairResult(
            pair.create_id,
            pair.sequence,
            socket.socket_id,
            socket.remote_node,
            is_receiver,
            min(max(duration_us, 0), INT32_MAX),
            BellState.PHI_PLUS if pair.is_phi_plus else pair.bell_state,
        )
        if pair.physical is not None:
            assert request.virtuals is not None, "its type was checked"
            virtual = request.virtuals[request.delivered]
            try:
                self._qmmu.transfer(pair.physical, process.pid, virtual, process.max_qubits)
            except CallerError:
                self._qmmu.release(pair.physical)
                raise
            values = result.keep(virtual)
        else:
            assert pair.outcome is not None
            outcome, basis = pair.outcome, pair.basis if pair.basis is not None else 0
            if is_receiver and pair.is_phi_plus:
                outcome, basis = as_phi_plus(pair.bell_state, basis, outcome)
            values = result.measured(outcome, basis)
        start = request.delivered * RESULTS_PER_PAIR
        # The program may have replaced the array since it made the request.
        array = process.memory.entry(request.results, start + RESULTS_PER_PAIR - 1)
        array[start : start + RESULTS_PER_PAIR] = values
        request.delivered += 1
        if request.is_done:
            del self._outstanding[process.pid][request]
            if is_receiver:
                del socket.promises[pair.create_id]
        self._delivered(process, pair)

    def holders(self, among: Collection[int]) -> set[int]:
        """Processes for which one of some physical qubits is kept: they have yet to receive it."""
        keepers = (self._keepers.get(physical) for physical in among)
        return {promise.socket.process.pid for promise in keepers if promise is not None}

    def _claim(self, promise: Promise) -> Pair:
        """The oldest pair of a promise that is kept; it is kept no more."""
        pair = promise.unclaimed.popleft()
        if pair.physical is not None:
            del self._keepers[pair.physical]
        return pair

    @property
    def kept(self) -> int:
        """How many physical qubits hold pairs that their programs have yet to receive."""
        return len(self._keepers)

    def keeper(self, physical: int) -> UserProcess | None:
        """The process for which a physical qubit is kept, None if it is not."""
        promise = self._keepers.get(physical)
        return None if promise is None else promise.socket.process

    def moved(self, old: int, new: int) -> None:
        """The state of a qubit that is kept is in another physical qubit now."""
        promise = self._keepers[new] = self._keepers.pop(old)
        place = next(i for i, pair in enumerate(promise.unclaimed) if pair.physical == old)
        promise.unclaimed[place] = replace(promise.unclaimed[place], physical=new)

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
                while promise.unclaimed:
                    physical = self._claim(promise).physical
                    if physical is not None:
                        self._qmmu.release(physical)
        return closed

    def sockets_to(self, remote_node: int) -> list[ErSocket]:
        """The open sockets to a node."""
        return [socket for (node, _), socket in self._sockets.items() if node == remote_node]


def _serial(process: UserProcess) -> int:
    return process.current.serial if process.current is not None else -1


def _check_fit(promise: Promise, request: UserRequest) -> None:
    """Whether a create request and the receive request it meets ask for the same.

    Raises:
        EntanglementRequestError: they do not. The text is for both ends.
    """
    socket = promise.socket
    ends = (
        f"the create request on ER socket {socket.remote_socket_id} of node {socket.remote_node} "
        f"and the receive request on ER socket {socket.socket_id} of its partner do not fit"
    )
    if promise.pairs != request.pairs:
        raise EntanglementRequestError(
            f"{ends}: one is for {promise.pairs} pairs, the other for {request.pairs}"
        )
    if promise.kind.receiver_measures and request.virtuals is not None:
        raise EntanglementRequestError(
            f"{ends}: one has both halves measured (M), the other names virtual qubits to keep "
            "its halves in; use create_keep with recv_keep, create_measure with recv_measure"
        )
    if not promise.kind.receiver_measures and request.virtuals is None:
        raise EntanglementRequestError(
            f"{ends}: one has the receiver keep its halves ({promise.kind.name.lower()}), the "
            "other names no virtual qubit for them; use create_keep with recv_keep, create_rsp "
            "with recv_rsp, create_measure with recv_measure"
        )
