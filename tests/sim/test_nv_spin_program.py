"""The electron spin under the NV node's real sequencer program, on the simulated HDAWG.

From the compiler's ELF file and the waveform table to a quantum state: gates commanded over
the DIO lines must come out as the ideal ones on every 14N line, and the coherence must last as
long as the shifted copies let it.
"""

from __future__ import annotations

import math
import random
from functools import cache

import numpy as np
import pytest

from instruments.hdawg import CompiledProgram, compile_program
from qnodeos.qdevice.instructions import Axis
from sequences.nv_seqc import TOGGLE, TOGGLE_LINE, dio_word, nv_program
from sequences.pulses import PulseCalibration
from sequences.waveform_table import (
    FIRST_ROTATION,
    TableSettings,
    WaveformTable,
    build_table,
    rotation_samples,
)
from sim.hdawg import Play, SimulatedHdawg
from sim.hdawg.timeline import Repeat
from sim.nv.physics import NVPhysics
from sim.nv.spin import LINES, ElectronSpin, Microwaves
from sim.pauli import PauliState, rotation

SEED = 20260303
SPACING = 24_102
BLOCK = 8 * SPACING
START = 20_000
X90, X270, Y90 = 8, 24, 32 + 8
"""Arguments of SQG: axis * 32 + steps."""
LASTING = NVPhysics(initialisation_error=0, coherence_time_ms=math.inf)


@cache
def prepared(shifted_copies: int) -> tuple[WaveformTable, CompiledProgram]:
    settings = TableSettings(
        calibration=PulseCalibration.for_full_scale_rabi(LASTING.full_scale_rabi_hz),
        spacing_samples=SPACING,
        shifted_copies=shifted_copies,
        alphas=(),
    )
    table = build_table(settings)
    return table, compile_program(nv_program(table))


def driven(arguments: list[int], pauses: list[int], shifted_copies: int = 16) -> SimulatedHdawg:
    """An AWG that has played rotations, each followed by a pause in samples."""
    table, program = prepared(shifted_copies)
    device = SimulatedHdawg("dev8001")
    base = "/dev8001/awgs/0/"
    write = device.nodes.write
    write("/dev8001/dios/0/mode", "awg_sequencer_commands")
    write(f"{base}dio/strobe/index", TOGGLE_LINE)
    write(f"{base}dio/strobe/slope", "both_edges")
    write(f"{base}elf/data", program.elf)
    for index, words in program.waveforms.items():
        device.cores[0].set_waveform(index, words)
    write(f"{base}commandtable/data", program.command_table)
    write(f"{base}single", 1)
    write(f"{base}enable", 1)
    device.run_until(START)
    toggle = 0
    for argument, pause in zip(arguments, pauses, strict=True):
        before, toggle = toggle, 1 - toggle
        word = dio_word(table, FIRST_ROTATION + argument, toggle)
        device.write_dio(device.now, word & ~TOGGLE | before * TOGGLE)
        device.write_dio(device.now + 32, word)
        device.run_until(device.now + pause)
    return device


def played(arguments: list[int], pauses: list[int], shifted_copies: int = 16) -> list[Play]:
    """What that AWG plays, one by one."""
    device = driven(arguments, pauses, shifted_copies)
    return list(device.cores[0].player.timeline.plays())


def gate_plays(plays: list[Play]) -> list[Play]:
    return [play for play in plays if play.entry is not None and play.entry >= FIRST_ROTATION]


def echo_samples(plays: list[Play], shifted_copies: int = 16) -> list[int]:
    """Half a spacing after every whole block behind the last gate."""
    table, _ = prepared(shifted_copies)
    gate = gate_plays(plays)[-1]
    centre = gate.start_sample + rotation_samples(table.settings) // 2
    last = plays[-1].stop_sample
    blocks = (last - centre) // BLOCK
    excess = table.settings.plan.gate_excess_samples
    return [centre - excess + number * BLOCK for number in range(1, blocks)]


def spin_on(line: int, plays: list[Play], physics: NVPhysics) -> ElectronSpin:
    """A spin in |0> on one of the lines, just before the first play."""
    spin = ElectronSpin(physics, lambda: Microwaves(2e9, 0.0), random.Random(SEED))
    spin.reset(plays[0].start_sample)
    spin.line = line
    return spin


def states(
    plays: list[Play], samples: list[int], physics: NVPhysics = LASTING
) -> list[list[np.ndarray]]:
    """Bloch vectors at samples, for every line."""
    found = []
    for line in LINES:
        spin, rest, vectors = spin_on(line, plays, physics), list(plays), []
        for sample in samples:
            due = [play for play in rest if play.stop_sample <= sample]
            spin.play(due)
            rest = rest[len(due) :]
            vectors.append(spin.state_at(sample).tensor[1:])
        found.append(vectors)
    return found


