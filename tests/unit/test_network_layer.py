"""Circuits: pairs between nodes that are no neighbours, when nothing goes wrong."""

from __future__ import annotations

from collections import Counter
from itertools import permutations, product

import numpy as np
import pytest

from qnodeos.api.peer import Complete, Expire, Forward, Offer, Pass, Teardown, Track
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.requests import BASIS_X, BASIS_Y, BASIS_Z
from qnodeos.qnpu.routes import Route
from qnodeos.trace.events import Event
from tests.unit.kernel_programs import create_epr, keep, measure_directly, recv_epr, submit
from tests.unit.kernel_world import (
    BIN_TICKS,
    Network,
    ask,
    capabilities,
    chain,
    network,
    open_program,
    star,
)

REMOTE_STATE = 2


def prepare(**more: int) -> dict[int, int]:
    """Arguments of a request for remote state preparation."""
    return {0: REMOTE_STATE} | keep(**more)


def results(net: Network, node: int, request: int) -> list[tuple[int, ...]]:
    """The ten results of each pair."""
    values = [value for value in net.nodes[node].array(request) if value is not None]
    return [tuple(values[start : start + 10]) for start in range(0, len(values), 10)]


# --- what the programs get ------------------------------------------------------------


@pytest.mark.parametrize("nodes", [3, 4, 5, 6])
@pytest.mark.parametrize(
    "device", [capabilities(2), capabilities(1, 1), capabilities(1, 3)], ids=["2", "1+1", "1+3"]
)
def test_a_chain_delivers_a_pair_to_its_ends(nodes, device):
    net = chain(nodes, qubits=device, seed=nodes)
    created, received = ask(net, 1, nodes)
    net.lab.run(6_000)
    [mine], [theirs] = results(net, 1, created), results(net, nodes, received)
    assert mine[:7] == (0, 0, 0, 0, 0, 0, nodes)
    assert theirs[:7] == (0, 0, 0, 1, 0, 0, 1)
    assert mine[7:] == theirs[7:], "goodness and Bell state are the same"
    assert net.world.fidelity(net.half(1), net.half(nodes)) == pytest.approx(1)
    assert net.swaps() == nodes - 2
    net.check_idle()
    net.lab.check_clean()


def test_an_end_needs_one_qubit_only():
    net = chain(3, qubits=lambda node: capabilities(2 if node == 2 else 1))
    ask(net, 1, 3)
    net.lab.run(1_000)
    assert net.world.fidelity(net.half(1), net.half(3)) == pytest.approx(1)
    net.lab.check_clean()


def test_the_pairs_of_a_request_come_in_the_same_order_at_both_ends():
    net = chain(4, heralds=0.4)
    created, received = ask(net, 4, 1, pairs=3, virtuals=[2, 0, 1])
    net.lab.run(6_000)
    mine, theirs = results(net, 4, created), results(net, 1, received)
    assert [pair[4] for pair in mine] == [pair[4] for pair in theirs] == [0, 1, 2]
    assert [pair[7] for pair in mine] == [pair[7] for pair in theirs]
    assert [pair[2] for pair in mine] == [pair[2] for pair in theirs] == [2, 0, 1]
    for virtual in range(3):
        fidelity = net.world.fidelity(net.half(4, virtual), net.half(1, virtual))
        assert fidelity == pytest.approx(1)
    net.lab.check_clean()


def test_goodness_is_the_time_from_the_request_to_the_pair():
    net = chain(3)
    created, received = ask(net, 1, 3)
    net.lab.run(1_000)
    complete = next(m for _, _, m in net.lab.sent if isinstance(m, Complete))
    forward = next(m for _, _, m in net.lab.sent if isinstance(m, Forward))
    expected_us = 10 * (complete.tick - forward.terms.since_tick)
    [mine], [theirs] = results(net, 1, created), results(net, 3, received)
    assert mine[7] == theirs[7] == expected_us


