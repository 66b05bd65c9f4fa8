"""Journals and netCDF files of sweeps: what a crash, a full disk or another sweep does to them."""

from __future__ import annotations

import errno
import json
import os
import resource

import numpy as np
import pytest
import xarray

from qnodeos.errors import ConfigurationError, ResultsNotWrittenError
from qnodeos.experiments.sweep_dataset import sweep_dataset, write_dataset
from qnodeos.experiments.sweep_journal import LINE_MAX, Journal, set_aside
from qnodeos.experiments.sweep_results import PointResult, Status, SweepResults
from qnodeos.experiments.sweep_spec import parse_sweep, point_seed

TEXT = """\
experiment: dqc
seed: 5
settings: {circuits_per_set: 2}
grid:
  schedule.bin_ms: [10, 20, 30]
  profile: [paper, zero]
outputs: [circuits, live_time_ms.mean]
"""
PLAN = parse_sweep(TEXT, "s.yaml")
VERSIONS = {"qnodeos": "1"}
RESULTS = [
    PointResult(4, (12.0, 0.1 + 0.2)),
    PointResult(0, (12.0, None)),
    PointResult(5, error="ConfigurationError: “no”"),
    PointResult(1, (1e-300, 5e22)),
]


def opened(path, plan=PLAN, versions=VERSIONS) -> Journal:
    return Journal(path, plan, versions)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "j.jsonl"
    with opened(path) as journal:
        for result in RESULTS:
            journal.append(result)
    return path


def assert_has(results: SweepResults, expected) -> None:
    wanted = SweepResults(PLAN)
    for result in expected:
        wanted.take(result)
    np.testing.assert_array_equal(results.status, wanted.status)
    np.testing.assert_array_equal(results.values, wanted.values)
    assert results.errors == wanted.errors


def test_what_was_written_is_read_to_the_last_bit(written):
    with opened(written) as journal:
        assert_has(journal.results, RESULTS)
        assert journal.results.count(Status.DONE) == 3
        assert list(journal.results.numbers(Status.MISSING)) == [2, 3]
        assert not journal.results.complete


def test_the_last_result_of_a_point_counts(written):
    with opened(written) as journal:
        journal.append(PointResult(5, (1.0, 2.0)))
    with opened(written) as journal:
        assert_has(journal.results, [*RESULTS, PointResult(5, (1.0, 2.0))])
        assert journal.results.errors == {}
        assert journal.results.values[5].tolist() == [1.0, 2.0]
        assert journal.results.status[5] == Status.DONE


def test_every_result_is_on_the_disk_before_the_next(tmp_path, mocker):
    path = tmp_path / "j.jsonl"
    with opened(path) as journal:
        journal.append(RESULTS[0])
        sync = mocker.spy(os, "fsync")
        journal.append(RESULTS[1])
        assert sync.call_count == 1
        assert path.read_bytes().endswith(b'{"point": 0, "values": [12.0, null]}\n')


def test_a_crash_at_any_byte_loses_the_last_line_only(written, mocker):
    mocker.patch("os.fsync")  # hundreds of them take seconds
    content = written.read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content)):
        written.write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends)
        with opened(written) as journal:
            assert_has(journal.results, RESULTS[: max(whole - 1, 0)])
            for result in RESULTS[max(whole - 1, 0) :]:
                journal.append(result)
        assert written.read_bytes() == content


def test_no_result_leaves_no_file(tmp_path):
    with opened(tmp_path / "j.jsonl"):
        pass
    assert not list(tmp_path.iterdir())


def test_another_sweep_or_other_versions_are_refused(written):
    before = written.read_bytes()
    other = parse_sweep(TEXT.replace("seed: 5", "seed: 6"), "s.yaml")
    with pytest.raises(ConfigurationError, match=r"results of another sweep.*--restart"):
        opened(written, other)
    with pytest.raises(ConfigurationError, match=r"other versions: .*'1'.* there, .*'2'.* here"):
        opened(written, versions={"qnodeos": "2"})
    assert written.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"my notes, without an end", b"my notes\n", b"[1, 2]\n", b'{"format": "x"}\n', b"\xff\n"],
)
def test_a_file_of_somebody_else_is_left_alone(tmp_path, content):
    path = tmp_path / "j.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"j\.jsonl:1: is (no line of|not) the journal"):
        opened(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"point": 6, "values": [1.0, 1.0]}',
        '{"point": -1, "values": [1.0, 1.0]}',
        '{"point": true, "values": [1.0, 1.0]}',
        '{"point": 1, "values": [1.0]}',
        '{"point": 1, "values": ["1", 1.0]}',
        '{"point": 1, "error": 3}',
        "[" * 30_000,
        " " * (LINE_MAX + 1),
    ],
    ids=lambda line: line[:30],
)
def test_a_damaged_line_is_named(written, line):
    before = written.read_bytes()
    written.write_bytes(before + line.encode() + b'\n{"point": 2, "values": [1.0, 1.0]}\n')
    with pytest.raises(ConfigurationError, match=r"j\.jsonl:6: is no line of the journal"):
        opened(written)
    assert written.read_bytes().startswith(before)


