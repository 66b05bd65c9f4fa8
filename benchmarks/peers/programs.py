"""Two-party programs that run unmodified on SimulaQron and on qnodeos.

Each is a function for alice, who creates the entanglement, and one for bob. They use what both
systems have: `netqasm.sdk.external`, one connection, one classical socket. After every circuit
bob sends alice his outcome, so that neither gets ahead of the other, and at the end alice knows
both outcomes of every circuit. The first circuit is not timed.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

from netqasm.sdk import EPRSocket, Qubit
from netqasm.sdk.external import NetQASMConnection, Socket

ANGLE_STEPS = 32
"""Angles are multiples of pi/16."""
HALF_TURN = ANGLE_STEPS // 2


class Program(NamedTuple):
    """A pair of functions, and what their outcomes must be.

    Attributes:
        alice: takes the number of circuits.
        bob: the same.
        is_right: of alice's and bob's outcome in a circuit of a number, whether they can be.
    """

    alice: Callable[[int], dict[str, Any]]
    bob: Callable[[int], dict[str, Any]]
    is_right: Callable[[int, int, int], bool]


def _alice(circuits: int, circuit: Callable[[int, Any, Any, Any], int]) -> dict[str, Any]:
    """Run circuits as alice; returns outcomes [alice's, bob's] and the seconds they took."""
    outcomes = []
    epr_socket = EPRSocket("bob")
    socket = Socket("alice", "bob")
    begun_s = 0.0
    with NetQASMConnection("alice", epr_sockets=[epr_socket], max_qubits=2) as connection:
        for number in range(circuits + 1):
            if number == 1:
                begun_s = perf_counter()
            mine = circuit(number, connection, epr_socket, socket)
            outcomes.append([mine, int(socket.recv())])
        seconds = perf_counter() - begun_s
    return {"outcomes": outcomes[1:], "seconds": seconds}


def _bob(circuits: int, circuit: Callable[[int, Any, Any, Any], int]) -> dict[str, Any]:
    """Run circuits as bob."""
    epr_socket = EPRSocket("alice")
    socket = Socket("bob", "alice")
    with NetQASMConnection("bob", epr_sockets=[epr_socket], max_qubits=2) as connection:
        for number in range(circuits + 1):
            socket.send(str(circuit(number, connection, epr_socket, socket)))
    return {}


# --- delegated computation of one qubit: H Rz(alpha) |+> --------------------------------


def _alpha(number: int) -> int:
    """Angle that is computed with: 0 or pi, so that the result is certain."""
    return HALF_TURN * (number % 2)


def _theta(number: int) -> int:
    """Angle that hides it."""
    return 5 * number % ANGLE_STEPS


def _dqc_alice(number: int, connection: Any, epr_socket: Any, socket: Any) -> int:
    qubit = epr_socket.create_keep()[0]
    theta = _theta(number)
    qubit.rot_Z(n=theta, d=4)
    qubit.H()
    outcome = qubit.measure()
    connection.flush()
    delta = (_alpha(number) - theta + HALF_TURN * int(outcome)) % ANGLE_STEPS
    socket.send(str(delta))
    return int(outcome)


def _dqc_bob(_number: int, connection: Any, epr_socket: Any, socket: Any) -> int:
    qubit = epr_socket.recv_keep()[0]
    connection.flush()
    qubit.rot_Z(n=int(socket.recv()), d=4)
    qubit.H()
    outcome = qubit.measure()
    connection.flush()
    return int(outcome)


# --- a pair, measured at both ends ------------------------------------------------------


def _pair_alice(_number: int, connection: Any, epr_socket: Any, _socket: Any) -> int:
    outcome = epr_socket.create_keep()[0].measure()
    connection.flush()
    return int(outcome)


def _pair_bob(_number: int, connection: Any, epr_socket: Any, _socket: Any) -> int:
    outcome = epr_socket.recv_keep()[0].measure()
    connection.flush()
    return int(outcome)


# --- teleportation of |1> ---------------------------------------------------------------


def _teleport_alice(_number: int, connection: Any, epr_socket: Any, socket: Any) -> int:
    half = epr_socket.create_keep()[0]
    qubit = Qubit(connection)
    qubit.X()
    qubit.cnot(half)
    qubit.H()
    phase, parity = qubit.measure(), half.measure()
    connection.flush()
    socket.send(f"{int(phase)}{int(parity)}")
    return int(parity)


def _teleport_bob(_number: int, connection: Any, epr_socket: Any, socket: Any) -> int:
    qubit = epr_socket.recv_keep()[0]
    connection.flush()
    phase, parity = socket.recv()
    if parity == "1":
        qubit.X()
    if phase == "1":
        qubit.Z()
    outcome = qubit.measure()
    connection.flush()
    return int(outcome)


def _program(
    alice: Callable[[int, Any, Any, Any], int],
    bob: Callable[[int, Any, Any, Any], int],
    is_right: Callable[[int, int, int], bool],
) -> Program:
    return Program(
        lambda circuits: _alice(circuits, alice), lambda circuits: _bob(circuits, bob), is_right
    )


PROGRAMS = {
    "dqc": _program(
        _dqc_alice,
        _dqc_bob,
        lambda number, _mine, theirs: theirs == number % 2,
    ),
    "pair": _program(_pair_alice, _pair_bob, lambda _number, mine, theirs: mine == theirs),
    "teleport": _program(
        _teleport_alice, _teleport_bob, lambda _number, _mine, theirs: theirs == 1
    ),
}
"""The programs by name; circuits are counted from 1."""
