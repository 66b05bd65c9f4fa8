"""Traces: the ring, the event names, the CSV format."""

from __future__ import annotations

import io
from collections import Counter
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.errors import LimitError, MalformedTraceError
from qnodeos.qdevice.instructions import Opcode
from qnodeos.trace import HOST_EVENTS, PER_PROCESS_EVENTS, PRODUCE_EVENT, Event, TraceRecorder
from qnodeos.trace.csvformat import LINE_CHARS_MAX, TraceFile, read_trace_csv, write_trace_csv
from qnodeos.trace.recorder import CAPACITY_MAX

CREATED = datetime(2025, 1, 31, 12, 0, 0)

INT32 = st.integers(-(2**31), 2**31 - 1)
RECORDS = st.lists(
    st.tuples(
        st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1),
        st.sampled_from(Event),
        st.integers(0, 3) | st.integers(0, 2**31 - 1),
        INT32,
    ),
    max_size=60,
)


def recorder_of(records: list[tuple[int, Event, int, int]], unit_ns: int = 1000) -> TraceRecorder:
    recorder = TraceRecorder(unit_ns, max(1, len(records)))
    for record in records:
        recorder.record(*record)
    return recorder


def written(records: list[tuple[int, Event, int, int]], **options: Any) -> str:
    stream = io.StringIO()
    arguments: dict[str, Any] = {"unit_ns": 10_000, "created": CREATED, "description": "test"}
    write_trace_csv(stream, recorder_of(records).columns(), **arguments | options)
    return stream.getvalue()


# --- events and recorder ------------------------------------------------------------


def test_event_numbers_fit_the_column_and_every_command_has_an_event() -> None:
    assert 0 <= min(Event) <= max(Event) < 2**16
    assert set(PRODUCE_EVENT) == set(Opcode) - {Opcode.NOP}
    for opcode in (Opcode.INI, Opcode.SQG, Opcode.TQG, Opcode.ENT, Opcode.ENM, Opcode.MSR):
        assert PRODUCE_EVENT[opcode].name == f"QDEVICE_PRODUCE_{opcode.name}_CMD"


@given(records=RECORDS, capacity=st.integers(1, 70))
def test_ring_keeps_the_last_events_in_order(
    records: list[tuple[int, Event, int, int]], capacity: int
) -> None:
    recorder = TraceRecorder(10_000, capacity)
    for record in records:
        recorder.record(*record)
    columns = recorder.columns()
    kept = list(zip(*(columns[name].tolist() for name in columns), strict=True))
    assert list(columns) == ["time", "event", "process", "detail"]
    assert kept == records[-capacity:]
    assert len(recorder) == len(kept)
    assert recorder.dropped == len(records) - len(kept)
    dtypes = [str(column.dtype) for column in columns.values()]
    assert dtypes == ["int64", "uint16", "int32", "int32"]


def test_times_select_event_and_process() -> None:
    recorder = TraceRecorder(1000, 8)
    recorder.record(5, Event.RESULT_RCVD, 1)
    recorder.record(3, Event.RESULT_RCVD, 2)
    recorder.record(4, Event.CLAS_MSG_SENT, 1)
    assert recorder.times(Event.RESULT_RCVD).tolist() == [5, 3]
    assert recorder.times(Event.RESULT_RCVD, 2).tolist() == [3]
    assert recorder.times(Event.CLAS_MSG_RCVD).tolist() == []


def test_clear_forgets_events_and_drops() -> None:
    recorder = recorder_of([(1, Event.EGP_ENT_OK, 0, 0)])
    recorder.record(2, Event.EGP_ENT_OK)
    assert recorder.dropped == 1
    recorder.clear()
    assert len(recorder) == recorder.dropped == recorder.columns()["time"].size == 0


