"""QNPU to QNPU: the messages of the link layer (EGP) and of the network layer (QNP).

Link layer, between neighbours: the creator of a request offers it; the peer accepts once the
ER socket it names is open. Both then attempt entanglement in the same time bins. After each
herald the creator announces which pair of which request it was, and the receiver delivers it.

Network layer, between nodes that are no neighbours, passed on from neighbour to neighbour: a
circuit is a request whose pairs are made of one link pair per hop, joined by entanglement
swapping. Its head (the creator's node) forwards it along the route to its tail; what the tail
says passes back. Names are those of the trace events of the published system (QNPD_...).

    head                     repeater                    tail
    Forward --------------->         -------------------> socket open?
            <---------------         <------------------- Pass
    every node makes the segment to its successor with the link layer; repeaters swap
    Track ----------------->  (own swap)  ---------------> correct, deliver
            <---------------         <------------------- Complete: deliver
    Expire <---- whoever lost its part ----> Expire        free the parts, attempt anew
    Teardown <-- whoever ends the circuit -> Teardown      free everything

FarSocket is SocketOpened and SocketClosed for nodes that are no neighbours, FarRefusal a Reject
of pairs that are made already.

Each attempt has a turn: the time bin in which it was called for. Pass, Complete and Expire
carry that of the attempt they begin, so that all nodes put the same attempts first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from qnodeos.qdevice.outcomes import BellState

MAX_PATH: Final = 64
"""Nodes of a circuit's path."""


class EntanglementType(IntEnum):
    """What becomes of the two halves of a pair; NetQASM's codes."""

    KEEP = 0
    MEASURE = 1
    PREPARE = 2

    __hash__ = int.__hash__  # Enum's own hashes the name, in Python, on every look-up

    @property
    def creator_measures(self) -> bool:
        """Whether the creator's half is measured at once."""
        return self is not EntanglementType.KEEP

    @property
    def receiver_measures(self) -> bool:
        """Whether the receiver's half is measured at once."""
        return self is EntanglementType.MEASURE


class CircuitId(NamedTuple):
    """A circuit: the node id of its head, and the head's number of it.

    A request that was turned away, and is forwarded once more, becomes a circuit of another
    number, so that nothing said of the first can be taken for the second.
    """

    head: int
    number: int


class TeardownCause(IntEnum):
    """Why a circuit ends."""

    DONE = 0
    """All its pairs have been delivered."""
    REFUSED = 1
    """It cannot be served."""
    BUSY = 2
    """It cannot be served now; the head may forward the request once more."""
    LOST = 3
    """Two nodes on its path have lost the connection to each other."""
    ENDED = 4
    """The program at one end has ended, or has withdrawn its request."""
    FAILED = 5
    """Too many attempts at a pair came to nothing."""

    __hash__ = int.__hash__


class Segment(NamedTuple):
    """What a link request is for that serves a circuit.

    Attributes:
        circuit: which one.
        pair: number of the pair within the circuit, from 0.
        attempt: how often that pair has been begun before.
    """

    circuit: CircuitId
    pair: int
    attempt: int


@dataclass(frozen=True, slots=True)
class RequestTerms:
    """What both ends must know of an entanglement request.

    Attributes:
        socket_id: ER socket at the creator.
        remote_socket_id: ER socket at the receiver.
        kind: what becomes of the two halves.
        pairs: number of pairs.
        remote_rotations: (axis, steps of pi/16) the receiver applies before measuring.
        remote_random_basis: NetQASM's RandomBasis code for the receiver, 0 for none.
        start_bin: first time bin in which both attempt it, if it is accepted by then.
        priority: requests with a higher one are served first.
        remote_weights: for a random basis at the receiver, NetQASM's two probabilities in
            units of 1/256; (0, 0): all bases are equally likely.
        segment: the part of a circuit that this request is for; None for a request of a
            program, whose sockets the two ids above name.
        atomic: all pairs have to be held at once by whoever keeps them.
        consecutive: no other request of the link comes between its pairs.
    """

    socket_id: int
    remote_socket_id: int
    kind: EntanglementType
    pairs: int
    remote_rotations: tuple[tuple[int, int], ...]
    remote_random_basis: int
    start_bin: int
    priority: int = 0
    remote_weights: tuple[int, int] = (0, 0)
    segment: Segment | None = None
    atomic: bool = False
    consecutive: bool = False

    @property
    def is_uninterrupted(self) -> bool:
        """Whether requests of a higher priority wait once its first pair has been made."""
        return self.atomic or self.consecutive


@dataclass(frozen=True, slots=True)
class Offer:
    """Creator to receiver: please serve this request with me."""

    create_id: int
    terms: RequestTerms


@dataclass(frozen=True, slots=True)
class Accept:
    """Receiver to creator: agreed, from time bin ``start_bin`` on."""

    create_id: int
    start_bin: int


