"""The scheduling policies: their order, what they hold back, and for how long."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.qdevice.instructions import Opcode
from qnodeos.qnpu.process import NETWORK_PID, Process
from qnodeos.qnpu.qubit_queue import QubitQueue
from qnodeos.qnpu.scheduler import (
    LOOK_AHEAD,
    POLICIES,
    BinAware,
    Combined,
    EarliestDeadline,
    PriorityFcfs,
    Scheduler,
    SchedulingPolicy,
)
from qnodeos.trace.events import Event
from tests.unit.kernel_device import CAPABILITIES, FAILED, Verdict
from tests.unit.kernel_harness import BIN_TICKS, Node, make_node, pair, solo
from tests.unit.kernel_programs import create_epr, init_app, open_socket, recv_epr, submit

GROUP = "qalloc Q0\ninit Q0\nmeas Q0 M0\nqfree Q0\n"


def process(pid: int, *, priority: int = 0, expected: int = 0, qubit: int | None = None) -> Process:
    made = Process(pid, priority)
    made.expected_ticks, made.qubit_tick = expected, qubit
    return made


# --- the order ------------------------------------------------------------------------

READY = st.tuples(
    st.integers(0, 2),  # priority
    st.integers(0, 50),  # expected ticks
    st.none() | st.integers(0, 100),  # qubit tick
)


def naive_choice(
    policy: SchedulingPolicy, ready: list[Process], tick: int, network_tick: int | None
) -> Process | None:
    """The same decision by looking at everybody."""
    ranked = sorted(ready, key=lambda p: (-p.priority, policy.order(p), p.arrival))
    allowed = (p for p in ranked[:LOOK_AHEAD] if policy.may_start(p, tick, network_tick))
    return next(allowed, None)


@pytest.mark.parametrize("name", POLICIES)
@given(
    events=st.lists(
        READY | st.none() | st.sampled_from(["withdraw", "move", "pause"]), max_size=60
    ),
    horizon=st.none() | st.integers(0, 80),
)
def test_the_heap_decides_as_somebody_who_looks_at_everybody(name, events, horizon):
    policy = POLICIES[name]()
    scheduler = Scheduler(policy)
    ready: list[Process] = []
    paused: Process | None = None
    for tick, event in enumerate(events):
        network_tick = None if horizon is None else tick + horizon
        if isinstance(event, tuple):
            priority, expected, qubit = event
            new = process(tick + 1, priority=priority, expected=expected, qubit=qubit)
            scheduler.arrive(new, tick)
            ready.append(new)
        elif event == "withdraw" and ready:
            scheduler.withdraw(ready.pop(len(ready) // 2))
        elif event == "move" and ready:
            ready[-1].qubit_tick = tick
            scheduler.move(ready[-1])
        elif event == "pause" and paused is not None:
            scheduler.pause(paused, tick)
            ready.append(paused)
            paused = None
        elif event is None:
            expected_choice = naive_choice(policy, ready, tick, network_tick)
            chosen = scheduler.choose(tick, network_tick)
            assert chosen is expected_choice
            if chosen is not None:
                ready.remove(chosen)
                others = [
                    naive_choice(PriorityOnly(policy), [p, chosen], tick, None) for p in ready
                ]
                assert scheduler.prefers_another(chosen) == any(p is not chosen for p in others)
                paused = chosen
        assert list(scheduler.ready) == sorted(ready, key=lambda p: p.arrival)
        assert len(scheduler) == len(ready)


class PriorityOnly:
    """A policy's order, and nothing held back."""

    spares_bins = prepares_ahead = False
    name = "order"

    def __init__(self, policy: SchedulingPolicy) -> None:
        self.order = policy.order

    def may_start(self, process: Process, start_tick: int, network_tick: int | None) -> bool:
        return True

    def latest_start(self, process: Process) -> int:
        return 0