def test_pairs_one_after_the_other_in_the_same_qubit_wait_until_it_is_free():
    net = chain(3)
    open_program(net, 1, 3)
    open_program(net, 3, 1)
    values = "\n".join(f"store 0 @1[{i}]" for i in range(2)) + "\n"
    body = create_epr(remote=3, pairs=2, virtuals=[0, 0], wait=False) + values
    loop = "wait_all @0[0:10]\nqfree Q0\nwait_all @0[10:20]\nqfree Q0\nret_arr @0\n"
    created = net.nodes[1].post(submit(0, body + loop))
    received = net.nodes[3].post(submit(0, recv_epr(pairs=2, virtuals=[0, 0], wait=False) + loop))
    net.lab.run(3_000)
    assert [pair[4] for pair in results(net, 1, created)] == [0, 1]
    assert [pair[4] for pair in results(net, 3, received)] == [0, 1]
    net.lab.check_clean()


def test_a_pair_may_come_before_anybody_receives_it():
    net = chain(3)
    open_program(net, 1, 3)
    open_program(net, 3, 1)
    created = net.nodes[1].post(submit(0, create_epr(remote=3)))
    net.lab.run(1_000)
    net.check_idle()
    received = net.nodes[3].post(submit(0, recv_epr(remote=1)))
    net.lab.run(50)
    assert results(net, 3, received)[0][1] == results(net, 1, created)[0][1]
    assert net.world.fidelity(net.half(1), net.half(3)) == pytest.approx(1)
    net.lab.check_clean()


# --- measured pairs -------------------------------------------------------------------


@pytest.mark.parametrize("basis", [BASIS_X, BASIS_Y, BASIS_Z])
def test_measured_in_the_same_basis_both_ends_agree_as_for_phi_plus(basis):
    angles = {BASIS_Z: (0, 0), BASIS_X: (0, 24), BASIS_Y: (8, 0)}[basis]
    rotations = {
        f"{where}_{place}": angle
        for where in ("local", "remote")
        for place, angle in enumerate(angles)
    }
    net = chain(4)
    created, received = ask(net, 1, 4, pairs=20, arguments=measure_directly(**rotations))
    net.lab.run(20_000)
    mine, theirs = results(net, 1, created), results(net, 4, received)
    for here, there in zip(mine, theirs, strict=True):
        assert here[0] == there[0] == 1
        assert here[3] == there[3] == basis
        assert here[2] ^ there[2] == (basis == BASIS_Y)  # Phi+ is anticorrelated in Y
        assert here[5:6] + here[8:] == there[5:6] + there[8:]
    assert {pair[2] for pair in mine} == {0, 1}
    net.check_idle()
    net.lab.check_clean()


def test_random_bases_are_drawn_at_both_ends_and_told():
    net = chain(3, seed=5)
    arguments = measure_directly(random_local=2, random_remote=2)
    created, received = ask(net, 3, 1, pairs=60, arguments=arguments)
    net.lab.run(40_000)
    mine, theirs = results(net, 3, created), results(net, 1, received)
    bases = Counter((here[3], there[3]) for here, there in zip(mine, theirs, strict=True))
    assert set(bases) == set(product((BASIS_X, BASIS_Y, BASIS_Z), repeat=2))
    for here, there in zip(mine, theirs, strict=True):
        if here[3] == there[3]:
            assert here[2] ^ there[2] == (here[3] == BASIS_Y)
    net.lab.check_clean()


def test_remote_state_preparation_measures_at_the_head_only():
    net = chain(3, seed=2)
    states = []
    for _ in range(6):
        created, received = ask(net, 1, 3, arguments=prepare(local_1=24))  # X at the head
        net.lab.run(1_000)
        [mine], [theirs] = results(net, 1, created), results(net, 3, received)
        assert (mine[0], theirs[0]) == (1, 0)
        kept = net.world.singles[net.half(3)]
        expected = np.array([1, -1 if mine[2] else 1]) / np.sqrt(2)
        assert abs(np.vdot(expected, kept)) == pytest.approx(1)
        states.append(mine[2])
        net.lab.check_clean()
    assert set(states) == {0, 1}


# --- several circuits -----------------------------------------------------------------


