"""The trapped-ion node opened from its Station file, with simulated instruments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from qcodes.instrument import Instrument
from qcodes.utils import NumpyJSONEncoder
from ruamel.yaml import YAML

from instruments import station as station_module
from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    InstrumentError,
    InstrumentInUse,
    InstrumentUnavailable,
)
from instruments.pulse_sequencer import SequencerState
from instruments.station import Connections, NodeStation, open_station, station_file
from sequences.ion import IonSequenceSettings, ion_program
from sim.ion.board import SimulatedBoard
from sim.ion.dds import DdsPort, SimulatedAd9910
from sim.ion.pmt import SimulatedPmtCounter
from sim.ion.sequencer import SequencerCore
from sim.ion.sequencer_line import SequencerLine
from sim.serial_line import SerialLine

FILE = station_file("ion", simulation=True)
NAMES = ["board", "sequencer", "dds", "pmt"]


@pytest.fixture(autouse=True)
def private(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # A directory made in one test must not outlive it.
    station_module._private_locks.cache_clear()
    yield
    Instrument.close_all()


class Laboratory:
    """The simulated instruments of the node, not connected to each other."""

    def __init__(self) -> None:
        self.dds = SimulatedAd9910()
        self.pmt = SimulatedPmtCounter()
        self.lines: dict[str, SerialLine | SequencerLine] = {
            "board": SerialLine(SimulatedBoard()),
            "sequencer": SequencerLine(SequencerCore()),
            "pmt": SerialLine(self.pmt),
        }
        self.port = DdsPort(self.dds)

    @property
    def connections(self) -> Connections:
        return Connections(simulated={**self.lines, "dds": self.port})

    @property
    def is_open(self) -> list[bool]:
        lines = [line.session is not None for line in self.lines.values()]
        return [*lines, self.port.is_open]


@pytest.fixture
def laboratory():
    return Laboratory()


def opened(laboratory: Laboratory) -> NodeStation:
    return open_station(FILE, laboratory.connections)


def edited(tmp_path: Path, *path: str, value: Any) -> Path:
    """The simulated node's file with one field changed."""
    document = YAML().load(FILE.read_text())
    place = document["instruments"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = tmp_path / "edited.yaml"
    YAML().dump(document, file)
    return file


def test_every_instrument_of_the_file_works(laboratory):
    with opened(laboratory) as node:
        assert list(node.instruments) == NAMES
        node.sequencer.load(ion_program(IonSequenceSettings()))
        node.sequencer.start()
        assert node.sequencer.status().state is SequencerState.RUNNING
        node.dds.connect_pins(laboratory.dds.pulse_io_update)
        node.dds.set_up()
        node.dds.profiles[0].frequency_hz(80e6)
        node.dds.update()
        assert laboratory.dds.output(1_000).frequency_hz == pytest.approx(80e6, abs=0.12)
        node.pmt.threshold(33)
        assert laboratory.pmt.threshold == 33
        assert node.board.codes()
        snapshot = json.loads(json.dumps(node.snapshot(), cls=NumpyJSONEncoder))
    assert set(snapshot["instruments"]) == {f"ion_{name}" for name in NAMES}
    profile = snapshot["instruments"]["ion_dds"]["submodules"]["profile_0"]["parameters"]
    assert profile["frequency_hz"]["value"] == pytest.approx(80e6, abs=0.12)
    assert snapshot["instruments"]["ion_pmt"]["parameters"]["threshold"]["value"] == 33
    assert laboratory.is_open == [False] * 4


def test_a_closed_node_can_be_opened_again():
    for _ in range(2):
        laboratory = Laboratory()
        node = opened(laboratory)
        assert laboratory.is_open == [True] * 4
        with pytest.raises(InstrumentInUse, match="board' already"):
            opened(Laboratory())
        node.close()
        assert Instrument._all_instruments == {}


def test_instruments_can_be_left_out(laboratory):
    connections = Connections(
        simulated={"dds": laboratory.port}, without=frozenset({"board", "sequencer", "pmt"})
    )
    with open_station(FILE, connections) as node:
        assert list(node.instruments) == ["dds"]
        with pytest.raises(ConfigurationRefused, match="there is no pmt of type PmtCounter"):
            assert node.pmt


@pytest.mark.parametrize("name", ["board", "sequencer", "pmt"])
def test_an_instrument_that_refuses_takes_the_others_with_it(laboratory, name):
    laboratory.lines[name].query = lambda message: "ERR broken"
    with pytest.raises(DeviceRefused, match=rf"ion_simulation\.yaml: {name}: .*ERR broken"):
        opened(laboratory)
    assert laboratory.lines[name].session is None
    assert Instrument._all_instruments == {}
    opened(Laboratory()).close()


def test_without_the_laboratory_the_error_names_file_and_instrument():
    path = station_file("ion", simulation=False)
    with pytest.raises(InstrumentUnavailable, match=r"ion_hardware\.yaml: board: .*ttyUSB1"):
        open_station(path)
    others = Connections(without=frozenset({"board", "sequencer", "pmt"}))
    with pytest.raises(InstrumentUnavailable, match=r"ion_hardware\.yaml: dds: .*spidev"):
        open_station(path, others)
    assert Instrument._all_instruments == {}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("dds", "init", "system_clock_hz"), 2e9, "dds: a system clock of 2000000000.0 Hz"),
        (("dds", "init", "speed_hz"), 100_000_000, "dds: an SPI clock of 100000000 Hz"),
        (("dds", "init", "port"), "spidev0.0", r"dds: init\.port can only be simulated"),
        (("dds", "init", "mode"), 1, r"dds: unknown field init\.mode"),
        (("dds", "init", "system_clock_hz"), "fast", "dds: "),
        (("pmt", "parameters"), {"threshold": {"initial_value": 65_535}}, "pmt: 65535 is invalid"),
        (("pmt", "init", "identity"), 3, r"pmt: unknown field init\.identity"),
        (("sequencer", "type"), "instruments.sequencer.S", "sequencer: unknown type"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, laboratory, path, value, message):
    file = edited(tmp_path, *path, value=value)
    with pytest.raises(InstrumentError, match=rf"edited\.yaml: {message}"):
        open_station(file, laboratory.connections)
    assert Instrument._all_instruments == {}
