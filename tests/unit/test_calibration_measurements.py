"""Each measurement on closed-form nodes finds what is true, or says why not.

A value may be off by z = 4.5 of its own standard uncertainty; seeds are fixed. Whether the
uncertainties are right is the matter of test_calibration_coverage.py.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from calibration.errors import CalibrationError, FitError
from calibration.file import Calibrated, NodeCalibration
from calibration.ion_file import IonCalibration
from calibration.measure_alpha import FidelityAlpha
from calibration.measure_coherence import CoherenceTime, slip_samples
from calibration.measure_cr import ChargeResonance
from calibration.measure_delay import AwgDelay
from calibration.measure_rabi import COARSE, Rabi
from calibration.measure_resonance import Resonance
from calibration.measure_ssro import ReadoutCorrection, SingleShotReadout
from calibration.measurement import Data
from calibration.registry import MEASUREMENTS, measurement
from sim.ion.bench import SimulatedIonBench
from sim.ion.physics import IonPhysics
from tests.unit.calibration_fakes import FakeNode, FakePair, Truth

Z = 4.5
NV = Truth(hyperfine_hz=2.16e6)


def measured(what, bench):
    return what.analyse(what.run(bench))


def assert_near(value, truth, sigma_max):
    """Within its uncertainty, which must be a useful one."""
    assert abs(value.value - truth) < Z * value.sigma
    assert 0 < value.sigma < sigma_max


# --- cr -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ionising", [0.0, 0.02])
def test_cr_threshold(ionising):
    node = FakeNode(Truth(ionising_fraction=ionising), seed=3)
    result = measured(ChargeResonance(), node)
    assert_near(result.values["good_photons"], 40.0, 0.2)
    assert_near(result.values["bad_fraction"], 0.06, 0.005)
    limit = (40 - 0.05) / math.log(40 / 0.05)
    assert abs(result.values["cr_threshold"].value - limit) < 1 + Z * 0.5
    assert result.details["pass_when_bad"] < 1e-4
    assert result.details["fail_when_good"] < 1e-4
    updated = ChargeResonance().update(node.calibration, result)
    assert updated.cr_threshold.value == result.values["cr_threshold"].value


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("shots", "thresholds", "least", "greatest"),
    [(800, {2, 3}, 0.25, 0.4), (5000, {2}, 0.15, 0.3)],
)
def test_cr_of_a_centre_that_is_quite_dark(seed, shots, thresholds, least, greatest):
    """No photon in any failed check says how dark it is at least, and not that 1 would do."""
    truth = Truth(good_photons=12.0, bad_photons=1e-4)
    what = ChargeResonance(shots=shots)
    data = what.run(FakeNode(truth, seed))
    result = what.analyse(data)
    bad, failed = result.values["bad_photons"], int(np.sum(data["photons"] == 0))
    # A photon in all of them; two at most are taken from those of good centres with one photon.
    assert 0.95 < bad.value * failed < 3
    assert 0.95 < bad.sigma * failed < 3
    assert result.values["cr_threshold"].value in thresholds
    assert least < result.values["cr_threshold"].sigma < greatest
    assert result.details["equally_likely"] > 12 / math.log(12 / 1e-4)
    assert result.details["pass_when_bad"] < 1e-3
    assert result.values["ionising_fraction"].sigma >= 1 / shots


def test_cr_without_failed_checks():
    with pytest.raises(CalibrationError, match=r"0 of 5000 checks failed.*more readouts"):
        measured(ChargeResonance(), FakeNode(Truth(bad_fraction=0.0)))


def test_cr_of_a_drifting_laser():
    """Counts that are not Poisson are no calibration."""
    what = ChargeResonance()
    data = what.run(FakeNode(Truth(good_photons=20)))
    later = what.run(FakeNode(Truth(good_photons=50), seed=2))
    both = {name: np.concatenate([data[name], later[name]]) for name in ("shot", "photons")}
    with pytest.raises(FitError):
        what.analyse(replace(data, columns=both))


# --- resonance ----------------------------------------------------------------------------


@pytest.mark.parametrize("offset_hz", [-1.5e6, 0.2e6, 2e6])
def test_resonance(offset_hz):
    node = FakeNode(replace(NV, resonance_hz=2.0e9 + offset_hz), seed=4)
    before = node.calibration
    result = measured(Resonance(), node)
    assert_near(result.values["mw_frequency_hz"], 2.0e9 + offset_hz, 50e3)
    assert node.calibration == before
    assert Resonance().update(before, result).mw_frequency_hz.source == result.source


def test_resonance_outside_the_sweep():
    node = FakeNode(replace(NV, resonance_hz=2.05e9), seed=4)
    with pytest.raises(CalibrationError):
        measured(Resonance(), node)


# --- rabi ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rabi_hz", [24e6, 30e6, 45e6])
def test_rabi_from_a_wrong_start(rabi_hz):
    truth = replace(NV, full_scale_rabi_hz=max(rabi_hz, 26e6))
    node = FakeNode(truth, seed=5)
    before = node.calibration
    result = measured(Rabi(), node)
    assert_near(result.values["pi_amplitude"], truth.pulses.pi_amplitude, 0.005)
    assert_near(result.values["pi_half_amplitude"], truth.pulses.pi_half_amplitude, 0.005)
    assert node.calibration == before
    updated = Rabi().update(before, result)
    assert updated.pi_amplitude.value == result.values["pi_amplitude"].value


def test_rabi_interrupted_before_the_fine_stages():
    data = Rabi().run(FakeNode())
    coarse = data["stage"] == COARSE
    columns = {name: column[coarse] for name, column in data.columns.items()}
    with pytest.raises(CalibrationError, match="before both fine stages"):
        Rabi().analyse(replace(data, columns=columns))


def test_sine_squared_would_be_wrong():
    """Why the fit is of three lines: one would fit as well, with an amplitude 1 % too low."""
    node = FakeNode(NV, seed=5)
    what = Rabi(shots=20_000)
    data = what.run(node)
    naive = replace(data, context={**data.context, "hyperfine_hz": 0.0})
    truth = NV.pulses.pi_amplitude
    right, wrong = (what.analyse(each).values["pi_amplitude"] for each in (data, naive))
    assert_near(right, truth, 0.001)
    assert wrong.value < truth - 10 * wrong.sigma


# --- ssro ---------------------------------------------------------------------------------


def test_ssro():
    truth = Truth()
    node = FakeNode(truth, seed=6)
    result = measured(SingleShotReadout(), node)
    values = result.values
    f0, f1 = truth.fidelities(values["readout_us"].value)
    assert_near(values["f0"], f0, 0.005)
    assert_near(values["f1"], f1, 0.003)
    assert_near(values["bright_rate_hz"], truth.bright_rate_hz, 800)
    rate, dark = truth.bright_rate_hz, truth.dark_rate_hz
    assert_near(values["readout_us"], math.log1p(rate / dark) / rate * 1e6, 12)
    updated = SingleShotReadout().update(node.calibration, result)
    assert updated.to_readout_fidelity().f0 == values["f0"].value
    assert updated.readout_us.value == values["readout_us"].value


def test_ssro_of_a_chosen_duration():
    result = measured(SingleShotReadout(duration_us=100), FakeNode(seed=7))
    assert result.values["readout_us"].value == 100
    assert_near(result.values["f0"], Truth().fidelities(100)[0], 0.005)


def test_ssro_without_dark_counts_uses_the_window():
    result = measured(SingleShotReadout(), FakeNode(Truth(dark_rate_hz=1e-6), seed=8))
    assert result.values["dark_rate_hz"].value == 0
    assert result.values["readout_us"].value == 400
    SingleShotReadout().update(NodeCalibration(node="alice"), result)


def test_ssro_without_photons():
    with pytest.raises(CalibrationError, match="readouts of \\|0> saw a photon"):
        measured(SingleShotReadout(), FakeNode(Truth(bright_rate_hz=1.0)))


def test_readout_correction():
    node = FakeNode(seed=9)
    result = measured(ReadoutCorrection(), node)
    f0, f1 = Truth().fidelities(node.calibration.readout_us.value)
    assert_near(result.values["f0"], f0, 0.003)
    assert_near(result.values["f1"], f1, 0.002)


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_initialisation_error_is_corrected(error):
    truth = Truth(initialisation_error=error, dark_rate_hz=200.0)
    node = FakeNode(truth, seed=9)
    result = measured(ReadoutCorrection(initialisation_error=error), node)
    f0, f1 = truth.fidelities(node.calibration.readout_us.value)
    assert_near(result.values["f0"], f0, 0.006)
    assert_near(result.values["f1"], f1, 0.006)


def test_assumed_initialisation_error_counts():
    """Its uncertainty goes into the fidelities."""
    data = ReadoutCorrection().run(FakeNode(seed=9))
    known = ReadoutCorrection().analyse(data).values["f0"]
    context = {**data.context, "initialisation_error_sigma": 0.01}
    doubted = ReadoutCorrection().analyse(replace(data, context=context)).values["f0"]
    assert doubted.value == known.value
    assert doubted.sigma == pytest.approx(math.hypot(known.sigma, 0.0096), rel=0.02)


def test_readout_correction_of_a_drift():
    what = ReadoutCorrection()
    good, bad = what.run(FakeNode()), what.run(FakeNode(Truth(stuck_fraction=0.2)))
    both = {name: np.concatenate([good[name], bad[name]]) for name in good.columns}
    with pytest.raises(CalibrationError, match="drifts"):
        what.analyse(replace(good, columns=both))


# --- t-coh --------------------------------------------------------------------------------


def test_coherence_time():
    node = FakeNode(seed=10)
    result = measured(CoherenceTime(), node)
    assert_near(result.values["t_coh_ms"], 13.0, 0.6)
    assert result.details["shifted_copies"] == 16
    assert CoherenceTime().update(node.calibration, result).t_coh_ms.value == pytest.approx(
        result.details["t_coh_ms"]
    )


def test_coherence_exponent():
    result = measured(CoherenceTime(free_exponent=True, shots=4000), FakeNode(seed=11))
    assert_near(result.values["exponent"], 1.0, 0.1)


def test_coherence_with_one_copy():
    slip_hz = 170.0
    node = FakeNode(Truth(slip_hz=slip_hz), seed=12)
    before = node.calibration
    result = measured(CoherenceTime(shifted_copies=1), node)
    time = np.linspace(0, 3, 30_001)
    curve = np.exp(-time / 13) * (1 + 2 * np.cos(2 * math.pi * slip_hz * time / 1e3)) / 3
    truth = time[np.argmax(curve < math.exp(-1))]
    assert_near(result.values["t_coh_ms"], truth, 0.05)
    assert_near(result.values["slip_hz"], slip_hz, 5)
    assert CoherenceTime().update(before, result) == before


def test_expected_slips():
    """By hand for the spacing of 24,102 = 16 * 1506 + 6: shifts 0, 6, 12, 2, 8, 14, 4, 10."""
    calibration = NodeCalibration(node="alice")
    slips = {
        copies: slip_samples(calibration.replaced(shifted_copies=copies))
        for copies in (16, 8, 4, 2, 1)
    }
    assert slips == {16: 0, 8: 0, 4: 16, 2: 16, 1: 16}
    assert slip_samples(calibration.replaced(spacing_samples=24_000, shifted_copies=1)) == 0


def test_no_coherence():
    with pytest.raises(CalibrationError):
        measured(CoherenceTime(), FakeNode(Truth(t_coh_ms=0.01)))


def test_coherence_times_are_bounded():
    with pytest.raises(CalibrationError, match=r"0\.\.10000 ms"):
        CoherenceTime(times_ms=(1e6,)).run(FakeNode())


# --- pairs --------------------------------------------------------------------------------


@pytest.mark.parametrize("phi", [False, True])
def test_fidelity_alpha(phi):
    pair = FakePair(seed=13, phi=phi)
    what = FidelityAlpha(pairs=2000)
    result = measured(what, pair)
    alpha = result.values["alpha"]
    assert abs(pair.fidelity(alpha.value) - 0.72) < Z * alpha.sigma * 1.2
    assert alpha.sigma < 0.01
    assert_near(result.values["contrast"], pair.contrast, 0.02)
    for point in result.details["alphas"]:
        truth = pair.fidelity(point["alpha"])
        assert abs(point["fidelity"]["value"] - truth) < Z * point["fidelity"]["sigma"]
        _, success = pair.density(point["alpha"])
        rate = success / 5.5e-6
        assert abs(point["rate_hz"]["value"] - rate) < Z * point["rate_hz"]["sigma"]
    for node in (pair.client, pair.server):
        assert node.calibration.alpha.source == "assumed"
        assert what.update(node.calibration, result).alpha.value == alpha.value


def test_unreachable_fidelity():
    with pytest.raises(CalibrationError, match=r"no alpha gives a fidelity of 0.95; the best is"):
        measured(FidelityAlpha(target=0.95), FakePair())


def test_wrong_readout_is_noticed_in_the_fidelity():
    """Without correction the fidelity is too low by far."""
    pair = FakePair(seed=14)
    what = FidelityAlpha(pairs=2000)
    data = what.run(pair)
    perfect = {"node": "x", "f0": 1.0, "f1": 1.0, "sigma_f0": 0.0, "sigma_f1": 0.0}
    blind = replace(data, context={**data.context, "client": perfect, "server": perfect})
    seen = what.analyse(data).values["contrast"]
    assert what.analyse(blind).values["contrast"].value < seen.value - 5 * seen.sigma


def test_awg_delay():
    pair = FakePair(seed=15)
    what = AwgDelay()
    result = measured(what, pair)
    assert_near(result.values["client_dio_to_output_ns"], 120.0, 0.2)
    assert_near(result.values["server_dio_to_output_ns"], 97.5, 0.2)
    client = what.update(pair.client.calibration, result)
    server = what.update(pair.server.calibration, result)
    assert abs(client.attempt_offset_ns.value - 22.5) < Z * client.attempt_offset_ns.sigma
    assert server.attempt_offset_ns.value == -client.attempt_offset_ns.value
    with pytest.raises(CalibrationError, match="not carol"):
        what.update(NodeCalibration(node="carol"), result)


def test_awg_delay_without_photons():
    with pytest.raises(CalibrationError, match=r"awg-delay of the client: "):
        measured(AwgDelay(), FakePair(detection=0.0))


# --- all ----------------------------------------------------------------------------------


def bench_of(what, truth, seed=1):
    if what.on_ion:
        return SimulatedIonBench(IonPhysics(), IonCalibration(node="ion"), seed)
    return FakePair(seed=seed) if what.on_pair else FakeNode(truth, seed=seed)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_no_points_is_an_error_not_a_result(name):
    what = measurement(name)
    bench = bench_of(what, NV)
    empty = Data(name, {column.name: np.zeros(0) for column in what.columns}, what.context(bench))
    with pytest.raises(CalibrationError):
        what.analyse(empty)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_figures(name, tmp_path):
    what = measurement(name)
    bench = bench_of(what, NV, 16)
    data = what.run(bench)
    result = what.analyse(data)
    for place, shown in enumerate((None, result)):
        path = tmp_path / f"{place}.png"
        what.plot(data, shown, path)
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_settings_are_checked(name):
    with pytest.raises(CalibrationError, match=name):
        measurement(name, colour="red")


def test_unknown_measurement():
    with pytest.raises(CalibrationError, match="no measurement 'rabbi'; there are cr"):
        measurement("rabbi")


def test_unplayable_result_is_refused():
    result = measured(Rabi(), FakeNode())
    too_much = replace(result, values={**result.values, "pi_amplitude": (1.5, 0.1)})
    with pytest.raises(CalibrationError, match="full scale"):
        Rabi().update(NodeCalibration(node="alice"), too_much)
    assert Calibrated(value=1.0).source == "assumed"
