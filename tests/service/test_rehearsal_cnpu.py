"""Rehearsals of programs that wait: nobody notices, they end in time, and they are rare enough."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from netqasm.sdk import Qubit

from qnodeos.api.host_wire import Netqasm, Ping
from qnodeos.api.netqasm import Flavour
from qnodeos.cli import run
from qnodeos.cli.programs import build_cnpu
from qnodeos.cnpu import rehearsal
from qnodeos.cnpu.app_network import AppNetwork
from qnodeos.cnpu.backend import _REGISTERS, QNodeOSConnection
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.cnpu.rehearsal import SHARE_MAX, Rehearsals, Stage
from qnodeos.cnpu.remote import TRACE_UNIT_NS, RemoteCnpu, RemoteHost
from qnodeos.cnpu.sockets import AppSocket
from qnodeos.errors import ProgramError, ProgramStoppedError, QnpuUnavailableError
from qnodeos.service.node_file import load_node
from qnodeos.trace.recorder import TraceRecorder
from qnodeos.transport import Address
from tests.service.fake_qnpu import DEADLINE_S, FakeQnpu
from tests.service.test_remote_host import DIRECTORY, IDS

PERIOD_S = 0.001
ROUNDS = 3
"""Rehearsals that a test waits for before it answers."""


@pytest.fixture
def rehearsals() -> Iterator[Rehearsals]:
    made = Rehearsals(PERIOD_S)
    yield made
    made.close()


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(DEADLINE_S / PERIOD_S)):
        if condition():
            return
        pause.wait(PERIOD_S)
    raise AssertionError("it does not come true")


def rehearsed(rehearsals: Rehearsals | None) -> None:
    """Wait until a program that waits has rehearsed for a while."""
    if rehearsals is not None:
        enough = rehearsals.count + ROUNDS
        wait_until(lambda: rehearsals.count >= enough or rehearsals.failure is not None)


class Machine:
    """A CNPU with a fake QNPU, which answers subroutines when there were rehearsals enough."""

    def __init__(
        self,
        stack: ExitStack,
        rehearsals: Rehearsals | None,
        flavour: Flavour = Flavour.NV,
        answers: bool = True,
    ) -> None:
        self.rehearsals = rehearsals
        self.answers = answers
        self.qnpu = stack.enter_context(FakeQnpu(flavour=flavour, before=self._before))
        networks: dict[str, AppNetwork] = {}
        peers: dict[str, Address] = {}
        for node in ("there", "here"):
            networks[node] = AppNetwork(
                node_name=node,
                node_ids=IDS,
                applications=DIRECTORY.applications,
                listen_on=Address(host="127.0.0.1") if node == "there" else None,
                peers=peers,
                start_timeout_s=DEADLINE_S,
                rehearsals=rehearsals if node == "here" else None,
            )
            stack.callback(networks[node].close)
            address = networks[node].address
            if address is not None:
                peers = {node: address}
        self.there = networks["there"]
        self.cnpu = RemoteCnpu(
            node_name="here",
            directory=DIRECTORY,
            connect=self.connect,
            network=networks["here"],
            rehearsals=rehearsals,
        )
        stack.callback(self.cnpu.close)
        self.trace = TraceRecorder(TRACE_UNIT_NS, 1000)
        self.host = RemoteHost(self.cnpu, 7, self.trace)
        stack.callback(self.host.close)

    def connect(self, numbers: Iterator[int] | None) -> QnpuClient:
        return QnpuClient.connect(self.qnpu.address, timeout_s=DEADLINE_S, numbers=numbers)

    def _before(self, client: int, message: Any) -> list[Any] | None:
        if isinstance(message, Netqasm) and message.raw[0] == 2:
            rehearsed(self.rehearsals)
            return None if self.answers else []
        return None

    def ask(self) -> str:
        """What another program says, after rehearsals enough, when it is asked."""
        session = self.there.session_with("here")
        out, back = ("here", "there", 0), ("there", "here", 0)

        def answer() -> None:
            text = session.receive(out, timeout_s=DEADLINE_S)
            rehearsed(self.rehearsals)
            session.send(back, f"answer to {text}")

        other = threading.Thread(target=answer)
        other.start()
        partner = AppSocket("here", "there", host=self.host)
        partner.send("a question")
        text = partner.recv(timeout=DEADLINE_S)
        other.join()
        return text


def what_is_seen(rehearsals: Rehearsals | None, flavour: Flavour) -> dict[str, Any]:
    """All that a program and its QNPU see of each other."""
    with ExitStack() as stack:
        machine = Machine(stack, rehearsals, flavour)
        results, texts = [], []
        with QNodeOSConnection("here", host=machine.host, max_qubits=1) as connection:
            for steps in (3, 5):
                qubit = Qubit(connection)
                qubit.rot_X(n=16, d=4)
                if flavour is Flavour.VANILLA:
                    qubit.rot_Z(n=steps, d=4)
                outcome = qubit.measure(store_array=False)
                connection.flush()
                results.append(int(outcome))
                texts.append(machine.ask())
            memory = connection.shared_memory
            registers = [memory.get_register(register) for register in _REGISTERS]
            active = len(connection.active_qubits)
        columns = machine.trace.columns()
        seen = [(client, m) for client, m in machine.qnpu.received if not isinstance(m, Ping)]
        return {
            "sent": seen,
            "results": results,
            "texts": texts,
            "active": active,
            "registers": registers,
            "trace": [list(columns[name]) for name in ("event", "process", "detail")],
        }


# --- nobody notices ---------------------------------------------------------------------


@pytest.mark.parametrize("flavour", [Flavour.NV, Flavour.VANILLA])
def test_a_program_and_its_qnpu_see_the_same_with_and_without(rehearsals, flavour):
    without = what_is_seen(None, flavour)
    seen = what_is_seen(rehearsals, flavour)
    assert seen == without
    assert without["texts"] == ["answer to a question"] * 2
    assert rehearsals.failure is None
    assert rehearsals.count >= 4 * ROUNDS  # while it waited for either


def test_a_rehearsal_goes_on_for_ever():
    stage = Stage(Flavour.NV)
    with contextlib.closing(stage):
        steps = stage.rehearse()
        rounds = 600  # more than are acknowledged at once
        while rounds:
            rounds -= next(steps)
        assert sum(stage._session._on_the_way.values()) < 300 * stage._cost
        assert stage._client is not None
        assert len(stage._client._open) == len(stage._client._answers) == 0


def test_what_a_stage_opens_it_closes():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        made = Rehearsals(PERIOD_S)
        made.begin(Flavour.NV)
        made.close()
        made.close()
        made.begin(Flavour.NV)  # too late
    assert len(os.listdir("/proc/self/fd")) == before


# --- one that fails ----------------------------------------------------------------------


def failing_steps(stage: Stage) -> Iterator[bool]:
    yield from [True] * (ROUNDS + 2)
    raise ProgramError("stage fright")


def test_one_that_fails_is_the_last(rehearsals, monkeypatch, caplog):
    monkeypatch.setattr(Stage, "rehearse", failing_steps)
    with caplog.at_level(logging.WARNING):
        seen = what_is_seen(rehearsals, Flavour.NV)
    assert seen["texts"] == ["answer to a question"] * 2
    assert str(rehearsals.failure) == "stage fright"
    assert rehearsals.count == 2  # after those before the program began
    (line,) = caplog.records
    assert "stage fright" in line.getMessage()


def test_without_a_stage_programs_go_on(rehearsals, monkeypatch, caplog):
    def no_connection() -> None:
        raise OSError("no loopback here")

    monkeypatch.setattr(rehearsal, "_tcp_pair", no_connection)
    with caplog.at_level(logging.WARNING):
        assert what_is_seen(rehearsals, Flavour.NV)["active"] == 0
    assert isinstance(rehearsals.failure, OSError)
    assert rehearsals.count == 0
    assert len(caplog.records) == 1


def test_a_stage_on_which_nothing_arrives_is_given_up(rehearsals, monkeypatch):
    monkeypatch.setattr(rehearsal, "_GIVEN_UP_S", 0.01)
    monkeypatch.setattr(rehearsal, "_LATE_MAX", 2)
    real = rehearsal._tcp_pair

    def crossed() -> tuple[socket.socket, socket.socket]:
        lost, kept = real(), real()
        stack.callback(lost[1].close)
        stack.callback(kept[0].close)
        return lost[0], kept[1]

    monkeypatch.setattr(rehearsal, "_tcp_pair", crossed)
    with ExitStack() as stack:
        rehearsals.begin(Flavour.NV)
        assert "came within" in str(rehearsals.failure)


# --- waits end -----------------------------------------------------------------------------


def test_a_wait_for_a_message_ends_in_time(rehearsals):
    with ExitStack() as stack:
        machine = Machine(stack, rehearsals)
        rehearsals.begin(Flavour.NV)
        partner = AppSocket("here", "there", host=machine.host)
        with pytest.raises(RuntimeError, match=r"within 0\.05 s"):
            partner.recv(timeout=0.05)


def test_a_wait_for_a_reply_ends_in_time(rehearsals):
    with ExitStack() as stack:
        machine = Machine(stack, rehearsals, answers=False)
        client = machine.cnpu.open_client(iter(range(99)))
        request = client.submit(b"\x02nothing")
        with pytest.raises(TimeoutError):
            client.await_reply(request, 0.05)
        assert rehearsals.count > 0


def test_a_qnpu_that_is_silent_is_noticed_all_the_same(rehearsals):
    with ExitStack() as stack:
        rehearsals.begin(Flavour.NV)
        silent = FakeQnpu(
            idle_timeout_s=0.15, before=lambda c, m: None if hasattr(m, "version") else []
        )
        stack.enter_context(silent)
        client = stack.enter_context(QnpuClient.connect(silent.address, timeout_s=DEADLINE_S))
        client.rehearsals = rehearsals
        request = client.submit(b"x")
        with pytest.raises(QnpuUnavailableError, match="no sign of life"):
            client.await_reply(request)
        assert len(silent.messages(Ping)) == 3
        assert rehearsals.count > 0


def test_programs_that_rehearse_can_be_stopped(rehearsals):
    with ExitStack() as stack:
        machine = Machine(stack, rehearsals)
        rehearsals.begin(Flavour.NV)
        problems = []

        def program() -> None:
            try:
                AppSocket("here", "there", host=machine.host).recv()
            except ProgramStoppedError as stopped:
                problems.append(stopped)

        machine.there.session_with("here")
        thread = threading.Thread(target=program)
        thread.start()
        AppSocket("here", "there", host=machine.host)
        rehearsed(rehearsals)
        machine.cnpu.stop()
        thread.join(DEADLINE_S)
        assert len(problems) == 1


def test_what_comes_during_a_rehearsal_does_not_wait_for_its_end(rehearsals):
    rehearsals.begin(Flavour.NV)
    looks = []

    def is_ready(ms: int | None) -> bool:
        looks.append(ms)
        return len(looks) == 3  # a pause, and the second look between steps

    assert rehearsals.wait(is_ready, DEADLINE_S)
    assert looks == [1, 0, 0]
    assert rehearsals.count == 0
    del looks[:]
    rehearsals._next_s = 0.0
    rehearsals.wait(lambda ms: rehearsals.count == 1, DEADLINE_S)  # it goes on where it was
    assert rehearsals.failure is None


# --- how much --------------------------------------------------------------------------------


class Clock:
    """Time that passes only when somebody waits or rehearses."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.rehearsed_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, ms: int | None) -> bool:
        assert ms is not None
        self.now_s += ms / 1_000
        return False

    def steps(self, took_s: float) -> Iterator[bool]:
        while True:
            self.now_s += took_s
            self.rehearsed_s += took_s
            yield True


