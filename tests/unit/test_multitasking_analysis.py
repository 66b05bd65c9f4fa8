"""Analysis of multitasking on traces written by hand, whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.readout import ReadoutFidelity
from qnodeos.errors import IncompleteTraceError, InsufficientDataError
from qnodeos.experiments.multitasking_analysis import (
    Observed,
    Roles,
    Tally,
    observe,
    refuse_incomplete,
    summarise,
)
from qnodeos.experiments.multitasking_traces import (
    count,
    idle_intervals,
    live_times,
    network_lateness,
    runs_between,
    waits_with_others,
    within,
)
from qnodeos.trace.events import Event

E = Event
Row = tuple[int, Event, int] | tuple[int, Event, int, int]
DQC, LGT, OTHER = 1, 2, 3
PERFECT = ReadoutFidelity(1.0, 1.0, 0.0, 0.0)
TICK_NS = 10_000

ARRIVE, SCHEDULE = E.SCHEDULER_ARRIVE_USER_PROCESS, E.SCHEDULER_SCHEDULE_USER_PROCESS
WAIT, FINISH = E.PROCESSOR_WAIT_USER_PROCESS, E.PROCESSOR_FINISH_USER_PROCESS
DONE = E.PROCMGR_SUBROUTINE_DONE


def columns(*rows: Row) -> dict[str, np.ndarray[Any, Any]]:
    """A trace of rows (tick, event, process, detail)."""
    padded = [(*row, 0) if len(row) == 3 else row for row in rows]
    by_name = zip(*padded, strict=True) if padded else ((), (), (), ())
    return {
        name: np.array(values, dtype=np.int64)
        for name, values in zip(("time", "event", "process", "detail"), by_name, strict=True)
    }


def observed(
    client: dict[str, Any], server: dict[str, Any] | None = None, stop: int = 1000, **other: Any
) -> Observed:
    """What a client's trace shows in ticks 0..stop of one pair and one LGT program."""
    given_ = {
        "tick_ns": TICK_NS,
        "start": 0,
        "roles": Roles(dqc=[DQC], lgt=[LGT], servers=[DQC]),
        "outcomes": [[]],
        "bins": [0] * 6,
        **other,
    }
    return observe(client, server if server is not None else columns(), stop=stop, **given_)


# --- who runs while a process waits ------------------------------------------------------


def wait(*between: int) -> list[Row]:
    """A DQC process is scheduled, waits, others are scheduled, and it is again."""
    return [(0, SCHEDULE, DQC), (1, WAIT, DQC), *((2, SCHEDULE, pid) for pid in between)]


@pytest.mark.parametrize(
    ("rows", "waits", "shared"),
    [
        ([], 0, 0),
        ([*wait(), (3, SCHEDULE, DQC)], 1, 0),
        ([*wait(LGT), (3, SCHEDULE, DQC)], 1, 1),
        ([*wait(LGT, OTHER, LGT), (3, SCHEDULE, DQC)], 1, 1),
        (wait(LGT), 0, 0),  # the wait has not ended
        ([*wait(), (3, SCHEDULE, DQC), *wait(LGT), (3, SCHEDULE, DQC)], 2, 1),
        ([(0, SCHEDULE, LGT), *wait(), (3, SCHEDULE, DQC), (4, SCHEDULE, LGT)], 1, 0),
        ([*wait(), (2, E.SCHEDULER_SCHEDULE_NET_PROCESS, 0), (3, SCHEDULE, DQC)], 1, 0),
    ],
)
def test_waits_during_which_others_run(rows: list[Row], waits: int, shared: int) -> None:
    assert waits_with_others(columns(*rows), [DQC]) == (waits, shared)


def test_waits_of_two_dqc_processes_are_each_others_company() -> None:
    rows: list[Row] = [
        (0, SCHEDULE, DQC),
        (1, WAIT, DQC),
        (2, SCHEDULE, OTHER),
        (3, WAIT, OTHER),
        (4, SCHEDULE, DQC),
        (5, SCHEDULE, OTHER),
    ]
    assert waits_with_others(columns(*rows), [DQC, OTHER]) == (2, 2)
    assert waits_with_others(columns(*rows), [OTHER]) == (1, 1)


# --- consecutive LGT ---------------------------------------------------------------------


