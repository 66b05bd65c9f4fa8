"""From a node's instruments and calibration to a QDevice that answers frames.

The set-up is the same on hardware and on simulated instruments: versions are verified, the
waveform table is compiled and uploaded, the ADbasic program loaded, its parameters set, the
microwaves switched on, and both programs started. Not verified on hardware.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from qcodes.parameters import Parameter

from instruments.errors import ConfigurationRefused, IncompatibleInstrument
from instruments.hdawg_channels import DIO_CMOS
from instruments.lasers import AdwinLaser
from instruments.nv_controller import LIMITS, ControllerSettings, NVController
from instruments.station import NodeStation
from qnodeos.qdevice.outcomes import OUTCOME_OF_HERALD, BellState
from sequences.nv_seqc import TOGGLE_LINE, HeraldTiming, attempt_period_ns, nv_program
from sequences.waveform_table import FIRST_ATTEMPT, TableSettings, WaveformTable, build_table

HERALDING: Final = "heralding"
DIO_MODE: Final = "awg_sequencer_commands"
DIO_INTERFACE: Final = DIO_CMOS
"""What the ADwin drives (assumed: 3.3 V, and no converter in between)."""
ALL_INPUTS: Final = 0
REFERENCE_CLOCK: Final = "external"
"""10 MHz from the source of the 1 MHz clock, so that events and samples keep their phase."""
OUTPUTS_PER_CORE: Final = 2
AWG_CORE: Final = 0
"""The core whose two outputs are I and Q."""


class Mark(NamedTuple):
    """What a Mark connector of the AWG carries.

    Attributes:
        core: that feeds it.
        source: keyword of the signal of that core, see `instruments.hdawg_channels`.
    """

    core: int
    source: str


MARKS: Final[Mapping[int, Mark]] = {
    0: Mark(AWG_CORE, "awg_trigger0"),
    1: Mark(AWG_CORE, "output1_marker1"),
    2: Mark(1, "output0_marker0"),
    3: Mark(1, "output0_marker1"),
    4: Mark(2, "output1_marker0"),
}
"""By index of the connector: acknowledge, PLAYED, OPTICAL_PULSE, DETECTION_GATE, SPIN_PUMP.

