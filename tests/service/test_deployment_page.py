"""What docs/deployment.md shows works: its node files load, its commands make certificates."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import qnodeos
from qnodeos import cli
from qnodeos.service.controller_file import ControllerFile, load_controller
from qnodeos.service.doctor import Level, ThisSystem, check_node
from qnodeos.service.node_file import NodeFile, load_node
from qnodeos.service.unit_files import Installation, render_units, unit_names

PAGE = Path(qnodeos.__file__).parents[1] / "docs" / "deployment.md"

if not PAGE.exists():
    pytest.skip("the documentation is not installed with the package", allow_module_level=True)

TEXT = PAGE.read_text("utf-8")
FILES = dict(re.findall(r"^```yaml (\S+)\n(.*?)^```", TEXT, re.M | re.S))
NODES = ("client", "server")


@pytest.fixture
def etc(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def load(etc: Path) -> tuple[list[NodeFile], ControllerFile]:
    nodes = [load_node(etc / f"{name}.yaml") for name in NODES]
    return nodes, load_controller(etc / "controller.yaml")


def test_the_files_fit_together(etc):
    assert set(FILES) == {"client.yaml", "server.yaml", "controller.yaml"}
    nodes, controller = load(etc)
    for node, other in (nodes, reversed(nodes)):
        known = node.peers[other.name]
        assert known.node_id == other.node_id
        assert other.peer is not None
        assert other.applications is not None
        assert known.address == other.peer.listen
        assert known.applications == other.applications.listen
    for node in nodes:
        assert node.peer is not None
        assert controller.nodes[node.name].node_id == node.node_id
        assert controller.nodes[node.name].address == node.peer.listen


@pytest.mark.parametrize("name", NODES)
def test_units_can_be_made_of_them(etc, name):
    place = Path("/etc/qnodeos") / f"{name}.yaml"
    command = Path("/opt/qnodeos/bin/qnodeos")
    units = render_units(load_node(etc / f"{name}.yaml"), Installation(place, command))
    for unit in unit_names(name)[:2]:
        assert unit in units
        assert unit.replace(name, "client") in TEXT


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl on this machine")
def test_the_commands_make_certificates_that_work(etc):
    (script,) = re.findall(r"^```sh\n(.*?)^```", TEXT, re.M | re.S)
    folder = etc / "tls"
    folder.mkdir()
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    names = ("authority", *NODES, "controller", "prometheus")
    made = {f"{name}.{kind}" for name in names for kind in ("key", "pem")}
    assert {path.name for path in folder.iterdir()} - {"authority.srl"} == made
    for name in NODES:
        findings = check_node(etc / f"{name}.yaml", ThisSystem(), time.time())
        (finding,) = (finding for finding in findings if finding.check == "certificates")
        assert finding.level is Level.OK, finding
    nodes, controller = load(etc)
    assert controller.tls is not None
    for files in (*(node.tls for node in nodes), controller.tls):
        assert files is not None
        files.server_context()
        files.client_context()


def test_the_commands_exist():
    help_text = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"}).output
    described, _, _ = TEXT.partition("## What was measured")
    named = set(re.findall(r"qnodeos ([a-z-]+)[ `]", described))
    assert {"serve", "doctor", "install-service", "ps", "top", "metrics"} <= named
    missing = {name for name in named if not re.search(rf"\b{name}\b", help_text)}
    assert not missing
