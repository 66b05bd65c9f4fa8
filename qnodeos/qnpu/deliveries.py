"""Promises and the delivery of pairs: from the link and network layers to programs.

A create request of the other end that was agreed to is a promise, until all its pairs have been
handed over. The first receive request on a socket takes the first promise, the second the
second. A pair that comes before it is taken, or while its virtual qubit is in use, is kept: its
qubit belongs to the network process meanwhile. It is not kept for ever: if nobody receives it in
time, both programs are told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from qnodeos.api.peer import EntanglementType
from qnodeos.errors import (
    CallerError,
    EntanglementRequestError,
    EntanglementTimeoutError,
    LimitError,
    NoQubitError,
    QNodeOSError,
)
from qnodeos.limits import Limits
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.er_sockets import ErSocket, Pair, Promise, UserRequest
from qnodeos.qnpu.isa import INT32_MAX
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.requests import RESULTS_PER_PAIR, PairResult, as_phi_plus


class Deliveries:
    """Promises, pairs that are kept, and results in the arrays of programs.

    Args:
        qmmu: knows who owns what.
        limits: all bounds.
        tick_ns: length of a tick.
        delivered: called after a pair was handed to a process.
    """

    def __init__(
        self,
        qmmu: QMMU,
        limits: Limits,
        tick_ns: int,
        delivered: Callable[[UserProcess, Pair], None],
    ) -> None:
        self._qmmu = qmmu
        self._limits = limits
        self._tick_ns = tick_ns
        self._delivered = delivered
        self._keepers: dict[int, Promise] = {}  # of the qubits of unclaimed pairs
        self._blocked: dict[int, dict[Promise, None]] = {}  # by process: its qubit is in use
        self._unreceived: dict[Promise, int] = {}  # with pairs nobody has asked for, and until when
        self._outstanding: dict[int, dict[UserRequest, None]] = {}

    def is_outstanding(self, request: UserRequest) -> bool:
        """Whether a request waits for pairs: it is not done, nor has it been forgotten."""
        return request in self._outstanding.get(request.socket.process.pid, ())

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

    def _check_room(self, process: UserProcess, pairs: int) -> None:
        if pairs > min(self._qmmu.size, process.max_qubits):
            raise NoQubitError(
                f"{pairs} pairs are to be held at once (atomic), but a program may hold "
                f"{process.max_qubits} qubits, of {self._qmmu.size} of the device"
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
            EntanglementRequestError: the receive request that waits is for something else, or
                a request of that number is promised already.
            NoQubitError: the program cannot hold that many.
        """
        if create_id in socket.promises:
            raise EntanglementRequestError(
                f"node {socket.remote_node} asks twice for request {create_id} on ER socket "
                f"{socket.socket_id}"
            )
        if atomic and not kind.receiver_measures:
            self._check_room(socket.process, pairs)
        promise = Promise(socket, create_id, kind, pairs, refuse)
        if socket.receives:
            check_fit(promise, socket.receives[0])
            self._take(promise, socket.receives.popleft())
        socket.lost = None
        socket.promises[create_id] = promise

    def _take(self, promise: Promise, request: UserRequest) -> None:
        promise.taker, request.promise = request, promise
        self._unreceived.pop(promise, None)

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
        self._release(promise)

    def _release(self, promise: Promise) -> None:
        """Give up the pairs of a promise that nobody has received."""
        self._unreceived.pop(promise, None)
        while promise.unclaimed:
            physical = self._claim(promise).physical
            if physical is not None:
                self._qmmu.release(physical)

    @property
    def deadline_tick(self) -> int | None:
        """First tick at which `expire` has something to do."""
        return min(self._unreceived.values()) if self._unreceived else None

    def expire(self, tick: int) -> list[tuple[UserProcess, EntanglementTimeoutError]]:
        """Give up pairs that nobody has received in time, and tell their creators.

        Returns:
            The processes that should have received them, and what to tell them.
        """
        late = [promise for promise, until in self._unreceived.items() if tick >= until]
        told = []
        for promise in late:
            socket, made = promise.socket, len(promise.unclaimed)
            error = EntanglementTimeoutError(
                f"{made} of {promise.pairs} pairs that the program at node {socket.remote_node} "
                f"asked for on ER socket {socket.remote_socket_id} were not received on ER socket "
                f"{socket.socket_id} of its partner within offer_timeout_ticks="
                f"{self._limits.offer_timeout_ticks}; every create request needs a receive request"
            )
            promise.refuse(str(error))
            self._drop(promise)
            told.append((socket.process, error))
        return told

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
        if promise.taker is None:
            until_tick = pair.ready_tick + self._limits.offer_timeout_ticks
            self._unreceived.setdefault(promise, until_tick)
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
        if promise is None:
            return True
        if promise.taker is None:
            return self._may_come_early(promise)
        return not promise.unclaimed and self.may_take(promise.taker)

    def _may_come_early(self, promise: Promise) -> bool:
        """Whether a pair may come that nobody has asked for yet.

        It does not take the last of several qubits: the program may need that one on its way
        to where it asks.
        """
        qmmu = self._qmmu
        return promise.kind.receiver_measures or qmmu.size == 1 or len(qmmu.free_qubits()) > 1

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


def check_fit(promise: Promise, request: UserRequest) -> None:
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