def done(pids: Sequence[int]) -> dict[str, Any]:
    """Subroutines of these processes end one after another."""
    return columns(*((tick, DONE, pid) for tick, pid in enumerate(pids)))


@pytest.mark.parametrize(
    ("pids", "runs"),
    [
        ([], []),
        ([DQC], []),
        ([LGT, LGT], []),
        ([DQC, DQC], [0]),
        ([LGT, DQC, LGT, LGT, DQC, LGT], [2]),  # neither before the first nor after the last
        ([DQC, LGT, DQC, DQC, LGT, LGT, LGT, DQC], [1, 0, 3]),
        ([DQC, OTHER, LGT, DQC], [1]),
    ],
)
def test_runs_of_lgt_between_dqc(pids: list[int], runs: list[int]) -> None:
    assert runs_between(done(pids), DONE, [LGT], [DQC]).tolist() == runs


@given(st.lists(st.sampled_from([DQC, LGT, OTHER]), max_size=40))
def test_runs_are_those_counted_one_by_one(pids: list[int]) -> None:
    places = [place for place, pid in enumerate(pids) if pid == DQC]
    expected = [pids[first:last].count(LGT) for first, last in pairwise(places)]
    assert runs_between(done(pids), DONE, [LGT], [DQC]).tolist() == expected


def test_the_definitions_of_consecutive_lgt_differ() -> None:
    rows: list[Row] = [
        (0, SCHEDULE, DQC),
        (1, DONE, DQC),
        (2, SCHEDULE, DQC),
        (3, WAIT, DQC),
        (4, SCHEDULE, LGT),
        (5, DONE, LGT),
        (6, SCHEDULE, LGT),
        (7, DONE, LGT),
        (8, SCHEDULE, DQC),
        (9, DONE, DQC),
        (10, DONE, DQC),
    ]
    found = summarise([observed(columns(*rows))], PERFECT)
    assert found["consecutive_lgt"] == pytest.approx(1.0)  # 2, 0
    assert found["consecutive_lgt_activations"] == pytest.approx(1.0)  # 0, 2
    assert found["consecutive_lgt_nonzero"] == pytest.approx(2.0)


# --- idle ---------------------------------------------------------------------------------


def test_an_empty_trace_is_idle_throughout() -> None:
    assert idle_intervals(columns(), 10, 30).tolist() == [[10, 30]]


def test_idle_is_when_nothing_is_ready_or_running() -> None:
    rows: list[Row] = [
        (10, ARRIVE, LGT),
        (12, SCHEDULE, LGT),
        (18, ARRIVE, DQC),
        (20, FINISH, LGT),
        (20, SCHEDULE, DQC),
        (25, WAIT, DQC),
        (40, E.SCHEDULER_ARRIVE_NET_PROCESS, 0),
        (41, E.SCHEDULER_SCHEDULE_NET_PROCESS, 0),
        (60, ARRIVE, DQC),  # delivered while the network process still runs
        (61, E.PROCESSOR_FINISH_NET_PROCESS, 0),
        (70, FINISH, DQC),
        (90, ARRIVE, LGT),
    ]
    assert idle_intervals(columns(*rows), 0, 100).tolist() == [[0, 10], [25, 40], [70, 90]]


def test_a_network_process_that_waits_for_an_announcement_is_not_idle() -> None:
    rows: list[Row] = [
        (5, E.SCHEDULER_ARRIVE_NET_PROCESS, 0),
        (9, E.SCHEDULER_ARRIVE_NET_PROCESS, 0),  # woken
        (12, E.PROCESSOR_FINISH_NET_PROCESS, 0),
    ]
    assert idle_intervals(columns(*rows), 0, 20).tolist() == [[0, 5], [12, 20]]


def test_a_process_that_is_aborted_is_not_active_for_ever() -> None:
    rows: list[Row] = [(5, ARRIVE, LGT), (9, E.PROCMGR_SUBROUTINE_ABORTED, LGT)]
    assert idle_intervals(columns(*rows), 0, 20).tolist() == [[0, 5], [9, 20]]


def test_lateness_of_the_network_process() -> None:
    arrive, schedule = E.SCHEDULER_ARRIVE_NET_PROCESS, E.SCHEDULER_SCHEDULE_NET_PROCESS
    rows = [(5, arrive, 0), (5, schedule, 0), (9, arrive, 0), (30, schedule, 0), (40, arrive, 0)]
    assert network_lateness(columns(*rows)).tolist() == [0, 21]
    assert network_lateness(columns()).tolist() == []


