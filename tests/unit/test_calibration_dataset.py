"""Calibration runs in a database: every row is there, whatever ended the run."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import qcodes

from calibration.dataset import open_run, read_run, record_result
from calibration.errors import CalibrationError
from calibration.measurement import CalibrationResult, Column, Value

COLUMNS = (
    Column("x", "setting", "V", setpoint=True),
    Column("k", "number", setpoint=True),
    Column("y", "reading", "A"),
    Column("z", "other reading"),
)
NOW = datetime(2025, 3, 12, 8, 30, tzinfo=UTC)


def opened(path):
    return open_run(
        path,
        "sweep",
        "alice",
        COLUMNS,
        context={"pi_samples": 302, "duration_us": None},
        snapshot={"alice": {"awg": {"range": np.float64(0.8)}}},
        now=NOW,
    )


def test_rows_context_and_snapshot_come_back(tmp_path):
    path = tmp_path / "new" / "calibration.db"
    with opened(path) as run:
        run.append({"x": 1.5, "k": 1, "y": 0.25, "z": -1})
        run.append({"x": 2.0, "k": np.arange(3), "y": np.array([1, 2, 3]), "z": 7})
    stored = read_run(path, run.run_id)
    assert stored.state == "complete"
    assert stored.data.measurement == "sweep"
    assert stored.data.source == run.source == "run 1 at 2025-03-12T08:30:00+00:00"
    assert stored.data.context == {"pi_samples": 302, "duration_us": None}
    assert stored.data["x"].tolist() == [1.5, 2, 2, 2]
    assert stored.data["k"].tolist() == [1, 0, 1, 2]
    assert stored.data["y"].tolist() == [0.25, 1, 2, 3]
    assert stored.data["z"].tolist() == [-1, 7, 7, 7]
    assert stored.snapshot == {"station": {"alice": {"awg": {"range": 0.8}}}}


def test_rows_are_on_disk_while_the_run_goes_on(tmp_path):
    """As after a crash: nothing of the run was closed."""
    path = tmp_path / "calibration.db"
    with opened(path) as run:
        run.append({"x": 1, "k": 1, "y": 2, "z": 3})
        stored = read_run(path, run.run_id)
        assert stored.state == "running"
        assert stored.data["y"].tolist() == [2]


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt, "interrupted"), (ValueError, "failed")]
)
def test_ended_run_keeps_its_rows(tmp_path, error, state):
    path = tmp_path / "calibration.db"
    with pytest.raises(error), opened(path) as run:
        run.append({"x": 1, "k": 1, "y": 2, "z": 3})
        raise error
    stored = read_run(path, run.run_id)
    assert stored.state == state
    assert stored.data["z"].tolist() == [3]
    with opened(path) as following:  # the database is not locked
        following.append({"x": 1, "k": 1, "y": 5, "z": 3})
    assert following.run_id == run.run_id + 1


def test_run_without_rows(tmp_path):
    path = tmp_path / "calibration.db"
    with opened(path) as run:
        pass
    assert read_run(path, run.run_id).data.rows == 0


def test_result_and_error(tmp_path):
    path = tmp_path / "calibration.db"
    for _ in range(2):
        with opened(path) as run:
            run.append({"x": 1, "k": 1, "y": 2, "z": 3})
    result = CalibrationResult(
        "sweep", {"y_hz": Value(2.0, 0.5)}, run.source, details={"curve": np.arange(2)}
    )
    record_result(path, 1, result)
    record_result(path, 2, "no peak")
    first, second = read_run(path, 1), read_run(path, 2)
    assert first.result is not None
    assert first.result["values"] == {"y_hz": {"value": 2.0, "sigma": 0.5}}
    assert first.result["details"] == {"curve": [0, 1]}
    assert (first.error, second.error, second.result) == (None, "no peak", None)


def test_wrong_columns_are_refused(tmp_path):
    with pytest.raises(CalibrationError, match="columns"), opened(tmp_path / "c.db") as run:
        run.append({"x": 1})


def test_qcodes_default_database_stays(tmp_path):
    before = qcodes.config.core.db_location
    with opened(tmp_path / "calibration.db"):
        pass
    assert qcodes.config.core.db_location == before


def test_missing_database_or_run(tmp_path):
    with pytest.raises(CalibrationError, match="no database"):
        read_run(tmp_path / "none.db", 1)
    with opened(tmp_path / "calibration.db"):
        pass
    with pytest.raises(CalibrationError, match="no run 7"):
        read_run(tmp_path / "calibration.db", 7)
