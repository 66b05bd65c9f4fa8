"""Traces: what happened on a node and when, with the event names of the real system.

`events` names the events, `recorder` keeps them in a preallocated ring, and `csvformat`
writes and reads the CSV files that the published analysis tools understand. A host trace
counts microseconds, a QNPU trace counts ticks; latencies are computed from traces only.

`node_traces` holds those of a node, `utilisation` says how much its device was used, and
`timeline` makes the spans and arrows of which `perfetto` and `otel` are the formats;
`export` writes them all, `load` reads CSV back.
"""

from qnodeos.trace.events import HOST_EVENTS, PER_PROCESS_EVENTS, PRODUCE_EVENT, Event
from qnodeos.trace.recorder import TraceRecorder

__all__ = ["HOST_EVENTS", "PER_PROCESS_EVENTS", "PRODUCE_EVENT", "Event", "TraceRecorder"]
