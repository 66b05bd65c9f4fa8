"""Link requests for segments of circuits: one pair with a neighbour, for the network layer.

They are in the same queues as those of programs, but name no ER sockets. The network layer
makes, accepts and drops them, and takes their pairs, at both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from qnodeos.api.peer import Accept, Offer, PeerMessage, Segment
from qnodeos.errors import QNodeOSError
from qnodeos.limits import Limits
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.link_queue import LinkRequest
from qnodeos.qnpu.link_terms import segment_terms
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.request_queues import RequestQueues


class Segments(Protocol):
    """Who looks after the segments of circuits: the network layer."""

    def offered(self, peer: int, offer: Offer) -> None:
        """A neighbour offers a segment; it waits until it is accepted, or given up there."""
        ...

    def made(self, request: LinkRequest, physical: int, tick: int) -> None:
        """Our half of a segment's pair, as that of Phi+, is in a physical qubit."""
        ...

    def failed(self, segment: Segment, reason: str) -> None:
        """A segment cannot be made."""
        ...


class SegmentRequests(RequestQueues):
    """See the module's docstring.

    Args:
        node_id: of this node.
        peers: ids of its neighbours.
        entanglement: numbers the requests.
        limits: all bounds.
        send: sends a message to a peer.
        fault: aborts a process because of an error in one of its requests.
        next_bin, has_schedule: see `RequestQueues`.

    Attributes:
        segments: looks after the segments of circuits; without it there are none.
    """

    def __init__(
        self,
        node_id: int,
        peers: Iterable[int],
        entanglement: EntanglementManager,
        limits: Limits,
        send: Callable[[int, PeerMessage], None],
        fault: Callable[[UserProcess, QNodeOSError], None],
        next_bin: Callable[[], int],
        has_schedule: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(peers, limits, fault, next_bin, has_schedule)
        self._node_id = node_id
        self._entanglement = entanglement
        self._send_up = send
        self.segments: Segments | None = None

    def _send(self, peer: int, message: PeerMessage) -> None:
        if self.links[peer].is_up:  # a neighbour that is away will be told anew, or not at all
            self._send_up(peer, message)

    def _accept(self, peer: int, offer: Offer) -> LinkRequest:
        # The creator may be attempting anything in the queue, so it needs a whole bin to hear
        # of the acceptance; if there is nothing, it cannot but wait for it.
        earliest_bin = self._next_bin() + bool(self.links[peer].queue)
        start_bin = max(offer.terms.start_bin, earliest_bin)
        request = LinkRequest(peer, offer.create_id, peer, offer.terms, None, True, 0, start_bin)
        self._enqueue(request)
        self._send(peer, Accept(offer.create_id, start_bin))
        return request

    def offer_segment(self, peer: int, segment: Segment, priority: int) -> LinkRequest:
        """Offer to make one pair for a segment with a neighbour that comes after us."""
        start_bin = self._next_bin()
        terms = segment_terms(segment, start_bin, priority)
        create_id = self._entanglement.take_create_id()
        request = LinkRequest(self._node_id, create_id, peer, terms, None, False, 0, start_bin)
        self._enqueue(request)
        self._send(peer, Offer(create_id, terms))
        return request

    def accept_segment(self, peer: int, offer: Offer) -> LinkRequest:
        """Accept the segment a neighbour offered that comes before us."""
        return self._accept(peer, offer)

    def drop_segment(self, request: LinkRequest) -> None:
        """Forget a segment's request, if it is not done; the neighbour does so by itself."""
        self._withdraw(request)

    def segment_made(self, request: LinkRequest, physical: int, tick: int) -> None:
        """Hand our half of a segment's pair to the network layer."""
        assert self.segments is not None
        self.segments.made(request, physical, tick)

    def segment_lost(self, request: LinkRequest, reason: str) -> None:
        """Our device could not make a segment's pair, or has lost our half of it."""
        self._withdraw(request)
        assert request.segment is not None
        self._segment_failed(request.segment, reason)

    def _segment_failed(self, segment: Segment, reason: str) -> None:
        assert self.segments is not None
        self.segments.failed(segment, reason)
