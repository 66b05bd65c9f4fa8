"""How many photons a fluorescing ion gives, and which threshold tells bright from dark.

S1/2 scatters light (bright), D5/2 does not (dark). With `background` counts expected in a
window of either, and `signal` more of S1/2, the count of S1/2 is Poisson distributed about
their sum. D5/2 decays with a mean lifetime tau; decaying at a time s of a window t it gives::

    exp(-t/tau) Pois(k; l_d) + int_0^t ds/tau exp(-s/tau) Pois(k; l_d + l_b (t-s)/t)

where l_d is the background and l_b the signal. With u the mean in the integral and
a = t / (tau l_b) that has a closed form in regularised incomplete gamma functions::

    a exp(-t/tau - a l_d) (1-a)^-(k+1) [P(k+1, (1-a) (l_d+l_b)) - P(k+1, (1-a) l_d)].
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammainc
from scipy.stats import poisson

from sequences.errors import SequenceError

MAX_MEAN: Final = 1e6
"""Most counts expected in a window."""

_TAIL: Final = 12.0
"""Standard deviations above the bright mean beyond which no threshold is looked for."""


class Window(NamedTuple):
    """What is expected in one detection window.

    Attributes:
        background: mean counts of either state.
        signal: mean counts that S1/2 gives besides.
        decays: length of the window in mean lifetimes of D5/2.
    """

    background: float
    signal: float
    decays: float

    def checked(self) -> Window:
        """The same.

        Raises:
            SequenceError: a mean is out of range, or D5/2 decays faster than it would have to
                give a single photon, so that there is nothing to detect.
        """
        if not (0 <= self.background <= MAX_MEAN and 0 < self.signal <= MAX_MEAN):
            raise SequenceError(
                f"a window with {self.background:g} background and {self.signal:g} signal counts "
                f"is not within 0..{MAX_MEAN:g}"
            )
        if not 0 <= self.decays < self.signal:
            raise SequenceError(
                f"a window of {self.decays:g} lifetimes must have more signal counts than that, "
                f"and has {self.signal:g}"
            )
        return self


def bright_pmf(counts: ArrayLike, window: Window) -> NDArray[np.float64]:
    """Probabilities of some counts of S1/2, of the shape of ``counts``."""
    window.checked()
    pmf: NDArray[np.float64] = poisson.pmf(counts, window.background + window.signal)
    return pmf


def dark_pmf(counts: ArrayLike, window: Window) -> NDArray[np.float64]:
    """Probabilities of some counts of D5/2, which may decay, of the shape of ``counts``."""
    background, signal, decays = window.checked()
    k = np.asarray(counts, dtype=np.float64)
    kept: NDArray[np.float64] = np.exp(-decays) * poisson.pmf(k, background)
    if not decays:
        return kept
    a = decays / signal
    low, high = (1 - a) * background, (1 - a) * (background + signal)
    share = gammainc(k + 1, high) - gammainc(k + 1, low)
    with np.errstate(divide="ignore"):
        logarithm = np.log(np.maximum(share, 0.0)) - (k + 1) * np.log1p(-a)
    decayed: NDArray[np.float64] = np.where(
        k >= 0, a * np.exp(logarithm - decays - a * background), 0.0
    )
    return kept + decayed


def readout_errors(window: Window, threshold: int) -> tuple[float, float]:
    """P(dark|S1/2) and P(bright|D5/2), if counts up to a threshold are dark."""
    background, signal, _ = window.checked()
    dark_of_s = float(poisson.cdf(threshold, background + signal))
    bright_of_d = 1 - float(dark_pmf(np.arange(threshold + 1), window).sum())
    return dark_of_s, min(1.0, max(0.0, bright_of_d))


def optimal_threshold(window: Window) -> int:
    """The highest dark count that makes the sum of both errors least."""
    background, signal, _ = window.checked()
    mean = background + signal
    counts = np.arange(int(mean + _TAIL * np.sqrt(mean)) + 2)
    # One more count is called dark as long as that is likelier.
    gain = np.cumsum(dark_pmf(counts, window) - bright_pmf(counts, window))
    return int(np.argmax(gain))
