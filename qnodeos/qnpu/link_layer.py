"""The link layer (EGP): agreeing with a neighbour on requests and pairs.

Both ends hold the same queue of requests, ordered by (start bin, creator, create id), and
serve its head in every bin of the link. So they agree on what a herald belongs to without
talking in between; the creator's announcement afterwards confirms it.

    creator                               receiver
    Offer        ----------------------->  socket open?  no: keep the offer until it is
                 <-----------------------  Accept                 (creator times out)
    both attempt the head of the queue in each bin of the link
    herald: deliver, Announce  ---------->  herald and announcement agree: correct, deliver
                 <-----------------------  PairLost, if its device saw no such herald
    program ends: Cancel  --------------->  forget
    forget       <-----------------------  Reject, if the receiving program ends

When the connection to a neighbour is lost, both ends drop what they had agreed, with an
error for the programs it was for, and start afresh when it is back: only requests that were
not accepted yet are kept, and offered again.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from qnodeos.api.peer import (
    Accept,
    Announce,
    Cancel,
    Offer,
    PairLost,
    PeerMessage,
    Reject,
    RequestTerms,
)
from qnodeos.errors import (
    EntanglementRequestError,
    EntanglementTimeoutError,
    PeerLostError,
    PeerProtocolError,
    QNodeOSError,
)
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import ANGLE_STEPS, Axis
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.entanglement import INT32_MAX, EntanglementManager, ErSocket, UserRequest
from qnodeos.qnpu.process import ProcessState, UserProcess
from qnodeos.qnpu.requests import RANDOM_BASES, ROTATIONS

Order = tuple[int, int, int]

_REMEMBERED_PAIRS: Final = 64
"""Pairs whose loss a peer may still report."""


@dataclass(eq=False, slots=True)
class LinkRequest:
    """A request as both ends of a link see it.

    Attributes:
        creator: node id of its creator.
        user: the creator's own request; None at the receiver.
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


@dataclass(slots=True)
class Link:
    """What is known of one neighbour.

    Attributes:
        is_up: whether there is a connection to the neighbour.
        queue: requests in order.
        offers: the neighbour's offers that name a socket nobody has opened yet.
        announced: announcements not matched with a herald of our own yet.
        delivered: (create id, process, tick) of the pairs delivered last, as creator.
        sequence: number of the next pair.
        quiet_before_bin: no attempts before this bin: the head of the queue was withdrawn,
            and until the neighbour has heard of it, it may still attempt that one.
    """

    is_up: bool = True
    queue: list[LinkRequest] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)
    announced: deque[Announce] = field(default_factory=deque)
    delivered: deque[tuple[int, UserProcess, int]] = field(
        default_factory=lambda: deque(maxlen=_REMEMBERED_PAIRS)
    )
    sequence: int = 0
    quiet_before_bin: int = 0

    def find(self, creator: int, create_id: int) -> LinkRequest | None:
        """The request with this creator and number."""
        for request in self.queue:
            if request.create_id == create_id and request.creator == creator:
                return request
        return None


