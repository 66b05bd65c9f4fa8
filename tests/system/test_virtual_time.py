"""Virtual time: the order of events, exact latencies, time-outs, mocked entanglement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netqasm.sdk import EPRSocket, Qubit
from netqasm.sdk.external import NetQASMConnection, Socket

from qnodeos.assembly import NetworkConfig, build_two_nodes, load_profile
from qnodeos.cnpu.latency import Delay, LatencyProfile, Spikes
from qnodeos.experiments.programs import dqc_client, dqc_server
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.trace.events import Event
from sim.clock import VirtualClock
from sim.network import ProgramSpec
from tests.system.bench import CERTAIN, Z_LIMIT, ZERO, build, details, event_names, run

MS_IN_US = 1_000
TICKS_PER_MS = 100

# --- the clock ------------------------------------------------------------------------


@given(st.lists(st.integers(0, 20), max_size=30))
def test_events_happen_in_order_of_time_then_of_scheduling(times):
    clock = VirtualClock()
    happened: list[tuple[int, int, int]] = []
    for number, time in enumerate(times):
        clock.call_at(time, lambda t, n: happened.append((clock.now_ns, t, n)), time, number)
    assert clock.run_while(lambda: True) is False
    assert [(time, number) for _, time, number in happened] == sorted(
        (time, number) for number, time in enumerate(times)
    )
    assert all(now == time for now, time, _ in happened)


def test_the_clock_stops_when_told_to_and_goes_on_later():
    clock = VirtualClock()
    happened: list[int | str] = []
    for time in (1, 2, 3):
        clock.call_at(time, happened.append, time)
    assert clock.run_while(lambda: len(happened) < 2) is True
    assert (clock.now_ns, happened) == (2, [1, 2])
    clock.call_at(2, happened.append, "again 2")
    clock.run_while(lambda: True)
    assert happened == [1, 2, "again 2", 3]
    with pytest.raises(ValueError, match="cannot schedule for 2 ns: it is 3 ns"):
        clock.call_at(2, happened.append, "too late")


# --- latencies ------------------------------------------------------------------------


def flip(connection: NetQASMConnection) -> None:
    qubit = Qubit(connection)
    qubit.X()
    qubit.measure()
    connection.flush()


def local() -> None:
    with NetQASMConnection("client", max_qubits=1) as connection:
        flip(connection)


def host_times_us(trace, event: Event) -> list[int]:
    times: list[int] = trace.times(event).tolist()
    return times


def test_without_latencies_nothing_takes_time_but_physics_and_the_tick():
    system = build()
    run(system, client=local)
    timing = CERTAIN.client.timing
    # Every instruction is with the device one tick after the outcome of the one before. The
    # gate starts at once, and the measurement between two of the decoupling blocks after it.
    # Tick 0 serves the registration of the program, tick 1 its subroutine, so the first
    # instruction is with the device at tick 2.
    gate = 2 + timing.initialise_ticks + 1
    measurement = (gate + timing.gate_ticks + 1) * timing.tick_ns
    start_ns = timing.start_ns(measurement, gate * timing.tick_ns)
    tick = timing.tick_after(start_ns + timing.measure_ns)
    trace = system.client.host_trace
    assert host_times_us(trace, Event.SUBROUTINE_SEND_ATTEMPT) == [0]
    assert host_times_us(trace, Event.SUBROUTINE_SENT) == [0]
    assert host_times_us(trace, Event.RESULT_RCVD) == [tick * 10]
    assert system.client.qnpu_trace.times(Event.PROCMGR_SUBROUTINE_ADDED).tolist() == [1]
    assert system.client.qnpu_trace.times(Event.PROCMGR_SUBROUTINE_DONE).tolist() == [tick]


FIXED = LatencyProfile(
    name="fixed",
    start_to_submit=Delay(mean_ms=1),
    send_local=Delay(mean_ms=2),
    result=Delay(mean_ms=3),
    result_to_message=Delay(mean_ms=4),
    classical=Delay(mean_ms=5),
    message_to_submit=Delay(mean_ms=6),
    message_to_message=Delay(mean_ms=7),
    result_to_submit=Delay(mean_ms=8),
    send_create=Delay(mean_ms=9),
    send_receive=Delay(mean_ms=10),
    peer=Delay(mean_ms=0.5),
    dispatch_us=200,
)


def test_fixed_latencies_are_in_the_trace_to_the_microsecond():
    def client():
        socket = Socket("client", "server")
        with NetQASMConnection("client", max_qubits=1) as connection:
            flip(connection)
            flip(connection)
            socket.send("first")
            socket.send("second")

    def server():
        socket = Socket("server", "client")
        with NetQASMConnection("server", max_qubits=1) as connection:
            socket.recv()
            socket.recv()
            flip(connection)

    system = build(profile=FIXED)
    run(system, client=client, server=server)
    trace = system.client.host_trace
    attempt, second_attempt = host_times_us(trace, Event.SUBROUTINE_SEND_ATTEMPT)
    sent, second_sent = host_times_us(trace, Event.SUBROUTINE_SENT)
    result, second_result = host_times_us(trace, Event.RESULT_RCVD)
    first, second = host_times_us(trace, Event.CLAS_MSG_SENT)
    added, _ = system.client.qnpu_trace.times(Event.PROCMGR_SUBROUTINE_ADDED)
    done, second_done = system.client.qnpu_trace.times(Event.PROCMGR_SUBROUTINE_DONE)
    assert attempt == 1 * MS_IN_US
    assert sent == attempt + 2 * MS_IN_US
    assert added == 3 * TICKS_PER_MS
    assert result == done * 10 + 3 * MS_IN_US
    assert second_attempt == result + 8 * MS_IN_US
    assert second_sent == second_attempt + 2 * MS_IN_US
    assert second_result == second_done * 10 + 3 * MS_IN_US
    assert first == second_result + 4 * MS_IN_US
    assert second == first + 7 * MS_IN_US

    trace = system.server.host_trace
    assert host_times_us(trace, Event.CLAS_MSG_RCVD) == [
        first + 5 * MS_IN_US,
        second + 5 * MS_IN_US,
    ]
    (attempt,) = host_times_us(trace, Event.SUBROUTINE_SEND_ATTEMPT)
    assert attempt == second + (5 + 6) * MS_IN_US


def test_the_dispatch_latency_is_before_the_first_instruction():
    for profile, ticks in ((ZERO, 0), (FIXED, 20)):
        system = build(profile=profile)
        run(system, client=local)
        trace = system.client.qnpu_trace
        (dispatched,) = trace.times(Event.SCHEDULER_SCHEDULE_USER_PROCESS)
        (first,) = trace.times(Event.QDEVICE_PRODUCE_INI_CMD)
        assert first - dispatched == ticks


def one_pair(name: str, other: str):
    def main():
        socket = EPRSocket(other)
        with NetQASMConnection(name, epr_sockets=[socket], max_qubits=1) as connection:
            request = socket.create_keep if name == "client" else socket.recv_keep
            request()[0].measure()
            connection.flush()

    return main


def test_requests_for_entanglement_have_send_latencies_of_their_own():
    system = build(profile=FIXED)
    run(system, client=one_pair("client", "server"), server=one_pair("server", "client"))
    for handles, latency_ms in ((system.client, 9), (system.server, 10)):
        (attempt,) = host_times_us(handles.host_trace, Event.SUBROUTINE_SEND_ATTEMPT)
        (sent,) = host_times_us(handles.host_trace, Event.SUBROUTINE_SENT)
        assert sent - attempt == latency_ms * MS_IN_US


def test_attempts_begin_after_the_guard_of_the_bin_after_the_request():
    system = build()
    run(system, client=one_pair("client", "server"), server=one_pair("server", "client"))
    for handles in (system.client, system.server):
        first = handles.qnpu_trace.times(Event.QDEVICE_PRODUCE_ENT_CMD)[0]
        assert first == 11 * TICKS_PER_MS  # bins of 10 ms, a guard of 1 ms


def test_stalls_come_only_between_a_message_and_a_subroutine():
    spikes = Spikes(probability=1, at_least_ms=50)
    system = build(profile=FIXED.model_copy(update={"spikes": spikes}))

    def server():
        socket = Socket("server", "client")
        with NetQASMConnection("server", max_qubits=1) as connection:
            flip(connection)
            socket.recv()
            flip(connection)
            flip(connection)

    run(system, client=lambda: Socket("client", "server").send("go"), server=server)
    trace = system.server.host_trace
    (received,) = host_times_us(trace, Event.CLAS_MSG_RCVD)
    attempts = host_times_us(trace, Event.SUBROUTINE_SEND_ATTEMPT)
    results = host_times_us(trace, Event.RESULT_RCVD)
    assert attempts[0] == 1 * MS_IN_US
    assert attempts[1] - max(received, results[0]) == (50 + 6) * MS_IN_US
    assert attempts[2] - results[1] == 8 * MS_IN_US


# --- messages between programs --------------------------------------------------------


def test_messages_keep_their_order_whatever_their_delays():
    profile = ZERO.model_copy(update={"classical": Delay(mean_ms=5, sd_ms=10)})

    def server():
        socket = Socket("server", "client")
        return [socket.recv() for _ in range(50)]

    def client():
        socket = Socket("client", "server")
        for number in range(50):
            socket.send(str(number))

    system = build(profile=profile)
    received = run(system, server=server, client=client)["server"]
    assert received == [str(number) for number in range(50)]
    arrivals = host_times_us(system.server.host_trace, Event.CLAS_MSG_RCVD)
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] > 10 * MS_IN_US


def test_a_receive_times_out_in_virtual_time():
    def main():
        socket = Socket("client", "server", timeout=3_600.0)
        with pytest.raises(RuntimeError, match=r"within 0\.25 s"):
            socket.recv(timeout=0.25)
        times.append(system.network.clock.now_ns)
        with pytest.raises(RuntimeError, match="within 3600"):
            socket.recv()
        times.append(system.network.clock.now_ns)

    times: list[int] = []
    system = build()
    run(system, client=main)
    assert times == [250_000_000, 3_600_250_000_000]


def test_a_message_that_comes_after_the_time_out_is_kept():
    profile = ZERO.model_copy(update={"classical": Delay(mean_ms=30)})

    def server():
        socket = Socket("server", "client")
        with pytest.raises(RuntimeError, match="within"):
            socket.recv(timeout=0.029999)
        return socket.recv(timeout=0.000002)

    def client():
        Socket("client", "server").send("late")

    system = build(profile=profile)
    assert run(system, client=client, server=server)["server"] == "late"
    assert host_times_us(system.server.host_trace, Event.CLAS_MSG_RCVD) == [30 * MS_IN_US]


def test_looking_without_waiting_finds_a_message_when_it_has_come():
    profile = ZERO.model_copy(update={"classical": Delay(mean_ms=1)})

    def server():
        socket = Socket("server", "client")
        with pytest.raises(RuntimeError, match="has arrived"):
            socket.recv(block=False)
        with pytest.raises(RuntimeError, match="within"):
            Socket("server", "client", socket_id=1).recv(timeout=0.001)
        return socket.recv(block=False)

    def client():
        Socket("client", "server").send("here")

    assert run(build(profile=profile), client=client, server=server)["server"] == "here"


# --- whole runs -----------------------------------------------------------------------


def dqc(config: NetworkConfig, profile: LatencyProfile, seed: int, circuits: int):
    """A system after DQC circuits, and the server's results."""
    system = build(config, profile, seed)
    _, outcomes = system.network.run(
        [
            ProgramSpec(
                "client",
                "client",
                dqc_client.main,
                {"alpha_steps": 5, "theta_steps": 3, "circuits": circuits},
            ),
            ProgramSpec(
                "server", "server", dqc_server.main, {"alpha_steps": 5, "circuits": circuits}
            ),
        ]
    )
    return system, outcomes


