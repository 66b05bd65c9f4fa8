"""Prepare this process for real time: memory, priority, core, timer slack, power saving.

Every step is granted or refused by the kernel; a refusal is reported with the reason and the
remedy, and never stops the service: without privileges it runs, and says what it lacks.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

INSTALL_HINT: Final = "run it from the unit that `qnodeos install-service` writes"

_MCL_CURRENT: Final = 1  # sys/mman.h
_MCL_FUTURE: Final = 2
_PR_SET_TIMERSLACK: Final = 29  # linux/prctl.h
_CAP_IPC_LOCK: Final = 14  # linux/capability.h
_CAP_SYS_NICE: Final = 23
_TIMER_SLACK_NS: Final = 1
_LATENCY_DEVICE: Final = Path("/dev/cpu_dma_latency")
_STATUS: Final = Path("/proc/self/status")


@dataclass(frozen=True)
class RealtimeSettings:
    """What the process asks of the kernel. Nothing is guessed from the machine.

    Attributes:
        tick_priority: SCHED_FIFO priority of the tick thread, which the engine sets; 0 for
            none.
        policy_priority: SCHED_FIFO priority of the policy thread; 0 for none. Below the tick
            thread's, or policy work would delay frames.
        tick_core: core of the tick thread; None to let the kernel choose.
        policy_core: core of the policy thread; None to let the kernel choose. Needs a tick_core
            unless the mode is event-paced.
        mode: how the engine paces frames: "auto", "spinning" or "event-paced".
        lock_memory: keep all pages in memory.
    """

    tick_priority: int = 80
    policy_priority: int = 50
    tick_core: int | None = None
    policy_core: int | None = None
    mode: str = "auto"
    lock_memory: bool = True


class StepState(StrEnum):
    """What became of a step."""

    GRANTED = "granted"
    REFUSED = "refused"
    NOT_ASKED = "not asked for"


@dataclass(frozen=True)
class Step:
    """One thing asked of the kernel.

    Attributes:
        name: what it is, for people.
        state: what became of it.
        detail: what was granted, or why not.
        remedy: what to do about a refusal; empty otherwise.
    """

    name: str
    state: StepState
    detail: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class RealtimeReport:
    """What the process got, in the order of asking."""

    steps: tuple[Step, ...] = ()

    @property
    def refused(self) -> tuple[Step, ...]:
        """The steps that were refused."""
        return tuple(step for step in self.steps if step.state is StepState.REFUSED)

    def summary(self) -> str:
        """One line: what it runs without."""
        if not self.refused:
            return "real time: all that was asked for is granted"
        return "runs without: " + ", ".join(step.name for step in self.refused)

    def lines(self) -> list[str]:
        """The summary, and a line with reason and remedy for every refusal."""
        return [
            self.summary(),
            *(f"  {step.name}: {step.detail}; to mend: {step.remedy}" for step in self.refused),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for statistics and JSON."""
        return {
            "summary": self.summary(),
            "steps": [{**asdict(step), "state": step.state.value} for step in self.steps],
        }


class PreparedProcess:
    """A prepared process; holds what must stay open for the preparation to last.

    Attributes:
        report: what was granted and refused.
    """

    def __init__(self, report: RealtimeReport, latency_fd: int | None) -> None:
        self.report = report
        self._latency_fd = latency_fd

    def close(self) -> None:
        """Let the processors sleep deeply again; the other steps end with the process."""
        if self._latency_fd is not None:
            os.close(self._latency_fd)
            self._latency_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def settle_memory(settings: RealtimeSettings) -> Step:
    """Lock the memory of this process, and clear away its garbage.

    Takes some tenths of a second, so do it before a device is waited for, and after all that
    is to be imported has been.

    Args:
        settings: what to ask for.

    Returns:
        What became of locking, for `prepare_process`.
    """
    _freeze_garbage()
    return _lock_memory(settings)


def prepare_process(settings: RealtimeSettings, locked: Step | None = None) -> PreparedProcess:
    """Prepare this process; call it in the policy thread, last before its loop.

    Last, because what exists then is what is frozen for the garbage collector, and because
    threads started later would inherit the core (not the priority: it is reset for them).

    Args:
        settings: what to ask for.
        locked: what `settle_memory` returned; None if it was not called.

    Returns:
        What was granted; to be closed at the end.
    """
    latency, latency_fd = _shallow_sleep()
    return PreparedProcess(
        RealtimeReport(
            (
                _freeze_garbage(),
                locked or _lock_memory(settings),
                _affinity(settings),
                _priority(settings),
                _timer_slack(),
                latency,
            )
        ),
        latency_fd,
    )


def _step(name: str, act: Callable[[], str], remedy: Callable[[OSError], str]) -> Step:
    """Carry out one step.

    Args:
        name: of the step.
        act: does it and says what was granted.
        remedy: what to do about its error.
    """
    try:
        return Step(name, StepState.GRANTED, act())
    except OSError as error:
        return Step(name, StepState.REFUSED, error.strerror or str(error), remedy(error))


