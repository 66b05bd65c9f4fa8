"""What goes wrong between two programs is told at both ends, and soon.

They disagree on the type or the number of pairs; one of them ends, withdraws its request, or
never asks. A program that ends well after its last pair takes nothing from the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from qnodeos.api.peer import EntanglementType, SocketClosed
from qnodeos.limits import Limits
from qnodeos.qnpu.process import ProcessState
from tests.unit.kernel_device import FAILED, Verdict
from tests.unit.kernel_harness import BIN_TICKS, Lab, Node, pair, verdicts
from tests.unit.kernel_programs import (
    create_epr,
    init_app,
    measure_directly,
    open_socket,
    recv_epr,
    stop_app,
    submit,
)

SOON = 4 * BIN_TICKS


def start(node: Node, remote: int, sockets: int = 1, client: int = 1) -> None:
    """Register application 0 of a client and open its sockets, each to its own number."""
    node.post(init_app(0), client)
    for socket in range(sockets):
        node.post(open_socket(0, socket, remote, socket), client)


def late_error(lab: Lab, node: Node, client: int = 1) -> str:
    """Why the program of a client has ended."""
    late = node.post(submit(0, "ret_reg R0"), client)
    lab.run(10)
    return node.error(late).text


# --- requests that do not fit ---------------------------------------------------------

MISMATCHES = {
    "kept, measured": (EntanglementType.KEEP, 1, 1, True, "names no virtual qubit"),
    "prepared, measured": (EntanglementType.PREPARE, 1, 1, True, "names no virtual qubit"),
    "measured, kept": (EntanglementType.MEASURE, 1, 1, False, "names virtual qubits"),
    "fewer kept": (EntanglementType.KEEP, 1, 2, False, "one is for 1 pairs, the other for 2"),
    "more kept": (EntanglementType.KEEP, 2, 1, False, "one is for 2 pairs, the other for 1"),
    "fewer measured": (EntanglementType.MEASURE, 1, 2, True, "one is for 1 pairs, the other"),
    "more measured": (EntanglementType.MEASURE, 3, 2, True, "one is for 3 pairs, the other"),
}


@pytest.mark.parametrize("name", MISMATCHES)
@pytest.mark.parametrize("late", [None, "creator", "receiver"])
def test_requests_that_do_not_fit_fail_at_both_ends(name, late):
    """Whether they meet when the offer comes, or when all pairs have been made."""
    kind, creates, receives, measured, words = MISMATCHES[name]
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)

    def create() -> None:
        request = create_epr(pairs=creates, arguments={0: int(kind)}, wait=False)
        first.post(submit(0, request))

    def receive() -> None:
        request = recv_epr(pairs=receives, measured=measured, wait=False)
        second.post(submit(0, request))

    lab.at(3 * BIN_TICKS if late == "creator" else 0, create)
    lab.at(3 * BIN_TICKS if late == "receiver" else 0, receive)
    lab.run(3 * BIN_TICKS + 20)
    for node in (first, second):
        text = late_error(lab, node)
        assert "do not fit" in text
        assert words in text
        assert node.kernel.qmmu.free_qubits() == [0, 1, 2]
    assert first.device.log == [] or late == "receiver"
    lab.check_clean()


def test_the_pairs_of_two_requests_are_not_one_receive_request():
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)
    kind = measure_directly()
    first.post(
        submit(0, create_epr(arguments=kind, wait=False) + create_epr(arguments=kind, base=10))
    )
    received = second.post(submit(0, recv_epr(pairs=2, measured=True)))
    lab.run(SOON)
    assert "one is for 1 pairs, the other for 2" in second.error(received).text
    assert "one is for 1 pairs, the other for 2" in late_error(lab, first)
    lab.check_clean()


def test_requests_meet_in_order_whatever_their_priority():
    """The second create request is done first; its pairs go to the second receive request."""
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)
    long, after = 40, "wait_all @0[0:400]\nret_arr @0\n"
    kind, urgent = measure_directly(), measure_directly(priority=1)
    created = first.post(
        submit(
            0,
            create_epr(pairs=long, arguments=kind, wait=False)
            + create_epr(arguments=urgent, base=10)
            + after,
        )
    )
    received = second.post(
        submit(
            0,
            recv_epr(pairs=long, measured=True, wait=False)
            + recv_epr(measured=True, base=10)
            + after,
        )
    )
    lab.run(2 * SOON)
    for node, request in ((first, created), (second, received)):
        [(urgent_sequence,), sequences] = [node.array(request, n)[5::10] for n in (0, 1)]
        assert 0 < (urgent_sequence or 0) < long
        assert sequences == tuple(n for n in range(long + 1) if n != urgent_sequence)
        assert [set(node.array(request, n)[1::10]) for n in (0, 1)] == [{1}, {0}]
    lab.check_clean()


# --- the other program has ended ------------------------------------------------------


@pytest.mark.parametrize("closes", [True, False], ids=["connection", "StopApp"])
@pytest.mark.parametrize("measured", [True, False])
def test_a_program_that_ends_without_creating(closes, measured):
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)
    received = second.post(submit(0, recv_epr(measured=measured)))
    lab.run(SOON)
    assert received not in second.replies
    if closes:
        first.close()
    else:
        first.post(stop_app(0))
    lab.run(10)
    error = second.error(received)
    assert error.kind == "EntanglementRequestError"
    assert "the program at node 1 that had ER socket 0 has ended; 0 pairs came" in error.text
    lab.check_clean()


def test_a_receive_request_made_when_the_other_program_has_ended():
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)
    first.post(stop_app(0))
    lab.run(BIN_TICKS)
    received = second.post(submit(0, recv_epr()))
    lab.run(10)
    assert "has ended; 0 pairs came" in second.error(received).text
    lab.check_clean()


def test_a_receive_request_waits_for_a_program_that_has_not_begun():
    lab, first, second, _ = pair(Verdict)
    start(second, 1)
    received = second.post(submit(0, recv_epr()))
    lab.run(20 * BIN_TICKS)
    assert received not in second.replies
    start(first, 2)
    first.post(submit(0, create_epr()))
    lab.run(SOON)
    assert second.array(received)[4] == 0
    lab.check_clean()


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("delay", [1, 30])
def test_an_earlier_program_that_ends_late_takes_nothing_from_the_next(used, delay):
    """Its socket has the same number; the message that it has closed is not of ours."""
    lab, first, second, _ = pair(Verdict, delay=lambda: delay)
    start(first, 2)
    start(second, 1)
    lab.run(2 * delay)
    if used:
        first.post(submit(0, create_epr(arguments=measure_directly())))
        second.post(submit(0, recv_epr(measured=True)))
        lab.run(SOON)
    second.post(stop_app(0))
    start(second, 1, client=2)
    received = second.post(submit(0, recv_epr()), 2)
    lab.run(2)
    first.post(stop_app(0))
    lab.run(SOON)
    assert any(isinstance(m, SocketClosed) for _, node, m in lab.sent if node == 2)
    assert received not in second.replies
    start(first, 2, client=2)
    created = first.post(submit(0, create_epr()), 2)
    lab.run(SOON)
    assert first.array(created)[4] == second.array(received)[4] == int(used)
    lab.check_clean()


@pytest.mark.parametrize("delay", [1, 4, 60, 130])
@pytest.mark.parametrize("kind", list(EntanglementType))
@pytest.mark.parametrize("device_ticks", [1, 25])
def test_a_program_that_ends_right_after_its_last_pair_takes_nothing(delay, kind, device_ticks):
    """The receiver may still be waiting for its device, or for the announcement."""
    lab, first, second, _ = pair(Verdict, delay=lambda: delay, device_ticks=device_ticks)
    start(first, 2)
    start(second, 1)
    keeps = not kind.receiver_measures
    created = first.post(submit(0, create_epr(pairs=2, arguments={0: int(kind)})))
    received = second.post(submit(0, recv_epr(pairs=2, measured=not keeps)))
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped and created in first.replies:
            stopped = True
            first.post(stop_app(0))

    for tick in range(10 * BIN_TICKS):
        lab.at(tick, stop)
    lab.run(12 * BIN_TICKS)
    assert stopped
    assert not first.kernel.processes
    place = 4 if keeps else 5
    assert second.array(received)[place::10] == (0, 1)
    [process] = second.kernel.processes.values()
    assert process.state is ProcessState.IDLE
    lab.check_clean()


@pytest.mark.parametrize("ends", [True, False])
def test_a_program_that_ends_while_the_connection_is_lost(ends):
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)
    received = second.post(submit(0, recv_epr()))
    lab.run(BIN_TICKS)
    lab.cut()
    lab.run(10)
    if ends:
        first.post(stop_app(0))
    lab.run(10)
    lab.mend()
    lab.run(10)
    if ends:
        assert "has ended; 0 pairs came" in second.error(received).text
    else:
        assert received not in second.replies
        created = first.post(submit(0, create_epr()))
        lab.run(SOON)
        assert first.array(created)[4] == second.array(received)[4] == 0
        first.post(stop_app(0))
        again = second.post(submit(0, recv_epr(base=10, virtuals=[1])))
        lab.run(10)
        assert "has ended; 0 pairs came" in second.error(again).text
    lab.check_clean()


def test_other_sockets_and_requests_go_on():
    """Two programs at each node; one of them ends."""
    lab, first, second, _ = pair(verdicts(then=Verdict()))
    start(first, 2)
    start(second, 1)
    for node, remote in ((first, 2), (second, 1)):
        node.post(init_app(0), 2)
        node.post(open_socket(0, 7, remote, 7), 2)
    received = second.post(submit(0, recv_epr()))
    other = second.post(submit(0, recv_epr(socket=7)), 2)
    lab.run(BIN_TICKS)
    first.post(stop_app(0))
    lab.run(BIN_TICKS)
    assert "has ended" in second.error(received).text
    assert other not in second.replies
    created = first.post(submit(0, create_epr(socket=7)), 2)
    lab.run(SOON)
    assert first.array(created)[4] == second.array(other)[4] == 0
    lab.check_clean()


# --- requests that are withdrawn ------------------------------------------------------


@pytest.mark.parametrize("how", ["ends", "cancelled", "max_time"])
def test_a_request_that_is_withdrawn_fails_at_the_receiver_too(how):
    lab, first, second, _ = pair(verdicts(Verdict()))
    start(first, 2)
    start(second, 1)
    arguments = measure_directly(max_time=5_000) if how == "max_time" else measure_directly()
    created = first.post(submit(0, create_epr(pairs=2, arguments=arguments)))
    received = second.post(submit(0, recv_epr(pairs=2, measured=True)))
    lab.run(3 * BIN_TICKS)
    assert received not in second.replies
    if how == "ends":
        first.post(stop_app(0))
    elif how == "cancelled":
        first.cancel(created)
    else:
        lab.run(500)
        assert "1 of 2 pairs with node 2 came within max_time" in first.error(created).text
    lab.run(10)
    error = second.error(received)
    assert error.kind == "EntanglementRequestError"
    assert "node 1 withdrew the request after 1 of 2 pairs" in error.text
    lab.check_clean()


def test_every_pair_has_max_time():
    """Three pairs come within 100 ms each, not within 100 ms in all."""
    turns = [*[FAILED] * 70, Verdict()] * 3
    lab, first, second, _ = pair(verdicts(*turns), batch_ticks=10)
    start(first, 2)
    start(second, 1)
    arguments = measure_directly(max_time=15, time_unit=1)  # ms: 1,500 ticks
    created = first.post(submit(0, create_epr(pairs=3, arguments=arguments)))
    received = second.post(submit(0, recv_epr(pairs=3, measured=True)))
    lab.run(40 * BIN_TICKS)
    durations_us = first.array(created)[8::10]
    assert second.array(received)[8::10] == durations_us
    assert (durations_us[2] or 0) > 15_000
    lab.check_clean()


@pytest.mark.parametrize("delivered", [0, 1])
def test_a_cancelled_receive_request(delivered):
    """One of its pairs is gone with it: the creator is told. Otherwise another may take it."""
    lab, first, second, _ = pair(verdicts(*[Verdict()] * delivered))
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr(pairs=2, arguments=measure_directly())))
    received = second.post(submit(0, recv_epr(pairs=2, measured=True)))
    lab.run(3 * BIN_TICKS)
    second.cancel(received)
    lab.run(10)
    if delivered:
        text = first.error(created).text
        assert "has cancelled its receive request after 1 of 2 pairs" in text
    else:
        assert created not in first.replies
        again = second.post(submit(0, recv_epr(pairs=2, measured=True, base=10)))
        lab.run(10)
        assert again not in second.replies
        assert second.kernel.link_layer.links[1].queue
    lab.check_clean()


# --- a program that never receives ----------------------------------------------------


def test_a_program_that_never_receives_and_ends():
    """What was made is the creator's; what was not is refused, with the count."""
    lab, first, second, _ = pair(verdicts(Verdict()))
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr(pairs=2)))
    lab.run(3 * BIN_TICKS)
    second.post(stop_app(0))
    lab.run(10)
    text = first.error(created).text
    assert "node 2 refused the request: the program there has ended; 1 of 2 pairs were made" in text
    assert second.kernel.qmmu.free_qubits() == [0, 1, 2]
    lab.check_clean()


