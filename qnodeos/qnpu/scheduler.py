"""The scheduler: which ready process runs next.

Non-pre-emptive: a running process keeps the QNPU until it ends its work or waits. The
policy is one small object, so that others can be plugged in and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from qnodeos.qnpu.process import Process


class SchedulingPolicy(Protocol):
    """Chooses among ready processes."""

    name: str

    def choose(self, ready: Sequence[Process], tick: int) -> Process | None:
        """The process to run now, or None to leave the QNPU idle.

        Args:
            ready: the ready processes (never empty), in order of arrival.
            tick: the current tick.
        """
        ...


class PriorityFcfs:
    """The paper's policy: highest priority first, first come first served within one."""

    name = "fcfs"

    def choose(self, ready: Sequence[Process], tick: int) -> Process | None:
        """See `SchedulingPolicy.choose`."""
        return max(ready, key=_by_priority_then_arrival)


def _by_priority_then_arrival(process: Process) -> tuple[int, int]:
    return process.priority, -process.arrival


POLICIES: Final[Mapping[str, Callable[[], SchedulingPolicy]]] = {"fcfs": PriorityFcfs}
"""The policies by name."""


class Scheduler:
    """Holds the ready processes and asks the policy."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        self._policy = policy
        self._ready: list[Process] = []
        self._arrivals = 0

    @property
    def ready(self) -> Sequence[Process]:
        """The ready processes, in order of arrival."""
        return self._ready

    def arrive(self, process: Process) -> None:
        """A process has become ready."""
        self._arrivals += 1
        process.arrival = self._arrivals
        self._ready.append(process)

    def choose(self, tick: int) -> Process | None:
        """Take the process to run next out of the ready ones, None if there is none."""
        if not self._ready:
            return None
        process = self._policy.choose(self._ready, tick)
        if process is not None:
            self._ready.remove(process)
        return process

    def withdraw(self, process: Process) -> None:
        """A ready process has ended."""
        self._ready.remove(process)
