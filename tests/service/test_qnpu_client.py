"""The blocking client of the QNPU API, against a service in a thread."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnodeos.api.framing import frame
from qnodeos.api.host import RegisterResult
from qnodeos.api.host_wire import (
    Cancel,
    Failure,
    GetStatistics,
    Hello,
    ListProcesses,
    Message,
    Netqasm,
    Ping,
    Pong,
    Refused,
    Register,
    Reply,
    Subscribe,
    TraceEvents,
    encode,
)
from qnodeos.cnpu import qnpu_client
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.errors import (
    ConfigurationError,
    LimitError,
    QnpuRefusedError,
    QnpuUnavailableError,
    SubroutineFailedError,
)
from qnodeos.transport import Address, BlockingStream
from tests.service.fake_qnpu import DEADLINE_S, FakeQnpu
from tests.unit.kernel_programs import init_app, submit

INIT = init_app(0)
RETURNS_FIVE = submit(0, "set R0 5\nret_reg R0")
FAILS = submit(0, "jmp 1000")
EVENTS = TraceEvents(0, 7, 10_000, ((1, 2, 3, 4),))


def connect(qnpu: FakeQnpu, **options) -> QnpuClient:
    return QnpuClient.connect(qnpu.address, name="test", timeout_s=DEADLINE_S, **options)


# --- what it is for -------------------------------------------------------------------


def test_a_subroutine_and_its_result():
    with FakeQnpu() as qnpu, connect(qnpu) as client:
        assert client.welcome.node_name == "here"
        assert client.await_reply(client.submit(INIT)).error is None
        reply = client.await_reply(client.submit(RETURNS_FIVE))
        assert reply.error is None
        assert reply.results == (RegisterResult(0, 5),)
        assert reply.serial == 0
        assert qnpu.messages(Hello) == [Hello(1, "test")]


def test_an_error_of_the_qnpu_is_part_of_the_reply():
    with FakeQnpu() as qnpu, connect(qnpu) as client:
        client.await_reply(client.submit(INIT))
        error = client.await_reply(client.submit(FAILS)).error
        assert error is not None
        assert error.kind == "MalformedSubroutineError"


def test_replies_are_matched_whatever_their_order():
    waiting = []

    def before(client, message):
        if isinstance(message, Netqasm):
            waiting.append(message.request)
            return [Reply(r, ((0, r),)) for r in reversed(waiting)] if len(waiting) == 3 else []
        return None

    with FakeQnpu(before=before) as qnpu, connect(qnpu) as client:
        requests = [client.submit(b"x") for _ in range(3)]
        replies = [client.await_reply(request) for request in requests]
        assert [reply.request for reply in replies] == requests
        assert [reply.results for reply in replies] == [(RegisterResult(0, r),) for r in requests]


def test_a_reply_that_is_late_can_be_awaited_again():
    answers: list[Message] = []

    def before(client, message):
        return (
            []
            if isinstance(message, Netqasm)
            else [*answers, Pong(message.nonce)]
            if isinstance(message, Ping)
            else None
        )

    with FakeQnpu(before=before) as qnpu, connect(qnpu) as client:
        request = client.submit(b"x")
        with pytest.raises(TimeoutError):
            client.await_reply(request, 0.0)
        answers.append(Reply(request))
        client.ping()
        assert client.await_reply(request).request == request


def test_questions():
    with FakeQnpu() as qnpu, connect(qnpu) as client:
        client.await_reply(client.submit(INIT))
        (process,) = client.processes()
        assert (process.client, process.app_id, process.state) == (0, 0, "IDLE")
        assert client.statistics() == {"kernel": {"processes": 1}}
        assert 0 <= client.ping() < DEADLINE_S
        client.cancel(7)
        assert qnpu.messages(Cancel)[0].target == 7
        assert client.await_reply(client.register(3, 1, 5)).error is None
        assert qnpu.messages(Register)[0].priority == 5
        assert (len(qnpu.messages(ListProcesses)), len(qnpu.messages(GetStatistics))) == (1, 1)


def test_a_question_that_fails_says_why():
    def before(client, message):
        if isinstance(message, Cancel | ListProcesses):
            failure = Failure(0, "UnknownSubroutineError", "no such thing")
            return [Reply(message.request, error=failure)]
        return None

    with FakeQnpu(before=before) as qnpu, connect(qnpu) as client:
        with pytest.raises(SubroutineFailedError, match="no such thing"):
            client.cancel(3)
        with pytest.raises(SubroutineFailedError, match="no such thing") as caught:
            client.processes()
        assert caught.value.kind == "UnknownSubroutineError"


def test_events_are_streamed_between_other_messages():
    def before(client, message):
        if isinstance(message, Subscribe):
            return [EVENTS, Reply(message.request), EVENTS]
        return None

    with FakeQnpu(before=before) as qnpu, connect(qnpu) as client:
        client.subscribe()
        assert client.events(DEADLINE_S) == EVENTS
        assert client.events(DEADLINE_S) == EVENTS
        assert client.events(0.0) is None


def test_events_nobody_takes_are_dropped_and_counted(monkeypatch):
    monkeypatch.setattr(qnpu_client, "KEPT_EVENTS_MAX", 2)

    def before(client, message):
        return [EVENTS] * 5 + [Reply(message.request)] if isinstance(message, Subscribe) else None

    with FakeQnpu(before=before) as qnpu, connect(qnpu) as client:
        client.subscribe()
        first = client.events(DEADLINE_S)
        assert first is not None
        assert first.dropped == 3
        assert client.events(DEADLINE_S) == EVENTS
        assert client.events(0.0) is None


# --- life and end ---------------------------------------------------------------------


def test_a_silent_client_keeps_its_connection():
    with FakeQnpu(idle_timeout_s=0.0) as qnpu, connect(qnpu) as client:
        client._last_sent_s -= DEADLINE_S
        client.keep_alive()
        qnpu.wait_for(lambda qnpu: len(qnpu.messages(Ping)) == 1)
        client.keep_alive()  # it has just said something
        assert client.ping() >= 0
        assert len(qnpu.messages(Ping)) == 2


def test_who_waits_for_events_again_and_again_keeps_its_connection():
    with FakeQnpu() as qnpu, connect(qnpu) as client:
        assert client.events(0.0) is None
        assert not qnpu.messages(Ping)
        client._last_sent_s -= DEADLINE_S
        assert client.events(0.0) is None
        assert client.events(0.0) is None
        assert client.ping() >= 0
        assert len(qnpu.messages(Ping)) == 2


def test_a_connection_that_was_kept_alive_for_long_can_still_be_pinged():
    def before(client, message):
        kept_alive = [Pong(2_000_000 + number) for number in range(5_000)]
        return [*kept_alive, Pong(message.nonce)] if isinstance(message, Ping) else None

    with FakeQnpu(before=before) as qnpu, connect(qnpu) as client:
        assert client.ping() >= 0
        assert client.ping() >= 0


def test_keeping_alive_what_is_gone_leaves_the_error_to_the_program():
    with FakeQnpu() as qnpu:
        client = connect(qnpu)
        qnpu.stop()
        client._last_sent_s -= DEADLINE_S
        client.keep_alive()
        client.keep_alive()
        with pytest.raises(QnpuUnavailableError):
            client.ping()
        client.keep_alive()


def test_a_silent_qnpu_is_pinged_and_then_given_up():
    def before(client, message):
        return None if isinstance(message, Hello) else []

    with FakeQnpu(before=before, idle_timeout_s=0.0) as qnpu, connect(qnpu) as client:
        request = client.submit(b"x")
        with pytest.raises(QnpuUnavailableError, match="no sign of life"):
            client.await_reply(request)
        assert qnpu.messages(Ping)


def test_a_qnpu_that_dies_ends_the_wait():
    def before(client, message):
        return b"" if isinstance(message, Netqasm) else None

    with FakeQnpu(before=before) as qnpu, connect(qnpu) as client:
        request = client.submit(b"x")
        with pytest.raises(QnpuUnavailableError, match="ended"):
            client.await_reply(request)
        with pytest.raises(QnpuUnavailableError, match="closed"):
            client.submit(b"x")


def test_shutting_down_ends_the_wait_of_another_thread():
    def before(client, message):
        return [] if isinstance(message, Netqasm) else None

    errors = []
    with FakeQnpu(before=before) as qnpu, connect(qnpu) as client:

        def wait() -> None:
            try:
                client.await_reply(client.submit(b"x"))
            except QnpuUnavailableError as error:
                errors.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        qnpu.wait_for(lambda qnpu: bool(qnpu.messages(Netqasm)))
        client.shut_down()
        thread.join(DEADLINE_S)
        assert len(errors) == 1


def test_the_programs_of_a_closed_connection_end():
    with FakeQnpu() as qnpu:
        with connect(qnpu) as client:
            client.await_reply(client.submit(INIT))
        client.close()
        qnpu.wait_for(lambda qnpu: qnpu.closed == [0])
        assert not qnpu.node.kernel.processes


# --- what must not be believed --------------------------------------------------------


def test_nobody_there():
    with FakeQnpu() as qnpu:
        address = qnpu.address
    with pytest.raises(QnpuUnavailableError, match="qnodeos serve"):
        QnpuClient.connect(address)


def test_an_address_that_leaves_the_machine_needs_tls():
    with pytest.raises(ConfigurationError, match="TLS"):
        QnpuClient.connect(Address(host="192.0.2.1", port=1))


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        ([Refused("LimitError", "too many connections")], QnpuRefusedError, "too many"),
        ([Pong(1)], QnpuUnavailableError, "Pong"),
        (frame(b"rubbish"), QnpuUnavailableError, "welcome"),
        (b"\xff\xff\xff\xff", QnpuUnavailableError, "announces"),
        (b"", QnpuUnavailableError, "welcome"),
    ],
)
def test_a_wrong_welcome(answer, error, text):
    with FakeQnpu(before=lambda client, message: answer) as qnpu, pytest.raises(error, match=text):
        connect(qnpu)


def test_another_version_of_the_protocol():
    with (
        FakeQnpu(before=lambda client, message: [qnpu.welcome(version=99)]) as qnpu,
        pytest.raises(QnpuUnavailableError, match="version 99"),
    ):
        connect(qnpu)


def test_no_welcome_at_all():
    with (
        FakeQnpu(before=lambda client, message: []) as qnpu,
        pytest.raises(QnpuUnavailableError, match="did not answer"),
    ):
        QnpuClient(BlockingStream.connect(qnpu.address, None, timeout_s=DEADLINE_S), timeout_s=0.0)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (frame(b"rubbish"), "not a message"),
        (b"\xff\xff\xff\xff", "announces"),
        (frame(encode(Reply(12345))), "12345"),
        (frame(encode(Refused("SlowReaderError", "read faster"))), "read faster"),
    ],
)
def test_a_wrong_answer_ends_the_connection(answer, text):
    def before(client, message):
        return None if isinstance(message, Hello) else answer

    with FakeQnpu(before=before) as qnpu, connect(qnpu) as client:
        request = client.submit(b"x")
        with pytest.raises(QnpuUnavailableError, match=text):
            client.await_reply(request)
        with pytest.raises(QnpuUnavailableError, match="closed"):
            client.ping()


def test_an_answer_of_the_wrong_kind():
    def before(client, message):
        if isinstance(message, Netqasm):
            return [qnpu._known(GetStatistics(message.request))]
        if isinstance(message, GetStatistics):
            return [Reply(message.request)]
        return None

    with FakeQnpu(before=before) as qnpu:
        with connect(qnpu) as client, pytest.raises(SubroutineFailedError, match="Reply"):
            client.statistics()
        with connect(qnpu) as client, pytest.raises(QnpuUnavailableError, match="Statistics"):
            client.await_reply(client.submit(b"x"))


@settings(max_examples=20, deadline=None)
@given(garbage=st.binary(min_size=1, max_size=64))
def test_garbage_is_never_more_than_an_error(garbage):
    def before(client, message):
        return (
            garbage if isinstance(message, Netqasm) else b"" if isinstance(message, Ping) else None
        )

    with FakeQnpu(before=before, idle_timeout_s=0.0) as qnpu, connect(qnpu) as client:
        request = client.submit(b"x")
        with pytest.raises(QnpuUnavailableError):
            client.await_reply(request)


def test_requests_are_bounded(monkeypatch):
    monkeypatch.setattr(qnpu_client, "OPEN_REQUESTS_MAX", 2)

    def before(client, message):
        return None if isinstance(message, Hello) else []

    with FakeQnpu(before=before) as qnpu, connect(qnpu) as client:
        client.submit(b"x")
        client.submit(b"x")
        with pytest.raises(LimitError, match="2 requests"):
            client.submit(b"x")
