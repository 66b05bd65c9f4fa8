"""What a calibration measurement needs of a trapped-ion node: the bench it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from calibration.errors import CalibrationError
from calibration.ion_file import IonCalibration
from calibration.measurement import Data
from sequences.ion import IonOperation

LEAST_VARIATION: Final = 1e-6
"""A sweep without any variation looks like one with this probability."""


class IonBench(Protocol):
    """One trapped-ion node, set up to be measured."""

    @property
    def name(self) -> str:
        """Of the node."""
        ...

    @property
    def calibration(self) -> IonCalibration:
        """The values in use."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Of the instruments: every setting."""
        ...

    def apply(self, calibration: IonCalibration) -> None:
        """Use other values."""
        ...

    def counts(self, operations: Sequence[IonOperation], shots: int) -> NDArray[np.int64]:
        """Photons of the readout that follows some operations, shape (shots,)."""
        ...


def count_dark(bench: IonBench, operations: Sequence[IonOperation], shots: int) -> dict[str, int]:
    """How many readouts there were after some operations, and how many of them were dark."""
    counts = bench.counts(operations, shots)
    return {
        "shots": counts.size,
        "dark": int(np.count_nonzero(counts <= bench.calibration.threshold.value)),
    }


def check_varies(data: Data, advice: str) -> None:
    """Raise `CalibrationError` if the dark readouts of a sweep may be as many everywhere."""
    dark, bright = data["dark"], data["shots"] - data["dark"]
    if not (dark.sum() and bright.sum()) or (
        chi2_contingency(np.stack([dark, bright])).pvalue > LEAST_VARIATION
    ):
        raise CalibrationError(
            f"{data.measurement}: the readouts are the same in all of the sweep; {advice}"
        )