def _freeze_garbage() -> Step:
    # Measured: a full collection of 200,000 objects takes 14 ms, and none once frozen.
    gc.collect()
    gc.freeze()
    return Step(
        "frozen garbage collector", StepState.GRANTED, f"{gc.get_freeze_count()} objects set aside"
    )


def _lock_memory(settings: RealtimeSettings) -> Step:
    name = "locked memory"
    if not settings.lock_memory:
        return Step(name, StepState.NOT_ASKED)
    return _step(
        name,
        _mlockall,
        lambda _: f"LimitMEMLOCK=infinity or CAP_IPC_LOCK; {INSTALL_HINT}",
    )


def _mlockall() -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY and not has_capability(_CAP_IPC_LOCK):
        # It might succeed, and then every later allocation beyond the limit would fail.
        raise OSError(errno.EPERM, f"only {soft // 1024} KiB may be locked (RLIMIT_MEMLOCK)")
    _libc_call("mlockall", _MCL_CURRENT | _MCL_FUTURE)
    locked = _status_field("VmLck")
    return f"{locked} locked" if locked else "all pages locked"


def _affinity(settings: RealtimeSettings) -> Step:
    name = "core of the policy thread"
    core = settings.policy_core
    if core is None:
        return Step(name, StepState.NOT_ASKED)
    if settings.tick_core is None and settings.mode != "event-paced":
        # A tick thread that is started once a device comes would inherit this core, spin on
        # it with the higher priority, and never let the policy thread run again.
        return Step(
            name,
            StepState.REFUSED,
            f"core {core} cannot be given to it without one for the tick thread",
            "name realtime.tick_core, too",
        )

    def act() -> str:
        os.sched_setaffinity(0, {core})
        return f"core {core}"

    return _step(
        name,
        act,
        lambda _: (
            f"core {core} does not exist or the cpuset of this process excludes it; "
            "name another as realtime.policy_core"
        ),
    )


def _priority(settings: RealtimeSettings) -> Step:
    name = "priority of the policy thread"
    priority = settings.policy_priority
    if priority == 0:
        return Step(name, StepState.NOT_ASKED)

    def act() -> str:
        # Threads and processes started later begin as normal ones. One that inherited both
        # this priority and the core of a spinning thread would never run.
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(priority))
        return f"SCHED_FIFO {priority}"

    return _step(name, act, lambda error: fifo_remedy(priority, error))


def fifo_remedy(priority: int, error: OSError) -> str:
    """What to do where SCHED_FIFO at a priority was refused.

    Args:
        priority: that was asked for.
        error: the refusal.
    """
    if error.errno == errno.EINVAL:
        return "priorities are from 1 to 99"
    soft, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    if soft != resource.RLIM_INFINITY and soft < priority and not has_capability(_CAP_SYS_NICE):
        return f"LimitRTPRIO={priority} or CAP_SYS_NICE (now {soft}); {INSTALL_HINT}"
    return (
        "the kernel has RT_GROUP_SCHED and this control group has no real-time budget: "
        "set cpu.rt_runtime_us of the group, or boot a kernel without it "
        "(`qnodeos doctor` tells)"
    )


def _timer_slack() -> Step:
    def act() -> str:
        _libc_call("prctl", _PR_SET_TIMERSLACK, _TIMER_SLACK_NS, 0, 0, 0)
        return f"{_TIMER_SLACK_NS} ns"

    return _step("timer slack", act, lambda _: f"TimerSlackNSec=1; {INSTALL_HINT}")


def _shallow_sleep() -> tuple[Step, int | None]:
    """Forbid deep idle states, whose way out takes up to some hundred microseconds."""
    name = "shallow processor sleep"
    if not _LATENCY_DEVICE.exists():
        # ENOENT is what a kernel without CPU idle states says: there is nothing to forbid.
        return Step(name, StepState.NOT_ASKED, f"there is no {_LATENCY_DEVICE}"), None
    try:
        fd = os.open(_LATENCY_DEVICE, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        detail = f"{_LATENCY_DEVICE}: {error.strerror}"
        remedy = f"give the service write access to it (a udev rule; {INSTALL_HINT})"
        return Step(name, StepState.REFUSED, detail, remedy), None
    try:
        os.write(fd, bytes(4))  # a 32-bit zero: no microsecond; holds while it is open
    except OSError as error:
        os.close(fd)
        return Step(name, StepState.REFUSED, str(error.strerror), "report this kernel"), None
    return Step(name, StepState.GRANTED, "no exit latency allowed"), fd


def has_capability(number: int) -> bool:
    """Whether this process has a capability in effect.

    Args:
        number: as in linux/capability.h.
    """
    mask = _status_field("CapEff")
    return bool(mask) and bool(int(mask, 16) >> number & 1)


def _status_field(name: str) -> str:
    """A field of /proc/self/status; empty where it cannot be read."""
    try:
        for line in _STATUS.read_text("utf-8", "replace").splitlines():
            if line.startswith(f"{name}:"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return ""


def _libc_call(function: str, *arguments: int) -> None:
    """Call the C library; its errno as an OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, function)
    # Both functions called take an int first, and prctl (variadic) longs after it.
    call.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * (len(arguments) - 1)]
    call.restype = ctypes.c_int
    if call(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
