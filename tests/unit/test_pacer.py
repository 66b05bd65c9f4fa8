"""Ticks in real time, on a clock of the test's own."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from drivers.pacer import LONGEST_WAIT_NS, SPIN_NS, TickPacer
from qnodeos.errors import ConfigurationError, DeviceError

TICK_NS = 10_000
LOOK_NS = 70
SEED = 20260301


class FakeClock:
    """Time passes when somebody looks at it or sleeps, the latter too long."""

    def __init__(self, oversleep_ns: int = 60_000) -> None:
        self.now = 5_000_000_123
        self.looks = 0
        self.slept: list[float] = []
        self._oversleep_ns = oversleep_ns

    def now_ns(self) -> int:
        self.looks += 1
        self.now += LOOK_NS
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += round(seconds * 1e9) + self._oversleep_ns


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def pacer(clock):
    return TickPacer(TICK_NS, clock.now_ns, clock.sleep)


def test_the_first_tick_comes_at_once_whatever_its_number(clock, pacer):
    before = clock.now
    pacer.wait(123_456)
    assert clock.now - before == LOOK_NS
    pacer.wait(123_457)
    assert TICK_NS <= clock.now - before - LOOK_NS < TICK_NS + LOOK_NS
    assert clock.slept == []
    assert pacer.lost_ticks == 0


def test_a_long_wait_is_slept_through_but_for_its_end(clock, pacer):
    pacer.wait(0)
    began = clock.now
    pacer.wait(100_000)
    assert 10**9 <= clock.now - began < 10**9 + LOOK_NS
    assert len(clock.slept) == 1
    assert clock.slept[0] == pytest.approx(1 - SPIN_NS * 1e-9, abs=1e-6)
    assert clock.looks * LOOK_NS < 2 * SPIN_NS
    assert pacer.lost_ticks == 0


@pytest.mark.parametrize("late_ns", [3_000, 9_999, 10_000, 35_000, 7_000_000])
def test_whoever_is_late_never_catches_up(clock, pacer, late_ns):
    for tick in range(3):
        pacer.wait(tick)
    clock.now += TICK_NS + late_ns
    pacer.wait(3)
    came = clock.now
    assert pacer.lost_ticks in {late_ns // TICK_NS, (late_ns + 4 * LOOK_NS) // TICK_NS}
    for tick in range(4, 10):
        pacer.wait(tick)
        assert clock.now - came >= (tick - 3) * TICK_NS
    assert clock.now - came < 6 * (TICK_NS + LOOK_NS)


def test_ticks_are_never_closer_than_their_numbers_say():
    rng = random.Random(SEED)
    clock = FakeClock(oversleep_ns=900_000)
    pacer = TickPacer(TICK_NS, clock.now_ns, clock.sleep)
    tick, came = 0, []
    for _ in range(3_000):
        pacer.wait(tick)
        came.append((tick, clock.now))
        clock.now += rng.choice((0, 2_600, 2_600, 2_600, 15_000, 200_000))
        tick += rng.choice((1, 1, 1, 2, 50))
    spare = 0
    for (tick, at), (next_tick, next_at) in pairwise(came):
        apart = next_at - at - (next_tick - tick) * TICK_NS
        assert apart >= 0
        spare += apart
    # What was lost is exactly what the ticks came too late.
    assert pacer.lost_ticks == spare // TICK_NS
    assert pacer.lost_ticks > 1_000


@pytest.mark.parametrize("tick", [7, 6, 0])
def test_ticks_do_not_come_again(pacer, tick):
    pacer.wait(7)
    with pytest.raises(DeviceError, match=f"tick {tick} cannot be waited for after tick 7"):
        pacer.wait(tick)
    pacer.wait(8)


def test_a_wait_has_a_bound(clock, pacer):
    pacer.wait(0)
    longest = LONGEST_WAIT_NS // TICK_NS
    with pytest.raises(DeviceError, match="by 600 s at most"):
        pacer.wait(longest + 1)
    assert clock.slept == []
    pacer.wait(longest)


def test_a_tick_has_a_length():
    with pytest.raises(ConfigurationError, match="a tick of 0 ns") as caught:
        TickPacer(0)
    assert caught.value.field == "tick_ns"