@pytest.mark.parametrize("kind", [EntanglementType.KEEP, EntanglementType.MEASURE])
def test_pairs_that_nobody_receives_are_an_error_of_both_in_the_end(kind):
    """The program goes on with something else; so does the creator, which has its pairs."""
    limits = Limits(offer_timeout_ticks=10 * BIN_TICKS)
    lab, first, second, _ = pair(Verdict, limits=limits)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr(pairs=2, arguments={0: int(kind)})))
    lab.run(10 * BIN_TICKS)
    assert first.replies[created].error is None
    assert len(second.kernel.processes) == 1
    lab.run(2 * BIN_TICKS)
    assert not second.kernel.processes
    assert not first.kernel.processes
    for node in (first, second):
        text = late_error(lab, node)
        assert "2 of 2 pairs that the program at node 1 asked for" in text
        assert "every create request needs a receive request" in text
        assert node.kernel.qmmu.free_qubits() == [0, 1, 2]
    lab.check_clean()


def test_two_programs_that_both_create_and_never_receive():
    limits = Limits(offer_timeout_ticks=10 * BIN_TICKS)
    lab, first, second, _ = pair(Verdict, limits=limits)
    start(first, 2)
    start(second, 1)
    for node, remote in ((first, 2), (second, 1)):
        node.post(submit(0, create_epr(remote=remote)))
    lab.run(15 * BIN_TICKS)
    for node in (first, second):
        assert "needs a receive request" in late_error(lab, node)
    lab.check_clean()


