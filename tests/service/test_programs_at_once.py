"""Several programs at once on one CNPU and one QNPU per node, in real time, on simulated nodes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from qnodeos.cli.two_nodes import TwoNodes, running_two_nodes
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.transport import Address
from tests.service.test_two_nodes import DEADLINE_S, LAB, NODE, PERFECT, PROGRAMS

PAIRS = 2
"""DQC programs, and as many LGT programs."""
PROGRAM_NAMES = ("dqc_client", "dqc_server", "lgt")
STATES = ("+Z", "-Z", "+X", "-X", "+Y", "-Y")
BASES = ("+X", "-X", "+Y", "-Y", "+Z", "-Z")
Z = 4.5
BINS = {"bin_ms": 20, "guard_ms": 0.1, "batch_ms": 12}
DQC: dict[str, Any] = {
    "dqc_client.alpha_steps": 8,
    "dqc_client.theta_steps": 4,
    "dqc_server.alpha_steps": 8,
}


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> Iterator[TwoNodes]:
    """Nodes whose physics makes no errors, with another scheduler than the paper's."""
    folder = tmp_path_factory.mktemp("n")
    lab = LAB | {"network": PERFECT}
    node = NODE | {"scheduler": "combined"}
    with running_two_nodes(
        folder, lab=lab, node=node, controller=BINS, timeout_s=DEADLINE_S
    ) as system:
        yield system


def run_both(
    system: TwoNodes, inputs: dict[str, Any], *options: str, code: int = 0
) -> dict[str, list[Any]]:
    """Run the programs of both nodes, one CNPU process each; what became of them, by name."""
    apps = {"client": ["dqc_client", "lgt"], "server": ["dqc_server"]}
    running = {}
    for node, names in apps.items():
        command = [
            sys.executable,
            "-m",
            "qnodeos",
            "run",
            *(f"{PROGRAMS}.{each}" for each in names),
        ]
        command += ["--node", str(system.node_path(node)), "--json", str(result_path(system, node))]
        command += ["--programs", str(PAIRS), "--pool", str(len(names) * PAIRS)]
        command += ["--number-input", f"dqc_{node}.socket_id", *options]
        for name, value in inputs.items():
            if name.split(".")[0] in names:
                command += ["--input", f"{name}={json.dumps(value)}"]
        running[node] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    said = [process.communicate()[0] for process in running.values()]
    assert [process.returncode for process in running.values()] == [code, code], "\n".join(said)
    programs: dict[str, list[Any]] = {}
    for node in running:
        for each in json.loads(result_path(system, node).read_text("utf-8"))["programs"]:
            programs.setdefault(each["name"].split()[0], []).append(each)
    return programs


def result_path(system: TwoNodes, node: str) -> Path:
    return system.directory / f"{node}-result.json"


def assert_nothing_is_left(system: TwoNodes) -> None:
    """No process, and no qubit that is not free; a connection that broke may be noticed late."""
    deadline_s = time.monotonic() + DEADLINE_S
    for node in system.nodes:
        with QnpuClient.connect(Address.parse(system.api_address(node)), name="test") as client:
            while (kernel := client.statistics()["kernel"])["processes"]:
                assert time.monotonic() < deadline_s
            assert kernel["free_qubits"] == 1
            assert not any(kernel["link_requests"].values())


def assert_tomography(zeros: Sequence[Sequence[int]], shots: int) -> None:
    """Fidelity one with every prepared state; shares of one half in the other bases (z = 4.5)."""
    for state, counts in zip(STATES, zeros, strict=True):
        for basis, count in zip(BASES, counts, strict=True):
            if basis == state:
                assert count == shots
            elif basis[1] == state[1]:
                assert count == 0
            else:
                assert abs(count - shots / 2) <= Z * sqrt(shots) / 2, (state, basis)


def assert_all_compute(system: TwoNodes, circuits: int, repetitions: int) -> None:
    """All programs run at once, and every result is right."""
    inputs = DQC | {"dqc_client.circuits": circuits, "dqc_server.circuits": circuits}
    inputs |= {"lgt.node": "client", "lgt.repetitions": repetitions, "lgt.queue_ahead": 1}
    programs = run_both(system, inputs, "--timeout", str(DEADLINE_S))
    assert {name: len(runs) for name, runs in programs.items()} == dict.fromkeys(
        PROGRAM_NAMES, PAIRS
    )
    for each in programs["dqc_server"]:
        assert each["result"] == [circuit % 2 for circuit in range(circuits)]
    for each in programs["dqc_client"]:
        assert len(each["result"]) == circuits
    together = [
        [sum(counts) for counts in zip(*rows, strict=True)]
        for rows in zip(*(each["result"] for each in programs["lgt"]), strict=True)
    ]
    assert_tomography(together, PAIRS * repetitions)
    assert_nothing_is_left(system)


def test_dqc_and_tomography_at_once(system):
    assert_all_compute(system, circuits=10, repetitions=10)


def test_endless_programs_that_are_stopped_leave_nothing(system):
    inputs = DQC | {"dqc_client.circuits": None, "dqc_server.circuits": None}
    inputs |= {"lgt.node": "client", "lgt.repetitions": None, "lgt.queue_ahead": 2}
    programs = run_both(system, inputs, "--timeout", "1", code=1)
    ended = [each for runs in programs.values() for each in runs]
    assert len(ended) == len(PROGRAM_NAMES) * PAIRS
    # All ran at once: each was started, and none ended by itself.
    assert all(each["started_s"] is not None for each in ended)
    assert all(each["result"] is None for each in ended)
    assert_nothing_is_left(system)
    assert_all_compute(system, circuits=3, repetitions=3)
