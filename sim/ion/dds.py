"""The AD9910 of the 729 nm laser: what reaches its pins and its serial port, and what it plays.

`SimulatedAd9910` takes the bytes of the driver `instruments.ad9910` through a `DdsPort`, and the
levels of the sequencer's lines with their times. A message goes into the buffers; a rising edge of
IO_UPDATE, or a change of the profile pins, makes all buffers active (the latter as the description
of the pins in public firmware for the chip says). What the chip
would ignore or garble without a word is an `Ad9910Fault` here, and so is what is not modelled:
RAM, ramps, output shift keying, parallel port, PLL.

The phase is continuous: the chip's accumulator goes on through every change. A `DdsOutput` has
the offset word's phase, which is that of the tone in the frame that turns with the accumulator.
"""

from __future__ import annotations

import errno
import math
import os
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NamedTuple

from instruments.ad9910 import MAX_SPEED_HZ
from instruments.ad9910_words import (
    ADDRESS_MASK,
    CFR1_SDIO_INPUT_ONLY,
    CFR2_AMPLITUDE_FROM_PROFILE,
    CFR2_MATCHED_LATENCY,
    CFR3_DIVIDER_BYPASS,
    DEFAULTS,
    FREQUENCY_BITS,
    FULL_SCALE,
    MAX_CLOCK_HZ,
    PROFILES,
    READ,
    Register,
    Tone,
    check_clock,
    phase_rad,
)

LATENCY_CYCLES: Final = 91
"""From an edge to the output, in periods of the system clock (assumed; the pipeline of the chip
has some tens of stages, and the driver asks for the same delay of all parts of a tone)."""
UPDATE_CYCLES: Final = 4
"""IO_UPDATE is sampled once in so many periods: a shorter pulse may be missed (assumed: so it is
in the sister chips AD9954 and AD9959, whose data sheets say so)."""
MAX_CHANGES: Final = 1_024
"""How many changes of the output are remembered."""
SPI_MODES: Final = (0, 3)
"""In which the data are taken at the rising edge, as the chip does (ARTIQ: mode 0)."""

_MODELLED: Final = {
    Register.CFR1: CFR1_SDIO_INPUT_ONLY,
    Register.CFR2: (DEFAULTS[Register.CFR2] | CFR2_AMPLITUDE_FROM_PROFILE | CFR2_MATCHED_LATENCY),
    Register.CFR3: DEFAULTS[Register.CFR3] | CFR3_DIVIDER_BYPASS,
}
"""Bits that may be set."""


class Ad9910Fault(RuntimeError):
    """The chip was asked for what it would ignore or garble, or for what is not modelled."""


class DdsOutput(NamedTuple):
    """A tone.

    Attributes:
        frequency_hz: from 0 to half of the system clock: of the image, if the word is beyond.
        phase_rad: offset, from 0 to below 2 pi.
        amplitude: 0 to 1.
    """

    frequency_hz: float
    phase_rad: float
    amplitude: float


