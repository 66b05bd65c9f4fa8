"""Fidelities from readout-corrected counts, and the time they survive in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from calibration.readout import (
    Estimate,
    ReadoutFidelity,
    check_binomial,
    correct_counts,
    proportion_variance,
)
from qnodeos.errors import InsufficientDataError
from qnodeos.qdevice.outcomes import BellState

CLASSICAL_BOUND: Final = 2 / 3
"""The bound DQC fidelities are compared with: the best average fidelity of passing on an
unknown qubit by measuring it and preparing another, Massar and Popescu, Phys. Rev. Lett.
74, 1259 (1995)."""

LATENCY_TARGET_FIDELITY: Final = 0.667
"""The classical bound as rounded by Delle Donne et al., Nature 639, 321 (2025), for the
latency filter."""

Basis = Literal["XX", "YY", "ZZ"]

_BELL_SIGNS: Final[dict[BellState, dict[Basis, int]]] = {
    BellState.PHI_PLUS: {"XX": 1, "YY": -1, "ZZ": 1},
    BellState.PHI_MINUS: {"XX": -1, "YY": 1, "ZZ": 1},
    BellState.PSI_PLUS: {"XX": 1, "YY": 1, "ZZ": -1},
    BellState.PSI_MINUS: {"XX": -1, "YY": -1, "ZZ": -1},
}
_PARITY: Final = np.array([1.0, -1.0, -1.0, 1.0])


def two_orientation_fidelity(
    zeros_plus: int, shots_plus: int, zeros_minus: int, shots_minus: int, readout: ReadoutFidelity
) -> Estimate:
    """Fidelity from measurements along and against the target state.

    F = (P(0 | along) + 1 - P(0 | against)) / 2 with both corrected for readout. As both
    share the readout, F - 1/2 is the observed contrast over 2 D, so the offset F1 - F0
    drops out and the calibration's error scales with F - 1/2.

    Args:
        zeros_plus: outcomes 0 when |target> is rotated to |0>.
        shots_plus: of that orientation.
        zeros_minus: outcomes 0 when the orthogonal state is rotated to |0>.
        shots_minus: of that orientation.
        readout: of the measured qubit.

    Raises:
        InsufficientDataError: an orientation has no shots or impossible counts.
    """
    check_binomial(zeros_plus, shots_plus)
    check_binomial(zeros_minus, shots_minus)
    scale = 1 / (2 * readout.contrast)
    excess = (zeros_plus / shots_plus - zeros_minus / shots_minus) * scale
    variance = proportion_variance(zeros_plus, shots_plus)
    variance += proportion_variance(zeros_minus, shots_minus)
    relative = math.hypot(readout.sigma_f0, readout.sigma_f1) / readout.contrast
    return Estimate(0.5 + excess, math.sqrt(variance) * scale, -excess * relative)


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """Unweighted mean of estimates that share one calibration.

    Statistical errors are independent; systematic ones move together.

    Raises:
        InsufficientDataError: there are none.
    """
    if not estimates:
        raise InsufficientDataError("no estimates to average")
    n = len(estimates)
    return Estimate(
        sum(e.value for e in estimates) / n,
        math.hypot(*(e.statistical for e in estimates)) / n,
        sum(e.systematic for e in estimates) / n,
    )


def bell_fidelity(
    counts: Mapping[Basis, ArrayLike],
    readout_a: ReadoutFidelity,
    readout_b: ReadoutFidelity,
    state: BellState = BellState.PHI_PLUS,
) -> Estimate:
    """Fidelity with a Bell state from its three correlators, corrected for readout.

    F = (1 + s_x <XX> + s_y <YY> + s_z <ZZ>) / 4, for Phi+ with signs +, -, +.

    Args:
        counts: per basis those of the outcomes 00, 01, 10, 11, shape (4,).
        readout_a: of the first qubit.
        readout_b: of the second qubit.
        state: the target.

    Raises:
        InsufficientDataError: a basis is missing, has no shots or impossible counts.
    """
    if missing := sorted(_BELL_SIGNS[state].keys() - counts.keys()):
        raise InsufficientDataError(f"Bell fidelity needs counts in {', '.join(missing)} too")
    value, variance, gradient = 0.25, 0.0, np.zeros(4)
    for basis, sign in _BELL_SIGNS[state].items():
        corrected = correct_counts(counts[basis], (readout_a, readout_b))
        weights = sign * _PARITY / 4
        value += float(weights @ corrected.probabilities)
        variance += float(weights @ corrected.statistical @ weights)
        gradient += corrected.gradient @ weights
    return Estimate(value, math.sqrt(variance), float(np.linalg.norm(gradient)))


def fidelity_after(
    time_ms: float, initial_fidelity: float, coherence_time_ms: float, exponent: float = 1.0
) -> float:
    """F(t) = 1/2 + (F0 - 1/2) exp(-(t/T)^n) of a qubit kept under dynamical decoupling."""
    decay = math.exp(-((time_ms / coherence_time_ms) ** exponent))
    return 0.5 + (initial_fidelity - 0.5) * decay


def time_to_fidelity_ms(
    initial_fidelity: float,
    coherence_time_ms: float,
    target: float = LATENCY_TARGET_FIDELITY,
    exponent: float = 1.0,
) -> float:
    """Time after which `fidelity_after` has fallen to ``target``.

    With F0 = (1 + |<XX>|)/2 = 0.833 and T = 13 ms this is 8.97 ms; the published latency
    filter is 8.95 ms.

    Raises:
        InsufficientDataError: F0 is not above the target, or the target not above 1/2, so
            that there is no such time.
    """
    if not 0.5 < target < initial_fidelity:
        raise InsufficientDataError(
            f"fidelity {initial_fidelity} never decays to {target}: 0.5 < target < F0 is needed"
        )
    if not (coherence_time_ms > 0 and exponent > 0):
        raise InsufficientDataError(
            f"coherence time {coherence_time_ms} ms and exponent {exponent} must be positive"
        )
    ratio = (initial_fidelity - 0.5) / (target - 0.5)
    return float(coherence_time_ms * math.log(ratio) ** (1 / exponent))
