"""The two ends of a path, which ask for one pair after another."""

from collections.abc import Callable, Sequence

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
    epr_socket = EPRSocket(peer)
    socket = Socket(node, peer)
    outcomes: list[int] = []
    with NetQASMConnection(node, epr_sockets=[epr_socket], max_qubits=QUBITS) as connection:
        for number in range(pairs):
            if bases:
                basis = EprMeasBasis[bases[number % len(bases)]]
                result = epr_socket.create_measure(basis_local=basis, basis_remote=basis)[0]
                connection.flush()
                on_pair(number)
                outcomes.append(int(result.measurement_outcome))
                continue
            qubit = epr_socket.create_keep()[0]
            connection.flush()
            on_pair(number)
            socket.send("mine")
            socket.recv()  # the other end has its half, too
            outcome = qubit.measure()
            connection.flush()
            outcomes.append(int(outcome))
    return outcomes


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
    epr_socket = EPRSocket(peer)
    socket = Socket(node, peer)
    outcomes: list[int] = []
    with NetQASMConnection(node, epr_sockets=[epr_socket], max_qubits=QUBITS) as connection:
        for number in range(pairs):
            if measured:
                result = epr_socket.recv_measure()[0]
                connection.flush()
                on_pair(number)
                outcomes.append(int(result.measurement_outcome))
                continue
            qubit = epr_socket.recv_keep()[0]
            connection.flush()
            on_pair(number)
            socket.send("mine")
            socket.recv()
            outcome = qubit.measure()
            connection.flush()
            outcomes.append(int(outcome))
    return outcomes
