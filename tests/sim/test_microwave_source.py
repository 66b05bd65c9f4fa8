"""The microwave source's driver on the simulated instrument, and what the laboratory sees."""

from __future__ import annotations

import json

import pytest
from qcodes.utils import NumpyJSONEncoder

from instruments.errors import DeviceRefused, InstrumentInUse, InstrumentUnavailable
from instruments.microwave import MicrowaveSource, open_source
from sim.visa import SimulatedSource

CLIENT, SERVER = "TCPIP::mw-client::INSTR", "TCPIP::mw-server::INSTR"


@pytest.fixture(autouse=True)
def private_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def source():
    instrument = open_source("mw_client", CLIENT, simulation=True)
    yield instrument
    instrument.close()


def test_the_laboratory_sees_what_the_driver_sets_on_this_source_only(source):
    client, server = SimulatedSource(CLIENT), SimulatedSource(SERVER)
    source.frequency(2.0123e9)
    source.power(-3.25)
    source.IQ_state("on")
    source.on()
    assert (client.frequency_hz, client.power_dbm, client.on, client.modulated) == (
        2.0123e9,
        -3.25,
        True,
        True,
    )
    assert (server.frequency_hz, server.power_dbm, server.on, server.modulated) == (
        1e9,
        -20.0,
        False,
        False,
    )
    source.off()
    assert not client.on
    assert source.frequency() == 2.0123e9


def test_a_closed_source_starts_from_power_on(source):
    source.on()
    source.close()
    source.close()
    assert not SimulatedSource(CLIENT).on
    again = open_source("mw_client", CLIENT, simulation=True)
    assert again.status() is False
    again.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("frequency", 0.99e6), ("frequency", 12.76e9), ("power", 25.1), ("power", -121)],
)
def test_limits_are_those_of_the_instrument(source, name, value):
    with pytest.raises(ValueError, match=name):
        source.parameters[name](value)
    command = {"frequency": "SOUR:FREQ", "power": "SOUR:POW"}[name]
    with pytest.raises(DeviceRefused, match="-113"):
        source.write(f"{command} {value}")


def test_what_is_not_modelled_is_an_error_and_leaves_the_line_clean(source):
    with pytest.raises(DeviceRefused, match=r"refuses .*RST.*-113"):
        source.reset()
    with pytest.raises(DeviceRefused, match=r"does not answer .*SOUR:ROSC:OUTP:PHAS"):
        source.ask("SOUR:ROSC:OUTP:PHAS?")
    assert source.power() == -20.0


def test_the_snapshot_can_be_read_and_stored(source):
    source.frequency(2e9)
    snapshot = json.loads(json.dumps(source.snapshot(update=True), cls=NumpyJSONEncoder))
    values = {name: entry["value"] for name, entry in snapshot["parameters"].items()}
    assert values["frequency"] == 2e9
    assert values["status"] is False
    assert values["IDN"]["model"] == "SGS100A"
    assert None not in values.values()


def test_one_owner(source):
    with pytest.raises(InstrumentInUse, match=r"mw-client.* is open already"):
        open_source("another", CLIENT, simulation=True)
    with pytest.raises(InstrumentInUse, match="'mw_client' already"):
        open_source("mw_client", SERVER, simulation=True)
    open_source("mw_server", SERVER, simulation=True).close()


def test_an_unknown_address_is_unavailable_and_leaves_nothing_open():
    for _ in range(2):
        with pytest.raises(InstrumentUnavailable, match="TCPIP0::mw-server::inst0::INSTR"):
            MicrowaveSource("mw", "TCPIP::elsewhere::INSTR", simulated=True)
    with pytest.raises(InstrumentUnavailable, match="no simulated instrument"):
        SimulatedSource("TCPIP::elsewhere::INSTR")
