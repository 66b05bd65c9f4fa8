"""Applications that come with NetQASM, unmodified, on two nodes in real time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import netqasm
import pytest

from qnodeos.cli.two_nodes import TwoNodes, running_two_nodes
from tests.service.test_two_nodes import DEADLINE_S, LAB, NODE, PERFECT

APPS = Path(netqasm.__file__).parent / "examples" / "apps"
ROLES = {"alice": "client", "bob": "server"}
BINS = {"bin_ms": 20, "guard_ms": 0.1, "batch_ms": 12}


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running_two_nodes(
        tmp_path_factory.mktemp("q"),
        lab=LAB | {"network": PERFECT},
        node=NODE | {"roles": ROLES},
        controller=BINS,
        timeout_s=DEADLINE_S,
    ) as system:
        yield system


def run_app(system: TwoNodes, app: str, *roles: str) -> dict[str, tuple[Any, str]]:
    """Run an application, a role per node; what each returned and printed."""
    running = {}
    for role in roles:
        node = ROLES.get(role, role)
        command = [sys.executable, "-m", "qnodeos", "run", str(APPS / app / f"app_{role}.py")]
        command += ["--node", str(system.node_path(node)), "--timeout", str(DEADLINE_S)]
        command += ["--json", str(system.directory / f"{role}.json")]
        running[role] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    said = {role: process.communicate()[0] for role, process in running.items()}
    codes = [process.returncode for process in running.values()]
    assert codes == [0] * len(codes), "\n".join(said.values())
    results = {}
    for role in roles:
        [program] = json.loads((system.directory / f"{role}.json").read_text())["programs"]
        results[role] = program["result"], said[role]
    return results


def test_key_distribution(system):
    results = run_app(system, "bb84", "alice", "bob")
    (alice, _), (bob, _) = results.values()
    assert alice["qber"] == bob["qber"] == 0  # it is 1 if nothing was compared
    assert alice["same_basis_count"] == bob["same_basis_count"]


def test_pairs_that_are_kept(system):
    results = run_app(system, "link_layer_ck", "client", "server")
    client, server = (said.splitlines()[0] for _, said in results.values())
    assert len(client) == 10
    assert client == server


def test_pairs_that_are_measured_at_once(system):
    results = run_app(system, "link_layer_md", "client", "server")
    client, server = (
        [line.split(": ")[1] for line in said.splitlines() if line[0] in "CS"]
        for _, said in results.values()
    )
    assert len(client) == 10
    # Phi+ measured along Y.
    assert all({one, other} == {"0", "1"} for one, other in zip(client, server, strict=True))