@pytest.mark.parametrize("took_s", [0.00001, 0.0001, 0.001, 0.1])
def test_the_share_is_bounded(rehearsals, monkeypatch, took_s):
    rehearsals.begin(Flavour.NV)
    clock = Clock()
    monkeypatch.setattr(rehearsal, "monotonic", clock)
    rehearsals._steps = clock.steps(took_s)
    assert not rehearsals.wait(clock.wait, 10.0)
    assert 10.0 <= clock.now_s <= 10.0 + PERIOD_S + took_s
    assert 0 < clock.rehearsed_s <= SHARE_MAX * clock.now_s + took_s
    assert rehearsals.count <= 10.0 / PERIOD_S


def test_many_that_wait_wake_up_as_often_as_one(rehearsals, monkeypatch):
    rehearsals.begin(Flavour.NV)
    clock = Clock()
    monkeypatch.setattr(rehearsal, "monotonic", clock)
    rehearsals._steps = clock.steps(0.0)
    rehearsals._waiting |= {-1, -2, -3}  # threads that wait already
    waits = []

    def is_ready(ms: int | None) -> bool:
        waits.append(ms)
        return clock.wait(ms)

    assert not rehearsals.wait(is_ready, 0.0205)
    assert waits == [4, 0] * 5 + [1]
    assert rehearsals._waiting == {-1, -2, -3}


