"""Delegated computation of one qubit on NV nodes, in the style of the simulator SquidASM.

The client prepares a qubit at the server, in a state only it knows, and tells it by what angle
to measure it. Run it with `.venv/bin/qnodeos squidasm examples/squidasm/bqc.py`.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from pathlib import Path

from pydynaa import EventExpression
from squidasm.run.stack.config import StackNetworkConfig
from squidasm.run.stack.run import run
from squidasm.sim.stack.csocket import ClassicalSocket
from squidasm.sim.stack.program import Program, ProgramContext, ProgramMeta
from squidasm.util.routines import recv_remote_state_preparation, remote_state_preparation

CONFIG = Path(__file__).with_name("bqc.yaml")


class ClientProgram(Program):
    """Computes H Rz(alpha) |+> without telling alpha."""

    PEER = "server"

    def __init__(self, alpha: float, theta: float, trap: int = 0) -> None:
        self.alpha, self.theta, self.trap = alpha, theta, trap

    @property
    def meta(self) -> ProgramMeta:
        """What the program needs."""
        return ProgramMeta(
            name="client",
            parameters={},
            csockets=[self.PEER],
            epr_sockets=[self.PEER],
            max_qubits=1,
        )

    def run(self, context: ProgramContext) -> Generator[EventExpression, None, dict[str, int]]:
        """Prepare, and send the angle."""
        outcome = remote_state_preparation(context.epr_sockets[self.PEER], self.theta)
        yield from context.connection.flush()
        delta = self.alpha - self.theta + (int(outcome) + self.trap) * math.pi
        context.csockets[self.PEER].send_float(delta % (2 * math.pi))
        return {"p": int(outcome)}


class ServerProgram(Program):
    """Measures what it is told to."""

    PEER = "client"

    @property
    def meta(self) -> ProgramMeta:
        """What the program needs."""
        return ProgramMeta(
            name="server",
            parameters={},
            csockets=[self.PEER],
            epr_sockets=[self.PEER],
            max_qubits=1,
        )

    def run(self, context: ProgramContext) -> Generator[EventExpression, None, dict[str, int]]:
        """Receive the qubit and the angle, and measure."""
        csocket: ClassicalSocket = context.csockets[self.PEER]
        qubit = recv_remote_state_preparation(context.epr_sockets[self.PEER])
        yield from context.connection.flush()
        delta = yield from csocket.recv_float()
        qubit.rot_Z(angle=delta)
        qubit.H()
        outcome = qubit.measure(store_array=False)
        yield from context.connection.flush()
        return {"m": int(outcome)}


def main(alpha: float, num_times: int = 40) -> float:
    """How often the server measures 1."""
    config = StackNetworkConfig.from_file(str(CONFIG))
    programs = {"client": ClientProgram(alpha, theta=math.pi / 8), "server": ServerProgram()}
    _, server = run(config, programs, num_times)
    return sum(result["m"] for result in server) / num_times


if __name__ == "__main__":
    for name, angle in (("0", 0.0), ("pi/2", math.pi / 2), ("pi", math.pi)):
        print(f"alpha = {name}: {main(angle):.0%} ones")
