"""The two ends of a path, which ask for one pair after another."""

from collections.abc import Callable, Sequence
from typing import Any

from netqasm.sdk import EPRSocket
from netqasm.sdk.build_epr import EprMeasBasis
from netqasm.sdk.external import NetQASMConnection, Socket

QUBITS = 2
"""With one, the SDK does not wait for a pair before it is used."""


def create(
    node: str, peer: str, pairs: int, bases: Sequence[str], on_pair: Callable[[int], None]
) -> list[int]:
    """Ask for pairs, one after another.

    Args:
        node: where this runs.
        peer: the other end.
        pairs: how many.
        bases: X, Y or Z, in turn, in which both ends measure at once; empty for pairs that are
            kept until both ends have theirs.
        on_pair: called with the number of a pair that this end has just been given.

    Returns:
        What this end measured, one outcome per pair.
    """

    def ask(epr_socket: EPRSocket, number: int) -> Any:
        if not bases:
            return epr_socket.create_keep()[0]
        basis = EprMeasBasis[bases[number % len(bases)]]
        return epr_socket.create_measure(basis_local=basis, basis_remote=basis)[0]

    return _take_all(node, peer, pairs, bool(bases), ask, on_pair)


def receive(
    node: str, peer: str, pairs: int, measured: bool, on_pair: Callable[[int], None]
) -> list[int]:
    """Be the other end of `create`.

    Args:
        node: where this runs.
        peer: the end that creates.
        pairs: how many.
        measured: whether they are measured at once.
        on_pair: called with the number of a pair that this end has just been given.

    Returns:
        What this end measured, one outcome per pair.
    """

    def ask(epr_socket: EPRSocket, _: int) -> Any:
        return epr_socket.recv_measure()[0] if measured else epr_socket.recv_keep()[0]

    return _take_all(node, peer, pairs, measured, ask, on_pair)


def _take_all(
    node: str,
    peer: str,
    pairs: int,
    measured: bool,
    ask: Callable[[EPRSocket, int], Any],
    on_pair: Callable[[int], None],
) -> list[int]:
    """One pair after another; `ask` says how this end asks for the one of a number."""
    epr_socket = EPRSocket(peer)
    socket = Socket(node, peer)
    outcomes: list[int] = []
    with NetQASMConnection(node, epr_sockets=[epr_socket], max_qubits=QUBITS) as connection:
        for number in range(pairs):
            half = ask(epr_socket, number)
            connection.flush()
            on_pair(number)
            if measured:
                outcome = half.measurement_outcome
            else:
                socket.send("mine")
                socket.recv()  # the other end has its half, too
                outcome = half.measure()
                connection.flush()
            outcomes.append(int(outcome))
    return outcomes
