"""Whole programs on modules in memory, with a simple photon source (simulated)."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from itertools import pairwise

import pytest

from sim.adwin.hardware import DAC_ZERO_CODE, InMemoryHardware
from sim.adwin.system import AdwinSystem
from tests.sim.adbasic_harness import PROGRAMS, system_with

CYCLES_PER_US = 300
Z = 4.5
"""Confidence of the statistical tests; the seeds are fixed."""


class Centre:
    """An NV centre that is read out optically; rates per microsecond (all assumed)."""

    check_rate = 0.6
    readout_rate = 0.2
    dark_rate = 2e-3
    flip_rate = 1 / 12
    pump_rate = 1 / 1.5
    ionisation_rate = 2e-3

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.charged = True
        self.bright = True
        self.ionisations = 0
        self.light: dict[int, bool] = {}

    def dac_changed(self, cycle: int, module: int, channel: int, code: int) -> None:
        assert module == 3
        self.light[channel] = code > DAC_ZERO_CODE

    def emit(self, start_cycle: int, stop_cycle: int) -> Mapping[tuple[int, int], int]:
        duration = (stop_cycle - start_cycle) / CYCLES_PER_US
        repump, e, a = (self.light.get(channel, False) for channel in (1, 2, 3))
        mean = self.dark_rate * duration
        if repump:
            self.charged = True
        elif self.charged and e and a:
            mean += self.check_rate * duration
        elif self.charged and e:
            mean += self.readout_rate * self.time_bright(duration)
            if self.rng.random() < -math.expm1(-self.ionisation_rate * duration):
                self.charged = False
                self.ionisations += 1
        elif self.charged and a and self.rng.random() < -math.expm1(-self.pump_rate * duration):
            self.bright = True
        return {(5, 1): self.poisson(mean)}

    def time_bright(self, duration: float) -> float:
        if not self.bright:
            return 0.0
        until = self.rng.expovariate(self.flip_rate)
        self.bright = until > duration
        return min(until, duration)

    def poisson(self, mean: float) -> int:
        count, product = 0, self.rng.random()
        while product > math.exp(-mean):
            count += 1
            product *= self.rng.random()
        return count


def ssro(centre: Centre, shots: int, pump_with_e: bool) -> AdwinSystem:
    system = system_with(PROGRAMS / "ssro.bas", hardware=InMemoryHardware(centre))
    settings = [50, 5, 30, 100 if pump_with_e else 20, int(pump_with_e), 60, shots]
    system.memory.elements(20)[1:8] = settings
    system.memory.elements(21)[1] = 2.0
    system.start(9)
    while system.processes[9].running:
        system.run_for_ns(1e6)
    return system


def within(observed: float, expected: float, shots: int) -> bool:
    return abs(observed - expected) < Z * math.sqrt(expected * (1 - expected) / shots)


def test_readout_of_the_bright_state():
    shots = 2_000
    centre = Centre(seed=1)
    system = ssro(centre, shots, pump_with_e=False)
    counts = system.memory.elements(22)[1 : shots + 1]
    assert system.memory.par[73] == shots
    assert system.processes[9].lost_events == 0
    # No photon: none before the spin flips, and no dark count. An ionised centre, which the
    # check after the shot finds, would be dark without a flip: it changes the rates below.
    rate, leave = centre.readout_rate, centre.flip_rate
    dark = centre.dark_rate
    # Integral of leave exp(-(leave + rate) t) over the flip times, dark counts until the end.
    missed = math.exp(-dark * 60) * leave / (leave + rate)
    fraction = sum(count > 0 for count in counts) / shots
    assert within(fraction, 1 - missed, shots)


def test_readout_of_the_dark_state_sees_dark_counts():
    shots = 2_000
    centre = Centre(seed=2)
    system = ssro(centre, shots, pump_with_e=True)
    counts = system.memory.elements(22)[1 : shots + 1]
    expected = -math.expm1(-centre.dark_rate * 60)
    assert within(sum(count > 0 for count in counts) / shots, expected, shots)


def test_the_readout_stops_at_the_first_photon():
    shots = 2_000
    system = ssro(Centre(seed=3), shots, pump_with_e=False)
    counts = system.memory.elements(22)[1 : shots + 1]
    stopped = system.memory.elements(23)[1 : shots + 1]
    bright = [stop for count, stop in zip(counts, stopped, strict=True) if count]
    assert all(stop == 60 for count, stop in zip(counts, stopped, strict=True) if not count)
    # Photons come at random while the spin has not flipped: the event in which the first is
    # seen is geometric. Dark counts, 2 % of the shots, come at any time.
    survival = math.exp(-(Centre.readout_rate + Centre.flip_rate + Centre.dark_rate))
    early = sum(stop <= 5 for stop in bright) / shots
    emitted = Centre.readout_rate + Centre.dark_rate
    expected = emitted / (emitted + Centre.flip_rate) * (1 - survival**5)
    flipped_first = Centre.flip_rate * Centre.dark_rate * 5**2 / 2
    assert abs(early - expected) < flipped_first + Z * math.sqrt(expected * (1 - expected) / shots)


def test_every_ionisation_fails_one_check():
    centre = Centre(seed=4)
    system = ssro(centre, 1_000, pump_with_e=False)
    # With 30 counts against a threshold of 5, errors of a check have a probability of 1e-7.
    assert centre.ionisations > 10
    assert system.memory.par[70] == centre.ionisations - (not centre.charged)
    assert system.memory.par[71] == 1_000


def test_the_tick_counter_is_exact():
    system = system_with(PROGRAMS / "ticks.bas")
    system.memory.par[2] = 1_000
    system.start(1)
    system.run_for_ns(20e6)
    times = system.memory.elements(1)[1:1001]
    assert {later - earlier for earlier, later in pairwise(times)} == {3_000}
    assert not system.processes[1].running
    assert system.memory.par[3] == 1_000


@pytest.mark.parametrize("seed", range(5))
def test_frames_are_answered_once_and_in_time(seed):
    """The shape of the QDevice: the QNPU as master, one exchange per tick."""
    hardware = InMemoryHardware()
    system = system_with(PROGRAMS / "frames.bas", hardware=hardware)
    system.start(2)
    rng = random.Random(seed)
    outcomes: dict[int, int] = {}
    arguments = []
    busy_until = finished = rejected = 0
    for exchange in range(1, 3_000):
        # The master's word crosses the response left at the last tick, and is read at the next.
        system.run_for_ns(5_000)
        sent, argument = (
            (rng.randrange(1, 200), rng.randrange(12)) if rng.random() < 0.2 else (0, 0)
        )
        response = hardware.spi_exchange(7, sent << 24 | argument)
        system.run_for_ns(5_000)
        if exchange == 1:
            assert response is None
        else:
            outcome = outcomes.pop(exchange - 1, 0)
            assert response == outcome << 24 | exchange - 1
            finished += outcome > 0
        if sent and busy_until > exchange:
            rejected += 1
        elif sent:
            busy_until = exchange + 1 + argument
            outcomes[busy_until] = sent
            arguments.append(argument)
    assert finished > 200
    assert system.memory.par[2] == rejected > 50
    strobes = [edge for edge in hardware.edges if edge.word & 1 << 16]
    assert [edge.word & 0xFF for edge in strobes] == arguments
    assert system.processes[2].lost_events == 0


def test_a_strobe_is_as_long_as_the_program_says():
    hardware = InMemoryHardware()
    system = system_with(PROGRAMS / "frames.bas", hardware=hardware)
    system.start(2)
    hardware.spi_exchange(7, 3 << 24 | 0x81)
    system.run_for_ns(30_000)
    rise, fall = list(hardware.edges)[-2:]
    assert (rise.word, fall.word) == (0x1_0081, 0x81)
    # 90 ns of sleep and the time of the instruction that ends it.
    costs = system.model.costs
    assert fall.cycle - rise.cycle == 27 + costs.instruction