def recorders(system):
    return [
        recorder
        for handles in (system.client, system.server)
        for recorder in (handles.host_trace, handles.qnpu_trace)
    ]


def test_a_run_is_determined_by_its_seed():
    config, profile = NetworkConfig.preset("fast"), load_profile("paper")
    first, second, other = (recorders(dqc(config, profile, seed, 6)[0]) for seed in (1, 1, 2))
    for mine, same, different in zip(first, second, other, strict=True):
        for name, column in mine.columns().items():
            assert np.array_equal(column, same.columns()[name])
        assert not np.array_equal(mine.columns()["time"], different.columns()["time"])


def test_the_events_of_a_trace_are_in_order():
    system, _ = dqc(NetworkConfig.preset("fast"), load_profile("paper"), 1, 12)
    for recorder in recorders(system):
        assert (np.diff(recorder.columns()["time"]) >= 0).all()
    names = event_names(system.server.host_trace)
    circuit = [
        *("SUBROUTINE_SEND_ATTEMPT", "SUBROUTINE_SENT", "RESULT_RCVD"),
        "CLAS_MSG_RCVD",
        *("SUBROUTINE_SEND_ATTEMPT", "SUBROUTINE_SENT", "RESULT_RCVD"),
    ]
    assert names == circuit * 12


