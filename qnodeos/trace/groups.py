"""Which spans belong together: those that arrows connect, and what was part of them.

For delegated computation a group is one circuit: the client's subroutine and the server's
two, joined by the herald and by the classical message. Where programs do not talk, a group
is one subroutine.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from qnodeos.trace.spans import Timeline


@dataclass(frozen=True)
class Group:
    """Spans that belong together.

    Attributes:
        flows: numbers of the arrows between them, in the order of time.
        spans: numbers of the spans, in the order of their start.
        start_ns: of the first span.
        stop_ns: of the last that ends.
    """

    flows: tuple[int, ...]
    spans: tuple[int, ...]
    start_ns: int
    stop_ns: int


def find_groups(timeline: Timeline) -> list[Group]:
    """All groups of a timeline, in the order of their start."""
    leaders: dict[int, int] = {}

    def leader(span: int) -> int:
        while (above := leaders.setdefault(span, span)) != span:
            leaders[span] = leaders[above]
            span = above
        return span

    for flow in timeline.flows:
        first = leader(flow.steps[0].span)
        for step in flow.steps[1:]:
            leaders[leader(step.span)] = first
    for part, whole in timeline.parents.items():
        leaders[leader(part)] = leader(whole)
    flows: dict[int, list[int]] = defaultdict(list)
    for number, flow in enumerate(timeline.flows):
        flows[leader(flow.steps[0].span)].append(number)
    members: dict[int, list[int]] = defaultdict(list)
    for span in list(leaders):
        members[leader(span)].append(span)
    groups = []
    for first, spans in members.items():
        spans.sort(key=lambda span: (timeline.spans[span].start_ns, span))
        arrows = sorted(flows[first], key=lambda flow: timeline.flows[flow].steps[0].time_ns)
        groups.append(
            Group(
                tuple(arrows),
                tuple(spans),
                timeline.spans[spans[0]].start_ns,
                max(timeline.spans[span].stop_ns for span in spans),
            )
        )
    return sorted(groups, key=lambda group: group.start_ns)
