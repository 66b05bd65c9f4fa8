"""The Perfetto file, opened by Perfetto's own trace processor."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from qnodeos.experiments.dqc_recognition import find_circuits
from qnodeos.trace import Event
from qnodeos.trace.export import NodeTraces, write_traces
from qnodeos.trace.load import load_traces
from qnodeos.trace.timeline import build_timeline
from tests.system.trace_bench import dqc_traces
from tests.system.trace_processor import Perfetto

CREATED = datetime(2025, 1, 31, 12, tzinfo=UTC)

SLICES = """
    select slice.id as id, process.name as process, thread.name as thread, slice.name as name,
        slice.ts as ts, slice.dur as dur, slice.depth as depth
    from slice
    join thread_track on slice.track_id = thread_track.id
    join thread using (utid)
    join process using (upid)
"""

CHAIN_OF_C1 = [
    "client CNPU dqc_client 0: send subroutine",
    "client QNPU P1 dqc_client 0 subroutines: subroutine 0",
    "client QDevice instructions: ENT",
    "client QNPU P1 dqc_client 0: running",
    "client CNPU dqc_client 0: result of subroutine 0",
]
CHAIN_OF_S1 = [
    "server CNPU dqc_server 0: send subroutine",
    "server QNPU P1 dqc_server 0 subroutines: subroutine 0",
    "server QDevice instructions: ENT",
    "server QNPU pairs: pair 0 heralded",
    "server QNPU P1 dqc_server 0: running",
    "server CNPU dqc_server 0: result of subroutine 0",
]
CHAIN_OF_S2 = [
    "client CNPU dqc_client 0: message sent",
    "server CNPU dqc_server 0: message received",
    "server CNPU dqc_server 0: send subroutine",
    "server QNPU P1 dqc_server 0 subroutines: subroutine 1",
    "server QNPU P1 dqc_server 0: running",
    "server CNPU dqc_server 0: result of subroutine 1",
]
HERALD = ["client QDevice instructions: ENT", "server QNPU pairs: pair 0 heralded"]


def opened(directory: Path, nodes: list[NodeTraces]) -> Perfetto:
    write_traces(directory, nodes, ["perfetto"], "simulated DQC", CREATED)
    perfetto = Perfetto(directory / "trace.json")
    assert perfetto.problems() == []
    return perfetto


def arrows(perfetto: Perfetto) -> Counter[tuple[str, str]]:
    """From slice to slice, each with its track; how often."""
    rows = perfetto.rows(
        f"""with named as ({SLICES})
        select a.process || ' ' || a.thread || ': ' || a.name as out_name,
            b.process || ' ' || b.thread || ': ' || b.name as in_name, b.ts - a.ts as after
        from flow join named a on flow.slice_out = a.id join named b on flow.slice_in = b.id"""
    )
    assert all(after >= 0 for _, _, after in rows)
    return Counter((row[0], row[1]) for row in rows)


def links(*chains: list[str]) -> set[tuple[str, str]]:
    return {pair for chain in chains for pair in pairwise(chain)}


def test_one_circuit_is_shown_as_in_the_paper(tmp_path: Path) -> None:
    nodes = dqc_traces(circuits=1)
    perfetto = opened(tmp_path, nodes)

    expected = links(CHAIN_OF_C1, CHAIN_OF_S1, CHAIN_OF_S2, HERALD)
    within = ("client QDevice instructions: ENT",) * 2, ("server QDevice instructions: ENT",) * 2
    assert set(arrows(perfetto)) - set(within) == expected  # first attempt to last one

    # The server's qubit lives, from its herald to the end of S2, as long as the traces say.
    (circuits,) = find_circuits(nodes)
    ((heralded_ns,),) = perfetto.rows(
        f"select ts as ts from ({SLICES}) where process = 'server QNPU' "
        "and name = 'pair 0 heralded'"
    )
    ((done_ns,),) = perfetto.rows(
        f"select ts + dur as stop from ({SLICES}) where process = 'server QNPU' "
        "and name = 'subroutine 1'"
    )
    live_ms = circuits.segments["live_time"][0]
    assert (done_ns - heralded_ns) / 1e6 == pytest.approx(live_ms, abs=1e-9)

    # Every physical instruction is there, and they do not overlap.
    for node in nodes:
        slices = perfetto.rows(
            f"select name as name, depth as depth from ({SLICES}) "
            f"where process = '{node.name} QDevice' order by ts"
        )
        sent = int((node.qnpu["event"] == Event.PROCESSOR_CONSUME_OUTCOME).sum())
        assert len(slices) == sent
        assert {depth for _, depth in slices} == {0}
        assert slices[-1][0] == "MSR"


def test_what_a_csv_file_kept_is_shown_too(tmp_path: Path) -> None:
    for name, pairs in (("one", 1), ("several", 3)):
        directory = tmp_path / name
        write_traces(directory, dqc_traces(circuits=2, pairs=pairs), ["csv"], "a test", CREATED)
        nodes = list(load_traces([directory]).nodes)
        check_completeness(opened(directory, nodes), nodes)


def check_completeness(perfetto: Perfetto, nodes: list[NodeTraces]) -> None:
    """Everything on the timeline is in the file."""
    timeline = build_timeline(nodes)
    assert perfetto.rows("select count(*) as n from slice") == [
        (len(timeline.spans) + len(timeline.marks),)
    ]
    assert arrows(perfetto).total() == sum(len(flow.steps) - 1 for flow in timeline.flows)


def test_programs_that_run_at_once_have_tracks_and_arrows_of_their_own(tmp_path: Path) -> None:
    nodes = dqc_traces(circuits=3, pairs=3)
    perfetto = opened(tmp_path, nodes)
    check_completeness(perfetto, nodes)
    found = arrows(perfetto)
    tracks = perfetto.rows(f"select process as p, thread as t from ({SLICES}) group by 1, 2")
    for node in ("client", "server"):
        for number in range(3):
            program = f"dqc_{node} {number}"
            assert (f"{node} CNPU", program) in tracks
            assert (f"{node} QNPU", f"P{number + 1} {program}") in tracks
    # Nothing leads from one program to another on the same node.
    for out_name, in_name in found:
        ends = [name.split(": ")[0].split(" ") for name in (out_name, in_name)]
        numbers = {end[-1] for end in ends if end[-1].isdigit()}
        assert len(numbers) <= 1 or ends[0][0] != ends[1][0]
