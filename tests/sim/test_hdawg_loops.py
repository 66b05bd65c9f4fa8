"""Loops that repeat exactly are passed over, and nobody can tell.

Every scenario runs twice, with and without passing over, and all that can be seen is
compared: plays, signals, edges, registers and times.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from sequences.nv_seqc import TOGGLE, dio_word
from sequences.waveform_table import FIRST_ATTEMPT, FIRST_ROTATION, INITIALISATION, READOUT
from sim.hdawg import HdawgTiming, Play, Repeat, SequencerFault, SimulatedHdawg
from sim.hdawg.timeline import Levels, Timeline, Waveform
from tests.sim.hdawg_setup import SERIAL, ramp, running, table_text
from tests.sim.test_hdawg_nv_program import Controller, prepared, random_timing

SEED = 20260103
LONG = 240_000_000
"""A tenth of a second."""


@dataclass
class Pair:
    """The same instrument twice, of which one executes every iteration of every loop."""

    quick: SimulatedHdawg
    plain: SimulatedHdawg

    def __post_init__(self) -> None:
        self.taken: tuple[list[Play], list[Play]] = ([], [])

    @property
    def both(self) -> tuple[SimulatedHdawg, SimulatedHdawg]:
        return self.quick, self.plain

    @property
    def now(self) -> int:
        return self.plain.now

    def run_until(self, sample: int) -> None:
        for device in self.both:
            device.run_until(sample)

    def write_dio(self, sample: int, word: int) -> None:
        for device in self.both:
            device.write_dio(sample, word)

    def write(self, path: str, value: Any) -> None:
        for device in self.both:
            device.nodes.write(f"/{SERIAL}/{path}", value)

    def read(self, rng: random.Random) -> None:
        """See the same, whatever is looked at."""
        quick, plain = (device.cores[0] for device in self.both)
        assert quick.is_waiting == plain.is_waiting
        assert quick.is_running == plain.is_running
        assert quick.trigger_edges == plain.trigger_edges
        assert quick.dio_edges == plain.dio_edges
        first, second = (core.player.timeline for core in (quick, plain))
        start = self.now - rng.randint(0, 100_000)
        stop = start + rng.randint(1, 150_000)
        match rng.randrange(5):
            case 0:
                assert comparable(first.plays(start, stop)) == comparable(second.plays(start, stop))
            case 1:
                stop = min(stop, start + 3_000)
                assert np.array_equal(first.output(start, stop), second.output(start, stop))
            case 2:
                assert first.marker_edges(start, stop) == second.marker_edges(start, stop)
            case 3:
                assert len(first) == len(second)

    def remove(self, rng: random.Random) -> None:
        """Take what was played or forget it; no play is lost, and none is given twice."""
        start = self.now - rng.randint(0, 100_000)
        if rng.random() < 0.8:
            for taken, device in zip(self.taken, self.both, strict=True):
                taken.extend(unrolled(device.cores[0].player.timeline.take(start)))
        else:
            for taken, device in zip(self.taken, self.both, strict=True):
                taken.clear()
                device.forget_before(start)

    def compare(self) -> None:
        """Nothing is different."""
        quick, plain = (device.cores[0] for device in self.both)
        plays = [
            comparable([*taken, *core.player.timeline.plays()])
            for taken, core in zip(self.taken, (quick, plain), strict=True)
        ]
        first = max(played[0][0] for played in plays) if all(plays) else 0
        assert [p for p in plays[0] if p[0] >= first] == [p for p in plays[1] if p[0] >= first]
        assert quick.trigger_edges == plain.trigger_edges
        assert quick.dio_edges == plain.dio_edges
        assert quick.player.levels == plain.player.levels
        assert plain.steady_period_samples is None
        states = []
        for core in (quick, plain):
            sequencer = core._sequencer
            assert sequencer is not None
            states.append(
                (
                    sequencer.now,
                    sequencer._next,
                    sequencer._registers,
                    sequencer.triggered,
                    sequencer.is_waiting,
                    core.player.state(sequencer.now)[1:],
                )
            )
        assert states[0] == states[1]


def comparable(plays: Iterable[Play]) -> list[tuple[Any, ...]]:
    """Plays with the first value of their waveform instead of its identity."""
    return [
        (
            p.start_sample,
            p.n_samples,
            None if p.waveform is None else float(p.waveform.values[0, 0]),
            p.entry,
            p.levels,
            p.is_held,
        )
        for p in plays
    ]


def unrolled(items: Iterable[Play | Repeat]) -> Iterator[Play]:
    for item in items:
        if isinstance(item, Repeat):
            yield from item.unrolled()
        else:
            yield item


# --- small programs ---------------------------------------------------------------------------

WAVES = "assignWaveIndex(1, placeholder(64), 2, placeholder(64), 0);"
TABLE = [
    {"index": 0, "waveform": {"index": 0}},
    {"index": 1, "waveform": {"playZero": True, "length": 48}},
    {"index": 2, "waveform": {"playHold": True, "length": 64}},
    {"index": 3, "waveform": {"index": 0}, "phase0": {"value": 90.0, "increment": True}},
    {"index": 4, "amplitude0": {"value": 0.5}, "waveform": {"index": 0, "length": 32}},
    {"index": 5, "amplitude0": {"value": 1.0}},
]
PROGRAMS = {
    "a poll without plays": "while (1) { while (getDIO() == 0) {} setTrigger(1); wait(50);"
    " setTrigger(0); while (getDIO() & 1) {} }",
    "zeros without an input": "while (1) { playZero(1600); playZero(48); }",
    "a word played again and again": "var w; while (1) { w = getDIO(); executeTableEntry(w & 3);"
    " playZero(320); }",
    "nested loops": "var i; while (1) { for (i = 0; i < 5; i = i + 1) { executeTableEntry(0); }"
    " playZero(3200); while (getDIO() & 2) { playZero(64); } }",
    "phases that come round": "while (1) { executeTableEntry(3); playZero(160); }",
    "amplitudes": "while (1) { executeTableEntry(4); executeTableEntry(2); executeTableEntry(5);"
    " playZero(96); }",
    "a user register": "while (1) { if (getUserReg(3)) { executeTableEntry(0); } playZero(320); }",
    "the masked word": "while (1) { waitDIOTrigger(); playWaveDIO(); playZero(64); }",
    "edges in the loop": "var w; while (1) { w = getDIO(); setTrigger(w & 1); playZero(640);"
    " setDIO(w); }",
    "waiting for the player": "while (1) { executeTableEntry(0); playZero(960); waitWave();"
    " if (getDIO() & 4) { setTrigger(1); } else { setTrigger(0); } }",
    "a loop that never comes back": "var n = 0; while (1) { n = n + 1; playZero(320); }",
    "a loop that ends": "var n = 0; repeat (300) { n = n + getDIO(); playZero(320); } setDIO(n);",
    "the word that triggered": "while (1) { waitDIOTrigger(); while ((getDIO() & 4) == 0) {"
    " playWaveDIO(); playZero(640); } }",
    "levels that are set again": "while (1) { setTrigger(1); setDIO(5); wait(20);"
    " if (getDIO() & 1) { setTrigger(0); } if (getDIO() & 2) { setDIO(4); } }",
    "held": "executeTableEntry(0); while (1) { executeTableEntry(2); }",
    "other lengths": "var s = 0; while (1) { s = (s + 48) & 255; playZero(320 + s); }",
}

NEVER_STEADY = {"the masked word", "a loop that never comes back", "a loop that ends"}
SOMETIMES_STEADY = {"edges in the loop", "the word that triggered"}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", PROGRAMS)
def test_small_programs_do_the_same(name, seed):
    rng = random.Random(f"{SEED} {name} {seed}")
    depth = rng.choice([1, 2, 4, 9, 32])
    timing = replace(random_timing(rng, depth), dio_trigger=rng.choice(["edge", "level"]))
    settings = [
        ("awgs/0/dio/valid/polarity", "none"),
        ("awgs/0/dio/mask/value", 3),
        ("awgs/0/userregs/3", 0),
    ]
    pair = Pair(
        *(
            running(WAVES + PROGRAMS[name], timing, TABLE, settings, skips_loops=skips)
            for skips in (True, False)
        )
    )
    set_waveform(pair, 1)
    was_steady = False
    for number in range(60):
        action = rng.random()
        if action < 0.25:
            later = pair.now + rng.randint(0, 20_000)
            pair.write_dio(later, rng.randrange(8))
            pair.run_until(later + rng.randint(0, 100))
        elif action < 0.3:
            pair.write("awgs/0/userregs/3", rng.randrange(2))
        elif action < 0.33:
            pair.write("awgs/0/dio/mask/shift", rng.randrange(2))
        elif action < 0.36:
            pair.write("dios/0/mode", rng.choice([0, 1, 1, 1]))
        elif action < 0.38:
            length = rng.choice([32, 48, 64])
            entry = {"index": 0, "waveform": {"index": 0, "length": length}}
            pair.write("awgs/0/commandtable/data", table_text([entry, *TABLE[1:]]))
        elif action < 0.4:
            set_waveform(pair, number)
        elif action < 0.42 and name != "a loop that ends":
            pair.write("awgs/0/enable", 0)
            pair.compare()
            pair.write("awgs/0/enable", 1)
            pair.taken = ([], [])
        elif action < 0.6:
            # A repeat is only taken in whole periods: afterwards less is left to be read.
            (pair.read if seed % 2 else pair.remove)(rng)
        else:
            length = rng.choice([3, 300, 30_000, 300_000])
            pair.run_until(pair.now + rng.randint(1, length))
        was_steady |= pair.quick.cores[0].steady_period_samples is not None
    pair.compare()
    if name not in SOMETIMES_STEADY:
        assert was_steady == (name not in NEVER_STEADY)


def set_waveform(pair: Pair, seed: int) -> None:
    words = (ramp(64, seed) * 32767).astype(np.int16).view(np.uint16).ravel()
    for device in pair.both:
        device.cores[0].set_waveform(0, words)


MOMENTS = {
    "the word is the same at every visit": (
        "while (1) { wait(1000); if (getDIO() & 1) { executeTableEntry(0); wait(50); } }",
        400,
    ),
    "only the player knows what is played": (
        "var n; var m; while (1) { n = (getDIO() & 1) << 6; m = 6400 - n; playZero(m);"
        " n = (getDIO() & 0) << 6; m = 6400 - n; }",
        6_400,
    ),
}


@pytest.mark.parametrize("first", range(0, 80_000, 800))
@pytest.mark.parametrize("name", MOMENTS)
def test_a_word_that_is_there_for_a_moment_is_not_missed(name, first):
    program, length = MOMENTS[name]
    timing = HdawgTiming(fifo_depth=1)
    pair = Pair(
        *(running(WAVES + program, timing, TABLE, skips_loops=skips) for skips in (True, False))
    )
    pair.write_dio(first, 1)
    pair.write_dio(first + length, 0)
    pair.run_until(300_000)
    pair.compare()


def test_the_word_that_triggered_may_differ_though_the_lines_do_not():
    source = (
        WAVES + "while (1) { waitDIOTrigger(); while ((getDIO() & 4) == 0) {"
        " playWaveDIO(); playZero(640); } }"
    )
    settings = [("awgs/0/dio/valid/polarity", "none"), ("awgs/0/dio/mask/value", 3)]
    pair = Pair(
        *(running(source, None, TABLE, settings, skips_loops=skips) for skips in (True, False))
    )
    for number, word in enumerate([8, 2, 4, 2]):
        pair.write_dio(20_000 * (number + 1), word)
    pair.run_until(100_000)
    assert {play.entry for play in pair.quick.cores[0].player.timeline.plays()} == {0, 2, None}
    pair.compare()


@pytest.mark.parametrize(("set_level", "edges"), [("setTrigger", "trigger"), ("setDIO", "dio")])
def test_a_level_set_again_is_an_edge_if_it_was_another(set_level, edges):
    """With the same registers before, so that only the level tells the difference."""
    source = (
        f"var w; while (1) {{ {set_level}(5); wait(200); w = getDIO();"
        f" while (w) {{ {set_level}(4); w = getDIO(); }} }}"
    )
    pair = Pair(*(running(source, skips_loops=skips) for skips in (True, False)))
    for start in range(50_000, 250_000, 50_000):
        pair.write_dio(start, 1)
        pair.write_dio(start + 16 * 333, 0)
    pair.run_until(300_000)
    pair.compare()
    assert len(getattr(pair.quick.cores[0], f"{edges}_edges")) == 9


# --- the program of an NV node ------------------------------------------------------------------

ALPHAS = (0.1, 0.2256)
INSTRUCTIONS = (FIRST_ATTEMPT, FIRST_ATTEMPT + 1, INITIALISATION, READOUT, *range(32, 96, 5))


@pytest.mark.parametrize("spacing", [24_102, 24_101, 24_104])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 8, 16, 32])
def test_the_nv_program_does_the_same(depth, spacing):
    """Random words at random times, obeying the protocol or not, heralds and looks between."""
    rng = random.Random(f"{SEED} {depth} {spacing}")
    table, program = prepared(spacing, ALPHAS)
    timing = random_timing(rng, depth)
    pair = Pair(
        *(
            Controller(timing, table, program, random.Random(SEED), skips).device
            for skips in (True, False)
        )
    )
    toggle, word, written, was_steady = 0, 0, 0, 0
    for step in range(60):
        action = rng.random()
        if action < 0.4:
            toggle = 1 - toggle
            word = dio_word(table, rng.choice(INSTRUCTIONS), toggle)
            later = max(pair.now, written) + rng.randint(0, 2_000)
            written = later + rng.randint(40, 200)
            pair.write_dio(later, word ^ TOGGLE)
            pair.write_dio(written, word)
        elif action < 0.5:
            later = max(pair.now, written) + rng.randint(0, 20_000)
            written = later + rng.randint(0, 30_000)
            pair.write_dio(later, word | 1 << 10)
            pair.write_dio(written, word)
        elif action < 0.65:
            (pair.read if step < 30 else pair.remove)(rng)
        pair.run_until(pair.now + 30_000 + rng.randint(0, rng.choice([1_000, 1_000_000])))
        was_steady += pair.quick.cores[0].steady_period_samples is not None
    pair.compare()
    assert was_steady > 10


@pytest.mark.parametrize(
    ("spacing", "entry", "period"),
    [
        (24_102, FIRST_ROTATION, 8 * 24_102),
        (24_101, FIRST_ROTATION, 16 * 24_101),
        (24_102, FIRST_ATTEMPT, 13_200),
    ],
)
@pytest.mark.parametrize("depth", [1, 4, 32])
def test_a_free_core_costs_nothing(depth, spacing, entry, period, monkeypatch):
    table, program = prepared(spacing, ALPHAS)
    timing = HdawgTiming(fifo_depth=depth)
    controller = Controller(timing, table, program, random.Random(SEED))
    device, core = controller.device, controller.device.cores[0]
    controller.send(entry)
    assert core.steady_period_samples is None
    device.run_until(device.now + 40 * 24_102)
    assert core.steady_period_samples == period
    orders: list[int] = []
    order = core.player.order

    def counted(now: int, *rest: Any, **more: Any) -> int:
        orders.append(now)
        return order(now, *rest, **more)

    monkeypatch.setattr(core.player, "order", counted)
    stop = device.now + LONG
    while device.now < stop:
        device.run_until(device.now + 240_000)
    assert not orders
    items = core.player.timeline.take(stop)
    (repeat,) = (item for item in items if isinstance(item, Repeat))
    assert repeat.period_samples == core.steady_period_samples == period
    assert repeat.count > LONG // period - 5
    assert len(items) < 60
    assert len(orders) <= 2 * len(repeat.plays)
    # A change on the lines ends it as soon as it is seen; it is found again afterwards.
    at = device.now + 10 * period + period // 2
    device.write_dio(at, controller.word | 1 << 20)
    device.run_until(at + timing.dio_latency_samples + 100)
    assert core.steady_period_samples is None
    device.run_until(device.now + 60 * 24_102)
    assert core.steady_period_samples == period
    # The same word again is no change.
    device.write_dio(device.now, controller.word | 1 << 20)
    device.run_until(device.now + timing.dio_latency_samples + 100)
    assert core.steady_period_samples == period
    controller.send(READOUT)
    device.run_until(device.now + 60 * 24_102)
    assert core.is_waiting
    assert core.steady_period_samples is None


def test_the_same_loop_has_the_same_plays():
    """So that what follows from them can be kept, whatever the words were."""
    table, program = prepared(24_102, ALPHAS)
    controller = Controller(HdawgTiming(), table, program, random.Random(SEED))
    device = controller.device
    found = []
    for entry in (40, 56, FIRST_ATTEMPT, READOUT, 72, READOUT, FIRST_ATTEMPT, 40):
        controller.send(entry)
        device.run_until(device.now + 60 * 24_102)
        taken = device.cores[0].player.timeline.take(device.now)
        found += [item for item in taken if isinstance(item, Repeat)]
    kinds = {id(item.plays): item.plays for item in found}
    assert len(found) >= 6
    assert len(kinds) == 2
    assert len(set(kinds.values())) == 2
    assert {play.start_sample for plays in kinds.values() for play in plays[:1]} == {0}


# --- repeats in a timeline ------------------------------------------------------------------------

WAVEFORMS = [Waveform(0, ramp(64, 1), np.ones(64, np.uint8)), Waveform(1, ramp(64, 2), None)]


def loop_of_two(count: int, shift: int = 0) -> Timeline:
    """At 100 + shift and every 500 samples: waveform 0, then at once waveform 1."""
    timeline = Timeline()
    timeline.set_levels(Levels())
    numbers = [timeline.number_of(waveform) for waveform in WAVEFORMS]
    position = timeline.position
    for place, number in enumerate(numbers):
        timeline.record(100 + shift + 64 * place, 64, number, place, False)
    found = timeline.pattern_since(position)
    assert found is not None
    assert found[0] == 100 + shift
    timeline.repeat(600 + shift, 500, count, found[1])
    return timeline


def test_the_plays_before_a_repeat_become_part_of_it():
    (repeat,) = loop_of_two(9).take(10_000)
    assert isinstance(repeat, Repeat)
    assert (repeat.start_sample, repeat.period_samples, repeat.count) == (100, 500, 10)
    assert [play.start_sample for play in repeat.plays] == [0, 64]
    starts = [play.start_sample for play in repeat.unrolled()]
    assert starts == sorted([*range(100, 5_000, 500), *range(164, 5_000, 500)])


@pytest.mark.parametrize("until", [0, 100, 101, 600, 601, 2_345, 4_600, 4_601, 9_999])
def test_whole_periods_that_start_before_a_sample_are_taken(until):
    timeline = loop_of_two(9)
    expected = list(timeline.plays())
    taken = list(unrolled(timeline.take(until)))
    assert len(taken) == 2 * sum(start < until for start in range(100, 5_000, 500))
    assert len(timeline) == 20 - len(taken)
    assert [*taken, *timeline.plays()] == expected
    assert [*taken, *unrolled(timeline.take(10_000))] == expected
    assert len(timeline) == 0


@pytest.mark.parametrize("start", [0, 99, 100, 130, 164, 227, 228, 599, 600, 3_000, 4_799, 9_000])
@pytest.mark.parametrize("length", [1, 70, 500, 6_000])
def test_a_window_of_a_repeat_shows_what_plays_would(start, length):
    timeline = loop_of_two(9)
    plain = Timeline()
    plain.set_levels(Levels())
    numbers = {waveform.index: plain.number_of(waveform) for waveform in WAVEFORMS}
    for play in timeline.plays():
        assert play.waveform is not None
        plain.record(
            play.start_sample, play.n_samples, numbers[play.waveform.index], play.entry or 0, False
        )
    stop = start + length
    assert list(timeline.plays(start, stop)) == list(plain.plays(start, stop))
    assert np.array_equal(timeline.output(start, stop), plain.output(start, stop))
    assert timeline.marker_edges(start, stop) == plain.marker_edges(start, stop)
    timeline.forget_before(start)
    assert list(timeline.plays(start, stop)) == list(plain.plays(start, stop))
    assert sum(play.stop_sample <= start for play in timeline.plays()) <= 3


def test_repeats_that_follow_each_other_become_one():
    timeline = loop_of_two(3)
    # One more period was executed, then others were passed over; a part has been taken.
    (taken,) = timeline.take(700)
    position = timeline.position
    for place in range(2):
        timeline.record(2_100 + 64 * place, 64, place, place, False)
    found = timeline.pattern_since(position)
    assert found is not None
    timeline.repeat(2_600, 500, 5, found[1])
    timeline.repeat(5_100, 500, 2, found[1])
    (rest,) = timeline.take(10_000)
    assert isinstance(taken, Repeat)
    assert isinstance(rest, Repeat)
    assert (taken.start_sample, taken.count) == (100, 2)
    assert (rest.start_sample, rest.count) == (1_100, 2 + 1 + 5 + 2)
    assert rest.plays == taken.plays


@pytest.mark.parametrize(("start", "period"), [(2_101, 500), (2_100, 501)])
def test_repeats_with_a_gap_or_another_period_stay_two(start, period):
    timeline = loop_of_two(3)
    position = timeline.position
    for place in range(2):
        timeline.record(start + 64 * place, 64, place, place, False)
    found = timeline.pattern_since(position)
    assert found is not None
    timeline.repeat(start + period, period, 2, found[1])
    first, second = timeline.take(10_000)
    assert isinstance(first, Repeat)
    assert isinstance(second, Repeat)
    assert (first.count, second.start_sample, second.count) == (4, start, 3)


def test_only_plays_at_the_same_distances_become_part_of_a_repeat():
    timeline = loop_of_two(3)
    position = timeline.position
    for start in (3_000, 3_064):
        timeline.record(start, 64, (start - 3_000) // 64, (start - 3_000) // 64, False)
    found = timeline.pattern_since(position)
    assert found is not None
    timeline.record(3_500, 64, 0, 0, False)
    timeline.record(3_580, 64, 1, 1, False)
    timeline.repeat(4_000, 500, 2, found[1])
    *_, last = timeline.take(10_000)
    assert isinstance(last, Repeat)
    assert (last.start_sample, last.count) == (4_000, 2)


def test_a_repeat_is_no_pattern():
    assert loop_of_two(1).pattern_since(0) is None


def test_edges_of_an_endless_window_are_bounded(monkeypatch):
    monkeypatch.setattr("sim.hdawg.timeline.MAX_RECORDED", 100)
    timeline = loop_of_two(1_000)
    with pytest.raises(ValueError, match=r"more than 100 marker edges .* shorter window"):
        timeline.marker_edges(0, LONG)


def test_a_fault_of_a_core_does_not_come_back_when_it_is_read():
    device = running("playZero(320); while (getDIO() == 0) {} playZero(getDIO());")
    device.run_until(10_000)
    device.write_dio(20_000, 40)
    with pytest.raises(SequencerFault, match="a play of 40 samples"):
        device.run_until(50_000)
    assert len(device.cores[0].player.timeline) == 1
