"""Timelines: what a few recorded events become."""

from __future__ import annotations

import numpy as np
import pytest

from qnodeos.errors import LimitError
from qnodeos.qdevice.instructions import Axis, msr, pmg, sqg
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.trace import PRODUCE_EVENT, Event, TraceRecorder
from qnodeos.trace import spans as spans_module
from qnodeos.trace.groups import find_groups
from qnodeos.trace.node_traces import UNKNOWN_PID, NodeTraces
from qnodeos.trace.qnpu_spans import instruction_name
from qnodeos.trace.spans import Part, Step, Timeline
from qnodeos.trace.timeline import build_timeline

Row = tuple[int, Event, int, int]

ADDED = Event.PROCMGR_SUBROUTINE_ADDED
DONE = Event.PROCMGR_SUBROUTINE_DONE
ABORTED = Event.PROCMGR_SUBROUTINE_ABORTED
ARRIVE = Event.SCHEDULER_ARRIVE_USER_PROCESS
START = Event.PROCESSOR_START_USER_PROCESS
WAIT = Event.PROCESSOR_WAIT_USER_PROCESS
FINISH = Event.PROCESSOR_FINISH_USER_PROCESS
START_NET = Event.PROCESSOR_START_NET_PROCESS
FINISH_NET = Event.PROCESSOR_FINISH_NET_PROCESS
CONSUME = Event.PROCESSOR_CONSUME_OUTCOME
ATTEMPT = Event.SUBROUTINE_SEND_ATTEMPT
SENT = Event.SUBROUTINE_SENT
RESULT = Event.RESULT_RCVD


def recorder_of(unit_ns: int, rows: list[Row]) -> TraceRecorder:
    recorder = TraceRecorder(unit_ns, len(rows) + 1)
    for row in rows:
        recorder.record(*row)
    return recorder


def traces(host: list[Row], qnpu: list[Row], name: str = "n", **options: object) -> NodeTraces:
    made = NodeTraces.from_recorders(name, recorder_of(1_000, host), recorder_of(10_000, qnpu))
    return NodeTraces(**{**vars(made), **options})


def on(timeline: Timeline, track: str) -> list[tuple[float, float, str]]:
    """(start, stop, name) in us of the spans of a track."""
    return [
        (span.start_ns / 1000, span.stop_ns / 1000, span.name)
        for span in timeline.spans
        if timeline.tracks[span.track].name == track
    ]


# --- the CNPU ---------------------------------------------------------------------------


def test_a_program_computes_sends_and_waits() -> None:
    host = [
        (10, ATTEMPT, 0, 0),
        (12, SENT, 0, 0),
        (20, RESULT, 0, 0),
        (25, Event.CLAS_MSG_SENT, 0, 3),
        (40, Event.CLAS_MSG_RCVD, 0, 3),
        (41, ATTEMPT, 0, 1),
    ]
    timeline = build_timeline([traces(host, [])])
    assert on(timeline, "program 0") == [
        (10, 12, "send subroutine"),
        (12, 20, "wait for result"),
        (20, 25, "compute"),
        (25, 40, "wait for message"),
        (40, 41, "compute"),
    ]
    assert [(mark.time_ns, mark.name) for mark in timeline.marks] == [
        (12_000, "subroutine 0 sent"),
        (20_000, "result of subroutine 0"),
        (25_000, "message sent"),
        (40_000, "message received"),
    ]


# --- processes --------------------------------------------------------------------------


def test_a_process_is_ready_runs_waits_and_runs_again() -> None:
    qnpu = [
        (1, ADDED, 1, 0),
        (1, ARRIVE, 1, 0),
        (3, START, 1, 0),
        (5, WAIT, 1, 0),
        (9, ARRIVE, 1, 0),
        (9, START, 1, 0),
        (12, FINISH, 1, 0),
        (12, DONE, 1, 0),
    ]
    timeline = build_timeline([traces([], qnpu)])
    expected = [(10, 30, "ready"), (30, 50, "running"), (50, 90, "waiting"), (90, 120, "running")]
    assert on(timeline, "P1") == expected
    assert on(timeline, "P1 subroutines") == [(10, 120, "subroutine 0")]
    # Without process and detail, and with the events of a tick in the order of a CSV file.
    lost = [(time, event, 1 if event in {ADDED, DONE} else 0, 0) for time, event, _, _ in qnpu]
    lost.sort(key=lambda row: (row[0], row[1]))
    timeline = build_timeline([traces([], lost, has_details=False)])
    assert on(timeline, "P1") == expected
    assert on(timeline, "P1 subroutines") == [(10, 120, "subroutine 0")]


