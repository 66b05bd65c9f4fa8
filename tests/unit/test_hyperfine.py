"""The pulse model against brute force: matrix exponentials of every sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import expm

from sequences.decoupling import GATE_EXCESS_SAMPLES
from sequences.errors import PulseError
from sequences.hyperfine import (
    HYPERFINE_HZ,
    attempt_angle,
    lines_hz,
    refocused,
    repeated_flip,
    turns,
)
from sequences.program import SAMPLE_RATE_HZ
from sequences.pulses import (
    HERMITE_PI,
    HERMITE_PI_HALF,
    PulseCalibration,
    bright_state_angle,
    hermite_envelope,
)

X = np.array([[0, 1], [1, 0]], dtype=complex)
Z = np.array([[1, 0], [0, -1]], dtype=complex)


def brute_force(angle, n_samples, coefficient, detuning_hz):
    envelope = hermite_envelope(n_samples, coefficient)
    unitary = np.eye(2, dtype=complex)
    for share in envelope / envelope.sum():
        phase = math.pi * detuning_hz / SAMPLE_RATE_HZ
        unitary = expm(-1j * (angle * share / 2 * X + phase * Z)) @ unitary
    return unitary


@pytest.mark.parametrize(
    ("n_samples", "coefficient", "detuning_hz"),
    [
        (302, HERMITE_PI, HYPERFINE_HZ),
        (302, HERMITE_PI, -5e6),
        (144, HERMITE_PI_HALF, HYPERFINE_HZ),
        (2400, HERMITE_PI_HALF, 0.7e6),
        (2400, HERMITE_PI_HALF, -2.5e6),
    ],
)
def test_against_every_sample(n_samples, coefficient, detuning_hz):
    exact = brute_force(2.6, n_samples, coefficient, detuning_hz)
    made = turns([2.6], n_samples, coefficient, [detuning_hz])
    assert abs(abs(made.b[0, 0]) ** 2 - abs(exact[1, 0]) ** 2) < 3e-4
    assert made.a[0, 0] == pytest.approx(exact[0, 0], abs=2e-3)
    assert made.b[0, 0] == pytest.approx(exact[1, 0], abs=2e-3)


def test_resonant_pulse_turns_by_its_angle():
    angles = np.linspace(-7, 7, 15)
    flips = turns(angles, 302, HERMITE_PI, lines_hz(0.0, 0.0)).flip
    assert flips == pytest.approx(np.sin(angles / 2) ** 2, abs=1e-12)


@pytest.mark.parametrize("repeats", [1, 2, 3, 5])
def test_repeats_between_free_evolution(repeats):
    lines = lines_hz(0.0)
    made = refocused(turns([1.4], 144, HERMITE_PI_HALF, lines), 144, lines)
    expected = 0.0
    for line in lines:
        away = (72 + GATE_EXCESS_SAMPLES) / SAMPLE_RATE_HZ
        back = expm(1j * math.pi * line * away * Z)
        gate = back @ brute_force(1.4, 144, HERMITE_PI_HALF, line) @ back
        expected += abs(np.linalg.matrix_power(gate, repeats)[1, 0]) ** 2 / 3
    assert repeated_flip(made, repeats, 0.0)[0] == pytest.approx(expected, abs=5e-4)


def test_loss_between_repeats():
    """Two quarter turns: what is left of the coherence turns on to |1>."""
    made = turns([math.pi / 2], 144, HERMITE_PI_HALF, lines_hz(0.0, 0.0))
    assert repeated_flip(made, 2, 0.1)[0] == pytest.approx(0.95)


def test_lines():
    assert lines_hz(1e6) == pytest.approx([-1.16e6, 1e6, 3.16e6])
    assert lines_hz([0.0, 1e6]).shape == (2, 3)


@pytest.mark.parametrize("alpha", [1.0, 0.9, 0.5, 0.2256, 0.05])
def test_an_attempt_leaves_alpha_on_the_mean_of_the_lines(alpha):
    calibration = PulseCalibration()
    angle = attempt_angle(alpha, calibration)
    pulse = (calibration.pi_samples, HERMITE_PI)
    if angle <= math.pi / 2:
        pulse = (calibration.pi_half_samples, HERMITE_PI_HALF)
    flip = turns([angle], *pulse, lines_hz(0.0)).flip[0]
    # At pi/2 the pulse changes, and with it the flip by some 1e-4.
    assert flip == pytest.approx(1 - alpha, abs=1e-3 if alpha == 0.5 else 1e-6)
    # On a single line it is the textbook's angle.
    assert attempt_angle(alpha, calibration, 0) == bright_state_angle(alpha)
    if 0.02 < alpha < 0.5:
        assert angle < bright_state_angle(alpha) - 1e-3


def test_an_alpha_below_what_detuned_spins_keep_gets_the_pi_pulse():
    assert attempt_angle(0.0, PulseCalibration()) == math.pi


def test_an_alpha_that_is_no_probability_is_refused():
    with pytest.raises(PulseError, match="population"):
        attempt_angle(1.1, PulseCalibration())
