"""Faults from a seed: bad wires, slow messages, failing devices, crashing programs.

Whatever happens, programs get the right result or a typed error that tells the cause, and
nothing is left behind: the same system runs the same programs again once the fault is gone.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TypeVar

import pytest
from netqasm.sdk import EPRSocket, Qubit
from netqasm.sdk.external import NetQASMConnection, Socket

from qnodeos.assembly import TwoNodeSystem
from qnodeos.cnpu.latency import Delay
from qnodeos.errors import (
    ConfigurationError,
    ProgramError,
    StalledProgramsError,
    SubroutineFailedError,
    UnsupportedInstructionError,
)
from qnodeos.experiments.programs import dqc_client, dqc_server
from qnodeos.qdevice.endpoint import FrameSlave
from qnodeos.qdevice.frames import (
    DETAIL_NONE,
    FRAME_BITS,
    ResponseFrame,
    decode_command,
    decode_response,
    encode_response,
    session_of,
)
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.qdevice.protocols import SimulatedQDevice
from sim.network import ProgramSpec
from sim.nv_device import BehaviouralNVDevice
from tests.system.bench import ZERO, assert_nothing_left, build, run

ALPHA, THETA = 5, 3


def run_dqc(system: TwoNodeSystem, circuits: int) -> None:
    """Run circuits that must all succeed; the nodes are noiseless."""
    client, server = system.network.run(
        [
            ProgramSpec(
                "client",
                "client",
                dqc_client.main,
                {"alpha_steps": ALPHA, "theta_steps": THETA, "circuits": circuits},
            ),
            ProgramSpec(
                "server", "server", dqc_server.main, {"alpha_steps": ALPHA, "circuits": circuits}
            ),
        ]
    )
    assert len(client) == circuits
    assert server == [circuit % 2 for circuit in range(circuits)]
    assert_nothing_left(system)


class Wrapper:
    """A device behind something: passes everything on."""

    def __init__(self, device: SimulatedQDevice) -> None:
        self.device = device
        self.capabilities = device.capabilities

    def exchange(self, tick: int, frame: int) -> int:
        return self.device.exchange(tick, frame)

    def next_tick(self) -> int | None:
        return self.device.next_tick()


W = TypeVar("W", bound=Wrapper)


def wrap(system: TwoNodeSystem, make: Callable[[BehaviouralNVDevice, str], W]) -> list[W]:
    """Put something in front of both devices."""
    wrappers = []
    for name, handles in (("client", system.client), ("server", system.server)):
        assert isinstance(handles.device, BehaviouralNVDevice)
        wrapper = make(handles.device, name)
        handles.node.device = wrapper
        wrappers.append(wrapper)
    return wrappers


# --- the wire -------------------------------------------------------------------------


class BadWire(Wrapper):
    """Damages, loses and repeats frames in both directions, at rates drawn from the seed.

    Damage is one to three wrong bits, which the check always finds; a lost frame is a line
    that stays at 0 or 1; a repeated one is the frame before it on the same line.
    """

    def __init__(self, device: SimulatedQDevice, seed: str) -> None:
        super().__init__(device)
        self._rng = Random(seed)
        self.rates = [self._rng.uniform(0.01, 0.12) for _ in range(3)]
        self.faults = [0, 0, 0]
        self._before = {"command": 0, "response": 0}
        self._tick = 0
        self._wants_answer = False

    def exchange(self, tick: int, frame: int) -> int:
        self._tick = tick
        command = decode_command(frame)
        assert command is not None
        asks = session_of(command.word) is not None
        self._wants_answer = asks or command.sequence != command.acknowledge
        answer = self.device.exchange(tick, self._carry("command", frame))
        return self._carry("response", answer)

    def next_tick(self) -> int | None:
        # While the master repeats itself, every tick may be the one that gets through.
        return self._tick + 1 if self._wants_answer else self.device.next_tick()

    def _carry(self, line: str, frame: int) -> int:
        before, self._before[line] = self._before[line], frame
        rng = self._rng
        fault = rng.choices(range(4), [*self.rates, 1 - sum(self.rates)])[0]
        if fault == 3:
            return frame
        self.faults[fault] += 1
        if fault == 0:
            for place in rng.sample(range(FRAME_BITS), rng.randint(1, 3)):
                frame ^= 1 << place
            return frame
        if fault == 1:
            return rng.choice((0, (1 << FRAME_BITS) - 1))
        return before


@pytest.mark.parametrize("seed", range(6))
def test_bad_wires_cost_time_only(seed):
    system = build(seed=seed)
    wires = wrap(system, lambda device, name: BadWire(device, f"{name} {seed}"))
    run_dqc(system, 16)
    for wire in wires:
        assert min(wire.faults) > 3


def test_a_wire_that_only_loses_frames_is_given_up_and_works_again():
    class DeadWire(Wrapper):
        tick = -1

        def exchange(self, tick: int, frame: int) -> int:
            self.tick = tick
            return 0

        def next_tick(self) -> int:
            return self.tick + 1

    system = build()
    run_dqc(system, 2)
    device = system.server.device
    system.server.node.device = DeadWire(device)

    def local():
        with NetQASMConnection("server", max_qubits=1) as connection:
            Qubit(connection).measure()
            connection.flush()

    # The master gives up after 1,000 frames and asks for a session ever after, so nothing
    # is ever idle; the program has its error all the same.
    errors = []

    def watched():
        try:
            local()
        except SubroutineFailedError as error:
            errors.append(error)
            system.server.node.device = device

    run(system, server=watched)
    assert errors[0].kind == "DeviceFailureError"
    assert "HARDWARE_FAILURE" in str(errors[0])
    run_dqc(system, 4)


# --- messages between nodes -----------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_slow_messages_between_qnpus_cost_time_only(seed):
    # Up to several time bins of 10 ms, but less than the 100 ms a herald waits.
    profile = ZERO.model_copy(update={"peer": Delay(mean_ms=15, sd_ms=10)})
    run_dqc(build(profile=profile, seed=seed), 12)


def test_announcements_that_come_too_late_lose_their_pairs():
    profile = ZERO.model_copy(update={"peer": Delay(mean_ms=150)})
    system = build(profile=profile)
    with pytest.raises(ProgramError, match="server failed") as caught:
        run_dqc(system, 4)
    cause = caught.value.__cause__
    assert isinstance(cause, SubroutineFailedError)
    assert "pair 0 of 1 that node 0 has announced was lost" in str(cause)
    assert_nothing_left(system)


@pytest.mark.parametrize("seed", range(4))
def test_slow_messages_between_programs_cost_time_only(seed):
    profile = ZERO.model_copy(
        update={
            "classical": Delay(mean_ms=30, sd_ms=30),
            "result": Delay(mean_ms=5, sd_ms=5),
            "send_receive": Delay(mean_ms=20, sd_ms=20),
            "send_create": Delay(mean_ms=20, sd_ms=20),
        }
    )
    run_dqc(build(profile=profile, seed=seed), 12)


# --- devices --------------------------------------------------------------------------


class FailingDevice(Wrapper):
    """Reports HARDWARE_FAILURE instead of some outcomes; what was asked has been done."""

    def __init__(self, device: SimulatedQDevice, seed: str, rate: float) -> None:
        super().__init__(device)
        self._rng = Random(seed)
        self._rate = rate
        self._answered: int | None = None
        self._fails = False
        self.failures = 0

    def exchange(self, tick: int, frame: int) -> int:
        answer = decode_response(self.device.exchange(tick, frame))
        assert answer is not None
        if answer.sequence != self._answered:
            self._answered = answer.sequence
            self._fails = answer.detail < 5 and self._rng.random() < self._rate
            self.failures += self._fails
        if self._fails:
            answer = answer._replace(outcome=Outcome.HARDWARE_FAILURE, detail=DETAIL_NONE)
        return encode_response(*ResponseFrame(*answer))


FAILURES = {
    "DeviceFailureError",  # of the program's own node
    "EntanglementRequestError",  # the peer lost the pair, or its program has ended
    "UnknownProcessError",  # the process had ended of one of these between two requests
}


def test_failures_are_reported_and_leave_nothing():
    ends = Counter[str]()
    for seed in range(24):
        system = build(seed=seed)
        rate = Random(seed).choice((0.003, 0.01, 0.05))
        devices = wrap(system, partial(failing, seed=seed, rate=rate))
        try:
            run_dqc(system, 8)
            ends["none"] += 1
        except ProgramError as error:
            cause = error.__cause__
            assert isinstance(cause, SubroutineFailedError), seed
            assert cause.kind in FAILURES, seed
            assert sum(device.failures for device in devices) > 0, seed
            ends[cause.kind] += 1
        assert_nothing_left(system)
        for device, handles in zip(devices, (system.client, system.server), strict=True):
            handles.node.device = device.device
        run_dqc(system, 4)
    assert ends["none"] > 3
    assert ends["DeviceFailureError"] > 3


def failing(device: BehaviouralNVDevice, name: str, *, seed: int, rate: float) -> FailingDevice:
    return FailingDevice(device, f"{name} {seed}", rate)


class RestartingDevice(Wrapper):
    """Restarts at its n-th exchange: forgets its session and what it was doing."""

    def __init__(self, device: BehaviouralNVDevice, at: int) -> None:
        super().__init__(device)
        self._nv = device
        self._left = at

    def exchange(self, tick: int, frame: int) -> int:
        self._left -= 1
        if self._left == 0:
            self._nv._slave = FrameSlave()
            self._nv._due = None
        return self.device.exchange(tick, frame)


@pytest.mark.parametrize("at", range(2, 26))
def test_a_device_that_restarts_costs_a_program_at_most(at):
    system = build()
    wrap(system, lambda device, name: RestartingDevice(device, at if name == "server" else 0))

    def main():
        with NetQASMConnection("server", max_qubits=1) as connection:
            for _ in range(6):
                qubit = Qubit(connection)
                qubit.X()
                outcome = qubit.measure()
                connection.flush()
                assert int(outcome) == 1

    try:
        run(system, server=main)
    except ProgramError as error:
        assert isinstance(error.__cause__, SubroutineFailedError)
        assert error.__cause__.kind == "DeviceFailureError"
    assert_nothing_left(system)
    run_dqc(system, 2)


@pytest.mark.parametrize("seed", range(20))
def test_everything_at_once(seed):
    # Bad wires in front of devices that fail and restart, and slow messages.
    rng = Random(f"everything {seed}")
    profile = ZERO.model_copy(
        update={
            "peer": Delay(mean_ms=rng.choice((0, 5, 20)), sd_ms=rng.choice((0, 1, 10))),
            "classical": Delay(mean_ms=rng.uniform(0, 10), sd_ms=1),
            "send_local": Delay(mean_ms=rng.uniform(0, 3), sd_ms=0.5),
            "result": Delay(mean_ms=rng.uniform(0, 3), sd_ms=0.5),
            "dispatch_us": rng.choice((0, 220)),
        }
    )
    system = build(profile=profile, seed=seed)

    def make(device: BehaviouralNVDevice, name: str) -> Wrapper:
        restarting = RestartingDevice(device, rng.choice((0, rng.randrange(2, 300))))
        failing = FailingDevice(restarting, f"{name} {seed}", rng.choice((0, 0.01)))
        return BadWire(failing, f"{name} {seed}")

    wrap(system, make)
    try:
        run_dqc(system, 6)
    except ProgramError as error:
        cause = error.__cause__
        assert isinstance(cause, SubroutineFailedError)
        assert cause.kind in FAILURES
    assert_nothing_left(system)
    for handles in (system.client, system.server):
        handles.node.device = handles.device
    run_dqc(system, 4)


# --- programs that crash --------------------------------------------------------------


class Bang(Exception):
    """Raised by a program of these tests, and by nothing else."""


PLACES = (
    "before the connection",
    "connected",
    "unflushed request",
    "request under way",
    "qubit held",
    "measured",
    "sent",
)


def half(name: str, other: str, crash_at: str | None) -> Callable[[], None]:
    """One half of a program on two nodes, that crashes at one of `PLACES`, or not."""

    def reach(place: str) -> None:
        if place == crash_at:
            raise Bang(place)

    def main() -> None:
        pairs, messages = EPRSocket(other), Socket(name, other)
        reach("before the connection")
        with NetQASMConnection(name, epr_sockets=[pairs], max_qubits=1) as connection:
            for _ in range(3):
                reach("connected")
                request = pairs.create_keep if name == "client" else pairs.recv_keep
                qubit = request()[0]
                reach("unflushed request")
                connection.flush(block=False)
                reach("request under way")
                connection.block()
                reach("qubit held")
                outcome = qubit.measure()
                connection.flush()
                reach("measured")
                messages.send(str(outcome))
                reach("sent")
                assert messages.recv() == str(outcome)

    return main


@pytest.mark.parametrize("latencies", ["none", "some"])
@pytest.mark.parametrize("crasher", ["client", "server"])
@pytest.mark.parametrize("place", PLACES)
def test_a_crash_is_reported_with_its_cause_and_leaves_nothing(place, crasher, latencies):
    profile = ZERO
    if latencies == "some":
        some = Delay(mean_ms=1.5)
        profile = ZERO.model_copy(
            update=dict.fromkeys(
                ("start_to_submit", "send_local", "send_create", "result", "classical", "peer"),
                some,
            )
        )
    system = build(profile=profile)
    with pytest.raises(ProgramError, match=f"{crasher} failed: Bang: {place}") as caught:
        run(
            system,
            client=half("client", "server", place if crasher == "client" else None),
            server=half("server", "client", place if crasher == "server" else None),
        )
    assert isinstance(caught.value.__cause__, Bang)
    assert_nothing_left(system)
    run_dqc(system, 2)


def test_a_crash_of_one_program_does_not_touch_another():
    def local():
        with NetQASMConnection("client", max_qubits=1) as connection:
            outcomes = []
            for _ in range(50):
                qubit = Qubit(connection)
                qubit.X()
                outcome = qubit.measure()
                connection.flush()
                outcomes.append(int(outcome))
        finished.extend(outcomes)

    finished: list[int] = []
    system = build()
    with pytest.raises(ProgramError, match="Bang"):
        run(
            system,
            client=half("client", "server", "qubit held"),
            server=half("server", "client", None),
            client_local=local,
        )
    assert finished == [1] * 50
    assert_nothing_left(system)


def test_an_error_can_be_caught_and_another_connection_made():
    def main():
        try:
            with NetQASMConnection("client", max_qubits=1) as connection:
                Qubit(connection).rot_X(n=1, d=7)
                connection.flush()
        except SubroutineFailedError as error:
            kinds.append(error.kind)
        with NetQASMConnection("client", max_qubits=1) as connection:
            qubit = Qubit(connection)
            qubit.X()
            outcome = qubit.measure()
        return int(outcome)

    kinds: list[str] = []
    system = build()
    assert run(system, client=main) == {"client": 1}
    assert kinds == ["UnsupportedInstructionError"]
    assert_nothing_left(system)


# --- programs that are wrong ----------------------------------------------------------


def connected(use: Callable[[NetQASMConnection], None], name: str = "client", **options):
    """A program that connects and does one thing."""

    def main():
        with NetQASMConnection(name, **options) as connection:
            use(connection)
            connection.flush()

    return main


def two_qubits(connection: NetQASMConnection) -> None:
    qubits = [Qubit(connection) for _ in range(2)]
    for qubit in qubits:
        qubit.measure()


def endless_sum(connection: NetQASMConnection) -> None:
    total = connection.new_array(1, init_values=[0]).get_future_index(0)
    with connection.loop(10**9):
        total.add(1)


def nothing(connection: NetQASMConnection) -> None:
    pass


WRONG = {
    "angle": (
        connected(lambda c: Qubit(c).rot_X(n=1, d=5), max_qubits=1),
        SubroutineFailedError,
        "no multiple of pi/16",
    ),
    "irrational angle": (
        connected(lambda c: Qubit(c).rot_Z(angle=1.0), max_qubits=1),
        UnsupportedInstructionError,
        "no multiple of pi/16",
    ),
    "qubits of the program": (
        connected(two_qubits, max_qubits=1),
        SubroutineFailedError,
        "the device has 1 qubit, and this program holds it",
    ),
    "qubits of the device": (
        connected(two_qubits, max_qubits=2),
        SubroutineFailedError,
        "the device has 1 qubit, and this program holds it",
    ),
    "two-qubit gate": (
        connected(lambda c: Qubit(c).cnot(Qubit(c)), max_qubits=5),
        SubroutineFailedError,
        "has no two-qubit gate|the device has 1 qubit,",
    ),
    "application": (connected(nothing, "dave"), ConfigurationError, "unknown application 'dave'"),
    "remote application": (
        lambda: Socket("client", "dave"),
        ConfigurationError,
        "unknown application 'dave'; known are: client, server",
    ),
    "remote node": (
        lambda: NetQASMConnection("client", epr_sockets=[EPRSocket("dave")]),
        ConfigurationError,
        "unknown application 'dave'",
    ),
    "node": (
        connected(lambda c: c.network_info._get_node_id("dave")),
        ConfigurationError,
        "unknown node 'dave'",
    ),
    "undefined array entry": (
        connected(lambda c: c.new_array(1).get_future_index(0).add(1)),
        SubroutineFailedError,
        "ArrayAccessError",
    ),
    "endless loop": (
        connected(endless_sum),
        SubroutineFailedError,
        "InstructionBudgetError",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_what_cannot_be_done_is_refused_with_a_reason(mistake):
    program, kind, message = WRONG[mistake]
    system = build()
    with pytest.raises(ProgramError) as caught:
        run(system, client=program)
    cause = caught.value.__cause__
    assert isinstance(cause, kind)
    assert re.search(message, str(cause))
    assert_nothing_left(system)
    run_dqc(system, 2)


def test_a_fault_is_located():
    def use(connection):
        Qubit(connection).measure()
        connection.flush()
        Qubit(connection).rot_X(n=1, d=6)

    with pytest.raises(ProgramError) as caught:
        run(build(), client=connected(use, max_qubits=1))
    cause = caught.value.__cause__
    assert isinstance(cause, SubroutineFailedError)
    assert cause.subroutine == 1
    assert cause.pc is not None


def test_an_unanswered_request_times_out():
    def main():
        socket = EPRSocket("server")
        with NetQASMConnection("client", epr_sockets=[socket], max_qubits=1) as connection:
            socket.create_keep()
            connection.flush()

    system = build()
    with pytest.raises(ProgramError, match="did not open ER socket 0"):
        run(system, client=main)
    assert system.network.clock.now_ns == pytest.approx(10e9, rel=0.01)
    assert_nothing_left(system)


def test_a_request_with_a_deadline_expires():
    def client():
        socket = EPRSocket("server")
        with NetQASMConnection("client", epr_sockets=[socket], max_qubits=1) as connection:
            socket.create_keep(max_time=5_000)
            connection.flush()

    def server():
        socket = EPRSocket("client")
        with NetQASMConnection("server", epr_sockets=[socket], max_qubits=1) as connection:
            socket.recv_keep()
            connection.flush()

    system = build()
    with pytest.raises(ProgramError, match=r"client failed: .*EntanglementTimeoutError"):
        run(system, client=client, server=server)
    assert_nothing_left(system)


# --- programs that wait for each other ------------------------------------------------


def test_programs_that_wait_for_each_other_are_named():
    system = build()
    with pytest.raises(StalledProgramsError) as caught:
        run(
            system,
            client=lambda: Socket("client", "server").recv(),
            server=lambda: Socket("server", "client", socket_id=3).recv(),
        )
    assert "client for a message from server (socket 0)" in str(caught.value)
    assert "server for a message from client (socket 3)" in str(caught.value)


def test_a_wait_for_the_qnpu_is_named_and_ended():
    def server():
        socket = EPRSocket("client")
        with NetQASMConnection("server", epr_sockets=[socket], max_qubits=1) as connection:
            Qubit(connection).measure()
            connection.flush()
            socket.recv_keep()
            connection.flush()

    system = build()
    with pytest.raises(StalledProgramsError) as caught:
        run(system, client=lambda: Socket("client", "server").recv(), server=server)
    assert "server for the result of subroutine 1" in str(caught.value)
    assert "client for a message from server" in str(caught.value)
    assert_nothing_left(system)
    run_dqc(system, 2)


def test_a_program_that_polls_lets_the_others_run():
    def client():
        Socket("client", "server").send("at last")

    def server():
        socket, looks = Socket("server", "client"), 0
        while True:
            try:
                return socket.recv(block=False), looks
            except RuntimeError:
                looks += 1
                assert looks < 1_000

    profile = ZERO.model_copy(update={"classical": Delay(mean_ms=1)})
    message, looks = run(build(profile=profile), server=server, client=client)["server"]
    assert message == "at last"
    # A look takes 10 us.
    assert looks == math.ceil(1_000 / 10) - 1


def test_a_crash_while_others_poll_and_wait_is_the_error_reported():
    def client():
        with NetQASMConnection("client", max_qubits=1) as connection:
            Qubit(connection).measure()
            connection.flush()
            raise Bang("client")

    with pytest.raises(ProgramError, match="Bang: client"):
        run(build(), client=client, server=lambda: Socket("server", "client").recv(timeout=1.0))
