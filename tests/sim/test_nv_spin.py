"""The electron spin under hand-made timelines: frames, decay, repeats, pairs and light."""

import math
import random

import numpy as np
import pytest
import qutip
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.qdevice import instructions
from sequences.decoupling import XY8
from sequences.pulses import Axis, PulseCalibration, rotation_by_steps
from sim.hdawg.timeline import Levels, Play, Repeat, Waveform
from sim.nv.physics import NVPhysics
from sim.nv.spin import LINES, ElectronSpin, Microwaves
from sim.pauli import PauliState, rotation, rotation_unitary
from tests.sim.bench import assert_proportion

SEED = 20260302
RESONANCE_HZ = 2.0e9
EXACT = PulseCalibration.for_full_scale_rabi(30e6)
NOISELESS = NVPhysics.noiseless()
SPACING = 24_102
PADDING = 64
T_MS = 13.0
DECAYING = NVPhysics(hyperfine_hz=0, initialisation_error=0, coherence_time_ms=T_MS)


def waveform(steps, axis, amplitude=1.0):
    pulse = rotation_by_steps(steps, axis, EXACT)
    values = np.zeros((PADDING + pulse.n_samples, 2))
    values[PADDING:, axis] = amplitude * pulse.envelope()
    return Waveform(0, values, None)


X90, X180, Y180 = waveform(8, Axis.X), waveform(16, Axis.X), waveform(16, Axis.Y)
PI = {Axis.X: X180, Axis.Y: Y180}


def play(form, centre, levels=None):
    """A play whose pulse has its middle at a sample."""
    length = len(form.values)
    start = centre - (length - PADDING) // 2 - PADDING
    return Play(start, length, form, None, levels or Levels(), False)


def silence(start, n_samples, is_held=False):
    return Play(start, n_samples, None, None, Levels(), is_held)


def xy8(first, blocks):
    """Decoupling pulses from the centre of the first on."""
    return [play(PI[XY8[n % 8]], first + n * SPACING) for n in range(8 * blocks)]


def spin_at(sample=0, physics=NOISELESS, line=0, **microwaves):
    state = Microwaves(**{"frequency_hz": RESONANCE_HZ, "power_dbm": 0.0, **microwaves})
    spin = ElectronSpin(physics, lambda: state, random.Random(SEED))
    spin.reset(sample)
    spin.line = line
    return spin


def bloch(spin, sample):
    return spin.state_at(sample).tensor[1:]


# --- gates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [Axis.X, Axis.Y])
@pytest.mark.parametrize("steps", range(32))
def test_a_gate_is_the_ideal_rotation(axis, steps):
    spin, expected = spin_at(), PauliState.from_populations(1.0)
    items = []
    for number, (turn, about) in enumerate([(3, Axis.X), (5, Axis.Y), (steps, axis)]):
        items.append(play(waveform(turn, about), 1000 * (number + 1)))
        expected.apply(0, rotation(instructions.Axis(about), turn))
    spin.play(items)
    assert np.allclose(bloch(spin, 5000), expected.tensor[1:], rtol=0, atol=1e-9)


def test_x_does_nothing_to_plus():
    spin = spin_at()
    spin.play([play(waveform(8, Axis.Y), 1000)])
    before = bloch(spin, 1500)
    assert before == pytest.approx([1, 0, 0], abs=1e-9)
    spin.play([play(X180, 2000), play(X90, 3000)])
    assert bloch(spin, 4000) == pytest.approx([1, 0, 0], abs=1e-9)


def test_the_order_in_which_it_is_told_makes_no_difference():
    items = [play(X90, 1000), silence(1200, 800), *xy8(30_000, 2), play(X90, 500_000)]
    one, two = spin_at(physics=DECAYING), spin_at(physics=DECAYING)
    one.play(items)
    for item in items:
        two.play([item])
        two.state_at(two.sample + 10)
    assert np.array_equal(bloch(one, 600_000), bloch(two, 600_000))