def test_a_run_that_begins_and_waits_within_a_tick_is_seen_in_any_order() -> None:
    qnpu = [
        (4, ADDED, 1, 0),
        (4, ARRIVE, 1, 0),
        (4, START, 1, 0),
        (4, WAIT, 1, 0),
        (9, ARRIVE, 1, 0),
    ]
    expected = [(40, 90, "waiting")]
    for rows in (qnpu, sorted(qnpu, key=lambda row: row[:2])):
        has_details = rows is qnpu
        timeline = build_timeline([traces([], rows, has_details=has_details)])
        assert on(timeline, "P1") == expected


def test_a_run_that_ends_in_the_tick_of_the_next_is_seen_in_any_order() -> None:
    qnpu = [(3, ADDED, 1, 0), (3, START, 1, 0)]
    qnpu += [(9, WAIT, 1, 0), (9, ARRIVE, 1, 0), (9, START, 1, 0), (12, FINISH, 1, 0)]
    expected = [(30, 90, "running"), (90, 120, "running")]
    for rows in (qnpu, sorted(qnpu, key=lambda row: row[:2])):
        timeline = build_timeline([traces([], rows, has_details=rows is qnpu)])
        assert on(timeline, "P1") == expected


def test_the_network_process_waits_unseen_while_a_program_runs() -> None:
    qnpu = [
        (0, START_NET, 0, 0),
        (5, START, 1, 0),
        (7, FINISH, 1, 0),
        (8, START_NET, 0, 0),
        (9, FINISH_NET, 0, 0),
    ]
    timeline = build_timeline([traces([], qnpu)])
    assert on(timeline, "network process") == [
        (0, 50, "running"),
        (50, 80, "waiting"),
        (80, 90, "running"),
    ]
    assert on(timeline, "P1") == [(50, 70, "running")]


def test_a_process_that_ends_does_nothing_more_but_one_that_loses_queued_work_goes_on() -> None:
    qnpu = [
        (0, ADDED, 1, 0),
        (0, ADDED, 1, 1),
        (0, START, 1, 0),
        (4, ABORTED, 1, 1),  # was queued
        (6, ABORTED, 1, 0),
        (9, START_NET, 0, 0),
    ]
    timeline = build_timeline([traces([], qnpu)])
    assert on(timeline, "P1") == [(0, 60, "running")]
    assert on(timeline, "P1 subroutines") == [(0, 60, "subroutine 0 (aborted)")]
    assert on(timeline, "P1 subroutines (2)") == [(0, 40, "subroutine 1 (aborted)")]


def test_without_processes_several_programs_share_a_track() -> None:
    qnpu = [(0, ADDED, 1, 0), (1, ADDED, 2, 0), (2, START, 0, 0), (5, FINISH, 0, 0)]
    node = traces([], qnpu, has_details=False)
    assert UNKNOWN_PID in node.with_processes().qnpu["process"].tolist()
    assert on(build_timeline([node]), "user processes") == [(20, 50, "running")]


# --- the device -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "by_network", "name"),
    [
        (sqg(Axis.X, 8), False, "SQG X 90 deg"),
        (sqg(Axis.Y, 24), False, "SQG Y 270 deg"),
        (sqg(Axis.Z, 1), False, "SQG Z 11.25 deg"),
        (msr(), False, "MSR"),
        (pmg(Axis.X, 8), True, "PMG X 90 deg"),
        (pmg(Axis.X, 8), False, "command"),
    ],
)
def test_instructions_have_the_names_of_the_paper(
    instruction: object, by_network: bool, name: str
) -> None:
    opcode, argument = instruction.opcode, instruction.argument  # type: ignore[attr-defined]
    event = PRODUCE_EVENT[opcode]
    assert instruction_name(event, argument, by_network=by_network) == name


def test_an_axis_that_does_not_exist_and_an_unknown_argument_are_left_out() -> None:
    assert instruction_name(Event.QDEVICE_PRODUCE_SQG_CMD, 0xFF) == "SQG"
    assert instruction_name(Event.QDEVICE_PRODUCE_SQG_CMD, None) == "SQG"


