"""Circuits in any network, whatever happens: agreement, errors at both ends, nothing left."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnodeos.api.host import ArrayResult, HostReply
from qnodeos.api.peer import (
    CircuitId,
    CircuitTerms,
    Complete,
    EntanglementType,
    Expire,
    FarRefusal,
    FarSocket,
    Forward,
    NetworkLayerMessage,
    Pass,
    Teardown,
    TeardownCause,
    Track,
)
from qnodeos.errors import PeerProtocolError
from qnodeos.limits import Limits
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.requests import BASIS_Y
from tests.unit.kernel_programs import create_epr, recv_epr, submit
from tests.unit.kernel_world import Network, capabilities, network, open_program

K, M, R = EntanglementType
LIMITS = Limits(
    offer_timeout_ticks=3_000,
    circuit_attempts=20,
    circuit_turn_ticks=1_500,
    circuit_retry_ticks=60,
    pair_cutoff_ticks=600,
    announcement_timeout_ticks=400,
    lone_attempt_ticks=30,
)
LONGEST_TICKS = 400_000
"""More than all attempts of all circuits one after the other."""

CHAINS = [[(node, node + 1) for node in range(1, length)] for length in (3, 4, 5, 6)]
STAR = [(1, 2), (1, 3), (1, 4), (1, 5)]
RING = [(1, 2), (2, 3), (3, 4), (4, 5), (1, 5)]
DUMBBELL = [(1, 3), (2, 3), (3, 4), (4, 5), (4, 6)]
DEVICES = [capabilities(*qubits) for qubits in ((2,), (3,), (5,), (1, 1), (1, 3))]


@dataclass(frozen=True)
class Wish:
    """A create request and the receive request for it; ticks are None if it never comes."""

    head: int
    tail: int
    kind: EntanglementType
    pairs: int
    create_tick: int
    receive_tick: int | None
    head_ends_tick: int | None
    tail_ends_tick: int | None


@st.composite
def wishes(draw: st.DrawFn, links: Sequence[tuple[int, int]]) -> list[Wish]:
    """Up to five, between nodes that are no neighbours."""
    numbers = sorted({number for link in links for number in link})
    far = [
        (head, tail)
        for head in numbers
        for tail in numbers
        if head != tail and (min(head, tail), max(head, tail)) not in links
    ]
    rarely = st.none() | st.none() | st.none() | st.integers(30, 900)
    wish = st.builds(
        lambda ends, *rest: Wish(*ends, *rest),
        st.sampled_from(far),
        st.sampled_from([K, K, M, R]),
        st.integers(1, 3),
        st.integers(0, 200),
        st.integers(0, 200) | st.integers(0, 200) | st.integers(0, 200) | st.none(),
        rarely,
        rarely,
    )
    return draw(st.lists(wish, min_size=1, max_size=5))


@st.composite
def networks(draw: st.DrawFn) -> tuple[Network, list[Wish]]:
    """A network that is more or less ill, and what its programs want."""
    links = draw(st.sampled_from([*CHAINS, STAR, RING, DUMBBELL]))
    longest = draw(st.sampled_from([3, 10, 60]))
    devices = draw(st.lists(st.sampled_from(DEVICES), min_size=6, max_size=6))
    net = network(
        links,
        qubits=lambda node: devices[node - 1],
        seed=draw(st.integers(0, 10**6)),
        delay=lambda rng: rng.randint(1, longest),
        heralds=draw(st.sampled_from([0.2, 0.7, 1.0])),
        swaps=draw(st.sampled_from([1.0, 1.0, 0.5, 0.0])),
        gates=draw(st.sampled_from([1.0, 1.0, 0.95])),
        limits=LIMITS,
    )
    for tick in draw(st.lists(st.integers(30, 900), max_size=2, unique=True)):
        link = draw(st.sampled_from(links))
        net.lab.at(tick, partial(net.lose, *link))
        net.lab.at(tick + draw(st.integers(1, 300)), partial(net.connect, *link))
    return net, draw(wishes(links))


class Asked:
    """A wish on its way; program and socket have its number."""

    def __init__(self, net: Network, wish: Wish, number: int) -> None:
        self.net, self.wish, self.number = net, wish, number
        self.created: int | None = None
        self.received: int | None = None
        net.lab.at(wish.create_tick, self._create)
        if wish.receive_tick is not None:
            net.lab.at(wish.receive_tick, self._receive)
        for node, tick in ((wish.head, wish.head_ends_tick), (wish.tail, wish.tail_ends_tick)):
            if tick is not None:
                net.lab.at(tick, partial(net.nodes[node].close, number))

    def _create(self) -> None:
        wish = self.wish
        arguments = {0: int(wish.kind)} | ({2: 2, 3: 2} if wish.kind is M else {})
        program = create_epr(
            remote=wish.tail,
            socket=self.number,
            pairs=wish.pairs,
            virtuals=range(wish.pairs),
            arguments=arguments,
        )
        self.created = self._post(wish.head, wish.tail, program)

    def _receive(self) -> None:
        wish = self.wish
        program = recv_epr(
            remote=wish.head,
            socket=self.number,
            pairs=wish.pairs,
            virtuals=range(wish.pairs),
            measured=wish.kind is M,
        )
        self.received = self._post(wish.tail, wish.head, program)

    def _post(self, node: int, remote: int, program: str) -> int:
        open_program(self.net, node, remote, self.number, self.number)
        return self.net.nodes[node].post(submit(0, program), self.number)

    def _is_alive(self, node: int) -> bool:
        processes = self.net.nodes[node].kernel.processes.values()
        return any(process.owner == (self.number, 0) for process in processes)

    def check(self) -> None:
        """Both ends were told the same, or the reason why not."""
        wish, nodes = self.wish, self.net.nodes
        assert self.created is not None
        mine = nodes[wish.head].replies.get(self.created)
        assert mine is not None, f"the creator of {wish} was told nothing"
        theirs = None if self.received is None else nodes[wish.tail].replies.get(self.received)
        if theirs is None:
            # Nobody received, or its other end had gone before it came.
            assert self.received is None or mine.error is not None
            return
        if mine.error is None and theirs.error is None:
            self._check_results(mine, theirs)

    def _check_results(self, mine: HostReply, theirs: HostReply) -> None:
        wish, kind = self.wish, self.wish.kind
        here, there = pairs_of(mine), pairs_of(theirs)
        assert len(here) == len(there) == wish.pairs
        sequences = []
        for number, (ours, others) in enumerate(zip(here, there, strict=True)):
            assert ours[1] == others[1], "create id"
            sequence, goodness = (4, 7) if kind is K else (5, 8)
            others_places = (5, 8) if kind is M else (4, 7)
            assert ours[sequence] == others[others_places[0]]
            assert ours[goodness] == others[others_places[1]]
            sequences.append(ours[sequence])
            if kind is M and ours[3] == others[3]:
                assert ours[2] ^ others[2] == (ours[3] == BASIS_Y)
            if kind is K and self._is_alive(wish.head) and self._is_alive(wish.tail):
                halves = (self.net.half(n, number, self.number) for n in (wish.head, wish.tail))
                assert self.net.world.fidelity(*halves) == pytest.approx(1)
        assert sequences == sorted(sequences)


def pairs_of(reply: HostReply) -> list[tuple[int, ...]]:
    """The ten results of each pair."""
    [array] = [result for result in reply.results if isinstance(result, ArrayResult)]
    values = [0 if value is None else value for value in array.values]
    return [tuple(values[start : start + 10]) for start in range(0, len(values), 10)]


@settings(max_examples=150)
@given(networks())
def test_any_network_agrees_and_leaves_nothing(drawn):
    net, wanted = drawn
    asked = [Asked(net, wish, number) for number, wish in enumerate(wanted, start=1)]
    net.lab.run(LONGEST_TICKS)
    for each in asked:
        each.check()
    for node in net.nodes.values():
        for client in {process.owner[0] for process in node.kernel.processes.values()}:
            node.close(client)
    net.lab.run(5_000)
    net.check_idle()
    net.lab.check_clean()


# --- neighbours that say anything -----------------------------------------------------

small = st.integers(0, 2)
circuit_ids = st.builds(CircuitId, st.sampled_from([1, 2, 3, 9]), small)
terms = st.builds(
    CircuitTerms, small, small, st.sampled_from(EntanglementType), small, small, small
)
nodes = st.sampled_from([1, 2, 3, 9])
paths = st.lists(nodes, min_size=1, max_size=4).map(tuple)
anything = st.one_of(
    st.builds(Forward, circuit_ids, nodes, paths, terms),
    st.builds(Pass, circuit_ids, small),
    st.builds(Track, circuit_ids, small, small, st.sampled_from(BellState)),
    st.builds(Complete, circuit_ids, small, small, small, small, small),
    st.builds(Expire, circuit_ids, small, small, small, st.just("")),
    st.builds(Teardown, circuit_ids, st.sampled_from(TeardownCause), st.just("")),
    st.builds(FarSocket, nodes, paths, small, small, st.booleans()),
    st.builds(FarRefusal, nodes, paths, small, st.just("")),
)
said = st.lists(
    st.tuples(st.integers(20, 200), st.sampled_from([(1, 2), (2, 1), (2, 3), (3, 2)]), anything),
    max_size=12,
)


@settings(max_examples=100)
@given(said, st.integers(0, 999))
def test_whatever_neighbours_say_harms_their_circuits_only(said, seed):
    net = network([(1, 2), (2, 3)], seed=seed, limits=LIMITS, heralds=0.4)

    def say(source: int, node: int, message: NetworkLayerMessage, tick: int) -> None:
        with suppress(PeerProtocolError):  # which ends the connection, in a service
            net.nodes[node].kernel.peer_message(source, message, tick)

    for tick, (source, node), message in said:
        hear = partial(say, source, node, message)
        net.lab.at(tick, partial(net.nodes[node].inbox.append, hear))
    for client, (head, tail) in enumerate([(1, 3), (3, 1)], start=1):
        wish = Wish(head, tail, K, 2, 0, 0, None, None)
        Asked(net, wish, client)
    net.lab.run(20_000)
    for node in net.nodes.values():
        for client in {process.owner[0] for process in node.kernel.processes.values()}:
            node.close(client)
    net.lab.run(20_000)
    net.check_idle()
