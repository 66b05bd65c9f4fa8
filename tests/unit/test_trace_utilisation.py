"""Device utilisation: unions of intervals against counting tick by tick."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qnodeos.trace import Event, TraceRecorder
from qnodeos.trace.utilisation import (
    Intervals,
    device_instructions,
    device_utilisation,
    length,
    union,
    utilisation_of,
)

TICKS = st.integers(-10, 30)
INTERVALS = st.lists(st.tuples(TICKS, TICKS), max_size=12)

ENT = Event.QDEVICE_PRODUCE_ENT_CMD
ENM = Event.QDEVICE_PRODUCE_ENM_CMD
INI = Event.QDEVICE_PRODUCE_INI_CMD
SQG = Event.QDEVICE_PRODUCE_SQG_CMD
DONE = Event.PROCESSOR_CONSUME_OUTCOME


def intervals_of(pairs: list[tuple[int, int]]) -> Intervals:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def ticks_of(pairs: list[tuple[int, int]]) -> set[int]:
    return {tick for start, stop in pairs for tick in range(start, stop)}


def columns_of(*events: tuple[int, Event]) -> dict[str, NDArray[Any]]:
    recorder = TraceRecorder(10_000, len(events) + 1)
    for time, event in events:
        recorder.record(time, event)
    return recorder.columns()


@given(pairs=INTERVALS)
def test_union_is_the_same_set_in_pieces_that_do_not_touch(pairs: list[tuple[int, int]]) -> None:
    merged = union(intervals_of(pairs)).tolist()
    assert ticks_of(merged) == ticks_of(pairs)
    bounds = [bound for piece in merged for bound in piece]
    assert bounds == sorted(set(bounds))
    assert length(intervals_of(pairs)) == len(ticks_of(pairs))


@given(busy=INTERVALS, entanglement=INTERVALS, start=TICKS, total=st.integers(0, 25))
def test_utilisation_is_what_counting_ticks_gives(
    busy: list[tuple[int, int]],
    entanglement: list[tuple[int, int]],
    start: int,
    total: int,
) -> None:
    found = utilisation_of(intervals_of(busy), intervals_of(entanglement), start, start + total)
    inside = set(range(start, start + total))
    windows = ticks_of(entanglement) & inside
    used = (ticks_of(busy) & inside) - windows
    assert (found.total, found.entanglement, found.busy) == (total, len(windows), len(used))
    if inside - windows:
        assert found.share == len(used) / len(inside - windows)
    else:
        assert isnan(found.share)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([ENT, ENM, INI, SQG]), st.integers(1, 9), st.integers(0, 4)),
        max_size=20,
    )
)
def test_a_device_is_busy_from_each_command_to_its_outcome(
    steps: list[tuple[Event, int, int]],
) -> None:
    events: list[tuple[int, Event]] = [(0, Event.PROCMGR_SUBROUTINE_ADDED)]
    tick, busy, attempts = 0, 0, 0
    for event, duration, pause in steps:
        events += [(tick, event), (tick + duration, DONE)]
        if event in {ENT, ENM}:
            attempts += duration
        else:
            busy += duration
        tick += duration + pause
    events.append((tick, Event.PROCMGR_SUBROUTINE_DONE))
    found = device_utilisation(columns_of(*events))
    assert (found.total, found.entanglement, found.busy) == (tick, attempts, busy)


def test_order_within_a_tick_does_not_matter() -> None:
    # As a CSV file has it: by channel, and so a command before the outcome of the last.
    columns = columns_of((0, ENT), (5, INI), (5, DONE), (8, SQG), (8, DONE), (10, DONE))
    assert device_instructions(columns).intervals.tolist() == [[0, 5], [5, 8], [8, 10]]
    assert columns["event"][device_instructions(columns).outcome_rows].tolist() == [DONE] * 3


def test_an_instruction_that_is_cut_off_lasts_to_the_end() -> None:
    columns = columns_of((2, DONE), (4, SQG), (9, Event.SCHEDULER_ARRIVE_NET_PROCESS))
    instructions = device_instructions(columns)
    assert instructions.intervals.tolist() == [[4, 9]]
    assert instructions.outcome_rows.tolist() == [-1]


def test_a_window_may_be_given() -> None:
    columns = columns_of((10, SQG), (20, DONE), (30, ENT), (40, DONE))
    found = device_utilisation(columns, 15, 35)
    assert (found.total, found.entanglement, found.busy) == (20, 5, 5)
    assert found.share == pytest.approx(1 / 3)


def test_an_empty_trace_has_no_utilisation() -> None:
    found = device_utilisation(columns_of())
    assert (found.total, found.entanglement, found.busy) == (0, 0, 0)
