"""How much of the server qubit's live time goes to software, from traces alone.

The qubit is live from its delivery to the end of S2 (`qnodeos.experiments.dqc_segments`). In
that time the devices must do the client's gates and readout, then those of S2; the server's
corrections run beside the client's. The device works from the tick at which a command is on
the wire to the tick at which its outcome is:

    quantum  = max(client's instructions in C1, server's in S1) + server's in S2
    software = live time - quantum

So everything that is not a physical instruction and its ticks counts as software: choosing
and sending the next instruction, messages, programs, and waiting for a tick to begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.errors import IncompleteTraceError, InsufficientDataError
from qnodeos.experiments.dqc_segments import Floats, NodeTrace, circuit_segments_ms
from qnodeos.trace import Event

PUBLISHED_SOFTWARE_MS: Final = 3.48
"""Live time of 4.82 ms less 0.65 ms (client) and 0.69 ms (S2): means of 77 circuits of the
dataset published with Delle Donne et al., Nature 639, 321 (2025)."""


def device_intervals_ms(trace: NodeTrace) -> tuple[Floats, Floats]:
    """When the device worked: commands and their outcomes on the wire, two arrays (n,), in ms.

    Raises:
        IncompleteTraceError: commands and outcomes do not alternate.
    """
    begin = trace.qnpu_times_ms(Event.QDEVICE_CONSUME_CMD)
    end = trace.qnpu_times_ms(Event.QDEVICE_PRODUCE_OUTCOME)
    if begin.size != end.size or np.any(end < begin) or np.any(begin[1:] < end[:-1]):
        raise IncompleteTraceError(
            f"trace of {trace.node}: {begin.size} commands and {end.size} outcomes do not "
            "alternate; record all of both"
        )
    return begin, end


def device_time_ms(trace: NodeTrace, since: Floats, until: Floats) -> Floats:
    """For how long the device worked in each of n spans of time, shape (n,)."""
    begin, end = device_intervals_ms(trace)
    if not begin.size:
        return np.zeros(since.size)
    elapsed = np.concatenate([[0.0], np.cumsum(end - begin)])

    def worked_until(moment: Floats) -> Floats:
        started = np.searchsorted(begin, moment)
        # Of the one that has started last, what is not over yet does not count.
        running = np.maximum(end[np.maximum(started - 1, 0)] - moment, 0.0)
        worked: Floats = elapsed[started] - np.where(started > 0, running, 0.0)
        return worked

    return worked_until(until) - worked_until(since)


def software_ms(client: NodeTrace, server: NodeTrace, circuits: int) -> Floats:
    """The software's part of the live time, per circuit, shape (circuits,), in ms.

    Args:
        client: traces of the node that delegates; all clocks have one origin.
        server: traces of the node that computes.
        circuits: how many ran.

    Raises:
        IncompleteTraceError: the traces do not show these circuits.
    """
    live = circuit_segments_ms(client, server, circuits)["live_time"]
    delivered = {
        trace.node: trace.qnpu_times_ms(Event.EGP_ENT_OK, circuits) for trace in (client, server)
    }
    c1_done = client.qnpu_by_serial_ms(Event.PROCMGR_SUBROUTINE_DONE, circuits)
    added = server.qnpu_by_serial_ms(Event.PROCMGR_SUBROUTINE_ADDED, 2 * circuits)
    done = server.qnpu_by_serial_ms(Event.PROCMGR_SUBROUTINE_DONE, 2 * circuits)
    first = np.maximum(
        device_time_ms(client, delivered[client.node], c1_done),
        device_time_ms(server, delivered[server.node], done[0::2]),
    )
    return live - first - device_time_ms(server, added[1::2], done[1::2])


def distribution(values: NDArray[Any]) -> dict[str, float]:
    """Median, 90th percentile and maximum, for a report.

    Raises:
        InsufficientDataError: there are no values.
    """
    if not values.size:
        raise InsufficientDataError("no circuits, so no distribution of times")
    p50, p90 = np.percentile(values, (50, 90))
    return {"p50": round(float(p50), 4), "p90": round(float(p90), 4), "max": float(values.max())}


def shifted(
    columns: Mapping[str, NDArray[Any]],
    offset: int,
    since: int | None = None,
    until: int | None = None,
) -> dict[str, NDArray[Any]]:
    """The events of a span of time, with their times shifted to another origin.

    Args:
        columns: of a `qnodeos.trace.TraceRecorder`.
        offset: subtracted from all times, in their unit.
        since: first time to keep, before the shift; None for all.
        until: last time to keep, before the shift; None for all.
    """
    times = columns["time"]
    chosen = np.ones(times.shape, dtype=bool)
    if since is not None:
        chosen &= times >= since
    if until is not None:
        chosen &= times <= until
    kept = {name: column[chosen] for name, column in columns.items()}
    kept["time"] = kept["time"] - offset
    return kept
