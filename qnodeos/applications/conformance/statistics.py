"""Verdicts on counts: exact binomial tests and chi-square, each at a stated confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, chi2

from qnodeos.applications.conformance.observation import Verdict

SIGNIFICANCE: Final = 0.001
"""Of the tests that are the criterion itself (99.9 % confidence)."""
RARE: Final = 1e-5
"""Of the tests beside it: rarer than this is called wrong. Some thirty of them are made of every
seed, so that 3 seeds in 10,000 fail although all is right."""
IMPOSSIBLE: Final = 1e-6
"""A probability below this is called 0."""


def share(successes: int, trials: int, expected: float, what: str, rare: float = RARE) -> Verdict:
    """Whether a number of successes is as a probability says (two-sided exact test).

    Args:
        successes: how many there were.
        trials: of how many.
        expected: probability of each.
        what: is counted, for the detail.
        rare: significance.
    """
    if not trials:
        return Verdict(False, f"{what}: never tried")
    p_value = float(binomtest(successes, trials, expected).pvalue)
    return Verdict(
        p_value >= rare,
        f"{what}: {successes} of {trials}, {expected:.4g} expected (p = {p_value:.2g})",
    )


def better_than(successes: int, trials: int, bound: float, what: str) -> Verdict:
    """Whether successes are so many that a bound on their probability is refuted.

    Args:
        successes: how many there were.
        trials: of how many.
        bound: the largest probability that is to be refuted, at 99.9 % confidence.
        what: the bound is called, for the detail.
    """
    if not trials:
        return Verdict(False, f"{what}: never tried")
    p_value = float(binomtest(successes, trials, bound, alternative="greater").pvalue)
    return Verdict(p_value < SIGNIFICANCE, f"above {what} {bound:g} with p = {p_value:.2g}")


def distribution(
    groups: Sequence[tuple[Sequence[int], ArrayLike]], what: str, rare: float = RARE
) -> Verdict:
    """Whether outcomes occur as often as they should (Pearson's chi-square over all groups).

    Args:
        groups: the numbers of the outcomes of like runs, and the probability of each number.
        what: is tested, for the detail.
        rare: significance.
    """
    if not groups or not all(len(outcomes) for outcomes, _ in groups):
        return Verdict(False, f"{what}: no outcomes")
    statistic, freedom = 0.0, 0
    for outcomes, given in groups:
        probabilities = np.asarray(given, dtype=np.float64)
        possible = probabilities > IMPOSSIBLE
        seen = np.bincount(np.asarray(outcomes, dtype=np.intp), minlength=probabilities.size)
        if seen.size > probabilities.size or seen[~possible].any():
            return Verdict(False, f"{what}: an outcome that cannot be")
        expected = seen.sum() * probabilities[possible]
        statistic += float(((seen[possible] - expected) ** 2 / expected).sum())
        freedom += int(possible.sum()) - 1
    p_value = float(chi2.sf(statistic, freedom)) if freedom else 1.0
    return Verdict(
        p_value >= rare,
        f"{what}: chi-square {statistic:.3g} of {freedom} (p = {p_value:.2g})",
    )
