"""Whether uncertainties mean what they say: one sigma holds the truth in 68 % of runs.

Each of 200 seeds is one complete measurement of a closed-form node or of a simulated ion. With
200 runs the coverage of honest uncertainties lies in 0.55..0.80 but for one case in 2,000.
"""

from __future__ import annotations

import math

import pytest
from scipy.optimize import brentq

from calibration.file import Calibrated
from calibration.ion_file import IonCalibration
from calibration.measure_alpha import FidelityAlpha
from calibration.measure_coherence import CoherenceTime
from calibration.measure_cr import ChargeResonance
from calibration.measure_ion_detection import IonDetection
from calibration.measure_ion_frequency import IonFrequency
from calibration.measure_ion_preparation import IonPreparation
from calibration.measure_ion_rabi import IonRabi
from calibration.measure_rabi import Rabi
from calibration.measure_ssro import SingleShotReadout
from calibration.measurement import Value
from sequences.thermal_rabi import carrier_factors, thermal
from sim.ion.bench import SimulatedIonBench
from sim.ion.physics import IonPhysics
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


ION = IonPhysics(
    carrier_hz=80.0015e6,
    pi_time_ns=10_300.0,
    bright_cps=35_000.0,
    dark_cps=1_200.0,
    preparation_error=2e-3,
)
ION_THRESHOLD = ION.optimal_threshold(1_500)
DARK_OF_S, BRIGHT_OF_D = ION.readout_errors(1_500, ION_THRESHOLD)


def ion_bench(seed, **known):
    believed = {
        "threshold": float(ION_THRESHOLD),
        "dark_of_s": DARK_OF_S,
        "bright_of_d": BRIGHT_OF_D,
        **known,
    }
    calibration = IonCalibration(
        node="ion", **{name: Calibrated(value=value) for name, value in believed.items()}
    )
    return SimulatedIonBench(ION, calibration, seed)


def ion_detection(seed):
    return run(IonDetection(), ion_bench(seed)), {
        "background_cps": ION.dark_cps,
        "signal_cps": ION.bright_cps,
    }


def ion_frequency(seed):
    values = run(IonFrequency(n_points=25), ion_bench(seed))
    return values, {"carrier_hz": ION.carrier_hz}


def ion_rabi(seed):
    bench = ion_bench(seed, carrier_hz=ION.carrier_hz, sideband_hz=ION.carrier_hz - 1e6)
    weights = thermal(ION.mean_phonons)
    mean_rabi = weights @ carrier_factors(weights.size, ION.eta)
    return run(IonRabi(n_points=25), bench), {"pi_ns": ION.pi_time_ns / mean_rabi}


def ion_preparation(seed):
    bench = ion_bench(seed, carrier_hz=ION.carrier_hz, sideband_hz=ION.carrier_hz - 1e6)
    return run(IonPreparation(), bench), {"preparation_error": ION.preparation_error}


PAIR = FakePair()
ALPHA = brentq(lambda alpha: PAIR.fidelity(alpha) - 0.72, 0.1, 0.5)


def fidelity_alpha(seed):
    values = run(FidelityAlpha(pairs=300), FakePair(seed=seed, f0=0.95, f1=0.995))
    return values, {"alpha": ALPHA, "contrast": PAIR.contrast, "detection": PAIR.detection}


def run(what, bench):
    return what.analyse(what.run(bench)).values


@pytest.mark.parametrize(
    "measure",
    [
        cr,
        ssro,
        rabi,
        coherence,
        fidelity_alpha,
        ion_detection,
        ion_frequency,
        ion_rabi,
        ion_preparation,
    ],
)
def test_coverage(measure):
    held: dict[str, int] = {}
    for seed in SEEDS:
        values, truths = measure(seed)
        for name, truth in truths.items():
            held.setdefault(name, 0)
            held[name] += abs(values[name].value - truth) < values[name].sigma
    coverage = {name: count / len(SEEDS) for name, count in held.items()}
    assert all(LEAST < value < GREATEST for value in coverage.values()), coverage
