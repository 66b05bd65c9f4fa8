"""DQC results in the database: written block by block, read back as they were."""

from __future__ import annotations

import numpy as np
import pytest

from qnodeos.experiments.database import DATABASE
from qnodeos.experiments.dqc_analysis import DqcSetData
from qnodeos.experiments.dqc_storage import add_block, open_dqc_run
from tests.unit.stored_runs import read

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
    path = tmp_path / "new directory" / DATABASE
    blocks = {(0, 0): data_of(1), (1, 0): data_of(2, 3), (0, 6): data_of(1, 4)}
    with open_dqc_run(path, {"seed": 7, "profile": "paper"}) as run:
        for (set_index, first), data in blocks.items():
            add_block(run, set_index, first, data)
    stored = read(path)
    assert stored.completed
    assert set(stored.frame.columns) == set(COLUMNS)
    assert len(stored.frame) == 13
    in_order = stored.frame.sort_values(["set_index", "circuit"])
    for (set_index, first), data in blocks.items():
        assert_holds(in_order, set_index, first, data)
    assert stored.metadata["seed"] == 7
    assert stored.metadata["profile"] == "paper"
