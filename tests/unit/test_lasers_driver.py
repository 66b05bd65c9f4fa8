"""Lasers on a mocked ADwin and on plain parameters."""

from __future__ import annotations

import ADwin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qcodes.instrument import Instrument
from qcodes.parameters import ManualParameter

from instruments.adwin import AdwinProII
from instruments.errors import ConfigurationRefused, InstrumentInUse
from instruments.lasers import AdwinLaser, AomCurve, Laser

CURVE = AomCurve(((0.0, 0.0), (0.5, 1.0), (1.0, 4.0)))
LEVELS = {"readout": 1, "charge_check": 2}


@pytest.fixture(autouse=True)
def close_all(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    Instrument.close_all()


@pytest.fixture
def wrapper(mocker):
    """A mock with the shape of the vendor's wrapper: DATA_21 has five FLOAT elements."""
    mock = mocker.create_autospec(ADwin.ADwin, instance=True)
    mock.Processor_Type.return_value = "T12"
    mock.Test_Version.return_value = 0
    mock.Data_Length.return_value = 5
    mock.Data_Type.return_value = (6, "float64")
    mock.version = "0.21.0"
    mock.volts = np.zeros(6)

    def set_data(content, number, start, count):
        assert number == 21
        mock.volts[start : start + count] = content

    mock.SetData_Double.side_effect = set_data
    mock.GetData_Double.side_effect = lambda number, start, count: mock.volts[start : start + count]
    return mock


# --- the curve -----------------------------------------------------------------------------


def increasing(count):
    steps = st.lists(st.floats(1e-3, 10), min_size=count, max_size=count)
    return steps.map(lambda values: np.cumsum(values).tolist())


@given(increasing(5), increasing(5), st.floats(0, 1))
def test_voltage_and_power_are_inverse(volts, powers, where):
    curve = AomCurve(tuple(zip(volts, powers, strict=True)))
    voltage = volts[0] + where * (volts[-1] - volts[0])
    power = curve.power_uw(voltage)
    assert powers[0] * (1 - 1e-9) <= power <= powers[-1] * (1 + 1e-9)
    assert curve.power_uw(curve.voltage_v(power)) == pytest.approx(power, rel=1e-9)


def test_between_the_points_the_curve_is_straight():
    assert CURVE.power_uw(0.25) == 0.5
    assert CURVE.voltage_v(2.5) == 0.75
    for wrong in (-0.01, 1.01):
        with pytest.raises(ConfigurationRefused, match="covers 0 to 1 V"):
            CURVE.power_uw(wrong)
    with pytest.raises(ConfigurationRefused, match=r"covers 0 to 4 uW, not 4\.1"):
        CURVE.voltage_v(4.1)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0, 0]], "1 points"),
        ([[0, 0]] * 1_001, "1001 points"),
        ([[0, 0], [0, 1]], "must increase"),
        ([[0, 0], [1, 0]], "must increase"),
        ([[0, 1], [1, 0.5]], "must increase"),
        ([[-1, 0], [1, 1]], "must increase"),
        ([[0, 0], [1, float("nan")]], "pairs of numbers"),
        ([[0, 0], [1, 1, 1]], "no point"),
    ],
)
def test_a_curve_must_be_monotonic(points, message):
    with pytest.raises(ConfigurationRefused, match=message):
        AomCurve.from_points(points)


# --- the laser -----------------------------------------------------------------------------


def test_a_power_is_written_as_a_voltage():
    output = ManualParameter("output", initial_value=0.0)
    laser = Laser("red", {"readout": output}, CURVE)
    laser.readout.power_uw(2.5)
    assert output() == 0.75
    assert laser.levels["readout"].voltage_v() == 0.75
    output(0.25)
    assert laser.readout.power_uw() == 0.5
    laser.off()
    assert output() == 0.0


def test_limits_are_those_of_the_curve_and_the_configuration():
    output = ManualParameter("output", initial_value=0.0)
    laser = Laser("red", {"readout": output}, CURVE, max_v=0.75)
    laser.readout.power_uw(2.5)
    for name, value in (("power_uw", 2.51), ("power_uw", -0.1), ("voltage_v", 0.76)):
        with pytest.raises(ValueError, match=name):
            laser.readout.parameters[name](value)
    assert output() == 0.75
    for wrong in (0.0, 1.1):
        with pytest.raises(ConfigurationRefused, match="max_v"):
            Laser("green", {"readout": output}, CURVE, max_v=wrong)


