"""Trace files: written whole or not at all, read back, and right whatever was recorded."""

from __future__ import annotations

import errno
import json
from collections import defaultdict
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.errors import ConfigurationError, MalformedTraceError, ResultsNotWrittenError
from qnodeos.trace import HOST_EVENTS, Event, TraceRecorder, export
from qnodeos.trace.export import parse_formats, write_traces
from qnodeos.trace.groups import find_groups
from qnodeos.trace.load import FILES_MAX, load_traces
from qnodeos.trace.node_traces import NodeTraces
from qnodeos.trace.perfetto import trace_events
from qnodeos.trace.timeline import build_timeline

CREATED = datetime(2025, 1, 31, 12, tzinfo=UTC)
QNPU_EVENTS = sorted(set(Event) - HOST_EVENTS)

Row = tuple[int, Event, int, int]


def rows_of(events: list[Event], duration: int) -> st.SearchStrategy[list[Row]]:
    """Any rows, in no order."""
    numbers = st.integers(0, 3), st.integers(-1, 3)
    return st.lists(
        st.tuples(st.integers(0, duration), st.sampled_from(events), *numbers), max_size=20
    )


@st.composite
def nodes_of(draw: st.DrawFn, name: str) -> NodeTraces:
    """Subroutines as they happen, and whatever else; some of the rows are lost."""
    host, qnpu = draw(rows_of(sorted(HOST_EVENTS), 600)), draw(rows_of(QNPU_EVENTS, 60))
    for serial in range(draw(st.integers(0, 4))):
        program = draw(st.integers(0, 1))
        pid, pair = program + 1, draw(st.integers(0, 2))
        steps = draw(st.lists(st.integers(0, 6), min_size=9, max_size=9))
        ticks = list(accumulate(steps, initial=draw(st.integers(0, 40))))
        qnpu += [
            (ticks[0], Event.PROCMGR_SUBROUTINE_ADDED, pid, serial),
            (ticks[1], Event.PROCESSOR_START_USER_PROCESS, pid, 0),
            (ticks[2], Event.PROCESSOR_WAIT_USER_PROCESS, pid, 0),
            (ticks[3], Event.QNETWORK_ENT_PULL, 0, serial),
            (ticks[3], Event.QDEVICE_PRODUCE_ENT_CMD, 0, 0),
            (ticks[4], Event.PROCESSOR_CONSUME_OUTCOME, 0, 8),
            (ticks[4], Event.EGP_ENT_OK, 0, pair),
            (ticks[5], Event.QNP_BQ_DELIVERED, pid, pair),
            (ticks[6], Event.PROCESSOR_START_USER_PROCESS, pid, 0),
            (ticks[7], Event.PROCESSOR_FINISH_USER_PROCESS, pid, 0),
            (ticks[7], Event.PROCMGR_SUBROUTINE_DONE, pid, serial),
        ]
        host += [
            (10 * ticks[0] - steps[8], Event.SUBROUTINE_SEND_ATTEMPT, program, serial),
            (10 * ticks[0], Event.SUBROUTINE_SENT, program, serial),
            (10 * ticks[8], Event.RESULT_RCVD, program, serial),
            (10 * ticks[9], Event.SUBROUTINE_SEND_ATTEMPT, program, serial + 1),
        ]
    lost = draw(st.sets(st.integers(0, 40), max_size=3))
    return node_of(
        name,
        sorted(row for number, row in enumerate(host) if number not in lost),
        sorted(row for number, row in enumerate(qnpu) if number not in lost),
    )


def recorder_of(unit_ns: int, rows: list[Row]) -> TraceRecorder:
    recorder = TraceRecorder(unit_ns, len(rows) + 1)
    for row in rows:
        recorder.record(*row)
    return recorder


def node_of(name: str, host: list[Row], qnpu: list[Row]) -> NodeTraces:
    return NodeTraces.from_recorders(name, recorder_of(1_000, host), recorder_of(10_000, qnpu))


def some_nodes() -> list[NodeTraces]:
    host: list[Row] = [(1, Event.SUBROUTINE_SEND_ATTEMPT, 0, 0), (9, Event.SUBROUTINE_SENT, 0, 0)]
    qnpu: list[Row] = [
        (1, Event.PROCMGR_SUBROUTINE_ADDED, 1, 0),
        (4, Event.PROCMGR_SUBROUTINE_DONE, 1, 0),
    ]
    return [node_of("client", host, qnpu), node_of("server", host, qnpu)]


# --- whatever was recorded --------------------------------------------------------------


