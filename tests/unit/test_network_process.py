"""Two kernels make entanglement: agreement, corrections, statistics, and all that fails."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import product
from random import Random

import pytest

from qnodeos.api.host import ArrayResult
from qnodeos.api.peer import (
    Accept,
    Announce,
    Cancel,
    EntanglementType,
    Offer,
    PairLost,
    Reject,
    RequestTerms,
)
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import Axis, Opcode, ent
from qnodeos.qdevice.outcomes import BellState, Outcome
from qnodeos.qnpu.process import ProcessState
from qnodeos.qnpu.requests import BASIS_X, BASIS_Y, BASIS_Z, BASIS_ZMINUSX, BASIS_ZPLUSX
from qnodeos.trace.events import Event
from tests.unit.kernel_device import CAPABILITIES, FAILED, Answer, Verdict, outcome_probabilities
from tests.unit.kernel_harness import BIN_TICKS, Lab, Node, make_node, pair, verdicts
from tests.unit.kernel_programs import (
    create_epr,
    init_app,
    measure_directly,
    open_socket,
    recv_epr,
    stop_app,
    submit,
)

BELL_STATES = list(BellState)
FIRST_ONLY = Verdict(first=True, second=False)
SECOND_ONLY = Verdict(first=False, second=True)


def start(node: Node, remote: int, sockets: int = 1, client: int = 1, first: int = 0) -> None:
    """Register application 0 of a client and open its sockets, each to its own number."""
    node.post(init_app(0), client)
    for socket in range(first, first + sockets):
        node.post(open_socket(0, socket, remote, socket), client)


def run_pair(lab: Lab, first: Node, second: Node, ticks: int = 2_000, **create) -> tuple[int, int]:
    """One create request at node 1 and the receive request for it at node 2."""
    start(first, 2)
    start(second, 1)
    pairs = create.get("pairs", 1)
    measured = (create.get("arguments") or {}).get(0) == EntanglementType.MEASURE
    created = first.post(submit(0, create_epr(**create)))
    received = second.post(submit(0, recv_epr(pairs=pairs, measured=measured)))
    lab.run(ticks)
    return created, received


# --- what the programs are told -------------------------------------------------------


def test_the_results_of_a_kept_pair():
    lab, first, second, _ = pair(verdicts(FAILED, Verdict()))
    created, received = run_pair(lab, first, second)
    # type, create id, qubit, is receiver, sequence, socket, remote node, duration, -, Bell
    [announced] = [m.tick for _, _, m in lab.sent if isinstance(m, Announce)]
    done_us = 10 * (announced - BIN_TICKS)  # since the bin in which both began
    assert first.array(created) == (0, 0, 0, 0, 0, 0, 2, done_us, 0, 0)
    assert second.array(received) == (0, 0, 0, 1, 0, 0, 1, done_us, 0, 0)
    lab.check_clean()


def test_the_results_of_a_pair_measured_directly():
    lab, first, second, _ = pair(verdicts(Verdict(bell_state=BellState.PHI_PLUS)), seed=3)
    created, received = run_pair(lab, first, second, arguments=measure_directly())
    (mine, theirs) = first.array(created), second.array(received)
    assert mine[:2] == theirs[:2] == (1, 0)
    assert mine[2] == theirs[2]
    assert mine[3:8] == (BASIS_Z, 0, 0, 0, 2)
    assert theirs[3:8] == (BASIS_Z, 1, 0, 0, 1)
    assert mine[9] == theirs[9] == BellState.PHI_PLUS
    assert first.kernel.qmmu.free_qubits() == [0, 1, 2]
    lab.check_clean()


@pytest.mark.parametrize("kind", [{}, measure_directly()], ids=["keep", "measure"])
def test_pairs_of_one_request_come_in_the_same_order_at_both_ends(kind):
    chances = Random(5)
    lab, first, second, link = pair(
        lambda: (
            Verdict(bell_state=chances.choice(BELL_STATES)) if chances.random() < 0.3 else FAILED
        )
    )
    created, received = run_pair(lab, first, second, pairs=3, virtuals=[2, 0, 1], arguments=kind)
    mine, theirs = first.array(created), second.array(received)
    sequence_place = 5 if kind else 4
    for values in (mine, theirs):
        assert [values[10 * i + sequence_place] for i in range(3)] == [0, 1, 2]
        assert [values[10 * i + 1] for i in range(3)] == [0, 0, 0]
    assert sum(verdict.first for verdict in link.verdicts) == 3
    if not kind:
        assert [mine[10 * i + 2] for i in range(3)] == [2, 0, 1]
        [process] = first.kernel.processes.values()
        qmmu = first.kernel.qmmu
        assert [qmmu.physical(process.pid, virtual) for virtual in (2, 0, 1)] == [0, 1, 2]
    lab.check_clean()


def test_sequence_numbers_go_on_over_requests_and_directions():
    lab, first, second, _ = pair(Verdict)
    for node, remote in ((first, 2), (second, 1)):
        start(node, remote, sockets=2)
    free = "qfree Q0\n"
    requests = []
    for _ in range(3):
        requests.append(
            (
                first.post(submit(0, create_epr(socket=0) + free)),
                second.post(submit(0, recv_epr(socket=0) + free)),
            )
        )
        requests.append(
            (
                first.post(submit(0, recv_epr(remote=2, socket=1) + free)),
                second.post(submit(0, create_epr(remote=1, socket=1) + free)),
            )
        )
    lab.run(3_000)
    for number, (mine, theirs) in enumerate(requests):
        assert first.array(mine)[4] == second.array(theirs)[4] == number
        assert first.array(mine)[1] == second.array(theirs)[1] == number // 2
    lab.check_clean()


def test_several_sockets_in_both_directions_at_once():
    """Two programs per node, each creating on one socket and receiving on another."""
    chances = Random(11)
    lab, first, second, _ = pair(
        lambda: (
            Verdict(bell_state=chances.choice(BELL_STATES)) if chances.random() < 0.4 else FAILED
        )
    )
    posted = []
    for client, base in ((1, 0), (2, 2)):
        start(first, 2, 2, client, base)
        start(second, 1, 2, client, base)
        kinds = measure_directly() if client == 1 else {}
        for node, mine, remote in ((first, base, 2), (second, base + 1, 1)):
            theirs = 2 * base + 1 - mine
            program = (
                create_epr(remote=remote, socket=mine, arguments=kinds, wait=False)
                + recv_epr(
                    remote=remote,
                    socket=theirs,
                    virtuals=[1],
                    base=10,
                    wait=False,
                    measured=bool(kinds),
                )
                + "wait_all @0[0:10]\nwait_all @10[0:10]\nret_arr @0\nret_arr @10\n"
            )
            posted.append((node, mine, node.post(submit(0, program), client)))
    lab.run(5_000)
    sequences: dict[int | None, list[int | None]] = {}
    for node, socket, request in posted:
        for result in node.results(request):
            assert isinstance(result, ArrayResult)
            values = result.values
            place = 4 if values[0] == 0 else 5
            sequences.setdefault(values[place], []).append(values[1])
            assert values[place + 1] in (socket, socket ^ 1)
    assert set(sequences) == {0, 1, 2, 3}
    assert all(len(ids) == 2 and ids[0] == ids[1] for ids in sequences.values())
    lab.check_clean()


# --- the creator suffices -------------------------------------------------------------


@pytest.mark.parametrize("kind", [{}, measure_directly()], ids=["keep", "measure"])
def test_a_pair_may_come_before_anybody_receives_it(kind):
    lab, first, second, _ = pair(lambda: Verdict(bell_state=BellState.PSI_MINUS))
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr(arguments=kind)))
    lab.run(400)
    assert first.replies[created].error is None
    assert second.kernel.qmmu.owned(0) == ([] if kind else [0])
    received = second.post(submit(0, recv_epr(measured=bool(kind))))
    lab.run(10)
    assert second.array(received)[1] == first.array(created)[1]
    assert second.kernel.qmmu.owned(0) == []
    assert [p.state for p in second.kernel.processes.values()] == [ProcessState.IDLE]
    lab.check_clean()


def test_a_pair_nobody_received_is_given_back_when_its_program_ends():
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr()))
    lab.run(400)
    second.post(stop_app(0))
    lab.run(10)
    assert second.kernel.qmmu.free_qubits() == [0, 1, 2]
    lab.check_clean()


def test_pairs_nobody_receives_are_bounded():
    limits = Limits(unclaimed_pairs=4)
    lab, first, second, _ = pair(Verdict, limits=limits)
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr(pairs=4, arguments=measure_directly())))
    lab.run(500)
    assert len(second.kernel.processes) == 1
    first.post(submit(0, create_epr(arguments=measure_directly(), base=10)))
    late = second.post(submit(0, "array 10 @0"))
    lab.run(500)
    assert second.replies[late].error is None
    after = second.post(submit(0, "ret_reg R0"))
    lab.run(10)
    assert "unclaimed_pairs=4" in second.error(after).text
    lab.check_clean()


@pytest.mark.parametrize("received", [True, False])
def test_a_communication_qubit_that_is_kept_is_taken_back_if_another_request_waits(received):
    """Also if the pair has never been received."""
    one_qubit = replace(CAPABILITIES, communication_qubits=(0,), memory_qubits=())
    limits = Limits(qubit_ticks=1_000)
    lab, first, second, _ = pair(Verdict, limits=limits, capabilities=one_qubit)
    for node, remote in ((first, 2), (second, 1)):
        start(node, remote)
        start(node, remote, client=2, first=1)
    first.post(submit(0, create_epr()))
    if received:
        second.post(submit(0, recv_epr()))
    lab.run(400)
    assert second.kernel.qmmu.free_qubits() == []
    first.post(submit(0, "set Q0 0\nmeas Q0 M0\nqfree Q0"))
    lab.run(5_000)
    assert len(second.kernel.processes) == 2, "nobody wants it"
    created = first.post(submit(0, create_epr(socket=1, base=10)), 2)
    other = second.post(submit(0, recv_epr(socket=1)), 2)
    lab.run(900)
    assert created not in first.replies
    lab.run(600)
    assert first.array(created)[1] == 1
    assert second.array(other)[1] == 1
    late = second.post(submit(0, ""))
    lab.run(10)
    assert "qubit_ticks=1000" in second.error(late).text
    lab.check_clean()


def test_a_peer_that_opens_its_socket_late_is_waited_for():
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    created = first.post(submit(0, create_epr()))
    lab.run(5 * BIN_TICKS)
    assert created not in first.replies
    start(second, 1)
    lab.run(3 * BIN_TICKS)
    assert first.array(created)[1] == 0
    lab.check_clean()


# --- Bell states ----------------------------------------------------------------------


@pytest.mark.parametrize("state", BELL_STATES)
def test_only_the_receiver_turns_a_kept_pair_into_phi_plus(state):
    lab, first, second, _ = pair(verdicts(Verdict(bell_state=state)))
    created, received = run_pair(lab, first, second)
    assert first.driver.corrections == []
    assert second.driver.corrections == [(state, 0)]
    assert first.array(created)[9] == second.array(received)[9] == BellState.PHI_PLUS
    gates = [i for i in second.device.instructions if i.opcode is Opcode.SQG]
    assert len(gates) == {BellState.PHI_PLUS: 0, BellState.PSI_MINUS: 2}.get(state, 1)
    lab.check_clean()


def test_the_pair_is_delivered_only_after_its_correction():
    lab, first, second, _ = pair(verdicts(Verdict(bell_state=BellState.PSI_MINUS)), device_ticks=7)
    _, received = run_pair(lab, first, second)
    last_gate = second.device.log[-1][0]
    [delivered] = second.trace.events(Event.QNP_BQ_DELIVERED)
    assert delivered.tick == last_gate + 7
    assert second.replies[received].error is None


BASIS_ARGUMENTS = {
    BASIS_Z: (0, 0, 0),
    BASIS_X: (0, 24, 0),  # axes XYX: Y by -pi/2
    BASIS_Y: (8, 0, 0),
}


def basis_arguments(local: int, remote: int) -> dict[str, int]:
    """Rotations of a measure-directly request, axes XYX at both ends."""
    mine, theirs = BASIS_ARGUMENTS[local], BASIS_ARGUMENTS[remote]
    return {f"local_{i}": mine[i] for i in range(3)} | {f"remote_{i}": theirs[i] for i in range(3)}


def counts(first: Node, second: Node, created: int, received: int) -> Counter[tuple[int, int]]:
    """How often each pair of outcomes came."""
    mine, theirs = first.array(created), second.array(received)
    return Counter(
        (int(a or 0), int(b or 0)) for a, b in zip(mine[2::10], theirs[2::10], strict=True)
    )


@pytest.mark.parametrize(
    ("state", "local", "remote"),
    [(s, b, b) for s, b in product(BELL_STATES, BASIS_ARGUMENTS)]
    + [(BellState.PSI_MINUS, BASIS_X, BASIS_Z), (BellState.PSI_PLUS, BASIS_Y, BASIS_X)],
)
def test_measured_outcomes_have_the_statistics_of_phi_plus(state, local, remote):
    """In equal Pauli bases Phi+ gives XX = +1, YY = -1, ZZ = +1; in others nothing."""
    shots = 60
    lab, first, second, _ = pair(lambda: Verdict(bell_state=state), seed=17)
    arguments = measure_directly(**basis_arguments(local, remote))
    created, received = run_pair(lab, first, second, pairs=shots, arguments=arguments)
    seen = counts(first, second, created, received)
    assert seen.total() == shots
    rotations = {
        basis: [(axis, n) for axis, n in zip((Axis.X, Axis.Y, Axis.X), angles, strict=True) if n]
        for basis, angles in BASIS_ARGUMENTS.items()
    }
    ideal = outcome_probabilities(BellState.PHI_PLUS, rotations[local], rotations[remote])
    for (a, b), probability in zip(product((0, 1), repeat=2), ideal, strict=True):
        # z = 4.5, normal approximation; exact where the probability is 0
        spread = 4.5 * (shots * probability * (1 - probability)) ** 0.5
        assert abs(seen[a, b] - shots * probability) <= spread + 1e-6
    mine, theirs = first.array(created), second.array(received)
    assert set(mine[3::10]) == {local}
    assert set(theirs[3::10]) == {remote}
    assert set(mine[9::10]) == set(theirs[9::10]) == {BellState.PHI_PLUS}
    lab.check_clean()


def test_random_bases_are_drawn_at_both_ends_and_told():
    shots = 240
    chances = Random(2)
    lab, first, second, _ = pair(lambda: Verdict(bell_state=chances.choice(BELL_STATES)), seed=23)
    created, received = run_pair(
        lab, first, second, 4_000, pairs=shots,
        arguments=measure_directly(random_local=2, random_remote=1),
    )  # fmt: skip
    mine, theirs = first.array(created), second.array(received)
    bases = Counter(zip(mine[3::10], theirs[3::10], strict=True))
    assert set(bases) == set(product((BASIS_X, BASIS_Y, BASIS_Z), (BASIS_X, BASIS_Z)))
    for count in bases.values():  # each of six with probability 1/6; z = 4.5
        assert abs(count - shots / 6) <= 4.5 * (shots * 5 / 36) ** 0.5
    for a, b, basis, other in zip(
        mine[2::10], theirs[2::10], mine[3::10], theirs[3::10], strict=True
    ):
        if basis == other:
            assert a == b
    lab.check_clean()


@pytest.mark.parametrize(
    ("chosen", "told"),
    [({"remote_1": 4}, BellState.PSI_PLUS), ({"random_remote": 3}, BellState.PHI_PLUS)],
    ids=["fixed", "random"],
)
def test_only_a_fixed_basis_off_the_paulis_is_told_the_heralded_state(chosen, told):
    lab, first, second, _ = pair(lambda: Verdict(bell_state=BellState.PSI_PLUS), seed=29)
    arguments = measure_directly(random_local=1, **chosen)
    created, received = run_pair(lab, first, second, pairs=30, arguments=arguments)
    mine, theirs = first.array(created), second.array(received)
    if told is BellState.PHI_PLUS:
        assert set(theirs[3::10]) == {BASIS_ZPLUSX, BASIS_ZMINUSX}
    assert set(mine[9::10]) == set(theirs[9::10]) == {told}
    lab.check_clean()


def test_a_basis_is_programmed_only_when_it_changes():
    lab, first, second, _ = pair(Verdict)
    created, _ = run_pair(
        lab, first, second, pairs=5, arguments=measure_directly(**basis_arguments(1, 0))
    )
    assert first.replies[created].error is None
    opcodes = Counter(i.opcode for i in first.device.instructions)
    assert opcodes == {Opcode.PMG: 1, Opcode.ENM: 5}
    again = first.post(submit(0, create_epr(arguments=measure_directly(), base=10)))
    second.post(submit(0, recv_epr(base=10, measured=True)))
    lab.run(500)
    assert first.array(again)[3] == BASIS_Z
    assert Counter(i.opcode for i in first.device.instructions)[Opcode.PMG] == 2


def test_a_device_that_failed_gets_its_basis_anew():
    """It may have restarted, and then it has forgotten."""
    node = make_node(1)
    lab = Lab(node)
    start(node, 2)
    node.post(submit(0, create_epr(pairs=2, arguments=measure_directly())))
    lab.run(1)
    accept(node)
    failing = iter([Answer(Outcome.SUCCESS_ZERO), Answer(Outcome.UNKNOWN_FAILURE)])
    node.device.answers = lambda instruction: next(failing, Answer(Outcome.SUCCESS_ZERO))
    lab.run(BIN_TICKS + 50)
    start(node, 2, client=2)
    node.post(submit(0, create_epr(arguments=measure_directly())), client=2)
    lab.run(1)
    accept(node)
    lab.run(2 * BIN_TICKS)
    opcodes = [instruction.opcode for instruction in node.device.instructions]
    assert opcodes == [Opcode.PMG, Opcode.ENM, Opcode.PMG, Opcode.ENM]


def accept(node: Node) -> None:
    """Stand in for the neighbour of a node that runs alone: accept its latest offer."""
    request = node.kernel.link_layer.links[2].queue[-1]
    message = Accept(request.create_id, request.start_bin)
    node.inbox.append(lambda tick: node.kernel.peer_message(2, message, tick))


# --- herald and announcement ----------------------------------------------------------


@pytest.mark.parametrize("announcement_ticks", [1, 2, 60, 350])
@pytest.mark.parametrize("outcome_ticks", [1, 30])
def test_the_announcement_may_come_before_or_after_the_herald(announcement_ticks, outcome_ticks):
    lab, first, second, link = pair(Verdict, delay=lambda: announcement_ticks)
    poll = second.device.poll
    ready: list[int] = []

    def late_poll(tick: int) -> Answer | None:
        """The receiver's device takes longer to tell what it saw."""
        if second.device.busy is None or second.device.busy.opcode is not Opcode.ENT:
            return poll(tick)
        if second.device.answer.outcome is not Outcome.SUCCESS_PSI_PLUS:
            return poll(tick)
        if not ready:
            ready.append(tick + outcome_ticks)
            second.device.due_tick = ready[0]
        return poll(tick)

    second.device.poll = late_poll  # type: ignore[method-assign]
    created, received = run_pair(lab, first, second)
    assert first.array(created)[4] == second.array(received)[4] == 0
    assert len(link.verdicts) == 1
    lab.check_clean()


