"""The heralding station's driver on the simulated chip."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qcodes.utils import NumpyJSONEncoder

from instruments.errors import (
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentInUse,
    InstrumentUnavailable,
)
from instruments.heralding import HeraldingStation, Register
from sim.heralding import SimulatedCpld
from sim.serial_line import SerialLine

ADDRESS = "ASRL/dev/ttyUSB0::INSTR"


@pytest.fixture(autouse=True)
def private_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def cpld():
    return SimulatedCpld()


@pytest.fixture
def station(cpld):
    instrument = HeraldingStation("heralding", ADDRESS, resource=SerialLine(cpld, ADDRESS))
    yield instrument
    instrument.close()


def test_the_window_reaches_the_chip(station, cpld):
    station.window_delay_ns(180)
    station.window_length_ns(30)
    assert cpld.window_ns == (180, 210)
    assert (station.window_delay_ns(), station.window_length_ns()) == (180, 30)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window_delay_ns", -1),
        ("window_delay_ns", 10_001),
        ("window_length_ns", 24),
        ("window_length_ns", 201),
        ("window_length_ns", 30.5),
    ],
)
def test_the_window_has_limits(station, cpld, name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        station.parameters[name](value)
    with pytest.raises(DeviceRefused, match="ERR"):
        station.write_register(Register[name.upper()], value)
    assert cpld.window_ns == (0, 25)


def test_clicks_count_within_the_window_only(station, cpld):
    station.window_delay_ns(100)
    station.window_length_ns(25)
    cpld.count_attempts(1_000)
    clicked = [
        cpld.click(detector, time) for detector in (0, 1) for time in (99.9, 100, 124.9, 125)
    ]
    assert clicked == [False, True, True, False] * 2
    cpld.click(1, 110)
    cpld.count_herald()
    counted = [station.parameters[n]() for n in ("clicks_0", "clicks_1", "heralds", "attempts")]
    assert counted == [2, 3, 1, 1_000]
    assert [cpld.counter(register) for register in (Register.CLICKS_0, Register.HERALDS)] == [2, 1]
    station.reset()
    assert (station.clicks_0(), station.attempts(), cpld.resets) == (0, 0, 1)
    assert cpld.window_ns == (100, 125)
    with pytest.raises(ValueError, match="no detector 2"):
        cpld.click(2, 110)


def test_counters_turn_over_at_32_bits(station, cpld):
    cpld.count_attempts(2**32 + 5)
    assert station.attempts() == 5


@given(st.text(max_size=20))
def test_any_line_is_answered(line):
    answer = SimulatedCpld().answer(line)
    assert answer == "OK" or answer.isdigit() or answer.startswith("ERR ")


def test_counters_cannot_be_written_nor_reset_read(station):
    with pytest.raises(DeviceRefused, match="refuses 'W 6 1': ERR unknown command"):
        station.write_register(Register.ATTEMPTS, 1)
    with pytest.raises(DeviceRefused, match="refuses 'R 7'"):
        station.read_register(Register.RESET)


def test_the_snapshot_can_be_read_and_stored(station):
    snapshot = json.loads(json.dumps(station.snapshot(update=True), cls=NumpyJSONEncoder))
    values = {name: entry["value"] for name, entry in snapshot["parameters"].items()}
    assert values["window_length_ns"] == 25
    assert values["attempts"] == 0
    assert values["IDN"]["firmware"] == "1"
    assert snapshot["address"] == ADDRESS


def test_one_owner(station, cpld):
    with pytest.raises(InstrumentInUse, match=r"ttyUSB0.* is open already"):
        HeraldingStation("another", ADDRESS, resource=SerialLine(cpld))
    station.close()
    HeraldingStation("another", ADDRESS, resource=SerialLine(cpld)).close()


@pytest.mark.parametrize(
    ("identity", "error", "message"),
    [
        (0x1234_0001, IncompatibleInstrument, "no heralding station"),
        (0x4853_0002, IncompatibleInstrument, "version 2, this driver knows version 1"),
        ("hello", DeviceRefused, "answers 'hello' for IDENTITY, no number"),
    ],
)
def test_another_chip_is_refused_and_left_closed(cpld, identity, error, message):
    line = SerialLine(cpld)
    line.query = lambda message: str(identity)  # type: ignore[method-assign]
    with pytest.raises(error, match=message):
        HeraldingStation("heralding", ADDRESS, resource=line)
    assert line.session is None
    HeraldingStation("heralding", ADDRESS, resource=SerialLine(cpld)).close()


def test_without_the_port_the_error_names_it():
    with pytest.raises(InstrumentUnavailable, match="ttyUSB0"):
        HeraldingStation("heralding", ADDRESS)
