"""What `qnodeos calibrate --node ion` opens: a simulated node, or a real one."""

from __future__ import annotations

import pytest

from calibration.file import Calibrated, calibration_path, save_calibration
from calibration.ion_file import IonCalibration
from calibration.measurement import CalibrationResult, Value
from calibration.registry import ION_ORDER
from instruments.errors import IncompatibleInstrument
from qnodeos.cli import ion_benches
from qnodeos.cli.benches import SIMULATED_TRUTH
from qnodeos.cli.ion_benches import IonBenches, ion_gate_errors, open_ion_benches
from qnodeos.errors import ConfigurationError, DeviceError
from sim.ion.bench import SimulatedIonBench
from sim.ion.physics import IonPhysics


def opened(name, directory, **changes):
    options = {"seed": 1, "drawn": True, "calibrations": directory, "station": None, "spi": None}
    return open_ion_benches(name, **(options | changes))


def test_a_measurement_starts_as_if_those_before_it_had_found_the_truth(tmp_path):
    with opened("ion-preparation", tmp_path) as benches:
        known, physics = benches.nodes["ion"].calibration, benches.physics
    assert physics != IonPhysics()
    assert known.carrier_hz.value == physics.carrier_hz
    assert known.carrier_hz.value - known.sideband_hz.value == pytest.approx(1e6)
    assert known.pi_ns.value == pytest.approx(physics.pi_time_ns, rel=2e-3)
    assert known.signal_cps.value == physics.bright_cps
    assert known.pi_ns.source == SIMULATED_TRUTH
    assert known.preparation_error.source == "assumed"


@pytest.mark.parametrize("name", ["all", ION_ORDER[0]])
def test_the_first_measurement_knows_nothing(tmp_path, name):
    with opened(name, tmp_path) as benches:
        assert benches.nodes["ion"].calibration == IonCalibration(node="ion")


def test_a_calibration_file_is_used(tmp_path):
    kept = IonCalibration(node="ion", pi_ns=Calibrated(value=12_000.0))
    kept = save_calibration(calibration_path(tmp_path, "ion"), kept)
    with opened("ion-preparation", tmp_path) as benches:
        assert benches.nodes["ion"].calibration == kept


def test_another_seed_is_another_truth(tmp_path):
    found = []
    for changes in ({}, {"seed": 2}, {"drawn": False}):
        with opened("all", tmp_path, **changes) as benches:
            found.append(benches.physics)
    assert len({physics.model_dump_json() for physics in found}) == 3
    assert found[2] == IonPhysics()


def test_truth_of_what_was_found():
    physics = IonPhysics()
    node = SimulatedIonBench(physics, IonCalibration(node="ion"), 1)
    found = dict.fromkeys(("threshold", "dark_of_s", "pi_ns", "angle_pi"), Value(30.0, 1.0))
    result = CalibrationResult("any", found, "a run")
    truth = IonBenches({"ion": node}, physics).truth(result, ["ion"])
    assert truth["threshold"] == 33
    assert truth["dark_of_s"] == physics.readout_errors(1_500, 30)[0]
    assert truth["pi_ns"] == pytest.approx(10_000, rel=1e-3)
    assert "angle_pi" not in truth
    assert IonBenches({"ion": node}).truth(result, ["ion"]) == {}


def test_gate_errors_are_small_for_a_calibrated_ion_and_large_for_another():
    calibrated = SimulatedIonBench(IonPhysics(), IonCalibration(node="ion"), 1)
    assert ion_gate_errors(calibrated, 500) < 0.03
    slow = SimulatedIonBench(IonPhysics(pi_time_ns=15_000.0), IonCalibration(node="ion"), 1)
    assert ion_gate_errors(slow, 500) > 0.1


def test_a_station_whose_instruments_do_not_fit_is_closed(mocker, tmp_path):
    link = mocker.patch.object(ion_benches, "open_spi").return_value
    station = mocker.patch.object(ion_benches, "open_station").return_value
    mocker.patch.object(ion_benches, "IonInstruments", side_effect=IncompatibleInstrument("no"))
    with (
        pytest.raises(DeviceError, match="no"),
        opened("ion-rabi", tmp_path, station=tmp_path / "station.yaml", spi="0.1"),
    ):
        pass
    station.close.assert_called_once_with()
    link.close.assert_called_once_with()


def test_a_real_node_is_set_up_and_closed(mocker, tmp_path):
    open_spi = mocker.patch.object(ion_benches, "open_spi")
    open_spi.return_value.speed_hz = 10_000_000
    mocker.patch.object(ion_benches, "open_station")
    made = mocker.patch.object(ion_benches, "IonInstruments").return_value
    with opened("ion-rabi", tmp_path, station=tmp_path / "station.yaml", spi="2.1") as benches:
        assert benches.physics is None
        assert benches.pacer is not None
        made.set_up.assert_called_once()
        made.close.assert_not_called()
    open_spi.assert_called_once_with(2, 1)
    made.close.assert_called_once_with()


def test_an_spi_address_must_have_two_numbers(tmp_path):
    with (
        pytest.raises(ConfigurationError, match=r"BUS\.DEVICE"),
        opened("ion-rabi", tmp_path, station=tmp_path / "station.yaml", spi="spi0"),
    ):
        pass
