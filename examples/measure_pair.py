"""Two programs that share an entangled pair and measure it, on two simulated NV nodes.

Run it with `.venv/bin/python examples/measure_pair.py`.
"""

from __future__ import annotations

from qnodeos.assembly import NetworkConfig, build_two_nodes, load_profile
from qnodeos.cnpu.external import install
from sim.network import ProgramSpec

install()  # from here on, the SDK's names mean qnodeos

from netqasm.sdk import EPRSocket  # noqa: E402
from netqasm.sdk.external import NetQASMConnection, Socket  # noqa: E402


def client(pairs: int) -> list[int]:
    """Create entanglement, measure, and tell the server the result."""
    epr_socket = EPRSocket("server")
    socket = Socket("client", "server")
    outcomes = []
    with NetQASMConnection("client", epr_sockets=[epr_socket], max_qubits=1) as connection:
        for _ in range(pairs):
            outcome = epr_socket.create_keep()[0].measure()
            connection.flush()
            outcomes.append(int(outcome))
            socket.send(str(outcomes[-1]))
    return outcomes


def server(pairs: int) -> float:
    """Receive entanglement, measure, and compare with what the client found."""
    epr_socket = EPRSocket("client")
    socket = Socket("server", "client")
    agreed = 0
    with NetQASMConnection("server", epr_sockets=[epr_socket], max_qubits=1) as connection:
        for _ in range(pairs):
            outcome = epr_socket.recv_keep()[0].measure()
            connection.flush()
            agreed += int(outcome) == int(socket.recv())
    return agreed / pairs


def main() -> None:
    """Run both programs and print what they return."""
    system = build_two_nodes(NetworkConfig.preset("fast"), load_profile("paper"), seed=1)
    outcomes, agreement = system.network.run(
        [
            ProgramSpec("client", "client", client, {"pairs": 200}),
            ProgramSpec("server", "server", server, {"pairs": 200}),
        ]
    )
    print(f"client measured 1 in {sum(outcomes) / len(outcomes):.0%} of the pairs")
    print(f"server agreed with the client on {agreement:.0%} of them")


if __name__ == "__main__":
    main()
