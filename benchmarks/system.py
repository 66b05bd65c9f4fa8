"""The simulated system the benchmarks run: two NV nodes, link fast, latencies zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qnodeos.assembly import NetworkConfig, TwoNodeSystem, build_two_nodes, load_profile
from qnodeos.cnpu.external import install
from sim.network import ProgramSpec

ALPHA_STEPS: Final = 8
THETA_STEPS: Final = 8
TRACE_CAPACITY: Final = 1 << 18
"""Events per recorder: enough for the longest program, at about 45 events a circuit."""


def fast_system(seed: int | str) -> TwoNodeSystem:
    """A new pair of nodes with the noise of the experiment and no software latency."""
    return build_two_nodes(NetworkConfig.preset("fast"), load_profile("zero"), seed, TRACE_CAPACITY)


def dqc_programs(
    circuits: int,
    decorate: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda entry: entry,
) -> list[ProgramSpec]:
    """Client and server of the DQC experiment.

    Args:
        circuits: how many they do.
        decorate: applied to the functions of both programs.
    """
    install()  # before the programs are imported, for they import the SDK's connection
    from qnodeos.experiments.programs import dqc_client, dqc_server

    client = {"alpha_steps": ALPHA_STEPS, "theta_steps": THETA_STEPS, "circuits": circuits}
    server = {"alpha_steps": ALPHA_STEPS, "circuits": circuits}
    return [
        ProgramSpec("client", "dqc_client", decorate(dqc_client.main), client),
        ProgramSpec("server", "dqc_server", decorate(dqc_server.main), server),
    ]
