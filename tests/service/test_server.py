"""The API server: what a well-behaved client can do."""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import Any

import pytest

from qnodeos.api.framing import frame
from qnodeos.api.host import HostReply
from qnodeos.api.host_wire import (
    PROTOCOL_VERSION,
    Cancel,
    GetStatistics,
    Hello,
    ListProcesses,
    Netqasm,
    Ping,
    Pong,
    ProcessList,
    Register,
    Statistics,
    Subscribe,
    TraceEvents,
    encode,
)
from qnodeos.engine.interface import EngineEvent, SkippedSlots
from qnodeos.qnpu.scheduler import POLICIES
from qnodeos.trace import Event
from tests.service.service_bench import (
    COMPUTE,
    ENDLESS,
    MEASURE_ONE,
    ManualEngine,
    benches,
    nv,
    nv_device,
)
from tests.unit.kernel_programs import init_app, stop_app
from tests.unit.kernel_programs import register as register_code


@pytest.fixture
def make():
    yield from benches()


@pytest.mark.parametrize("tcp", [False, True])
def test_a_program_runs(make, tcp):
    bench = make()
    client = bench.client(tcp=tcp)
    assert client.ask(init_app(7)).error is None
    for serial in range(3):
        reply = client.run(MEASURE_ONE, 7)
        assert reply.error is None
        assert reply.results == ((register_code("M0"), 1),)
        assert reply.serial == serial
    assert client.ask(stop_app(7)).error is None
    client.close()
    bench.check_clean()


def test_a_spinning_service_does_the_same(make):
    bench = make(engine=ManualEngine(nv_device(), "spinning"))
    client = bench.client()
    client.register()
    assert client.run(MEASURE_ONE).error is None
    assert client.run(COMPUTE).error is None  # takes several ticks


@pytest.mark.parametrize("name", POLICIES)
def test_programs_run_whatever_the_scheduler(make, name):
    bench = make(fields={"scheduler": name})
    assert bench.kernel.scheduler.policy.name == name
    client = bench.client()
    for app_id in range(4):
        client.register(app_id)
    requests = [client.request(nv(app_id, COMPUTE)) for app_id in range(4)]
    assert all(client.reply(each).error is None for each in requests)
    assert client.run(MEASURE_ONE, 2).error is None
    assert bench.service.statistics()["service"]["scheduler"] == name


def test_between_events_it_sleeps_until_the_kernel_is_due(make):
    """An event-paced service that is turned only when a descriptor of the engine is readable."""
    bench = make()
    client = bench.client()
    client.register()
    number = client.request(nv(0, MEASURE_ONE + COMPUTE))
    bench.turn()
    turns = 0
    poll = select.poll()
    for fd in bench.engine.filenos():
        poll.register(fd, select.POLLIN)
    for _ in range(500):
        bench.engine.advance()
        if poll.poll(0):
            bench.service.turn(0)
            turns += 1
    client.read()
    assert client.find(number) is not None
    assert 5 < turns < 20  # outcomes, and ticks of computing
    assert bench.engine.wake_tick is None


def test_the_welcome_says_what_a_program_must_know(make):
    bench = make(programs_per_client=3, idle_ms=1_500)
    welcome = bench.connect().greet("me")
    assert welcome.version == PROTOCOL_VERSION
    assert (welcome.node_name, welcome.node_id, welcome.incarnation) == ("client", 0, 5)
    assert welcome.flavour == "nv"
    assert welcome.device.communication_qubits == (0,)
    assert welcome.device.tick_ns == 10_000
    assert welcome.limits["programs_per_client"] == 3
    assert welcome.limits["connections"] == 64
    assert welcome.idle_timeout_s == 1.5


def test_an_empty_subroutine_is_answered_in_the_turn_that_takes_it(make):
    bench = make()
    client = bench.client()
    client.register()
    before = bench.service.statistics()["service"]["turns"]
    client.request(nv(0, ""))
    bench.turn(0)
    assert client.messages
    assert bench.service.statistics()["service"]["turns"] == before + 1


def test_an_error_names_subroutine_and_instruction(make):
    client = make().client()
    client.register()
    reply = client.run("set Q0 0\nmeas Q0 M0")
    assert reply.error is not None
    assert reply.error.kind == "QubitAccessError"
    assert (reply.error.subroutine, reply.error.pc) == (0, 1)


