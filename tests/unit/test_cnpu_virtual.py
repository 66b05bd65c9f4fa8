"""Programs as greenlets: waiting, waking, dying, and the message board between them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from drivers.nv import NV_CAPABILITIES
from qnodeos.api.host import HostReply
from qnodeos.api.netqasm import CREATE_EPR_OPCODE, RECV_EPR_OPCODE, Flavour
from qnodeos.cnpu import message_board
from qnodeos.cnpu.host import NetworkDirectory, current_host, find_host
from qnodeos.cnpu.latency import Delay, LatencyProfile
from qnodeos.cnpu.message_board import MessageBoard
from qnodeos.cnpu.sockets import AnyReceiver
from qnodeos.cnpu.virtual import VirtualCnpu, VirtualProgram
from qnodeos.errors import ConfigurationError, LimitError, ProgramError
from qnodeos.trace.events import Event
from sim.clock import VirtualClock

OTHER_MESSAGE = b"\x04\x00"
SUBROUTINE = b"\x02\x00\x0a\x00\x00"
MS = 1_000_000
KEY = ("alice", "bob", 0)


class FakeQnpu:
    """Answers every message after a fixed time, unless told not to."""

    def __init__(self, clock: VirtualClock, reply_after_ns: int | None = 0) -> None:
        self.clock = clock
        self.reply_after_ns = reply_after_ns
        self.received: list[tuple[int, int, bytes]] = []
        self.closed: list[tuple[int, int]] = []
        self.callbacks: dict[int, Callable[[HostReply], None]] = {}
        self.clients = 0

    def open_client(self) -> int:
        self.clients += 1
        return self.clients

    def close_client(self, client: int) -> None:
        self.closed.append((self.clock.now_ns, client))

    def host_message(
        self, client: int, request: int, raw: bytes, on_reply: Callable[[HostReply], None]
    ) -> None:
        self.received.append((self.clock.now_ns, client, raw))
        self.callbacks[request] = on_reply
        if self.reply_after_ns is not None:
            reply = HostReply(client, request)
            self.clock.call_at(self.clock.now_ns + self.reply_after_ns, on_reply, reply)


class FakeTrace:
    def __init__(self) -> None:
        self.events: list[tuple[int, Event, int, int]] = []

    def record(self, time: int, event: int, process: int = 0, detail: int = 0) -> None:
        self.events.append((time, Event(event), process, detail))


class Bench:
    """One CNPU with a fake QNPU under it."""

    def __init__(self, reply_after_ns: int | None = 0, **delays: Delay) -> None:
        self.clock = VirtualClock()
        self.qnpu = FakeQnpu(self.clock, reply_after_ns)
        self.board = MessageBoard()
        self.trace = FakeTrace()
        self.errors: list[VirtualProgram] = []
        self.cnpu = VirtualCnpu(
            node_name="here",
            directory=NetworkDirectory({"here": 0}, {"alice": "here", "bob": "here"}),
            flavour=Flavour.NV,
            capabilities=NV_CAPABILITIES,
            clock=self.clock,
            qnpu=self.qnpu,
            board=self.board,
            latency=LatencyProfile(name="test", **delays),
            rng=Random(1),
            trace=self.trace,
        )

    def start(self, entry: Callable[..., Any], **inputs: Any) -> VirtualProgram:
        return self.cnpu.start(entry.__name__, entry, inputs, self.errors.append)

    def run(self, *entries: Callable[..., Any]) -> list[VirtualProgram]:
        programs = [self.start(entry) for entry in entries]
        self.clock.run_while(lambda: True)
        return programs


# --- start and end --------------------------------------------------------------------


def test_a_program_runs_when_the_clock_advances_and_not_before():
    bench, log = Bench(), []

    def program(number: int) -> int:
        log.append(number)
        return number + 1

    started = bench.start(program, number=7)
    assert (log, started.is_finished) == ([], False)
    assert started.waiting_for == "its start"
    bench.clock.run_while(lambda: True)
    assert (log, started.is_finished, started.result, started.error) == ([7], True, 8, None)


def test_an_exception_ends_the_program_and_is_kept():
    def fails() -> None:
        raise ValueError("no")

    def fails_too() -> None:
        raise KeyError("neither")

    bench = Bench()
    first, second = bench.run(fails, fails_too)
    assert isinstance(first.error, ValueError)
    assert isinstance(second.error, KeyError)
    assert first.is_finished
    assert first.result is None
    assert bench.errors == [first, second]


def test_errors_are_reported_in_the_order_of_time():
    def early() -> None:
        find_host().receive("bob", "alice", 0, timeout_s=1)

    def earlier() -> None:
        find_host().receive("bob", "alice", 1, timeout_s=0.5)

    bench = Bench()
    first, second = bench.run(early, earlier)
    assert bench.errors == [second, first]


def test_every_program_finds_its_own_host():
    def one() -> Any:
        return find_host()

    def two() -> Any:
        host = find_host()
        host.await_reply(host.submit(host.open_client(), OTHER_MESSAGE))
        return find_host()

    programs = Bench().run(one, two, one)
    assert [program.result for program in programs] == programs


def test_outside_a_program_there_is_no_host():
    with pytest.raises(ProgramError, match="inside a program"):
        find_host()
    with pytest.raises(LookupError):
        current_host.get()


def test_a_program_sees_its_machine():
    def looks() -> Any:
        host = find_host()
        return host.node_name, host.flavour, host.directory.get_node_id_for_app("bob")

    (program,) = Bench().run(looks)
    assert program.result == ("here", Flavour.NV, 0)


def test_names_that_do_not_exist_are_reported_with_those_that_do():
    directory = Bench().cnpu.directory
    with pytest.raises(ConfigurationError, match="unknown application 'eve'; known are: alice"):
        directory.get_node_name_for_app("eve")
    with pytest.raises(ConfigurationError, match="unknown node 'there'; known are: here"):
        directory._get_node_id("there")
    with pytest.raises(ConfigurationError, match="unknown node id 3"):
        directory._get_node_name(3)


# --- the QNPU -------------------------------------------------------------------------


def test_a_program_waits_for_replies_and_not_for_messages_it_sends():
    def program() -> list[int]:
        host, times = find_host(), []
        client = host.open_client()
        requests = [host.submit(client, OTHER_MESSAGE) for _ in range(3)]
        times.append(bench.clock.now_ns)
        for request in reversed(requests):
            assert host.await_reply(request).request == request
            times.append(bench.clock.now_ns)
        return times

    bench = Bench(reply_after_ns=5 * MS)
    (done,) = bench.run(program)
    assert done.result == [0, 5 * MS, 5 * MS, 5 * MS]
    assert [raw for _, _, raw in bench.qnpu.received] == [OTHER_MESSAGE] * 3


def test_only_subroutines_take_time_to_send_and_are_recorded():
    def program() -> None:
        host = find_host()
        client = host.open_client()
        for raw in (OTHER_MESSAGE, SUBROUTINE, SUBROUTINE):
            host.await_reply(host.submit(client, raw))

    bench = Bench(
        reply_after_ns=MS,
        start_to_submit=Delay(mean_ms=10),
        send_local=Delay(mean_ms=1),
        result=Delay(mean_ms=2),
        result_to_submit=Delay(mean_ms=20),
    )
    bench.run(program)
    assert [time for time, _, _ in bench.qnpu.received] == [0, 12 * MS, 36 * MS]
    assert bench.trace.events == [
        (11_000, Event.SUBROUTINE_SEND_ATTEMPT, 0, 0),
        (12_000, Event.SUBROUTINE_SENT, 0, 0),
        (15_000, Event.RESULT_RCVD, 0, 0),
        (35_000, Event.SUBROUTINE_SEND_ATTEMPT, 0, 1),
        (36_000, Event.SUBROUTINE_SENT, 0, 1),
        (39_000, Event.RESULT_RCVD, 0, 1),
    ]


@pytest.mark.parametrize(
    ("opcode", "fitted", "expected_ms"),
    [
        (0, Delay(mean_ms=5), 5),
        (CREATE_EPR_OPCODE, Delay(mean_ms=5), 20),
        (RECV_EPR_OPCODE, Delay(mean_ms=5), 20),
        (0, None, 20),
    ],
)
def test_a_subroutine_without_entanglement_may_take_another_time(opcode, fitted, expected_ms):
    def program() -> None:
        host = find_host()
        client = host.open_client()
        for raw in (SUBROUTINE, SUBROUTINE + bytes([opcode]) + bytes(6)):
            host.await_reply(host.submit(client, raw))

    bench = Bench(result_to_submit=Delay(mean_ms=20), result_to_local_submit=fitted)
    bench.run(program)
    assert [time for time, _, _ in bench.qnpu.received] == [0, expected_ms * MS]


def test_programs_build_local_subroutines_one_at_a_time():
    """Both have 2 ms of their own first; the second then waits for the first."""

    def program() -> None:
        host = find_host()
        client = host.open_client()
        for _ in range(2):
            host.await_reply(host.submit(client, SUBROUTINE))

    bench = Bench(result_to_local_submit=Delay(mean_ms=2), local_interpreter=Delay(mean_ms=5))
    bench.run(program, program)
    assert [time for time, _, _ in bench.qnpu.received] == [0, 0, 7 * MS, 12 * MS]


def test_a_program_that_sends_ahead_does_not_take_the_interpreter_before_its_time():
    def ahead() -> None:
        host = find_host()
        client = host.open_client()
        host.await_reply(host.submit(client, SUBROUTINE))
        for request in [host.submit(client, SUBROUTINE) for _ in range(2)]:
            host.await_reply(request)

    def late() -> None:
        host = find_host()
        client = host.open_client()
        host.await_reply(host.submit(client, SUBROUTINE))
        host.await_reply(host.submit(client, SUBROUTINE))

    bench = Bench(result_to_local_submit=Delay(mean_ms=2), local_interpreter=Delay(mean_ms=5))
    bench.run(ahead, late)
    # At 7 ms `ahead` goes on with 2 ms of its own, so the interpreter is free for `late`.
    assert [time for time, _, _ in bench.qnpu.received] == [0, 0, 7 * MS, 12 * MS, 17 * MS]


def test_a_reply_that_is_there_already_is_taken_without_waiting():
    def program() -> int:
        host = find_host()
        client = host.open_client()
        early = host.submit(client, OTHER_MESSAGE)
        with pytest.raises(RuntimeError):
            host.receive("bob", "alice", 0, timeout_s=0.01)
        host.await_reply(early)
        return bench.clock.now_ns

    bench = Bench(reply_after_ns=MS)
    assert bench.run(program)[0].result == 10 * MS


def test_a_program_that_waits_says_for_what():
    def waits(raw: bytes) -> None:
        host = find_host()
        host.await_reply(host.submit(host.open_client(), raw))

    bench = Bench(reply_after_ns=None)
    programs = [bench.start(waits, raw=raw) for raw in (OTHER_MESSAGE, SUBROUTINE)]
    bench.clock.run_while(lambda: True)
    assert [program.waiting_for for program in programs] == [
        "the QNPU's reply",
        "the result of subroutine 0",
    ]


def test_connections_are_closed_when_the_program_ends():
    def program() -> None:
        host = find_host()
        first, second, third = (host.open_client() for _ in range(3))
        host.close_client(second)
        host.await_reply(host.submit(first, OTHER_MESSAGE))
        assert third == 3
        raise ValueError

    bench = Bench(reply_after_ns=MS)
    bench.run(program)
    assert bench.qnpu.closed == [(0, 2), (MS, 1), (MS, 3)]


# --- being killed ---------------------------------------------------------------------


def test_a_killed_program_unwinds_and_closes_its_connections():
    log: list[str] = []

    def program() -> None:
        host = find_host()
        client = host.open_client()
        try:
            host.await_reply(host.submit(client, OTHER_MESSAGE))
        finally:
            log.append("unwinding")
            host.submit(client, OTHER_MESSAGE)
            host.await_reply(host.submit(client, OTHER_MESSAGE))
            log.append("waited")

    bench = Bench(reply_after_ns=None)
    started = bench.start(program)
    bench.clock.run_while(lambda: True)
    started.kill()
    assert log == ["unwinding"]
    assert started.is_finished
    assert started.error is None
    assert [client for _, client in bench.qnpu.closed] == [1]
    started.kill()  # once more does nothing
    bench.qnpu.callbacks[0](HostReply(1, 0))  # a reply for nobody
    bench.clock.run_while(lambda: True)
    assert len(bench.qnpu.received) == 1


def test_a_program_killed_before_it_started_never_starts():
    def program() -> None:
        raise AssertionError("it started")

    bench = Bench()
    started = bench.start(program)
    started.kill()
    bench.clock.run_while(lambda: True)
    assert started.error is None


def test_a_message_under_way_when_its_connection_closes_is_dropped():
    # It would register a program that has ended, for ever.
    def program() -> None:
        host = find_host()
        host.submit(host.open_client(), SUBROUTINE)

    bench = Bench(send_local=Delay(mean_ms=5))
    bench.run(program)
    assert bench.clock.now_ns == 5 * MS
    assert bench.qnpu.received == []
    assert bench.qnpu.closed == [(0, 1)]


# --- classical messages ---------------------------------------------------------------


def test_messages_take_their_time():
    def alice() -> None:
        host = find_host()
        host.send("alice", "bob", 0, "one")
        host.send("alice", "bob", 0, "two")

    def bob() -> list[tuple[str, int]]:
        host = find_host()
        return [(host.receive("alice", "bob", 0), bench.clock.now_ns) for _ in range(2)]

    bench = Bench(message_to_message=Delay(mean_ms=1), classical=Delay(mean_ms=5))
    _, second = bench.run(alice, bob)
    # The second had been sent when the first came, so taking it needs no wait: the program
    # runs ahead of the clock, and its trace has the time.
    assert [message for message, _ in second.result] == ["one", "two"]
    received = [time for time, event, _, _ in bench.trace.events if event is Event.CLAS_MSG_RCVD]
    assert received == [6_000, 7_000]


def test_looking_for_a_message_takes_a_little_time():
    def program() -> tuple[int, int]:
        looks = 0
        while True:
            try:
                find_host().receive("alice", "bob", 0, block=False)
            except RuntimeError:
                looks += 1
                assert looks < 1_000
            else:
                return looks, bench.clock.now_ns

    bench = Bench()
    bench.board.post(KEY, 35_000, "late")
    assert bench.run(program)[0].result == (3, 40_000)


def test_of_several_senders_the_message_that_arrives_first_is_first():
    """One that is sent later, but not so far, overtakes one that is under way."""

    def receiver() -> list[tuple[str, str, int]]:
        host = find_host()
        assert isinstance(host, AnyReceiver)
        taken = []
        for _ in range(2):
            source, message = host.receive_any(["alice", "bob"], "carol", 3)
            taken.append((source, message, bench.clock.now_ns))
        return taken

    bench = Bench()
    bench.board.post(("alice", "carol", 3), 9 * MS, "slow")
    bench.clock.call_at(2 * MS, bench.board.post, ("bob", "carol", 3), 5 * MS, "quick")
    [program] = bench.run(receiver)
    assert program.result == [("bob", "quick", 5 * MS), ("alice", "slow", 9 * MS)]


def test_waiting_for_several_senders_has_an_end():
    def receiver() -> int:
        host = find_host()
        assert isinstance(host, AnyReceiver)
        with pytest.raises(TimeoutError, match=r"alice or bob came within 0.004 s"):
            host.receive_any(["alice", "bob"], "carol", 3, timeout_s=0.004)
        return bench.clock.now_ns

    bench = Bench()
    bench.board.post(("alice", "carol", 3), 5 * MS, "late")
    [program] = bench.run(receiver)
    assert program.result == 4 * MS
    assert bench.board.take(("alice", "carol", 3)) == "late"


def test_the_board_tells_of_messages_when_they_are_sent_and_received():
    board, seen = MessageBoard(), []
    board.on_message = lambda *what: seen.append(what)
    board.post(KEY, 3, "x")
    board.take(KEY)
    assert seen == [(KEY, "x", True), (KEY, "x", False)]


def test_two_programs_cannot_wait_for_the_same_message():
    def program() -> Any:
        return find_host().receive("alice", "bob", 0)

    def sender() -> None:
        find_host().send("alice", "bob", 0, "for one of you")

    bench = Bench()
    first, second, _ = bench.run(program, program, sender)
    assert isinstance(second.error, LimitError)
    assert "distinct socket ids" in str(second.error)
    assert first.result == "for one of you"


def test_the_board_keeps_the_order_of_every_socket():
    board = MessageBoard()
    board.post(KEY, 10, "first")
    board.post(KEY, 5, "second")
    board.post(("alice", "bob", 1), 7, "other")
    assert board.peek(KEY) == 10
    assert board.take(KEY) == "first"
    assert board.peek(KEY) == 10  # never before the one sent before it
    assert board.take(KEY) == "second"
    assert board.peek(KEY) is None
    assert board.peek(("alice", "bob", 1)) == 7


def test_the_board_keeps_a_bounded_number_of_messages(monkeypatch):
    monkeypatch.setattr(message_board, "MESSAGES_MAX", 3)
    board = MessageBoard()
    for number in range(3):
        board.post(KEY, 0, number)
    board.post(("alice", "bob", 1), 0, "elsewhere")
    with pytest.raises(LimitError, match="3 messages from alice to bob on socket 0 have not been"):
        board.post(KEY, 0, 3)
    assert board.take(KEY) == 0
    board.post(KEY, 0, 3)
    assert [board.take(KEY) for _ in range(3)] == [1, 2, 3]


def test_the_board_wakes_whoever_waits_once():
    board = MessageBoard()
    woken: list[int] = []
    board.wait(KEY, woken.append)
    board.post(KEY, 3, "first")
    board.post(KEY, 4, "second")
    assert woken == [3]
    board.take(KEY)
    board.take(KEY)
    board.wait(KEY, woken.append)
    board.stop_waiting(KEY)
    board.post(KEY, 5, "third")
    assert woken == [3]


def test_a_cleared_board_has_forgotten_everything():
    board = MessageBoard()
    woken: list[int] = []
    board.post(KEY, 100, "old")
    board.wait(("bob", "alice", 0), woken.append)
    board.clear()
    board.post(("bob", "alice", 0), 5, "new")
    board.post(KEY, 6, "new")
    assert woken == []
    assert (board.peek(KEY), board.take(KEY)) == (6, "new")
