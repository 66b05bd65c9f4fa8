"""Whether uncertainties mean what they say: one sigma holds the truth in 68 % of runs.

Each of 200 seeds is one complete measurement of a closed-form node. With 200 runs the
coverage of honest uncertainties lies in 0.55..0.80 but for one case in 2,000.
"""

from __future__ import annotations

import math

import pytest
from scipy.optimize import brentq

from calibration.measure_alpha import FidelityAlpha
from calibration.measure_coherence import CoherenceTime
from calibration.measure_cr import ChargeResonance
from calibration.measure_rabi import Rabi
from calibration.measure_ssro import SingleShotReadout
from calibration.measurement import Value
from tests.unit.calibration_fakes import FakeNode, FakePair, Truth

SEEDS = range(200, 400)
LEAST, GREATEST = 0.55, 0.80
TRUTH = Truth()


IONISED = Truth(ionising_fraction=0.02)


def cr(seed):
    what = ChargeResonance()
    result = what.analyse(what.run(FakeNode(IONISED, seed)))
    good, bad = IONISED.good_photons, IONISED.bad_photons
    # The threshold itself is the next whole number.
    limit = Value(result.details["equally_likely"], result.values["cr_threshold"].sigma)
    return {**result.values, "limit": limit}, {
        "good_photons": good,
        "bad_photons": bad,
        "bad_fraction": IONISED.bad_fraction,
        "ionising_fraction": IONISED.ionising_fraction,
        "limit": (good - bad) / math.log(good / bad),
    }


def ssro(seed):
    values = run(SingleShotReadout(shots=2000), FakeNode(TRUTH, seed))
    f0, f1 = TRUTH.fidelities(values["readout_us"].value)
    rate, dark = TRUTH.bright_rate_hz, TRUTH.dark_rate_hz
    best = math.log1p(rate / dark) / rate * 1e6
    return values, {"f0": f0, "f1": f1, "bright_rate_hz": rate, "readout_us": best}


def rabi(seed):
    pulses = TRUTH.pulses
    return run(Rabi(shots=500, hyperfine_hz=0.0), FakeNode(TRUTH, seed)), {
        "pi_amplitude": pulses.pi_amplitude,
        "pi_half_amplitude": pulses.pi_half_amplitude,
    }


def coherence(seed):
    return run(CoherenceTime(shots=500), FakeNode(TRUTH, seed)), {"t_coh_ms": TRUTH.t_coh_ms}


PAIR = FakePair()
ALPHA = brentq(lambda alpha: PAIR.fidelity(alpha) - 0.72, 0.1, 0.5)


def fidelity_alpha(seed):
    values = run(FidelityAlpha(pairs=300), FakePair(seed=seed, f0=0.95, f1=0.995))
    return values, {"alpha": ALPHA, "contrast": PAIR.contrast, "detection": PAIR.detection}


def run(what, bench):
    return what.analyse(what.run(bench)).values


@pytest.mark.parametrize("measure", [cr, ssro, rabi, coherence, fidelity_alpha])
def test_coverage(measure):
    held: dict[str, int] = {}
    for seed in SEEDS:
        values, truths = measure(seed)
        for name, truth in truths.items():
            held.setdefault(name, 0)
            held[name] += abs(values[name].value - truth) < values[name].sigma
    coverage = {name: count / len(SEEDS) for name, count in held.items()}
    assert all(LEAST < value < GREATEST for value in coverage.values()), coverage
