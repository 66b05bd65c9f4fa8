"""The bench of a real or simulated trapped-ion node: instruments that are set up, and a QDevice.

Operations go over the wire as the QNPU's do, frame by frame; photons come from the PMT counter,
which keeps the counts of its last gates. The same code runs on hardware and in simulation. Not
verified on hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from calibration.errors import CalibrationError
from calibration.instrument_bench import Line, TickClock
from calibration.ion_file import IonCalibration
from drivers.ion_setup import IonInstruments, IonSettings
from instruments.pmt_counter import KEPT_GATES
from qnodeos.qdevice.instructions import Axis, Opcode, PhysicalInstruction, ini, msr, sqg
from qnodeos.qdevice.protocols import QDevice
from sequences.ion import IonOperation

FETCHED_SHOTS: Final = min(1_000, KEPT_GATES)
"""Shots after which the counts are fetched."""

_INSTRUCTIONS: Final[dict[IonOperation, PhysicalInstruction]] = {
    IonOperation.INITIALISE: ini(),
    IonOperation.X_PI: sqg(Axis.X, 16),
    IonOperation.Y_PI: sqg(Axis.Y, 16),
    IonOperation.X_HALF: sqg(Axis.X, 8),
    IonOperation.Y_HALF: sqg(Axis.Y, 8),
    IonOperation.X_MINUS_HALF: sqg(Axis.X, 24),
    IonOperation.MEASURE: msr(),
}


class InstrumentIonBench:
    """A node to be calibrated: a `calibration.ion_bench.IonBench`.

    Args:
        instruments: set up; what they were set up with changes.
        device: of these instruments.
        calibration: what is believed.
        base: everything that is chosen rather than measured.

    Attributes:
        instruments: see there.
    """

    def __init__(
        self,
        instruments: IonInstruments,
        device: QDevice,
        calibration: IonCalibration,
        base: IonSettings,
    ) -> None:
        self.instruments = instruments
        self._calibration = calibration
        self._base = base
        self._line = Line(device, TickClock())
        instruments.apply(calibration.to_settings(base))

    @property
    def name(self) -> str:
        """Of the node."""
        return self._calibration.node

    @property
    def calibration(self) -> IonCalibration:
        """The values in use."""
        return self._calibration

    def snapshot(self) -> dict[str, Any]:
        """Of the QCoDeS station: every setting of every instrument."""
        return self.instruments.snapshot()

    def apply(self, calibration: IonCalibration) -> None:
        """Use other values: writes the tones and loads the program that depend on them."""
        self.instruments.apply(calibration.to_settings(self._base))
        self._calibration = calibration

    def counts(self, operations: Sequence[IonOperation], shots: int) -> NDArray[np.int64]:
        """Photons of the readout that follows some operations, shape (shots,).

        Raises:
            CalibrationError: the device does not answer or refuses, or the operations have a
                readout of their own.
            InstrumentError: the counter does not give its counts.
        """
        program = [_INSTRUCTIONS[operation] for operation in (*operations, IonOperation.MEASURE)]
        if sum(instruction.opcode == Opcode.MSR for instruction in program) > 1:
            raise CalibrationError("photons are counted of one readout, the one at the end")
        parts = [np.zeros(0, dtype=np.int64)]
        for first in range(0, shots, FETCHED_SHOTS):
            number = min(FETCHED_SHOTS, shots - first)
            for _ in range(number):
                for instruction in program:
                    self._line.run(instruction)
            parts.append(self.instruments.pmt.counts(number))
        return np.concatenate(parts)
