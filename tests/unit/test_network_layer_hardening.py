"""Circuits and neighbours that do the unexpected at an awkward moment: no crash, no lost qubit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qnodeos.api.peer import CircuitId, CircuitTerms, EntanglementType, Forward, Teardown
from qnodeos.qdevice.instructions import Axis
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.qnpu import segment_requests
from qnodeos.qnpu.circuits import Circuit, CircuitState
from qnodeos.qnpu.device_jobs import Job
from qnodeos.qnpu.link_terms import segment_terms
from qnodeos.qnpu.network_process import Phase
from qnodeos.qnpu.process import ProcessState
from qnodeos.qnpu.turns import Turns
from tests.unit.kernel_harness import pair
from tests.unit.kernel_programs import (
    create_epr,
    init_app,
    keep,
    measure_directly,
    open_socket,
    recv_epr,
    stop_app,
    submit,
)
from tests.unit.kernel_world import QUICK, Network, ask, chain, open_program, settled


def step_until_tail_is_done(net: Network, tail: int, head: int) -> None:
    """Run up to the moment the tail has its half of the first pair."""
    while not net.nodes[tail].kernel.network.pairs[head]:
        net.lab.step(net.lab.tick + 1)


# --- what neighbours say ----------------------------------------------------------------


def test_a_path_that_comes_back_to_its_head_does_not_replace_the_circuit():
    net = chain(3, heralds=0.0, limits=QUICK)
    ask(net, 1, 3)
    net.lab.run(60)
    head = net.nodes[1].kernel
    terms = CircuitTerms(0, 0, EntanglementType.KEEP, 1, 0, 0)
    forward = Forward(CircuitId(1, 0), 1, (1, 2), terms)
    net.nodes[1].inbox.append(lambda tick: head.peer_message(2, forward, tick))
    net.lab.run(10)
    [refusal] = [m for _, peer, m in net.lab.sent if isinstance(m, Teardown) and peer == 2]
    assert "has a loop: [1, 2, 1]" in refusal.reason
    net.nodes[1].close()
    net.lab.run(3_000)
    settled(net)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": EntanglementType.MEASURE},
        {"kind": EntanglementType.PREPARE},
        {"pairs": 2},
        {"socket_id": 0, "remote_socket_id": 0},
    ],
)
def test_a_segment_that_is_not_one_kept_pair_is_refused(changes, monkeypatch):
    def strange_terms(*arguments):
        return replace(segment_terms(*arguments), **changes)

    monkeypatch.setattr(segment_requests, "segment_terms", strange_terms)
    net = chain(3, limits=QUICK)
    created, received = ask(net, 1, 3)
    net.lab.run(5_000)
    for node, request in ((1, created), (3, received)):
        assert "its terms are out of range" in net.nodes[node].error(request).text
    settled(net)


def test_a_number_that_is_promised_already_is_refused():
    """A neighbour that was started again may use a number twice."""
    lab, first, second, _ = pair(limits=QUICK)
    for node, remote in ((first, 2), (second, 1)):
        node.post(init_app(0))
        node.post(open_socket(0, 0, remote, 0))
    first.post(submit(0, create_epr(remote=2)))
    lab.run(300)
    assert second.kernel.entanglement.kept == 1, "nobody has received it yet"
    first.kernel.entanglement._next_create_id = 0
    again = first.post(submit(0, create_epr(remote=2, base=20, virtuals=[1])))
    lab.run(300)
    assert "node 1 asks twice for request 0 on ER socket 0" in first.error(again).text
    second.close()
    lab.run(100)
    assert second.kernel.entanglement.kept == 0
    lab.check_clean()


# --- programs in a hurry ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["kept", "measured"])
def test_max_time_counts_from_the_last_pair_and_from_the_free_qubit(kind):
    """The deadline of the first pair passes while the second is made, and means nothing."""
    net = chain(3, limits=QUICK)
    within = keep(max_time=3_000) if kind == "kept" else measure_directly(max_time=3_000)
    open_program(net, 1, 3)
    open_program(net, 3, 1)
    create = create_epr(remote=3, pairs=2, virtuals=[0, 0], arguments=within, wait=False)
    receive = recv_epr(remote=1, pairs=2, virtuals=[0, 1], measured=kind == "measured")
    net.nodes[1].post(submit(0, create))
    received = net.nodes[3].post(submit(0, receive))
    step_until_tail_is_done(net, 3, 1)
    net.chances.heralds = 0.0
    net.lab.run(100)
    net.nodes[1].post(submit(0, "set Q0 0\nqfree Q0\n" if kind == "kept" else "set R0 0\n"))
    net.lab.run(6_000)
    late = net.nodes[1].post(submit(0, "set R0 0\n"))
    net.lab.run(20)
    assert "1 of 2 pairs with node 3 came within max_time" in net.nodes[1].error(late).text
    assert "the program at node 1 has ended" in net.nodes[3].error(received).text
    settled(net)


@pytest.mark.parametrize("later_ticks", range(8))
def test_a_request_is_cancelled_while_its_last_half_is_measured(later_ticks):
    net = chain(3, limits=QUICK)
    created, _ = ask(net, 1, 3, arguments=measure_directly())
    step_until_tail_is_done(net, 3, 1)
    for _ in range(later_ticks):
        net.lab.step(net.lab.tick + 1)
    net.nodes[1].cancel(created)
    net.lab.run(3_000)
    settled(net)


def test_a_job_is_finished_though_a_herald_is_dropped_meanwhile():
    lab, first, second, _ = pair(delay=lambda: 40)
    for node, remote in ((first, 2), (second, 1)):
        node.post(init_app(0))
        node.post(open_socket(0, 0, remote, 0))
    first.post(submit(0, create_epr(remote=2)))
    second.post(submit(0, recv_epr(remote=1)))
    kernel = second.kernel
    while kernel.network._phase is not Phase.AWAIT or (
        kernel.network.state is not ProcessState.WAITING
    ):
        lab.step(lab.tick + 1)
    came: list[list[Outcome]] = []
    rotation = second.driver.rotate(Axis.X, 8, 4, 1)
    job = Job(lambda: (*rotation, *rotation), lambda outcomes, tick: came.append(list(outcomes)))
    second.inbox.append(lambda tick: kernel._add_job(job))
    lab.step(lab.tick + 1)
    assert second.device.busy is not None
    second.close()
    lab.run(500)
    assert came == [[Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ZERO]]
    lab.check_clean()


def test_deadlines_that_do_not_count_any_more_do_not_pile_up():
    """Those of a long request, behind that of a program whose partner does not come."""
    net = chain(3, heralds=1.0)
    open_program(net, 1, 3, client=2, socket=1)
    net.nodes[1].post(submit(0, create_epr(remote=3, socket=1, virtuals=[2])), 2)
    within = measure_directly(max_time=20_000_000)  # later than the other waits for its partner
    created, _ = ask(net, 1, 3, pairs=200, arguments=within)
    most = 0
    while created not in net.nodes[1].replies:
        net.lab.run(100)
        tables = [node.kernel.network_layer._table for node in net.nodes.values()]
        most = max(most, *(len(table._deadlines) for table in tables))
    assert net.nodes[1].replies[created].error is None
    assert most < 100
    net.nodes[1].close(2)
    net.lab.run(100)
    settled(net)


def test_those_that_make_room_do_not_come_in_again_before_it_is_enough():
    """An earlier circuit takes two qubits, those in its way have one each."""
    terms = CircuitTerms(0, 0, EntanglementType.KEEP, 1, 0, 0)

    def circuit(number: int, predecessor: int | None) -> Circuit:
        made = Circuit(CircuitId(1, number), 3, terms, predecessor, 2, CircuitState.WAITING)
        made.turn = number, 1, number
        return made

    earlier, *later = circuit(0, 5), circuit(1, None), circuit(2, None), circuit(3, None)
    turns = Turns(lambda: 3)
    for each in later:
        turns.wait(each)
        assert turns.admit() is each
        each.state = CircuitState.MAKING
    turns.wait(earlier)
    for stopped in (later[2], later[1]):
        assert turns.admit() is None
        assert turns.must_make_room() is stopped
        stopped.state = CircuitState.WAITING
        turns.leave(stopped)
        turns.wait(stopped)
    assert turns.admit() is earlier
    earlier.state = CircuitState.MAKING
    assert turns.admit() is None
    assert turns.must_make_room() is None


def test_news_for_a_node_without_a_route_do_not_hold_up_those_for_others():
    net = chain(4)
    kernel = net.nodes[1].kernel
    open_program(net, 1, 4)
    net.lab.run(50)
    routes = dict(kernel.entanglement.routes)
    del routes[4]
    kernel.install_routes(routes)
    net.nodes[1].post(stop_app(0))
    net.lab.run(50)
    open_program(net, 1, 3, client=2)
    open_program(net, 3, 1, client=2)
    received = net.nodes[3].post(submit(0, recv_epr(remote=1)), 2)
    net.lab.run(50)
    net.nodes[1].close(2)
    net.lab.run(100)
    told = net.nodes[3].error(received).text
    assert "the program at node 1 that had ER socket 0 has ended" in told
    settled(net)


def test_a_socket_that_came_and_went_while_the_way_was_down_ends_nobody():
    net = chain(3)
    net.lose(1, 2)
    open_program(net, 1, 3)
    net.nodes[1].close(1)
    net.lab.run(50)
    open_program(net, 3, 1)
    received = net.nodes[3].post(submit(0, recv_epr(remote=1)))
    net.lab.run(50)
    net.connect(1, 2)
    open_program(net, 1, 3, client=2)
    net.lab.run(50)
    created = net.nodes[1].post(submit(0, create_epr(remote=3)), 2)
    net.lab.run(3_000)
    assert net.nodes[1].array(created)[4] == net.nodes[3].array(received)[4]  # sequence numbers
