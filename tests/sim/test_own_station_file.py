"""A Station file of one's own, opened with simulated instruments."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.instrument_bench import Line, TickClock
from instruments.errors import ConfigurationRefused
from instruments.station import station_file
from qnodeos.errors import ConfigurationError
from qnodeos.qdevice.instructions import ini
from qnodeos.qdevice.outcomes import Outcome
from sim.lab.build import NodeSpec, SimulatedLaboratory

HARDWARE = station_file("client", simulation=False)


def own(tmp_path: Path, *changes: tuple[str, str]) -> NodeSpec:
    text = HARDWARE.read_text("utf-8")
    for old, new in changes:
        assert text.count(old) >= 1
        text = text.replace(old, new)
    path = tmp_path / "my_client.yaml"
    path.write_text(text, "utf-8")
    return NodeSpec("client", station_file=path)


def test_a_hardware_file_runs_simulated_with_its_own_limits(tmp_path):
    spec = own(
        tmp_path,
        ("192.168.1.11", "10.0.0.5"),
        ("limits: [-120, 10]", "limits: [-120, 3]"),
        ("client_awg", "my_awg"),
    )
    with SimulatedLaboratory([spec]) as laboratory:
        node = laboratory.nodes["client"]
        assert node.instruments.station.awg.name == "my_awg"
        assert Line(node.device, TickClock()).run(ini()) is Outcome.SUCCESS_ZERO
        with pytest.raises(ValueError, match="power"):
            node.instruments.station.microwave.power(5)


def test_two_nodes_share_what_the_own_file_has(tmp_path):
    with SimulatedLaboratory([own(tmp_path), NodeSpec("server")]) as laboratory:
        stations = [node.instruments.station for node in laboratory.nodes.values()]
        assert stations[0].heralding is stations[1].heralding


def test_wrong_files_are_refused(tmp_path):
    spec = own(tmp_path, ("  timetagger:", "  my_tagger:"))
    with pytest.raises(ConfigurationError, match=r"my_client\.yaml: my_tagger"):
        SimulatedLaboratory([spec])
    spec = own(tmp_path, ("processor: T12", "procesor: T12"))
    with pytest.raises(
        ConfigurationRefused, match=rf"{tmp_path}.my_client\.yaml: adwin: .*procesor"
    ):
        SimulatedLaboratory([spec])
    # An error that comes only when the instrument is opened names the own file too.
    spec = own(tmp_path, ("data: 21", "data: 2100"))
    with pytest.raises(ConfigurationRefused, match=rf"{tmp_path}.my_client\.yaml: repump: "):
        SimulatedLaboratory([spec])
    for text in ("", "instruments: 3", "instruments: {adwin: 1}", "{"):
        assert spec.station_file is not None
        spec.station_file.write_text(text, "utf-8")
        with pytest.raises(ConfigurationRefused, match=r"my_client\.yaml"):
            SimulatedLaboratory([spec])
    with pytest.raises(ConfigurationRefused, match="none"):
        SimulatedLaboratory([NodeSpec("client", station_file=tmp_path / "none.yaml")])
