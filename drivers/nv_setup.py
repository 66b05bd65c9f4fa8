"""From a node's instruments and calibration to a QDevice that answers frames.

The set-up is the same on hardware and on simulated instruments: versions are verified, the
waveform table is compiled and uploaded, the ADbasic program loaded, its parameters set, the
microwaves switched on, and both programs started. Not verified on hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from instruments.errors import ConfigurationRefused
from instruments.hdawg import CompiledProgram
from instruments.lasers import AdwinLaser
from instruments.nv_controller import ControllerSettings, NVController
from instruments.station import NodeStation
from qnodeos.qdevice.outcomes import OUTCOME_OF_HERALD, BellState
from sequences.nv_seqc import TOGGLE_LINE, HeraldTiming, attempt_period_ns, nv_program
from sequences.waveform_table import FIRST_ATTEMPT, TableSettings, WaveformTable, build_table

AWG_CORE: Final = 0
HERALDING: Final = "heralding"
DIO_MODE: Final = "awg_sequencer_commands"
DETECTORS: Final = (BellState.PSI_PLUS, BellState.PSI_MINUS)
"""What a click of each detector heralds in the single-photon protocol."""
BATCH_MARGIN: Final = 0.5
"""Part of an attempt by which a batch ends before the attempt after its last would begin."""
ATTEMPTS_PER_BATCH: Final = 1790
LASER_VOLTS: Final[Mapping[str, Mapping[str, float]]] = {
    "repump": {"repump": 1.0},
    "e_laser": {"readout": 1.0, "charge_check": 1.0},
    "a_laser": {"charge_check": 1.0, "spin_pump": 1.0},
}
"""Voltages at the modulators (assumed: the nominal ones of the Station files)."""


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
        laser_volts: voltages by laser and level, as the Station file names them.
    """

    table: TableSettings = field(default_factory=TableSettings)
    herald: HeraldTiming = field(default_factory=HeraldTiming)
    controller: ControllerSettings = field(default_factory=ControllerSettings)
    attempts_per_batch: int = ATTEMPTS_PER_BATCH
    mw_frequency_hz: float = 2.0e9
    mw_power_dbm: float = 0.0
    detectors: tuple[BellState, BellState] = DETECTORS
    laser_volts: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: LASER_VOLTS)


class NVInstruments:
    """The instruments of one node, set up as a QDevice.

    Args:
        station: opened.
        binary: of the ADbasic program, see `NVController.load`.

    Attributes:
        station: the instruments.
        controller: the ADbasic program.
        settings: what the node was last set up with; None before.
        table: the waveform table in the AWG; None before.
    """

    def __init__(self, station: NodeStation, binary: Path | None = None) -> None:
        self.station = station
        self.controller = NVController(station.adwin)
        self.settings: NVSettings | None = None
        self.table: WaveformTable | None = None
        self._binary = binary

    def set_up(self, settings: NVSettings) -> None:
        """Bring everything from power-on to a device that answers frames.

        Raises:
            SequenceError: the table cannot be played.
            InstrumentError: an instrument is of the wrong version, not ready, or refuses.
        """
        adwin = self.station.adwin
        if not adwin.booted.get():
            adwin.boot()
        self.controller.load(self._binary)
        self.station.awg.dio.mode(DIO_MODE)
        self.apply(settings)
        self.controller.start()

    def apply(self, settings: NVSettings) -> None:
        """Set up anew what differs; the node must be idle and have no state to protect.

        Raises:
            SequenceError: the table cannot be played.
            InstrumentError: an instrument refuses.
        """
        _check_attempts(settings)
        before = self.settings
        if before is None or (settings.table, settings.herald) != (before.table, before.herald):
            self._load_table(settings)
        self.controller.configure(self._controller_settings(settings))
        for name, levels in settings.laser_volts.items():
            laser = self.station.one(name, AdwinLaser)
            for level, volts in levels.items():
                laser.levels[level].voltage_v(volts)
        self.controller.set_heralds(
            (OUTCOME_OF_HERALD[settings.detectors[0]], OUTCOME_OF_HERALD[settings.detectors[1]]),
            settings.detectors,
        )
        if HERALDING in self.station.instruments:
            # The gate of the AWG opens the window.
            self.station.heralding.window_delay_ns(0)
            self.station.heralding.window_length_ns(round(settings.table.attempt.gate_ns))
        source = self.station.microwave
        source.frequency(settings.mw_frequency_hz)
        source.power(settings.mw_power_dbm)
        source.IQ_state("on")
        source.status("on")
        self.settings = settings

    def snapshot(self) -> dict[str, Any]:
        """State of all instruments, as QCoDeS stores it."""
        return self.station.snapshot()

    def close(self) -> None:
        """Stop both programs and close the instruments."""
        if self.settings is not None:
            self.controller.stop()
            self.station.awg.stop(AWG_CORE)
            self.station.microwave.status("off")
        self.station.close()

    def _load_table(self, settings: NVSettings) -> CompiledProgram:
        awg = self.station.awg
        table = build_table(settings.table)
        program = nv_program(table, settings.herald)
        awg.stop(AWG_CORE)
        compiled = awg.load(AWG_CORE, program)
        core = awg.cores[AWG_CORE]
        core.strobe_line(TOGGLE_LINE)
        core.strobe_slope("both_edges")
        for output in awg.outputs[2 * AWG_CORE : 2 * AWG_CORE + 2]:
            output.on(1)
        awg.start(AWG_CORE)
        self.table = table
        return compiled

    def _controller_settings(self, settings: NVSettings) -> ControllerSettings:
        if not settings.controller.links:
            return settings.controller
        assert self.table is not None
        period_ns = attempt_period_ns(self.table, settings.herald)
        batch_ns = (settings.attempts_per_batch - BATCH_MARGIN) * period_ns
        return replace(settings.controller, batch_us=max(1, round(batch_ns / 1000)))


def _check_attempts(settings: NVSettings) -> None:
    """Refuse, before anything has been changed, an attempt that the table will not have."""
    entry, alphas = settings.controller.alpha_entry, len(settings.table.alphas)
    if settings.controller.links and not 0 <= entry - FIRST_ATTEMPT < alphas:
        raise ConfigurationRefused(
            f"alpha_entry {entry} is no attempt; the table has {alphas}, from {FIRST_ATTEMPT}"
        )
