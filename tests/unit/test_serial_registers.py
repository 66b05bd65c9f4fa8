"""Instruments behind a serial port that answers anything."""

from __future__ import annotations

from enum import IntEnum

import pytest
import pyvisa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qcodes.instrument import Instrument

from instruments.errors import (
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentError,
    InstrumentInUse,
    InstrumentUnavailable,
)
from instruments.serial_registers import Identity, SerialRegisters

ADDRESS = "ASRL/dev/ttyUSB9::INSTR"
IDENTITY = Identity("thing", "a thing", 0x1234, 7, "thing")


class Register(IntEnum):
    SIZE = 3


@pytest.fixture(autouse=True)
def close_all(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    Instrument.close_all()


@pytest.fixture
def resource(mocker):
    mock = mocker.Mock(name="serial port", timeout=1_000.0)
    mock.query.return_value = str(0x1234 << 16 | 7)
    return mock


@pytest.fixture
def thing(resource):
    instrument = SerialRegisters("thing", ADDRESS, IDENTITY, resource=resource)
    resource.query.reset_mock()
    return instrument


def test_registers_are_read_and_written(thing, resource):
    resource.query.return_value = "42\n"
    assert thing.read_register(Register.SIZE) == 42
    resource.query.assert_called_once_with("R 3")
    resource.query.return_value = "OK\r\n"
    thing.write_register(Register.SIZE, 5)
    resource.query.assert_called_with("W 3 5")


@pytest.mark.parametrize(
    "answer", ["", "OK", "-1", "1.5", "0x10", "٣", "1 2", "4294967296", "0" * 11, "9" * 5_000]
)
def test_what_is_no_number_of_32_bits_is_refused(thing, resource, answer):
    resource.query.return_value = answer
    with pytest.raises(DeviceRefused, match="for SIZE") as caught:
        thing.read_register(Register.SIZE)
    assert len(str(caught.value)) < 300


def test_a_number_beyond_what_can_be_is_refused(thing, resource):
    resource.query.return_value = "11"
    assert thing.read_register(Register.SIZE, most=11) == 11
    with pytest.raises(DeviceRefused, match="answers 11 for SIZE, which is 10 at most"):
        thing.read_register(Register.SIZE, most=10)


@given(st.text(max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_answer_is_a_value_or_a_typed_error(thing, resource, answer):
    resource.query.return_value = answer
    try:
        value = thing.read_register(Register.SIZE)
    except InstrumentError:
        pass
    else:
        assert value == int(answer)
        assert value < 1 << 32
    try:
        thing.write_register(Register.SIZE, 1)
    except InstrumentError:
        assert answer.strip() != "OK"
    else:
        assert answer.strip() == "OK"


def test_refusals_are_quoted_and_cut(thing, resource):
    resource.query.return_value = "ERR too large" + "!" * 10_000
    with pytest.raises(DeviceRefused, match="thing refuses 'W 3 5': ERR too large!!!") as caught:
        thing.write_register(Register.SIZE, 5)
    assert len(str(caught.value)) < 300
    resource.query.return_value = "O"
    with pytest.raises(DeviceRefused, match="answers 'O' to SIZE = 5"):
        thing.write_register(Register.SIZE, 5)


@pytest.mark.parametrize(
    "error",
    [
        pyvisa.VisaIOError(pyvisa.constants.StatusCode.error_timeout),
        pyvisa.errors.InvalidSession(),
        UnicodeDecodeError("ascii", b"\xff", 0, 1, "ordinal not in range"),
        OSError("gone"),
    ],
)
def test_a_line_that_fails_is_a_typed_error(thing, resource, error):
    resource.query.side_effect = error
    with pytest.raises(DeviceRefused, match=r"does not answer 'R 3': .*check its power"):
        thing.read_register(Register.SIZE)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (str(0x1235 << 16 | 7), IncompatibleInstrument, r"is no thing \(identity 0x12350007\)"),
        (str(0x1234 << 16 | 8), IncompatibleInstrument, "has version 8, this driver knows.* 7"),
        ("what?", DeviceRefused, "answers 'what\\?' for IDENTITY"),
    ],
)
def test_another_instrument_is_refused_and_left_closed(resource, answer, error, message):
    good, resource.query.return_value = resource.query.return_value, answer
    with pytest.raises(error, match=message):
        SerialRegisters("thing", ADDRESS, IDENTITY, resource=resource)
    resource.close.assert_called()
    resource.query.return_value = good
    SerialRegisters("thing", ADDRESS, IDENTITY, resource=resource)


def test_one_owner_and_no_port(thing, resource, mocker):
    with pytest.raises(InstrumentInUse, match=r"ttyUSB9.* is open already"):
        SerialRegisters("another", ADDRESS, IDENTITY, resource=resource)
    with pytest.raises(InstrumentInUse, match="'thing' already"):
        SerialRegisters("thing", "ASRL1::INSTR", IDENTITY, resource=resource)
    thing.close()
    mocker.patch(
        "instruments.serial_registers.open_resource", side_effect=InstrumentUnavailable("no port")
    )
    with pytest.raises(InstrumentUnavailable):
        SerialRegisters("thing", ADDRESS, IDENTITY)
    SerialRegisters("thing", ADDRESS, IDENTITY, resource=resource)
