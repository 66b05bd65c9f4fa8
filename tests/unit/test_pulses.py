"""Hermite pulses: shape, angle, limits, and what they do to a spin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.linalg import expm

from sequences.decoupling import GATE_EXCESS_SAMPLES
from sequences.errors import PulseError, SequenceError
from sequences.program import SAMPLE_RATE_HZ
from sequences.pulses import (
    ASSUMED_FULL_SCALE_RABI_HZ,
    HERMITE_PI,
    HERMITE_PI_HALF,
    Axis,
    Pulse,
    PulseCalibration,
    bright_state_angle,
    envelope_area_s,
    hermite_envelope,
    rotation,
    rotation_by_steps,
)
from tests.unit.spin_half import (
    FULL_SCALE_RABI_HZ,
    HYPERFINE_HZ,
    X,
    Y,
    Z,
    free,
    infidelity,
    propagator,
    rotation_matrix,
)

EXACT = PulseCalibration.for_full_scale_rabi(FULL_SCALE_RABI_HZ)
PAULI = {Axis.X: X, Axis.Y: Y}
CALIBRATIONS = st.builds(
    PulseCalibration.for_full_scale_rabi,
    st.floats(30e6, 200e6),
    pi_ns=st.floats(126, 900),
    pi_half_ns=st.floats(60, 900),
)


def iq(pulse: Pulse):
    waveform = np.zeros((pulse.n_samples, 2))
    waveform[:, pulse.axis] = pulse.envelope()
    return waveform


def test_lengths_at_the_sample_rate():
    # 126 ns are 302.4 samples, 60 ns are 144.
    assert (EXACT.pi_samples, EXACT.pi_half_samples) == (302, 144)


@pytest.mark.parametrize("coefficient", [HERMITE_PI, HERMITE_PI_HALF])
def test_the_envelope_is_the_published_one(coefficient):
    def published(t_ns):
        x = (t_ns - 63) / (0.1667 * 126)
        return (1 - coefficient * x * x) * math.exp(-x * x)

    n_samples = 302_400
    envelope = hermite_envelope(n_samples, coefficient)
    assert np.array_equal(envelope, envelope[::-1])
    assert envelope.max() == pytest.approx(1, abs=1e-9)
    area_ns = envelope.mean() * 126
    assert area_ns == pytest.approx(quad(published, 0, 126, epsabs=1e-12)[0], rel=1e-9)


def test_the_default_calibration_is_that_of_the_assumed_rabi_frequency():
    exact = PulseCalibration.for_full_scale_rabi(ASSUMED_FULL_SCALE_RABI_HZ)
    default = PulseCalibration()
    assert default.pi_amplitude == round(exact.pi_amplitude, 4)
    assert default.pi_half_amplitude == round(exact.pi_half_amplitude, 4)


@given(st.floats(-20, 20), st.sampled_from(Axis), CALIBRATIONS, st.floats(30e6, 200e6))
def test_the_area_of_a_pulse_is_its_angle(angle_rad, axis, lengths, full_scale_rabi_hz):
    calibration = PulseCalibration.for_full_scale_rabi(
        full_scale_rabi_hz, lengths.pi_ns, lengths.pi_half_ns
    )
    pulse = rotation(angle_rad, axis, calibration)
    played_rad = 2 * math.pi * full_scale_rabi_hz * pulse.envelope().sum() / SAMPLE_RATE_HZ
    assert abs(math.remainder(played_rad - angle_rad, 2 * math.pi)) < 1e-9
    assert abs(played_rad) <= math.pi + 1e-9
    is_short = abs(played_rad) <= math.pi / 2 + 1e-9
    assert pulse.n_samples == (calibration.pi_half_samples if is_short else calibration.pi_samples)
    assert pulse.axis is axis


def test_a_measured_calibration_is_taken_at_its_word():
    calibration = PulseCalibration(pi_amplitude=0.8, pi_half_amplitude=0.6)
    assert rotation_by_steps(16, Axis.X, calibration).amplitude == 0.8
    assert rotation_by_steps(8, Axis.Y, calibration).amplitude == 0.6
    assert rotation_by_steps(24, Axis.Y, calibration).amplitude == -0.6
    assert rotation_by_steps(4, Axis.X, calibration).amplitude == pytest.approx(0.3)
    assert rotation_by_steps(12, Axis.X, calibration).amplitude == pytest.approx(0.6)
    assert rotation_by_steps(0, Axis.X, calibration).amplitude == 0


def test_the_reference_propagator_is_the_matrix_exponential():
    waveform = iq(rotation_by_steps(5, Axis.Y, EXACT))
    total = np.eye(2, dtype=complex)
    for in_phase, quadrature in waveform:
        drive = FULL_SCALE_RABI_HZ * (in_phase * X + quadrature * Y) + HYPERFINE_HZ * Z
        total = expm(-1j * math.pi * drive / SAMPLE_RATE_HZ) @ total
    assert np.allclose(propagator(waveform, HYPERFINE_HZ), total, rtol=0, atol=1e-12)


@pytest.mark.parametrize("axis", Axis)
def test_every_rotation_is_exact_on_resonance(axis):
    for steps in range(32):
        actual = propagator(iq(rotation_by_steps(steps, axis, EXACT)))
        ideal = rotation_matrix(steps * math.pi / 16, PAULI[axis])
        assert infidelity(actual, ideal) < 1e-12, steps


def test_the_default_calibration_is_exact_on_resonance_to_its_four_digits():
    for steps in range(32):
        actual = propagator(iq(rotation_by_steps(steps, Axis.X, PulseCalibration())))
        assert infidelity(actual, rotation_matrix(steps * math.pi / 16, X)) < 1e-7, steps


def detuned_infidelity(steps: int, pulse: Pulse, before_and_after: float) -> float:
    ideal = rotation_matrix(steps * math.pi / 16, X)
    around = free(before_and_after, HYPERFINE_HZ)
    return infidelity(propagator(iq(pulse), HYPERFINE_HZ), around @ ideal @ around)


def test_detuned_by_a_hyperfine_line_rotations_stay_within_the_stated_infidelity():
    worst = {}
    for steps in range(1, 17):
        pulse = rotation_by_steps(steps, Axis.X, EXACT)
        worst[steps] = detuned_infidelity(steps, pulse, pulse.n_samples / 2)
    # The module's docstring states the bounds; they are tight.
    assert 1.3e-4 < max(worst[steps] for steps in range(1, 9)) < 1.4e-4
    assert 3.3e-4 < max(worst[steps] for steps in range(9, 16)) < 3.4e-4
    # One line in three is on resonance.
    assert max(2 / 3 * worst[steps] for steps in range(1, 13)) < 1.6e-4


def test_a_detuned_pi_pulse():
    pulse = rotation_by_steps(16, Axis.X, EXACT)
    assert 3.9e-4 < infidelity(propagator(iq(pulse), HYPERFINE_HZ), X) < 4.1e-4


def test_a_quarter_turn_acts_later_than_its_centre():
    pulse = rotation_by_steps(8, Axis.X, EXACT)
    assert detuned_infidelity(8, pulse, 31.46 * 2.4) < 1e-7
    excess = [
        detuned_infidelity(8, pulse, pulse.n_samples / 2 + samples)
        for samples in (0, GATE_EXCESS_SAMPLES, 2 * GATE_EXCESS_SAMPLES + 2)
    ]
    assert excess[1] < 3e-6
    assert min(excess[0], excess[2]) > 1e-4


@given(st.floats(0, 1))
def test_the_alpha_pulse_leaves_alpha_in_the_bright_state(alpha):
    pulse = rotation(bright_state_angle(alpha), Axis.X, EXACT)
    assert abs(propagator(iq(pulse))[0, 0]) ** 2 == pytest.approx(alpha, abs=1e-9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: PulseCalibration(pi_amplitude=1.01), "pi_amplitude is 1.01 .* raise the micro"),
        (lambda: PulseCalibration(pi_half_amplitude=0), "pi_half_amplitude is 0"),
        (lambda: PulseCalibration(pi_half_amplitude=math.nan), "pi_half_amplitude is nan"),
        (lambda: PulseCalibration(pi_ns=6.0), "pi_ns = 6.0 has 14 samples"),
        (lambda: PulseCalibration(pi_half_ns=1001.0), "pi_half_ns = 1001.0 has 2402 samples"),
        (lambda: PulseCalibration(pi_ns=math.inf), "pi_ns is inf"),
        (lambda: PulseCalibration.for_full_scale_rabi(20e6), "pi_amplitude is 1.28"),
        (lambda: PulseCalibration.for_full_scale_rabi(-1.0), "must be positive"),
        (lambda: PulseCalibration.for_full_scale_rabi(math.nan), "must be positive"),
        (lambda: Pulse(100, HERMITE_PI, -1.001, Axis.X), "needs -1.001 of full scale"),
        (lambda: Pulse(100, HERMITE_PI, math.nan, Axis.X), "needs nan of full scale"),
        (lambda: Pulse(101, HERMITE_PI, 0.5, Axis.X), "even number"),
        (lambda: rotation(math.inf, Axis.Y, EXACT), "rotation about Y by inf"),
        (lambda: bright_state_angle(1.01), "population"),
        (lambda: bright_state_angle(math.nan), "population"),
    ],
)
def test_what_cannot_be_played_is_refused(wrong, message):
    with pytest.raises(PulseError, match=message) as caught:
        wrong()
    assert isinstance(caught.value, SequenceError)
    assert isinstance(caught.value, ValueError)


def test_area_of_the_two_envelopes():
    # sqrt(pi) (1 - c/2) T_h, less what the ends cut off.
    for count, coefficient in ((302, HERMITE_PI), (144, HERMITE_PI_HALF)):
        whole_s = math.sqrt(math.pi) * (1 - coefficient / 2) * 0.1667 * count / SAMPLE_RATE_HZ
        assert envelope_area_s(count, coefficient) == pytest.approx(whole_s, rel=2e-3)
