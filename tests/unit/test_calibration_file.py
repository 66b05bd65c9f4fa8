"""The calibration file: what is written is read, and what is wrong is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from calibration.errors import CalibrationError
from calibration.file import (
    FORMAT_VERSION,
    RANGES,
    Calibrated,
    NodeCalibration,
    calibration_path,
    load_calibration,
    previous_path,
    save_calibration,
)
from instruments import microwave, nv_controller
from qnodeos.errors import ConfigurationError

NUMBERS = st.floats(-1e12, 1e12, allow_nan=False)
SIGMAS = st.floats(0, 1e9, allow_nan=False)
SOURCES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1)


@given(value=NUMBERS, sigma=SIGMAS, source=SOURCES.map(lambda text: text[:200]))
def test_any_value_comes_back(tmp_path_factory, value, sigma, source):
    path = tmp_path_factory.mktemp("calibration") / "alice.calibration.yaml"
    offset = Calibrated(value=value, sigma=sigma, source=source)
    saved = save_calibration(path, NodeCalibration(node="alice", attempt_offset_ns=offset))
    assert load_calibration(path, "alice") == saved
    assert saved.attempt_offset_ns == offset


def test_revision_counts_and_previous_is_kept(tmp_path):
    path = calibration_path(tmp_path / "new", "alice")
    first = save_calibration(path, NodeCalibration(node="alice"))
    second = save_calibration(path, first.replaced(f0=Calibrated(value=0.94)))
    assert (first.revision, second.revision) == (1, 2)
    assert load_calibration(path, "alice") == second
    assert load_calibration(previous_path(path), "alice") == first
    assert sorted(os.listdir(path.parent)) == [
        "alice.calibration.previous.yaml",
        "alice.calibration.yaml",
    ]


def test_concurrent_change_is_refused(tmp_path):
    path = calibration_path(tmp_path, "alice")
    first = save_calibration(path, NodeCalibration(node="alice"))
    save_calibration(path, first)
    with pytest.raises(ConfigurationError, match=r"now revision 2.*rests on revision 1"):
        save_calibration(path, first)


def test_failed_write_leaves_the_old_file(tmp_path, mocker):
    path = calibration_path(tmp_path, "alice")
    first = save_calibration(path, NodeCalibration(node="alice"))
    before = path.read_bytes()
    mocker.patch("calibration.file.os.fsync", side_effect=OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        save_calibration(path, first)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def written(tmp_path, old: str, new: str):
    path = calibration_path(tmp_path, "alice")
    save_calibration(path, NodeCalibration(node="alice"))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"version: {FORMAT_VERSION}", "version: 99", r"yaml:1: version: .*newer program"),
        ("node: alice", "node: bob", r"yaml:2: node: .*'alice'"),
        ("revision: 1", "revison: 1", r"yaml:3: revison: .*did you mean 'revision'"),
        ("sigma: 0.0", "sigma: -1.0", r"yaml:6: mw_frequency_hz.sigma"),
        ("value: 2000000000.0", 'value: "2e9"', r"yaml:5: mw_frequency_hz.value: .*number"),
        ("shifted_copies: 16", "shifted_copies: 3", r"shifted_copies"),
        ("value: 0.8585", "value: 1.5", r"pi_amplitude is 1.5 of full scale"),
        ("value: 0.95", "value: 0.001", r"cannot be inverted"),
        ("value: 3.0", "value: 3.5", r"whole number of photons"),
        ("spacing_samples: 24102", "spacing_samples: 10", r"pulse spacing of 10 samples"),
        ("value: 190.0", "value: 0.0", r"readout_us"),
    ],
)
def test_wrong_file_says_where(tmp_path, old, new, message):
    path = written(tmp_path, old, new)
    with pytest.raises(ConfigurationError, match=message):
        load_calibration(path, "alice")


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("side", [0, 1])
def test_values_that_instruments_refuse_are_refused(name, side):
    bound = RANGES[name][side]
    NodeCalibration(node="alice", **{name: Calibrated(value=bound)})
    outside = bound + (-1, 1)[side]
    with pytest.raises(
        ValidationError, match=rf"{name}\n.*the value must lie in .* {outside:.12g} "
    ):
        NodeCalibration(node="alice", **{name: Calibrated(value=outside)})


def test_ranges_are_those_of_the_instruments():
    for name in ("readout_us", "cr_us", "cr_threshold"):
        assert RANGES[name] == nv_controller.LIMITS[name]
    assert RANGES["mw_frequency_hz"] == (microwave.MIN_FREQUENCY_HZ, microwave.MAX_FREQUENCY_HZ)
    assert RANGES["mw_power_dbm"] == (microwave.MIN_POWER_DBM, microwave.MAX_POWER_DBM)


def test_newer_format_is_refused_before_its_fields(tmp_path):
    path = written(tmp_path, f"version: {FORMAT_VERSION}", "version: 2\nunheard_of: 1")
    with pytest.raises(ConfigurationError, match="newer program"):
        load_calibration(path, "alice")


def test_newer_or_foreign_file_is_not_overwritten(tmp_path):
    path = written(tmp_path, "node: alice", "node: bob")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError):
        save_calibration(path, NodeCalibration(node="alice", revision=1))
    assert path.read_bytes() == before


def test_replaced_checks(tmp_path):
    calibration = NodeCalibration(node="alice")
    with pytest.raises(CalibrationError, match=r"alice cannot take pi_amplitude: .*full scale"):
        calibration.replaced(pi_amplitude=Calibrated(value=1.2))


def test_table_settings():
    calibration = NodeCalibration(
        node="alice",
        pi_amplitude=Calibrated(value=0.5),
        pi_half_amplitude=Calibrated(value=0.4),
        spacing_samples=20000,
        shifted_copies=4,
        alpha=Calibrated(value=0.3),
    )
    settings = calibration.to_table_settings()
    assert settings.calibration.pi_amplitude == 0.5
    assert settings.calibration.pi_half_amplitude == 0.4
    assert (settings.spacing_samples, settings.shifted_copies) == (20000, 4)
    assert settings.alphas == (0.3,)