def test_looking_on_the_way_changes_nothing():
    items = [play(X90, 1000), *xy8(30_000, 2), play(X90, 500_000)]
    one, two = spin_at(physics=DECAYING, line=1), spin_at(physics=DECAYING, line=1)
    one.play(items)
    for item in items:
        two.bring_to(item.start_sample)
        two.play([item])
    # A look splits the decay, which then stands where the pulses are not yet quite pi.
    assert np.allclose(bloch(one, 600_000), bloch(two, 600_000), rtol=0, atol=1e-12)


def test_nothing_happens_before_what_has_happened():
    spin = spin_at(1000)
    for act in (
        lambda: spin.play([play(X90, 900)]),
        lambda: spin.measure(999, 0.5),
        lambda: spin.state_at(999),
        lambda: spin.bring_to(999),
        lambda: spin.reset(999),
        lambda: spin.pump(999, 0.1, 0.5),
        lambda: spin.play([Repeat(0, SPACING, 3, (play(X180, 200),))]),
    ):
        with pytest.raises(ValueError, match="in the order of time"):
            act()


# --- the source ------------------------------------------------------------------------------


def test_half_the_power_turns_by_less():
    spin = spin_at(power_dbm=-20 * math.log10(2))
    spin.play([play(X180, 1000)])
    assert bloch(spin, 2000) == pytest.approx([0, -1, 0], abs=1e-9)


def test_an_amplitude_error_turns_too_far():
    physics = NOISELESS.model_copy(update={"amplitude_error": 0.5})
    spin = spin_at(physics=physics)
    spin.play([play(X180, 1000)])
    assert bloch(spin, 2000) == pytest.approx([0, 1, 0], abs=1e-9)


def test_a_source_that_is_off_and_an_output_that_is_off_turn_nothing():
    for microwaves in ({"on": False}, {"gains": (0.0, 1.0)}):
        spin = spin_at(**microwaves)
        spin.play([play(X180, 1000)])
        assert bloch(spin, 2000) == pytest.approx([0, 0, 1], abs=1e-12)


def test_the_levels_of_the_command_table_scale_a_pulse():
    spin = spin_at()
    spin.play([play(X180, 1000, Levels(amplitudes=(0.5, 1.0)))])
    assert bloch(spin, 2000) == pytest.approx([0, -1, 0], abs=1e-9)


def test_a_held_level_goes_on_driving():
    # 30 MHz at full scale: a quarter of a turn is 20 samples; 8 are played and 12 held.
    form = Waveform(0, np.tile([1.0, 0.0], (8, 1)), None)
    spin = spin_at()
    spin.play([Play(100, 8, form, None, Levels(), False), silence(108, 12, is_held=True)])
    assert bloch(spin, 200) == pytest.approx([0, -1, 0], abs=1e-9)


def test_a_detuned_source_sees_the_spin_precess():
    spin = spin_at(frequency_hz=RESONANCE_HZ - 0.1e6)
    spin.play([play(X90, 1000)])
    one = bloch(spin, 2000)
    # A quarter of a turn of 0.1 MHz later, anticlockwise: -Y becomes X.
    two = bloch(spin, 2000 + 6000)
    turned = rotation(instructions.Axis.Z, 8)[1:, 1:] @ one
    assert two == pytest.approx(turned, abs=1e-9)
    assert one[0] > 0 > one[1]


@pytest.mark.parametrize("line", LINES)
def test_a_hyperfine_line_precesses_and_is_refocused(line):
    physics = NOISELESS.model_copy(update={"hyperfine_hz": 2.16e6})
    spin = spin_at(physics=physics, line=line)
    half = SPACING // 2
    # A quarter turn acts 3.5 samples after its centre on a detuned line, whence the 3.
    spin.play([play(X90, 1000), play(X180, 1000 + half - 3)])
    free = bloch(spin, 1000 + half + 2000)
    echo = bloch(spin, 1000 + 2 * half - 6)
    assert echo == pytest.approx([0, 1, 0], abs=0.02)
    if line:
        assert abs(free[0]) > 0.1


# --- decay and repeats -----------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_the_coherence_decays_with_the_age_of_the_state(exponent):
    physics = DECAYING.model_copy(update={"coherence_exponent": exponent})
    spin = spin_at(7000, physics)
    first = play(X90, 100_000)
    spin.play([first, *xy8(130_000, 10)])
    stop = 2_400_000  # samples, a millisecond
    # The decay starts with the gate, but the age counts from the reset.
    ages_ms = [(sample - 7000) / 2.4e6 for sample in (first.start_sample + PADDING, stop)]
    kept = math.exp((ages_ms[0] / T_MS) ** exponent - (ages_ms[1] / T_MS) ** exponent)
    assert bloch(spin, stop) == pytest.approx([0, -kept, 0], abs=1e-6)


