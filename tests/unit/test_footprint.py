"""The memory of a process stays within what its limits allow, whatever it does."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("benchmarks", reason="needs the source tree")

from benchmarks.decisions import KINDS, Machine
from benchmarks.footprint import bound_of, greedy, typical
from qnodeos.limits import Limits
from qnodeos.qnpu.scheduler import POLICIES

LIMITS = Limits(
    array_entries=8_000,
    array_length=2_000,
    compiled_bytes=8 * 1_024,
    compiled_subroutines=4,
    pending_bytes=60_000,
)


def test_a_greedy_process_takes_what_its_limits_allow_and_no_more():
    bound, worst = bound_of(LIMITS)
    taken = greedy(LIMITS, worst)
    assert 0.8 * bound.total < taken <= bound.total
    more = replace(LIMITS, array_entries=16_000)
    assert greedy(more, worst) > bound.total, "the bound is that of the limits"


def test_a_process_takes_no_more_among_many():
    assert typical(100) <= typical(10)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_processes_of_a_bench_take_turns(policy, kind):
    machine = Machine(policy, kind, 7, queued=3)
    assert machine.answered == 7
    if kind.queued:
        machine.queue(machine.work, 3)
    machine.run(21)
    assert machine.answered == 28
    assert [process.next_serial >= 4 for process in machine.kernel.processes.values()] == [True] * 7
