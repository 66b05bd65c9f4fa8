"""The command line: results, files, messages and exit codes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qnodeos
from qnodeos.cli import dqc_run, experiment
from qnodeos.errors import ProgramError
from qnodeos.experiments.dqc import SETS, blocks_of, run_block
from qnodeos.experiments.dqc_segments import SEGMENTS
from qnodeos.trace.csvformat import read_trace_csv
from qnodeos.trace.events import Event
from tests.unit.stored_runs import read

CIRCUITS = 6
QUICK = ("--circuits-per-set", str(CIRCUITS), "--link", "fast", "--workers", "1")


def result_of(path: Path) -> dict[str, Any]:
    """A JSON result without the time it took."""
    result: dict[str, Any] = json.loads(path.read_text("utf-8"))
    assert result.pop("wall_s") > 0
    return result


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{path}.{key}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from leaves(each, f"{path}[{index}]")
    else:
        yield path, value


# --- the result -----------------------------------------------------------------------


def test_the_result_has_the_promised_form(command, tmp_path):
    path = tmp_path / "new" / "dqc.json"
    done = command("experiment", "dqc", *QUICK, "--seed", "3", "--json", str(path))
    assert done.code == 0, done.err
    assert "simulated" in done.out
    assert str(path.name) in done.out
    result = result_of(path)
    estimate = {"value", "sigma"}
    stages = {"ssro", "cr", "latency"}
    assert {
        "experiment",
        "seed",
        "circuits",
        "sets",
        "mean_fidelity",
        "live_time_ms",
        "segments_ms",
        "entanglement_ms",
        "discarded_latency",
    } <= set(result)
    assert result["experiment"] == "dqc"
    assert result["seed"] == 3
    assert result["circuits"] == CIRCUITS * len(SETS)
    assert len(result["sets"]) == len(SETS)
    for each, (alpha, theta) in zip(result["sets"], SETS, strict=True):
        assert set(each) == {"alpha", "theta", "fidelity", "kept"}
        assert each["alpha"] == pytest.approx(alpha * math.pi / 16)
        assert each["theta"] == pytest.approx(theta * math.pi / 16)
        assert set(each["fidelity"]) == set(each["kept"]) == stages
        assert all(set(value) == estimate for value in each["fidelity"].values())
        assert CIRCUITS == each["kept"]["ssro"] >= each["kept"]["cr"] >= each["kept"]["latency"]
    assert set(result["mean_fidelity"]) == stages
    assert all(set(value) == estimate for value in result["mean_fidelity"].values())
    assert set(result["live_time_ms"]) == {"mean", "sd", "p50", "p90", "max"}
    assert set(result["entanglement_ms"]) == {"mean", "sd", "p50"}
    assert set(result["segments_ms"]) == set(SEGMENTS)
    assert isinstance(result["discarded_latency"], int)
    for place, value in leaves(result):
        assert isinstance(value, int | float | str), place
    kept = sum(each["kept"]["latency"] for each in result["sets"])
    assert kept <= result["circuits"] - result["discarded_latency"]


def test_the_result_depends_on_the_seed_alone(command, tmp_path):
    def run(name: str, seed: int, workers: int) -> dict[str, Any]:
        path = tmp_path / name
        arguments = ("--circuits-per-set", "4", "--link", "fast", "--quiet", "--json", str(path))
        done = command(
            "experiment", "dqc", *arguments, "--seed", str(seed), "--workers", str(workers)
        )
        assert done == (0, "", "")
        return result_of(path)

    alone = run("alone", 5, 1)
    assert run("shared", 5, 2) == alone
    different = run("different", 6, 1)
    assert different["live_time_ms"] != alone["live_time_ms"]


# --- files ----------------------------------------------------------------------------


def test_plots_dataset_and_traces_are_written(command, tmp_path):
    done = command("experiment", "dqc", *QUICK, "--out", str(tmp_path / "a" / "b"), "--quiet")
    assert done == (0, "", "")
    out = tmp_path / "a" / "b"
    plots = [path for path in out.iterdir() if path.suffix in {".png", ".pdf", ".svg"}]
    assert plots
    assert all(path.stat().st_size > 1_000 for path in plots)

    stored = read(out / "qnodeos.db")
    assert len(stored.frame) == CIRCUITS * len(SETS)
    assert sorted(set(stored.frame["set_index"])) == list(range(len(SETS)))
    assert stored.metadata["circuits_per_set"] == CIRCUITS
    assert stored.metadata["backend"] == "behavioural (simulated)"
    assert stored.metadata["state"] == "complete"

    for node, subroutines in (("client", CIRCUITS), ("server", 2 * CIRCUITS)):
        for part, unit_ns, event in (
            ("cnpu", 1_000, Event.RESULT_RCVD),
            ("qnpu", 10_000, Event.PROCMGR_SUBROUTINE_DONE),
        ):
            with (out / f"trace_{node}_{part}.csv").open(encoding="utf-8") as stream:
                trace = read_trace_csv(stream)
            assert trace.unit_ns == unit_ns
            assert int((trace.columns["event"] == event).sum()) == subroutines


def test_the_demo_leaves_its_results(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "DEMO_CIRCUITS_PER_SET", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    done = command("demo")
    assert done.code == 0, done.err
    results = tmp_path / "results" / "demo"
    assert result_of(results / "dqc.json")["circuits"] == 2 * len(SETS)
    assert (results / "qnodeos.db").exists()
    assert (results / "trace_server_qnpu.csv").exists()


def test_a_configuration_replaces_the_link(command, tmp_path):
    noiseless = "{readout_fidelity_0: 1, readout_fidelity_1: 1, initialisation_error: 0, "
    noiseless += "gate_depolarising: 0, coherence_time_ms: .inf, ionisation_per_readout: 0}"
    config = tmp_path / "network.yaml"
    config.write_text(
        f"client: {{noise: {noiseless}}}\n"
        f"server: {{noise: {noiseless}}}\n"
        "link:\n"
        "  attempts_per_batch: 500\n"
        "  protocol: {kind: perfect, success_probability: 0.02}\n",
        "utf-8",
    )
    path = tmp_path / "dqc.json"
    arguments = ("--config", str(config), "--json", str(path), "--profile", "zero")
    done = command("experiment", "dqc", *QUICK, *arguments)
    assert done.code == 0, done.err
    result = result_of(path)
    for stage in ("ssro", "cr", "latency"):
        assert result["mean_fidelity"][stage]["value"] == 1.0
    assert result["live_time_ms"]["max"] < 2  # nothing but physics and ticks


# --- mistakes -------------------------------------------------------------------------


def test_a_wrong_configuration_is_located(command, tmp_path):
    config = tmp_path / "network.yaml"
    config.write_text("client:\n  noise:\n    coherence_time_ms: -13\n", "utf-8")
    done = command("experiment", "dqc", *QUICK, "--config", str(config))
    assert done.code == 2
    assert f"{config}:3" in done.err
    assert "client.noise.coherence_time_ms" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("client: [", "network.yaml:"),
        ("clinet: {}\n", "clinet"),
        ("schedule:\n  bin_ms: 5\n", "do not fit a bin of schedule.bin_ms = 5"),
        ("server:\n  timing: {tick_ns: 20000}\n", "tick_ns"),
        ("link:\n  protocol: {kind: none}\n", "kind"),
    ],
)
def test_other_mistakes_in_a_configuration_are_named(command, tmp_path, text, message):
    config = tmp_path / "network.yaml"
    config.write_text(text, "utf-8")
    done = command("experiment", "dqc", *QUICK, "--config", str(config))
    assert done.code == 2, done
    assert message in done.err
    assert "network.yaml" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--circuits-per-set", "1"),
        ("--circuits-per-set", "1000001"),
        ("--seed", "-1"),
        ("--seed", "one"),
        ("--workers", "65"),
        ("--profile", "none"),
        ("--link", "slow"),
        ("--backend", "hardware"),
        ("--typo",),
    ],
)
def test_options_out_of_range_are_refused(command, arguments):
    done = command("experiment", "dqc", *arguments)
    assert done.code == 2
    assert arguments[0] in done.err


@pytest.mark.parametrize("arguments", [("nothing",), ("experiment", "nothing")])
def test_unknown_commands_are_refused(command, arguments):
    done = command(*arguments)
    assert done.code == 2
    assert "nothing" in done.err


def test_a_configuration_that_is_not_there(command, tmp_path):
    done = command("experiment", "dqc", "--config", str(tmp_path / "missing.yaml"))
    assert done.code == 2
    assert "missing.yaml" in done.err


@pytest.mark.parametrize(
    "arguments", [("calibrate", "cr", "--node", "bob"), ("experiment", "dqc", "--backend", "bob")]
)
def test_a_choice_that_does_not_exist_is_refused_in_plain_words(command, arguments):
    done = command(*arguments)
    assert done.code == 2
    assert f"Invalid value for '{arguments[-2]}': 'bob' is not one of" in done.err


# --- failures -------------------------------------------------------------------------


def test_a_run_that_fails_exits_with_1(command, tmp_path, monkeypatch):
    def fail(*_: object) -> Iterator[Any]:
        raise ProgramError("program client failed: it had to")
        yield

    monkeypatch.setattr(dqc_run, "run_blocks", fail)
    done = command("experiment", "dqc", *QUICK, "--quiet", "--json", str(tmp_path / "dqc.json"))
    assert done.code == 1
    assert not (tmp_path / "dqc.json").exists()
    assert done.err == "qnodeos: ProgramError: program client failed: it had to\n"


def test_a_result_that_cannot_be_written_exits_with_an_error_before_the_run(
    command, tmp_path, monkeypatch
):
    monkeypatch.setattr(dqc_run, "run_blocks", lambda *_: pytest.fail("it ran"))
    (tmp_path / "file").write_text("")
    done = command("experiment", "dqc", *QUICK, "--json", str(tmp_path / "file" / "dqc.json"))
    assert done.code in (1, 2)
    assert "file" in done.err
    assert "Traceback" not in done.err


def test_ctrl_c_keeps_what_was_measured(command, tmp_path, monkeypatch):
    def interrupted(settings, workers, on_progress, on_interrupt):
        for block in blocks_of(settings)[:2]:
            yield block, run_block(settings, block)
        raise KeyboardInterrupt

    monkeypatch.setattr(dqc_run, "run_blocks", interrupted)
    path = tmp_path / "dqc.json"
    done = command("experiment", "dqc", *QUICK, "--json", str(path), "--out", str(tmp_path))
    assert done.code == 130
    assert f"{2 * CIRCUITS} of {6 * CIRCUITS} circuits" in done.out
    assert result_of(path)["circuits"] == 2 * CIRCUITS
    assert result_of(path)["complete"] is False
    stored = read(tmp_path / "qnodeos.db")
    assert len(stored.frame) == 2 * CIRCUITS
    assert stored.metadata["state"] == "interrupted"


# --- the command itself ---------------------------------------------------------------


def test_version_and_help(command):
    assert command("--version") == (0, f"{qnodeos.__version__}\n", "")
    done = command("experiment", "dqc", "--help")
    assert done.code == 0
    for option in ("--circuits-per-set", "--seed", "--profile", "--link", "--config", "--workers"):
        assert option in done.out


def test_the_module_runs_as_a_program():
    script = "import sys; from qnodeos.cli import main; sys.argv = ['qnodeos', '--version']; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{qnodeos.__version__}\n", "")
