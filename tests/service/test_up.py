"""`qnodeos up` and the helper for tests: real processes, in a directory."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qnodeos import cli
from qnodeos.assembly import LINKS
from qnodeos.cli.lab_file import load_lab
from qnodeos.cli.processes import ChildState
from qnodeos.cli.two_nodes import (
    free_ports,
    running_two_nodes,
    system_specs,
    two_node_files,
    write_two_nodes,
)
from qnodeos.errors import CallerError, ChildProcessFailedError, ConfigurationError
from qnodeos.service.controller_file import load_controller
from qnodeos.service.node_file import load_node

DEADLINE_S = 60.0
# The tests may share their cores with others, which no real-time process must push aside.
LAB = {"priority": 0}
NODE = {"realtime": {"tick_priority": 0, "policy_priority": 0, "lock_memory": False}}

EXAMPLE = Path(__file__).parents[2] / "examples" / "two-nodes"


def test_two_nodes_run_and_one_can_be_killed_and_started_again(tmp_path):
    with running_two_nodes(tmp_path, lab=LAB, node=NODE, timeout_s=DEADLINE_S) as system:
        assert all(child.state is ChildState.READY for child in system.processes.children)
        before = system.pid("client")
        system.kill("client")
        assert system.pid("client") is None
        assert system.processes["client"].exit_code == -signal.SIGKILL
        assert "client was ended by SIGKILL" in system.processes["client"].obituary()
        system.start("client", DEADLINE_S)
        assert system.pid("client") not in {None, before}
        system.restart("server", DEADLINE_S)
        system.stop()
        assert [child.state for child in system.processes.children] == [ChildState.STOPPED] * len(
            system.processes.children
        )
        assert all(child.ended_well for child in system.processes.children)
        assert system.lab_result()["nodes"]["client"]["attached"] >= 2
    assert not list((tmp_path / "run").glob("*.channel"))


def test_a_child_that_does_not_become_ready_is_reported_and_all_are_stopped(tmp_path):
    nowhere = {"api": {"listen": [f"unix:{tmp_path}/nowhere/api.sock"]}}
    with (
        pytest.raises(ChildProcessFailedError, match="client ended with exit code") as caught,
        running_two_nodes(tmp_path, lab=LAB, node=NODE | nowhere, timeout_s=DEADLINE_S),
    ):
        pass
    assert "nowhere" in str(caught.value)
    assert not list((tmp_path / "run").glob("*.channel"))


def test_up_runs_for_a_while_and_says_how_it_went(tmp_path):
    write_two_nodes(tmp_path, lab=LAB, node=NODE)
    result = tmp_path / "fared.json"
    done = subprocess.run(
        [sys.executable, "-m", "qnodeos", "up", str(tmp_path), "--for", "0", "--json", str(result)],
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    fared = json.loads(result.read_text("utf-8"))
    assert fared["ok"]
    assert set(fared["processes"]) == {"lab", "client", "server", "controller"}
    for process in fared["processes"].values():
        assert process["state"] == "stopped"
        assert process["ready_s"] > 0
        assert Path(process["log"]).exists()
    assert fared["laboratory"]["nodes"]["server"]["attached"] >= 1
    assert "All processes are ready" in done.stdout


def test_up_reports_a_death_and_stops_the_others_at_ctrl_c(tmp_path):
    write_two_nodes(tmp_path, lab=LAB, node=NODE)
    result = tmp_path / "fared.json"
    with subprocess.Popen(
        [sys.executable, "-m", "qnodeos", "up", str(tmp_path), "--json", str(result)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as up:
        try:
            assert up.stdout is not None
            shown = []
            for line in up.stdout:
                shown.append(line)
                if "All processes are ready" in line:
                    break
            children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text("utf-8").split()
            victim = next(
                int(child)
                for child in children
                if "client.yaml" in Path(f"/proc/{child}/cmdline").read_text("utf-8")
            )
            os.kill(victim, signal.SIGKILL)
            for line in up.stdout:
                shown.append(line)
                if "client was ended by SIGKILL" in line:
                    break
            up.send_signal(signal.SIGINT)
            shown += up.stdout.readlines()
            assert up.wait(DEADLINE_S) == 1, "".join(shown)
        finally:
            up.kill()
    fared = json.loads(result.read_text("utf-8"))
    assert not fared["ok"]
    assert fared["processes"]["client"]["state"] == "died"
    assert fared["processes"]["client"]["exit_code"] == -signal.SIGKILL
    assert fared["processes"]["server"]["state"] == "stopped"
    assert not Path(f"/proc/{victim}").exists()


def test_up_needs_the_files_of_a_system(tmp_path):
    done = CliRunner().invoke(cli.app, ["up", str(tmp_path)])
    assert isinstance(done.exception, ConfigurationError)
    assert "lab.yaml" in str(done.exception)


def test_up_wants_the_directory_and_not_a_file_in_it(tmp_path):
    write_two_nodes(tmp_path)
    with pytest.raises(ConfigurationError, match=f"name the directory .*: {tmp_path}"):
        system_specs(tmp_path / "lab.yaml")


def test_a_second_up_leaves_the_first_alone(tmp_path):
    write_two_nodes(tmp_path, lab=LAB, node=NODE)
    logs = tmp_path / "run"
    logs.mkdir(exist_ok=True)
    log = logs / "lab.log"
    log.write_text("of the first")
    first = os.open(logs, os.O_RDONLY)
    try:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = CliRunner().invoke(cli.app, ["up", str(tmp_path), "--for", "0"])
    finally:
        os.close(first)
    assert isinstance(second.exception, CallerError)
    assert "another `qnodeos up`" in str(second.exception)
    assert log.read_text() == "of the first"


def test_the_file_of_a_node_is_called_as_the_node(tmp_path):
    write_two_nodes(tmp_path, node={"name": "someone"})
    with pytest.raises(ConfigurationError, match="must be 'client'"):
        system_specs(tmp_path)


def test_free_ports_are_different_and_their_search_ends():
    assert len(set(free_ports(6))) == 6
    with pytest.raises(CallerError, match="free TCP ports"):
        free_ports(100_000)


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="needs the source tree")
@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("lab", load_lab),
        ("client", load_node),
        ("server", load_node),
        ("controller", load_controller),
    ],
)
def test_the_example_is_what_the_tests_run(name, load, tmp_path):
    files = two_node_files([27001, 27101, 27201, 27002, 27102, 27202])
    path = tmp_path / f"{name}.yaml"
    path.write_text(json.dumps(files[name]), "utf-8")
    there = load(EXAMPLE / f"{name}.yaml").model_dump_json()
    assert load(path).model_dump_json() == there.replace(str(EXAMPLE), str(tmp_path))


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="needs the source tree")
def test_the_example_is_complete():
    names = [spec.name for spec in system_specs(EXAMPLE)]
    assert names == ["lab", "client", "server", "controller"]


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_the_batch_of_a_preset_fits_its_time_bins(preset, tmp_path):
    write_two_nodes(tmp_path, lab={"preset": preset})
    link = load_lab(tmp_path / "lab.yaml").network.link
    bins = load_controller(tmp_path / "controller.yaml")
    assert link == LINKS[preset]()
    assert link.batch_ns <= bins.batch_ms * 1e6
    assert bins.schedule(10_000).batch_ticks * 10_000 >= link.batch_ns
