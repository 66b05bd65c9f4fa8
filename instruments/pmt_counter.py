"""The photon counter of a trapped-ion node: a photomultiplier behind a gate, and a comparator.

While the line PMT_GATE is high the photons are counted. When it falls, the count is kept and
compared with a threshold: the comparator's line BRIGHT, which the node's board reads, is high for
more photons than the threshold. It is low again when the next gate opens.

The count has 16 bits. It stops at the last one instead of turning over, and the line OVERFLOW
rises until the next gate opens. A gate that overflowed is bright, whatever the threshold, since
the threshold is below the last count; but its count is not known, so asking for it is
`CounterOverflow`.

No public source describes such a counter. Assumed: the lines of text of
`instruments.serial_registers` with the registers of `Register`, and one more question::

    C <age> <number>        answered by <gates> and so many counts of the last gates, spaces between

with the oldest first; the age is that of the oldest, 1 for the last gate. A gate that overflowed
answers `OVF` in place of a count. `gates` is the counter of gates when the counts were read, which
tells whether gates closed between two questions. Not verified on hardware.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from qcodes.parameters import Parameter
from qcodes.validators import Ints

from instruments.errors import (
    ConfigurationRefused,
    CounterOverflow,
    DeviceRefused,
    InstrumentNotReady,
)
from instruments.serial_registers import MAX_REGISTER_VALUE, Identity, SerialRegisters


class Register(IntEnum):
    """Registers of the counter; all but THRESHOLD and RESET can be read only."""

    IDENTITY = 0
    THRESHOLD = 1
    FLAGS = 2
    GATES = 3
    BRIGHT_GATES = 4
    OVERFLOWS = 5
    RESET = 6


class Flag(IntEnum):
    """Bits of the register FLAGS."""

    OVERFLOW = 1 << 0
    """The line OVERFLOW: the last gate, or this one, counted further than 16 bits."""
    GATE_OPEN = 1 << 1
    BRIGHT = 1 << 2
    """The comparator's line."""
    ANY_GATE = 1 << 3
    """A gate was closed since the reset, so there is a count."""


IDENTITY: Final = 0x504D
"""High half of the register IDENTITY; the low half is the version."""
VERSION: Final = 1
MAX_COUNT: Final = 0xFFFF
"""Where the count stops. An overflow is told by its flag: there may have been just as many."""
MAX_THRESHOLD: Final = MAX_COUNT - 1
KEPT_GATES: Final = 4_096
"""Counts that are kept (assumed)."""
MAX_COUNTS: Final = 128
"""Counts in one answer (assumed)."""
OVERFLOWED: Final = "OVF"

_ALL_FLAGS: Final = sum(Flag)
_IDENTITY: Final = Identity(
    what="photon counter",
    model="gated photon counter",
    code=IDENTITY,
    version=VERSION,
    lock="pmt-counter",
)
_COUNTERS: Final = {
    "gates": (Register.GATES, "gates closed since the reset"),
    "bright_gates": (Register.BRIGHT_GATES, "gates with more counts than the threshold"),
    "overflows": (Register.OVERFLOWS, "gates that counted further than 16 bits"),
}


