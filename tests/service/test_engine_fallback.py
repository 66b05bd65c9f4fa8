"""The pure-Python engine under a clock of the test's: what is counted, exactly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qnodeos.engine.fallback import PythonEngine
from qnodeos.engine.interface import SKIP_EVENTS
from qnodeos.engine.links import LoopbackLink
from qnodeos.engine.opening import native_module, open_engine
from qnodeos.engine.sources import digest_of
from qnodeos.qdevice.instructions import ini
from qnodeos.qdevice.outcomes import Outcome

TICK_NS = 10_000


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def pass_ticks(self, ticks: float) -> None:
        self.now_ns += round(ticks * TICK_NS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(clock: Clock, answer_ticks: int, busy_limit_ticks: int = 10_000) -> PythonEngine:
    engine = PythonEngine(
        LoopbackLink(TICK_NS, answer_ticks), busy_limit_ticks=busy_limit_ticks, clock=clock
    )
    engine.start()
    clock.pass_ticks(3.5)  # the session is open
    assert engine.poll() is None
    return engine


@pytest.fixture
def engine(clock: Clock) -> Iterator[PythonEngine]:
    engine = opened(clock, 5)
    yield engine
    engine.close()


def test_ticks_of_an_instruction(clock, engine):
    """Given in tick 3, on the wire in 4, done at 9, told in the frame of 10."""
    engine.submit(ini(0))
    for _ in range(6):
        clock.pass_ticks(1)
        assert engine.now_tick() < 10
        assert engine.poll() is None
    clock.pass_ticks(0.5)
    assert engine.poll() == (10, Outcome.SUCCESS_ZERO, None, 4)
    # Taken at once, the next goes out in the frame of 11: two ticks after 9.
    engine.submit(ini(0))
    assert engine.statistics().reaction_ticks.counts == ((2, 1),)


def test_what_is_taken_late_is_told_with_its_own_tick(clock, engine):
    engine.take_skips()
    before = engine.statistics()
    engine.submit(ini(0))
    clock.pass_ticks(100)
    assert engine.now_tick() == 103
    assert engine.poll() == (10, Outcome.SUCCESS_ZERO, None, 4)
    after = engine.statistics()
    # The busy frame of tick 5 and the answer of tick 10, both taken at 103.5.
    assert engine.take_skips() == [(5, 98), (10, 93)]
    assert after.skipped - before.skipped == 191
    assert after.ticks - before.ticks == 2
    assert after.lateness_ns.maximum == 985_000
    assert after.stalls == 0


def test_a_stall(clock, engine):
    engine.submit(ini(0))
    clock.pass_ticks(5_000)
    assert engine.poll() == (10, Outcome.SUCCESS_ZERO, None, 4)
    statistics = engine.statistics()
    assert statistics.stalls == 2
    assert statistics.lateness_ns.maximum == 49_985_000
    assert statistics.given_up == 0


def test_the_busy_limit_is_counted_from_the_instruction(clock):
    engine = opened(clock, 5_000, busy_limit_ticks=100)
    try:
        engine.submit(ini(0))
        clock.pass_ticks(99)
        assert engine.poll() is None
        clock.pass_ticks(1)
        assert engine.poll() == (103, Outcome.HARDWARE_FAILURE, None, 4)
        assert engine.statistics().busy_timeouts == 1
    finally:
        engine.close()


def test_skips_beyond_what_is_kept_are_counted(clock):
    engine = opened(clock, 0)
    try:
        for _ in range(SKIP_EVENTS):
            engine.submit(ini(0))
            clock.pass_ticks(10)
            assert engine.poll() is not None
        statistics = engine.statistics()
        assert len(engine.take_skips()) == SKIP_EVENTS
        assert statistics.skips_unread > 0
        assert engine.take_skips() == []
    finally:
        engine.close()


def test_the_clock_never_goes_back(clock, engine):
    tick = engine.now_tick()
    clock.pass_ticks(-2)
    assert engine.now_tick() == tick
    clock.pass_ticks(3)
    assert engine.now_tick() == tick + 1


def test_an_extension_of_other_sources_is_not_used(monkeypatch):
    """As after an update of the sources that nobody has built."""
    if native_module() is None:
        pytest.skip("the C extension was not built")
    monkeypatch.setattr("qnodeos.engine.opening.digest_of", lambda folder: "of other sources")
    assert native_module() is None
    engine = open_engine(LoopbackLink())
    try:
        assert not engine.is_native
        (warning,) = engine.statistics().warnings
        assert "built from other sources (install qnodeos again)" in warning
    finally:
        engine.close()


def test_sources_are_told_apart(tmp_path):
    assert digest_of(tmp_path) == ""
    (tmp_path / "a.c").write_text("int a;")
    first = digest_of(tmp_path)
    (tmp_path / "a.c").write_text("int b;")
    second = digest_of(tmp_path)
    (tmp_path / "b.h").write_text("")
    assert len({"", first, second, digest_of(tmp_path)}) == 4
