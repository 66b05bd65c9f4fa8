"""What the documentation shows of the code is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from qnodeos import cli
from qnodeos.assembly import (
    LINKS,
    GenericDevice,
    LinkDescription,
    NetworkConfig,
    NetworkDescription,
    NodeConfig,
    NodeDescription,
    NVDevice,
    ScheduleConfig,
    load_description,
    load_network,
)
from qnodeos.assembly.ion import IonNodeConfig
from qnodeos.cli.configuration import reference
from qnodeos.cli.lab_file import LabFile
from qnodeos.cnpu.latency import Delay, LatencyProfile, Spikes
from qnodeos.errors import ConfigurationError
from qnodeos.limits import Limits
from qnodeos.qnpu import circuits
from qnodeos.qnpu.process import state_diagram
from qnodeos.qnpu.requests import ARGUMENTS
from qnodeos.service import controller_file, node_file
from qnodeos.service.limits_config import LimitsConfig
from qnodeos.transport import TlsFiles
from sim.entangled_state import PerfectProtocol, SinglePhotonProtocol, WernerProtocol
from sim.ion.physics import IonPhysics
from sim.ion_timing import IonTiming
from sim.link import LinkParameters
from sim.noise import NVNoise
from sim.nv_timing import NVTiming
from sim.register_physics import QubitPhysics, RegisterPhysics

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

if not (ROOT / "docs").is_dir():
    pytest.skip("the documentation is not installed with the package", allow_module_level=True)


def test_the_state_diagram_is_the_table():
    assert state_diagram() in (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert circuits.state_diagram() in (ROOT / "docs" / "network-layer.md").read_text("utf-8")


def test_the_limits_of_circuits_are_those_of_the_kernel():
    text = (ROOT / "docs" / "network-layer.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", text, re.M))
    assert len(rows) == 6
    for name, value in rows.items():
        assert getattr(Limits(), name) == int(value.replace(",", "")), name


def test_the_page_on_entanglement_says_what_becomes_of_every_argument():
    text = (ROOT / "docs" / "entanglement.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+)(?: to (\d+)|, (\d+))? \| [\w`]", text, re.M)
    told = [
        number
        for first, last, second in rows
        for number in range(int(first), int(last or second or first) + 1)
    ]
    assert told == list(range(ARGUMENTS))
    names = {name for name in re.findall(r"`(\w+_(?:ticks|pairs|request|priority))`", text)}
    assert {"offer_timeout_ticks", "pairs_per_request", "qubit_ticks"} <= names
    assert all(hasattr(Limits(), name) for name in names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


# --- configuration ----------------------------------------------------------------------

YAML_BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.S))
]
YAML_FILES = sorted((ROOT / "examples").glob("*.yaml"))


def test_there_is_a_configuration_to_load():
    assert YAML_BLOCKS
    assert YAML_FILES


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("block", YAML_BLOCKS)
def test_configurations_in_the_text_load(block, link, tmp_path):
    path = tmp_path / "block.yaml"
    path.write_text(block, "utf-8")
    assert load_network(path, link) != NetworkConfig.preset(link)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_example_configurations_load(path, link):
    assert load_network(path, link) != NetworkConfig.preset(link)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "networks").glob("*.yaml")), ids=lambda path: path.name
)
def test_example_networks_load(path):
    assert load_description(path).bins


def test_the_networks_in_the_text_load(tmp_path):
    text = (ROOT / "docs" / "networks.md").read_text("utf-8")
    blocks = re.findall(r"```yml\n(nodes:\n.*?)```", text, re.S)
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block, "utf-8")
        assert load_description(path).links


def test_the_noiseless_example_is_the_noiseless_network():
    assert load_network(ROOT / "examples" / "noiseless.yaml", "fast") == NetworkConfig.noiseless()


def test_the_reference_is_what_the_command_prints():
    done = CliRunner().invoke(cli.app, ["config"])
    assert done.exit_code == 0
    assert done.output == (ROOT / "docs" / "configuration.md").read_text("utf-8"), (
        "run `qnodeos config > docs/configuration.md`"
    )


def test_the_defaults_are_a_configuration_file(tmp_path):
    path = tmp_path / "defaults.json"
    path.write_text(CliRunner().invoke(cli.app, ["config", "--json"]).output, "utf-8")
    assert load_network(path, "fast") == NetworkConfig.preset("paper")


def test_the_reference_describes_every_field():
    rows = re.findall(r"^\| `(\w+)` \|.*(?<!\\)\| (.*) \|$", reference(), re.M)
    described = {name for name, description in rows if description}
    assert described == {name for name, _ in rows}
    models: tuple[type[BaseModel], ...] = (
        *(NetworkConfig, NodeConfig, NVNoise, NVTiming, ScheduleConfig, LinkParameters),
        *(SinglePhotonProtocol, PerfectProtocol, WernerProtocol, LatencyProfile, Delay, Spikes),
        *(node_file.NodeFile, node_file.ShmDevice, node_file.SpiDevice, node_file.LoopbackDevice),
        *(node_file.ApiConfig, node_file.PeerConfig, node_file.FarNodeConfig, TlsFiles),
        node_file.PeerListenConfig,
        *(node_file.ApplicationsConfig, node_file.RealtimeConfig, LimitsConfig),
        *(node_file.TraceConfig, LabFile, controller_file.ControllerFile),
        *(IonNodeConfig, IonPhysics, IonTiming),
        *(controller_file.ControlledNode, controller_file.SynchronisationConfig),
        *(NetworkDescription, NodeDescription, GenericDevice, NVDevice, LinkDescription),
        *(RegisterPhysics, QubitPhysics),
    )
    assert described == {name for model in models for name in model.model_fields}


def test_the_example_of_a_configuration_error_is_a_real_one(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    section = text[text.index("## Configuration files") :]
    message, file = re.findall(r"```\n(.*?)```", section, re.S)
    monkeypatch.chdir(tmp_path)
    Path("node.yaml").write_text(file, "utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_network(Path("node.yaml"), "paper")
    assert str(caught.value) == message.rstrip()