class PmtCounter(SerialRegisters):
    """The photon counter.

    Args:
        name: of the QCoDeS instrument.
        address: of the serial port, such as "ASRL/dev/ttyUSB0::INSTR".
        resource: an opened pyvisa resource instead of the one at that address, or what behaves
            like one; this object closes it.
        lock_directory: see `Ownership`.
        **kwargs: for `qcodes.instrument.VisaInstrument`.

    Attributes:
        threshold: highest count that is dark.
        count: of the last gate; `CounterOverflow` if it is not known.
        gates: counter of 32 bits, and so are the two others; they turn over.
        bright_gates: see there.
        overflows: see there.

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
        self.threshold: Parameter = self.add_parameter(
            "threshold",
            unit="counts",
            vals=Ints(0, MAX_THRESHOLD),
            get_cmd=lambda: self.read_register(Register.THRESHOLD, MAX_THRESHOLD),
            set_cmd=self._set_threshold,
            docstring="highest count that is dark",
        )
        self.count: Parameter = self.add_parameter(
            "count",
            unit="counts",
            get_cmd=lambda: int(self.counts(1)[0]),
            # Before the first gate there is none to ask for.
            snapshot_get=False,
            docstring="of the last gate",
        )
        for name, (register, docstring) in _COUNTERS.items():
            self.add_parameter(
                name,
                get_cmd=lambda register=register: self.read_register(register),
                docstring=docstring,
            )

    def reset(self) -> None:
        """Forget all gates and set the counters to zero; the threshold stays."""
        self.write_register(Register.RESET, 1)

    @property
    def is_bright(self) -> bool:
        """Level of the comparator's line.

        Raises:
            InstrumentNotReady: no gate was closed, or one is open.
            DeviceRefused: the counter does not answer, or with flags that there are not.
        """
        flags = self.read_register(Register.FLAGS, _ALL_FLAGS)
        if not flags & Flag.ANY_GATE:
            raise InstrumentNotReady(f"{self.name}: no gate was closed since the reset")
        if flags & Flag.GATE_OPEN:
            raise InstrumentNotReady(f"{self.name}: the gate is open; ask when it is closed")
        return bool(flags & Flag.BRIGHT)

    def counts(self, number: int) -> npt.NDArray[np.int64]:
        """Counts of the last gates, the oldest first.

        Args:
            number: of gates, `KEPT_GATES` at most.

        Raises:
            ConfigurationRefused: the number is not in that range.
            InstrumentNotReady: there were fewer gates since the reset, or gates were closed
                meanwhile; stop the sequencer first.
            CounterOverflow: one of them is not known.
            DeviceRefused: the counter does not answer, or not with counts.
        """
        if not 1 <= number <= KEPT_GATES:
            raise ConfigurationRefused(
                f"{self.name} keeps the counts of 1 to {KEPT_GATES} gates, not of {number}"
            )
        gates = self.read_register(Register.GATES)
        if gates < number:
            raise InstrumentNotReady(
                f"{self.name} has counts of {gates} gates since its reset, not of {number}"
            )
        counts: list[int] = []
        while len(counts) < number:
            left = number - len(counts)
            counts += self._block(left, min(left, MAX_COUNTS), gates)
        return np.array(counts, dtype=np.int64)

    def histogram(self, number: int) -> npt.NDArray[np.int64]:
        """How many of the last gates had 0, 1, 2, ... counts, up to the highest there was.

        Args:
            number: of gates.

        Raises:
            InstrumentError: see `counts`.
        """
        return np.bincount(self.counts(number)).astype(np.int64)

    def _block(self, age: int, number: int, gates: int) -> list[int]:
        answer = self._exchange(f"C {age} {number}")
        first, *words = answer.split(" ")
        found = self._number(first, "C")
        if found != gates:
            raise InstrumentNotReady(
                f"{self.name} counted {found - gates & MAX_REGISTER_VALUE} gates while it was read "
                "out; stop the sequencer first"
            )
        if len(words) != number:
            raise DeviceRefused(f"{self.name} answers {len(words)} counts instead of {number}")
        overflowed = words.count(OVERFLOWED)
        if overflowed:
            raise CounterOverflow(
                f"{self.name}: {overflowed} of {number} gates counted more than {MAX_COUNT}; "
                "less light, or a shorter gate"
            )
        return [self._number(word, "C", MAX_COUNT) for word in words]

    def _set_threshold(self, value: int) -> None:
        self.write_register(Register.THRESHOLD, value)
        found = self.read_register(Register.THRESHOLD)
        if found != value:
            raise DeviceRefused(f"{self.name} has the threshold {found} and not {value} as written")
