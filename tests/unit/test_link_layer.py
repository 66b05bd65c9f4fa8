"""The link layer alone: offers, acceptances, order, withdrawal, matching, numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.api.peer import (
    Accept,
    Announce,
    Cancel,
    EntanglementType,
    Offer,
    PairLost,
    PeerMessage,
    Reject,
    RequestTerms,
    SocketOpened,
)
from qnodeos.errors import EntanglementTimeoutError, PeerProtocolError
from qnodeos.limits import Limits
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.er_sockets import ErSocket, UserRequest
from qnodeos.qnpu.link_layer import LinkLayer
from qnodeos.qnpu.link_queue import LinkRequest
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.requests import parse_create_arguments
from tests.unit.kernel_device import CAPABILITIES

LIMITS = Limits(offer_timeout_ticks=100, entanglement_requests=3)
TERMS = RequestTerms(0, 0, EntanglementType.KEEP, 2, (), 0, 5)
PHI = BellState.PHI_PLUS


class Bench:
    """The link layer of node 1, with neighbours 2 and 3, in time bin 4."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, PeerMessage]] = []
        self.faults: list[tuple[UserProcess, Exception]] = []
        self.bin = 4
        peers = {2: 0, 3: 1}
        self.manager = EntanglementManager(
            QMMU(CAPABILITIES), LIMITS, 10_000, peers, lambda process, pair: None
        )
        self.layer = LinkLayer(
            1,
            peers,
            self.manager,
            LIMITS,
            self.send,
            lambda process, error: self.faults.append((process, error)),
            lambda: self.bin + 1,
        )
        self.process = UserProcess(1, (1, 0), 3, LIMITS)
        self.process.memory.create_array(0, 1_000)

    def send(self, peer: int, message: PeerMessage) -> None:
        if not isinstance(message, SocketOpened):
            self.sent.append((peer, message))

    def socket(self, number: int = 0, remote: int = 2) -> ErSocket:
        socket = self.manager.open_socket(self.process, number, remote, number, 0)
        self.layer.socket_opened(socket)
        return socket

    def create(self, number: int = 0, remote: int = 2, pairs: int = 2) -> UserRequest:
        arguments = parse_create_arguments([1, pairs], LIMITS)
        user = self.manager.create(self.process, remote, number, (), arguments, 0, 0)
        self.layer.offer(user, self.bin + 1, 0)
        return user

    def head(self, peer: int = 2, number: int = 10) -> LinkRequest:
        head = self.layer.head(peer, number)
        assert head is not None
        return head


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_offer_carries_the_terms(bench):
    bench.socket()
    user = bench.create()
    terms = RequestTerms(0, 0, EntanglementType.MEASURE, 2, (), 0, 5)
    assert bench.sent == [(2, Offer(user.create_id, terms))]