def test_an_announcement_that_never_comes_is_given_up():
    lab, first, second, _ = pair(
        verdicts(SECOND_ONLY), limits=Limits(announcement_timeout_ticks=150)
    )
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr()))
    lab.run(BIN_TICKS + 50)
    assert second.kernel.network.state is ProcessState.WAITING
    assert second.kernel.qmmu.owned(0) == [0]
    heralded = second.kernel.network.timeout_tick()
    assert heralded == 108 + 150
    lab.run(heralded - lab.tick - 1)
    assert second.kernel.network.state is ProcessState.WAITING
    lab.run(1)
    assert second.kernel.network.timeout_tick() is None
    assert second.device.log[-1] == (258, ent(0, 0))
    lab.check_clean()


def test_a_herald_only_the_receiver_saw_does_not_stop_the_request():
    lab, first, second, _ = pair(
        verdicts(SECOND_ONLY, then=Verdict()), limits=Limits(announcement_timeout_ticks=150)
    )
    created, received = run_pair(lab, first, second)
    assert first.array(created)[1:5] == (0, 0, 0, 0)
    assert second.array(received)[1:5] == (0, 0, 1, 0)
    lab.check_clean()


@pytest.mark.parametrize("pairs", [1, 3])
@pytest.mark.parametrize("kind", [{}, measure_directly()], ids=["keep", "measure"])
def test_a_herald_only_the_creator_saw_is_an_error_of_its_program(kind, pairs):
    """Whether or not the next attempts succeed before the creator hears of it."""
    lab, first, second, _ = pair(verdicts(FIRST_ONLY, then=Verdict()))
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr(pairs=pairs, arguments=kind, wait=False)))
    received = second.post(submit(0, recv_epr(pairs=pairs, measured=bool(kind))))
    lab.run(1_000)
    late = first.post(submit(0, "ret_arr @0"))
    lab.run(10)
    error = first.error(late)
    assert error.kind == "UnknownProcessError"
    assert "pair 0 of request 0 was lost" in error.text
    assert "node 2" in error.text
    assert f"pair 0 of {pairs} that node 1 has announced was lost" in second.error(received).text
    lab.check_clean()


