"""What a node knows of one link: the requests in order, and how to find one among many.

The queue is a sorted list. Its other orders (by number, by ER socket, those accepted, those
whose start bin has come) are kept beside it, so that no operation on one request looks at all
of them: it costs a few bisections, and moving the references behind its place in a list.

A bin serves the request of the highest priority whose start bin has come, among equals the
first of the queue. Both ends know it by then, so they choose alike. One that is not to be
interrupted keeps its place from its first pair to its last.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from dataclasses import dataclass
from typing import Final

from qnodeos.api.peer import Announce, Offer, RequestTerms, Segment, SocketClosed
from qnodeos.qnpu.er_sockets import UserRequest
from qnodeos.qnpu.partners import Partners
from qnodeos.qnpu.process import UserProcess

Order = tuple[int, int, int]
Rank = tuple[int, int, int, int]

_REMEMBERED_PAIRS: Final = 64
"""Pairs whose loss a peer may still report."""


@dataclass(eq=False, slots=True)
class LinkRequest:
    """A request as both ends of a link see it.

    Attributes:
        creator: node id of its creator.
        user: the creator's own request; None at the receiver, and for a segment of a
            circuit, which the network layer sees to at both ends.
        accepted: whether both ends have agreed.
        done: pairs heralded so far.
        deadline_tick: creator only: when the peer must have accepted, and bins must exist.
        cancelled: either end has withdrawn it.
        start_bin: first bin in which it is attempted: the one offered, or a later one if
            the receiver accepted late, so that neither end moves it before a request
            that the other is still attempting.
    """

    creator: int
    create_id: int
    peer: int
    terms: RequestTerms
    user: UserRequest | None
    accepted: bool
    deadline_tick: int
    start_bin: int
    done: int = 0
    cancelled: bool = False

    @property
    def order(self) -> Order:
        """Position in the queue, the same at both ends."""
        return self.start_bin, self.creator, self.create_id

    @property
    def rank(self) -> Rank:
        """Who is served first, the same at both ends."""
        return -self.terms.priority, self.start_bin, self.creator, self.create_id

    @property
    def is_theirs(self) -> bool:
        """Whether the neighbour has created it."""
        return self.creator == self.peer

    @property
    def segment(self) -> Segment | None:
        """The part of a circuit it is for, None if it is a program's."""
        return self.terms.segment

    @property
    def is_measured(self) -> bool:
        """Whether our halves are measured at once."""
        kind = self.terms.kind
        return kind.receiver_measures if self.is_theirs else kind.creator_measures

    @property
    def socket_id(self) -> int:
        """Our end of the ER socket it is on."""
        return self.terms.remote_socket_id if self.is_theirs else self.terms.socket_id


