"""The journal of a sweep: each result is on the disk before the next is asked for.

A text file of JSON lines. The first names the sweep (its digest and the versions); each
other one is the result of a point, appended and flushed to the disk at once. A crash can
tear the last line only, and that one is dropped when the file is opened again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from qnodeos.errors import ConfigurationError
from qnodeos.experiments.sweep_results import PointResult, SweepResults
from qnodeos.experiments.sweep_spec import SweepPlan
from qnodeos.files import check_readable, reporting

FORMAT: Final = "qnodeos sweep journal 1"
LINE_MAX: Final = 1 << 16
"""Longest line in bytes."""
BACKUPS_MAX: Final = 1_000


class Journal:
    """The journal of one sweep, open and locked. Close it, or use it as a context manager.

    Args:
        path: the file; made when there is a result.
        plan: the sweep.
        versions: what results depend on besides.

    Attributes:
        results: all that is in the file.

    Raises:
        ConfigurationError: the file is of another sweep or other versions, is damaged, or
            another process has it.
        ResultsNotWrittenError: it cannot be written.
    """

    def __init__(self, path: Path, plan: SweepPlan, versions: Mapping[str, str]) -> None:
        self.path = path
        self.results = SweepResults(plan)
        self._outputs = len(plan.outputs)
        self._header = {"format": FORMAT, "sweep": plan.digest, "versions": dict(versions)}
        check_readable(path)
        with self._reporting():
            self._file: BinaryIO = path.open("a+b", buffering=0)
        try:
            _lock(self._file, path)
            self._size = self._read()
            with self._reporting():
                os.ftruncate(self._file.fileno(), self._size)
        except BaseException:
            self._file.close()
            raise

    def append(self, result: PointResult) -> None:
        """Add a result; it is on the disk when this returns.

        Raises:
            ResultsNotWrittenError: it is not, and the file is as before.
        """
        line: dict[str, Any] = {"point": result.number}
        if result.error is None:
            line["values"] = result.values
        else:
            line["error"] = result.error
        if self._size == 0:
            self._append(self._header)
            with self._reporting():
                _sync_folder(self.path.parent)
        self._append(line)
        self.results.take(result)

    def close(self) -> None:
        """Let another process have it; one without a result is removed."""
        if self._size == 0 and not self._file.closed:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        data = _encoded(line)
        number = self._file.fileno()
        try:
            with self._reporting():
                written = os.write(number, data)
                while written < len(data):
                    written += os.write(number, data[written:])
                os.fsync(number)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(number, self._size)
            raise
        self._size += len(data)

    def _read(self) -> int:
        """Take in what the file has; returns how many of its bytes are good."""
        self._file.seek(0)
        good = 0
        with os.fdopen(os.dup(self._file.fileno()), "rb") as reader:
            for number, line in enumerate(iter(lambda: reader.readline(LINE_MAX + 1), b""), 1):
                if not line.endswith(b"\n"):
                    # A crash tears the last line. If it is the first too, it has to be ours.
                    if len(line) > LINE_MAX or not (
                        number > 1 or _encoded(self._header).startswith(line)
                    ):
                        raise self._damaged(number)
                    break
                content = self._parsed(line, number)
                if number == 1:
                    self._check_header(content)
                else:
                    self._take(content, number)
                good += len(line)
        return good

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise self._damaged(number)
        return content

    def _check_header(self, content: dict[str, Any]) -> None:
        if content.get("format") != FORMAT:
            raise ConfigurationError(
                "is not the journal of a sweep; choose another --out", file=str(self.path), line=1
            )
        if content.get("sweep") != self._header["sweep"]:
            raise ConfigurationError(
                "has results of another sweep: the experiment, seed, settings, grid or outputs "
                "have changed; choose another --out, or --restart, which keeps them under "
                "another name",
                file=str(self.path),
            )
        found, wanted = content.get("versions"), self._header["versions"]
        if found != wanted:
            raise ConfigurationError(
                f"has results of other versions: {found} there, {wanted} here; install those, "
                "choose another --out, or --restart, which keeps them under another name",
                file=str(self.path),
            )

    def _take(self, content: dict[str, Any], number: int) -> None:
        point, values, error = (content.get(key) for key in ("point", "values", "error"))
        if type(point) is not int or not 0 <= point < self.results.status.size:
            raise self._damaged(number)
        if isinstance(error, str):
            self.results.take(PointResult(point, error=error))
        elif (
            isinstance(values, list)
            and len(values) == self._outputs
            and all(value is None or type(value) is float for value in values)
        ):
            self.results.take(PointResult(point, tuple(values)))
        else:
            raise self._damaged(number)

    def _damaged(self, line: int) -> ConfigurationError:
        return ConfigurationError(
            "is no line of the journal of a sweep; take it out if you know why, or --restart",
            file=str(self.path),
            line=line,
        )

    def _reporting(self) -> AbstractContextManager[None]:
        return reporting(
            self.path, "what it had is kept; make room there and run the same command again"
        )


def _encoded(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigurationError(
            "another process is writing it: the same sweep is running already; wait for it, "
            "or choose another --out",
            file=str(path),
        ) from None


def set_aside(path: Path) -> Path | None:
    """Give a file a name that is free, ``NAME.old-N``; None if there is no such file.

    Raises:
        ConfigurationError: there are too many of them already, a process is writing it, or it
            is no regular file.
        ResultsNotWrittenError: it cannot be renamed.
    """
    if not path.exists():
        return None
    check_readable(path)
    for number in range(1, BACKUPS_MAX + 1):
        other = path.with_name(f"{path.name}.old-{number}")
        if not other.exists():
            with reporting(path, "choose another --out"), path.open("rb") as file:
                _lock(file, path)
                path.rename(other)
            return other
    raise ConfigurationError(
        f"there are {BACKUPS_MAX} older ones of it already; remove some", file=str(path)
    )


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
