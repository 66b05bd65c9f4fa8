"""LGT results: one row per readout, written block by block."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import numpy as np

from qnodeos.experiments.lgt_analysis import BASES, STATES, LgtData
from qnodeos.experiments.storage import Column, RunWriter, open_run

_SETPOINTS: Final = {
    "mode": Column("alone or multitasked", text=True),
    "repetition": Column("repetition"),
    "input_state": Column("input state", text=True),
    "basis": Column("basis", text=True),
}
_COLUMNS: Final = {
    "outcome": Column("outcome"),
    "charge_ok": Column("charge check passed afterwards"),
    "qnpu": Column("time of the subroutine on the QNPU", "ms"),
}


def open_lgt_run(
    path: Path, metadata: Mapping[str, str | int | float]
) -> AbstractContextManager[RunWriter]:
    """Start a run of LGT in a database (see `qnodeos.experiments.storage.open_run`)."""
    return open_run(path, "lgt", "lgt", _SETPOINTS, _COLUMNS, metadata)


def add_block(run: RunWriter, mode: str, first_repetition: int, data: LgtData) -> None:
    """Append the repetitions ``first_repetition``... of a mode.

    Raises:
        ResultStorageError: see `RunWriter.add`.
    """
    n, bases = data.outcome.shape
    run.add(
        mode=mode,
        repetition=np.repeat(first_repetition + np.arange(n) // len(STATES), bases),
        input_state=np.repeat(np.array(STATES)[data.state], bases),
        basis=np.tile(BASES, n),
        outcome=data.outcome.ravel(),
        charge_ok=data.charge_ok.ravel(),
        qnpu=np.repeat(data.qnpu_ms, bases),
    )