def test_the_longer_a_qubit_has_been_kept_the_sooner():
    scheduler = Scheduler(EarliestDeadline())
    bare = process(1, expected=10)
    young, old = process(2, expected=10, qubit=90), process(3, expected=10, qubit=40)
    for each in (bare, young, old):
        scheduler.arrive(each, 100)
    assert [scheduler.choose(100) for _ in range(3)] == [old, young, bare]


def test_a_block_that_takes_no_time_need_not_be_patient():
    scheduler = Scheduler(EarliestDeadline())
    long, short = process(1, expected=10), process(2)
    for each in (long, short):
        scheduler.arrive(each, 0)
    assert scheduler.choose(0) is short


def test_a_priority_goes_before_any_deadline():
    scheduler = Scheduler(Combined())
    decaying, important = process(1, qubit=0), process(2, priority=1)
    for each in (decaying, important):
        scheduler.arrive(each, 5_000)
    assert scheduler.choose(5_000) is important


@given(st.lists(st.integers(1, 400), min_size=1, max_size=80))
def test_nobody_is_passed_over_for_ever_by_decaying_qubits(gaps):
    """From patience - qubit ticks after its arrival on, only older qubits go first."""
    policy = EarliestDeadline(qubit_ticks=100, patience_ticks=1_000)
    scheduler = Scheduler(policy)
    bare = process(1, expected=10)
    scheduler.arrive(bare, 0)
    tick = 0
    for pid, gap in enumerate(gaps, start=2):
        tick += gap
        scheduler.arrive(process(pid, expected=10, qubit=tick), tick)
        chosen = scheduler.choose(tick)
        assert (chosen is bare) == (tick > 900)
        if chosen is bare:
            break


# --- what is held back ----------------------------------------------------------------


@given(
    expected=st.integers(0, 200),
    start=st.integers(0, 100),
    network=st.none() | st.integers(0, 300),
)
def test_a_block_starts_if_it_ends_before_the_network_process_wants_the_qnpu(
    expected, start, network
):
    policy = BinAware(patience_ticks=1_000)
    fits = network is None or start + expected <= network
    assert policy.may_start(process(1, expected=expected), start, network) == fits
    assert policy.may_start(process(1, expected=expected, qubit=0), start, network)


def test_who_does_not_fit_is_passed_over_by_who_does():
    scheduler = Scheduler(BinAware())
    long, short = process(1, expected=50), process(2, expected=5)
    for each in (long, short):
        scheduler.arrive(each, 0)
    assert scheduler.choose(0, 20) is short
    assert scheduler.choose(0, 20) is None
    assert scheduler.choose(0, 50) is long


def test_what_is_held_back_runs_when_its_patience_is_over():
    scheduler = Scheduler(BinAware(patience_ticks=100))
    long = process(1, expected=50)
    scheduler.arrive(long, 7)
    assert scheduler.choose(7, 20) is None
    assert scheduler.next_tick(7) == 107
    assert scheduler.choose(106, 120) is None
    assert scheduler.choose(107, 120) is long


def test_the_network_process_is_never_held_back():
    scheduler = Scheduler(BinAware())
    network = Process(NETWORK_PID, 1_000)
    scheduler.arrive(process(1), 0)
    scheduler.arrive(network, 0)
    assert scheduler.choose(0, 0) is network


@pytest.mark.parametrize("name", POLICIES)
def test_a_decision_looks_at_a_bounded_number_of_processes(name, mocker):
    policy = POLICIES[name]()
    scheduler = Scheduler(policy)
    for pid in range(1, 1_001):
        scheduler.arrive(process(pid, expected=50), 0)
    asked = mocker.spy(policy, "may_start")
    ordered = mocker.spy(policy, "order")
    assert (scheduler.choose(0, 20) is None) == policy.spares_bins
    assert asked.call_count <= LOOK_AHEAD
    assert ordered.call_count == 0


