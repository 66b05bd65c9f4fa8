"""Delegated quantum computation: the client (paper, Fig. 4a)."""

from collections.abc import Callable

from netqasm.sdk import EPRSocket
from netqasm.sdk.external import NetQASMConnection, Socket


def main(
    alpha_steps: int,
    theta_steps: int,
    circuits: int,
    on_circuit: Callable[[], None] | None = None,
) -> list[int]:
    """Prepare the server's qubit remotely and tell it by how much to rotate, repeatedly.

    Args:
        alpha_steps: rotation to delegate, in units of pi/16.
        theta_steps: random-looking angle that hides it, in units of pi/16.
        circuits: how often.
        on_circuit: called after every circuit.

    Returns:
        The client's measurement results, one per circuit.
    """
    epr_socket = EPRSocket("server")
    server = Socket("client", "server")
    outcomes: list[int] = []
    with NetQASMConnection("client", epr_sockets=[epr_socket], max_qubits=1) as connection:
        for _ in range(circuits):
            qubit = epr_socket.create_keep()[0]
            # H Rz(theta), in rotations NV hardware has.
            qubit.rot_Y(n=8, d=4)
            qubit.rot_X(n=(theta_steps + 16) % 32, d=4)
            outcome = qubit.measure(store_array=False)
            connection.flush()
            outcomes.append(int(outcome))
            server.send(str((alpha_steps - theta_steps + 16 * outcomes[-1]) % 32))
            if on_circuit is not None:
                on_circuit()
    return outcomes
