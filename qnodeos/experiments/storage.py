"""Storing the results of experiments: one QCoDeS database per directory of results.

Every experiment appends to ``DIRECTORY/qnodeos.db`` (`DATABASE`)::

    with open_run(
        out / DATABASE,
        "lgt",
        "lgt alone",
        setpoints={"repetition": Column("repetition")},
        columns={"outcome": Column("outcome"), "duration": Column("subroutine", "ms")},
        metadata={"seed": 1, "version": __version__, "settings": text},
    ) as run:
        run.add(repetition=np.arange(100), outcome=outcomes, duration=durations_ms)

What `add` was given is on disk, whole, when it returns: neither Ctrl-C nor a kill loses it.
Several processes may append runs of their own to one database at once, and others may read.
`qnodeos results` lists what is there (`qnodeos.experiments.results`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike

from qnodeos import __version__
from qnodeos.errors import ResultStorageError
from qnodeos.experiments.database import (
    DATABASE,
    explained,
    open_database,
    refusal,
    transaction,
)

if TYPE_CHECKING:
    from qcodes.dataset.data_set import DataSet
    from qcodes.dataset.sqlite.connection import AtomicConnection

__all__ = ["DATABASE", "Column", "RunState", "RunWriter", "open_run"]

STATE: Final = "state"
"""Key of a run's state in its metadata."""

_SAMPLE: Final = "simulated"


class RunState(StrEnum):
    """How a run ended."""

    UNFINISHED = "unfinished"
    """It runs still, or its process was killed."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True)
class Column:
    """What the values under a name mean.

    Attributes:
        label: for axes and readers.
        unit: of the values; empty for none.
        text: values are text; otherwise they are numbers.
    """

    label: str
    unit: str = ""
    text: bool = False


class RunWriter:
    """Appends rows to a run. Made by `open_run`; used by the thread that opened it.

    Attributes:
        run_id: of the run in its database, from 1.
        path: of the database.
    """

    def __init__(
        self, path: Path, connection: AtomicConnection, dataset: DataSet, kinds: Mapping[str, str]
    ) -> None:
        self.path = path
        self.run_id: int = dataset.run_id
        self._connection = connection
        self._dataset = dataset
        self._kinds = kinds
        self._state = RunState.COMPLETE

    def add(self, **values: ArrayLike) -> None:
        """Append rows, all of them or none.

        Args:
            **values: for every setpoint and column, an array of one value per row, or a single
                value that all rows share.

        Raises:
            ResultStorageError: the rows cannot be stored, for instance because the disk is
                full. What was added before is kept.
            ValueError: names or lengths do not fit, or numbers are text or the reverse.
        """
        if values.keys() != self._kinds.keys():
            raise ValueError(f"a row has {sorted(self._kinds)}, and not {sorted(values)}")
        arrays = np.broadcast_arrays(*(np.atleast_1d(each) for each in values.values()))
        for name, array in zip(values, arrays, strict=True):
            if array.ndim != 1 or array.dtype.kind not in self._kinds[name]:
                raise ValueError(f"{name}: {array.ndim} dimensions of {array.dtype}")
        columns = [array.tolist() for array in arrays]
        rows = [dict(zip(values, row, strict=True)) for row in zip(*columns, strict=True)]
        if rows:
            with explained(self._lost), transaction(self._connection):
                self._dataset.add_results(rows)

    def mark_interrupted(self) -> None:
        """Say that the run is not what was asked for, though no exception will end it."""
        self._state = RunState.INTERRUPTED

    def end(self, state: RunState | None = None) -> None:
        """Note how the run ended.

        Args:
            state: None for complete, or interrupted if it has been marked so.

        Raises:
            ResultStorageError: it cannot be noted.
        """
        state = state or self._state
        with explained(self._lost), transaction(self._connection):
            self._dataset.add_metadata(STATE, state.value)
            if state is RunState.COMPLETE:
                self._dataset.mark_completed()

    def _lost(self, reason: str) -> Exception:
        return ResultStorageError(
            f"{self.path}: run {self.run_id} cannot be continued: {reason} "
            "(everything stored before is kept)"
        )


@contextmanager
def open_run(
    path: Path,
    experiment: str,
    name: str,
    setpoints: Mapping[str, Column],
    columns: Mapping[str, Column],
    metadata: Mapping[str, str | int | float],
) -> Iterator[RunWriter]:
    """Start a run in a database, which is made with its directories if it does not exist.

    An exception, an interrupt too, ends the run, notes in it what kind ended it, and goes on.

    Args:
        path: of the database: ``out / DATABASE``.
        experiment: the command: ``dqc``, ``lgt``, ...
        name: of the run, for people.
        setpoints: what identifies a row, by name: at least one.
        columns: what was measured, by name: at least one. Names are Python identifiers, and
            no words of SQL.
        metadata: recorded with the run from its start, by name: at least ``seed``, and
            ``settings`` or what else determines the results. The version is added.

    Raises:
        ConfigurationError: the database cannot be used; says why. Nothing was written.
        ResultStorageError: see `RunWriter.add`.
        ValueError: a name cannot be used.
    """
    _check_names([*setpoints, *columns], metadata)
    with open_database(path, create=True) as connection:
        with explained(refusal(path)), transaction(connection):
            dataset = _start(connection, experiment, name, setpoints, columns, metadata)
        kinds = {
            key: "U" if column.text else "biuf" for key, column in {**setpoints, **columns}.items()
        }
        run = RunWriter(path, connection, dataset, kinds)
        try:
            yield run
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt | GeneratorExit)
            with suppress(ResultStorageError):  # the first problem is the one to report
                run.end(RunState.INTERRUPTED if interrupted else RunState.FAILED)
            raise
        run.end()


def _check_names(columns: list[str], metadata: Mapping[str, Any]) -> None:
    """QCoDeS puts these names into SQL as they are, and metadata beside its own fields."""
    from qcodes.dataset.sqlite.queries import RUNS_TABLE_COLUMNS

    for name in (*columns, *metadata):
        if not name.isidentifier():
            raise ValueError(f"{name!r} is not a name")
    if len(set(columns)) < len(columns):
        raise ValueError(f"a name occurs twice: {sorted(columns)}")
    if taken := {*RUNS_TABLE_COLUMNS, STATE} & metadata.keys():
        raise ValueError(f"these metadata are written for you: {sorted(taken)}")


def _start(
    connection: AtomicConnection,
    experiment: str,
    name: str,
    setpoints: Mapping[str, Column],
    columns: Mapping[str, Column],
    metadata: Mapping[str, str | int | float],
) -> DataSet:
    """Make a run that can be added to."""
    from qcodes.dataset import load_or_create_experiment, new_data_set
    from qcodes.dataset.descriptions.dependencies import InterDependencies_
    from qcodes.parameters import ParamSpecBase

    def specification(key: str, column: Column) -> ParamSpecBase:
        kind = "text" if column.text else "numeric"
        return ParamSpecBase(key, kind, label=column.label, unit=column.unit)

    axes = tuple(specification(*item) for item in setpoints.items())
    recorded = {"version": __version__, **metadata, STATE: RunState.UNFINISHED.value}
    dataset = new_data_set(
        name,
        load_or_create_experiment(
            experiment, sample_name=_SAMPLE, conn=connection, load_last_duplicate=True
        ).exp_id,
        conn=connection,
        metadata=recorded,
        in_memory_cache=False,
    )
    measured = {specification(*item): axes for item in columns.items()}
    dataset.prepare(snapshot={}, interdeps=InterDependencies_(dependencies=measured))
    return dataset
