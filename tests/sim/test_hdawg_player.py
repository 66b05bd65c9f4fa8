"""The queue of play commands, and the signals a timeline makes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.hdawg import HdawgTiming, SequencerFault
from sim.hdawg import timeline as timeline_module
from sim.hdawg.player import Player
from sim.hdawg.timeline import NOTHING, Levels, Timeline, Waveform
from tests.sim.hdawg_setup import ramp, running

LENGTHS = st.integers(2, 40).map(lambda granules: 16 * granules)
ORDERS = st.lists(st.tuples(st.integers(0, 30), LENGTHS), min_size=12, max_size=40)


@given(orders=ORDERS, depth=st.integers(1, 8), latency=st.integers(0, 50))
def test_the_queue_holds_its_depth_and_nothing_overlaps(orders, depth, latency):
    """Orders come after idle cycles of the sequencer, which stalls when the queue is full."""
    player = Player(
        HdawgTiming(fifo_depth=depth, play_latency_samples=latency, output_latency_samples=0)
    )
    now, executed = 0, []
    for idle_cycles, length in orders:
        wanted = now + 8 * idle_cycles
        now = player.order(wanted, length)
        executed.append((wanted, now))
        now += 8
    plays = list(player.timeline.plays())
    assert [play.n_samples for play in plays] == [length for _, length in orders]
    starts = [play.start_sample for play in plays]
    for index, (play, (wanted, at)) in enumerate(zip(plays, executed, strict=True)):
        before = plays[index - 1].stop_sample if index else 0
        # As early as it can: at once, or without a gap.
        assert play.start_sample == max(at + latency, before)
        # A command still waits if it has not started; the queue never holds more than fit.
        waiting = sum(start > at for start in starts[:index])
        assert waiting < depth
        assert (at - wanted) % 8 == 0
        if at > wanted:
            # It stalled no longer than it had to.
            assert sum(start > at - 8 for start in starts[:index]) >= depth


def recorded(items: list[tuple[int, int, int, bool]], waveforms: list[Waveform]) -> Timeline:
    timeline = Timeline()
    timeline.set_levels(Levels())
    numbers = [timeline.number_of(waveform) for waveform in waveforms]
    for start, n_samples, wave, is_held in items:
        number = NOTHING if wave == NOTHING else numbers[wave]
        timeline.record(start, n_samples, number, NOTHING, is_held)
    return timeline


MARKERS = np.arange(64, dtype=np.uint8) // 20
WAVES = [Waveform(0, ramp(64, 1), None), Waveform(1, ramp(64, 2), MARKERS)]
# Wave 0, held, a gap, wave 1, zeros, held zeros, wave 1 shortened.
ITEMS = [
    (100, 64, 0, False),
    (164, 32, NOTHING, True),
    (300, 64, 1, False),
    (364, 32, NOTHING, False),
    (396, 32, NOTHING, True),
    (428, 32, 1, False),
]


def reference() -> tuple[np.ndarray, np.ndarray]:
    values, markers = np.zeros((600, 2)), np.zeros(600, int)
    values[100:164] = WAVES[0].values
    values[164:196] = WAVES[0].values[-1]
    values[300:364] = WAVES[1].values
    markers[300:364] = MARKERS
    values[428:460] = WAVES[1].values[:32]
    markers[428:460] = MARKERS[:32]
    return values, markers


@given(start=st.integers(0, 599), length=st.integers(1, 600))
def test_any_window_shows_the_same_signals(start, length):
    timeline, (values, markers) = recorded(ITEMS, WAVES), reference()
    stop = min(600, start + length)
    assert np.array_equal(timeline.output(start, stop), values[start:stop])
    word, shown = 0, np.zeros(stop - start, int)
    edges = timeline.marker_edges(start, stop)
    for (at, new), following in zip(edges, [*edges, (stop, 0)][1:], strict=True):
        assert new != word
        word = new
        shown[at - start : following[0] - start] = new
    assert np.array_equal(shown, markers[start:stop])


def test_amplitudes_scale_and_are_held_too():
    timeline = recorded([], WAVES)
    timeline.set_levels(Levels(amplitudes=(0.5, -1.0)))
    timeline.record(0, 64, 0, NOTHING, False)
    timeline.set_levels(Levels())
    timeline.record(64, 32, NOTHING, NOTHING, True)
    expected = WAVES[0].values * (0.5, -1.0)
    assert np.array_equal(timeline.output(0, 64), expected)
    assert np.array_equal(timeline.output(90, 96), np.tile(expected[-1], (6, 1)))


@given(sample=st.integers(0, 600))
def test_forgetting_keeps_what_comes_after(sample):
    timeline, (values, _) = recorded(ITEMS, WAVES), reference()
    timeline.forget_before(sample)
    assert np.array_equal(timeline.output(sample, 600), values[sample:])
    # One play may be kept for its last sample, and one more for the value held from it.
    assert all(play.stop_sample > sample for play in list(timeline.plays())[2:])


def test_the_timeline_is_bounded(monkeypatch):
    monkeypatch.setattr(timeline_module, "MAX_RECORDED", 3)
    timeline = recorded(ITEMS[:3], WAVES)
    with pytest.raises(SequencerFault, match=r"call forget_before\(\)"):
        timeline.record(600, 32, NOTHING, NOTHING, False)
    timeline.forget_before(320)
    timeline.record(600, 32, NOTHING, NOTHING, False)
    for phase in range(1, 3):
        timeline.set_levels(Levels(phases_deg=(float(phase), 0.0)))
    with pytest.raises(SequencerFault, match="different phases"):
        timeline.set_levels(Levels(phases_deg=(9.0, 0.0)))


TABLE = [
    {"index": 0, "waveform": {"index": 0}, "phase0": {"value": 10.0}},
    {"index": 1, "phase0": {"value": 355.0, "increment": True}, "phase1": {"value": 7.0}},
    {"index": 2, "waveform": {"index": 0, "length": 32}, "amplitude1": {"value": -0.25}},
    {"index": 3, "waveform": {"playZero": True, "length": 48}},
    {"index": 4, "waveform": {"playHold": True, "length": 64}},
]


def test_table_entries_set_add_and_play():
    source = (
        "assignWaveIndex(1, placeholder(64), 2, placeholder(64), 0);"
        + "".join(f"executeTableEntry({entry});" for entry in (0, 1, 2, 3, 4))
        + "playHold(32); playZero(32);"
    )
    device = running(source, table=TABLE)
    device.run_until(10_000)
    plays = list(device.cores[0].player.timeline.plays())
    assert [(play.entry, play.n_samples, play.wave_index, play.is_held) for play in plays] == [
        (0, 64, 0, False),
        (2, 32, 0, False),
        (3, 48, None, False),
        (4, 64, None, True),
        (None, 32, None, True),
        (None, 32, None, False),
    ]
    assert plays[0].levels == Levels((10.0, 0.0))
    assert {play.levels for play in plays[1:]} == {Levels((5.0, 7.0), (1.0, -0.25))}


def test_latencies_move_the_whole_timeline():
    def first_start(play: int, output: int) -> int:
        timing = HdawgTiming(play_latency_samples=play, output_latency_samples=output)
        device = running("playZero(64);", timing)
        device.run_until(10_000)
        return next(device.cores[0].player.timeline.plays()).start_sample

    base = first_start(24, 600)
    assert first_start(64, 600) == base + 40
    assert first_start(24, 613) == base + 13
