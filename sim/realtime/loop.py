"""The loop of a laboratory process: wait for a doorbell or a deadline, take a turn."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from qnodeos.signals import StopSignals
from sim.realtime.laboratory import Port, RealTimeLaboratory

BEAT_NS: Final = 20_000_000
"""How often the channels are looked at even if nobody rings, by which the laboratory also shows
that it lives and notices a new QNPU (assumed: 20 ms; the channel asks for 100 ms)."""
REPORT_NS: Final = 1_000_000_000
"""How often a report is made."""
CORES_PER_NODE: Final = 2
"""A node whose engine and policy both spin takes two cores."""

_NS_PER_S: Final = 1_000_000_000


class ChannelPort(Port, Protocol):
    """A port whose other end is in another process."""

    def fileno(self) -> int:
        """A descriptor that is readable when there may be commands."""
        ...

    def acknowledge_doorbell(self) -> None:
        """Say that the doorbell has been heard; call it before `receive`."""
        ...


def may_spin(nodes: int, cores: int | None = None) -> bool:
    """Whether there are cores for a laboratory that never sleeps beside nodes that never do.

    Args:
        nodes: how many.
        cores: that all of them share; None for those this process may use.
    """
    available = len(os.sched_getaffinity(0)) if cores is None else cores
    return available > CORES_PER_NODE * nodes + 1


def serve(
    laboratories: Sequence[RealTimeLaboratory],
    ports: Sequence[ChannelPort],
    stop: StopSignals,
    *,
    spin: bool = False,
    report: Callable[[], None] | None = None,
    clock_ns: Callable[[], int] = time.monotonic_ns,
) -> None:
    """Serve until a signal comes.

    Args:
        laboratories: to run; between their devices there is nothing.
        ports: of their nodes.
        stop: entered; what ends the loop.
        spin: never sleep.
        report: called once a second; must be quick, for everything waits for it.
        clock_ns: the clock of the laboratories.
    """
    waiting = [stop.fileno(), *(port.fileno() for port in ports)]
    report_ns = clock_ns() + REPORT_NS
    while not stop.is_set():
        for port in ports:
            port.acknowledge_doorbell()
        ticks = [laboratory.turn() for laboratory in laboratories]
        now_ns = clock_ns()
        if report is not None and now_ns >= report_ns:
            report()
            report_ns = now_ns + REPORT_NS
        if spin:
            continue
        wake_ns = now_ns + BEAT_NS
        for laboratory, tick in zip(laboratories, ticks, strict=True):
            if tick is not None:
                wake_ns = min(wake_ns, laboratory.time_ns(tick))
        # Not epoll, whose timeout Python rounds to milliseconds: select has microseconds.
        select.select(waiting, (), (), max(0, wake_ns - clock_ns()) / _NS_PER_S)
