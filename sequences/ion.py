"""The pulse sequences of a trapped-ion node, and the dispatch loop that a TTL code selects from.

One 40Ca+ ion: |0> is S1/2 (bright at 397 nm), |1> is D5/2 (dark). Durations default to those of
published sequences; the codes, the wiring and the handshake are assumed. Nothing was verified on
hardware. The exchange with whoever commands the sequencer::

    inputs 0..2  ====< code >==================================
    input 3      ______|~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~|________    strobe
    BUSY         _________|~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~|____
    DONE         ________________________|~~~|_________________    or ERROR, until BUSY falls

* The code is stable before the strobe rises and until BUSY is high. The strobe falls after DONE
  or ERROR, and rises again when BUSY is low.
* Code 0 has no subroutine: ERROR rises instead of DONE, and nothing else happens.
* The strobe is looked at in the dispatch loop only. If it falls and rises again while a code is
  being executed, the second code is never executed: after DONE the sequencer stays BUSY until the
  strobe falls. Only in the last 12 cycles of BUSY, when the sequencer has seen it fall already, is
  a strobe that rises too early taken for the next code.

Every code takes the same way from the loop to its first pulse. By hand, in cycles of 10 ns from
the `btr` that sees the strobe (`dispatch_cycles`)::

    idle:      btr !3, idle    1     looked at every 6 cycles, so up to 5 cycles after the edge
               5 nops          5
    dispatch:  p BUSY          1     BUSY rises in cycle 6
               btr 2, ...      6     most significant bit: 1 + 5 nops, branched or not
               btr 1, ...      6
               btr 0, ...      6
                              --
                              25     the first instruction of the subroutine is in cycle 25

A rotation sets the profile pins, pulses IO_UPDATE, waits as long again, and closes the RF switch
for the length of the pulse. Its first cycles (u is `update_ns` in cycles)::

    x_pi:      p PROFILE       1
               p + IO_UPDATE   u
               p PROFILE       u     the switch closes in cycle 1 + 2 u
               p + RF_729      pi time or half of it
               p PROFILE       1     and back to the profile OFF in the same way: 1 + u, and 1
               j done          6     1 + 5 nops

so DONE rises 10 + 3 u cycles and the pulse after the subroutine began (`operation_cycles`).
No subroutine is called: what address a call leaves is not documented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from sequences.errors import SequenceError
from sequences.sequencer_assembler import LOOP_CYCLES, SequencerProgram, assemble
from sequences.sequencer_isa import CYCLE_NS, DELAY_SLOTS, MAX_COUNT

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
    "sideband_cycles": (0, MAX_COUNT),
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


# --- timing -------------------------------------------------------------------------------

BRANCH_CYCLES: Final = 1 + DELAY_SLOTS
"""What a branch takes."""
POLL_CYCLES: Final = BRANCH_CYCLES
"""How often the dispatch loop looks at the strobe."""
RETURN_CYCLES: Final = 2 * BRANCH_CYCLES
"""From the look that finds the strobe low again to BUSY falling."""


def dispatch_cycles(operation: IonOperation) -> int:
    """Cycles from the `btr` that sees the strobe to the first instruction of a subroutine.

    They are counted by hand in the description of this module, and the same for all.
    """
    bits = [operation >> bit & 1 for bit in reversed(range(TRIGGER_CODE_BITS))]
    return BRANCH_CYCLES + 1 + sum(BRANCH_CYCLES for _ in bits)


def operation_cycles(operation: IonOperation, settings: IonSequenceSettings) -> int:
    """Cycles from the first instruction of a subroutine to DONE rising."""
    update = settings.update_ns // CYCLE_NS
    if operation is IonOperation.MEASURE:
        return _cycles_of_us(settings.detection_us) + 1 + BRANCH_CYCLES
    if operation is not IonOperation.INITIALISE:
        return 10 + 3 * update + _pulse_ns(operation, settings) // CYCLE_NS
    reset, pump = _cycles_of_us(settings.reset_854_us), _cycles_of_us(settings.pump_us)
    cycles = _cycles_of_us(settings.doppler_us) + reset + pump + 1 + BRANCH_CYCLES
    if settings.sideband_cycles:
        turn = _cycles_of_us(settings.sideband_us) + reset + pump
        cycles += 1 + 2 * update + 1 + settings.sideband_cycles * turn + 1 + update
    return cycles


def _cycles_of_us(duration_us: int) -> int:
    return duration_us * 1_000 // CYCLE_NS


def _pulse_ns(operation: IonOperation, settings: IonSequenceSettings) -> int:
    whole = operation in (IonOperation.X_PI, IonOperation.Y_PI)
    return settings.pi_time_ns if whole else settings.pi_time_ns // 2


# --- program ------------------------------------------------------------------------------

_PROFILE_OF_ROTATION: Final = {
    IonOperation.X_PI: DdsProfile.X,
    IonOperation.Y_PI: DdsProfile.Y,
    IonOperation.X_HALF: DdsProfile.X,
    IonOperation.Y_HALF: DdsProfile.Y,
    IonOperation.X_MINUS_HALF: DdsProfile.MINUS_X,
}
_OPERATION_OF_CODE: Final = {operation.value: operation for operation in IonOperation}
_TURNS: Final = "r0"
_DELAY: Final = "r1"
_GROUP: Final = 0
"""All lines are in the first group of outputs."""


def ion_source(settings: IonSequenceSettings) -> str:
    """Source text of the program, for the assembler.

    Its labels: `start`, `idle` (the dispatch loop), `dispatch` and the branches below it, the
    names of `IonOperation` in small letters, `unknown` (code 0), `done`, and until the strobe
    falls `wait_low` and `wait_low_error`.
    """
    lines = [
        "start:",
        _set(0),
        "idle:",
        f"btr !{TRIGGER_STROBE}, idle",
        "dispatch:",
        _busy(),
        *_branches(TRIGGER_CODE_BITS - 1, 0, settings),
        "done:",
        _busy(TtlLine.DONE),
        _delay(settings.done_ns // CYCLE_NS - 1),
        _busy(),
        "wait_low:",
        f"btr {TRIGGER_STROBE}, wait_low",
        "j start",
    ]
    return "\n".join(lines) + "\n"


def ion_program(settings: IonSequenceSettings) -> SequencerProgram:
    """The program of a node."""
    return assemble(ion_source(settings))


def _branches(bit: int, code: int, settings: IonSequenceSettings) -> list[str]:
    """The way from a bit of the code to the subroutines, those with the bit low first."""
    if bit < 0:
        return _subroutine(code, settings)
    high = code | 1 << bit
    label = f"codes_{high}_to_{high + (1 << bit) - 1}" if bit else f"code_{high}"
    return [
        f"btr {bit}, {label}",
        *_branches(bit - 1, code, settings),
        f"{label}:",
        *_branches(bit - 1, high, settings),
    ]


def _subroutine(code: int, settings: IonSequenceSettings) -> list[str]:
    if code not in _OPERATION_OF_CODE:
        return [
            "unknown:",
            _busy(TtlLine.ERROR),
            _delay(settings.done_ns // CYCLE_NS - 1),
            "wait_low_error:",
            f"btr {TRIGGER_STROBE}, wait_low_error",
            "j start",
        ]
    operation = _OPERATION_OF_CODE[code]
    if operation is IonOperation.INITIALISE:
        body = _initialise(settings)
    elif operation is IonOperation.MEASURE:
        body = _light_us(settings.detection_us, *_DETECTION)
    else:
        profile = _PROFILE_OF_ROTATION[operation]
        body = [
            *_select(profile, settings),
            *_hold(_pulse_ns(operation, settings) // CYCLE_NS, profile, TtlLine.RF_729),
            _busy(profile=profile),
            *_switch_off(settings),
        ]
    return [f"{operation.name.lower()}:", *body, _busy(), "j done"]


_DOPPLER: Final = (TtlLine.DOPPLER_397, TtlLine.REPUMP_866, TtlLine.RESET_854)
_RESET: Final = (TtlLine.RESET_854, TtlLine.REPUMP_866)
_PUMP: Final = (TtlLine.PUMP_397, TtlLine.REPUMP_866)
_DETECTION: Final = (TtlLine.DOPPLER_397, TtlLine.REPUMP_866, TtlLine.PMT_GATE)


def _initialise(settings: IonSequenceSettings) -> list[str]:
    lines = [
        *_light_us(settings.doppler_us, *_DOPPLER),
        *_light_us(settings.reset_854_us, *_RESET),
        *_light_us(settings.pump_us, *_PUMP),
    ]
    if not settings.sideband_cycles:
        return lines
    red = DdsProfile.RED_SIDEBAND
    pump_cycles = _cycles_of_us(settings.pump_us) - LOOP_CYCLES
    return [
        *lines,
        *_select(red, settings),
        f"ldc {_TURNS}, {settings.sideband_cycles}",
        "sideband:",
        *_hold(_cycles_of_us(settings.sideband_us), red, TtlLine.RF_729),
        *_hold(_cycles_of_us(settings.reset_854_us), red, *_RESET),
        *_hold(pump_cycles, red, *_PUMP),
        f"nop {_TURNS}",
        f"bdec {_TURNS}, sideband",
        *_switch_off(settings),
    ]


def _select(profile: DdsProfile, settings: IonSequenceSettings) -> list[str]:
    """Select a profile and let the DDS take it: 1 + 2 u cycles."""
    update = settings.update_ns // CYCLE_NS
    return [
        _busy(profile=profile),
        *_hold(update, profile, TtlLine.IO_UPDATE),
        *_hold(update, profile),
    ]


def _switch_off(settings: IonSequenceSettings) -> list[str]:
    """Select the profile OFF: 1 + u cycles; the settling needs no waiting for."""
    return [_busy(), *_hold(settings.update_ns // CYCLE_NS, DdsProfile.OFF, TtlLine.IO_UPDATE)]


def _light_us(duration_us: int, *lines: TtlLine) -> list[str]:
    return _hold(_cycles_of_us(duration_us), DdsProfile.OFF, *lines)


def _hold(cycles: int, profile: DdsProfile, *lines: TtlLine) -> list[str]:
    return [_busy(*lines, profile=profile), _delay(cycles - 1)]


def _busy(*lines: TtlLine, profile: DdsProfile = DdsProfile.OFF) -> str:
    return _set(sum(line.mask for line in (TtlLine.BUSY, *lines)) | profile << TtlLine.PROFILE_0)


def _set(word: int) -> str:
    return f"p {_GROUP}, {word:#06x}"


def _delay(cycles: int) -> str:
    return f"delay {cycles}, {_DELAY}"
