"""Delegated quantum computation: the server (paper, Fig. 4a)."""

from netqasm.sdk import EPRSocket
from netqasm.sdk.external import NetQASMConnection, Socket


def main(alpha_steps: int, circuits: int) -> list[int]:
    """Do the rotation the client asks for, and verify the result, repeatedly.

    In a real application the server would not know alpha; it is here to choose the basis
    in which the result is verified.

    Args:
        alpha_steps: the delegated rotation, in units of pi/16.
        circuits: how often. Even circuits verify along the target state, odd ones opposite.

    Returns:
        The server's measurement results, one per circuit.
    """
    epr_socket = EPRSocket("client")
    client = Socket("server", "client")
    outcomes: list[int] = []
    with NetQASMConnection("server", epr_sockets=[epr_socket], max_qubits=1) as connection:
        for circuit in range(circuits):
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
    return outcomes
