"""Unmodified programs on two nodes in real time, every part a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from qnodeos.cli import live_time
from qnodeos.cli.processes import Processes
from qnodeos.cli.two_nodes import TwoNodes, running_two_nodes, system_specs, write_two_nodes
from qnodeos.errors import ChildProcessFailedError

DEADLINE_S = 120.0
PROGRAMS = "qnodeos.experiments.programs"
LAB = {"priority": 0, "grace_ticks": 1000}
NODE = {"realtime": {"tick_priority": 0, "policy_priority": 0, "lock_memory": False}}
NOISELESS = {
    "readout_fidelity_0": 1,
    "readout_fidelity_1": 1,
    "initialisation_error": 0,
    "gate_depolarising": 0,
    "coherence_time_ms": 1e9,
    "ionisation_per_readout": 0,
}
PERFECT = {
    "client": {"noise": NOISELESS},
    "server": {"noise": NOISELESS},
    # Nearly every batch is heralded, and both nodes have 100 ms to ask for it: the test is about
    # the processes, which share their cores with others.
    "link": {
        "protocol": {"kind": "perfect", "success_probability": 0.01},
        "attempts_per_batch": 500,
        "sync_window_ticks": 1000,
    },
}


def run_dqc(system: TwoNodes, circuits: int, alpha_steps: int, theta_steps: int) -> list[int]:
    """Run delegated computation; the server's results."""
    both = {"alpha_steps": alpha_steps, "circuits": circuits}
    inputs = {"client": both | {"theta_steps": theta_steps}, "server": both}
    running = []
    for node in system.nodes:
        command = [sys.executable, "-m", "qnodeos", "run", f"{PROGRAMS}.dqc_{node}"]
        command += ["--node", str(system.node_path(node)), "--timeout", str(DEADLINE_S)]
        command += ["--json", str(system.directory / f"{node}-result.json")]
        for name, value in inputs[node].items():
            command += ["--input", f"{name}={value}"]
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    result = json.loads((system.directory / "server-result.json").read_text("utf-8"))
    outcomes: list[int] = result["programs"][0]["result"]
    return outcomes


def test_perfect_nodes_compute_without_an_error(tmp_path):
    circuits = 60
    bins = {"bin_ms": 20, "guard_ms": 0.1, "batch_ms": 12}
    with running_two_nodes(
        tmp_path,
        lab=LAB | {"network": PERFECT},
        node=NODE,
        controller=bins,
        timeout_s=DEADLINE_S,
    ) as system:
        outcomes = run_dqc(system, circuits, alpha_steps=8, theta_steps=4)
        system.stop()
        assert all(child.ended_well for child in system.processes.children)
        counted = system.lab_result()
    assert outcomes == [circuit % 2 for circuit in range(circuits)]
    assert counted["heralds"] == circuits


def test_a_program_that_does_not_end_is_reported_with_the_logs(tmp_path, monkeypatch):
    write_two_nodes(tmp_path)
    monkeypatch.setattr(live_time, "TIMEOUT_START_S", 0.0)
    monkeypatch.setattr(live_time, "TIMEOUT_PER_CIRCUIT_S", 0.0)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(live_time, "_command", lambda *_: command)
    with Processes(system_specs(tmp_path), tmp_path / "run") as processes:
        processes["server"].log.write_text("no device")
        with pytest.raises(ChildProcessFailedError, match="did not end in time:\nserver: no dev"):
            live_time._run_set(TwoNodes(tmp_path, processes), 0, 0, 1, options=[])
