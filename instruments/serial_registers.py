"""Instruments that are registers behind a serial port, read and written as lines of text.

The protocol is assumed, for instruments of which none is public::

    R <register>            answered by the value
    W <register> <value>    answered by OK
    anything else           answered by ERR and the reason

Numbers are decimal and have 32 bits at most. Register 0 is the identity: what the instrument is
in the high half, its version in the low half. Every other answer is refused with an error that
quotes it, so noise on the line is never taken for a value. Not verified on hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from pyvisa.errors import Error as VisaError
from pyvisa.resources import SerialInstrument
from qcodes.instrument import VisaInstrument

from instruments.errors import DeviceRefused, IncompatibleInstrument, InstrumentInUse
from instruments.ownership import Ownership
from instruments.resources import open_resource

BAUD_RATE: Final = 115_200
IDENTITY_REGISTER: Final = 0
MAX_REGISTER_VALUE: Final = (1 << 32) - 1
_MAX_DIGITS: Final = len(str(MAX_REGISTER_VALUE))
_SHOWN: Final = 80
"""How much of a wrong answer an error quotes."""


@dataclass(frozen=True)
class Identity:
    """What must answer at the port.

    Attributes:
        what: it is, in words.
        model: of the QCoDeS identity.
        code: high half of the register 0.
        version: low half of it.
        lock: begin of the name of its lock.
    """

    what: str
    model: str
    code: int
    version: int
    lock: str


class SerialRegisters(VisaInstrument):
    """An instrument with this protocol.

    Args:
        name: of the QCoDeS instrument.
        address: of the serial port, such as "ASRL/dev/ttyUSB0::INSTR".
        identity: what must answer there.
        resource: an opened pyvisa resource instead of the one at that address, or what behaves
            like one; this object closes it.
        lock_directory: see `Ownership`.
        **kwargs: for `qcodes.instrument.VisaInstrument`.

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
        identity: Identity,
        *,
        resource: Any = None,
        lock_directory: Path | None = None,
        **kwargs: Any,
    ) -> None:
        if self.exist(name):
            raise InstrumentInUse(f"there is a QCoDeS instrument {name!r} already; close it first")
        self._identity = identity
        self._ownership = Ownership(f"{identity.lock}-{address}", lock_directory)
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
        """Give the instrument its parameters; it has been found to be the right one."""

    def close(self) -> None:
        """Close the instrument; it goes on."""
        # QCoDeS empties the object when it closes it, and may close it twice.
        ownership: Ownership | None = self.__dict__.get("_ownership")
        super().close()
        if ownership is not None:
            ownership.release()

    def get_idn(self) -> dict[str, str | None]:
        """What the instrument says about itself."""
        version = str(self._read(IDENTITY_REGISTER, "IDENTITY") & 0xFFFF)
        return {
            "vendor": None,
            "model": self._identity.model,
            "serial": None,
            "firmware": version,
        }

    def read_register(self, register: IntEnum, most: int = MAX_REGISTER_VALUE) -> int:
        """Value of a register.

        Args:
            register: which.
            most: it can be.

        Raises:
            DeviceRefused: the instrument refuses, does not answer, or answers no such number.
        """
        return self._read(register.value, register.name, most)

    def write_register(self, register: IntEnum, value: int) -> None:
        """Set a register.

        Raises:
            DeviceRefused: the instrument refuses or does not answer.
        """
        answer = self._exchange(f"W {register.value} {value}")
        if answer != "OK":
            raise DeviceRefused(
                f"{self.name} answers {answer[:_SHOWN]!r} to {register.name} = {value}"
            )

    def _read(self, number: int, name: str, most: int = MAX_REGISTER_VALUE) -> int:
        return self._number(self._exchange(f"R {number}"), name, most)

    def _number(self, answer: str, name: str, most: int = MAX_REGISTER_VALUE) -> int:
        """A number of an answer.

        Raises:
            DeviceRefused: it is none, or larger than can be.
        """
        if not answer.isascii() or not answer.isdigit():
            raise DeviceRefused(
                f"{self.name} answers {answer[:_SHOWN]!r} for {name}, no number; check the cable "
                "and that nobody else uses the port"
            )
        if len(answer) > _MAX_DIGITS or int(answer) > most:
            raise DeviceRefused(
                f"{self.name} answers {answer[:_SHOWN]} for {name}, which is {most} at most"
            )
        return int(answer)

    def _exchange(self, line: str) -> str:
        try:
            answer = str(self.visa_handle.query(line)).strip()
        except (VisaError, UnicodeError, OSError) as error:
            raise DeviceRefused(
                f"{self.name} does not answer {line!r}: {error}; check its power and its cable"
            ) from error
        if answer.startswith("ERR"):
            raise DeviceRefused(f"{self.name} refuses {line!r}: {answer[:_SHOWN]}")
        return answer

    def _check_identity(self, address: str) -> None:
        expected = self._identity
        found = self._read(IDENTITY_REGISTER, "IDENTITY")
        if found >> 16 != expected.code:
            raise IncompatibleInstrument(
                f"{self.name}: what answers at {address} is no {expected.what} "
                f"(identity {found:#x}); correct the address"
            )
        if found & 0xFFFF != expected.version:
            raise IncompatibleInstrument(
                f"{self.name}: the {expected.what} at {address} has version {found & 0xFFFF}, "
                f"this driver knows version {expected.version}"
            )
