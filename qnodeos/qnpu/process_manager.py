"""The process manager: which programs are registered, and their processes.

A program is known by its connection and its application id there, so that the ids of
different connections never clash. A process that ended because of an error leaves an
epitaph: what is asked of it later is answered with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from qnodeos.errors import LimitError, QNodeOSError, UnknownProcessError
from qnodeos.limits import Limits
from qnodeos.qnpu.process import NETWORK_PID, PendingSubroutine, UserProcess

Owner = tuple[int, int]
"""A connection's number and an application id on it."""


class ProcessManager:
    """Registers programs and finds their processes; changes no states."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._processes: dict[int, UserProcess] = {}
        self._by_owner: dict[Owner, UserProcess] = {}
        self._epitaphs: dict[Owner, str] = {}
        self._next_pid = NETWORK_PID + 1

    @property
    def processes(self) -> Mapping[int, UserProcess]:
        """The user processes alive, by process id."""
        return self._processes

    def register(self, owner: Owner, max_qubits: int) -> UserProcess:
        """Create the process of a program.

        Raises:
            UnknownProcessError: the program is registered already.
            LimitError: there are as many processes as there may be.
        """
        if owner in self._by_owner:
            raise UnknownProcessError(
                f"application {owner[1]} of this connection is already registered"
            )
        if len(self._processes) >= self._limits.processes:
            raise LimitError(f"processes={self._limits.processes} are running, the limit")
        process = UserProcess(self._next_pid, owner, max_qubits, self._limits)
        self._next_pid += 1
        self._processes[process.pid] = process
        self._by_owner[owner] = process
        self._epitaphs.pop(owner, None)
        return process

    def find(self, owner: Owner) -> UserProcess:
        """The process of a program.

        Raises:
            UnknownProcessError: it was never registered, or has ended (and why).
        """
        process = self._by_owner.get(owner)
        if process is None:
            epitaph = self._epitaphs.get(owner)
            raise UnknownProcessError(
                f"application {owner[1]} is not registered on this connection"
                if epitaph is None
                else f"the process of application {owner[1]} has ended: {epitaph}"
            )
        return process

    def queue_subroutine(
        self, process: UserProcess, client: int, request: int, body: bytes
    ) -> PendingSubroutine:
        """Append a subroutine to those a process has still to run.

        Raises:
            LimitError: as many wait already as may.
        """
        if len(process.pending) >= self._limits.pending_subroutines:
            raise LimitError(
                f"pending_subroutines={self._limits.pending_subroutines} wait in this process, "
                "the limit"
            )
        subroutine = PendingSubroutine(client, request, process.next_serial, body)
        process.next_serial += 1
        process.pending.append(subroutine)
        return subroutine

    def remove(self, process: UserProcess) -> None:
        """Forget a process that has ended."""
        del self._processes[process.pid]
        del self._by_owner[process.owner]

    def write_epitaph(self, process: UserProcess, error: QNodeOSError) -> None:
        """Remember why a process ends; the oldest epitaphs make room."""
        while len(self._epitaphs) >= self._limits.processes:
            del self._epitaphs[next(iter(self._epitaphs))]
        self._epitaphs[process.owner] = f"{type(error).__name__}: {error}"

    def clear_epitaph(self, owner: Owner) -> bool:
        """Whether there was an epitaph; there is none any more."""
        return self._epitaphs.pop(owner, None) is not None

    def of_client(self, client: int) -> list[UserProcess]:
        """The processes of a connection."""
        return [process for process in self._processes.values() if process.owner[0] == client]

    def forget_client(self, client: int) -> None:
        """Drop the epitaphs of a connection that has ended."""
        for owner in [owner for owner in self._epitaphs if owner[0] == client]:
            del self._epitaphs[owner]
