"""Applications that cannot end well: errors at both ends, in a bounded time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from netqasm.sdk import EPRSocket, Qubit
from netqasm.sdk.external import BroadcastChannel, NetQASMConnection, Socket

from qnodeos.applications import Application, Round, RunLimits, run_application, simulate
from qnodeos.assembly import NetworkDescription
from qnodeos.errors import (
    ConfigurationError,
    ProgramError,
    StalledProgramsError,
    SubroutineFailedError,
)

Program = Callable[[], Any]
LIMITS = RunLimits(duration_s=100, steps=20_000)


def run(alice: Program, bob: Program, **options: Any) -> Round:
    """One round on perfect generic nodes."""
    application = Application.from_functions({"alice": alice, "bob": bob})
    (one,) = simulate(application, **{"limits": LIMITS, **options})
    return one


def nothing() -> str:
    return "done"


def receives_message(me: str, other: str, socket_id: int = 0) -> Program:
    return lambda: Socket(me, other, socket_id).recv()


def makes_pairs(what: str, me: str, other: str, *, number: int = 1, socket_id: int = 0) -> Program:
    """A program that does `create_keep`, `recv_measure`, ... and measures what it keeps."""

    def program() -> None:
        socket = EPRSocket(other, socket_id, socket_id)
        with NetQASMConnection(me, epr_sockets=[socket]):
            pairs = getattr(socket, what)(number=number)
            for pair in pairs if what.endswith("keep") else ():
                pair.measure()

    return program


def raises() -> None:
    raise ValueError("out of luck")


# --- waiting in vain ----------------------------------------------------------------------


def test_a_message_from_a_program_that_has_ended():
    one = run(receives_message("alice", "bob"), nothing)
    assert one.results == {"app_bob": "done"}
    assert isinstance(one.problem, StalledProgramsError)
    assert isinstance(one.errors["alice"], StalledProgramsError)
    assert "alice for a message from bob (socket 0)" in str(one.problem)
    assert "ended have: bob" in str(one.problem)


def test_two_programs_that_wait_for_each_other():
    one = run(receives_message("alice", "bob"), receives_message("bob", "alice", 0))
    assert set(one.errors) == {"alice", "bob"}
    for words in ("alice for a message from bob", "bob for a message from alice"):
        assert words in str(one.problem)


def test_a_broadcast_that_nobody_sends():
    one = run(lambda: BroadcastChannel("alice", ["bob"]).recv(), nothing)
    assert "alice for a message from bob" in str(one.problem)


def test_entanglement_that_nobody_is_there_for():
    one = run(makes_pairs("create_keep", "alice", "bob"), nothing)
    assert "EntanglementTimeoutError" in str(one.errors["alice"])
    assert "did not open ER socket 0" in str(one.problem)
    assert one.duration_ns <= 60_000_000_000


def test_entanglement_that_both_receive():
    one = run(makes_pairs("recv_keep", "alice", "bob"), makes_pairs("recv_keep", "bob", "alice"))
    assert set(one.errors) == {"alice", "bob"}
    for other in ("alice", "bob"):
        words = f"it receives 1 pair with node {other} on ER socket 0, of which 0 came"
        assert words in str(one.problem)


def test_socket_ids_that_do_not_match():
    one = run(
        makes_pairs("create_keep", "alice", "bob", socket_id=1),
        makes_pairs("recv_keep", "bob", "alice", socket_id=2),
    )
    assert "do the socket ids match?" in str(one.errors["alice"])
    assert "on ER socket 2" in str(one.errors["bob"])


# --- the two ends do not fit --------------------------------------------------------------


@pytest.mark.parametrize(("created", "received"), [(2, 1), (1, 2)])
def test_numbers_that_do_not_match(created, received):
    one = run(
        makes_pairs("create_keep", "alice", "bob", number=created),
        makes_pairs("recv_keep", "bob", "alice", number=received),
    )
    for role in ("alice", "bob"):
        assert isinstance(one.errors[role], SubroutineFailedError)
        assert "do not fit" in str(one.errors[role])
        assert f"one is for {created} pairs, the other for {received}" in str(one.errors[role])


@pytest.mark.parametrize(
    ("create", "receive"), [("create_measure", "recv_keep"), ("create_keep", "recv_measure")]
)
def test_types_that_do_not_match(create, receive):
    one = run(makes_pairs(create, "alice", "bob"), makes_pairs(receive, "bob", "alice"))
    assert set(one.errors) == {"alice", "bob"}
    assert all("do not fit" in str(error) for error in one.errors.values())


def test_entanglement_that_both_create():
    one = run(
        makes_pairs("create_keep", "alice", "bob"), makes_pairs("create_keep", "bob", "alice")
    )
    assert one.errors
    assert "every create request needs a receive request" in str(one.problem)


def test_a_route_that_does_not_exist():
    network = NetworkDescription.joined(["alice", "bob", "carol"], [("alice", "carol")])
    one = run(
        makes_pairs("create_keep", "alice", "bob"),
        makes_pairs("recv_keep", "bob", "alice"),
        network=network,
    )
    for role in ("alice", "bob"):
        assert "to which there is no route" in str(one.errors[role])


def test_a_socket_that_is_used_twice():
    def alice() -> None:
        sockets = [EPRSocket("bob"), EPRSocket("bob")]
        with NetQASMConnection("alice", epr_sockets=sockets):
            sockets[0].create_keep()[0].measure()

    one = run(alice, makes_pairs("recv_keep", "bob", "alice"))
    assert "ER socket 0 to node 1 is already open" in str(one.errors["alice"])
    assert "that had ER socket 0 has ended" in str(one.errors["bob"])


def test_two_programs_of_a_node_that_receive_the_same_messages():
    application = Application.from_functions(
        {"alice": receives_message("alice", "bob"), "carol": receives_message("alice", "bob"),
         "bob": nothing},
        allocation={"alice": "here", "carol": "here", "bob": "there"},
    )  # fmt: skip
    (one,) = simulate(application)
    assert "distinct socket ids" in str(one.problem)


@pytest.mark.parametrize(
    "program",
    [receives_message("alice", "carol"), makes_pairs("create_keep", "alice", "carol")],
)
def test_a_role_that_does_not_exist(program):
    one = run(program, nothing)
    assert isinstance(one.errors["alice"], ConfigurationError)
    assert "unknown application 'carol'; known are: alice, bob" in str(one.problem)


def test_a_role_on_a_node_that_does_not_exist():
    application = Application.from_functions({"alice": nothing}, allocation={"alice": "delft"})
    network = NetworkDescription.fully_connected(["alice", "bob"])
    with pytest.raises(ConfigurationError, match=r"role alice.*'delft'.*nodes are alice, bob"):
        simulate(application, network=network)


# --- programs that raise ------------------------------------------------------------------


def test_the_other_program_is_told_of_too():
    one = run(receives_message("alice", "bob"), raises)
    assert isinstance(one.errors["bob"], ValueError)
    assert "program bob failed: ValueError: out of luck" in str(one.problem)
    assert "alice for a message from bob" in str(one.problem)


def test_a_program_cannot_end_the_simulation():
    one = run(nothing, lambda: sys.exit(3))
    assert one.results == {"app_alice": "done"}
    assert "program bob failed: ProgramError: it called sys.exit(3)" in str(one.problem)


def test_what_a_program_raised_is_the_cause():
    application = Application.from_functions({"alice": raises, "bob": nothing})
    with pytest.raises(ProgramError) as caught:
        run_application(application)
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_first_round_that_fails_is_the_last():
    calls: list[None] = []

    def sometimes() -> int:
        calls.append(None)
        if len(calls) == 3:
            raise ValueError("the third")
        return len(calls)

    rounds = simulate(Application.from_functions({"alice": sometimes}), rounds=10)
    assert [one.results for one in rounds] == [{"app_alice": 1}, {"app_alice": 2}, {}]
    assert [one.problem is None for one in rounds] == [True, True, False]


# --- programs that never end --------------------------------------------------------------


def asks_for_ever() -> None:
    socket = Socket("alice", "bob")
    while True:
        try:
            socket.recv(block=False)
        except RuntimeError:
            continue


def measures_for_ever() -> None:
    with NetQASMConnection("alice") as connection:
        while True:
            Qubit(connection).measure()
            connection.flush()


@pytest.mark.parametrize(
    ("program", "words"),
    [(asks_for_ever, "a look for messages from bob"), (measures_for_ever, "of subroutine")],
)
def test_the_steps_of_the_simulation_are_limited(program, words):
    one = run(program, nothing, limits=RunLimits(duration_s=1_000, steps=2_000))
    assert isinstance(one.problem, StalledProgramsError)
    assert "2000 steps of the simulation are done, the limit (--max-steps)" in str(one.problem)
    assert words in str(one.errors["alice"])


def test_virtual_time_is_limited():
    one = run(asks_for_ever, nothing, limits=RunLimits(duration_s=0.005, steps=100_000))
    assert "0.005 s of virtual time are over, the limit (--timeout)" in str(one.problem)
    assert one.duration_ns <= 5_100_000


def test_a_loop_without_end_at_the_qnpu():
    def alice() -> None:
        with NetQASMConnection("alice") as connection:
            with connection.loop(1 << 30):
                Qubit(connection).measure(store_array=False)
            connection.flush()

    one = run(alice, nothing)
    assert "alice for the result of subroutine 0" in str(one.problem)


def test_nothing_is_left_for_the_round_after():
    """Programs that were stopped have given their qubits back, and later rounds are as ever."""

    def bob() -> None:
        raise ValueError

    for _ in range(2):
        one = run(makes_pairs("create_keep", "alice", "bob"), bob)
        assert set(one.errors) == {"alice", "bob"}
    good = run(makes_pairs("create_keep", "alice", "bob"), makes_pairs("recv_keep", "bob", "alice"))
    assert good.problem is None
