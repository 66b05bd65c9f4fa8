"""Reading runs back, as any program that uses QCoDeS would."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from qcodes.dataset import load_by_id
from qcodes.dataset.sqlite.database import conn_from_dbpath_or_conn


class Stored(NamedTuple):
    """A run: its rows in order, its metadata, and whether QCoDeS calls it completed."""

    frame: Any
    metadata: dict[str, Any]
    completed: bool


def read(path: Path, run_id: int = 1) -> Stored:
    """A run of a database."""
    with closing(conn_from_dbpath_or_conn(conn=None, path_to_db=str(path))) as connection:
        dataset = load_by_id(run_id, conn=connection)
        frame = dataset.to_pandas_dataframe().reset_index()
        return Stored(frame, dict(dataset.metadata), dataset.completed)
