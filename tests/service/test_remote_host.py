"""Programs as threads: what they see of their CNPU, and what its trace says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from netqasm.sdk import Qubit
from netqasm.sdk.classical_communication.message import StructuredMessage

from qnodeos.api.host_wire import Netqasm, Ping, Register
from qnodeos.api.netqasm import Flavour
from qnodeos.cnpu.app_network import AppNetwork
from qnodeos.cnpu.backend import QNodeOSConnection
from qnodeos.cnpu.host import NetworkDirectory, current_host, find_host
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.cnpu.remote import TRACE_UNIT_NS, RemoteCnpu, RemoteHost
from qnodeos.cnpu.sockets import AppBroadcastChannel, AppSocket
from qnodeos.errors import (
    ApplicationLostError,
    ConfigurationError,
    ProgramError,
    ProgramStoppedError,
    QnpuUnavailableError,
    SubroutineFailedError,
    UnknownProcessError,
)
from qnodeos.trace.events import Event
from qnodeos.trace.recorder import TraceRecorder
from qnodeos.transport import Address
from tests.service.fake_qnpu import DEADLINE_S, Before, FakeQnpu

IDS = {"here": 1, "there": 2}
DIRECTORY = NetworkDirectory(IDS, {"here": "here", "there": "there", "other": "here"})


class Bench:
    """The CNPUs of two nodes, a fake QNPU for the first, and threads for programs."""

    def __init__(self, stack: ExitStack, before: Before | None = None, **options: Any) -> None:
        if before is not None:
            options["before"] = before
        self.qnpu = stack.enter_context(FakeQnpu(**options))
        self.pool = stack.enter_context(ThreadPoolExecutor(4))
        there = AppNetwork(
            node_name="there",
            node_ids=IDS,
            applications=DIRECTORY.applications,
            listen_on=Address(host="127.0.0.1"),
            peers={},
            start_timeout_s=DEADLINE_S,
        )
        stack.callback(there.close)
        assert there.address is not None
        self.there = self._cnpu("there", there, stack)
        here = AppNetwork(
            node_name="here",
            node_ids=IDS,
            applications=DIRECTORY.applications,
            listen_on=None,
            peers={"there": there.address},
            start_timeout_s=DEADLINE_S,
        )
        self.here = self._cnpu("here", here, stack)
        self.traces: dict[str, TraceRecorder] = {}

    def _cnpu(self, node: str, network: AppNetwork, stack: ExitStack) -> RemoteCnpu:
        cnpu = RemoteCnpu(
            node_name=node, directory=DIRECTORY, connect=self.connect, network=network
        )
        stack.callback(cnpu.close)
        return cnpu

    def connect(self, numbers: Iterator[int] | None) -> QnpuClient:
        return QnpuClient.connect(self.qnpu.address, timeout_s=DEADLINE_S, numbers=numbers)

    def run(self, program: Callable[[], Any], node: str = "here", name: str = "") -> Future[Any]:
        """Start a program in a thread of its own."""
        cnpu = self.here if node == "here" else self.there
        trace = self.traces[name or node] = TraceRecorder(TRACE_UNIT_NS, 1000)

        def main() -> Any:
            host = RemoteHost(cnpu, 7, trace)
            token = current_host.set(host)
            try:
                return program()
            finally:
                current_host.reset(token)
                host.close()

        return self.pool.submit(main)

    def result(self, program: Callable[[], Any]) -> Any:
        return self.run(program).result(DEADLINE_S)

    def events(self, name: str = "here") -> list[tuple[Event, int]]:
        columns = self.traces[name].columns()
        assert set(columns["process"]) <= {7}
        pairs = zip(columns["event"], columns["detail"], strict=True)
        return [(Event(int(event)), int(detail)) for event, detail in pairs]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


def flipped() -> int:
    """A program: a qubit in 1."""
    with QNodeOSConnection("here", max_qubits=1) as connection:
        qubit = Qubit(connection)
        qubit.X()
        outcome = qubit.measure(store_array=False)
        connection.flush()
    return int(outcome)


# --- the QNPU -------------------------------------------------------------------------


def test_an_sdk_program_runs(bench):
    bench.qnpu.node.device.measurements.extend([1])
    assert bench.result(flipped) == 1
    bench.qnpu.wait_for(lambda qnpu: qnpu.closed == [0])
    assert not bench.qnpu.node.kernel.processes


@pytest.mark.parametrize("flavour", Flavour)
def test_the_flavour_is_that_of_the_qnpu(flavour):
    with ExitStack() as stack:
        bench = Bench(stack, flavour=flavour)
        bench.qnpu.node.device.measurements.extend([1])
        assert bench.here.flavour is flavour
        assert bench.result(flipped) == 1


def test_the_trace_has_the_events_of_virtual_time(bench):
    def program() -> None:
        with QNodeOSConnection("here", max_qubits=1) as connection:
            for _ in range(2):
                connection.new_array(1)
                connection.flush()

    before_us = time.monotonic_ns() // 1_000
    bench.result(program)
    assert bench.events() == [
        (event, serial)
        for serial in (0, 1)
        for event in (Event.SUBROUTINE_SEND_ATTEMPT, Event.SUBROUTINE_SENT, Event.RESULT_RCVD)
    ]
    times = bench.traces["here"].columns()["time"]
    assert before_us <= times[0]
    assert (times[1:] >= times[:-1]).all()
    assert times[-1] <= time.monotonic_ns() // 1_000


def test_an_error_of_a_subroutine_reaches_the_program(bench):
    def program() -> None:
        with QNodeOSConnection("here", max_qubits=1) as connection:
            Qubit(connection)
            Qubit(connection)
            connection.flush()

    with pytest.raises(SubroutineFailedError, match="NoQubitError") as caught:
        bench.result(program)
    assert (caught.value.subroutine, caught.value.kind) == (0, "NoQubitError")
    bench.qnpu.wait_for(lambda qnpu: qnpu.closed == [0])


def test_flushing_without_blocking(bench):
    log: list[str] = []

    def program() -> None:
        with QNodeOSConnection("here", max_qubits=1) as connection:
            for name in ("first", "second"):
                connection.new_array(1)
                connection.flush(block=False, callback=lambda name=name: log.append(name))
            log.append("sent")
            connection.block()

    bench.result(program)
    assert log == ["sent", "first", "second"]


def test_waiting_for_the_oldest_of_what_was_flushed(bench):
    log: list[str] = []

    def program() -> None:
        with QNodeOSConnection("here", max_qubits=1) as connection:
            connection.block_oldest()
            for name in ("first", "second", "third"):
                connection.new_array(1)
                connection.flush(block=False, callback=lambda name=name: log.append(name))
            connection.block_oldest()
            log.append("waited")

    bench.result(program)
    assert log == ["first", "waited", "second", "third"]


def test_connections_of_one_program_are_clients_of_their_own(bench):
    def program() -> int:
        with QNodeOSConnection("here") as first, QNodeOSConnection("here") as second:
            first.new_array(1)
            second.new_array(1)
            first.flush(block=False)
            second.flush()
            first.block()
        return len(bench.qnpu.node.kernel.processes)

    bench.result(program)
    bench.qnpu.wait_for(lambda qnpu: sorted(qnpu.closed) == [0, 1])


def test_what_a_program_leaves_open_is_closed(bench):
    def program() -> None:
        QNodeOSConnection("here")

    bench.result(program)
    bench.qnpu.wait_for(lambda qnpu: qnpu.closed == [0])
    assert not bench.qnpu.node.kernel.processes


def test_a_program_with_a_priority(bench):
    def program() -> None:
        with QNodeOSConnection("here", max_qubits=2, priority=3):
            pass

    with pytest.raises(SubroutineFailedError):  # the fake registers nothing
        bench.result(program)
    [register] = bench.qnpu.messages(Register)
    assert (register.app_id, register.max_qubits, register.priority) == (0, 2, 3)


def test_a_qnpu_that_dies_ends_its_programs():
    def before(client: int, message: Any) -> bytes | None:
        is_subroutine = isinstance(message, Netqasm) and message.raw[0] == 2
        return b"" if is_subroutine else None

    with ExitStack() as stack:
        bench = Bench(stack, before)
        with pytest.raises(QnpuUnavailableError, match="ended"):
            bench.result(flipped)


def test_requests_that_were_never_sent(bench):
    def program() -> None:
        host = find_host()
        client = host.open_client()
        host.close_client(client)
        host.close_client(client)
        with pytest.raises(UnknownProcessError, match="closed"):
            host.submit(client, b"\x04\x00")
        with pytest.raises(UnknownProcessError, match="never sent"):
            host.await_reply(12)

    bench.result(program)


def test_a_qnpu_of_another_node_or_of_an_unknown_flavour(bench):
    with pytest.raises(ConfigurationError, match="node here, not there"):
        bench.there.open_client(iter(range(9)))
    bench.qnpu.before = lambda client, message: [bench.qnpu.welcome(flavour="cheese")]
    with pytest.raises(ConfigurationError, match="cheese"):
        bench.here.open_client(iter(range(9)))


def test_idle_connections_are_kept_alive():
    with ExitStack() as stack:
        bench = Bench(stack, idle_timeout_s=0.1)

        def program() -> None:
            with QNodeOSConnection("here"):
                bench.qnpu.wait_for(lambda qnpu: len(qnpu.messages(Ping)) >= 3)

        bench.result(program)


# --- classical messages ---------------------------------------------------------------


def test_programs_of_two_nodes_talk(bench):
    def here() -> str:
        socket = AppSocket("here", "there")
        socket.send("question")
        answer = socket.recv_structured()
        return f"{answer.header} {answer.payload}"

    def there() -> str:
        socket = AppSocket("there", "here")
        question = socket.recv()
        socket.send_structured(StructuredMessage("answer", (4, 2)))
        return question

    running = bench.run(here), bench.run(there, "there")
    assert [one.result(DEADLINE_S) for one in running] == ["answer (4, 2)", "question"]
    assert bench.events("here") == [(Event.CLAS_MSG_SENT, 0), (Event.CLAS_MSG_RCVD, 0)]
    assert bench.events("there") == [(Event.CLAS_MSG_RCVD, 0), (Event.CLAS_MSG_SENT, 0)]
    here_us, there_us = (bench.traces[name].columns()["time"] for name in ("here", "there"))
    assert here_us[0] <= there_us[0] <= there_us[1] <= here_us[1]


def test_programs_of_one_node_talk(bench):
    def first() -> None:
        AppSocket("here", "other", socket_id=5).send("hello")

    def second() -> str:
        return AppSocket("other", "here", socket_id=5).recv()

    receiving = bench.run(second, name="second")
    bench.run(first, name="first").result(DEADLINE_S)
    assert receiving.result(DEADLINE_S) == "hello"


def test_looking_and_waiting_in_vain(bench):
    def program() -> None:
        socket = AppSocket("other", "here", timeout=0.0)
        with pytest.raises(RuntimeError):
            socket.recv(block=False)
        with pytest.raises(RuntimeError, match="within 0"):
            socket.recv()
        with pytest.raises(ProgramError, match="call recv"):
            AppSocket("other", "here", use_callbacks=True)

    bench.result(program)


def test_broadcasting(bench):
    def here() -> list[tuple[str, str]]:
        channel = AppBroadcastChannel("here", ["other", "there"])
        channel.send("to all")
        with pytest.raises(TimeoutError):
            AppBroadcastChannel("here", ["other"], socket_id=9).recv(timeout=0.002)
        with pytest.raises(RuntimeError):
            AppBroadcastChannel("here", ["other"], socket_id=9).recv(block=False)
        return sorted(channel.recv() for _ in range(2))

    def answers(name: str) -> str:
        channel = AppBroadcastChannel(name, ["here"])
        source, message = channel.recv(timeout=DEADLINE_S)
        channel.send(f"{name} has it")
        return f"{source}: {message}"

    running = [
        bench.run(lambda: answers("other"), name="other"),
        bench.run(lambda: answers("there"), "there"),
    ]
    assert bench.result(here) == [("other", "other has it"), ("there", "there has it")]
    assert [one.result(DEADLINE_S) for one in running] == ["here: to all"] * 2


def test_an_application_nobody_knows(bench):
    def program() -> None:
        AppSocket("here", "nobody")

    with pytest.raises(ConfigurationError, match="unknown application 'nobody'"):
        bench.result(program)


# --- the end --------------------------------------------------------------------------


def test_stopping_ends_programs_that_wait_for_the_qnpu():
    def before(client: int, message: Any) -> list[Any] | None:
        is_subroutine = isinstance(message, Netqasm) and message.raw[0] == 2
        return [] if is_subroutine else None

    with ExitStack() as stack:
        bench = Bench(stack, before)
        running = bench.run(flipped)
        bench.qnpu.wait_for(lambda qnpu: any(m.raw[0] == 2 for m in qnpu.messages(Netqasm)))
        bench.here.stop()
        with pytest.raises(ProgramStoppedError):
            running.result(DEADLINE_S)
        bench.qnpu.wait_for(lambda qnpu: bool(qnpu.closed))
        assert bench.qnpu.node.kernel.qmmu.free_qubits() == [0, 1, 2]
        with pytest.raises(ProgramStoppedError):
            bench.result(flipped)


def test_stopping_ends_programs_that_wait_for_a_message(bench):
    def program() -> str:
        return AppSocket("other", "here").recv()

    running = bench.run(program)
    bench.here.stop()
    with pytest.raises(ProgramStoppedError):
        running.result(DEADLINE_S)


def test_a_program_stays_with_the_process_it_has_found(bench):
    def there() -> str:
        return AppSocket("there", "here").recv()

    running = bench.run(there, "there")

    def here() -> str:
        socket = AppSocket("here", "there")
        socket.send("hello")
        running.result(DEADLINE_S)
        bench.there.close()
        with pytest.raises(ApplicationLostError):
            socket.recv()
        with pytest.raises(ApplicationLostError):
            AppSocket("here", "there").send("again")
        return "seen"

    assert bench.result(here) == "seen"