@pytest.mark.parametrize("asks", [True, False])
def test_a_program_that_ends_without_having_received_all(asks):
    """The creator had all its pairs; what they are half of is gone.

    It is told when it next asks for something, or when it ends.
    """
    lab, first, second, _ = pair(Verdict)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr(pairs=2)))
    lab.run(SOON)
    assert first.replies[created].error is None
    stopped = second.post(stop_app(0))
    lab.run(10)
    text = second.error(stopped).text
    assert "2 of 2 pairs that node 1 asked for on ER socket 0 were never received" in text
    assert not second.kernel.processes
    if asks:
        text = late_error(lab, first)
        stopped = first.post(stop_app(0))
        lab.run(10)
        assert first.replies[stopped].error is None, "it knows"
    else:
        stopped = first.post(stop_app(0))
        lab.run(10)
        text = first.error(stopped).text
    assert "the program there has ended and received 0 of 2 pairs" in text
    lab.check_clean()


def test_an_er_socket_is_opened_twice():
    lab, first, _second, _ = pair()
    start(first, 2)
    twice = first.post(open_socket(0, 0, 2, 5))
    first.post(init_app(0), 2)
    theirs = first.post(open_socket(0, 0, 2, 0), 2)
    lab.run(10)
    for request in (twice, theirs):
        error = first.error(request)
        assert error.kind == "EntanglementRequestError"
        assert "ER socket 0 to node 2 is already open (process 1)" in error.text
    lab.check_clean()


