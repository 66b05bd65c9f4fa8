"""The Python of docs/hardware.md for two nodes, on simulated ones."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from calibration.bench import Side
from calibration.file import NodeCalibration, load_calibration, save_calibration
from sim.entangled_state import SinglePhotonProtocol
from sim.lab.bench import SimulatedBench
from sim.link import LinkParameters
from sim.nv.physics import NVPhysics

PAGE = Path(__file__).parents[2] / "docs" / "hardware.md"

if not PAGE.is_file():
    pytest.skip("the documentation is not installed with the package", allow_module_level=True)

NAMES: tuple[Side, Side] = ("client", "server")


def block(kind: str, containing: str) -> str:
    """The only piece of code that has a text in it."""
    blocks = re.findall(rf"^ +```{kind}\n(.*?)^ +```$", PAGE.read_text("utf-8"), re.S | re.M)
    (found,) = [each for each in blocks if containing in each]
    return textwrap.dedent(found)


def test_a_calibration_file_to_start_from_loads(tmp_path):
    path = tmp_path / "client.calibration.yaml"
    path.write_text(block("text", "mw_power_dbm"), "utf-8")
    calibration = load_calibration(path, "client")
    assert calibration.mw_power_dbm.value == -20
    assert calibration.pi_amplitude == NodeCalibration(node="client").pi_amplitude
    assert save_calibration(path, calibration).revision == 1


def test_two_nodes_are_opened_and_entangled_as_the_page_says(tmp_path, monkeypatch):
    """Opening and SPI are replaced by the simulated nodes; the rest is the page's."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        path = Path(f"results/calibration/pair/{name}.calibration.yaml")
        save_calibration(path, NodeCalibration(node=name))
    link = LinkParameters(protocol=SinglePhotonProtocol(p_det_a=0.02, p_det_b=0.02))
    believed: dict[str, NodeCalibration] = {name: NodeCalibration(node=name) for name in NAMES}
    with SimulatedBench(dict.fromkeys(NAMES, NVPhysics()), believed, link) as lab:
        nodes = lab.simulation.nodes
        stations = {f"my_{name}.yaml": nodes[name].instruments.station for name in NAMES}
        monkeypatch.setattr("instruments.station.open_station", lambda path, _: stations[path])
        monkeypatch.setattr(
            "drivers.nv_setup.NVInstruments",
            lambda station: next(
                node.instruments for node in nodes.values() if node.instruments.station is station
            ),
        )
        monkeypatch.setattr("drivers.spi.open_spi", lambda bus, device: NAMES[device])
        monkeypatch.setattr("drivers.spi.SpiQDevice", lambda name, *_: nodes[name].device)
        monkeypatch.setattr(
            "builtins.input", lambda text: lab._block(next((n for n in NAMES if n in text), None))
        )
        for node in nodes.values():
            monkeypatch.setattr(node.instruments, "set_up", node.instruments.apply)
        page: dict[str, Any] = {}
        exec(block("python", "def open_bench"), page)
        # With the pulses blocked, as the page says.
        lab._block("client")
        exec(block("python", "def entangle"), page)
        assert page["answers"] == dict.fromkeys(NAMES, ("ENTANGLEMENT_FAILURE", 989))
        alone = page["entangle"]([page["client"]])
        assert alone == {"client": ("ENTANGLEMENT_SYNC_FAILURE", 52)}
        lab._block(None)
        code = block("python", '"awg-delay"').replace(
            'measurement("awg-delay")', 'measurement("awg-delay", attempts=60_000)'
        )
        exec(code, page)
    assert "client_attempt_offset_ns" in page["outcome"].result.values
    changed = load_calibration(Path("results/calibration/pair/client.calibration.yaml"), "client")
    assert changed.revision == 2
