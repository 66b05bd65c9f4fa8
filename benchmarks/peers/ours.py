"""Running a program here, on two simulated nodes in virtual time."""

from __future__ import annotations

from typing import Any, Final

from qnodeos.assembly import GenericDevice, NetworkDescription, build_network, load_profile
from qnodeos.cnpu.external import install
from sim.network import ProgramSpec

install()  # before the programs are imported: their connections are ours

from benchmarks.peers.programs import PROGRAMS  # noqa: E402

ROLES: Final = ("alice", "bob")


def run(program: str, circuits: int, seed: int) -> dict[str, Any]:
    """Run a program; what alice returned.

    The nodes are perfect and have two qubits each, as SimulaQron's are; pairs are heralded in
    the quick link's time bins, of which every attempt is simulated.

    Args:
        program: its name.
        circuits: how many are timed.
        seed: of all randomness.
    """
    description = NetworkDescription.fully_connected(ROLES, GenericDevice(qubits=2))
    with build_network(description, load_profile("zero"), seed) as system:
        specs = [
            ProgramSpec(role, role, getattr(PROGRAMS[program], role), {"circuits": circuits})
            for role in ROLES
        ]
        return dict(system.network.run(specs)[0])
