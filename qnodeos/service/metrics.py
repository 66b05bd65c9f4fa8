"""Prometheus metrics of a QNPU, served by a process of their own.

The policy thread only answers one request per scrape: observing a histogram there would cost
700 ns each time, and formatting milliseconds.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from qnodeos.errors import ConfigurationError, QNodeOSError
from qnodeos.service.operator import Operator, Snapshot
from qnodeos.transport import Address, TlsFiles, listen
from qnodeos.transport.listening import address_of

REQUEST_TIMEOUT_S: Final = 5.0
"""How long one scraper may hold up the others (assumed): they are served one after the other."""

_NS_PER_S: Final = 1e9
_QUANTILES: Final = {"p50": "0.5", "p99": "0.99", "p999": "0.999", "max": "1"}

COUNTERS: Final[Mapping[str, Mapping[str, str]]] = {
    "service": {
        "turns": "Turns of the policy loop",
        "trace_events": "Events recorded in the trace",
        "trace_dropped": "Events that the trace had no room for",
        "accepted": "Connections made to the API",
        "welcomed": "Clients that introduced themselves properly",
        "refused_connections": "Connections refused because as many as may be are served",
        "refused_malformed": "Connections ended because of what they sent",
        "refused_untrusted": "Connections ended because of their certificate",
        "evicted_handshakes": "Connections that made room before they introduced themselves",
        "timed_out_handshakes": "Connections that did not introduce themselves in time",
        "timed_out_idle": "Connections silent for too long",
        "slow_readers": "Connections ended because they did not read",
        "lost": "Connections that broke or were ended by the client",
        "accept_pauses": "Times when the system had no descriptor left",
        "requests": "Requests taken",
        "refused_requests": "Requests refused because of a bound",
        "replies": "Replies sent",
        "events_dropped": "Trace events that subscribers missed",
    },
    "engine": {
        "ticks": "Exchanges of frames with the device",
        "skipped": "Ticks at which an exchange was due and none could be done",
        "skips_unread": "Skips that were counted and not kept to be looked at",
        "stalls": "Exchanges more than a millisecond late",
        "instructions": "Physical instructions handed to the device",
        "events": "Outcomes received",
        "given_up": "Instructions that the engine answered for the device",
        "busy_timeouts": "Instructions given up because the device was busy for too long",
        "corrupted_frames": "Damaged frames received",
        "device_restarts": "Restarts of the device",
        "ring_overflows": "Times when a ring between the threads was full",
        "link_errors": "Exchanges that the link refused",
    },
    "kernel": {
        "subroutines_done": "Subroutines that ended well",
        "subroutines_failed": "Subroutines that failed",
        "physical_instructions": "Physical instructions given by processes",
        "swaps": "Pairs joined with others, for nodes that are no neighbours",
        "bins_used": "Time bins in which a batch of attempts was started",
        "bins_missed": "Time bins that had something to do while the QNPU was in use",
        "bins_blocked": "Time bins that had something to do while a program kept the qubit",
    },
    "peers": {
        "refused": "Connections of peers refused",
        "malformed": "Messages of peers that make no sense",
        "dropped": "Messages to peers dropped",
    },
}
GAUGES: Final[Mapping[str, Mapping[str, str]]] = {
    "service": {
        "connections": "Clients served now",
        "handshakes": "Connections that have not introduced themselves yet",
        "open_sockets": "Connections that hold a descriptor, introduced or not",
        "subscribers": "Clients that receive the stream of trace events",
        "open_requests": "Requests that wait for their reply",
    },
    "engine": {
        "device_attached": "Whether there is a device at the other end",
        "is_native": "Whether the C extension exchanges the frames",
        "tick": "Device tick now",
    },
    "kernel": {
        "circuits": "Requests of nodes that are no neighbours that this node takes part in",
        "processes": "User processes alive",
        "free_qubits": "Physical qubits nobody owns",
    },
}
_BY_PEER: Final = {
    "pairs": (CounterMetricFamily, "Entangled pairs handed over"),
    "link_requests": (GaugeMetricFamily, "Entanglement requests that wait for the link"),
}


class QnpuCollector(Collector):
    """Makes metrics of what a QNPU says when it is asked.

    Args:
        operator: asks the QNPU; used by one scrape at a time.
        node: name of the node, for when the QNPU does not answer.
    """

    def __init__(self, operator: Operator, node: str) -> None:
        self._operator = operator
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """The metrics now; only ``qnodeos_up 0`` if the QNPU does not answer."""
        up = GaugeMetricFamily("qnodeos_up", "Whether the QNPU answers", labels=["node"])
        try:
            snapshot = self._operator.ask()
        except QNodeOSError:
            up.add_metric([self._node], 0)
            yield up
            return
        up.add_metric([snapshot.node], 1)
        yield up
        yield from metrics_of(snapshot)


def metrics_of(snapshot: Snapshot) -> Iterator[Metric]:
    """Everything in a snapshot that is a metric, labelled with the node."""
    node = snapshot.node
    for kind, table in ((CounterMetricFamily, COUNTERS), (GaugeMetricFamily, GAUGES)):
        for group, names in table.items():
            for name, description in names.items():
                value = snapshot.number(group, name)
                if value is not None:
                    family = kind(f"qnodeos_{group}_{name}", description, labels=["node"])
                    family.add_metric([node], value)
                    yield family
    yield from _engine(node, snapshot.groups.get("engine", {}))
    yield from _by_peer(node, snapshot.groups.get("kernel", {}))
    yield from _neighbours(node, snapshot.groups.get("peers", {}))
    yield from _service(snapshot)


def _service(snapshot: Snapshot) -> Iterator[Metric]:
    node = snapshot.node
    service = snapshot.groups.get("service", {})
    engine = snapshot.groups.get("engine", {})
    info = InfoMetricFamily("qnodeos_qnpu", "What runs", labels=["node"])
    facts = {
        "version": service.get("version", ""),
        "mode": engine.get("mode", ""),
        "scheduler": service.get("scheduler", ""),
    }
    info.add_metric([node], {key: str(value) for key, value in facts.items()})
    yield info
    uptime_ns = snapshot.number("service", "uptime_ns")
    if uptime_ns is not None:
        yield _single(
            "qnodeos_service_uptime_seconds", "Since its start", node, uptime_ns / _NS_PER_S
        )
    granted = GaugeMetricFamily(
        "qnodeos_realtime_granted",
        "Whether the system granted what was asked of it",
        labels=["node", "step"],
    )
    for step in snapshot.groups.get("realtime", {}).get("steps", ()):
        if step["state"] != "not asked for":
            granted.add_metric([node, step["name"]], step["state"] == "granted")
    yield granted


def _engine(node: str, engine: Mapping[str, Any]) -> Iterator[Metric]:
    """Quantiles of the histograms that the engine keeps."""
    for name, metric, description, scale in (
        ("lateness_ns", "lateness_seconds", "How late frames were exchanged", 1 / _NS_PER_S),
        ("reaction_ticks", "reaction_ticks", "Ticks from an outcome to the next instruction", 1),
    ):
        quantiles = engine.get(name)
        if not isinstance(quantiles, Mapping) or not quantiles.get("total"):
            continue
        family = GaugeMetricFamily(
            f"qnodeos_engine_{metric}", description, labels=["node", "quantile"]
        )
        for label, quantile in _QUANTILES.items():
            if label in quantiles:
                family.add_metric([node, quantile], quantiles[label] * scale)
        yield family


def _by_peer(node: str, kernel: Mapping[str, Any]) -> Iterator[Metric]:
    for name, (kind, description) in _BY_PEER.items():
        family = kind(f"qnodeos_kernel_{name}", description, labels=["node", "peer"])
        for peer, value in kernel.get(name, {}).items():
            family.add_metric([node, str(peer)], value)
        yield family


def _neighbours(node: str, peers: Mapping[str, Any]) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        "qnodeos_peer_connected",
        "Whether there is a connection to a neighbour's QNPU",
        labels=["node", "peer"],
    )
    counted = CounterMetricFamily(
        "qnodeos_peer_events", "What happened between two QNPUs", labels=["node", "peer", "event"]
    )
    for name, facts in peers.get("neighbours", {}).items():
        connected.add_metric([node, name], bool(facts.get("connected")))
        for event, value in facts.items():
            if isinstance(value, int) and not isinstance(value, bool) and event != "node_id":
                counted.add_metric([node, name, event], value)
    yield connected
    yield counted


def _single(name: str, description: str, node: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, description, labels=["node"])
    family.add_metric([node], value)
    return family


class _Handler(WSGIRequestHandler):
    """One request of a scraper."""

    timeout = REQUEST_TIMEOUT_S

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: a scrape every few seconds is no news."""

    def address_string(self) -> str:
        """The scraper's address, without asking a name server for its name."""
        return str(self.client_address[0])

    def handle(self) -> None:
        """Serve it; a scraper that is gone or not trusted costs nothing but its own request."""
        with contextlib.suppress(OSError):
            super().handle()


