"""The microwave source of a node: QCoDeS' driver of the Rohde & Schwarz SGS100A, with care.

`MicrowaveSource` is that driver with what a laboratory needs on top: one owner, the limits of
the instrument's data sheet, a check of what answered, and errors that are read out after every
command, because the instrument says nothing when it refuses one.

`open_source` opens it on hardware or on the simulated instrument (pyvisa-sim), which is the
same code down to the VISA library. Not verified on hardware.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pyvisa import VisaIOError
from qcodes.instrument_drivers.rohde_schwarz import RohdeSchwarzSGS100A
from qcodes.validators import Numbers

from instruments.errors import (
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentInUse,
)
from instruments.ownership import Ownership
from instruments.resources import SIMULATED_SOURCES, open_resource

MIN_FREQUENCY_HZ: Final = 1e6
MAX_FREQUENCY_HZ: Final = 12.75e9
MIN_POWER_DBM: Final = -120.0
MAX_POWER_DBM: Final = 25.0
"""Settable ranges (SGS100A data sheet, options B106 or B112)."""

_SIMULATION_TIMEOUT_S: Final = 0.5
"""For an answer that is in the buffer already, or will never come."""
_NO_ERROR: Final = "0"


class MicrowaveSource(RohdeSchwarzSGS100A):
    """One SGS100A. It has all parameters of QCoDeS' driver.

    Args:
        name: of the QCoDeS instrument.
        address: of the VISA resource, such as "TCPIP::192.168.1.5::INSTR".
        simulated: talk to the simulated instrument of that address.
        lock_directory: see `Ownership`.
        **kwargs: for `qcodes.instrument.VisaInstrument`.

    Raises:
        InstrumentInUse: it is open already on this computer.
        InstrumentUnavailable: there is nothing at that address, or no VISA library.
        DeviceRefused: it does not answer.
        IncompatibleInstrument: what answers is no SGS100A.
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        simulated: bool = False,
        lock_directory: Path | None = None,
        **kwargs: Any,
    ) -> None:
        if self.exist(name):
            raise InstrumentInUse(f"there is a QCoDeS instrument {name!r} already; close it first")
        if simulated:
            kwargs = {"timeout": _SIMULATION_TIMEOUT_S, **kwargs}
        self._ownership = Ownership(f"microwave-{address}", lock_directory)
        try:
            resource = open_resource(address, SIMULATED_SOURCES if simulated else None)
            try:
                # The driver insists on an address, the class it is made from on only one of both.
                super().__init__(name, None, resource=resource, **kwargs)  # type: ignore[arg-type]
                self._check_identity(address)
            except BaseException:
                resource.close()
                raise
        except BaseException:
            self._ownership.release()
            raise
        self.frequency.vals = Numbers(MIN_FREQUENCY_HZ, MAX_FREQUENCY_HZ)
        self.power.vals = Numbers(MIN_POWER_DBM, MAX_POWER_DBM)

    def connect_message(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: QCoDeS' driver would print the identity."""

    def close(self) -> None:
        """Close the instrument; its output stays as it is."""
        # QCoDeS empties the object when it closes it, and may close it twice.
        ownership: Ownership | None = self.__dict__.get("_ownership")
        super().close()
        if ownership is not None:
            ownership.release()

    def write_raw(self, cmd: str) -> None:
        """Send a command, and make sure that the instrument took it.

        Raises:
            DeviceRefused: it put an error into its queue.
        """
        super().write_raw(cmd)
        refusal = self._next_error()
        if refusal:
            raise DeviceRefused(f"{self.name} refuses {cmd!r}: {refusal}")

    def ask_raw(self, cmd: str) -> str:
        """Send a question, and wait for the answer.

        Raises:
            DeviceRefused: none comes.
        """
        try:
            return str(super().ask_raw(cmd))
        except VisaIOError as error:
            refusal = self._next_error() or "and it reports no error; check its connection"
            raise DeviceRefused(f"{self.name} does not answer {cmd!r}: {refusal}") from error

    def _next_error(self) -> str:
        """The oldest error in the instrument's queue, "" if there is none."""
        try:
            answer = str(self.visa_handle.query("SYST:ERR?")).strip()
        except VisaIOError as error:
            return f"nor does it tell its errors: {error}"
        return "" if answer.split(",")[0] == _NO_ERROR else answer

    def _check_identity(self, address: str) -> None:
        identity = self.ask_raw("*IDN?")
        maker, model = [*identity.split(","), ""][:2]
        if "SGS100A" not in model:
            raise IncompatibleInstrument(
                f"{self.name}: {address} is {maker} {model or '?'}, not an SGS100A; "
                "correct the address"
            )


def open_source(name: str, address: str, simulation: bool = False) -> MicrowaveSource:
    """A node's microwave source.

    Args:
        name: of the QCoDeS instrument.
        address: of the VISA resource.
        simulation: the simulated instrument of that address instead of a real one.

    Raises:
        InstrumentError: see `MicrowaveSource`.
    """
    return MicrowaveSource(name, address, simulated=simulation)
