"""An SPI port of this computer (Linux' spidev), or what behaves like one."""

from __future__ import annotations

import importlib
import re
from typing import Any, Final, Protocol

from instruments.errors import ConfigurationRefused, DeviceRefused, InstrumentUnavailable

BITS_PER_WORD: Final = 8
MAX_BUS: Final = 31
MAX_DEVICE: Final = 15
"""Bounds on the numbers in the name of a device file (assumed)."""
_ADDRESS: Final = re.compile(r"(?:/dev/)?spidev(\d{1,3})\.(\d{1,3})", re.ASCII)


class SpiPort(Protocol):
    """What is used of `spidev.SpiDev`; `mode` and the others are those of its documentation."""

    mode: int
    bits_per_word: int
    lsbfirst: bool
    max_speed_hz: int

    def xfer2(self, values: list[int], /) -> list[int]:
        """Exchange bytes with the chip select active throughout."""
        ...

    def close(self) -> None:
        """Close the device file."""
        ...


def open_port(address: str) -> SpiPort:
    """Open an SPI port; needs the package spidev, and Linux.

    Args:
        address: such as "spidev0.1": number of the controller and of its chip select.

    Raises:
        ConfigurationRefused: this is no such address.
        InstrumentUnavailable: the package or the device file is missing, or it may not be opened.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[1]) > MAX_BUS or int(match[2]) > MAX_DEVICE:
        raise ConfigurationRefused(
            f"{address!r} is no SPI port; write spidev<bus>.<device>, with a bus up to {MAX_BUS} "
            f"and a device up to {MAX_DEVICE}"
        )
    try:
        spidev = importlib.import_module("spidev")
    except ImportError as error:
        raise InstrumentUnavailable(
            "the Python package spidev is not installed; on the computer that has the SPI bus, "
            "pip install 'qnodeos[spi]'"
        ) from error
    device: Any = spidev.SpiDev()
    try:
        device.open(int(match[1]), int(match[2]))
    except OSError as error:
        raise InstrumentUnavailable(
            f"/dev/spidev{match[1]}.{match[2]} cannot be opened: {error.strerror or error}; enable "
            "this SPI bus in the device tree, and give this user access to the file"
        ) from error
    port: SpiPort = device
    return port


def configure(port: SpiPort, mode: int, speed_hz: int) -> None:
    """Set a port to bytes with the most significant bit first.

    Args:
        port: an opened one.
        mode: clock polarity (bit 1) and phase (bit 0).
        speed_hz: of the clock, at most.

    Raises:
        DeviceRefused: the controller does not take a setting.
    """
    settings = {
        "mode": mode,
        "bits_per_word": BITS_PER_WORD,
        "lsbfirst": False,
        "max_speed_hz": speed_hz,
    }
    for name, value in settings.items():
        try:
            setattr(port, name, value)
        except (OSError, TypeError) as error:
            raise DeviceRefused(
                f"the SPI controller refuses {name} = {value}: {error}; choose what it supports"
            ) from error
        found = getattr(port, name)
        if found != value:
            raise DeviceRefused(
                f"the SPI controller made {name} = {found} of {value}; choose what it supports"
            )


def transfer(port: SpiPort, message: bytes) -> bytes:
    """Send bytes and receive as many, in one transfer.

    Raises:
        DeviceRefused: the transfer failed, or something else than as many bytes came back.
    """
    # A list of its own for every transfer: spidev writes the answer into it.
    try:
        answer = port.xfer2(list(message))
    except OSError as error:
        raise DeviceRefused(
            f"the SPI transfer failed: {error}; check that the device file is still there and "
            "that nobody closed it"
        ) from error
    try:
        received = bytes(answer)
    except (TypeError, ValueError) as error:
        raise DeviceRefused(f"the SPI transfer returned no bytes: {answer!r}") from error
    if len(received) != len(message):
        raise DeviceRefused(f"{len(received)} bytes came back over SPI instead of {len(message)}")
    return received
