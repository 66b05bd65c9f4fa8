"""Asks for pairs with bob, who is no neighbour, and measures its halves."""

from netqasm.sdk import EPRSocket
from netqasm.sdk.external import NetQASMConnection


def main(app_config, pairs=10):
    """Outcomes along Z, pair by pair."""
    epr_socket = EPRSocket("bob")
    outcomes = []
    with NetQASMConnection("alice", epr_sockets=[epr_socket], max_qubits=1) as connection:
        for _ in range(pairs):
            outcome = epr_socket.create_keep()[0].measure()
            connection.flush()
            outcomes.append(int(outcome))
    return outcomes
