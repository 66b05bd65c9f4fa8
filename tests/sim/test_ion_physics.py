"""Predictions of a trapped ion's dark readouts: the published case, and matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import qutip
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sequences.ion import IonOperation
from sim.ion.physics import DETECTION_US, THRESHOLD, IonPhysics, predicted_p_dark

O = IonOperation  # noqa: E741
SEQUENCES = {
    (): 0.001,
    (O.X_PI,): 0.989,
    (O.Y_PI,): 0.989,
    (O.X_HALF,): 0.500,
    (O.Y_HALF,): 0.500,
    (O.X_HALF, O.X_HALF): 0.979,
    (O.X_HALF, O.X_MINUS_HALF): 0.021,
}
"""The seven sequences, and what is expected with p = 0.02 and an initialisation error of 1e-3."""

ROTATIONS = {
    O.X_PI: (qutip.sigmax(), math.pi),
    O.Y_PI: (qutip.sigmay(), math.pi),
    O.X_HALF: (qutip.sigmax(), math.pi / 2),
    O.Y_HALF: (qutip.sigmay(), math.pi / 2),
    O.X_MINUS_HALF: (qutip.sigmax(), -math.pi / 2),
}


@pytest.mark.parametrize(("sequence", "expected"), SEQUENCES.items())
def test_the_seven_sequences(sequence, expected):
    assert predicted_p_dark(sequence, IonPhysics()) == pytest.approx(expected, abs=7e-4)


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_without_noise_the_result_is_ideal(sequence):
    ideal = round(2 * SEQUENCES[sequence]) / 2
    assert predicted_p_dark(sequence, IonPhysics.noiseless()) == pytest.approx(ideal, abs=1e-12)


@settings(max_examples=40)
@given(st.lists(st.sampled_from(sorted(IonOperation)), max_size=6))
def test_any_sequence_is_that_of_matrices(operations):
    physics = IonPhysics(gate_depolarising=0.1, preparation_error=0.03, bright_cps=20_000)
    gap_ns = 3e6
    initial = qutip.Qobj(np.diag([0.97, 0.03]))
    coherence = math.exp(-gap_ns / 85e6)
    survival = math.exp(-gap_ns / 1.168e9)
    rho = initial
    asked = operations[:-1] if operations[-1:] == [O.MEASURE] else operations
    for operation in (*asked, O.MEASURE):
        (a, b), (c, d) = rho.full()
        rho = qutip.Qobj([[a + d * (1 - survival), b * coherence], [c * coherence, d * survival]])
        if operation is O.INITIALISE:
            rho = initial
        elif operation is O.MEASURE:
            rho = qutip.Qobj(np.diag(rho.diag()))
        else:
            axis, angle = ROTATIONS[operation]
            turn = (-0.5j * angle * axis).expm()
            rho = 0.9 * turn * rho * turn.dag() + 0.1 * qutip.qeye(2) / 2
    p_d = rho.full()[1, 1].real
    dark_of_s, bright_of_d = physics.readout_errors(DETECTION_US, THRESHOLD)
    expected = p_d * (1 - bright_of_d) + (1 - p_d) * dark_of_s
    assert predicted_p_dark(operations, physics, spacing_ns=gap_ns) == pytest.approx(expected)


def test_a_measurement_at_the_end_is_the_one_asked_about():
    physics = IonPhysics()
    with_it = predicted_p_dark([O.INITIALISE, O.X_PI, O.MEASURE], physics)
    assert with_it == predicted_p_dark([O.X_PI], physics)


def test_decay_in_darkness():
    physics = IonPhysics()
    assert physics.coherence_factor(85e6) == pytest.approx(math.exp(-1))
    assert physics.dark_survival(1.168e9) == pytest.approx(math.exp(-1))
    ideal = IonPhysics.noiseless()
    assert ideal.coherence_factor(1e15) == ideal.dark_survival(1e15) == 1


def test_the_default_threshold_is_the_best():
    assert IonPhysics().optimal_threshold(DETECTION_US) == THRESHOLD


def test_noiseless_takes_changes():
    assert IonPhysics.noiseless(preparation_error=0.2).preparation_error == 0.2


def test_every_parameter_says_where_it_is_from():
    for name, field in IonPhysics.model_fields.items():
        assert any(
            word in (field.description or "")
            for word in ("assumed", "published", "derived", "Phys. Rev.")
        ), name


@pytest.mark.parametrize(
    "wrong",
    [
        {"gate_depolarising": 1.1},
        {"pi_time_ns": 0},
        {"eta": -0.1},
        {"mean_phonons": 1e3},
        {"bright_cps": 0},
        {"colour": 1},
        {"carrier_hz": math.nan},
        {"coherence_time_ms": math.inf},
        {"d_lifetime_s": 0.04},
    ],
)
def test_unphysical_numbers_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        IonPhysics(**wrong)
