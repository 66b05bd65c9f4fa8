"""The board of a trapped-ion node that turns SPI frames into TTL levels.

Towards the QNPU it is an SPI slave that keeps `qnodeos.qdevice.endpoint`; it needs no computer
for that. Towards the pulse sequencer it keeps the handshake of `sequences.ion`: code, strobe,
BUSY, DONE or ERROR. It also sees the gate of the PMT counter and that counter's comparator and
overflow lines. This driver sets what it does with them and reads its counters.

An instruction is answered when BUSY has fallen again. Whatever does not happen as it should is
answered as a failure of the hardware, and `last_failure` says what it was (`Failure`). A reset
makes the board forget its session, as switching it on does; its settings stay.

The published node has a Cypress board in this place; its program is not published. Assumed: the
lines and their meaning, the registers, and the protocol of `instruments.serial_registers`. While
an instruction is being executed no register can be written. Not verified on hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from qcodes.validators import Ints

from instruments.errors import ConfigurationRefused, DeviceRefused
from instruments.serial_registers import Identity, SerialRegisters
from sequences.ion import TRIGGER_CODE_BITS, IonOperation


class Register(IntEnum):
    """Registers of the board.

    Times and codes can be read and written, RESET can be written only, the others read only.
    """

    IDENTITY = 0
    STATE = 1
    SETUP_NS = 2
    HANDSHAKE_TIMEOUT_NS = 3
    DONE_TIMEOUT_US = 4
    EXECUTED = 5
    FAILED = 6
    LAST_FAILURE = 7
    CORRUPTED_FRAMES = 8
    RESET = 9
    CODE_INITIALISE = 16
    CODE_X_PI = 17
    CODE_Y_PI = 18
    CODE_X_HALF = 19
    CODE_Y_HALF = 20
    CODE_X_MINUS_HALF = 21
    CODE_MEASURE = 22


class Failure(IntEnum):
    """Why the board answered HARDWARE_FAILURE.

    Attributes:
        NONE: nothing has failed.
        NO_CODE: the table of codes has none for the instruction.
        NOT_READY: BUSY, DONE or ERROR was high before the strobe, for as long as the handshake
            may take.
        NOT_TAKEN: BUSY did not rise after the strobe; does the sequencer run?
        NOT_DONE: BUSY fell, or the time was up, before DONE or ERROR rose.
        REFUSED: ERROR rose: the sequencer has no subroutine for the code.
        NOT_RELEASED: BUSY did not fall after the strobe.
        WRONG_GATE: the PMT's gate did not open in a measurement, or opened in another
            instruction; do the codes fit the program?
        OVERFLOW: the PMT counter has overflowed in a measurement.
    """

    NONE = 0
    NO_CODE = 1
    NOT_READY = 2
    NOT_TAKEN = 3
    NOT_DONE = 4
    REFUSED = 5
    NOT_RELEASED = 6
    WRONG_GATE = 7
    OVERFLOW = 8


IDENTITY: Final = Identity(
    what="SPI to TTL board",
    model="SPI to TTL board",
    code=0x5450,
    version=1,
    lock="ion-board",
)
MAX_CODE: Final = (1 << TRIGGER_CODE_BITS) - 1

TIMES: Final[Mapping[Register, tuple[int, int]]] = MappingProxyType(
    {
        Register.SETUP_NS: (20, 10_000),
        Register.HANDSHAKE_TIMEOUT_NS: (1_000, 1_000_000),
        Register.DONE_TIMEOUT_US: (10, 10_000_000),
    }
)
"""Least and greatest values of the registers that are times (assumed)."""

_TIMES: Final = {
    "setup_ns": (Register.SETUP_NS, "ns", "how long the code is stable before the strobe"),
    "handshake_timeout_ns": (
        Register.HANDSHAKE_TIMEOUT_NS,
        "ns",
        "in which BUSY must rise after the strobe and fall after its end",
    ),
    "done_timeout_us": (Register.DONE_TIMEOUT_US, "us", "in which DONE must follow BUSY"),
}
_COUNTERS: Final = {
    "executed": (Register.EXECUTED, "instructions that succeeded"),
    "failed": (Register.FAILED, "instructions that failed"),
    "corrupted_frames": (Register.CORRUPTED_FRAMES, "damaged frames received"),
}

CODES: Final[Mapping[IonOperation, int]] = MappingProxyType(
    {operation: operation.value for operation in IonOperation}
)
"""What the program of `sequences.ion` takes each code for."""


@dataclass(frozen=True)
class BoardSettings:
    """What a board is set up with.

    Attributes:
        codes: on the trigger inputs, by operation.
        setup_ns: how long the code is stable before the strobe.
        handshake_timeout_ns: in which BUSY must rise after the strobe and fall after its end.
    """

    codes: Mapping[IonOperation, int] = field(default_factory=lambda: CODES)
    setup_ns: int = 100
    handshake_timeout_ns: int = 20_000


class IonBoard(SerialRegisters):
    """The board.

    Args:
        name: of the QCoDeS instrument.
        address: of the serial port, such as "ASRL/dev/ttyUSB1::INSTR".
        resource: an opened pyvisa resource instead of the one at that address, or what behaves
            like one; this object closes it.
        lock_directory: see `Ownership`.
        **kwargs: for `qcodes.instrument.VisaInstrument`.

    Attributes:
        setup_ns: how long the code is stable before the strobe.
        handshake_timeout_ns: in which BUSY must rise after the strobe and fall after its end.
        done_timeout_us: in which DONE must follow BUSY.
        executed: counter, and so are the two others.
        failed: see there.
        corrupted_frames: see there.
        last_failure: name of a `Failure`.

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
            name, address, IDENTITY, resource=resource, lock_directory=lock_directory, **kwargs
        )

    def _add_parameters(self) -> None:
        for name, (register, unit, docstring) in _TIMES.items():
            self.add_parameter(
                name,
                get_cmd=lambda register=register: self.read_register(register),
                set_cmd=lambda value, register=register: self.write_register(register, value),
                unit=unit,
                vals=Ints(*TIMES[register]),
                docstring=docstring,
            )
        for name, (register, docstring) in _COUNTERS.items():
            self.add_parameter(
                name,
                get_cmd=lambda register=register: self.read_register(register),
                docstring=docstring,
            )
        self.add_parameter(
            "last_failure",
            get_cmd=lambda: self.failure().name,
            docstring="why an instruction failed last",
        )

    # --- what it does -------------------------------------------------------------------

    def configure(self, settings: BoardSettings, done_timeout_us: int) -> None:
        """Set the codes and times, and see that the board has taken them.

        Args:
            settings: of the board.
            done_timeout_us: longer than any subroutine of the sequencer takes.

        Raises:
            ConfigurationRefused: a value is out of range, or two operations have one code.
            DeviceRefused: the board refuses, or reads back something else.
        """
        table = _checked(settings.codes)
        values = {
            Register.SETUP_NS: settings.setup_ns,
            Register.HANDSHAKE_TIMEOUT_NS: settings.handshake_timeout_ns,
            Register.DONE_TIMEOUT_US: done_timeout_us,
        }
        for register, value in values.items():
            low, high = TIMES[register]
            if type(value) is not int or not low <= value <= high:
                raise ConfigurationRefused(
                    f"{self.name}: {register.name} = {value!r} is not a whole number from {low} "
                    f"to {high}"
                )
        values |= {code_register(operation): code for operation, code in table.items()}
        for register, value in values.items():
            self.write_register(register, value)
            found = self.read_register(register)
            if found != value:
                raise DeviceRefused(
                    f"{self.name} has {register.name} = {found} after {value} was written"
                )

    def codes(self) -> dict[IonOperation, int]:
        """The table of codes; 0 where there is none.

        Raises:
            DeviceRefused: the board refuses or does not answer.
        """
        return {op: self.read_register(code_register(op)) for op in IonOperation}

    def failure(self) -> Failure:
        """Why an instruction failed last.

        Raises:
            DeviceRefused: the board does not answer, or with an unknown number.
        """
        return Failure(self.read_register(Register.LAST_FAILURE, max(Failure)))

    def reset(self) -> None:
        """Have the board forget its session, take its strobe low, and count from zero.

        Raises:
            DeviceRefused: the board refuses or does not answer.
        """
        self.write_register(Register.RESET, 1)


def code_register(operation: IonOperation) -> Register:
    """The register with the code of an operation."""
    return Register[f"CODE_{operation.name}"]


def _checked(codes: Mapping[IonOperation, int]) -> dict[IonOperation, int]:
    """The table, complete and without two operations that the sequencer could not tell apart."""
    missing = [operation.name for operation in IonOperation if operation not in codes]
    if missing:
        raise ConfigurationRefused(f"the table of codes has none for {', '.join(missing)}")
    table = {operation: codes[operation] for operation in IonOperation}
    for operation, code in table.items():
        if type(code) is not int or not 1 <= code <= MAX_CODE:
            raise ConfigurationRefused(
                f"the code {code!r} of {operation.name} is outside 1..{MAX_CODE}; 0 is no operation"
            )
        others = [other.name for other in table if other < operation and table[other] == code]
        if others:
            raise ConfigurationRefused(
                f"{operation.name} and {others[0]} have the same code {code}"
            )
    return table