def test_populations_do_not_decay():
    spin = spin_at(physics=DECAYING)
    spin.play(xy8(30_000, 50))
    assert bloch(spin, 2 * 10**7) == pytest.approx([0, 0, 1], abs=1e-6)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("count", [1, 2, 3, 50])
@pytest.mark.parametrize(("amplitude_error", "atol"), [(0.0, 5e-4), (-0.03, 2e-3)])
def test_a_repeat_is_what_it_repeats(line, count, amplitude_error, atol):
    """Also with pulses too weak by 3 %, so that a period is no identity."""
    physics = NVPhysics(amplitude_error=amplitude_error)
    period = 8 * SPACING
    plays = tuple(item._replace(start_sample=item.start_sample - 1000) for item in xy8(13_000, 1))
    plays = (silence(0, 500), *plays, silence(period - 600, 600))
    start = 5000
    unrolled = [
        item._replace(start_sample=start + turn * period + item.start_sample)
        for turn in range(count)
        for item in plays
    ]
    spins = [spin_at(physics=physics, line=line) for _ in range(2)]
    for spin, items in zip(spins, (unrolled, [Repeat(start, period, count, plays)]), strict=True):
        spin.play([play(waveform(5, Axis.X), 1000)])
        spin.play(items)
        spin.play([play(waveform(3, Axis.Y), start + count * period + 20_000)])
    after = start + (count + 1) * period
    one, two = (bloch(spin, after) for spin in spins)
    assert spins[0].sample == spins[1].sample
    # Pulses that are not quite pi do not commute with the decay, which comes once a period in a
    # repeat, and otherwise at the end or before every pulse that is far from pi.
    assert np.allclose(one, two, rtol=0, atol=atol)
    assert np.linalg.norm(one) > 0.5


def test_a_repeat_is_exact_without_decay():
    plays = tuple(xy8(13_000, 1))
    period, count = 8 * SPACING, 137
    unrolled = [
        item._replace(start_sample=turn * period + item.start_sample)
        for turn in range(count)
        for item in plays
    ]
    physics = NOISELESS.model_copy(update={"hyperfine_hz": 2.16e6, "amplitude_error": 0.02})
    spins = [spin_at(physics=physics, line=1) for _ in range(2)]
    for spin, items in zip(spins, (unrolled, [Repeat(0, period, count, plays)]), strict=True):
        spin.play([play(waveform(5, Axis.X), 1000), *items])
    after = (count + 1) * period
    assert bloch(spins[0], after) == pytest.approx(bloch(spins[1], after), abs=1e-9)


def test_repeated_silence_is_only_waiting():
    spin = spin_at(physics=DECAYING)
    spin.play([play(X90, 1000)])
    before = bloch(spin, 10**6)
    spin.play([Repeat(2000, 1000, 500, (silence(0, 1000),))])
    assert np.array_equal(bloch(spin, 10**6), before)


# --- pairs -----------------------------------------------------------------------------------


def test_half_of_a_pair_is_turned_and_the_other_half_is_not():
    pair = PauliState.from_pure(np.array([1, 0, 0, 1]) / math.sqrt(2))
    spin = spin_at()
    spin.adopt(pair.qubits[0], 5000)
    assert spin.age_samples == 0
    spin.play([play(X90, 8000)])
    spin.bring_to(9000)
    turned = (
        np.kron(rotation_unitary(instructions.Axis.X, 8), np.eye(2)) @ [1, 0, 0, 1] / math.sqrt(2)
    )
    assert pair.fidelity(turned) == pytest.approx(1, abs=1e-9)


