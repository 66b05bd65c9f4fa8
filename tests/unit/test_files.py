"""Files are written as a whole or not at all, and what is no regular file is never replaced."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from qnodeos.errors import ConfigurationError, ResultsNotWrittenError
from qnodeos.files import (
    check_directory,
    check_readable,
    check_writable,
    holding,
    is_stream,
    write_files,
    write_together,
    write_whole,
)

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def full(path: Path) -> None:
    path.write_text("half")
    raise FULL


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A file of ours, and the path of its descriptor, as /dev/stdout has it."""
    target = tmp_path / "target"
    with target.open("w") as stream:
        stream.write("before\n")
        stream.flush()
        yield target, Path(f"/proc/self/fd/{stream.fileno()}")


# --- writing ------------------------------------------------------------------------------


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("a longer text than the new one")
    write_whole(path, "µs\n")
    assert path.read_bytes() == "µs\n".encode()
    assert names(tmp_path) == ["a.json"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("before")
    with pytest.raises(ResultsNotWrittenError) as caught:
        write_files({first: holding(b"after"), second: full})
    assert str(caught.value) == (
        f"{second} cannot be written: No space left on device; make room, or choose another place"
    )
    assert first.read_text() == "before"
    assert names(tmp_path) == ["first"]


def test_a_disk_that_is_full_only_when_it_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise FULL

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ResultsNotWrittenError, match=r"a\.json cannot be written: No space left"):
        write_whole(tmp_path / "a.json", "{}\n")
    assert names(tmp_path) == []


def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path) -> None:
    def interrupt(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_together({tmp_path / "whole": holding(b""), tmp_path / "half": interrupt})
    assert names(tmp_path) == []


def test_what_an_earlier_process_left_is_not_written_through(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("of somebody else")
    (tmp_path / "a.json.part").symlink_to(other)
    write_whole(tmp_path / "a.json", "{}\n")
    assert other.read_text() == "of somebody else"
    assert names(tmp_path) == ["a.json", "other"]


def test_a_link_to_a_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to("folder/file")
    for text in ("new", "replaced"):
        write_whole(link, text)
        assert link.is_symlink()
        assert (tmp_path / "folder" / "file").read_text() == text
    assert names(tmp_path / "folder") == ["file"]


# --- what is no regular file --------------------------------------------------------------


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_to_and_not_replaced(pipe: Path, tmp_path: Path, linked: bool) -> None:
    path = tmp_path / "link" if linked else pipe
    if linked:
        path.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_writable(path, "--json", streams=True)
        write_whole(path, "text\n")
        assert os.read(reader, 100) == b"text\n"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert path.is_symlink() == linked
    assert not list(tmp_path.glob("*.part"))


def test_files_that_are_written_beside_their_place_refuse_a_pipe(
    pipe: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(ConfigurationError, match="is a pipe, which is not replaced"):
            write_together({tmp_path / "whole": holding(b""), path: holding(b"")})
        with pytest.raises(ConfigurationError, match="it is a pipe; choose another --out"):
            check_writable(path, "--out")
    assert names(tmp_path) == ["link", "pipe"]
    assert pipe.is_fifo()


def test_what_is_open_is_appended_to(opened: tuple[Path, Path], tmp_path: Path) -> None:
    target, descriptor = opened
    number = target.stat().st_ino
    link = tmp_path / "link"
    link.symlink_to(descriptor)
    for path in (descriptor, link):
        check_writable(path, "--json", streams=True)
        write_whole(path, "text\n")
        with pytest.raises(ConfigurationError, match="open already"):
            write_together({path: holding(b"")})
        with pytest.raises(ConfigurationError, match="open already"):
            check_writable(path, "--out")
    assert target.read_text() == "before\ntext\ntext\n"
    assert target.stat().st_ino == number
    assert names(tmp_path) == ["link", "target"]


def test_a_device_is_one_by_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "device"
    path.write_text("")
    real = Path.stat

    def as_device(self: Path, **options: bool) -> os.stat_result:
        found = real(self, **options)
        return os.stat_result((stat.S_IFCHR | 0o666, *found[1:])) if self == path else found

    monkeypatch.setattr(Path, "stat", as_device)
    assert is_stream(path)
    write_whole(path, "text\n")
    assert path.read_text() == "text\n"
    with pytest.raises(ConfigurationError, match="is a device; name a file"):
        check_readable(path)


# --- before anything is done --------------------------------------------------------------


def test_places_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.close()
    cases = {
        tmp_path: "it is a directory",
        tmp_path / "file" / "a.json": "Not a directory|File exists",
        tmp_path / "no" / "such" / "a.json": "no/such: No such file or directory",
        tmp_path / "socket": "it is a socket",
        tmp_path / ("x" * 254): "File name too long",
        Path("/proc/x.json"): "/proc: No such file or directory",
    }
    for path, said in cases.items():
        with pytest.raises(ConfigurationError, match=f"cannot write the result there: .*{said}"):
            check_writable(path, "--json", streams=True)
    check_writable(tmp_path / "new" / "a.json", "--json")
    assert names(tmp_path) == ["file", "new", "socket"]
    assert names(tmp_path / "new") == []


def test_directories_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "a", Path("/proc/new"), Path("/proc")):
        for make in (True, False):
            with pytest.raises(ConfigurationError, match=r"cannot write to this .* --out$"):
                check_directory(path, "--out", make=make)
    check_directory(tmp_path / "a" / "b", "--out", make=False)
    assert names(tmp_path) == ["file"]
    check_directory(tmp_path / "a" / "b", "--out")
    assert names(tmp_path / "a") == ["b"]


def test_only_files_are_read(pipe: Path, tmp_path: Path) -> None:
    for path, said in ((pipe, "is a pipe"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigurationError, match=said):
            check_readable(path)
    check_readable(tmp_path / "not there")
    check_readable(Path("a\0b"))
