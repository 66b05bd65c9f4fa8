"""`qnodeos selftest` measures, and says what and on what."""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from qnodeos import cli
from qnodeos.engine import selftest as measuring
from qnodeos.engine.selftest import SelfTest, run_selftest
from qnodeos.errors import DeviceError
from tests.service.engine_bench import needs_native

SHAPE = {
    "lateness_us": {"p50", "p99", "p999", "max"},
    "reaction_ticks": {"p50", "p99", "p999"},
}


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, ["selftest", "--seconds", "0.05", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def check(document: dict[str, Any]) -> None:
    assert {"rate_hz", "ticks", "skipped"} <= document.keys()
    for name, keys in SHAPE.items():
        assert document[name].keys() == keys
        values = [document[name][key] for key in ("p50", "p99", "p999")]
        assert values == sorted(values)
    assert document["reaction_ticks"]["p50"] >= 2
    assert document["ticks"] > 0
    assert document["skipped"] >= 0


@pytest.mark.parametrize(
    ("arguments", "mode", "native"),
    [
        pytest.param(
            ["--mode", "spinning", "--priority", "0"], "spinning", True, marks=needs_native
        ),
        pytest.param(["--mode", "event-paced"], "event-paced", True, marks=needs_native),
        (["--fallback"], "event-paced", False),
    ],
)
def test_figures_of_one_rate(tmp_path, arguments, mode, native):
    path = tmp_path / "figures.json"
    output = run("--rate", "20000", "--json", str(path), *arguments)
    document = json.loads(path.read_text())
    check(document)
    assert (document["rate_hz"], document["mode"], document["native"]) == (20_000, mode, native)
    assert "runs" not in document
    assert "20,000" in output
    assert ("pure Python" in output) is not native


def test_several_rates_make_a_table(tmp_path):
    path = tmp_path / "figures.json"
    run("--rate", "20000", "--rate", "10000", "--json", str(path), "--mode", "event-paced")
    document = json.loads(path.read_text())
    assert [one["rate_hz"] for one in document["runs"]] == [20_000, 10_000]
    for one in (document, *document["runs"]):
        check(one)


@pytest.mark.parametrize(
    "arguments",
    [["--rate", "0"], ["--rate", "2000000"], ["--mode", "fast"], ["--seconds", "-1"]],
)
def test_what_cannot_be_measured_is_refused(arguments):
    assert CliRunner().invoke(cli.app, ["selftest", *arguments]).exit_code == 2


def test_a_result_that_cannot_be_written_is_refused_before(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["qnodeos", "selftest", "--json", str(tmp_path)])
    monkeypatch.setattr(measuring, "run_selftest", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "--json" in capsys.readouterr().err


def test_a_machine_on_which_it_cannot_run_ends_with_1(monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise DeviceError("no instruction was answered")

    monkeypatch.setattr(sys, "argv", ["qnodeos", "selftest"])
    monkeypatch.setattr(measuring, "run_selftest", fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert "no instruction" in capsys.readouterr().err


def test_an_interruption_keeps_what_was_measured(tmp_path, monkeypatch):
    real, path = measuring.run_selftest, tmp_path / "figures.json"

    def interrupted(test: SelfTest, report: object) -> dict[str, Any]:
        if test.rate_hz == 10_000:
            raise KeyboardInterrupt
        return real(test)

    monkeypatch.setattr(measuring, "run_selftest", interrupted)
    done = CliRunner().invoke(
        cli.app,
        ["selftest", "--seconds", "0.05", "--mode", "event-paced", "--rate", "20000",
         "--rate", "10000", "--json", str(path)],
    )  # fmt: skip
    assert done.exit_code == 130
    check(json.loads(path.read_text()))


def test_python_is_left_as_it_was():
    cores, nice = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    run_selftest(SelfTest(10_000, 0.02, "event-paced", None, 0))
    assert (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)) == (cores, nice)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
