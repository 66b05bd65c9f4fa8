"""Delegated quantum computation: the server (paper, Fig. 4a)."""

from collections.abc import Callable
from itertools import count

from netqasm.sdk import EPRSocket
from netqasm.sdk.external import NetQASMConnection, Socket


def main(
    alpha_steps: int,
    circuits: int | None,
    on_circuit: Callable[[int], None] | None = None,
    socket_id: int = 0,
) -> list[int]:
    """Do the rotation the client asks for, and verify the result, repeatedly.

    In a real application the server would not know alpha; it is here to choose the basis
    in which the result is verified.

    Args:
        alpha_steps: the delegated rotation, in units of pi/16.
        circuits: how often; None for until it is stopped. Even circuits verify along the
            target state, odd ones opposite.
        on_circuit: called with the server's measurement result after every circuit.
        socket_id: of its sockets; programs that run at once need different ones.

    Returns:
        The server's measurement results, one per circuit.
    """
    epr_socket = EPRSocket("client", socket_id, socket_id)
    client = Socket("server", "client", socket_id)
    outcomes: list[int] = []
    with NetQASMConnection("server", epr_sockets=[epr_socket], max_qubits=1) as connection:
        for circuit in count() if circuits is None else range(circuits):
            orientation = circuit % 2
            qubit = epr_socket.recv_keep()[0]
            connection.flush()
            delta_steps = int(client.recv())
            # H Rz(delta), in rotations NV hardware has.
            qubit.rot_Y(n=8, d=4)
            qubit.rot_X(n=(delta_steps + 16) % 32, d=4)
            # Verification: turn the target state Rx(alpha)|0> onto |0> (or |1>).
            qubit.rot_X(n=(16 * orientation - alpha_steps) % 32, d=4)
            outcome = qubit.measure(store_array=False)
            connection.flush()
            outcomes.append(int(outcome))
            if on_circuit is not None:
                on_circuit(outcomes[-1])
    return outcomes
