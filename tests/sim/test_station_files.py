"""Whole nodes opened from their Station files, with simulated instruments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from qcodes.instrument import Instrument
from qcodes.utils import NumpyJSONEncoder
from ruamel.yaml import YAML

from instruments import station as station_module
from instruments.adwin import AdwinProII
from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentError,
    InstrumentInUse,
    InstrumentUnavailable,
)
from instruments.station import (
    CONNECTION_FIELDS,
    Connections,
    NodeStation,
    open_station,
    station_file,
)
from sim.adwin.dll import SimulatedADwin
from sim.adwin.hardware import InMemoryHardware
from sim.adwin.options import ProcessorModel
from sim.adwin.system import AdwinSystem
from sim.hdawg import SimulatedDataServer, SimulatedHdawg
from sim.heralding import SimulatedCpld
from sim.serial_line import SerialLine
from sim.timetagger import SimulatedTaggerLibrary
from sim.visa import SimulatedSource

NODES = {"client": (1, "dev8001"), "server": (2, "dev8002")}
SHARED = ["heralding", "timetagger"]
NAMES = ["adwin", "awg", "microwave", "repump", "e_laser", "a_laser", *SHARED]
VOLTAGES = """\
'<ADbasic Header, Headerversion 001.001>
' Process_Number = 1
' Initial_Processdelay = 1000
' Eventsource = Timer
' Priority = High
DIM DATA_21[5] AS FLOAT
EVENT:
  DATA_21[5] = DATA_21[5]
"""


@pytest.fixture(autouse=True)
def private(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # A directory made in one test must not outlive it.
    station_module._private_locks.cache_clear()
    yield
    Instrument.close_all()


class Laboratory:
    """The simulated instruments of one node, and the station they share."""

    def __init__(self, node: str, cpld: SimulatedCpld | None = None) -> None:
        device_number, serial = NODES[node]
        self.system = AdwinSystem(InMemoryHardware(), ProcessorModel.t12())
        self.cpld = cpld or SimulatedCpld()
        self.line = SerialLine(self.cpld)
        self.objects: dict[str, Any] = {
            "adwin": SimulatedADwin(self.system, device_number, use_numpy_arrays=True),
            "awg": SimulatedDataServer([SimulatedHdawg(serial)]),
            "heralding": self.line,
            "timetagger": SimulatedTaggerLibrary(),
        }

    def connections(self, **others: Any) -> Connections:
        return Connections(simulated=self.objects, **others)


def opened(node: str = "client", **others: Any) -> tuple[NodeStation, Laboratory]:
    laboratory = Laboratory(node)
    return open_station(
        station_file(node, simulation=True), laboratory.connections(), **others
    ), laboratory


# --- a node --------------------------------------------------------------------------------


def test_every_instrument_of_the_file_works(tmp_path):
    (tmp_path / "volts.bas").write_text(VOLTAGES)
    node, laboratory = opened()
    assert list(node.instruments) == NAMES
    assert list(node.lasers) == ["repump", "e_laser", "a_laser"]
    node.adwin.boot()
    node.adwin.process_1.load(tmp_path / "volts.TC1")
    node.lasers["e_laser"].readout.power_uw(0.01)
    node.lasers["e_laser"].charge_check.power_uw(0.02)
    node.lasers["a_laser"].charge_check.power_uw(0.02)
    node.lasers["a_laser"].spin_pump.power_uw(0.04)
    node.lasers["repump"].repump.power_uw(50)
    assert node.adwin.get_data(21).tolist() == [0.5, 1.0, 0.5, 1.0, 0.5]
    node.microwave.frequency(2e9)
    node.microwave.on()
    source = SimulatedSource("TCPIP::mw-client::INSTR")
    assert (source.frequency_hz, source.on) == (2e9, True)
    node.heralding.window_length_ns(30)
    assert laboratory.cpld.window_ns == (0, 30)
    node.awg.outputs[0].on(1)
    with pytest.raises(ValueError, match="power"):
        node.microwave.power(11)
    snapshot = json.loads(json.dumps(node.snapshot(), cls=NumpyJSONEncoder))
    assert set(snapshot["instruments"]) == {
        *SHARED,
        *(f"client_{name}" for name in NAMES if name not in SHARED),
    }
    levels = snapshot["instruments"]["client_e_laser"]["submodules"]
    assert levels["readout"]["parameters"]["power_uw"]["value"] == pytest.approx(0.01)
    node.close()


def test_a_closed_node_can_be_opened_again():
    for _ in range(2):
        node, laboratory = opened()
        with node:
            assert node.adwin.booted() is False
        node.close()
        assert laboratory.line.session is None
        assert Instrument._all_instruments == {}


def test_two_nodes_share_the_heralding_station_and_its_time_tagger():
    client, laboratory = opened("client")
    objects = Laboratory("server").objects
    shared = {name: client.instruments[name] for name in SHARED}
    for name in SHARED:
        del objects[name]
    connections = Connections(simulated=objects, shared=shared)
    server = open_station(station_file("server", simulation=True), connections)
    assert server.heralding is client.heralding
    assert server.timetagger is client.timetagger
    assert client.timetagger.click_channels() == [3, 4]
    client.microwave.frequency(2.1e9)
    server.microwave.frequency(1.9e9)
    assert client.microwave.frequency() == 2.1e9
    server.close()
    assert laboratory.line.session is not None
    client.heralding.reset()
    client.close()
    assert laboratory.line.session is None


def test_instruments_can_be_left_out():
    objects = Laboratory("server").objects
    node = open_station(
        station_file("server", simulation=True),
        Connections(simulated=objects, without=frozenset({"heralding", "awg"})),
    )
    assert set(node.instruments) == set(NAMES) - {"heralding", "awg"}
    with pytest.raises(ConfigurationRefused, match="there is no awg of type HDAWG"):
        assert node.awg
    node.close()


# --- the files -----------------------------------------------------------------------------


def leaves(document: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(document, dict):
        return {path: document}
    return {
        place: value
        for key, content in document.items()
        for place, value in leaves(content, (*path, key)).items()
    }


def content(path: Path) -> dict[tuple[str, ...], Any]:
    return leaves(YAML(typ="safe").load(path.read_text()))


@pytest.mark.parametrize(
    ("node", "injected"), [("client", "wrapper"), ("server", "wrapper"), ("ion", "port")]
)
def test_hardware_and_simulation_differ_in_connections_only(node, injected):
    files = [content(station_file(node, simulation=simulation)) for simulation in (False, True)]
    hardware, simulation = files
    different = {
        path
        for path in hardware.keys() | simulation.keys()
        if hardware.get(path) != simulation.get(path)
    }
    assert {path[-1] for path in different} <= CONNECTION_FIELDS
    assert {path[-2] for path in different} == {"init"}
    assert injected in {path[-1] for path in different}


# --- what can go wrong ---------------------------------------------------------------------


def assert_nothing_open(laboratory: Laboratory | None = None) -> None:
    """No instrument is registered, and all can be opened."""
    assert Instrument._all_instruments == {}
    again = laboratory or Laboratory("client")
    again.objects["heralding"] = SerialLine(again.cpld)
    open_station(station_file("client", simulation=True), again.connections()).close()


def edited(tmp_path: Path, *path: str, value: Any, node: str = "client") -> Path:
    """The simulated node's file with one field changed."""
    document = YAML().load(station_file(node, simulation=True).read_text())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = tmp_path / "edited.yaml"
    YAML().dump(document, file)
    return file


