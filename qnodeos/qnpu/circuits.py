"""Circuits: what a node knows of a request whose pairs are made over several links.

Every node on the path goes through the same states. The head is the creator's node, the tail
the receiver's; those between are repeaters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from qnodeos.api.peer import CircuitId, CircuitTerms, Offer, Segment
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu import diagram
from qnodeos.qnpu.er_sockets import ErSocket, UserRequest
from qnodeos.qnpu.link_queue import LinkRequest

Turn = tuple[int, int, int]
"""Of an attempt: the time bin it was called for in, and its circuit. The same at all nodes."""


class CircuitState(Enum):
    """Where a node is with a circuit."""

    QUEUED = "queued"  # head: not forwarded yet
    OPENING = "opening"  # forwarded; the tail has not accepted it yet
    WAITING = "waiting"  # repeater: for its turn
    MAKING = "making"  # our segments are being made, or wait for each other
    JOINING = "joining"  # the swap, or what the tail does with its half, is under way
    JOINED = "joined"  # our part of the attempt is done
    DONE = "done"  # so are all pairs; the head has the last word
    ENDED = "ended"

    __hash__ = object.__hash__  # Enum's own hashes the name, in Python, on every look-up


class CircuitEvent(Enum):
    """What moves a circuit from one state to another."""

    FORWARDED = "forwarded"
    TURNED_AWAY = "turned away"
    BEGUN = "attempt begun"
    ADMITTED = "admitted"
    PARTS_HERE = "parts here"
    JOINED = "joined"
    COMPLETED = "last pair complete"
    ENDED = "ended"

    __hash__ = object.__hash__


_S, _E = CircuitState, CircuitEvent

TRANSITIONS: Final[dict[tuple[CircuitState, CircuitEvent], CircuitState]] = {
    (_S.QUEUED, _E.FORWARDED): _S.OPENING,
    (_S.OPENING, _E.TURNED_AWAY): _S.QUEUED,
    (_S.OPENING, _E.BEGUN): _S.WAITING,
    (_S.WAITING, _E.ADMITTED): _S.MAKING,
    (_S.MAKING, _E.PARTS_HERE): _S.JOINING,
    (_S.MAKING, _E.JOINED): _S.JOINED,  # head: there is nothing to join
    (_S.JOINING, _E.JOINED): _S.JOINED,
    (_S.JOINED, _E.COMPLETED): _S.DONE,
    (_S.WAITING, _E.BEGUN): _S.WAITING,
    (_S.MAKING, _E.BEGUN): _S.WAITING,
    (_S.JOINING, _E.BEGUN): _S.WAITING,
    (_S.JOINED, _E.BEGUN): _S.WAITING,
    **{(state, _E.ENDED): _S.ENDED for state in _S if state is not _S.ENDED},
}
"""(state, event) -> next state. Whatever is not here is a defect of the network layer."""


_ATTEMPTING: Final = frozenset({_S.WAITING, _S.MAKING, _S.JOINING, _S.JOINED})


def state_diagram() -> str:
    """The table as a Mermaid state diagram, for the documentation; without sudden ends."""
    transitions = ((*begin, end) for begin, end in TRANSITIONS.items() if begin[1] is not _E.ENDED)
    return diagram.state_diagram(transitions, _S.QUEUED, _S.DONE)


@dataclass(eq=False, slots=True)
class Half:
    """Our half of a segment's pair.

    Attributes:
        physical: the qubit it is in; None if it was lost when it was moved to another one.
    """

    physical: int | None


@dataclass(eq=False, slots=True)
class Circuit:
    """A circuit at one node.

    Attributes:
        destination: node id of the tail.
        predecessor: the neighbour towards the head, None at the head.
        successor: the neighbour towards the tail, None at the tail.
        socket: the ER socket at an end, None at a repeater.
        user: the creator's request at the head.
        pair, attempt: what is being made.
        turn: of this attempt.
        offer: the predecessor's, for its segment, until it is our turn to accept it.
        upstream_request, downstream_request: the segments that are being made, with the
            predecessor and with the successor.
        upstream, downstream: halves that wait for each other, or for the end of the attempt.
        track: Bell state of the pair from the head to us, once we have heard.
        swapped: Bell state that our swap has found.
        is_withdrawn: head: nobody takes the pairs any more.
        offer_tick: head: when the tail must have accepted.
        retry_tick: head: when to forward it again.
        part_tick: when what the state waits for must have come.
        armed_tick: the first of these deadlines.
        why_not: head: why it was turned away last.
    """

    id: CircuitId
    destination: int
    terms: CircuitTerms
    predecessor: int | None
    successor: int | None
    state: CircuitState
    socket: ErSocket | None = None
    user: UserRequest | None = None
    pair: int = 0
    attempt: int = 0
    turn: Turn = (0, 0, 0)
    offer: Offer | None = None
    upstream_request: LinkRequest | None = None
    downstream_request: LinkRequest | None = None
    upstream: Half | None = None
    downstream: Half | None = None
    track: BellState | None = None
    swapped: BellState | None = None
    is_withdrawn: bool = False
    offer_tick: int | None = None
    retry_tick: int | None = None
    part_tick: int | None = None
    armed_tick: int | None = None
    why_not: str = ""

    def handle(self, event: CircuitEvent) -> None:
        """Move to the next state.

        Raises:
            RuntimeError: the transition does not exist: a defect of the network layer.
        """
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise RuntimeError(
                f"circuit {self.id} is {self.state.value} and cannot be {event.value}"
            ) from None

    @property
    def is_head(self) -> bool:
        """Whether the creator is here."""
        return self.predecessor is None

    @property
    def is_tail(self) -> bool:
        """Whether the receiver is here."""
        return self.successor is None

    @property
    def is_repeater(self) -> bool:
        """Whether both are elsewhere."""
        return self.predecessor is not None and self.successor is not None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to be done for it here."""
        return self.state is CircuitState.ENDED

    @property
    def is_attempting(self) -> bool:
        """Whether an attempt at a pair is under way."""
        return self.state in _ATTEMPTING

    @property
    def qubits(self) -> int:
        """How many an attempt takes here."""
        return 2 if self.is_repeater else 1

    @property
    def place(self) -> tuple[int, int]:
        """The pair and the attempt that are being made."""
        return self.pair, self.attempt

    @property
    def segment(self) -> Segment:
        """What the present segments are for."""
        return Segment(self.id, self.pair, self.attempt)

    @property
    def due_tick(self) -> int | None:
        """The first of its deadlines."""
        user_tick = None if self.user is None or self.is_withdrawn else self.user.deadline_tick
        ticks = (self.offer_tick, self.retry_tick, self.part_tick, user_tick)
        return min((tick for tick in ticks if tick is not None), default=None)


_PAULIS: Final = (0, 1, 3, 2)
"""Each Bell state is Phi+ with a Pauli on one end: bit 0 for X, bit 1 for Z. Its own inverse."""


def join_states(first: BellState, second: BellState) -> BellState:
    """The Bell state of two pairs joined, or of one pair after a swap with some outcome.

    A Bell measurement that finds one state of a half of each of two Phi+ pairs leaves their
    other halves in that state. Paulis on the halves multiply.
    """
    return BellState(_PAULIS[_PAULIS[first] ^ _PAULIS[second]])
