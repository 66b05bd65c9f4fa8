"""What traces tell about programs that share a node: who runs, who waits, what is idle.

Everything is computed from the columns of the recorders and from which process is which
program; rows of a trace are in the order in which things happened. Times are in ticks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.errors import IncompleteTraceError
from qnodeos.trace.events import Event
from qnodeos.trace.utilisation import Intervals, union

Columns = Mapping[str, NDArray[Any]]
Ticks = NDArray[np.int64]

RUN_DEFINITIONS: Final[Mapping[str, Event]] = {
    "subroutines": Event.PROCMGR_SUBROUTINE_DONE,
    "activations": Event.SCHEDULER_SCHEDULE_USER_PROCESS,
}
"""What may be counted between two events of DQC: subroutines as they end, or activations as
they begin (a subroutine that waits for entanglement has two)."""


def within(columns: Columns, start: int, stop: int) -> dict[str, NDArray[Any]]:
    """The rows of a trace from tick ``start`` to before tick ``stop``."""
    inside = (columns["time"] >= start) & (columns["time"] < stop)
    return {name: values[inside] for name, values in columns.items()}


def waits_with_others(columns: Columns, pids: Collection[int]) -> tuple[int, int]:
    """How often processes waited, and in how many of these waits another user process ran.

    A wait lasts from ``PROCESSOR_WAIT_USER_PROCESS`` until the process is scheduled again;
    one that has not ended by the end of the trace does not count.

    Args:
        columns: of a QNPU trace.
        pids: the processes whose waits are looked at.

    Returns:
        Number of waits; number of those during which another user process was scheduled.
    """
    events, processes = columns["event"], columns["process"]
    scheduled_rows = np.flatnonzero(events == Event.SCHEDULER_SCHEDULE_USER_PROCESS)
    scheduled = processes[scheduled_rows]
    waits = shared = 0
    for pid in pids:
        rows = np.flatnonzero((events == Event.PROCESSOR_WAIT_USER_PROCESS) & (processes == pid))
        own = np.flatnonzero(scheduled == pid)
        first = np.searchsorted(scheduled_rows, rows)
        again = np.searchsorted(own, first)
        ended = again < own.size
        waits += int(ended.sum())
        shared += int((own[again[ended]] > first[ended]).sum())
    return waits, shared


def runs_between(
    columns: Columns, event: Event, of: Collection[int], between: Collection[int]
) -> Ticks:
    """How often some processes did something between two times that others did it.

    Args:
        columns: of a QNPU trace.
        event: what they do.
        of: the processes that are counted, each in as many lots as ``between`` leaves.
        between: the processes that separate one lot from the next.

    Returns:
        One number for every two successive events of ``between``, zeros included.
    """
    rows = columns["event"] == event
    processes = columns["process"][rows]
    counted = np.cumsum(np.isin(processes, list(of)))
    return np.diff(counted[np.isin(processes, list(between))])


def idle_intervals(columns: Columns, start: int, stop: int) -> Intervals:
    """When the QNPU waited for the CNPU: nothing was ready or running.

    User processes that wait for entanglement count as doing nothing, the network process
    counts as active from the moment its time bin is due until it ends its activation.

    Args:
        columns: of a QNPU trace.
        start: first tick that counts.
        stop: first tick that does not count any more.
    """
    events, times = columns["event"], columns["time"]
    active = [
        *_active(events, times, _USER_BEGINS, _USER_ENDS, columns["process"], stop),
        *_active(events, times, _NETWORK_BEGINS, _NETWORK_ENDS, None, stop),
    ]
    merged = union(
        np.clip(np.concatenate([np.empty((0, 2), dtype=np.int64), *active]), start, stop)
    )
    edges = np.concatenate([[start], merged.ravel(), [stop]]).reshape(-1, 2)
    return edges[edges[:, 1] > edges[:, 0]]


_USER_BEGINS: Final = (Event.SCHEDULER_ARRIVE_USER_PROCESS,)
_USER_ENDS: Final = (
    Event.PROCESSOR_WAIT_USER_PROCESS,
    Event.PROCESSOR_FINISH_USER_PROCESS,
    Event.PROCMGR_SUBROUTINE_ABORTED,
)
_NETWORK_BEGINS: Final = (Event.SCHEDULER_ARRIVE_NET_PROCESS,)
_NETWORK_ENDS: Final = (Event.PROCESSOR_FINISH_NET_PROCESS,)


def _active(
    events: NDArray[Any],
    times: Ticks,
    begins: tuple[Event, ...],
    ends: tuple[Event, ...],
    processes: NDArray[Any] | None,
    stop: int,
) -> list[Intervals]:
    """From each beginning to the next end of the same process, or to ``stop``."""
    is_begin, is_end = np.isin(events, begins), np.isin(events, ends)
    if processes is None:
        return [_matched(times[is_begin | is_end], is_begin[is_begin | is_end], stop)]
    found = []
    for pid in np.unique(processes[is_begin]):
        rows = (is_begin | is_end) & (processes == pid)
        found.append(_matched(times[rows], is_begin[rows], stop))
    return found


def _matched(times: Ticks, is_begin: NDArray[np.bool_], stop: int) -> Intervals:
    begins = np.flatnonzero(is_begin)
    ends = np.append(np.flatnonzero(~is_begin), times.size)
    end_times = np.append(times, stop)
    return np.column_stack([times[begins], end_times[ends[np.searchsorted(ends, begins)]]])


def network_lateness(columns: Columns) -> Ticks:
    """From each arrival of the network process to when it was scheduled, in ticks."""
    events, times = columns["event"], columns["time"]
    arrivals = np.flatnonzero(events == Event.SCHEDULER_ARRIVE_NET_PROCESS)
    scheduled = np.flatnonzero(events == Event.SCHEDULER_SCHEDULE_NET_PROCESS)
    following = np.searchsorted(scheduled, arrivals)
    found = following < scheduled.size
    lateness: Ticks = times[scheduled[following[found]]] - times[arrivals[found]]
    return lateness


def count(columns: Columns, event: Event, pids: Collection[int]) -> int:
    """How often an event happened to some processes."""
    return int(((columns["event"] == event) & np.isin(columns["process"], list(pids))).sum())


def live_times(columns: Columns, pids: Collection[int]) -> Ticks:
    """How long the qubits of DQC servers lived: heralded to the end of their second subroutine.

    Args:
        columns: of the server's QNPU trace.
        pids: the server programs, which receive a qubit in subroutine 2 k and measure it in
            subroutine 2 k + 1.

    Raises:
        IncompleteTraceError: a second subroutine has ended for which no pair was heralded.
    """
    events, times, processes = columns["event"], columns["time"], columns["process"]
    heralded = np.flatnonzero(events == Event.EGP_ENT_OK)
    found = [np.empty(0, dtype=np.int64)]
    for pid in pids:
        mine = processes == pid
        delivered = np.flatnonzero(mine & (events == Event.QNP_BQ_DELIVERED))
        done = mine & (events == Event.PROCMGR_SUBROUTINE_DONE) & (columns["detail"] % 2 == 1)
        ends = times[done]
        if delivered.size < ends.size or (ends.size and heralded.size == 0):
            raise IncompleteTraceError(
                f"process {pid} of the server ended {ends.size} circuits, but its trace has "
                f"{delivered.size} QNP_BQ_DELIVERED and {heralded.size} EGP_ENT_OK"
            )
        herald = heralded[np.searchsorted(heralded, delivered[: ends.size]) - 1]
        found.append(ends - times[herald])
    return np.concatenate(found)
