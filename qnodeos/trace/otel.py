"""Timelines as OpenTelemetry spans, in OTLP/JSON lines or sent to a collector.

One trace is one group of spans that belong together (a circuit, or a subroutine), under a
root span of its own; a span that was part of a subroutine is its child, and arrows are
links. What belongs to no group, such as the rest of the network process, is a trace per
node. The resource of a span says which node and which part of it.

Times count from the moment the trace was generated, because collectors know no other time
than that of the calendar. Needs the extra ``otel``.
"""

from __future__ import annotations

import json
import logging
import socket
from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from hashlib import blake2b
from itertools import islice, pairwise
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags

from qnodeos import __version__
from qnodeos.errors import ConfigurationError, ConnectionLostError
from qnodeos.trace.groups import find_groups
from qnodeos.trace.spans import Timeline

BATCH_SPANS: Final = 2_000
"""Spans per message; far below the 64 MiB that an exporter sends at once."""

CONNECT_TIMEOUT_S: Final = 5.0
SEND_TIMEOUT_S: Final = 10.0

_ROOT: Final = -1
_ID_FIELDS: Final = ("traceId", "spanId", "parentSpanId")


def write_otlp(
    stream: TextIO, timeline: Timeline, metadata: Mapping[str, str], created: datetime
) -> None:
    """Write a timeline as OTLP/JSON, one message per line.

    Args:
        stream: where to write text.
        timeline: what to show.
        metadata: attributes of every resource.
        created: the moment that times count from.
    """
    for batch in _batches(timeline, metadata, created):
        message = MessageToDict(encode_spans(batch), use_integers_for_enums=True)
        stream.write(json.dumps(_with_hex_ids(message), separators=(",", ":")) + "\n")


def send_otlp(
    endpoint: str, timeline: Timeline, metadata: Mapping[str, str], created: datetime
) -> int:
    """Send a timeline to a collector by OTLP over HTTP.

    Args:
        endpoint: base address, for example ``http://localhost:4318``.
        timeline: what to show.
        metadata: attributes of every resource.
        created: the moment that times count from.

    Returns:
        How many spans were sent.

    Raises:
        ConfigurationError: the endpoint is no such address, or nobody answers there.
        ConnectionLostError: the collector did not take all spans.
    """
    _check_reachable(endpoint)
    exporter = OTLPSpanExporter(
        endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_TIMEOUT_S
    )
    sent = 0
    with ExitStack() as stack:
        stack.callback(exporter.shutdown)
        stack.enter_context(_silence())
        for batch in _batches(timeline, metadata, created):
            if exporter.export(batch) is not SpanExportResult.SUCCESS:
                raise ConnectionLostError(
                    f"{endpoint} took {sent} spans and then no more; is it an OTLP collector, "
                    "and is it well?"
                )
            sent += len(batch)
    return sent


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter from printing what our error says."""
    logger = logging.getLogger("opentelemetry")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_reachable(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"endpoint {endpoint!r}: {error}") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigurationError(
            f"endpoint {endpoint!r} is no address of a collector; give one such as "
            "http://localhost:4318"
        )
    port = port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ConfigurationError(
            f"no collector answers at {endpoint}: {error.strerror or error}; start one there, or "
            "give another --endpoint"
        ) from error


# --- spans ------------------------------------------------------------------------------


def _batches(
    timeline: Timeline, metadata: Mapping[str, str], created: datetime
) -> Iterator[list[ReadableSpan]]:
    spans = iter(_Spans(timeline, metadata, created))
    while batch := list(islice(spans, BATCH_SPANS)):
        yield batch


class _Spans:
    """The OpenTelemetry spans of a timeline; the same timeline gives the same ids."""

    def __init__(self, timeline: Timeline, metadata: Mapping[str, str], created: datetime) -> None:
        self._timeline = timeline
        self._seed = json.dumps(dict(metadata)).encode()
        self._start_ns = round(created.timestamp() * 1e6) * 1_000
        self._metadata = metadata
        self._scope = InstrumentationScope("qnodeos.trace", __version__)
        self._resources: dict[tuple[str, str], Resource] = {}
        self._groups = find_groups(timeline)
        self._group_of = {
            span: number for number, group in enumerate(self._groups) for span in group.spans
        }
        self._links: dict[int, list[int]] = defaultdict(list)
        for flow in timeline.flows:
            for before, after in pairwise(flow.steps):
                self._links[after.span].append(before.span)

    def __iter__(self) -> Iterator[ReadableSpan]:
        for number, group in enumerate(self._groups):
            yield self._span(
                ("", ""),
                self._context(number, _ROOT),
                None,
                self._group_name(group.flows),
                (group.start_ns, group.stop_ns),
            )
        for number, span in enumerate(self._timeline.spans):
            track = self._timeline.tracks[span.track]
            key: int | str = self._group_of.get(number, track.node)
            parent = self._timeline.parents.get(number, _ROOT)
            yield self._span(
                (track.node, track.part),
                self._context(key, number),
                None if isinstance(key, str) else self._context(key, parent),
                span.name,
                (span.start_ns, span.stop_ns),
                {"qnodeos.track": track.name, **span.arguments},
                [self._context(self._group_of[each], each) for each in self._links[number]],
            )

    def _group_name(self, flows: Sequence[int]) -> str:
        names = [self._timeline.flows[flow].name for flow in flows]
        subroutines = [name for name in names if "subroutine" in name]
        return " + ".join(subroutines[:4]) or "group"

    def _context(self, key: int | str, span: int) -> SpanContext:
        """Ids of a span of a trace; a trace is that of a group or of a node."""
        return SpanContext(
            self._number(f"trace {key}", 16),
            self._number(f"span {key} {span}", 8),
            is_remote=False,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )

    def _number(self, name: str, size: int) -> int:
        digest = blake2b(name.encode(), digest_size=size, key=blake2b(self._seed).digest())
        return int.from_bytes(digest.digest()) or 1

    def _span(
        self,
        place: tuple[str, str],
        context: SpanContext,
        parent: SpanContext | None,
        name: str,
        times_ns: tuple[int, int],
        attributes: Mapping[str, int | str] | None = None,
        links: Sequence[SpanContext] = (),
    ) -> ReadableSpan:
        start_ns, stop_ns = times_ns
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource(place),
            attributes or {},
            (),
            [Link(link) for link in links],
            SpanKind.INTERNAL,
            start_time=self._start_ns + start_ns,
            end_time=self._start_ns + stop_ns,
            instrumentation_scope=self._scope,
        )

    def _resource(self, place: tuple[str, str]) -> Resource:
        if place not in self._resources:
            node, part = place
            attributes = {f"qnodeos.{name}": value for name, value in self._metadata.items()}
            attributes["service.name"] = " ".join(["qnodeos", *filter(None, place)])
            if node:
                attributes |= {"qnodeos.node": node, "qnodeos.part": part}
            self._resources[place] = Resource(attributes)
        return self._resources[place]


def _with_hex_ids(value: Any) -> Any:
    """OTLP/JSON writes ids in hexadecimal, where protobuf's JSON writes bytes in base64."""
    if isinstance(value, list):
        return [_with_hex_ids(each) for each in value]
    if isinstance(value, dict):
        return {
            key: b64decode(each).hex() if key in _ID_FIELDS else _with_hex_ids(each)
            for key, each in value.items()
        }
    return value
