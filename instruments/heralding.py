"""The heralding station between two nodes: its logic chip (CPLD) over a serial line.

Photons of both nodes meet at a beam splitter in front of two detectors. The chip passes a click
on as a herald if it falls into a window after the marker of the attempt; this driver sets the
window and reads the counters. The chip raises the heralds itself, in nanoseconds, without any
computer.

No public source describes such a chip's interface. Assumed: lines of text over a serial port,

    R <register>            answered by the value
    W <register> <value>    answered by OK
    anything else           answered by ERR and the reason

with decimal numbers, 32-bit counters, and the registers of `Register`. Gates of 25 to 200 ns
are what published laboratory programs set. Not verified on hardware.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import pyvisa
from pyvisa.resources import SerialInstrument
from qcodes.instrument import VisaInstrument
from qcodes.parameters import Parameter
from qcodes.validators import Ints

from instruments.errors import (
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentInUse,
)
from instruments.ownership import Ownership
from instruments.resources import open_resource


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
BAUD_RATE: Final = 115_200

_COUNTERS: Final = {
    "clicks_0": (Register.CLICKS_0, "clicks of detector 0 within the window"),
    "clicks_1": (Register.CLICKS_1, "clicks of detector 1 within the window"),
    "heralds": (Register.HERALDS, "heralds given"),
    "attempts": (Register.ATTEMPTS, "markers of attempts seen"),
}


class HeraldingStation(VisaInstrument):
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

    default_terminator = "\n"

    def __init__(
        self,
        name: str,
        address: str,
        *,
        resource: Any = None,
        lock_directory: Path | None = None,
        **kwargs: Any,
    ) -> None:
        if self.exist(name):
            raise InstrumentInUse(f"there is a QCoDeS instrument {name!r} already; close it first")
        self._ownership = Ownership(f"heralding-{address}", lock_directory)
        try:
            port = open_resource(address) if resource is None else resource
            try:
                if isinstance(port, SerialInstrument):
                    port.baud_rate = BAUD_RATE
                super().__init__(name, resource=port, **kwargs)
                self._check_identity(address)
                self._add_parameters()
            except BaseException:
                port.close()
                raise
        except BaseException:
            self._ownership.release()
            raise

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

    def close(self) -> None:
        """Close the instrument; the chip goes on."""
        # QCoDeS empties the object when it closes it, and may close it twice.
        ownership: Ownership | None = self.__dict__.get("_ownership")
        super().close()
        if ownership is not None:
            ownership.release()

    def get_idn(self) -> dict[str, str | None]:
        """What the chip says about itself."""
        version = str(self.read_register(Register.IDENTITY) & 0xFFFF)
        return {"vendor": None, "model": "heralding CPLD", "serial": None, "firmware": version}

    def read_register(self, register: Register) -> int:
        """Value of a register.

        Raises:
            DeviceRefused: the chip refuses, does not answer, or answers no number.
        """
        answer = self._exchange(f"R {register.value}")
        if not answer.isascii() or not answer.isdigit():
            raise DeviceRefused(f"{self.name} answers {answer!r} for {register.name}, no number")
        return int(answer)

    def write_register(self, register: Register, value: int) -> None:
        """Set a register.

        Raises:
            DeviceRefused: the chip refuses or does not answer.
        """
        answer = self._exchange(f"W {register.value} {value}")
        if answer != "OK":
            raise DeviceRefused(f"{self.name} answers {answer!r} to {register.name} = {value}")

    def _exchange(self, line: str) -> str:
        try:
            answer = str(self.visa_handle.query(line)).strip()
        except pyvisa.VisaIOError as error:
            raise DeviceRefused(
                f"{self.name} does not answer {line!r}: {error}; check its power and its cable"
            ) from error
        if answer.startswith("ERR"):
            raise DeviceRefused(f"{self.name} refuses {line!r}: {answer}")
        return answer

    def _check_identity(self, address: str) -> None:
        found = self.read_register(Register.IDENTITY)
        if found >> 16 != IDENTITY:
            raise IncompatibleInstrument(
                f"{self.name}: what answers at {address} is no heralding station "
                f"(identity {found:#x}); correct the address"
            )
        if found & 0xFFFF != VERSION:
            raise IncompatibleInstrument(
                f"{self.name}: the chip at {address} has version {found & 0xFFFF}, this driver "
                f"knows version {VERSION}"
            )
