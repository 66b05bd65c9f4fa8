"""A trapped-ion node without physics: board, sequencer, DDS and PMT counter around a fake ion."""

from __future__ import annotations

from typing import Any

from drivers.ion_setup import IonSettings
from instruments.ion_board import BoardSettings, IonBoard
from sequences.ion import IonSequenceSettings, ion_program
from sim.ion.board import SimulatedBoard
from sim.ion.build import SimulatedIonNode
from sim.ion.dds import SimulatedAd9910
from sim.ion.node import InstrumentIonDevice, IonNode
from sim.ion.pmt import SimulatedPmtCounter
from sim.ion.sequencer import SequencerCore
from sim.serial_line import SerialLine
from tests.sim.wire import Wire

SHORT = IonSequenceSettings(
    doppler_us=30, sideband_cycles=2, sideband_us=10, reset_854_us=5, pump_us=5, detection_us=60
)
"""Sequences that take a few ticks only."""
DONE_TIMEOUT_US = 1_000
BOARD = BoardSettings()


class FakeIon:
    """Takes down the light it sees, and gives so many photons in every stretch of 397 nm light."""

    def __init__(self) -> None:
        self.photons = 100
        self.seen: list[tuple[int, Any]] = []

    def advance(self, duration_ns: int, light: Any) -> int:
        self.seen.append((duration_ns, light))
        return self.photons if light.doppler_397 else 0


class Rig:
    """The node, its ion, and the driver of its board, configured unless it is asked not to be."""

    def __init__(
        self,
        settings: IonSequenceSettings = SHORT,
        *,
        words: tuple[int, ...] | None = None,
        board: BoardSettings | None = BOARD,
    ) -> None:
        self.ion = FakeIon()
        self.board = SimulatedBoard()
        self.pmt = SimulatedPmtCounter(threshold=33)
        self.sequencer = SequencerCore(ion_program(settings).words if words is None else words)
        ion: Any = self.ion
        self.node = IonNode(ion, self.sequencer, SimulatedAd9910(), self.pmt, self.board)
        self.driver = IonBoard("board", "ASRL1::INSTR", resource=SerialLine(self.board))
        if board is not None:
            self.driver.configure(board, DONE_TIMEOUT_US)
        self.device = InstrumentIonDevice(self.node)
        self.wire = Wire(self.device)

    def close(self) -> None:
        self.driver.close()


def simulated_node(settings: IonSettings) -> SimulatedIonNode:
    """A node with its drivers, set up, and a fake ion."""
    ion: Any = FakeIon()
    return SimulatedIonNode(settings=settings, ion=ion)
