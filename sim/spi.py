"""A simulated `spidev.SpiDev`, which refuses what the real one refuses.

It has the attributes and methods of version 3.8 that `drivers.spi` uses, and behaves as its C
source does: settings and transfers need an open device, a transfer writes its answer into the
list it was given, of every number only the low byte goes out. Reading or writing any other
attribute is an `AttributeError`, as with the real class.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

MAX_TRANSFER_BYTES: Final = 4_096
"""Longest transfer (spidev 3.8, SPIDEV_MAXPATH)."""
FRAME_BYTES: Final = 4
_CLOSED: Final = -1
_OPEN: Final = 3
_REVERSED: Final = tuple(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class SimulatedSpiDev:
    """An SPI device that swaps 32-bit frames with a function.

    Args:
        exchange: takes the frame sent and returns the one received.
        bus: of the only device file there is.
        device: of the only device file there is.
        device_mode: in which the device at the other end runs.
    """

    __slots__ = (
        "_bits_per_word",
        "_device_mode",
        "_exchange",
        "_fd",
        "_lsbfirst",
        "_max_speed_hz",
        "_mode",
        "_path",
    )

    def __init__(
        self,
        exchange: Callable[[int], int],
        bus: int = 0,
        device: int = 0,
        device_mode: int = 1,
    ) -> None:
        self._exchange = exchange
        self._path = (bus, device)
        self._device_mode = device_mode
        self._fd = _CLOSED
        self._forget()

    def _forget(self) -> None:
        self._mode = 0
        self._bits_per_word = 0
        self._max_speed_hz = 0
        self._lsbfirst = False

    # --- the device file --------------------------------------------------------------

    def open(self, bus: int, device: int) -> None:
        """Open the device file.

        Raises:
            FileNotFoundError: there is no such device.
        """
        if (bus, device) != self._path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._fd = _OPEN
        self._bits_per_word, self._max_speed_hz = 8, 500_000

    def close(self) -> None:
        """Close it and forget the settings; more than once does no harm."""
        self._fd = _CLOSED
        self._forget()

    def fileno(self) -> int:
        """Number of the open file, -1 if there is none."""
        return self._fd

    # --- settings ---------------------------------------------------------------------

    @property
    def mode(self) -> int:
        """Clock polarity and phase, 0 to 3."""
        return self._mode

    @mode.setter
    def mode(self, value: int) -> None:
        if not isinstance(value, int) or not 0 <= value <= 3:
            raise TypeError("The mode attribute must be an integerbetween 0 and 3.")
        self._require_open()
        self._mode = value

    @property
    def bits_per_word(self) -> int:
        """Bits between two changes of byte order."""
        return self._bits_per_word

    @bits_per_word.setter
    def bits_per_word(self, value: int) -> None:
        if not isinstance(value, int) or not 8 <= value <= 32:
            raise TypeError("invalid bits_per_word (8 to 32)")
        self._require_open()
        self._bits_per_word = value

    @property
    def max_speed_hz(self) -> int:
        """Highest clock."""
        return self._max_speed_hz

    @max_speed_hz.setter
    def max_speed_hz(self, value: int) -> None:
        if not isinstance(value, int):
            raise TypeError("The max_speed_hz attribute must be an integer")
        self._require_open()
        self._max_speed_hz = value

    @property
    def lsbfirst(self) -> bool:
        """Whether bit 0 of a byte goes first."""
        return self._lsbfirst

    @lsbfirst.setter
    def lsbfirst(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise TypeError("The lsbfirst attribute must be boolean")
        self._require_open()
        self._lsbfirst = value

    # --- transfers --------------------------------------------------------------------

    def xfer2(self, values: list[int], /) -> list[int]:
        """Exchange bytes; the list given is changed, and returned.

        Raises:
            TypeError: it is empty, or holds other things than integers.
            OverflowError: it is too long.
            OSError: no device is open.
        """
        if not values:
            raise TypeError("Empty argument list.")
        if len(values) > MAX_TRANSFER_BYTES:
            raise OverflowError(f"Argument list size exceeds {MAX_TRANSFER_BYTES} bytes.")
        if not all(isinstance(value, int) for value in values):
            raise TypeError("Non-Int/Long value in arguments.")
        self._require_open()
        values[:] = self._swap([value & 0xFF for value in values])
        return values

    def _swap(self, sent: list[int]) -> list[int]:
        """What comes back; zeros unless the device is talked to in its mode, frame by frame."""
        if len(sent) != FRAME_BYTES or self._mode != self._device_mode or self._bits_per_word != 8:
            return [0] * len(sent)
        order = _REVERSED if self._lsbfirst else range(256)
        frame = int.from_bytes(bytes(order[byte] for byte in sent), "big")
        return [order[byte] for byte in self._exchange(frame).to_bytes(FRAME_BYTES, "big")]

    def _require_open(self) -> None:
        if self._fd == _CLOSED:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
