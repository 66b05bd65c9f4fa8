"""`t-coh`: how long decoupling keeps a qubit.

A superposition waits under XY8 decoupling, is turned back to |0> or to |1>, and is read
out. The difference of the two is free of what readout and relaxation add. With fewer
shifted copies of the decoupling pulse than the spacing needs, every block lets a spin on
an outer 14N line slip by the same phase, and the coherence is

    A exp(-t/T) (1 + 2 cos(2 pi s t)) / 3

with a slip of s turns per second; the time quoted is then where this curve has fallen
to 1/e of A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from scipy.optimize import brentq

from calibration import plots
from calibration.bench import TICK_US, CalibrationNode, Program, Wait, restored
from calibration.errors import CalibrationError
from calibration.file import NodeCalibration
from calibration.fits import Fit, Floats, fit, parameters
from calibration.measurement import (
    CalibrationResult,
    Column,
    Data,
    Measurement,
    Rows,
    Value,
    check_positive,
    check_within,
)
from qnodeos.qdevice.instructions import Axis, ini, msr, sqg
from sequences.decoupling import XY8, DecouplingPlan
from sequences.hyperfine import HYPERFINE_HZ
from sequences.program import GRANULE_SAMPLES, SAMPLE_RATE_HZ
from sequences.pulses import ANGLE_STEPS

_QUARTER: Final = ANGLE_STEPS // 4
_OVERHEAD_TICKS: Final = 1.5
"""From a rotation to the next one besides the wait, on average (assumed)."""
_AHEAD_TICKS: Final = 2.5
"""How long before the end of a block the AWG looks for a word (found with its simulation)."""

_FRACTIONS: Final = (0.0, 0.08, 0.16, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0)
"""Times measured, in units of the expected 1/e time."""

TIME_MAX_MS: Final = 10_000.0

SHIFTED_COPIES: Final = (16, 8, 4, 2, 1)
"""What a waveform table can have."""


@dataclass(frozen=True)
class CoherenceTime(Measurement[CalibrationNode]):
    """Decay of a superposition under decoupling.

    Attributes:
        shots: at each point, for each sign.
        shifted_copies: of the decoupling pulses; None for those in use.
        times_ms: to measure, rounded to whole blocks of decoupling; None for a choice that
            suits the expected decay.
        free_exponent: fit exp(-(t/T)^n) with n free instead of 1. Only where no slip is
            expected.
        hyperfine_hz: splitting of the 14N lines.
    """

    name: ClassVar[str] = "t-coh"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("blocks", "blocks of decoupling", setpoint=True),
        Column("time", "time under decoupling", "ms"),
        Column("shots_plus", "shots turned back to |0>"),
        Column("zeros_plus", "outcomes 0, turned back to |0>"),
        Column("shots_minus", "shots turned back to |1>"),
        Column("zeros_minus", "outcomes 0, turned back to |1>"),
    )

    shots: int = 1000
    shifted_copies: int | None = None
    times_ms: tuple[float, ...] | None = None
    free_exponent: bool = False
    hyperfine_hz: float = HYPERFINE_HZ

    def check(self) -> None:
        """Numbers in their ranges."""
        check_positive("shots", self.shots)
        if self.shifted_copies not in (None, *SHIFTED_COPIES):
            raise CalibrationError(
                f"shifted_copies is {self.shifted_copies} and must be 16, 8, 4, 2 or 1"
            )
        if self.times_ms is not None:
            _check_times(self.times_ms)
        check_within("hyperfine_hz", self.hyperfine_hz, 0)

    def context(self, bench: CalibrationNode) -> dict[str, Any]:
        """The decoupling, and the slip expected of it."""
        used = self._used(bench.calibration)
        return {
            "shifted_copies": used.shifted_copies,
            "copies_in_use": bench.calibration.shifted_copies,
            "spacing_samples": used.spacing_samples,
            "slip_hz": self.hyperfine_hz * slip_samples(used) / (8 * used.spacing_samples),
            "t_coh_ms": used.t_coh_ms.value,
            "t_coh_sigma_ms": used.t_coh_ms.sigma,
            "free_exponent": self.free_exponent,
        }

    def points(self, bench: CalibrationNode) -> Iterator[Rows]:
        """Waits from short to long, both signs at each."""
        context = self.context(bench)
        block_ms = 8 * context["spacing_samples"] / SAMPLE_RATE_HZ * 1e3
        times = self.times_ms
        if times is None:
            expected = _crossing_ms(context["t_coh_ms"], 1.0, context["slip_hz"])
            times = tuple(fraction * expected for fraction in _FRACTIONS)
        _check_times(times)
        with restored(bench):
            bench.apply(self._used(bench.calibration))
            for blocks in sorted({max(1, round(time / block_ms)) for time in times}):
                # The second rotation waits for the end of a block. Aim at the middle of the
                # time in which its word may come for so many blocks.
                middle = (blocks - 0.5) * block_ms * 1e3 / TICK_US
                wait = Wait(max(0, round(middle - _OVERHEAD_TICKS - _AHEAD_TICKS)))
                row: dict[str, float] = {"blocks": blocks, "time": blocks * block_ms}
                for sign, back in (("plus", -_QUARTER), ("minus", _QUARTER)):
                    program: Program = [
                        ini(),
                        sqg(Axis.Y, _QUARTER),
                        wait,
                        sqg(Axis.Y, back),
                        msr(),
                    ]
                    bits = bench.shots(program, self.shots).bits[:, 0]
                    row[f"shots_{sign}"] = bits.size
                    row[f"zeros_{sign}"] = int(np.count_nonzero(bits == 0))
                yield row

    def analyse(self, data: Data) -> CalibrationResult:
        """The decay of the difference of the two signs."""
        decay, exponent, slips = _fit_decay(data)
        slip_known = data.context["t_coh_ms"] if slips else None

        def crossing(values: Mapping[str, float]) -> float:
            return _crossing_ms(values["t_coh_ms"], values["exponent"], values["slip_hz"])

        value, sigma = decay.derived(crossing)
        if slip_known is not None:
            # T was not fitted: its uncertainty comes from the calibration in use.
            step = data.context["t_coh_sigma_ms"]
            moved = crossing({**decay.values, "t_coh_ms": slip_known + step}) - value
            sigma = math.hypot(sigma, moved)
        values = {"t_coh_ms": Value(value, sigma)}
        if exponent:
            values["exponent"] = Value(decay.values["exponent"], decay.sigmas["exponent"])
        if slips:
            values["slip_hz"] = Value(decay.values["slip_hz"], decay.sigmas["slip_hz"])
        return CalibrationResult.of_fit(
            data,
            decay,
            values,
            {
                "t_coh_ms": value,
                "sigma": sigma,
                "shifted_copies": data.context["shifted_copies"],
                "copies_in_use": data.context["copies_in_use"],
                "parameters": decay.values,
            },
        )

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """The difference of the two signs, and the decay."""
        copies = data.context["shifted_copies"]
        made, (axes,) = plots.figure(
            f"Coherence under decoupling, {copies} shifted copies", "time (ms)", "contrast"
        )
        difference = _difference(data)
        sigma = np.sqrt(_variance(data, difference))
        plots.points(axes, data["time"], difference, sigma, "measured")
        if result is not None:
            fine = np.linspace(0, float(data["time"].max()), 300)
            plots.curve(axes, fine, _decay(fine, result.details["parameters"]), "fit", 1)
            value, sigma_t = result.values["t_coh_ms"]
            plots.mark(axes, value, f"1/e: {value:.2f} +- {sigma_t:.2f} ms")
        plots.save(made, path)

    def update(self, calibration: NodeCalibration, result: CalibrationResult) -> NodeCalibration:
        """Sets ``t_coh_ms``, if it was measured with the copies in use."""
        if result.details["shifted_copies"] != calibration.shifted_copies:
            return calibration
        return calibration.replaced(t_coh_ms=result.calibrated("t_coh_ms"))

    def _used(self, calibration: NodeCalibration) -> NodeCalibration:
        if self.shifted_copies in {None, calibration.shifted_copies}:
            return calibration
        return calibration.replaced(shifted_copies=self.shifted_copies)


def _check_times(times: Sequence[float]) -> None:
    if not times or min(times) < 0 or max(times) > TIME_MAX_MS:
        raise CalibrationError(
            f"t-coh: times must lie in 0..{TIME_MAX_MS:g} ms, and are {list(times)}"
        )


def slip_samples(calibration: NodeCalibration) -> float:
    """How far a block of decoupling is from refocusing, in samples of free evolution.

    A pulse that is early or late by some samples moves the echo by twice as much, with
    alternating sign; the mean over two blocks, as the pattern of an odd spacing needs two.
    """
    settings = calibration.to_table_settings()
    plan = DecouplingPlan(settings.spacing_samples, settings.calibration.pi_samples)
    coarseness = GRANULE_SAMPLES // settings.shifted_copies
    blocks = 2
    slots = islice(plan.slots(0, 0), blocks * len(XY8))
    late = [slot.shift % coarseness for slot in slots]
    alternating = sum(-error if place % 2 else error for place, error in enumerate(late))
    return abs(2 * alternating) / blocks


# --- analysis ---------------------------------------------------------------------------


def _fit_decay(data: Data) -> tuple[Fit, bool, bool]:
    """The fit, whether the exponent was free, and whether a slip was fitted."""
    slip_hz, expected = float(data.context["slip_hz"]), float(data.context["t_coh_ms"])
    # A slip far too slow to see is none.
    slips = slip_hz * expected / 1e3 > 0.02
    exponent = bool(data.context["free_exponent"]) and not slips
    observed = _difference(data)
    if observed.size == 0:
        raise CalibrationError("t-coh: there are no points")
    longest = float(data["time"].max())
    start = parameters(
        amplitude=(float(min(1.0, max(0.05, observed[0]))), 0.0, 1.2),
        t_coh_ms=expected if slips else (min(expected, longest), longest / 100, 100 * longest),
        exponent=(1.0, 0.2, 4.0) if exponent else 1.0,
        slip_hz=(slip_hz, 0.3 * slip_hz, 3 * slip_hz) if slips else 0.0,
    )
    time = data["time"]
    decay = fit(
        lambda values: _decay(time, values),
        start,
        observed,
        lambda predicted: _variance(data, predicted),
        _variance(data, observed),
        what="t-coh",
    )
    if decay.values["amplitude"] < 5 * decay.sigmas["amplitude"]:
        raise CalibrationError(
            "t-coh: no coherence to be seen at any time; calibrate the pulses, or measure "
            "shorter times"
        )
    return decay, exponent, slips


def _difference(data: Data) -> Floats:
    """P(0) turned back to |0> less P(0) turned back to |1>, shape (n_times,)."""
    plus = data["zeros_plus"] / data["shots_plus"]
    minus = data["zeros_minus"] / data["shots_minus"]
    return np.asarray(plus - minus, dtype=np.float64)


def _variance(data: Data, difference: Floats) -> Floats:
    """Of the difference, with a sum of the two proportions as measured."""
    plus = (data["zeros_plus"] + 1) / (data["shots_plus"] + 2)
    minus = (data["zeros_minus"] + 1) / (data["shots_minus"] + 2)
    middle = (plus + minus) / 2
    total = np.zeros_like(difference)
    for sign, shots in ((1, data["shots_plus"]), (-1, data["shots_minus"])):
        p = np.clip(middle + sign * difference / 2, 1 / (shots + 2), 1 - 1 / (shots + 2))
        total = total + p * (1 - p) / shots
    return total


def _decay(time_ms: Floats, values: Mapping[str, float]) -> Floats:
    """The contrast at some times."""
    envelope = np.exp(-((time_ms / values["t_coh_ms"]) ** values["exponent"]))
    lines = (1 + 2 * np.cos(2 * math.pi * values["slip_hz"] * time_ms / 1e3)) / 3
    return np.asarray(values["amplitude"] * envelope * lines, dtype=np.float64)


def _crossing_ms(t_coh_ms: float, exponent: float, slip_hz: float) -> float:
    """When the contrast has first fallen to 1/e of its amplitude."""
    values = {"amplitude": 1.0, "t_coh_ms": t_coh_ms, "exponent": exponent, "slip_hz": slip_hz}
    if slip_hz == 0:
        return t_coh_ms
    # Falls from 1 to below 0 in the first half turn, if it has not decayed before.
    end = min(500.0 / slip_hz, t_coh_ms)
    return float(
        brentq(lambda time: float(_decay(np.array(time), values)) - math.exp(-1), 0.0, end)
    )
