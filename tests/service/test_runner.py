"""`qnodeos run`: programs from files, in threads, against a QNPU in a thread."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from qnodeos import cli
from qnodeos.api.host_wire import Netqasm
from qnodeos.cli import run_results
from qnodeos.cli.programs import build_cnpu, check_inputs, load_program
from qnodeos.cnpu import runner as runner_module
from qnodeos.cnpu.runner import ProgramRunner, ProgramState, ProgramTask
from qnodeos.cnpu.sockets import AppSocket
from qnodeos.errors import ConfigurationError, ProgramStoppedError
from qnodeos.service.node_file import load_node
from qnodeos.trace.csvformat import read_trace_csv
from qnodeos.trace.events import Event
from tests.service.fake_qnpu import DEADLINE_S, FakeQnpu

LOCAL = """
from netqasm.sdk import Qubit
from netqasm.sdk.external import NetQASMConnection

def main(flips=1):
    outcomes = []
    with NetQASMConnection("here", max_qubits=1) as connection:
        for _ in range(flips):
            qubit = Qubit(connection)
            qubit.X()
            outcome = qubit.measure()
            connection.flush()
            outcomes.append(outcome)
    return outcomes

def returns_futures():
    with NetQASMConnection("here", max_qubits=1) as connection:
        outcome = Qubit(connection).measure()
        connection.flush()
        return {"one": outcome, "never": Qubit(connection).measure()}

def raises(word="oh"):
    raise ValueError(word)

def leaves():
    raise SystemExit("out")

def numbered(number, text="", extra=None):
    return {"number": number, "text": text, 7: (1, 2.5, None, True), "extra": extra}
"""

TALKING = """
from netqasm.sdk.external import Socket

def asks(app_config=None):
    socket = Socket("here", "other")
    socket.send("question")
    return socket.recv(), app_config.app_name, app_config.log_config.log_subroutines_dir

def answers():
    socket = Socket("other", "here")
    socket.send(socket.recv() + "!")

def waits():
    return Socket("here", "other").recv()

def waits_elsewhere():
    return Socket("here", "there").recv()
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def qnpu() -> Iterator[FakeQnpu]:
    with FakeQnpu() as qnpu:
        qnpu.node.device.measurements.extend([1] * 100)
        yield qnpu


@pytest.fixture
def folder(tmp_path: Path, qnpu: FakeQnpu) -> Path:
    """A directory with a node file and programs."""
    node = {
        "name": "here",
        "node_id": 1,
        "device": {"link": "loopback"},
        "api": {"listen": ["tcp:192.0.2.1:1", str(qnpu.address)]},
        "tls": {"certificate": "c", "key": "k", "authority": "a"},
        "applications": {"listen": "tcp:127.0.0.1:0"},
        "peers": {"there": {"node_id": 2, "address": "tcp:127.0.0.1:1"}},
        "roles": {"other": "here"},
    }
    (tmp_path / "node.yaml").write_text(json.dumps(node))
    (tmp_path / "app_local.py").write_text(LOCAL)
    (tmp_path / "talking.py").write_text(TALKING)
    return tmp_path


@pytest.fixture
def run(folder, monkeypatch, capsys) -> Run:
    """Runs `qnodeos run` in this process, on the node of the folder."""

    def run(*arguments: str) -> Result:
        node = "--node", str(folder / "node.yaml")
        monkeypatch.setattr(sys, "argv", ["qnodeos", "run", *arguments, *node])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as caught:
            cli.main()
            raise SystemExit(0)
        out, err = capsys.readouterr()
        code = caught.value.code
        assert code is None or isinstance(code, int)
        return Result(code or 0, out, err)

    return run


# --- programs -------------------------------------------------------------------------


