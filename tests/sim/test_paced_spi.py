"""Frames over SPI in real time: the bench's line, the pacer and the ADbasic program.

The clock is the test's, and the program is at the event that the clock says. Unlike in the
laboratory, nobody fetches a response but with a frame.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from calibration.errors import CalibrationError
from calibration.instrument_bench import Line, TickClock
from drivers.nv import NV_CAPABILITIES
from drivers.pacer import TickPacer
from drivers.spi import SpiLink, SpiQDevice
from instruments import nv_controller as wiring
from qnodeos.qdevice.instructions import Axis, ini, msr, sqg
from qnodeos.qdevice.outcomes import Outcome
from sim.lab.timing import NS_PER_EVENT
from sim.spi import SimulatedSpiDev
from tests.sim.lab_harness import Runner, lone_laboratory

SEED = 20260302
LOOK_NS = 90
OVERSLEEP_NS = 60_000
TRANSFER_NS = 2_600


class Bench:
    """A real-time bench in a time that the test makes."""

    def __init__(self, runner: Runner, *, paced: bool = True) -> None:
        self.now = 0
        self.stalls_at_the_clock = 1e-3
        self.stalls_at_the_wire = 0.0
        self._rng = random.Random(SEED)
        self.node = runner.node
        self.controller = runner.controller
        # The laboratory takes every response as soon as it is there; a real module keeps it.
        self.hardware = runner.node._hardware
        self.hardware.spi_fetch = lambda module: None  # type: ignore[method-assign]
        # The laboratory's last frame is still to be read.
        runner.node.act(runner.node.event + 1)
        self._zero_ns = runner.node.event * NS_PER_EVENT + 300
        self.responses: list[int | None] = []
        port = SimulatedSpiDev(self._exchange)
        port.open(0, 0)
        self.pacer = TickPacer(NV_CAPABILITIES.tick_ns, self._now_ns, self._sleep)
        device = SpiQDevice(SpiLink(port), NV_CAPABILITIES, self.pacer if paced else None)
        self.clock = TickClock()
        self.line = Line(device, self.clock)

    def _stall(self, chance: float) -> None:
        """Now and then the operating system does something else."""
        if self._rng.random() < chance:
            self.now += self._rng.randrange(60_000)

    def _now_ns(self) -> int:
        self._stall(self.stalls_at_the_clock)
        self.now += LOOK_NS
        return self.now

    def _sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9) + OVERSLEEP_NS

    def _exchange(self, frame: int) -> int:
        self._stall(self.stalls_at_the_wire)
        event = (self._zero_ns + self.now) // NS_PER_EVENT
        while self.node.event < event:
            self.node.act(self.node.event + 1)
        self.now += TRANSFER_NS
        response = self.hardware.spi_exchange(wiring.SPI_MODULE, frame)
        self.responses.append(response)
        return response or 0

    def executed(self) -> int:
        return self.controller.read("instructions")

    def device_tick(self) -> int:
        return self.line._master.device_tick_low


@pytest.fixture
def runner() -> Iterator[Runner]:
    with lone_laboratory(plain=True) as runner:
        yield runner


PROGRAM = (ini(), sqg(Axis.X, 16), msr(), ini(), msr(), sqg(Axis.Y, 16), msr())
ZERO, ONE = Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ONE
OUTCOMES = [ZERO, ZERO, ONE, ZERO, ZERO, ZERO, ONE]


def test_paced_frames_are_all_answered(runner):
    bench = Bench(runner)
    assert [bench.line.run(step) for step in PROGRAM] == OUTCOMES
    assert bench.executed() == len(PROGRAM)
    assert len(bench.responses) > 60
    assert None not in bench.responses[1:]
    assert bench.pacer.lost_ticks > 0


def test_a_frame_that_is_held_up_at_the_wire_costs_an_answer_and_nothing_else(runner):
    bench = Bench(runner)
    bench.stalls_at_the_wire = 0.1
    assert [bench.line.run(step) for step in PROGRAM] == OUTCOMES
    assert bench.executed() == len(PROGRAM)
    assert 2 < bench.responses.count(None) < len(bench.responses) / 4


def test_frames_that_nobody_paces_are_not_answered(runner):
    bench = Bench(runner, paced=False)
    with pytest.raises(CalibrationError, match="HARDWARE_FAILURE"):
        bench.line.run(ini())
    assert not any(bench.responses[5:])
    assert bench.executed() == 0


@pytest.mark.parametrize("pause", [2, 3, 250])
def test_the_first_response_after_a_pause_is_an_old_one_and_taken_for_nothing(runner, pause):
    bench = Bench(runner)
    bench.stalls_at_the_clock = 0
    bench.line.run(ini())
    expected, done = 0, bench.executed()
    for _ in range(3):
        bench.line.run(sqg(Axis.X, 16))
        expected ^= 1
        before, began = bench.device_tick(), bench.now
        bench.clock.tick += pause
        # Its instruction meets the outcome of the one before, a second time.
        bench.line.submit(msr())
        assert bench.line.exchange() is None
        assert bench.now - began >= pause * NV_CAPABILITIES.tick_ns
        assert bench.device_tick() - before & 0xFFF == 1
        bench.clock.tick += 1
        response = None
        while response is None:
            response = bench.line.exchange()
            bench.clock.tick += 1
        assert bench.device_tick() - before & 0xFFF > pause
        assert response.outcome is (ONE if expected else ZERO)
    assert bench.executed() == done + 6
    assert bench.line._master.device_restarts == 0