@dataclass(frozen=True, slots=True)
class Reject:
    """Receiver to creator: the request cannot be served (any more)."""

    create_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Creator to receiver: forget the request."""

    create_id: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Creator to receiver: the pair heralded at ``tick`` is this one.

    Attributes:
        create_id: the request.
        index: number of the pair within the request, from 0.
        sequence: number of the pair on this link, the same at both ends.
        bell_state: the Bell state the creator's device reported.
        tick: when the creator's device reported it.
    """

    create_id: int
    index: int
    sequence: int
    bell_state: BellState
    tick: int


@dataclass(frozen=True, slots=True)
class PairLost:
    """Receiver to creator: I have no such pair; yours is worthless, the request is off."""

    create_id: int
    index: int


@dataclass(frozen=True, slots=True)
class SocketOpened:
    """Either end: a program has opened this ER socket.

    Attributes:
        socket_id: ER socket at the sender.
        remote_socket_id: ER socket at the receiver of this message.
    """

    socket_id: int
    remote_socket_id: int


@dataclass(frozen=True, slots=True)
class SocketClosed:
    """Either end: the program that had this ER socket has ended.

    Attributes:
        socket_id: ER socket at the sender.
        remote_socket_id: ER socket at the receiver of this message.
    """

    socket_id: int
    remote_socket_id: int


# --- the network layer ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CircuitTerms:
    """What the nodes of a circuit must know of it; see `RequestTerms`.

    Attributes:
        create_id: the creator's number of the request.
        since_tick: when it made the request.
        atomic: whether the program wants to hold all pairs at once.
    """

    socket_id: int
    remote_socket_id: int
    kind: EntanglementType
    pairs: int
    create_id: int
    since_tick: int
    remote_rotations: tuple[tuple[int, int], ...] = ()
    remote_random_basis: int = 0
    priority: int = 0
    remote_weights: tuple[int, int] = (0, 0)
    atomic: bool = False


@dataclass(frozen=True, slots=True)
class Forward:
    """Towards the tail: please serve this circuit.

    Attributes:
        circuit: its id.
        destination: node id of its tail.
        path: node ids of the nodes it has passed, its head first.
        terms: of the request.
    """

    circuit: CircuitId
    destination: int
    path: tuple[int, ...]
    terms: CircuitTerms


@dataclass(frozen=True, slots=True)
class Pass:
    """Towards the head: the tail has accepted the circuit; begin with pair 0.

    Attributes:
        circuit: its id.
        turn_bin: time bin of the first attempt's turn.
    """

    circuit: CircuitId
    turn_bin: int


@dataclass(frozen=True, slots=True)
class Track:
    """Towards the tail: the state of a pair as far as its segments have been joined.

    Attributes:
        circuit, pair, attempt: see `Segment`.
        bell_state: what the swaps so far have made of it.
    """

    circuit: CircuitId
    pair: int
    attempt: int
    bell_state: BellState


@dataclass(frozen=True, slots=True)
class Complete:
    """Towards the head: the tail has its half of a pair, as Phi+; begin with the next one.

    Attributes:
        circuit, pair, attempt: see `Segment`.
        sequence: the pair's sequence number, which the tail chose.
        tick: when the tail had it.
        turn_bin: time bin of the next pair's turn.
    """

    circuit: CircuitId
    pair: int
    attempt: int
    sequence: int
    tick: int
    turn_bin: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Both ways: an attempt at a pair is off; free its parts and begin the next attempt.

    Attributes:
        circuit, pair, attempt: see `Segment`.
        turn_bin: time bin of the next attempt's turn.
        reason: for people.
    """

    circuit: CircuitId
    pair: int
    attempt: int
    turn_bin: int
    reason: str


@dataclass(frozen=True, slots=True)
class Teardown:
    """Both ways: the circuit has ended."""

    circuit: CircuitId
    cause: TeardownCause
    reason: str


@dataclass(frozen=True, slots=True)
class FarSocket:
    """Passed on to a node that is no neighbour: a program has opened an ER socket, or ended.

    Attributes:
        destination: node id of the node it is for.
        path: node ids of the nodes it has passed, that of the socket first.
        socket_id: ER socket at the first of these.
        remote_socket_id: ER socket at the destination.
        is_open: whether it has been opened.
    """

    destination: int
    path: tuple[int, ...]
    socket_id: int
    remote_socket_id: int
    is_open: bool


@dataclass(frozen=True, slots=True)
class FarRefusal:
    """Passed on to a head: pairs of a circuit that was done are not wanted at its tail.

    Attributes:
        destination: node id of the head.
        path: node ids of the nodes it has passed, the tail first.
        create_id: the head's number of the request.
        reason: for people.
    """

    destination: int
    path: tuple[int, ...]
    create_id: int
    reason: str


LinkLayerMessage = (
    Offer | Accept | Reject | Cancel | Announce | PairLost | SocketOpened | SocketClosed
)
CircuitMessage = Forward | Pass | Track | Complete | Expire | Teardown
FarMessage = FarSocket | FarRefusal
NetworkLayerMessage = CircuitMessage | FarMessage
PeerMessage = LinkLayerMessage | NetworkLayerMessage
