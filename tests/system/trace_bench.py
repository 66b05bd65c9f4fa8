"""Simulated runs whose traces the tests look at."""

from __future__ import annotations

from qnodeos.assembly import NetworkConfig, build_two_nodes, load_profile
from qnodeos.cnpu.external import install
from qnodeos.trace.export import NodeTraces
from sim.network import ProgramSpec


def dqc_traces(
    circuits: int, pairs: int = 1, link: str = "prompt", seed: str = "1"
) -> list[NodeTraces]:
    """Traces of client and server that ran delegated computation.

    Args:
        circuits: of each pair of programs.
        pairs: of programs that ran at once.
        link: preset of the link.
        seed: of all randomness.
    """
    install()
    from qnodeos.experiments.programs import dqc_client, dqc_server

    programs = []
    for number in range(pairs):
        inputs = {"alpha_steps": 8, "circuits": circuits, "socket_id": number}
        programs += [
            ProgramSpec("client", "dqc_client", dqc_client.main, inputs | {"theta_steps": 4}),
            ProgramSpec("server", "dqc_server", dqc_server.main, inputs),
        ]
    network = NetworkConfig.preset(link)
    with build_two_nodes(network, load_profile("paper"), seed, 1 << 17) as system:
        system.network.run(programs)
    return [
        NodeTraces.from_recorders(
            name,
            handles.host_trace,
            handles.qnpu_trace,
            {number + 1: f"dqc_{name} {number}" for number in range(pairs)},
        )
        for name, handles in (("client", system.client), ("server", system.server))
    ]
