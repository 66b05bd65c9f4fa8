"""Circuits that fail: every program is told why, in bounded time, and no qubit is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qnodeos.api.peer import (
    MAX_PATH,
    CircuitId,
    CircuitTerms,
    Complete,
    EntanglementType,
    Expire,
    Forward,
    NetworkLayerMessage,
    Pass,
    Teardown,
    TeardownCause,
    Track,
)
from qnodeos.errors import ConfigurationError, PeerProtocolError
from qnodeos.limits import Limits
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.circuits import TRANSITIONS, CircuitState, join_states, state_diagram
from qnodeos.qnpu.routes import Route
from tests.unit.kernel_harness import Node
from tests.unit.kernel_programs import (
    create_epr,
    init_app,
    keep,
    open_socket,
    recv_epr,
    stop_app,
    submit,
)
from tests.unit.kernel_world import (
    QUICK,
    Network,
    ask,
    capabilities,
    chain,
    network,
    open_program,
    settled,
    star,
)


def error(net: Network, node: int, request: int) -> str:
    """What a request was told."""
    report = net.nodes[node].error(request)
    return f"{report.kind}: {report.text}"


# --- what cannot be opened ------------------------------------------------------------


def test_a_node_without_a_route_is_refused_with_those_that_can_be_reached():
    net = network([(1, 2), (2, 3), (4, 5)])
    open_program(net, 1, 4)
    opened = net.nodes[1].sent - 1
    net.lab.run(10)
    message = error(net, 1, opened)
    assert "names node 4" in message
    assert "there is no route" in message
    assert "neighbours are [2], reachable over them [3]" in message


def test_a_tail_that_never_opens_its_socket():
    net = chain(3, limits=QUICK)
    open_program(net, 1, 3)
    created = net.nodes[1].post(submit(0, create_epr(remote=3)))
    net.lab.run(QUICK.offer_timeout_ticks + 100)
    message = error(net, 1, created)
    assert message.startswith("EntanglementTimeoutError: node 3 could not be reached, or did not")
    settled(net)


def test_sockets_that_do_not_belong_together():
    net = chain(3, limits=QUICK)
    open_program(net, 1, 3, socket=0)
    net.nodes[3].post(init_app(0))
    net.nodes[3].post(open_socket(0, 0, 1, 7))
    created = net.nodes[1].post(submit(0, create_epr(remote=3)))
    net.lab.run(500)
    assert "ER socket 0 at node 3 is connected to socket 7 here, not to 0" in error(net, 1, created)
    settled(net)


@pytest.mark.parametrize(
    "device",
    [
        capabilities(1),
        replace(capabilities(3), instructions=frozenset(Opcode) - {Opcode.ESW}),
        replace(capabilities(1, 3), instructions=frozenset(Opcode) - {Opcode.MOV}),
    ],
    ids=["one qubit", "no swap", "no move"],
)
def test_a_node_that_cannot_swap_refuses_circuits(device: Capabilities):
    net = chain(3, qubits=lambda node: device if node == 2 else capabilities(3), limits=QUICK)
    created, received = ask(net, 1, 3)
    net.lab.run(500)
    assert "node 2, on the route to node 3, cannot swap entanglement" in error(net, 1, created)
    assert "the program at node 1 that had ER socket 0 has ended" in error(net, 3, received)
    settled(net)


def test_routes_that_lead_in_a_loop():
    net = chain(4, limits=QUICK)
    net.nodes[2].kernel.install_routes({4: Route(1, 3, 1.0)})
    net.nodes[1].kernel.install_routes({4: Route(2, 3, 1.0)})
    created, _ = ask(net, 1, 4)
    net.lab.run(QUICK.offer_timeout_ticks + 100)
    assert "the route to node 4 has a loop: [1, 2, 1]" in error(net, 1, created)
    assert len([m for _, _, m in net.lab.sent if isinstance(m, Forward)]) > 10, "it tries again"


def test_a_loop_that_ends_in_time_does_no_harm():
    net = chain(4, limits=QUICK)
    routes = dict(net.nodes[2].kernel.entanglement.routes)
    net.nodes[2].kernel.install_routes({4: Route(1, 3, 1.0)})
    net.lab.at(300, lambda: net.nodes[2].kernel.install_routes(routes))
    ask(net, 1, 4)
    net.lab.run(3_000)
    assert net.world.fidelity(net.half(1), net.half(4)) == pytest.approx(1)
    settled(net)


def test_routes_over_strangers_are_refused():
    net = chain(3)
    with pytest.raises(ConfigurationError, match=r"routes lead over nodes \[3\], which are no"):
        net.nodes[1].kernel.install_routes({3: Route(3, 1, 1.0)})


def test_a_full_node_is_tried_again():
    net = star(4, limits=replace(QUICK, circuits=1))
    ask(net, 2, 3)
    ask(net, 4, 5)
    net.lab.run(3_000)
    assert net.world.fidelity(net.half(2), net.half(3)) == pytest.approx(1)
    assert net.world.fidelity(net.half(4), net.half(5)) == pytest.approx(1)
    busy = TeardownCause.BUSY
    assert [m for _, _, m in net.lab.sent if isinstance(m, Teardown) and m.cause is busy]
    settled(net)


def test_a_program_with_too_many_circuits_is_told():
    net = chain(3, limits=replace(QUICK, circuits=2))
    open_program(net, 1, 3)
    many = "".join(create_epr(remote=3, base=10 * i, wait=False) for i in range(3))
    created = net.nodes[1].post(submit(0, many))
    net.lab.run(100)
    assert "takes part in circuits=2 circuits, the limit" in error(net, 1, created)
    settled(net)


# --- attempts that come to nothing ----------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_swaps_that_fail_now_and_then_cost_attempts_only(seed):
    net = chain(4, swaps=0.5, seed=seed)
    ask(net, 1, 4, pairs=2, virtuals=[0, 1])
    net.lab.run(20_000)
    for virtual in range(2):
        fidelity = net.world.fidelity(net.half(1, virtual), net.half(4, virtual))
        assert fidelity == pytest.approx(1)
    assert [m for _, _, m in net.lab.sent if isinstance(m, Expire)]
    settled(net)


def test_swaps_that_always_fail_end_the_circuit_at_both_ends():
    net = chain(4, swaps=0.0, limits=QUICK)
    created, received = ask(net, 1, 4)
    net.lab.run(5_000)
    for node, request in ((1, created), (4, received)):
        message = error(net, node, request)
        assert "circuit_attempts=5 attempts at pair 0 between nodes 1 and 4" in message
        assert "failed with HARDWARE_FAILURE" in message
    settled(net)


def test_a_half_waits_for_its_partner_for_a_bounded_time():
    """The link between 2 and 3 makes nothing: what node 2 has with node 1 is given up."""
    net = chain(3, limits=QUICK)
    kernel = net.nodes[3].kernel
    kernel.link_layer.accept_segment = lambda peer, offer: None  # type: ignore[assignment, return-value]
    created, received = ask(net, 1, 3)
    net.lab.run(20_000)
    for node, request in ((1, created), (3, received)):
        assert "a segment at node 2 waited too long for its partner" in error(net, node, request)
    settled(net)


def test_programs_that_keep_the_qubits_of_a_repeater():
    net = chain(3, qubits=capabilities(2), limits=QUICK)
    net.nodes[2].post(init_app(0))
    held = net.nodes[2].post(submit(0, "set Q0 0\nqalloc Q0\nset Q0 1\nqalloc Q0\n"))
    net.lab.run(20)
    assert net.nodes[2].replies[held].error is None
    created, received = ask(net, 1, 3)
    net.lab.run(20_000)
    for node, request in ((1, created), (3, received)):
        assert "programs keep the qubits of node 2" in error(net, node, request)
    settled(net)


def test_a_program_may_not_keep_the_qubits_of_a_repeater_for_ever():
    net = chain(3, qubits=capabilities(2), limits=replace(QUICK, qubit_ticks=300))
    net.nodes[2].post(init_app(0))
    net.nodes[2].post(submit(0, "set Q0 0\nqalloc Q0\n"))
    net.lab.run(20)
    ask(net, 1, 3)
    net.lab.run(1_000)
    assert not net.nodes[2].kernel.processes
    assert net.world.fidelity(net.half(1), net.half(3)) == pytest.approx(1)
    settled(net)


def test_qubits_of_a_repeater_that_become_free_are_used():
    net = chain(3, qubits=capabilities(2), limits=QUICK)
    net.nodes[2].post(init_app(0))
    net.nodes[2].post(submit(0, "set Q0 0\nqalloc Q0\n"))
    net.lab.at(700, lambda: net.nodes[2].post(stop_app(0)))
    ask(net, 1, 3)
    net.lab.run(3_000)
    assert net.world.fidelity(net.half(1), net.half(3)) == pytest.approx(1)
    settled(net)


def test_max_time_counts_for_circuits():
    net = chain(3, heralds=0.0)
    created, received = ask(net, 1, 3, arguments=keep(max_time=3_000))  # 300 ticks
    net.lab.run(600)
    assert error(net, 1, created) == (
        "EntanglementTimeoutError: 0 of 1 pairs with node 3 came within max_time"
    )
    assert "the program at node 1 has ended" in error(net, 3, received)
    settled(net)


# --- programs that end ----------------------------------------------------------------


@pytest.mark.parametrize("at", range(20, 260, 26))
@pytest.mark.parametrize("end", [1, 4])
def test_a_program_that_ends_in_the_middle(end, at):
    net = chain(4, qubits=capabilities(1, 2), heralds=0.5)
    created, received = ask(net, 1, 4, pairs=3, virtuals=[0, 1, 2])
    net.lab.at(at, net.nodes[end].close)
    net.lab.run(6_000)
    other, request = (4, received) if end == 1 else (1, created)
    reply = net.nodes[other].replies[request]
    if reply.error is not None:
        assert f"the program at node {end}" in reply.error.text
    settled(net)


def test_a_receiver_hears_that_the_program_at_a_far_node_has_ended():
    net = chain(4)
    open_program(net, 1, 4)
    open_program(net, 4, 1)
    received = net.nodes[4].post(submit(0, recv_epr(remote=1)))
    net.lab.at(100, lambda: net.nodes[1].post(stop_app(0)))
    net.lab.run(300)
    assert "the program at node 1 that had ER socket 0 has ended" in error(net, 4, received)
    settled(net)


def test_pairs_that_nobody_receives_end_both_programs():
    net = chain(3, limits=QUICK)
    open_program(net, 1, 3)
    open_program(net, 3, 1)
    created = net.nodes[1].post(submit(0, create_epr(remote=3)))
    net.lab.run(500)
    assert net.nodes[1].replies[created].error is None
    net.lab.run(QUICK.offer_timeout_ticks)
    assert not net.nodes[1].kernel.processes
    assert not net.nodes[3].kernel.processes
    late = net.nodes[1].post(submit(0, "set R0 0\n"))
    net.lab.run(20)
    assert "node 3 does not want the pairs of request 0" in error(net, 1, late)
    settled(net)


def test_a_receiver_that_ends_without_its_pair_is_told_to_the_creator():
    net = chain(4, limits=QUICK)
    open_program(net, 1, 4)
    open_program(net, 4, 1)
    net.nodes[1].post(submit(0, create_epr(remote=4)))
    net.lab.run(800)
    net.nodes[4].close()
    net.lab.run(100)
    late = net.nodes[1].post(submit(0, "set R0 0\n"))
    net.lab.run(20)
    assert "the program there has ended and received 0 of 1 pairs" in error(net, 1, late)
    settled(net)


def test_news_of_a_socket_wait_for_a_connection():
    net = chain(3)
    net.lose(1, 2)
    net.lab.run(20)
    open_program(net, 1, 3)
    open_program(net, 3, 1)
    received = net.nodes[3].post(submit(0, recv_epr(remote=1)))
    net.lab.run(50)
    net.connect(1, 2)
    net.lab.run(50)
    net.nodes[1].post(stop_app(0))
    net.lab.run(100)
    assert "the program at node 1 that had ER socket 0 has ended" in error(net, 3, received)
    settled(net)


@pytest.mark.parametrize("at", range(30, 200, 17))
def test_a_cancelled_subroutine_withdraws_its_circuit(at):
    net = chain(3, heralds=0.4)
    created, received = ask(net, 1, 3, pairs=3, virtuals=[0, 1, 2])
    net.lab.at(at, lambda: net.nodes[1].cancel(created))
    net.lab.run(3_000)
    reply = net.nodes[3].replies[received]
    if net.nodes[1].replies[created].error is not None:
        assert reply.error is not None
        assert "withdrawn its request" in reply.error.text
    settled(net)


# --- connections that are lost ----------------------------------------------------------


@pytest.mark.parametrize("at", range(30, 230, 23))
@pytest.mark.parametrize("link", [(1, 2), (2, 3), (3, 4)])
def test_a_connection_on_the_path_is_lost(link, at):
    net = chain(4, heralds=0.5)
    created, received = ask(net, 1, 4, pairs=2, virtuals=[0, 1])
    net.lab.at(at, lambda: net.lose(*link))
    net.lab.at(at + 40, lambda: net.connect(*link))
    net.lab.run(6_000)
    replies = net.nodes[1].replies[created], net.nodes[4].replies[received]
    if any(reply.error for reply in replies):
        # A program that had its last pair already ends, since the other may not have it.
        assert not net.nodes[1].kernel.processes
        assert not net.nodes[4].kernel.processes
    for reply in replies:
        if reply.error is not None:
            assert reply.error.kind == "PeerLostError"
            assert "the connection to node" in reply.error.text
    net.check_idle()
    ask(net, 1, 4, client=2, socket=2)
    net.lab.run(3_000)
    assert net.world.fidelity(net.half(1, 0, 2), net.half(4, 0, 2)) == pytest.approx(1)
    settled(net)


def test_a_request_waits_for_a_connection_on_the_way():
    net = chain(4, limits=QUICK)
    net.lose(2, 3)
    net.lab.at(600, lambda: net.connect(2, 3))
    net.lab.run(10)
    ask(net, 1, 4)
    net.lab.run(3_000)
    assert net.world.fidelity(net.half(1), net.half(4)) == pytest.approx(1)
    settled(net)


def test_a_connection_that_stays_away_is_named():
    net = chain(4, limits=QUICK)
    net.lose(2, 3)
    net.lab.run(10)
    created, _ = ask(net, 1, 4)
    net.lab.run(QUICK.offer_timeout_ticks + 100)
    assert "What was heard last: node 2 has no connection to node 3." in error(net, 1, created)


# --- qubits that are lost when they are moved -------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_moves_corrections_and_measurements_that_fail(seed):
    net = chain(4, qubits=capabilities(1, 2), gates=0.9, seed=seed)
    created, received = ask(net, 1, 4, pairs=2, virtuals=[0, 1])
    net.lab.run(40_000)
    replies = net.nodes[1].replies[created], net.nodes[4].replies[received]
    if not any(reply.error for reply in replies):
        assert net.world.fidelity(net.half(1), net.half(4)) == pytest.approx(1)
    settled(net)


# --- neighbours that say what cannot be -----------------------------------------------

TERMS = CircuitTerms(0, 0, EntanglementType.KEEP, 1, 0, 0)
CIRCUIT = CircuitId(1, 0)


def repeater(limits: Limits | None = None) -> tuple[Network, Node]:
    """Node 2 of a chain, with a circuit that is being made."""
    net = chain(3, heralds=0.0, limits=limits)
    ask(net, 1, 3)
    net.lab.run(60)
    assert net.nodes[2].kernel.network_layer.circuits == 1
    return net, net.nodes[2]


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        (3, Track(CIRCUIT, 0, 0, BellState.PHI_PLUS)),
        (1, Pass(CIRCUIT, 0)),
        (1, Complete(CIRCUIT, 0, 0, 0, 0, 0)),
        (1, Forward(CIRCUIT, 3, (1,), TERMS)),
        (1, Forward(CircuitId(1, 9), 3, (7,), TERMS)),
        (3, Forward(CircuitId(1, 9), 3, (1, 3, 1), TERMS)),
        (9, Teardown(CIRCUIT, TeardownCause.DONE, "")),
    ],
)
def test_a_message_that_cannot_come_from_there_is_a_fault_of_the_peer(peer, message):
    net, node = repeater()
    with pytest.raises(PeerProtocolError):
        node.kernel.peer_message(peer, message, net.lab.tick)


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        (3, Pass(CIRCUIT, 0)),
        (3, Complete(CIRCUIT, 0, 0, 0, 0, 0)),
        (3, Complete(CIRCUIT, 7, 0, 0, 0, 0)),
        (1, Expire(CIRCUIT, 3, 0, 0, "")),
    ],
)
def test_a_message_out_of_place_breaks_the_circuit_off_at_both_ends(peer, message):
    net, node = repeater()
    node.inbox.append(lambda tick: node.kernel.peer_message(peer, message, tick))
    net.lab.run(100)
    for end in (1, 3):
        [told] = [each.error for each in net.nodes[end].replies.values() if each.error]
        assert "the circuit was broken off at node 2" in told.text
    settled(net)


@pytest.mark.parametrize(
    "message",
    [
        Pass(CircuitId(1, 9), 0),
        Track(CIRCUIT, 0, 5, BellState.PHI_PLUS),
        Expire(CircuitId(3, 9), 0, 0, 0, ""),
        Teardown(CircuitId(3, 9), TeardownCause.LOST, ""),
    ],
)
def test_a_message_of_what_is_over_is_ignored(message: NetworkLayerMessage):
    net, node = repeater()
    node.kernel.peer_message(1, message, net.lab.tick)
    assert node.kernel.network_layer.circuits == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pairs": 0}, "its terms are out of range"),
        ({"remote_random_basis": 9}, "its terms are out of range"),
        ({"remote_weights": (200, 200)}, "its terms are out of range"),
    ],
)
def test_terms_out_of_range_are_refused(changes, words):
    net, node = repeater()
    forward = Forward(CircuitId(1, 9), 3, (1,), replace(TERMS, **changes))
    node.inbox.append(lambda tick: node.kernel.peer_message(1, forward, tick))
    net.lab.run(10)
    [teardown] = [m for _, peer, m in net.lab.sent if isinstance(m, Teardown) and peer == 1]
    assert words in teardown.reason


def test_a_path_that_is_too_long_is_refused():
    net, node = repeater()
    path = (1, *range(100, 100 + MAX_PATH - 3), 1)
    forward = Forward(CircuitId(1, 9), 3, path, TERMS)
    node.inbox.append(lambda tick: node.kernel.peer_message(1, forward, tick))
    net.lab.run(10)
    [teardown] = [m for _, peer, m in net.lab.sent if isinstance(m, Teardown) and peer == 1]
    assert f"has more than {MAX_PATH} nodes" in teardown.reason


def test_a_head_that_falls_silent_is_forgotten_in_time():
    net, node = repeater(replace(QUICK, circuit_attempts=1_000))
    forward = Forward(CircuitId(1, 9), 3, (1,), replace(TERMS, remote_socket_id=5))
    node.inbox.append(lambda tick: node.kernel.peer_message(1, forward, tick))
    net.lab.run(10)
    assert [net.nodes[number].kernel.network_layer.circuits for number in (2, 3)] == [2, 2]
    net.lab.run(2 * QUICK.offer_timeout_ticks + 100)
    assert [net.nodes[number].kernel.network_layer.circuits for number in (2, 3)] == [1, 1]
    [teardown] = [m for _, peer, m in net.lab.sent if isinstance(m, Teardown) and peer == 1]
    assert "has heard nothing more of it" in teardown.reason


# --- the parts ------------------------------------------------------------------------


def test_bell_states_join_as_the_paulis_they_stand_for():
    for state in BellState:
        assert join_states(state, BellState.PHI_PLUS) is state
        assert join_states(state, state) is BellState.PHI_PLUS
    assert join_states(BellState.PSI_PLUS, BellState.PHI_MINUS) is BellState.PSI_MINUS


def test_every_state_of_a_circuit_can_be_reached_and_left():
    reached = set(TRANSITIONS.values())
    left = {state for state, _ in TRANSITIONS}
    assert reached | {CircuitState.QUEUED} == set(CircuitState)
    assert left | {CircuitState.ENDED} == set(CircuitState)
    assert "making --> joining: parts here" in state_diagram()
