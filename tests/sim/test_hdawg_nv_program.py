"""The NV node's real sequencer program, compiled by the vendor, on the simulated HDAWG.

What must hold whatever the unpublished latencies and queue depth are: every instruction is
played once and in order, the decoupling pulses between them keep their spacing to the
sample, and the output has no gap while the spin holds a state.
"""

from __future__ import annotations

import json
import random
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from instruments.hdawg import CompiledProgram, compile_program
from sequences.nv_seqc import (
    ACKNOWLEDGE,
    HERALD,
    TOGGLE,
    TOGGLE_LINE,
    TURNAROUND_NS,
    HeraldTiming,
    attempt_period_ns,
    decision_ns,
    dio_word,
    nv_program,
)
from sequences.waveform_table import (
    ENTRIES,
    FIRST_ATTEMPT,
    FIRST_ROTATION,
    READOUT,
    EntryKind,
    TableSettings,
    WaveformTable,
    attempt_alpha_centre,
    build_table,
    rotation_samples,
)
from sim.hdawg import HdawgTiming, Play, SimulatedHdawg
from sim.hdawg.timing import sample_at_ns

SEED = 20260102
INSTRUCTIONS = 20
GRANULE = 16

SPACINGS = (24_102, 1_921, 1_600, 999)
"""Even and odd, with and without a remainder, down to one near the shortest possible."""

ROTATIONS = range(FIRST_ROTATION, FIRST_ROTATION + 64)


@cache
def prepared(spacing: int, alphas: tuple[float, ...] = ()) -> tuple[WaveformTable, CompiledProgram]:
    table = build_table(TableSettings(spacing_samples=spacing, alphas=alphas))
    return table, compile_program(nv_program(table))


class Controller:
    """Speaks the protocol of the DIO lines, as the real-time controller of a node does."""

    def __init__(
        self,
        timing: HdawgTiming,
        table: WaveformTable,
        program: CompiledProgram,
        rng: random.Random,
        skips_loops: bool = True,
    ) -> None:
        self.device = SimulatedHdawg("dev8001", timing=timing, skips_loops=skips_loops)
        self._table = table
        self._rng = rng
        self._toggle = 0
        self.word = 0
        base = "/dev8001/awgs/0/"
        write = self.device.nodes.write
        write("/dev8001/dios/0/mode", "awg_sequencer_commands")
        write(f"{base}dio/strobe/index", TOGGLE_LINE)
        write(f"{base}dio/strobe/slope", "both_edges")
        write(f"{base}elf/data", program.elf)
        for index, words in program.waveforms.items():
            self.device.cores[0].set_waveform(index, words)
        write(f"{base}commandtable/data", program.command_table)
        for output in (0, 1):
            write(f"/dev8001/sigouts/{output}/on", 1)
        write(f"{base}single", 1)
        assert write(f"{base}enable", 1) == 1
        self.device.run_until(20_000)

    def send(self, entry: int, pause: int = 0) -> int:
        """Command an entry after a pause; the sample of the toggle edge."""
        before, self._toggle = self._toggle, 1 - self._toggle
        word = self.word = dio_word(self._table, entry, self._toggle)
        self.device.run_until(self.device.now + pause)
        at = self.device.now
        self.device.write_dio(at, word & ~TOGGLE | before * TOGGLE)
        at += 32 + self._rng.randint(0, 40)
        self.device.write_dio(at, word)
        return at

    def wait_for_acknowledge(self) -> None:
        """Let time pass until the acknowledge line shows the toggle line's level."""
        limit = self.device.now + 100 * 8 * self._table.settings.spacing_samples
        while not self._is_acknowledged():
            assert self.device.now < limit, "no acknowledge"
            self.device.run_until(self.device.now + 500)
        self.device.run_until(self.device.now + sample_at_ns(TURNAROUND_NS))

    def _is_acknowledged(self) -> bool:
        edges = self.device.cores[0].trigger_edges
        return bool(edges) and edges[-1][1] == ACKNOWLEDGE * self._toggle

    @property
    def plays(self) -> list[Play]:
        return list(self.device.cores[0].player.timeline.plays())