def test_pairs_are_not_mixed_up_after_a_herald_only_the_creator_saw():
    """The receiver must not take the next pair for the lost one."""
    lab, first, second, _ = pair(verdicts(FIRST_ONLY, then=Verdict()), delay=lambda: 2)
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr(pairs=2)))
    received = second.post(submit(0, recv_epr(pairs=2)))
    lab.run(1_000)
    assert "our device has no such pair" in second.error(received).text
    assert second.trace.events(Event.QNP_BQ_DELIVERED) == []
    lab.check_clean()


def test_different_bell_states_at_both_ends_are_an_error():
    lab, first, second, _ = pair(verdicts(Verdict(bell_state=BellState.PSI_PLUS)))
    answer = second.device.poll

    def wrong(tick: int) -> Answer | None:
        told = answer(tick)
        if told is not None and told.outcome is Outcome.SUCCESS_PSI_PLUS:
            return Answer(Outcome.SUCCESS_PSI_MINUS)
        return told

    second.device.poll = wrong  # type: ignore[method-assign]
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr(wait=False)))
    lab.run(300)
    late = first.post(submit(0, "ret_arr @0"))
    lab.run(10)
    assert "lost" in first.error(late).text
    lab.check_clean()


def test_an_announcement_out_of_the_blue_is_refused():
    lab, first, _second, _ = pair()
    first.inbox.append(
        lambda tick: first.kernel.peer_message(2, Announce(9, 4, 0, BellState.PHI_PLUS, tick), tick)
    )
    lab.run(10)
    assert (1, 2, PairLost(9, 4)) in lab.sent
    lab.check_clean()


