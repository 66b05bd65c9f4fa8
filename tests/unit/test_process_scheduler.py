"""The states of a process, and who runs next."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.qnpu.process import (
    NETWORK_PID,
    TRANSITIONS,
    Process,
    ProcessEvent,
    ProcessState,
)
from qnodeos.qnpu.scheduler import PriorityFcfs, Scheduler
from tests.unit.kernel_harness import make_node, solo
from tests.unit.kernel_programs import init_app, submit

ALLOWED = {
    ("idle", "work arrived"): "ready",
    ("ready", "dispatched"): "running",
    ("running", "blocked"): "waiting",
    ("running", "paused"): "ready",
    ("running", "work done"): "idle",
    ("waiting", "woken"): "ready",
    **{(state, "cancelled"): "idle" for state in ("ready", "running", "waiting")},
    **{(state, "stopped"): "ended" for state in ("idle", "ready", "running", "waiting")},
}
"""The paper's diagram, that a process may give way, and be stopped or lose its work any time."""


@pytest.mark.parametrize(("state", "event"), list(product(ProcessState, ProcessEvent)))
def test_states_change_as_the_paper_says_and_not_otherwise(state, event):
    process = Process(3, 0)
    process.state = state
    following = ALLOWED.get((state.value, event.value))
    if following is None:
        with pytest.raises(RuntimeError, match=f"process 3 is {state.value} and cannot be"):
            process.handle(event)
        assert process.state is state
    else:
        process.handle(event)
        assert process.state.value == following
    assert ((state, event) in TRANSITIONS) is (following is not None)


def test_the_network_process_is_process_0():
    assert Process(NETWORK_PID, 0).is_network
    assert not Process(1, 0).is_network


@given(st.lists(st.one_of(st.integers(0, 3), st.none()), max_size=40))
def test_highest_priority_first_then_first_come(arrivals):
    """A number is a process of that priority that becomes ready, None a dispatch."""
    scheduler = Scheduler(PriorityFcfs())
    waiting: list[Process] = []
    for pid, priority in enumerate(arrivals):
        if priority is not None:
            process = Process(pid, priority)
            scheduler.arrive(process, 0)
            waiting.append(process)
            continue
        chosen = scheduler.choose(pid)
        if not waiting:
            assert chosen is None
            continue
        highest = max(process.priority for process in waiting)
        assert chosen is next(p for p in waiting if p.priority == highest)
        waiting.remove(chosen)
    assert list(scheduler.ready) == waiting


def test_a_process_that_becomes_ready_again_goes_to_the_back():
    scheduler = Scheduler(PriorityFcfs())
    first, second = Process(1, 0), Process(2, 0)
    for process in (first, second):
        scheduler.arrive(process, 0)
    assert scheduler.choose(0) is first
    scheduler.arrive(first, 0)
    assert scheduler.choose(1) is second
    assert scheduler.choose(2) is first


def test_a_withdrawn_process_is_not_chosen():
    scheduler = Scheduler(PriorityFcfs())
    first, second = Process(1, 5), Process(2, 0)
    for process in (first, second):
        scheduler.arrive(process, 0)
    scheduler.withdraw(first)
    assert scheduler.choose(0) is second
    assert scheduler.choose(0) is None


class LastCome:
    """Another policy: who came last runs first, and nobody before tick 5."""

    name = "last"
    spares_bins = True
    prepares_ahead = False

    def order(self, process):
        return -process.arrival

    def may_start(self, process, start_tick, network_tick):
        return start_tick >= self.latest_start(process)

    def latest_start(self, process):
        return 5


def test_the_policy_is_exchangeable():
    node = make_node(policy=LastCome())
    lab = solo(node)
    for app in range(3):
        node.post(init_app(app))
    requests = [node.post(submit(app, "ret_reg R0")) for app in range(3)]
    lab.run(4)
    assert not set(requests) & node.replies.keys()
    lab.run(10)
    assert [request for request in node.replies if request in requests] == requests[::-1]
    lab.check_clean()
