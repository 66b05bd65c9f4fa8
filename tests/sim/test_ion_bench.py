"""Calibration through the instruments of a simulated trapped-ion node.

Shares are compared with z = 4.5; what the measurements find is tested on the light alone in
tests/unit/test_ion_calibration.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.errors import CalibrationError
from calibration.file import Calibrated
from calibration.ion_file import IonCalibration
from calibration.ion_instrument_bench import InstrumentIonBench
from calibration.measure_ion_detection import IonDetection
from calibration.measure_ion_frequency import IonFrequency
from calibration.measure_ion_rabi import IonRabi
from drivers.ion_setup import IonSettings
from sequences.ion import IonOperation
from sim.ion.bench import SimulatedIonBench
from sim.ion.build import SimulatedIonNode
from sim.ion.physics import IonPhysics

Z = 4.5
NEW = IonCalibration(node="ion")
TRUTH = IonPhysics(carrier_hz=80.003e6, pi_time_ns=10_400.0)
INI, HALF, PI = IonOperation.INITIALISE, IonOperation.X_HALF, IonOperation.X_PI


@pytest.fixture
def bench():
    base = IonSettings()
    with SimulatedIonNode(TRUTH, NEW.to_settings(base), seed=7) as node:
        yield InstrumentIonBench(node.instruments, node.device, NEW, base)


def dark(counts):
    return np.count_nonzero(counts <= 33) / counts.size


@pytest.mark.parametrize("operations", [(INI,), (INI, HALF), (INI, PI), (INI, HALF, PI)])
def test_counts_are_those_of_the_light_alone(bench, operations):
    instruments = bench.counts(operations, 150)
    light = SimulatedIonBench(TRUTH, NEW, seed=1).counts(operations, 20_000)
    share = dark(light)
    assert abs(dark(instruments) - share) <= Z * math.sqrt((share * (1 - share) + 0.01) / 150)
    if operations == (INI,):
        assert abs(instruments.mean() - 62.25) < Z * math.sqrt(62.25 / 150)


def test_more_shots_than_are_fetched_at_once(bench, monkeypatch):
    monkeypatch.setattr("calibration.ion_instrument_bench.FETCHED_SHOTS", 7)
    assert bench.counts((INI,), 17).shape == (17,)
    assert bench.counts((INI,), 0).shape == (0,)


def test_applied_values_are_in_the_instruments(bench):
    changed = NEW.replaced(
        pi_ns=Calibrated(value=8_000.0),
        carrier_hz=Calibrated(value=80.01e6),
        threshold=Calibrated(value=20.0),
    )
    bench.apply(changed)
    assert bench.calibration == changed
    assert bench.instruments.pmt.threshold() == 20
    assert bench.instruments.settings.carrier_hz == 80.01e6
    assert bench.instruments.settings.sequences.pi_time_ns == 8_000
    assert bench.name == "ion"
    assert {"ion_pmt", "ion_dds"} <= set(bench.snapshot()["instruments"])


def test_a_second_readout_is_refused(bench):
    with pytest.raises(CalibrationError, match="one readout"):
        bench.counts((INI, IonOperation.MEASURE, PI), 1)


def test_a_device_that_refuses_is_an_error(bench):
    bench.instruments.sequencer.stop()
    with pytest.raises(CalibrationError, match="was answered"):
        bench.counts((INI,), 1)


def assert_near(value, truth, sigma_max):
    assert abs(value.value - truth) < Z * value.sigma
    assert 0 < value.sigma < sigma_max


def test_the_resonance_is_found_with_the_dds(bench):
    what = IonFrequency(shots=12, n_points=31)
    result = what.analyse(what.run(bench))
    assert_near(result.values["carrier_hz"], TRUTH.carrier_hz, 800)
    assert bench.calibration == NEW


def test_the_pi_time_is_found_with_the_sequencer(bench):
    bench.apply(
        NEW.replaced(
            carrier_hz=Calibrated(value=TRUTH.carrier_hz),
            sideband_hz=Calibrated(value=TRUTH.carrier_hz - 1e6),
        )
    )
    what = IonRabi(shots=15, n_points=20)
    result = what.analyse(what.run(bench))
    assert_near(result.values["pi_ns"], TRUTH.pi_time_ns, 120)


def test_the_readout_is_found_with_the_counter(bench):
    what = IonDetection(shots=150)
    result = what.analyse(what.run(bench))
    assert_near(result.values["signal_cps"], TRUTH.bright_cps, 1_000)
    assert_near(result.values["background_cps"], TRUTH.dark_cps, 200)