def test_announcements_do_not_pile_up():
    lab, first, second, _ = pair(lambda: FAILED)
    run_pair(lab, first, second, ticks=110)
    assert second.device.busy is not None
    for index in range(100):
        message = Announce(0, index, 0, BellState.PHI_PLUS, 10_000)
        second.inbox.append(partial(second.kernel.peer_message, 1, message))
    lab.run(1)
    assert len(second.kernel.link_layer.links[1].announced) <= 1
    lab.check_clean()


# --- time bins ------------------------------------------------------------------------


def test_attempts_stay_within_the_bins_of_the_link():
    lab, first, second, _ = pair(lambda: FAILED)
    run_pair(lab, first, second, ticks=5 * BIN_TICKS)
    starts = [tick for tick, i in first.device.log if i.opcode is Opcode.ENT]
    assert {tick // BIN_TICKS for tick in starts} == {1, 2, 3, 4}
    assert all(5 <= tick % BIN_TICKS <= BIN_TICKS - 15 for tick in starts)
    assert {tick % BIN_TICKS for tick in starts} >= {5, 8, 80, 83}
    lab.check_clean()


def test_an_announcement_in_the_guard_of_a_bin_starts_no_attempt_there():
    lab, first, second, _ = pair(Verdict, delay=lambda: 94)
    created, received = run_pair(lab, first, second, pairs=2, virtuals=[0, 1])
    arrived = [m.tick + 94 for _, _, m in lab.sent if isinstance(m, Announce)]
    assert arrived[0] % BIN_TICKS < 5, "this is the case meant"
    starts = [tick for tick, i in second.device.log if i.opcode is Opcode.ENT]
    assert all(5 <= tick % BIN_TICKS <= BIN_TICKS - 15 for tick in starts)
    assert first.array(created)[14] == second.array(received)[14] == 1
    lab.check_clean()


def test_a_node_that_is_late_in_a_bin_is_waited_for():
    lab, first, second, link = pair(Verdict)
    start(second, 1)
    start(first, 2)
    created = first.post(submit(0, create_epr()))
    second.post(submit(0, recv_epr()))
    lab.run(BIN_TICKS)
    busy = second.post(submit(0, "init Q0\n" * 2), client=1)
    second.device.ticks = 30  # node 2 is late in this bin
    alone = second.post(init_app(1))
    late = second.post(submit(1, "qalloc Q0\n" + "init Q0\n" * 2))
    lab.run(2 * BIN_TICKS)
    outcomes = [r.detail for r in first.trace.events(Event.PROCESSOR_CONSUME_OUTCOME)]
    *early, last = outcomes
    assert early
    assert set(early) == {Outcome.ENTANGLEMENT_SYNC_FAILURE}
    assert last is Outcome.SUCCESS_PSI_PLUS
    assert {tick // BIN_TICKS for tick, _ in first.device.log} == {1}
    assert first.array(created)[4] == 0
    assert {busy, alone, late} & second.replies.keys()
    assert len(link.verdicts) == 1
    lab.check_clean()


def test_a_node_that_is_left_alone_leaves_the_rest_of_the_bin_to_programs():
    lab, first, second, _ = pair(Verdict, limits=Limits(lone_attempt_ticks=40))
    for node, remote in ((first, 2), (second, 1)):
        start(node, remote)
    holds = second.post(init_app(1))
    second.post(submit(1, "".join(f"set Q0 {i}\nqalloc Q0\n" for i in range(3))))
    first.post(submit(0, create_epr()))
    lab.run(BIN_TICKS)
    first.post(init_app(1))
    lab.at(BIN_TICKS + 10, lambda: first.post(submit(1, "qalloc Q0\n" + "init Q0\n" * 20)))
    lab.run(BIN_TICKS)
    opcodes = [instruction.opcode for instruction in first.device.instructions]
    alone = opcodes.index(Opcode.INI)
    assert set(opcodes[:alone]) == {Opcode.ENT}
    assert opcodes[alone:] == [Opcode.INI] * 20
    starts = [tick % BIN_TICKS for tick, i in first.device.log if i.opcode is Opcode.ENT]
    assert max(starts) < 5 + 40
    assert second.replies[holds].error is None
    lab.check_clean()


def test_a_bin_is_sat_out_while_no_communication_qubit_is_free():
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)
    holds = first.post(init_app(1))
    first.post(submit(1, "".join(f"set Q0 {i}\nqalloc Q0\n" for i in range(3))))
    created = first.post(submit(0, create_epr()))
    lab.run(5 * BIN_TICKS)
    assert first.device.log == []
    assert created not in first.replies
    first.post(stop_app(1))
    lab.run(2 * BIN_TICKS)
    assert first.array(created)[4] == 0
    assert first.replies[holds].error is None
    lab.check_clean()


def test_the_network_process_has_priority_but_does_not_preempt():
    lab, first, second, _ = pair(lambda: FAILED)
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr()))
    lab.run(BIN_TICKS - 5)
    first.post(init_app(1))
    first.post(init_app(2))
    long = first.post(submit(1, "qalloc Q0\n" + "init Q0\n" * 20))
    short = first.post(submit(2, "set R0 1\nret_reg R0"))
    lab.run(200)
    opcodes = [instruction.opcode for instruction in first.device.instructions]
    assert opcodes[:20] == [Opcode.INI] * 20
    assert opcodes[20] is Opcode.ENT
    assert first.replies[long].error is None
    waits = first.trace.events(Event.SCHEDULER_HIGH_PRIO_PROCESS_WAITS_ON_LOWER_PRIO)
    assert [record.pid for record in waits] == [0]
    starts = [
        record.pid
        for record in first.trace.events(
            Event.PROCESSOR_START_USER_PROCESS, Event.PROCESSOR_START_NET_PROCESS
        )
    ]
    long_pid = starts.index(2)
    assert starts[long_pid : long_pid + 3] == [2, 0, 3]
    assert first.values(short) == [1]


