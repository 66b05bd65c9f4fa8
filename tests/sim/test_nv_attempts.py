"""Entanglement attempts on the simulated AWG: failed, heralded, and what follows a herald."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from instruments.hdawg import CompiledProgram, compile_program
from sequences.nv_seqc import (
    HERALD,
    TOGGLE,
    TOGGLE_LINE,
    TURNAROUND_NS,
    HeraldTiming,
    attempt_busy_ns,
    decision_ns,
    dio_word,
    nv_program,
)
from sequences.program import samples
from sequences.waveform_table import (
    FIRST_ATTEMPT,
    FIRST_ROTATION,
    READOUT,
    EntryKind,
    TableSettings,
    build_table,
)
from sim.hdawg.core import AwgCore
from sim.hdawg.dio import DioInput, StrobeSlope, ValidPolarity
from sim.hdawg.timing import HdawgTiming

TABLE = build_table(TableSettings(spacing_samples=24_101, alphas=(0.05, 0.2256)))
PLAN = TABLE.settings.plan
HALF = PLAN.spacing_samples // 2 - PLAN.gate_excess_samples
HERALDING = HeraldTiming()
FIRST_SAMPLE = 5_000
SETUP_SAMPLES = 64
"""Lines are set this long before the toggle line changes."""

SETTINGS = {
    "dio/strobe/index": TOGGLE_LINE,
    "dio/strobe/slope": StrobeSlope.BOTH,
    "dio/valid/index": 0,
    "dio/valid/polarity": ValidPolarity.NONE,
}


@pytest.fixture(scope="module")
def program() -> CompiledProgram:
    return compile_program(nv_program(TABLE, HERALDING))


@dataclass
class Bench:
    """One core with the program, and somebody who follows the rules of the DIO exchange."""

    program: CompiledProgram
    timing: HdawgTiming
    now: int = FIRST_SAMPLE
    word: int = 0
    sent: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dio = DioInput(self.timing)
        self.dio.is_forwarded = True
        self.core = AwgCore(self.timing, self.dio, SETTINGS.__getitem__)
        self.core.load(self.program.elf)
        for index, words in self.program.waveforms.items():
            self.core.set_waveform(index, words)
        self.core.set_table(self.program.command_table)
        self.core.start(0)

    def send(self, entry: int, then: int) -> None:
        """A word now, after which ``then`` samples pass."""
        toggle = 1 - (self.word >> TOGGLE_LINE & 1)
        word = dio_word(TABLE, entry, toggle)
        self.dio.write(self.now - SETUP_SAMPLES, word ^ TOGGLE)
        self.dio.write(self.now, word)
        self.word = word
        self.sent.append((self.now, entry))
        self.now += then

    def herald(self, after: int) -> None:
        """Raise the herald line ``after`` samples from the start of the attempt just sent."""
        self.word |= HERALD
        self.dio.write(self.sent[-1][0] + after, self.word)

    def played(self) -> list[tuple[int, int]]:
        """Start sample and entry of everything played from the table."""
        self.core.run_until(self.now)
        plays = self.core.player.timeline.plays()
        return [(play.start_sample, play.entry) for play in plays if play.entry is not None]


def instructions(played):
    return [(start, entry) for start, entry in played if entry >= FIRST_ROTATION]


def pulse_centre(start: int, entry: int) -> int:
    return start + int(TABLE.pulse_start[entry]) + int(TABLE.pulse_samples[entry]) // 2


@pytest.mark.parametrize("fifo_depth", [1, 2, 3, 4, 8, 32])
@pytest.mark.parametrize("dio_latency_samples", [0, 192, 1000])
def test_failed_attempts_repeat_without_jitter_and_without_decoupling(
    program, fifo_depth, dio_latency_samples
):
    timing = HdawgTiming(fifo_depth=fifo_depth, dio_latency_samples=dio_latency_samples)
    bench = Bench(program, timing)
    busy = samples(attempt_busy_ns(TABLE, HERALDING))
    period = -(-busy // timing.dio_period_samples) * timing.dio_period_samples
    for attempt in range(20):
        bench.send(FIRST_ATTEMPT + attempt % 2, then=period)
    played = bench.played()
    assert [entry for _, entry in played] == [entry for _, entry in bench.sent]
    delays = {start - sent for (start, _), (sent, _) in zip(played, bench.sent, strict=True)}
    assert len(delays) == 1


@pytest.mark.parametrize("fifo_depth", range(1, 33))
def test_a_heralded_spin_gets_its_first_pulse_on_the_sample(program, fifo_depth):
    bench = Bench(program, HdawgTiming(fifo_depth=fifo_depth))
    bench.send(FIRST_ATTEMPT, then=samples(attempt_busy_ns(TABLE, HERALDING)))
    bench.send(FIRST_ATTEMPT + 1, then=100 * PLAN.spacing_samples)
    bench.herald(after=samples(decision_ns(TABLE, HERALDING)) - 300)
    bench.send(FIRST_ROTATION + 8, then=60 * PLAN.spacing_samples)
    bench.send(READOUT, then=60 * PLAN.spacing_samples)
    played = bench.played()
    assert [entry for _, entry in instructions(played)] == [entry for _, entry in bench.sent]
    distances = []
    for earlier, later in pairwise(played):
        kinds = EntryKind(TABLE.kind[earlier[1]]), EntryKind(TABLE.kind[later[1]])
        if kinds == (EntryKind.DECOUPLING, EntryKind.DECOUPLING):
            distances.append(pulse_centre(*later) - pulse_centre(*earlier))
        elif kinds[1] == EntryKind.DECOUPLING:
            assert pulse_centre(*later) - pulse_centre(*earlier) == HALF
        elif kinds == (EntryKind.DECOUPLING, EntryKind.ROTATION):
            half = PLAN.spacing_samples - PLAN.spacing_samples // 2 - PLAN.gate_excess_samples
            assert -7 <= pulse_centre(*later) - pulse_centre(*earlier) - half <= 8
    assert len(distances) > 150
    assert set(distances) == {PLAN.spacing_samples}


def test_a_herald_after_the_decision_is_too_late(program):
    timing = HdawgTiming()
    bench = Bench(program, timing)
    bench.send(FIRST_ATTEMPT, then=20 * PLAN.spacing_samples)
    bench.herald(after=samples(decision_ns(TABLE, HERALDING)) + 300)
    assert [entry for _, entry in bench.played()] == [FIRST_ATTEMPT]


def test_the_acknowledge_follows_the_toggle_line(program):
    bench = Bench(program, HdawgTiming())
    for _ in range(6):
        bench.send(READOUT, then=20_000)
    bench.played()
    edges = bench.core.trigger_edges
    assert [level for _, level in edges] == [1, 0] * 3
    for (edge, _), (sent, _) in zip(edges, bench.sent, strict=True):
        assert 0 < edge - sent < 1_000


def test_a_word_may_follow_the_acknowledge_after_the_turnaround(program):
    timing = HdawgTiming(dio_latency_samples=0, trigger_latency_samples=0)
    bench = Bench(program, timing)
    for _ in range(6):
        bench.send(READOUT, then=samples(TURNAROUND_NS))
        bench.core.run_until(bench.now + 200)
        acknowledged = bench.core.trigger_edges[-1][0]
        bench.now = acknowledged + samples(TURNAROUND_NS)
    bench.now += 100_000
    assert [entry for _, entry in bench.played()] == [READOUT] * 6


def test_marker_windows_reach_the_connectors(program):
    bench = Bench(program, HdawgTiming())
    bench.send(FIRST_ATTEMPT, then=20_000)
    ((start, entry),) = bench.played()
    edges = dict(bench.core.player.timeline.marker_edges(start - 1, start + 10_000))
    for marker in range(3):
        assert edges[start + int(TABLE.marker_start[entry, marker])] & 1 << marker
        assert not edges[start + int(TABLE.marker_stop[entry, marker])] & 1 << marker