def test_two_at_once_are_refused(written):
    with opened(written), pytest.raises(ConfigurationError, match="another process is writing it"):
        opened(written)
    with opened(written), pytest.raises(ConfigurationError, match="another process is writing it"):
        set_aside(written)


def test_what_is_set_aside_keeps_its_content(written):
    before = written.read_bytes()
    first = set_aside(written)
    assert first is not None
    assert first.name == "j.jsonl.old-1"
    assert first.read_bytes() == before
    assert set_aside(written) is None
    written.write_text("x")
    assert set_aside(written) == written.with_name("j.jsonl.old-2")


# --- full disks -------------------------------------------------------------------------


def full_after(mocker, count: int) -> None:
    """`os.write` that writes some bytes, then finds the disk full."""
    left = [count]
    real = os.write

    def write(number, data):
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(number, bytes(data)[: left[0]])
        left[0] -= done
        return done

    mocker.patch("os.write", write)


@pytest.mark.parametrize("count", [0, 1, 20])
def test_a_full_disk_leaves_whole_lines_only(written, mocker, count):
    before = written.read_bytes()
    with opened(written) as journal:
        full_after(mocker, count)
        with pytest.raises(ResultsNotWrittenError, match="No space left on device; what it had"):
            journal.append(PointResult(2, (1.0, 2.0)))
        assert journal.results.status[2] == Status.MISSING
        assert written.read_bytes() == before
        mocker.stopall()
        journal.append(PointResult(2, (1.0, 2.0)))
    with opened(written) as journal:
        assert journal.results.status[2] == Status.DONE


def test_a_disk_full_from_the_start_leaves_no_file(tmp_path, mocker):
    full_after(mocker, 10)
    with (
        opened(tmp_path / "j.jsonl") as journal,
        pytest.raises(ResultsNotWrittenError, match="No space left"),
    ):
        journal.append(RESULTS[0])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_files():
    """The system refuses to make files larger than 2 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def dataset():
    results = SweepResults(PLAN)
    for result in RESULTS:
        results.take(result)
    return sweep_dataset(PLAN, results, ["qnodeos", "sweep", "s.yaml"])


def test_a_dataset_is_written_whole_or_not_at_all(tmp_path, small_files):
    path = tmp_path / "s.nc"
    path.write_text("the one before")
    with pytest.raises(ResultsNotWrittenError, match=r"s\.nc cannot be written: File too large"):
        write_dataset(dataset(), path)
    assert [each.name for each in tmp_path.iterdir()] == ["s.nc"]
    assert path.read_text() == "the one before"


@pytest.mark.parametrize("use", [opened, set_aside])
def test_a_pipe_is_no_journal(tmp_path, use):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="is a pipe; name a file"):
        use(path)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
    assert path.is_fifo()


# --- the dataset ------------------------------------------------------------------------


def test_the_dataset_says_all_about_the_sweep(tmp_path):
    path = tmp_path / "s.nc"
    write_dataset(dataset(), path)
    with xarray.open_dataset(path, engine="h5netcdf") as read:
        assert dict(read.sizes) == {"schedule.bin_ms": 3, "profile": 2}
        assert list(read["schedule.bin_ms"].values) == [10.0, 20.0, 30.0]
        assert read["schedule.bin_ms"].attrs["units"] == "ms"
        assert list(read["profile"].values) == ["paper", "zero"]
        times = read["live_time_ms.mean"]
        assert times.attrs["units"] == "ms"
        assert times.sel({"schedule.bin_ms": 30, "profile": "paper"}).item() == 0.1 + 0.2
        assert np.isnan(times[0, 0])
        assert read["circuits"].values[0].tolist() == [12.0, 1e-300]
        assert read["status"].values.tolist() == [[1, 1], [0, 0], [1, 2]]
        assert read["status"].attrs["flag_meanings"] == "missing done failed"
        assert read["seed"].values.ravel().tolist() == [point_seed(5, n) for n in range(6)]
        about = read.attrs
    assert about["sweep"] == TEXT
    assert (about["seed"], about["experiment"], about["complete"]) == (5, "dqc", 0)
    assert (about["points_done"], about["points_failed"]) == (3, 1)
    assert json.loads(about["errors"]) == {"5": "ConfigurationError: “no”"}
    assert about["command"] == "qnodeos sweep s.yaml"
    assert {"qnodeos", "python", "numpy", "netqasm"} <= json.loads(about["versions"]).keys()
    assert "simulated" in about["title"]


def test_several_parameters_of_one_axis_are_named_and_repetitions_count():
    plan = parse_sweep(
        "experiment: dqc\nrepetitions: 3\ngrid:\n"
        "  link.protocol.alpha_a, link.protocol.alpha_b: [0.1, 0.2]\n"
        "  link.mocked: [true, false]\n",
        "s.yaml",
    )
    made = sweep_dataset(plan, SweepResults(plan), [])
    assert dict(made.sizes) == {"link.protocol.alpha_a": 2, "link.mocked": 2, "repetition": 3}
    about = made["link.protocol.alpha_a"].attrs
    assert about["parameters"] == "link.protocol.alpha_a, link.protocol.alpha_b"
    assert made["link.mocked"].values.tolist() == [True, False]
    assert set(plan.outputs) == set(made.data_vars) - {"seed", "status"}