def test_a_request_is_attempted_from_its_bin_once_accepted(bench):
    bench.socket()
    user = bench.create()
    assert bench.layer.head(2, 9) is None
    bench.layer.receive(2, Accept(user.create_id, 7))
    assert [bench.layer.head(2, number) is None for number in (5, 6, 7, 8)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert bench.layer.head(3, 8) is None


def test_an_offer_for_an_open_socket_is_accepted_for_the_next_bin(bench):
    bench.socket()
    bench.layer.receive(2, Offer(9, replace(TERMS, start_bin=2)))
    assert bench.sent == [(2, Accept(9, 5))]
    assert bench.head(number=5).create_id == 9


def test_an_offer_beside_others_is_accepted_a_bin_later(bench):
    """The peer may be attempting another, and needs time to hear of it."""
    bench.socket()
    bench.create()
    bench.layer.receive(2, Offer(9, TERMS))
    assert bench.sent[-1] == (2, Accept(9, 6))


def test_an_offer_waits_for_its_socket(bench):
    bench.layer.receive(2, Offer(9, TERMS))
    assert bench.sent == []
    bench.bin = 40
    bench.socket()
    assert bench.sent == [(2, Accept(9, 41))]


def test_a_cancelled_offer_waits_no_longer(bench):
    bench.layer.receive(2, Offer(9, TERMS))
    bench.layer.receive(2, Cancel(9))
    bench.socket()
    assert bench.sent == []


def test_the_creator_is_told_which_socket_it_reached(bench):
    bench.socket(4)
    bench.layer.receive(2, Offer(9, replace(TERMS, remote_socket_id=4)))
    [(_, reject)] = bench.sent
    assert isinstance(reject, Reject)
    assert "socket 4 there is connected to socket 4 here, not to 0" in reject.reason


def test_offers_are_bounded_waiting_or_accepted(bench):
    bench.socket()
    for number in range(2):
        bench.layer.receive(2, Offer(number, TERMS))
    bench.layer.receive(2, Offer(2, replace(TERMS, remote_socket_id=8)))
    bench.layer.receive(2, Offer(3, TERMS))
    _, reject = bench.sent[-1]
    assert isinstance(reject, Reject)
    assert "entanglement_requests=3" in reject.reason
    bench.layer.receive(3, Offer(3, TERMS))
    assert len(bench.sent) == 3, "the bound is per neighbour"


@given(st.lists(st.tuples(st.booleans(), st.integers(5, 9)), max_size=3), st.randoms())
def test_both_ends_order_the_queue_alike(requests, shuffle):
    """By bin, creator and number, whatever the order in which they became known."""
    orders = []
    for _ in range(2):
        bench = Bench()
        bench.socket()
        known = list(enumerate(requests))
        shuffle.shuffle(known)
        for number, (is_mine, start_bin) in known:
            terms = replace(TERMS, start_bin=start_bin)
            creator = 1 if is_mine else 2
            bench.layer._enqueue(LinkRequest(creator, number, 2, terms, None, True, 0, start_bin))
        orders.append([(r.start_bin, r.creator, r.create_id) for r in bench.layer.links[2].queue])
    assert orders[0] == orders[1] == sorted(orders[0])


def test_an_offer_expires(bench):
    bench.socket()
    user = bench.create()
    assert bench.layer.deadline_tick == 100
    bench.layer.expire(99)
    assert bench.faults == []
    bench.layer.expire(100)
    [(process, error)] = bench.faults
    assert process is user.socket.process
    assert isinstance(error, EntanglementTimeoutError)


def test_an_accepted_request_does_not_expire(bench):
    bench.socket()
    bench.layer.receive(2, Accept(bench.create().create_id, 5))
    assert bench.layer.deadline_tick is None


@pytest.mark.parametrize("message", [Accept(77, 1), Reject(77, "x"), Cancel(77), PairLost(77, 0)])
def test_messages_about_unknown_requests_are_ignored(bench, message):
    bench.layer.receive(2, message)
    assert bench.sent == bench.faults == []


def test_a_message_from_a_stranger(bench):
    with pytest.raises(PeerProtocolError, match="node 9, which is no neighbour"):
        bench.layer.receive(9, Cancel(0))


# --- pairs ----------------------------------------------------------------------------


def receiver(bench: Bench) -> LinkRequest:
    """An accepted request of the neighbour, at its head."""
    bench.socket()
    bench.layer.receive(2, Offer(9, TERMS))
    bench.sent.clear()
    return bench.head()


def test_a_herald_matches_its_announcement(bench):
    request = receiver(bench)
    assert bench.layer.match(request, 0, PHI) is None
    announce = Announce(9, 0, 31, PHI, 50)
    bench.layer.receive(2, announce)
    assert bench.layer.match(request, 0, PHI) == announce
    assert request.done == 1
    assert bench.layer.links[2].sequence == 32
    bench.layer.receive(2, Announce(9, 1, 2**31 - 1, PHI, 60))
    assert bench.layer.match(request, 1, PHI) is not None
    assert bench.layer.links[2].queue == []
    assert bench.layer.links[2].sequence == 0, "numbers wrap within an int32"


@pytest.mark.parametrize(
    "announce",
    [
        Announce(9, 1, 0, PHI, 50),
        Announce(8, 0, 0, PHI, 50),
        Announce(9, 0, 0, BellState.PSI_PLUS, 50),
    ],
)
def test_another_pair_or_state_is_refused(bench, announce):
    request = receiver(bench)
    bench.layer.receive(2, announce)
    with pytest.raises(PeerProtocolError, match="our device saw pair 0 of request 9"):
        bench.layer.match(request, 0, PHI)
    assert bench.sent == [(2, PairLost(announce.create_id, announce.index))]
    assert request.done == 0
    assert request.cancelled is (announce.create_id == 9)


def test_the_creator_counts_and_announces(bench):
    bench.socket()
    user = bench.create()
    bench.layer.receive(2, Accept(user.create_id, 5))
    request = bench.head()
    assert bench.layer.announce(request, PHI, 70) == 0
    assert bench.layer.announce(request, BellState.PSI_MINUS, 80) == 1
    assert bench.sent[1:] == [
        (2, Announce(0, 0, 0, PHI, 70)),
        (2, Announce(0, 1, 1, BellState.PSI_MINUS, 80)),
    ]
    assert bench.layer.head(2, 10) is None
    bench.layer.receive(2, PairLost(0, 1))
    [(process, error)] = bench.faults
    assert process is bench.process
    assert "pair 1 of request 0 was lost" in str(error)


@pytest.mark.parametrize("mine", [True, False])
def test_after_a_withdrawal_the_link_is_quiet_until_the_peer_knows(bench, mine):
    first, second = bench.socket(1), bench.socket(2)
    for socket in (first, second):
        number = socket.socket_id
        if mine:
            bench.layer.receive(2, Accept(bench.create(number).create_id, 3))
        else:
            terms = replace(TERMS, socket_id=number, remote_socket_id=number, start_bin=0)
            bench.layer.receive(2, Offer(number, terms))
    bench.bin = 8
    withdrawn = bench.head(number=8)
    bench.layer.sockets_closed([first])
    assert withdrawn.cancelled
    assert isinstance(bench.sent[-1][1], Cancel if mine else Reject)
    assert [bench.layer.head(2, number) is None for number in (8, 9, 10)] == [True, True, False]


def test_the_link_is_quiet_too_if_a_request_is_withdrawn_that_would_come_next(bench):
    """It has a higher priority, and the neighbour may begin it before it hears of this."""
    first, urgent = bench.socket(1), bench.socket(2)
    bench.layer.receive(2, Offer(1, replace(TERMS, socket_id=1, remote_socket_id=1)))
    bench.bin = 8
    bench.layer.receive(2, Offer(2, replace(TERMS, socket_id=2, remote_socket_id=2, priority=9)))
    bench.bin = 9
    assert bench.head(number=9).create_id == 1
    assert bench.head(number=10).create_id == 2
    bench.layer.sockets_closed([urgent])
    assert [bench.layer.head(2, number) is None for number in (9, 10, 11)] == [True, True, False]
    assert bench.head(number=11).socket_id == first.socket_id


def test_withdrawing_a_request_further_back_disturbs_nobody(bench):
    bench.socket(1)
    second = bench.socket(2)
    for number in (1, 2):
        bench.layer.receive(2, Accept(bench.create(number).create_id, 3))
    bench.bin = 8
    bench.layer.sockets_closed([second])
    assert bench.head(number=8).terms.socket_id == 1
