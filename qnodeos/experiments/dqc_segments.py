"""Where the time of a delegated-computation (DQC) circuit goes, from traces alone.

One circuit is: the client's subroutine C1 (entangle, two gates, measure), a classical
message with the measurement angle, and the server's subroutines S1 (receive the qubit)
and S2 (gates, measure). The server's qubit is live from its delivery to the end of S2.
Segment names and meanings follow Fig. 4d of Delle Donne et al., Nature 639, 321 (2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from qnodeos.errors import IncompleteTraceError
from qnodeos.trace import Event, TraceRecorder
from qnodeos.trace.node_traces import NodeTraces

Floats = NDArray[np.floating[Any]]
Numbers = TypeVar("Numbers", float, Floats)

PUBLISHED_SEGMENTS_MS: Final[Mapping[str, tuple[float, float | None]]] = {
    "entanglement": (502.0, 409.0),
    "c1_wait_for_bin": (6.11, 2.98),
    "c1_after_delivery": (0.653, 0.005),
    "client_result_to_message_sent": (0.37, 0.12),
    "classical_communication": (0.25, None),
    "s1_after_delivery": (0.449, 0.156),
    "s1_done_to_s2_added": (3.678, 0.666),
    "server_result_to_message": (0.83, 0.28),
    "server_message_to_s2_attempt": (1.38, 0.46),
    "s2_attempt_to_sent": (0.91, 0.21),
    "s2_sent_to_result": (1.20, 0.57),
    "s2_qnpu": (0.692, 0.063),
    "live_time": (4.819, 0.623),
    "overhead_c1": (2.26, 0.52),
    "overhead_s1": (2.08, 0.32),
    "overhead_s2": (1.41, 0.58),
}
"""Mean and standard deviation, measured on 77 circuits of one set (2024-03-04, alpha 2,
theta 2) of the dataset published with Delle Donne et al., Nature 639, 321 (2025)."""

SEGMENTS: Final = (*PUBLISHED_SEGMENTS_MS, "down_client", "up_server")
"""All segments; the last two are published only as their sum, 1.47 ms."""


@dataclass(frozen=True)
class NodeTrace:
    """What one node recorded during a set of circuits.

    The clocks of all traces of an experiment share their origin (virtual time).

    Attributes:
        node: name, for messages.
        host: columns of the host's recorder.
        host_unit_ns: duration of one unit of its times.
        qnpu: columns of the QNPU's recorder.
        tick_ns: duration of one tick.
        dropped: events lost by either recorder.
        app_id: process of the DQC program in the host trace; None if it ran alone.
        process: its process in the QNPU trace; None if it ran alone.
        has_details: whether the columns ``detail`` mean something; where a CSV file has
            lost them, the k-th event of a kind is taken to be that of subroutine k.
        is_cut: whether circuits beyond those looked at may have begun.
    """

    node: str
    host: Mapping[str, NDArray[Any]]
    host_unit_ns: int
    qnpu: Mapping[str, NDArray[Any]]
    tick_ns: int
    dropped: int = 0
    app_id: int | None = None
    process: int | None = None
    has_details: bool = True
    is_cut: bool = False

    @classmethod
    def from_traces(
        cls,
        traces: NodeTraces,
        *,
        app_id: int | None = None,
        process: int | None = None,
        is_cut: bool = False,
    ) -> NodeTrace:
        """One program of what a node recorded, or read back from files."""
        return cls(
            traces.name,
            traces.host,
            traces.unit_ns,
            traces.qnpu,
            traces.tick_ns,
            app_id=app_id,
            process=process,
            has_details=traces.has_details,
            is_cut=is_cut,
        )

    @classmethod
    def from_recorders(
        cls,
        node: str,
        host: TraceRecorder,
        qnpu: TraceRecorder,
        *,
        app_id: int | None = None,
        process: int | None = None,
    ) -> NodeTrace:
        """The traces two recorders hold."""
        return cls(
            node,
            host.columns(),
            host.unit_ns,
            qnpu.columns(),
            qnpu.unit_ns,
            host.dropped + qnpu.dropped,
            app_id,
            process,
        )

    def host_times_ms(self, event: Event, count: int) -> Floats:
        """Times of a host event that happens once per circuit, in order, shape (count,)."""
        chosen = _chosen(self.host, event, self.app_id)
        return self._expect(event, self.host["time"][chosen], count) * (self.host_unit_ns / 1e6)

    def host_by_serial_ms(self, event: Event, count: int) -> Floats:
        """Times of a host event of the subroutines 0..count-1, shape (count,)."""
        return self._by_serial(self.host, event, self.app_id, count) * (self.host_unit_ns / 1e6)

    def qnpu_by_serial_ms(self, event: Event, count: int) -> Floats:
        """Times of a QNPU event of the subroutines 0..count-1, shape (count,)."""
        return self._by_serial(self.qnpu, event, self.process, count) * (self.tick_ns / 1e6)

    def qnpu_times_ms(self, event: Event, count: int | None = None) -> Floats:
        """Times of a QNPU event of any process, in order; ``count`` of them if given."""
        times = self.qnpu["time"][_chosen(self.qnpu, event, None)]
        if count is not None:
            times = self._expect(event, times, count)
        return np.sort(times) * (self.tick_ns / 1e6)

    def herald_times_ms(self, count: int) -> Floats:
        """When the pairs of the program were heralded, in order, shape (count,)."""
        times, details = self.qnpu["time"], self.qnpu["detail"]
        heralded = _chosen(self.qnpu, Event.EGP_ENT_OK, None)
        if heralded.sum() > count and self.process is not None and self.has_details:
            delivered = _chosen(self.qnpu, Event.QNP_BQ_DELIVERED, self.process)
            heralded &= np.isin(details, details[delivered])
        return self._expect(Event.EGP_ENT_OK, times[heralded], count) * (self.tick_ns / 1e6)

    def _expect(self, event: Event, times: NDArray[Any], count: int) -> NDArray[np.int64]:
        if times.size < count or (times.size > count and not self.is_cut):
            raise IncompleteTraceError(
                f"trace of {self.node} has {times.size} {event.name}, but {count} circuits need "
                f"{count}; record all circuits of the set, and nothing else"
            )
        return np.sort(times)[:count]

    def _by_serial(
        self,
        columns: Mapping[str, NDArray[Any]],
        event: Event,
        process: int | None,
        count: int,
    ) -> NDArray[np.int64]:
        chosen = _chosen(columns, event, process)
        if not self.has_details:
            return self._expect(event, columns["time"][chosen], count)
        serials = columns["detail"][chosen]
        order = np.argsort(serials, kind="stable")[: count if self.is_cut else None]
        if not np.array_equal(serials[order], np.arange(count)):
            raise IncompleteTraceError(
                f"trace of {self.node} has {serials.size} {event.name}; expected one for each "
                f"subroutine 0..{count - 1} of the program"
            )
        times: NDArray[np.int64] = columns["time"][chosen][order]
        return times


def _chosen(
    columns: Mapping[str, NDArray[Any]], event: Event, process: int | None
) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = columns["event"] == event
    return chosen if process is None else chosen & (columns["process"] == process)


def circuit_segments_ms(client: NodeTrace, server: NodeTrace, circuits: int) -> dict[str, Floats]:
    """The latency segments of every circuit.

    Circuit i is subroutine i of the client, 2 i (S1) and 2 i + 1 (S2) of the server, the
    i-th classical message and the i-th delivered pair.

    Args:
        client: traces of the node that delegates.
        server: traces of the node that computes.
        circuits: how many ran.

    Returns:
        Each name of ``SEGMENTS`` with an array of shape (circuits,), in ms. Differences
        of host times may be negative where the two things are concurrent
        (``server_result_to_message``).

    Raises:
        IncompleteTraceError: a recorder dropped events, or the traces do not show exactly
            this many circuits.
    """
    for trace in (client, server):
        if trace.dropped:
            raise IncompleteTraceError(
                f"trace of {trace.node} lost {trace.dropped} events; use a larger capacity"
            )
    c1 = _subroutines(client, circuits)
    both = _subroutines(server, 2 * circuits)
    s1 = {name: times[0::2] for name, times in both.items()}
    s2 = {name: times[1::2] for name, times in both.items()}
    client_delivered = client.herald_times_ms(circuits)
    server_delivered = server.herald_times_ms(circuits)
    first_attempt = _first_attempt(client, c1["added"], client_delivered)
    message_sent = client.host_times_ms(Event.CLAS_MSG_SENT, circuits)
    message_received = server.host_times_ms(Event.CLAS_MSG_RCVD, circuits)
    return {
        "entanglement": client_delivered - first_attempt,
        "c1_wait_for_bin": first_attempt - c1["added"],
        "c1_after_delivery": c1["done"] - client_delivered,
        "client_result_to_message_sent": message_sent - c1["result"],
        "classical_communication": message_received - message_sent,
        "s1_after_delivery": s1["done"] - server_delivered,
        "s1_done_to_s2_added": s2["added"] - s1["done"],
        "server_result_to_message": message_received - s1["result"],
        "server_message_to_s2_attempt": s2["attempt"] - message_received,
        "s2_attempt_to_sent": s2["sent"] - s2["attempt"],
        "s2_sent_to_result": s2["result"] - s2["sent"],
        "s2_qnpu": s2["done"] - s2["added"],
        "live_time": s2["done"] - server_delivered,
        "overhead_c1": _overhead(c1),
        "overhead_s1": _overhead(s1),
        "overhead_s2": _overhead(s2),
        "down_client": c1["result"] - c1["done"],
        "up_server": s2["added"] - s2["attempt"],
    }


def cnpu_share(segments: Mapping[str, Numbers], *, count_send: bool = False) -> Numbers:
    """Share of the server's live time that the two CNPUs take.

    Published: 0.36, and 0.55 if the call that sends S2 counts as the CNPU's.

    Args:
        segments: of `circuit_segments_ms`, or means of them.
        count_send: whether ``s2_attempt_to_sent`` counts.

    Returns:
        Per circuit, shape (n,), or one number for means.
    """
    cnpu = segments["client_result_to_message_sent"] + segments["server_message_to_s2_attempt"]
    if count_send:
        cnpu = cnpu + segments["s2_attempt_to_sent"]
    return cnpu / segments["live_time"]


def _subroutines(trace: NodeTrace, count: int) -> dict[str, Floats]:
    """The five moments of every subroutine, from the CNPU's send call to its result."""
    sources: dict[str, tuple[Callable[[Event, int], Floats], Event]] = {
        "attempt": (trace.host_by_serial_ms, Event.SUBROUTINE_SEND_ATTEMPT),
        "sent": (trace.host_by_serial_ms, Event.SUBROUTINE_SENT),
        "added": (trace.qnpu_by_serial_ms, Event.PROCMGR_SUBROUTINE_ADDED),
        "done": (trace.qnpu_by_serial_ms, Event.PROCMGR_SUBROUTINE_DONE),
        "result": (trace.host_by_serial_ms, Event.RESULT_RCVD),
    }
    return {name: times(event, count) for name, (times, event) in sources.items()}


def _first_attempt(client: NodeTrace, added: Floats, delivered: Floats) -> Floats:
    """First entanglement command at or after C1 was added, shape (n,)."""
    commands = client.qnpu_times_ms(Event.QDEVICE_PRODUCE_ENT_CMD)
    index = np.searchsorted(commands, added)
    found = index < commands.size
    found[found] = commands[index[found]] <= delivered[found]
    if not found.all():
        raise IncompleteTraceError(
            f"trace of {client.node} has no {Event.QDEVICE_PRODUCE_ENT_CMD.name} between the "
            f"start of circuit {int(np.argmin(found))} and its {Event.EGP_ENT_OK.name}"
        )
    return commands[index]


def _overhead(subroutine: Mapping[str, Floats]) -> Floats:
    """Time from send attempt to result that the QNPU was not running the subroutine."""
    total = subroutine["result"] - subroutine["attempt"]
    return total - (subroutine["done"] - subroutine["added"])
