"""Calibration runs in a QCoDeS database.

Every run is a dataset of its own: rows are on disk as soon as they are measured, so
that neither an interrupt nor a crash nor a failed fit loses them. The station's snapshot, the
settings the analysis needs and, in the end, the result go with it. Connections are
private and closed after use: nobody else finds the database locked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from calibration.errors import CalibrationError
from calibration.measurement import CalibrationResult, Column, Data, Rows, aligned, as_json

EXPERIMENT: Final = "calibration"

_CONTEXT, _COLUMNS, _SOURCE = "calibration_context", "calibration_columns", "calibration_source"
_RESULT, _ERROR, _STATE = "calibration_result", "calibration_error", "calibration_state"


@dataclass(frozen=True)
class Run:
    """A run that is being recorded.

    Attributes:
        run_id: in the database.
        source: names the run and its time.
        append: writes rows.
    """

    run_id: int
    source: str
    append: Callable[[Rows], None]


@contextmanager
def open_run(
    database: Path,
    measurement: str,
    node: str,
    columns: tuple[Column, ...],
    *,
    context: Mapping[str, Any],
    snapshot: Mapping[str, Any],
    now: datetime,
) -> Iterator[Run]:
    """Start a run in a database, which is made if it does not exist.

    An exception, an interrupt too, ends the run, notes in it what ended it, and goes on.

    Args:
        database: its file.
        measurement: name of the measurement.
        node: name of the node, or of the pair.
        columns: of the data, with at least one setpoint.
        context: what the analysis needs to know.
        snapshot: of the station.
        now: the time, with its zone.
    """
    from qcodes.dataset import Measurement, load_or_create_experiment

    names = [column.name for column in columns]
    setpoints = [column.name for column in columns if column.setpoint]
    with _connection(database, create=True) as connection, ExitStack() as stack:
        experiment = load_or_create_experiment(EXPERIMENT, sample_name=node, conn=connection)
        recipe = Measurement(exp=experiment, name=f"{measurement} {node}")
        for column in columns:
            recipe.register_custom_parameter(
                column.name,
                label=column.label,
                unit=column.unit,
                setpoints=None if column.setpoint else setpoints,
            )
        with redirect_stdout(StringIO()):  # QCoDeS announces every run
            saver = stack.enter_context(recipe.run())
        dataset = saver.dataset
        source = f"run {dataset.run_id} at {now.isoformat(timespec='seconds')}"
        for key, value in (
            (_CONTEXT, as_json(context)),
            (_COLUMNS, as_json([column._asdict() for column in columns])),
            (_SOURCE, source),
            (_STATE, "running"),
        ):
            dataset.add_metadata(key, value)
        dataset.add_snapshot(as_json({"station": snapshot}), overwrite=True)

        def append(rows: Rows) -> None:
            saver.add_result(*aligned(rows, names).items())
            saver.flush_data_to_database()

        try:
            yield Run(dataset.run_id, source, append)
        except BaseException as error:
            saver.flush_data_to_database()
            interrupted = isinstance(error, KeyboardInterrupt | GeneratorExit)
            dataset.add_metadata(_STATE, "interrupted" if interrupted else "failed")
            raise
        dataset.add_metadata(_STATE, "complete")


def record_result(
    database: Path, run_id: int, outcome: CalibrationResult | CalibrationError | str
) -> None:
    """Attach the result of an analysis to its run, or why there is none."""
    with _dataset(database, run_id) as dataset:
        if isinstance(outcome, CalibrationResult):
            dataset.add_metadata(_RESULT, as_json(outcome.to_dict()))
        else:
            dataset.add_metadata(_ERROR, str(outcome))


@dataclass(frozen=True)
class StoredRun:
    """A run read back.

    Attributes:
        data: everything that was measured.
        state: running (also: the program was killed), interrupted, failed or complete.
        result: of the analysis, if there was one.
        error: why the analysis failed, if it did.
        snapshot: of the station.
    """

    data: Data
    state: str
    result: dict[str, Any] | None
    error: str | None
    snapshot: dict[str, Any] | None


def read_run(database: Path, run_id: int) -> StoredRun:
    """Read a run, finished or not.

    Raises:
        CalibrationError: there is no such database or run, or it is no calibration.
    """
    with _dataset(database, run_id) as dataset:
        metadata = dict(dataset.metadata)
        if _CONTEXT not in metadata:
            raise CalibrationError(f"run {run_id} of {database} is no calibration")
        names = [column["name"] for column in json.loads(metadata[_COLUMNS])]
        measured = dataset.get_parameter_data()
        columns = {name: np.zeros(0) for name in names}
        for tree in measured.values():
            columns |= {
                name: np.asarray(values, dtype=np.float64).ravel() for name, values in tree.items()
            }
        result = metadata.get(_RESULT)
        snapshot = dataset.snapshot
        return StoredRun(
            Data(
                dataset.name.split(" ")[0],
                {name: columns[name] for name in names},
                json.loads(metadata[_CONTEXT]),
                metadata[_SOURCE],
            ),
            metadata[_STATE],
            None if result is None else json.loads(result),
            metadata.get(_ERROR),
            None if snapshot is None else dict(snapshot),
        )


@contextmanager
def _connection(database: Path, *, create: bool = False) -> Iterator[Any]:
    """A connection of our own: QCoDeS' default database stays what it is."""
    from qcodes.dataset.sqlite.database import connect, initialise_database

    if create:
        database.parent.mkdir(parents=True, exist_ok=True)
        initialise_database(journal_mode="WAL", db_path=str(database))
    elif not database.is_file():
        raise CalibrationError(f"there is no database {database}; check the path")
    connection = connect(str(database))
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _dataset(database: Path, run_id: int) -> Iterator[Any]:
    from qcodes.dataset import load_by_id

    with _connection(database) as connection:
        try:
            dataset = load_by_id(run_id, conn=connection)
        except (ValueError, NameError, RuntimeError) as error:
            raise CalibrationError(f"there is no run {run_id} in {database}: {error}") from error
        yield dataset
