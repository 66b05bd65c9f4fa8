"""The SPI link on a mock of the spidev package."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from drivers.nv import NV_CAPABILITIES
from drivers.spi import SpiLink, SpiQDevice, open_spi
from qnodeos.errors import ConfigurationError, DeviceError, FrameError

spidev = pytest.importorskip("spidev")


@pytest.fixture
def port(mocker):
    """A mock with the shape of an opened spidev.SpiDev, which answers with what it is sent."""
    mock = mocker.create_autospec(spidev.SpiDev, instance=True)
    mock.sent = []

    def xfer2(values):
        mock.sent.append(list(values))
        values[:] = [byte ^ 0xFF for byte in values]
        return values

    mock.xfer2.side_effect = xfer2
    return mock


def test_the_port_is_set_up(port):
    SpiLink(port, mode=3, speed_hz=4_000_000)
    assert (port.mode, port.bits_per_word, port.lsbfirst, port.max_speed_hz) == (
        3,
        8,
        False,
        4_000_000,
    )


def test_a_frame_goes_in_one_transfer_bit_31_first(port):
    link = SpiLink(port)
    assert link.swap(0x12345678) == 0xEDCBA987
    assert link.swap(0x00000001) == 0xFFFFFFFE
    assert port.sent == [[0x12, 0x34, 0x56, 0x78], [0, 0, 0, 1]]


@pytest.mark.parametrize("frame", [-1, 1 << 32, 1 << 40])
def test_a_frame_that_overflows_is_refused_before_it_is_sent(port, frame):
    link = SpiLink(port)
    with pytest.raises(FrameError, match="does not fit in 32 bits"):
        link.swap(frame)
    port.xfer2.assert_not_called()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1, 2, 3], "3 bytes came back instead of 4"),
        ([0, 0, 0, 0, 0], "5 bytes"),
        ([0, 0, 0, 256], "no bytes"),
        ([0, 0, 0, -1], "no bytes"),
        (["a"] * 4, "no bytes"),
    ],
)
def test_an_answer_that_is_no_frame_is_an_error(port, answer, message):
    link = SpiLink(port)
    port.xfer2.side_effect = lambda values: answer
    with pytest.raises(FrameError, match=message):
        link.swap(0)


def test_a_failed_transfer_is_a_device_error(port):
    link = SpiLink(port)
    port.xfer2.side_effect = OSError(110, "Connection timed out")
    with pytest.raises(DeviceError, match=r"SPI transfer failed.*Connection timed out"):
        link.swap(0)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"mode": 4}, "mode"),
        ({"mode": -1}, "mode"),
        ({"speed_hz": 0}, "speed_hz"),
        ({"speed_hz": 50_000_001}, "speed_hz"),
    ],
)
def test_impossible_settings_are_refused(port, settings, field):
    for make in (lambda: SpiLink(port, **settings), lambda: open_spi(0, 0, **settings)):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert caught.value.field == field


def test_a_controller_that_changes_a_setting_is_noticed(mocker, port):
    type(port).lsbfirst = mocker.PropertyMock(return_value=True)
    with pytest.raises(DeviceError, match="made lsbfirst = True of False"):
        SpiLink(port)


def test_a_frame_must_fit_in_a_tick(port):
    SpiQDevice(SpiLink(port, speed_hz=3_200_000), NV_CAPABILITIES)
    with pytest.raises(ConfigurationError, match="takes 10000 ns at 3199999 Hz"):
        SpiQDevice(SpiLink(port, speed_hz=3_199_999), NV_CAPABILITIES)
    SpiQDevice(SpiLink(port, speed_hz=1_600_000), replace(NV_CAPABILITIES, tick_ns=20_000))


def test_opening(mocker, port):
    mocker.patch.object(spidev, "SpiDev", return_value=port)
    link = open_spi(1, 0, mode=0, speed_hz=10_000_000)
    port.open.assert_called_once_with(1, 0)
    device = SpiQDevice(link, NV_CAPABILITIES)
    assert device.capabilities is NV_CAPABILITIES
    assert device.exchange(7, 0) == 0xFFFFFFFF
    link.close()
    port.close.assert_called_once_with()


def test_a_missing_device_file_is_named():
    with pytest.raises(DeviceError, match=r"/dev/spidev31\.15 cannot be opened: No such file"):
        open_spi(31, 15)


@pytest.mark.parametrize(("bus", "device"), [(-1, 0), (32, 0), (0, 16), (0, -1)])
def test_there_is_no_such_bus(bus, device):
    with pytest.raises(ConfigurationError, match="is outside"):
        open_spi(bus, device)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "spidev", None)
    with pytest.raises(DeviceError, match=r"pip install 'qnodeos\[spi\]'"):
        open_spi(0, 0)


def test_a_port_that_refuses_is_closed_again(mocker, port):
    type(port).mode = mocker.PropertyMock(side_effect=OSError(22, "Invalid argument"))
    mocker.patch.object(spidev, "SpiDev", return_value=port)
    with pytest.raises(DeviceError, match="refuses mode = 1"):
        open_spi(0, 0)
    port.close.assert_called_once_with()
