"""The tracks of a QNPU: its processes, subroutines, pairs, and its device's instructions."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from qnodeos.qdevice.instructions import ANGLE_STEPS, Axis
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.trace.events import PER_PROCESS_EVENTS, Event
from qnodeos.trace.node_traces import NodeTraces
from qnodeos.trace.process_spans import NETWORK_PID, add_processes, process_name
from qnodeos.trace.spans import Part, Timeline
from qnodeos.trace.utilisation import ENTANGLEMENT_EVENTS, device_instructions

_GATES: Final = {Event.QDEVICE_PRODUCE_SQG_CMD, Event.QDEVICE_PRODUCE_TQG_CMD}
_HERALDS: Final = {Event.EGP_ENT_OK, Event.EGP_ENM_OK}


@dataclass(slots=True)
class QnpuSubroutine:
    """A subroutine as the QNPU sees it; times in ns."""

    pid: int
    serial: int
    added_ns: int
    done_ns: int | None = None
    is_aborted: bool = False
    span: int | None = None


@dataclass(frozen=True, slots=True)
class DeliveredPair:
    """A pair from its herald to its delivery to a process, None if it was given up.

    Attributes:
        attempt: the span of the attempt that was heralded.
        span: from herald to delivery, None if that took no time.
    """

    pid: int
    sequence: int
    herald_ns: int
    delivered_ns: int | None
    attempt: int | None
    span: int | None


@dataclass
class QnpuActivity:
    """What the QNPU of one node did.

    Attributes:
        subroutines: in the order in which they were added.
        pairs: in the order of their heralds.
        attempts: spans of the entanglement attempts, in order.
        requests: number of the request each attempt was made for, if known.
        states: spans of the states of a process, by process id, in order.
        instructions: spans of the other instructions a process gave, by process id, in order.
    """

    subroutines: list[QnpuSubroutine] = field(default_factory=list)
    pairs: list[DeliveredPair] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    requests: dict[int, int] = field(default_factory=dict)
    states: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    instructions: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))


def instruction_name(event: Event, argument: int | None, *, by_network: bool = False) -> str:
    """What a command is called on the picture: ``INI``, ``SQG X 90 deg``, ``ENT``, ...

    Args:
        event: that says which command was given.
        argument: of the instruction, None if not known.
        by_network: whether the network process gave it.
    """
    if event == Event.QDEVICE_PRODUCE_CMD:
        name = "PMG" if by_network else "command"
    else:
        name = event.name.removeprefix("QDEVICE_PRODUCE_").removesuffix("_CMD")
    if argument is not None and (event in _GATES or name == "PMG"):
        axis, steps = divmod(argument & 0xFF, ANGLE_STEPS)
        if axis < len(Axis):
            return f"{name} {Axis(axis).name} {steps * 360 / ANGLE_STEPS:g} deg"
    return name


def find_subroutines(node: NodeTraces) -> list[QnpuSubroutine]:
    """The subroutines of a QNPU trace, in the order in which they were added."""
    columns = node.qnpu
    chosen = np.flatnonzero(np.isin(columns["event"], list(PER_PROCESS_EVENTS)))
    chosen = chosen[np.lexsort((columns["event"][chosen], columns["time"][chosen]))]
    found: list[QnpuSubroutine] = []
    open_: dict[int, dict[int, QnpuSubroutine]] = defaultdict(dict)
    counts: dict[int, int] = defaultdict(int)
    for row in chosen.tolist():
        event, pid = int(columns["event"][row]), int(columns["process"][row])
        serial, time_ns = int(columns["detail"][row]), int(columns["time"][row]) * node.tick_ns
        if event == Event.PROCMGR_SUBROUTINE_ADDED:
            serial = serial if node.has_details else counts[pid]
            counts[pid] += 1
            subroutine = QnpuSubroutine(pid, serial, time_ns)
            found.append(subroutine)
            open_[pid][serial] = subroutine
            continue
        if not node.has_details:
            serial = next(iter(open_[pid]), -1)
        ended = open_[pid].pop(serial, None)
        if ended is not None:
            ended.done_ns = time_ns
            ended.is_aborted = event == Event.PROCMGR_SUBROUTINE_ABORTED
    return found


def add_qnpu(timeline: Timeline, node: NodeTraces) -> QnpuActivity:
    """Add a node's QNPU and QDevice to a timeline."""
    activity = QnpuActivity(find_subroutines(node))
    times = node.qnpu["time"]
    end_ns = int(times.max()) * node.tick_ns if times.size else 0
    activity.states = add_processes(timeline, node, end_ns)
    _add_subroutines(timeline, node, end_ns, activity)
    _add_instructions(timeline, node, activity)
    _add_pairs(timeline, node, activity)
    return activity


