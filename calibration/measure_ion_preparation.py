"""`ion-preparation`: how often initialisation leaves D5/2.

The share of dark readouts after an initialisation, corrected for the errors of the readout in use
(`ion-detection`). The 729 nm laser has no part in the preparation that is measured but through
sideband cooling, after whose last pulse D5/2 is emptied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from calibration import plots
from calibration.errors import CalibrationError
from calibration.fits import fit_binomial, parameters
from calibration.ion_bench import IonBench, count_dark
from calibration.ion_file import IonCalibration
from calibration.measurement import (
    SHOTS_MAX,
    CalibrationResult,
    Column,
    Data,
    Measurement,
    Rows,
    Value,
    check_within,
)
from calibration.readout import proportion_variance
from sequences.ion import IonOperation

_BATCHES: Final = 10


@dataclass(frozen=True)
class IonPreparation(Measurement[IonBench]):
    """Dark readouts after initialisations.

    Attributes:
        shots: in all.
    """

    name: ClassVar[str] = "ion-preparation"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("first_shot", "first shot of the batch", setpoint=True),
        Column("shots", "shots"),
        Column("dark", "dark readouts"),
    )
    on_ion: ClassVar[bool] = True

    shots: int = 20_000

    def check(self) -> None:
        """Numbers in their ranges."""
        check_within("shots", self.shots, _BATCHES, SHOTS_MAX)

    def context(self, bench: IonBench) -> dict[str, Any]:
        """The errors of the readout in use."""
        calibration = bench.calibration
        return {
            name: {"value": calibrated.value, "sigma": calibrated.sigma}
            for name, calibrated in (
                ("dark_of_s", calibration.dark_of_s),
                ("bright_of_d", calibration.bright_of_d),
            )
        }

    def points(self, bench: IonBench) -> Iterator[Rows]:
        """In batches of shots."""
        starts = np.linspace(0, self.shots, _BATCHES + 1).astype(int).tolist()
        for first, end in itertools.pairwise(starts):
            rows = count_dark(bench, [IonOperation.INITIALISE], end - first)
            yield {"first_shot": first, **rows}

    def analyse(self, data: Data) -> CalibrationResult:
        """From the counts; fails if they drift from batch to batch."""
        shots, dark = data["shots"], data["dark"]
        total, found = int(shots.sum()), int(dark.sum())
        if not total:
            raise CalibrationError(f"{self.name}: there are no shots")
        mean = found / total
        fit = None
        if 0 < found < total:
            fit = fit_binomial(
                lambda values: np.full(data.rows, values["dark"]),
                parameters(dark=(mean, 0.0, 1.0)),
                dark,
                shots,
                what=f"{self.name}, the same in all batches",
            )
        e, f = data.context["dark_of_s"], data.context["bright_of_d"]
        contrast = 1 - e["value"] - f["value"]
        if contrast <= 0:
            raise CalibrationError(
                f"{self.name}: a readout that errs with {e['value']:g} and {f['value']:g} tells "
                "nothing; run ion-detection"
            )
        error = (mean - e["value"]) / contrast
        sigma = math.hypot(
            math.sqrt(proportion_variance(found, total)) / contrast,
            (1 - error) * e["sigma"] / contrast,
            error * f["sigma"] / contrast,
        )
        # The corrected value may be negative by its uncertainty, a probability may not.
        values = {"preparation_error": Value(max(0.0, error), sigma)}
        if fit is None:
            return CalibrationResult(data.measurement, values, data.source)
        return CalibrationResult.of_fit(data, fit, values, {})

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """Dark readouts batch by batch."""
        made, (axes,) = plots.figure("Initialisation", "first shot of the batch", "dark readouts")
        plots.proportions(axes, data["first_shot"], data["dark"], data["shots"], "measured")
        plots.save(made, path)

    def update(self, calibration: IonCalibration, result: CalibrationResult) -> IonCalibration:
        """Sets ``preparation_error``."""
        return calibration.replaced(preparation_error=result.calibrated("preparation_error"))
