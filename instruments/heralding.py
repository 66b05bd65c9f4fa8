"""The heralding station between two nodes: its logic chip (CPLD) over a serial line.

Photons of both nodes meet at a beam splitter in front of two detectors. The chip passes a click
on as a herald if it falls into a window after the marker of the attempt; this driver sets the
window and reads the counters. The chip raises the heralds itself, in nanoseconds, without any
computer.

No public source describes such a chip's interface. Assumed: the lines of text of
`instruments.serial_registers` with 32-bit counters and the registers of `Register`. Gates of 25 to
200 ns are what published laboratory programs set. Not verified on hardware.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from qcodes.parameters import Parameter
from qcodes.validators import Ints

from instruments.serial_registers import Identity, SerialRegisters


class Register(IntEnum):
    """Registers of the chip; the counters can be read only, RESET can be written only."""

    IDENTITY = 0
    WINDOW_DELAY_NS = 1
    WINDOW_LENGTH_NS = 2
    CLICKS_0 = 3
    CLICKS_1 = 4
    HERALDS = 5
    ATTEMPTS = 6
    RESET = 7


IDENTITY: Final = 0x4853
"""High half of the register IDENTITY; the low half is the version."""
VERSION: Final = 1
MAX_DELAY_NS: Final = 10_000
"""Longest delay of the window after the marker (assumed)."""
MIN_LENGTH_NS: Final = 25
MAX_LENGTH_NS: Final = 200

_IDENTITY: Final = Identity(
    what="heralding station",
    model="heralding CPLD",
    code=IDENTITY,
    version=VERSION,
    lock="heralding",
)
_COUNTERS: Final = {
    "clicks_0": (Register.CLICKS_0, "clicks of detector 0 within the window"),
    "clicks_1": (Register.CLICKS_1, "clicks of detector 1 within the window"),
    "heralds": (Register.HERALDS, "heralds given"),
    "attempts": (Register.ATTEMPTS, "markers of attempts seen"),
}


class HeraldingStation(SerialRegisters):
    """The heralding station.

    Args:
        name: of the QCoDeS instrument.
        address: of the serial port, such as "ASRL/dev/ttyUSB0::INSTR".
        resource: an opened pyvisa resource instead of the one at that address, or what behaves
            like one; this object closes it.
        lock_directory: see `Ownership`.
        **kwargs: for `qcodes.instrument.VisaInstrument`.

    Attributes:
        window_delay_ns: from the marker of an attempt to the beginning of the window.
        window_length_ns: of the window.
        clicks_0: counter, and so are the three others.
        clicks_1: see there.
        heralds: see there.
        attempts: see there.

    Raises:
        InstrumentInUse: it is open already on this computer.
        InstrumentUnavailable: there is no such port.
        DeviceRefused: nothing answers there.
        IncompatibleInstrument: it is something else, or of another version.
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        resource: Any = None,
        lock_directory: Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            name, address, _IDENTITY, resource=resource, lock_directory=lock_directory, **kwargs
        )

    def _add_parameters(self) -> None:
        self.window_delay_ns: Parameter = self._add_window(
            "window_delay_ns", Register.WINDOW_DELAY_NS, Ints(0, MAX_DELAY_NS)
        )
        self.window_length_ns: Parameter = self._add_window(
            "window_length_ns", Register.WINDOW_LENGTH_NS, Ints(MIN_LENGTH_NS, MAX_LENGTH_NS)
        )
        for name, (register, docstring) in _COUNTERS.items():
            self.add_parameter(
                name,
                get_cmd=lambda register=register: self.read_register(register),
                docstring=docstring,
            )

    def _add_window(self, name: str, register: Register, vals: Ints) -> Parameter:
        parameter: Parameter = self.add_parameter(
            name,
            get_cmd=lambda: self.read_register(register),
            set_cmd=lambda value: self.write_register(register, value),
            unit="ns",
            vals=vals,
        )
        return parameter

    def reset(self) -> None:
        """Set all counters to zero and take back a herald that is still up."""
        self.write_register(Register.RESET, 1)