@pytest.mark.parametrize("hub", [capabilities(2), capabilities(5), capabilities(1, 1)])
def test_circuits_that_cross_at_one_repeater_take_turns(hub):
    """Every leaf of a star has a pair with every other, both ways."""
    leaves = range(2, 6)
    net = star(len(leaves), qubits=lambda node: hub if node == 1 else capabilities(6), seed=4)
    for client, (head, tail) in enumerate(permutations(leaves, 2), start=1):
        ask(net, head, tail, client, socket=client)
    net.lab.run(30_000)
    for client, (head, tail) in enumerate(permutations(leaves, 2), start=1):
        fidelity = net.world.fidelity(net.half(head, 0, client), net.half(tail, 0, client))
        assert fidelity == pytest.approx(1)
    assert net.swaps() == 12
    net.check_idle()
    net.lab.check_clean()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("device", [capabilities(2), capabilities(1, 1)], ids=["2", "1+1"])
def test_circuits_through_two_repeaters_in_opposite_directions_do_not_block_each_other(
    device, seed
):
    """Each repeater holds two halves; nodes 1, 2, 5, 6 lead to it, 3 and 4 are repeaters."""
    links = [(1, 3), (2, 3), (3, 4), (4, 5), (4, 6)]
    net = network(
        links,
        qubits=lambda node: device if node in (3, 4) else capabilities(3),
        seed=seed,
        heralds=0.3,
        delay=lambda rng: rng.randint(1, BIN_TICKS),
    )
    ends = [(1, 5), (6, 2), (2, 6), (5, 1)]
    for client, (head, tail) in enumerate(ends, start=1):
        ask(net, head, tail, client, socket=client)
    net.lab.run(30_000)
    for client, (head, tail) in enumerate(ends, start=1):
        fidelity = net.world.fidelity(net.half(head, 0, client), net.half(tail, 0, client))
        assert fidelity == pytest.approx(1)
    net.check_idle()
    net.lab.check_clean()


def test_the_requests_of_one_socket_are_accepted_in_order():
    net = chain(3)
    open_program(net, 1, 3)
    open_program(net, 3, 1)
    both = create_epr(remote=3, wait=False) + create_epr(
        remote=3, virtuals=[1], base=10, wait=False
    )
    wait = "wait_all @0[0:10]\nwait_all @10[0:10]\nret_arr @0\nret_arr @10\n"
    created = net.nodes[1].post(submit(0, both + wait))
    receive = recv_epr(wait=False) + recv_epr(virtuals=[1], base=10, wait=False)
    received = net.nodes[3].post(submit(0, receive + wait))
    net.lab.run(3_000)
    for number in range(2):
        mine, theirs = net.nodes[1].array(created, number), net.nodes[3].array(received, number)
        assert mine[1] == theirs[1]
        assert net.world.fidelity(net.half(1, number), net.half(3, number)) == pytest.approx(1)
    net.lab.check_clean()


def test_a_node_is_an_end_a_neighbour_and_a_repeater_at_once():
    net = chain(4, qubits=capabilities(4))
    ends = [(1, 3), (4, 2), (1, 4), (2, 3)]
    for client, (head, tail) in enumerate(ends, start=1):
        ask(net, head, tail, client, socket=client)
    net.lab.run(10_000)
    for client, (head, tail) in enumerate(ends, start=1):
        fidelity = net.world.fidelity(net.half(head, 0, client), net.half(tail, 0, client))
        assert fidelity == pytest.approx(1)
    net.lab.check_clean()


def test_a_neighbour_is_reached_over_its_link_whatever_the_routes_say():
    net = network([(1, 2), (2, 3), (1, 3)], fidelities={(1, 2): 0.99, (2, 3): 0.99, (1, 3): 0.6})
    ask(net, 1, 3)
    net.lab.run(1_000)
    assert net.swaps() == 0
    assert not [m for _, _, m in net.lab.sent if isinstance(m, Forward)]
    net.lab.check_clean()


def test_new_routes_count_for_new_requests():
    square = [(1, 2), (2, 4), (1, 3), (3, 4)]
    net = network(square)
    ask(net, 1, 4)
    net.lab.run(1_000)
    assert net.nodes[2].kernel.network_layer.attempts.swaps == 1
    net.nodes[1].kernel.install_routes({4: Route(3, 2, 1.0)})
    ask(net, 1, 4, client=2, socket=2)
    net.lab.run(1_000)
    assert net.nodes[3].kernel.network_layer.attempts.swaps == 1
    net.lab.check_clean()


