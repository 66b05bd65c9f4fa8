"""Applications of NetQASM, whole: loading them, and running them on simulated nodes.

==============================  ============================================================
`applications.application`      a program per role, from a directory or from functions
`applications.modules`          the modules of an application, apart from those of others
`applications.simulation`       running them in virtual time
`applications.networks`         the network they are simulated on
`applications.two_nodes`        the experiments' two nodes, at a chosen depth, instead
`applications.names`            what NetQASM's names mean to simulated programs
`applications.states`           the states of qubits, which only a simulation can tell
`applications.output`           what programs print and log
`applications.messages`         what programs tell each other
`applications.logs`             log files as NetQASM lays them out
`applications.scripts`          scripts that simulate themselves
`applications.squidasm`         programs written for the simulator SquidASM
`applications.conformance`      the applications that come with NetQASM, judged
`applications.template`         a new application, to begin with
==============================  ============================================================

What is imported here is what most users of the package need.
"""

from __future__ import annotations

from qnodeos.applications.application import Application, load_application
from qnodeos.applications.networks import default_network, read_network
from qnodeos.applications.simulation import (
    Round,
    SimulationOptions,
    run_application,
    simulate,
)
from sim.network import RunLimits

__all__ = [
    "Application",
    "Round",
    "RunLimits",
    "SimulationOptions",
    "default_network",
    "load_application",
    "read_network",
    "run_application",
    "simulate",
]
