"""The database of results: append-only, whole, and readable whatever happened to the writer."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import qcodes
from qcodes.dataset.sqlite import database as qcodes_database

from qnodeos import __version__
from qnodeos.errors import ConfigurationError, ResultStorageError
from qnodeos.experiments import database
from qnodeos.experiments.storage import DATABASE, Column, RunWriter, open_run
from tests.unit.stored_runs import read

SETPOINTS = {"shot": Column("shot")}
COLUMNS = {"time": Column("time", "ms"), "state": Column("state", text=True)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / DATABASE


def opened(path: Path, seed: int = 1, experiment: str = "lgt"):
    return open_run(path, experiment, "a name", SETPOINTS, COLUMNS, {"seed": seed})


def add(run: RunWriter, first: int, n: int) -> None:
    run.add(
        shot=np.arange(first, first + n),
        time=np.arange(first, first + n) / 8,
        state=np.array(["+Z", "-Z"])[np.arange(n) % 2],
    )


def files(directory: Path) -> set[str]:
    """Everything there, SQLite's working files of the database left out."""
    return {each.name for each in directory.iterdir()} - {DATABASE + "-wal", DATABASE + "-shm"}


# --- writing and reading --------------------------------------------------------------


def test_a_run_is_read_back(path):
    before = qcodes.config.core.db_location
    with opened(path, seed=5) as run:
        add(run, 0, 3)
        run.add(shot=7, time=float("nan"), state="+X")
        run.add(shot=[8, 9], time=1, state="-X")
        run.add(shot=[], time=[], state="-X")
    stored = read(path)
    assert stored.completed
    assert stored.frame["shot"].tolist() == [0, 1, 2, 7, 8, 9]
    assert stored.frame["state"].tolist() == ["+Z", "-Z", "+Z", "+X", "-X", "-X"]
    assert stored.frame["time"].fillna(-1).tolist() == [0, 0.125, 0.25, -1, 1, 1]
    assert stored.metadata == {"seed": 5, "version": __version__, "state": "complete"}
    assert qcodes.config.core.db_location == before
    assert files(path.parent) == {DATABASE}


def test_rows_can_be_read_while_the_run_goes_on(path):
    with opened(path) as run:
        for n in (1, 2, 3):
            add(run, n, 1)
            stored = read(path)
            assert len(stored.frame) == n
            assert not stored.completed
            assert stored.metadata["state"] == "unfinished"


def test_runs_of_several_experiments_share_a_database(path):
    for seed, experiment in ((4, "dqc"), (5, "lgt"), (6, "dqc")):
        with opened(path, seed, experiment) as run:
            add(run, seed, 2)
    for run_id, seed in ((1, 4), (2, 5), (3, 6)):
        stored = read(path, run_id)
        assert stored.frame["shot"].tolist() == [seed, seed + 1]
        assert stored.metadata["seed"] == seed


def test_the_path_may_have_any_characters(tmp_path):
    path = tmp_path / "what? 100% #1" / DATABASE
    with opened(path) as run:
        add(run, 0, 1)
    assert files(path.parent) == {DATABASE}
    with database.open_database(path, create=False) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone()[0] == 1


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt, "interrupted"), (ZeroDivisionError, "failed")]
)
def test_a_run_that_is_broken_off_keeps_its_rows(path, error, state):
    with pytest.raises(error), opened(path) as run:
        add(run, 0, 2)
        raise error
    stored = read(path)
    assert len(stored.frame) == 2
    assert stored.metadata["state"] == state
    assert not stored.completed


def test_a_run_can_be_marked_as_interrupted(path):
    with opened(path) as run:
        add(run, 0, 2)
        run.mark_interrupted()
    assert read(path).metadata["state"] == "interrupted"
    assert not read(path).completed


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.test_storage import add, opened
with opened(Path(sys.argv[1])) as run:
    for block in range(4):
        add(run, 100 * block, 100)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_all_that_it_added(path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode < 0
    stored = read(path)
    assert stored.frame["shot"].tolist() == list(range(400))
    assert stored.metadata["state"] == "unfinished"
    with opened(path) as run:  # and nothing is in the way of the next
        add(run, 0, 1)
    assert read(path, 2).metadata["state"] == "complete"


def append_a_run(path: Path, seed: int) -> None:
    with opened(path, seed) as run:
        for block in range(5):
            add(run, 10 * block, 10)


def test_processes_may_write_at_the_same_time(path):
    """Also when they all find no database."""
    context = get_context("spawn")
    seeds = range(3)
    processes = [context.Process(target=append_a_run, args=(path, seed)) for seed in seeds]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
        assert each.exitcode == 0
    runs = [read(path, 1 + n) for n in range(len(processes))]
    assert sorted(run.metadata["seed"] for run in runs) == list(seeds)
    assert all(run.frame["shot"].tolist() == list(range(50)) for run in runs)
    assert all(run.completed for run in runs)


def test_a_transaction_has_the_database_to_itself_from_its_start(path):
    """What it reads first must still hold when it writes."""
    with (
        database.open_database(path, create=True) as connection,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
        database.transaction(connection),
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")


# --- what cannot be stored ------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"shot": 1, "time": 1},
        {"shot": 1, "time": 1, "state": "a", "more": 1},
        {"shot": [1, 2, 3], "time": [1, 2], "state": "a"},
        {"shot": 1, "time": "soon", "state": "a"},
        {"shot": 1, "time": 1, "state": 2},
        {"shot": 1, "time": 1j, "state": "a"},
        {"shot": [[1, 2]], "time": 1, "state": "a"},
    ],
)
def test_rows_that_do_not_fit_are_refused(path, values):
    with opened(path) as run:
        add(run, 0, 1)
        with pytest.raises(ValueError, match=r"a row has|dimensions|broadcast"):
            run.add(**values)
    assert len(read(path).frame) == 1