class LinkLayer:
    """Requests and pairs of all links of a node.

    Args:
        node_id: of this node.
        peers: ids of its neighbours.
        entanglement: knows the ER sockets.
        limits: all bounds.
        send: sends a message to a peer.
        fault: aborts a process because of an error in one of its requests.
        has_schedule: whether there are time bins.
        next_bin: number of the time bin after the current one. Changes of the queue take
            effect so late that the neighbour has heard of them, if a message takes less
            than a bin; if it takes longer, a pair may be lost, which is noticed.
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
        self._node_id = node_id
        self._entanglement = entanglement
        self._limits = limits
        self._send_up = send
        self._fault = fault
        self._next_bin = next_bin
        self._has_schedule = has_schedule
        self.links: Final = {peer: Link() for peer in peers}
        self.deadline_tick: int | None = None
        """First tick at which `expire` has something to do."""
        self.has_requests = False
        """Whether any link's queue holds a request."""

    def _send(self, peer: int, message: PeerMessage) -> None:
        if self.links[peer].is_up:  # a neighbour that is away will be told anew, or not at all
            self._send_up(peer, message)

    # --- connections ------------------------------------------------------------------

    def lost(self, peer: int, why: str, doubtful_from_tick: int) -> None:
        """The connection to a neighbour has ended.

        Args:
            peer: the neighbour.
            why: for the programs: what happened.
            doubtful_from_tick: pairs announced from this tick on may be unknown to it.

        Raises:
            PeerProtocolError: it is no neighbour.
        """
        link = self._link(peer)
        link.is_up = False
        agreed = [request for request in link.queue if request.accepted]
        link.queue = [request for request in link.queue if not request.accepted]
        self.has_requests = any(other.queue for other in self.links.values())
        self._update_deadline()
        doubtful = [process for _, process, tick in link.delivered if tick >= doubtful_from_tick]
        link.offers.clear()
        link.announced.clear()
        link.delivered.clear()
        link.sequence = link.quiet_before_bin = 0
        for request in agreed:
            request.cancelled = True
            error = PeerLostError(
                f"{why}; {request.done} of {request.terms.pairs} pairs with node {peer} were made"
            )
            if request.user is not None:
                self._fault(request.user.socket.process, error)
                continue
            socket = self._entanglement.socket(peer, request.terms.remote_socket_id)
            if socket is not None and socket.receives:
                self._fault(socket.process, error)
            elif socket is not None:
                socket.lost = error
        for process in doubtful:
            self._fault(
                process,
                PeerLostError(f"{why}; node {peer} may not know of the pair announced last"),
            )

    def connected(self, peer: int, start_bin: int) -> None:
        """There is a connection to a neighbour (again): offer what it has not accepted.

        Args:
            peer: the neighbour.
            start_bin: first bin for these requests.

        Raises:
            PeerProtocolError: it is no neighbour.
        """
        link = self._link(peer)
        link.is_up = True
        waiting, link.queue = link.queue, []
        for request in waiting:
            request.start_bin = start_bin
            request.terms = replace(request.terms, start_bin=start_bin)
            self._enqueue(request)
            self._send(peer, Offer(request.create_id, request.terms))

    def _link(self, peer: int) -> Link:
        link = self.links.get(peer)
        if link is None:
            raise PeerProtocolError(f"node {peer} is no neighbour of this node")
        return link

    @property
    def is_creating(self) -> bool:
        """Whether one of our own create requests is outstanding."""
        return any(
            request.user is not None for link in self.links.values() for request in link.queue
        )

    # --- our own requests -------------------------------------------------------------

    def offer(self, user: UserRequest, start_bin: int, tick: int) -> None:
        """Offer a create request of one of our processes to the peer."""
        arguments, socket = user.arguments, user.socket
        assert arguments is not None
        terms = RequestTerms(
            socket_id=socket.socket_id,
            remote_socket_id=socket.remote_socket_id,
            measure_directly=arguments.measure_directly,
            pairs=arguments.pairs,
            remote_rotations=tuple((int(axis), n) for axis, n in arguments.remote_rotations),
            remote_random_basis=arguments.remote_random_basis,
            start_bin=start_bin,
        )
        request = LinkRequest(
            self._node_id,
            user.create_id,
            socket.remote_node,
            terms,
            user,
            False,
            tick + self._limits.offer_timeout_ticks,
            start_bin,
        )
        self._enqueue(request)
        self._send(socket.remote_node, Offer(user.create_id, terms))

    def expire(self, tick: int) -> None:
        """Fail requests whose time is up."""
        if self.deadline_tick is None or tick < self.deadline_tick:
            return
        for link in self.links.values():
            for request in [r for r in link.queue if r.user is not None]:
                error = self._expiry(request, tick)
                if error is not None and request.user is not None:
                    self._fault(request.user.socket.process, error)
        self._update_deadline()

    def _expiry(self, request: LinkRequest, tick: int) -> EntanglementTimeoutError | None:
        assert request.user is not None
        if not request.accepted and tick >= request.deadline_tick:
            return EntanglementTimeoutError(
                f"node {request.peer} did not open ER socket {request.terms.remote_socket_id} "
                f"within offer_timeout_ticks={self._limits.offer_timeout_ticks}; does the "
                "program there run, and do the socket ids match?"
            )
        if tick >= request.deadline_tick and not self._has_schedule():
            return EntanglementTimeoutError(
                "no network schedule was installed within offer_timeout_ticks="
                f"{self._limits.offer_timeout_ticks}; does the controller run, and does it know "
                "this node?"
            )
        deadline = request.user.deadline_tick
        if deadline is not None and tick >= deadline:
            return EntanglementTimeoutError(
                f"{request.done} of {request.terms.pairs} pairs with node {request.peer} came "
                "within max_time"
            )
        return None

    # --- the peer's messages ----------------------------------------------------------

    def receive(self, peer: int, message: PeerMessage) -> None:
        """Take in a message of the peer.

        Raises:
            PeerProtocolError: it comes from no neighbour, or from one that is not connected.
        """
        link = self.links.get(peer)
        if link is None:
            raise PeerProtocolError(f"a message came from node {peer}, which is no neighbour")
        if not link.is_up:
            raise PeerProtocolError(f"a message came from node {peer}, which is not connected")
        match message:
            case Offer():
                self._on_offer(peer, link, message)
            case Announce():
                link.announced.append(message)
            case Accept(create_id, start_bin):
                request = link.find(self._node_id, create_id)
                if request is not None:
                    self._dequeue(request)
                    request.accepted, request.start_bin = True, start_bin
                    self._enqueue(request)
            case Reject(create_id, reason):
                request = link.find(self._node_id, create_id)
                if request is not None and request.user is not None:
                    self._fault(
                        request.user.socket.process,
                        EntanglementRequestError(f"node {peer} refused the request: {reason}"),
                    )
            case Cancel(create_id):
                link.offers = [o for o in link.offers if o.create_id != create_id]
                request = link.find(peer, create_id)
                if request is not None:
                    self._withdraw(request)
            case PairLost(create_id, index):
                self._on_pair_lost(peer, link, create_id, index)

    def _on_offer(self, peer: int, link: Link, offer: Offer) -> None:
        if not _is_valid(offer.terms, self._limits):
            self._send(peer, Reject(offer.create_id, f"its terms are out of range: {offer.terms}"))
            return
        accepted_or_waiting = len(link.offers) + sum(r.creator == peer for r in link.queue)
        if accepted_or_waiting >= self._limits.entanglement_requests:
            self._send(
                peer,
                Reject(
                    offer.create_id,
                    "too many requests: entanglement_requests="
                    f"{self._limits.entanglement_requests}",
                ),
            )
            return
        socket = self._entanglement.socket(peer, offer.terms.remote_socket_id)
        if socket is None:
            link.offers.append(offer)
        else:
            self._answer(peer, offer, socket)

    def _answer(self, peer: int, offer: Offer, socket: ErSocket) -> None:
        if socket.remote_socket_id != offer.terms.socket_id:
            self._send(
                peer,
                Reject(
                    offer.create_id,
                    f"ER socket {socket.socket_id} there is connected to socket "
                    f"{socket.remote_socket_id} here, not to {offer.terms.socket_id}",
                ),
            )
            return
        # The creator may be attempting anything in the queue, so it needs a whole bin to hear
        # of the acceptance; if there is nothing, it cannot but wait for it.
        earliest_bin = self._next_bin() + bool(self.links[peer].queue)
        start_bin = max(offer.terms.start_bin, earliest_bin)
        socket.lost = None
        self._enqueue(
            LinkRequest(peer, offer.create_id, peer, offer.terms, None, True, 0, start_bin)
        )
        self._send(peer, Accept(offer.create_id, start_bin))

    def _on_pair_lost(self, peer: int, link: Link, create_id: int, index: int) -> None:
        # The half may already be in the program's hands: it cannot be taken back silently.
        error = EntanglementRequestError(
            f"pair {index} of request {create_id} was lost: node {peer} has no such pair"
        )
        for delivered_id, process, _ in link.delivered:
            if delivered_id == create_id and process.state is not ProcessState.ENDED:
                self._fault(process, error)
                return

    # --- sockets and processes --------------------------------------------------------

    def socket_opened(self, socket: ErSocket) -> None:
        """Answer offers that waited for this socket."""
        link = self.links[socket.remote_node]
        waiting = [o for o in link.offers if o.terms.remote_socket_id == socket.socket_id]
        for offer in waiting:
            link.offers.remove(offer)
            self._answer(socket.remote_node, offer, socket)

    def sockets_closed(self, sockets: Iterable[ErSocket]) -> None:
        """Withdraw what a process had agreed with peers, and tell them."""
        for socket in sockets:
            peer = socket.remote_node
            for request in list(self.links[peer].queue):
                if request.user is not None and request.user.socket is socket:
                    self._withdraw(request)
                    self._send(peer, Cancel(request.create_id))
                elif request.creator == peer and (
                    request.terms.remote_socket_id == socket.socket_id
                ):
                    self._withdraw(request)
                    self._send(peer, Reject(request.create_id, "the program there has ended"))

    def withdraw(self, users: Iterable[UserRequest]) -> None:
        """Withdraw create requests of our processes, and tell their peers."""
        for user in users:
            peer = user.socket.remote_node
            request = self.links[peer].find(self._node_id, user.create_id)
            if request is not None:
                self._withdraw(request)
                self._send(peer, Cancel(request.create_id))

    # --- pairs ------------------------------------------------------------------------

    def first_bin(self, peer: int) -> int | None:
        """First bin in which `head` has a request, None if there is none as things are."""
        link = self.links[peer]
        for request in link.queue:
            if request.accepted:
                return max(request.start_bin, link.quiet_before_bin)
        return None

    def head(self, peer: int, number: int) -> LinkRequest | None:
        """The request both ends attempt in a bin, None if there is none."""
        link = self.links[peer]
        if number < link.quiet_before_bin:
            return None
        for request in link.queue:
            if request.start_bin > number:
                return None
            if request.accepted:
                return request
        return None

    def announce(self, request: LinkRequest, bell_state: BellState, tick: int) -> int:
        """As creator: tell the peer of a herald; returns the pair's sequence number."""
        link = self.links[request.peer]
        assert request.user is not None
        link.delivered.append((request.create_id, request.user.socket.process, tick))
        sequence = link.sequence
        self._send(
            request.peer,
            Announce(request.create_id, request.done, sequence, bell_state, tick),
        )
        self._count_pair(link, request, sequence)
        return sequence

    def match(self, request: LinkRequest, index: int, bell_state: BellState) -> Announce | None:
        """As receiver: the announcement of a pair we hold, None if it has not come.

        Raises:
            PeerProtocolError: the next announcement is of another pair or Bell state; the
                peer has been told that its pair is lost.
        """
        link = self.links[request.peer]
        if not link.announced:
            return None
        announce = link.announced.popleft()
        if (announce.create_id, announce.index) != (request.create_id, index) or (
            announce.bell_state != bell_state
        ):
            self._refuse(request.peer, announce)
            raise PeerProtocolError(
                f"node {request.peer} announced pair {announce.index} of request "
                f"{announce.create_id} in {announce.bell_state.name}; our device saw pair "
                f"{index} of request {request.create_id} in {bell_state.name}"
            )
        self._count_pair(link, request, announce.sequence)
        return announce

    def refuse_announcements(self, peer: int) -> None:
        """As receiver: our device saw no herald; whatever was announced is lost."""
        announced = self.links[peer].announced
        while announced:
            self._refuse(peer, announced.popleft())

    def _refuse(self, peer: int, announce: Announce) -> None:
        self._send(peer, PairLost(announce.create_id, announce.index))
        request = self.links[peer].find(peer, announce.create_id)
        if request is not None:  # a request that lost a pair ends, so its creator does not wait
            self._withdraw(request)

    def _count_pair(self, link: Link, request: LinkRequest, sequence: int) -> None:
        link.sequence = sequence + 1 & INT32_MAX
        request.done += 1
        if request.done >= request.terms.pairs:
            self._dequeue(request)

    # --- the queue --------------------------------------------------------------------

    def _enqueue(self, request: LinkRequest) -> None:
        insort(self.links[request.peer].queue, request, key=_order)
        self.has_requests = True
        self._update_deadline()

    def _dequeue(self, request: LinkRequest) -> None:
        queue = self.links[request.peer].queue
        if request in queue:
            queue.remove(request)
            self.has_requests = any(link.queue for link in self.links.values())
            self._update_deadline()

    def _withdraw(self, request: LinkRequest) -> None:
        next_bin = self._next_bin()
        if self.head(request.peer, next_bin - 1) is request:
            self.links[request.peer].quiet_before_bin = next_bin + 1
        request.cancelled = True
        self._dequeue(request)

    def _update_deadline(self) -> None:
        deadlines = []
        for link in self.links.values():
            for request in link.queue:
                if request.user is None:
                    continue
                if not request.accepted or not self._has_schedule():
                    deadlines.append(request.deadline_tick)
                if request.user.deadline_tick is not None:
                    deadlines.append(request.user.deadline_tick)
        self.deadline_tick = min(deadlines, default=None)


def _order(request: LinkRequest) -> Order:
    return request.order


def _is_valid(terms: RequestTerms, limits: Limits) -> bool:
    return (
        1 <= terms.pairs <= limits.pairs_per_request
        and 0 <= terms.remote_random_basis < len(RANDOM_BASES)
        and len(terms.remote_rotations) <= ROTATIONS
        and all(
            axis in list(Axis) and 0 <= steps < ANGLE_STEPS
            for axis, steps in terms.remote_rotations
        )
    )