# --- requests that end badly ----------------------------------------------------------


def test_an_offer_nobody_accepts_times_out():
    lab, first, second, _ = pair(limits=Limits(offer_timeout_ticks=700))
    start(first, 2)
    created = first.post(submit(0, create_epr()))
    lab.run(710)
    error = first.error(created)
    assert (error.kind, error.subroutine) == ("EntanglementTimeoutError", 0)
    assert "node 2 did not open ER socket 0" in error.text
    assert "offer_timeout_ticks=700" in error.text
    lab.run(10)
    assert second.kernel.link_layer.links[1].offers == []
    lab.check_clean()


def test_two_requests_of_one_program_may_expire_together():
    lab, first, _second, _ = pair(limits=Limits(offer_timeout_ticks=300))
    start(first, 2, sockets=2)
    both = create_epr(socket=0, wait=False) + create_epr(socket=1, base=10, virtuals=[1])
    created = first.post(submit(0, both))
    lab.run(310)
    assert first.error(created).kind == "EntanglementTimeoutError"
    lab.check_clean()


@pytest.mark.parametrize(("max_time", "unit", "ticks"), [(5_001, 0, 501), (7, 1, 700)])
def test_a_request_that_takes_longer_than_max_time_expires(max_time, unit, ticks):
    """Every pair has as long again: the SDK's max_time is that of a single pair."""
    lab, first, second, _ = pair(verdicts(Verdict()))
    arguments = measure_directly(max_time=max_time, time_unit=unit)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr(pairs=2, arguments=arguments)))
    lab.run(BIN_TICKS + 20)
    [announced] = [m.tick for _, _, m in lab.sent if isinstance(m, Announce)]
    lab.run(announced + ticks - lab.tick - 1)
    assert created not in first.replies
    lab.run(2)
    error = first.error(created)
    assert error.kind == "EntanglementTimeoutError"
    assert "1 of 2 pairs with node 2 came within max_time" in error.text
    lab.run(5)
    assert second.kernel.link_layer.links[1].queue == []
    lab.check_clean()