# --- the server's qubits ------------------------------------------------------------------


def test_live_times_of_two_servers() -> None:
    herald, delivered = E.EGP_ENT_OK, E.QNP_BQ_DELIVERED
    rows: list[Row] = [
        (10, herald, 0, 0),
        (15, delivered, 1, 0),
        (20, DONE, 1, 0),
        (40, DONE, 1, 1),
        (50, herald, 0, 1),
        (51, delivered, 2, 1),
        (52, DONE, 2, 0),
        (100, DONE, 2, 1),
        (110, herald, 0, 2),
        (112, delivered, 1, 2),  # not measured yet
    ]
    assert live_times(columns(*rows), [1, 2]).tolist() == [30, 50]
    assert live_times(columns(), [1]).tolist() == []


def test_a_measured_qubit_needs_a_herald() -> None:
    with pytest.raises(IncompleteTraceError, match="process 1 of the server ended 1 circuits"):
        live_times(columns((40, DONE, 1, 1)), [1])
    with pytest.raises(IncompleteTraceError, match="has 0 QNP_BQ_DELIVERED and 1 EGP_ENT_OK"):
        live_times(columns((5, E.EGP_ENT_OK, 0), (40, DONE, 1, 1)), [1])
    with pytest.raises(IncompleteTraceError, match="process 1 of the server"):
        live_times(columns((5, E.QNP_BQ_DELIVERED, 1), (40, DONE, 1, 1)), [1])


# --- sums ---------------------------------------------------------------------------------


def test_count_and_window() -> None:
    trace = columns((1, DONE, LGT), (2, DONE, DQC), (3, DONE, LGT), (9, DONE, LGT))
    assert count(trace, DONE, [LGT]) == 3
    assert count(within(trace, 1, 9), DONE, [LGT]) == 2
    assert count(within(trace, 2, 3), DONE, [DQC, LGT]) == 1


@given(st.lists(st.floats(0, 100), max_size=20), st.integers(0, 20))
def test_tallies_add_up(values: list[float], cut: int) -> None:
    together = Tally.of(values[:cut]) + Tally.of(values[cut:])
    assert together.count == len(values)
    assert together.largest == max(values, default=0.0)
    if not values:
        assert together.mean is None
        assert together.sd is None
        return
    assert together.mean == pytest.approx(np.mean(values), abs=1e-9)
    if len(values) > 1:
        assert together.sd == pytest.approx(np.std(values, ddof=1), abs=1e-4)


def test_nothing_observed() -> None:
    found = summarise([observed(columns())], PERFECT)
    assert found["utilisation"] == 0.0
    assert found["cnpu_wait_ms"]["max"] == 10.0
    nothing = ("other_process_scheduled", "consecutive_lgt", "dqc_fidelity", "utilisation_sigma")
    assert [found[name] for name in nothing] == [None] * 4
    assert found["dqc_per_s"] == found["lgt_per_s"] == 0.0
    with pytest.raises(InsufficientDataError, match="no blocks"):
        summarise([], PERFECT)


def test_utilisation_leaves_entanglement_out() -> None:
    trace = columns(
        (100, E.QDEVICE_PRODUCE_INI_CMD, LGT),
        (200, E.PROCESSOR_CONSUME_OUTCOME, LGT),
        (400, E.QDEVICE_PRODUCE_ENT_CMD, 0),
        (800, E.PROCESSOR_CONSUME_OUTCOME, 0),
        (900, E.QDEVICE_PRODUCE_MSR_CMD, DQC),
        (1100, E.PROCESSOR_CONSUME_OUTCOME, DQC),  # after the end
    )
    found = summarise([observed(trace, trace)], PERFECT)
    assert found["utilisation"] == pytest.approx(200 / 600)
    assert found["server"]["utilisation"] == pytest.approx(200 / 600)


