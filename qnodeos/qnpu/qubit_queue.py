"""Processes that wait for a physical qubit to become free.

They are woken one per free qubit, not all at once: with many of them, waking everybody to let
one succeed would cost more than all the rest.
"""

from __future__ import annotations

import heapq
from typing import Final

_DEAD_ENTRIES: Final = 64


class QubitQueue:
    """The highest priority first, first come first served within one."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int]] = []
        self._waiting: dict[int, int] = {}
        self._woken: dict[int, int] = {}
        self._joined = 0

    def __len__(self) -> int:
        """How many processes wait."""
        return len(self._waiting)

    def __contains__(self, pid: object) -> bool:
        """Whether a process waits."""
        return pid in self._waiting

    def join(self, pid: int, priority: int) -> None:
        """A process waits from now on; one that waits already keeps its place."""
        self._woken.pop(pid, None)
        if pid not in self._waiting:
            self._joined += 1
            self._waiting[pid] = self._joined
            heapq.heappush(self._heap, (-priority, self._joined, pid))

    def may_wake(self, free_qubits: int) -> bool:
        """Whether a free qubit is left for somebody who waits.

        Args:
            free_qubits: how many are free; those woken and not yet run will take one each,
                unless their priority is lower: they may not run for long.
        """
        if not free_qubits or not self._waiting:
            return False
        if free_qubits > len(self._woken):
            return True
        priority = -self._first()[0]
        return free_qubits > sum(woken >= priority for woken in self._woken.values())

    def wake(self) -> int:
        """Take out who is next; returns the process id."""
        priority, _, pid = self._first()
        heapq.heappop(self._heap)
        del self._waiting[pid]
        self._woken[pid] = -priority
        return pid

    def leave(self, pid: int) -> None:
        """A process waits no more, or has been chosen to run after it was woken."""
        self._woken.pop(pid, None)
        if self._waiting.pop(pid, None) is not None and (
            len(self._heap) > 2 * len(self._waiting) + _DEAD_ENTRIES
        ):
            self._heap = [entry for entry in self._heap if self._is_at(entry)]
            heapq.heapify(self._heap)

    def _first(self) -> tuple[int, int, int]:
        while not self._is_at(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0]

    def _is_at(self, entry: tuple[int, int, int]) -> bool:
        """Whether an entry of the heap is the present one of its process."""
        return self._waiting.get(entry[2]) == entry[1]
