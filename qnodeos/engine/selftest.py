"""How well this machine holds the tick: the engine against a device inside it, Python busy.

The device answers every instruction at once, and this thread sends the next as soon as it sees
the outcome, as fast as a policy can. What is measured:

* lateness: how long after the begin of its tick an exchange began;
* skipped: ticks at which no frame could go out;
* reaction: from the tick at which the device has its outcome (with ``answer_ticks`` 0, the one
  whose frame brought the instruction) to the tick whose frame carries the next instruction. The
  outcome travels in the next tick's frame and the next instruction in the one after that at the
  earliest, so the protocol's least is 2.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from qnodeos.engine.interface import EngineStatistics, Mode
from qnodeos.engine.links import LoopbackLink
from qnodeos.engine.opening import native_module, open_engine, usable_cores
from qnodeos.errors import DeviceError
from qnodeos.qdevice.instructions import ini

NS_PER_S: Final = 1_000_000_000
REPORT_NS: Final = 250_000_000
"""Between two reports of progress: each costs a tick or two."""
POLLS_PER_LOOK: Final = 1000
"""Polls between two looks at the clock, which are not free at 1 MHz."""
BEST_NICE: Final = -20


@dataclass(frozen=True)
class SelfTest:
    """What to measure, and on what.

    Attributes:
        rate_hz: ticks per second.
        seconds: how long.
        mode: how frames are paced.
        tick_core: core of the tick thread; None leaves it to the system.
        tick_priority: SCHED_FIFO priority of the tick thread; 0 for none.
        native: False to measure the pure-Python engine.
    """

    rate_hz: int
    seconds: float
    mode: Mode
    tick_core: int | None
    tick_priority: int
    native: bool | None = None


def best_mode() -> Mode:
    """Spinning if there are cores for a tick thread and for us, and the C extension."""
    return "spinning" if native_module() and usable_cores() >= 2 else "event-paced"


def run_selftest(
    test: SelfTest, report: Callable[[float], None] = lambda _: None
) -> dict[str, Any]:
    """Measure.

    Args:
        test: what and on what.
        report: is told now and then how many seconds have passed.

    Returns:
        A document for JSON.

    Raises:
        ConfigurationError: a value is out of its range.
        DeviceError: the engine cannot run, or did not exchange anything.
    """
    load = os.getloadavg()[0]
    engine = open_engine(
        LoopbackLink(tick_ns=NS_PER_S // test.rate_hz),
        mode=test.mode,
        tick_core=test.tick_core,
        tick_priority=test.tick_priority,
        native=test.native,
    )
    try:
        with _quiet_python(test.tick_core if test.mode == "spinning" else None):
            engine.start()
            _react(engine.poll, engine.submit, test.seconds, report)
            statistics = engine.statistics()
    finally:
        engine.close()
    if not statistics.instructions or not statistics.ticks:
        raise DeviceError(
            "no instruction was answered: the tick thread gets no processor time; name another "
            "core for it"
        )
    return _document(test, statistics, load)


def _react(
    poll: Callable[[], object],
    submit: Callable[..., None],
    seconds: float,
    report: Callable[[float], None],
) -> None:
    instruction = ini(0)
    begin_ns = time.monotonic_ns()
    end_ns = begin_ns + int(seconds * NS_PER_S)
    report_ns = begin_ns
    submit(instruction)
    while (now_ns := time.monotonic_ns()) < end_ns:
        if now_ns >= report_ns:
            report_ns = now_ns + REPORT_NS
            report((now_ns - begin_ns) / NS_PER_S)
        for _ in range(POLLS_PER_LOOK):
            if poll() is not None:
                submit(instruction)


@contextmanager
def _quiet_python(tick_core: int | None) -> Iterator[None]:
    """This thread first in line on other cores than the tick thread's, no pauses for garbage."""
    cores = os.sched_getaffinity(0)
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    gc.collect()
    gc.freeze()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        if cores - {tick_core}:
            os.sched_setaffinity(0, cores - {tick_core})
        # Ordinary all the same: a real-time thread that spins would be stopped now and then.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, BEST_NICE)
        yield
    finally:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _document(test: SelfTest, statistics: EngineStatistics, load: float) -> dict[str, Any]:
    late, reaction = statistics.lateness_ns, statistics.reaction_ticks
    # Event-paced, only exchanges that were due count, so the share is that of them.
    slots = statistics.ticks + statistics.skipped
    return {
        "rate_hz": test.rate_hz,
        "ticks": statistics.ticks,
        "skipped": statistics.skipped,
        "lateness_us": {
            "p50": late.quantile(0.5) / 1000,
            "p99": late.quantile(0.99) / 1000,
            "p999": late.quantile(0.999) / 1000,
            "max": late.maximum / 1000,
        },
        "reaction_ticks": {
            "p50": reaction.quantile(0.5),
            "p99": reaction.quantile(0.99),
            "p999": reaction.quantile(0.999),
        },
        "reaction_ticks_max": reaction.maximum,
        "skipped_share": statistics.skipped / slots,
        "stalls": statistics.stalls,
        "instructions": statistics.instructions,
        "seconds": test.seconds,
        "mode": statistics.mode,
        "native": statistics.is_native,
        "priority": statistics.priority,
        "tick_core": statistics.core,
        "cores": usable_cores(),
        "load_before": load,
        "warnings": list(statistics.warnings),
    }