def test_a_program_and_what_it_leaves(run, folder, qnpu):
    out = folder / "out"
    result = run(
        str(folder / "app_local.py"), "--input", "flips=2", "--out", str(out), "--json",
        str(folder / "deep" / "r.json"),
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.out.startswith("local: done after ")
    results = json.loads((out / "results.json").read_text())
    assert results == json.loads((folder / "deep" / "r.json").read_text())
    [program] = results["programs"]
    assert (program["name"], program["state"], program["result"]) == ("local", "done", [1, 1])
    assert program["inputs"] == {"flips": 2}
    assert program["started_s"] <= program["ended_s"]
    with (out / "here-host.csv").open() as stream:
        trace = read_trace_csv(stream)
    assert trace.unit_ns == 1_000
    assert (trace.columns["event"] == Event.RESULT_RCVD).sum() == 2
    assert (np.diff(trace.columns["time"]) >= 0).all()
    assert not (out / "errors.log").read_text()
    qnpu.wait_for(lambda qnpu: len(qnpu.closed) == 2)
    assert not qnpu.node.kernel.processes


def test_a_program_that_raises(run, folder):
    out = folder / "out"
    result = run(f"{folder / 'app_local.py'}:raises", "--out", str(out))
    assert result.code == 1
    assert "local: failed after" in result.err
    assert "ValueError: oh" in result.err
    [program] = json.loads((out / "results.json").read_text())["programs"]
    assert (program["state"], program["error"]) == ("failed", {"kind": "ValueError", "text": "oh"})
    assert "in raises\n    raise ValueError(word)" in (out / "errors.log").read_text()


def test_a_program_that_leaves_does_not_end_the_others(run, folder):
    local = folder / "app_local.py"
    result = run(f"{local}:leaves", str(local))
    assert result.code == 1
    assert "SystemExit: out" in result.err
    assert "local: done" in result.out


def test_inputs_from_a_file_and_copies(run, folder):
    (folder / "inputs.yaml").write_text("text: from the file\nextra: [1, 2]\n")
    result = run(
        f"{folder / 'app_local.py'}:numbered", "--inputs", str(folder / "inputs.yaml"),
        "--input", "text=given", "--programs", "3", "--pool", "2",
        "--number-input", "number", "--json", str(folder / "r.json"),
    )  # fmt: skip
    assert result.code == 0, result.err
    programs = json.loads((folder / "r.json").read_text())["programs"]
    assert [program["name"] for program in programs] == ["local 0", "local 1", "local 2"]
    assert [program["result"]["number"] for program in programs] == [0, 1, 2]
    assert programs[0]["result"] == {
        "number": 0,
        "text": "given",
        "7": [1, 2.5, None, True],
        "extra": [1, 2],
    }


def test_inputs_of_one_program(run, folder):
    (folder / "other.py").write_text("def main(number, text, copy=None): return number, text, copy")
    (folder / "inputs.yaml").write_text("{text: for all, other.number: 5, local.number: 6}")
    result = run(
        f"{folder / 'app_local.py'}:numbered", str(folder / "other.py"),
        "--inputs", str(folder / "inputs.yaml"), "--input", "other.text=for one",
        "--programs", "2", "--number-input", "other.copy", "--json", str(folder / "r.json"),
    )  # fmt: skip
    assert result.code == 0, result.err
    results = [each["result"] for each in json.loads((folder / "r.json").read_text())["programs"]]
    local = {"number": 6, "text": "for all", "7": [1, 2.5, None, True], "extra": None}
    assert results == [local, [5, "for one", 0], local, [5, "for one", 1]]


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ({"processes": 2, "connections": 9}, False),
        ({"processes": 9, "connections": 2}, False),
        ({"processes": 9, "connections": 1, "reserved_connections": 1}, False),
        ({"processes": 3, "connections": 2, "reserved_connections": 1}, True),
        ({}, True),
    ],
)
def test_more_programs_at_once_than_the_qnpu_serves(run, folder, qnpu, limits, fits):
    qnpu.limits = limits
    local = str(folder / "app_local.py")
    result = run(local, "--programs", "3", "--pool", "8")
    if fits:
        assert result.code == 0, result.err
        return
    assert result.code == 2
    assert "3 programs at once are more than the QNPU of here serves: at most 2" in result.err
    assert "--pool 2" in result.err
    assert "local" not in result.out
    assert run(local, "--programs", "3", "--pool", "2").code == 0


def test_programs_of_one_node_talk_to_each_other(run, folder):
    talking = folder / "talking.py"
    result = run(
        f"{talking}:asks", f"{talking}:answers", "--role", "asker", "--json", str(folder / "r.json")
    )
    assert result.code == 0, result.err
    asked = json.loads((folder / "r.json").read_text())["programs"][0]["result"]
    assert asked[:2] == ["question!", "asker"]