def ideal(arguments: list[int]) -> np.ndarray:
    state = PauliState.from_populations(1.0)
    for argument in arguments:
        state.apply(0, rotation(Axis(argument // 32), argument % 32))
    return state.tensor[1:]


def infidelity(plays: list[Play], arguments: list[int], shifted_copies: int = 16) -> float:
    """Of the state some blocks after the last gate, averaged over the lines."""
    sample = echo_samples(plays, shifted_copies)[0]
    target = ideal(arguments)
    vectors = [vectors[0] for vectors in states(plays, [sample])]
    return float(np.mean([(1 - vector @ target) / 2 for vector in vectors]))


@pytest.mark.parametrize("argument", [*range(0, 64, 5), X90, 16, 32 + 16])
def test_one_gate_is_the_ideal_rotation_on_every_line(argument):
    plays = played([argument], [4 * BLOCK])
    # Worst is a pi pulse on the outer lines, 6e-4 of flip probability.
    assert infidelity(plays, [argument]) < 5e-4


@pytest.mark.parametrize("number", range(6))
def test_gates_under_decoupling_follow_each_other_as_ideal_ones(number):
    rng = random.Random(SEED + number)
    arguments = [rng.randrange(64) for _ in range(6)]
    pauses = [rng.randint(2 * BLOCK, 9 * BLOCK) for _ in arguments]
    plays = played(arguments, [*pauses[:-1], 4 * BLOCK])
    assert [play.entry for play in gate_plays(plays)] == [
        FIRST_ROTATION + argument for argument in arguments
    ]
    # The worst of 40 such sequences had 3.2e-4 for each gate.
    assert infidelity(plays, arguments) < 5e-4 * len(arguments)


def test_with_one_copy_the_same_gates_fail():
    arguments, pauses = [X90, X270], [10 * BLOCK, 4 * BLOCK]
    fine, coarse = (infidelity(played(arguments, pauses, n), arguments, n) for n in (16, 1))
    assert fine < 2e-3
    assert coarse > 0.1


def test_x_on_plus_does_nothing_and_y_on_plus_turns_it():
    plus = played([Y90, X90], [3 * BLOCK, 4 * BLOCK])
    assert infidelity(plus, [Y90]) < 1e-3
    zero = played([Y90, 32 + 24], [3 * BLOCK, 4 * BLOCK])
    assert infidelity(zero, []) < 1e-3


def decay(shifted_copies: int, n_blocks: int, physics: NVPhysics) -> tuple[np.ndarray, np.ndarray]:
    """Times in ms and coherence, the mean of the lines, after every block behind a gate."""
    plays = played([X90], [n_blocks * BLOCK], shifted_copies)
    samples = echo_samples(plays, shifted_copies)
    vectors = np.array(states(plays, samples, physics))
    times_ms = (np.array(samples) - plays[0].start_sample) / 2.4e6
    return times_ms, -vectors.mean(axis=0)[:, 1]


def time_of_one_e(times_ms: np.ndarray, coherence: np.ndarray) -> float:
    """When the coherence first falls to 1/e, by interpolation."""
    below = int(np.argmax(coherence < math.exp(-1)))
    assert below, "it does not fall so far"
    step = slice(below - 1, below + 1)
    return float(np.interp(-math.exp(-1), -coherence[step], times_ms[step]))


def test_sixteen_copies_keep_the_coherence_for_13_ms():
    times_ms, coherence = decay(16, 180, NVPhysics(initialisation_error=0))
    assert time_of_one_e(times_ms, coherence) == pytest.approx(13.0, abs=0.05)
    # An exponential from the first block to the last.
    assert np.allclose(coherence, np.exp(-times_ms / 13), rtol=0, atol=1e-4)


def test_the_pulses_alone_cost_next_to_nothing():
    _, coherence = decay(16, 180, LASTING)
    assert coherence.min() > 0.9999


def test_one_copy_keeps_it_for_less_than_4_ms():
    times_ms, coherence = decay(1, 60, NVPhysics(initialisation_error=0))
    assert 1.0 < time_of_one_e(times_ms, coherence) < 4.0


@pytest.mark.parametrize(("shifted_copies", "samples_a_block"), [(8, 0), (4, 16), (2, 16), (1, 16)])
def test_fewer_copies_cost_what_their_delays_miss(shifted_copies, samples_a_block):
    """The closed form: every block adds a phase error, cos on the two outer lines.

    Successive pulses at this spacing are due 6 samples later in their granules. All delays are
    even, so 8 copies miss none; what 4, 2 or 1 miss alternates to 8 samples, twice, a block.
    """
    table, _ = prepared(shifted_copies)
    plan, step = table.settings.plan, 16 // shifted_copies
    first = plan.lead_in(*[rotation_samples(table.settings) // part for part in (1, 2)]).shift
    missed = [(first + SPACING * number) % 16 % step for number in range(8)]
    assert 2 * abs(sum(missed[::2]) - sum(missed[1::2])) == samples_a_block

    _, coherence = decay(shifted_copies, 60, LASTING)
    blocks = np.arange(1, len(coherence) + 1)
    phase = 2 * math.pi * LASTING.hyperfine_hz * samples_a_block / 2.4e9 * blocks
    # Found within 3e-3, for one copy; the closed form takes the pulses for ideal.
    assert np.allclose(coherence, (1 + 2 * np.cos(phase)) / 3, rtol=0, atol=5e-3)


@pytest.mark.parametrize("spacing_of_takes", [BLOCK // 3, 5 * BLOCK, 1000 * BLOCK])
@pytest.mark.parametrize("line", LINES)
def test_the_repeats_of_the_timeline_act_as_the_plays_do(line, spacing_of_takes):
    """Taken piece by piece, as a laboratory does, against every play on its own."""
    arguments, pauses = [X90, 5, Y90], [60 * BLOCK, 33 * BLOCK, 40 * BLOCK]
    plays = played(arguments, pauses)
    timeline = driven(arguments, pauses).cores[0].player.timeline
    one, two = (spin_on(line, plays, LASTING) for _ in range(2))
    one.play(plays)
    n_repeated = 0
    for until in range(0, sum(pauses) + START + 3 * spacing_of_takes, spacing_of_takes):
        items = timeline.take(until)
        n_repeated += sum(item.count for item in items if isinstance(item, Repeat))
        two.play(items)
    assert n_repeated > 50
    assert one.sample == two.sample
    after = one.sample + SPACING // 2
    one_by_one, repeated = (spin.state_at(after).tensor[1:] for spin in (one, two))
    assert np.allclose(one_by_one, repeated, rtol=0, atol=1e-9)
