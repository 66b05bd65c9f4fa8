"""Executes programs in threads, a bounded number at once.

A program that raises does not disturb the others. When the run is stopped, because of
Ctrl-C or because its time is up, programs that wait end at their wait, and those that have
ended keep their results.
"""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from enum import StrEnum
from threading import Condition, Thread
from time import monotonic
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.cnpu.host import current_host
from qnodeos.cnpu.remote import TRACE_CAPACITY, TRACE_UNIT_NS, RemoteCnpu, RemoteHost
from qnodeos.errors import ProgramStoppedError
from qnodeos.trace.recorder import TraceRecorder

STOP_TIMEOUT_S: Final = 5.0
"""Time that programs have to end after they were stopped (assumed)."""


@dataclass(frozen=True)
class ProgramTask:
    """A program to run.

    Attributes:
        name: for messages.
        entry: its function.
        inputs: keyword arguments of it.
    """

    name: str
    entry: Callable[..., Any]
    inputs: Mapping[str, Any]


class ProgramState(StrEnum):
    """What became of a program."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass
class ProgramRun:
    """A program and what became of it.

    Attributes:
        task: what was to run.
        number: of the program, as in the trace.
        state: what became of it.
        result: what it returned.
        error: what it raised.
        details: the error with its place in the program.
        started_s, ended_s: on this machine's monotonic clock.
    """

    task: ProgramTask
    number: int
    state: ProgramState = ProgramState.WAITING
    result: Any = None
    error: BaseException | None = None
    details: str = ""
    started_s: float | None = None
    ended_s: float | None = None


class ProgramRunner:
    """Runs programs on one CNPU; once.

    Args:
        cnpu: what they share; the caller closes it.
        tasks: the programs, numbered in this order.
        pool: how many run at once.
        trace_capacity: events kept per thread of the pool.
        realtime_priority: of the programs' threads (SCHED_FIFO, 1 to 99); 0 for none.
        on_end: called, in the program's thread, when one has ended; if it raises, the programs
            go on.

    Attributes:
        runs: the programs and what became of them.
        lacks: what was asked for and is not to be had here, in words; "" if nothing.
    """

    def __init__(
        self,
        cnpu: RemoteCnpu,
        tasks: Sequence[ProgramTask],
        *,
        pool: int,
        trace_capacity: int = TRACE_CAPACITY,
        realtime_priority: int = 0,
        on_end: Callable[[ProgramRun], None] = lambda run: None,
    ) -> None:
        if pool <= 0:
            raise ValueError(f"a pool runs at least one program at once, not {pool}")
        self.runs = [ProgramRun(task, number) for number, task in enumerate(tasks)]
        self.lacks = ""
        self._cnpu = cnpu
        self._realtime_priority = realtime_priority
        self._on_end = on_end
        self._on_end_error: BaseException | None = None
        self._changed = Condition()
        self._waiting = deque(self.runs)
        self._recorders = [
            TraceRecorder(TRACE_UNIT_NS, trace_capacity) for _ in range(min(pool, len(self.runs)))
        ]
        self._working = len(self._recorders)

    def run(self, timeout_s: float | None = None) -> bool:
        """Run everything; returns when all have ended.

        Args:
            timeout_s: time for all together; what is not done then is stopped.

        Returns:
            Whether the time was enough.

        Raises:
            KeyboardInterrupt: as it came, after the programs were stopped.
            BaseException: the first one that ``on_end`` raised, after all have ended.
        """
        threads = [
            # A program that computes and never waits must not keep the process alive.
            Thread(target=self._work, args=[recorder], name="qnodeos program", daemon=True)
            for recorder in self._recorders
        ]
        try:
            for thread in threads:
                thread.start()
            with self._changed:
                in_time = self._changed.wait_for(lambda: self._working == 0, timeout_s)
            if not in_time:
                self._stop()
        except BaseException:
            self._stop()
            raise
        if self._on_end_error is not None:
            raise self._on_end_error
        return in_time

    @property
    def trace_columns(self) -> dict[str, NDArray[Any]]:
        """The host events of all programs, in order of time."""
        parts = [recorder.columns() for recorder in self._recorders]
        names = ("time", "event", "process", "detail")
        columns = {name: np.concatenate([part[name] for part in parts]) for name in names}
        order = np.argsort(columns["time"], kind="stable")
        return {name: column[order] for name, column in columns.items()}

    @property
    def dropped_events(self) -> int:
        """Events that did not fit the recorders."""
        return sum(recorder.dropped for recorder in self._recorders)

    def _stop(self) -> None:
        """Stop the programs; interrupted itself, leave those that have not ended yet alone."""
        try:
            self._waiting.clear()
            self._cnpu.stop()
            with self._changed:
                self._changed.wait_for(lambda: self._working == 0, STOP_TIMEOUT_S)
        finally:
            for run in self.runs:
                if run.state in (ProgramState.WAITING, ProgramState.RUNNING):
                    run.state = ProgramState.STOPPED

    def _work(self, recorder: TraceRecorder) -> None:
        self._ask_for_priority()
        try:
            while True:
                try:
                    run = self._waiting.popleft()
                except IndexError:
                    return
                run.state = ProgramState.RUNNING
                copy_context().run(self._execute, run, recorder)
                try:
                    self._on_end(run)
                except BaseException as error:
                    self._on_end_error = self._on_end_error or error
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _ask_for_priority(self) -> None:
        if not self._realtime_priority:
            return
        try:
            # 0 is the calling thread.
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(self._realtime_priority))
        except OSError as error:
            self.lacks = (
                f"programs run without real-time priority {self._realtime_priority} "
                f"({error.strerror}): that needs CAP_SYS_NICE or `ulimit -r`"
            )

    def _execute(self, run: ProgramRun, recorder: TraceRecorder) -> None:
        run.started_s = monotonic()
        result: Any = None
        error: BaseException | None = None
        state = ProgramState.DONE
        try:
            host = RemoteHost(self._cnpu, run.number, recorder)
            current_host.set(host)
            try:
                result = run.task.entry(**run.task.inputs)
            finally:
                host.close()
        except ProgramStoppedError as stopped:
            error, state = stopped, ProgramState.STOPPED
        # Ctrl-C reaches the main thread only, so a KeyboardInterrupt here is the program's own.
        except BaseException as failure:
            error, state = failure, ProgramState.FAILED
            if self._cnpu.is_stopped:
                state = ProgramState.STOPPED
        details = "".join(traceback.format_exception(error)) if error is not None else ""
        with self._changed:
            if run.state is not ProgramState.RUNNING:
                return  # it was given up before it ended
            run.result, run.error, run.details, run.state = result, error, details, state
            run.ended_s = monotonic()
