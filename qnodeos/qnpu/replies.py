"""Replies to hosts: exactly one to each of their requests."""

from __future__ import annotations

from collections.abc import Callable

from qnodeos.api.host import ErrorReport, HostReply
from qnodeos.errors import QNodeOSError
from qnodeos.qnpu.process import PendingSubroutine, UserProcess
from qnodeos.trace.events import Event


class Replies:
    """Makes replies, and counts those to subroutines.

    Args:
        record: of the trace.

    Attributes:
        outbox: the replies; whoever sends them empties it.
        done: subroutines that have run to their end.
        failed: subroutines that have not.
    """

    def __init__(self, record: Callable[[int, int, int, int], None]) -> None:
        self.outbox: list[HostReply] = []
        self.done = self.failed = 0
        self._record = record

    def acknowledge(self, client: int, request: int, error: QNodeOSError | None = None) -> None:
        """Answer to what is no subroutine.

        Args:
            client: the connection.
            request: its number for the request.
            error: why it was not done; None if it was.
        """
        report = None if error is None else _report(error)
        self.outbox.append(HostReply(client, request, error=report))

    def finish(self, process: UserProcess, done: PendingSubroutine) -> None:
        """Return what a subroutine has to say when it has run to its end."""
        self.done += 1
        results = tuple(process.execution.results)
        self.outbox.append(HostReply(done.client, done.request, results, serial=done.serial))

    def fail(
        self,
        process: UserProcess,
        subroutine: PendingSubroutine,
        error: QNodeOSError,
        tick: int,
        pc: int | None = None,
    ) -> None:
        """Answer a subroutine with an error."""
        self.failed += 1
        self._record(tick, Event.PROCMGR_SUBROUTINE_ABORTED, process.pid, subroutine.serial)
        self.outbox.append(
            HostReply(
                subroutine.client,
                subroutine.request,
                error=_report(error, subroutine.serial, pc),
                serial=subroutine.serial,
            )
        )


def _report(error: QNodeOSError, serial: int | None = None, pc: int | None = None) -> ErrorReport:
    return ErrorReport(error.code, type(error).__name__, str(error), serial, pc)
