"""The calibration of a trapped-ion node: measurements, their errors, and the file.

A value may be off by z = 4.5 of its own standard uncertainty; seeds are fixed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.bench import restored
from calibration.errors import CalibrationError, FitError
from calibration.file import (
    Calibrated,
    NodeCalibration,
    calibration_path,
    load_calibration,
    save_calibration,
)
from calibration.ion_file import ION_RANGES, IonCalibration
from calibration.measure_ion_detection import IonDetection
from calibration.measure_ion_frequency import IonFrequency
from calibration.measure_ion_preparation import IonPreparation
from calibration.measure_ion_rabi import IonRabi
from calibration.runner import Archive, calibrate, calibrate_ion
from drivers.ion_setup import IonSettings
from qnodeos.errors import ConfigurationError
from sequences.ion import DdsProfile, IonOperation
from sequences.thermal_rabi import carrier_factors, thermal
from sim.ion.bench import SimulatedIonBench
from sim.ion.physics import IonPhysics
from tests.unit.calibration_fakes import FakeNode

Z = 4.5
NEW = IonCalibration(node="ion")


def bench(physics=None, seed=1, calibration=NEW, base=None):
    return SimulatedIonBench(physics or IonPhysics(), calibration, seed, base)


def measured(what, node):
    return what.analyse(what.run(node))


def assert_near(value, truth, sigma_max):
    assert abs(value.value - truth) < Z * value.sigma
    assert 0 < value.sigma < sigma_max


# --- measurements -------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_hz", [-7_000.0, 0.0, 5_000.0])
def test_the_resonance_is_found_and_the_sideband_moves_with_it(offset_hz):
    truth = 80e6 + offset_hz
    node = bench(IonPhysics(carrier_hz=truth))
    what = IonFrequency()
    result = measured(what, node)
    assert_near(result.values["carrier_hz"], truth, 300)
    assert node.calibration == NEW
    updated = what.update(NEW, result)
    assert updated.carrier_hz.value == result.values["carrier_hz"].value
    assert updated.carrier_hz.value - updated.sideband_hz.value == pytest.approx(1e6)
    assert updated.carrier_hz.source == result.source == updated.sideband_hz.source


@pytest.mark.parametrize("pi_ns", [6_500.0, 10_000.0, 14_000.0])
def test_the_pi_time_is_found_from_afar(pi_ns):
    node = bench(IonPhysics(pi_time_ns=pi_ns))
    result = measured(IonRabi(), node)
    assert_near(result.values["pi_ns"], pi_ns, 60)
    assert IonRabi().update(NEW, result).pi_ns.sigma == result.values["pi_ns"].sigma


def test_a_hot_ion_has_the_pi_time_of_its_mean_rabi_frequency_and_shows_its_phonons():
    physics = IonPhysics(doppler_phonons=8.0)
    base = IonSettings()
    base = replace(base, sequences=replace(base.sequences, sideband_cycles=0))
    result = measured(IonRabi(shots=300), bench(physics, base=base))
    weights = thermal(8.0)
    mean_rabi = weights @ carrier_factors(weights.size, physics.eta)
    assert_near(result.values["pi_ns"], physics.pi_time_ns / mean_rabi, 60)
    assert result.details["parameters"]["phonons"] == pytest.approx(8.0, rel=0.2)


def test_threshold_rates_and_errors_of_the_readout():
    physics = IonPhysics(bright_cps=30_000.0, dark_cps=2_500.0)
    what = IonDetection()
    result = measured(what, bench(physics, seed=5))
    updated = what.update(NEW, result)
    threshold = int(updated.threshold.value)
    assert abs(threshold - physics.optimal_threshold(1_500)) <= 1
    dark_of_s, bright_of_d = physics.readout_errors(1_500, threshold)
    assert_near(result.values["dark_of_s"], dark_of_s, 0.15 * dark_of_s)
    assert_near(result.values["bright_of_d"], bright_of_d, 0.1 * bright_of_d)
    assert_near(result.values["background_cps"], 2_500.0, 50)
    assert_near(result.values["signal_cps"], 30_000.0, 300)
    assert updated.window.signal == pytest.approx(result.values["signal_cps"].value * 1.5e-3)


def test_the_errors_of_the_preparations_are_not_those_of_the_readout():
    physics = IonPhysics(preparation_error=0.05)
    result = measured(IonDetection(), bench(physics))
    assert_near(result.values["dark_fraction_0"], 0.05, 0.01)
    # (1 - 0.98 (1 - 2 * 0.05)) / 2 of a pulse that depolarises with 0.02
    assert_near(result.values["bright_fraction_1"], 0.059, 0.01)
    assert_near(result.values["bright_of_d"], physics.readout_errors(1_500, 33)[1], 1e-4)


@pytest.mark.parametrize("error", [0.0, 0.004, 0.1])
def test_the_error_of_the_preparation(error):
    result = measured(IonPreparation(), bench(IonPhysics(preparation_error=error)))
    assert_near(result.values["preparation_error"], error, 0.005)
    updated = IonPreparation().update(NEW, result)
    assert updated.preparation_error.value == result.values["preparation_error"].value >= 0


def test_the_error_of_the_preparation_is_corrected_for_the_readout():
    # 7 photons of signal: the readout itself errs in one of some hundred cases.
    physics = IonPhysics(bright_cps=7_000.0, dark_cps=300.0, preparation_error=0.02)
    threshold = physics.optimal_threshold(1_500)
    dark_of_s, bright_of_d = physics.readout_errors(1_500, threshold)
    assert dark_of_s > 0.005
    known = NEW.replaced(
        threshold=Calibrated(value=threshold),
        dark_of_s=Calibrated(value=dark_of_s, sigma=1e-4),
        bright_of_d=Calibrated(value=bright_of_d),
    )
    result = measured(IonPreparation(), bench(physics, calibration=known))
    assert_near(result.values["preparation_error"], 0.02, 0.003)


# --- data that support nothing ----------------------------------------------------------------


def test_no_resonance_in_the_sweep():
    node = bench(IonPhysics(carrier_hz=80.2e6))
    with pytest.raises(CalibrationError, match="ion-frequency: the readouts are the same"):
        measured(IonFrequency(), node)
    with pytest.raises(CalibrationError, match="ion-rabi: the readouts are the same"):
        measured(IonRabi(), node)


def test_a_line_beyond_the_end_of_the_sweep():
    with pytest.raises(FitError):
        measured(IonFrequency(), bench(IonPhysics(carrier_hz=80.036e6)))


def test_states_that_look_the_same():
    with pytest.raises(CalibrationError, match="cannot be told apart"):
        measured(IonDetection(), bench(IonPhysics(carrier_hz=80.2e6)))


def test_too_few_shots():
    with pytest.raises(CalibrationError, match="50 shots of a state"):
        measured(IonDetection(shots=50), bench())


def test_counts_that_are_no_mixture_of_two_states():
    what = IonDetection()
    data = what.run(bench())
    # One shot in five has lost some of its light.
    data["photons"][::5] = np.floor(data["photons"][::5] * 0.6)
    with pytest.raises(FitError, match="does not describe the data"):
        what.analyse(data)


def test_a_drift_of_the_preparation():
    what = IonPreparation()
    data = what.run(bench(IonPhysics(preparation_error=0.01)))
    data["dark"][:5] *= 4
    with pytest.raises(FitError, match="the same in all batches"):
        what.analyse(data)


def test_fewer_dark_readouts_than_the_readout_alone_gives():
    what = IonPreparation()
    data = what.run(bench())
    data["dark"][:] = 0
    value, sigma = what.analyse(data).values["preparation_error"]
    assert value == 0
    assert 0 < sigma < 1e-3


def test_a_readout_that_tells_nothing():
    calibration = NEW.replaced(dark_of_s=Calibrated(value=0.6), bright_of_d=Calibrated(value=0.5))
    with pytest.raises(CalibrationError, match="tells nothing"):
        measured(IonPreparation(), bench(calibration=calibration))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (IonFrequency, {"span_hz": 0.0}, "span_hz"),
        (IonFrequency, {"n_points": 0}, "n_points"),
        (IonFrequency, {"shots": 0}, "shots"),
        (IonFrequency, {"pulse_us": 101.0}, "pulse_us"),
        (IonRabi, {"pi_pulses": 0.5}, "pi_pulses"),
        (IonRabi, {"n_points": 100_000}, "n_points"),
        (IonRabi, {"shots": 0}, "shots"),
        (IonDetection, {"shots": 0}, "shots"),
        (IonPreparation, {"shots": 9}, "shots"),
    ],
)
def test_settings_out_of_range(kind, settings, message):
    with pytest.raises(CalibrationError, match=message):
        kind(**settings)


# --- bench --------------------------------------------------------------------------------------


class Interrupted(SimulatedIonBench):
    def counts(self, operations, shots):
        raise KeyboardInterrupt


@pytest.mark.parametrize("what", [IonFrequency(), IonRabi()])
def test_an_interrupt_leaves_the_calibration_as_it_was(what):
    node = Interrupted(IonPhysics(), NEW, 1)
    with pytest.raises(KeyboardInterrupt):
        what.run(node)
    assert node.calibration == NEW


def test_restored_puts_back_what_was_in_use():
    node = bench()
    with restored(node):
        node.apply(NEW.replaced(pi_ns=Calibrated(value=20_000.0)))
    assert node.calibration == NEW


@pytest.mark.parametrize(
    "operations",
    [[IonOperation.X_PI], [IonOperation.INITIALISE, IonOperation.MEASURE, IonOperation.X_PI]],
)
def test_a_simulated_bench_counts_one_readout_of_a_prepared_ion(operations):
    with pytest.raises(CalibrationError, match="one readout after an initialisation"):
        bench().counts(operations, 10)


def test_measurements_need_their_kind_of_node(tmp_path):
    archive = Archive(tmp_path / "calibration.db")
    with pytest.raises(CalibrationError, match="ion-rabi needs a trapped-ion node"):
        calibrate(IonRabi(), FakeNode(), archive)


def test_a_complete_calibration_makes_better_gates(tmp_path):
    physics = IonPhysics(
        pi_time_ns=10_700.0, carrier_hz=80.004e6, bright_cps=33_000.0, gate_depolarising=0.0
    )
    node = bench(physics)
    program = [IonOperation.INITIALISE, IonOperation.X_HALF, IonOperation.X_HALF]

    def wrong():
        dark = node.counts(program, 2_000) <= node.calibration.threshold.value
        return 1 - dark.mean()

    before = wrong()
    archive = Archive(tmp_path / "calibration.db", tmp_path)
    outcomes = list(calibrate_ion(node, archive, {"ion-preparation": {"shots": 2_000}}))
    assert len(outcomes) == 4
    assert wrong() < 0.01 < before
    path = calibration_path(tmp_path, "ion")
    kept = load_calibration(path, "ion", IonCalibration)
    assert kept == node.calibration
    assert kept.revision == 4
    assert {kept.carrier_hz.source, kept.pi_ns.source, kept.threshold.source} == {
        outcomes[1].data.source,
        outcomes[2].data.source,
        outcomes[0].data.source,
    }


# --- file ---------------------------------------------------------------------------------------


def test_the_file_of_one_kind_of_node_is_not_read_as_the_other(tmp_path):
    path = tmp_path / "ion.calibration.yaml"
    save_calibration(path, NEW)
    with pytest.raises(ConfigurationError, match="carrier_hz"):
        load_calibration(path, "ion")
    save_calibration(tmp_path / "nv.yaml", NodeCalibration(node="nv"))
    with pytest.raises(ConfigurationError, match="mw_frequency_hz"):
        load_calibration(tmp_path / "nv.yaml", "nv", IonCalibration)


@pytest.mark.parametrize("name", ION_RANGES)
@pytest.mark.parametrize("end", [0, 1])
def test_values_out_of_range(name, end):
    limit = ION_RANGES[name][end]
    beyond = limit + (1 if end else -1) * max(1.0, abs(limit))
    with pytest.raises(CalibrationError, match=name):
        NEW.replaced(**{name: Calibrated(value=beyond)})


def test_a_threshold_is_whole():
    with pytest.raises(CalibrationError, match="whole number"):
        NEW.replaced(threshold=Calibrated(value=3.5))


def test_more_light_than_can_be_counted():
    with pytest.raises(CalibrationError, match="signal counts is not within"):
        NEW.replaced(detection_us=100_000, signal_cps=Calibrated(value=1e8))


def test_what_a_node_is_set_up_with():
    calibration = NEW.replaced(
        carrier_hz=Calibrated(value=81e6),
        sideband_hz=Calibrated(value=80.1e6),
        pi_ns=Calibrated(value=9_993.0),
        carrier_amplitude=0.5,
        threshold=Calibrated(value=20.0),
        detection_us=900,
    )
    settings = calibration.to_settings(IonSettings())
    assert settings.sequences.pi_time_ns == 10_000  # in steps of 20 ns
    assert settings.sequences.detection_us == 900
    assert settings.threshold == 20
    assert settings.tones()[DdsProfile.X] == (81e6, 0.0, 0.5)
    assert settings.tones()[DdsProfile.RED_SIDEBAND][0] == 80.1e6