def test_one_thread_rehearses_at_a_time(rehearsals, monkeypatch):
    rehearsals.begin(Flavour.NV)
    clock = Clock()
    monkeypatch.setattr(rehearsal, "monotonic", clock)
    with rehearsals._mutex:  # as another thread that rehearses
        assert not rehearsals.wait(clock.wait, 0.1)
    assert rehearsals.count == 0


@pytest.mark.parametrize("period_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_period_is_positive(period_s):
    with pytest.raises(ValueError, match="apart"):
        Rehearsals(period_s)


@pytest.mark.parametrize(
    ("asked", "cores", "period_ms"),
    [(None, 1, 0.0), (None, 2, run.DEFAULT_REHEARSE_MS), (0.0, 8, 0.0), (5.0, 1, 5.0)],
)
def test_the_period_of_a_run(monkeypatch, asked, cores, period_ms):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert run._rehearse_ms(asked) == period_ms


@pytest.mark.parametrize("rehearse_s", [0.0, PERIOD_S])
def test_what_is_asked_for_reaches_clients_and_sessions(tmp_path, rehearse_s):
    with FakeQnpu(flavour=Flavour.NV) as qnpu:
        node = {
            "name": "here",
            "node_id": 1,
            "device": {"link": "loopback"},
            "api": {"listen": [str(qnpu.address)]},
            "applications": {"listen": "tcp:127.0.0.1:0"},
            "peers": {"there": {"node_id": 2, "address": "tcp:127.0.0.1:1"}},
        }
        (tmp_path / "node.yaml").write_text(json.dumps(node))
        node_file = load_node(tmp_path / "node.yaml")
        with contextlib.closing(build_cnpu(node_file, rehearse_s=rehearse_s)) as cnpu:
            client = cnpu.open_client(iter(range(9)))
            session = cnpu.network.session_with("there")
            assert client.rehearsals is session._rehearsals
            assert (client.rehearsals is not None) == (rehearse_s > 0)
            if client.rehearsals is not None:
                assert client.rehearsals._stage is not None
        if client.rehearsals is not None:
            assert client.rehearsals._stage is None