def test_priorities_are_kept(make):
    bench = make()
    client = bench.client()
    client.register(0, priority=1)
    client.register(1, priority=9)
    low, high = client.request(nv(0, MEASURE_ONE)), client.request(nv(1, MEASURE_ONE))
    bench.until(lambda: len(client.messages) == 2)
    assert [message.request for message in client.messages] == [high, low]


def test_a_subroutine_can_be_withdrawn(make):
    bench = make()
    client = bench.client()
    client.register(0)
    endless, waiting = client.request(nv(0, ENDLESS)), client.request(nv(0, MEASURE_ONE))
    bench.turns(3)
    client.send(Cancel(100, endless), Cancel(101, 77))
    assert client.reply(endless).error.kind == "CancelledError"
    assert client.reply(100).error is None
    assert client.reply(101).error.kind == "UnknownSubroutineError"
    assert client.reply(waiting).error is None


def test_a_connection_owns_its_programs(make):
    bench = make()
    leaver, stayer = bench.client(), bench.client()
    leaver.register(0)
    assert leaver.run("set Q0 0\nqalloc Q0\ninit Q0").error is None
    stayer.register(0)
    waiting = stayer.request(nv(0, MEASURE_ONE))
    bench.turns(20)
    assert bench.kernel.qmmu.free_qubits() == []
    leaver.close()
    assert stayer.reply(waiting).error is None  # the qubit is free again
    stayer.close()
    bench.check_clean()


def test_a_connection_that_ends_in_mid_instruction_leaves_nothing(make):
    bench = make()
    client = bench.client()
    client.register(0)
    client.request(nv(0, MEASURE_ONE))
    bench.until(lambda: bench.engine.submitted)
    client.close()
    bench.turns(200)
    bench.check_clean()
    assert bench.engine.idle


def test_numbers_of_connections_are_not_used_again(make):
    bench = make()
    first, second = bench.client(), bench.client()
    first.register(3)
    second.register(3)
    second.send(ListProcesses(0))
    [_, one, two] = second.take(ProcessList).processes
    first.close()
    bench.turns(3)
    third = bench.client()
    third.register(3)
    third.send(ListProcesses(1))
    numbers = [info.client for info in third.take(ProcessList).processes[1:]]
    assert numbers == [two.client, max(one.client, two.client) + 1]


def test_processes_are_listed(make):
    bench = make()
    client = bench.client()
    client.register(4, priority=3)
    assert client.run("set Q0 0\nqalloc Q0\ninit Q0", 4).error is None
    client.send(ListProcesses(9))
    answer = client.take(ProcessList)
    assert answer.request == 9
    [network, info] = answer.processes
    assert network.pid == 0
    assert (info.app_id, info.state, info.priority, info.qubits) == (4, "idle", 3, (0,))
    assert (network.client_name, info.client_name) == ("", "test")


def test_only_operators_see_the_programs_of_others(make):
    bench = make()
    operator, stranger = bench.client(), bench.client(tcp=True)
    operator.register(1)
    stranger.register(2)
    stranger.send(ListProcesses(5))
    assert [info.app_id for info in stranger.take(ProcessList).processes] == [2]
    operator.send(ListProcesses(5))
    assert [info.app_id for info in operator.take(ProcessList).processes] == [-1, 1, 2]
    stranger.send(Subscribe(6, True))
    assert stranger.reply(6).error.kind == "LimitError"


def test_statistics_are_grouped(make):
    client = make().client()
    client.register()
    assert client.run(MEASURE_ONE).error is None
    client.send(GetStatistics(8))
    answer = client.take(Statistics)
    assert answer.request == 8
    assert set(answer.groups) == {"service", "engine", "kernel", "realtime", "limits"}
    assert answer.groups["kernel"]["subroutines_done"] == 1
    assert answer.groups["service"]["connections"] == 1
    assert answer.groups["engine"]["lateness_ns"]["p50"] == 0
    assert answer.groups["limits"]["connections"] == 64


def test_the_latest_skips_are_told(make):
    """All are taken from the engine, so that it always has room; sixteen are kept."""
    bench = make()
    client = bench.client()
    for tick in range(20):
        bench.engine.skips.append(SkippedSlots(tick, 3))
    bench.pass_ms(100)
    assert not bench.engine.skips
    client.send(GetStatistics(8))
    told = client.take(Statistics).groups["engine"]["latest_skips"]
    assert told == [[tick, 3] for tick in range(4, 20)]
    bench.engine.skips.append(SkippedSlots(77, 1))
    bench.pass_ms(100)
    assert bench.service.statistics()["engine"]["latest_skips"][-2:] == [[19, 3], [77, 1]]


