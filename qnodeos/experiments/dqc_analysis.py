"""Analysis of delegated quantum computation: fidelities and latencies of all circuits.

As in Delle Donne et al., Nature 639, 321 (2025), Fig. 4: fidelities corrected for the
server's readout (SSRO), then also without the circuits whose charge-resonance check
failed afterwards, then also without those whose server qubit was live longer than the
latency filter. Latency segments are those of the circuits the filter keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from calibration.fidelity import mean_estimate, time_to_fidelity_ms, two_orientation_fidelity
from calibration.readout import Estimate, ReadoutFidelity
from qnodeos.errors import InsufficientDataError
from qnodeos.qdevice.instructions import ANGLE_STEPS

LATENCY_LIMIT_MS: Final = 8.95
"""The latency filter of the published experiment."""

INITIAL_FIDELITY: Final = 0.833
"""(1 + |<XX>|)/2 of the single-photon state of fidelity 0.72; the model is assumed."""

COHERENCE_TIME_MS: Final = 13.0
"""Memory time of the server's electron under decoupling (published)."""

STAGES: Final = ("ssro", "cr", "latency")
"""Selections of circuits, each within the one before."""


@dataclass(frozen=True)
class DqcSetData:
    """Results of all circuits of one pair of angles.

    Attributes:
        alpha_steps: alpha in units of pi/16.
        theta_steps: theta in units of pi/16.
        orientation: 0 where the server measured along the target ('+i'), 1 against it
            ('-i'), shape (n,).
        outcome: the server's measurement, 0 or 1, shape (n,).
        client_outcome: the client's measurement, 0 or 1, shape (n,).
        charge_ok: whether both nodes passed the check after the circuit, shape (n,).
        segments: latencies in ms as `qnodeos.experiments.dqc_segments` computes them,
            each of shape (n,); ``live_time`` and ``entanglement`` at least.

    Raises:
        InsufficientDataError: there are no circuits, shapes differ, something is not
            0 or 1, or a segment is missing.
    """

    alpha_steps: int
    theta_steps: int
    orientation: NDArray[Any]
    outcome: NDArray[Any]
    client_outcome: NDArray[Any]
    charge_ok: NDArray[np.bool_]
    segments: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        n = self.outcome.shape
        columns = {
            "orientation": self.orientation,
            "client_outcome": self.client_outcome,
            "charge_ok": self.charge_ok,
            **self.segments,
        }
        if len(n) != 1 or n[0] == 0:
            raise InsufficientDataError(f"{self.name}: outcomes of shape {n}; need (n,), n >= 1")
        for name, values in columns.items():
            if values.shape != n:
                raise InsufficientDataError(
                    f"{self.name}: '{name}' has shape {values.shape}, the outcomes {n}"
                )
        for name in ("orientation", "outcome", "client_outcome"):
            if not np.isin(getattr(self, name), (0, 1)).all():
                raise InsufficientDataError(f"{self.name}: '{name}' must hold 0 and 1 only")
        if missing := {"live_time", "entanglement"} - self.segments.keys():
            raise InsufficientDataError(f"{self.name}: segment '{min(missing)}' is missing")

    @property
    def name(self) -> str:
        """For messages."""
        return f"DQC set alpha {self.alpha_steps}, theta {self.theta_steps} (pi/16)"

    def selected(self, stage: str, latency_limit_ms: float) -> NDArray[np.bool_]:
        """Which circuits a stage of ``STAGES`` keeps, shape (n,)."""
        if stage == "ssro":
            return np.ones(self.outcome.shape, dtype=bool)
        kept = np.asarray(self.charge_ok, dtype=bool)
        if stage == "latency":
            kept = kept & (self.segments["live_time"] <= latency_limit_ms)
        return kept


