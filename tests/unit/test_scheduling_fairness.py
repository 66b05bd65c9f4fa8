"""Nobody is passed over for ever, and nobody pays for what another was refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from qnodeos.limits import Limits
from qnodeos.qnpu.process import Process, ProcessState, UserProcess
from qnodeos.qnpu.qubit_queue import QubitQueue
from qnodeos.qnpu.scheduler import (
    POLICIES,
    BinAware,
    Combined,
    EarliestDeadline,
    PreparingFcfs,
    Scheduler,
    SchedulingPolicy,
)
from qnodeos.trace.events import Event
from tests.unit.kernel_device import CAPABILITIES
from tests.unit.kernel_harness import Node, make_node, solo
from tests.unit.kernel_programs import init_app, submit

GROUP = "qalloc Q0\ninit Q0\nmeas Q0 M0\nqfree Q0\n"
LONG = "qalloc Q0\n" + "init Q0\n" * 50 + "qfree Q0\n"
TAKE = "qalloc Q0\ninit Q0\n"
ONE_QUBIT = replace(CAPABILITIES, communication_qubits=(0,))


def process_of(node: Node, client: int) -> UserProcess:
    [found] = [p for p in node.kernel.processes.values() if p.owner[0] == client]
    return found


# --- the only qubit -------------------------------------------------------------------


def beside_a_program_with_work_queued_ahead(node: Node) -> tuple[int, int, list[int]]:
    """Programs 2 and 3 wait for the qubit of 1, and 2 has always more to do.

    Returns:
        The number of what 3 asked for, how often 2 was served before, and its errors.
    """
    lab = solo(node)
    for client in (1, 2, 3):
        node.post(init_app(0, 1), client)
    node.post(submit(0, TAKE), client=1)
    lab.run(20)
    queued = [node.post(submit(0, GROUP), client=2) for _ in range(2)]
    lab.run(5)
    waiting = node.post(submit(0, GROUP), client=3)
    lab.run(20)
    node.post(submit(0, "qfree Q0\n"), client=1)
    served, errors = 0, []
    for _ in range(200):
        lab.run(1)
        while queued[0] in node.replies:
            served += 1
            if node.replies[queued[0]].error is not None:
                errors.append(queued[0])
            queued = [*queued[1:], node.post(submit(0, GROUP), client=2)]
        if waiting in node.replies:
            break
    return waiting, served, errors


@pytest.mark.parametrize("name", POLICIES)
def test_who_waits_for_the_qubit_gets_it_beside_a_program_that_always_has_work(name):
    node = make_node(capabilities=ONE_QUBIT, policy=POLICIES[name]())
    waiting, served, _ = beside_a_program_with_work_queued_ahead(node)
    assert waiting in node.replies
    assert served <= 2


def test_who_frees_the_qubit_again_and_again_is_not_ended_for_keeping_it():
    node = make_node(capabilities=ONE_QUBIT, limits=Limits(qubit_ticks=50))
    _, _, errors = beside_a_program_with_work_queued_ahead(node)
    assert errors == []


def test_a_free_qubit_is_not_kept_for_a_low_priority_when_a_higher_one_waits():
    queue = QubitQueue()
    queue.join(1, 0)
    queue.join(2, 0)
    assert queue.wake() == 1
    assert not queue.may_wake(1), "process 2 is no more important than process 1"
    queue.join(3, 5)
    assert queue.may_wake(1), "process 1 may not run for long"
    assert queue.wake() == 3
    assert not queue.may_wake(1)


def test_those_who_stop_waiting_leave_nothing_behind():
    queue = QubitQueue()
    queue.join(1, 1)
    for pid in range(2, 2_000):
        queue.join(pid, 0)
        queue.leave(pid)
    assert len(queue._heap) < 200
    assert queue.wake() == 1
    assert not queue


@pytest.mark.parametrize("policy", [EarliestDeadline, Combined])
def test_a_qubit_that_is_kept_for_ever_does_not_starve_the_others(
    policy: Callable[[], SchedulingPolicy],
):
    scheduler = Scheduler(policy())
    bare, keeper = Process(1, 0), Process(2, 0)
    bare.expected_ticks = keeper.expected_ticks = 10
    keeper.qubit_tick = 0
    scheduler.arrive(bare, 0)
    for tick in range(0, 30_000, 100):
        scheduler.arrive(keeper, tick)
        if scheduler.choose(tick) is bare:
            break
    assert tick == 20_000, "the keeper's turn comes after its own arrival"


# --- preparing ahead ------------------------------------------------------------------


def test_a_submission_that_is_refused_takes_no_time_to_prepare():
    limits = Limits(pending_subroutines=1)
    node = make_node(policy=PreparingFcfs(), dispatch_ticks=20, limits=limits)
    lab = solo(node)
    for client in (1, 2):
        node.post(init_app(0, 1), client)
    lab.run(5)
    for _ in range(100):
        node.post(submit(0, GROUP), client=1)
    lab.run(1)
    mine = node.post(submit(0, GROUP), client=2)
    lab.run(100)
    assert mine in node.replies


def test_what_a_program_with_a_qubit_does_next_is_prepared_at_once():
    node = make_node(policy=Combined(), dispatch_ticks=20)
    lab = solo(node)
    for client in range(1, 12):
        node.post(init_app(0, 1), client)
    node.post(submit(0, TAKE), client=11)
    lab.run(40)
    for client in range(1, 11):
        node.post(submit(0, GROUP), client)
    lab.run(1)
    decaying = node.post(submit(0, "set Q0 0\nmeas Q0 M0\nqfree Q0\n"), client=11)
    lab.run(60)
    assert decaying in node.replies


# --- a subroutine that is cancelled before it began -----------------------------------


def test_the_duration_of_a_cancelled_subroutine_is_not_taken_for_that_of_the_next():
    node = make_node(policy=BinAware())
    lab = solo(node)
    for client in (1, 2):
        node.post(init_app(0, 1), client)
    for program in (GROUP, LONG):
        node.post(submit(0, program), client=1)
    lab.run(200)
    node.post(submit(0, LONG), client=2)  # has the QNPU meanwhile
    lab.run(3)
    first, _ = (node.post(submit(0, program), client=1) for program in (GROUP, LONG))
    lab.run(3)
    mine = process_of(node, 1)
    assert mine.state is ProcessState.READY
    assert mine.expected_ticks < 50
    node.cancel(first)
    lab.run(2)
    assert mine.state is ProcessState.READY
    assert mine.expected_ticks >= 50


def test_a_cancelled_subroutine_does_not_lend_its_preparation_to_the_next():
    node = make_node(policy=PreparingFcfs(), dispatch_ticks=20)
    lab = solo(node)
    for client in (1, 2):
        node.post(init_app(0, 1), client)
    lab.run(2)
    first = node.post(submit(0, GROUP), client=1)
    for _ in range(10):
        node.post(submit(0, GROUP), client=2)
    second = node.post(submit(0, GROUP), client=1)
    lab.run(1)
    mine = process_of(node, 1)
    prepared = mine.pending[1].prepared_tick
    assert prepared is not None
    node.cancel(first)
    lab.run(1_000)
    assert node.replies[second].error is None
    starts = node.trace.events(Event.QDEVICE_PRODUCE_INI_CMD)
    assert min(record.tick for record in starts if record.pid == mine.pid) >= prepared


@pytest.mark.parametrize("policy", [PreparingFcfs, Combined])
def test_who_goes_first_is_prepared_first(policy):
    """Otherwise the QNPU would idle for it while others are prepared, one after the other."""
    node = make_node(policy=policy(), dispatch_ticks=20)
    lab = solo(node)
    for client in range(1, 11):
        node.post(init_app(0, 1), client=client)
    node.register(0, 50, client=20)
    lab.run(2)
    low = [node.post(submit(0, GROUP), client=client) for client in range(1, 11)]
    high = node.post(submit(0, GROUP), client=20)
    lab.run(60)
    assert high in node.replies
    lab.run(140)
    assert low[0] in node.replies
    lab.check_clean()
