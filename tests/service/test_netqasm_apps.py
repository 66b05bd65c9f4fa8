"""Applications that come with NetQASM, unmodified, on two nodes in real time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import netqasm
import pytest

from qnodeos.cli.two_nodes import TwoNodes, free_ports, running_two_nodes
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


def run_app(
    system: TwoNodes, app: Path | str, *roles: str, as_directory: bool = False
) -> dict[str, tuple[Any, str]]:
    """Run an application, a role per node; what each returned and printed."""
    running = {}
    for role in roles:
        node = ROLES.get(role, role)
        command = [sys.executable, "-m", "qnodeos", "run"]
        if as_directory:
            command += ["--app-dir", str(APPS / app)]
        else:
            command.append(str(APPS / app / f"app_{role}.py"))
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


# --- whole directories: each node takes the programs that are for it ----------------------


def test_a_directory_whose_roles_are_in_the_node_file(system):
    results = run_app(system, "bb84", "alice", "bob", as_directory=True)
    (alice, _), (bob, _) = results.values()
    assert alice["qber"] == bob["qber"] == 0
    assert alice["same_basis_count"] == bob["same_basis_count"]


def test_a_directory_of_which_nothing_is_for_the_node(system):
    command = [sys.executable, "-m", "qnodeos", "run", "--app-dir", str(APPS / "teleport")]
    command += ["--node", str(system.node_path("client"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 2
    assert "role receiver is to run on node 'receiver', which is not in the network" in done.stderr


def test_roles_of_the_directory_itself(system, tmp_path):
    for name in ("app_one.py", "app_two.py"):
        text = "def main(app_config):\n    return app_config.app_name, app_config.node_name\n"
        (tmp_path / name).write_text(text)
    (tmp_path / "roles.yaml").write_text("{one: server, two: server}")
    out = tmp_path / "r.json"
    command = [sys.executable, "-m", "qnodeos", "run", "--app-dir", str(tmp_path)]
    command += ["--node", str(system.node_path("server")), "--json", str(out)]
    subprocess.run(command, check=True, timeout=DEADLINE_S, stdout=subprocess.DEVNULL)
    programs = json.loads(out.read_text())["programs"]
    assert [one["result"] for one in programs] == [["one", "server"], ["two", "server"]]


NEW_STYLE = """
from netqasm.sdk import EPRSocket
from netqasm.sdk.external import {end}, QNodeOSConnectionFactory

def main(node_file, port):
    epr_socket = EPRSocket("{other}", 7, 7)
    factory = QNodeOSConnectionFactory.from_node_file(node_file)
    with (
        {end}("{me}", "{other}", "127.0.0.1", port) as socket,
        factory.create("{me}", epr_sockets=[epr_socket], max_qubits=1) as connection,
    ):
        outcome = epr_socket.{how}()[0].measure()
        connection.flush()
        socket.send(str(outcome))
        return int(outcome), int(socket.recv())
"""


def test_programs_that_make_their_connections_themselves(system, tmp_path):
    [port] = free_ports(1)
    for me, other, how, end in (
        ("client", "server", "create_keep", "ClientAppSocket"),
        ("server", "client", "recv_keep", "ServerAppSocket"),
    ):
        text = NEW_STYLE.format(me=me, other=other, how=how, end=end)
        (tmp_path / f"app_{me}.py").write_text(text)
        inputs = {"node_file": str(system.node_path(me)), "port": port}
        (tmp_path / f"{me}.yaml").write_text(json.dumps(inputs))
    results = run_app(system, tmp_path, "client", "server", as_directory=True)
    ((mine, theirs), _), ((other_mine, other_theirs), _) = results.values()
    assert (mine, theirs) == (other_theirs, other_mine)
    assert mine == theirs
