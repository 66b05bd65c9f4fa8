"""What a trace shows: intervals with names on tracks, marks, and arrows between them.

The model between events and the formats that people look at. All times are in ns on the
one time axis of all nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from qnodeos.errors import LimitError

SPANS_MAX: Final = 1 << 22
"""Most spans, marks and steps of arrows in one timeline: some hundred MB in any format."""


class Part(StrEnum):
    """The parts of a node that have tracks of their own."""

    CNPU = "CNPU"
    QNPU = "QNPU"
    QDEVICE = "QDevice"


@dataclass(frozen=True, slots=True)
class Track:
    """A line of the picture. Spans of one track never overlap."""

    node: str
    part: Part
    name: str


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted, from ``start_ns`` until before ``stop_ns``.

    Attributes:
        track: number of its track.
        start_ns: first moment.
        stop_ns: end; later than the first moment.
        name: for people.
        arguments: what else is known, by name.
    """

    track: int
    start_ns: int
    stop_ns: int
    name: str
    arguments: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a moment."""

    track: int
    time_ns: int
    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """Where an arrow touches a span: the span's number, and a time within the span.

    At the end of the span it touches the mark that is there.
    """

    span: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class Flow:
    """A chain of arrows from span to span, in the order of time; two steps at least."""

    name: str
    steps: tuple[Step, ...]


@dataclass
class Timeline:
    """Tracks, and what is on them.

    Attributes:
        tracks: lines of the picture.
        spans: what lasted.
        marks: what happened at a moment.
        flows: arrows.
        parents: by the number of a span, that of the subroutine it was part of.
    """

    tracks: list[Track] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    parents: dict[int, int] = field(default_factory=dict)
    _size: int = 0

    def add_track(self, node: str, part: Part, name: str) -> int:
        """A new track; returns its number."""
        self._grow(1)
        self.tracks.append(Track(node, part, name))
        return len(self.tracks) - 1

    def rename_track(self, track: int, name: str) -> None:
        """Give a track another name."""
        self.tracks[track] = replace(self.tracks[track], name=name)

    def add_span(
        self,
        track: int,
        start_ns: int,
        stop_ns: int,
        name: str,
        arguments: Mapping[str, int | str] | None = None,
    ) -> int | None:
        """A new span; returns its number, or None for one that would last no time."""
        if stop_ns <= start_ns:
            return None
        self._grow(1)
        self.spans.append(Span(track, start_ns, stop_ns, name, arguments or {}))
        return len(self.spans) - 1

    def add_mark(self, track: int, time_ns: int, name: str) -> None:
        """A new mark."""
        self._grow(1)
        self.marks.append(Mark(track, time_ns, name))

    def add_flow(self, name: str, steps: Iterable[Step | None]) -> None:
        """A new chain of arrows, sorted by time; steps that are None are left out."""
        known = sorted((step for step in steps if step is not None), key=lambda s: s.time_ns)
        known = [step for i, step in enumerate(known) if not i or step.span != known[i - 1].span]
        if len(known) >= 2:
            self._grow(len(known))
            self.flows.append(Flow(name, tuple(known)))

    def add_lanes(
        self, node: str, part: Part, name: str, spans: Iterable[tuple[int, int, str]]
    ) -> list[int | None]:
        """Spans that may overlap, on as many tracks as that takes.

        Args:
            node: of the tracks.
            part: of the tracks.
            name: of the first track; the others are numbered.
            spans: start, stop and name of each, sorted by start.

        Returns:
            The number of each span, None for those that last no time.
        """
        lanes: list[tuple[int, int]] = []  # end of the last span, and the track
        numbers: list[int | None] = []
        for start_ns, stop_ns, span_name in spans:
            if stop_ns <= start_ns:
                numbers.append(None)
                continue
            free = next((i for i, (end, _) in enumerate(lanes) if end <= start_ns), len(lanes))
            if free == len(lanes):
                label = name if not lanes else f"{name} ({free + 1})"
                lanes.append((0, self.add_track(node, part, label)))
            track = lanes[free][1]
            lanes[free] = stop_ns, track
            numbers.append(self.add_span(track, start_ns, stop_ns, span_name))
        return numbers

    def step_into(self, span: int | None) -> Step | None:
        """An arrow at the beginning of a span, if there is one."""
        return None if span is None else Step(span, self.spans[span].start_ns)

    def _grow(self, by: int) -> None:
        self._size += by
        if self._size > SPANS_MAX:
            raise LimitError(
                f"the traces show more than SPANS_MAX = {SPANS_MAX} spans, marks and arrows; "
                "record a shorter time"
            )