def test_without_the_vendors_library_the_error_names_file_and_instrument():
    path = station_file("client", simulation=False)
    with pytest.raises(
        InstrumentUnavailable, match=r"client_hardware\.yaml: adwin: ADwin device 1: .*libadwin"
    ):
        open_station(path)
    assert_nothing_open()


def test_another_firmware_is_refused():
    laboratory = Laboratory("client")
    server = laboratory.objects["awg"]
    server._server_nodes.put("/zi/about/fullversion", "20.1.0.0")
    with pytest.raises(IncompatibleInstrument, match=r"client_simulation\.yaml: awg: dev8001"):
        open_station(station_file("client", simulation=True), laboratory.connections())
    assert_nothing_open()


def test_another_processor_is_refused(tmp_path):
    laboratory = Laboratory("client")
    path = edited(tmp_path, "instruments", "adwin", "init", "processor", value="T11")
    with pytest.raises(IncompatibleInstrument, match=r"edited\.yaml: adwin: .*is a T12, not a T11"):
        open_station(path, laboratory.connections())
    assert_nothing_open()


def test_an_instrument_in_another_process_is_refused(tmp_path):
    code = (
        "import pathlib, sys\nfrom instruments.ownership import Ownership\n"
        f"owner = Ownership('microwave-TCPIP::mw-client::INSTR', pathlib.Path({str(tmp_path)!r}))\n"
        "print('ready', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(InstrumentInUse, match=rf"microwave: .*in process {other.pid}"):
            opened(lock_directory=tmp_path)
    assert_nothing_open()


def test_the_last_instrument_takes_the_others_with_it():
    laboratory = Laboratory("client")
    laboratory.line.query = lambda message: "ERR broken"  # type: ignore[method-assign]
    with pytest.raises(DeviceRefused, match=r"heralding: .*ERR broken"):
        open_station(station_file("client", simulation=True), laboratory.connections())
    assert laboratory.line.session is None
    assert_nothing_open()


def test_a_parameter_that_is_refused_closes_its_instrument_too(tmp_path):
    power = {"power": {"initial_value": 26}}
    path = edited(tmp_path, "instruments", "microwave", "parameters", value=power)
    with pytest.raises(ConfigurationRefused, match=r"edited\.yaml: microwave: 26 is invalid"):
        open_station(path, Laboratory("client").connections())
    path = edited(
        tmp_path, "instruments", "microwave", "parameters", value={"colour": {"unit": "m"}}
    )
    with pytest.raises(ConfigurationRefused, match=r"edited\.yaml: microwave: .*colour"):
        open_station(path, Laboratory("client").connections())
    assert_nothing_open()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("adwin", "type"), "instruments.adwin.Adwin", "adwin: unknown type instruments.adwin.Ad"),
        (("adwin", "type"), 3, "adwin: type must be a str"),
        (("adwin",), {"init": {}}, "adwin: an instrument needs a type"),
        (("adwin",), None, "adwin: an instrument needs a type"),
        (("awg", "init", "colour"), 1, r"awg: unknown field init\.colour"),
        (("awg", "init", "lock_directory"), "x", r"awg: unknown field init\.lock_directory"),
        (("awg", "init", "self"), "x", r"awg: unknown field init\.self"),
        (("awg", "init"), [], "awg: init must be a dict"),
        (("awg", "add_parameters"), {}, "awg: unknown field add_parameters"),
        (("adwin", "init", "wrapper"), "ADwin", r"adwin: init\.wrapper can only be simulated"),
        (("adwin", "init", "wrapper"), None, "adwin: a simulated object was handed in"),
        (("microwave", "parameters", "power"), 3, r"microwave: parameters\.power must be a dict"),
        (("e_laser", "init", "levels"), 3, "e_laser: "),
        (("e_laser", "init", "adwin"), "adwin2", "e_laser: .*there is no ADwin 'adwin2'"),
        (("e_laser", "init", "curve"), [[0, 0]], "e_laser: an AOM curve of 1 points"),
        (("microwave", "init", "address"), "x", "microwave: nothing can be opened"),
        (("2awg",), {"type": "x"}, "2awg: this cannot be the name"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, path, value, message):
    file = edited(tmp_path, "instruments", *path, value=value)
    with pytest.raises(InstrumentError, match=rf"edited\.yaml: {message}"):
        open_station(file, Laboratory("client").connections())
    assert Instrument._all_instruments == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("instruments: [", "this is no YAML"),
        ("a: 1\na: 2", "this is no YAML"),
        ("instruments: {}", "1 to 32 are allowed"),
        ("", "there must be one section"),
        ("instruments: {}\nmore: 1", "there must be one section"),
        ("instruments: 3", "1 to 32"),
        ("#" * 1_000_001, "longer than 1000000 bytes"),
        ("\x00", "this is no YAML"),
        ("instruments: " + "[" * 5_000 + "]" * 5_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_station_file_is_refused(tmp_path, text, message):
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationRefused, match=rf"odd\.yaml: .*{message}"):
        open_station(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationRefused, match=r"none\.yaml: cannot be read"):
        open_station(tmp_path / "none.yaml")


def test_connections_must_fit_the_file():
    path = station_file("client", simulation=True)
    with pytest.raises(ConfigurationRefused, match="adwin: wrapper is simulated, and no object"):
        open_station(path)
    laboratory = Laboratory("client")
    laboratory.objects["ion_trap"] = object()
    with pytest.raises(ConfigurationRefused, match="ion_trap: not in the file"):
        open_station(path, laboratory.connections())
    with pytest.raises(ConfigurationRefused, match="lasre: not in the file"):
        open_station(path, Connections(without=frozenset({"lasre"})))
    adwin = AdwinProII("other", Laboratory("server").objects["adwin"], device_number=2)
    with pytest.raises(ConfigurationRefused, match="heralding: the shared instrument is no"):
        open_station(path, Laboratory("client").connections(shared={"heralding": adwin}))


def test_two_simulations_on_one_computer_do_not_meet(tmp_path):
    """Simulated instruments are locked in this process only."""
    node, _ = opened()
    assert list(tmp_path.glob("qnodeos-*.lock")) == []
    with pytest.raises(InstrumentInUse, match="client_adwin' already"):
        opened()
    node.close()
