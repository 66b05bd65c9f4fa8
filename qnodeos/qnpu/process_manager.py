"""The process manager: which programs are registered, and their processes.

A program is known by its connection and its application id there, so that the ids of
different connections never clash. A process that ended because of an error leaves an
epitaph: what is asked of it later is answered with the reason.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from qnodeos.errors import CallerError, LimitError, QNodeOSError, UnknownProcessError
from qnodeos.limits import Limits
from qnodeos.qnpu.process import NETWORK_PID, PendingSubroutine, UserProcess

Owner = tuple[int, int]
"""A connection's number and an application id on it."""

_EPITAPH_LENGTH: Final = 1000
"""Characters of the reason kept."""


class ProcessManager:
    """Registers programs and finds their processes; changes no states."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._processes: dict[int, UserProcess] = {}
        self._by_owner: dict[Owner, UserProcess] = {}
        self._by_client: dict[int, dict[int, UserProcess]] = {}
        # Both orders of epitaphs are by age; a plain dict is slow to find its oldest entry.
        self._epitaphs: OrderedDict[Owner, str] = OrderedDict()
        self._mourned: dict[int, OrderedDict[Owner, None]] = {}
        self._untold: set[Owner] = set()
        self._next_pid = NETWORK_PID + 1

    @property
    def processes(self) -> Mapping[int, UserProcess]:
        """The user processes alive, by process id."""
        return self._processes

    def register(self, owner: Owner, max_qubits: int, priority: int = 0) -> UserProcess:
        """Create the process of a program.

        Raises:
            UnknownProcessError: the program is registered already.
            LimitError: there are as many processes as there may be, of the connection or
                in all.
            CallerError: the priority is not one a program may have.
        """
        if owner in self._by_owner:
            raise UnknownProcessError(
                f"application {owner[1]} of this connection is already registered"
            )
        if len(self._processes) >= self._limits.processes:
            raise LimitError(f"processes={self._limits.processes} are running, the limit")
        if len(self._by_client.get(owner[0], ())) >= self._limits.programs_per_client:
            raise LimitError(
                f"programs_per_client={self._limits.programs_per_client} of this connection are "
                "registered, the limit; stop one first"
            )
        if not 0 <= priority <= self._limits.highest_priority:
            raise CallerError(
                f"priority {priority} is outside 0..highest_priority="
                f"{self._limits.highest_priority}"
            )
        process = UserProcess(self._next_pid, owner, max_qubits, self._limits, priority)
        self._next_pid += 1
        self._processes[process.pid] = process
        self._by_owner[owner] = process
        self._by_client.setdefault(owner[0], {})[process.pid] = process
        self.clear_epitaph(owner)
        return process

    def find(self, owner: Owner) -> UserProcess:
        """The process of a program.

        Raises:
            UnknownProcessError: it was never registered, or has ended (and why).
        """
        process = self._by_owner.get(owner)
        if process is None:
            raise self._unknown(owner)
        return process

    def _unknown(self, owner: Owner) -> UnknownProcessError:
        epitaph = self._epitaphs.get(owner)
        self._untold.discard(owner)
        return UnknownProcessError(
            f"application {owner[1]} is not registered on this connection"
            if epitaph is None
            else f"the process of application {owner[1]} has ended: {epitaph}"
        )

    def queue_subroutine(
        self,
        process: UserProcess,
        client: int,
        request: int,
        body: bytes,
        prepare: Callable[[], int | None] = lambda: None,
    ) -> PendingSubroutine:
        """Append a subroutine to those a process has still to run.

        Args:
            process: it runs there.
            client: the connection that sent it.
            request: the client's number for it.
            body: its instructions.
            prepare: begins to prepare it once it is accepted, if that is to begin now; returns
                when that will be done.

        Raises:
            LimitError: as many wait already as may.
        """
        if len(process.pending) >= self._limits.pending_subroutines:
            raise LimitError(
                f"pending_subroutines={self._limits.pending_subroutines} wait in this process, "
                "the limit"
            )
        waiting_bytes = sum(len(subroutine.body) for subroutine in process.pending)
        if waiting_bytes + len(body) > self._limits.pending_bytes:
            raise LimitError(
                f"the subroutines that wait in this process would exceed pending_bytes="
                f"{self._limits.pending_bytes}, the limit"
            )
        subroutine = PendingSubroutine(client, request, process.next_serial, body, prepare())
        process.next_serial += 1
        process.pending.append(subroutine)
        return subroutine

    def find_subroutine(
        self, client: int, request: int
    ) -> tuple[UserProcess, PendingSubroutine] | None:
        """A subroutine of a connection that is not done yet, and its process."""
        for process in self.of_client(client):
            running = [process.current] if process.current is not None else []
            for subroutine in [*running, *process.pending]:
                if subroutine.request == request:
                    return process, subroutine
        return None

    def remove(self, process: UserProcess) -> None:
        """Forget a process that has ended."""
        del self._processes[process.pid]
        del self._by_owner[process.owner]
        client = process.owner[0]
        mine = self._by_client[client]
        del mine[process.pid]
        if not mine:
            del self._by_client[client]

    def write_epitaph(self, process: UserProcess, error: QNodeOSError) -> None:
        """Remember why a process ends; the oldest epitaphs of its connection make room.

        If it owes no reply that could carry the error, the program has yet to be told.
        """
        client, each = process.owner[0], self._limits.programs_per_client
        mine = self._mourned.get(client, ())
        if len(mine) >= each:
            self.clear_epitaph(next(iter(mine)))
        elif len(self._epitaphs) >= self._limits.processes * each:
            self.clear_epitaph(next(iter(self._epitaphs)))
        text = f"{type(error).__name__}: {error}"
        self._epitaphs[process.owner] = text[:_EPITAPH_LENGTH]
        self._mourned.setdefault(client, OrderedDict())[process.owner] = None
        if process.current is None and not process.pending:
            self._untold.add(process.owner)

    def clear_epitaph(self, owner: Owner) -> bool:
        """Whether there was an epitaph; there is none any more."""
        if self._epitaphs.pop(owner, None) is None:
            return False
        self._untold.discard(owner)
        client = owner[0]
        mine = self._mourned[client]
        del mine[owner]
        if not mine:
            del self._mourned[client]
        return True

    def stop_dead(self, owner: Owner) -> bool:
        """A program stops; whether its process had ended before, because of an error.

        Raises:
            UnknownProcessError: it had, and the program has not been told why.
        """
        error = self._unknown(owner) if owner in self._untold else None
        was_dead = self.clear_epitaph(owner)
        if error is not None:
            raise error
        return was_dead

    def of_client(self, client: int) -> list[UserProcess]:
        """The processes of a connection."""
        return list(self._by_client.get(client, {}).values())

    def forget_client(self, client: int) -> None:
        """Drop the epitaphs of a connection that has ended."""
        for owner in self._mourned.pop(client, ()):
            del self._epitaphs[owner]
            self._untold.discard(owner)
