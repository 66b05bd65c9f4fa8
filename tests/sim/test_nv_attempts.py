"""Entanglement attempts on the simulated AWG: failed, heralded, and what follows a herald."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

from instruments.hdawg import CompiledProgram, compile_program
from sequences.nv_seqc import (
    HERALD,
    REPEAT_CYCLES,
    TOGGLE,
    TOGGLE_LINE,
    TURNAROUND_NS,
    HeraldTiming,
    attempt_period_ns,
    decision_ns,
    dio_word,
    nv_program,
    program_constants,
)
from sequences.program import samples
from sequences.waveform_table import (
    FIRST_ATTEMPT,
    FIRST_ROTATION,
    INITIALISATION,
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


PERIOD = samples(attempt_period_ns(TABLE, HERALDING))
DECISION = samples(decision_ns(TABLE, HERALDING))
ENTRY_AND_SILENCE = (
    int(TABLE.length_samples[FIRST_ATTEMPT])
    + (program_constants(TABLE, HERALDING)["DECISION_ZERO"])
)
LOOK_SAMPLES = 300
"""The instructions before the look at the lines, and the raster of the lines, take less."""

OTHER_WORDS = (FIRST_ATTEMPT + 1, FIRST_ROTATION + 8, INITIALISATION, READOUT)


@pytest.mark.parametrize("fifo_depth", [1, 2, 3, 4, 8, 32])
@pytest.mark.parametrize("dio_latency_samples", [0, 192, 1000])
def test_attempts_repeat_with_a_constant_period_and_without_decoupling(
    program, fifo_depth, dio_latency_samples
):
    timing = HdawgTiming(fifo_depth=fifo_depth, dio_latency_samples=dio_latency_samples)
    bench = Bench(program, timing)
    bench.send(FIRST_ATTEMPT + 1, then=50 * PERIOD)
    played = bench.played()
    assert {entry for _, entry in played} == {FIRST_ATTEMPT + 1}
    assert len(played) >= 49
    assert set(np.diff([start for start, _ in played])) == {PERIOD}
    assert PERIOD == 13_200


@pytest.mark.parametrize("play_latency_samples", [0, 1, 24, 80])
@pytest.mark.parametrize("fifo_depth", [1, 4, 32])
def test_the_period_is_constant_whatever_the_play_latency(
    program, play_latency_samples, fifo_depth
):
    timing = HdawgTiming(fifo_depth=fifo_depth, play_latency_samples=play_latency_samples)
    bench = Bench(program, timing)
    bench.send(FIRST_ATTEMPT, then=50 * PERIOD)
    (period,) = set(np.diff([start for start, _ in bench.played()]))
    assert abs(period - PERIOD - (play_latency_samples - 24)) < 8


@pytest.mark.parametrize("period_ns", [4_500.0, 76_520.0])
def test_another_period_is_played_as_it_is_predicted(period_ns):
    herald = HeraldTiming(attempt_period_ns=period_ns)
    bench = Bench(compile_program(nv_program(TABLE, herald)), HdawgTiming())
    predicted = attempt_period_ns(TABLE, herald) * 2.4
    bench.send(FIRST_ATTEMPT, then=round(20 * predicted))
    assert set(np.diff([start for start, _ in bench.played()])) == {round(predicted)}


@pytest.mark.parametrize("fifo_depth", [1, 4, 32])
@pytest.mark.parametrize("dio_latency_samples", [0, 192, 1000])
def test_the_first_attempt_starts_at_a_fixed_delay(program, fifo_depth, dio_latency_samples):
    timing = HdawgTiming(fifo_depth=fifo_depth, dio_latency_samples=dio_latency_samples)
    bench = Bench(program, timing)
    delays = set()
    for number in range(6):
        bench.now += 16 * number
        bench.send(FIRST_ATTEMPT, then=3 * PERIOD)
        sent = bench.sent[-1][0]
        delays.add(next(start for start, _ in bench.played() if start > sent) - sent)
        bench.send(READOUT, then=3 * PERIOD)
    assert len(delays) == 1


@pytest.mark.parametrize("fifo_depth", [1, 4, 32])
@pytest.mark.parametrize("entry", OTHER_WORDS)
@pytest.mark.parametrize(
    ("phase", "n_attempts"),
    [
        (0, 6),
        (1_000, 6),
        (DECISION - LOOK_SAMPLES, 6),
        (DECISION + LOOK_SAMPLES, 7),
        (PERIOD - 100, 7),
    ],
)
def test_a_word_stops_the_attempts_and_is_played_once(
    program, entry, phase, n_attempts, fifo_depth
):
    timing = HdawgTiming(fifo_depth=fifo_depth, dio_latency_samples=0)
    bench = Bench(program, timing)
    bench.send(FIRST_ATTEMPT, then=5 * PERIOD + phase)
    bench.send(entry, then=20 * PERIOD)
    played = bench.played()
    attempts, (start, shown), rest = played[:n_attempts], played[n_attempts], played[n_attempts:]
    assert {before for _, before in attempts} == {FIRST_ATTEMPT}
    assert set(np.diff([before for before, _ in attempts])) == {PERIOD}
    # At once: right after the silence that covers the decision.
    assert shown == entry
    late = start - attempts[-1][0] - ENTRY_AND_SILENCE
    kind = EntryKind(TABLE.kind[entry])
    assert late == (REPEAT_CYCLES * 8 if kind == EntryKind.ATTEMPT else 0)
    follows = {EntryKind.ROTATION: EntryKind.DECOUPLING, EntryKind.ATTEMPT: EntryKind.ATTEMPT}
    kinds = {EntryKind(TABLE.kind[after]) for _, after in rest[1:]}
    assert kinds == ({follows[kind]} if kind in follows else set())
    assert bench.core.trigger_edges[-1][1] == bench.word >> TOGGLE_LINE & 1


@pytest.mark.parametrize("fifo_depth", range(1, 33))
def test_a_heralded_spin_gets_its_first_pulse_on_the_sample(program, fifo_depth):
    bench = Bench(program, HdawgTiming(fifo_depth=fifo_depth))
    bench.send(FIRST_ATTEMPT, then=3 * PERIOD)
    bench.send(FIRST_ATTEMPT + 1, then=100 * PLAN.spacing_samples)
    # After some attempts with the second word have failed.
    bench.herald(after=6 * PERIOD + DECISION)
    bench.send(FIRST_ROTATION + 8, then=60 * PLAN.spacing_samples)
    bench.send(READOUT, then=60 * PLAN.spacing_samples)
    played = bench.played()
    shown = [entry for _, entry in instructions(played)]
    assert shown == [*sorted(shown[:-2]), FIRST_ROTATION + 8, READOUT]
    assert shown.count(FIRST_ATTEMPT) in {3, 4}
    assert shown.count(FIRST_ATTEMPT + 1) > 4
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


@pytest.mark.parametrize("fifo_depth", [1, 4, 32])
def test_a_word_that_finds_the_attempts_heralded_is_acknowledged_only(program, fifo_depth):
    timing = HdawgTiming(fifo_depth=fifo_depth, dio_latency_samples=0)
    bench = Bench(program, timing)
    bench.send(FIRST_ATTEMPT, then=3 * PERIOD + 1_000)
    first = bench.sent[0][0]
    bench.send(READOUT, then=500)
    bench.herald(after=first + 3 * PERIOD + DECISION - LOOK_SAMPLES - bench.sent[-1][0])
    bench.now += 40 * PLAN.spacing_samples
    before = bench.played()
    assert {EntryKind(TABLE.kind[entry]) for _, entry in before} == {
        EntryKind.ATTEMPT,
        EntryKind.DECOUPLING,
    }
    assert bench.core.trigger_edges[-1][1] == bench.word >> TOGGLE_LINE & 1
    # The next word is the one after the absorbed one, at the end of a block.
    bench.send(FIRST_ROTATION + 8, then=40 * PLAN.spacing_samples)
    bench.send(READOUT, then=40 * PLAN.spacing_samples)
    shown = [entry for _, entry in instructions(bench.played())]
    assert shown == [*[FIRST_ATTEMPT] * 4, FIRST_ROTATION + 8, READOUT]
    assert [level for _, level in bench.core.trigger_edges] == [1, 0, 1, 0]


def test_an_attempt_that_follows_decoupling_is_decided_at_the_same_time_after_it(program):
    """With a deep queue the command comes long before the play; the attempt waits for it."""
    bench = Bench(program, HdawgTiming(fifo_depth=32, dio_latency_samples=0))
    bench.send(FIRST_ROTATION, then=30 * PLAN.spacing_samples)
    bench.send(FIRST_ATTEMPT, then=40 * PLAN.spacing_samples)
    attempts = [start for start, entry in bench.played() if entry == FIRST_ATTEMPT]
    assert set(np.diff(attempts)) == {PERIOD}


def test_a_herald_after_the_decision_counts_for_the_next_attempt(program):
    timing = HdawgTiming(dio_latency_samples=0)
    bench = Bench(program, timing)
    bench.send(FIRST_ATTEMPT, then=20 * PLAN.spacing_samples)
    bench.herald(after=DECISION + LOOK_SAMPLES)
    shown = [entry for _, entry in bench.played()]
    assert shown[:2] == [FIRST_ATTEMPT] * 2
    assert EntryKind(TABLE.kind[shown[2]]) == EntryKind.DECOUPLING


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
    start, entry = bench.played()[0]
    edges = dict(bench.core.player.timeline.marker_edges(start - 1, start + 10_000))
    for marker in range(3):
        assert edges[start + int(TABLE.marker_start[entry, marker])] & 1 << marker
        assert not edges[start + int(TABLE.marker_stop[entry, marker])] & 1 << marker