def check_trace_events(events: list[dict[str, Any]]) -> None:
    """What the trace event format demands, as far as this project uses it."""
    places = {(each["pid"], each["tid"]) for each in events if each.get("name") == "thread_name"}
    named = {each["pid"] for each in events if each.get("name") == "process_name"}
    timed = [each for each in events if each["ph"] != "M"]
    assert events[: len(events) - len(timed)] == [each for each in events if each["ph"] == "M"]
    assert all(before["ts"] <= after["ts"] for before, after in pairwise(timed))
    slices: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    marks = set()
    flows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for each in timed:
        place = each["pid"], each["tid"]
        assert place in places
        assert each["pid"] in named
        if each["ph"] == "X":
            assert each["dur"] > 0
            slices[place].append((each["ts"], each["ts"] + each["dur"]))
        elif each["ph"] == "i":
            marks.add((*place, each["ts"]))
        else:
            flows[each["id"]].append(each)
            is_open = any(start <= each["ts"] < stop for start, stop in slices[place])
            assert is_open or (*place, each["ts"]) in marks
    for spans in slices.values():
        assert all(first[1] <= second[0] for first, second in pairwise(sorted(spans)))
    for steps in flows.values():
        phases = "".join(each["ph"] for each in steps)
        assert phases == "s" + "t" * (len(steps) - 2) + "f"


@given(first=nodes_of("a"), second=nodes_of("b"), has_details=st.booleans())
def test_any_trace_becomes_a_timeline_that_viewers_understand(
    first: NodeTraces, second: NodeTraces, has_details: bool
) -> None:
    nodes = [NodeTraces(**vars(node) | {"has_details": has_details}) for node in (first, second)]
    timeline = build_timeline(nodes)
    check_trace_events(list(trace_events(timeline)))
    for flow in timeline.flows:
        for step in flow.steps:
            span = timeline.spans[step.span]
            assert span.start_ns <= step.time_ns <= span.stop_ns
    grouped = [span for group in find_groups(timeline) for span in group.spans]
    assert len(grouped) == len(set(grouped))
    assert set(timeline.parents) <= set(grouped)


def test_the_file_is_json_with_names_and_what_was_run(tmp_path: Path) -> None:
    (path,) = write_traces(tmp_path, some_nodes(), ["perfetto"], 'a "test"', CREATED)
    content = json.loads(path.read_text("utf-8"))
    assert path.name == "trace.json"
    assert content["displayTimeUnit"] == "ns"
    assert content["otherData"]["description"] == 'a "test"'
    assert content["otherData"]["created"] == "2025-01-31T12:00:00+00:00"
    check_trace_events(content["traceEvents"])
    names = {
        each["args"]["name"] for each in content["traceEvents"] if each["name"] == "process_name"
    }
    assert names == {f"{n} {p}" for n in ("client", "server") for p in ("CNPU", "QNPU", "QDevice")}


def test_times_are_exact_to_the_nanosecond() -> None:
    host: list[Row] = [(10**12, Event.CLAS_MSG_SENT, 0, 0), (10**12 + 1, Event.CLAS_MSG_SENT, 0, 0)]
    node = NodeTraces.from_recorders("n", recorder_of(1_001, host), recorder_of(10_000, []))
    spans = [each for each in trace_events(build_timeline([node])) if each["ph"] == "X"]
    assert [round(each["ts"] * 1000) for each in spans] == [1_001 * 10**12]
    assert [each["dur"] for each in spans] == [1.001]


# --- whole or not at all ----------------------------------------------------------------


def test_all_formats_appear_together(tmp_path: Path) -> None:
    written = write_traces(tmp_path / "new", some_nodes(), ["csv", "perfetto"], "test", CREATED)
    names = ["trace_client_cnpu.csv", "trace_client_qnpu.csv"]
    names += ["trace_server_cnpu.csv", "trace_server_qnpu.csv", "trace.json"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(names)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_traces(tmp_path, some_nodes(), ["csv", "perfetto"], "first", CREATED)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fill_the_disk(stream: TextIO, *_: object) -> None:
        stream.write("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "write_perfetto", fill_the_disk)
    with pytest.raises(ResultsNotWrittenError, match=r"trace\.json cannot be written: No space"):
        write_traces(tmp_path, some_nodes(), ["csv", "perfetto"], "second", CREATED)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65])
def test_a_node_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be part of a file's name"):
        write_traces(tmp_path / "out", [node_of(name, [], [])], ["csv"], "test", CREATED)
    assert not (tmp_path / "out").exists()


def test_formats_are_checked() -> None:
    assert parse_formats("csv, otel,csv") == ("csv", "otel")
    assert parse_formats("none") == ()
    with pytest.raises(ConfigurationError, match="unknown trace format 'svg'"):
        parse_formats("csv,svg")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name="opentelemetry.sdk")

    monkeypatch.setattr(export, "import_module", missing)
    with pytest.raises(
        ConfigurationError, match=r"opentelemetry\.sdk.*pip install 'qnodeos\[otel\]"
    ):
        export.load_otel()