@pytest.mark.parametrize("when", [50, 104, 106, 107, 150])
def test_a_receiving_program_that_ends_refuses_the_request(when):
    """Before, during and between attempts."""
    lab, first, second, _ = pair(lambda: FAILED)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr()))
    lab.at(when, lambda: second.post(stop_app(0)))
    lab.run(400)
    error = first.error(created)
    assert error.kind == "EntanglementRequestError"
    assert "node 2 refused the request: the program there has ended" in error.text
    lab.check_clean()


@pytest.mark.parametrize("when", [50, 104, 105, 106, 107, 108, 109, 111, 115])
@pytest.mark.parametrize("verdict", [FAILED, Verdict(), FIRST_ONLY, SECOND_ONLY])
@pytest.mark.parametrize("kind", [{}, measure_directly()], ids=["keep", "measure"])
@pytest.mark.parametrize("closing", [1, 2])
def test_a_program_may_end_at_any_moment_of_an_attempt(when, verdict, kind, closing):
    lab, first, second, _ = pair(lambda: verdict, limits=Limits(announcement_timeout_ticks=300))
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr(arguments=kind)))
    received = second.post(submit(0, recv_epr(measured=bool(kind))))
    lab.at(when, (first, second)[closing - 1].close)
    lab.run(1_000)
    assert {1: created in first.replies, 2: received in second.replies}[closing]
    lab.check_clean()


