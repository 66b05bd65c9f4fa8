"""What errs in a simulated centre shows in its gates, its readout and its charge checks."""

from __future__ import annotations

import random

import numpy as np
import pytest

from qnodeos.qdevice.instructions import Axis, sqg
from sim.nv.physics import NVPhysics
from tests.sim.lab_harness import (
    NOISELESS,
    fidelity_after,
    lone_laboratory,
    random_gates,
    state_after,
)

SEED = 20260106


def test_the_lines_of_the_nucleus_cost_what_their_pulses_cost():
    with lone_laboratory(NVPhysics(initialisation_error=0)) as runner:
        rng = random.Random(SEED)
        found = []
        for _ in range(12):
            gates = random_gates(rng, 2)
            back = [sqg(gate.axis, -gate.steps) for gate in reversed(gates)]
            # Populations: between its pulses the decoupling leaves the phases to the lines.
            found.append(float(state_after(runner, gates + back)[0, 0].real))
    assert 0.95 < min(found) < 0.9995
    assert np.mean(found) > 0.98


def test_a_rabi_frequency_that_is_off_turns_too_far():
    physics = NOISELESS.model_copy(update={"amplitude_error": 0.05})
    with lone_laboratory(physics) as runner:
        for steps in (4, 8, 16):
            [ideal] = [fidelity_after(runner, [sqg(Axis.X, steps)])]
            excess = 0.05 * steps * np.pi / 16
            assert ideal == pytest.approx(np.cos(excess / 2) ** 2, abs=1e-3)
