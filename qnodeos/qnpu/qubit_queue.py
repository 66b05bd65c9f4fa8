"""Processes that wait for a physical qubit to become free.

They are woken one per free qubit, not all at once: with many of them, waking everybody to let
one succeed would cost more than all the rest.
"""

from __future__ import annotations

import heapq


class QubitQueue:
    """The highest priority first, first come first served within one."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int]] = []
        self._waiting: dict[int, int] = {}
        self._woken: set[int] = set()
        self._joined = 0

    def __len__(self) -> int:
        """How many processes wait."""
        return len(self._waiting)

    def join(self, pid: int, priority: int) -> None:
        """A process waits from now on; one that waits already keeps its place."""
        self._woken.discard(pid)
        if pid not in self._waiting:
            self._joined += 1
            self._waiting[pid] = self._joined
            heapq.heappush(self._heap, (-priority, self._joined, pid))

    def may_wake(self, free_qubits: int) -> bool:
        """Whether a free qubit is left for somebody who waits.

        Args:
            free_qubits: how many are free; those woken and not yet run will take one each.
        """
        return bool(self._waiting) and free_qubits > len(self._woken)

    def wake(self) -> int:
        """Take out who is next; returns the process id."""
        while True:
            _, joined, pid = heapq.heappop(self._heap)
            if self._waiting.get(pid) == joined:
                del self._waiting[pid]
                self._woken.add(pid)
                return pid

    def leave(self, pid: int) -> None:
        """A process waits no more, or has been chosen to run after it was woken."""
        self._waiting.pop(pid, None)
        self._woken.discard(pid)
