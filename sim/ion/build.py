"""A simulated trapped-ion node as its drivers find it: opened, set up, ready to answer frames.

The drivers, the Station file and the sequencer's program are those of the hardware. Only the
objects at the lowest software seam are simulated: the lines and ports of the instruments.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from drivers.ion_setup import IonInstruments, IonSettings
from instruments.station import Connections, open_station, station_file
from sim.ion.board import SimulatedBoard
from sim.ion.dds import DdsPort, SimulatedAd9910
from sim.ion.ion import Ion
from sim.ion.node import InstrumentIonDevice, IonNode
from sim.ion.physics import IonPhysics
from sim.ion.pmt import SimulatedPmtCounter
from sim.ion.sequencer import SequencerCore
from sim.ion.sequencer_line import SequencerLine
from sim.serial_line import SerialLine

STATION: Final = "ion"
"""Name of the node that has a Station file."""


class SimulatedIonNode:
    """A node, set up, with its clock running.

    Args:
        physics: what the simulator is given: the truth that a calibration is to find.
        settings: what the node is set up with: what is believed to be true.
        seed: of all randomness.
        path: of the Station file; None for the one that comes with the package.
        ion: in place of one with that physics and seed.

    Attributes:
        node: the simulation.
        instruments: its drivers.
        device: the QDevice.

    Raises:
        SequenceError: the sequences cannot be played.
        InstrumentError: an instrument refuses its settings.
    """

    def __init__(
        self,
        physics: IonPhysics | None = None,
        settings: IonSettings | None = None,
        seed: int = 0,
        path: Path | None = None,
        ion: Ion | None = None,
    ) -> None:
        if ion is None:
            ion = Ion(physics or IonPhysics(), random.Random(seed))
        core, chip = SequencerCore(), SimulatedAd9910()
        pmt, board = SimulatedPmtCounter(), SimulatedBoard()
        self.node = IonNode(ion, core, chip, pmt, board)
        simulated: dict[str, Any] = {
            "board": SerialLine(board),
            "sequencer": SequencerLine(core, pass_time=self.node.pass_time),
            "dds": DdsPort(chip),
            "pmt": SerialLine(pmt),
        }
        with ExitStack() as cleanup:
            station = open_station(
                path or station_file(STATION, simulation=True), Connections(simulated)
            )
            cleanup.callback(station.close)
            self.instruments = IonInstruments(station, self.node.sleep)
            self.instruments.set_up(settings or IonSettings())
            cleanup.pop_all()
        self.device = InstrumentIonDevice(self.node)

    def close(self) -> None:
        """Stop the sequencer and close the instruments."""
        self.instruments.close()

    def __enter__(self) -> SimulatedIonNode:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
