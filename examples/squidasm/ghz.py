"""A GHZ state of three nodes in the style of the simulator SquidASM.

Run it with `.venv/bin/qnodeos squidasm examples/squidasm/ghz.py`.
"""

from __future__ import annotations

from netsquid_netbuilder.modules.clinks.default import DefaultCLinkConfig
from netsquid_netbuilder.modules.qlinks.perfect import PerfectQLinkConfig
from squidasm.run.stack.run import run
from squidasm.sim.stack.program import Program, ProgramContext, ProgramMeta
from squidasm.util.routines import create_ghz
from squidasm.util.util import create_complete_graph_network

NODES = ["Anna", "Boris", "Clara"]


class GhzProgram(Program):
    """One node of the row."""

    def __init__(self, name: str) -> None:
        self.place = NODES.index(name)
        self.peers = [peer for peer in NODES if peer != name]

    @property
    def meta(self) -> ProgramMeta:
        """What the program needs."""
        return ProgramMeta(name="ghz", csockets=self.peers, epr_sockets=self.peers, max_qubits=2)

    def run(self, context: ProgramContext):
        """Make the state and measure it."""
        below = NODES[self.place - 1] if self.place > 0 else None
        above = NODES[self.place + 1] if self.place + 1 < len(NODES) else None
        qubit, _ = yield from create_ghz(
            context.connection,
            context.epr_sockets.get(below),
            context.epr_sockets.get(above),
            context.csockets.get(below),
            context.csockets.get(above),
            do_corrections=True,
        )
        outcome = qubit.measure()
        yield from context.connection.flush()
        return {"outcome": int(outcome)}


def main(num_times: int = 10) -> list[tuple[int, ...]]:
    """Make the state again and again; returns the outcomes of all nodes."""
    config = create_complete_graph_network(
        NODES,
        "perfect",
        PerfectQLinkConfig(state_delay=100),
        clink_typ="default",
        clink_cfg=DefaultCLinkConfig(delay=100),
    )
    results = run(config, {name: GhzProgram(name) for name in NODES}, num_times=num_times)
    return list(zip(*([run["outcome"] for run in of_node] for of_node in results), strict=True))


if __name__ == "__main__":
    outcomes = main()
    for row in outcomes:
        print(" ".join(f"{name}: {outcome}" for name, outcome in zip(NODES, row, strict=True)))
