"""Propagators of sampled microwaves: against QuTiP, the Pauli conventions and each other."""

import math

import numpy as np
import pytest
import qutip
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.qdevice.instructions import Axis
from sequences.pulses import PulseCalibration, rotation_by_steps
from sim.hdawg.timeline import Waveform
from sim.nv.propagator import (
    IDENTITY,
    MAX_CACHED_PULSES,
    Drive,
    PulseLibrary,
    Rotation,
    held,
    precession,
    propagators,
)
from sim.pauli import rotation_unitary, transfer_matrix

SEED = 20260301
RABI_HZ = 30e6
HYPERFINE_HZ = 2.16e6
ON_RESONANCE = Drive(0.0, RABI_HZ, RABI_HZ)
EXACT = PulseCalibration.for_full_scale_rabi(RABI_HZ)
ANGLES = st.floats(-10, 10)


def iq(steps, axis):
    pulse = rotation_by_steps(steps, axis, EXACT)
    values = np.zeros((pulse.n_samples, 2))
    values[:, axis] = pulse.envelope()
    return values


def waveform(values):
    return Waveform(0, np.asarray(values, dtype=float), None)


def random_values(n_samples, seed=SEED):
    return np.random.default_rng(seed).uniform(-1, 1, (n_samples, 2))


def same_up_to_phase(actual, ideal):
    return abs(np.trace(ideal.conj().T @ actual)) / 2