def test_rates_fidelity_and_bins_of_two_blocks() -> None:
    blocks = [
        observed(
            columns((5, DONE, LGT), (6, DONE, LGT)),
            outcomes=[[0, 1, 0, 1]],
            bins=[5, 1, 8, 4, 2, 9],
        ),
        observed(columns((5, DONE, LGT)), outcomes=[[1, 1], [0, 0]], bins=[6, 0, 0, 6, 0, 1]),
    ]
    found = summarise(blocks, PERFECT)
    assert found["virtual_s"] == pytest.approx(0.02)
    assert found["dqc_per_s"] == pytest.approx(8 / 0.02)
    assert found["lgt_per_s"] == pytest.approx(3 / 0.02)
    # Along the target 3 of 4 gave 0, against it 1 of 4.
    assert found["dqc_fidelity"] == pytest.approx(0.75)
    assert found["dqc_fidelity_sigma"] > 0
    names = ("used_bins", "missed_bins", "blocked_bins")
    assert [found[name] for name in names] == [11, 1, 8]
    assert [found["server"][name] for name in names] == [10, 2, 10]


def test_readout_errors_are_corrected() -> None:
    outcomes = [[0] * 4 * 90 + [0, 0] * 10]
    outcomes[0][1::2] = [1] * len(outcomes[0][1::2])
    readout = ReadoutFidelity(0.95, 0.95, 0.0, 0.0)
    found = summarise([observed(columns(), outcomes=outcomes)], readout)
    assert found["dqc_fidelity"] == pytest.approx(0.5 + 0.5 / 0.9)


def test_the_error_of_utilisation_is_that_of_the_mean_of_blocks() -> None:
    def block(busy: int) -> Observed:
        return observed(
            columns((0, E.QDEVICE_PRODUCE_INI_CMD, LGT), (busy, E.PROCESSOR_CONSUME_OUTCOME, LGT))
        )

    found = summarise([block(100), block(300)], PERFECT)
    assert found["utilisation"] == pytest.approx(0.2)
    assert found["utilisation_sigma"] == pytest.approx(0.1)


def test_dropped_events_are_refused() -> None:
    refuse_incomplete("the client", 0)
    with pytest.raises(IncompleteTraceError, match="trace of the client lost 3 events; run blocks"):
        refuse_incomplete("the client", 3)


# --- properties ---------------------------------------------------------------------------


@st.composite
def device_traces(draw: st.DrawFn) -> dict[str, Any]:
    """One instruction after another, with pauses."""
    rows: list[Row] = []
    tick = 0
    kinds = (E.QDEVICE_PRODUCE_INI_CMD, E.QDEVICE_PRODUCE_ENT_CMD, E.QDEVICE_PRODUCE_ENM_CMD)
    for _ in range(draw(st.integers(0, 12))):
        tick += draw(st.integers(0, 30))
        rows.append((tick, draw(st.sampled_from(kinds)), LGT))
        tick += draw(st.integers(1, 30))
        rows.append((tick, E.PROCESSOR_CONSUME_OUTCOME, LGT))
    return columns(*rows)


@settings(max_examples=60)
@given(device_traces(), st.integers(1, 400), st.integers(0, 400), st.integers(0, 10_000))
def test_utilisation_is_a_share_adds_up_and_knows_no_origin(
    trace: dict[str, Any], stop: int, cut: int, shift: int
) -> None:
    cut = min(cut, stop)
    whole = observed(trace, stop=stop)
    utilisation = summarise([whole], PERFECT)["utilisation"]
    assert utilisation is None or 0.0 <= utilisation <= 1.0
    parts = observed(trace, stop=cut) + observed(trace, start=cut, stop=stop)
    assert parts.client_use.tolist() == whole.client_use.tolist()
    moved = {**trace, "time": trace["time"] + shift}
    again = observed(moved, start=shift, stop=stop + shift)
    assert again.client_use.tolist() == whole.client_use.tolist()
    assert again.cnpu_wait_ms == whole.cnpu_wait_ms


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.sampled_from([DQC, LGT]), st.booleans()), max_size=30)
)
def test_idle_and_active_fill_the_time(steps: list[tuple[int, int, bool]]) -> None:
    rows: list[Row] = []
    active: dict[int, bool] = {DQC: False, LGT: False}
    tick, busy = 0, 0
    for pause, pid, ends_waiting in steps:
        busy += pause * any(active.values())
        tick += pause
        rows.append((tick, ARRIVE if not active[pid] else WAIT if ends_waiting else FINISH, pid))
        active[pid] = not active[pid]
    stop = tick + 10
    busy += 10 * any(active.values())
    idle = idle_intervals(columns(*rows), 0, stop)
    assert (idle[:, 1] - idle[:, 0]).sum() == stop - busy
