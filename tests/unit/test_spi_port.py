"""SPI ports of instruments, on a mocked spidev."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from instruments.errors import ConfigurationRefused, DeviceRefused, InstrumentUnavailable
from instruments.spi_port import SpiPort, configure, open_port, transfer


@pytest.fixture
def device(mocker):
    """What `spidev.SpiDev()` makes."""
    made = mocker.Mock(name="SpiDev")
    mocker.patch.dict(sys.modules, {"spidev": SimpleNamespace(SpiDev=lambda: made)})
    return made


@pytest.mark.parametrize("address", ["spidev1.2", "/dev/spidev1.2"])
def test_a_port_is_opened_by_its_numbers(device, address):
    port: Any = open_port(address)
    assert port is device
    device.open.assert_called_once_with(1, 2)


@pytest.mark.parametrize(
    "address", ["", "spidev", "spidev32.0", "spidev0.16", "spidev\u0660.0", "0.1"]
)
def test_what_is_no_port_is_refused(device, address):
    with pytest.raises(ConfigurationRefused, match=r"is no SPI port; write spidev<bus>\.<device>"):
        open_port(address)
    device.open.assert_not_called()


def test_without_the_device_file_the_error_names_it(device):
    device.open.side_effect = FileNotFoundError(2, "No such file or directory")
    with pytest.raises(InstrumentUnavailable, match=r"/dev/spidev0\.1 cannot be opened: No such"):
        open_port("spidev0.1")


def test_without_the_package_the_error_says_what_to_install(mocker):
    mocker.patch.dict(sys.modules, {"spidev": None})
    with pytest.raises(InstrumentUnavailable, match=r"pip install 'qnodeos\[spi\]'"):
        open_port("spidev0.1")


def test_settings_that_the_controller_refuses_or_changes_are_errors():
    class Refusing(SimpleNamespace):
        def __setattr__(self, name: str, value: object) -> None:
            raise OSError("not supported")

    with pytest.raises(DeviceRefused, match="refuses mode = 0: not supported"):
        configure(cast("SpiPort", Refusing()), 0, 1_000)
    with pytest.raises(DeviceRefused, match="made mode = 3 of 0"):
        configure(type("Stuck", (), {"mode": property(lambda _: 3, lambda *_: None)})(), 0, 1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1, 2], "2 bytes came back over SPI instead of 3"),
        ([1, 2, 256], "no bytes"),
        (None, "no bytes"),
        (["a", "b", "c"], "no bytes"),
    ],
)
def test_an_answer_that_is_not_as_long_or_no_bytes_is_refused(mocker, answer, message):
    port = mocker.Mock(xfer2=lambda values: answer)
    with pytest.raises(DeviceRefused, match=message):
        transfer(port, b"abc")


def test_a_failed_transfer_is_an_error(mocker):
    port = mocker.Mock()
    port.xfer2.side_effect = OSError(9, "Bad file descriptor")
    with pytest.raises(DeviceRefused, match=r"the SPI transfer failed: .*Bad file descriptor"):
        transfer(port, b"abc")
