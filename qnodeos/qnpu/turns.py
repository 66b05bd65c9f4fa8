"""Whose turn it is: circuits share the qubits of a node so that they cannot block each other.

An attempt takes two qubits at a repeater, and one at an end. They are filled one after the
other; if every qubit held the first half of another circuit, none could get its second. So an
attempt is let in only if all its qubits are there, the others wait.

Two nodes could still serve different circuits that both lead through both. So all nodes put the
attempts in the same order, by their turns, and one that was let in before an earlier one makes
room for it: it is expired, and keeps its turn. This is wound-wait (Rosenkrantz, Stearns, Lewis,
ACM Trans. Database Syst. 3, 178 (1978)): the first of all turns does not wait for a later one,
except for a head that has told of its half already, so somebody gets on.

Qubits that programs take meanwhile are not to be foreseen. If circuits have blocked each other
by that, the one with the latest turn makes room.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

from qnodeos.qnpu.circuits import Circuit, CircuitState, Turn


class Turns:
    """The circuits that a node serves, and those that wait.

    Args:
        capacity: how many qubits circuits can have as things are.

    Attributes:
        served: those whose attempts have been let in.
    """

    def __init__(self, capacity: Callable[[], int]) -> None:
        self._capacity = capacity
        self._waiting: list[Circuit] = []
        self.served: dict[Circuit, None] = {}

    @property
    def is_used(self) -> bool:
        """Whether anybody is served, or waits."""
        return bool(self.served) or bool(self._waiting)

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
        """The next circuit to be let in: the first for which there is room.

        None behind one for which room can be made, or it would have to leave at once.
        """
        if not self._waiting:
            return None
        capacity = self._capacity()
        room = capacity - sum(each.qubits for each in self.served)
        for circuit in self._waiting:
            if circuit.qubits <= room:
                self._waiting.remove(circuit)
                self.served[circuit] = None
                return circuit
            if self._in_the_way(circuit, capacity):
                return None
        return None

    def must_make_room(self) -> Circuit | None:
        """A circuit that is served and can be stopped, so that an earlier one can be let in."""
        if not self._waiting or not self.served:
            return None
        capacity = self._capacity()
        for earlier in self._waiting:
            later = self._in_the_way(earlier, capacity)
            if later:
                return max(later, key=_turn)
        return None

    def _in_the_way(self, earlier: Circuit, capacity: int) -> list[Circuit]:
        """Those served after their turn, if there is room for an earlier one without them."""
        later = [each for each in self._stoppable() if each.turn > earlier.turn]
        staying = sum(each.qubits for each in self.served if each not in later)
        return later if staying + earlier.qubits <= capacity else []

    def latest(self) -> Circuit | None:
        """The last of those served that can be stopped, if there are more than one."""
        if len(self.served) < 2:
            return None
        return max(self._stoppable(), key=_turn, default=None)

    def _stoppable(self) -> list[Circuit]:
        return [each for each in self.served if each.state is CircuitState.MAKING]


def _turn(circuit: Circuit) -> Turn:
    return circuit.turn
