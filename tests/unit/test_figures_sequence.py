"""The sequence diagram: what one simulated circuit did, on the right lanes and to scale."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from qnodeos.assembly import NetworkConfig, build_two_nodes, load_profile
from qnodeos.cnpu.external import install
from qnodeos.errors import IncompleteTraceError
from qnodeos.experiments.dqc_segments import NodeTrace, circuit_segments_ms
from qnodeos.experiments.figures.sequence import (
    ArrowKind,
    BoxKind,
    Lane,
    SequenceDiagram,
    sequence_diagram,
)
from qnodeos.experiments.figures.sequence_plot import LANE_LABELS, sequence_figure
from qnodeos.trace.events import Event
from qnodeos.trace.export import write_traces
from qnodeos.trace.load import load_traces
from qnodeos.trace.node_traces import NodeTraces
from sim.network import ProgramSpec
from tests.unit.figure_data import assert_nothing_cut_off, texts

CIRCUITS = 3


def run_dqc(profile: str) -> list[NodeTraces]:
    """The traces of a few circuits, with details."""
    install()
    from qnodeos.experiments.programs import dqc_client, dqc_server

    programs = [
        ProgramSpec(
            "client",
            "dqc_client",
            dqc_client.main,
            {"alpha_steps": 8, "theta_steps": 8, "circuits": CIRCUITS},
        ),
        ProgramSpec(
            "server", "dqc_server", dqc_server.main, {"alpha_steps": 8, "circuits": CIRCUITS}
        ),
    ]
    network, latency = NetworkConfig.preset("fast"), load_profile(profile)
    with build_two_nodes(network, latency, "figures", 1 << 16, "behavioural") as system:
        system.network.run(programs)
        return [
            NodeTraces.from_recorders(name, handles.host_trace, handles.qnpu_trace)
            for name, handles in (("client", system.client), ("server", system.server))
        ]


@pytest.fixture(name="nodes", scope="module")
def _nodes() -> list[NodeTraces]:
    return run_dqc("paper")


def boxes(diagram: SequenceDiagram, lane: Lane, kind: BoxKind) -> list[tuple[int, int, str]]:
    return [
        (box.start_ns, box.stop_ns, box.text)
        for box in diagram.boxes
        if (box.lane, box.kind) == (lane, kind)
    ]


def times(node: NodeTraces, event: Event) -> list[int]:
    """When an event happened, in ns."""
    columns, unit_ns = (
        (node.host, node.unit_ns) if event in node.host["event"] else (node.qnpu, node.tick_ns)
    )
    found: list[int] = (columns["time"][columns["event"] == event] * unit_ns).tolist()
    return found


@pytest.mark.parametrize("circuit", range(CIRCUITS))
def test_subroutines_are_boxes_from_their_arrival_to_their_end(nodes, circuit):
    diagram = sequence_diagram(nodes, circuit)
    client, server = nodes
    for node, lane, names in (
        (client, Lane.CLIENT_QNPU, ["C1"]),
        (server, Lane.SERVER_QNPU, ["S1", "S2"]),
    ):
        first = circuit * len(names)
        chosen = slice(first, first + len(names))
        added = times(node, Event.PROCMGR_SUBROUTINE_ADDED)[chosen]
        done = times(node, Event.PROCMGR_SUBROUTINE_DONE)[chosen]
        expected = list(zip(added, done, names, strict=True))
        assert boxes(diagram, lane, BoxKind.SUBROUTINE) == expected
        runs = boxes(diagram, lane, BoxKind.RUNNING)
        assert runs
        assert {start for start, *_ in runs} <= {*times(node, Event.PROCESSOR_START_USER_PROCESS)}
        for start, stop, _ in runs:
            assert any(first <= start < stop <= last for first, last, _ in expected)


@pytest.mark.parametrize("circuit", range(CIRCUITS))
def test_the_physical_instructions_of_the_circuit_are_on_the_lanes_of_the_devices(nodes, circuit):
    diagram = sequence_diagram(nodes, circuit)
    for lane in (Lane.CLIENT_QDEVICE, Lane.SERVER_QDEVICE):
        assert [name for *_, name in boxes(diagram, lane, BoxKind.MEASURE)] == ["MSR"]
        attempts = boxes(diagram, lane, BoxKind.ENTANGLE)
        assert attempts and {name for *_, name in attempts} == {"ENT"}
        # The last attempt is the one that was heralded.
        (pair,) = [arrow for arrow in diagram.arrows if arrow.kind == ArrowKind.ENTANGLEMENT]
        heralded = {pair.source: pair.source_ns, pair.target: pair.target_ns}[lane]
        assert max(stop for _, stop, _ in attempts) == heralded
        assert boxes(diagram, lane, BoxKind.GATE)
    ((_, measured, _),) = boxes(diagram, Lane.SERVER_QDEVICE, BoxKind.MEASURE)
    assert diagram.live_ns[0] < measured <= diagram.live_ns[1]


def test_arrows_say_who_sent_what_to_whom(nodes):
    diagram = sequence_diagram(nodes, 1)
    client, server = nodes
    assert Counter(arrow.kind for arrow in diagram.arrows) == {
        ArrowKind.SEND: 3,
        ArrowKind.RESULT: 3,
        ArrowKind.MESSAGE: 1,
        ArrowKind.ENTANGLEMENT: 1,
    }
    by_kind = {kind: [a for a in diagram.arrows if a.kind == kind] for kind in ArrowKind}
    (message,) = by_kind[ArrowKind.MESSAGE]
    assert (message.source, message.target) == (Lane.CLIENT_CNPU, Lane.SERVER_CNPU)
    assert message.source_ns == times(client, Event.CLAS_MSG_SENT)[1]
    assert message.target_ns == times(server, Event.CLAS_MSG_RCVD)[1]
    (pair,) = by_kind[ArrowKind.ENTANGLEMENT]
    assert (pair.source, pair.target) == (Lane.CLIENT_QDEVICE, Lane.SERVER_QDEVICE)
    assert pair.source_ns == times(client, Event.EGP_ENT_OK)[1]
    assert pair.target_ns == times(server, Event.EGP_ENT_OK)[1]
    lanes = [
        (Lane.CLIENT_CNPU, Lane.CLIENT_QNPU),
        (Lane.SERVER_CNPU, Lane.SERVER_QNPU),
        (Lane.SERVER_CNPU, Lane.SERVER_QNPU),
    ]
    assert [(a.source, a.target) for a in by_kind[ArrowKind.SEND]] == lanes
    assert [(a.target, a.source) for a in by_kind[ArrowKind.RESULT]] == lanes
    results = [a.target_ns for a in by_kind[ArrowKind.RESULT]]
    assert results == [
        times(client, Event.RESULT_RCVD)[1],
        *times(server, Event.RESULT_RCVD)[2:4],
    ]
    assert diagram.stop_ns == results[-1]
    assert all(arrow.source_ns <= arrow.target_ns for arrow in diagram.arrows)


def test_programs_compute_between_what_they_receive_and_send(nodes):
    diagram = sequence_diagram(nodes, 1)
    client, server = nodes
    after_result, *_ = boxes(diagram, Lane.CLIENT_CNPU, BoxKind.COMPUTE)
    assert after_result[:2] == (
        times(client, Event.RESULT_RCVD)[1],
        times(client, Event.CLAS_MSG_SENT)[1],
    )
    before_s2 = boxes(diagram, Lane.SERVER_CNPU, BoxKind.COMPUTE)[-1]
    assert before_s2[:2] == (
        times(server, Event.CLAS_MSG_RCVD)[1],
        times(server, Event.SUBROUTINE_SEND_ATTEMPT)[3],
    )
    assert len(boxes(diagram, Lane.CLIENT_CNPU, BoxKind.SEND)) == 1
    assert len(boxes(diagram, Lane.SERVER_CNPU, BoxKind.SEND)) == 2


def test_files_read_back_give_the_same_diagram(nodes, tmp_path):
    write_traces(tmp_path, nodes, ["csv"], "simulated", datetime(2025, 1, 1, tzinfo=UTC))
    read = load_traces([tmp_path]).nodes
    for circuit in range(CIRCUITS):
        recorded, stored = (sequence_diagram(each, circuit) for each in (nodes, read))
        # A file has lost the angles of gates.
        shortened = [replace(box, text=box.text.partition(" ")[0]) for box in recorded.boxes]
        assert sorted(stored.boxes, key=repr) == sorted(shortened, key=repr)
        assert replace(stored, boxes=()) == replace(recorded, boxes=())


def test_without_latencies_programs_take_no_time(tmp_path):
    # All events of a CNPU between two waits happen at once, and a file keeps no order of them.
    nodes = run_dqc("zero")
    write_traces(tmp_path, nodes, ["csv"], "simulated", datetime(2025, 1, 1, tzinfo=UTC))
    for traces in (nodes, load_traces([tmp_path]).nodes):
        diagram = sequence_diagram(traces, 1)
        assert Counter(box.kind for box in diagram.boxes if box.lane.name.endswith("CNPU")) == {}
        assert Counter(box.text for box in diagram.boxes if box.kind == BoxKind.SUBROUTINE) == {
            "C1": 1,
            "S1": 1,
            "S2": 1,
        }


def test_the_live_time_is_that_of_the_analysis(nodes):
    client, server = (NodeTrace.from_traces(node) for node in nodes)
    segments = circuit_segments_ms(client, server, CIRCUITS)
    for circuit, live_ms in enumerate(segments["live_time"]):
        start_ns, stop_ns = sequence_diagram(nodes, circuit).live_ns
        assert stop_ns - start_ns == round(live_ms * 1e6)


def test_who_sends_messages_is_the_client(nodes):
    client, server = nodes
    renamed = [replace(server, name="a"), replace(client, name="b")]
    assert sequence_diagram(renamed, 0) == sequence_diagram(nodes, 0)


def test_a_typical_circuit_is_chosen(nodes):
    every = [sequence_diagram(nodes, circuit) for circuit in range(CIRCUITS)]
    chosen = sequence_diagram(nodes)
    assert chosen in every
    assert chosen.circuits == CIRCUITS

    def distance(diagram: SequenceDiagram) -> float:
        live = [each.live_ns[1] - each.live_ns[0] for each in every]
        added = [boxes(each, Lane.CLIENT_QNPU, BoxKind.SUBROUTINE)[0][0] for each in every]
        waited = [each.live_ns[0] - start for each, start in zip(every, added, strict=True)]
        return float(
            abs(live[diagram.circuit] / np.median(live) - 1)
            + abs(waited[diagram.circuit] / np.median(waited) - 1)
        )

    assert distance(chosen) == min(map(distance, every))


# --- what is no DQC -------------------------------------------------------------------


def test_two_nodes_are_needed(nodes):
    with pytest.raises(IncompleteTraceError, match="two nodes, not of 1"):
        sequence_diagram(nodes[:1])


def test_a_circuit_that_is_not_there_is_refused(nodes):
    for circuit in (-1, CIRCUITS):
        with pytest.raises(IncompleteTraceError, match=f"show {CIRCUITS} circuits"):
            sequence_diagram(nodes, circuit)


def test_several_programs_are_refused(nodes):
    client, server = nodes
    process = client.qnpu["process"].copy()
    added = np.flatnonzero(client.qnpu["event"] == Event.PROCMGR_SUBROUTINE_ADDED)
    process[added[-1]] += 1
    two = replace(client, qnpu={**client.qnpu, "process": process})
    with pytest.raises(IncompleteTraceError, match="client shows 2 programs"):
        sequence_diagram([two, server])


def without(node: NodeTraces, event: Event) -> NodeTraces:
    def kept(columns):
        rows = columns["event"] != event
        return {name: values[rows] for name, values in columns.items()}

    return replace(node, host=kept(node.host), qnpu=kept(node.qnpu))


@pytest.mark.parametrize("event", [Event.EGP_ENT_OK, Event.CLAS_MSG_RCVD, Event.RESULT_RCVD])
def test_traces_without_a_circuit_are_refused(nodes, event):
    client, server = nodes
    with pytest.raises(IncompleteTraceError, match="no complete DQC circuit"):
        sequence_diagram([client, without(server, event)])


def test_traces_of_two_runs_do_not_go_together(nodes):
    client, server = nodes
    later = {**server.host, "time": server.host["time"] + 10_000_000}
    ticks = {**server.qnpu, "time": server.qnpu["time"] + 1_000_000}
    early = {**client.host, "time": client.host["time"] + 20_000_000}
    moved = {**client.qnpu, "time": client.qnpu["time"] + 2_000_000}
    with pytest.raises(IncompleteTraceError, match="circuit 0"):
        sequence_diagram(
            [replace(client, host=early, qnpu=moved), replace(server, host=later, qnpu=ticks)]
        )


# --- the figure -----------------------------------------------------------------------


@pytest.fixture(name="figure", scope="module")
def _figure(nodes: list[NodeTraces]) -> Figure:
    return sequence_figure(sequence_diagram(nodes, 1), "simulated DQC, seed $1_{$")


def test_the_figure_has_six_lanes_mirrored_about_the_devices(figure):
    for axes in figure.axes:
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels == list(LANE_LABELS.values())
        assert labels[0] == "client CNPU" and labels[-1] == "server CNPU"
        bottom, top = axes.get_ylim()
        assert bottom > top


def test_the_figure_shows_everything_in_both_panels(figure, nodes):
    diagram = sequence_diagram(nodes, 1)
    for axes in figure.axes:
        arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
        assert Counter(arrow.get_label() for arrow in arrows) == Counter(
            str(arrow.kind) for arrow in diagram.arrows
        )
        drawn = {
            collection.get_label(): len(collection.get_paths()) for collection in axes.collections
        }
        expected = Counter(f"{box.kind} {LANE_LABELS[box.lane]}" for box in diagram.boxes)
        assert drawn == expected


def test_the_figure_is_to_scale_and_enlarges_the_live_part(figure, nodes):
    diagram = sequence_diagram(nodes, 1)
    whole, zoom = figure.axes
    live_ms = (diagram.live_ns[1] - diagram.live_ns[0]) / 1e6
    assert whole.get_xlim()[0] == pytest.approx((diagram.start_ns - diagram.live_ns[0]) / 1e6)
    assert -live_ms < zoom.get_xlim()[0] < 0
    assert live_ms < zoom.get_xlim()[1] == whole.get_xlim()[1]
    for axes in (whole, zoom):
        (s2,) = [
            collection.get_paths()
            for collection in axes.collections
            if collection.get_label() == "measurement server QDevice"
        ]
        ((start, stop, _),) = boxes(diagram, Lane.SERVER_QDEVICE, BoxKind.MEASURE)
        extent = s2[0].get_extents()
        assert extent.x0 == pytest.approx((start - diagram.live_ns[0]) / 1e6)
        assert extent.x1 == pytest.approx((stop - diagram.live_ns[0]) / 1e6)


def test_the_figure_names_its_parts_and_fits(figure, nodes):
    diagram = sequence_diagram(nodes, 1)
    written = [text.get_text() for text in texts(figure)]
    live_ms = (diagram.live_ns[1] - diagram.live_ns[0]) / 1e6
    for name in ("C1", "S1", "S2", "MSR", f"server qubit live: {live_ms:.2f} ms"):
        assert name in written
    footer = figure.get_supxlabel()
    assert footer.startswith("Simulated DQC, seed $1_{$. Circuit 2 of the 3")
    assert_nothing_cut_off(figure)
    assert figure.get_figwidth() == 7.2