def random_timing(rng: random.Random, depth: int) -> HdawgTiming:
    return HdawgTiming(
        fifo_depth=depth,
        dio_period_samples=rng.choice([16, 48]),
        dio_latency_samples=rng.randint(0, 1000),
        play_latency_samples=rng.randint(0, 80),
        output_latency_samples=rng.randint(0, 1000),
        trigger_latency_samples=rng.randint(0, 400),
    )


def pulse_centres(plays: list[Play], table: WaveformTable) -> list[int]:
    half = table.settings.plan.pulse_samples // 2
    return [play.start_sample + (play.entry or 0) % GRANULE + half for play in plays]


def is_instruction(play: Play) -> bool:
    return play.entry is not None and play.entry >= FIRST_ROTATION


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("depth", range(1, 33))
def test_interleaved_instructions_are_played_once_and_decoupled_to_the_sample(depth, spacing):
    rng = random.Random(f"{SEED} {depth} {spacing}")
    table, program = prepared(spacing)
    plan, length = table.settings.plan, rotation_samples(table.settings)
    controller = Controller(random_timing(rng, depth), table, program, rng)
    commanded = []
    for _ in range(INSTRUCTIONS):
        entry = rng.choice(ROTATIONS)
        commanded.append(entry)
        controller.send(entry, pause=rng.randint(0, 24 * spacing))
        controller.wait_for_acknowledge()
    controller.send(READOUT, pause=rng.randint(0, 24 * spacing))
    controller.wait_for_acknowledge()
    plays = controller.plays

    assert [play.entry for play in plays if is_instruction(play)] == [*commanded, READOUT]
    assert all(late.start_sample == early.stop_sample for early, late in pairwise(plays))

    stretches: list[list[Play]] = []
    gate_centres = []
    for play in plays:
        if is_instruction(play):
            stretches.append([])
            gate_centres.append(play.start_sample + length // 2)
        elif play.entry is not None:
            stretches[-1].append(play)
    assert not stretches.pop()
    half = spacing // 2 - plan.gate_excess_samples
    for number, stretch in enumerate(stretches):
        centres = pulse_centres(stretch, table)
        assert set(np.diff(centres)) == {spacing}
        axes = [table.axis[play.entry] for play in stretch]
        assert len(axes) % 8 == 0
        assert axes == [0, 1, 0, 1, 1, 0, 1, 0] * (len(axes) // 8)
        # Exact after the gate; before it, to the nearest granule.
        assert centres[0] - gate_centres[number] == half
        if number + 1 < len(stretches):
            error = gate_centres[number + 1] - centres[-1] - (half + spacing % 2)
            assert -GRANULE // 2 < error <= GRANULE // 2


@pytest.mark.parametrize("depth", range(1, 33))
def test_a_heralded_attempt_is_decoupled_to_the_sample(depth):
    rng = random.Random(f"{SEED} {depth}")
    spacing, n_failed = 24_102, depth % 4
    table, program = prepared(spacing, alphas=(0.2256,))
    herald = HeraldTiming()
    controller = Controller(random_timing(rng, depth), table, program, rng)
    device = controller.device
    at = controller.send(FIRST_ATTEMPT)
    # Half a microsecond before the look at the line.
    early = n_failed * attempt_period_ns(table, herald) + decision_ns(table, herald) - 500
    device.run_until(at + sample_at_ns(early))
    device.write_dio(device.now, controller.word | HERALD)
    device.run_until(device.now + 20 * spacing)
    plays = controller.plays
    attempts = [play for play in plays if is_instruction(play)]
    pulses = [play for play in plays if play.entry is not None and not is_instruction(play)]
    assert len(attempts) == n_failed + 1
    period = attempts[-1].start_sample - attempts[-2].start_sample if n_failed else 0
    assert all(
        later.start_sample - earlier.start_sample == period for earlier, later in pairwise(attempts)
    )
    protected = [play for play in plays if play.start_sample >= attempts[-1].start_sample]
    assert all(late.start_sample == early.stop_sample for early, late in pairwise(protected))
    centres = pulse_centres(pulses, table)
    alpha = attempts[-1].start_sample + attempt_alpha_centre(table.settings)
    assert centres[0] - alpha == spacing // 2 - table.settings.plan.gate_excess_samples
    assert set(np.diff(centres)) == {spacing}


@pytest.mark.parametrize("depth", [1, 2, 5, 32])
def test_attempts_that_fail_are_stopped_by_a_readout(depth):
    rng = random.Random(f"{SEED} {depth}")
    table, program = prepared(24_102, alphas=(0.2256,))
    controller = Controller(HdawgTiming(fifo_depth=depth), table, program, rng)
    for batch in range(1, 4):
        controller.send(FIRST_ATTEMPT, pause=rng.randint(0, 50_000))
        controller.wait_for_acknowledge()
        controller.send(READOUT, pause=rng.randint(0, 400_000))
        controller.wait_for_acknowledge()
        controller.device.run_until(controller.device.now + 20_000)
        assert controller.device.cores[0].is_waiting
        played = [play for play in controller.plays if play.entry is not None]
        assert [play.entry for play in played].count(READOUT) == batch
        assert played[-1].entry == READOUT
        assert all(play.entry in {FIRST_ATTEMPT, READOUT} for play in played)


def test_what_is_played_is_what_the_table_says():
    """Sampled output and markers of one play of every entry an instruction can ask for."""
    rng = random.Random(SEED)
    table, program = prepared(24_102, alphas=(0.1, 0.2256))
    controller = Controller(HdawgTiming(), table, program, rng)
    device = controller.device
    asked = [
        entry
        for entry in range(ENTRIES)
        if EntryKind(int(table.kind[entry])) in {EntryKind.INITIALISATION, EntryKind.READOUT}
        or entry in {FIRST_ROTATION + 1, FIRST_ROTATION + 40, FIRST_ATTEMPT, FIRST_ATTEMPT + 1}
    ]
    for entry in asked:
        # Each from idle: a readout ends the decoupling after a rotation.
        for word in (entry, READOUT):
            controller.send(word)
            controller.wait_for_acknowledge()
            device.run_until(device.now + 40_000)
    shown = {play.entry: play for play in controller.plays if is_instruction(play)}
    assert set(shown) == set(asked)
    for entry in asked:
        play = shown[entry]
        window = (play.start_sample, play.stop_sample)
        expected = table.waveform(entry)
        assert np.max(np.abs(device.output(0, *window) - expected)) <= 0.5001 / 32767
        words = np.zeros(len(expected), int)
        for at, word in device.cores[0].player.timeline.marker_edges(*window):
            words[at - play.start_sample :] = word
        markers = table.marker_words(entry)
        assert np.array_equal(words, np.zeros_like(words) if markers is None else markers)


def test_one_sample_of_a_waveform_changes_what_is_played():
    table, program = prepared(24_102)
    entry = FIRST_ROTATION + 8
    outputs = []
    for change in (0, 1):
        controller = Controller(HdawgTiming(), table, program, random.Random(SEED))
        words = program.waveforms[entry].copy()
        words[3 * 100] += change  # two values and a marker word for each sample
        controller.device.cores[0].set_waveform(entry, words)
        controller.send(entry)
        controller.wait_for_acknowledge()
        play = next(play for play in controller.plays if play.entry == entry)
        outputs.append(controller.device.output(0, play.start_sample, play.stop_sample))
    different = np.argwhere(outputs[0] != outputs[1])
    assert different.tolist() == [[100, 0]]


def test_the_compiler_agrees_on_the_wave_memory():
    table, program = prepared(24_102, alphas=(0.2256,))
    assert program.warnings == ()
    assert program.wave_memory_fraction == pytest.approx(table.wave_memory_fraction, rel=1e-6)
    assert len(json.loads(program.command_table)["table"]) == ENTRIES == len(program.waveforms)
