"""Delegated quantum computation: the client (paper, Fig. 4a)."""

from collections.abc import Callable
from itertools import count

from netqasm.sdk import EPRSocket
from netqasm.sdk.external import NetQASMConnection, Socket


def main(
    alpha_steps: int,
    theta_steps: int,
    circuits: int | None,
    on_circuit: Callable[[int], None] | None = None,
    socket_id: int = 0,
) -> list[int]:
    """Prepare the server's qubit remotely and tell it by how much to rotate, repeatedly.

    Args:
        alpha_steps: rotation to delegate, in units of pi/16.
        theta_steps: random-looking angle that hides it, in units of pi/16.
        circuits: how often; None for until it is stopped.
        on_circuit: called with the client's measurement result after every circuit.
        socket_id: of its sockets; programs that run at once need different ones.

    Returns:
        The client's measurement results, one per circuit.
    """
    epr_socket = EPRSocket("server", socket_id, socket_id)
    server = Socket("client", "server", socket_id)
    outcomes: list[int] = []
    with NetQASMConnection("client", epr_sockets=[epr_socket], max_qubits=1) as connection:
        for _ in count() if circuits is None else range(circuits):
            qubit = epr_socket.create_keep()[0]
            # H Rz(theta), in rotations NV hardware has.
            qubit.rot_Y(n=8, d=4)
            qubit.rot_X(n=(theta_steps + 16) % 32, d=4)
            outcome = qubit.measure(store_array=False)
            connection.flush()
            outcomes.append(int(outcome))
            server.send(str((alpha_steps - theta_steps + 16 * outcomes[-1]) % 32))
            if on_circuit is not None:
                on_circuit(outcomes[-1])
    return outcomes
