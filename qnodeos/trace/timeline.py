"""From the traces of several nodes to one timeline: tracks, spans and arrows between them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final

from qnodeos.trace.host_spans import HostActivity, HostSubroutine, Message, add_host
from qnodeos.trace.matching import match_subroutines
from qnodeos.trace.node_traces import NodeTraces
from qnodeos.trace.process_spans import RUNNING
from qnodeos.trace.qnpu_spans import DeliveredPair, QnpuActivity, QnpuSubroutine, add_qnpu
from qnodeos.trace.spans import Step, Timeline

HERALD_TOLERANCE_NS: Final = 1_000_000
"""Two nodes record the herald of one pair within this time of each other."""


def build_timeline(nodes: Sequence[NodeTraces]) -> Timeline:
    """Everything the traces of some nodes show, on one time axis.

    Args:
        nodes: their traces, with times that count from the same moment.

    Raises:
        LimitError: the traces show more than ``SPANS_MAX`` things.
    """
    timeline = Timeline()
    messages: list[Message] = []
    pairs: list[list[DeliveredPair]] = []
    for each in nodes:
        node = each.with_processes()
        host = add_host(timeline, node)
        qnpu = add_qnpu(timeline, node)
        matched = match_subroutines(
            host.subroutines, qnpu.subroutines, node.tick_ns, by_serial=node.has_details
        )
        _name_programs(timeline, node, host, matched)
        _add_subroutine_flows(timeline, node.name, qnpu, matched)
        messages += host.messages
        pairs.append(qnpu.pairs)
    _add_message_flows(timeline, messages)
    _add_herald_flows(timeline, pairs)
    return timeline


_Matched = list[tuple[HostSubroutine, QnpuSubroutine]]


def _name_programs(
    timeline: Timeline, node: NodeTraces, host: HostActivity, matched: _Matched
) -> None:
    """Call a program what its first process is called."""
    first_pid: dict[int, int] = {}
    for sent, added in matched:
        first_pid.setdefault(sent.program, added.pid)
    for program, pid in first_pid.items():
        if pid in node.programs and (node.has_details or len(node.processes()) == 1):
            timeline.rename_track(host.tracks[program], node.programs[pid])


def _add_subroutine_flows(
    timeline: Timeline, node: str, qnpu: QnpuActivity, matched: _Matched
) -> None:
    """From the host to the QNPU, to the pair and the end there, and back."""
    hosts = {(added.pid, added.serial): sent for sent, added in matched}
    deliveries: dict[int, deque[DeliveredPair]] = defaultdict(deque)
    for pair in qnpu.pairs:
        if pair.delivered_ns is not None:
            deliveries[pair.pid].append(pair)
    last_done_ns: dict[int, int] = {}
    for each in qnpu.subroutines:
        if each.span is None or each.done_ns is None:
            continue
        sent = hosts.get((each.pid, each.serial))
        steps = [None if sent is None else sent.send, timeline.step_into(each.span)]
        # A process does one subroutine after the other.
        since_ns = max(each.added_ns, last_done_ns.get(each.pid, each.added_ns))
        last_done_ns[each.pid] = each.done_ns
        states = _within(timeline, qnpu.states[each.pid], since_ns, each.done_ns)
        parts = states + _within(timeline, qnpu.instructions[each.pid], since_ns, each.done_ns)
        pairs = deliveries[each.pid]
        while pairs and (pairs[0].delivered_ns or 0) <= each.done_ns:
            pair = pairs.popleft()
            attempts = [
                attempt
                for attempt in _within(timeline, qnpu.attempts, since_ns, pair.herald_ns)
                if pair.attempt in qnpu.requests
                and qnpu.requests.get(attempt) == qnpu.requests[pair.attempt]
            ]
            steps += map(timeline.step_into, [*attempts[:1], *attempts[-1:]])
            if pair.herald_ns >= since_ns:
                steps.append(timeline.step_into(pair.span))
            # The peer may have asked first, and a pair may come before the subroutine does.
            parts += attempts
            parts += [span for span in (pair.attempt, pair.span) if span is not None]
        runs = [span for span in states if timeline.spans[span].name == RUNNING]
        steps += map(timeline.step_into, runs[-1:])
        if sent is not None:
            steps.append(sent.result)
            parts += [] if sent.wait is None else [sent.wait]
        timeline.add_flow(f"{node} P{each.pid} subroutine {each.serial}", steps)
        timeline.parents.update(dict.fromkeys(parts, each.span))


def _within(timeline: Timeline, spans: Sequence[int], since_ns: int, until_ns: int) -> list[int]:
    """Those of some spans, sorted by time, that lie between two times."""
    first = bisect_left(spans, since_ns, key=lambda span: timeline.spans[span].start_ns)
    last = bisect_right(spans, until_ns, key=lambda span: timeline.spans[span].stop_ns)
    return list(spans[first:last])


def _add_message_flows(timeline: Timeline, messages: Sequence[Message]) -> None:
    """From each message sent to where it is received; those of one socket stay in order."""
    under_way: dict[int, deque[Message]] = defaultdict(deque)
    for message in sorted(messages, key=lambda each: (each.time_ns, not each.is_sent)):
        waiting = under_way[message.socket_id]
        if message.is_sent:
            waiting.append(message)
            continue
        for sent in waiting:
            if sent.node != message.node:
                waiting.remove(sent)
                timeline.add_flow(
                    f"message {sent.node} to {message.node}",
                    [sent.step, message.step, message.following],
                )
                break


def _add_herald_flows(timeline: Timeline, nodes: Sequence[Sequence[DeliveredPair]]) -> None:
    """Between the attempts of two nodes that were heralded together."""
    heralds = sorted(
        ((pair.herald_ns, number, pair) for number, pairs in enumerate(nodes) for pair in pairs),
        key=lambda each: each[:2],
    )
    waiting: deque[tuple[int, int, DeliveredPair]] = deque()
    for herald in heralds:
        time_ns, node, pair = herald
        while waiting and waiting[0][0] < time_ns - HERALD_TOLERANCE_NS:
            waiting.popleft()
        partner = next(
            (each for each in waiting if each[1] != node and each[2].sequence == pair.sequence),
            None,
        )
        if partner is None:
            waiting.append(herald)
            continue
        waiting.remove(partner)
        # The end that delivered at once made the pair; the other waited to be told.
        ends = sorted((partner[2], pair), key=lambda each: each.span is not None)
        steps: list[Step | None] = [timeline.step_into(ends[0].attempt)]
        steps.append(timeline.step_into(ends[1].span) or timeline.step_into(ends[1].attempt))
        timeline.add_flow(f"herald {pair.sequence}", steps)
