"""The state of a qubit, which only a simulation can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from qnodeos.applications.states import density_matrix, find_qubit
from qnodeos.assembly.many_nodes import NetworkSystem
from qnodeos.cnpu import external
from qnodeos.errors import ProgramError


@dataclass(frozen=True)
class Observer:
    """Sees the qubits of a network; see `qnodeos.cnpu.external.Simulation`."""

    system: NetworkSystem
    keeps_logs: bool = False

    def qubit_state(self, connection: Any, virtual: int, *, is_reduced: bool) -> NDArray[Any]:
        """See `qnodeos.cnpu.external.Simulation`."""
        qubit = find_qubit(self.system, connection.node_name, connection.owner, virtual)
        return density_matrix(self.system, qubit, is_reduced=is_reduced)

    def on_close(self, connection: Any) -> None:
        """Nothing to see then."""


def get_qubit_state(q: Any, node_name: str = "", full_state: bool = False) -> NDArray[Any]:
    """The density matrix of a qubit.

    What the program has not flushed has not happened to it.

    Args:
        q: the qubit.
        node_name: ignored: a qubit knows where it is.
        full_state: with everything it may be entangled with, wherever that is: the qubit
            itself first, then the others in order of node and of physical address.

    Returns:
        Complex, 2x2, or larger with ``full_state``.

    Raises:
        ProgramError: this is no simulation, or the qubit is not there any more.
    """
    observer = external.simulation.get(None)
    if observer is None:
        raise ProgramError("the state of a qubit can be looked at by a program that runs only")
    state: NDArray[Any] = observer.qubit_state(q.connection, q.qubit_id, is_reduced=not full_state)
    return state