@pytest.mark.parametrize(("unit_ns", "capacity"), [(0, 1), (1, 0), (-5, 1), (1, -1)])
def test_recorder_refuses_sizes_that_are_not_positive(unit_ns: int, capacity: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        TraceRecorder(unit_ns, capacity)


def test_recorder_is_bounded() -> None:
    with pytest.raises(LimitError, match="CAPACITY_MAX"):
        TraceRecorder(1, CAPACITY_MAX + 1)


@pytest.mark.parametrize(
    ("record", "column"),
    [((2**63, 0, 0, 0), "time"), ((0, 0, 2**31, 0), "process"), ((0, 2**16, 0, 0), "event")],
)
def test_values_that_do_not_fit_are_named_when_read(
    record: tuple[int, int, int, int], column: str
) -> None:
    recorder = TraceRecorder(1, 1)
    recorder.record(*record)
    with pytest.raises(LimitError, match=f"column '{column}'"):
        recorder.columns()


# --- the CSV format -----------------------------------------------------------------


def carried(records: list[tuple[int, Event, int, int]]) -> Counter[tuple[int, int, int]]:
    """What the format keeps of some records."""
    return Counter(
        (time, event, process if event in PER_PROCESS_EVENTS else 0)
        for time, event, process, _ in records
    )


def content(file: TraceFile) -> Counter[tuple[int, int, int]]:
    columns = file.columns
    assert not columns["detail"].any()
    return Counter(
        zip(*(columns[name].tolist() for name in ("time", "event", "process")), strict=True)
    )


@given(records=RECORDS, unit_ns=st.sampled_from([1, 999, 1000, 10_000, 20_000]))
def test_csv_round_trip(records: list[tuple[int, Event, int, int]], unit_ns: int) -> None:
    text = written(records, unit_ns=unit_ns, description=" two\n words ")
    file = read_trace_csv(io.StringIO(text))
    assert content(file) == carried(records)
    assert (np.diff(file.columns["time"].astype(object)) >= 0).all()
    assert (file.created, file.description, file.unit_ns) == (
        CREATED.isoformat(),
        "two words",
        unit_ns,
    )
    again = io.StringIO()
    write_trace_csv(again, file.columns, unit_ns=unit_ns, created=CREATED, description="two words")
    assert again.getvalue() == text


def test_csv_text_is_the_published_format() -> None:
    text = written(
        [
            (70, Event.CLAS_MSG_RCVD, 1, 3),
            (40, Event.SUBROUTINE_SENT, 1, 0),
            (40, Event.SUBROUTINE_SEND_ATTEMPT, 1, 0),
            (40, Event.SUBROUTINE_SEND_ATTEMPT, 2, 0),
        ],
        unit_ns=1000,
    )
    assert text.splitlines() == [
        "# File generation date and time: 2025-01-31T12:00:00",
        "# Experiment description: test",
        "# Clock cycle duration: 1 clock cycle of 1 us",
        "# Channel 0 [group_id=0; event_id=0; channel_name=SUBROUTINE_SEND_ATTEMPT]",
        "# Channel 1 [group_id=0; event_id=1; channel_name=SUBROUTINE_SENT]",
        "# Channel 2 [group_id=0; event_id=2; channel_name=RESULT_RCVD]",
        "# Channel 3 [group_id=0; event_id=3; channel_name=CLAS_MSG_SENT]",
        "# Channel 4 [group_id=0; event_id=4; channel_name=CLAS_MSG_RCVD]",
        "timestamps,group_id_0",
        "40,3",
        "40,1",
        "70,16",
    ]


def test_csv_of_a_qnpu_declares_all_its_channels() -> None:
    text = written([(1, Event.PROCMGR_SUBROUTINE_DONE, 7, 0)])
    names = [line.split("channel_name=")[1][:-1] for line in text.splitlines() if "Channel" in line]
    expected = {e.name for e in Event if e not in HOST_EVENTS | PER_PROCESS_EVENTS}
    expected |= {f"{event.name}_P7" for event in PER_PROCESS_EVENTS}
    assert len(names) == len(expected)
    assert set(names) == expected


def test_csv_writer_refuses_what_the_format_cannot_hold() -> None:
    with pytest.raises(MalformedTraceError, match="unknown event"):
        written([(1, 9999, 0, 0)])  # type: ignore[list-item]
    with pytest.raises(MalformedTraceError, match="process ids -1"):
        written([(1, Event.PROCMGR_SUBROUTINE_ADDED, -1, 0)])
    with pytest.raises(MalformedTraceError, match="description has"):
        written([], description="x" * LINE_CHARS_MAX)
    crowd = [(1, Event.PROCMGR_SUBROUTINE_ADDED, process, 0) for process in range(2000)]
    with pytest.raises(MalformedTraceError, match="channels"):
        written(crowd)


HOST_TEXT = written([(40, Event.SUBROUTINE_SENT, 0, 0), (50, Event.RESULT_RCVD, 0, 0)])
CHANNEL_0 = "# Channel 0 [group_id=0; event_id=0; channel_name=SUBROUTINE_SEND_ATTEMPT]"


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("# File generation", "# Generation", "line 1: expected the comment line"),
        ("cycle of 10 us", "cycle of 10 h", "line 3: clock cycle"),
        ("cycle of 10 us", "cycle of 0 us", "line 3: clock cycle"),
        ("# Channel 0", "# Chanel 0", "line 4: expected '# Channel"),
        ("RESULT_RCVD", "RESULT_LOST", "line 6: unknown channel name 'RESULT_LOST'"),
        ("RESULT_RCVD", "RESULT_RCVD_P1", "if and only if"),
        ("RESULT_RCVD", "PROCMGR_SUBROUTINE_DONE", "if and only if"),
        ("RESULT_RCVD", "PROCMGR_SUBROUTINE_DONE_P9999999999", "a process at most"),
        ("event_id=2", "event_id=1", "line 6: .* comes twice"),
        ("RESULT_RCVD", "SUBROUTINE_SENT", "line 6: .* comes twice"),
        ("event_id=2", "event_id=63", "event_id is at most"),
        ("group_id=0; event_id=2", "group_id=1; event_id=2", "no column for group 1"),
        ("timestamps,", "time,", "expected the column names"),
        ("group_id_0", "group_id_0,group_id_0", "expected the column names"),
        ("40,2", "40,x", "line 10: expected integers"),
        ("40,2", "40,-2", "line 10: expected integers"),
        ("40,2", "4_0,2", "line 10: expected integers"),
        ("40,2", "40", "expected 2 columns, found 1"),
        ("40,2", "9999999999999999999,2", "line 10: .* 64 bits"),
        ("40,2", "40,32", "timestamp 40 sets a bit that no channel owns"),
        ("40,2\n", "40,2\n\n", "line 12: text after an empty line"),
        ("test", "x" * LINE_CHARS_MAX, "line 2: line is longer"),
    ],
)
def test_csv_reader_names_what_is_wrong(old: str, new: str, match: str) -> None:
    assert old in HOST_TEXT
    with pytest.raises(MalformedTraceError, match=match):
        read_trace_csv(io.StringIO(HOST_TEXT.replace(old, new, 1)))


@given(cut=st.integers(0, len(HOST_TEXT)), junk=st.text(max_size=20))
def test_csv_reader_raises_nothing_but_its_own_error(cut: int, junk: str) -> None:
    try:
        file = read_trace_csv(io.StringIO(HOST_TEXT[:cut] + junk + HOST_TEXT[cut:]))
    except MalformedTraceError:
        return
    assert file.columns["time"].shape == file.columns["event"].shape