def test_processes_that_are_withdrawn_leave_nothing_behind():
    scheduler = Scheduler(PriorityFcfs())
    scheduler.arrive(process(1, priority=1), 0)
    for pid in range(2, 2_000):
        mayfly = process(pid)
        scheduler.arrive(mayfly, 0)
        scheduler.withdraw(mayfly)
    assert len(scheduler._heap) < 200


# --- preparing ------------------------------------------------------------------------


def test_processes_are_prepared_one_after_the_other_and_decaying_ones_at_once():
    scheduler = Scheduler(Combined(), dispatch_ticks=20)
    first, second, urgent = process(1), process(2), process(3, qubit=0)
    for each in (first, second, urgent):
        scheduler.arrive(each, 100)
    assert [each.prepared_tick for each in (first, second, urgent)] == [120, 140, 120]
    assert scheduler.start_tick(second, 130) == 140
    assert scheduler.start_tick(second, 150) == 150


def test_without_preparing_ahead_every_choice_costs_the_same():
    scheduler = Scheduler(PriorityFcfs(), dispatch_ticks=20)
    scheduler.arrive(process(1), 0)
    assert scheduler.start_tick(process(1), 130) == 150


# --- who waits for a qubit ------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.integers(0, 2)), max_size=30, unique_by=lambda e: e[0]
    )
)
def test_the_highest_priority_is_woken_first_then_who_came_first(waiters):
    queue = QubitQueue()
    for pid, priority in waiters:
        queue.join(pid, priority)
        queue.join(pid, priority)
    expected = [pid for pid, priority in sorted(waiters, key=lambda waiter: -waiter[1])]
    woken: list[int] = []
    while queue.may_wake(free_qubits=len(woken) + 1):
        woken.append(queue.wake())
    assert woken == expected


def test_one_is_woken_per_free_qubit():
    queue = QubitQueue()
    for pid in (1, 2, 3):
        queue.join(pid, 0)
    assert not queue.may_wake(0)
    assert queue.may_wake(1)
    assert queue.wake() == 1
    assert not queue.may_wake(1), "it is for process 1, which has not run yet"
    assert queue.may_wake(2)
    queue.leave(1)
    queue.leave(2)
    assert queue.wake() == 3
    assert not queue


ONE_QUBIT = replace(CAPABILITIES, communication_qubits=(0,))


def test_many_that_wait_for_the_one_qubit_cost_no_more_than_few():
    """Each is chosen twice: to find that there is none, and to use it."""
    counts = {}
    for number in (4, 40):
        node = make_node(capabilities=ONE_QUBIT)
        lab = solo(node)
        node.post(init_app(0, 1), client=0)
        node.post(submit(0, "qalloc Q0\n" + "init Q0\n" * 50 + "qfree Q0\n"), client=0)
        for client in range(1, number):
            node.post(init_app(0, 1), client)
            node.post(submit(0, GROUP), client)
        lab.run(10_000)
        assert len(node.replies) == 2 * number
        counts[number] = len(node.trace.events(Event.SCHEDULER_SCHEDULE_USER_PROCESS))
        lab.check_clean()
    assert counts[4] <= 2 * 4
    assert counts[40] <= 2 * 40


# --- in the kernel --------------------------------------------------------------------


def network_delays(node: Node) -> list[int]:
    """Ticks from the time the network process wanted the QNPU until it had it."""
    arrivals = [record.tick for record in node.trace.events(Event.SCHEDULER_ARRIVE_NET_PROCESS)]
    starts = [record.tick for record in node.trace.events(Event.SCHEDULER_SCHEDULE_NET_PROCESS)]
    return [start - arrival for arrival, start in zip(arrivals, starts, strict=False)]