class Link:
    """What is known of one neighbour.

    Args:
        most_ends: ER sockets of the neighbour that are known at once.

    Attributes:
        is_up: whether there is a connection to the neighbour.
        queue: requests in order. Changed by `add` and `remove` only; a request in
            it keeps its `accepted`, `start_bin` and terms.
        announced: announcements not matched with a herald of our own yet.
        delivered: (create id, process, tick) of the pairs delivered to programs last, as
            creator.
        segments_made: by create id, the segments whose pairs were announced last, as creator.
        sequence: number of the next pair.
        quiet_before_bin: no attempts before this bin: the head of the queue was withdrawn,
            and until the neighbour has heard of it, it may still attempt that one.
        begun: the request that has its first pair and is not to be interrupted, if any.
        partners: the neighbour's ER sockets.
        closed_meanwhile: of our ER sockets, what the neighbour has to be told when it is back.
    """

    def __init__(self, most_ends: int = 64) -> None:
        self.is_up = True
        self.queue: list[LinkRequest] = []
        self.announced: deque[Announce] = deque()
        self.delivered: deque[tuple[int, UserProcess, int]] = deque(maxlen=_REMEMBERED_PAIRS)
        self.sequence = 0
        self.quiet_before_bin = 0
        self.segments_made: dict[int, Segment] = {}
        self.begun: LinkRequest | None = None
        self.partners = Partners(most_ends)
        self.closed_meanwhile: deque[SocketClosed] = deque(maxlen=most_ends)
        self._accepted: list[LinkRequest] = []
        self._due: list[LinkRequest] = []  # accepted, and to start in a bin up to the horizon
        self._horizon = -1
        self._numbers: dict[tuple[int, int], LinkRequest] = {}
        self._on_socket: dict[int, set[LinkRequest]] = {}
        self._theirs = 0
        self._offers: dict[int, Offer] = {}
        self._offers_to: dict[int, dict[int, Offer]] = {}

    # --- requests ---------------------------------------------------------------------

    @property
    def first(self) -> LinkRequest | None:
        """The first accepted request of the queue."""
        return self._accepted[0] if self._accepted else None

    def head(self, number: int) -> LinkRequest | None:
        """The request both ends attempt in a bin, None if there is none."""
        if number < self.quiet_before_bin:
            return None
        if self.begun is not None:
            return self.begun
        if number > self._horizon:
            if self._accepted and self._accepted[-1].start_bin > self._horizon:
                self._become_due(number)
            self._horizon = number
        for request in self._due:
            if request.start_bin <= number:
                return request
        return None

    def _become_due(self, number: int) -> None:
        """Put requests that start after the horizon, up to this bin, among those that are due."""
        start, stop = (
            bisect_right(self._accepted, bin_, key=_start_bin) for bin_ in (self._horizon, number)
        )
        for request in self._accepted[start:stop]:
            insort(self._due, request, key=_rank)

    @property
    def of_neighbour(self) -> int:
        """How many requests and offers of the neighbour's programs there are."""
        return self._theirs + len(self._offers)

    def find(self, creator: int, create_id: int) -> LinkRequest | None:
        """The request with this creator and number."""
        return self._numbers.get((creator, create_id))

    def on_socket(self, socket_id: int) -> list[LinkRequest]:
        """The requests on an ER socket of ours, in order."""
        return sorted(self._on_socket.get(socket_id, ()), key=_order)

    def add(self, request: LinkRequest) -> None:
        """Put a request in its place; there must be none of its creator and number."""
        insort(self.queue, request, key=_order)
        if request.accepted:
            insort(self._accepted, request, key=_order)
            if request.start_bin <= self._horizon:
                insort(self._due, request, key=_rank)
        self._numbers[request.creator, request.create_id] = request
        self._on_socket.setdefault(request.socket_id, set()).add(request)
        self._theirs += request.is_theirs and request.segment is None

    def remove(self, request: LinkRequest) -> bool:
        """Take a request out; whether it was there."""
        number = request.creator, request.create_id
        if self._numbers.get(number) is not request:
            return False
        del self._numbers[number]
        del self.queue[bisect_left(self.queue, request.order, key=_order)]
        if request.accepted:
            del self._accepted[bisect_left(self._accepted, request.order, key=_order)]
            if request.start_bin <= self._horizon:
                del self._due[bisect_left(self._due, request.rank, key=_rank)]
            if self.begun is request:
                self.begun = None
        mates = self._on_socket[request.socket_id]
        mates.remove(request)
        if not mates:
            del self._on_socket[request.socket_id]
        self._theirs -= request.is_theirs and request.segment is None
        return True

    # --- segments of circuits -----------------------------------------------------------

    def remember_segment(self, create_id: int, segment: Segment) -> None:
        """Our half of a segment's pair was heralded, and announced, as creator."""
        self.segments_made[create_id] = segment
        if len(self.segments_made) > _REMEMBERED_PAIRS:
            del self.segments_made[next(iter(self.segments_made))]

    # --- the neighbour's offers that name a socket nobody has opened yet -----------------

    @property
    def offers(self) -> list[Offer]:
        """Those that wait, oldest first."""
        return list(self._offers.values())

    def knows_of(self, peer: int, create_id: int) -> bool:
        """Whether an offer of the neighbour waits or was accepted."""
        return create_id in self._offers or (peer, create_id) in self._numbers

    def keep_offer(self, offer: Offer) -> None:
        """Let an offer wait for its socket; there must be none of its number."""
        self._offers[offer.create_id] = offer
        waiting = self._offers_to.setdefault(offer.terms.remote_socket_id, {})
        waiting[offer.create_id] = offer

    def drop_offer(self, create_id: int) -> None:
        """The neighbour takes an offer back, if it waits."""
        offer = self._offers.pop(create_id, None)
        if offer is None:
            return
        waiting = self._offers_to[offer.terms.remote_socket_id]
        del waiting[create_id]
        if not waiting:
            del self._offers_to[offer.terms.remote_socket_id]

    def take_offers(self, socket_id: int) -> list[Offer]:
        """The offers that waited for a socket, oldest first; they wait no more."""
        taken = list(self._offers_to.pop(socket_id, {}).values())
        for offer in taken:
            del self._offers[offer.create_id]
        return taken

    def drop_offers(self) -> None:
        """No offer waits any more."""
        self._offers.clear()
        self._offers_to.clear()


def _order(request: LinkRequest) -> Order:
    return request.order


def _rank(request: LinkRequest) -> Rank:
    return request.rank


def _start_bin(request: LinkRequest) -> int:
    return request.start_bin
