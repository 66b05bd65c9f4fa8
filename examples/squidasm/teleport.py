"""Teleportation in the style of the simulator SquidASM; runs there and on qnodeos.

Run it with `.venv/bin/qnodeos squidasm examples/squidasm/teleport.py`.
"""

from __future__ import annotations

import sys

import numpy as np
from netqasm.sdk import Qubit
from netqasm.sdk.toolbox.state_prep import set_qubit_state
from netsquid.qubits.dmutil import dm_fidelity
from squidasm.run.stack.run import run
from squidasm.sim.stack.common import LogManager
from squidasm.sim.stack.program import Program, ProgramContext, ProgramMeta
from squidasm.util import create_two_node_network, get_qubit_state, get_reference_state
from squidasm.util.routines import teleport_recv, teleport_send


class Sender(Program):
    """Prepares a state and teleports it."""

    def __init__(self, phi: float, theta: float) -> None:
        self.phi, self.theta = phi, theta

    @property
    def meta(self) -> ProgramMeta:
        """What the program needs."""
        return ProgramMeta(name="sender", csockets=["Bob"], epr_sockets=["Bob"], max_qubits=2)

    def run(self, context: ProgramContext):
        """Teleport the state to Bob."""
        qubit = Qubit(context.connection)
        set_qubit_state(qubit, self.phi, self.theta)
        yield from teleport_send(qubit, context, peer_name="Bob")
        return {"sent": get_reference_state(self.phi, self.theta)}


class Receiver(Program):
    """Receives the state."""

    @property
    def meta(self) -> ProgramMeta:
        """What the program needs."""
        return ProgramMeta(name="receiver", csockets=["Alice"], epr_sockets=["Alice"], max_qubits=2)

    def run(self, context: ProgramContext):
        """Receive the state from Alice, and look at it."""
        qubit = yield from teleport_recv(context, peer_name="Alice")
        state = get_qubit_state(qubit, "Bob")
        LogManager.get_stack_logger("Receiver").info("received a qubit")
        qubit.measure()
        yield from context.connection.flush()
        return {"received": state}


def main(link_noise: float, num_times: int = 20) -> float:
    """Teleport a random state; returns the average fidelity."""
    phi, theta = np.pi * np.random.random(2)
    sent, received = run(
        config=create_two_node_network(link_noise=link_noise),
        programs={"Alice": Sender(phi, theta), "Bob": Receiver()},
        num_times=num_times,
    )
    fidelities = [
        dm_fidelity(a["sent"], b["received"], squared=True)
        for a, b in zip(sent, received, strict=True)
    ]
    return float(np.mean(fidelities))


if __name__ == "__main__":
    noise = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    fidelity = main(noise)
    print(f"average fidelity with {noise:.0%} noise in the pair: {fidelity:.3f}")
