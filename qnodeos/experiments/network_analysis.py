"""From the pairs of a run to fidelities and rates with their confidence, beside predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.experiments.network_pairs import SIGNS, FlowData, PairsData, PairsSettings
from qnodeos.experiments.network_prediction import Prediction, find_path
from sim.noise import NS_PER_MS

Z_95: Final = 1.96
"""Of a two-sided confidence of 95 %."""
_EXACT: Final = 1e-9
"""Difference that rounding explains."""


def analyse_pairs(
    settings: PairsSettings, data: PairsData, predictions: Sequence[Prediction] | None
) -> dict[str, Any]:
    """What came of a run.

    Args:
        settings: what was run.
        data: what it gave.
        predictions: one per flow, None if there are none.

    Returns:
        Plain data for JSON; a half-width is that of a confidence of 95 %.
    """
    flows = []
    for place, flow in enumerate(data.flows):
        prediction = None if predictions is None else predictions[place]
        path = find_path(settings.network, *flow.flow)
        fidelity, error = _fidelity(flow, measured=settings.measured)
        spacing_ms, spacing_error = _mean_and_error(np.diff(flow.times_ns) / NS_PER_MS)
        rate = 1e3 / spacing_ms
        flows.append(
            {
                "from": flow.flow[0],
                "to": flow.flow[1],
                "path": list(path),
                "hops": len(path) - 1,
                "delivered": len(flow.times_ns),
                "ids_agreed": flow.ids[0] == flow.ids[1],
                "fidelity": _beside(
                    fidelity, error, None if prediction is None else prediction.fidelity
                ),
                "rate_hz": _beside(
                    rate,
                    rate * spacing_error / spacing_ms,
                    None if prediction is None else prediction.rate_hz,
                ),
            }
        )
    return {
        "flows": flows,
        "mean": {name: _pooled(flows, name) for name in ("fidelity", "rate_hz")},
        "leaked": data.leaked,
        "measured": settings.measured,
        "pairs": settings.pairs,
        "seed": settings.seed,
        "simulated_s": data.simulated_s,
    }


def _fidelity(flow: FlowData, *, measured: bool) -> tuple[float, float]:
    """Mean over the pairs and its standard error; without states, from the correlations."""
    if not measured:
        return _mean_and_error(flow.fidelities)
    parts = {basis: _correlation(values) for basis, values in flow.correlations().items()}
    value = (1 + sum(SIGNS[basis] * mean for basis, (mean, _) in parts.items())) / 4
    return value, math.hypot(*(error for _, error in parts.values())) / 4


def _correlation(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of values +1 and -1 and its standard error, which is none of 0 if all are equal."""
    count = len(values)
    equal = float(np.sum(values > 0))
    share = (equal + 1) / (count + 2)  # as if there had been one more of each
    return 2 * equal / count - 1, 2 * math.sqrt(share * (1 - share) / count)


def _mean_and_error(values: Any) -> tuple[float, float]:
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return float(array.mean()) if len(array) else math.nan, 0.0
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array)))


def _beside(value: float, error: float, predicted: float | None) -> dict[str, float | None]:
    """A value with its confidence, beside the prediction.

    ``z`` is how many standard errors lie between; None if nothing is predicted, or if the
    value does not vary.
    """
    z = None
    if predicted is not None and error > _EXACT:
        z = (value - predicted) / error
    return {
        "value": value,
        "error": error,
        "half_width": Z_95 * error,
        "predicted": predicted,
        "z": z,
    }


def _pooled(flows: Sequence[dict[str, Any]], name: str) -> dict[str, float | None]:
    """The mean over all flows, which are independent."""
    values = [flow[name]["value"] for flow in flows]
    errors = [flow[name]["error"] for flow in flows]
    predicted = [flow[name]["predicted"] for flow in flows]
    count = len(flows)
    return _beside(
        sum(values) / count,
        math.hypot(*errors) / count,
        None if None in predicted else sum(predicted) / count,
    )