def test_idle_time_costs_nothing():
    # A day of waiting is a handful of events.
    system = build_two_nodes(CERTAIN, ZERO, 1, trace_capacity=64)

    def main():
        with NetQASMConnection("client", max_qubits=1) as connection:
            with pytest.raises(RuntimeError):
                Socket("client", "server").recv(timeout=86_400.0)
            flip(connection)

    run(system, client=main)
    assert system.network.clock.now_ns > 86_400 * 10**9
    assert len(system.client.qnpu_trace) < 32


# --- mocked entanglement --------------------------------------------------------------


def test_mocked_entanglement_is_heralded_as_usual_and_has_no_correlations():
    circuits = 120
    mocked = CERTAIN.model_copy(update={"link": CERTAIN.link.model_copy(update={"mocked": True})})
    genuine, outcomes = dqc(CERTAIN, ZERO, 4, circuits)
    assert outcomes == [circuit % 2 for circuit in range(circuits)]
    system, outcomes = dqc(mocked, ZERO, 4, circuits)
    successes = sum(outcome == circuit % 2 for circuit, outcome in enumerate(outcomes))
    assert abs(successes - circuits / 2) < Z_LIMIT * math.sqrt(circuits) / 2
    heralds = details(system.server.qnpu_trace, Event.PROCESSOR_CONSUME_OUTCOME)
    assert {Outcome.SUCCESS_PSI_PLUS, Outcome.SUCCESS_PSI_MINUS} <= set(heralds)
    # The pairs come when they would have come.
    first, other = (each.server.qnpu_trace.times(Event.EGP_ENT_OK)[0] for each in (genuine, system))
    assert first == other
