"""QNPU to QNPU: the messages of the link layer (EGP).

The creator of a request offers it; the peer accepts once the ER socket it names is open.
Both then attempt entanglement in the same time bins. After each herald the creator
announces which pair of which request it was, and the receiver delivers it.
"""

from __future__ import annotations

from dataclasses import dataclass

from qnodeos.qdevice.outcomes import BellState


@dataclass(frozen=True, slots=True)
class RequestTerms:
    """What both ends must know of an entanglement request.

    Attributes:
        socket_id: ER socket at the creator.
        remote_socket_id: ER socket at the receiver.
        measure_directly: False: both ends keep their qubit; True: both measure at once.
        pairs: number of pairs.
        remote_rotations: (axis, steps of pi/16) the receiver applies before measuring.
        remote_random_basis: NetQASM's RandomBasis code for the receiver, 0 for none.
        start_bin: first time bin in which both attempt it, if it is accepted by then.
    """

    socket_id: int
    remote_socket_id: int
    measure_directly: bool
    pairs: int
    remote_rotations: tuple[tuple[int, int], ...]
    remote_random_basis: int
    start_bin: int


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


PeerMessage = Offer | Accept | Reject | Cancel | Announce | PairLost