# --- what is said, recorded and done on the way -----------------------------------------


def test_the_messages_of_a_pair_run_along_the_path():
    net = chain(3)
    ask(net, 1, 3)
    net.lab.run(1_000)
    said = [
        (source, destination, type(message))
        for source, destination, message in net.lab.sent
        if isinstance(message, Forward | Pass | Track | Complete | Teardown)
    ]
    assert said == [
        (1, 2, Forward),
        (2, 3, Forward),
        (3, 2, Pass),
        (2, 1, Pass),
        (1, 2, Track),
        (2, 3, Track),
        (3, 2, Complete),
        (2, 1, Complete),
        (1, 2, Teardown),
        (2, 3, Teardown),
    ]
    offers = [(source, peer) for source, peer, m in net.lab.sent if isinstance(m, Offer)]
    assert sorted(offers) == [(1, 2), (2, 3)], "each node makes the segment to its successor"


def test_the_events_of_the_published_system_are_recorded():
    net = chain(3)
    ask(net, 1, 3)
    net.lab.run(1_000)

    def names(node: int) -> Counter[str]:
        return Counter(
            record.event.name
            for record in net.nodes[node].trace.records
            if record.event.name.startswith(("QNPD", "QNP_", "QNETWORK_SWAP"))
        )

    steps = ("FORWARD", "PASS", "TRACK", "COMPLETE")
    early = Counter(["QNPD_TRACK_CACHED"])
    ends = ["QNPD_FORWARD_SENT", "QNPD_PASS_RECEIVED", "QNPD_TRACK_SENT"]
    assert names(1) == Counter([*ends, "QNPD_COMPLETE_RECEIVED", "QNP_BQ_DELIVERED"])
    assert names(2) - early == Counter(
        [f"QNPD_{step}_{way}" for step in steps for way in ("SENT", "RECEIVED")]
    ) + Counter(("QNETWORK_SWAP_PULL", "QNETWORK_SWAP_RET"))
    ends = ["QNPD_FORWARD_RECEIVED", "QNPD_PASS_SENT", "QNPD_TRACK_RECEIVED"]
    assert names(3) - early == Counter([*ends, "QNPD_COMPLETE_SENT", "QNP_BQ_DELIVERED"])


def test_a_track_that_comes_before_the_swap_is_kept():
    for seed in range(20):
        net = chain(3, seed=seed, heralds=0.3)
        ask(net, 1, 3)
        net.lab.run(3_000)
        assert net.world.fidelity(net.half(1), net.half(3)) == pytest.approx(1)
        if net.nodes[2].trace.events(Event.QNPD_TRACK_CACHED):
            return
    pytest.fail("no track was early in 20 runs")


def test_all_outcomes_of_swaps_are_corrected():
    seen = set()
    for seed in range(24):
        net = chain(4, seed=seed)
        ask(net, 1, 4)
        net.lab.run(3_000)
        assert net.world.fidelity(net.half(1), net.half(4)) == pytest.approx(1)
        seen |= {m.bell_state for _, peer, m in net.lab.sent if isinstance(m, Track) and peer == 4}
    assert seen == set(BellState)


def test_nothing_is_due_while_circuits_are_done_or_idle():
    net = chain(3)
    ask(net, 1, 3)
    net.lab.run(1_000)
    for node in net.nodes.values():
        assert node.kernel.network_layer.deadline_tick is None
        assert node.kernel.next_tick(net.lab.tick) is None
    assert not [m for _, _, m in net.lab.sent if isinstance(m, Expire)]


def test_pairs_swaps_and_circuits_are_counted():
    net = chain(3, heralds=0.2)
    ask(net, 1, 3)
    net.lab.run(60)
    counted = [node.kernel.statistics() for node in net.nodes.values()]
    assert [each.circuits for each in counted] == [1, 1, 1]
    net.lab.run(3_000)
    counted = [node.kernel.statistics() for node in net.nodes.values()]
    assert [each.pairs for each in counted] == [{2: 0, 3: 1}, {1: 0, 3: 0}, {2: 0, 1: 1}]
    assert [each.swaps for each in counted] == [0, 1, 0]
    assert [each.circuits for each in counted] == [0, 0, 0]
