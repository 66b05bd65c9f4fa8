"""The loop of the laboratory: doorbells, deadlines, reports, signals."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import pytest

from qnodeos.qdevice.endpoint import FrameMaster
from qnodeos.signals import StopSignals
from sim.noise import NVNoise
from sim.nv_device import BehaviouralNVDevice
from sim.nv_timing import NVTiming
from sim.realtime.laboratory import RealTimeLaboratory
from sim.realtime.loop import serve
from tests.service.realtime_bench import MemoryPort


@dataclass
class RungPort(MemoryPort):
    """A wire in memory with a doorbell; a signal comes after some turns, or after a response."""

    bell: int = -1
    turns: int = 0
    turns_to_signal: int | None = None
    heard: int = 0

    def fileno(self) -> int:
        return self.bell

    def acknowledge_doorbell(self) -> None:
        self.turns += 1
        with suppress(BlockingIOError):
            self.heard += os.eventfd_read(self.bell)
        if self.turns == self.turns_to_signal or len(self.responses) > 1:
            os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def served(port: RungPort) -> Iterator[RealTimeLaboratory]:
    port.bell = os.eventfd(0, os.EFD_NONBLOCK)
    device = BehaviouralNVDevice(NVTiming(), NVNoise(), None, random.Random(1))
    try:
        yield RealTimeLaboratory({"node": (device, port)}, time.monotonic_ns())
    finally:
        os.close(port.bell)


@pytest.mark.parametrize("spin", [False, True])
def test_a_doorbell_is_answered_and_a_signal_ends_it(spin):
    port = RungPort()
    before = signal.getsignal(signal.SIGTERM)
    with served(port) as laboratory, StopSignals() as stop:
        port.commands.append((1, FrameMaster().outgoing()))
        os.eventfd_write(port.bell, 1)
        serve([laboratory], [port], stop, spin=spin)
        assert stop.is_set()
    assert len(port.responses) == 2
    assert port.heard == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_comes_round_without_a_doorbell_and_reports():
    port = RungPort(turns_to_signal=5)
    reports: list[int] = []
    now_ns = iter(range(0, 1 << 62, 400_000_000))
    with served(port) as laboratory, StopSignals() as stop:
        serve(
            [laboratory],
            [port],
            stop,
            report=lambda: reports.append(port.turns),
            clock_ns=lambda: next(now_ns),
        )
    assert port.turns == 5
    assert reports  # once a second; two readings of 0.4 s each make a turn


class Planned:
    """A laboratory without nodes that wants to be called again at a tick."""

    def __init__(self, tick_ns: int, tick: int | None) -> None:
        self.tick_ns = tick_ns
        self.tick = tick
        self.turns = 0

    def turn(self) -> int | None:
        self.turns += 1
        return self.tick

    def time_ns(self, tick: int) -> int:
        return tick * self.tick_ns


@pytest.mark.parametrize(
    ("ticks", "timeout_s"), [((900, 300), 0.006), ((500, 300), 0.005), ((None, None), 0.020)]
)
def test_it_sleeps_until_the_first_laboratory_has_something_to_do(monkeypatch, ticks, timeout_s):
    slept: list[float] = []
    laboratories = [Planned(10_000, ticks[0]), Planned(20_000, ticks[1])]

    def select(*arguments: Any) -> None:
        slept.append(arguments[-1])
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("sim.realtime.loop.select.select", select)
    with StopSignals() as stop:
        serve(cast(list[RealTimeLaboratory], laboratories), [], stop, clock_ns=lambda: 0)
    assert slept == [pytest.approx(timeout_s)]
    assert [each.turns for each in laboratories] == [1, 1]
