"""Results of the trapped-ion demonstration: one row per circuit, written block by block."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import numpy as np

from qnodeos.experiments.ion_analysis import RUNS, IonData
from qnodeos.experiments.ion_circuits import SEQUENCES
from qnodeos.experiments.storage import Column, RunWriter, open_run

_SETPOINTS: Final = {
    "run": Column("through QNodeOS, or direct", text=True),
    "repetition": Column("repetition"),
    "sequence": Column("sequence", text=True),
}
_COLUMNS: Final = {"dark": Column("dark")}


def open_ion_run(
    path: Path, metadata: Mapping[str, str | int | float]
) -> AbstractContextManager[RunWriter]:
    """Start a run in a database (see `qnodeos.experiments.storage.open_run`)."""
    return open_run(path, "ion", "ion", _SETPOINTS, _COLUMNS, metadata)


def add_block(run: RunWriter, first_repetition: int, data: IonData) -> None:
    """Append the repetitions ``first_repetition``...

    Raises:
        ResultStorageError: see `RunWriter.add`.
    """
    repetitions = first_repetition + np.arange(data.repetitions)
    for name in RUNS:
        run.add(
            run=name,
            repetition=np.repeat(repetitions, len(SEQUENCES)),
            sequence=np.tile(list(SEQUENCES), data.repetitions),
            dark=getattr(data, name).ravel(),
        )