def test_an_instruction_lasts_until_its_outcome() -> None:
    qnpu = [
        (2, Event.QDEVICE_PRODUCE_MSR_CMD, 1, 0),
        (7, CONSUME, 1, Outcome.SUCCESS_ONE),
        (7, Event.QDEVICE_PRODUCE_INI_CMD, 1, 0),
        (8, CONSUME, 1, 99),
    ]
    timeline = build_timeline([traces([], qnpu)])
    assert on(timeline, "instructions") == [(20, 70, "MSR"), (70, 80, "INI")]
    outcomes = [span.arguments["outcome"] for span in timeline.spans]
    assert outcomes == ["SUCCESS_ONE", "99"]


def test_a_swap_is_told_from_the_commands_that_share_its_event() -> None:
    qnpu = [
        (2, Event.QNETWORK_SWAP_PULL, 0, 5),
        (2, Event.QDEVICE_PRODUCE_CMD, 0, 0),
        (4, CONSUME, 0, Outcome.SUCCESS_PSI_PLUS),
        (4, Event.QNETWORK_SWAP_RET, 0, 5),
        (9, Event.QDEVICE_PRODUCE_CMD, 0, 0),
        (10, CONSUME, 0, Outcome.SUCCESS_ZERO),
    ]
    timeline = build_timeline([traces([], qnpu)])
    assert on(timeline, "instructions") == [(20, 40, "ESW"), (90, 100, "PMG X 0 deg")]


# --- arrows -----------------------------------------------------------------------------


def sub(program: int, serial: int, at: int) -> list[Row]:
    return [
        (at, ATTEMPT, program, serial),
        (at + 10, SENT, program, serial),
        (at + 900, RESULT, program, serial),
        (at + 905, ATTEMPT, program, serial + 1),
    ]


def test_programs_are_told_apart_by_when_their_subroutines_were_added() -> None:
    # Program 7 is process 2, program 9 is process 1: its first subroutine came first.
    host = sorted(sub(7, 0, 50) + sub(9, 0, 20) + sub(7, 1, 955)[1:])
    qnpu = [
        (3, ADDED, 1, 0),
        (6, ADDED, 2, 0),
        (80, DONE, 2, 0),
        (85, DONE, 1, 0),
        (97, ADDED, 2, 1),
        (120, DONE, 2, 1),
    ]
    node = traces(host, qnpu, programs={1: "nine", 2: "seven"})
    timeline = build_timeline([node])
    assert {track.name for track in timeline.tracks if track.part is Part.CNPU} == {"nine", "seven"}
    ends = {
        (flow.name, timeline.tracks[timeline.spans[flow.steps[0].span].track].name)
        for flow in timeline.flows
    }
    assert ends == {
        ("n P1 subroutine 0", "nine"),
        ("n P2 subroutine 0", "seven"),
        ("n P2 subroutine 1", "seven"),
    }


