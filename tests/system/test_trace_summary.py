"""What traces of simulated runs tell, in memory and read back from CSV."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from qnodeos.experiments.dqc_recognition import find_circuits
from qnodeos.experiments.dqc_segments import SEGMENTS, NodeTrace, circuit_segments_ms
from qnodeos.experiments.multitasking import (
    SECONDS_MIN,
    TRACE_S,
    MultitaskingSettings,
    blocks_of,
    run_block,
)
from qnodeos.experiments.trace_summary import summarise
from qnodeos.trace import Event
from qnodeos.trace.export import NodeTraces, write_traces
from qnodeos.trace.load import load_traces
from tests.system.trace_bench import dqc_traces

CREATED = datetime(2025, 1, 31, 12, tzinfo=UTC)
CIRCUITS = 20


@pytest.fixture(scope="module")
def nodes() -> list[NodeTraces]:
    return dqc_traces(circuits=CIRCUITS)


@pytest.fixture
def directory(nodes: list[NodeTraces], tmp_path: Path) -> Path:
    write_traces(tmp_path, nodes, ["csv"], "simulated DQC", CREATED)
    return tmp_path


def test_a_csv_file_gives_the_numbers_of_the_trace_it_was_written_from(
    nodes: list[NodeTraces], directory: Path
) -> None:
    (recorded,) = find_circuits(nodes)
    (read,) = find_circuits(load_traces([directory]).nodes)
    client, server = (NodeTrace.from_traces(node) for node in nodes)
    known = circuit_segments_ms(client, server, CIRCUITS)
    assert recorded.circuits == read.circuits == CIRCUITS
    assert set(known) == set(SEGMENTS)
    for name, values in known.items():
        assert np.array_equal(recorded.segments[name], values), name
        assert np.array_equal(read.segments[name], values), name
    in_memory = summarise(nodes)["nodes"]
    assert summarise(load_traces([directory]).nodes)["nodes"] == in_memory
    assert [node["node"] for node in in_memory] == ["client", "server"]
    assert all(0 < node["device"]["utilisation"] < 1 for node in in_memory)
    assert in_memory[1]["events"]["PROCMGR_SUBROUTINE_DONE"] == 2 * CIRCUITS


def test_the_circuits_of_programs_that_run_at_once_are_told_apart() -> None:
    nodes = dqc_traces(circuits=5, pairs=3)
    found = find_circuits(nodes)
    assert sorted((each.client.process, each.server.process) for each in found) == [
        (1, 1),
        (2, 2),
        (3, 3),
    ]
    delivered = [
        int((nodes[1].qnpu["process"][nodes[1].qnpu["event"] == Event.QNP_BQ_DELIVERED] == p).sum())
        for p in (1, 2, 3)
    ]
    assert delivered == [each.circuits for each in found] == [5, 5, 5]
    for each in found:
        assert (each.segments["classical_communication"] > 0).all()
        assert (each.segments["live_time"] < 20).all()


@pytest.mark.parametrize("later_ns", [10_000, 5_000_000, 20_000_000])
def test_a_run_that_was_stopped_shows_the_circuits_that_were_completed(
    nodes: list[NodeTraces], later_ns: int
) -> None:
    stopped_ns = done_ns(nodes[1], circuit=7) + later_ns
    (found,) = find_circuits([node.until(stopped_ns) for node in nodes])
    (whole,) = find_circuits(nodes)
    assert 6 <= found.circuits <= 9
    for name, values in found.segments.items():
        assert np.array_equal(values, whole.segments[name][: found.circuits]), name


def test_a_subroutine_that_was_aborted_completes_no_circuit(nodes: list[NodeTraces]) -> None:
    stopped_ns = done_ns(nodes[1], circuit=7) + 2_000_000  # the CNPU has the answer
    client, server = (node.until(stopped_ns) for node in nodes)
    last = np.flatnonzero(server.qnpu["event"] == Event.PROCMGR_SUBROUTINE_DONE)[-1]
    server.qnpu["event"][last] = Event.PROCMGR_SUBROUTINE_ABORTED
    (found,) = find_circuits([client, server])
    assert found.circuits == 6


def done_ns(server: NodeTraces, circuit: int) -> int:
    """When the server's second subroutine of a circuit, counted from 1, was done."""
    done = np.flatnonzero(server.qnpu["event"] == Event.PROCMGR_SUBROUTINE_DONE)
    return int(server.qnpu["time"][done[2 * circuit - 1]]) * server.tick_ns


@pytest.mark.parametrize("shift_us", [-100_000, 10_000])
def test_programs_whose_messages_cannot_be_each_others_are_no_pair(
    nodes: list[NodeTraces], shift_us: int
) -> None:
    client, server = nodes
    sent = client.host["event"] == Event.CLAS_MSG_SENT
    host = {**client.host, "time": client.host["time"] + shift_us * sent}
    assert find_circuits([NodeTraces(**vars(client) | {"host": host}), server]) == []