def test_a_cancelled_request_is_forgotten_at_both_ends():
    lab, first, second, _ = pair(lambda: FAILED)
    run_pair(lab, first, second, ticks=130)
    first.post(stop_app(0))
    lab.run(10)
    assert (1, 2, Cancel(0)) in lab.sent
    assert second.kernel.link_layer.links[1].queue == []
    attempts = len(first.device.log)
    lab.run(5 * BIN_TICKS)
    assert len(first.device.log) == attempts
    lab.check_clean()


@pytest.mark.parametrize("outcome", [Outcome.HARDWARE_FAILURE, Outcome.UNKNOWN_FAILURE])
def test_a_cancelled_request_whose_attempt_breaks_the_device(outcome):
    lab, first, second, _ = pair(lambda: FAILED)
    run_pair(lab, first, second, ticks=107)
    assert first.device.busy is not None
    first.close()
    first.device.answer = Answer(outcome)
    lab.run(20)
    lab.check_clean()


@pytest.mark.parametrize(
    "outcome", [Outcome.HARDWARE_FAILURE, Outcome.UNSUPPORTED_REQUEST, Outcome.SUCCESS_ONE]
)
def test_a_device_that_refuses_an_attempt_is_an_error_of_the_creator(outcome):
    """SUCCESS_ONE is no answer to ENT."""
    lab, first, second, _ = pair(lambda: FAILED)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr()))
    lab.run(106)
    first.device.answer = Answer(outcome)
    lab.run(50)
    error = first.error(created)
    assert error.kind == "DeviceFailureError"
    assert outcome.name in error.text
    assert "node 2" in error.text
    lab.check_clean()


@pytest.mark.parametrize("ended", [False, True])
def test_a_correction_that_fails_is_an_error_of_the_receiver(ended):
    lab, first, second, _ = pair(Verdict, device_ticks=10)
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr()))
    received = second.post(submit(0, recv_epr()))
    lab.run(115)
    assert second.device.busy is not None
    assert second.device.busy.opcode is Opcode.SQG
    second.device.answer = Answer(Outcome.HARDWARE_FAILURE)
    if ended:
        second.close()
    lab.run(50)
    expected = "UnknownProcessError" if ended else "DeviceFailureError"
    assert second.error(received).kind == expected
    lab.check_clean()


def test_a_receiver_without_a_qubit_for_a_kept_pair():
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr()))
    received = second.post(submit(0, recv_epr(virtuals=[])))
    lab.run(300)
    error = second.error(received)
    assert error.kind == "EntanglementRequestError"
    assert "the other names no virtual qubit for them" in error.text
    assert second.kernel.qmmu.free_qubits() == [0, 1, 2]
    lab.check_clean()


