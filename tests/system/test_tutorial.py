"""Every command of the tutorial does what the page shows, in the order of the page."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from qnodeos import cli
from qnodeos.applications.template import write_application
from qnodeos.cli.two_nodes import write_two_nodes
from tests.service.test_two_nodes import LAB, NODE

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TWO_NODES = "examples/two-nodes"
PATIENCE_S = 120


@dataclass(frozen=True)
class Step:
    """A block of the page.

    Attributes:
        command: what is run; empty if a file is written instead.
        expected: what it prints, or the content of the file.
        path: the file.
    """

    command: str
    expected: str
    path: str = ""


def steps() -> list[Step]:
    found = []
    for kind, text in BLOCK.findall(PAGE.read_text("utf-8")):
        if kind == "console":
            command, _, printed = text.partition("\n")
            assert command.startswith("$ "), text
            found.append(Step(command.removeprefix("$ "), printed))
        else:
            first, _, _ = text.partition("\n")
            assert first.startswith("# pairs/"), text
            found.append(Step("", text, first.removeprefix("# ")))
    return found


def arguments(command: str) -> list[str]:
    program, *others = shlex.split(command)
    return [sys.executable, *(["-m", "qnodeos"] if program == "qnodeos" else []), *others]


def start(command: str, place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments(command),
        cwd=place,
        env=os.environ | {"COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "N", text)


SIMULATED = [step for step in steps() if TWO_NODES not in step.command]
SERVICES = [step for step in steps() if TWO_NODES in step.command]


def run(command: str, place: Path) -> tuple[str, int]:
    """Run a command to its end; in this process if it is ours, which is quicker."""
    program, *others = shlex.split(command)
    if program == "qnodeos":
        done = CliRunner().invoke(cli.app, others)
        return done.output, done.exit_code
    process = start(command, place)
    printed, _ = process.communicate(timeout=PATIENCE_S)
    return printed, process.returncode


def test_commands_in_virtual_time(tmp_path, monkeypatch):
    assert len(SIMULATED) > 10
    monkeypatch.chdir(tmp_path)
    for step in SIMULATED:
        if step.path:
            (tmp_path / step.path).write_text(step.expected, "utf-8")
            continue
        printed, code = run(step.command, tmp_path)
        if "pytest" in step.command:  # which prints the time it took
            assert without_numbers(printed) == without_numbers(step.expected), step.command
        else:
            assert printed == step.expected, step.command
        assert code == 0, step.command


def test_commands_on_services(tmp_path):
    up, *programs = SERVICES
    assert up.command.startswith("qnodeos up")
    write_application(tmp_path / "pairs")
    for step in SIMULATED:
        if step.path:
            (tmp_path / step.path).write_text(step.expected, "utf-8")
    write_two_nodes(tmp_path / TWO_NODES, lab=LAB, node=NODE)
    running = start(up.command, tmp_path)
    try:
        assert running.stdout is not None
        assert any("All processes are ready" in line for line in running.stdout)
        started = [start(step.command, tmp_path) for step in programs]
        for step, process in zip(programs, started, strict=True):
            printed, _ = process.communicate(timeout=PATIENCE_S)
            assert without_numbers(printed) == without_numbers(step.expected), step.command
            assert process.returncode == 0
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 0
