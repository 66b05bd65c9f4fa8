"""Several simulated registers, driven by instructions over the wire, and what they did."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np
import qutip

from qnodeos.qdevice.endpoint import FrameMaster, Response
from qnodeos.qdevice.instructions import Axis, PhysicalInstruction, ini
from qnodeos.qdevice.outcomes import Outcome
from sim.link import EntanglementLink
from sim.pauli import PauliState, Qubit
from sim.register_device import RegisterDevice, joint_state
from sim.register_physics import RegisterPhysics

SIGMA = {Axis.X: qutip.sigmax(), Axis.Y: qutip.sigmay(), Axis.Z: qutip.sigmaz()}


class Node:
    """A device and the master's end of its wire."""

    def __init__(
        self,
        physics: RegisterPhysics,
        links: Sequence[EntanglementLink] = (),
        seed: int = 0,
        name: str = "node",
    ) -> None:
        self.device = RegisterDevice(physics, links, random.Random(seed), name)
        self.master = FrameMaster()


class Bench:
    """Nodes on one clock.

    Attributes:
        tick: the next tick.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.tick = 0

    def run(self, *instructions: PhysicalInstruction | None, reverse: bool = False):
        """Have each node execute one instruction, or none; the responses.

        Args:
            instructions: one per node.
            reverse: exchange the frames of every tick in the reverse order of the nodes.
        """
        waiting: dict[int, Response | None] = {}
        for place, instruction in enumerate(instructions):
            if instruction is not None:
                self.nodes[place].master.submit(instruction)
                waiting[place] = None
        order = list(enumerate(self.nodes))
        while any(response is None for response in waiting.values()):
            for place, node in reversed(order) if reverse else order:
                frame = node.device.exchange(self.tick, node.master.outgoing())
                response = node.master.incoming(frame)
                if response is not None:
                    waiting[place] = response
            self.tick += 1
        return [waiting[place] for place in sorted(waiting)]

    def do(self, instructions: Iterable[PhysicalInstruction], node: int = 0) -> list[Outcome]:
        """Have one node execute instructions that succeed; their outcomes."""
        outcomes = []
        for instruction in instructions:
            asked = [None] * node + [instruction]
            (response,) = self.run(*asked)
            assert response.outcome.is_success, (instruction, response)
            outcomes.append(response.outcome)
        return outcomes

    def state(self, *halves: tuple[int, int]) -> PauliState:
        """The state now of qubits, each given as node and address."""
        return joint_state(
            [(self.nodes[node].device, address) for node, address in halves], self.tick
        )


def entangle_all(bench: Bench, node: int = 0) -> list[Qubit]:
    """Put every qubit of a node into Phi+ with a reference qubit outside; the references.

    Whatever is done to the node's qubits then stands in the state of all (Choi), so that wrong
    phases between inputs show too.
    """
    device = bench.nodes[node].device
    count = device.physics.qubits
    bench.do((ini(address) for address in range(count)), node)
    vector = np.eye(2**count).reshape(-1) / np.sqrt(2**count)
    qubits = list(PauliState.from_pure(vector).qubits)
    for address, qubit in enumerate(qubits[:count]):
        held = device.held(address)
        assert held is not None
        held.qubit.discard()
        held.take(qubit, bench.tick * device.physics.tick_ns)
    return qubits[count:]


def on(operator: qutip.Qobj, targets: Sequence[int], count: int) -> qutip.Qobj:
    """An operator on some of several qubits."""
    return qutip.expand_operator(operator, dims=[2] * count, targets=list(targets))


def turned(axis: Axis, angle: float) -> qutip.Qobj:
    """exp(-i angle/2 sigma)."""
    return (-0.5j * angle * SIGMA[axis]).expm()


def controlled(axis: Axis, angle: float) -> qutip.Qobj:
    """NV's crot: +angle if the first qubit is |0>, otherwise -angle."""
    zero, one = qutip.fock_dm(2, 0), qutip.fock_dm(2, 1)
    return qutip.tensor(zero, turned(axis, angle)) + qutip.tensor(one, turned(axis, -angle))


def check_unitary(
    physics: RegisterPhysics,
    instructions: Iterable[PhysicalInstruction],
    unitary: qutip.Qobj,
    targets: Sequence[int],
    atol: float = 1e-12,
) -> None:
    """Instructions act as a unitary on some qubits of a device, and not at all on the others.

    Args:
        physics: of the device, noiseless.
        instructions: what is executed.
        unitary: what it should do to ``targets``, up to a global phase.
        targets: addresses.
        atol: largest error of an element of the state of all qubits and references.
    """
    bench = Bench([Node(physics)])
    references = entangle_all(bench)
    bench.do(instructions)
    count = physics.qubits
    found = [bench.nodes[0].device.held(address) for address in range(count)]
    own = [held.qubit.index for held in found if held is not None]
    state = references[0].state.reduced(*own, *(qubit.index for qubit in references))
    whole = on(unitary, targets, count).full()
    expected = whole.reshape(-1) / np.sqrt(2**count)
    np.testing.assert_allclose(
        state.density_matrix(), np.outer(expected, expected.conj()), rtol=0, atol=atol
    )
