"""An NV link and a trapped-ion node in one laboratory, under one controller, in real time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qnodeos.cli.lab_file import load_lab
from qnodeos.cli.processes import Processes
from qnodeos.cli.two_nodes import RUN, TwoNodes, free_ports, system_specs, write_two_nodes
from qnodeos.errors import ConfigurationError
from qnodeos.service.controller_file import ControllerFile
from qnodeos.service.node_file import ShmDevice, load_node
from sim.ion.physics import IonPhysics
from tests.service.peer_net import Net
from tests.service.test_controller import errors, network
from tests.service.test_two_nodes import LAB, NODE, PERFECT, PROGRAMS

DEADLINE_S = 120.0
EXAMPLE = Path(__file__).parents[2] / "examples" / "ion-node"
ION = {
    "physics": IonPhysics.noiseless(d_lifetime_s=1e9, coherence_time_ms=1e9).model_dump(mode="json")
}


@contextmanager
def running(directory: Path) -> Iterator[TwoNodes]:
    """Client and server with a link, and an ion without; a controller for all three."""
    peer, api = (f"tcp:127.0.0.1:{port}" for port in free_ports(2))
    write_two_nodes(
        directory,
        lab=LAB | {"network": PERFECT, "ions": {"ion": ION}},
        node=NODE,
        controller={"nodes": {"ion": {"node_id": 2, "address": peer}}},
    )
    (directory / "ion.yaml").write_text(
        json.dumps(
            {
                "name": "ion",
                "node_id": 2,
                "platform": "ion",
                "device": {"link": "shm", "path": f"{RUN}/ion.channel"},
                "api": {"listen": [f"unix:{RUN}/ion-api.sock", api]},
                "peer": {"listen": peer},
            }
            | NODE
        )
    )
    with Processes(system_specs(directory), directory / RUN) as processes:
        system = TwoNodes(directory, processes)
        for child in processes.children:
            system.start(child.name, DEADLINE_S)
        yield system


def start(system: TwoNodes, node: str, program: str, *inputs: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "qnodeos", "run", f"{PROGRAMS}.{program}"]
    command += ["--node", str(system.node_path(node)), "--timeout", str(DEADLINE_S)]
    command += ["--json", str(system.directory / f"{node}-result.json")]
    for value in inputs:
        command += ["--input", value]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def result_of(path: Path) -> Any:
    return json.loads(path.read_text())["programs"][0]["result"]


def test_an_nv_node_and_an_ion_node_run_local_programs_under_one_controller(tmp_path):
    repetitions = 3
    with running(tmp_path) as system:
        runs = [
            start(system, "client", "lgt", "node=client", f"repetitions={repetitions}"),
            start(system, "ion", "ion_sequences", "node=ion", f"repetitions={repetitions}"),
        ]
        said = [run.communicate()[0] for run in runs]
        assert [run.returncode for run in runs] == [0, 0], "\n".join(said)
        results = {node: result_of(tmp_path / f"{node}-result.json") for node in ("client", "ion")}
        controller = system.log("controller")
        system.stop()
        assert all(child.ended_well for child in system.processes.children)
        counted = system.lab_result()["nodes"]
    assert results["client"][0][4] == repetitions, "+Z gives 0 along +Z"
    dark = results["ion"]
    assert [dark[index] for index in (0, 1, 2, 5, 6)] == [0, *[repetitions] * 3, 0]
    assert (counted["client"]["tick_ns"], counted["ion"]["tick_ns"]) == (10_000, 20_000)
    # A session, and INI, pulses and MSR of every circuit.
    assert counted["ion"]["answers"] == 1 + repetitions * (7 * 2 + 8)
    assert "at 2 of 2 nodes" in controller or "client: schedule" in controller
    assert "ion: schedule" not in controller
    assert "a tick lasts" not in controller


# --- what the controller asks of ticks ------------------------------------------------------


def line_and_a_lone_node(**changes: object) -> ControllerFile:
    file = network("client", "server")
    nodes = {name: node.model_dump() for name, node in file.nodes.items()}
    nodes["repeater"] = {"node_id": 2, "address": "tcp:127.0.0.1:7002"}
    return ControllerFile.model_validate(file.model_dump() | {"nodes": nodes} | changes)


def test_a_node_without_links_may_have_another_tick_and_gets_no_schedule():
    net = Net()
    lone = net.start(2, "repeater", {}, tick_ns=20_000)
    first = net.start(0, "client", {1: "server"})
    second = net.start(1, "server", {0: "client"})
    core = net.start_controller(line_and_a_lone_node())
    net.run(1_500)
    assert core.is_ready
    assert not errors(core)
    assert first.kernel.schedule is not None
    assert second.kernel.schedule is not None
    assert lone.kernel.schedule is None
    assert core.summary() == "schedule 1 at 2 of 2 nodes"


def test_it_is_not_ready_without_its_lone_node():
    net = Net()
    net.start(0, "client", {1: "server"})
    net.start(1, "server", {0: "client"})
    core = net.start_controller(line_and_a_lone_node())
    net.run(1_500)
    assert not core.is_ready
    assert core.summary() == "schedule 1 at 2 of 2 nodes; not connected: repeater"
    net.start(2, "repeater", {}, tick_ns=20_000)
    net.run(3_000)
    assert core.is_ready


def test_a_link_between_nodes_of_different_ticks_is_refused():
    net = Net()
    net.start(0, "client", {1: "server"})
    net.start(1, "server", {0: "client", 2: "repeater"})
    net.start(2, "repeater", {1: "server"}, tick_ns=20_000)
    core = net.start_controller(network("client", "server", "repeater"))
    net.run(1_500)
    assert (
        "a tick lasts 20000 ns at 'repeater' (node 2) and 10000 ns at 'client'; nodes joined by "
        "links need devices with the same tick" in errors(core)["repeater"]
    )
    assert not core.is_ready


# --- files ----------------------------------------------------------------------------------


def test_an_ion_node_with_neighbours_is_refused(tmp_path):
    path = tmp_path / "ion.yaml"
    path.write_text(
        json.dumps(
            {
                "name": "ion",
                "node_id": 2,
                "platform": "ion",
                "device": {"link": "loopback", "tick_ns": 20_000},
                "api": {"listen": [f"unix:{tmp_path}/api.sock"]},
                "peers": {"client": {"node_id": 0, "address": "tcp:127.0.0.1:7001"}},
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "qnodeos", "serve", str(path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 2
    assert "nodes of platform ion have no link to another" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: [a]\n", "name the client and the server, or none"),
        ("nodes: []\n", "neither nodes nor ions"),
        ("ions: {client: {}}\n", "two nodes are called 'client'"),
        ("nodes: []\nbackend: instrument\nions: {a: {}, b: {}}\n", "a laboratory has one"),
        ("ions: {a: {timing: {pi_ticks: 0}}}\n", "ions.a.timing.pi_ticks"),
    ],
)
def test_laboratories_that_cannot_be(tmp_path, text, message):
    path = tmp_path / "lab.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_lab(path)


def test_a_laboratory_of_ions_alone(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text("nodes: []\nions: {left: {}, right: {timing: {measure_ticks: 250}}}\n")
    file = load_lab(path)
    assert file.all_nodes == ("left", "right")
    assert file.ions["right"].timing.measure_ticks == 250


def test_the_example_is_a_laboratory_and_its_node():
    if not EXAMPLE.is_dir():
        pytest.skip("the examples are not installed with the package")
    assert [spec.name for spec in system_specs(EXAMPLE)] == ["lab", "ion"]
    node = load_node(EXAMPLE / "ion.yaml")
    assert node.platform == "ion"
    assert isinstance(node.device, ShmDevice)
    assert node.device.path == load_lab(EXAMPLE / "lab.yaml").channel("ion")
