"""Runs listed and exported from a database of results."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC
from typing import Any

import numpy as np
import pytest
from qcodes.dataset import load_from_netcdf
from qcodes.dataset.sqlite import database as qcodes_database

from qnodeos import __version__
from qnodeos.errors import ConfigurationError
from qnodeos.experiments.database import DATABASE
from qnodeos.experiments.results import Format, database_at, export_run, list_runs
from qnodeos.experiments.storage import Column, RunState, open_run

SETPOINTS = {"state": Column("input", text=True), "shot": Column("shot")}
COLUMNS = {"time": Column("time", "ms"), "outcome": Column("outcome", text=True)}
ROWS: dict[str, list[Any]] = {
    "state": ["+Z", "+Z", "-Z", "-Z"],
    "shot": [0, 1, 0, 0],
    "time": [0.25, np.nan, 1e-9, 3.0],
    "outcome": ["a", "b", "", "d"],
}


@pytest.fixture
def path(tmp_path):
    """A database with runs of each kind: 1 complete, 2 failed, 3 empty."""
    path = tmp_path / DATABASE

    def opened(experiment: str, seed: int):
        return open_run(path, experiment, f"the {experiment}", SETPOINTS, COLUMNS, {"seed": seed})

    with opened("lgt", 7) as run:
        run.add(**ROWS)
    with pytest.raises(ZeroDivisionError), opened("dqc", 8) as run:
        run.add(state="+Z", shot=1, time=0.5, outcome="a")
        raise ZeroDivisionError
    with opened("dqc", 9):
        pass
    return path


def test_runs_are_listed(path):
    assert database_at(path.parent) == database_at(path) == path
    runs = list_runs(path, 10)
    assert [(run.run_id, run.experiment, run.name, run.rows, run.seed) for run in runs] == [
        (1, "lgt", "the lgt", 4, 7),
        (2, "dqc", "the dqc", 1, 8),
        (3, "dqc", "the dqc", 0, 9),
    ]
    assert [run.state for run in runs] == [RunState.COMPLETE, RunState.FAILED, RunState.COMPLETE]
    assert [run.to_dict()["completed"] for run in runs] == [True, False, True]
    for run in runs:
        assert run.version == __version__
        assert run.started is not None
        assert run.started.tzinfo is UTC


def test_the_newest_runs_are_listed(path):
    assert [run.run_id for run in list_runs(path, 2)] == [2, 3]


def test_a_run_that_goes_on_is_listed_and_exported(path):
    with open_run(path, "lgt", "lgt", SETPOINTS, COLUMNS, {"seed": 1}) as run:
        run.add(**ROWS)
        assert list_runs(path, 1)[0].state is RunState.UNFINISHED
        assert export_run(path, run.run_id, Format.CSV, path.with_name("r.csv")) == 4


def test_runs_of_other_programs_are_listed(path):
    from qcodes.dataset import Measurement, load_or_create_experiment

    with closing(qcodes_database.connect(str(path))) as connection:
        recipe = Measurement(load_or_create_experiment("theirs", "sample", conn=connection))
        recipe.register_custom_parameter("x")
        recipe.register_custom_parameter("y", setpoints=("x",))
        with recipe.run() as saver:
            saver.dataset.add_metadata("seed", "any")
            saver.dataset.add_metadata("state", "any")
            saver.add_result(("x", 1), ("y", 2))
            saver.flush_data_to_database()
            assert list_runs(path, 1)[0].state is RunState.UNFINISHED
    (run,) = list_runs(path, 1)
    assert (run.experiment, run.rows, run.seed, run.version) == ("theirs", 1, None, None)
    assert run.state is RunState.COMPLETE


def test_csv_has_all_rows(path, tmp_path):
    assert export_run(path, 1, Format.CSV, tmp_path / "r.csv") == 4
    assert (tmp_path / "r.csv").read_text().splitlines() == [
        "state,shot,outcome,time",  # QCoDeS has the columns in alphabetical order
        "+Z,0.0,a,0.25",
        "+Z,1.0,b,",
        "-Z,0.0,,1e-09",
        "-Z,0.0,d,3.0",
    ]


@pytest.mark.parametrize("run_id", [1, 2])
def test_netcdf_has_all_rows_and_the_metadata(path, tmp_path, run_id):
    """Run 1 has setpoints that repeat, and of run 2 they are a grid."""
    export_run(path, run_id, Format.NETCDF, tmp_path / "r.nc")
    dataset = load_from_netcdf(tmp_path / "r.nc")
    frame = dataset.to_pandas_dataframe().reset_index()
    rows = ROWS if run_id == 1 else {"state": ["+Z"], "shot": [1], "time": [0.5], "outcome": ["a"]}
    for name, values in rows.items():
        np.testing.assert_array_equal(frame[name].to_numpy(), np.array(values))
    assert dataset.metadata["seed"] == {1: 7, 2: 8}[run_id]
    assert dataset.metadata["version"] == __version__


def test_netcdf_of_an_incomplete_grid(path, tmp_path):
    """As of a run that was interrupted."""
    setpoints = {"block": Column("block"), "shot": Column("shot")}
    with open_run(path, "dqc", "dqc", setpoints, COLUMNS, {"seed": 1}) as run:
        run.add(block=[0, 0, 1], shot=[5, 6, 5], time=[1.0, 2.0, 3.0], outcome=["x", "y", "z"])
    export_run(path, run.run_id, Format.NETCDF, tmp_path / "r.nc")
    frame = load_from_netcdf(tmp_path / "r.nc").to_pandas_dataframe().reset_index()
    assert frame["block"].tolist() == [0, 0, 1]
    assert frame["shot"].tolist() == [5, 6, 5]
    assert frame["outcome"].tolist() == ["x", "y", "z"]


@pytest.mark.parametrize(("run_id", "said"), [(4, "no run 4: .*up to 3"), (3, "no rows")])
def test_a_run_that_is_not_there(path, tmp_path, run_id, said):
    with pytest.raises(ConfigurationError, match=said):
        export_run(path, run_id, Format.CSV, tmp_path / "r.csv")
    assert not (tmp_path / "r.csv").exists()


@pytest.mark.parametrize("form", Format)
def test_a_file_that_cannot_be_written_is_not_begun(path, tmp_path, monkeypatch, form):
    target = tmp_path / "r"
    target.write_text("before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="No space left") as caught:
        export_run(path, 1, form, target)
    assert caught.value.file == str(target)
    assert target.read_text() == "before"
    assert {each.name for each in tmp_path.iterdir()} >= {"r", DATABASE}
    assert not list(tmp_path.glob("*.part"))


def test_a_database_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="no such database"):
        list_runs(database_at(tmp_path), 1)
    assert not list(tmp_path.iterdir())


def test_what_is_no_database_of_results_is_left_alone(tmp_path):
    path = tmp_path / DATABASE
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE runs (run_id INTEGER)")
    content = path.read_bytes()
    for damaged, said in ((content, "another program"), (content[:1_000], "damaged|not a")):
        path.write_bytes(damaged)
        with pytest.raises(ConfigurationError, match=said):
            list_runs(path, 1)
        assert [each.name for each in tmp_path.iterdir()] == [DATABASE]
        assert path.read_bytes() == damaged


def test_a_database_is_checked_with_what_was_written_last(path, tmp_path):
    with closing(sqlite3.connect(path)) as writer:
        version = writer.execute("PRAGMA user_version").fetchone()[0]
        writer.execute(f"PRAGMA user_version = {version + 1}")
        assert (tmp_path / f"{DATABASE}-wal").stat().st_size > 0
        with pytest.raises(ConfigurationError, match="newer QCoDeS"):
            list_runs(path, 1)


@pytest.mark.parametrize("form", Format)
def test_a_pipe_is_neither_read_nor_replaced(path, tmp_path, form):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to("pipe")
    for each in (pipe, tmp_path / "link"):
        with pytest.raises(ConfigurationError, match="is a pipe"):
            list_runs(each, 1)
        with pytest.raises(ConfigurationError, match="is a pipe, which is not replaced"):
            export_run(path, 1, form, each)
    assert pipe.is_fifo()
    assert (tmp_path / "link").is_symlink()
    assert not list(tmp_path.glob("*.part"))


def test_reading_changes_nothing(path, tmp_path):
    content = path.read_bytes()
    list_runs(path, 10)
    export_run(path, 1, Format.NETCDF, tmp_path / "r.nc")
    assert path.read_bytes() == content