def beside_entanglement(policy: type, program: str, times: int) -> tuple[Node, list[int]]:
    """One node runs a program while attempts with the other fail; its replies' numbers."""
    lab, first, second, _ = pair(lambda: FAILED, policy=policy, batch_ticks=13)
    for node, remote in ((first, 2), (second, 1)):
        node.post(init_app(0, 1))
        node.post(open_socket(0, 0, remote, 0))
    first.post(submit(0, create_epr()))
    second.post(submit(0, recv_epr(remote=1)))
    lab.run(BIN_TICKS)
    first.post(init_app(1, 1), client=2)
    posted = [first.post(submit(1, program), client=2) for _ in range(times)]
    lab.run(100 * BIN_TICKS)
    return first, posted


@pytest.mark.parametrize("policy", [BinAware, Combined])
def test_programs_pause_between_their_groups_so_that_no_bin_begins_late(policy):
    node, posted = beside_entanglement(policy, GROUP * 20, times=10)
    assert all(node.replies[request].error is None for request in posted)
    assert len(node.trace.events(Event.PROCMGR_SUBROUTINE_DONE)) == len(posted)
    delays = network_delays(node)
    assert len(delays) > 80
    assert sum(delay > 0 for delay in delays) <= 1, "but in the first bin nothing was known yet"
    paper, _ = beside_entanglement(PriorityFcfs, GROUP * 20, times=10)
    assert sum(delay > 0 for delay in network_delays(paper)) > 3


def test_a_group_is_never_cut():
    """Between the initialisation of a qubit and its measurement nobody else runs."""
    node, _ = beside_entanglement(BinAware, GROUP * 20, times=10)
    opcodes = [instruction.opcode for instruction in node.device.instructions]
    follows = [after for before, after in pairwise(opcodes) if before is Opcode.INI]
    assert len(follows) == 200
    assert set(follows) == {Opcode.MSR}


def test_a_block_that_fits_nowhere_runs_when_its_patience_is_over():
    patience = 3 * BIN_TICKS

    def policy() -> BinAware:
        return BinAware(patience_ticks=patience)

    long = "qalloc Q0\n" + "init Q0\n" * 80 + "qfree Q0\n"
    node, posted = beside_entanglement(policy, long, times=5)  # type: ignore[arg-type]
    assert all(node.replies[request].error is None for request in posted)
    mine = [record for record in node.trace.records if record.pid == 2]
    arrivals = [r.tick for r in mine if r.event is Event.SCHEDULER_ARRIVE_USER_PROCESS]
    starts = [r.tick for r in mine if r.event is Event.SCHEDULER_SCHEDULE_USER_PROCESS]
    waits = [start - arrival for arrival, start in zip(arrivals, starts, strict=True)]
    assert len(waits) == 5
    assert waits[0] <= BIN_TICKS, "nothing was known of it yet"
    # When it is over, the network process may be at work, for the rest of its bin.
    assert all(patience <= wait <= patience + BIN_TICKS for wait in waits[1:])


@pytest.mark.parametrize(("policy", "first_pid"), [(PriorityFcfs, 2), (EarliestDeadline, 1)])
def test_a_process_that_is_handed_a_qubit_runs_first_where_that_counts(policy, first_pid):
    lab, first, second, _ = pair(Verdict, policy=policy, batch_ticks=20)
    for node, remote in ((first, 2), (second, 1)):
        node.post(init_app(0, 1))
        node.post(open_socket(0, 0, remote, 0))
    first.post(submit(0, create_epr() + "set Q0 0\nmeas Q0 M0\nqfree Q0\n"))
    second.post(submit(0, recv_epr(remote=1)))
    lab.run(BIN_TICKS)
    first.post(init_app(1, 1), client=2)
    first.post(submit(1, GROUP), client=2)
    lab.run(10)
    first.post(submit(1, GROUP), client=2)
    lab.run(BIN_TICKS)
    heralded = first.trace.events(Event.EGP_ENT_OK)[0].tick
    chosen = [
        record.pid
        for record in first.trace.events(Event.SCHEDULER_SCHEDULE_USER_PROCESS)
        if record.tick >= heralded
    ]
    assert chosen[0] == first_pid
    lab.check_clean()
