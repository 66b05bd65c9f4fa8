"""Receives the pairs that alice asks for."""

from netqasm.sdk import EPRSocket
from netqasm.sdk.external import NetQASMConnection


def main(app_config, pairs=10):
    """Outcomes along Z, pair by pair."""
    epr_socket = EPRSocket("alice")
    with NetQASMConnection("bob", epr_sockets=[epr_socket], max_qubits=1):
        results = epr_socket.recv_measure(number=pairs)
    return [int(result.measurement_outcome) for result in results]
