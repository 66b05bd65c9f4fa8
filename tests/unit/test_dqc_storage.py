"""DQC results in a QCoDeS dataset: written block by block, read back by run id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qcodes.dataset import load_by_id
from qcodes.dataset.sqlite.database import conn_from_dbpath_or_conn

from qnodeos.experiments.dqc_analysis import DqcSetData
from qnodeos.experiments.dqc_storage import open_dataset

COLUMNS = (
    "set_index",
    "circuit",
    "alpha_steps",
    "theta_steps",
    "orientation",
    "client_outcome",
    "outcome",
    "charge_ok",
    "live_time",
    "entanglement",
)


def data_of(seed: int, circuits: int = 6) -> DqcSetData:
    rng = np.random.default_rng(seed)
    return DqcSetData(
        alpha_steps=seed,
        theta_steps=-seed,
        orientation=np.arange(circuits) % 2,
        outcome=rng.integers(2, size=circuits),
        client_outcome=rng.integers(2, size=circuits),
        charge_ok=rng.random(circuits) < 0.9,
        segments={
            "live_time": rng.gamma(60, 0.08, circuits),
            "entanglement": rng.exponential(500, circuits),
        },
    )


def read(path: Path, run_id: int = 1):
    """The columns of a run, in order of set and circuit, and its metadata."""
    connection = conn_from_dbpath_or_conn(conn=None, path_to_db=str(path))
    try:
        dataset = load_by_id(run_id, conn=connection)
        frame = dataset.to_pandas_dataframe().reset_index()
        return (
            frame.sort_values(["set_index", "circuit"]),
            dict(dataset.metadata),
            dataset.completed,
        )
    finally:
        connection.close()


def assert_holds(frame, set_index: int, first: int, data: DqcSetData) -> None:
    n = data.outcome.size
    rows = frame[(frame["set_index"] == set_index) & (frame["circuit"] >= first)][:n]
    assert rows["circuit"].tolist() == list(range(first, first + n))
    assert rows["alpha_steps"].tolist() == [data.alpha_steps] * n
    assert rows["theta_steps"].tolist() == [data.theta_steps] * n
    for name in ("orientation", "outcome", "client_outcome"):
        assert rows[name].tolist() == getattr(data, name).tolist()
    assert rows["charge_ok"].tolist() == data.charge_ok.astype(int).tolist()
    for name in ("live_time", "entanglement"):
        # QCoDeS keeps 15 digits.
        assert rows[name].tolist() == pytest.approx(data.segments[name].tolist(), rel=1e-14)


def test_blocks_are_read_back_as_they_were_written(tmp_path):
    path = tmp_path / "new directory" / "dqc.db"
    blocks = {(0, 0): data_of(1), (1, 0): data_of(2, 3), (0, 6): data_of(1, 4)}
    with open_dataset(path, "dqc", {"seed": 7, "profile": "paper"}) as write:
        for (set_index, first), data in blocks.items():
            write(set_index, first, data)
    frame, metadata, completed = read(path)
    assert completed
    assert set(frame.columns) == set(COLUMNS)
    assert len(frame) == 13
    for (set_index, first), data in blocks.items():
        assert_holds(frame, set_index, first, data)
    assert metadata["seed"] == 7
    assert metadata["profile"] == "paper"


def test_an_interrupted_run_keeps_what_it_had(tmp_path):
    path = tmp_path / "dqc.db"
    with pytest.raises(KeyboardInterrupt), open_dataset(path, "dqc", {}) as write:
        write(0, 0, data_of(3))
        raise KeyboardInterrupt
    frame, _, _ = read(path)
    assert_holds(frame, 0, 0, data_of(3))


def test_runs_of_one_database_are_numbered(tmp_path):
    path = tmp_path / "dqc.db"
    for seed in (4, 5):
        with open_dataset(path, "dqc", {"seed": seed}) as write:
            write(0, 0, data_of(seed))
    for run_id, seed in ((1, 4), (2, 5)):
        frame, metadata, _ = read(path, run_id)
        assert_holds(frame, 0, 0, data_of(seed))
        assert metadata["seed"] == seed
