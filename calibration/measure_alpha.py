"""`fidelity-alpha`: entanglement fidelity and rate against the bright-state population.

At each alpha, pairs are measured in XX, YY and ZZ. Fidelities and success probabilities are
fitted together with the single-photon protocol (Humphreys et al., Nature 558, 268 (2018),
equations 8 and 10) for equal nodes: with p the probability to detect an emitted photon, d
that of a dark count in either detector, and C the contrast of the coherence,

    P = 2 alpha^2 (p + d/2) + 2 alpha (1 - alpha) (p + d) + (1 - alpha)^2 d
    F = alpha (1 - alpha) (p + d + p C) / P,

up to terms of order p^2. The alpha for a wanted fidelity follows from the fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from calibration import plots
from calibration.bench import CalibrationPair, restored
from calibration.errors import CalibrationError
from calibration.fidelity import Basis, bell_fidelity
from calibration.file import Calibrated, NodeCalibration
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
from calibration.readout import Estimate, ReadoutFidelity, correct_counts
from qnodeos.qdevice.instructions import Axis, PhysicalInstruction, sqg
from qnodeos.qdevice.outcomes import BellState

DARK_FRACTION: Final = 7.5e-4
"""d / p (assumed: two detectors with 10 Hz in 15 ns, and p = 4e-4)."""

PUBLISHED_FIDELITY: Final = 0.72
"""Of the entangled state (Delle Donne et al., Nature 639, 321 (2025))."""

BASES: Final[tuple[Basis, ...]] = ("XX", "YY", "ZZ")
_ROTATIONS: Final[dict[Basis, tuple[PhysicalInstruction, ...]]] = {
    "XX": (sqg(Axis.Y, 24),),  # -pi/2 about Y takes +X to |0>
    "YY": (sqg(Axis.X, 8),),  # pi/2 about X takes +Y to |0>
    "ZZ": (),
}
_COUNTS: Final = ("00", "01", "10", "11")
_PARITY: Final = np.array([1.0, -1.0, -1.0, 1.0])
_LEAST_ALPHA, _GREATEST_ALPHA = 1e-4, 0.9
_ALPHAS_MIN: Final = 3


@dataclass(frozen=True)
class FidelityAlpha(Measurement[CalibrationPair]):
    """Correlators and rate at several alphas, the same at both nodes.

    Attributes:
        alphas: to measure.
        pairs: in each basis, at each alpha.
        target: wanted fidelity.
        dark_fraction: d / p, kept fixed.
    """

    name: ClassVar[str] = "fidelity-alpha"
    on_pair: ClassVar[bool] = True
    columns: ClassVar[tuple[Column, ...]] = (
        Column("alpha", "bright-state population", setpoint=True),
        Column("basis", "basis: 0 XX, 1 YY, 2 ZZ", setpoint=True),
        Column("herald", "Bell state heralded", setpoint=True),
        *(Column(f"n{outcome}", f"outcomes {outcome}") for outcome in _COUNTS),
        Column("attempts", "attempts"),
        Column("period", "attempt period", "ns"),
    )

    alphas: tuple[float, ...] = (0.08, 0.14, 0.2, 0.26, 0.34)
    pairs: int = 500
    target: float = PUBLISHED_FIDELITY
    dark_fraction: float = DARK_FRACTION

    def check(self) -> None:
        """Numbers in their ranges."""
        if not all(0 < alpha < 1 for alpha in self.alphas):
            raise CalibrationError(f"alphas are {list(self.alphas)} and must lie between 0 and 1")
        _check_enough(len(set(self.alphas)))
        check_positive("pairs", self.pairs)
        check_within("target", self.target, 0, 1)
        check_within("dark_fraction", self.dark_fraction, 0)

    def context(self, bench: CalibrationPair) -> dict[str, Any]:
        """The readout of both nodes, and what is wanted."""
        context: dict[str, Any] = {"target": self.target, "dark_fraction": self.dark_fraction}
        for side, node in (("client", bench.client), ("server", bench.server)):
            readout = node.calibration.to_readout_fidelity()
            context[side] = {
                "node": node.name,
                "f0": readout.f0,
                "f1": readout.f1,
                "sigma_f0": readout.sigma_f0,
                "sigma_f1": readout.sigma_f1,
            }
        return context

    def points(self, bench: CalibrationPair) -> Iterator[Rows]:
        """All bases at one alpha after the other; a row for each herald."""
        nodes = (bench.client, bench.server)
        with restored(*nodes):
            originals = [node.calibration for node in nodes]
            for alpha in self.alphas:
                for node, original in zip(nodes, originals, strict=True):
                    node.apply(original.replaced(alpha=Calibrated(value=alpha)))
                for place, basis in enumerate(BASES):
                    rotations = _ROTATIONS[basis]
                    shots = bench.pairs(rotations, rotations, self.pairs)
                    for herald in BellState:
                        mine = shots.heralds == herald
                        if not mine.any():
                            continue
                        outcomes = 2 * shots.bits[mine, 0] + shots.bits[mine, 1]
                        counts = np.bincount(outcomes, minlength=4)
                        yield {
                            "alpha": alpha,
                            "basis": place,
                            "herald": int(herald),
                            **{f"n{name}": n for name, n in zip(_COUNTS, counts, strict=True)},
                            "attempts": int(shots.attempts[mine].sum()),
                            "period": shots.attempt_period_ns,
                        }

    def analyse(self, data: Data) -> CalibrationResult:
        """Fidelity and rate of every alpha, the model, and the alpha that is wanted."""
        measured = [_at_alpha(data, alpha) for alpha in sorted(set(data["alpha"]))]
        _check_enough(len(measured))
        protocol = _fit_protocol(data, measured)
        target = float(data.context["target"])
        value, statistical = protocol.derived(lambda values: _alpha_for(target, values))
        # The readout's uncertainty moves all fidelities together.
        scale = float(np.mean([point.fidelity.systematic for point in measured]))
        slope = math.fsum(
            sign * _fidelity(value + sign * 1e-4, protocol.values) / 2e-4 for sign in (1, -1)
        )
        sigma = math.hypot(statistical, scale / slope)
        rate = _success(value, protocol.values) / (float(data["period"][0]) * 1e-9)
        return CalibrationResult.of_fit(
            data,
            protocol,
            {
                "alpha": Value(value, sigma),
                "detection": Value(protocol.values["detection"], protocol.sigmas["detection"]),
                "contrast": Value(protocol.values["contrast"], protocol.sigmas["contrast"]),
            },
            {
                "target": target,
                "rate_hz": rate,
                "alphas": [point.to_dict() for point in measured],
                "parameters": protocol.values,
            },
        )

    def plot(self, data: Data, result: CalibrationResult | None, path: Path) -> None:
        """Fidelity and rate against alpha."""
        made, (above, below) = plots.figure("Entanglement", "alpha", "fidelity", 2)
        below.set_xlabel("alpha")
        below.set_ylabel("heralds per second of attempts")
        measured = [_at_alpha(data, alpha) for alpha in sorted(set(data["alpha"]))]
        x = [point.alpha for point in measured]
        plots.points(
            above,
            x,
            [point.fidelity.value for point in measured],
            [point.fidelity.sigma for point in measured],
            "measured",
        )
        plots.points(
            below, x, [p.rate_hz.value for p in measured], [p.rate_hz.sigma for p in measured], ""
        )
        if result is not None:
            fitted = result.details["parameters"]
            fine = np.linspace(min(x) / 2, max(x) * 1.1, 200)
            period_s = float(data["period"][0]) * 1e-9
            plots.curve(above, fine, [_fidelity(a, fitted) for a in fine], "fit", 1)
            plots.curve(below, fine, [_success(a, fitted) / period_s for a in fine], None, 1)
            alpha, sigma = result.values["alpha"]
            plots.mark(above, alpha, f"{result.details['target']:g}: {alpha:.3f} +- {sigma:.3f}")
        plots.save(made, path)

    def update(self, calibration: NodeCalibration, result: CalibrationResult) -> NodeCalibration:
        """Sets ``alpha``; the same at both nodes."""
        return calibration.replaced(alpha=result.calibrated("alpha"))


def _check_enough(alphas: int) -> None:
    if alphas < _ALPHAS_MIN:
        raise CalibrationError(
            f"fidelity-alpha: {alphas} different alphas do not determine the model; use "
            f"{_ALPHAS_MIN} or more"
        )


@dataclass(frozen=True)
class AlphaPoint:
    """What was measured at one alpha.

    Attributes:
        alpha: bright-state population.
        fidelity: with the heralded Bell states, corrected for readout.
        pairs: in all bases.
        attempts: for them.
        rate_hz: pairs per time spent on attempts.
        correlators: corrected for readout, by Bell state and basis.
    """

    alpha: float
    fidelity: Estimate
    pairs: int
    attempts: int
    rate_hz: Value
    correlators: Mapping[str, Mapping[str, Value]]

    @property
    def success(self) -> float:
        """Pairs per attempt."""
        return self.pairs / self.attempts

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "alpha": float(self.alpha),
            "fidelity": {"value": self.fidelity.value, "sigma": self.fidelity.sigma},
            "rate_hz": {"value": self.rate_hz.value, "sigma": self.rate_hz.sigma},
            "correlators": {
                state: {name: correlator._asdict() for name, correlator in bases.items()}
                for state, bases in self.correlators.items()
            },
        }


def _at_alpha(data: Data, alpha: float) -> AlphaPoint:
    rows = data.select("alpha", alpha)
    readouts = [
        ReadoutFidelity(
            *(data.context[side][name] for name in ("f0", "f1", "sigma_f0", "sigma_f1"))
        )
        for side in ("client", "server")
    ]
    pairs = sum(int(rows[f"n{name}"].sum()) for name in _COUNTS)
    attempts = int(rows["attempts"].sum())
    estimates: list[tuple[float, Estimate]] = []
    correlators: dict[str, dict[str, Value]] = {}
    for herald in sorted(set(rows["herald"])):
        state = BellState(int(herald))
        own = rows.select("herald", herald)
        counts: dict[Basis, Floats] = {}
        for place, basis in enumerate(BASES):
            part = own.select("basis", place)
            if part.rows:
                counts[basis] = np.array([part[f"n{name}"].sum() for name in _COUNTS])
        weight = sum(float(values.sum()) for values in counts.values())
        estimates.append((weight, bell_fidelity(counts, readouts[0], readouts[1], state)))
        correlators[state.name] = {
            basis: _correlator(values, readouts) for basis, values in counts.items()
        }
    rate = pairs / attempts / (float(rows["period"][0]) * 1e-9)
    return AlphaPoint(
        alpha,
        _weighted(estimates),
        pairs,
        attempts,
        Value(rate, rate / math.sqrt(pairs)),
        correlators,
    )


def _correlator(counts: Floats, readouts: Sequence[ReadoutFidelity]) -> Value:
    corrected = correct_counts(counts, readouts)
    variance = float(_PARITY @ corrected.covariance @ _PARITY)
    return Value(float(_PARITY @ corrected.probabilities), math.sqrt(variance))


def _weighted(estimates: Sequence[tuple[float, Estimate]]) -> Estimate:
    """Mean of the heralds, by their number of pairs; all share one readout."""
    total = sum(weight for weight, _ in estimates)
    return Estimate(
        sum(weight * estimate.value for weight, estimate in estimates) / total,
        math.hypot(*(weight * estimate.statistical for weight, estimate in estimates)) / total,
        sum(weight * estimate.systematic for weight, estimate in estimates) / total,
    )


def _fit_protocol(data: Data, measured: Sequence[AlphaPoint]) -> Fit:
    """Fidelities and success probabilities, the latter in units of the first guess."""
    alphas = [point.alpha for point in measured]
    pairs = np.array([point.pairs for point in measured])
    fidelity_variance = np.array([point.fidelity.statistical**2 for point in measured])
    guess = float(np.mean([point.success / (2 * point.alpha) for point in measured]))
    observed = np.array(
        [point.fidelity.value for point in measured] + [point.success / guess for point in measured]
    )

    def model(values: Mapping[str, float]) -> Floats:
        fidelities = [_fidelity(alpha, values) for alpha in alphas]
        return np.array(fidelities + [_success(alpha, values) / guess for alpha in alphas])

    def variance(expected: Floats) -> Floats:
        # Attempts until a number of pairs: negative binomial, with tiny probabilities.
        return np.concatenate([fidelity_variance, expected[len(alphas) :] ** 2 / pairs])

    return fit(
        model,
        parameters(
            detection=(guess, guess / 5, 5 * guess),
            contrast=(0.8, 0.0, 1.2),
            dark_fraction=float(data.context["dark_fraction"]),
        ),
        observed,
        variance,
        variance(observed),
        what="fidelity-alpha",
    )


def _success(alpha: float, values: Mapping[str, float]) -> float:
    """Probability that an attempt is heralded."""
    dark = values["dark_fraction"]
    both = alpha**2 * (2 + dark)
    one = 2 * alpha * (1 - alpha) * (1 + dark)
    return values["detection"] * (both + one + (1 - alpha) ** 2 * dark)


def _fidelity(alpha: float, values: Mapping[str, float]) -> float:
    """Fidelity with the heralded Bell state."""
    one = alpha * (1 - alpha) * (1 + values["dark_fraction"] + values["contrast"])
    return values["detection"] * one / _success(alpha, values)


def _alpha_for(target: float, values: Mapping[str, float]) -> float:
    """The largest alpha with a fidelity, which is the one with the highest rate."""
    best = minimize_scalar(
        lambda alpha: -_fidelity(alpha, values),
        bounds=(_LEAST_ALPHA, _GREATEST_ALPHA),
        method="bounded",
        options={"xatol": 1e-6},
    )
    if not _fidelity(_GREATEST_ALPHA, values) < target < -best.fun:
        raise CalibrationError(
            f"fidelity-alpha: no alpha gives a fidelity of {target:g}; the best is "
            f"{-best.fun:.3f}, at alpha = {best.x:.3f}"
        )
    return float(brentq(lambda alpha: _fidelity(alpha, values) - target, best.x, _GREATEST_ALPHA))