class MetricsServer(WSGIServer):
    """Serves metrics over HTTP, to one scraper at a time; close it after use.

    Args:
        address: TCP address.
        tls: for addresses that are not loopback; scrapers then show a certificate, too.
        collectors: of the metrics.

    Raises:
        ConfigurationError: the address cannot be listened on, or leaves the machine and there
            is no TLS.
    """

    def __init__(
        self, address: Address, tls: TlsFiles | None, collectors: Iterable[Collector]
    ) -> None:
        if address.is_unix:
            raise ConfigurationError(f"metrics are served over TCP, and {address} is a Unix socket")
        family, place = address.resolve()
        super().__init__(place[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.address_family = family
        self.socket = listen(address, tls)
        if not address.is_local and tls is not None:
            # The handshake waits for the handler, where it has a time limit.
            self.socket = tls.server_context().wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.address = address_of(self.socket)
        self.server_name, self.server_port = self.address.host, self.address.port
        self.setup_environ()
        registry = CollectorRegistry()
        for collector in collectors:
            registry.register(collector)
        self.set_app(make_wsgi_app(registry))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that breaks off is no error of ours."""


def wait_for_request(server: MetricsServer, timeout_s: float) -> None:
    """Serve a scraper if one comes within a time."""
    server.timeout = timeout_s
    with contextlib.suppress(socket.timeout):
        server.handle_request()
