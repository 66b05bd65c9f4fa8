"""Two nodes as processes: a neighbour that is killed, one that hangs, no controller any more."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, Final

import pytest

from qnodeos.api.host import HostReply
from qnodeos.api.netqasm import Flavour
from qnodeos.cli.two_nodes import TwoNodes, running_two_nodes
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.transport import Address
from tests.unit.kernel_programs import (
    create_epr,
    init_app,
    measure_directly,
    open_socket,
    recv_epr,
    submit,
)

DEADLINE_S: Final = 90.0
# The tests may share their cores with others, which no real-time process must push aside.
LAB: Final = {"priority": 0}
NODE: Final = {"realtime": {"tick_priority": 0, "policy_priority": 0, "lock_memory": False}}
MANY: Final = 1_000
"""More pairs than are made in the time of a test."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    directory = tmp_path_factory.mktemp("p")
    with running_two_nodes(directory, lab=LAB, node=NODE, timeout_s=DEADLINE_S) as running:
        yield running


class Program:
    """A program on a connection of its own, with ER socket 0 to the other node."""

    def __init__(self, client: QnpuClient, remote: int) -> None:
        self.remote = remote
        self._client = client
        for raw in (init_app(0), open_socket(0, 0, remote, 0)):
            assert client.await_reply(client.submit(raw), DEADLINE_S).error is None

    def ask(self, program: str) -> int:
        return self._client.submit(submit(0, program, Flavour.NV))

    def reply(self, request: int) -> HostReply:
        return self._client.await_reply(request, DEADLINE_S)

    def figure(self, group: str, name: str) -> Any:
        return self._client.statistics(DEADLINE_S)[group][name]


@contextmanager
def programs(system: TwoNodes) -> Iterator[tuple[Program, Program]]:
    """A program at the client's node, and one at the server's."""
    addresses = [Address.parse(system.api_address(node)) for node in system.nodes]
    with (
        QnpuClient.connect(addresses[0], timeout_s=DEADLINE_S) as client,
        QnpuClient.connect(addresses[1], timeout_s=DEADLINE_S) as server,
    ):
        yield Program(client, 1), Program(server, 0)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = monotonic() + DEADLINE_S
    while not condition():
        assert monotonic() < deadline, f"it takes too long until {what}"
        sleep(0.01)  # a poll, whose end is the condition


def make_pair(system: TwoNodes) -> None:
    """New programs at both nodes make a pair, and agree on which it is."""
    with programs(system) as both:
        requests = [
            both[0].ask(create_epr(remote=1, arguments=measure_directly())),
            both[1].ask(recv_epr(remote=0, measured=True)),
        ]
        replies = [p.reply(request) for p, request in zip(both, requests, strict=True)]
    told = []
    for reply in replies:
        assert reply.error is None, reply.error
        [result] = reply.results
        told.append(result.values)  # type: ignore[union-attr]
    assert told[0][5] == told[1][5]
    assert [values[4] for values in told] == [0, 1], "creator and receiver"


@contextmanager
def pending_pairs(system: TwoNodes) -> Iterator[tuple[Program, int, Program, int]]:
    """Programs in the middle of a long request, and the numbers of their subroutines."""
    with programs(system) as (client, server):
        before = client.figure("kernel", "pairs")
        kept: dict[str, Any] = {"pairs": MANY, "virtuals": []}  # no qubits are
        created = client.ask(create_epr(remote=1, arguments=measure_directly(), **kept))
        received = server.ask(recv_epr(remote=0, measured=True, **kept))
        until(lambda: client.figure("kernel", "pairs") != before, "pairs are made")
        yield client, created, server, received


def kind(reply: HostReply) -> str:
    assert reply.error is not None, reply
    return reply.error.kind


def schedules(system: TwoNodes) -> list[str]:
    """What the nodes have said about schedules."""
    logs = [system.log(node) for node in system.nodes]
    return [line for log in logs for line in log.splitlines() if "network schedule" in line]


def test_a_neighbour_that_is_killed_ends_what_was_agreed(system):
    make_pair(system)
    with pending_pairs(system) as (client, created, _, _):
        system.kill("server")
        assert kind(client.reply(created)) == "PeerLostError"
        # It may be in a batch of attempts for the rest of the bin.
        until(lambda: client.figure("kernel", "free_qubits") == 1, "the qubit is free")
    system.start("server", DEADLINE_S)
    make_pair(system)


def test_a_neighbour_that_hangs_is_noticed_and_finds_its_way_back(system):
    with pending_pairs(system) as (client, created, server, received):
        system.signal("server", signal.SIGSTOP)
        try:
            assert kind(client.reply(created)) == "PeerLostError"
        finally:
            system.signal("server", signal.SIGCONT)
        assert kind(server.reply(received)) == "PeerLostError"
    make_pair(system)


def test_without_the_controller_all_goes_on_and_the_next_one_changes_nothing(system):
    make_pair(system)
    said = len(schedules(system))
    with pending_pairs(system) as (client, _, _, _):
        lost = client.figure("peers", "neighbours")["server"]["lost"]
        system.kill("controller")
        system.start("controller", DEADLINE_S)
        until(lambda: len(schedules(system)) == said + 2, "the next controller was here")
        before = client.figure("kernel", "pairs")
        until(lambda: client.figure("kernel", "pairs") != before, "pairs are still made")
        assert client.figure("peers", "neighbours")["server"]["lost"] == lost
    make_pair(system)
