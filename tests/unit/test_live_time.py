"""The software's part of the live time, from traces whose times are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.errors import IncompleteTraceError, InsufficientDataError
from qnodeos.experiments.dqc_segments import NodeTrace
from qnodeos.experiments.live_time import device_time_ms, distribution, shifted, software_ms
from qnodeos.trace import Event, TraceRecorder

TICK_NS = 10_000
US_PER_TICK = 10
CLIENT_PID, SERVER_PID = 3, 5


def trace_of(node: str, host: list[Any], qnpu: list[Any], pid: int) -> NodeTrace:
    recorders = TraceRecorder(1_000, 10_000), TraceRecorder(TICK_NS, 10_000)
    for recorder, records in zip(recorders, (host, qnpu), strict=True):
        for record in records:
            recorder.record(*record)
    return NodeTrace.from_recorders(node, *recorders, process=pid)


def device_trace(intervals: list[tuple[int, int]]) -> NodeTrace:
    records = []
    for begin, end in intervals:
        records += [(begin, Event.QDEVICE_CONSUME_CMD), (end, Event.QDEVICE_PRODUCE_OUTCOME)]
    return trace_of("node", [], records, 0)


@st.composite
def busy_spans(draw):
    """Intervals that do not overlap, in ticks."""
    edges = sorted(draw(st.lists(st.integers(0, 500), max_size=20, unique=True)))
    return list(zip(edges[0::2], edges[1::2], strict=False))


@given(busy_spans(), st.integers(0, 500), st.integers(0, 500))
def test_device_time_is_the_overlap(intervals, one, other):
    since, until = sorted((one, other))
    expected = sum(max(0, min(end, until) - max(begin, since)) for begin, end in intervals)
    measured = device_time_ms(
        device_trace(intervals), np.array([since / 100]), np.array([until / 100])
    )
    assert measured == pytest.approx([expected / 100], abs=1e-9)


def test_commands_and_outcomes_must_alternate():
    with pytest.raises(IncompleteTraceError, match="do not alternate"):
        device_time_ms(device_trace([(10, 20), (15, 30)]), np.array([0.0]), np.array([1.0]))


@pytest.mark.parametrize(
    "record", [(40, Event.QDEVICE_CONSUME_CMD), (40, Event.QDEVICE_PRODUCE_OUTCOME)]
)
def test_commands_and_outcomes_come_in_pairs(record):
    """A command is recorded with its outcome, so there is no half of a pair."""
    records = [(10, Event.QDEVICE_CONSUME_CMD), (20, Event.QDEVICE_PRODUCE_OUTCOME), record]
    with pytest.raises(IncompleteTraceError, match="do not alternate"):
        device_time_ms(trace_of("node", [], records, 0), np.array([0.0]), np.array([1.0]))


def circuit(start: int, *, correction: int) -> tuple[dict[str, list[Any]], int]:
    """One circuit from a tick on; returns its records and the ticks of its software."""
    host_us, ticks = US_PER_TICK, start + 100
    records: dict[str, list[Any]] = {key: [] for key in ("ch", "cq", "sh", "sq")}
    work: dict[str, list[int]] = {"client": [], "server": []}

    def instruction(node: str, at: int, duration: int) -> int:
        key = node[0] + "q"
        records[key] += [
            (at, Event.QDEVICE_CONSUME_CMD),
            (at + duration, Event.QDEVICE_PRODUCE_OUTCOME),
        ]
        work[node].append(duration)
        return at + duration

    index = start // 1_000
    records["ch"] += [
        (start * host_us, Event.SUBROUTINE_SEND_ATTEMPT, 0, index),
        (start * host_us + 3, Event.SUBROUTINE_SENT, 0, index),
    ]
    records["cq"] += [
        (start + 1, Event.PROCMGR_SUBROUTINE_ADDED, CLIENT_PID, index),
        (start + 2, Event.QDEVICE_PRODUCE_ENT_CMD),
        (start + 3, Event.QDEVICE_CONSUME_CMD),
        (ticks, Event.QDEVICE_PRODUCE_OUTCOME),
        (ticks, Event.EGP_ENT_OK),
    ]
    records["sh"] += [
        (start * host_us, Event.SUBROUTINE_SEND_ATTEMPT, 0, 2 * index),
        (start * host_us + 3, Event.SUBROUTINE_SENT, 0, 2 * index),
    ]
    records["sq"] += [
        (start + 1, Event.PROCMGR_SUBROUTINE_ADDED, SERVER_PID, 2 * index),
        (start + 3, Event.QDEVICE_CONSUME_CMD),
        (ticks, Event.QDEVICE_PRODUCE_OUTCOME),
        (ticks, Event.EGP_ENT_OK),
    ]
    done = instruction("client", ticks + 1, 8)
    done = instruction("client", done + 2, 30) + 1  # software: 1 + 2 + 1
    records["cq"].append((done, Event.PROCMGR_SUBROUTINE_DONE, CLIENT_PID, index))
    records["ch"] += [
        ((done + 2) * host_us, Event.RESULT_RCVD, 0, index),
        ((done + 3) * host_us, Event.CLAS_MSG_SENT, 0, 0),
    ]
    s1_done = instruction("server", ticks + 1, correction) + 1 if correction else ticks + 1
    records["sq"].append((s1_done, Event.PROCMGR_SUBROUTINE_DONE, SERVER_PID, 2 * index))
    received = max(done + 5, s1_done + 2)
    records["sh"] += [
        ((s1_done + 1) * host_us, Event.RESULT_RCVD, 0, 2 * index),
        (received * host_us, Event.CLAS_MSG_RCVD, 0, 0),
        ((received + 1) * host_us, Event.SUBROUTINE_SEND_ATTEMPT, 0, 2 * index + 1),
        ((received + 2) * host_us, Event.SUBROUTINE_SENT, 0, 2 * index + 1),
    ]
    added = received + 3
    records["sq"].append((added, Event.PROCMGR_SUBROUTINE_ADDED, SERVER_PID, 2 * index + 1))
    end = instruction("server", added + 1, 40) + 2
    records["sq"].append((end, Event.PROCMGR_SUBROUTINE_DONE, SERVER_PID, 2 * index + 1))
    records["sh"].append(((end + 1) * host_us, Event.RESULT_RCVD, 0, 2 * index + 1))
    quantum = max(38, correction) + 40
    return records, end - ticks - quantum


@pytest.mark.parametrize("correction", [0, 10, 60])
def test_software_is_what_no_device_did(correction):
    stories = [circuit(start, correction=correction) for start in (0, 1_000, 2_000)]
    joined = {key: [r for records, _ in stories for r in records[key]] for key in stories[0][0]}
    client = trace_of("client", joined["ch"], joined["cq"], CLIENT_PID)
    server = trace_of("server", joined["sh"], joined["sq"], SERVER_PID)
    measured = software_ms(client, server, 3)
    assert measured == pytest.approx([ticks / 100 for _, ticks in stories])
    assert measured.min() > 0


def test_a_distribution_needs_values():
    with pytest.raises(InsufficientDataError):
        distribution(np.array([]))
    assert distribution(np.array([1.0, 2.0, 9.0])) == {"p50": 2.0, "p90": 7.6, "max": 9.0}


def test_events_can_be_cut_out_and_shifted():
    recorder = TraceRecorder(1, 10)
    for time in (5, 10, 15):
        recorder.record(time, Event.EGP_ENT_OK)
    assert shifted(recorder.columns(), 5)["time"].tolist() == [0, 5, 10]
    assert shifted(recorder.columns(), 1, 10, 14)["time"].tolist() == [9]
