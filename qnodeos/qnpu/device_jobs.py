"""Jobs for the device: what the network layer wants done, outside of any attempt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.qnpu.process import NETWORK_PID
from qnodeos.trace.events import Event


@dataclass(frozen=True, slots=True)
class Job:
    """Physical instructions that belong together.

    Attributes:
        prepare: called when it begins; returns what to do, in order. The rest is left out if
            one fails.
        done: called with the outcomes that came, and the tick of the last.
        begin_event, end_event: recorded when it begins and when it is done, if given.
        detail: of the events.
    """

    prepare: Callable[[], Sequence[PhysicalInstruction]]
    done: Callable[[Sequence[Outcome], int], None]
    begin_event: Event | None = None
    end_event: Event | None = None
    detail: int = 0


class DeviceJobs:
    """Jobs, one after the other.

    Args:
        record: of the trace.

    Attributes:
        waiting: those that have not begun, oldest first.
        current: the one the device works on, None if there is none.
    """

    __slots__ = ("_outcomes", "_record", "current", "waiting")

    def __init__(self, record: Callable[[int, int, int, int], None]) -> None:
        self._record = record
        self._outcomes: list[Outcome] = []
        self.waiting: deque[Job] = deque()
        self.current: Job | None = None

    def begin(self, tick: int) -> Sequence[PhysicalInstruction]:
        """Begin the next job.

        Returns:
            What the device has to do; if that is nothing, the job is done.
        """
        job = self.current = self.waiting.popleft()
        self._outcomes = []
        if job.begin_event is not None:
            self._record(tick, job.begin_event, NETWORK_PID, job.detail)
        instructions = job.prepare()
        if not instructions:
            self.end(tick)
        return instructions

    def take(self, outcome: Outcome) -> None:
        """The device has answered to an instruction of the job."""
        self._outcomes.append(outcome)

    def end(self, tick: int) -> None:
        """The job is done, or has failed."""
        job, self.current = self.current, None
        assert job is not None
        if job.end_event is not None:
            self._record(tick, job.end_event, NETWORK_PID, job.detail)
        job.done(self._outcomes, tick)
