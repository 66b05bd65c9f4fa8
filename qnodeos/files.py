"""Files that people name: written as a whole or not at all, and read only if they are files.

What is no regular file (a device, a pipe, a socket, a link to one) is never replaced.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qnodeos.errors import ConfigurationError, ResultsNotWrittenError

LINKS_MAX: Final = 40
"""Most links followed, as the system does."""

MAKE_ROOM: Final = "make room, or choose another place"

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

Writer = Callable[[Path], None]
"""Writes a file at the path it is given."""


# --- what a path is -----------------------------------------------------------------------


def kind_of(path: Path) -> str | None:
    """What there is instead of a regular file; None for such a file, or if there is nothing."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):  # ValueError: a NUL in it
        return None


def check_readable(path: Path) -> None:
    """Refuse what would be waited for, or read without end.

    Raises:
        ConfigurationError: there is something, and it is no regular file.
    """
    kind = kind_of(path)
    if kind is not None:
        raise ConfigurationError(f"is {kind}; name a file", file=str(path))


def check_writable(path: Path, option: str, *, streams: bool = False) -> None:
    """Fail now rather than when there is something to write; makes the directory of the file.

    Args:
        path: what will be written.
        option: on the command line that names it, for the message.
        streams: devices and pipes will do, too.

    Raises:
        ConfigurationError: it cannot be written.
    """

    def refusal(problem: str) -> ConfigurationError:
        return ConfigurationError(
            f"cannot write the result there: {problem}; choose another {option}", file=str(path)
        )

    kind = kind_of(path)
    if kind in {"a directory", "a socket"} or (kind is not None and not streams):
        raise refusal(f"it is {kind}")
    if is_stream(path):
        if not streams:
            raise refusal("it is open already, as no file of its own")
        if not os.access(path, os.W_OK):
            raise refusal("permission denied")
        return
    folder = path.parent
    try:
        folder.mkdir(exist_ok=True)
        _try_writing(folder)
    except OSError as error:
        raise refusal(f"{folder}: {error.strerror}") from error
    try:
        _beside(path).lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # the name is too long
        raise refusal(error.strerror or str(error)) from error
    if path.exists() and not os.access(path, os.W_OK):
        raise refusal("permission denied")


def check_directory(path: Path, option: str, *, make: bool = True) -> None:
    """Fail now rather than when there is something to write into a directory.

    Args:
        path: the directory.
        option: on the command line that names it, for the message.
        make: make it; otherwise only see whether it could be made.

    Raises:
        ConfigurationError: nothing can be written there.
    """
    try:
        if make:
            path.mkdir(parents=True, exist_ok=True)
        there = path.absolute()
        while not there.exists() and there != there.parent:
            there = there.parent
        _try_writing(there)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to this directory: {error.strerror}; choose another {option}",
            file=str(path),
        ) from error


def _try_writing(folder: Path) -> None:
    # What `os.access` says of /proc, or to root, is not what happens.
    with tempfile.TemporaryFile(dir=folder):
        pass


def is_stream(path: Path) -> bool:
    """Whether a path leads to something that is written to, and cannot be replaced.

    A device, a pipe or a socket; also what a process has open, such as /dev/stdout, whatever
    that is.
    """
    if kind_of(path) not in {None, "a directory"}:
        return True
    place = path
    for _ in range(LINKS_MAX):
        try:
            folder = Path(os.path.realpath(place.parent))
            if folder.parts[1:2] == ("proc",):
                return place.exists()
            place = folder / (folder / place.name).readlink()
        except (OSError, ValueError):  # no link
            return False
    return False


# --- writing ------------------------------------------------------------------------------


def holding(content: bytes) -> Writer:
    """What writes a file of this content."""

    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def write_together(writers: Mapping[Path, Writer]) -> list[Path]:
    """Write several files as a whole, or none of them; links to files stay links.

    Args:
        writers: what writes each file.

    Returns:
        The files.

    Raises:
        ConfigurationError: one is there already, and is no regular file.
        OSError: one could not be written; its ``filename`` is the file.
    """
    for path in writers:
        if is_stream(path):
            raise ConfigurationError(
                f"is {kind_of(path) or 'open already'}, which is not replaced; name a file",
                file=str(path),
            )
    drafts: dict[Path, Path] = {}
    try:
        for path, write in writers.items():
            drafts[path] = _beside(path)
            with _of(path):
                drafts[path].unlink(missing_ok=True)
                write(drafts[path])
                _flush(drafts[path])
        for path, draft in drafts.items():
            with _of(path):
                draft.replace(os.path.realpath(path))
    except BaseException:
        for draft in drafts.values():
            _remove(draft)
        raise
    return list(writers)


def write_files(writers: Mapping[Path, Writer], remedy: str = MAKE_ROOM) -> list[Path]:
    """Write several files as `write_together` does.

    Args:
        writers: what writes each file.
        remedy: what to do if one cannot be written.

    Raises:
        ConfigurationError: one is there already, and is no regular file.
        ResultsNotWrittenError: one could not be written, and so none was.
    """
    try:
        return write_together(writers)
    except OSError as error:
        raise not_written(error.filename, error, remedy) from error


def write_whole(path: Path, text: str, remedy: str = MAKE_ROOM) -> None:
    """Write a text file as a whole or not at all; a device or a pipe is written to.

    Raises:
        ResultsNotWrittenError: it cannot be written; there is no part of it.
    """
    if not is_stream(path):
        write_files({path: holding(text.encode())}, remedy)
        return
    with reporting(path, remedy), path.open("a", encoding="utf-8") as stream:
        stream.write(text)


@contextmanager
def reporting(path: Path, remedy: str) -> Iterator[None]:
    """Turn what the system says about writing a file into an error that says what to do.

    Raises:
        ResultsNotWrittenError: the system refused.
    """
    try:
        yield
    except OSError as error:
        raise not_written(path, error, remedy) from error


def not_written(path: Path | str, error: OSError, remedy: str) -> ResultsNotWrittenError:
    """The error of a file that the system does not let us write."""
    return ResultsNotWrittenError(f"{path} cannot be written: {error.strerror or error}; {remedy}")


def _beside(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    place = Path(os.path.realpath(path))
    return place.with_name(place.name + ".part")


@contextmanager
def _of(path: Path) -> Iterator[None]:
    """Errors name the file that is wanted."""
    try:
        yield
    except OSError as error:
        text = error.strerror or str(error)
        raise OSError(error.errno or 0, text, str(path)) from error


def _flush(path: Path) -> None:
    """Some file systems say only now that they are full."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # what is to be reported has happened before
