"""What experiments and sweeps do when a file cannot be written: all the rest, and one line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qnodeos import files
from qnodeos.errors import ResultStorageError
from qnodeos.experiments.storage import DATABASE, RunWriter
from tests.unit.stored_runs import read

EXPERIMENTS = {
    "dqc": ("--circuits-per-set", "2", "--link", "fast"),
    "lgt": ("--repetitions", "1"),
    "ion": ("--repetitions", "1"),
    "multitasking": ("--n", "1", "--seconds", "1"),
}
SWEEP = """\
experiment: dqc
settings: {circuits_per_set: 2, link: fast}
grid: {profile: [paper, zero]}
"""


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """There is no space for files of these kinds."""
    real = files._flush

    def of(*suffixes: str) -> None:
        def refuse(draft: Path) -> None:
            if draft.with_suffix("").suffix in suffixes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(draft)

        monkeypatch.setattr(files, "_flush", refuse)

    return of


def left(folder: Path) -> set[str]:
    """Kinds of the files in a folder."""
    return {path.suffix for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize(
    ("suffixes", "kept"),
    [
        ((".json",), {".db", ".png"}),
        ((".png",), {".db", ".json", ".csv"}),
        ((".csv",), {".db", ".json", ".png"}),
    ],
)
def test_what_there_is_space_for_is_written(
    command: Any,
    full: Callable[..., None],
    tmp_path: Path,
    name: str,
    suffixes: tuple[str, ...],
    kept: set[str],
) -> None:
    full(*suffixes)
    path = tmp_path / "result.json"
    options = ("--workers", "1", "--trace", "csv", "--json", str(path), "--out", str(tmp_path))
    done = command("experiment", name, *EXPERIMENTS[name], *options)
    assert done.code == 1
    assert done.err.startswith(f"qnodeos: ResultsNotWrittenError: {tmp_path}/")
    assert f"{suffixes[0]} cannot be written: No space left on device; make room" in done.err
    assert len(done.err.splitlines()) == 1
    assert "simulated" in done.out
    assert ("Traces of" in done.out) == (".csv" in left(tmp_path))
    assert left(tmp_path) >= kept
    assert not left(tmp_path) & {".part", *suffixes}
    if path.exists():
        assert json.loads(path.read_text("utf-8"))["complete"] is True
    assert read(tmp_path / DATABASE).metadata["state"] == "complete"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_without_space_in_the_database_the_rest_is_written(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    def full(self: RunWriter, **values: object) -> None:
        raise ResultStorageError("run 1 cannot be continued: no space is left")

    monkeypatch.setattr(RunWriter, "add", full)
    path = tmp_path / "result.json"
    options = ("--workers", "1", "--json", str(path), "--out", str(tmp_path))
    done = command("experiment", name, *EXPERIMENTS[name], *options)
    assert done.code == 1
    assert done.err == (
        "qnodeos: ResultStorageError: run 1 cannot be continued: no space is left\n"
    )
    assert "simulated" in done.out
    assert json.loads(path.read_text("utf-8"))["complete"] is False
    assert read(tmp_path / DATABASE).metadata["state"] == "failed"


def test_everything_that_cannot_be_written_is_named(
    command: Any, full: Callable[..., None], tmp_path: Path
) -> None:
    full(".json", ".png")
    path = tmp_path / "result.json"
    options = ("--workers", "1", "--trace", "none", "--json", str(path), "--out", str(tmp_path))
    done = command("experiment", "lgt", *EXPERIMENTS["lgt"], *options)
    assert done.code == 1
    assert f"{path} cannot be written" in done.err
    assert "lgt_fidelity.png cannot be written" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(("suffix", "kept"), [(".json", "s.nc"), (".nc", "s.json")])
def test_a_sweep_writes_what_there_is_space_for(
    command: Any,
    full: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    suffix: str,
    kept: str,
) -> None:
    full(suffix)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(SWEEP)
    sweep = ("sweep", "s.yaml", "--workers", "0", "--out", "s.nc", "--json", "s.json")
    done = command(*sweep)
    assert done.code == 1
    assert f"s{suffix} cannot be written: No space left on device" in done.err
    assert len(done.err.splitlines()) == 1
    assert "2 of 2 points done" in done.out
    assert sorted(os.listdir()) == sorted([kept, "s.nc.points.jsonl", "s.yaml"])
    full()
    done = command(*sweep)
    assert (done.code, done.err) == (0, "")
    assert "2 of them before" in done.out


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize(
    "options", [("--json", "/proc/x.json"), ("--out", "/proc/x"), ("--json", "a/b/c.json")]
)
def test_places_that_cannot_be_written_to_are_refused_before_the_run(
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    options: tuple[str, str],
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("experiment", name, *EXPERIMENTS[name], "--workers", "1", *options)
    assert done.code == 2
    assert "No such file or directory; choose another " + options[0] in done.err
    assert len(done.err.splitlines()) == 1
    assert done.out == ""
    assert not list(tmp_path.iterdir())