def test_a_module(run, folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    (folder / "some_module.py").write_text("def main():\n    return 'from a module'\n")
    result = run("some_module")
    assert result.code == 0, result.err
    assert "some_module: done" in result.out
    assert "'from a module'" in result.out


def test_without_preparation(run, folder, monkeypatch):
    monkeypatch.setenv("QNODEOS_PREPARED", "1")
    result = run(str(folder / "app_local.py"), "--no-prepared")
    assert result.code == 0, result.err
    assert "[1]" in result.out


def test_futures_are_reported_as_numbers(run, folder, qnpu):
    def forget(client: int, message: Any) -> None:
        qnpu.node.device.measurements.clear()
        qnpu.node.device.measurements.append(1)

    qnpu.before = forget
    result = run(f"{folder / 'app_local.py'}:returns_futures", "--json", str(folder / "r.json"))
    assert result.code == 0, result.err
    assert "{'one': 1, 'never': " in result.out


def test_long_results_are_shown_in_part(run, folder):
    (folder / "long.py").write_text("def main():\n    return 'x' * 1000\n")
    result = run(str(folder / "long.py"))
    assert "xxx... (all of it: --json FILE)" in result.out
    assert len(result.out) < 300


def test_programs_ask_for_their_priority_and_run_without(run, folder, monkeypatch):
    asked: list[tuple[int, int, int]] = []

    def set_scheduler(pid: int, policy: int, parameters: os.sched_param) -> None:
        asked.append((pid, policy, parameters.sched_priority))
        if len(asked) > 1:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", set_scheduler)
    result = run(str(folder / "app_local.py"), "--realtime", "20")
    assert (result.code, result.err) == (0, "")
    result = run(str(folder / "app_local.py"), "--realtime", "20")
    assert result.code == 0
    assert "without real-time priority 20 (Operation not permitted)" in result.err
    assert asked == [(0, os.SCHED_FIFO, 20)] * 2
    assert run(str(folder / "app_local.py")).code == 0
    assert len(asked) == 2


# --- the end --------------------------------------------------------------------------


def test_ctrl_c_keeps_what_is_done(run, folder, qnpu):
    """One program is done, one waits for the QNPU, the third has not started."""
    subroutines: list[int] = []
    main = threading.get_ident()

    def before(client: int, message: Any) -> list[Any] | None:
        if not isinstance(message, Netqasm) or message.raw[0] != 2:
            return None
        subroutines.append(client)
        if len(subroutines) < 2:
            return None
        signal.pthread_kill(main, signal.SIGINT)
        return []

    qnpu.before = before
    result = run(
        str(folder / "app_local.py"), "--programs", "3", "--pool", "1", "--out",
        str(folder / "out"),
    )  # fmt: skip
    assert result.code == 130
    assert "Interrupted: 1 of 3 programs are done and kept." in result.out
    programs = json.loads((folder / "out" / "results.json").read_text())["programs"]
    assert [program["state"] for program in programs] == ["done", "stopped", "stopped"]
    assert programs[0]["result"] == [1]
    qnpu.wait_for(lambda qnpu: len(qnpu.closed) == qnpu._clients)
    assert qnpu.node.kernel.qmmu.free_qubits() == [0, 1, 2]


def test_time_that_is_up(run, folder):
    result = run(f"{folder / 'talking.py'}:waits", "--timeout", "0", "--json", str(folder / "r"))
    assert result.code == 1
    assert "stopped after 0 s" in result.err
    [program] = json.loads((folder / "r").read_text())["programs"]
    assert program["state"] == "stopped"


def test_another_node_whose_programs_never_come(run, folder):
    result = run(
        f"{folder / 'talking.py'}:waits_elsewhere",
        "--peer-timeout",
        "0",
        "--reach",
        "there=tcp:127.0.0.1:1",
    )
    assert result.code == 1
    assert "ApplicationLostError" in result.err
    assert "node there" in result.err


def test_a_program_that_does_not_end_is_given_up(monkeypatch, folder):
    monkeypatch.setattr(runner_module, "STOP_TIMEOUT_S", 0.0)
    release, entered = threading.Event(), threading.Event()

    def computes() -> str:
        entered.set()
        release.wait(DEADLINE_S)
        return "too late"

    node = load_node(folder / "node.yaml")
    with contextlib.closing(build_cnpu(node)) as cnpu:
        runner = ProgramRunner(cnpu, [ProgramTask("computes", computes, {})], pool=1)
        assert not runner.run(timeout_s=0.0)
        entered.wait(DEADLINE_S)
        release.set()
        with runner._changed:
            runner._changed.wait_for(lambda: runner._working == 0, DEADLINE_S)
    [one] = runner.runs
    assert one.state is ProgramState.STOPPED
    assert one.result is None


def test_what_has_not_started_when_time_is_up_does_not_start(folder):
    started: list[int] = []
    ended = threading.Event()

    def waits() -> None:
        with contextlib.suppress(ProgramStoppedError):
            AppSocket("here", "other").recv()
        ended.set()

    with contextlib.closing(build_cnpu(load_node(folder / "node.yaml"))) as cnpu:
        tasks = [
            ProgramTask("waits", waits, {}),
            ProgramTask("second", lambda: started.append(1), {}),
        ]
        runner = ProgramRunner(cnpu, tasks, pool=1)
        assert not runner.run(timeout_s=0.0)
        assert ended.wait(DEADLINE_S)
    assert not started
    assert runner.runs[1].state is ProgramState.STOPPED
    assert runner.runs[1].started_s is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_a_program_raises_it_has_failed_and_the_others_run(folder, kind):
    def raises() -> None:
        raise kind("mine")

    with contextlib.closing(build_cnpu(load_node(folder / "node.yaml"))) as cnpu:
        tasks = [ProgramTask("raises", raises, {}), ProgramTask("good", lambda: 7, {})]
        runner = ProgramRunner(cnpu, tasks, pool=1)
        assert runner.run(timeout_s=DEADLINE_S)
    bad, good = runner.runs
    assert (bad.state, type(bad.error)) == (ProgramState.FAILED, kind)
    assert "mine" in bad.details
    assert bad.ended_s is not None
    assert (good.state, good.result) == (ProgramState.DONE, 7)


def test_a_report_that_fails_is_raised_after_all_programs_have_ended(folder):
    def report(run: Any) -> None:
        raise BrokenPipeError(f"of {run.number}")

    with contextlib.closing(build_cnpu(load_node(folder / "node.yaml"))) as cnpu:
        tasks = [ProgramTask("good", lambda: 7, {})] * 3
        runner = ProgramRunner(cnpu, tasks, pool=1, on_end=report)
        with pytest.raises(BrokenPipeError, match="of 0"):
            runner.run(timeout_s=DEADLINE_S)
    assert [one.state for one in runner.runs] == [ProgramState.DONE] * 3


def test_results_are_written_though_nobody_reads_the_report(run, folder, monkeypatch):
    def report(run: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(run_results, "report", report)
    run(str(folder / "app_local.py"), "--json", str(folder / "r.json"))
    [program] = json.loads((folder / "r.json").read_text())["programs"]
    assert program["state"] == "done"


def test_no_more_than_the_pool_run_at_once(folder):
    lock, now, most = threading.Lock(), [0], [0]
    barrier = threading.Barrier(3)

    def counts() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        barrier.wait(DEADLINE_S)  # three are there together, or this fails
        with lock:
            now[0] -= 1

    with contextlib.closing(build_cnpu(load_node(folder / "node.yaml"))) as cnpu:
        runner = ProgramRunner(cnpu, [ProgramTask("counts", counts, {})] * 9, pool=3)
        assert runner.run(timeout_s=DEADLINE_S)
    assert most == [3]
    assert [one.state for one in runner.runs] == [ProgramState.DONE] * 9
    with pytest.raises(ValueError, match="at least one"):
        ProgramRunner(cnpu, [], pool=0)


# --- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere.py"], "no such file"),
        (["no_such_module_anywhere"], "no module 'no_such_module_anywhere'"),
        (["{local}:missing"], "no function 'missing'"),
        (["{local}", "--input", "cheese=1"], "unexpected keyword argument 'cheese'"),
        (["{local}:numbered"], "missing a required argument: 'number'"),
        (["{local}", "--input", "flips"], "NAME=VALUE"),
        (["{local}", "--input", "a.b-c=1"], "PROGRAM.NAME=VALUE"),
        (["{local}", "--input", "lgt.flips=1"], "'lgt', which does not run here; there are local"),
        (["{local}", "--number-input", "lgt.flips"], "'lgt', which does not run here"),
        (["{local}", "--inputs", "{folder}/none.yaml"], "cannot be read"),
        (["{local}", "--inputs", "{folder}/list.yaml"], "inputs by name"),
        (["{local}", "--reach", "there"], "NODE=ADDRESS"),
        (["{local}", "--reach", "mars=tcp:127.0.0.1:1"], "no node 'mars'"),
        (["{local}", "--listen", "nonsense"], "is no address"),
        (["{local}", "--listen", "tcp:127.0.0.1:{port}"], "--listen"),
    ],
)
def test_wrong_commands(run, folder, qnpu, arguments, text):
    (folder / "list.yaml").write_text("[1, 2]")
    places = {"local": folder / "app_local.py", "folder": folder, "port": qnpu.address.port}
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.code == 2
    assert text in " ".join(result.err.replace("│", " ").split())


def test_a_qnpu_that_does_not_run(run, folder, qnpu):
    qnpu.stop()
    result = run(str(folder / "app_local.py"))
    assert result.code == 1
    assert "is `qnodeos serve` running?" in result.err


def test_a_program_that_cannot_be_imported(folder):
    (folder / "broken.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(ModuleNotFoundError):
        load_program(str(folder / "broken.py"))
    (folder / "user_of_broken.py").write_text("import broken\n")
    with pytest.raises(ModuleNotFoundError):
        load_program(str(folder / "user_of_broken.py"))


def test_files_of_the_same_name_are_different_programs(folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "app.py").write_text(f"def main():\n    return {name!r}\n")
    functions = [load_program(str(folder / name / "app.py"))[1] for name in ("one", "two")]
    assert [function() for function in functions] == ["one", "two"]


def test_functions_without_a_signature_take_what_they_take():
    check_inputs("min", min, {"anything": 1})
    with pytest.raises(ConfigurationError, match="missing a required argument"):
        check_inputs("len", len, {"anything": 1})
