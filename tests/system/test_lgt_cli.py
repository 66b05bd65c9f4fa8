"""`qnodeos experiment lgt`: result, files, messages and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qnodeos.cli import lgt_run
from qnodeos.errors import ProgramError
from qnodeos.experiments.lgt import blocks_of, run_block
from qnodeos.experiments.lgt_analysis import BASES, MODES, STATES
from tests.unit.stored_runs import read

REPETITIONS = 3
QUICK = ("--repetitions", str(REPETITIONS), "--workers", "1")


def result_of(path: Path) -> dict[str, Any]:
    """A JSON result without the time it took."""
    result: dict[str, Any] = json.loads(path.read_text("utf-8"))
    assert result.pop("wall_s") > 0
    return result


# --- the result -----------------------------------------------------------------------


def test_the_result_has_the_promised_form(command, tmp_path):
    path = tmp_path / "new" / "lgt.json"
    done = command("experiment", "lgt", *QUICK, "--seed", "3", "--json", str(path))
    assert done.code == 0, done.err
    assert "simulated" in done.out
    assert "Chi-square" in done.out
    result = result_of(path)
    assert (result["experiment"], result["seed"], result["complete"]) == ("lgt", 3, True)
    assert result["results"] == result["results_multitasked"] == REPETITIONS * 36
    assert result["dqc_circuits"] > 0
    for mode in MODES:
        assert [entry["state"] for entry in result[mode]] == list(STATES)
        for entry in result[mode]:
            assert set(entry["fidelity"]) == {"value", "sigma"}
            assert entry["shots"] == dict.fromkeys(BASES, REPETITIONS)
        assert set(result["mean_fidelity"][mode]) == {"value", "sigma"}
        assert result["subroutines_per_s"][mode] > 0
    assert len(result["comparison"]["z"]) == len(STATES)
    assert result["settings"]["repetitions"] == REPETITIONS
    assert json.loads(result["settings"]["network"])["link"]["mocked"] is True


def test_the_result_depends_on_the_seed_alone(command, tmp_path):
    def run(name: str, *arguments: str) -> dict[str, Any]:
        path = tmp_path / name
        done = command(
            "experiment", "lgt", "--repetitions", "2", "--quiet", "--json", str(path), *arguments
        )
        assert done == (0, "", "")
        return result_of(path)

    alone = run("alone", "--seed", "5", "--workers", "1")
    assert run("shared", "--seed", "5", "--workers", "2") == alone
    assert run("different", "--seed", "6", "--workers", "1")["alone"] != alone["alone"]


def test_the_options_take_effect(command, tmp_path):
    path = tmp_path / "lgt.json"
    options = ("--real", "--link", "fast", "--profile", "zero", "--scheduler", "fcfs")
    done = command("experiment", "lgt", *QUICK, *options, "--quiet", "--json", str(path))
    assert done == (0, "", "")
    settings = result_of(path)["settings"]
    assert (settings["profile"], settings["scheduler"]) == ("zero", "fcfs")
    link = json.loads(settings["network"])["link"]
    assert (link["mocked"], link["attempts_per_batch"]) == (False, 1790)


def test_plot_dataset_and_traces_are_written(command, tmp_path):
    out = tmp_path / "a" / "b"
    done = command("experiment", "lgt", *QUICK, "--quiet", "--out", str(out))
    assert done == (0, "", "")
    assert (out / "lgt_fidelity.png").stat().st_size > 1_000
    stored = read(out / "qnodeos.db")
    assert len(stored.frame) == 2 * 36 * REPETITIONS
    assert stored.metadata["state"] == "complete"
    traces = {path.name for path in (out / "lgt_traces").iterdir()}
    nodes, parts = ("client", "server"), ("cnpu", "qnpu")
    assert traces == {"trace.json"} | {f"trace_{n}_{p}.csv" for n in nodes for p in parts}
    names = (out / "lgt_traces" / "trace.json").read_text("utf-8")
    assert '"lgt' in names
    assert '"dqc_client' in names


@pytest.mark.parametrize(
    "experiment", [("lgt", *QUICK), ("dqc", "--circuits-per-set", "2", "--workers", "1")]
)
@pytest.mark.parametrize(
    ("formats", "files"), [("none", set()), ("perfetto", {"trace.json"}), ("csv", {"csv"})]
)
def test_traces_are_written_in_the_formats_asked_for(command, tmp_path, experiment, formats, files):
    name, *options = experiment
    done = command(
        "experiment", name, *options, "--link", "fast", "--out", str(tmp_path), "--trace", formats
    )
    assert done.code == 0, done.err
    found = {path.name for path in tmp_path.rglob("trace*")}
    assert {"csv" if each.endswith(".csv") else each for each in found} == files
    assert ("Traces of" in done.out) == bool(files)


# --- what is wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--repetitions", "0"), "--repetitions"),
        (("--repetitions", "1000001"), "--repetitions"),
        (("--repetitions", "many"), "--repetitions"),
        (("--scheduler", "best"), "there is no scheduler 'best'; choose one of: fcfs"),
        (("--link", "slow"), "'slow' is not one of"),
        (("--profile", "slow"), "'slow' is not one of"),
        (("--backend", "paper"), "'paper' is not one of"),
        (("--workers", "65"), "--workers"),
        (("--quiet",), "nothing would be kept"),
        (("--trace", "csv"), "add --out to --trace"),
        (("--trace", "pdf"), "unknown trace format 'pdf'"),
        (("--config", "missing.yaml"), "missing.yaml"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(command, monkeypatch, arguments, said):
    monkeypatch.setattr(lgt_run, "run_blocks", lambda *_: pytest.fail("it ran"))
    done = command("experiment", "lgt", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_result_that_cannot_be_written_is_refused_before_the_run(command, tmp_path, monkeypatch):
    monkeypatch.setattr(lgt_run, "run_blocks", lambda *_: pytest.fail("it ran"))
    (tmp_path / "file").write_text("")
    for option in ("--json", "--out"):
        done = command("experiment", "lgt", *QUICK, option, str(tmp_path / "file" / "x"))
        assert done.code == 2
        assert "file" in done.err


def test_a_run_that_fails_writes_nothing_and_exits_with_1(command, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise ProgramError("program lgt failed: it had to")

    monkeypatch.setattr(lgt_run, "run_blocks", fail)
    path = tmp_path / "lgt.json"
    done = command("experiment", "lgt", *QUICK, "--quiet", "--json", str(path))
    assert done == (1, "", "qnodeos: ProgramError: program lgt failed: it had to\n")
    assert not path.exists()


# --- Ctrl-C -----------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_ctrl_c_keeps_what_was_measured(command, tmp_path, monkeypatch, kept):
    def interrupted(settings, workers, on_progress, on_interrupt):
        for block in blocks_of(settings)[:kept]:
            yield block, run_block(settings, block)
        raise KeyboardInterrupt

    monkeypatch.setattr(lgt_run, "run_blocks", interrupted)
    monkeypatch.setattr("qnodeos.experiments.lgt.BLOCK_REPETITIONS", 2)
    monkeypatch.setattr(lgt_run, "BLOCK_REPETITIONS", 2)
    path = tmp_path / "lgt.json"
    done = command(
        "experiment", "lgt", "--repetitions", "5", "--json", str(path), "--out", str(tmp_path)
    )
    assert done.code == 130
    assert f"Interrupted: {kept * 12} of 60 LGT subroutines are done and kept." in done.out
    stored = read(tmp_path / "qnodeos.db")
    assert len(stored.frame) == kept * 72
    assert stored.metadata["state"] == "interrupted"
    assert path.exists() == (kept > 0)
    if kept:
        result = result_of(path)
        assert result["complete"] is False
        assert result["results"] == {1: 72, 3: 144}[kept]
        assert result["results_multitasked"] == {1: 0, 3: 72}[kept]
        assert (result["comparison"] is None) == (kept == 1)
        assert (result["multitasked"] == []) == (kept == 1)
