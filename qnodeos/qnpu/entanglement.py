"""The entanglement management unit: ER sockets, requests, and delivery of pairs.

A program opens ER sockets, each naming a remote node and the socket at its other end. A
create request on one makes both nodes generate pairs; a receive request says where the
pairs that arrive on a socket go. The creator suffices: a pair may arrive before anybody
asked for it, and then waits, owned by the network process, for the receive request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from qnodeos.errors import CallerError, EntanglementRequestError, LimitError, PeerLostError
from qnodeos.limits import Limits
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.requests import (
    RESULTS_PER_PAIR,
    CreateArguments,
    PairResult,
    as_phi_plus,
)

INT32_MAX: Final = 2**31 - 1


@dataclass(eq=False, slots=True)
class ErSocket:
    """One end of an ER socket.

    Attributes:
        receives: receive requests that are not done, oldest first.
        unclaimed: pairs that wait for a receive request.
        lost: why pairs that the other end had promised will not come.
    """

    process: UserProcess
    socket_id: int
    remote_node: int
    remote_socket_id: int
    min_fidelity: int
    receives: deque[UserRequest] = field(default_factory=deque)
    unclaimed: deque[Pair] = field(default_factory=deque)
    lost: PeerLostError | None = None


@dataclass(eq=False, slots=True)
class UserRequest:
    """A create or receive request of a process, and how far it is.

    Attributes:
        virtuals: virtual qubit per pair; None if the program gave none (measure directly).
        results: address of the result array.
        delivered: pairs handed over so far.
        arguments: the creator's arguments; None for a receive request.
        create_id: the creator's number of the request; -1 for a receive request.
        since_tick: when it was made.
        deadline_tick: when it expires; None for never.
        serial: number of the subroutine that made it, within its process.
    """

    socket: ErSocket
    pairs: int
    virtuals: tuple[int, ...] | None
    results: int
    since_tick: int
    arguments: CreateArguments | None = None
    create_id: int = -1
    deadline_tick: int | None = None
    delivered: int = 0
    serial: int = -1

    @property
    def is_done(self) -> bool:
        """Whether all its pairs have been handed over."""
        return self.delivered >= self.pairs


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair of which this node holds or has measured its half.

    Attributes:
        physical: physical qubit of the half kept, None if it was measured.
        outcome: result of the measurement, None if the half was kept.
        basis: basis code of the measurement, None if it is no Pauli basis.
        bell_state: state that was heralded. A kept half has been turned into Phi+ by the
            receiver; a measured one is accounted for at delivery.
        ready_tick: when the herald came.
        is_phi_plus: whether that makes both halves those of Phi+; otherwise the programs
            are told the Bell state that was heralded.
    """

    create_id: int
    sequence: int
    physical: int | None
    outcome: int | None
    basis: int | None
    bell_state: BellState
    ready_tick: int
    is_phi_plus: bool