def _add_subroutines(
    timeline: Timeline,
    node: NodeTraces,
    end_ns: int,
    activity: QnpuActivity,
) -> None:
    for pid in sorted({subroutine.pid for subroutine in activity.subroutines}):
        mine = [subroutine for subroutine in activity.subroutines if subroutine.pid == pid]
        spans = timeline.add_lanes(
            node.name,
            Part.QNPU,
            f"{process_name(pid, node.programs)} subroutines",
            (
                (
                    each.added_ns,
                    end_ns if each.done_ns is None else each.done_ns,
                    f"subroutine {each.serial}" + (" (aborted)" if each.is_aborted else ""),
                )
                for each in mine
            ),
        )
        for each, span in zip(mine, spans, strict=True):
            each.span = span


def _add_instructions(timeline: Timeline, node: NodeTraces, activity: QnpuActivity) -> None:
    columns = node.qnpu
    track = timeline.add_track(node.name, Part.QDEVICE, "instructions")
    instructions = device_instructions(columns)
    pulls = np.isin(columns["event"], [Event.QNETWORK_ENT_PULL, Event.QNETWORK_ENM_PULL])
    pulled: dict[int, int] = dict(
        zip(columns["time"][pulls].tolist(), columns["detail"][pulls].tolist(), strict=True)
    )
    swaps = set(columns["time"][columns["event"] == Event.QNETWORK_SWAP_PULL].tolist())
    for (start, stop), row, answer in zip(
        instructions.intervals.tolist(),
        instructions.rows.tolist(),
        instructions.outcome_rows.tolist(),
        strict=True,
    ):
        event, pid = Event(int(columns["event"][row])), int(columns["process"][row])
        argument = None
        arguments: dict[str, int | str] = {}
        if node.has_details:
            argument = int(columns["detail"][row])
            arguments["process"] = pid
            if answer >= 0:
                arguments["outcome"] = _outcome_name(int(columns["detail"][answer]))
        is_network = node.has_details and pid == NETWORK_PID
        name = instruction_name(event, argument, by_network=is_network)
        if event == Event.QDEVICE_PRODUCE_CMD and start in swaps:
            name = "ESW"  # the published traces have one event for all of PMG, MOV, SWP and ESW
        span = timeline.add_span(track, start * node.tick_ns, stop * node.tick_ns, name, arguments)
        if span is None:
            continue
        if event in ENTANGLEMENT_EVENTS:
            activity.attempts.append(span)
            if start in pulled:
                activity.requests[span] = pulled[start]
        else:
            activity.instructions[pid].append(span)


def _outcome_name(code: int) -> str:
    try:
        return Outcome(code).name
    except ValueError:
        return str(code)


def _add_pairs(timeline: Timeline, node: NodeTraces, activity: QnpuActivity) -> None:
    """Heralds and deliveries; within a tick the herald came first."""
    columns = node.qnpu
    chosen = np.flatnonzero(np.isin(columns["event"], [*_HERALDS, Event.QNP_BQ_DELIVERED]))
    is_delivery = columns["event"][chosen] == Event.QNP_BQ_DELIVERED
    chosen = chosen[np.lexsort((is_delivery, columns["time"][chosen]))]
    track = timeline.add_track(node.name, Part.QNPU, "pairs")
    ends = [timeline.spans[span].stop_ns for span in activity.attempts]
    herald: tuple[int, int] | None = None

    def close(pid: int, delivered_ns: int | None) -> None:
        if herald is None:
            return
        herald_ns, sequence = herald
        place = bisect_left(ends, herald_ns)
        is_there = place < len(ends) and ends[place] == herald_ns
        name = f"pair {sequence}" if node.has_details else "pair"
        span = None
        timeline.add_mark(track, herald_ns, f"{name} heralded")
        if delivered_ns is not None:
            span = timeline.add_span(track, herald_ns, delivered_ns, f"{name} to be delivered")
            timeline.add_mark(track, delivered_ns, f"{name} delivered")
        activity.pairs.append(
            DeliveredPair(
                pid,
                sequence,
                herald_ns,
                delivered_ns,
                activity.attempts[place] if is_there else None,
                span,
            )
        )

    for row in chosen.tolist():
        time_ns = int(columns["time"][row]) * node.tick_ns
        if columns["event"][row] == Event.QNP_BQ_DELIVERED:
            close(int(columns["process"][row]), time_ns)
            herald = None
        else:
            close(NETWORK_PID, None)
            herald = time_ns, int(columns["detail"][row])
    close(NETWORK_PID, None)
