"""`awg-delay`: from a DIO edge to the AWG's output, and from node to node.

A time tagger at the heralding station histograms the photons of one node at a time against
the DIO edge that started the attempt. Emission follows the optical pulse with the lifetime
of the excited state, so the peak is an exponential, smeared by a Gaussian, on a flat
background. Where it begins, less the way that is known, is the delay of the AWG; how much
later it begins for one node than for the other is what has to be made up for before the
two photons can interfere: the node whose photons are early emits later. What is already made
up for while it is measured is taken out, so a second measurement finds the same again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from scipy.special import erf, erfcx

from calibration import plots
from calibration.bench import ArrivalBench, Side
from calibration.errors import CalibrationError
from calibration.file import Calibrated, NodeCalibration
from calibration.fits import Fit, Floats, fit_poisson, parameters
from calibration.measurement import (
    CalibrationResult,
    Column,
    Data,
    Measurement,
    Rows,
    Value,
    check_positive,
)

LIFETIME_NS: Final = 12.0
"""Of the excited state of the NV centre (Doherty et al., Physics Reports 528, 1 (2013))."""

ATTEMPTS_MAX: Final = 10**12

_SIDES: Final[tuple[Side, Side]] = ("client", "server")
_PHOTONS_MIN: Final = 100
_LEAST_JITTER_NS: Final = 0.05
_SHOWN_LIFETIMES: Final = 8.0
"""How much of a histogram is plotted after the start of the peak."""


@dataclass(frozen=True)
class AwgDelay(Measurement[ArrivalBench]):
    """Arrival histograms of both sides.

    Attributes:
        attempts: for each side.
    """

    name: ClassVar[str] = "awg-delay"
    on_pair: ClassVar[bool] = True
    columns: ClassVar[tuple[Column, ...]] = (
        Column("side", "side: 0 client, 1 server", setpoint=True),
        Column("time", "start of the bin, from the DIO edge", "ns", setpoint=True),
        Column("bin", "width of the bin", "ns"),
        Column("photons", "photons"),
        Column("expected", "arrival without delay", "ns"),
        Column("shift", "made up for already", "ns"),
    )

    attempts: int = 10_000_000

    def check(self) -> None:
        """Numbers in their ranges."""
        check_positive("attempts", self.attempts, ATTEMPTS_MAX)

    def context(self, bench: ArrivalBench) -> dict[str, Any]:
        """Which node is on which side."""
        return {"client": bench.client.name, "server": bench.server.name}

    def points(self, bench: ArrivalBench) -> Iterator[Rows]:
        """One histogram for each side."""
        for place, side in enumerate(_SIDES):
            histogram = bench.arrival_histogram(side, self.attempts)
            yield {
                "side": place,
                "time": histogram.first_ns + histogram.bin_ns * np.arange(histogram.counts.size),
                "bin": histogram.bin_ns,
                "photons": histogram.counts,
                "expected": histogram.expected_ns,
                "shift": histogram.shift_ns,
            }

    def analyse(self, data: Data) -> CalibrationResult:
        """Fits both peaks."""
        values: dict[str, Value] = {}
        details: dict[str, Any] = {side: data.context[side] for side in _SIDES}
        fits: list[Fit] = []
        starts: list[float] = []
        for place, side in enumerate(_SIDES):
            rows = data.select("side", place)
            peak = _fit_peak(rows, f"awg-delay of the {side}")
            start, sigma = peak.values["start_ns"], peak.sigmas["start_ns"]
            values[f"{side}_dio_to_output_ns"] = Value(start - float(rows["expected"][0]), sigma)
            details[f"{side}_parameters"] = peak.values
            fits.append(peak)
            starts.append(start - float(rows["shift"][0]))
        sigma = math.hypot(*(peak.sigmas["start_ns"] for peak in fits))
        values["client_attempt_offset_ns"] = Value(starts[0] - starts[1], sigma)
        values["server_attempt_offset_ns"] = Value(starts[1] - starts[0], sigma)
        return CalibrationResult(
            data.measurement,
            values,
            data.source,
            "\n\n".join(peak.report for peak in fits),
            sum(peak.chi2 for peak in fits),
            sum(peak.ndof for peak in fits),
            min(peak.p_value for peak in fits),
            details,
        )

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """Both histograms with their fits."""
        made, axes = plots.figure("Photon arrival", "time since the DIO edge (ns)", "photons", 2)
        for place, side in enumerate(_SIDES):
            rows = data.select("side", place)
            axes[place].step(
                rows["time"], rows["photons"], where="post", color=plots.BLUE, label=side
            )
            if result is not None:
                fitted = result.details[f"{side}_parameters"]
                middle = rows["time"] + rows["bin"] / 2
                plots.curve(axes[place], middle, _peak(rows, fitted), "fit", 1)
                plots.mark(axes[place], fitted["start_ns"], f"{fitted['start_ns']:.2f} ns")
                shown = _SHOWN_LIFETIMES * fitted["lifetime_ns"]
                axes[place].set_xlim(fitted["start_ns"] - shown / 2, fitted["start_ns"] + shown)
        plots.save(made, path)

    def update(self, calibration: NodeCalibration, result: CalibrationResult) -> NodeCalibration:
        """Sets ``dio_to_output_ns`` and ``attempt_offset_ns`` of either node.

        The offset is how much later this node's photons arrive than the other's, if the edges
        come at the same time and nothing is made up for.
        """
        for side in _SIDES:
            if result.details[side] == calibration.node:
                changes: dict[str, Calibrated] = {
                    name: result.calibrated(f"{side}_{name}")
                    for name in ("dio_to_output_ns", "attempt_offset_ns")
                }
                return calibration.replaced(**changes)
        raise CalibrationError(
            f"awg-delay measured {result.details['client']} and {result.details['server']}, "
            f"not {calibration.node}"
        )


def _fit_peak(rows: Data, what: str) -> Fit:
    photons = rows["photons"]
    if photons.size < 10 or photons.sum() < _PHOTONS_MIN:
        raise CalibrationError(
            f"{what}: {photons.sum():.0f} photons in {photons.size} bins; at least {_PHOTONS_MIN} "
            "in 10 are needed: make more attempts, and look at the optical pulse"
        )
    width = float(rows["bin"][0])
    background = float(np.median(photons))
    top = int(np.argmax(photons))
    near = photons[max(0, top - 1) : top + 2]
    total = float(np.maximum(photons - background, 0).sum())
    first, last = float(rows["time"][0]), float(rows["time"][-1]) + width
    if near.sum() < 5 * math.sqrt(3 * background + 1):
        raise CalibrationError(
            f"{what}: no peak above the background of {background:.1f} a bin; make more attempts"
        )
    found = fit_poisson(
        lambda values: _peak(rows, values),
        parameters(
            start_ns=(float(rows["time"][top]), first, last),
            photons=(total, 0.0, 10 * total + 10),
            lifetime_ns=(LIFETIME_NS, LIFETIME_NS / 4, LIFETIME_NS * 4),
            jitter_ns=(max(0.5, width), _LEAST_JITTER_NS, 20.0),
            background=(background + 0.1, 0.0, 10 * background + 10),
        ),
        photons,
        what=what,
        may_vanish=("background", "jitter_ns"),
    )
    values = found.values
    if found.sigmas["jitter_ns"] < max(width, values["jitter_ns"]):
        return found
    # Bins too wide to show the jitter show the start all the same, once the jitter is let be.
    return fit_poisson(
        lambda values: _peak(rows, values),
        parameters(
            start_ns=(values["start_ns"], first, last),
            photons=(values["photons"], 0.0, 10 * total + 10),
            lifetime_ns=(values["lifetime_ns"], LIFETIME_NS / 4, LIFETIME_NS * 4),
            jitter_ns=values["jitter_ns"],
            background=(values["background"] + 0.01, 0.0, 10 * background + 10),
        ),
        photons,
        what=what,
        may_vanish=("background",),
    )


def _peak(rows: Data, values: Mapping[str, float]) -> Floats:
    """Expected photons of every bin: an exponential smeared by a Gaussian, on a background."""
    edges = np.append(rows["time"], rows["time"][-1] + rows["bin"][0])
    sigma, lifetime = values["jitter_ns"], values["lifetime_ns"]
    z = (edges - values["start_ns"]) / sigma
    # Both terms of the distribution function; erfcx keeps the product from overflowing.
    u = (sigma / lifetime - z) / math.sqrt(2)
    tail = np.where(
        u > 0,
        0.5 * np.exp(-(z**2) / 2) * erfcx(np.maximum(u, 0)),
        0.5 * np.exp(np.minimum(u, 0) ** 2 - z**2 / 2) * (1 - erf(np.minimum(u, 0))),
    )
    below = 0.5 * (1 + erf(z / math.sqrt(2))) - tail
    inside: Floats = values["photons"] * np.diff(below) + values["background"]
    return inside