def test_commands_are_traced_with_the_tick_at_which_they_went_out(make, monkeypatch):
    bench = make()
    events: list[EngineEvent] = []
    poll = bench.engine.poll

    def poll_and_remember() -> EngineEvent | None:
        event: EngineEvent | None = poll()
        if event is not None:
            events.append(event)
        return event

    monkeypatch.setattr(bench.engine, "poll", poll_and_remember)
    trace = bench.service.trace
    client = bench.client()
    client.register()
    number = client.request(nv(0, MEASURE_ONE))
    bench.until(lambda: bench.engine.submitted)
    assert not trace.times(Event.QDEVICE_CONSUME_CMD).size
    assert client.reply(number).error is None
    # One that never goes out, because nobody is there any more.
    bench.engine.kill_device()
    client.register(1)
    assert client.run(MEASURE_ONE, 1).error.kind == "DeviceFailureError"
    assert events[-1].command_tick == events[-1].tick
    commands = trace.times(Event.QDEVICE_CONSUME_CMD).tolist()
    outcomes = trace.times(Event.QDEVICE_PRODUCE_OUTCOME).tolist()
    assert commands == [event.command_tick for event in events]
    assert outcomes == [event.tick for event in events]
    assert len(commands) == len(bench.engine.submitted)


def test_trace_events_are_streamed(make):
    bench = make()
    client = bench.client()
    client.register()
    assert client.run("").error is None
    client.send(Subscribe(50, True))
    assert client.reply(50).error is None
    assert client.run("").error is None
    bench.pass_ms(50)
    message = client.take(TraceEvents)
    assert message.dropped == 0
    assert (message.epoch_ns, message.tick_ns) == (77, 10_000)
    kinds = [event for _, event, _, _ in message.events]
    assert kinds[0] == Event.PROCMGR_SUBROUTINE_ADDED
    assert kinds.count(Event.PROCMGR_SUBROUTINE_DONE) == 1  # that of the second only
    client.send(Subscribe(51, False))
    assert client.reply(51).error is None
    assert client.run("").error is None
    bench.pass_ms(50)
    assert not client.messages


def test_a_stream_may_begin_in_the_past(make):
    bench = make()
    client = bench.client()
    client.register()
    for _ in range(3):
        assert client.run("").error is None
    client.send(Subscribe(50, True, 2))
    assert client.reply(50).error is None
    bench.pass_ms(50)
    message = client.take(TraceEvents)
    assert message.dropped == 0
    assert [event for _, event, _, _ in message.events] == [
        Event.PROCESSOR_FINISH_USER_PROCESS,
        Event.PROCMGR_SUBROUTINE_DONE,
    ]


def test_a_ping_is_answered(make):
    client = make().client()
    client.send(Ping(3), Ping(3))
    assert client.take(Pong).nonce == 3
    assert client.take(Pong).nonce == 3


def test_what_a_lost_neighbour_brings_about_is_said_at_once(make):
    """Sending to it may end the connection, and with it requests of programs."""
    bench = make()
    client = bench.client()
    client.register()

    class Peers:
        def send(self, messages: Any) -> None:
            bench.kernel.host_outbox.append(HostReply(client=99, request=0))

        def close(self) -> None:
            pass

    bench.service.peers = Peers()
    bench.kernel.peer_outbox.append((1, "a message"))
    bench.turns(2)
    client.send(Ping(0))
    bench.turns(2)
    assert not bench.kernel.peer_outbox
    assert not bench.kernel.host_outbox


def test_many_messages_in_one_piece_are_all_answered_in_order(make):
    client = make(messages_per_turn=2).client()
    client.send(*(Ping(number) for number in range(50)))
    assert [client.take(Pong).nonce for _ in range(50)] == list(range(50))


def test_a_message_in_pieces_is_put_together(make):
    bench = make()
    client = bench.client()
    for byte in frame(encode(Ping(12))):
        client.send_bytes(bytes([byte]))
        bench.turn()
    assert client.take(Pong).nonce == 12


