"""What one node recorded: its CNPU's trace and its QNPU's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.trace.events import PER_PROCESS_EVENTS, PRODUCE_EVENT, USER_PROCESS_EVENTS
from qnodeos.trace.recorder import TraceRecorder

Columns = Mapping[str, NDArray[Any]]
"""``time``, ``event``, ``process`` and ``detail`` of a `TraceRecorder`, each of shape (n,)."""

UNKNOWN_PID: Final = -1
"""Stands for a user process that a CSV file does not name."""


@dataclass(frozen=True)
class NodeTraces:
    """The traces of one node; all nodes of an experiment share the origin of time.

    Attributes:
        name: of the node.
        host: columns of the CNPU's recorder.
        unit_ns: duration of one unit of its times.
        qnpu: columns of the QNPU's recorder.
        tick_ns: duration of one tick, the unit of its times.
        programs: names of programs by QNPU process id, as far as they are known.
        has_details: whether the columns ``process`` and ``detail`` mean something
            throughout; False for traces read from CSV, which lost them.
    """

    name: str
    host: Columns
    unit_ns: int
    qnpu: Columns
    tick_ns: int
    programs: Mapping[int, str] = field(default_factory=dict)
    has_details: bool = True

    @classmethod
    def from_recorders(
        cls,
        name: str,
        host: TraceRecorder,
        qnpu: TraceRecorder,
        programs: Mapping[int, str] | None = None,
    ) -> NodeTraces:
        """The traces two recorders hold."""
        return cls(name, host.columns(), host.unit_ns, qnpu.columns(), qnpu.unit_ns, programs or {})

    def until(self, time_ns: int) -> NodeTraces:
        """The events before a time."""

        def kept(columns: Columns, unit_ns: int) -> Columns:
            early = columns["time"] < time_ns // unit_ns
            return {name: column[early] for name, column in columns.items()}

        return replace(self, host=kept(self.host, self.unit_ns), qnpu=kept(self.qnpu, self.tick_ns))

    def processes(self) -> list[int]:
        """Ids of the QNPU processes that were given subroutines."""
        chosen = np.isin(self.qnpu["event"], list(PER_PROCESS_EVENTS))
        found: list[int] = np.unique(self.qnpu["process"][chosen]).tolist()
        return found

    def with_processes(self) -> NodeTraces:
        """The same, with the process of every user event filled in where a CSV file lost it.

        That is known if there is one process only; otherwise it is `UNKNOWN_PID`. The
        network process's instructions count as the user process's then.
        """
        if self.has_details:
            return self
        processes = self.processes()
        pid = np.int32(processes[0] if len(processes) == 1 else UNKNOWN_PID)
        of_users = USER_PROCESS_EVENTS - PER_PROCESS_EVENTS | set(PRODUCE_EVENT.values())
        lost = np.isin(self.qnpu["event"], list(of_users))
        return replace(
            self, qnpu={**self.qnpu, "process": np.where(lost, pid, self.qnpu["process"])}
        )


def empty_columns() -> dict[str, NDArray[Any]]:
    """Columns of a trace without events."""
    return TraceRecorder(1, 1).columns()