@pytest.mark.parametrize(
    ("columns", "metadata"),
    [
        ({"two words": Column("")}, {}),
        ({"shot": Column("")}, {}),
        (COLUMNS, {"guid": "mine"}),
        (COLUMNS, {"state": "mine"}),
        (COLUMNS, {"a; DROP TABLE runs": 1}),
    ],
)
def test_names_that_cannot_be_used_are_refused(path, columns, metadata):
    with (
        pytest.raises(ValueError, match=r"is not a name|occurs twice|written for you"),
        open_run(path, "lgt", "name", SETPOINTS, columns, metadata),
    ):
        pass
    assert not path.exists()


@pytest.fixture
def small_disk(monkeypatch):
    """As many pages as asked for, and not one more: SQLite then says that the disk is full."""
    connect = qcodes_database.connect

    def small(*args, pages: int, **kwargs):
        connection = connect(*args, **kwargs)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    def of(pages: int) -> None:
        monkeypatch.setattr(
            qcodes_database, "connect", lambda *args, **kwargs: small(*args, pages=pages, **kwargs)
        )

    return of


def test_a_full_disk_ends_the_run_and_keeps_what_it_had(path, small_disk, caplog):
    small_disk(16)
    added = 0
    with (
        pytest.raises(ResultStorageError, match=r"run 1 cannot .*no space.*kept") as caught,
        opened(path) as run,
    ):
        while True:
            add(run, added, 100)
            added += 100
    assert str(path) in str(caught.value)
    assert added > 0
    assert read(path).frame["shot"].tolist() == list(range(added))
    assert not read(path).completed
    assert not caplog.records


def test_no_run_is_begun_on_a_full_disk(path, small_disk):
    with opened(path):
        pass
    small_disk(path.stat().st_size // 4096)
    with pytest.raises(ConfigurationError, match="no space"), opened(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert sum(name.startswith("results-") for name in tables) == 1


def test_a_disk_that_is_full_from_the_start_is_left_empty(path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused(path, "No space left on device; choose another directory")
    assert files(path.parent) == set()


def refused(path: Path, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught, opened(path):
        pass
    assert caught.value.file == str(path)


def test_a_file_that_is_no_database_stays_as_it_is(path):
    path.write_text("lines\n" * 100)
    refused(path, "not a database; choose another")
    assert path.read_text() == "lines\n" * 100
    assert files(path.parent) == {DATABASE}


def test_a_database_of_another_program_stays_as_it_is(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (distance)")
    content = path.read_bytes()
    refused(path, "another program")
    assert path.read_bytes() == content


def test_a_damaged_database_is_refused(path):
    with opened(path) as run:
        add(run, 0, 100)
    content = bytearray(path.read_bytes())
    content[100:4096] = bytes(3996)
    path.write_bytes(content)
    refused(path, "damaged")


@pytest.mark.parametrize(("layout", "said"), [(8, "up to date"), (99, "newer")])
def test_a_database_of_another_layout_stays_as_it_is(path, layout, said):
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {layout}")
    content = path.read_bytes()
    refused(path, f"layout {layout} .*{said}")
    assert path.read_bytes() == content


def test_an_older_layout_can_be_brought_up_to_date_as_the_message_says(path):
    with closing(qcodes_database.connect(str(path), version=8)):
        pass
    refused(path, "initialise_or_create_database_at")
    with qcodes_database.initialised_database_at(str(path)):
        pass
    with opened(path) as run:
        add(run, 0, 1)
    assert len(read(path).frame) == 1


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_database_that_another_program_has_locked(path, monkeypatch, statement):
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.0)
    with opened(path):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(statement)
        refused(path, "locked")
        other.execute("ROLLBACK")
    with opened(path) as run:
        assert run.run_id == 2  # the other one has left no trace


def test_a_lock_that_is_taken_during_a_run(path, monkeypatch):
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.0)
    with opened(path) as run, closing(sqlite3.connect(path, isolation_level=None)) as other:
        add(run, 0, 1)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ResultStorageError, match="locked"):
            add(run, 1, 1)
        other.execute("ROLLBACK")
        add(run, 1, 2)
    assert read(path).frame["shot"].tolist() == [0, 1, 2]


def test_places_where_nothing_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    refused(tmp_path / "file" / DATABASE, "[Nn]ot a directory|exists")
    (tmp_path / DATABASE).mkdir()
    refused(tmp_path / DATABASE, "is a directory")
    refused(Path("/proc") / DATABASE, "No such file|denied|read-only|not permitted")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_database_that_may_not_be_written(path):
    with opened(path):
        pass
    path.chmod(0o444)
    refused(path, "cannot be written")