@pytest.mark.parametrize("levels", [{}, {f"level{n}": 1 for n in range(17)}, {"read out": 1}])
def test_levels_are_checked(levels):
    with pytest.raises(ConfigurationRefused, match=r"red: .*level"):
        Laser("red", levels, CURVE)


# --- on an ADwin ---------------------------------------------------------------------------


def test_levels_are_elements_of_the_adwins_array(wrapper):
    adwin = AdwinProII("adwin", wrapper)
    laser = AdwinLaser("e", adwin, LEVELS, [[0, 0], [1, 0.02]], data=21)
    laser.readout.power_uw(0.01)
    laser.charge_check.power_uw(0.005)
    assert wrapper.volts.tolist() == [0, 0.5, 0.25, 0, 0, 0]
    assert adwin.e_readout_v() == 0.5
    snapshot = laser.snapshot(update=True)
    assert snapshot["parameters"]["IDN"]["value"]["model"] == "laser with AOM"
    values = snapshot["submodules"]["readout"]["parameters"]
    assert values["power_uw"]["value"] == pytest.approx(0.01)
    laser.close()
    assert "e_readout_v" not in adwin.parameters
    AdwinLaser("e", "adwin", LEVELS, CURVE, data=21)


def test_the_adwin_may_be_closed_first(wrapper):
    adwin = AdwinProII("adwin", wrapper)
    laser = AdwinLaser("e", adwin, LEVELS, CURVE, data=21)
    adwin.close()
    laser.close()
    laser.close()


def test_before_the_program_is_loaded_there_is_no_voltage(wrapper):
    wrapper.Data_Length.return_value = 0
    wrapper.Data_Type.return_value = (0, "undefined")
    laser = AdwinLaser("e", AdwinProII("adwin", wrapper), LEVELS, CURVE, data=21)
    with pytest.raises(ConfigurationRefused, match="load the process that declares it"):
        laser.readout.power_uw(1.0)
    assert laser.snapshot()["submodules"]["readout"]["parameters"]["power_uw"]["value"] is None


def test_what_is_wrong_leaves_nothing_on_the_adwin(wrapper):
    adwin = AdwinProII("adwin", wrapper)
    before = set(adwin.parameters)
    with pytest.raises(ConfigurationRefused, match="max_v"):
        AdwinLaser("e", adwin, LEVELS, CURVE, data=21, max_v=5)
    with pytest.raises(ConfigurationRefused, match="DATA_201 does not exist"):
        AdwinLaser("e", adwin, LEVELS, CURVE, data=201)
    with pytest.raises(ConfigurationRefused, match="e: there is no ADwin 'adwin2'"):
        AdwinLaser("e", "adwin2", LEVELS, CURVE, data=21)
    laser = AdwinLaser("e", adwin, LEVELS, CURVE, data=21)
    with pytest.raises(InstrumentInUse, match="'e' already"):
        AdwinLaser("e", adwin, LEVELS, CURVE, data=21)
    assert list(laser.levels) == list(LEVELS)
    assert set(adwin.parameters) - before == {"e_readout_v", "e_charge_check_v"}


def test_an_adwin_without_a_wrapper_takes_the_vendors_library(wrapper, mocker):
    opened = mocker.patch("instruments.adwin.open_library", return_value=wrapper)
    AdwinProII("adwin", device_number=7)
    opened.assert_called_once_with(7)


# --- nominal voltages ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nominal", "expected"),
    [(None, [0.8, 0.8]), ({"readout": 0.3}, [0.3, 0.8])],
)
def test_the_nominal_voltages_are_those_of_the_station_file(wrapper, nominal, expected):
    adwin = AdwinProII("adwin", wrapper)
    laser = AdwinLaser("e", adwin, LEVELS, CURVE, data=21, max_v=0.8, nominal_v=nominal)
    laser.to_nominal()
    assert wrapper.volts[1:3].tolist() == expected


@pytest.mark.parametrize(
    ("nominal", "message"),
    [
        ({"pump": 0.3}, "no level 'pump'"),
        ({"readout": 0.9}, "0.9 V for readout is outside 0 to 0.8 V"),
        ({"readout": -0.1}, "outside"),
        ({"readout": float("nan")}, "outside"),
    ],
)
def test_nominal_voltages_that_cannot_be_are_refused(wrapper, nominal, message):
    adwin = AdwinProII("adwin", wrapper)
    with pytest.raises(ConfigurationRefused, match=message):
        AdwinLaser("e", adwin, LEVELS, CURVE, data=21, max_v=0.8, nominal_v=nominal)
    assert not Instrument.exist("e")
