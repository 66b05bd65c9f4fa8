"""Three nodes in a row as processes: applications, pairs over the repeater, and its death."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import netqasm
import pytest

from qnodeos.api.netqasm import Flavour
from qnodeos.cli.lab_file import load_lab
from qnodeos.cli.processes import Processes
from qnodeos.cli.two_nodes import CONTROLLER, LAB, RUN, TwoNodes, free_ports, system_specs
from qnodeos.config.document import parse_document
from qnodeos.errors import ConfigurationError
from qnodeos.qdevice.instructions import MAX_HALVINGS
from qnodeos.service.controller_file import load_controller
from qnodeos.service.node_file import load_node
from qnodeos.service.operator import Operator, connect_operator
from tests.service.test_two_nodes import DEADLINE_S, NODE

EXAMPLE = Path(__file__).parents[2] / "examples" / "three-nodes"
APPS = Path(netqasm.__file__).parent / "examples" / "apps"
NODES = ("alice", "repeater", "bob")
PORT = re.compile(r"127\.0\.0\.1:(\d+)")

pytestmark = pytest.mark.skipif(not EXAMPLE.is_dir(), reason="needs the source tree")


def exact_link(first: str, second: str) -> dict[str, Any]:
    """Exact pairs, for whose attempts both nodes have 10 ms: they share their cores with others."""
    link = {
        "attempts_per_batch": 100,
        "sync_window_ticks": 1000,
        "protocol": {"kind": "perfect", "success_probability": 0.05},
    }
    return {"between": [first, second], "link": link}


def write_three_nodes(directory: Path) -> None:
    """The example with exact links, ports that are free, and an NV centre as repeater."""
    files: dict[str, Any] = {
        path.stem: parse_document(path.read_text("utf-8"), path.name).data
        for path in EXAMPLE.glob("*.yaml")
    }
    text = json.dumps(files)
    used = sorted(set(PORT.findall(text)))
    for old, new in zip(used, free_ports(len(used)), strict=True):
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    files = json.loads(text)
    files[LAB] |= {"priority": 0, "grace_ticks": 1000}
    files[LAB]["registers"]["nodes"]["repeater"] = {
        "device": {"kind": "nv", "memories": 3, "noiseless": True}
    }
    files[LAB]["registers"]["links"] = [exact_link(*NODES[:2]), exact_link(*NODES[1:])]
    files[CONTROLLER] |= {"bin_ms": 20, "batch_ms": 11}
    for name in NODES:
        files[name] |= NODE
    files["repeater"]["platform"] = "nv"
    (directory / RUN).mkdir()
    for name, content in files.items():
        (directory / f"{name}.yaml").write_text(json.dumps(content), "utf-8")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    directory = tmp_path_factory.mktemp("q")
    write_three_nodes(directory)
    with Processes(system_specs(directory), directory / RUN) as processes:
        system = TwoNodes(directory, processes)
        for child in processes.children:
            system.start(child.name, DEADLINE_S)
        yield system
        system.stop()
        assert all(child.ended_well for child in processes.children)
        counted = system.lab_result()
    heralds = {name: link["heralds"] for name, link in counted["links"].items()}
    assert set(heralds) == {"alice-repeater", "repeater-bob"}
    assert counted["heralds"] == sum(heralds.values())
    assert set(counted["nodes"]) == set(NODES)


def start(system: TwoNodes, app: Path, *nodes: str, **inputs: int) -> dict[str, Any]:
    """Start the programs of an application, a process at each node."""
    running = {}
    for node in nodes:
        command = [sys.executable, "-m", "qnodeos", "run", "--app-dir", str(app)]
        command += ["--node", str(system.node_path(node)), "--timeout", str(DEADLINE_S)]
        command += ["--json", str(system.directory / f"{node}-result.json")]
        for name, value in inputs.items():
            command += ["--input", f"{name}={value}"]
        running[node] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    return running


def results_of(system: TwoNodes, running: dict[str, Any]) -> list[Any]:
    """What each program returned."""
    said = [process.communicate()[0] for process in running.values()]
    assert all(process.returncode == 0 for process in running.values()), "\n".join(said)
    paths = [system.directory / f"{node}-result.json" for node in running]
    return [json.loads(path.read_text())["programs"][0]["result"] for path in paths]


def failures_of(running: dict[str, Any]) -> list[str]:
    """What each program said of its failure."""
    said = [process.communicate()[0] for process in running.values()]
    assert all(process.returncode == 1 for process in running.values()), "\n".join(said)
    return said


def swaps(operator: Operator) -> int:
    """How often a node has swapped entanglement since its start."""
    return int(operator.ask().number("kernel", "swaps") or 0)


def wait_for_neighbours(system: TwoNodes) -> None:
    """Until the ends are connected to the repeater, and have told all they had to tell."""
    deadline_s = time.monotonic() + DEADLINE_S
    for end in ("alice", "bob"):
        with closing(Operator(system.node_file(end), "test")) as operator:
            while not operator.ask().groups["kernel"]["connected_peers"]:
                assert time.monotonic() < deadline_s, "they do not connect"
                time.sleep(0.01)  # a poll, whose end is the condition


def make_pairs(system: TwoNodes) -> None:
    """Have alice and bob make 20 pairs, which must be equal along Z, over the repeater."""
    with closing(Operator(system.node_file("repeater"), "test")) as operator:
        before = swaps(operator)
        running = start(system, EXAMPLE / "pairs", "alice", "bob", pairs=20)
        mine, theirs = results_of(system, running)
        assert len(mine) == 20
        assert mine == theirs
        assert swaps(operator) - before >= 20


def test_programs_learn_what_the_devices_are(system):
    found = {}
    for name in NODES:
        with closing(connect_operator(system.node_file(name), "test")) as client:
            device = client.welcome.device
            found[name] = (
                client.welcome.flavour,
                *(device.communication_qubits, device.memory_qubits, device.links),
                device.angle_halvings,
            )
    generic = Flavour.VANILLA.value, (0, 1, 2), (), 1, MAX_HALVINGS
    assert found["alice"] == found["bob"] == generic
    assert found["repeater"] == (Flavour.NV.value, (0,), (1, 2, 3), 2, MAX_HALVINGS)


def test_an_application_whose_repeater_is_a_program(system):
    alice, repeater, bob = results_of(system, start(system, APPS / "chsh", *NODES))
    assert set(alice) | set(repeater) | set(bob) == {"a", "b", "m1", "m2"}


def test_an_application_over_a_node_without_a_program(system):
    sender, receiver = results_of(system, start(system, APPS / "teleport", "alice", "bob"))
    assert receiver["correction1"] == ("Z" if sender["m1"] else "None")
    assert receiver["correction2"] == ("X" if sender["m2"] else "None")


def test_pairs_end_with_the_repeater_and_come_again_with_it(system):
    make_pairs(system)
    with closing(Operator(system.node_file("repeater"), "test")) as operator:
        before = swaps(operator)
        running = start(system, EXAMPLE / "pairs", "alice", "bob", pairs=1000)
        deadline_s = time.monotonic() + DEADLINE_S
        while swaps(operator) < before + 3:
            assert time.monotonic() < deadline_s, "no pairs are made"
            time.sleep(0.01)  # a poll, whose end is the condition
    system.kill("repeater")
    for said in failures_of(running):
        assert "PeerLostError" in said
        assert "node 1" in said
    [alone] = failures_of(start(system, EXAMPLE / "pairs", "alice", max_time_ms=100))
    assert "EntanglementTimeoutError" in alone
    assert "node 0 has no connection to node 1" in alone
    system.start("repeater", DEADLINE_S)
    wait_for_neighbours(system)
    make_pairs(system)


# --- files ------------------------------------------------------------------------------------


def test_the_example_is_complete():
    assert [spec.name for spec in system_specs(EXAMPLE)] == [LAB, *NODES, CONTROLLER]
    controlled = load_controller(EXAMPLE / f"{CONTROLLER}.yaml")
    lab = load_lab(EXAMPLE / f"{LAB}.yaml")
    assert lab.registers is not None
    for name in NODES:
        node = load_node(EXAMPLE / f"{name}.yaml")
        assert node.peer is not None
        assert node.peer.listen == controlled.nodes[name].address
        assert node.node_ids == {each: controlled.nodes[each].node_id for each in NODES}
        neighbours = list(lab.registers.neighbours(name))
        assert {each: peer.device_link for each, peer in node.peers.items()} == {
            neighbour: number for number, neighbour in enumerate(neighbours)
        }
        for neighbour, peer in node.peers.items():
            assert peer.address == controlled.nodes[neighbour].address
        for link in lab.registers.links:
            ends = [controlled.nodes[end].node_id for end in link.between]
            assert controlled.fidelities()[ends[0], ends[1]] == link.estimate
            assert link.link.batch_ns <= controlled.batch_ms * 1e6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("registers: {nodes: {client: {}}}\n", "two nodes are called 'client'"),
        ("nodes: []\nbackend: instrument\nregisters: {nodes: {a: {}}}\n", "no instrument level"),
        (
            "nodes: []\nregisters: {nodes: {a: {}}, links: [{between: [a, b]}]}\n",
            r"links\[0\] joins 'b', which is no node",
        ),
        ("nodes: []\nregisters: {nodes: {a: {device: {kind: ion}}}}\n", "registers.nodes.a.device"),
    ],
)
def test_registers_that_cannot_be(tmp_path, text, message):
    path = tmp_path / "lab.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_lab(path)
