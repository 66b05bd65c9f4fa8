"""Registers and words of the Analog Devices AD9910, and their limits.

Addresses, widths, bits and values after reset are those of public drivers (Linux, ARTIQ), and so
are the words of a tone. The data sheet itself was not at hand: its first page gives the 1 GSPS
and 400 MHz below, and what else is not in those drivers is assumed and says so.

A serial message is an instruction byte (bit 7: read, bits 4 to 0: address) and all bytes of the
register, most significant bit first. The chip takes a message into a buffer; an edge on IO_UPDATE,
or a change of the profile pins, makes the buffers active.

Of the modes only single tones from profiles are used: no RAM (register 0x16), no ramps, no
output shift keying, no parallel port, and no PLL: the clock at REF_CLK is the system clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from instruments.errors import ConfigurationRefused

# --- registers ----------------------------------------------------------------------------


class Register(IntEnum):
    """Addresses of the registers that have a fixed width."""

    CFR1 = 0x00
    CFR2 = 0x01
    CFR3 = 0x02
    AUXILIARY_DAC = 0x03
    IO_UPDATE_RATE = 0x04
    FTW = 0x07
    POW = 0x08
    ASF = 0x09
    MULTICHIP_SYNC = 0x0A
    RAMP_LIMIT = 0x0B
    RAMP_STEP = 0x0C
    RAMP_RATE = 0x0D
    PROFILE_0 = 0x0E
    PROFILE_1 = 0x0F
    PROFILE_2 = 0x10
    PROFILE_3 = 0x11
    PROFILE_4 = 0x12
    PROFILE_5 = 0x13
    PROFILE_6 = 0x14
    PROFILE_7 = 0x15

    @property
    def width(self) -> int:
        """Of its value, in bytes."""
        if self in _LONG:
            return 8
        return 2 if self is Register.POW else 4


PROFILES: Final = tuple(Register(Register.PROFILE_0 + number) for number in range(8))
"""Registers of the profiles, by what is on the profile pins."""
_LONG: Final = frozenset({Register.RAMP_LIMIT, Register.RAMP_STEP, *PROFILES})

DEFAULTS: Final[Mapping[Register, int]] = MappingProxyType(
    {
        **dict.fromkeys(Register, 0),
        Register.CFR2: 0x0040_0820,
        Register.CFR3: 0x1F3F_4000,
        Register.AUXILIARY_DAC: 0x0000_007F,
        Register.IO_UPDATE_RATE: 0xFFFF_FFFF,
        Register.PROFILE_0: 0x08B5_0000_0000_0000,
    }
)
"""Values after MASTER_RESET."""

CFR1_SDIO_INPUT_ONLY: Final = 1 << 1
"""SDO drives the bytes that are read; without it they come on SDIO, which SPI does not see."""
CFR1_LSB_FIRST: Final = 1 << 0
CFR2_AMPLITUDE_FROM_PROFILE: Final = 1 << 24
"""Without it the amplitude in the profiles is ignored, and the output at full scale."""
CFR2_MATCHED_LATENCY: Final = 1 << 7
"""Frequency, phase and amplitude change at the same time."""
CFR3_DIVIDER_BYPASS: Final = 1 << 15
"""Without it the system clock is half of REF_CLK."""
CFR3_PLL_ENABLE: Final = 1 << 8

SETUP: Final[Mapping[Register, int]] = MappingProxyType(
    {
        Register.CFR1: DEFAULTS[Register.CFR1] | CFR1_SDIO_INPUT_ONLY,
        Register.CFR2: (
            DEFAULTS[Register.CFR2] | CFR2_AMPLITUDE_FROM_PROFILE | CFR2_MATCHED_LATENCY
        ),
        Register.CFR3: DEFAULTS[Register.CFR3] | CFR3_DIVIDER_BYPASS,
    }
)
"""The control registers for single tones from profiles."""

# --- messages -----------------------------------------------------------------------------

READ: Final = 0x80
"""Bit of the instruction byte; without it a message writes."""
ADDRESS_MASK: Final = 0x1F


def write_message(register: Register, value: int) -> bytes:
    """The bytes that write a register.

    Raises:
        ConfigurationRefused: the value does not fit into it.
    """
    _check_word(register.name, value, 8 * register.width)
    return bytes([register]) + value.to_bytes(register.width, "big")


def read_message(register: Register) -> bytes:
    """The bytes that read a register: its value comes in place of the zeros."""
    return bytes([READ | register]) + bytes(register.width)


# --- words --------------------------------------------------------------------------------

FREQUENCY_BITS: Final = 32
PHASE_BITS: Final = 16
AMPLITUDE_BITS: Final = 14
FULL_SCALE: Final = (1 << AMPLITUDE_BITS) - 1
"""Amplitude word of the amplitude 1."""

MIN_CLOCK_HZ: Final = 60e6
"""Least REF_CLK without PLL (assumed: the highest that Linux's driver gives to the PLL)."""
MAX_CLOCK_HZ: Final = 1e9
"""Highest system clock (data sheet, first page)."""
MAX_OUTPUT: Final = 0.4
"""Highest frequency in units of the system clock (data sheet, first page: 400 MHz at 1 GSPS; in
proportion at slower clocks is assumed). From 0.5 on what comes out is an image."""
_TURN: Final = 2 * math.pi


def check_clock(system_clock_hz: float) -> None:
    """Make sure that the chip can run with a system clock.

    Raises:
        ConfigurationRefused: it cannot.
    """
    if not MIN_CLOCK_HZ <= system_clock_hz <= MAX_CLOCK_HZ:
        raise ConfigurationRefused(
            f"a system clock of {system_clock_hz} Hz is outside {MIN_CLOCK_HZ:.0f} to "
            f"{MAX_CLOCK_HZ:.0f} Hz, what an AD9910 runs with"
        )


def frequency_word(frequency_hz: float, system_clock_hz: float) -> int:
    """The tuning word nearest to a frequency.

    Raises:
        ConfigurationRefused: the frequency, or the clock, is out of the chip's range.
    """
    check_clock(system_clock_hz)
    highest_hz = MAX_OUTPUT * system_clock_hz
    if not 0 <= frequency_hz <= highest_hz:
        raise ConfigurationRefused(
            f"a frequency of {frequency_hz} Hz is outside 0 to {highest_hz:.0f} Hz, which is "
            f"{MAX_OUTPUT} of the system clock; from 0.5 of it on an image comes out"
        )
    return round((1 << FREQUENCY_BITS) * float(frequency_hz) / system_clock_hz)


def frequency_hz(word: int, system_clock_hz: float) -> float:
    """The frequency of a tuning word, in Hz.

    Raises:
        ConfigurationRefused: the word, or the clock, is out of its range.
    """
    check_clock(system_clock_hz)
    _check_word("frequency word", word, FREQUENCY_BITS)
    return word * system_clock_hz / (1 << FREQUENCY_BITS)


def phase_word(phase_rad: float) -> int:
    """The offset word nearest to a phase, from one turn back to one turn ahead.

    Raises:
        ConfigurationRefused: the phase is beyond that.
    """
    if not -_TURN <= phase_rad <= _TURN:
        raise ConfigurationRefused(
            f"a phase of {phase_rad} rad is outside -2 pi to 2 pi; take off whole turns"
        )
    return round((1 << PHASE_BITS) * phase_rad / _TURN) % (1 << PHASE_BITS)


def phase_rad(word: int) -> float:
    """The phase of an offset word, from 0 to below 2 pi rad.

    Raises:
        ConfigurationRefused: the word is out of its range.
    """
    _check_word("phase word", word, PHASE_BITS)
    return _TURN * word / (1 << PHASE_BITS)


def amplitude_word(amplitude: float) -> int:
    """The scale factor nearest to an amplitude.

    Args:
        amplitude: from 0 to 1, full scale.

    Raises:
        ConfigurationRefused: the amplitude is beyond that.
    """
    if not 0 <= amplitude <= 1:
        raise ConfigurationRefused(f"an amplitude of {amplitude} is outside 0 to 1, full scale")
    return round(FULL_SCALE * amplitude)


def amplitude(word: int) -> float:
    """The amplitude of a scale factor, from 0 to 1.

    Raises:
        ConfigurationRefused: the word is out of its range.
    """
    _check_word("amplitude word", word, AMPLITUDE_BITS)
    return word / FULL_SCALE


@dataclass(frozen=True)
class Tone:
    """What is in the register of a profile.

    Attributes:
        frequency_word: 32 bits.
        phase_word: 16 bits.
        amplitude_word: 14 bits.

    Raises:
        ConfigurationRefused: a word is out of its range.
    """

    frequency_word: int = 0
    phase_word: int = 0
    amplitude_word: int = 0

    def __post_init__(self) -> None:
        _check_word("frequency word", self.frequency_word, FREQUENCY_BITS)
        _check_word("phase word", self.phase_word, PHASE_BITS)
        _check_word("amplitude word", self.amplitude_word, AMPLITUDE_BITS)

    @property
    def register_value(self) -> int:
        """The 64 bits: amplitude from bit 48, phase from bit 32, frequency from bit 0."""
        return (
            self.amplitude_word << FREQUENCY_BITS + PHASE_BITS
            | self.phase_word << FREQUENCY_BITS
            | self.frequency_word
        )

    @classmethod
    def from_register(cls, value: int) -> Tone:
        """The words of a register; bits 62 and 63 mean nothing."""
        return cls(
            value & (1 << FREQUENCY_BITS) - 1,
            value >> FREQUENCY_BITS & (1 << PHASE_BITS) - 1,
            value >> FREQUENCY_BITS + PHASE_BITS & FULL_SCALE,
        )


def _check_word(what: str, word: int, bits: int) -> None:
    if not 0 <= word < 1 << bits:
        raise ConfigurationRefused(f"{what} {word:#x} does not fit into {bits} bits")
