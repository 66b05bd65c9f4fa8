"""The microwave source's driver on a mocked VISA resource."""

from __future__ import annotations

import pytest
import pyvisa
from pyvisa.constants import StatusCode
from pyvisa.resources import MessageBasedResource

from instruments import microwave, resources
from instruments.errors import (
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentUnavailable,
)
from instruments.microwave import open_source

ADDRESS = "TCPIP::10.0.0.5::INSTR"


@pytest.fixture
def answers():
    return {"*IDN?": "Rohde&Schwarz,SGS100A,1416.0505k02/1,4.2", "SYST:ERR?": '0,"No error"'}


@pytest.fixture
def resource(mocker, monkeypatch, tmp_path, answers):
    """A mock with the shape of pyvisa's resource; it stands for one at any address."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mock = mocker.create_autospec(MessageBasedResource, instance=True)
    mock.resource_name, mock.visalib, mock.timeout = ADDRESS, mocker.Mock(), 5_000.0

    def query(question):
        if question not in answers:
            raise pyvisa.VisaIOError(StatusCode.error_timeout)
        return answers[question]

    mock.query.side_effect = query
    monkeypatch.setattr(microwave, "open_resource", lambda address, file: mock)
    return mock


def test_commands_are_sent_and_their_errors_are_read(resource, answers):
    source = open_source("mw", ADDRESS)
    source.frequency(2.5e9)
    resource.write.assert_called_once_with("SOUR:FREQ 2500000000.00")
    answers["SYST:ERR?"] = '-222,"Data out of range"'
    with pytest.raises(DeviceRefused, match=r"mw refuses .*SOUR:POW 3\.00.*: -222,"):
        source.power(3)
    source.close()
    resource.close.assert_called()


def test_silence_is_an_error(resource, answers):
    source = open_source("mw", ADDRESS)
    with pytest.raises(DeviceRefused, match=r"does not answer .*SOUR:POW.*reports no error"):
        source.power()
    del answers["SYST:ERR?"]
    with pytest.raises(DeviceRefused, match=r"does not answer .*SOUR:POW.*nor does it tell"):
        source.power()
    source.close()


def test_another_instrument_is_refused_and_closed(resource, answers):
    answers["*IDN?"] = "Keysight,E8267D,1,2"
    with pytest.raises(IncompatibleInstrument, match="is Keysight E8267D, not an SGS100A"):
        open_source("mw", ADDRESS)
    resource.close.assert_called_once_with()
    answers["*IDN?"] = "Rohde&Schwarz,SGS100A,1,4.2"
    open_source("mw", ADDRESS).close()


def test_without_a_visa_library_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def missing():
        raise ValueError("Could not locate a VISA implementation.")

    monkeypatch.setattr(resources, "pyvisa", _Pyvisa(missing))
    with pytest.raises(InstrumentUnavailable, match=r"10\.0\.0\.5.*VISA library is installed"):
        open_source("mw", ADDRESS)


class _Pyvisa:
    """The module with another ResourceManager."""

    VisaIOError = pyvisa.VisaIOError

    def __init__(self, manager):
        self.ResourceManager = manager
