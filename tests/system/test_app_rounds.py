"""The rounds of an application, in one process and in several."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from typer.testing import CliRunner

from qnodeos.applications import load_application
from qnodeos.cli import app
from qnodeos.cli.app_rounds import FEW_ROUNDS, choose_workers
from qnodeos.errors import ConfigurationError

PROGRAM = """
    import random

    class Thing:
        def __init__(self, number):
            self.number = number

        def __repr__(self):
            return f"Thing({self.number})"

        def __reduce__(self):
            return Thing, (self.number,)

    class Stubborn(Exception):
        def __init__(self, first, second):
            super().__init__(f"{first} {second}")

    def main(numbers=(), fails_at=2):
        number = random.randrange(1000)
        numbers.append(number)
        if number % 8 == fails_at:
            raise Stubborn("of", number)
        print("drawn", number)
        return {"numbers": numbers, "thing": Thing(number), "local": lambda: 0 if number else 1}
"""


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    """An application of one program that draws a number, and raises what cannot be unpickled."""
    folder = tmp_path / "drawing"
    folder.mkdir()
    text = dedent(PROGRAM).replace(', "local": lambda: 0 if number else 1', "")
    (folder / "app_alice.py").write_text(text)
    (folder / "alice.yaml").write_text("numbers: [1]\nfails_at: 9\n")
    return folder


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["run", *map(str, arguments)], catch_exceptions=code == 0)
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def logs(out: Path) -> dict[str, bytes]:
    """What is written below the directory of the run, which is named after the time."""
    [directory] = [path for path in out.iterdir() if path.is_dir()]
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_results_do_not_depend_on_the_number_of_processes(drawing, tmp_path):
    said, written, files = [], [], []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        said.append(run("--app-dir", drawing, "--rounds", 6, "--workers", workers, "--out", out))
        written.append((out / "results.json").read_bytes())
        files.append(logs(out))
    assert said[0] == said[1]
    assert written[0] == written[1]
    assert files[0] == files[1]
    assert set(files[0]) == {"results.yaml", *(f"{number}/alice_output.txt" for number in range(6))}
    # Classes of the application come from other processes, too.
    assert b"app_alice.Thing" in files[1]["results.yaml"]
    rounds = json.loads(written[0])["rounds"]
    assert [one["number"] for one in rounds] == list(range(6))
    # A list that is an input begins anew in every round.
    assert [len(one["results"]["app_alice"]["numbers"]) for one in rounds] == [2] * 6
    assert len({str(one["results"]) for one in rounds}) == 6


def test_the_first_round_that_fails_is_the_last(drawing, tmp_path):
    said = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        arguments = ["--rounds", 40, "--workers", workers, "--out", out, "--input", "fails_at=2"]
        said.append(run("--app-dir", drawing, *arguments, code=1))
        written = json.loads((out / "results.json").read_text())
        *before, last = written["rounds"]
        assert last["errors"]["alice"]["kind"] == "Stubborn"
        assert [one["number"] for one in written["rounds"]] == list(range(len(before) + 1))
        assert all(one["results"] for one in before)
        places = {int(name.partition("/")[0]) for name in logs(out) if "/" in name}
        assert places == set(range(len(before)))
    assert said[0] == said[1]
    assert f"{drawing / 'app_alice.py'}, line" in said[0]


def test_what_cannot_be_pickled_is_told_as_text(drawing, tmp_path):
    (drawing / "app_alice.py").write_text(dedent(PROGRAM))
    run("--app-dir", drawing, "--rounds", 2, "--json", tmp_path / "r.json")
    [one, _] = json.loads((tmp_path / "r.json").read_text())["rounds"]
    assert "<lambda>" in one["results"]["app_alice"]["local"]
    assert one["results"]["app_alice"]["thing"].startswith("Thing(")


WAITING = """
    import os, signal, time
    from pathlib import Path

    HERE = Path(__file__).parent

    def main():
        # When both processes run a round, one of them asks for the end.
        (HERE / f"running-{os.getpid()}").touch()
        while len(list(HERE.glob("running-*"))) < 2:
            time.sleep(0.01)
        try:
            (HERE / "asked").touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getppid(), signal.SIGTERM)
        return 7
"""


def test_after_sigterm_as_after_ctrl_c_the_running_rounds_are_finished_and_kept(tmp_path):
    folder = tmp_path / "waiting"
    folder.mkdir()
    (folder / "app_alice.py").write_text(dedent(WAITING))
    done = subprocess.run(
        [sys.executable, "-m", "qnodeos", "run", "--app-dir", folder, "--rounds", "100000",
         "--workers", "2", "--json", tmp_path / "r.json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "rounds that are running are finished first" in done.stderr
    written = json.loads((tmp_path / "r.json").read_text())
    count = len(written["rounds"])
    assert f"Interrupted: {count} rounds are done and kept." in done.stdout
    assert 2 <= count < 100_000
    assert [one["number"] for one in written["rounds"]] == list(range(count))
    assert written["complete"] is False


def test_sigterm_ends_a_run_that_ignores_ctrl_c(tmp_path):
    folder = tmp_path / "ending"
    folder.mkdir()
    text = "import os, signal\n\ndef main():\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    (folder / "app_alice.py").write_text(text)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        said = run("--app-dir", folder, "--rounds", 3, code=130)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "Interrupted: 0 rounds" in said


def test_the_number_of_processes(drawing):
    application = load_application(drawing)
    cores = os.cpu_count() or 1
    assert choose_workers(0, FEW_ROUNDS - 1, application) == 1
    assert choose_workers(0, FEW_ROUNDS, application) == min(cores, FEW_ROUNDS)
    assert choose_workers(3, FEW_ROUNDS, application) == 3
    assert choose_workers(3, 2, application) == 2


def test_a_post_function_needs_the_simulation_in_its_process(drawing, tmp_path):
    text = "from pathlib import Path\n\ndef main(backend):\n"
    place = tmp_path / "nodes"
    (drawing / "post_function.py").write_text(f"{text}    Path({str(place)!r}).write_text('x')\n")
    application = load_application(drawing)
    assert choose_workers(0, 1000, application) == 1
    with pytest.raises(ConfigurationError, match="leave --workers out"):
        choose_workers(2, 1000, application)
    run("--app-dir", drawing, "--rounds", 2)
    assert place.read_text() == "x"
