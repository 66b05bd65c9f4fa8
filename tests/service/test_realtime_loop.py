"""The loop of the laboratory: doorbells, deadlines, reports, signals."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

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