def test_connections_of_one_program_are_told_apart_by_their_numbers() -> None:
    # The second connection's first subroutine comes between two of the first connection.
    sent = [(0, 0), (1_000, 0), (2_000, 1)]
    host = [(time, ATTEMPT, 0, serial) for time, serial in sent]
    host = sorted(host + [(time + 10, SENT, 0, serial) for time, serial in sent])
    qnpu = [(1, ADDED, 1, 0), (101, ADDED, 2, 0), (201, ADDED, 1, 1)]
    qnpu += [(300, DONE, 1, 0), (300, DONE, 2, 0), (300, DONE, 1, 1)]
    timeline = build_timeline([traces(host, qnpu)])
    begins = {flow.name: flow.steps[0].time_ns // 1_000_000 for flow in timeline.flows}
    assert begins == {"n P1 subroutine 0": 0, "n P2 subroutine 0": 1, "n P1 subroutine 1": 2}


def test_a_subroutine_that_was_refused_is_nobody_elses() -> None:
    # Program 0's subroutine was answered without having been added; program 1's came later.
    host = [
        (0, ATTEMPT, 0, 0),
        (10, SENT, 0, 0),
        (500, RESULT, 0, 0),
        (900, ATTEMPT, 1, 0),
        (1_000, SENT, 1, 0),
        (5_000, RESULT, 1, 0),
    ]
    qnpu = [(101, ADDED, 1, 0), (300, DONE, 1, 0)]
    timeline = build_timeline([traces(host, qnpu, programs={1: "second"})])
    (flow,) = timeline.flows
    assert timeline.tracks[timeline.spans[flow.steps[0].span].track].name == "second"
    assert flow.steps[0].time_ns == 900_000


def test_a_process_belongs_to_one_program_even_if_the_beginning_is_lost() -> None:
    # The first subroutine of program 1 is not in the traces any more.
    sent = [(0, 0, 0), (1_000, 1, 1), (2_000, 0, 1)]
    host = [(time, ATTEMPT, program, serial) for time, program, serial in sent]
    host = sorted(host + [(time + 10, SENT, program, serial) for time, program, serial in sent])
    qnpu = [(1, ADDED, 1, 0), (101, ADDED, 2, 1), (201, ADDED, 1, 1)]
    qnpu += [(300, DONE, 1, 0), (300, DONE, 2, 1), (300, DONE, 1, 1)]
    timeline = build_timeline([traces(host, qnpu)])
    begins = {flow.name: flow.steps[0].time_ns // 1_000_000 for flow in timeline.flows}
    assert begins == {"n P1 subroutine 0": 0, "n P2 subroutine 1": 1, "n P1 subroutine 1": 2}


def test_attempts_belong_to_the_subroutine_that_they_were_made_for() -> None:
    ent, pull = Event.QDEVICE_PRODUCE_ENT_CMD, Event.QNETWORK_ENT_PULL
    qnpu: list[Row] = [(0, ADDED, 1, 0), (0, ADDED, 2, 0)]
    for tick, request in ((1, 7), (11, 8), (21, 7)):
        qnpu += [(tick, pull, 0, request), (tick, ent, 0, 0)]
        qnpu += [(tick + 5, CONSUME, 0, Outcome.ENTANGLEMENT_FAILURE)]
    qnpu += [(26, Event.EGP_ENT_OK, 0, 0), (26, Event.QNP_BQ_DELIVERED, 1, 0)]
    qnpu += [(27, START, 1, 0), (30, FINISH, 1, 0), (30, DONE, 1, 0)]
    timeline = build_timeline([traces(sub(0, 0, 0), qnpu)])
    of_first = [number for number, span in enumerate(timeline.spans) if span.name == "subroutine 0"]
    parts = [
        (timeline.spans[part].name, timeline.spans[part].start_ns // 10_000)
        for part, whole in timeline.parents.items()
        if whole == of_first[0]
    ]
    assert sorted(parts) == [("ENT", 1), ("ENT", 21), ("running", 27), ("wait for result", 1)]


def test_arrows_point_forward_and_lie_within_what_they_touch() -> None:
    host = sub(0, 0, 0)
    qnpu = [(2, ADDED, 1, 0), (2, START, 1, 0), (80, FINISH, 1, 0), (80, DONE, 1, 0)]
    timeline = build_timeline([traces(host, qnpu)])
    (flow,) = timeline.flows
    names = [timeline.spans[step.span].name for step in flow.steps]
    assert names == ["send subroutine", "subroutine 0", "running", "compute"]
    times = [step.time_ns for step in flow.steps]
    assert times == sorted(times)
    for step in flow.steps:
        span = timeline.spans[step.span]
        assert span.start_ns <= step.time_ns <= span.stop_ns


def test_messages_of_one_socket_stay_in_order_and_sockets_apart() -> None:
    out, back = Event.CLAS_MSG_SENT, Event.CLAS_MSG_RCVD
    client = [
        (0, ATTEMPT, 0, 0),
        (5, out, 0, 1),
        (6, out, 0, 1),
        (7, out, 0, 2),
        (9, ATTEMPT, 0, 1),
    ]
    server = [
        (0, ATTEMPT, 0, 0),
        (8, back, 0, 2),
        (10, back, 0, 1),
        (12, back, 0, 1),
        (13, ATTEMPT, 0, 1),
    ]
    timeline = build_timeline([traces(client, [], "client"), traces(server, [], "server")])
    found = [(flow.name, *(step.time_ns // 1000 for step in flow.steps)) for flow in timeline.flows]
    assert sorted(found) == [
        ("message client to server", 5, 10),
        ("message client to server", 6, 12),
        ("message client to server", 7, 8),
    ]


def test_a_message_is_not_received_where_it_was_sent() -> None:
    out, back = Event.CLAS_MSG_SENT, Event.CLAS_MSG_RCVD
    client = [(0, ATTEMPT, 0, 0), (6, out, 0, 1), (8, back, 0, 1), (9, ATTEMPT, 0, 1)]
    server = [(0, ATTEMPT, 0, 0), (5, out, 0, 1), (7, back, 0, 1), (9, ATTEMPT, 0, 1)]
    timeline = build_timeline([traces(client, [], "client"), traces(server, [], "server")])
    found = [(flow.name, *(step.time_ns // 1000 for step in flow.steps)) for flow in timeline.flows]
    assert found == [("message client to server", 6, 7), ("message server to client", 5, 8)]


def test_a_message_may_arrive_in_the_microsecond_in_which_it_was_sent() -> None:
    sender = [(0, ATTEMPT, 0, 0), (5, Event.CLAS_MSG_SENT, 0, 1)]
    receiver = [(0, ATTEMPT, 0, 0), (5, Event.CLAS_MSG_RCVD, 0, 1)]
    timeline = build_timeline([traces(receiver, [], "b"), traces(sender, [], "a")])
    assert [flow.name for flow in timeline.flows] == ["message a to b"]


def pair_of(node: str, delivered: int) -> NodeTraces:
    rows: list[Row] = [
        (0, ADDED, 1, 0),
        (1, Event.QNETWORK_ENT_PULL, 0, 5),
        (1, Event.QDEVICE_PRODUCE_ENT_CMD, 0, 0),
        (9, CONSUME, 0, Outcome.SUCCESS_PSI_PLUS),
        (9, Event.EGP_ENT_OK, 0, 3),
        (delivered, Event.QNP_BQ_DELIVERED, 1, 3),
        (delivered, START, 1, 0),
        (30, FINISH, 1, 0),
        (30, DONE, 1, 0),
    ]
    return traces([], rows, node)


def test_the_heralds_of_one_pair_are_joined() -> None:
    timeline = build_timeline([pair_of("a", 9), pair_of("b", 12)])
    (herald,) = [flow for flow in timeline.flows if flow.name == "herald 3"]
    touched = [timeline.spans[step.span] for step in herald.steps]
    nodes = [timeline.tracks[span.track].node for span in touched]
    # From the attempt of the end that knows to the wait of the end that is told.
    assert (nodes, [span.name for span in touched]) == (
        ["a", "b"],
        ["ENT", "pair 3 to be delivered"],
    )
    (group,) = find_groups(timeline)
    assert {timeline.tracks[timeline.spans[span].track].node for span in group.spans} == {"a", "b"}


def test_a_pair_delivered_in_the_tick_of_its_herald_is_seen_in_any_order() -> None:
    recorded = pair_of("a", 9)
    order = np.lexsort((recorded.qnpu["event"], recorded.qnpu["time"]))
    columns = {name: column[order] for name, column in recorded.qnpu.items()}
    columns["detail"] = np.zeros_like(columns["detail"])
    read = NodeTraces(**{**vars(recorded), "qnpu": columns, "has_details": False})
    for node, name in ((recorded, "pair 3"), (read, "pair")):
        marks = [(mark.time_ns, mark.name) for mark in build_timeline([node]).marks]
        assert marks == [(90_000, f"{name} heralded"), (90_000, f"{name} delivered")]


def test_pairs_with_other_numbers_are_not_joined() -> None:
    other = pair_of("b", 12)
    other.qnpu["detail"][other.qnpu["event"] == Event.EGP_ENT_OK] = 4
    timeline = build_timeline([pair_of("a", 9), other])
    assert not [flow for flow in timeline.flows if flow.name.startswith("herald")]


# --- the model --------------------------------------------------------------------------


def test_lanes_take_what_overlaps() -> None:
    timeline = Timeline()
    spans = [(0, 10, "a"), (5, 15, "b"), (10, 12, "c"), (11, 11, "nothing"), (12, 20, "d")]
    numbers = timeline.add_lanes("n", Part.QNPU, "lane", spans)
    assert numbers == [0, 1, 2, None, 3]
    assert on(timeline, "lane") == [(0, 0.01, "a"), (0.01, 0.012, "c"), (0.012, 0.02, "d")]
    assert on(timeline, "lane (2)") == [(0.005, 0.015, "b")]


def test_an_arrow_needs_two_spans() -> None:
    timeline = Timeline()
    track = timeline.add_track("n", Part.CNPU, "t")
    span = timeline.add_span(track, 0, 10, "only")
    assert span is not None
    timeline.add_flow("none", [None, Step(span, 0), Step(span, 5)])
    assert timeline.flows == []


def test_timelines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_module, "SPANS_MAX", 10)
    host = [(time, ATTEMPT, 0, time) for time in range(20)]
    with pytest.raises(LimitError, match="SPANS_MAX = 10"):
        build_timeline([traces(host, [])])
