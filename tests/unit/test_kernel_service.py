"""What a kernel offers to a service: priorities, cancelling, lost peers, schedules, state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qnodeos.api.peer import Accept, Announce, Cancel, Offer, Reject
from qnodeos.errors import ConfigurationError, PeerProtocolError
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import Opcode
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.qnpu.network_process import NETWORK_PRIORITY
from qnodeos.qnpu.process import NETWORK_PID, ProcessState
from qnodeos.qnpu.schedule import NetworkSchedule
from tests.unit.kernel_device import FAILED, Answer, Link, Verdict
from tests.unit.kernel_harness import BIN_TICKS, Lab, Node, make_node, pair, solo, verdicts
from tests.unit.kernel_programs import (
    create_epr,
    encode,
    init_app,
    measure_directly,
    open_socket,
    recv_epr,
    register,
    submit,
)

LOOP = encode(("add", register("R0"), register("R0"), register("R1")), ("jmp", 0))
PULSES = "LOOP:\nx Q0\njmp LOOP\n"
GATES = "qalloc Q0\ninit Q0\n" + PULSES
ONE = "set R0 1\nret_reg R0\n"
QUBIT = "qalloc Q0\ninit Q0\nmeas Q0 M0\nqfree Q0\nret_reg M0\n"
SCHEDULE = NetworkSchedule(bin_ticks=BIN_TICKS, guard_ticks=5, batch_ticks=15, pattern=(2,))


def start(node: Node, remote: int, client: int = 1, sockets: int = 1) -> None:
    node.post(init_app(0), client)
    for socket in range(sockets):
        node.post(open_socket(0, socket, remote, socket), client)


# --- priorities -----------------------------------------------------------------------


def test_the_program_with_the_higher_priority_goes_first():
    node = make_node(limits=Limits(instructions_per_tick=100, instructions_per_activation=1000))
    lab = solo(node)
    assert node.register(0, 5) == 0
    node.post(init_app(1))
    node.post(init_app(2))
    node.post(submit(2, LOOP))
    lab.run(5)
    low, high = node.post(submit(1, ONE)), node.post(submit(0, ONE))
    lab.run(100)
    assert list(node.replies)[-2:] == [high, low]
    assert [info.priority for info in node.kernel.list_processes()] == [NETWORK_PRIORITY, 5, 0]
    lab.check_clean()


@pytest.mark.parametrize("priority", [-1, 4, 1 << 40])
def test_a_priority_out_of_range(priority):
    node = make_node(limits=Limits(highest_priority=3))
    lab = solo(node)
    refused, taken = node.register(0, priority), node.register(0, 3)
    lab.run(2)
    assert "outside 0..highest_priority=3" in node.error(refused).text
    assert node.replies[taken].error is None
    lab.check_clean()


def test_no_program_can_have_the_priority_of_the_network_process():
    with pytest.raises(ConfigurationError, match="highest_priority=1000"):
        make_node(limits=Limits(highest_priority=NETWORK_PRIORITY))


# --- bounds ---------------------------------------------------------------------------


def test_a_connection_has_so_many_programs_and_others_are_not_touched():
    node = make_node(limits=Limits(programs_per_client=2))
    lab = solo(node)
    requests = [node.post(init_app(app)) for app in range(3)]
    other = node.post(init_app(0), 2)
    lab.run(2)
    assert [node.replies[r].error is None for r in [*requests, other]] == [True, True, False, True]
    assert "programs_per_client=2" in node.error(requests[2]).text
    lab.check_clean()


def test_a_connection_cannot_push_out_the_epitaphs_of_another():
    node = make_node(limits=Limits(programs_per_client=2))
    lab = solo(node)
    for client, apps in ((1, 1), (2, 10)):
        for app in range(apps):
            node.post(init_app(app), client)
            node.post(submit(app, "div R0 R0 R1"), client)
            lab.run(5)
    late = node.post(submit(0, ONE), 1)
    lab.run(2)
    assert "has ended: ArithmeticFaultError" in node.error(late).text
    assert len(node.kernel._manager._epitaphs) == 3
    for client in (1, 2):
        node.close(client)
    lab.check_clean()


def test_the_bytes_that_wait_in_a_process_are_bounded():
    node = make_node(limits=Limits(pending_bytes=100, instructions_per_activation=100))
    lab = solo(node)
    node.post(init_app(0))
    body = encode(*[("set", 0, 1)] * 7)
    posted = [node.post(submit(0, body)) for _ in range(3)]
    lab.run(5)
    assert "pending_bytes=100" in node.error(posted[2]).text
    assert [node.results(request) for request in posted[:2]] == [(), ()]
    lab.check_clean()


def test_the_compiled_subroutines_kept_are_bounded_in_bytes():
    node = make_node(limits=Limits(compiled_bytes=60))
    lab = solo(node)
    node.post(init_app(0))
    for value in range(10):
        node.post(submit(0, encode(*[("set", 0, value)] * 4)))
    big = node.post(submit(0, encode(*[("set", 0, 1)] * 40)))
    lab.run(20)
    [process] = node.kernel.processes.values()
    assert node.results(big) == ()
    assert len(process.compiled) == 1, "the one that ran last is kept, whatever its size"
    assert process.compiled_bytes == sum(map(len, process.compiled))
    lab.check_clean()


# --- endless programs -----------------------------------------------------------------


@pytest.mark.parametrize(("per_tick", "budget", "ticks"), [(10, 1_000, 100), (100, 1_000, 10)])
def test_an_endless_loop_runs_so_many_instructions_a_tick_and_then_ends(per_tick, budget, ticks):
    limits = Limits(instructions_per_tick=per_tick, instructions_per_activation=budget)
    node = make_node(limits=limits)
    lab = solo(node)
    for client in (1, 2):
        node.post(init_app(0), client)
    lab.run(1)
    endless, honest = node.post(submit(0, LOOP), 1), node.post(submit(0, ONE), 2)
    lab.run(ticks * 3 // 4)  # a loop goes a little beyond its share of each tick
    assert endless not in node.replies
    lab.run(ticks // 2)
    assert node.error(endless).kind == "InstructionBudgetError"
    assert node.values(honest) == [1]
    lab.check_clean()


def test_endless_loops_of_many_programs_do_not_starve_another():
    """Everybody gets a turn after as many budgets as there are programs before it."""
    limits = Limits(instructions_per_tick=100, instructions_per_activation=1_000)
    node = make_node(limits=limits)
    lab = solo(node)
    for app in range(4):
        node.post(init_app(app), 1)
    node.post(init_app(0), 2)
    lab.run(2)
    for app in range(4):
        for _ in range(10):
            node.post(submit(app, LOOP), 1)
    honest = [node.post(submit(0, QUBIT), 2) for _ in range(3)]
    lab.run(4 * 12 + 30)
    assert [node.values(request) for request in honest] == [[0]] * 3
    lab.check_clean()


def test_a_loop_of_gates_may_hold_the_qnpu_only_so_long():
    node = make_node(limits=Limits(activation_ticks=200), device_ticks=7)
    lab = solo(node)
    for client in (1, 2):
        node.post(init_app(0), client)
    endless, honest = node.post(submit(0, GATES), 1), node.post(submit(0, ONE), 2)
    lab.run(190)
    assert endless not in node.replies
    lab.run(30)
    assert node.error(endless).kind == "InstructionBudgetError"
    assert "activation_ticks=200" in node.error(endless).text
    assert node.values(honest) == [1]
    lab.check_clean()


def test_work_on_long_arrays_counts_as_instructions():
    """Straight code that makes and returns long arrays gives way, and goes on."""
    node = make_node(limits=Limits(instructions_per_tick=100))
    lab = solo(node)
    node.post(init_app(0))
    lines = [f"array 1600 @{address}\n" for address in range(10)]
    done = node.post(submit(0, "".join(lines) + "ret_arr @0\n"))
    lab.run(5)
    assert done not in node.replies
    lab.run(20)
    assert node.array(done) == (None,) * 1600
    lab.check_clean()


# --- cancelling -----------------------------------------------------------------------


def test_a_subroutine_that_waits_for_its_turn_is_dropped():
    node = make_node(device_ticks=5)
    lab = solo(node)
    node.post(init_app(0))
    running, dropped, last = (node.post(submit(0, QUBIT)) for _ in range(3))
    lab.run(3)
    cancelled = node.cancel(dropped)
    lab.run(50)
    assert node.replies[cancelled].error is None
    assert node.error(dropped).kind == "CancelledError"
    assert node.values(running) == node.values(last) == [0]
    assert node.replies[dropped].serial == 1
    lab.check_clean()


def test_a_running_subroutine_ends_where_it_is_and_its_process_lives_on():
    node = make_node(device_ticks=10)
    lab = solo(node)
    node.post(init_app(0))
    node.post(init_app(1))
    running = node.post(submit(0, "set R5 7\nqalloc Q0\ninit Q0\nx Q0\nmeas Q0 M0\nret_reg M0\n"))
    following = node.post(submit(0, "ret_reg R5\nmeas Q0 M0\nret_reg M0\n"))
    other = node.post(submit(1, QUBIT))
    lab.run(15)
    assert node.device.busy is not None
    cancelled = node.cancel(running)
    lab.run(200)
    assert node.replies[cancelled].error is None
    assert node.error(running).kind == "CancelledError"
    assert node.values(following) == [7, 0], "registers and qubits are as they were"
    assert node.values(other) == [0]
    assert [i.opcode for i in node.device.instructions][:2] == [Opcode.INI, Opcode.SQG]
    lab.check_clean()


def test_what_the_device_says_of_a_cancelled_subroutine_is_nobodys():
    node = make_node(device_ticks=10)
    node.device.answers = lambda _: Answer(Outcome.HARDWARE_FAILURE)
    lab = solo(node)
    node.post(init_app(0))
    running = node.post(submit(0, GATES))
    lab.run(5)
    node.cancel(running)
    lab.run(20)
    alive = node.post(submit(0, ONE))
    lab.run(5)
    assert node.error(running).kind == "CancelledError"
    assert node.values(alive) == [1]
    lab.check_clean()


def test_an_endless_loop_can_be_cancelled():
    node = make_node(limits=Limits(instructions_per_tick=10))
    lab = solo(node)
    node.post(init_app(0))
    running = node.post(submit(0, LOOP))
    lab.run(20)
    node.cancel(running)
    after = node.post(submit(0, ONE))
    lab.run(5)
    assert node.error(running).kind == "CancelledError"
    assert node.values(after) == [1]
    lab.check_clean()


@pytest.mark.parametrize("creator", [1, 2])
@pytest.mark.parametrize("at", [20, 107, 112, 118])
def test_cancelling_withdraws_the_entanglement_a_subroutine_asked_for(creator, at):
    lab, first, second, _ = pair(lambda: FAILED)
    start(first, 2)
    start(second, 1)
    create, receive = create_epr(), recv_epr(remote=1)
    if creator == 2:
        create, receive = create_epr(remote=1), recv_epr(remote=2)
        programs = {1: receive, 2: create}
    else:
        programs = {1: create, 2: receive}
    nodes = {1: first, 2: second}
    posted = {n: nodes[n].post(submit(0, programs[n])) for n in nodes}
    lab.run(at)
    nodes[creator].cancel(posted[creator])
    lab.run(BIN_TICKS)
    assert nodes[creator].error(posted[creator]).kind == "CancelledError"
    assert any(isinstance(message, Cancel) for _, _, message in lab.sent)
    for node in nodes.values():
        assert node.kernel.statistics().link_requests in ({1: 0}, {2: 0})
        assert node.kernel.qmmu.free_qubits() == [0, 1, 2]
    again = nodes[creator].post(submit(0, ONE))
    lab.run(5)
    assert nodes[creator].values(again) == [1]
    lab.check_clean()


def test_requests_of_earlier_subroutines_outlive_a_cancelled_one():
    lab, first, second, _ = pair(Verdict)
    start(first, 2, sockets=2)
    start(second, 1, sockets=2)
    first.post(submit(0, create_epr(wait=False)))
    lab.run(5)
    second_request = first.post(submit(0, create_epr(socket=1, virtuals=[1], base=10)))
    lab.run(5)
    first.cancel(second_request)
    result = first.post(submit(0, "set R0 0\nset R1 10\nwait_all @0[R0:R1]\nret_arr @0\n"))
    received = second.post(submit(0, recv_epr()))
    lab.run(5 * BIN_TICKS)
    assert first.array(result)[:3] == (0, 0, 0)
    assert second.array(received)[:2] == (0, 0)
    lab.check_clean()


def test_what_is_not_ones_own_cannot_be_cancelled():
    node = make_node(limits=Limits(instructions_per_tick=10))
    lab = solo(node)
    node.post(init_app(0), 1)
    running = node.post(submit(0, LOOP), 1)
    lab.run(5)
    foreign = node.cancel(running, client=2)
    unknown = node.cancel(99)
    lab.run(5)
    for request in (foreign, unknown):
        assert node.error(request).kind == "UnknownSubroutineError"
    assert running not in node.replies
    lab.check_clean()


@settings(max_examples=60)
@given(st.data())
def test_cancelling_at_any_time_leaks_nothing(data):
    """Two nodes, some subroutines, and cancellations at random times."""
    chances = Random(data.draw(st.integers(0, 999)))
    lab, first, second, _ = pair(
        lambda: Verdict() if chances.random() < 0.3 else FAILED,
        device_ticks=data.draw(st.sampled_from([1, 4])),
        limits=Limits(instructions_per_tick=20, announcement_timeout_ticks=3 * BIN_TICKS),
    )
    nodes = {1: first, 2: second}
    for node_id, node in nodes.items():
        start(node, 3 - node_id)
        programs = st.lists(
            st.sampled_from(
                [
                    create_epr(remote=3 - node_id) + "qfree Q0\n",
                    recv_epr(remote=3 - node_id) + "qfree Q0\n",
                    create_epr(remote=3 - node_id, pairs=2, arguments=measure_directly()),
                    QUBIT,
                    LOOP,
                ]
            ),
            min_size=1,
            max_size=4,
        )
        for program in data.draw(programs):
            request = node.post(submit(0, program))
            if data.draw(st.booleans()):
                lab.at(data.draw(st.integers(0, 4 * BIN_TICKS)), partial(node.cancel, request))
    lab.run(10 * BIN_TICKS)
    for node in nodes.values():
        node.check_owners()
        assert node.device.busy is None
    lab.check_clean()


# --- a connection ends ----------------------------------------------------------------

ENDINGS = st.sampled_from(
    ["create", "create many", "receive", "measure directly", "gates", "many gates"]
)


def _program(kind: str, remote: int) -> str:
    return {
        "create": create_epr(remote=remote),
        "create many": create_epr(remote=remote, pairs=3, virtuals=[0, 1, 2]),
        "receive": recv_epr(remote=remote),
        "measure directly": create_epr(remote=remote, pairs=2, arguments=measure_directly()),
        "gates": QUBIT,
        "many gates": GATES,
    }[kind]


@settings(max_examples=150)
@given(
    mine=ENDINGS,
    theirs=ENDINGS,
    close_tick=st.integers(1, 5 * BIN_TICKS),
    device_ticks=st.integers(1, 60),
    batch_ticks=st.integers(1, 15),
    seed=st.integers(0, 99),
    delay=st.integers(1, 90),
    is_busy=st.booleans(),
)
@example("create", "receive", 112, 1, 10, 0, 3, True)
@example("receive", "create", 112, 1, 10, 0, 3, True)
def test_a_bin_after_a_connection_ended_its_qubits_are_free_and_the_peer_was_told(
    mine, theirs, close_tick, device_ticks, batch_ticks, seed, delay, is_busy
):
    """Whatever is under way at the device, and even if another program hogs the QNPU."""
    chances = Random(seed)
    lab, first, second, _ = pair(
        lambda: Verdict() if chances.random() < 0.3 else FAILED,
        delay=lambda: delay,
        device_ticks=device_ticks,
        batch_ticks=batch_ticks,
        limits=Limits(instructions_per_tick=20, instructions_per_activation=20 * 10 * BIN_TICKS),
    )
    start(first, 2)
    start(second, 1)
    first.post(submit(0, _program(mine, 2)))
    second.post(submit(0, _program(theirs, 1)))
    if is_busy:
        first.post(init_app(7), 2)
        lab.at(max(close_tick - 20, 0), lambda: first.post(submit(7, LOOP), 2))
    lab.run(close_tick)
    first.close(1)
    lab.run(1)
    assert [info.client for info in first.kernel.list_processes()] == [-1] + [2] * is_busy
    assert first.kernel.statistics().link_requests == {2: 0}
    lab.run(BIN_TICKS - 1)
    assert first.kernel.qmmu.free_qubits() == [0, 1, 2]
    request = second.kernel.link_layer.links[1].queue
    assert not [r for r in request if r.accepted], "the peer was told"
    lab.check_clean()


def test_a_qubit_that_waits_for_an_announcement_is_free_even_if_the_qnpu_is_not():
    lab, first, second, _ = pair(Verdict, delay=lambda: 90, limits=Limits(instructions_per_tick=1))
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr()))
    second.post(submit(0, recv_epr()))
    second.post(init_app(0), 2)
    while second.kernel.network.state is not ProcessState.WAITING:
        lab.run(1)
    second.post(submit(0, LOOP), 2)
    lab.run(5)
    assert len(second.kernel.qmmu.free_qubits()) == 2
    second.close(1)
    lab.run(1)
    assert second.kernel.qmmu.free_qubits() == [0, 1, 2]
    second.close(2)
    lab.run(2 * BIN_TICKS)
    lab.check_clean()


# --- peers that go and come -----------------------------------------------------------


def agree(lab: Lab, first: Node, second: Node) -> tuple[int, int]:
    """Node 1 creates, node 2 receives, and both have agreed."""
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr()))
    received = second.post(submit(0, recv_epr()))
    lab.run(20)
    assert any(isinstance(message, Accept) for _, _, message in lab.sent)
    return created, received


@pytest.mark.parametrize("at", [1, 85, 95, 150])
def test_what_both_ends_had_agreed_ends_with_an_error_at_both(at):
    lab, first, second, _ = pair(lambda: FAILED)
    created, received = agree(lab, first, second)
    lab.run(at)
    lab.cut()
    lab.run(BIN_TICKS)
    for node, request in ((first, created), (second, received)):
        assert node.error(request).kind == "PeerLostError"
        assert "0 of 1 pairs" in node.error(request).text
        assert node.kernel.qmmu.free_qubits() == [0, 1, 2]
        assert node.kernel.statistics().connected_peers == ()
    lab.check_clean()


def test_requests_not_accepted_yet_are_offered_again_when_the_peer_is_back():
    lab, first, second, _ = pair(Verdict)
    lab.cut()
    start(first, 2)
    created = first.post(submit(0, create_epr()))
    lab.run(3 * BIN_TICKS)
    assert lab.sent == [], "nobody is there to hear it"
    start(second, 1)
    received = second.post(submit(0, recv_epr()))
    lab.run(20)
    lab.mend()
    lab.run(3 * BIN_TICKS)
    assert first.array(created)[:5] == (0, 0, 0, 0, 0)
    assert second.array(received)[:5] == (0, 0, 0, 1, 0)
    [offer] = [message for _, _, message in lab.sent if isinstance(message, Offer)]
    assert offer.terms.start_bin == 4
    lab.check_clean()


def test_an_offer_the_peer_had_not_answered_is_kept_once():
    """The peer was told of it before the connection was lost, and is told again."""
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    created = first.post(submit(0, create_epr()))
    lab.run(20)
    assert len(second.kernel.link_layer.links[1].offers) == 1
    lab.cut()
    lab.run(5)
    assert second.kernel.link_layer.links[1].offers == []
    lab.mend()
    lab.run(20)
    assert len(second.kernel.link_layer.links[1].offers) == 1
    start(second, 1)
    received = second.post(submit(0, recv_epr()))
    lab.run(3 * BIN_TICKS)
    assert first.array(created) != second.array(received)
    lab.check_clean()


def test_a_request_waits_for_a_peer_that_is_away_as_long_as_for_any_offer():
    lab, first, _, _ = pair(limits=Limits(offer_timeout_ticks=500))
    lab.cut()
    start(first, 2)
    created = first.post(submit(0, create_epr()))
    lab.run(300)
    lab.mend()
    lab.run(100)
    lab.cut()
    lab.run(90)
    assert created not in first.replies
    lab.run(50)
    assert first.error(created).kind == "EntanglementTimeoutError"
    lab.check_clean()


def test_a_receive_request_nobody_had_promised_anything_waits_on():
    lab, first, second, _ = pair(Verdict)
    start(second, 1)
    received = second.post(submit(0, recv_epr()))
    lab.run(20)
    lab.cut()
    lab.run(20)
    lab.mend()
    start(first, 2)
    created = first.post(submit(0, create_epr()))
    lab.run(3 * BIN_TICKS)
    assert first.array(created)[3] == 0
    assert second.array(received)[3] == 1
    lab.check_clean()


def test_a_program_that_asks_only_later_learns_that_its_pairs_were_lost():
    lab, first, second, _ = pair(lambda: FAILED)
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr()))
    lab.run(150)
    lab.cut()
    lab.run(5)
    late = second.post(submit(0, recv_epr()))
    lab.run(5)
    assert second.error(late).kind == "PeerLostError"
    lab.check_clean()


def test_a_qubit_nobody_asked_for_is_free_when_the_peer_is_lost():
    """It waits for the announcement, which will not come."""
    lab, first, second, _ = pair(Verdict, delay=lambda: 20)
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr()))
    while second.kernel.network.state is not ProcessState.WAITING:
        lab.run(1)
    assert len(second.kernel.qmmu.free_qubits()) == 2
    lab.cut()
    lab.run(2)
    assert second.kernel.qmmu.free_qubits() == [0, 1, 2]
    lab.check_clean()


def test_a_new_request_heals_a_socket_whose_pairs_were_lost():
    lab, first, second, _ = pair(verdicts(FAILED, FAILED, then=Verdict()))
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr()))
    lab.run(108)
    lab.cut()
    lab.run(5)
    lab.mend()
    start(first, 2, client=2)
    created = first.post(submit(0, create_epr()), 2)
    lab.run(20)
    received = second.post(submit(0, recv_epr()))
    lab.run(3 * BIN_TICKS)
    assert first.array(created)[3] == 0
    assert second.array(received)[3] == 1
    lab.check_clean()


@pytest.mark.parametrize(("heard_ticks_ago", "is_failed"), [(None, True), (30, True), (0, False)])
def test_a_pair_the_peer_may_not_know_of_ends_its_program(heard_ticks_ago, is_failed):
    """The announcement was on its way when the connection was lost."""
    lab, first, second, _ = pair(Verdict, delay=lambda: 20)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr() + PULSES))
    received = second.post(submit(0, recv_epr()))
    while not any(isinstance(message, Announce) for _, _, message in lab.sent):
        lab.run(1)
    lab.run(3)
    lab.cut(heard_ticks_ago)
    lab.run(10)
    assert second.error(received).kind == "PeerLostError"
    assert (created in first.replies) is is_failed
    if is_failed:
        assert "may not know of the pair" in first.error(created).text
    lab.check_clean()


def test_the_link_starts_afresh():
    lab, first, second, _ = pair(Verdict)
    for round_ in range(2):
        created, received = agree(lab, first, second)
        lab.run(3 * BIN_TICKS)
        assert first.array(created)[4] == second.array(received)[4] == 0, round_
        lab.cut()
        lab.run(5)
        lab.mend()
        for node in (first, second):
            node.close()
        lab.run(5)
    lab.check_clean()


def test_messages_of_a_peer_that_is_away_are_refused():
    node = make_node()
    node.kernel.peer_lost(2, 0)
    with pytest.raises(PeerProtocolError, match="node 2, which is not connected"):
        node.kernel.peer_message(2, Cancel(0), 1)
    for call in (node.kernel.peer_lost, node.kernel.peer_connected):
        with pytest.raises(PeerProtocolError, match="node 5 is no neighbour"):
            call(5, 1)


@settings(max_examples=60)
@given(st.data())
def test_whenever_the_connection_breaks_nothing_leaks_and_nobody_hangs(data):
    chances = Random(data.draw(st.integers(0, 999)))
    delays = Random(3)
    lab, first, second, _ = pair(
        lambda: Verdict() if chances.random() < 0.4 else FAILED,
        delay=lambda: delays.randint(1, 60),
        limits=Limits(offer_timeout_ticks=8 * BIN_TICKS, announcement_timeout_ticks=300),
    )
    posted = []
    nodes = {1: first, 2: second}
    for node_id, node in nodes.items():
        start(node, 3 - node_id, sockets=2)
    for socket in range(2):
        creator = data.draw(st.integers(1, 2))
        kind = data.draw(st.sampled_from([{}, measure_directly()]))
        for node_id, node in nodes.items():
            remote, base = 3 - node_id, 10 * socket
            program = (
                create_epr(
                    remote=remote, socket=socket, virtuals=[socket], arguments=kind, base=base
                )
                if node_id == creator
                else recv_epr(remote=remote, socket=socket, virtuals=[socket], base=base)
            )
            posted.append((node, node.post(submit(0, program))))
    tick = 0
    for length in data.draw(st.lists(st.integers(1, 2 * BIN_TICKS), min_size=1, max_size=3)):
        tick += data.draw(st.integers(0, 2 * BIN_TICKS))
        lab.at(tick, lab.cut)
        tick += length
        lab.at(tick, lab.mend)
    lab.run(tick + 20 * BIN_TICKS)
    for node, request in posted:
        if request not in node.replies:
            [process] = node.kernel.processes.values()
            waits_for_creator = (
                process.current is not None
                and not node.kernel.link_layer.links[2 if node is first else 1].queue
            )
            assert waits_for_creator, "only a receive request waits for ever"
    for node in nodes.values():
        node.check_owners()
    lab.check_clean()


# --- schedules ------------------------------------------------------------------------


@given(st.lists(st.sampled_from([None, 2, 3]), min_size=1, max_size=8), st.integers(-3, 50))
def test_the_next_bin_of_a_peer(pattern, number):
    schedule = NetworkSchedule(10, 1, 5, tuple(pattern))
    for peer in (2, 3):
        found = schedule.next_bin(peer, number)
        expected = [n for n in range(max(number, 0), 80) if schedule.peer(n) == peer]
        assert found == (expected[0] if expected else None)


def test_there_is_no_peer_before_the_epoch():
    assert [SCHEDULE.peer(number) for number in (-2, -1, 0, 1)] == [None, None, 2, 2]


@given(st.integers(-(1 << 40), 1 << 40), st.integers(-(1 << 40), 1 << 40))
def test_network_ticks(tick, epoch_tick):
    schedule = replace(SCHEDULE, epoch_tick=epoch_tick)
    assert schedule.to_network(epoch_tick) == 0
    assert schedule.to_local(schedule.to_network(tick)) == tick


def test_there_are_no_bins_before_the_epoch():
    lab, first, second, link = pair(Verdict, schedule=None)
    for node, peer in ((first, 2), (second, 1)):
        schedule = replace(SCHEDULE, epoch_tick=1_000, pattern=(peer,))
        assert node.kernel.install_schedule(schedule)
    lab.mend()
    start(first, 2)
    start(second, 1)
    created, received = first.post(submit(0, create_epr())), second.post(submit(0, recv_epr()))
    lab.run(990)
    assert link.verdicts == []
    lab.run(200)
    assert first.array(created)[3] == 0
    assert second.array(received)[3] == 1
    assert first.device.log[0][0] == 1_005
    lab.check_clean()


def test_a_schedule_with_the_same_bins_takes_over_at_a_bin_and_keeps_all_requests():
    lab, first, second, _ = pair(lambda: FAILED)
    created, _ = agree(lab, first, second)
    for node, peer in ((first, 2), (second, 1)):
        changed = replace(SCHEDULE, pattern=(None, None, None, peer), guard_ticks=20)
        assert not node.kernel.install_schedule(changed, from_bin=3)
    lab.run(10 * BIN_TICKS)
    bins = sorted({tick // BIN_TICKS for tick, _ in first.device.log})
    assert bins == [1, 2, 3, 7]
    assert created not in first.replies
    assert min(tick for tick, _ in first.device.log if tick >= 300) == 320
    lab.check_clean()


def test_a_request_without_any_schedule_fails_in_time():
    lab, first, second, _ = pair(Verdict, limits=Limits(offer_timeout_ticks=400))
    for node in (first, second):
        node.kernel.network.bins.schedule = None
    created, received = agree(lab, first, second)
    lab.run(300)
    assert created not in first.replies
    lab.run(200)
    assert first.error(created).kind == "EntanglementTimeoutError"
    assert "does the controller run" in first.error(created).text
    assert "node 1 withdrew the request after 0 of 1 pairs" in second.error(received).text
    lab.check_clean()


def test_a_request_may_wait_for_the_first_schedule():
    lab, first, second, _ = pair(Verdict, limits=Limits(offer_timeout_ticks=400))
    for node in (first, second):
        node.kernel.network.bins.schedule = None
    created, received = agree(lab, first, second)
    lab.run(100)
    for node, peer in ((first, 2), (second, 1)):
        schedule = replace(SCHEDULE, pattern=(peer,), epoch_tick=1_000)
        install = partial(node.kernel.install_schedule, schedule)
        node.inbox.append(partial(_ignoring_the_tick, install))
    lab.run(2_000)
    assert first.array(created)[3] == 0
    assert second.array(received)[3] == 1
    lab.check_clean()


def _ignoring_the_tick(action: Callable[[], object], tick: int) -> None:
    action()


def test_a_schedule_with_more_bins_is_not_slept_through():
    first, second = (
        make_node(node_id, schedule=replace(SCHEDULE, pattern=(None,) * 6 + (3 - node_id,)))
        for node_id in (1, 2)
    )
    Link(first.device, second.device, lambda: FAILED, Random(1), 3)
    lab = Lab(first, second)
    agree(lab, first, second)
    for node, peer in ((first, 2), (second, 1)):
        install = node.kernel.install_schedule
        schedule = replace(SCHEDULE, pattern=(peer,))
        node.inbox.append(partial(_ignoring_the_tick, partial(install, schedule, from_bin=3)))
    lab.run(5 * BIN_TICKS)
    assert sorted({tick // BIN_TICKS for tick, _ in first.device.log}) == [3, 4, 5]
    lab.check_clean()


def test_a_schedule_with_other_bins_resets_the_links():
    lab, first, second, _ = pair(lambda: FAILED)
    created, received = agree(lab, first, second)
    for node, peer in ((first, 2), (second, 1)):
        changed = NetworkSchedule(50, 2, 15, (peer,), epoch_tick=200)
        assert node.kernel.install_schedule(changed)
        assert node.kernel.statistics().connected_peers == ()
    lab.mend()
    lab.run(5)
    for node, request in ((first, created), (second, received)):
        assert node.error(request).kind == "PeerLostError"
        assert "schedule was replaced" in node.error(request).text
    lab.check_clean()


def test_a_schedule_for_strangers_is_refused():
    node = make_node()
    with pytest.raises(ConfigurationError, match=r"bins for nodes \[7\]"):
        node.kernel.install_schedule(replace(SCHEDULE, pattern=(2, 7, None)))


# --- state ----------------------------------------------------------------------------


def test_the_list_of_processes():
    lab, first, second, _ = pair(lambda: FAILED)
    start(second, 1)
    first.register(3, 9, client=4)
    first.post(open_socket(3, 0, 2, 0), 4)
    first.post(submit(3, "qalloc Q0\n" + create_epr(virtuals=[1])), 4)
    first.post(submit(3, ONE), 4)
    lab.run(50)
    network, process = first.kernel.list_processes()
    assert (network.pid, network.client, network.state) == (NETWORK_PID, -1, "idle")
    assert network.requests == 1
    assert (process.client, process.app_id, process.priority) == (4, 3, 9)
    assert (process.state, process.pending, process.serial) == ("waiting", 1, 0)
    assert process.waiting_for == "all entries of @0[0:10]"
    assert (process.qubits, process.requests) == ((0,), 1)
    lab.check_clean()


def test_statistics():
    lab, first, second, _ = pair(verdicts(FAILED, FAILED, Verdict(), then=FAILED))
    created, _ = agree(lab, first, second)
    failed = first.post(submit(0, "qfree Q1\nqfree Q1\n"))
    lab.run(3 * BIN_TICKS)
    assert created in first.replies
    assert first.error(failed).kind == "QubitAccessError"
    mine, theirs = first.kernel.statistics(), second.kernel.statistics()
    assert (mine.subroutines_done, mine.subroutines_failed) == (1, 1)
    assert (theirs.subroutines_done, theirs.subroutines_failed) == (1, 0)
    assert (mine.pairs, theirs.pairs) == ({2: 1}, {1: 1})
    assert (mine.bins_used, mine.bins_missed) == (1, 0)
    assert mine.physical_instructions == len(first.device.log) == 3
    assert (mine.processes, theirs.processes) == (0, 1)
    assert (mine.free_qubits, theirs.free_qubits) == (3, 2)
    assert mine.connected_peers == (2,)
    lab.check_clean()


def test_bins_in_which_the_qnpu_or_the_qubit_was_in_use_are_counted():
    lab, first, second, _ = pair(lambda: FAILED, limits=Limits(activation_ticks=290))
    start(first, 2)
    start(second, 1)
    first.post(init_app(1))
    first.post(submit(0, create_epr()))
    lab.run(50)
    first.post(submit(1, GATES))
    lab.run(500)
    assert (first.kernel.statistics().bins_used, first.kernel.statistics().bins_missed) == (3, 2)
    first.post(init_app(1))
    hold = "".join(f"set Q0 {virtual}\nqalloc Q0\n" for virtual in range(3))
    first.post(submit(1, hold))
    lab.run(300)
    counted = first.kernel.statistics()
    assert (counted.bins_missed, counted.bins_blocked) == (2, 3)
    lab.check_clean()


def test_a_bin_in_which_the_kernel_was_not_run_in_time_is_counted():
    """As in real time, on a machine that does other things too."""
    lab, first, second, _ = pair(lambda: FAILED)
    agree(lab, first, second)
    first.step(190)  # the last start was at 185
    first.step(195)
    assert (first.kernel.statistics().bins_used, first.kernel.statistics().bins_missed) == (0, 1)
    first.step(205)
    assert (first.kernel.statistics().bins_used, first.kernel.statistics().bins_missed) == (1, 1)


def test_rejections_still_arrive():
    """A check of the harness: what is sent over a link that is up is carried."""
    lab, first, second, _ = pair(lambda: FAILED)
    created, _ = agree(lab, first, second)
    second.close()
    lab.run(20)
    assert any(isinstance(message, Reject) for _, _, message in lab.sent)
    assert "has ended" in first.error(created).text
    lab.check_clean()


def test_much_compiling_leaves_the_tick_to_others():
    """Subroutines that are compiled and never run cannot hold the kernel together."""
    node = make_node(limits=Limits(instructions_per_tick=100))
    faulty = encode(*[("set", register("R0"), 1)] * 150) + b"\xff" * 7
    for app_id in range(4):
        node.post(init_app(app_id))
    requests = [node.post(submit(app_id, faulty)) for app_id in range(4)]
    answered = []
    for tick in range(1, 5):
        node.step(tick)
        answered.append(sum(request in node.replies for request in requests))
        assert node.next_tick == (None if tick == 4 else tick + 1)
    assert answered == [1, 2, 3, 4]
    assert node.error(requests[0]).kind == "MalformedSubroutineError"
