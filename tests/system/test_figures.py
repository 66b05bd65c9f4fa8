"""`qnodeos figures`: what is found is drawn, and what is missing is named."""

from __future__ import annotations

import json
import os

import pytest

from qnodeos.cli import figures
from qnodeos.experiments.figures.catalogue import FIGURES
from tests.unit.figure_data import dqc_result, write_results


@pytest.fixture(name="traces", scope="module")
def _traces(tmp_path_factory):
    """A folder with the traces of a small run."""
    from qnodeos.cli import experiment

    folder = tmp_path_factory.mktemp("traces")
    experiment.dqc(circuits_per_set=2, link=experiment.Link.FAST, out=folder, workers=1, quiet=True)
    return folder


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def expected(names):
    return sorted(f"{FIGURES[name].stem}.{form}" for name in names for form in ("png", "pdf"))


def test_all_figures_are_drawn_from_results_and_traces(command, tmp_path, traces):
    data = tmp_path / "data"
    write_results(data)
    (data / "traces").symlink_to(traces)
    done = command("figures", "--data", str(data))
    assert done.code == 0, done.err
    assert files(data / "figures") == expected(FIGURES)
    for name in FIGURES:
        assert f"Figure {name}" in done.out
    assert "not drawn" not in done.out

    again = command("figures", "--data", str(data), "--out", str(tmp_path), "--only", "4c")
    assert again.code == 0
    for name in expected(["4c"]):
        assert (tmp_path / name).read_bytes() == (data / "figures" / name).read_bytes()


def test_what_is_missing_is_named_with_the_command_that_makes_it(command, tmp_path):
    write_results(tmp_path / "run")  # in a folder of the directory
    (tmp_path / "run" / "lgt.json").unlink()
    (tmp_path / "run" / "dqc.json").unlink()
    done = command("figures", "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert files(tmp_path / "out") == expected(["5d"])
    missing = [line for line in done.out.splitlines() if "not drawn" in line]
    missing_4b, missing_4c, _, missing_5c = missing
    assert f"qnodeos experiment dqc --json {tmp_path}/dqc.json" in missing_4b
    assert f"qnodeos experiment dqc --out {tmp_path}/traces" in missing_4c
    assert "no lgt.json" in missing_5c
    assert f"qnodeos experiment lgt --json {tmp_path}/lgt.json" in missing_5c
    assert f"from {tmp_path}/run/multitasking.json" in done.out


def test_with_nothing_to_draw_from_the_command_says_so(command, tmp_path):
    for data in (tmp_path, tmp_path / "nowhere"):
        done = command("figures", "--data", str(data), "--only", "5c,5d")
        assert done.code == 2
        assert "qnodeos experiment lgt" in done.err
        assert "qnodeos experiment multitasking" in done.err
        assert "4b" not in done.err
        assert "--run" in done.err
    assert files(tmp_path) == []


def test_only_some_figures(command, tmp_path):
    write_results(tmp_path)
    done = command("figures", "--data", str(tmp_path), "--only", "5c")
    assert done.code == 0
    assert files(tmp_path / "figures") == expected(["5c"])
    done = command("figures", "--data", str(tmp_path), "--only", "5c,9z")
    assert done.code == 2
    assert "there is no figure '9z'" in done.err


def test_a_damaged_file_is_named_and_nothing_is_drawn(command, tmp_path):
    write_results(tmp_path)
    result = dqc_result()
    result["sets"][3]["fidelity"]["ssro"]["value"] = "high"
    (tmp_path / "dqc.json").write_text(json.dumps(result), "utf-8")
    done = command("figures", "--data", str(tmp_path))
    assert done.code == 2
    assert f"{tmp_path}/dqc.json: sets.3.fidelity.ssro.value: " in done.err
    assert not (tmp_path / "figures").exists()


def test_a_damaged_trace_is_named(command, tmp_path, traces):
    for path in traces.glob("trace_*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "trace_server_qnpu.csv"
    damaged.write_text(damaged.read_text("utf-8") + "12,notanumber\n", "utf-8")
    done = command("figures", "--data", str(tmp_path), "--only", "4c")
    assert done.code == 2
    assert "trace_server_qnpu.csv" in done.err
    damaged.unlink()
    done = command("figures", "--data", str(tmp_path), "--only", "4c")
    assert done.code == 2
    assert f"{tmp_path}: " in done.err


def test_traces_of_several_programs_are_passed_over(command, tmp_path, traces):
    mixed, alone = tmp_path / "a", tmp_path / "b"
    for folder in (mixed, alone):
        folder.mkdir()
        for path in traces.glob("trace_*.csv"):
            (folder / path.name).write_bytes(path.read_bytes())
    header = "# Channel 99 [group_id=3; event_id=3; channel_name=PROCMGR_SUBROUTINE_ADDED_P2]\n"
    path = mixed / "trace_client_qnpu.csv"
    path.write_text(path.read_text("utf-8").replace("timestamps", header + "timestamps"), "utf-8")
    done = command("figures", "--data", str(tmp_path), "--only", "4c")
    assert done.code == 0, done.err
    assert f"from {alone}" in done.out


def test_a_place_that_cannot_be_written_to_is_refused(command, tmp_path):
    write_results(tmp_path)
    (tmp_path / "file").write_text("", "utf-8")
    done = command("figures", "--data", str(tmp_path), "--out", str(tmp_path / "file" / "in"))
    assert done.code == 2
    assert "choose another --out" in done.err


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_run(
    command, tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "_run_missing", lambda *_: pytest.fail("it ran"))
    done = command("figures", "--data", str(tmp_path), "--run", "--out", "/proc/figures")
    assert done.code == 2
    assert "/proc/figures: cannot write to this directory: No such file" in done.err
    assert len(done.err.splitlines()) == 1


def test_pipes_are_neither_read_nor_replaced(command, tmp_path):
    write_results(tmp_path)
    os.mkfifo(tmp_path / "trace_server_qnpu.csv")
    done = command("figures", "--data", str(tmp_path), "--only", "4c")
    assert done.code == 2
    assert "trace_server_qnpu.csv: is a pipe; name a file" in done.err
    assert command("figures", "--data", str(tmp_path), "--only", "4b").code == 0
    picture = next((tmp_path / "figures").glob("fig4b*.png"))
    picture.unlink()
    os.mkfifo(picture)
    done = command("figures", "--data", str(tmp_path), "--only", "4b")
    assert done.code == 2
    assert f"{picture}: is a pipe, which is not replaced" in done.err
    assert picture.is_fifo()
    assert not list((tmp_path / "figures").glob("*.part"))


def test_missing_experiments_are_run_first_and_nothing_is_overwritten(
    command, tmp_path, monkeypatch
):
    for name, size in (
        ("RUN_CIRCUITS_PER_SET", 2),
        ("RUN_REPETITIONS", 1),
        ("RUN_PAIRS", "1"),
        ("RUN_SECONDS", 1.0),
        ("RUN_SCHEDULERS", "fcfs"),
    ):
        monkeypatch.setattr(figures, name, size)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    (tmp_path / "dqc.json").write_text(json.dumps(dqc_result()), "utf-8")
    before = (tmp_path / "dqc.json").read_bytes()
    done = command("figures", "--data", str(tmp_path), "--run", "--only", "4c,5c,5d")
    assert done.code == 0, done.err
    assert files(tmp_path / "figures") == expected(["4c", "5c", "5d"])
    assert (tmp_path / "dqc.json").read_bytes() == before
    assert {"lgt.json", "multitasking.json", "traces"} <= set(files(tmp_path))
