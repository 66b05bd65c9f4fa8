"""From a trapped-ion node's instruments and calibration to a QDevice that answers frames.

The set-up is the same on hardware and on simulated instruments: the tones of the 729 nm laser are
written and read back, the PMT counter gets its threshold, the board its table of codes, the
sequencer its program, and the program is started. IO_UPDATE of the DDS is an output of the
sequencer, so a tone is made active by a program that does nothing else. Not verified on hardware.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from instruments.ad9910 import AD9910
from instruments.errors import ConfigurationRefused, DeviceRefused
from instruments.ion_board import BoardSettings, IonBoard
from instruments.pmt_counter import PmtCounter
from instruments.pulse_sequencer import PulseSequencer, SequencerState
from instruments.station import NodeStation
from sequences.ion import (
    DdsProfile,
    IonOperation,
    IonSequenceSettings,
    TtlLine,
    ion_program,
    operation_cycles,
)
from sequences.sequencer_assembler import SequencerProgram, assemble
from sequences.sequencer_isa import CYCLE_NS

MIN_DONE_NS: Final = 500
"""Shortest pulse on DONE that the board is sure to see (assumed)."""
TIMEOUT_FACTOR: Final = 2
"""How much longer than its longest subroutine the board waits for the sequencer."""
UPDATE_NS: Final = 100
UPDATE_POLLS: Final = 100
POLL_S: Final = 1e-3
_NS_PER_US: Final = 1_000

UPDATE_PROGRAM: Final[SequencerProgram] = assemble(
    f"p 0, {TtlLine.IO_UPDATE.mask:#x}\ndelay {UPDATE_NS // CYCLE_NS - 1}, r0\np 0, 0\nhalt\n"
)
"""One pulse on IO_UPDATE."""


@dataclass(frozen=True)
class IonSettings:
    """What a node is set up with; the values come from its calibration.

    Attributes:
        sequences: durations.
        carrier_hz: of the DDS, on resonance with the qubit.
        sideband_hz: of the DDS, on the red sideband.
        carrier_amplitude: of the DDS in pulses, 0 to 1; the pi time belongs to it.
        sideband_amplitude: of the DDS in sideband cooling, 0 to 1.
        threshold: most photons that count as dark.
        board: codes and times of the board.
    """

    sequences: IonSequenceSettings = field(default_factory=IonSequenceSettings)
    carrier_hz: float = 80.0e6
    sideband_hz: float = 79.0e6
    carrier_amplitude: float = 1.0
    sideband_amplitude: float = 1.0
    threshold: int = 33
    board: BoardSettings = field(default_factory=BoardSettings)

    def tones(self) -> dict[DdsProfile, tuple[float, float, float]]:
        """Frequency in Hz, phase in rad and amplitude of every profile."""
        carrier, amplitude = self.carrier_hz, self.carrier_amplitude
        return {
            DdsProfile.OFF: (carrier, 0.0, 0.0),
            DdsProfile.X: (carrier, 0.0, amplitude),
            DdsProfile.Y: (carrier, math.pi / 2, amplitude),
            DdsProfile.MINUS_X: (carrier, math.pi, amplitude),
            DdsProfile.RED_SIDEBAND: (self.sideband_hz, 0.0, self.sideband_amplitude),
        }

    def done_timeout_us(self) -> int:
        """How long the board waits for the sequencer."""
        cycles = max(operation_cycles(operation, self.sequences) for operation in IonOperation)
        return math.ceil(TIMEOUT_FACTOR * cycles * CYCLE_NS / _NS_PER_US)


class IonInstruments:
    """The instruments of one node, set up as a QDevice.

    Args:
        station: opened; with a board, a sequencer, a dds and a pmt.
        sleep: lets time pass, in seconds, while the sequencer runs a program to its end.

    Attributes:
        station: the instruments.
        board: between QNPU and sequencer.
        sequencer: see there.
        dds: of the 729 nm laser.
        pmt: counts the ion's photons.
        settings: what the node was last set up with; None before.

    Raises:
        ConfigurationRefused: the Station file has not these instruments.
    """

    def __init__(self, station: NodeStation, sleep: Callable[[float], None] = time.sleep) -> None:
        self.station = station
        self.board = station.one("board", IonBoard)
        self.sequencer = station.one("sequencer", PulseSequencer)
        self.dds = station.one("dds", AD9910)
        self.pmt = station.one("pmt", PmtCounter)
        self.settings: IonSettings | None = None
        self._sleep = sleep
        self._started = False

    def set_up(self, settings: IonSettings) -> None:
        """Bring everything from power-on to a device that answers frames.

        The board forgets its session, so that a QNPU that was connected opens a new one.

        Raises:
            SequenceError: the sequences cannot be played.
            InstrumentError: an instrument is of the wrong kind, not ready, or refuses.
        """
        _check(settings)
        self.settings = None
        self._started = True
        self.dds.connect_pins(self._pulse_update)
        self.dds.set_up()
        self.apply(settings)
        self.board.reset()

    def apply(self, settings: IonSettings) -> None:
        """Set up anew what differs; the node must be idle and have no state to protect.

        Raises:
            SequenceError: the sequences cannot be played.
            InstrumentError: an instrument refuses.
        """
        _check(settings)
        known, self.settings = self.settings, None
        program = ion_program(settings.sequences)
        new_tones = known is None or known.tones() != settings.tones()
        if new_tones:
            for profile, tone in settings.tones().items():
                self.dds.profiles[profile].set_tone(*tone)
            self.dds.update()
        if known is None or known.threshold != settings.threshold:
            self.pmt.threshold(settings.threshold)
        self.board.configure(settings.board, settings.done_timeout_us())
        if new_tones or known is None or known.sequences != settings.sequences:
            self.sequencer.load(program)
            self.sequencer.start()
        self.settings = settings

    def snapshot(self) -> dict[str, Any]:
        """State of all instruments, as QCoDeS stores it."""
        return self.station.snapshot()

    def close(self) -> None:
        """Stop the sequencer, which takes its lines low, and close the instruments.

        More than once does no harm.
        """
        started, self._started = self._started, False
        # Whatever fails, the instruments are closed.
        with ExitStack() as stack:
            stack.callback(self.station.close)
            if started:
                stack.callback(self.sequencer.stop)

    def _pulse_update(self) -> None:
        """A pulse on IO_UPDATE, by a program of its own."""
        self.sequencer.load(UPDATE_PROGRAM)
        self.sequencer.start()
        for _ in range(UPDATE_POLLS):
            if self.sequencer.status().state is SequencerState.HALTED:
                return
            self._sleep(POLL_S)
        raise DeviceRefused(
            f"{self.sequencer.name} does not end a program of {len(UPDATE_PROGRAM.words)} words; "
            "check its clock"
        )


def _check(settings: IonSettings) -> None:
    """Refuse what no single instrument would."""
    if settings.sequences.done_ns < MIN_DONE_NS:
        raise ConfigurationRefused(
            f"done_ns = {settings.sequences.done_ns}: the board may miss a pulse on DONE that is "
            f"shorter than {MIN_DONE_NS} ns"
        )
    codes = settings.board.codes
    wrong = [operation for operation, code in codes.items() if code != operation]
    if wrong and sorted(codes.values()) == sorted(IonOperation):  # the board would take them
        raise ConfigurationRefused(
            f"the board's code {codes[wrong[0]]} for {wrong[0].name} is that of "
            f"{IonOperation(codes[wrong[0]]).name} in the sequencer's program"
        )
