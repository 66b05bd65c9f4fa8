"""DQC results in a QCoDeS dataset.

One row per circuit, written block by block, so that an interrupted run leaves everything
it had measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from qnodeos.experiments.dqc_analysis import DqcSetData

_SETPOINTS: Final = ("set_index", "circuit")
_COLUMNS: Final = {
    "alpha_steps": ("alpha", "pi/16"),
    "theta_steps": ("theta", "pi/16"),
    "orientation": ("orientation of the verification", ""),
    "client_outcome": ("client's outcome", ""),
    "outcome": ("server's outcome", ""),
    "charge_ok": ("both charge checks passed", ""),
    "live_time": ("live time of the server's qubit", "ms"),
    "entanglement": ("entanglement generation", "ms"),
}


class BlockWriter(Protocol):
    """Appends the data of one block."""

    def __call__(self, set_index: int, first_circuit: int, data: DqcSetData) -> None:
        """Write the circuits ``first_circuit``... of a set."""
        ...


@contextmanager
def open_dataset(path: Path, name: str, metadata: dict[str, Any]) -> Iterator[BlockWriter]:
    """Open a new run in a QCoDeS database (made if it does not exist).

    Args:
        path: the database file.
        name: of the run.
        metadata: recorded with the run; values must be text or numbers.

    Yields:
        A function that appends a block.
    """
    from qcodes.dataset import (
        Measurement,
        initialise_or_create_database_at,
        load_or_create_experiment,
    )

    path.parent.mkdir(parents=True, exist_ok=True)
    initialise_or_create_database_at(path, journal_mode="WAL")
    experiment = load_or_create_experiment("dqc", sample_name="simulated")
    measurement = Measurement(exp=experiment, name=name)
    for setpoint in _SETPOINTS:
        measurement.register_custom_parameter(setpoint)
    for column, (label, unit) in _COLUMNS.items():
        measurement.register_custom_parameter(column, label=label, unit=unit, setpoints=_SETPOINTS)
    with ExitStack() as stack:
        with redirect_stdout(StringIO()):  # QCoDeS announces every run, however quiet we are to be
            saver = stack.enter_context(measurement.run())
        for key, value in metadata.items():
            saver.dataset.add_metadata(key, value)

        def write(set_index: int, first_circuit: int, data: DqcSetData) -> None:
            n = data.outcome.size
            values: dict[str, Any] = {
                "set_index": np.full(n, set_index),
                "circuit": np.arange(first_circuit, first_circuit + n),
                "alpha_steps": np.full(n, data.alpha_steps),
                "theta_steps": np.full(n, data.theta_steps),
                "orientation": data.orientation,
                "client_outcome": data.client_outcome,
                "outcome": data.outcome,
                "charge_ok": data.charge_ok.astype(int),
                "live_time": data.segments["live_time"],
                "entanglement": data.segments["entanglement"],
            }
            saver.add_result(*values.items())
            saver.flush_data_to_database()

        yield write
