"""Asks for pairs with bob, who is no neighbour, and measures its halves at once."""

from netqasm.qlink_compat import TimeUnit
from netqasm.sdk import EPRSocket
from netqasm.sdk.external import NetQASMConnection


def main(app_config, pairs=10, max_time_ms=0):
    """Outcomes along Z, pair by pair; an error if they take longer than a time that is not 0."""
    epr_socket = EPRSocket("bob")
    with NetQASMConnection("alice", epr_sockets=[epr_socket], max_qubits=1):
        results = epr_socket.create_measure(
            number=pairs, time_unit=TimeUnit.MILLI_SECONDS, max_time=max_time_ms
        )
    return [int(result.measurement_outcome) for result in results]