@pytest.mark.parametrize("detuning_hz", [0.0, HYPERFINE_HZ, -17e6])
def test_a_waveform_is_what_qutip_makes_of_it(detuning_hz):
    """Piecewise constant in QuTiP too: one solution of Schroedinger's equation per sample."""
    values = random_values(37)
    [ours] = propagators(values, (RABI_HZ, RABI_HZ), [detuning_hz])
    total = qutip.qeye(2)
    options = {"atol": 1e-12, "rtol": 1e-12, "progress_bar": ""}
    for in_phase, quadrature in values:
        hamiltonian = math.pi * (
            detuning_hz * qutip.sigmaz()
            + RABI_HZ * (in_phase * qutip.sigmax() + quadrature * qutip.sigmay())
        )
        solved = qutip.sesolve(hamiltonian, qutip.qeye(2), [0, 1 / 2.4e9], options=options)
        total = solved.states[-1] * total
    np.testing.assert_allclose(ours.unitary(), total.full(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("axis", [Axis.X, Axis.Y])
def test_pulses_turn_the_way_the_pauli_rotations_do(axis):
    for steps in range(32):
        [ours] = propagators(iq(steps, axis), (RABI_HZ, RABI_HZ), [0.0])
        ideal = rotation_unitary(axis, steps)
        assert same_up_to_phase(ours.unitary(), ideal) == pytest.approx(1, abs=1e-12)
        assert np.allclose(transfer_matrix(ideal)[1:, 1:], ours.bloch(), rtol=0, atol=1e-9)


def test_precession_is_a_turn_about_z():
    # A quarter of a turn of 2.4 MHz are 250 samples.
    actual = precession(250, 2.4e6).unitary()
    assert np.allclose(actual, rotation_unitary(Axis.Z, 8), rtol=0, atol=1e-12)


def test_a_long_wait_keeps_its_phase():
    whole = 10**9 * 1000  # turns of 2.4 MHz, in samples: seven minutes
    assert precession(whole, 2.4e6).a == pytest.approx(1, abs=1e-9)
    assert precession(whole + 250, 2.4e6).unitary() == pytest.approx(
        rotation_unitary(Axis.Z, 8), abs=1e-9
    )


@given(st.integers(1, 80), st.integers(0, 80), st.integers(0, 2**16))
def test_a_waveform_is_the_product_of_its_parts(count, cut, seed):
    values, cut = random_values(count, seed), min(cut, count)
    detunings = [-HYPERFINE_HZ, 0.0, 5e6]
    whole = propagators(values, (RABI_HZ, 20e6), detunings)
    for index, detuning_hz in enumerate(detunings):
        product = IDENTITY
        for part in (values[:cut], values[cut:]):
            if len(part):
                [later] = propagators(part, (RABI_HZ, 20e6), [detuning_hz])
                product = later.after(product)
        assert np.allclose(product, whole[index], rtol=0, atol=1e-12)


@given(ANGLES, ANGLES, ANGLES, ANGLES, ANGLES, ANGLES)
def test_the_algebra_of_the_pairs_is_that_of_matrices(a, b, c, d, e, f):
    one = Rotation(
        math.cos(a) * complex(math.cos(b), math.sin(b)),
        math.sin(a) * complex(math.cos(c), math.sin(c)),
    )
    two = Rotation(
        math.cos(d) * complex(math.cos(e), math.sin(e)),
        math.sin(d) * complex(math.cos(f), math.sin(f)),
    )
    product = one.after(two)
    assert np.allclose(product.unitary(), one.unitary() @ two.unitary(), rtol=0, atol=1e-12)
    transfer = transfer_matrix(one.unitary())[1:, 1:]
    assert np.allclose(one.bloch(), transfer, rtol=0, atol=1e-12)
    assert one.flip_probability == pytest.approx((1 - transfer[2, 2]) / 2, abs=1e-12)


def test_a_level_held_is_a_waveform_of_equal_samples():
    [long] = propagators(np.tile([0.3, -0.2], (101, 1)), (RABI_HZ, RABI_HZ), [1e6])
    [short] = held((0.3, -0.2), 101, (RABI_HZ, RABI_HZ), [1e6])
    assert np.allclose(long, short, rtol=0, atol=1e-12)


# --- the library ---------------------------------------------------------------------------


def test_a_pulse_is_computed_once_and_only_where_something_is_played():
    library = PulseLibrary(HYPERFINE_HZ)
    values = np.zeros((64, 2))
    values[10:50] = random_values(40)
    form = waveform(values)
    pulse = library.pulse(form, ON_RESONANCE)
    assert pulse
    assert (pulse.start, pulse.stop) == (10, 50)
    expected = propagators(values[10:50], (RABI_HZ, RABI_HZ), [-HYPERFINE_HZ, 0, HYPERFINE_HZ])
    assert np.allclose(pulse.lines, expected, rtol=0, atol=1e-12)
    assert library.pulse(form, ON_RESONANCE) is pulse
    assert library.pulse(waveform(np.zeros((64, 2))), ON_RESONANCE) is None


@pytest.mark.parametrize(
    ("drive", "amplitudes"),
    [
        (Drive(0.0, 0.99 * RABI_HZ, 0.99 * RABI_HZ), (1.0, 1.0)),
        (Drive(1e5, RABI_HZ, RABI_HZ), (1.0, 1.0)),
        (Drive(0.0, RABI_HZ, 0.99 * RABI_HZ), (1.0, 1.0)),
        (ON_RESONANCE, (1.0, 0.99)),
    ],
)
def test_another_drive_is_another_pulse(drive, amplitudes):
    library, form = PulseLibrary(HYPERFINE_HZ), waveform(random_values(40))
    before = library.pulse(form, ON_RESONANCE)
    after = library.pulse(form, drive, amplitudes)
    assert before and after
    assert same_up_to_phase(before.lines[1].unitary(), after.lines[1].unitary()) < 1 - 1e-6


def test_one_sample_changes_the_result():
    library, values = PulseLibrary(HYPERFINE_HZ), random_values(40)
    before = library.pulse(waveform(values), ON_RESONANCE)
    changed = values.copy()
    changed[20, 0] += 1 / 32767
    after = library.pulse(waveform(changed), ON_RESONANCE)
    assert before and after
    assert not np.array_equal(before.lines, after.lines)
    assert np.allclose(before.lines, after.lines, rtol=0, atol=1e-5)


def test_the_library_is_bounded():
    library, form = PulseLibrary(HYPERFINE_HZ), waveform(np.ones((1, 2)))
    for index in range(MAX_CACHED_PULSES + 1):
        library.pulse(form, Drive(float(index), RABI_HZ, RABI_HZ))
    assert len(library._pulses) == 1