class EntanglementManager:
    """Sockets, requests and delivery; pure bookkeeping.

    Args:
        peers: node ids that can be named, and the device's link to each.
        delivered: called after a pair was handed to a process.
    """

    def __init__(
        self,
        qmmu: QMMU,
        limits: Limits,
        tick_ns: int,
        peers: Mapping[int, int],
        delivered: Callable[[UserProcess, Pair], None],
    ) -> None:
        self._qmmu = qmmu
        self._limits = limits
        self._tick_ns = tick_ns
        self._peers = peers
        self._delivered = delivered
        self._sockets: dict[tuple[int, int], ErSocket] = {}
        self._sockets_of: dict[int, list[ErSocket]] = {}
        self._keepers: dict[int, ErSocket] = {}  # of the qubits of unclaimed pairs
        self._outstanding: dict[int, dict[UserRequest, None]] = {}
        self._next_create_id = 0

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
        if remote_node not in self._peers:
            raise EntanglementRequestError(
                f"ER socket {socket_id} names node {remote_node}, which is no neighbour of "
                f"this node; neighbours are {sorted(self._peers)}"
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
            LimitError: too many outstanding requests.
        """
        socket = self._socket_of(process, remote_node, socket_id)
        keep = not arguments.kind.creator_measures
        virtuals = self._virtuals(qubits, arguments.pairs) if keep else None
        self._check_results(process, results, arguments.pairs)
        deadline = None
        if arguments.max_time_us:
            deadline = tick + -(-arguments.max_time_us * 1000 // self._tick_ns)
        request = UserRequest(
            socket,
            arguments.pairs,
            virtuals,
            results,
            tick,
            arguments,
            self._next_create_id,
            deadline,
            serial=_serial(process),
        )
        self._add(process, request)
        self._next_create_id = (self._next_create_id + 1) & INT32_MAX
        return request

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

        Raises:
            EntanglementRequestError: no such socket, or arrays that do not fit.
            LimitError: too many outstanding requests.
            PeerLostError: the pairs promised on this socket will not come.
        """
        socket = self._socket_of(process, remote_node, socket_id)
        if socket.lost is not None and not socket.unclaimed:
            raise socket.lost
        if len(socket.receives) >= self._limits.receive_requests:
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
        socket.receives.append(request)
        while socket.unclaimed and not request.is_done:
            self._hand_over(request, self._claim(socket))
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

    # --- delivery ---------------------------------------------------------------------

    def deliver_to_creator(self, request: UserRequest, pair: Pair) -> None:
        """Hand the next pair of a create request to its process.

        Raises:
            CallerError: the process cannot take the qubit; it is at fault.
        """
        self._hand_over(request, pair)

    def deliver_to_receiver(self, socket: ErSocket, pair: Pair) -> None:
        """Hand a pair to the oldest receive request of a socket, or keep it for one.

        Raises:
            CallerError: the process cannot take the qubit; it is at fault.
        """
        if socket.receives:
            self._hand_over(socket.receives[0], pair)
        elif len(socket.unclaimed) < self._limits.unclaimed_pairs:
            socket.unclaimed.append(pair)
            if pair.physical is not None:
                self._keepers[pair.physical] = socket
        else:
            if pair.physical is not None:
                self._qmmu.release(pair.physical)
            raise LimitError(
                f"ER socket {socket.socket_id} to node {socket.remote_node} holds "
                f"unclaimed_pairs={self._limits.unclaimed_pairs}, the limit; receive them"
            )

    def _hand_over(self, request: UserRequest, pair: Pair) -> None:
        socket = request.socket
        process = socket.process
        is_receiver = request.arguments is None
        duration_us = (pair.ready_tick - request.since_tick) * self._tick_ns // 1000
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
            if request.virtuals is None:
                self._qmmu.release(pair.physical)
                raise EntanglementRequestError(
                    f"a kept qubit arrived on ER socket {socket.socket_id}, but the receive "
                    "request names no virtual qubit; the creator and the receiver disagree "
                    "on the type of entanglement"
                )
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
                socket.receives.remove(request)
        self._delivered(process, pair)

    def holders(self, among: Collection[int]) -> set[int]:
        """Processes for which one of some physical qubits is kept: they have yet to receive it."""
        keepers = (self._keepers.get(physical) for physical in among)
        return {socket.process.pid for socket in keepers if socket is not None}

    def _claim(self, socket: ErSocket) -> Pair:
        """The oldest pair that a socket keeps; it keeps it no more."""
        pair = socket.unclaimed.popleft()
        if pair.physical is not None:
            del self._keepers[pair.physical]
        return pair

    # --- the end of a process ---------------------------------------------------------

    def forget(self, pid: int, serial: int) -> list[UserRequest]:
        """Forget the requests one subroutine of a process made; returns the create requests."""
        mine = self._outstanding.get(pid, {})
        forgotten = [request for request in mine if request.serial == serial]
        for request in forgotten:
            del mine[request]
            if request.arguments is None:
                request.socket.receives.remove(request)
        return [request for request in forgotten if request.arguments is not None]

    def close_process(self, pid: int) -> list[ErSocket]:
        """Forget the sockets and requests of a process; returns its sockets.

        Qubits of unclaimed pairs are released.
        """
        self._outstanding.pop(pid, None)
        closed = self._sockets_of.pop(pid, [])
        for socket in closed:
            del self._sockets[socket.remote_node, socket.socket_id]
            socket.receives.clear()
            while socket.unclaimed:
                physical = self._claim(socket).physical
                if physical is not None:
                    self._qmmu.release(physical)
        return closed


def _serial(process: UserProcess) -> int:
    return process.current.serial if process.current is not None else -1
