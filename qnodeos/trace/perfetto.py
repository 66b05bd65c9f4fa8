"""Timelines in the JSON trace event format, which ui.perfetto.dev and chrome://tracing open.

A process of the format is one part of a node (``client QDevice``), a thread one track of it.
Spans are complete events (``X``), marks instants (``i``), arrows flows (``s``, ``t``, ``f``)
at the moment of the mark or within the span that they touch. Times are in microseconds, and
exact to the ns as long as they stay below 100 days.

Source of the format: "Trace Event Format", the document of the Catapult project.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from heapq import merge
from typing import Any, Final, TextIO

from qnodeos.trace.spans import Timeline

_Event = dict[str, Any]
_US_IN_NS: Final = 1_000
_FLOW_PHASES: Final = ("s", "t", "f")


def write_perfetto(stream: TextIO, timeline: Timeline, metadata: Mapping[str, str]) -> None:
    """Write a timeline, one event per line.

    Args:
        stream: where to write text.
        timeline: what to show.
        metadata: shown by the viewers as information on the trace.
    """
    stream.write('{"displayTimeUnit": "ns",\n"otherData": ')
    json.dump(dict(metadata), stream)
    stream.write(',\n"traceEvents": [\n')
    separator = ""
    for event in trace_events(timeline):
        stream.write(separator)
        stream.write(json.dumps(event, separators=(",", ":")))
        separator = ",\n"
    stream.write("\n]}\n")


def trace_events(timeline: Timeline) -> Iterator[_Event]:
    """The events of the file: names first, then all others in the order of time."""
    places, names = _places(timeline)
    yield from names
    spans = sorted(_spans(timeline, places), key=_order)
    marks = sorted(_marks(timeline, places), key=_order)
    flows = sorted(_flows(timeline, places), key=_order)
    # Of one moment: spans and marks first; an arrow touches what was begun last on its track.
    yield from merge(spans, marks, flows, key=_order)


def _order(event: _Event) -> float:
    moment: float = event["ts"]
    return moment


def _places(timeline: Timeline) -> tuple[list[dict[str, int]], list[_Event]]:
    """The process and thread of every track, and the events that name them."""
    processes: dict[tuple[str, str], int] = {}
    places: list[dict[str, int]] = []
    names: list[_Event] = []

    def name(what: str, place: dict[str, int], **arguments: str | int) -> None:
        names.append({"ph": "M", "name": what, **place, "args": arguments})

    for number, track in enumerate(timeline.tracks, 1):
        key = track.node, track.part
        if key not in processes:
            processes[key] = len(processes) + 1
            place = {"pid": processes[key]}
            name("process_name", place, name=f"{track.node} {track.part}")
            name("process_sort_index", place, sort_index=processes[key])
        place = {"pid": processes[key], "tid": number}
        name("thread_name", place, name=track.name)
        name("thread_sort_index", place, sort_index=number)
        places.append(place)
    return places, names


def _us(time_ns: int) -> float | int:
    whole, rest = divmod(time_ns, _US_IN_NS)
    return time_ns / _US_IN_NS if rest else whole


def _spans(timeline: Timeline, places: list[dict[str, int]]) -> Iterator[_Event]:
    for span in timeline.spans:
        event: _Event = {
            "ph": "X",
            "name": span.name,
            "cat": timeline.tracks[span.track].part,
            **places[span.track],
            "ts": _us(span.start_ns),
            "dur": _us(span.stop_ns - span.start_ns),
        }
        if span.arguments:
            event["args"] = dict(span.arguments)
        yield event


def _marks(timeline: Timeline, places: list[dict[str, int]]) -> Iterator[_Event]:
    for mark in timeline.marks:
        yield {
            "ph": "i",
            "s": "t",
            "name": mark.name,
            "cat": timeline.tracks[mark.track].part,
            **places[mark.track],
            "ts": _us(mark.time_ns),
        }


def _flows(timeline: Timeline, places: list[dict[str, int]]) -> Iterator[_Event]:
    start, step_on, finish = _FLOW_PHASES
    for number, flow in enumerate(timeline.flows, 1):
        last = len(flow.steps) - 1
        for place, step in enumerate(flow.steps):
            phase = start if not place else finish if place == last else step_on
            event: _Event = {
                "ph": phase,
                "name": flow.name,
                "cat": "flow",
                "id": number,
                **places[timeline.spans[step.span].track],
                "ts": _us(step.time_ns),
            }
            if phase == finish:
                event["bp"] = "e"
            yield event
