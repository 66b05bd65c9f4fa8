"""`rabi`: amplitudes of the pi and the pi/2 pulse.

Rotations by other angles are the two calibrated pulses with a smaller amplitude, so a
sweep of the rotation's angle is a sweep of the amplitude without a new table. Three stages:

* coarse: one pulse in place of the pi/2 pulse, as long as the pi pulse and up to full
  scale, with the decoupling turned down to nothing: it works from any start;
* pi: one and three pulses of 9/16 pi to pi;
* pi/2: one, three and five pulses of up to pi/2.

Between pulses the spin is decoupled, so repeated pulses add up whatever the 14N line, and
what one block of decoupling loses is a parameter of the fit. A last stage without and with
a pi pulse gives the two ends of the scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from calibration import plots
from calibration.bench import CalibrationNode, restored
from calibration.errors import CalibrationError
from calibration.file import Calibrated, NodeCalibration
from calibration.fits import Fit, Floats, fit_binomial, parameters
from calibration.measure_resonance import SILENT_AMPLITUDE
from calibration.measurement import (
    CalibrationResult,
    Collector,
    Column,
    Data,
    Measurement,
    Rows,
    Value,
    check_positive,
    check_within,
)
from qnodeos.qdevice.instructions import Axis, ini, msr, sqg
from sequences.hyperfine import HYPERFINE_HZ, lines_hz, refocused, repeated_flip, turns
from sequences.pulses import (
    ANGLE_STEPS,
    HERMITE_PI,
    HERMITE_PI_HALF,
    PulseCalibration,
    envelope_area_s,
)

COARSE, PI, PI_HALF = 0.0, 1.0, 2.0
_STAGE_LABELS: Final = {COARSE: "coarse", PI: "pi", PI_HALF: "pi/2"}

_PI_STEPS: Final = ANGLE_STEPS // 2
_HALF_STEPS: Final = ANGLE_STEPS // 4

_SCHEDULES: Final[dict[float, tuple[tuple[int, tuple[int, ...]], ...]]] = {
    COARSE: ((1, tuple(range(_HALF_STEPS + 1))),),
    PI: ((1, (0, *range(9, _PI_STEPS + 1))), (3, tuple(range(9, _PI_STEPS + 1)))),
    PI_HALF: ((1, (0, 4, 6, 8)), (3, (2, 3, 4, 5, 6, 7, 8)), (5, (2, 3, 4, 5, 6, 7, 8))),
}
"""By stage: numbers of pulses, and the rotations played so often, in units of pi/16."""


@dataclass(frozen=True)
class Rabi(Measurement[CalibrationNode]):
    """Amplitude sweeps of both pulses.

    Attributes:
        shots: at each point.
        hyperfine_hz: splitting of the 14N lines.
    """

    name: ClassVar[str] = "rabi"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("stage", "stage: coarse, pi, pi/2", setpoint=True),
        Column("repeats", "number of pulses", setpoint=True),
        Column("steps", "rotation", "pi/16", setpoint=True),
        Column("amplitude", "amplitude in the table", "full scale"),
        Column("shots", "shots"),
        Column("ones", "outcomes 1"),
    )

    shots: int = 1000
    hyperfine_hz: float = HYPERFINE_HZ

    def check(self) -> None:
        """Numbers in their ranges."""
        check_positive("shots", self.shots)
        check_within("hyperfine_hz", self.hyperfine_hz, 0)

    def context(self, bench: CalibrationNode) -> dict[str, Any]:
        """Pulse lengths."""
        pulses = bench.calibration.to_table_settings().calibration
        return {
            "pi_samples": pulses.pi_samples,
            "pi_half_samples": pulses.pi_half_samples,
            "hyperfine_hz": self.hyperfine_hz,
        }

    def points(self, bench: CalibrationNode) -> Iterator[Rows]:
        """The stages; the coarse one sets the amplitudes of the others."""
        original = bench.calibration
        context = self.context(bench)
        with restored(bench):
            bench.apply(
                original.replaced(
                    pi_amplitude=Calibrated(value=SILENT_AMPLITUDE),
                    pi_half_ns=original.pi_ns,
                    pi_half_amplitude=Calibrated(value=1.0),
                )
            )
            coarse = Collector(self.columns)
            for rows in self._stage(bench, COARSE, 1.0):
                coarse.add(rows)
                yield rows
            fit = _fit(Data(self.name, coarse.columns(), context))
            pulses = PulseCalibration.for_full_scale_rabi(
                _rabi_hz(fit.values["coarse_amplitude"], context["pi_samples"]),
                original.pi_ns,
                original.pi_half_ns,
            )
            bench.apply(
                original.replaced(
                    pi_amplitude=Calibrated(value=pulses.pi_amplitude),
                    pi_half_amplitude=Calibrated(value=pulses.pi_half_amplitude),
                )
            )
            yield from self._stage(bench, PI, pulses.pi_amplitude)
            yield from self._stage(bench, PI_HALF, pulses.pi_half_amplitude)

    def _stage(self, bench: CalibrationNode, stage: float, amplitude: float) -> Iterator[Rows]:
        for repeats, rotations in _SCHEDULES[stage]:
            for steps in rotations:
                program = [ini(), *[sqg(Axis.X, steps)] * repeats, msr()]
                bits = bench.shots(program, self.shots).bits[:, 0]
                yield {
                    "stage": stage,
                    "repeats": repeats,
                    "steps": steps,
                    "amplitude": amplitude,
                    "shots": bits.size,
                    "ones": int(bits.sum()),
                }

    def analyse(self, data: Data) -> CalibrationResult:
        """One fit of the fine stages, with a common readout."""
        fine = Data(
            data.measurement,
            {name: column[data["stage"] != COARSE] for name, column in data.columns.items()},
            data.context,
            data.source,
        )
        if not {PI, PI_HALF} <= set(fine["stage"]):
            raise CalibrationError("rabi: the run ended before both fine stages; repeat it")
        fit = _fit(fine)
        values = {
            name: Value(fit.values[name], fit.sigmas[name])
            for name in ("pi_amplitude", "pi_half_amplitude")
        }
        return CalibrationResult.of_fit(data, fit, values, {"parameters": fit.values})

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """Outcomes against the rotation asked for, one plot for each stage."""
        made, axes = plots.figure("Rabi", "", "outcomes 1", rows=3)
        for place, (stage, label) in enumerate(_STAGE_LABELS.items()):
            rows = data.select("stage", stage)
            axes[place].set_xlabel(f"rotation of each pulse (pi/16), stage {label}")
            for style, repeats in enumerate(sorted(set(rows["repeats"]))):
                part = rows.select("repeats", repeats)
                name = f"{repeats:.0f} pulse{'s' if repeats > 1 else ''}"
                plots.proportions(
                    axes[place], part["steps"], part["ones"], part["shots"], name, style
                )
                if result is not None and stage != COARSE:
                    plots.curve(
                        axes[place],
                        part["steps"],
                        _model(part, result.details["parameters"]),
                        None,
                        style,
                    )
        plots.save(made, path)

    def update(self, calibration: NodeCalibration, result: CalibrationResult) -> NodeCalibration:
        """Sets ``pi_amplitude`` and ``pi_half_amplitude``."""
        return calibration.replaced(
            pi_amplitude=result.calibrated("pi_amplitude"),
            pi_half_amplitude=result.calibrated("pi_half_amplitude"),
        )


_PARAMETER: Final = {
    COARSE: "coarse_amplitude",
    PI: "pi_amplitude",
    PI_HALF: "pi_half_amplitude",
}


def _rabi_hz(coarse_amplitude: float, samples: int) -> float:
    """Rabi frequency at full scale, from the amplitude of a pi/2 pulse of the coarse kind."""
    return 0.25 / (coarse_amplitude * envelope_area_s(samples, HERMITE_PI_HALF))


def _fit(data: Data) -> Fit:
    """Amplitudes of the stages there are, and the readout they share."""
    stages = sorted(set(data["stage"]))
    starts: dict[str, tuple[float, float, float] | float] = {}
    for stage in stages:
        if stage == COARSE:
            starts[_PARAMETER[stage]] = _best_coarse(data)
        else:
            used = float(data["amplitude"][data["stage"] == stage][0])
            starts[_PARAMETER[stage]] = (used, 0.7 * used, 1.4 * used)
    zero = data["steps"] == 0
    offset = float(data["ones"][zero].sum() / max(1.0, data["shots"][zero].sum()))
    highest = float(np.max(data["ones"] / data["shots"]))
    return fit_binomial(
        lambda values: _model(data, values),
        parameters(
            **starts,
            offset=(offset + 1e-3, 0.0, 0.6),
            contrast=(max(0.1, min(1.0, highest - offset)), 0.05, 1.2),
            # One pulse alone cannot tell what is lost from one to the next.
            loss=(0.02, 0.0, 0.5) if data["repeats"].max() > 1 else 0.0,
        ),
        data["ones"],
        data["shots"],
        what="rabi",
        may_vanish=("offset", "loss"),
    )


def _best_coarse(data: Data) -> tuple[float, float, float]:
    """Start of the coarse amplitude: the best of a grid, as the fit may have several minima."""
    grid = np.geomspace(0.15, 1.5, 40)
    observed = data["ones"] / data["shots"]
    misfit = []
    for amplitude in grid:
        base = {"offset": 0.0, "contrast": 1.0, "loss": 0.0, "coarse_amplitude": float(amplitude)}
        shape = np.stack([_model(data, base), np.ones(data.rows)], axis=1)
        _, residual, _, _ = np.linalg.lstsq(shape, observed, rcond=None)
        misfit.append(float(residual[0]) if residual.size else math.inf)
    best = float(grid[int(np.argmin(misfit))])
    return best, 0.8 * best, 1.25 * best


def _model(data: Data, values: Mapping[str, float]) -> Floats:
    """Probability of outcome 1 for every row."""
    context, lines = data.context, lines_hz(0.0, data.context["hyperfine_hz"])
    flips = np.zeros(data.rows)
    for stage in sorted(set(data["stage"])):
        nominal = math.pi if stage == PI else math.pi / 2
        full_steps = _PI_STEPS if stage == PI else _HALF_STEPS
        samples = context["pi_half_samples"] if stage == PI_HALF else context["pi_samples"]
        coefficient = HERMITE_PI if stage == PI else HERMITE_PI_HALF
        chosen = data["stage"] == stage
        steps, place = np.unique(data["steps"][chosen], return_inverse=True)
        relative = float(data["amplitude"][chosen][0]) / values[_PARAMETER[stage]]
        angles = nominal * relative * steps / full_steps
        pulses = refocused(turns(angles, samples, coefficient, lines), samples, lines)
        repeats = data["repeats"][chosen]
        by_number = {n: repeated_flip(pulses, int(n), values["loss"]) for n in set(repeats)}
        flips[chosen] = [by_number[n][step] for n, step in zip(repeats, place, strict=True)]
    return values["offset"] + values["contrast"] * flips