class SimulatedAd9910:
    """The chip. Times must not go back.

    Args:
        reference_hz: what is at REF_CLK.
        latency_cycles: see `LATENCY_CYCLES`.

    Raises:
        ConfigurationRefused: the chip cannot run with that clock.
    """

    def __init__(
        self, reference_hz: float = MAX_CLOCK_HZ, latency_cycles: int = LATENCY_CYCLES
    ) -> None:
        check_clock(reference_hz)
        self._reference_hz = reference_hz
        self._latency_cycles = latency_cycles
        self._time_ns = 0
        self._profile = 0
        self._update_since: int | None = None
        self._buffers = dict(DEFAULTS)
        self._active = dict(DEFAULTS)
        self._written = False
        self._tones: dict[int, DdsOutput] = {}
        self._changes: deque[tuple[int, DdsOutput]] = deque(maxlen=MAX_CHANGES)
        self._changes.append((0, self._tone()))

    # --- pins -------------------------------------------------------------------------

    @property
    def profile(self) -> int:
        """What is on the profile pins."""
        return self._profile

    def set_profile(self, time_ns: int, profile: int) -> None:
        """Levels of the profile pins.

        Raises:
            Ad9910Fault: there is no such profile, time goes back, or a mode is not modelled.
        """
        if profile not in range(len(PROFILES)):
            raise Ad9910Fault(f"there is no profile {profile}; there are 0 to 7")
        self._advance(time_ns)
        if profile != self._profile:
            self._profile = profile
            self._latch()

    def set_io_update(self, time_ns: int, level: bool) -> None:
        """Level of IO_UPDATE.

        Raises:
            Ad9910Fault: the pulse that ends here may be missed, time goes back, or a mode is not
                modelled.
        """
        self._advance(time_ns)
        if level and self._update_since is None:
            self._update_since = time_ns
            self._latch()
        elif not level and self._update_since is not None:
            length_ns, self._update_since = time_ns - self._update_since, None
            least_ns = self._cycles_ns(UPDATE_CYCLES)
            if length_ns < least_ns:
                raise Ad9910Fault(
                    f"IO_UPDATE was high for {length_ns} ns; below {least_ns} ns it may be missed"
                )

    def pulse_io_update(self, time_ns: int | None = None) -> None:
        """A pulse on IO_UPDATE that is long enough.

        Args:
            time_ns: when; None for the time of the last edge, of somebody who has no clock.

        Raises:
            Ad9910Fault: IO_UPDATE is high, time goes back, or a mode is not modelled.
        """
        if time_ns is not None:
            self._advance(time_ns)
        if self._update_since is not None:
            raise Ad9910Fault("IO_UPDATE is high already: there is no edge")
        self._latch()

    def master_reset(self) -> None:
        """A pulse on MASTER_RESET, now."""
        self._buffers = dict(DEFAULTS)
        self._written = True
        self._latch()

    # --- output -----------------------------------------------------------------------

    @property
    def system_clock_hz(self) -> float:
        """The clock that it makes of the one at REF_CLK."""
        bypassed = self._active[Register.CFR3] & CFR3_DIVIDER_BYPASS
        return self._reference_hz if bypassed else self._reference_hz / 2

    def output(self, time_ns: int) -> DdsOutput:
        """What comes out.

        Raises:
            Ad9910Fault: that is too long ago.
        """
        for begin_ns, tone in reversed(self._changes):
            if begin_ns <= time_ns:
                return tone
        raise Ad9910Fault(f"the output at {time_ns} ns is forgotten")

    def pieces(self, begin_ns: int, end_ns: int) -> list[tuple[int, int, DdsOutput]]:
        """What comes out within a time, by begin and end of each tone.

        It is what has been ordered so far: an edge to come may change the end of it.

        Raises:
            Ad9910Fault: the begin is too long ago.
            ValueError: the end is before the begin.
        """
        if end_ns < begin_ns:
            raise ValueError(f"{end_ns} is before {begin_ns}")
        later = takewhile(lambda change: change[0] > begin_ns, reversed(self._changes))
        inside = [change for change in later if change[0] < end_ns][::-1]
        starts = [(begin_ns, self.output(begin_ns)), *inside]
        ends = [*(start for start, _ in inside), end_ns]
        return [(start, end, tone) for (start, tone), end in zip(starts, ends, strict=True)]

    def _advance(self, time_ns: int) -> None:
        if time_ns < self._time_ns:
            raise Ad9910Fault(f"an edge at {time_ns} ns comes after one at {self._time_ns} ns")
        self._time_ns = time_ns

    def _cycles_ns(self, cycles: int) -> int:
        return math.ceil(cycles * 1e9 / self.system_clock_hz)

    def _latch(self) -> None:
        if self._written:
            self._take_buffers()
        if self._profile not in self._tones:
            self._tones[self._profile] = self._tone()
        last_ns, last = self._changes[-1]
        tone = self._tones[self._profile]
        if tone != last:
            # A slower clock before this one may still have a change in its pipeline.
            begin_ns = max(last_ns, self._time_ns + self._cycles_ns(self._latency_cycles))
            if begin_ns == last_ns:
                self._changes.pop()
            self._changes.append((begin_ns, tone))

    def _take_buffers(self) -> None:
        for register, modelled in _MODELLED.items():
            if self._buffers[register] & ~modelled:
                raise Ad9910Fault(
                    f"{register.name} = {self._buffers[register]:#x} switches on what is not "
                    "modelled"
                )
        self._active = dict(self._buffers)
        self._written = False
        self._tones.clear()

    def _tone(self) -> DdsOutput:
        tone = Tone.from_register(self._active[PROFILES[self._profile]])
        scaled = self._active[Register.CFR2] & CFR2_AMPLITUDE_FROM_PROFILE
        amplitude = tone.amplitude_word / FULL_SCALE if scaled else 1.0
        turns = tone.frequency_word / (1 << FREQUENCY_BITS)
        phase = phase_rad(tone.phase_word)
        if turns > 0.5:
            turns, phase = 1 - turns, -phase % (2 * math.pi)
        return DdsOutput(turns * self.system_clock_hz, phase, amplitude)

    # --- serial port ------------------------------------------------------------------

    def transfer(self, sent: Sequence[int]) -> list[int]:
        """Bytes with the chip select active throughout.

        Returns:
            As many, of the line SDO: zeros where the chip does not drive it.

        Raises:
            Ad9910Fault: they are not exactly one message to a register that there is.
        """
        instruction, *data = sent
        try:
            register = Register(instruction & ADDRESS_MASK)
        except ValueError as error:
            raise Ad9910Fault(
                f"no register {instruction & ADDRESS_MASK:#04x} that is modelled"
            ) from error
        if len(data) != register.width:
            raise Ad9910Fault(
                f"{len(data)} bytes for {register.name}, which has {register.width}: the next "
                "message would be taken for something else"
            )
        if not instruction & READ:
            self._buffers[register] = int.from_bytes(bytes(data), "big")
            self._written = True
            return [0] * len(sent)
        if not self._active[Register.CFR1] & CFR1_SDIO_INPUT_ONLY:
            return [0] * len(sent)
        return [0, *self._active[register].to_bytes(register.width, "big")]