def test_a_pair_for_a_virtual_qubit_in_use():
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, "qalloc Q0\n" + create_epr()))
    lab.run(300)
    assert first.error(created).kind == "QubitAccessError"
    lab.check_clean()


@pytest.mark.parametrize("length", [0, 5])
def test_a_result_array_replaced_by_a_shorter_one(length):
    """Delivery must not make an array longer than its program made it."""
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr(wait=False) + f"array {length} @0\nret_arr @0\n"))
    lab.run(300)
    error = first.error(created)
    assert error.kind == "ArrayAccessError"
    assert "@0" in error.text
    lab.check_clean()


def test_sockets_that_are_not_connected_to_each_other():
    lab, first, second, _ = pair()
    first.post(init_app(0))
    first.post(open_socket(0, 0, 2, 1))
    created = first.post(submit(0, create_epr()))
    second.post(init_app(0))
    second.post(open_socket(0, 1, 1, 5))
    lab.run(50)
    error = first.error(created)
    assert "ER socket 1 there is connected to socket 5 here, not to 0" in error.text
    lab.check_clean()


def test_a_node_refuses_more_requests_than_it_keeps():
    lab, first, _second, _ = pair(limits=Limits(entanglement_requests=2))
    for client in range(3):
        start(first, 2, client=client, first=client)
    requests = [first.post(submit(0, create_epr(socket=client)), client) for client in range(3)]
    lab.run(50)
    assert "too many requests: entanglement_requests=2" in first.error(requests[2]).text
    assert requests[0] not in first.replies
    lab.check_clean()


TERMS = RequestTerms(0, 0, EntanglementType.MEASURE, 1, (), 0, 0)


@pytest.mark.parametrize(
    "terms",
    [
        RequestTerms(0, 0, EntanglementType.MEASURE, 0, (), 0, 0),
        RequestTerms(0, 0, EntanglementType.MEASURE, 10**6, (), 0, 0),
        RequestTerms(0, 0, EntanglementType.MEASURE, 1, ((7, 1),), 0, 0),
        RequestTerms(0, 0, EntanglementType.MEASURE, 1, ((0, 32),), 0, 0),
        RequestTerms(0, 0, EntanglementType.MEASURE, 1, ((0, 1),) * 99, 0, 0),
        RequestTerms(0, 0, EntanglementType.MEASURE, 1, (), 4, 0),
        RequestTerms(0, 0, EntanglementType.MEASURE, 1, (), -1, 0),
    ],
)
def test_terms_out_of_range_are_refused(terms):
    lab, _first, second, _ = pair()
    start(second, 1)
    second.inbox.append(lambda tick: second.kernel.peer_message(1, Offer(3, terms), tick))
    lab.run(500)
    assert any(isinstance(m, Reject) and m.create_id == 3 for _, _, m in lab.sent)
    assert second.device.log == []
    lab.check_clean()


# --- changes of the queue while attempts go on ----------------------------------------


@pytest.mark.parametrize("delay", [1, 5, 20, 60])
@pytest.mark.parametrize("creators", [(1, 1), (1, 2), (2, 1)])
def test_a_request_accepted_late_does_not_disturb_another(delay, creators):
    """Its offer is older, so it goes first once its socket opens: at both ends at once."""
    pairs = 20
    lab, first, second, _ = pair(Verdict, delay=lambda: delay)
    nodes = {1: first, 2: second}
    old, active = creators
    start(nodes[old], 3 - old, first=7)
    late = nodes[old].post(
        submit(0, create_epr(remote=3 - old, socket=7, arguments=measure_directly()))
    )
    lab.run(BIN_TICKS)
    for node_id, node in nodes.items():
        start(node, 3 - node_id, client=2, first=8)
    created = nodes[active].post(
        submit(
            0,
            create_epr(remote=3 - active, socket=8, pairs=pairs, arguments=measure_directly()),
        ),
        client=2,
    )
    lab.at(2 * BIN_TICKS + 20, lambda: start(nodes[3 - old], old, first=7))
    lab.run(4_000)
    assert nodes[active].replies[created].error is None
    assert nodes[old].replies[late].error is None
    lab.check_clean()


@pytest.mark.parametrize("delay", [1, 5, 20])
@pytest.mark.parametrize("closing", [1, 2])
def test_a_cancelled_request_does_not_disturb_the_next(delay, closing):
    lab, first, second, _ = pair(verdicts(*[FAILED] * 6, then=Verdict()), delay=lambda: delay)
    for client in (1, 2):
        start(first, 2, client=client, first=client)
        start(second, 1, client=client, first=client)
    kind = measure_directly()
    first.post(submit(0, create_epr(socket=1, arguments=kind)), 1)
    created = first.post(submit(0, create_epr(socket=2, pairs=3, arguments=kind)), 2)
    lab.at(BIN_TICKS + 20, lambda: (first, second)[closing - 1].close(1))
    lab.run(2_000)
    assert first.replies[created].error is None
    lab.check_clean()
