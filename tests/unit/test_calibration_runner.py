"""Calibrations from start to end: what is kept, and what changes only with a good result."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from calibration.dataset import read_run
from calibration.errors import CalibrationError, FitError
from calibration.file import calibration_path, load_calibration
from calibration.measure_coherence import CoherenceTime
from calibration.measure_rabi import Rabi
from calibration.registry import NODE_ORDER, measurement
from calibration.runner import Archive, calibrate, calibrate_all, calibrate_pair
from tests.unit.calibration_fakes import FakeNode, FakePair, Truth


@pytest.fixture
def archive(tmp_path):
    return Archive(
        tmp_path / "calibration.db",
        tmp_path / "nodes",
        tmp_path / "plots",
        lambda: datetime(2025, 3, 12, tzinfo=UTC),
    )


def test_everything_about_a_node(archive):
    truth = Truth(hyperfine_hz=2.16e6, resonance_hz=2.0004e9, full_scale_rabi_hz=33e6)
    node = FakeNode(truth, seed=21)
    outcomes = list(calibrate_all(node, archive, {"resonance": {"shots": 2000}}))
    assert [outcome.data.measurement for outcome in outcomes] == list(NODE_ORDER)
    kept = load_calibration(calibration_path(archive.calibrations, "alice"), "alice")
    assert kept == node.calibration
    assert kept.revision == len(NODE_ORDER)
    assert kept.pi_amplitude.value == pytest.approx(truth.pulses.pi_amplitude, rel=0.02)
    assert kept.mw_frequency_hz.value == pytest.approx(2.0004e9, abs=1e5)
    assert kept.t_coh_ms.source == "run 5 at 2025-03-12T00:00:00+00:00"
    for outcome in outcomes:
        assert outcome.plot is not None
        assert outcome.plot.is_file()
        stored = read_run(archive.database, outcome.run_id)
        assert stored.state == "complete"
        assert stored.result is not None
        assert stored.snapshot is not None
        assert stored.result["values"].keys() == outcome.result.values.keys()
        assert stored.snapshot["station"]["alice"] == node.snapshot()


def test_stored_run_is_analysed_like_a_fresh_one(archive):
    outcome = calibrate(Rabi(), FakeNode(seed=22), archive)
    again = Rabi().analyse(read_run(archive.database, outcome.run_id).data)
    for name, (value, sigma) in outcome.result.values.items():  # QCoDeS keeps 15 digits
        assert again.values[name] == pytest.approx((value, sigma), rel=1e-6)
    assert again.source == outcome.result.source


def test_pair(archive):
    pair = FakePair(seed=23)
    (outcome,) = calibrate_pair(pair, archive)
    assert pair.client.calibration.alpha == pair.server.calibration.alpha
    assert pair.server.calibration.alpha.value == outcome.result.values["alpha"].value
    for name in ("alice", "bob"):
        assert load_calibration(calibration_path(archive.calibrations, name), name).revision == 1


def test_interrupt_keeps_rows_and_restores_the_node(archive):
    node = FakeNode(seed=24, fail_after=15)
    before = node.calibration
    with pytest.raises(KeyboardInterrupt):
        calibrate(Rabi(), node, archive)
    stored = read_run(archive.database, 1)
    assert stored.state == "interrupted"
    assert stored.data.rows == 15
    assert node.calibration == before
    assert not archive.calibrations.exists()


def test_failed_analysis_keeps_data_and_changes_nothing(archive):
    """A coherence time from a node whose decoupling slips, which one copy fewer would do."""
    node = FakeNode(Truth(slip_hz=60.0), seed=25)
    before = node.calibration
    with pytest.raises(FitError, match=r"kept as run 1 of .*calibration.db") as caught:
        calibrate(CoherenceTime(shots=4000), node, archive)
    assert "Variables" in caught.value.report
    stored = read_run(archive.database, 1)
    assert stored.state == "complete"
    assert stored.data.rows > 5
    assert stored.error is not None
    assert "does not describe" in stored.error
    assert node.calibration == before
    assert not archive.calibrations.exists()
    assert (archive.plots / "1_t-coh.png").is_file()


def no_disk(*arguments):
    raise OSError("disk full")


def test_a_plot_that_fails_costs_no_good_calibration(archive, monkeypatch):
    monkeypatch.setattr(Rabi, "plot", no_disk)
    node = FakeNode(seed=22)
    outcome = calibrate(Rabi(), node, archive)
    assert outcome.plot is None
    assert outcome.plot_problem.endswith("1_rabi.png could not be drawn: OSError: disk full")
    assert node.calibration.pi_amplitude.source == outcome.result.source
    kept = load_calibration(calibration_path(archive.calibrations, "alice"), "alice")
    assert kept == node.calibration


def test_a_plot_that_fails_does_not_hide_why_the_fit_did(archive, monkeypatch):
    monkeypatch.setattr(CoherenceTime, "plot", no_disk)
    with pytest.raises(
        FitError, match=r"kept as run 1 .* could not be drawn: OSError: disk"
    ) as caught:
        calibrate(CoherenceTime(shots=4000), FakeNode(Truth(slip_hz=60.0), seed=25), archive)
    assert "Variables" in caught.value.report


def test_failure_on_the_way_names_the_run(archive):
    """The coarse stage cannot be fitted: no pulse turns anything."""
    node = FakeNode(Truth(full_scale_rabi_hz=1.0))
    with pytest.raises(CalibrationError, match="kept as run 1"):
        calibrate(Rabi(), node, archive)
    assert read_run(archive.database, 1).state == "failed"


def test_without_files_and_plots(tmp_path):
    node = FakeNode(seed=26)
    outcome = calibrate(measurement("cr"), node, Archive(tmp_path / "c.db"))
    assert outcome.plot is None
    assert node.calibration.cr_threshold.source == outcome.result.source
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in tmp_path.iterdir()} == {
        "c.db"
    }


def test_one_copy_does_not_change_the_file(archive):
    node = FakeNode(Truth(slip_hz=179.0), seed=27)
    calibrate(CoherenceTime(shifted_copies=1), node, archive)
    assert not archive.calibrations.exists()


@pytest.mark.parametrize(
    ("name", "bench", "message"),
    [("fidelity-alpha", FakeNode(), "a pair of nodes"), ("cr", FakePair(), "one node")],
)
def test_wrong_bench(archive, name, bench, message):
    with pytest.raises(CalibrationError, match=message):
        calibrate(measurement(name), bench, archive)


@pytest.mark.parametrize("settings", [{"rabbi": {}}, {"t-coh": {"colour": 1}}])
def test_settings_are_checked_before_anything_runs(archive, settings):
    with pytest.raises(CalibrationError):
        next(calibrate_all(FakeNode(), archive, settings))
    assert not archive.database.exists()


def test_data_is_not_changed_by_recording(archive):
    what = measurement("cr", shots=1000)
    plain = what.run(FakeNode(seed=28))
    recorded = calibrate(what, FakeNode(seed=28), replace(archive, calibrations=None)).data
    assert (plain["photons"] == recorded["photons"]).all()
