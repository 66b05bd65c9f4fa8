"""The Analog Devices AD9910, a direct digital synthesizer of 1 GSPS, over SPI.

Eight profiles, each a single tone, are set here; the profile pins select one of them in real
time, and belong to whoever drives them. What is written waits in the chip's buffers for an edge
on IO_UPDATE. A profile is written as a whole in one message, so an edge of somebody else can come
early, but never between the words of a tone.

`AD9910.update` makes the edge, and reads back everything that it made active: a message that the
chip missed or garbled is an error there, not a wrong pulse later. IO_UPDATE and MASTER_RESET are
pins, not messages: `AD9910.connect_pins` takes what drives them.

The clock of 70 MHz at most is that of Linux's description of the chip (adi,ad9910.yaml), SPI mode
0 that of ARTIQ's driver of boards with it. That a register reads as its active value, not as its
buffer, is assumed, and makes no difference after an update. Not verified on hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from qcodes.instrument import ChannelTuple, Instrument, InstrumentChannel
from qcodes.parameters import Parameter
from qcodes.validators import Numbers

from instruments import ad9910_words as words
from instruments.ad9910_words import PROFILES, SETUP, Register, Tone
from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    InstrumentInUse,
    InstrumentNotReady,
)
from instruments.ownership import Ownership
from instruments.spi_port import SpiPort, configure, open_port, transfer

SPI_MODE: Final = 0
MAX_SPEED_HZ: Final = 70_000_000
DEFAULT_SPEED_HZ: Final = 10_000_000
"""A profile takes 7.2 us at this clock (assumed)."""

Pulse = Callable[[], None]
"""Makes a pulse on a pin."""


class Profile(InstrumentChannel):
    """A profile of the chip. What is set is active after `AD9910.update`.

    Args:
        dds: the chip.
        number: 0 to 7, on the profile pins.

    Attributes:
        frequency_hz: of the tone, as the chip has it now; and so are the others.
        phase_rad: see there.
        amplitude: see there; 1 is full scale.
    """

    def __init__(self, dds: AD9910, number: int) -> None:
        super().__init__(dds, f"profile_{number}")
        self._dds = dds
        self._register = PROFILES[number]
        clock_hz = dds.system_clock_hz
        self.frequency_hz: Parameter = self.add_parameter(
            "frequency_hz",
            unit="Hz",
            vals=Numbers(),
            get_cmd=lambda: words.frequency_hz(self.tone.frequency_word, clock_hz),
            set_cmd=lambda value: self._change(
                frequency_word=words.frequency_word(value, clock_hz)
            ),
        )
        self.phase_rad: Parameter = self.add_parameter(
            "phase_rad",
            unit="rad",
            vals=Numbers(),
            get_cmd=lambda: words.phase_rad(self.tone.phase_word),
            set_cmd=lambda value: self._change(phase_word=words.phase_word(value)),
        )
        self.amplitude: Parameter = self.add_parameter(
            "amplitude",
            vals=Numbers(),
            get_cmd=lambda: words.amplitude(self.tone.amplitude_word),
            set_cmd=lambda value: self._change(amplitude_word=words.amplitude_word(value)),
        )

    @property
    def tone(self) -> Tone:
        """What the chip has in it."""
        return Tone.from_register(self._dds.read_register(self._register))

    def set_tone(self, frequency_hz: float, phase_rad: float = 0.0, amplitude: float = 1.0) -> None:
        """Write all of a tone in one message.

        Args:
            frequency_hz: of the tone.
            phase_rad: offset from the phase that the chip counts.
            amplitude: 0 to 1, full scale.

        Raises:
            ConfigurationRefused: a value is out of the chip's range; nothing was written.
            DeviceRefused: the transfer failed.
        """
        tone = Tone(
            words.frequency_word(frequency_hz, self._dds.system_clock_hz),
            words.phase_word(phase_rad),
            words.amplitude_word(amplitude),
        )
        self._dds.write_register(self._register, tone.register_value)

    def _change(self, **changed: int) -> None:
        written = self._dds.written(self._register)
        tone = self.tone if written is None else Tone.from_register(written)
        self._dds.write_register(self._register, replace(tone, **changed).register_value)


class AD9910(Instrument):
    """One AD9910.

    Args:
        name: of the QCoDeS instrument.
        address: of the SPI port, such as "spidev0.1".
        system_clock_hz: what is at REF_CLK.
        speed_hz: of the SPI clock, at most.
        port: an opened `spidev.SpiDev` instead of the one at that address, or what behaves like
            one; this object closes it.
        lock_directory: see `Ownership`.
        **kwargs: for `qcodes.instrument.Instrument`.

    Attributes:
        system_clock_hz: see there.
        profiles: the eight of them.

    Raises:
        InstrumentInUse: it is open already on this computer.
        ConfigurationRefused: an argument is out of its range.
        InstrumentUnavailable: there is no such port.
        DeviceRefused: the SPI controller does not take a setting.
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        system_clock_hz: float = words.MAX_CLOCK_HZ,
        speed_hz: int = DEFAULT_SPEED_HZ,
        port: SpiPort | None = None,
        lock_directory: Path | None = None,
        **kwargs: Any,
    ) -> None:
        if self.exist(name):
            raise InstrumentInUse(f"there is a QCoDeS instrument {name!r} already; close it first")
        words.check_clock(system_clock_hz)
        if not 0 < speed_hz <= MAX_SPEED_HZ:
            raise ConfigurationRefused(
                f"an SPI clock of {speed_hz} Hz is outside 1 to {MAX_SPEED_HZ} Hz"
            )
        self.system_clock_hz = system_clock_hz
        self._io_update: Pulse | None = None
        self._master_reset: Pulse | None = None
        self._readable = False
        self._written: dict[Register, int] = {}
        self._pending: set[Register] = set()
        self._ownership = Ownership(f"ad9910-{address}", lock_directory)
        try:
            self._port = open_port(address) if port is None else port
            try:
                configure(self._port, SPI_MODE, speed_hz)
                super().__init__(name, **kwargs)
                self.metadata |= {"address": address, "system_clock_hz": system_clock_hz}
                self.profiles: ChannelTuple[Profile] = self._add_profiles()
            except BaseException:
                self._port.close()
                raise
        except BaseException:
            self._ownership.release()
            raise

    def _add_profiles(self) -> ChannelTuple[Profile]:
        profiles = [Profile(self, number) for number in range(len(PROFILES))]
        for profile in profiles:
            self.add_submodule(profile.short_name, profile)
        return ChannelTuple(self, "profiles", Profile, profiles)

    def close(self) -> None:
        """Close the port; the chip goes on."""
        # QCoDeS empties the object when it closes it, and may close it twice.
        port: SpiPort | None = self.__dict__.get("_port")
        ownership: Ownership | None = self.__dict__.get("_ownership")
        super().close()
        if port is not None:
            port.close()
        if ownership is not None:
            ownership.release()

    def get_idn(self) -> dict[str, str | None]:
        """What it must be; the chip has no identity to be asked for."""
        return {"vendor": "Analog Devices", "model": "AD9910", "serial": None, "firmware": None}

    # --- pins -------------------------------------------------------------------------

    def connect_pins(self, io_update: Pulse, master_reset: Pulse | None = None) -> None:
        """Say what drives the pins of the chip.

        Args:
            io_update: makes a pulse on IO_UPDATE, of at least four periods of the system clock
                (assumed; see `sim.ion.dds.UPDATE_CYCLES`).
            master_reset: makes one on MASTER_RESET; None if nothing is connected to it.
        """
        self._io_update = io_update
        self._master_reset = master_reset

    def update(self) -> None:
        """Make what was written active, and read it back.

        Raises:
            InstrumentNotReady: nothing drives IO_UPDATE, or the chip was not set up.
            DeviceRefused: the chip has something else than was written, or a transfer failed.
        """
        self._require_set_up()
        self._pulse_update()
        self._compare(self._pending)
        self._pending.clear()

    def verify(self) -> None:
        """Make sure that the chip still has all that was made active since `set_up`.

        Raises:
            InstrumentNotReady: something was written and not made active.
            DeviceRefused: the chip has something else, or a transfer failed.
        """
        if self._pending:
            raise InstrumentNotReady(
                f"{self.name}: {', '.join(sorted(register.name for register in self._pending))} "
                "not active yet; call update()"
            )
        self._compare(self._written)

    def reset(self) -> None:
        """Reset the chip; it must be set up again.

        Raises:
            InstrumentNotReady: nothing drives MASTER_RESET.
        """
        if self._master_reset is None:
            raise InstrumentNotReady(
                f"{self.name}: nothing drives MASTER_RESET; give it to connect_pins()"
            )
        self._master_reset()
        self._forget()

    def set_up(self) -> None:
        """Make the chip play single tones from profiles, all of them with amplitude 0.

        Does not need a chip that was reset.

        Raises:
            InstrumentNotReady: nothing drives IO_UPDATE.
            DeviceRefused: nothing answers, or the chip has something else than was written.
        """
        self._forget()
        # The chip cannot be read before this one is active.
        self._write(Register.CFR1, SETUP[Register.CFR1])
        self._pulse_update()
        self._readable = True
        try:
            self.update()
            for register, value in SETUP.items():
                self._write(register, value)
            for register in PROFILES:
                self._write(register, Tone().register_value)
            self.update()
        except BaseException:
            self._readable = False
            raise

    # --- registers --------------------------------------------------------------------

    def read_register(self, register: Register) -> int:
        """Value of a register.

        Raises:
            InstrumentNotReady: the chip was not set up, so it does not answer.
            DeviceRefused: the transfer failed.
        """
        self._require_set_up()
        answer = transfer(self._port, words.read_message(register))
        return int.from_bytes(answer[1:], "big")

    def write_register(self, register: Register, value: int) -> None:
        """Write a register; it is active after `update`.

        Raises:
            InstrumentNotReady: the chip was not set up.
            ConfigurationRefused: the value does not fit into the register.
            DeviceRefused: the transfer failed.
        """
        self._require_set_up()
        self._write(register, value)

    def written(self, register: Register) -> int | None:
        """What was written into a register since `set_up`; None for nothing."""
        return self._written.get(register)

    def _write(self, register: Register, value: int) -> None:
        transfer(self._port, words.write_message(register, value))
        self._written[register] = value
        self._pending.add(register)

    def _pulse_update(self) -> None:
        if self._io_update is None:
            raise InstrumentNotReady(
                f"{self.name}: nothing drives IO_UPDATE; give it to connect_pins()"
            )
        self._io_update()

    def _require_set_up(self) -> None:
        if not self._readable:
            raise InstrumentNotReady(f"{self.name}: the chip is not set up; call set_up()")

    def _forget(self) -> None:
        self._readable = False
        self._written.clear()
        self._pending.clear()

    def _compare(self, registers: Iterable[Register]) -> None:
        for register in sorted(registers):
            expected, found = self._written[register], self.read_register(register)
            if found != expected:
                raise DeviceRefused(
                    f"{self.name}: {register.name} is {found:#x} and not {expected:#x} as written; "
                    "check the power of the chip, its SPI lines and IO_UPDATE"
                )
