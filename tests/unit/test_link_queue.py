"""The queue of a link and the deadlines of its requests, against plain lists."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.api.peer import Accept, EntanglementType, Offer, PeerMessage, Reject, RequestTerms
from qnodeos.errors import EntanglementTimeoutError, QNodeOSError
from qnodeos.limits import Limits
from qnodeos.qnpu import link_queue
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.link_layer import LinkLayer
from qnodeos.qnpu.link_queue import Link, LinkRequest
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.requests import parse_create_arguments
from tests.unit.kernel_device import CAPABILITIES

ME, PEER = 1, 2
NUMBERS, SOCKETS, BINS = st.integers(0, 5), st.integers(0, 2), st.integers(0, 3)


def request(
    creator: int, number: int, socket: int, start_bin: int, accepted: bool, priority: int = 0
) -> LinkRequest:
    mine, theirs = (socket, 9) if creator == ME else (9, socket)
    terms = RequestTerms(mine, theirs, EntanglementType.KEEP, 1, (), 0, start_bin, priority)
    return LinkRequest(creator, number, PEER, terms, None, accepted, 0, start_bin)


def offer(number: int, socket: int) -> Offer:
    return Offer(number, RequestTerms(9, socket, EntanglementType.KEEP, 1, (), 0, 0))


@dataclass
class Plain:
    """What `Link` keeps, as lists that are searched."""

    requests: list[LinkRequest] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)
    begun: LinkRequest | None = None

    def head(self, number: int) -> LinkRequest | None:
        if self.begun is not None:
            return self.begun
        due = [r for r in self.requests if r.accepted and r.start_bin <= number]
        return min(
            due,
            key=lambda r: (-r.terms.priority, r.start_bin, r.creator, r.create_id),
            default=None,
        )

    def check(self, link: Link) -> None:
        queue = sorted(self.requests, key=lambda r: (r.start_bin, r.creator, r.create_id))
        assert link.queue == queue
        assert link.first is next((r for r in queue if r.accepted), None)
        assert link.offers == self.offers
        for number in range(5):
            assert link.head(number) is self.head(number)
        of_neighbour = sum(r.creator == PEER for r in queue) + len(self.offers)
        assert link.of_neighbour == of_neighbour
        for socket in range(3):
            assert link.on_socket(socket) == [r for r in queue if r.socket_id == socket]
        for number in range(6):
            for creator in (ME, PEER):
                assert link.find(creator, number) is self.find(creator, number)
            known = self.find(PEER, number) is not None or number in self.offer_numbers()
            assert link.knows_of(PEER, number) is known

    def find(self, creator: int, number: int) -> LinkRequest | None:
        wanted = creator, number
        return next((r for r in self.requests if (r.creator, r.create_id) == wanted), None)

    def offer_numbers(self) -> list[int]:
        return [o.create_id for o in self.offers]


OPERATIONS = st.one_of(
    st.tuples(
        st.just("add"),
        st.sampled_from((ME, PEER)),
        NUMBERS,
        SOCKETS,
        BINS,
        st.booleans(),
        st.integers(0, 2),
    ),
    st.tuples(st.just("begin")),
    st.tuples(st.just("remove"), st.sampled_from((ME, PEER)), NUMBERS),
    st.tuples(st.just("keep"), NUMBERS, SOCKETS),
    st.tuples(st.just("drop"), NUMBERS),
    st.tuples(st.just("take"), SOCKETS),
    st.tuples(st.just("drop all")),
)


@given(st.lists(OPERATIONS, max_size=30))
def test_a_link_is_as_plain_lists_would_be(operations):
    link, plain = Link(), Plain()
    for what, *arguments in operations:
        match what:
            case "add":
                added = request(*arguments)
                if plain.find(added.creator, added.create_id) is None:
                    link.add(added)
                    plain.requests.append(added)
            case "remove":
                found = plain.find(*arguments)
                if found is not None:
                    assert link.remove(found)
                    assert not link.remove(found), "it is out already"
                    plain.requests.remove(found)
                    if plain.begun is found:
                        plain.begun = None
            case "begin":
                link.begun = plain.begun = plain.head(2)
            case "keep":
                kept = offer(*arguments)
                if kept.create_id not in plain.offer_numbers():
                    link.keep_offer(kept)
                    plain.offers.append(kept)
            case "drop":
                link.drop_offer(*arguments)
                plain.offers = [o for o in plain.offers if o.create_id != arguments[0]]
            case "take":
                taken = [o for o in plain.offers if o.terms.remote_socket_id == arguments[0]]
                assert link.take_offers(*arguments) == taken
                plain.offers = [o for o in plain.offers if o not in taken]
            case "drop all":
                link.drop_offers()
                plain.offers.clear()
        plain.check(link)
    for left in plain.requests:
        link.remove(left)
    for number in plain.offer_numbers():
        link.drop_offer(number)
    assert not any((link._accepted, link._due, link._numbers, link._on_socket, link._offers_to))
    assert link.begun is None


def test_a_change_looks_at_few_of_many_requests(monkeypatch):
    link = Link()
    looked_at = 0

    def order(each: LinkRequest) -> link_queue.Order:
        nonlocal looked_at
        looked_at += 1
        return each.order

    monkeypatch.setattr(link_queue, "_order", order)

    def rank(each: LinkRequest) -> link_queue.Rank:
        nonlocal looked_at
        looked_at += 1
        return each.rank

    monkeypatch.setattr(link_queue, "_rank", rank)
    link.head(25)
    requests = [
        request(ME, number, number, number % 50, True, number % 7) for number in range(1_000)
    ]
    for each in requests:
        looked_at = 0
        link.add(each)
        assert looked_at <= 36, "three bisections of at most 1,000, and the request itself"
    looked_at = 0
    for number in range(26, 50):
        head = link.head(number)
        assert head is not None
        assert head.terms.priority == 6
    assert looked_at <= 12 * 480, "a bisection for each request whose start bin has come"
    for each in requests:
        looked_at = 0
        assert link.find(ME, each.create_id) is each
        assert link.on_socket(each.socket_id) == [each]
        assert link.first is not None
        assert link.remove(each)
        assert looked_at <= 36


# --- deadlines ------------------------------------------------------------------------

LIMITS = Limits(offer_timeout_ticks=10, entanglement_requests=64, er_sockets=64)


class Creator:
    """The link layer of a node that creates; each request is of a program of its own."""

    def __init__(self) -> None:
        self.peers = {2: 0, 3: 1}
        self.has_schedule = False
        self.ended: list[tuple[int, str]] = []
        self.programs: list[UserProcess] = []
        self.manager = EntanglementManager(
            QMMU(CAPABILITIES), LIMITS, 1_000, self.peers, lambda process, pair: None
        )
        self.layer = LinkLayer(
            ME,
            self.peers,
            self.manager,
            LIMITS,
            lambda peer, message: None,
            self.fault,
            lambda: 1,
            lambda: self.has_schedule,
        )

    def fault(self, process: UserProcess, error: Exception) -> None:
        assert isinstance(error, EntanglementTimeoutError)
        self.ended.append((process.pid, str(error)))
        self.layer.sockets_closed(self.manager.close_process(process.pid))

    def create(self, peer: int, max_time_us: int, tick: int) -> None:
        process = UserProcess(len(self.programs) + 1, (1, len(self.programs)), 3, LIMITS)
        process.memory.create_array(0, 10)
        self.programs.append(process)
        self.manager.open_socket(process, process.pid, peer, process.pid, 0)
        arguments = parse_create_arguments([1, 1, 0, 0, 0, 0, max_time_us], LIMITS)
        user = self.manager.create(process, peer, process.pid, (), arguments, 0, tick)
        self.layer.offer(user, process.pid % 3, tick)

    def accept(self, place: int) -> None:
        queued = [each for link in self.layer.links.values() for each in link.queue]
        if queued:
            chosen = queued[place % len(queued)]
            self.layer.receive(chosen.peer, Accept(chosen.create_id, place % 3))

    def deadlines(self) -> list[int]:
        """All there are, searched for."""
        found = []
        for link in self.layer.links.values():
            for each in link.queue:
                assert each.user is not None
                if not each.accepted or not self.has_schedule:
                    found.append(each.deadline_tick)
                if each.user.deadline_tick is not None:
                    found.append(each.user.deadline_tick)
        return found

    def due(self, tick: int) -> list[int]:
        """Programs whose time is up, in the order of the queues."""
        return [
            each.user.socket.process.pid
            for link in self.layer.links.values()
            for each in link.queue
            if each.user is not None and self.layer._expiry(each, tick) is not None
        ]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("create"), st.sampled_from((2, 3)), st.sampled_from((0, 4, 15))),
            st.tuples(st.just("create"), st.just(2), st.just(0)),
            st.tuples(st.just("accept"), st.integers(0, 9)),
            st.tuples(st.just("withdraw"), st.integers(0, 20)),
            st.tuples(st.just("wait"), st.sampled_from((1, 9, 12))),
            st.tuples(st.just("schedule")),
        ),
        min_size=4,
        max_size=30,
    )
)
def test_deadlines_are_as_a_search_of_the_queues_would_find_them(operations):
    node, tick = Creator(), 0
    layer = node.layer
    for what, *arguments in operations:
        if what == "schedule":  # the layer is not told; it finds out with the next change
            node.has_schedule = True
            continue
        if what == "create":
            peer, max_time_us = arguments
            node.create(peer, max_time_us, tick)
        elif what == "accept":
            node.accept(*arguments)
        elif what == "withdraw":
            sockets = node.manager.close_process(arguments[0])
            layer.sockets_closed(sockets)
        else:
            tick += arguments[0]
            due, before = node.due(tick), len(node.ended)
            layer.expire(tick)
            assert [pid for pid, _ in node.ended[before:]] == due
        queued = sum(len(link.queue) for link in layer.links.values())
        assert layer.is_creating is layer.has_requests is (queued > 0)
        if what in ("create", "wait"):
            assert layer.deadline_tick == min(node.deadlines(), default=None)
    for process in node.programs:
        layer.sockets_closed(node.manager.close_process(process.pid))
    assert layer.deadline_tick is None
    assert not layer.has_requests
    assert not layer._deadlines
    assert not layer._mine


def test_requests_of_the_same_time_expire_link_by_link_in_the_order_of_the_queues():
    node = Creator()
    for peer in (2, 3, 3):
        node.create(peer, 0, tick=0)
    assert [r.create_id for r in node.layer.links[3].queue] == [2, 1]
    node.layer.expire(10)
    assert [pid for pid, _ in node.ended] == [1, 3, 2]


@pytest.mark.parametrize("is_open", [True, False])
def test_an_offer_made_twice_is_refused(is_open):
    sent: list[PeerMessage] = []
    manager = EntanglementManager(
        QMMU(CAPABILITIES), LIMITS, 1_000, {PEER: 0}, lambda process, pair: None
    )

    def fault(process: UserProcess, error: QNodeOSError) -> None:
        pytest.fail(str(error))

    layer = LinkLayer(
        ME, [PEER], manager, LIMITS, lambda peer, message: sent.append(message), fault, lambda: 1
    )
    if is_open:
        manager.open_socket(UserProcess(1, (1, 0), 3, LIMITS), 4, PEER, 9, 0)
    layer.receive(PEER, offer(7, 4))
    sent.clear()
    layer.receive(PEER, offer(7, 4))
    [reject] = sent
    assert isinstance(reject, Reject)
    assert reject.create_id == 7
    assert "offers 7 twice" in reject.reason
    assert layer.links[PEER].of_neighbour == 1
