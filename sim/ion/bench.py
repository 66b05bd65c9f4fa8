"""A simulated ion to be calibrated, in the light that its sequences would make.

Without sequencer, DDS and PMT counter between: what a calibration is about is the ion. Durations
and tones are those of the node's set-up.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from calibration.errors import CalibrationError
from calibration.ion_file import IonCalibration
from drivers.ion_setup import IonSettings
from sequences.ion import DdsProfile, IonOperation
from sim.ion.ion import Ion, Light
from sim.ion.physics import NS_PER_US, IonPhysics

_PROFILES: Final = {
    IonOperation.X_PI: (DdsProfile.X, 1),
    IonOperation.Y_PI: (DdsProfile.Y, 1),
    IonOperation.X_HALF: (DdsProfile.X, 2),
    IonOperation.Y_HALF: (DdsProfile.Y, 2),
    IonOperation.X_MINUS_HALF: (DdsProfile.MINUS_X, 2),
}
"""Profile of a rotation, and which part of the pi time it takes."""

_DOPPLER: Final = Light(doppler_397=True, repump_866=True, reset_854=True)
_RESET: Final = Light(repump_866=True, reset_854=True)
_PUMP: Final = Light(repump_866=True, pump_397=True)


class SimulatedIonBench:
    """A `calibration.ion_bench.IonBench`.

    Args:
        physics: the truth.
        calibration: what is believed.
        seed: of the ion.
        base: what is not calibrated.

    Attributes:
        name: of the node.
        calibration: the values in use.
        ion: see there.
    """

    def __init__(
        self,
        physics: IonPhysics,
        calibration: IonCalibration,
        seed: int,
        base: IonSettings | None = None,
    ) -> None:
        self.name = calibration.node
        self.calibration = calibration
        self.ion = Ion(physics, random.Random(f"{seed}/bench/{self.name}"))
        self._base = base or IonSettings()
        self._settings = calibration.to_settings(self._base)

    def snapshot(self) -> dict[str, Any]:
        """The settings in use."""
        return {"simulated": True, "tones": {p.name: t for p, t in self._settings.tones().items()}}

    def apply(self, calibration: IonCalibration) -> None:
        """Use other values."""
        self.calibration = calibration
        self._settings = calibration.to_settings(self._base)

    def counts(self, operations: Sequence[IonOperation], shots: int) -> NDArray[np.int64]:
        """Photons of the readout that follows some operations, shape (shots,).

        What an initialisation leaves is always the same, and so is the state before the readout:
        it is computed once.

        Raises:
            CalibrationError: the operations do not begin with an initialisation, or have a
                readout of their own.
        """
        first, *others = operations
        if first is not IonOperation.INITIALISE or IonOperation.MEASURE in others:
            raise CalibrationError("photons are counted of one readout after an initialisation")
        for operation in operations:
            for duration_ns, light in self._light(operation):
                self.ion.advance(duration_ns, light)
        detection_ns = self._settings.sequences.detection_us * int(NS_PER_US)
        return self.ion.windows(detection_ns, shots)

    def _light(self, operation: IonOperation) -> list[tuple[int, Light]]:
        """Stretches of constant light."""
        settings, sequences = self._settings, self._settings.sequences

        def us(duration_us: int, light: Light) -> tuple[int, Light]:
            return duration_us * int(NS_PER_US), light

        tones = {
            profile: Light(False, False, False, False, True, *tone)
            for profile, tone in settings.tones().items()
        }
        reset = [us(sequences.reset_854_us, _RESET), us(sequences.pump_us, _PUMP)]
        if operation is IonOperation.INITIALISE:
            turn = [us(sequences.sideband_us, tones[DdsProfile.RED_SIDEBAND]), *reset]
            return [us(sequences.doppler_us, _DOPPLER), *reset, *turn * sequences.sideband_cycles]
        profile, part = _PROFILES[operation]
        settling_ns = 2 * sequences.update_ns
        return [(settling_ns, Light()), (sequences.pi_time_ns // part, tones[profile])]
