"""The wire to a quantum device: one frame each way per tick over SPI (Linux' spidev).

The QNPU is the master. A frame goes as four bytes in one transfer, bit 31 first, with the chip
select active throughout; the device answers with its own frame in the same 32 clocks. That the
QDevice is an SPI slave is assumed, as are the default mode and clock: no public source names
them.

One transfer per tick is best effort: the system may start one late, and the protocol
(`qnodeos.qdevice.endpoint`) then loses a tick but nothing else. `drivers.pacer` keeps one from
coming early. Not verified on hardware.
"""

from __future__ import annotations

from typing import Final

from drivers.pacer import TickPacer
from instruments.errors import DeviceRefused, InstrumentUnavailable
from instruments.spi_port import MAX_BUS, MAX_DEVICE, SpiPort, configure, open_port
from qnodeos.errors import ConfigurationError, DeviceError, FrameError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.frames import FRAME_BITS

FRAME_BYTES: Final = FRAME_BITS // 8
MODES: Final = (0, 1, 2, 3)
"""Clock polarity (bit 1) and phase (bit 0)."""
DEFAULT_MODE: Final = 1
"""Clock idles low, data are valid at its falling edge (assumed)."""
DEFAULT_SPEED_HZ: Final = 12_500_000
"""A frame takes 2.6 us at this clock (assumed)."""
MAX_SPEED_HZ: Final = 50_000_000
"""Bound on the clock (assumed: beyond what cables between two boxes carry)."""


class SpiLink:
    """Carries frames over an opened SPI device.

    Args:
        port: a `spidev.SpiDev`, or what behaves like one; this object closes it.
        mode: 0 to 3.
        speed_hz: of the clock, at most.

    Raises:
        ConfigurationError: mode or clock are out of their range.
        DeviceError: the controller does not take a setting.
    """

    def __init__(
        self, port: SpiPort, mode: int = DEFAULT_MODE, speed_hz: int = DEFAULT_SPEED_HZ
    ) -> None:
        _check_settings(mode, speed_hz)
        self.speed_hz = speed_hz
        self._port = port
        try:
            configure(port, mode, speed_hz)
        except DeviceRefused as error:
            raise DeviceError(str(error)) from error

    def swap(self, frame: int) -> int:
        """Send a frame and receive one, in one transfer.

        Args:
            frame: 32 bits.

        Returns:
            32 bits, of whatever was on the line.

        Raises:
            FrameError: the frame has not 32 bits, or not four bytes came back.
            DeviceError: the transfer failed.
        """
        if not 0 <= frame < 1 << FRAME_BITS:
            raise FrameError(f"frame {frame:#x} does not fit in {FRAME_BITS} bits")
        # A list of its own for every transfer: spidev writes the answer into it.
        values = list(frame.to_bytes(FRAME_BYTES, "big"))
        try:
            answer = self._port.xfer2(values)
        except OSError as error:
            raise DeviceError(
                f"the SPI transfer failed: {error}; check that the device file is still there and "
                "that nobody closed it"
            ) from error
        try:
            received = bytes(answer)
        except (TypeError, ValueError) as error:
            raise FrameError(f"the SPI transfer returned no bytes: {answer!r}") from error
        if len(received) != FRAME_BYTES:
            raise FrameError(f"{len(received)} bytes came back instead of {FRAME_BYTES}")
        return int.from_bytes(received, "big")

    def close(self) -> None:
        """Close the device; more than once does no harm."""
        self._port.close()


class SpiQDevice:
    """A quantum device at the other end of an SPI cable: a `QDevice`.

    Args:
        link: to it.
        capabilities: what it can do; it cannot be asked.
        pacer: makes every frame wait for its tick; None for whoever paces them otherwise, or
            has a device in virtual time.

    Raises:
        ConfigurationError: a frame takes longer than a tick at this clock.
    """

    def __init__(
        self, link: SpiLink, capabilities: Capabilities, pacer: TickPacer | None = None
    ) -> None:
        frame_ns = FRAME_BITS * 1_000_000_000 / link.speed_hz
        if frame_ns > capabilities.tick_ns:
            raise ConfigurationError(
                f"a frame takes {frame_ns:.0f} ns at {link.speed_hz} Hz, longer than a tick of "
                f"{capabilities.tick_ns} ns; choose a faster SPI clock",
                field="speed_hz",
            )
        self._link = link
        self._capabilities = capabilities
        self._pacer = pacer

    @property
    def capabilities(self) -> Capabilities:
        """What the device can do."""
        return self._capabilities

    def exchange(self, tick: int, frame: int) -> int:
        """Swap one 32-bit frame when its tick has come; the device counts ticks by itself.

        Raises:
            DeviceError: see `SpiLink.swap` and `TickPacer.wait`.
        """
        if self._pacer is not None:
            self._pacer.wait(tick)
        return self._link.swap(frame)


def open_spi(
    bus: int, device: int, mode: int = DEFAULT_MODE, speed_hz: int = DEFAULT_SPEED_HZ
) -> SpiLink:
    """Open ``/dev/spidev<bus>.<device>``; needs the package spidev, and Linux.

    Args:
        bus: number of the SPI controller.
        device: number of its chip select.
        mode: 0 to 3.
        speed_hz: of the clock, at most.

    Raises:
        ConfigurationError: an argument is out of its range.
        DeviceError: the package or the device file is missing, or it may not be opened.
    """
    _check_settings(mode, speed_hz)
    for name, number, most in (("bus", bus, MAX_BUS), ("device", device, MAX_DEVICE)):
        if not 0 <= number <= most:
            raise ConfigurationError(f"{number} is outside 0..{most}", field=name)
    try:
        port = open_port(f"spidev{bus}.{device}")
    except InstrumentUnavailable as error:
        raise DeviceError(str(error)) from error
    try:
        return SpiLink(port, mode, speed_hz)
    except BaseException:
        port.close()
        raise


def _check_settings(mode: int, speed_hz: int) -> None:
    """Make sure that mode and clock are possible.

    Raises:
        ConfigurationError: they are not.
    """
    if mode not in MODES:
        raise ConfigurationError(f"SPI has no mode {mode}; it has 0 to 3", field="mode")
    if not 0 < speed_hz <= MAX_SPEED_HZ:
        raise ConfigurationError(
            f"a clock of {speed_hz} Hz is outside 1..{MAX_SPEED_HZ}", field="speed_hz"
        )
