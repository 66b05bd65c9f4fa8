"""What errs in a simulated centre shows in its gates, its readout and its charge checks."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.stats import poisson

from instruments.nv_controller import E_DAC
from qnodeos.qdevice.instructions import Axis, ini, msr, sqg
from qnodeos.qdevice.outcomes import Outcome
from sim.adwin.hardware import DAC_ZERO_CODE
from sim.nv.physics import NVPhysics
from tests.sim.bench import assert_mean, assert_proportion
from tests.sim.lab_harness import (
    NOISELESS,
    fidelity_after,
    lone_laboratory,
    node_settings,
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


# --- readout ----------------------------------------------------------------------------------

SHOTS = 1_200
EASILY_IONISED = NVPhysics(
    hyperfine_hz=0, initialisation_error=0, pump_time_constant_us=0.05, ionisation_rate_hz=500
)


def test_readout_and_ionisation_are_as_frequent_as_physics_says():
    with lone_laboratory(EASILY_IONISED, node_settings(log_shots=1), seed=SEED) as runner:
        wrong = [0, 0]
        for bit, gates in enumerate(([], [sqg(Axis.X, 16)])):
            expected = Outcome.SUCCESS_ONE if bit else Outcome.SUCCESS_ZERO
            for _ in range(SHOTS):
                [answers] = runner.run([ini(), *gates, msr()])
                wrong[bit] += answers[-1].outcome is not expected
        runner.run([ini()])
        checks = runner.device.charge_checks
        readout_us = runner.controller.read("readout_us")
        cr_us, threshold = (runner.controller.read(name) for name in ("cr_us", "cr_threshold"))
        counts = runner.controller.take_check_log().tolist()
        photons = runner.controller.take_photon_log()
    for bit, fidelity in enumerate(EASILY_IONISED.readout_fidelities(readout_us)):
        assert_proportion(wrong[bit], SHOTS, 1 - fidelity)
    assert np.sum(photons >= 0) == SHOTS - wrong[0] + wrong[1]
    assert photons.max() <= readout_us
    # A check fails because of ionisation, or by chance.
    ionised = sum(EASILY_IONISED.ionisation_per_readout(readout_us)) / 2
    mean = EASILY_IONISED.cr_rate_hz * cr_us * 1e-6
    by_chance = float(poisson.cdf(threshold - 1, mean))
    assert len(checks) == 2 * SHOTS
    failed = sum(not check.passed for check in checks)
    assert_proportion(failed, 2 * SHOTS, ionised + (1 - ionised) * by_chance)
    # The first check of every INI is logged; a good centre is bright.
    assert len(counts) == 2 * SHOTS + 1
    assert sum(count < threshold for count in counts[1:]) == failed
    good = [count for count in counts if count >= threshold]
    conditional = poisson.expect(lambda n: n, (mean,), lb=threshold, conditional=True)
    assert_mean(good, conditional, math.sqrt(mean))


def test_light_goes_off_at_the_first_photon_and_the_time_is_waited_out(monkeypatch):
    physics = NVPhysics(initialisation_error=0.5, hyperfine_hz=0)
    with lone_laboratory(physics, node_settings(log_shots=1), seed=SEED) as runner:
        light: list[tuple[int, int]] = []
        changed = runner.node.centre.dac_changed

        def watching(cycle: int, module: int, channel: int, code: int) -> None:
            if channel == E_DAC:
                light.append((cycle, code))
            changed(cycle, module, channel, code)

        monkeypatch.setattr(runner.node.centre, "dac_changed", watching)
        readout_us = runner.controller.read("readout_us")
        durations, found = set(), set()
        for _ in range(60):
            runner.run([ini()])
            light.clear()
            [[answer]] = runner.run([msr()])
            [photon] = runner.controller.take_photon_log().tolist()
            (on, lit), (off, dark) = light
            assert lit > DAC_ZERO_CODE == dark
            events = off // 1_000 - on // 1_000
            # Seen in the event after the microsecond it came in.
            assert events == (readout_us if photon < 0 else photon + 1)
            assert (answer.outcome is Outcome.SUCCESS_ZERO) is (photon >= 0)
            durations.add(answer.answered - answer.sent)
            found.add(answer.outcome)
    assert len(durations) == 1
    assert found == {Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ONE}