# --- anything at all ------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """A request of either end."""

    kind: EntanglementType
    pairs: int


ASKS = st.lists(
    st.builds(Ask, kind=st.sampled_from(EntanglementType), pairs=st.integers(1, 2)), max_size=3
)


@settings(max_examples=60)
@given(
    creates=ASKS,
    receives=st.none() | ASKS,
    waits=st.booleans(),
    starts=st.tuples(st.integers(0, 250), st.integers(0, 250)),
    delay=st.integers(1, BIN_TICKS // 2),
)
def test_everybody_is_answered_whether_or_not_requests_fit(creates, receives, waits, starts, delay):
    """One program creates, one receives, and each ends after its last request.

    Not before the other has begun: then that one would wait for its next run.
    """
    receives = creates if receives is None else receives
    limits = Limits(offer_timeout_ticks=5 * BIN_TICKS, announcement_timeout_ticks=3 * BIN_TICKS)
    lab, first, second, _ = pair(Verdict, delay=lambda: delay, limits=limits)
    posted: list[tuple[Node, list[int]]] = [(first, []), (second, [])]

    def program(ask: Ask, base: int, creates: bool) -> str:
        virtuals = list(range(ask.pairs))
        measured = ask.kind.creator_measures if creates else ask.kind.receiver_measures
        text = (
            create_epr(
                pairs=ask.pairs,
                virtuals=virtuals,
                arguments={0: int(ask.kind)},
                base=base,
                wait=waits,
            )
            if creates
            else recv_epr(
                pairs=ask.pairs, virtuals=virtuals, base=base, measured=measured, wait=waits
            )
        )
        if not waits:
            text += f"wait_all @{base}[0:{10 * ask.pairs}]\n"
        freeing = "".join(f"set Q0 {virtual}\nqfree Q0\n" for virtual in virtuals)
        return text if measured else text + freeing

    def launch(number: int, asks: list[Ask]) -> None:
        node, requests = posted[number]
        start(node, 2 - number)
        for place, ask in enumerate(asks):
            text = program(ask, 4 * place, node is first)
            requests.append(node.post(submit(0, text)))

    ended: set[int] = set()

    def end() -> None:
        for number, (node, requests) in enumerate(posted):
            both_begun = lab.tick > max(starts) + delay + 4
            if both_begun and number not in ended and all(r in node.replies for r in requests):
                ended.add(number)
                node.close()

    lab.at(starts[0], lambda: launch(0, creates))
    lab.at(starts[1], lambda: launch(1, receives))
    for tick in range(0, 40 * BIN_TICKS, 20):
        lab.at(tick, end)
    lab.run(45 * BIN_TICKS)
    for node, requests in posted:
        assert all(request in node.replies for request in requests)
    errors = [node.replies[request].error for node, requests in posted for request in requests]
    fits = [(a.kind.receiver_measures, a.pairs) for a in creates] == [
        (a.kind.receiver_measures, a.pairs) for a in receives
    ]
    event(f"fits: {fits}")
    if fits:
        assert errors == [None] * len(errors)
    elif creates and receives:
        assert any(error is not None for error in errors)
    lab.check_clean()
