"""The tracks of the QNPU's processes: ready, running, waiting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Final

import numpy as np

from qnodeos.trace.events import PER_PROCESS_EVENTS, Event
from qnodeos.trace.node_traces import UNKNOWN_PID, NodeTraces
from qnodeos.trace.spans import Part, Timeline

NETWORK_PID: Final = 0
"""Process id of the network process."""

RUNNING: Final = "running"

STATE_AFTER: Final[dict[Event, str | None]] = {
    Event.SCHEDULER_ARRIVE_USER_PROCESS: "ready",
    Event.SCHEDULER_ARRIVE_NET_PROCESS: "ready",
    Event.PROCESSOR_START_USER_PROCESS: RUNNING,
    Event.PROCESSOR_START_NET_PROCESS: RUNNING,
    Event.PROCESSOR_WAIT_USER_PROCESS: "waiting",
    Event.PROCESSOR_FINISH_USER_PROCESS: None,
    Event.PROCESSOR_FINISH_NET_PROCESS: None,
}
"""State of a process after an event of its; None: it has nothing to do."""

_ORDER: Final = {"ready": 1, RUNNING: 2, "waiting": 3, None: 3}
"""Order within a tick, as a process goes through it; `STATE_AFTER` of the events."""

_Row = tuple[int, Event, int, int]  # time in ns, event, process, detail


def process_name(pid: int, names: Mapping[int, str]) -> str:
    """What a process is called on the picture."""
    if pid == UNKNOWN_PID:
        return "user processes"
    return f"P{pid} {names[pid]}" if pid in names else f"P{pid}"


def add_processes(timeline: Timeline, node: NodeTraces, end_ns: int) -> dict[int, list[int]]:
    """Add the states of all processes of a node to a timeline.

    Args:
        timeline: to add to.
        node: the traces.
        end_ns: end of the trace.

    Returns:
        The spans of each process, by id, in order.
    """
    processes = _Processes(timeline, node)
    rows = _rows(node)
    if node.has_details:
        for row in rows:
            processes.handle(row)
    else:
        for _, group in groupby(rows, key=lambda row: row[0]):
            for row in processes.in_order(list(group)):
                processes.handle(row)
    processes.finish(end_ns)
    return processes.spans


def _rows(node: NodeTraces) -> Iterator[_Row]:
    columns = node.qnpu
    wanted = [*STATE_AFTER, *PER_PROCESS_EVENTS]
    chosen = np.flatnonzero(np.isin(columns["event"], wanted))
    chosen = chosen[np.argsort(columns["time"][chosen], kind="stable")]
    times, events, processes, details = (
        columns[name][chosen].tolist() for name in ("time", "event", "process", "detail")
    )
    for time, event, process, detail in zip(times, events, processes, details, strict=True):
        yield time * node.tick_ns, Event(event), process, detail


class _Processes:
    """The states of the processes of one node as the trace goes by."""

    def __init__(self, timeline: Timeline, node: NodeTraces) -> None:
        self._timeline = timeline
        self._node = node.name
        self._names = node.programs
        self._tracks = {NETWORK_PID: timeline.add_track(node.name, Part.QNPU, "network process")}
        self._states: dict[int, tuple[str, int]] = {}
        self._outstanding: dict[int, set[int]] = defaultdict(set)
        self.spans: dict[int, list[int]] = defaultdict(list)

    def in_order(self, rows: list[_Row]) -> list[_Row]:
        """The events of one tick in an order in which they can have happened."""
        ended: set[int] = set()

        def place(row: _Row) -> int:
            _, event, pid, _ = row
            following = STATE_AFTER.get(event, "ready")
            if _ORDER[following] == 3 and self._is_running(pid) and pid not in ended:
                ended.add(pid)
                return 0  # of the run that lasted until now
            return _ORDER[following]

        return sorted(rows, key=place)

    def handle(self, row: _Row) -> None:
        """Take one event in."""
        time_ns, event, pid, serial = row
        if event in PER_PROCESS_EVENTS:
            outstanding = self._outstanding[pid]
            if event == Event.PROCMGR_SUBROUTINE_ADDED:
                outstanding.add(serial)
                return
            is_current = bool(outstanding) and serial == min(outstanding)
            outstanding.discard(serial)
            if event == Event.PROCMGR_SUBROUTINE_ABORTED and is_current:
                self._change(pid, time_ns, None)
            return
        following = STATE_AFTER[event]
        if following == RUNNING:
            # One process runs at a time. One that made way unseen waits for an announcement,
            # or was paused.
            for other in [each for each in self._states if each != pid and self._is_running(each)]:
                self._change(other, time_ns, "waiting" if other == NETWORK_PID else "ready")
        self._change(pid, time_ns, following)

    def finish(self, end_ns: int) -> None:
        """The end of the trace."""
        for pid in list(self._states):
            self._change(pid, end_ns, None)

    def _is_running(self, pid: int) -> bool:
        return pid in self._states and self._states[pid][0] == RUNNING

    def _change(self, pid: int, time_ns: int, following: str | None) -> None:
        if pid not in self._tracks:
            name = process_name(pid, self._names)
            self._tracks[pid] = self._timeline.add_track(self._node, Part.QNPU, name)
        before = self._states.pop(pid, None)
        if before is not None:
            state, since_ns = before
            if state == following:
                self._states[pid] = before
                return
            span = self._timeline.add_span(self._tracks[pid], since_ns, time_ns, state)
            if span is not None:
                self.spans[pid].append(span)
        if following is not None:
            self._states[pid] = following, time_ns
