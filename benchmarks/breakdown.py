"""Where the time of a DQC circuit goes.

Every call across a seam between two parts of the system is timed, and the time between
two crossings belongs to the part the control is in. That is exact and counts every call,
like a deterministic profiler; a profiler of the standard library cannot be used, because
programs are greenlets and it takes a switch between two of them for a return. Each wrapper
keeps the part it came from in its own frame, so a switch restores the right one.

A crossing itself costs a few hundred nanoseconds, which go to the part that is left or
entered; the shares are meant to be read to a few per cent.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

from benchmarks.measure import gc_frozen
from benchmarks.system import dqc_programs, fast_system
from qnodeos.cnpu.virtual import VirtualProgram
from qnodeos.qnpu.kernel import Kernel
from sim.node import VirtualNode

SDK: Final = "program, SDK and its connection"
CNPU: Final = "CNPU"
KERNEL: Final = "kernel and driver"
DEVICE: Final = "wire, device and link"
REST: Final = "rest (clock, node loop)"

SEAMS: Final[dict[str, tuple[type, tuple[str, ...]]]] = {
    CNPU: (
        VirtualProgram,
        (
            "resume",
            "submit",
            "await_reply",
            "send",
            "receive",
            "open_client",
            "close_client",
            "_on_reply",
        ),
    ),
    KERNEL: (
        Kernel,
        ("host_message", "client_closed", "peer_message", "tick", "next_tick"),
    ),
    DEVICE: (VirtualNode, ("_exchange",)),
}
"""Methods by which control enters each part; into the programs it comes by their entry.
The traces are written inside CNPU and kernel and count as theirs."""


class Stopwatch:
    """Charges the time that passes to the part the control is in.

    Attributes:
        spent_ns: by part.
    """

    def __init__(self, part: str, clock: Callable[[], int]) -> None:
        self.spent_ns: dict[str, int] = defaultdict(int)
        self._part = part
        self._clock = clock
        self._since_ns = clock()

    def enter(self, part: str) -> str:
        """Charge what has passed, go to another part, and return the one that is left."""
        now_ns = self._clock()
        left = self._part
        self.spent_ns[left] += now_ns - self._since_ns
        self._part, self._since_ns = part, now_ns
        return left

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time charged to a part."""

        @functools.wraps(function)
        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            left = self.enter(part)
            try:
                return function(*arguments, **keywords)
            finally:
                self.enter(left)

        return wrapper


@contextmanager
def timed_seams(stopwatch: Stopwatch) -> Iterator[None]:
    """Time every call across a seam."""
    with ExitStack() as stack:
        for part, (owner, methods) in SEAMS.items():
            for method in methods:
                wrapper = stopwatch.timed(part, getattr(owner, method))
                stack.enter_context(patch.object(owner, method, wrapper))
        yield


def shares_of_a_run(circuits: int) -> dict[str, float]:
    """Run DQC circuits, and say which fraction of the time each part took.

    Wall-clock time: reading the time of the process takes longer than many a call.
    """
    system = fast_system(seed=0)
    stopwatch = Stopwatch(REST, time.perf_counter_ns)
    programs = dqc_programs(circuits, functools.partial(stopwatch.timed, SDK))
    with timed_seams(stopwatch), gc_frozen():
        stopwatch.enter(REST)
        stopwatch.spent_ns.clear()
        system.network.run(programs)
        stopwatch.enter(REST)
    total_ns = sum(stopwatch.spent_ns.values())
    return {part: stopwatch.spent_ns[part] / total_ns for part in (SDK, CNPU, KERNEL, DEVICE, REST)}
