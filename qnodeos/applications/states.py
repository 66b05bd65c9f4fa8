"""The states of a simulated network's qubits, as NetQASM's programs may look at them.

Qubits that share a state in the simulation are those that something has entangled, or that a
gate has joined; measuring a qubit takes it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnodeos.assembly.many_nodes import NetworkSystem
from qnodeos.errors import ProgramError
from sim.register_device import RegisterDevice, joint_state

Matrix = NDArray[np.complex128]
Place = tuple[str, int]
"""Node and physical address of a qubit."""


def find_qubit(system: NetworkSystem, node: str, owner: tuple[int, int], virtual: int) -> Place:
    """Where the qubit behind a program's virtual address is.

    Args:
        system: the network.
        node: where the program runs.
        owner: (client, application id) of the program at its QNPU.
        virtual: the address.

    Raises:
        ProgramError: the program has no such qubit.
    """
    kernel = system.nodes[node].node.kernel
    for process in kernel.processes.values():
        if process.owner == owner:
            physical = kernel.qmmu.physical(process.pid, virtual)
            if physical is not None:
                return node, physical
    raise ProgramError(
        f"there is no qubit {virtual} at {node} to look at: it was measured or freed"
    )


def density_matrix(system: NetworkSystem, qubit: Place, *, is_reduced: bool) -> Matrix:
    """The state of a qubit as it is now.

    Args:
        system: the network it is in.
        qubit: which.
        is_reduced: whether of it alone; else of all that share its state: first the qubit,
            then the others in order of node and of physical address.

    Returns:
        Shape (2**n, 2**n); the first qubit is the most significant.
    """
    places = [qubit]
    if not is_reduced:
        places += [other for other in sharing(system, qubit) if other != qubit]
    return state_of(system, places)


def sharing(system: NetworkSystem, qubit: Place) -> list[Place]:
    """The qubits that share a state, in order of node and of physical address."""
    number = {name: place for place, name in enumerate(system.nodes)}
    node, address = qubit
    found = [
        (device.name, other) for device, other in _device(system, node).entangled_with(address)
    ]
    return sorted(found, key=lambda place: (number[place[0]], place[1]))


def state_of(system: NetworkSystem, places: Iterable[Place]) -> Matrix:
    """The density matrix of qubits as it is now; the first is the most significant."""
    halves = [(_device(system, node), address) for node, address in places]
    tick = system.network.clock.now_ns // system.description.tick_ns
    return joint_state(halves, tick).density_matrix()


def _device(system: NetworkSystem, node: str) -> RegisterDevice:
    device = system.nodes[node].device
    assert isinstance(device, RegisterDevice)  # what all nodes of a description have
    return device


# --- for post functions, which expect NetSquid ----------------------------------------


class Backend:
    """What NetQASM calls a post function with: ``nodes[name].qmemory._get_qubits(address)``.

    Args:
        system: the network, after its programs have ended. Qubits that they did not measure are
            still there.
    """

    def __init__(self, system: NetworkSystem) -> None:
        states: dict[tuple[Place, ...], _State] = {}
        self.nodes = {name: _Node(_Memory(states, system, name)) for name in system.nodes}


@dataclass(frozen=True)
class _Node:
    qmemory: _Memory


class _Memory:
    def __init__(
        self, states: dict[tuple[Place, ...], _State], system: NetworkSystem, node: str
    ) -> None:
        self._states = states
        self._system = system
        self._node = node

    def _get_qubits(self, positions: Any) -> list[_Qubit | None]:
        addresses = [positions] if isinstance(positions, int) else list(positions)
        return [self._qubit(address) for address in addresses]

    def _qubit(self, address: int) -> _Qubit | None:
        if _device(self._system, self._node).held(address) is None:
            return None
        # Qubits that share a state are to have the same object as their state.
        places = tuple(sharing(self._system, (self._node, address)))
        state = self._states.setdefault(places, _State(self._system, places))
        return _Qubit(state)


@dataclass(frozen=True)
class _Qubit:
    qstate: _State


class _State:
    """A state, with its qubits in order of node and of physical address."""

    def __init__(self, system: NetworkSystem, places: tuple[Place, ...]) -> None:
        self._system = system
        self._places = places

    @property
    def qrepr(self) -> _State:
        """NetSquid's place for what represents the state."""
        return self

    def reduced_dm(self) -> Matrix:
        """The density matrix, shape (2**n, 2**n); the first qubit is the most significant."""
        return state_of(self._system, self._places)
