"""Analysis of the trapped-ion demonstration: how often each sequence ends dark.

What QNodeOS measured is compared with the same instructions sent straight to the device, and
with the closed form. Each comparison is a difference in standard errors of what would be
expected if there were none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, kstest

from qnodeos.errors import InsufficientDataError
from qnodeos.experiments.ion_circuits import SEQUENCES
from qnodeos.experiments.ion_direct import Exchanges

RUNS: Final = ("qnodeos", "direct")
"""Through the full stack, and without QNodeOS."""


Outcomes = NDArray[np.int8]
"""1 for dark, 0 for bright; shape (repetitions, 7)."""


@dataclass(frozen=True)
class IonData:
    """What a number of repetitions measured.

    Attributes:
        qnodeos: of every circuit through QNodeOS.
        direct: the same without QNodeOS.
        exchanges: of frames, in both.
        elapsed_s: time of the node in both, virtual.

    Raises:
        InsufficientDataError: there are no repetitions, or shapes or values are impossible.
    """

    qnodeos: Outcomes
    direct: Outcomes
    exchanges: Exchanges
    elapsed_s: float

    def __post_init__(self) -> None:
        for name in RUNS:
            outcomes = getattr(self, name)
            shape = outcomes.shape
            if len(shape) != 2 or shape[1] != len(SEQUENCES) or not shape[0]:
                raise InsufficientDataError(
                    f"outcomes of shape {shape} in {name}; need (repetitions, {len(SEQUENCES)})"
                )
            if not np.isin(outcomes, (0, 1)).all():
                raise InsufficientDataError(f"outcomes in {name} must be 0 or 1")
        if self.qnodeos.shape != self.direct.shape:
            raise InsufficientDataError(
                f"{self.qnodeos.shape[0]} repetitions in qnodeos, {self.direct.shape[0]} in direct"
            )

    @property
    def repetitions(self) -> int:
        """Of each sequence, in each of the two."""
        return len(self.qnodeos)


def merge(parts: Iterable[IonData]) -> IonData:
    """Several parts as one.

    Raises:
        InsufficientDataError: there is none.
    """
    known = list(parts)
    if not known:
        raise InsufficientDataError("there are no circuits")
    exchanges = known[0].exchanges
    for part in known[1:]:
        exchanges = exchanges.joined(part.exchanges)
    return IonData(
        np.concatenate([part.qnodeos for part in known]),
        np.concatenate([part.direct for part in known]),
        exchanges,
        sum(part.elapsed_s for part in known),
    )


def analyse_ion(
    data: IonData, expected: Sequence[float], *, seed: int, wall_s: float
) -> dict[str, Any]:
    """The result, as it is written to JSON.

    Args:
        data: all circuits.
        expected: probability that each sequence ends dark, in closed form.
        seed: of the run.
        wall_s: how long it took.

    Raises:
        InsufficientDataError: there is not one expectation per sequence.
    """
    if len(expected) != len(SEQUENCES):
        raise InsufficientDataError(f"{len(expected)} expectations for {len(SEQUENCES)} sequences")
    n = data.repetitions
    counts = {name: getattr(data, name).sum(axis=0, dtype=np.int64) for name in RUNS}
    sequences: list[dict[str, Any]] = []
    for index, name in enumerate(SEQUENCES):
        dark, direct = (int(counts[run][index]) for run in RUNS)
        sequences.append(
            {
                "name": name,
                "p_dark": dark / n,
                "sigma": standard_error(dark / n, n),
                "expected": expected[index],
                "z_expected": _z_expected(dark, n, expected[index]),
                "direct": {
                    "p_dark": direct / n,
                    "sigma": standard_error(direct / n, n),
                    "z_expected": _z_expected(direct, n, expected[index]),
                },
                "z": z_of_difference(dark, direct, n),
            }
        )
    exchanges = data.exchanges
    return {
        "experiment": "ion",
        "seed": seed,
        "repetitions": n,
        "circuits": n * len(SEQUENCES),
        "circuits_direct": n * len(SEQUENCES),
        "sequences": sequences,
        "agreement": {
            "direct": _agreement([each["z"] for each in sequences]),
            "expected": _agreement([each["z_expected"] for each in sequences]),
        },
        "exchange_hz": exchanges.rate_hz,
        "exchanges": {
            "count": exchanges.count,
            "grid_ns": exchanges.grid_ns,
            "shortest_ns": exchanges.shortest_ns,
        },
        "simulated_s": data.elapsed_s,
        "wall_s": wall_s,
    }


def standard_error(p: float, n: int) -> float:
    """Of a probability found in n trials; not less than if half a trial had been different."""
    kept = min(max(p, 0.5 / n), 1 - 0.5 / n)
    return math.sqrt(kept * (1 - kept) / n)


def z_of_difference(first: int, second: int, n: int) -> float:
    """Two counts of n each, the first less the second, in standard errors if both are alike."""
    p = (first + second) / (2 * n)
    if p in (0, 1):
        return 0.0
    return (first - second) / n / math.sqrt(2 * p * (1 - p) / n)


def unit_normal(z: Sequence[float]) -> dict[str, float]:
    """How differences in standard errors are distributed, against a unit normal.

    Args:
        z: of one run or more.

    Returns:
        Mean, variance about 0 and largest |z|; chi-square, the sum of their squares, and the
        probability of a larger one; probability of a larger distance between the distributions
        (Kolmogorov-Smirnov).
    """
    agreement = _agreement(z)
    return {
        "mean": sum(z) / len(z),
        "variance": agreement["chi_square"] / len(z),
        **agreement,
        "ks_p_value": float(kstest(z, "norm").pvalue),
    }


def _z_expected(count: int, n: int, p: float) -> float:
    return (count / n - p) / standard_error(p, n)


def _agreement(z: Sequence[float]) -> dict[str, float]:
    chi_square = sum(each**2 for each in z)
    return {
        "largest_z": max(abs(each) for each in z),
        "chi_square": chi_square,
        "degrees_of_freedom": len(z),
        "p_value": float(chi2.sf(chi_square, len(z))),
    }