# --- reading back -----------------------------------------------------------------------


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    nodes = some_nodes()
    written = write_traces(tmp_path, nodes, ["csv"], "a test", CREATED)
    for loaded in (load_traces([tmp_path]), load_traces(written)):
        assert loaded.description == "a test"
        assert loaded.created == CREATED.isoformat()
        assert loaded.files == tuple(sorted(written))
        assert [node.name for node in loaded.nodes] == ["client", "server"]
        for node, original in zip(loaded.nodes, nodes, strict=True):
            assert (node.unit_ns, node.tick_ns, node.has_details) == (1_000, 10_000, False)
            for mine, its in ((node.host, original.host), (node.qnpu, original.qnpu)):
                assert np.array_equal(mine["time"], its["time"])
                assert np.array_equal(mine["event"], its["event"])


def test_a_file_of_the_published_data_may_have_any_name(tmp_path: Path) -> None:
    (_, path, *_) = write_traces(tmp_path, some_nodes(), ["csv"], "a test", CREATED)
    path.rename(tmp_path / "alice.csv")
    (node,) = load_traces([tmp_path / "alice.csv"]).nodes
    assert node.name == "alice"
    assert node.qnpu["time"].size == 2
    assert node.host["time"].size == 0


def damaged(directory: Path, text: str | bytes) -> Path:
    path = directory / "trace_client_qnpu.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("line", "replacement", "message"),
    [
        (0, "nonsense", "line 1: expected the comment line"),
        (2, "# Clock cycle duration: 1 clock cycle of 0 us", "line 3: clock cycle"),
        (4, "# Channel 1 [group_id=0; event_id=1; channel_name=NOBODY]", "line 5: unknown channel"),
        (-2, "1,", "expected integers"),
        (-2, "1", "columns, found 1"),
        (-2, "9" * 19 + ",1,0", "64 bits"),
        (-2, "x" * 5000, "longer than 4096"),
        (-2, "", "text after an empty line"),
    ],
)
def test_damage_is_reported_with_file_and_line(
    tmp_path: Path, line: int, replacement: str, message: str
) -> None:
    write_traces(tmp_path, some_nodes(), ["csv"], "a test", CREATED)
    path = tmp_path / "trace_client_qnpu.csv"
    lines = path.read_text("utf-8").splitlines()
    lines[line] = replacement
    with pytest.raises(MalformedTraceError, match=message) as caught:
        load_traces([damaged(tmp_path, "\n".join(lines))])
    assert str(path) in str(caught.value)
    assert "line" in str(caught.value)


def test_times_that_cannot_be_are_refused(tmp_path: Path) -> None:
    node = node_of("n", [(1 << 60, Event.RESULT_RCVD, 0, 0)], [])
    path, _ = write_traces(tmp_path, [node], ["csv"], "a test", CREATED)
    with pytest.raises(MalformedTraceError, match="73 years"):
        load_traces([path])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00binary", b"\x00" * 10_000])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(MalformedTraceError, match=r"trace_client_qnpu\.csv"):
        load_traces([damaged(tmp_path, content)])


def test_two_traces_of_one_part_are_refused(tmp_path: Path) -> None:
    first, *_ = write_traces(tmp_path, some_nodes(), ["csv"], "a test", CREATED)
    with pytest.raises(MalformedTraceError, match="second CNPU trace of node client"):
        load_traces([first, tmp_path])


def test_a_name_that_belies_the_events_is_refused(tmp_path: Path) -> None:
    first, *_ = write_traces(tmp_path, some_nodes(), ["csv"], "a test", CREATED)
    first.rename(tmp_path / "trace_other_qnpu.csv")
    with pytest.raises(MalformedTraceError, match="has the events of a CNPU"):
        load_traces([tmp_path / "trace_other_qnpu.csv"])


def test_events_of_both_clocks_in_one_file_are_refused(tmp_path: Path) -> None:
    mixed = recorder_of(1_000, [(1, Event.RESULT_RCVD, 0, 0), (2, Event.EGP_ENT_OK, 0, 0)])
    node = NodeTraces.from_recorders("n", mixed, recorder_of(10_000, []))
    path, _ = write_traces(tmp_path, [node], ["csv"], "a test", CREATED)
    with pytest.raises(MalformedTraceError, match="whose clocks differ"):
        load_traces([path])


def test_nothing_there_and_too_much_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_traces([tmp_path / "nowhere"])
    with pytest.raises(ConfigurationError, match=r"has no trace_\*\.csv"):
        load_traces([tmp_path])
    for number in range(FILES_MAX + 1):
        (tmp_path / f"trace_n{number}_qnpu.csv").touch()
    with pytest.raises(ConfigurationError, match="too many"):
        load_traces([tmp_path])
