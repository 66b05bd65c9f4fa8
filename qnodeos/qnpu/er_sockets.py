"""What the entanglement management unit keeps: ER sockets, requests, promises and pairs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from qnodeos.api.peer import EntanglementType
from qnodeos.errors import QNodeOSError
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.requests import CreateArguments


@dataclass(eq=False, slots=True)
class ErSocket:
    """One end of an ER socket.

    Attributes:
        min_fidelity: what the program wants of its pairs, in percent.
        receives: receive requests that nothing was promised for yet, oldest first.
        promises: create requests of the other end by their numbers, oldest first, until all
            their pairs have been handed over.
        lost: why the other end will not make what a receive request asks for.
    """

    process: UserProcess
    socket_id: int
    remote_node: int
    remote_socket_id: int
    min_fidelity: int
    receives: deque[UserRequest] = field(default_factory=deque)
    promises: dict[int, Promise] = field(default_factory=dict)
    lost: QNodeOSError | None = None

    @property
    def unclaimed(self) -> int:
        """Pairs that wait for a receive request, or for its virtual qubit to be free."""
        return sum(len(promise.unclaimed) for promise in self.promises.values())

    @property
    def receiving(self) -> int:
        """Receive requests that are not done."""
        taken = sum(promise.taker is not None for promise in self.promises.values())
        return len(self.receives) + taken

    def first_untaken(self) -> Promise | None:
        """The oldest promise that no receive request has taken."""
        return next((each for each in self.promises.values() if each.taker is None), None)


@dataclass(eq=False, slots=True)
class UserRequest:
    """A create or receive request of a process, and how far it is.

    Attributes:
        virtuals: virtual qubit per pair; None if our halves are measured at once.
        results: address of the result array.
        delivered: pairs handed over so far.
        arguments: the creator's arguments; None for a receive request.
        create_id: the creator's number of the request; -1 for a receive request.
        since_tick: when it was made.
        max_ticks: longest time from its start to its first pair, and between two; None for
            any.
        deadline_tick: when the next pair must have come; None for never.
        serial: number of the subroutine that made it, within its process.
        promise: receive request: what it has taken, if anything.
    """

    socket: ErSocket
    pairs: int
    virtuals: tuple[int, ...] | None
    results: int
    since_tick: int
    arguments: CreateArguments | None = None
    create_id: int = -1
    max_ticks: int | None = None
    deadline_tick: int | None = None
    delivered: int = 0
    serial: int = -1
    promise: Promise | None = None

    @property
    def is_done(self) -> bool:
        """Whether all its pairs have been handed over."""
        return self.delivered >= self.pairs

    @property
    def next_virtual(self) -> int | None:
        """Virtual qubit of the next pair; None if there is none."""
        return None if self.virtuals is None or self.is_done else self.virtuals[self.delivered]


@dataclass(eq=False, slots=True)
class Promise:
    """A create request of the other end that this node has agreed to.

    The first receive request takes the first promise, the second the second. So the pairs of
    one create request go to one receive request, whatever the order in which they are made.

    Attributes:
        create_id: the creator's number of it.
        refuse: tells the creator, with a reason, that its request is off.
        taker: the receive request its pairs go to.
        unclaimed: pairs not handed over yet, oldest first.
    """

    socket: ErSocket
    create_id: int
    kind: EntanglementType
    pairs: int
    refuse: Callable[[str], None]
    taker: UserRequest | None = None
    unclaimed: deque[Pair] = field(default_factory=deque)

    @property
    def delivered(self) -> int:
        """Pairs handed over so far."""
        return 0 if self.taker is None else self.taker.delivered


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair of which this node holds or has measured its half.

    Attributes:
        physical: physical qubit of the half kept, None if it was measured.
        outcome: result of the measurement, None if the half was kept.
        basis: basis code of the measurement, None if it is no Pauli basis.
        bell_state: state that was heralded. A kept half has been turned into Phi+ by the
            receiver; a measured one is accounted for at delivery.
        ready_tick: when the creator saw the herald.
        is_phi_plus: whether that makes both halves those of Phi+; otherwise the programs
            are told the Bell state that was heralded.
        since_tick: when both ends began to make the pairs of the request. Like `ready_tick`
            the same moment at both ends, which therefore tell their programs the same.
    """

    create_id: int
    sequence: int
    physical: int | None
    outcome: int | None
    basis: int | None
    bell_state: BellState
    ready_tick: int
    is_phi_plus: bool
    since_tick: int = 0
