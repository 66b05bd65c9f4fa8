"""What light on a narrow transition does to an ion that moves.

The ion oscillates along the laser's direction with n phonons, distributed thermally about a
mean. To the Lamb-Dicke parameter eta, the Rabi frequencies in units of that of the carrier at
n = 0 are (Wineland et al., J. Res. NIST 103, 259 (1998), eq. 70)::

    carrier          n -> n      L_n(eta^2)
    red sideband     n -> n-1    eta sqrt(1/n) L^1_{n-1}(eta^2)

with Laguerre polynomials, to all orders of eta; the factor exp(-eta^2/2) that both have is in
the unit.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import eval_genlaguerre, eval_laguerre

from sequences.errors import SequenceError

Floats = NDArray[np.float64]

MAX_LEVELS: Final = 512
"""Most numbers of phonons that are told apart."""
MAX_MEAN_PHONONS: Final = 40.0
"""Beyond it, `MAX_LEVELS` would leave out more than 3e-6 of the distribution."""
NEGLECTED: Final = 1e-8
"""Share of a thermal distribution that may be left out where `MAX_LEVELS` allows it."""


def thermal(mean_phonons: float, levels: int | None = None) -> Floats:
    """Thermal distribution of phonons, normalised.

    Args:
        mean_phonons: its mean.
        levels: how many there are; None for as many as it takes.

    Raises:
        SequenceError: the mean is out of range.
    """
    if not 0 <= mean_phonons <= MAX_MEAN_PHONONS:
        raise SequenceError(
            f"a mean of {mean_phonons:g} phonons is outside 0..{MAX_MEAN_PHONONS:g}"
        )
    ratio = mean_phonons / (mean_phonons + 1)
    if levels is None:
        needed = math.ceil(math.log(NEGLECTED) / math.log(ratio)) if ratio else 0
        levels = min(MAX_LEVELS, needed + 1)
    weights: Floats = np.power(ratio, np.arange(levels, dtype=np.float64))
    weights /= weights.sum()
    return weights


@lru_cache(maxsize=64)
def carrier_factors(levels: int, eta: float) -> Floats:
    """Rabi frequencies of the carrier for n = 0 .. levels - 1; read only."""
    factors: Floats = eval_laguerre(np.arange(levels), eta**2)
    factors.flags.writeable = False
    return factors


def sideband_factors(levels: int, eta: float) -> Floats:
    """Rabi frequencies between n and n - 1 for n = 0 .. levels - 1; none for n = 0."""
    n = np.arange(1, levels)
    factors: Floats = np.zeros(levels)
    factors[1:] = eta / np.sqrt(n) * eval_genlaguerre(n - 1, 1, eta**2)
    return factors


def flip(rabi: ArrayLike, detuning: ArrayLike, time: ArrayLike) -> Floats:
    """Probability that a pulse flips a two-level system.

    Args:
        rabi: Rabi frequency as an angular frequency.
        detuning: of the light, likewise.
        time: length of the pulse, in the same unit of time.
    """
    omega, delta = np.asarray(rabi, np.float64), np.asarray(detuning, np.float64)
    both = np.hypot(omega, delta)
    share = np.divide(omega, both, out=np.zeros_like(both), where=both > 0)
    result: Floats = (share * np.sin(both * np.asarray(time) / 2)) ** 2
    return result
