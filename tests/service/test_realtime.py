"""The preparation for real time: every refusal is reported, and none is an error."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from typing import Any

import pytest

from qnodeos.service import realtime
from qnodeos.service.realtime import (
    RealtimeReport,
    RealtimeSettings,
    Step,
    StepState,
    prepare_process,
    settle_memory,
)

NAMES = [
    "frozen garbage collector",
    "locked memory",
    "core of the policy thread",
    "priority of the policy thread",
    "timer slack",
    "shallow processor sleep",
]


@pytest.fixture
def kernel(mocker, tmp_path):
    """A kernel that grants everything and notes what it was asked for."""
    latency = tmp_path / "cpu_dma_latency"
    latency.touch()
    mocker.patch.object(realtime, "_LATENCY_DEVICE", latency)
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmLck:\t   1234 kB\nCapEff:\t000001ffffffffff\n")
    mocker.patch.object(realtime, "_STATUS", status)
    mocker.patch("gc.freeze")
    fake = mocker.Mock()
    mocker.patch.object(realtime, "_libc_call", fake.libc_call)
    mocker.patch("os.sched_setaffinity", fake.set_affinity)
    mocker.patch("os.sched_setscheduler", fake.set_scheduler)
    limits = mocker.patch("resource.getrlimit", return_value=(0, 0))
    fake.latency, fake.status, fake.limits = latency, status, limits
    return fake


def step(report: RealtimeReport, name: str) -> Step:
    (found,) = (item for item in report.steps if item.name == name)
    return found


def test_everything_is_granted(kernel):
    with prepare_process(RealtimeSettings(tick_core=2, policy_core=3)) as prepared:
        report = prepared.report
        assert kernel.latency.read_bytes() == bytes(4)
    assert [item.name for item in report.steps] == NAMES
    assert {item.state for item in report.steps} == {StepState.GRANTED}
    assert report.lines() == ["real time: all that was asked for is granted"]
    assert step(report, "locked memory").detail == "1234 kB locked"
    kernel.libc_call.assert_any_call("mlockall", 3)
    kernel.libc_call.assert_any_call("prctl", 29, 1, 0, 0, 0)
    kernel.set_affinity.assert_called_once_with(0, {3})
    ((thread, policy, parameter), _) = kernel.set_scheduler.call_args
    assert (thread, policy) == (0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK)
    assert parameter.sched_priority == 50


def test_only_what_is_asked_for(kernel):
    settings = RealtimeSettings(policy_priority=0, lock_memory=False)
    with prepare_process(settings) as prepared:
        states = {item.name: item.state for item in prepared.report.steps}
    assert [name for name in NAMES if states[name] is StepState.NOT_ASKED] == NAMES[1:4]
    kernel.set_affinity.assert_not_called()
    kernel.set_scheduler.assert_not_called()


def test_everything_is_refused(kernel, mocker):
    kernel.status.write_text("CapEff:\t0000000000000000\n")
    refusal = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    for call in (kernel.libc_call, kernel.set_affinity, kernel.set_scheduler):
        call.side_effect = refusal
    mocker.patch("os.open", side_effect=PermissionError(errno.EACCES, "Permission denied"))
    with prepare_process(RealtimeSettings(tick_core=2, policy_core=3)) as prepared:
        report = prepared.report
    assert [item.name for item in report.refused] == NAMES[1:]
    assert all(item.detail and item.remedy for item in report.refused)
    first, *others = report.lines()
    assert first == "runs without: " + ", ".join(NAMES[1:])
    assert len(others) == 5
    assert "only 0 KiB may be locked (RLIMIT_MEMLOCK)" in others[0]
    assert "LimitMEMLOCK=infinity" in others[0]
    assert "LimitRTPRIO=50 or CAP_SYS_NICE (now 0)" in others[2]


def test_memory_is_not_locked_under_a_limit(kernel):
    """Locking what comes later would make allocations beyond the limit fail."""
    kernel.status.write_text("CapEff:\t0000000000000000\n")
    kernel.limits.return_value = (8 << 20, 8 << 20)
    with prepare_process(RealtimeSettings()) as prepared:
        assert step(prepared.report, "locked memory").state is StepState.REFUSED
    assert all(call.args[0] != "mlockall" for call in kernel.libc_call.call_args_list)


def test_memory_that_is_settled_is_not_locked_again(kernel):
    locked = settle_memory(RealtimeSettings())
    assert locked.state is StepState.GRANTED
    kernel.libc_call.assert_called_once_with("mlockall", 3)
    kernel.libc_call.reset_mock()
    with prepare_process(RealtimeSettings(), locked) as prepared:
        assert step(prepared.report, "locked memory") is locked
    kernel.libc_call.assert_called_once_with("prctl", 29, 1, 0, 0, 0)


def test_memory_is_locked_without_a_limit(kernel):
    kernel.status.write_text("CapEff:\t0000000000000000\n")
    kernel.limits.return_value = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    with prepare_process(RealtimeSettings()) as prepared:
        assert step(prepared.report, "locked memory").state is StepState.GRANTED


def test_a_control_group_without_budget_is_told_apart(kernel):
    """The capability is there, so what refuses is the control group."""
    kernel.set_scheduler.side_effect = PermissionError(errno.EPERM, "Operation not permitted")
    with prepare_process(RealtimeSettings()) as prepared:
        refused = step(prepared.report, "priority of the policy thread")
    assert "RT_GROUP_SCHED" in refused.remedy


def test_a_core_is_not_shared_with_a_tick_thread_to_come(kernel):
    """It would inherit the core and never give it back."""
    with prepare_process(RealtimeSettings(policy_core=3)) as prepared:
        refused = step(prepared.report, "core of the policy thread")
    assert refused.state is StepState.REFUSED
    assert "tick_core" in refused.remedy
    kernel.set_affinity.assert_not_called()
    with prepare_process(RealtimeSettings(policy_core=3, mode="event-paced")) as prepared:
        assert step(prepared.report, "core of the policy thread").state is StepState.GRANTED


def test_a_priority_out_of_range(kernel):
    kernel.set_scheduler.side_effect = OSError(errno.EINVAL, "Invalid argument")
    with prepare_process(RealtimeSettings(policy_priority=100)) as prepared:
        assert "from 1 to 99" in step(prepared.report, "priority of the policy thread").remedy


def test_a_kernel_without_idle_states(kernel):
    kernel.latency.unlink()
    with prepare_process(RealtimeSettings()) as prepared:
        assert step(prepared.report, "shallow processor sleep").state is StepState.NOT_ASKED
        assert not prepared.report.refused


def test_a_latency_device_that_cannot_be_written_is_closed(kernel, mocker):
    mocker.patch("os.write", side_effect=OSError(errno.EINVAL, "Invalid argument"))
    before = len(os.listdir("/proc/self/fd"))
    with prepare_process(RealtimeSettings()) as prepared:
        assert step(prepared.report, "shallow processor sleep").state is StepState.REFUSED
        assert len(os.listdir("/proc/self/fd")) == before


def test_the_latency_device_stays_open_until_the_end(kernel):
    before = len(os.listdir("/proc/self/fd"))
    prepared = prepare_process(RealtimeSettings())
    assert len(os.listdir("/proc/self/fd")) == before + 1
    prepared.close()
    prepared.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_report_is_plain_values(kernel):
    with prepare_process(RealtimeSettings()) as prepared:
        plain = prepared.report.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["steps"][0]["state"] == "granted"
    assert RealtimeReport().summary() == "real time: all that was asked for is granted"


# --- this kernel ------------------------------------------------------------------------

CHILD = """
import json, os, resource, sys
from qnodeos.service.realtime import RealtimeSettings, prepare_process

if sys.argv[1] == "poor":
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
core = min(os.sched_getaffinity(0))
with prepare_process(RealtimeSettings(policy_core=core, mode="event-paced")) as prepared:
    print(json.dumps({
        "states": {step.name: step.state for step in prepared.report.steps},
        "affinity": sorted(os.sched_getaffinity(0)) == [core],
        "fifo": os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO,
        "lines": prepared.report.lines(),
    }))
"""


def prepare_in_child(means: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, means],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["affinity"] == (answer["states"][NAMES[2]] == "granted")
    assert answer["fifo"] == (answer["states"][NAMES[3]] == "granted")
    return answer


def test_this_kernel_grants_what_it_reports():
    prepare_in_child("rich")


def test_without_privileges_it_runs_and_says_so():
    answer = prepare_in_child("poor")
    assert answer["states"]["locked memory"] == "refused"
    assert answer["states"]["priority of the policy thread"] == "refused"
    assert answer["states"]["timer slack"] == "granted"
    assert answer["lines"][0].startswith("runs without: locked memory, priority")
