"""The comparison with SimulaQron, without SimulaQron."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("benchmarks", reason="needs the source tree")

from typer.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks.measure import Effort
from benchmarks.peers import comparison, environment, ours, theirs
from benchmarks.peers.comparison import System, check, compare, figures_of, speeds_of
from benchmarks.peers.programs import PROGRAMS
from benchmarks.suite import BENCHMARKS, ON_REQUEST
from qnodeos.errors import ChildProcessFailedError

HERE = Path(sys.executable)
RIGHT = {"dqc": [[0, 1], [1, 0]], "pair": [[0, 0], [1, 1]], "teleport": [[0, 1], [1, 1]]}
WRONG = {"dqc": [[0, 1], [1, 1]], "pair": [[0, 0], [1, 0]], "teleport": [[0, 1], [0, 0]]}


def system(name, seconds, failures=0):
    return System(
        name, 2, lambda program, *_: ({"outcomes": RIGHT[program], "seconds": seconds}, failures)
    )


def test_it_runs_only_when_named():
    assert set(ON_REQUEST) == {"peers"}
    assert not set(ON_REQUEST) & set(BENCHMARKS)
    refused = CliRunner().invoke(command.app, ["nonsense"])
    assert refused.exit_code == 2
    assert "peers" in CliRunner().invoke(command.app, ["--help"]).output


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_give_what_they_must_here(program):
    result = ours.run(program, 4, seed=1)
    assert result["seconds"] > 0
    check(program, result["outcomes"], System("qnodeos", 4, lambda *_: ({}, 0)))


@pytest.mark.parametrize("program", PROGRAMS)
def test_outcomes_that_cannot_be_stop_it(program):
    check(program, RIGHT[program], system("that", 1))
    with pytest.raises(ChildProcessFailedError, match=f"that: circuit 2 of {program} gave"):
        check(program, WRONG[program], system("that", 1))
    with pytest.raises(ChildProcessFailedError, match="1 circuits of"):
        check(program, RIGHT[program][:1], system("that", 1))


def test_ratios_and_speeds_of_each_program():
    outcome = compare([system("ours", 0.5), system("slow", 2.0, 1), system("other", 1.0)], 3)
    assert [figure.ratios for figure in outcome.figures] == [(4.0,) * 3, (2.0,) * 3] * 3
    assert outcome.figures[0].name == "delegated computation, slow"
    assert outcome.figures[0].ours.ns == 250e6
    assert outcome.notes[0] == (
        "delegated computation, circuits per second on this machine: ours 4, slow 1, other 2"
    )
    assert outcome.notes[-1] == "slow hung or failed 9 times and was started again"


def test_ratios_are_of_one_round_each():
    (figure,) = figures_of("pair", {"ours": [1.0, 2.0, 4.0], "other": [10.0, 10.0, 10.0]})
    assert figure.ratios == (10.0, 5.0, 2.5)
    assert figure.ratio == 5.0
    assert speeds_of("pair", {"ours": [1e6, 2e6, 9e9]}).endswith("ours 500")


def test_the_last_line_is_the_result():
    result = {"outcomes": [[0, 1]], "seconds": 0.25}
    assert theirs.parse(f"a warning\n{json.dumps(result)}\n") == result


@pytest.mark.parametrize("written", ["", "Traceback", "{}", '{"seconds": "x", "outcomes": []}'])
def test_what_is_no_result_is_told(written):
    with pytest.raises(ChildProcessFailedError, match="printed no result"):
        theirs.parse(written)


def worker(tmp_path, monkeypatch, body):
    script = tmp_path / "worker.py"
    script.write_text(body, "utf-8")
    monkeypatch.setattr(theirs, "WORKER", script)


def test_it_is_started_again_when_it_fails(tmp_path, monkeypatch):
    marks = tmp_path / "marks"
    worker(
        tmp_path,
        monkeypatch,
        "import pathlib, sys\n"
        f"marks = pathlib.Path({str(marks)!r})\n"
        "marks.write_text((marks.read_text() if marks.exists() else '') + 'x')\n"
        "assert len(marks.read_text()) == 2, 'locked up'\n"
        'print(\'{"outcomes": [], "seconds": 1.0}\')\n',
    )
    result, failures = theirs.run(HERE, "pair", 1, is_tuned=False)
    assert (result["seconds"], failures) == (1.0, 1)


def test_it_is_given_up_in_the_end(tmp_path, monkeypatch):
    worker(tmp_path, monkeypatch, "raise SystemExit('locked up')")
    with pytest.raises(ChildProcessFailedError, match=r"5 times at pair 3 --tuned:\nlocked up"):
        theirs.run(HERE, "pair", 3, is_tuned=True)


def test_an_environment_that_is_there_is_used(tmp_path, monkeypatch):
    stamp = hashlib.sha256(environment.CONSTRAINTS.read_bytes()).hexdigest()
    (tmp_path / "installed").write_text(stamp, "utf-8")
    monkeypatch.setattr("venv.create", None)
    assert environment.ensure(tmp_path) == tmp_path / "bin" / "python"


def test_the_back_end_is_among_the_pins():
    names = environment.CONSTRAINTS.read_text("utf-8")
    assert all(f"\n{requirement}==" in names for requirement in environment.REQUIREMENTS)


def test_the_whole_comparison_uses_both(monkeypatch):
    monkeypatch.setattr(comparison, "ensure", lambda: "python")
    monkeypatch.setattr(
        theirs,
        "run",
        lambda python, program, circuits, is_tuned: (
            {
                "outcomes": [[0, 1 if program == "teleport" else n % 2 if program == "dqc" else 0]
                             for n in range(1, circuits + 1)],
                "seconds": 1.0,
            },
            0,
        ),
    )  # fmt: skip
    outcome = comparison.run(Effort(rounds=1, fraction=0.01))
    assert len(outcome.figures) == 2 * len(PROGRAMS)