def test_one_node_alone_has_no_circuits(nodes: list[NodeTraces]) -> None:
    assert find_circuits(nodes[:1]) == []
    assert find_circuits([]) == []


# --- the command ------------------------------------------------------------------------


def test_summary_prints_and_writes_what_was_found(command, directory: Path) -> None:
    path = directory / "summary.json"
    done = command("trace", "summary", str(directory), "--json", str(path))
    assert done.code == 0, done.err
    written = json.loads(path.read_text("utf-8"))
    loaded = load_traces([directory])
    assert written == summarise(loaded.nodes, "simulated DQC", CREATED.isoformat())
    assert "simulated DQC" in done.out
    assert f"segments of {CIRCUITS} circuits" in done.out
    assert f"{written['nodes'][0]['device']['utilisation']:.2%}" in done.out
    assert "EGP_ENT_OK" in done.out


def test_summary_of_one_file_does_without_the_rest(command, directory: Path) -> None:
    done = command("trace", "summary", str(directory / "trace_server_qnpu.csv"))
    assert done.code == 0, done.err
    assert "No DQC circuits are recognised" in done.out


@pytest.mark.parametrize("to", ["csv", "perfetto", "otel"])
def test_convert_writes_every_format(command, directory: Path, to: str) -> None:
    out = directory / "new"
    done = command("trace", "convert", str(directory), "--to", to, "--out", str(out))
    assert done.code == 0, done.err
    files = sorted(out.iterdir())
    assert sorted(done.out.split()) == sorted(map(str, files))
    if to == "csv":
        for file in files:
            assert file.read_text("utf-8") == (directory / file.name).read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("summary", "nowhere"), 2, "nowhere does not exist"),
        (("summary", "{directory}", "--quiet"), 2, "add --json"),
        (("convert", "{directory}", "--to", "otel"), 2, "add --out or --endpoint"),
        (
            ("convert", "{directory}", "--to", "csv", "--endpoint", "http://localhost:1"),
            2,
            "only --to otel can be sent",
        ),
        (
            ("convert", "{directory}", "--to", "otel", "--endpoint", "http://127.0.0.1:1"),
            2,
            "no collector answers at http://127.0.0.1:1",
        ),
        (
            ("convert", "{directory}", "--to", "csv", "--out", "/proc/new"),
            2,
            "/proc/new: cannot write to this directory: No such file or directory; choose another",
        ),
        (
            ("convert", "{directory}", "--to", "csv", "--out", "{directory}/trace_client_cnpu.csv"),
            2,
            "cannot write to this directory: File exists; choose another --out",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(
    command, directory: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = command("trace", *(each.format(directory=directory) for each in arguments))
    assert done.code == code
    assert message in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err


def test_a_damaged_file_is_named_with_the_line(command, directory: Path) -> None:
    path = directory / "trace_client_cnpu.csv"
    path.write_text("damaged\n", "utf-8")
    done = command("trace", "summary", str(directory))
    assert done.code == 2
    assert done.err.startswith(f"qnodeos: {path}: trace file, line 1: expected")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("name", ["trace.json", "trace.otlp.jsonl"])
def test_only_csv_files_are_read(command, directory: Path, name: str) -> None:
    (directory / name).write_text("{}")
    done = command("trace", "summary", str(directory / name))
    assert done.code == 2
    assert f"{name}: of traces only the CSV files, trace_*.csv, can be read; name" in done.err


def test_a_pipe_is_no_trace(command, directory: Path) -> None:
    os.mkfifo(directory / "pipe")
    (directory / "trace_third_qnpu.csv").symlink_to("pipe")
    for path in (directory / "pipe", directory):
        done = command("trace", "summary", str(path))
        assert done.code == 2
        assert "is a pipe; name a file" in done.err


# --- the traces of programs that run at once --------------------------------------------


def test_multitasking_writes_its_first_second_with_the_names_of_programs(tmp_path: Path) -> None:
    settings = MultitaskingSettings(
        pairs=[2],
        schedulers=["fcfs"],
        seconds=SECONDS_MIN,
        seed=1,
        trace_directory=tmp_path,
        trace_formats=("perfetto", "csv"),
    )
    (block,) = blocks_of(settings)
    run_block(settings, block, lambda: None)
    directory = tmp_path / "fcfs_n2"
    events = json.loads((directory / "trace.json").read_text("utf-8"))["traceEvents"]
    tracks = {each["args"]["name"] for each in events if each["name"] == "thread_name"}
    names = {"dqc_client 0", "lgt 0", "dqc_client 1", "lgt 1", "dqc_server 0", "dqc_server 1"}
    assert names <= tracks
    assert {f"P{pid} {name}" for pid, name in enumerate(["dqc_client 0", "lgt 0"], 1)} <= tracks
    assert max(each["ts"] for each in events if "ts" in each) <= TRACE_S * 1e6
    (client, server) = load_traces([directory]).nodes
    assert client.processes() == [1, 2, 3, 4]
    assert server.processes() == [1, 2]
