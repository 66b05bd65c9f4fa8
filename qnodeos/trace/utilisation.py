"""How much of the time a quantum device was put to use.

A device carries out one physical instruction at a time, from its ``QDEVICE_PRODUCE_*``
to the next ``PROCESSOR_CONSUME_OUTCOME``. Utilisation is the share of the time outside
entanglement attempts (ENT, ENM) in which it carries out any other instruction:

    |busy minus ent| / (T_total - |ent|)

with || the length of a union of intervals: Fig. 5 of Delle Donne et al., Nature 639, 321
(2025), which leaves the entanglement windows out too. Gates that turn a heralded pair
into Phi+ count as busy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qnodeos.trace.events import PRODUCE_EVENT, Event

Intervals = NDArray[np.int64]
"""Half-open intervals [start, stop) of one clock, shape (n, 2)."""

PRODUCE_EVENTS: Final = frozenset(PRODUCE_EVENT.values())
ENTANGLEMENT_EVENTS: Final = frozenset(
    {Event.QDEVICE_PRODUCE_ENT_CMD, Event.QDEVICE_PRODUCE_ENM_CMD}
)


class Instructions(NamedTuple):
    """Physical instructions in the order in which the device carried them out.

    Attributes:
        intervals: from command to outcome, in units of the trace, shape (n, 2).
        rows: of the commands in the trace's columns, shape (n,).
        outcome_rows: of the outcomes; -1 where the trace has none.
    """

    intervals: Intervals
    rows: NDArray[np.int64]
    outcome_rows: NDArray[np.int64]


@dataclass(frozen=True)
class Utilisation:
    """What a device did with its time, in units of the trace.

    Attributes:
        total: length of the time looked at.
        entanglement: of which it attempted entanglement.
        busy: of the rest, carried out any other instruction.
    """

    total: int
    entanglement: int
    busy: int

    @property
    def share(self) -> float:
        """Busy share of the time without entanglement attempts; nan if there is none."""
        free = self.total - self.entanglement
        return self.busy / free if free else nan


def union(intervals: Intervals) -> Intervals:
    """The same set as disjoint, sorted, non-empty intervals, shape (m, 2)."""
    kept = intervals[intervals[:, 1] > intervals[:, 0]]
    if not kept.size:
        return kept
    kept = kept[np.argsort(kept[:, 0], kind="stable")]
    reach = np.maximum.accumulate(kept[:, 1])
    first = np.ones(len(kept), dtype=bool)
    first[1:] = kept[1:, 0] > reach[:-1]
    last = np.append(first[1:], True)
    return np.column_stack([kept[first, 0], reach[last]])


def length(intervals: Intervals) -> int:
    """Length of the union of intervals."""
    merged = union(intervals)
    return int((merged[:, 1] - merged[:, 0]).sum())


def utilisation_of(busy: Intervals, entanglement: Intervals, start: int, stop: int) -> Utilisation:
    """Utilisation between two times, from intervals that may overlap and reach beyond.

    Args:
        busy: when the device was in use, whether during entanglement or not.
        entanglement: when it attempted entanglement.
        start: first moment that counts.
        stop: first moment that does not count any more.
    """
    inside = np.clip(entanglement, start, stop)
    windows = length(inside)
    both = length(np.concatenate([np.clip(busy, start, stop), inside]))
    return Utilisation(stop - start, windows, both - windows)


def device_instructions(columns: Mapping[str, NDArray[Any]]) -> Instructions:
    """The physical instructions of a QNPU trace; one without an outcome lasts to its end.

    Needs neither details nor the order within a tick: a device answers after a tick at
    the earliest, so of an outcome and a command in one tick the outcome came first.
    """
    events, times = columns["event"], columns["time"]
    is_command = np.isin(events, list(PRODUCE_EVENTS))
    rows = np.flatnonzero(is_command | (events == Event.PROCESSOR_CONSUME_OUTCOME))
    rows = rows[np.lexsort((is_command[rows], times[rows]))]
    place = np.flatnonzero(is_command[rows])
    if not place.size:
        none = np.empty(0, dtype=np.int64)
        return Instructions(np.empty((0, 2), dtype=np.int64), none, none)
    following = np.append(rows[1:], -1)[place]
    ends = np.where(following >= 0, times[following], times.max())
    answered = (following >= 0) & ~is_command[following]
    return Instructions(
        np.column_stack([times[rows[place]], ends]),
        rows[place],
        np.where(answered, following, -1),
    )


def device_utilisation(
    columns: Mapping[str, NDArray[Any]], start: int | None = None, stop: int | None = None
) -> Utilisation:
    """Utilisation of the device of one QNPU trace.

    Args:
        columns: of the QNPU's recorder.
        start: first tick that counts; that of the first event if not given.
        stop: first tick that does not count any more; that of the last event if not given.
    """
    times = columns["time"]
    if start is None:
        start = int(times.min()) if times.size else 0
    if stop is None:
        stop = int(times.max()) if times.size else start
    instructions = device_instructions(columns)
    attempts = np.isin(columns["event"][instructions.rows], list(ENTANGLEMENT_EVENTS))
    intervals = instructions.intervals
    return utilisation_of(intervals[~attempts], intervals[attempts], start, stop)
