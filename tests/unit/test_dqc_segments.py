"""Latency segments from traces of two nodes whose times are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnodeos.errors import IncompleteTraceError
from qnodeos.experiments.dqc_segments import (
    PUBLISHED_SEGMENTS_MS,
    SEGMENTS,
    NodeTrace,
    circuit_segments_ms,
    cnpu_share,
)
from qnodeos.trace import Event, TraceRecorder

TICK_NS = 10_000
TICKS_PER_MS = 100
US_PER_MS = 1000

Record = tuple[int, Event, int, int]


def columns_of(records: list[Record]) -> dict[str, np.ndarray]:
    recorder = TraceRecorder(1, max(1, len(records)))
    for record in records:
        recorder.record(*record)
    return recorder.columns()


class Story:
    """Draws the moments of every circuit and writes both the traces and the answer.

    Host moments are multiples of 1 us, QNPU moments of 10 us; the expected segments are
    differences of the drawn moments, one circuit at a time.
    """

    APP, PROCESS, OTHER = 3, 1, 2

    def __init__(self, circuits: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.circuits = circuits
        self.records: dict[str, list[Record]] = {
            "client host": [],
            "client qnpu": [],
            "server host": [],
            "server qnpu": [],
        }
        self.expected: list[dict[str, float]] = []
        start_ms = 0.0
        for i in range(circuits):
            moments = self._draw(rng, start_ms)
            self._write(i, moments)
            self.expected.append(self._segments(moments))
            start_ms = max(moments.values()) + 1
        for records in self.records.values():
            rng.shuffle(records)

    @staticmethod
    def _draw(rng: np.random.Generator, start_ms: float) -> dict[str, float]:
        def us(after_ms: float, spread_ms: int = 2) -> float:
            return (round(after_ms * US_PER_MS) + int(rng.integers(0, spread_ms * US_PER_MS))) / 1e3

        def tick(after_ms: float, spread_ms: int = 2) -> float:
            ticks = int(np.ceil(after_ms * TICKS_PER_MS - 1e-9))
            return (ticks + int(rng.integers(0, spread_ms * TICKS_PER_MS))) / 1e2

        m: dict[str, float] = {"c1 attempt": us(start_ms)}
        m["c1 sent"] = us(m["c1 attempt"])
        m["c1 added"] = tick(m["c1 attempt"])
        at_once = rng.random() < 0.2
        m["ent"] = m["c1 added"] if at_once else tick(m["c1 added"], 10)
        m["client ok"] = tick(m["ent"] + 0.02, 500)
        m["c1 done"] = tick(m["client ok"])
        m["c1 result"] = us(m["c1 done"])
        m["msg sent"] = us(m["c1 result"])
        m["server ok"] = m["client ok"] + int(rng.integers(-1, 3)) / 1e2
        early = rng.random() < 0.5
        m["s1 attempt"] = us(start_ms if early else m["server ok"])
        m["s1 sent"] = us(m["s1 attempt"])
        m["s1 added"] = tick(m["s1 attempt"])
        m["s1 done"] = tick(max(m["s1 added"], m["server ok"]))
        m["s1 result"] = us(m["s1 done"])
        m["msg rcvd"] = us(m["msg sent"])
        m["s2 attempt"] = us(max(m["msg rcvd"], m["s1 result"]))
        m["s2 sent"] = us(m["s2 attempt"])
        m["s2 added"] = tick(m["s2 attempt"])
        m["s2 done"] = tick(m["s2 added"])
        m["s2 result"] = us(max(m["s2 done"], m["s2 sent"]))
        return m

    def _write(self, i: int, m: dict[str, float]) -> None:
        for node, name, serial in (
            ("client", "c1", i),
            ("server", "s1", 2 * i),
            ("server", "s2", 2 * i + 1),
        ):
            self._host(node, Event.SUBROUTINE_SEND_ATTEMPT, m[f"{name} attempt"], serial)
            self._host(node, Event.SUBROUTINE_SENT, m[f"{name} sent"], serial)
            self._host(node, Event.RESULT_RCVD, m[f"{name} result"], serial)
            self._qnpu(node, Event.PROCMGR_SUBROUTINE_ADDED, m[f"{name} added"], serial)
            self._qnpu(node, Event.PROCMGR_SUBROUTINE_DONE, m[f"{name} done"], serial)
            # Another program on the node, with subroutines of the same serial numbers.
            self._host(node, Event.RESULT_RCVD, m[f"{name} result"], serial, self.OTHER)
            self._qnpu(node, Event.PROCMGR_SUBROUTINE_DONE, 0.5, serial, self.OTHER)
        self._host("client", Event.CLAS_MSG_SENT, m["msg sent"], 0)
        self._host("server", Event.CLAS_MSG_RCVD, m["msg rcvd"], 0)
        self._qnpu("client", Event.EGP_ENT_OK, m["client ok"], i, 0)
        self._qnpu("server", Event.EGP_ENT_OK, m["server ok"], i, 0)
        middle = round((m["ent"] + m["client ok"]) / 2 * TICKS_PER_MS) / TICKS_PER_MS
        for attempt in (m["ent"], middle, m["client ok"]):
            self._qnpu("client", Event.QDEVICE_PRODUCE_ENT_CMD, attempt, 0, 0)

    def _host(self, node: str, event: Event, ms: float, detail: int, process: int = APP) -> None:
        self.records[f"{node} host"].append((round(ms * US_PER_MS), event, process, detail))

    def _qnpu(
        self, node: str, event: Event, ms: float, detail: int, process: int = PROCESS
    ) -> None:
        self.records[f"{node} qnpu"].append((round(ms * TICKS_PER_MS), event, process, detail))

    @staticmethod
    def _segments(m: dict[str, float]) -> dict[str, float]:
        def overhead(name: str) -> float:
            whole = m[f"{name} result"] - m[f"{name} attempt"]
            return whole - (m[f"{name} done"] - m[f"{name} added"])

        return {
            "entanglement": m["client ok"] - m["ent"],
            "c1_wait_for_bin": m["ent"] - m["c1 added"],
            "c1_after_delivery": m["c1 done"] - m["client ok"],
            "client_result_to_message_sent": m["msg sent"] - m["c1 result"],
            "classical_communication": m["msg rcvd"] - m["msg sent"],
            "s1_after_delivery": m["s1 done"] - m["server ok"],
            "s1_done_to_s2_added": m["s2 added"] - m["s1 done"],
            "server_result_to_message": m["msg rcvd"] - m["s1 result"],
            "server_message_to_s2_attempt": m["s2 attempt"] - m["msg rcvd"],
            "s2_attempt_to_sent": m["s2 sent"] - m["s2 attempt"],
            "s2_sent_to_result": m["s2 result"] - m["s2 sent"],
            "s2_qnpu": m["s2 done"] - m["s2 added"],
            "live_time": m["s2 done"] - m["server ok"],
            "overhead_c1": overhead("c1"),
            "overhead_s1": overhead("s1"),
            "overhead_s2": overhead("s2"),
            "down_client": m["c1 result"] - m["c1 done"],
            "up_server": m["s2 added"] - m["s2 attempt"],
        }

    def node(self, name: str) -> NodeTrace:
        return NodeTrace(
            name,
            columns_of(self.records[f"{name} host"]),
            1000,
            columns_of(self.records[f"{name} qnpu"]),
            TICK_NS,
            app_id=self.APP,
            process=self.PROCESS,
        )

    def without(self, where: str, event: Event) -> Story:
        """Drop the first record of an event."""
        records = self.records[where]
        records.remove(next(record for record in records if record[1] == event))
        return self


@settings(max_examples=40)
@given(circuits=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_segments_are_the_differences_that_were_drawn(circuits: int, seed: int) -> None:
    story = Story(circuits, seed)
    segments = circuit_segments_ms(story.node("client"), story.node("server"), circuits)
    assert set(segments) == set(SEGMENTS) == set(story.expected[0])
    for name, values in segments.items():
        expected = [circuit[name] for circuit in story.expected]
        assert values == pytest.approx(expected, abs=1e-6), name


def test_the_path_through_both_nodes_adds_up_to_the_live_time() -> None:
    story = Story(20, 5)
    segments = circuit_segments_ms(story.node("client"), story.node("server"), 20)
    path = sum(
        segments[name]
        for name in (
            "c1_after_delivery",
            "down_client",
            "client_result_to_message_sent",
            "classical_communication",
            "server_message_to_s2_attempt",
            "up_server",
            "s2_qnpu",
        )
    )
    # Both ends learn of the pair within three ticks of each other in this story.
    assert np.abs(path - segments["live_time"]).max() <= 0.02 + 1e-9
    server = segments["s1_after_delivery"] + segments["s1_done_to_s2_added"] + segments["s2_qnpu"]
    assert server == pytest.approx(segments["live_time"])


def test_concurrent_things_may_have_negative_differences() -> None:
    story = Story(50, 6)
    segments = circuit_segments_ms(story.node("client"), story.node("server"), 50)
    assert (segments["server_result_to_message"] < 0).any()
    assert (segments["server_result_to_message"] > 0).any()


def test_cnpu_share_of_the_published_means() -> None:
    means = {name: mean for name, (mean, _) in PUBLISHED_SEGMENTS_MS.items()}
    assert cnpu_share(means) == pytest.approx(0.36, abs=0.005)
    assert cnpu_share(means, count_send=True) == pytest.approx(0.55, abs=0.005)


def test_cnpu_share_per_circuit() -> None:
    segments = {
        "client_result_to_message_sent": np.array([0.4, 0.5]),
        "server_message_to_s2_attempt": np.array([1.6, 0.5]),
        "live_time": np.array([4.0, 5.0]),
    }
    assert cnpu_share(segments) == pytest.approx([0.5, 0.2])


def test_published_segments_are_consistent() -> None:
    mean = {name: value for name, (value, _) in PUBLISHED_SEGMENTS_MS.items()}
    server = mean["s1_after_delivery"] + mean["s1_done_to_s2_added"] + mean["s2_qnpu"]
    assert server == pytest.approx(mean["live_time"], abs=0.001)


def test_node_trace_from_recorders() -> None:
    host, qnpu = TraceRecorder(1000, 1), TraceRecorder(20_000, 2)
    for time in (10, 20):
        host.record(time, Event.CLAS_MSG_SENT, 4)
    qnpu.record(7, Event.EGP_ENT_OK)
    trace = NodeTrace.from_recorders("ann", host, qnpu, app_id=4)
    assert trace.dropped == 1
    assert trace.host_times_ms(Event.CLAS_MSG_SENT, 1) == pytest.approx([0.02])
    assert trace.qnpu_times_ms(Event.EGP_ENT_OK) == pytest.approx([0.14])


@pytest.mark.parametrize(
    ("where", "event"),
    [
        ("client host", Event.CLAS_MSG_SENT),
        ("server host", Event.CLAS_MSG_RCVD),
        ("client host", Event.SUBROUTINE_SEND_ATTEMPT),
        ("server host", Event.SUBROUTINE_SENT),
        ("server qnpu", Event.PROCMGR_SUBROUTINE_ADDED),
        ("client qnpu", Event.EGP_ENT_OK),
        ("server qnpu", Event.EGP_ENT_OK),
    ],
)
def test_a_missing_event_is_named(where: str, event: Event) -> None:
    story = Story(4, 7).without(where, event)
    with pytest.raises(IncompleteTraceError, match=f"{where[:6]} has .* {event.name}"):
        circuit_segments_ms(story.node("client"), story.node("server"), 4)


def test_a_repeated_serial_number_is_refused() -> None:
    story = Story(4, 7)
    records = story.records["client host"]
    index = next(i for i, r in enumerate(records) if r[1] == Event.SUBROUTINE_SENT and r[3] == 2)
    records[index] = (*records[index][:3], 1)
    with pytest.raises(IncompleteTraceError, match="one for each subroutine"):
        circuit_segments_ms(story.node("client"), story.node("server"), 4)


def test_a_wrong_number_of_circuits_is_refused() -> None:
    story = Story(4, 7)
    for circuits in (3, 5):
        with pytest.raises(IncompleteTraceError):
            circuit_segments_ms(story.node("client"), story.node("server"), circuits)


@pytest.mark.parametrize("circuit", [0, 3])
def test_a_circuit_without_an_entanglement_command_is_refused(circuit: int) -> None:
    story = Story(4, 7)
    client = story.node("client")
    added = client.qnpu_by_serial_ms(Event.PROCMGR_SUBROUTINE_ADDED, 4)[circuit]
    delivered = client.qnpu_times_ms(Event.EGP_ENT_OK, 4)[circuit]
    story.records["client qnpu"] = [
        record
        for record in story.records["client qnpu"]
        if record[1] != Event.QDEVICE_PRODUCE_ENT_CMD
        or not added - 1e-6 <= record[0] / TICKS_PER_MS <= delivered + 1e-6
    ]
    with pytest.raises(IncompleteTraceError, match=f"start of circuit {circuit} "):
        circuit_segments_ms(story.node("client"), story.node("server"), 4)


@pytest.mark.parametrize("name", ["client", "server"])
def test_dropped_events_are_refused(name: str) -> None:
    story = Story(2, 8)
    nodes: dict[str, Any] = {node: story.node(node) for node in ("client", "server")}
    nodes[name] = replace(nodes[name], dropped=3)
    with pytest.raises(IncompleteTraceError, match=f"{name} lost 3 events"):
        circuit_segments_ms(nodes["client"], nodes["server"], 2)
