"""Two programs at once on one node, which share its only qubit.

One makes entangled pairs with the server; the other needs no network, and runs while the
first waits for entanglement. Run it with `.venv/bin/python examples/two_programs.py`.
"""

from __future__ import annotations

from qnodeos.assembly import NetworkConfig, build_two_nodes, load_profile
from qnodeos.cnpu.external import install
from sim.network import ProgramSpec

install()  # from here on, the SDK's names mean qnodeos

from netqasm.sdk import EPRSocket, Qubit  # noqa: E402
from netqasm.sdk.external import NetQASMConnection  # noqa: E402


def creator(pairs: int) -> list[int]:
    """Create entanglement with the server, and measure."""
    epr_socket = EPRSocket("server")
    outcomes = []
    with NetQASMConnection("client", epr_sockets=[epr_socket], max_qubits=1) as connection:
        for _ in range(pairs):
            outcome = epr_socket.create_keep()[0].measure()
            connection.flush()
            outcomes.append(int(outcome))
    return outcomes


def receiver(pairs: int) -> list[int]:
    """Receive entanglement from the client, and measure."""
    epr_socket = EPRSocket("client")
    outcomes = []
    with NetQASMConnection("server", epr_sockets=[epr_socket], max_qubits=1) as connection:
        for _ in range(pairs):
            outcome = epr_socket.recv_keep()[0].measure()
            connection.flush()
            outcomes.append(int(outcome))
    return outcomes


def local(measurements: int) -> list[int]:
    """Initialise a qubit, turn it to |1>, and measure it, again and again."""
    outcomes = []
    with NetQASMConnection("client", max_qubits=1) as connection:
        for _ in range(measurements):
            qubit = Qubit(connection)  # waits if the other program has the node's qubit
            qubit.X()
            outcome = qubit.measure()  # which also gives the qubit back
            connection.flush()
            outcomes.append(int(outcome))
    return outcomes


def main(pairs: int = 40, measurements: int = 400) -> tuple[list[int], list[int], list[int]]:
    """Run all three programs, print what they found, and return it."""
    system = build_two_nodes(NetworkConfig.preset("fast"), load_profile("paper"), seed=1)
    created, received, measured = system.network.run(
        [
            ProgramSpec("client", "creator", creator, {"pairs": pairs}),
            ProgramSpec("server", "receiver", receiver, {"pairs": pairs}),
            ProgramSpec("client", "local", local, {"measurements": measurements}),
        ]
    )
    agreed = sum(a == b for a, b in zip(created, received, strict=True))
    print(f"{pairs} pairs in {system.network.clock.now_ns / 1e9:.1f} s of simulated time")
    print(f"client and server agreed on {agreed / pairs:.0%} of them")
    print(f"the local program measured 1 in {sum(measured) / measurements:.0%} of its rounds")
    return created, received, measured


if __name__ == "__main__":
    main()
