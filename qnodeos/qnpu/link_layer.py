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
    program ends: Cancel  --------------->  forget, and tell the program that waits
    forget       <-----------------------  Reject, if the receiving program ends, or its
                                           receive request does not fit

Both ends also tell when a program opens an ER socket and when it has ended, so that a receive
request for which nothing was asked does not wait for a program that is gone.

A request may also be for a segment of a circuit: `qnodeos.qnpu.segment_requests`.

When the connection to a neighbour is lost, both ends drop what they had agreed, with an
error for the programs it was for, and start afresh when it is back: only requests that were
not accepted yet are kept, and offered again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from qnodeos.api.peer import (
    Accept,
    Announce,
    Cancel,
    Offer,
    PairLost,
    PeerMessage,
    Reject,
    SocketClosed,
    SocketOpened,
)
from qnodeos.errors import (
    CallerError,
    EntanglementRequestError,
    PeerLostError,
    PeerProtocolError,
    QNodeOSError,
)
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.er_sockets import ErSocket, UserRequest
from qnodeos.qnpu.isa import INT32_MAX
from qnodeos.qnpu.link_queue import Link, LinkRequest
from qnodeos.qnpu.link_terms import are_valid, terms_of
from qnodeos.qnpu.process import ProcessState
from qnodeos.qnpu.segment_requests import SegmentRequests


