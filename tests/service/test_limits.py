"""Every bound of the API server: what happens at it, and that it is counted."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from itertools import count

import pytest

from qnodeos.api.framing import frame
from qnodeos.api.host_wire import (
    PROTOCOL_VERSION,
    GetStatistics,
    Hello,
    Netqasm,
    Ping,
    Pong,
    Refused,
    Register,
    Statistics,
    Subscribe,
    TraceEvents,
    Welcome,
    encode,
)
from qnodeos.service import clients
from tests.service.service_bench import (
    ENDLESS,
    MEASURE_ONE,
    benches,
    nv,
)
from tests.unit.kernel_programs import init_app, stop_app


@pytest.fixture
def make():
    yield from benches()


def counters(bench):
    return bench.service.server.counters


def test_connections(make):
    bench = make(connections=2)
    first, second = bench.client(), bench.client(tcp=True)
    third = bench.connect()
    third.send(Hello(PROTOCOL_VERSION, "late"))
    refusal = third.refusal()
    assert refusal.kind == "LimitError"
    assert "connections=2" in refusal.text
    assert counters(bench).refused_connections == 1
    first.close()
    bench.turns(2)
    bench.client()
    assert counters(bench).refused_connections == 1
    second.close()


@pytest.fixture
def users(monkeypatch):
    """The users of the next connections on the Unix socket; the operator if there is none."""
    coming: list[int] = []
    user_of = clients.user_of

    def next_user(connection: socket.socket) -> int | None:
        known = user_of(connection)
        return known if known is None or not coming else coming.pop(0)

    monkeypatch.setattr(clients, "user_of", next_user)
    return coming


STRANGER, OTHER = 4_000_001, 4_000_002


def test_operators_get_in_when_all_places_are_taken(make, users):
    bench = make(connections=2, reserved_connections=1)
    users += [STRANGER, OTHER, STRANGER]
    bench.client()
    bench.client()
    assert "connections=2" in bench.connect().refusal().text
    assert bench.connect(tcp=True).refusal().kind == "LimitError"
    operator = bench.client()
    operator.send(GetStatistics(1))
    assert operator.take(Statistics).groups["service"]["connections"] == 3
    assert "connections=2" in bench.connect().refusal().text  # also those have an end
    assert counters(bench).refused_connections == 3


def test_connections_of_a_user(make, users):
    bench = make(connections=5, connections_per_user=2)
    users += [STRANGER] * 3
    first = bench.client()
    bench.client()
    refusal = bench.connect().refusal()
    assert refusal.kind == "LimitError"
    assert f"connections_per_user=2 of user {STRANGER}" in refusal.text
    users.append(OTHER)
    bench.client()
    assert bench.client(tcp=True)
    first.close()
    bench.turns(2)
    users.append(STRANGER)
    bench.client()
    assert counters(bench).refused_connections == 1


def test_programs_of_a_user(make, users):
    bench = make(processes=8, processes_per_user=3)
    users += [STRANGER, STRANGER, OTHER]
    first, second, other = bench.client(), bench.client(), bench.client()
    first.register(0)
    first.register(1)
    second.register(0)
    refusal = second.ask(init_app(1)).error
    assert refusal.kind == "LimitError"
    assert f"processes_per_user=3 programs of user {STRANGER}" in refusal.text
    first.send(Register(50, 2, 1, 0))
    assert "processes_per_user=3" in first.reply(50).error.text
    assert counters(bench).refused_requests == 2
    other.register(0)
    on_tcp = [bench.client(tcp=True) for _ in range(2)]
    on_tcp[0].register(0)
    on_tcp[0].register(1)
    on_tcp[1].register(0)
    assert "on TCP" in on_tcp[1].ask(init_app(1)).error.text
    bench.client().register(0)  # the operator
    second.close()
    bench.turns(3)
    assert first.ask(init_app(2)).error is None


def test_a_connection_too_many_is_told_at_once(make):
    bench = make(connections=1)
    client = bench.client()
    assert bench.connect(tcp=True).refusal().kind == "LimitError"  # without a word of its own
    client.send(Ping(1))
    assert client.take(Pong)


def test_one_that_introduces_itself_when_all_places_have_gone(make):
    bench = make(connections=1)
    late = bench.connect()
    bench.turn()
    client = bench.client()
    late.send(Hello(PROTOCOL_VERSION, "late"))
    assert late.refusal().kind == "LimitError"
    assert not client.is_over


def test_the_newest_handshake_replaces_the_oldest(make):
    bench = make(handshakes=3)
    idle = [bench.connect() for _ in range(5)]
    bench.turns(2)
    assert [peer.is_over for peer in idle] == [True, True, False, False, False]
    assert counters(bench).evicted_handshakes == 2
    assert idle[-1].greet()


def test_time_for_the_handshake(make):
    bench = make(handshake_ms=1_000)
    peer = bench.connect()
    bench.turn()
    bench.pass_ms(900)
    assert not peer.is_over
    bench.pass_ms(400)
    assert "handshake_ms=1000" in peer.refusal().text
    assert counters(bench).timed_out_handshakes == 1


def test_one_that_will_not_leave_is_put_out(make):
    bench = make(connections=1, handshake_ms=400)
    bench.client()
    peer = bench.connect()
    assert peer.refusal()
    assert bench.service.server.open_sockets == 2  # it has not hung up
    bench.pass_ms(1_500)
    assert bench.service.server.open_sockets == 1


def test_what_one_that_is_refused_goes_on_to_say_is_not_kept(make):
    bench = make()
    peer = bench.connect()
    peer.send_bytes(b"\xff" * 4)
    bench.until(lambda: bool(peer.messages))
    (client,) = bench.service.server._others.values()
    received = client.stream.received_bytes
    peer.send_bytes(struct.pack("<I", 1_000) + bytes(900))
    bench.turns(3)
    assert client.stream.received_bytes == received + 904
    assert client.stream._deframer.pending_bytes == 0


def test_few_bytes_are_read_of_one_before_the_others_have_their_turn(make):
    bench = make()
    flood = bench.client()
    pings = [Ping(0)] * 4_000
    flood.socket.send(b"".join(frame(encode(ping)) for ping in pings))
    bench.turn()
    (client,) = bench.service.server._served.values()
    assert 0 < len(client.inbox) <= 8_192 // len(frame(encode(Ping(0))))
    bench.until(lambda: len(flood.messages) == len(pings))


def test_programs_of_a_client(make):
    bench = make(programs_per_client=2)
    client, other = bench.client(), bench.client()
    for app_id in range(2):
        assert client.ask(init_app(app_id)).error is None
    error = client.ask(init_app(2)).error
    assert error is not None
    assert error.kind == "LimitError"
    assert "programs_per_client=2" in error.text
    assert other.ask(init_app(2)).error is None
    assert client.ask(stop_app(0)).error is None
    assert client.ask(init_app(2)).error is None


def test_requests_of_a_client(make):
    bench = make(requests_per_client=3)
    client = bench.client()
    client.register()
    numbers = [client.request(nv(0, ENDLESS)) for _ in range(5)]
    for number in numbers[3:]:
        error = client.reply(number).error
        assert error is not None
        assert error.kind == "LimitError"
        assert "requests_per_client=3" in error.text
    assert counters(bench).refused_requests == 2
    assert bench.service.server.open_requests == 3
    client.close()
    bench.check_clean()


def test_size_of_a_message(make):
    bench = make(subroutine_bytes=700)
    client = bench.client()
    client.register()
    error = client.ask(nv(0, "set R0 1\n" * 110)).error  # 770 bytes
    assert error is not None
    assert "subroutine_bytes" in error.text
    client.send_bytes(struct.pack("<I", 700 + 1_025))
    refusal = client.refusal()
    assert refusal.kind == "MalformedMessageError"
    assert "1725 bytes" in refusal.text
    assert counters(bench).refused_malformed == 1


def test_one_that_does_not_read(make):
    """Its results pile up, so it is disconnected; its programs end; others go on."""
    bench = make(outbound_bytes=65_536)
    slow, other = bench.client(tcp=True), bench.client()
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    slow.register()
    other.register()
    slow.is_reading = False
    program = "set R0 16384\narray R0 @0\nret_arr @0"
    numbers = count(1_000)
    with suppress(ConnectionError):
        while not counters(bench).slow_readers:
            slow.send(Netqasm(next(numbers), nv(0, program)))
            bench.turns(2)
            assert counters(bench).requests < 10_000
    assert counters(bench).slow_readers == 1
    assert other.run(MEASURE_ONE).error is None
    assert bench.service.server.connections == 1
    assert len(bench.kernel.processes) == 1
    slow.close()
    other.close()
    bench.check_clean()


def test_silence(make):
    bench = make(idle_ms=2_000)
    silent, talking, busy = bench.client(), bench.client(), bench.client()
    busy.register()
    # It waits for a qubit that nobody gives back, so its request stays open.
    assert silent.ask(init_app(0)).error is None
    assert silent.run("set Q0 0\nqalloc Q0\ninit Q0").error is None
    busy.request(nv(0, "set Q0 0\nqalloc Q0"))
    for nonce in range(8):
        bench.pass_ms(500)
        talking.send(Ping(nonce))
        assert talking.take(Pong)
        if nonce == 2:
            assert not silent.is_over
    refusal = silent.refusal()
    assert refusal.kind == "ConnectionLostError"
    assert "idle_ms=2000" in refusal.text
    assert counters(bench).timed_out_idle == 1
    assert busy.messages  # the qubit of the silent one has been freed
    assert not talking.is_over


def test_a_client_whose_machine_has_gone_leaves_nothing(make):
    """Its connection is open at this end only: nothing comes, and nobody reads what is sent."""
    bench = make(idle_ms=2_000)
    gone, other = bench.client(tcp=True), bench.client()
    gone.register()
    assert gone.run("set Q0 0\nqalloc Q0\ninit Q0").error is None
    gone.is_reading = False
    other.register()
    waiting = other.request(nv(0, MEASURE_ONE))
    bench.pass_ms(1_900)
    assert other.find(waiting) is None
    for _ in range(5):
        bench.pass_ms(500)
    assert other.reply(waiting).error is None  # the qubit of the other has been freed
    assert len(bench.kernel.processes) == 1
    assert not gone.is_over
    bench.pass_ms(1_500)
    assert bench.service.server.open_sockets == 1
    assert (counters(bench).timed_out_idle, counters(bench).lost) == (1, 0)


def test_events_for_a_subscriber(make):
    bench = make(events=16)
    client = bench.client()
    client.register()
    client.send(Subscribe(60, True))
    assert client.reply(60).error is None
    for _ in range(10):
        assert client.run("").error is None
    bench.pass_ms(50)
    message = client.take(TraceEvents)
    assert len(message.events) == 16
    assert message.dropped == bench.service.trace.recorded - 16
    assert counters(bench).events_dropped == message.dropped


def test_a_subscriber_that_does_not_read_misses_events_and_stays(make):
    bench = make(events=64, outbound_bytes=65_536)
    client, worker = bench.client(), bench.client()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    worker.register()
    client.send(Subscribe(60, True))
    assert client.reply(60).error is None
    before = bench.service.trace.recorded
    client.is_reading = False
    while not counters(bench).events_dropped:
        for _ in range(10):
            assert worker.run("").error is None
        bench.pass_ms(25)
        assert bench.service.trace.recorded < 500_000
    client.is_reading = True
    for _ in range(100):
        bench.pass_ms(25)
    assert any(each.dropped for each in client.messages)
    assert counters(bench).slow_readers == 0
    seen = sum(each.dropped + len(each.events) for each in client.messages)
    assert seen == bench.service.trace.recorded - before


def test_messages_per_turn(make):
    """A flood is served in its turns, and the next client in between."""
    bench = make(messages_per_turn=2)
    flood, other = bench.client(), bench.client()
    flood.send(*(Ping(number) for number in range(100)))
    other.send(Ping(5))
    bench.turns(2)
    assert other.take(Pong).nonce == 5
    assert len(flood.messages) <= 6
    bench.until(lambda: len(flood.messages) == 100)


def test_numbers_in_the_file_are_the_kernels(make):
    bench = make(
        processes=1, subroutine_bytes=70, pending_subroutines=1, instructions_per_activation=5,
        highest_priority=7,
    )  # fmt: skip
    client = bench.client()
    client.register(priority=7)
    assert "processes=1" in client.ask(init_app(1)).error.text
    assert "instructions_per_activation=5" in client.run(ENDLESS).error.text


def test_no_descriptor_left(make, monkeypatch):
    """Accepting pauses, instead of spinning on a socket it cannot accept from."""
    bench = make()
    client = bench.client()
    listener = bench.service.server._listeners[0]

    class Exhausted:
        def accept(self):
            raise OSError(24, "Too many open files")

        def fileno(self):
            return listener.socket.fileno()

        def __getattr__(self, name):
            return getattr(listener.socket, name)

    monkeypatch.setattr(
        bench.service.server,
        "_listeners",
        (listener._replace(socket=Exhausted()), *bench.service.server._listeners[1:]),
    )
    server = bench.service.server
    server._loop.forget(listener.socket.fileno())
    server._listen(server._listeners[0])
    late = bench.connect()
    bench.turns(5)
    assert counters(bench).accept_pauses == 1
    client.send(Ping(1))
    assert client.take(Pong)
    server._listeners[0].socket.accept = listener.socket.accept
    bench.pass_ms(150)
    assert isinstance(late.greet(), Welcome)


def test_refusals_do_not_pile_up(make):
    """However many are refused and do not hang up, they share the places of the handshakes."""
    bench = make(connections=1, handshakes=4)
    bench.client()
    peers = [bench.connect() for _ in range(20)]
    bench.turns(5)
    assert bench.service.server.open_sockets == 5
    assert all(isinstance(peer.messages[0], Refused) for peer in peers)
