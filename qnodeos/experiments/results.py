"""Reading the database of results: which runs there are, and their data in other formats.

Also databases that were written by something else with QCoDeS, such as calibrations, can be
read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qnodeos.errors import ConfigurationError
from qnodeos.experiments.database import DATABASE, explained, open_database, refusal
from qnodeos.experiments.storage import STATE, RunState
from qnodeos.files import holding, write_together

if TYPE_CHECKING:
    from qcodes.dataset.data_set import DataSet
    from qcodes.dataset.sqlite.connection import AtomicConnection


class Format(StrEnum):
    """What a run can be exported to."""

    CSV = "csv"
    NETCDF = "netcdf"


SUFFIXES = {Format.CSV: ".csv", Format.NETCDF: ".nc"}


@dataclass(frozen=True)
class StoredRun:
    """A run in a database.

    Attributes:
        run_id: its number, from 1.
        experiment: the command that made it.
        name: of the run.
        started: when it began.
        rows: how many are stored.
        state: how it ended, if it did.
        seed: of all randomness, None if it is not known.
        version: of this software that made it, None if it is not known.
    """

    run_id: int
    experiment: str
    name: str
    started: datetime | None
    rows: int
    state: RunState
    seed: int | None
    version: str | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.run_id,
            "experiment": self.experiment,
            "name": self.name,
            "started": None if self.started is None else self.started.isoformat(),
            "rows": self.rows,
            "state": self.state.value,
            "completed": self.state is RunState.COMPLETE,
            "seed": self.seed,
            "version": self.version,
        }


def database_at(place: Path) -> Path:
    """The database in a directory of results, or the file itself."""
    return place / DATABASE if place.is_dir() else place


def list_runs(path: Path, last: int) -> list[StoredRun]:
    """The newest runs of a database, in order of their numbers.

    Args:
        path: the database.
        last: how many at most.

    Raises:
        ConfigurationError: it cannot be read.
    """
    with _reading(path) as connection:
        numbers = connection.execute(
            "SELECT run_id FROM runs ORDER BY run_id DESC LIMIT ?", (last,)
        ).fetchall()
        return [_described(_dataset(connection, number)) for (number,) in reversed(numbers)]


def export_run(path: Path, run_id: int, form: Format, destination: Path) -> int:
    """Write the rows of a run, and in netCDF its metadata, to a file, as QCoDeS exports them.

    Args:
        path: the database.
        run_id: the number of the run.
        form: of the file.
        destination: the file; it is replaced as a whole, or not at all.

    Returns:
        How many rows were written.

    Raises:
        ConfigurationError: the database cannot be read, has no such run or no rows of it, or
            the file cannot be written.
    """
    with _reading(path) as connection:
        known = connection.execute("SELECT count(*), max(run_id) FROM runs").fetchone()
        if not connection.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchall():
            has = f"it has runs up to {known[1]}" if known[0] else "it has none yet"
            raise ConfigurationError(f"there is no run {run_id}: {has}", file=str(path))
        dataset = _dataset(connection, run_id)
        rows: int = dataset.number_of_results
        if rows == 0:
            raise ConfigurationError(f"run {run_id} has no rows", file=str(path))
        with explained(refusal(destination)):
            write_together({destination: holding(_content(dataset, form))})
    return rows


@contextmanager
def _reading(path: Path) -> Iterator[AtomicConnection]:
    with open_database(path, create=False) as connection, explained(refusal(path)):
        yield connection


def _dataset(connection: AtomicConnection, run_id: int) -> DataSet:
    from qcodes.dataset.data_set import DataSet

    return DataSet(run_id=run_id, conn=connection)


def _described(dataset: DataSet) -> StoredRun:
    metadata = dataset.metadata
    began = dataset.run_timestamp_raw
    state = metadata.get(STATE)
    if state not in set(RunState):  # written by something else
        state = RunState.COMPLETE if dataset.completed else RunState.UNFINISHED
    seed, version = metadata.get("seed"), metadata.get("version")
    return StoredRun(
        run_id=dataset.run_id,
        experiment=dataset.exp_name,
        name=dataset.name,
        started=None if began is None else datetime.fromtimestamp(began, UTC),
        rows=dataset.number_of_results,
        state=RunState(state),
        seed=seed if isinstance(seed, int) else None,
        version=None if version is None else str(version),
    )


def _content(dataset: DataSet, form: Format) -> bytes:
    if form is Format.CSV:
        csv: str = dataset.to_pandas_dataframe().to_csv()
        return csv.encode()
    from qcodes.dataset.exporters.export_to_xarray import xarray_to_h5netcdf_with_complex_numbers

    data = dataset.to_xarray_dataset()
    # Beside a compound index QCoDeS leaves text as pandas has it, which netCDF cannot hold.
    columns = {name: data[name].variable for name in data}
    text = {name: each.astype(object) for name, each in columns.items() if each.dtype.kind == "O"}
    file = BytesIO()  # on a disk that is full, HDF5 ends the process
    xarray_to_h5netcdf_with_complex_numbers(data.assign(text), cast("Any", file))
    return file.getvalue()