class LinkLayer(SegmentRequests):
    """Requests and pairs of all links of a node; arguments as for `SegmentRequests`."""

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
        agreed = [request for request in link.queue if request.accepted or request.segment]
        for request in agreed:
            self._dequeue(request)
        doubtful = [process for _, process, tick in link.delivered if tick >= doubtful_from_tick]
        link.drop_offers()
        link.announced.clear()
        link.delivered.clear()
        link.segments_made.clear()
        link.sequence = link.quiet_before_bin = 0
        for request in agreed:
            request.cancelled = True
            if request.segment is not None:
                continue  # the network layer hears of the loss itself
            error = PeerLostError(
                f"{why}; {request.done} of {request.terms.pairs} pairs with node {peer} were made"
            )
            if request.user is not None:
                self._fault(request.user.socket.process, error)
                continue
            self._break_promise(request, error)
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
        while link.closed_meanwhile:
            self._send(peer, link.closed_meanwhile.popleft())
        for request in list(link.queue):
            self._dequeue(request)
            request.start_bin = start_bin
            request.terms = replace(request.terms, start_bin=start_bin)
            self._enqueue(request)
            self._send(peer, Offer(request.create_id, request.terms))
        for socket in self._entanglement.sockets_to(peer):
            self._send(peer, SocketOpened(socket.socket_id, socket.remote_socket_id))

    def _link(self, peer: int) -> Link:
        link = self.links.get(peer)
        if link is None:
            raise PeerProtocolError(f"node {peer} is no neighbour of this node")
        return link

    # --- our own requests -------------------------------------------------------------

    def offer(self, user: UserRequest, start_bin: int, tick: int) -> None:
        """Offer a create request of one of our processes to the peer."""
        arguments, socket = user.arguments, user.socket
        assert arguments is not None
        terms = terms_of(socket, arguments, start_bin)
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
                if request is not None and request.segment is not None:
                    self.drop_segment(request)
                    self._segment_failed(
                        request.segment, f"node {peer} refused the segment: {reason}"
                    )
                elif request is not None and request.user is not None:
                    self._fault(
                        request.user.socket.process,
                        EntanglementRequestError(f"node {peer} refused the request: {reason}"),
                    )
                elif request is None:
                    self._spoil(
                        link,
                        create_id,
                        f"node {peer} does not want the pairs of request {create_id}: {reason}",
                    )
            case Cancel(create_id):
                link.drop_offer(create_id)
                request = link.find(peer, create_id)
                if request is not None:
                    self._withdraw(request)
                    self._break_promise(request, self._withdrawn(request))
            case PairLost(create_id, index):
                self._on_pair_lost(peer, link, create_id, index)
            case SocketOpened(socket_id, remote_socket_id):
                socket = self._entanglement.socket(peer, remote_socket_id)
                link.partners.end_opened(socket_id, remote_socket_id, socket)
            case SocketClosed(socket_id):
                socket = link.partners.end_closed(socket_id)
                if socket is not None:
                    self.other_end_closed(socket)

    def _on_offer(self, peer: int, link: Link, offer: Offer) -> None:
        if not are_valid(offer.terms, self._limits):
            self._send(peer, Reject(offer.create_id, f"its terms are out of range: {offer.terms}"))
            return
        if link.knows_of(peer, offer.create_id):
            self._send(peer, Reject(offer.create_id, f"it offers {offer.create_id} twice"))
            return
        if offer.terms.segment is not None:
            if self.segments is not None:
                self.segments.offered(peer, offer)
            return
        if link.of_neighbour >= self._limits.entanglement_requests:
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
            link.keep_offer(offer)
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
        terms = offer.terms
        try:
            self._entanglement.promised(
                socket,
                offer.create_id,
                terms.kind,
                terms.pairs,
                partial(self._refuse_request, peer, offer.create_id),
                atomic=terms.atomic,
            )
        except CallerError as error:
            self._send(peer, Reject(offer.create_id, str(error)))
            if socket.receives:
                self._fault(socket.process, error)
            return
        self._accept(peer, offer)

    def _refuse_request(self, peer: int, create_id: int, reason: str) -> None:
        """Tell the creator of a request that was accepted that it is off."""
        request = self.links[peer].find(peer, create_id)
        if request is not None:
            self._withdraw(request)
        self._send(peer, Reject(create_id, reason))

    def _break_promise(self, request: LinkRequest, error: QNodeOSError) -> None:
        """Tell the program that waits for the pairs of the neighbour's request."""
        socket = self._entanglement.socket(request.peer, request.terms.remote_socket_id)
        if socket is None or request.segment is not None:
            return
        process = self._entanglement.break_promise(socket, request.create_id, error)
        if process is not None:
            self._fault(process, error)

    def _withdrawn(self, request: LinkRequest) -> EntanglementRequestError:
        return EntanglementRequestError(
            f"node {request.peer} withdrew the request after {request.done} of "
            f"{request.terms.pairs} pairs: its program has ended or failed, was cancelled, or "
            "its max_time was over"
        )

    def other_end_closed(self, socket: ErSocket) -> None:
        """The program at the other end of a socket of ours has ended."""
        error = EntanglementRequestError(
            f"the program at node {socket.remote_node} that had ER socket "
            f"{socket.remote_socket_id} has ended; 0 pairs came for the receive request on ER "
            f"socket {socket.socket_id}, as nothing there asked for any"
        )
        process = self._entanglement.other_end_closed(socket, error)
        if process is not None:
            self._fault(process, error)

    def _on_pair_lost(self, peer: int, link: Link, create_id: int, index: int) -> None:
        if create_id in link.segments_made:
            self._segment_failed(
                link.segments_made[create_id], f"node {peer} has no such pair as was announced"
            )
            return
        self._spoil(
            link,
            create_id,
            f"pair {index} of request {create_id} was lost: node {peer} has no such pair",
        )

    def _spoil(self, link: Link, create_id: int, reason: str) -> None:
        """Pairs that were handed to a program are worth nothing: they cannot be taken back."""
        for delivered_id, process, _ in link.delivered:
            if delivered_id == create_id and process.state is not ProcessState.ENDED:
                self._fault(process, EntanglementRequestError(reason))
                return

    # --- sockets and processes --------------------------------------------------------

    def socket_opened(self, socket: ErSocket) -> None:
        """Tell the other end, and answer offers that waited for this socket."""
        link = self.links.get(socket.remote_node)
        if link is None:
            return
        self._send(socket.remote_node, SocketOpened(socket.socket_id, socket.remote_socket_id))
        link.partners.opened(socket)
        for offer in self.links[socket.remote_node].take_offers(socket.socket_id):
            self._answer(socket.remote_node, offer, socket)

    def sockets_closed(self, sockets: Iterable[ErSocket]) -> None:
        """Withdraw what a process had agreed with peers, and tell them."""
        for socket in sockets:
            peer = socket.remote_node
            link = self.links.get(peer)
            if link is None:
                continue
            closed = SocketClosed(socket.socket_id, socket.remote_socket_id)
            if link.is_up:
                self._send(peer, closed)
            else:
                link.closed_meanwhile.append(closed)
            for request in link.on_socket(socket.socket_id):
                socket.promises.pop(request.create_id, None)
                self._withdraw(request)
                if request.user is not None:
                    self._send(peer, Cancel(request.create_id))
                else:
                    done = f"{request.done} of {request.terms.pairs} pairs were made"
                    self._send(
                        peer, Reject(request.create_id, f"the program there has ended; {done}")
                    )
            for promise in socket.promises.values():  # all pairs were made
                promise.refuse(
                    "the program there has ended and received "
                    f"{promise.delivered} of {promise.pairs} pairs"
                )

    def withdraw(self, users: Iterable[UserRequest]) -> None:
        """Withdraw create requests of our processes, and tell their peers."""
        for user in users:
            peer = user.socket.remote_node
            if peer not in self.links:
                continue
            request = self.links[peer].find(self._node_id, user.create_id)
            if request is not None:
                self._withdraw(request)
                self._send(peer, Cancel(request.create_id))

    # --- pairs ------------------------------------------------------------------------

    def announce(self, request: LinkRequest, bell_state: BellState, tick: int) -> int:
        """As creator: tell the peer of a herald; returns the pair's sequence number."""
        link = self.links[request.peer]
        if request.user is not None:
            link.delivered.append((request.create_id, request.user.socket.process, tick))
        elif request.segment is not None:
            link.remember_segment(request.create_id, request.segment)
        sequence = link.sequence
        self._send(
            request.peer,
            Announce(request.create_id, request.done, sequence, bell_state, tick),
        )
        self._count_pair(link, request, sequence)
        user = request.user
        if user is not None and user.max_ticks is not None and request.done < request.terms.pairs:
            self._postpone(request, tick + user.max_ticks)
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
        if request is None:
            return
        self._withdraw(request)  # a request that lost a pair ends, so its creator does not wait
        self._break_promise(
            request,
            EntanglementRequestError(
                f"pair {announce.index} of {request.terms.pairs} that node {peer} has announced "
                "was lost: our device has no such pair"
            ),
        )

    def _count_pair(self, link: Link, request: LinkRequest, sequence: int) -> None:
        link.sequence = sequence + 1 & INT32_MAX
        request.done += 1
        if request.done >= request.terms.pairs:
            self._dequeue(request)
        elif request.terms.is_uninterrupted:
            link.begun = request
