"""OpenTelemetry spans: in a file, and sent to a collector."""

from __future__ import annotations

import io
import json
import threading
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from qnodeos.assembly import NetworkConfig
from qnodeos.errors import ConfigurationError, ConnectionLostError
from qnodeos.experiments.dqc import DqcSettings, blocks_of, run_block
from qnodeos.trace import otel
from qnodeos.trace.otel import send_otlp, write_otlp
from qnodeos.trace.spans import Timeline
from qnodeos.trace.timeline import build_timeline
from tests.system.trace_bench import dqc_traces

CREATED = datetime(2025, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
CREATED_NS = round(CREATED.timestamp() * 1e6) * 1_000
METADATA = {"description": "simulated DQC", "version": "qnodeos 0"}
CIRCUITS = 3


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return build_timeline(dqc_traces(CIRCUITS))


def lines_of(timeline: Timeline) -> list[dict[str, Any]]:
    stream = io.StringIO()
    write_otlp(stream, timeline, METADATA, CREATED)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def spans_of(lines: list[dict[str, Any]]) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Every span with the attributes of its resource."""
    found = []
    for line in lines:
        for resource in line["resourceSpans"]:
            attributes = {
                each["key"]: each["value"]["stringValue"]
                for each in resource["resource"]["attributes"]
            }
            found += [(attributes, span) for s in resource["scopeSpans"] for span in s["spans"]]
    return found


def in_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [in_base64(each) for each in value]
    if isinstance(value, dict):
        return {
            key: b64encode(bytes.fromhex(each)).decode() if key.endswith("Id") else in_base64(each)
            for key, each in value.items()
        }
    return value


def test_every_line_is_a_message_of_the_protocol(timeline: Timeline) -> None:
    lines = lines_of(timeline)
    for line in lines:
        ParseDict(in_base64(line), ExportTraceServiceRequest())  # refuses unknown fields
    ids = [span["spanId"] for _, span in spans_of(lines)]
    assert len(ids) == len(set(ids)) == len(timeline.spans) + CIRCUITS
    assert {len(each) for each in ids} == {16}
    assert {len(span["traceId"]) for _, span in spans_of(lines)} == {32}


def test_a_circuit_is_a_trace_over_both_nodes(timeline: Timeline) -> None:
    traces = defaultdict(list)
    for resource, span in spans_of(lines_of(timeline)):
        traces[span["traceId"]].append((resource, span))
    circuits = [each for each in traces.values() if any("parentSpanId" in s for _, s in each)]
    assert len(circuits) == CIRCUITS
    for number, circuit in enumerate(
        sorted(circuits, key=lambda each: min(s["startTimeUnixNano"] for _, s in each))
    ):
        by_id = {span["spanId"]: span for _, span in circuit}
        (root,) = [span for _, span in circuit if "parentSpanId" not in span]
        assert root["name"].count("subroutine") == 3
        names = Counter((r.get("qnodeos.node"), span["name"]) for r, span in circuit)
        assert names["client", f"subroutine {number}"] == 1
        assert names["server", f"subroutine {2 * number}"] == 1
        assert names["server", f"subroutine {2 * number + 1}"] == 1
        assert names["client", "MSR"] == names["server", "MSR"] == 1
        for _, span in circuit:
            start, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
            assert CREATED_NS <= start < end
            if span is not root:
                parent = by_id[span["parentSpanId"]]
                assert parent is root or parent["name"].startswith("subroutine")
                assert (
                    int(root["startTimeUnixNano"]) <= start <= end <= int(root["endTimeUnixNano"])
                )
            for link in span.get("links", []):
                assert link["traceId"] == span["traceId"]
                assert link["spanId"] in by_id


def test_the_resource_says_where(timeline: Timeline) -> None:
    for resource, span in spans_of(lines_of(timeline)):
        assert resource["qnodeos.description"] == "simulated DQC"
        if resource["service.name"] != "qnodeos":
            node, part = resource["qnodeos.node"], resource["qnodeos.part"]
            assert resource["service.name"] == f"qnodeos {node} {part}"
            assert part in {"CNPU", "QNPU", "QDevice"}
            assert part == "QDevice" or span["name"] not in {"ENT", "MSR"}


def test_the_same_timeline_gives_the_same_bytes(timeline: Timeline) -> None:
    assert lines_of(timeline) == lines_of(timeline)


def test_messages_are_bounded(timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = spans_of(lines_of(timeline))
    monkeypatch.setattr(otel, "BATCH_SPANS", 50)
    lines = lines_of(timeline)
    assert len(lines) == -(-len(whole) // 50)
    assert [span["spanId"] for _, span in spans_of(lines)] != []
    assert {s["spanId"] for _, s in spans_of(lines)} == {s["spanId"] for _, s in whole}


# --- a collector ------------------------------------------------------------------------


@contextmanager
def collector(status: int) -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector that answers everything with a status; its address, and what came."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_collector_gets_what_the_file_would_have(timeline: Timeline) -> None:
    with collector(200) as (endpoint, received):
        sent = send_otlp(endpoint + "/", timeline, METADATA, CREATED)
    got = [
        span.span_id.hex()
        for message in received
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert got == [span["spanId"] for _, span in spans_of(lines_of(timeline))]
    assert sent == len(got)


def test_a_collector_that_refuses_is_one_error(
    timeline: Timeline, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        collector(400) as (endpoint, _),
        pytest.raises(ConnectionLostError, match="took 0 spans and then no more"),
    ):
        send_otlp(endpoint, timeline, METADATA, CREATED)
    assert caplog.records == []  # each would be another message on the terminal


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("http://127.0.0.1:1", "no collector answers at http://127.0.0.1:1: Connection refused"),
        ("localhost:4318", "is no address of a collector"),
        ("ftp://localhost", "is no address of a collector"),
        ("http://", "is no address of a collector"),
        ("http://localhost:99999", "Port out of range"),
        ("http://[", "Invalid IPv6"),
    ],
)
def test_an_endpoint_that_cannot_be_reached_is_one_error(
    timeline: Timeline, endpoint: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        send_otlp(endpoint, timeline, METADATA, CREATED)
    assert caplog.records == []


def test_an_experiment_writes_spans_too(tmp_path: Path) -> None:
    settings = DqcSettings(
        circuits_per_set=2,
        seed=1,
        profile="paper",
        network=NetworkConfig.preset("prompt"),
        trace_directory=tmp_path,
        trace_formats=("otel",),
    )
    run_block(settings, blocks_of(settings)[0])
    (path,) = tmp_path.iterdir()
    assert path.name == "trace.otlp.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert {resource["service.name"] for resource, _ in spans_of(lines)} >= {"qnodeos server QNPU"}