def test_each_half_decays_by_its_own_age():
    pair = PauliState.from_pure(np.array([1, 0, 0, 1]) / math.sqrt(2))
    spins = [spin_at(physics=DECAYING) for _ in range(2)]
    for spin, qubit in zip(spins, pair.qubits, strict=True):
        spin.adopt(qubit, 1000)
    for spin, ms in zip(spins, (1, 3), strict=True):
        spin.bring_to(1000 + ms * 2_400_000)
    assert pair.expectation(1, 1) == pytest.approx(math.exp(-4 / T_MS), abs=1e-12)
    assert pair.expectation(3, 3) == pytest.approx(1, abs=1e-12)


def test_measuring_one_half_leaves_the_other_to_its_holder():
    pair = PauliState.from_pure(np.array([0, 1, -1, 0]) / math.sqrt(2))
    a, b = spin_at(), spin_at()
    a.adopt(pair.qubits[0], 1000)
    b.adopt(pair.qubits[1], 1000)
    bit = a.measure(2000, 0.7)
    assert bit == 1
    assert bloch(a, 3000) == pytest.approx([0, 0, -1], abs=1e-12)
    assert bloch(b, 3000) == pytest.approx([0, 0, 1], abs=1e-12)


def test_a_pair_that_is_pumped_away_leaves_a_mixture():
    pair = PauliState.from_pure(np.array([1, 0, 0, 1]) / math.sqrt(2))
    a, b = spin_at(), spin_at()
    a.adopt(pair.qubits[0], 1000)
    b.adopt(pair.qubits[1], 1000)
    a.pump(2000, 0.0, 0.9)
    assert bloch(a, 2000) == pytest.approx([0, 0, 1], abs=1e-12)
    assert bloch(b, 2000) == pytest.approx([0, 0, -1], abs=1e-12)
    assert pair.tensor.ndim == 1


# --- light -----------------------------------------------------------------------------------


def test_a_reset_spin_has_the_initialisation_error():
    spin = spin_at(physics=NVPhysics(initialisation_error=0.01))
    assert bloch(spin, 100) == pytest.approx([0, 0, 0.98], abs=1e-12)
    spin.reset(200, zero=0.0)
    assert bloch(spin, 200) == pytest.approx([0, 0, -1], abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_pumping_in_steps_is_pumping_at_once(lefts):
    physics = NVPhysics(initialisation_error=0.03)
    one, two = spin_at(physics=physics), spin_at(physics=physics)
    for spin in (one, two):
        spin.reset(10, zero=0.2)
    for number, left in enumerate(lefts):
        one.pump(20 + number, left, 0.5)
    two.pump(30, math.prod(lefts), 0.5)
    assert bloch(one, 30) == pytest.approx(bloch(two, 30), abs=1e-12)
    expected = 0.03 + (0.8 - 0.03) * math.prod(lefts)
    assert (1 - bloch(two, 30)[2]) / 2 == pytest.approx(expected, abs=1e-12)


def test_every_line_is_drawn_one_time_in_three():
    spin = spin_at()
    drawn = []
    for sample in range(3000):
        spin.reset(sample)
        drawn.append(spin.line)
    for line in LINES:
        assert_proportion(drawn.count(line), len(drawn), 1 / 3)


@pytest.mark.parametrize("wait", [76, 176, 326, 476, 1076])
def test_three_lines_make_the_beat_of_a_free_decay(wait):
    """Ramsey without decoupling against QuTiP: the mean of three precessions."""
    physics = NOISELESS.model_copy(update={"hyperfine_hz": 2.16e6})
    # A quarter turn acts 3.5 samples later than its centre: 31.5 ns, half of it is 30 ns.
    precessed_s = (wait + 3.5) / 2.4e9
    found, expected = np.zeros(3), np.zeros(3)
    quarter = (-0.25j * math.pi * qutip.sigmax()).expm()
    for line in LINES:
        spin = spin_at(physics=physics, line=line)
        spin.play([play(X90, 1000)])
        found += bloch(spin, 1000 + wait) / 3
        turn = (-1j * math.pi * line * 2.16e6 * precessed_s * qutip.sigmaz()).expm()
        psi = turn * quarter * qutip.basis(2, 0)
        axes = (qutip.sigmax(), qutip.sigmay(), qutip.sigmaz())
        expected += np.array([qutip.expect(axis, psi) for axis in axes]) / 3
    assert np.allclose(found, expected, rtol=0, atol=2e-3)