def analyse_dqc(
    sets: Sequence[DqcSetData],
    readout: ReadoutFidelity,
    *,
    seed: int,
    latency_limit_ms: float = LATENCY_LIMIT_MS,
    initial_fidelity: float = INITIAL_FIDELITY,
    coherence_time_ms: float = COHERENCE_TIME_MS,
    coherence_exponent: float = 1.0,
    wall_s: float = 0.0,
) -> dict[str, Any]:
    """Everything the experiment reports, ready for JSON.

    The mean fidelity is that of the sets with equal weight, with the readout calibration
    as a common error. Where all outcomes of an orientation agree, its uncertainty is that
    of `calibration.readout.proportion_variance`. A set that kept no circuit in one of its
    orientations tells nothing: it is given 0.5 with the standard deviation of a uniform
    distribution, 1/sqrt(12). A statistic of no circuits, or the standard deviation of
    one, is None.

    Args:
        sets: results per pair of angles.
        readout: of the server's qubit.
        seed: of the run, to be reported.
        latency_limit_ms: longest live time the filter keeps.
        initial_fidelity: for the computed latency bound, of the delivered qubit.
        coherence_time_ms: for the computed latency bound.
        coherence_exponent: for the computed latency bound.
        wall_s: how long the run took, to be reported.

    Returns:
        ``experiment``, ``seed``, ``circuits``, ``sets`` (``alpha`` and ``theta`` in
        radians in -pi..pi; ``fidelity`` and ``kept`` per stage), ``mean_fidelity``,
        ``live_time_ms``, ``segments_ms``, ``entanglement_ms``, ``discarded_latency`` (of
        all circuits), ``latency_bound_ms`` and ``wall_s``.

    Raises:
        InsufficientDataError: there are no sets, their segments differ, or there is no
            latency bound for these parameters.
    """
    if not sets:
        raise InsufficientDataError("no DQC sets to analyse")
    names = list(sets[0].segments)
    for data in sets[1:]:
        if set(data.segments) != set(names):
            raise InsufficientDataError(f"{data.name}: its segments differ from the first set's")
    estimates = {
        stage: [_fidelity(data, data.selected(stage, latency_limit_ms), readout) for data in sets]
        for stage in STAGES
    }
    segments = {name: np.concatenate([data.segments[name] for data in sets]) for name in names}
    kept = segments["live_time"] <= latency_limit_ms
    return {
        "experiment": "dqc",
        "seed": int(seed),
        "circuits": sum(data.outcome.size for data in sets),
        "sets": [
            {
                "alpha": _radians(data.alpha_steps),
                "theta": _radians(data.theta_steps),
                "fidelity": {stage: _as_json(estimates[stage][index]) for stage in STAGES},
                "kept": {
                    stage: int(data.selected(stage, latency_limit_ms).sum()) for stage in STAGES
                },
            }
            for index, data in enumerate(sets)
        ],
        "mean_fidelity": {stage: _as_json(mean_estimate(estimates[stage])) for stage in STAGES},
        "live_time_ms": _statistics(
            segments["live_time"][kept], ("mean", "sd", "p50", "p90", "max")
        ),
        "segments_ms": {
            name: _statistics(values[kept], ("mean", "sd")) for name, values in segments.items()
        },
        "entanglement_ms": _statistics(segments["entanglement"], ("mean", "sd", "p50")),
        "discarded_latency": int(kept.size - kept.sum()),
        "latency_bound_ms": time_to_fidelity_ms(
            initial_fidelity, coherence_time_ms, exponent=coherence_exponent
        ),
        "wall_s": float(wall_s),
    }


def _fidelity(data: DqcSetData, kept: NDArray[np.bool_], readout: ReadoutFidelity) -> Estimate:
    counts: list[int] = []
    for orientation in (0, 1):
        outcomes = data.outcome[kept & (data.orientation == orientation)]
        counts += [int(np.count_nonzero(outcomes == 0)), int(outcomes.size)]
    if 0 in counts[1::2]:
        return Estimate(0.5, 1 / math.sqrt(12))
    zeros_along, shots_along, zeros_against, shots_against = counts
    return two_orientation_fidelity(zeros_along, shots_along, zeros_against, shots_against, readout)


def _as_json(estimate: Estimate) -> dict[str, float]:
    return {"value": float(estimate.value), "sigma": float(estimate.sigma)}


def _radians(steps: int) -> float:
    """Angle of a number of pi/16 steps, in -pi < angle <= pi."""
    half = ANGLE_STEPS // 2
    signed = half - (half - int(steps)) % ANGLE_STEPS
    return signed * math.pi / half


_STATISTICS: Final[Mapping[str, tuple[int, Callable[[NDArray[Any]], Any]]]] = {
    "mean": (1, np.mean),
    "sd": (2, lambda values: np.std(values, ddof=1)),
    "p50": (1, np.median),
    "p90": (1, lambda values: np.percentile(values, 90)),
    "max": (1, np.max),
}
"""Statistics, with the fewest values that define them."""


def _statistics(values: NDArray[Any], names: Sequence[str]) -> dict[str, float | None]:
    result: dict[str, float | None] = {}
    for name in names:
        needed, compute = _STATISTICS[name]
        result[name] = float(compute(values)) if values.size >= needed else None
    return result
