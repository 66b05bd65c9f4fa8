"""`resonance`: the frequency of the microwave source.

A long, weak pulse flips the spin only near one of the three 14N lines. It takes the place
of the pi/2 pulse in the waveform table, so that the rotation by pi/2 plays it, and the
decoupling pulses, which would flip the spin as well, are turned down to nothing. The lines
overlap (a pulse may be a microsecond long at most), and the fit is of all three.
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
from calibration.fits import Floats, fit_binomial, parameters
from calibration.measurement import (
    CalibrationResult,
    Column,
    Data,
    Measurement,
    Rows,
    Value,
    check_above_zero,
    check_positive,
    check_within,
)
from qnodeos.qdevice.instructions import Axis, ini, msr, sqg
from sequences.hyperfine import HYPERFINE_HZ, lines_hz, turns
from sequences.pulses import ANGLE_STEPS as STEPS
from sequences.pulses import HERMITE_PI_HALF, PulseCalibration

SILENT_AMPLITUDE: Final = 1e-6
"""Of a decoupling pulse that is to do nothing: less than the AWG resolves."""


@dataclass(frozen=True)
class Resonance(Measurement[CalibrationNode]):
    """Sweep of the source's frequency about the present one.

    Attributes:
        span_hz: of the sweep.
        n_points: in it.
        shots: at each.
        pulse_ns: length of the weak pulse.
        hyperfine_hz: splitting of the lines.
    """

    name: ClassVar[str] = "resonance"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("frequency", "microwave frequency", "Hz", setpoint=True),
        Column("shots", "shots"),
        Column("ones", "outcomes 1"),
    )

    span_hz: float = 10e6
    n_points: int = 41
    shots: int = 400
    pulse_ns: float = 1000.0
    hyperfine_hz: float = HYPERFINE_HZ

    def check(self) -> None:
        """Numbers in their ranges."""
        check_above_zero("span_hz", self.span_hz)
        check_positive("n_points", self.n_points, 10_000)
        check_positive("shots", self.shots)
        check_above_zero("pulse_ns", self.pulse_ns)
        check_within("hyperfine_hz", self.hyperfine_hz, 0)

    def context(self, bench: CalibrationNode) -> dict[str, Any]:
        """The frequency in use and the weak pulse."""
        return {
            "frequency_hz": bench.calibration.mw_frequency_hz.value,
            "pulse_samples": self._weak(bench.calibration).pi_half_samples,
            "hyperfine_hz": self.hyperfine_hz,
        }

    def points(self, bench: CalibrationNode) -> Iterator[Rows]:
        """One row for each frequency, the middle of the sweep first to last."""
        original = bench.calibration
        weak = original.replaced(
            pi_amplitude=Calibrated(value=SILENT_AMPLITUDE),
            pi_half_ns=self.pulse_ns,
            pi_half_amplitude=Calibrated(value=self._weak(original).pi_half_amplitude),
        )
        centre = original.mw_frequency_hz.value
        program = [ini(), sqg(Axis.X, STEPS // 4), msr()]
        with restored(bench):
            for offset in np.linspace(-self.span_hz / 2, self.span_hz / 2, self.n_points):
                frequency = centre + float(offset)
                bench.apply(weak.replaced(mw_frequency_hz=Calibrated(value=frequency)))
                bits = bench.shots(program, self.shots).bits[:, 0]
                yield {"frequency": frequency, "shots": bits.size, "ones": int(bits.sum())}

    def analyse(self, data: Data) -> CalibrationResult:
        """Fits the centre of the three lines, the pulse's angle, and what readout adds."""
        if data.rows == 0:
            raise CalibrationError("resonance: there are no points")
        offset = data["frequency"] - data.context["frequency_hz"]
        proportion = data["ones"] / data["shots"]
        low, high = float(proportion.min()), float(proportion.max())
        above = np.maximum(proportion - (low + high) / 2, 0)
        start = float(above @ offset / above.sum()) if above.sum() else 0.0
        half_span = float(np.ptp(offset)) / 2
        fit = fit_binomial(
            lambda values: _profile(offset, data, values),
            parameters(
                centre_hz=(start, -half_span, half_span) if half_span else 0.0,
                angle=(math.pi, 0.3 * math.pi, 1.4 * math.pi),
                offset=(low, 0.0, 0.6),
                contrast=(min(1.0, 1.8 * (high - low) + 0.01), 0.0, 1.2),
            ),
            data["ones"],
            data["shots"],
            what="resonance",
            may_vanish=("offset",),
        )
        if fit.values["contrast"] < 5 * fit.sigmas["contrast"]:
            raise CalibrationError(
                "resonance: the spin flips nowhere in the sweep; sweep further or look at the "
                "microwave power"
            )
        return CalibrationResult.of_fit(
            data,
            fit,
            {
                "mw_frequency_hz": Value(
                    data.context["frequency_hz"] + fit.values["centre_hz"],
                    fit.sigmas["centre_hz"],
                ),
                "angle_pi": Value(fit.values["angle"] / math.pi, fit.sigmas["angle"] / math.pi),
            },
            {"parameters": fit.values},
        )

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """The sweep, and the fitted lines."""
        middle = data.context["frequency_hz"]
        made, (axes,) = plots.figure(
            "Resonance", f"frequency - {middle / 1e6:.3f} MHz (MHz)", "outcomes 1"
        )
        offset = data["frequency"] - middle
        plots.proportions(axes, offset / 1e6, data["ones"], data["shots"], "measured")
        if result is not None:
            fine = np.linspace(offset.min(), offset.max(), 401)
            fitted = _profile(fine, data, result.details["parameters"])
            plots.curve(axes, fine / 1e6, fitted, "fit", 1)
            value, sigma = result.values["mw_frequency_hz"]
            plots.mark(axes, (value - middle) / 1e6, f"centre, +-{sigma / 1e3:.1f} kHz")
        plots.save(made, path)

    def update(self, calibration: NodeCalibration, result: CalibrationResult) -> NodeCalibration:
        """Sets ``mw_frequency_hz``."""
        return calibration.replaced(mw_frequency_hz=result.calibrated("mw_frequency_hz"))

    def _weak(self, calibration: NodeCalibration) -> PulseCalibration:
        """The weak pi pulse in place of the pi/2 pulse: twice the area of that."""
        ratio = calibration.pi_half_ns / self.pulse_ns
        amplitude = min(1.0, 2 * calibration.pi_half_amplitude.value * ratio)
        return PulseCalibration(pi_half_amplitude=amplitude, pi_half_ns=self.pulse_ns)


def _profile(offset_hz: Floats, data: Data, values: Mapping[str, float]) -> Floats:
    """Probability of outcome 1 at offsets from the frequency in use."""
    lines = lines_hz(values["centre_hz"] - offset_hz, data.context["hyperfine_hz"])
    angles = np.full(offset_hz.size, values["angle"])
    flip = turns(angles, data.context["pulse_samples"], HERMITE_PI_HALF, lines).flip
    return values["offset"] + values["contrast"] * flip
