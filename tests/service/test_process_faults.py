"""Real processes that die, hang or talk nonsense; nothing is lost and nothing leaks."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qnodeos.cli.two_nodes import TwoNodes, running_two_nodes
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.errors import ConnectionLostError, QnpuUnavailableError
from qnodeos.qnpu.process import NETWORK_PID
from qnodeos.transport import Address
from tests.service.roles import CLIENT_STEPS, SERVER_STEPS, Role

DEADLINE_S = 90.0
# The tests may share their cores with others, which no real-time process must push aside.
LAB = {"priority": 0, "preset": "fast"}
NODE = {"realtime": {"tick_priority": 0, "policy_priority": 0, "lock_memory": False}}
CIRCUITS = 3
ENDLESS = 1_000_000
TYPED = {
    "ApplicationLostError",  # the process of the other program is gone
    "ProgramStoppedError",  # its own time was up while it waited
    "QnpuUnavailableError",  # its QNPU is gone
    "SubroutineFailedError",  # the QNPU says why
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    directory = tmp_path_factory.mktemp("q")
    with running_two_nodes(directory, lab=LAB, node=NODE, timeout_s=DEADLINE_S) as running:
        yield running


def until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"it takes too long until {what}"
        time.sleep(0.01)  # a poll, whose end is the condition


def role(system: TwoNodes, node: str, circuits: int = CIRCUITS, **options: Any) -> Role:
    result = system.directory / f"{node}-result.json"
    return Role(system.node_path(node), circuits, result, **options)


def qnpu(system: TwoNodes, node: str) -> QnpuClient:
    return QnpuClient.connect(Address.parse(system.api_address(node)), timeout_s=DEADLINE_S)


def programs(client: QnpuClient) -> int:
    """How many user processes there are; the network process is always there."""
    return sum(process.pid != NETWORK_PID for process in client.processes())


def is_empty(system: TwoNodes, node: str) -> bool:
    with qnpu(system, node) as client:
        return programs(client) == 0


def is_busy(system: TwoNodes, node: str) -> bool:
    return not is_empty(system, node)


def has_device(client: QnpuClient) -> bool:
    return bool(client.statistics()["engine"]["device_attached"])


def held(system: TwoNodes) -> list[int]:
    """How many descriptors and threads each process has."""
    places = [
        Path(f"/proc/{child.pid}/{what}")
        for child in system.processes.children
        for what in ("fd", "task")
    ]
    return [len(list(place.iterdir())) for place in places]


@contextmanager
def nothing_leaks(system: TwoNodes) -> Iterator[None]:
    """The system works before and after, and has no more descriptors and threads than before."""
    assert_works(system)
    before = held(system)
    yield
    assert_works(system)
    until(
        lambda: all(now <= then for now, then in zip(held(system), before, strict=True)),
        f"everything is given back: {before} before, {held(system)} after",
    )


def assert_works(system: TwoNodes) -> None:
    """Delegated computation runs as if nothing had happened: no qubit and no request is left."""
    for node in system.nodes:
        until(partial(is_empty, system, node), f"{node} has no process")
    roles = [role(system, node, timeout_s=DEADLINE_S) for node in system.nodes]
    for one in roles:
        outcome = one.wait(2 * DEADLINE_S)
        assert outcome is not None
        assert outcome["state"] == "done", outcome
        assert len(outcome["result"]) == CIRCUITS
        one.close()


@pytest.mark.parametrize(
    ("node", "step"),
    [("client", step) for step in CLIENT_STEPS] + [("server", step) for step in SERVER_STEPS],
)
def test_a_program_killed_at_any_step_takes_nothing_with_it(system, node, step):
    other = "server" if node == "client" else "client"
    survivor = role(system, other, timeout_s=5.0)
    # A server may get to the end of its subroutine, and then its qubit takes part in one more pair,
    # for nobody; so that the client cannot be done with that, there is another one to come.
    early = step in ("connected", "while computing")
    victim = role(system, node, die_at=step, die_in=0 if early else 1)
    with closing(survivor), closing(victim):
        assert victim.wait(DEADLINE_S) is None
        outcome = survivor.wait(DEADLINE_S)
    assert outcome is not None
    assert outcome["state"] != "done" or step == "between circuits", outcome
    assert outcome["error"] in TYPED, outcome
    assert_works(system)


def test_a_qnpu_killed_is_told_to_programs_and_works_again_after_a_restart(system):
    waiting = role(system, "client")  # waits for a server that never comes
    with closing(waiting), qnpu(system, "client") as client:
        until(lambda: programs(client) == 1, "the program has registered")
        incarnation = client.welcome.incarnation
        system.kill("client")
        outcome = waiting.wait(DEADLINE_S)
        assert outcome is not None
        assert (outcome["state"], outcome["error"]) == ("failed", "QnpuUnavailableError")
        with pytest.raises(QnpuUnavailableError):
            client.processes()
    system.start("client", DEADLINE_S)
    with qnpu(system, "client") as client:
        assert client.welcome.incarnation > incarnation
    assert_works(system)


def test_a_neighbour_that_dies_and_comes_back_is_no_end(system):
    asking = role(system, "client")
    with closing(asking), qnpu(system, "client") as client:
        until(lambda: programs(client) == 1, "the program has registered")
        system.kill("server")
        system.start("server", DEADLINE_S)
        answering = role(system, "server")
        with closing(answering):
            for one in (asking, answering):
                outcome = one.wait(DEADLINE_S)
                assert outcome is not None
                assert outcome["state"] == "done" or outcome["error"] in TYPED, outcome
    assert_works(system)


def test_a_laboratory_that_dies_and_comes_back_is_noticed_and_forgiven(system):
    roles = [role(system, node, timeout_s=8.0) for node in system.nodes]
    for node in system.nodes:
        until(partial(is_busy, system, node), f"{node} has a process")
    system.kill("lab")
    for one in roles:
        outcome = one.wait(DEADLINE_S)
        assert outcome is not None
        assert outcome["state"] == "done" or outcome["error"] in TYPED, outcome
        one.close()
    system.start("lab", DEADLINE_S)
    for node in system.nodes:
        with qnpu(system, node) as client:
            until(partial(has_device, client), f"{node} has its device back")
    assert_works(system)


@pytest.mark.parametrize("node", ["client", "server"])
def test_a_service_that_stands_still_for_50_ms_loses_nothing(system, node):
    roles = [role(system, each) for each in system.nodes]
    until(partial(is_busy, system, node), "it has a process")
    with qnpu(system, node) as client:
        before = client.statistics()["engine"]["given_up"]
    for _ in range(3):
        system.signal(node, signal.SIGSTOP)
        time.sleep(0.05)  # the stall itself
        system.signal(node, signal.SIGCONT)
    for one in roles:
        outcome = one.wait(DEADLINE_S)
        assert outcome is not None
        assert outcome["state"] == "done", outcome
        one.close()
    with qnpu(system, node) as client:
        assert client.statistics()["engine"]["given_up"] == before
    assert_works(system)


GARBAGE = [
    b"",
    b"GET / HTTP/1.1\r\n\r\n",
    bytes(100),
    b"\xff" * 100,
    os.urandom(1000),
    b"\x16\x03\x01",
]


def throw_garbage(place: Address) -> None:
    """Say nonsense, and wait for the end of each connection."""
    for nonsense in GARBAGE:
        family, where = place.resolve()
        with socket.socket(family, socket.SOCK_STREAM) as stranger:
            stranger.settimeout(DEADLINE_S)
            stranger.connect(where)
            try:
                stranger.sendall(nonsense)
                stranger.shutdown(socket.SHUT_WR)
                while stranger.recv(4096):
                    pass
            except ConnectionError:
                pass  # it hung up on us, which is right too


@pytest.mark.parametrize("first", ["client", "server"])
def test_garbage_on_the_socket_of_a_program_that_waits_disturbs_it_not(system, first):
    with ExitStack() as cleanup:
        roles = [cleanup.enter_context(closing(role(system, first, timeout_s=DEADLINE_S)))]
        until(partial(is_busy, system, first), "the program has registered")
        throw_garbage(system.node_file(first).applications.listen)
        other = "server" if first == "client" else "client"
        roles.append(cleanup.enter_context(closing(role(system, other, timeout_s=DEADLINE_S))))
        for one in roles:
            outcome = one.wait(DEADLINE_S)
            assert outcome is not None
            assert outcome["state"] == "done", outcome
            assert len(outcome["result"]) == CIRCUITS


def test_garbage_on_every_socket_disturbs_nobody(system):
    for node in system.nodes:
        file = system.node_file(node)
        for place in (*file.api.listen, file.peer.listen):
            throw_garbage(place)
    assert all(child.is_running for child in system.processes.children)
    assert_works(system)


def test_programs_that_are_killed_leave_no_descriptor_and_no_thread_behind(system):
    with nothing_leaks(system):
        for step in (*CLIENT_STEPS[-3:], "while flushing"):
            victim = role(system, "client", die_at=step, die_in=0)
            survivor = role(system, "server", timeout_s=5.0)
            with closing(survivor), closing(victim):
                victim.wait(DEADLINE_S)
                survivor.wait(DEADLINE_S)


def test_services_and_laboratory_that_are_killed_leave_nothing_at_the_others(system):
    with nothing_leaks(system):
        for name in ("lab", "client", "server"):
            busy = [role(system, node, circuits=ENDLESS, timeout_s=8.0) for node in system.nodes]
            for node in system.nodes:
                until(partial(is_busy, system, node), f"{node} has a process")
            system.kill(name)
            for one in busy:
                assert one.wait(DEADLINE_S) is not None
                one.close()
            system.start(name, DEADLINE_S)
        for node in system.nodes:
            with qnpu(system, node) as client:
                until(partial(has_device, client), f"{node} has its device back")


def test_logs_of_all_this_show_no_exception(system):
    for name in ("client", "server", "lab", "controller"):
        assert "Traceback" not in system.log(name), system.log(name)[-5000:]


def test_nobody_there_is_a_typed_error(tmp_path: Path):
    with pytest.raises(ConnectionLostError):
        QnpuClient.connect(Address(path=str(tmp_path / "nobody.sock")))