class DdsPort:
    """Takes the place of a `spidev.SpiDev`: give it to the driver as `port=`.

    Args:
        chip: at its other end.
    """

    def __init__(self, chip: SimulatedAd9910) -> None:
        self.mode = 0
        self.bits_per_word = 8
        self.lsbfirst = False
        self.max_speed_hz = 500_000
        self.is_open = True
        self._chip = chip

    def xfer2(self, values: list[int], /) -> list[int]:
        """Exchange bytes; the list given is changed, and returned.

        Raises:
            OSError: the port was closed.
            TypeError: the list is empty.
            Ad9910Fault: the chip would not understand it.
        """
        if not self.is_open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if not values:
            raise TypeError("Empty argument list.")
        if self.mode not in SPI_MODES or self.lsbfirst or self.bits_per_word != 8:
            raise Ad9910Fault(
                f"mode {self.mode}, {self.bits_per_word} bits, LSB first {self.lsbfirst}: the chip "
                f"takes bytes of modes {SPI_MODES}, MSB first"
            )
        if self.max_speed_hz > MAX_SPEED_HZ:
            raise Ad9910Fault(f"an SPI clock of {self.max_speed_hz} Hz is above {MAX_SPEED_HZ} Hz")
        values[:] = self._chip.transfer([value & 0xFF for value in values])
        return values

    def close(self) -> None:
        """Close the port; more than once does no harm."""
        self.is_open = False