An HDAWG has one connector for every output, fed by the core of that output, so that the five
signals take three cores with the same program: they get the same words in the same cycle."""
AWG_CORES: Final = tuple(sorted({mark.core for mark in MARKS.values()}))
DETECTORS: Final = (BellState.PSI_PLUS, BellState.PSI_MINUS)
"""What a click of each detector heralds in the single-photon protocol."""
BATCH_MARGIN: Final = 0.5
"""Part of an attempt by which a batch ends before the attempt after its last would begin."""
ATTEMPTS_PER_BATCH: Final = 1790
LASERS: Final = ("repump", "e_laser", "a_laser")
"""The lasers of a node, as Station files name them."""


@dataclass(frozen=True)
class NVSettings:
    """What a node is set up with; the values come from its calibration.

    Attributes:
        table: of the waveforms.
        herald: when attempts are decided and repeated.
        controller: parameters of the ADbasic program; `batch_us` follows from the attempts.
        attempts_per_batch: attempts of one ENT instruction.
        mw_frequency_hz: of the microwave source.
        mw_power_dbm: of the microwave source.
        detectors: Bell states that the two detectors herald.
        laser_volts: voltages by laser and level, other than the nominal ones of the Station file.
    """

    table: TableSettings = field(default_factory=TableSettings)
    herald: HeraldTiming = field(default_factory=HeraldTiming)
    controller: ControllerSettings = field(default_factory=ControllerSettings)
    attempts_per_batch: int = ATTEMPTS_PER_BATCH
    mw_frequency_hz: float = 2.0e9
    mw_power_dbm: float = 0.0
    detectors: tuple[BellState, BellState] = DETECTORS
    laser_volts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class NVInstruments:
    """The instruments of one node, set up as a QDevice.

    Args:
        station: opened.
        binary: of the ADbasic program, see `NVController.load`.
        sleep: lets time pass, in seconds, while the ADwin stops and starts programs.

    Attributes:
        station: the instruments.
        controller: the ADbasic program.
        settings: what the node was last set up with; None before.
        table: the waveform table in the AWG; None before.
    """

    def __init__(
        self,
        station: NodeStation,
        binary: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.station = station
        self.controller = NVController(station.adwin)
        self.settings: NVSettings | None = None
        self.table: WaveformTable | None = None
        self._binary, self._sleep = binary, sleep
        self._loaded: tuple[TableSettings, HeraldTiming] | None = None
        self._runs = self._started = False

    def set_up(self, settings: NVSettings) -> None:
        """Bring everything from power-on to a device that answers frames.

        Raises:
            SequenceError: the table cannot be played.
            InstrumentError: an instrument is of the wrong kind or version, not ready, or refuses.
        """
        adwin = self.station.adwin
        if not adwin.booted.get():
            adwin.boot()
        self._wire_awg()
        self.controller.load(self._binary, self._sleep)
        self.apply(settings)
        self._started = True
        self.controller.start(self._sleep)

    def apply(self, settings: NVSettings) -> None:
        """Set up anew what differs; the node must be idle and have no state to protect.

        Raises:
            SequenceError: the table cannot be played.
            InstrumentError: an instrument refuses.
        """
        _check_attempts(settings)
        if (settings.table, settings.herald) != self._loaded:
            self._load_table(settings)
        self.controller.configure(self._controller_settings(settings))
        self._set_lasers(settings.laser_volts)
        self.controller.set_heralds(
            (OUTCOME_OF_HERALD[settings.detectors[0]], OUTCOME_OF_HERALD[settings.detectors[1]]),
            settings.detectors,
        )
        if HERALDING in self.station.instruments:
            # The gate of the AWG opens the window.
            self.station.heralding.window_delay_ns(0)
            self.station.heralding.window_length_ns(round(settings.table.attempt.gate_ns))
        source = self.station.microwave
        _set(source.frequency, settings.mw_frequency_hz)
        _set(source.power, settings.mw_power_dbm)
        source.IQ_state("on")
        source.status("on")
        self.settings = settings

    def snapshot(self) -> dict[str, Any]:
        """State of all instruments, as QCoDeS stores it."""
        return self.station.snapshot()

    def close(self) -> None:
        """Stop both programs and close the instruments."""
        # Whatever fails, the others are still stopped, and all are closed.
        with ExitStack() as stack:
            stack.callback(self.station.close)
            if self._runs:
                stack.callback(self.station.microwave.status, "off")
                for core in reversed(AWG_CORES):
                    stack.callback(self.station.awg.stop, core)
            if self._started:
                stack.callback(self.controller.stop)

    def _wire_awg(self) -> None:
        """What the AWG's connectors are, besides the outputs."""
        awg = self.station.awg
        if len(awg.cores) <= AWG_CORES[-1]:
            raise IncompatibleInstrument(
                f"the AWG has {len(awg.cores)} cores; the signals of a node take "
                f"{len(AWG_CORES)}, so use an HDAWG8"
            )
        awg.lock_reference(REFERENCE_CLOCK)
        # First of the lines: those that the ADwin drives must have no second driver.
        awg.dio.drive(ALL_INPUTS)
        awg.dio.interface(DIO_INTERFACE)
        awg.dio.mode(DIO_MODE)
        for connector, mark in MARKS.items():
            awg.marks[connector].source(mark.source)

    def _load_table(self, settings: NVSettings) -> None:
        awg = self.station.awg
        table = build_table(settings.table)
        program = nv_program(table, settings.herald)
        self._loaded = None
        self._runs = True
        for core in AWG_CORES:
            awg.stop(core)
        awg.load_all(AWG_CORES, program)
        for core in AWG_CORES:
            awg.cores[core].strobe_line(TOGGLE_LINE)
            awg.cores[core].strobe_slope("both_edges")
            for output in range(OUTPUTS_PER_CORE * core, OUTPUTS_PER_CORE * (core + 1)):
                awg.outputs[output].on(int(core == AWG_CORE))
        for core in AWG_CORES:
            awg.start(core)
        self.table = table
        self._loaded = settings.table, settings.herald

    def _set_lasers(self, different: Mapping[str, Mapping[str, float]]) -> None:
        lasers = {name: self.station.one(name, AdwinLaser) for name in LASERS}
        for name, levels in different.items():
            unknown = set(levels) - set(lasers[name].levels) if name in lasers else {name}
            if unknown:
                raise ConfigurationRefused(
                    f"laser_volts: the Station file has no {name} with {', '.join(unknown)}"
                )
        for name, laser in lasers.items():
            laser.to_nominal()
            for level, volts in different.get(name, {}).items():
                _set(laser.levels[level].voltage_v, volts)

    def _controller_settings(self, settings: NVSettings) -> ControllerSettings:
        if not settings.controller.links:
            return settings.controller
        assert self.table is not None
        period_ns = attempt_period_ns(self.table, settings.herald)
        return replace(settings.controller, batch_us=_batch_us(settings, period_ns))


def _set(parameter: Parameter, value: float) -> None:
    """Set within the limits of a Station file.

    Raises:
        ConfigurationRefused: the value is outside of them.
    """
    try:
        parameter.validate(value)
    except ValueError as error:
        raise ConfigurationRefused(
            f"{parameter.full_name} = {value:g}: {error.args[0]}; change the setting or the "
            "limits of the Station file"
        ) from error
    parameter(value)


def _batch_us(settings: NVSettings, period_ns: float) -> int:
    return max(1, round((settings.attempts_per_batch - BATCH_MARGIN) * period_ns / 1000))


def _check_attempts(settings: NVSettings) -> None:
    """Refuse, before anything has been changed, an attempt that the table will not have."""
    entry, alphas = settings.controller.alpha_entry, len(settings.table.alphas)
    if settings.controller.links and not 0 <= entry - FIRST_ATTEMPT < alphas:
        raise ConfigurationRefused(
            f"alpha_entry {entry} is no attempt; the table has {alphas}, from {FIRST_ATTEMPT}"
        )
    longest_us = LIMITS["batch_us"][1]
    batch_us = _batch_us(settings, settings.herald.attempt_period_ns)
    if settings.controller.links and not (
        settings.attempts_per_batch >= 1 and batch_us <= longest_us
    ):
        raise ConfigurationRefused(
            f"a batch of {settings.attempts_per_batch} attempts of "
            f"{settings.herald.attempt_period_ns:g} ns; it takes 1 attempt at least, and "
            f"{longest_us} us at most"
        )
