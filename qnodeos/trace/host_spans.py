"""The tracks of a CNPU: what each of its programs was about."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from qnodeos.trace.events import Event
from qnodeos.trace.node_traces import NodeTraces
from qnodeos.trace.spans import Part, Step, Timeline

UNTIL: Final = {
    Event.SUBROUTINE_SEND_ATTEMPT: "compute",
    Event.SUBROUTINE_SENT: "send subroutine",
    Event.RESULT_RCVD: "wait for result",
    Event.CLAS_MSG_SENT: "compute",
    Event.CLAS_MSG_RCVD: "wait for message",
}
"""What a program was about before an event, since the one before."""

_SENT: Final = Event.SUBROUTINE_SENT


@dataclass(slots=True)
class HostSubroutine:
    """A subroutine as its program sees it; None for what is not in the trace.

    Attributes:
        program: that sent it.
        serial: its number among those of its connection.
        sent_ns: when it was sent.
        send: the span in which it was.
        wait: the span at whose end its result came.
        result: where the result leads.
        result_ns: when it came.
    """

    program: int
    serial: int
    sent_ns: int
    send: Step | None = None
    wait: int | None = None
    result: Step | None = None
    result_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One end of a classical message.

    Attributes:
        node: that sent or received it.
        socket_id: of the socket.
        time_ns: when.
        is_sent: whether this is the sender's end.
        step: where an arrow touches it.
        following: the sending of the subroutine that comes of it, if that is what came next.
    """

    node: str
    socket_id: int
    time_ns: int
    is_sent: bool
    step: Step | None
    following: Step | None = None


@dataclass
class HostActivity:
    """What the CNPU of one node did.

    Attributes:
        subroutines: in the order in which they were sent.
        messages: in the order of time.
        tracks: of each program, by its number.
    """

    subroutines: list[HostSubroutine] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    tracks: dict[int, int] = field(default_factory=dict)


def add_host(timeline: Timeline, node: NodeTraces) -> HostActivity:
    """Add a node's CNPU to a timeline."""
    activity = HostActivity()
    columns = node.host
    for program in np.unique(columns["process"]).tolist():
        chosen = np.flatnonzero(columns["process"] == program)
        chosen = chosen[np.argsort(columns["time"][chosen], kind="stable")]
        rows = list(
            zip(
                [time * node.unit_ns for time in columns["time"][chosen].tolist()],
                columns["event"][chosen].tolist(),
                columns["detail"][chosen].tolist(),
                strict=True,
            )
        )
        activity.tracks[program] = timeline.add_track(node.name, Part.CNPU, f"program {program}")
        _add_program(timeline, node, program, rows, activity)
    activity.subroutines.sort(key=lambda each: each.sent_ns)
    activity.messages.sort(key=lambda each: each.time_ns)
    return activity


def _add_program(
    timeline: Timeline,
    node: NodeTraces,
    program: int,
    rows: list[tuple[int, int, int]],
    activity: HostActivity,
) -> None:
    track = activity.tracks[program]
    before = [None] + [
        timeline.add_span(track, start_ns, stop_ns, UNTIL[Event(event)])
        for (start_ns, _, _), (stop_ns, event, _) in pairwise(rows)
    ]
    after = [*before[1:], None]
    waiting: dict[int, deque[HostSubroutine]] = defaultdict(deque)
    number = 0
    for place, (time_ns, event, detail) in enumerate(rows):
        following, leading = after[place], before[place]
        step = timeline.step_into(following)
        if step is None and leading is not None:
            step = Step(leading, time_ns)
        key = detail if node.has_details else 0
        if event == Event.SUBROUTINE_SENT:
            serial = detail if node.has_details else number
            number += 1
            sent = HostSubroutine(program, serial, time_ns, timeline.step_into(leading) or step)
            waiting[key].append(sent)
            activity.subroutines.append(sent)
            timeline.add_mark(track, time_ns, f"subroutine {serial} sent")
        elif event == Event.RESULT_RCVD and waiting[key]:
            answered = waiting[key].popleft()
            answered.wait, answered.result, answered.result_ns = leading, step, time_ns
            timeline.add_mark(track, time_ns, f"result of subroutine {answered.serial}")
        elif event in {Event.CLAS_MSG_SENT, Event.CLAS_MSG_RCVD}:
            is_sent = event == Event.CLAS_MSG_SENT
            timeline.add_mark(track, time_ns, "message sent" if is_sent else "message received")
            if is_sent and leading is not None:
                step = Step(leading, time_ns)
            send = None
            if not is_sent and place + 2 < len(rows) and rows[place + 2][1] == _SENT:
                send = timeline.step_into(before[place + 2])
            activity.messages.append(Message(node.name, detail, time_ns, is_sent, step, send))
