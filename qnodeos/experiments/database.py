"""The database that keeps the results of experiments: SQLite, in the layout of QCoDeS.

A database appears in its directory as a whole. One that is no such database, or has another
layout, is refused and left as it is. It is in write-ahead mode (WAL): it can be read while it
is written, and whatever was committed survives the process that wrote it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from qnodeos.errors import ConfigurationError
from qnodeos.files import check_readable, holding, write_together

if TYPE_CHECKING:
    from qcodes.dataset.sqlite.connection import AtomicConnection

DATABASE: Final = "qnodeos.db"
"""Name of the database in a directory of results."""

LOCK_TIMEOUT_S = 20.0
"""How long to wait while another program writes."""

_ELSEWHERE: Final = "choose another directory"
_CAUSES: Final = {
    sqlite3.SQLITE_FULL: "no space is left; make room and start again",
    sqlite3.SQLITE_IOERR: "the disk failed, or is full; look at the system's log",
    sqlite3.SQLITE_READONLY: f"it cannot be written; look at its permissions, or {_ELSEWHERE}",
    sqlite3.SQLITE_PERM: f"permission denied; {_ELSEWHERE}",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; look at the permissions of the file and of its "
    "directory (SQLite writes beside it, even to read it), or use a copy elsewhere",
    sqlite3.SQLITE_BUSY: "another program has it locked; end that program, or wait for it",
    sqlite3.SQLITE_LOCKED: "another program has it locked; end that program, or wait for it",
    sqlite3.SQLITE_NOTADB: f"this is not a database; {_ELSEWHERE}",
    sqlite3.SQLITE_CORRUPT: f"the database is damaged; {_ELSEWHERE}",
}


@contextmanager
def open_database(path: Path, *, create: bool) -> Iterator[AtomicConnection]:
    """A connection of our own: QCoDeS' default database stays what it is.

    Args:
        path: the file.
        create: to write, and to make it if there is none; otherwise only to read.

    Raises:
        ConfigurationError: it cannot be made or opened, is locked, is no such database, or has
            another layout than the one that QCoDeS writes.
    """
    from qcodes.dataset.sqlite.database import connect, set_journal_mode

    with explained(refusal(path)):
        check_readable(path)
        if create:
            _create(path)
        elif not path.exists():
            raise ConfigurationError(
                "there is no such database; look for the directory that was given as --out",
                file=str(path),
            )
        _check(path)
        connection = connect(quote(str(path)), read_only=not create)
    with closing(connection):
        with explained(refusal(path)):
            connection.execute(f"PRAGMA busy_timeout = {round(LOCK_TIMEOUT_S * 1000)}")
            if create:
                set_journal_mode(connection, "WAL")
        yield connection


@contextmanager
def transaction(connection: AtomicConnection) -> Iterator[None]:
    """What QCoDeS writes in here takes effect as a whole or not at all.

    The database is locked from the start: two programs that each read and then write would
    otherwise meet in the middle.
    """
    level = connection.isolation_level
    connection.isolation_level = None
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.atomic_in_progress = True
        yield
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    finally:
        connection.atomic_in_progress = False
        connection.isolation_level = level


def refusal(path: Path) -> Callable[[str], Exception]:
    """An error that says why this database is not used."""
    return lambda reason: ConfigurationError(reason, file=str(path))


@contextmanager
def explained(error: Callable[[str], Exception]) -> Iterator[None]:
    """Say in our words what SQLite, QCoDeS or the system objects to.

    Args:
        error: makes the exception to raise from the reason.
    """
    logger = logging.getLogger("qcodes.dataset.sqlite.connection")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # every refusal with its traceback
    try:
        yield
    except (sqlite3.Error, RuntimeError) as problem:
        cause = _sqlite_error(problem)
        if cause is None:
            raise
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the upper bits are details
        raise error(_CAUSES.get(code, str(cause))) from problem
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise error(f"{reason}; {_ELSEWHERE}") from problem
    finally:
        logger.setLevel(level)


def _sqlite_error(problem: BaseException | None) -> sqlite3.Error | None:
    """QCoDeS wraps errors of SQLite, some more than once."""
    while problem is not None and not isinstance(problem, sqlite3.Error):
        problem = problem.__cause__ or problem.__context__
    return problem


def _create(path: Path) -> None:
    """Make an empty database, unless there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_size > 0:
            return
        with closing(_empty()) as empty:
            content = empty.serialize()
        write_together({path: holding(content)})
    finally:
        os.close(directory)


def _empty() -> AtomicConnection:
    """A database in memory, of the layout that QCoDeS writes."""
    from qcodes.dataset.sqlite.database import connect

    return connect(":memory:")


def _check(path: Path) -> None:
    """Refuse a file before anything, also QCoDeS, writes to it."""
    # Reading a database that nobody has open would leave its -wal and -shm behind.
    alone = not any(path.with_name(path.name + each).exists() for each in ("-wal", "-journal"))
    uri = f"file:{quote(str(path))}?mode=ro{'&immutable=1' if alone else ''}"
    with closing(sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT_S)) as connection:
        tables = _tables(connection)
        layout = _layout(connection)
    with closing(_empty()) as empty:
        if not _tables(empty) <= tables:
            raise ConfigurationError(
                f"this is a database of another program; {_ELSEWHERE}", file=str(path)
            )
        newest = _layout(empty)
    if layout < newest:
        raise ConfigurationError(
            f"the database has layout {layout} of QCoDeS, and the layout is {newest} now; "
            f"{_ELSEWHERE}, or bring it up to date: make a copy, and call "
            "qcodes.dataset.initialise_or_create_database_at(FILE)",
            file=str(path),
        )
    if layout > newest:
        raise ConfigurationError(
            f"the database has layout {layout} of a newer QCoDeS, and this one knows up to "
            f"{newest}; install a newer qcodes, or {_ELSEWHERE}",
            file=str(path),
        )


def _tables(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {str(name) for (name,) in rows}


def _layout(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
