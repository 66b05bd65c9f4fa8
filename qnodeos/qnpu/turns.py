"""Whose turn it is at a repeater: circuits are served so that they cannot block each other.

A circuit needs two qubits at a repeater, and its segments are made one after the other. If
every qubit held the first half of another circuit, none could get its second. So only as many
circuits are served at once as there are pairs of qubits, the others wait.

Two repeaters could still serve different circuits that both lead through both. So all nodes
put the attempts in the same order, by their turns, and one that was let in out of order makes
room for an earlier one: it is expired, and keeps its turn. This is wound-wait (Rosenkrantz,
Stearns, Lewis, ACM Trans. Database Syst. 3, 178 (1978)): the first of all turns never waits for
a later one, so somebody always gets on.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

from qnodeos.qnpu.circuits import Circuit, CircuitState, Turn


class Turns:
    """The circuits that a repeater serves, and those that wait.

    Args:
        room: how many can be served at once as things are.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._waiting: list[Circuit] = []
        self.served: dict[Circuit, None] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def wait(self, circuit: Circuit) -> None:
        """A circuit begins an attempt."""
        insort(self._waiting, circuit, key=_turn)

    def leave(self, circuit: Circuit) -> None:
        """A circuit needs nothing more for this attempt, wherever it was."""
        self.served.pop(circuit, None)
        if circuit in self._waiting:
            self._waiting.remove(circuit)

    def admit(self) -> Circuit | None:
        """The next circuit to be served; None if there is no room, or nobody waits."""
        if not self._waiting or len(self.served) >= self._room():
            return None
        circuit = self._waiting.pop(0)
        self.served[circuit] = None
        return circuit

    def must_make_room(self) -> Circuit | None:
        """A circuit that is served before an earlier one, and can still be stopped."""
        if not self._waiting or len(self.served) > self._room():
            return None
        stoppable = [each for each in self.served if each.state is CircuitState.MAKING]
        latest = max(stoppable, key=_turn, default=None)
        return latest if latest is not None and latest.turn > self._waiting[0].turn else None


def _turn(circuit: Circuit) -> Turn:
    return circuit.turn