def test_the_end_of_the_service_is_told(make):
    bench = make()
    client, stranger = bench.client(), bench.connect()
    client.register()
    client.request(nv(0, ENDLESS))
    bench.turns(2)
    bench.service.close()
    for peer in (client, stranger):
        peer.read()
        assert peer.messages[-1].kind == "ConnectionLostError"
        assert peer.is_over
    assert bench.engine.is_closed


def test_the_supervisor_hears_of_the_device_and_of_every_second_that_was_turned(make):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        name = f"\0qnodeos-test-{os.getpid()}"
        supervisor.bind(name)
        supervisor.setblocking(False)

        def heard() -> list[bytes]:
            lines = []
            with suppress(BlockingIOError):
                while True:
                    lines.append(supervisor.recv(4_096))
            return lines

        bench = make(supervisor="@" + name[1:], device=False)
        assert heard() == [b"STATUS=no device: there is no channel", b"WATCHDOG=1"]
        bench.clock_ns += 10_000_000_000  # nobody turns
        assert heard() == []
        bench.has_device = True
        bench.turn()
        assert heard() == [b"STATUS=device attached, event-paced over loopback", b"WATCHDOG=1"]
        for _ in range(8):
            bench.pass_ms(125)
        assert heard() == [b"WATCHDOG=1"] * 4


def test_a_stall_of_50_ms_loses_nothing(make):
    bench = make()
    client = bench.client()
    client.register()
    number = client.request(nv(0, MEASURE_ONE))
    while client.find(number) is None:
        bench.engine.advance(5_000)
        bench.turn()
    assert client.reply(number).results == ((register_code("M0"), 1),)


def test_the_unix_socket_is_removed_at_the_end(make):
    bench = make()
    path = bench.service.server.addresses[0].path
    assert os.path.exists(path)
    bench.service.close()
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([Ping(1)], "must be Hello"),
        ([Netqasm(1, b"")], "must be Hello"),
        ([Hello(99, "new")], "version 99"),
        ([Hello(PROTOCOL_VERSION, "a"), Hello(PROTOCOL_VERSION, "a")], "second Hello"),
        (
            [
                Hello(PROTOCOL_VERSION, "a"),
                Register(1, 0, 1, 0),
                Netqasm(2, nv(0, ENDLESS)),
                Netqasm(2, nv(0, "")),
            ],
            "request 2 is still open",
        ),
    ],
)
def test_what_makes_no_sense_ends_the_connection(make, messages, words):
    bench = make()
    peer = bench.connect()
    peer.send(*messages)
    refusal = peer.refusal()
    assert refusal.kind == "MalformedMessageError"
    assert words in refusal.text
    peer.close()
    bench.check_clean()


# --- the device -------------------------------------------------------------------------


def test_without_a_device_it_waits_and_says_so(make):
    bench = make(device=False)
    assert bench.said == ["no device: there is no channel"]
    client = bench.client()
    error = client.ask(init_app(0)).error
    assert error is not None
    assert error.kind == "DeviceFailureError"
    assert "no device" in error.text
    client.send(ListProcesses(70), Register(71, 0, 1, 0), Cancel(72, 3))
    assert client.take(ProcessList).processes == ()
    assert client.reply(71).error.kind == "DeviceFailureError"
    assert client.reply(72).error.kind == "DeviceFailureError"
    bench.pass_ms(250)
    assert len(bench.said) == 1  # nothing has changed

    bench.has_device = True
    bench.pass_ms(250)
    assert "attached" in bench.said[-1]
    client.register()
    assert client.run(MEASURE_ONE).error is None


def test_a_device_that_dies_fails_the_program_and_may_come_back(make):
    bench = make()
    client = bench.client()
    client.register(0)
    waiting = client.request(nv(0, MEASURE_ONE))
    bench.until(lambda: bench.engine.submitted)
    bench.engine.kill_device()
    error = client.reply(waiting).error
    assert error is not None
    assert error.kind == "DeviceFailureError"
    bench.pass_ms(600)
    assert "gone" in bench.said[-1]

    client.register(1)
    assert client.run(MEASURE_ONE, 1).error.kind == "DeviceFailureError"

    bench.engine.revive_device(nv_device())
    bench.pass_ms(600)
    assert "attached" in bench.said[-1]
    client.register(2)
    assert client.run(MEASURE_ONE, 2).error is None
    client.close()
    bench.check_clean()
