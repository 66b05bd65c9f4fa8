"""DQC results: one row per circuit, written block by block."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import numpy as np

from qnodeos.experiments.dqc_analysis import DqcSetData
from qnodeos.experiments.storage import Column, RunWriter, open_run

_SETPOINTS: Final = {"set_index": Column("set"), "circuit": Column("circuit")}
_COLUMNS: Final = {
    "alpha_steps": Column("alpha", "pi/16"),
    "theta_steps": Column("theta", "pi/16"),
    "orientation": Column("orientation of the verification"),
    "client_outcome": Column("client's outcome"),
    "outcome": Column("server's outcome"),
    "charge_ok": Column("both charge checks passed"),
    "live_time": Column("live time of the server's qubit", "ms"),
    "entanglement": Column("entanglement generation", "ms"),
}


def open_dqc_run(
    path: Path, metadata: Mapping[str, str | int | float]
) -> AbstractContextManager[RunWriter]:
    """Start a run of DQC in a database (see `qnodeos.experiments.storage.open_run`)."""
    return open_run(path, "dqc", "dqc", _SETPOINTS, _COLUMNS, metadata)


def add_block(run: RunWriter, set_index: int, first_circuit: int, data: DqcSetData) -> None:
    """Append the circuits ``first_circuit``... of a set.

    Raises:
        ResultStorageError: see `RunWriter.add`.
    """
    run.add(
        set_index=set_index,
        circuit=np.arange(first_circuit, first_circuit + data.outcome.size),
        alpha_steps=data.alpha_steps,
        theta_steps=data.theta_steps,
        orientation=data.orientation,
        client_outcome=data.client_outcome,
        outcome=data.outcome,
        charge_ok=data.charge_ok,
        live_time=data.segments["live_time"],
        entanglement=data.segments["entanglement"],
    )
