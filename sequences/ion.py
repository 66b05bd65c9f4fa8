"""The pulse sequences of a trapped-ion node, and the dispatch loop that a TTL code selects from.

One 40Ca+ ion: |0> is S1/2 (bright at 397 nm), |1> is D5/2 (dark). The codes, the wiring of the
outputs and the handshake are assumed; nothing here was verified on hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from sequences.errors import SequenceError

CYCLE_NS: Final = 10
"""Clock period of the pulse sequencer (published)."""
PULSE_STEP_NS: Final = 2 * CYCLE_NS
"""Step of the pi time: half of it must be whole cycles as well."""

TRIGGER_CODE_BITS: Final = 3
"""Trigger inputs 0..2 carry the code, least significant bit first."""
TRIGGER_STROBE: Final = 3
"""The trigger input that is raised when the code is stable."""


class IonOperation(IntEnum):
    """What the sequencer can do; the value is the TTL code that selects it. 0 is no operation."""

    INITIALISE = 1
    X_PI = 2
    Y_PI = 3
    X_HALF = 4
    Y_HALF = 5
    X_MINUS_HALF = 6
    MEASURE = 7


OPERATION_OF_INSTRUCTION: Final[Mapping[tuple[int, int], IonOperation]] = MappingProxyType(
    {
        (1, 0): IonOperation.INITIALISE,
        (2, 16): IonOperation.X_PI,
        (2, 48): IonOperation.Y_PI,
        (2, 8): IonOperation.X_HALF,
        (2, 40): IonOperation.Y_HALF,
        (2, 24): IonOperation.X_MINUS_HALF,
        (4, 0): IonOperation.MEASURE,
    }
)
"""By opcode and argument of a physical instruction's word.

The numbers are those of the published wire: INI 1, SQG 2, MSR 4; a rotation's argument is
32 * axis (X 0, Y 1) + the angle in units of pi/16. X by 24 units is -pi/2 up to a sign of the
state, which nothing can show."""


class TtlLine(IntEnum):
    """Bit numbers of the sequencer's outputs; all lines are active high and low when idle."""

    DOPPLER_397 = 0
    REPUMP_866 = 1
    RESET_854 = 2
    PUMP_397 = 3
    RF_729 = 4
    PROFILE_0 = 5
    PROFILE_1 = 6
    PROFILE_2 = 7
    IO_UPDATE = 8
    PMT_GATE = 9
    BUSY = 10
    DONE = 11
    ERROR = 12

    @property
    def mask(self) -> int:
        """The word in which only this line is high."""
        return 1 << self


class DdsProfile(IntEnum):
    """Profiles of the AD9910 of the 729 nm laser.

    OFF has amplitude 0 and the carrier's frequency, so that the phase accumulator goes on as
    if the carrier were on. X, Y and MINUS_X are the carrier at 0, 90 and 180 degrees;
    RED_SIDEBAND is detuned for sideband cooling.
    """

    OFF = 0
    X = 1
    Y = 2
    MINUS_X = 3
    RED_SIDEBAND = 4


_BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "doppler_us": (1, 100_000),
    "reset_854_us": (1, 10_000),
    "pump_us": (1, 10_000),
    "sideband_cycles": (0, 1_000),
    "sideband_us": (1, 10_000),
    "pi_time_ns": (1_000, 100_000),
    "detection_us": (1, 100_000),
    "update_ns": (4 * CYCLE_NS, 10_000),
    "done_ns": (4 * CYCLE_NS, 10_000),
}
_STEPS: Final = {"pi_time_ns": PULSE_STEP_NS, "update_ns": CYCLE_NS, "done_ns": CYCLE_NS}


@dataclass(frozen=True)
class IonSequenceSettings:
    """Durations of the sequences; whole numbers.

    Attributes:
        doppler_us: Doppler cooling (397, 866 and 854 nm on).
        reset_854_us: emptying D5/2 (854 and 866 nm on), after Doppler cooling and after each
            red sideband pulse.
        pump_us: sigma-polarised pumping into one Zeeman state (397 sigma and 866 nm on), after
            each reset.
        sideband_cycles: times that sideband pulse, reset and pumping are done; 0 for none.
        sideband_us: one pulse on the red sideband.
        pi_time_ns: of the carrier, multiple of `PULSE_STEP_NS`.
        detection_us: 397 and 866 nm on and the PMT's gate open.
        update_ns: how long IO_UPDATE is high after the profile pins were set, and as long again
            until the RF switch closes (assumed).
        done_ns: length of the pulse on DONE (assumed).

    Raises:
        SequenceError: a value is out of bounds or no multiple of its step.
    """

    doppler_us: int = 5_000
    reset_854_us: int = 20
    pump_us: int = 20
    sideband_cycles: int = 40
    sideband_us: int = 85
    pi_time_ns: int = 10_000
    detection_us: int = 1_500
    update_ns: int = 100
    done_ns: int = 1_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = _BOUNDS[field.name]
            step = _STEPS.get(field.name, 1)
            if type(value) is not int or not low <= value <= high or value % step:
                raise SequenceError(
                    f"{field.name} = {value!r} is not a whole number from {low} to {high}"
                    + (f" in steps of {step}" if step > 1 else "")
                )
