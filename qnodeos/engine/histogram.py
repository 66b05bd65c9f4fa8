"""A histogram of bounded size with exact counts and a relative resolution of 1/32.

Values below 32 have a bucket each; above, every power of two is divided into 32. The native
engine counts in the same buckets (csrc/histogram.h).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SUB_BITS: Final = 5
BUCKETS: Final = 40 << SUB_BITS
"""The last bucket also takes all that is larger than it: about 2^44, 4.9 hours in ns."""


def bucket_of(value: int) -> int:
    """Index of the bucket that counts ``value``; negative values count as 0."""
    if value < 1 << SUB_BITS:
        return max(value, 0)
    shift = value.bit_length() - SUB_BITS - 1
    return min((shift << SUB_BITS) + (value >> shift), BUCKETS - 1)


def upper_bound(bucket: int) -> int:
    """The largest value that ``bucket`` counts."""
    if bucket < 2 << SUB_BITS:
        return bucket
    shift = (bucket >> SUB_BITS) - 1
    return ((bucket & (1 << SUB_BITS) - 1) + (1 << SUB_BITS) + 1 << shift) - 1


@dataclass(frozen=True)
class Histogram:
    """What was counted.

    Attributes:
        counts: (bucket, number of values) of the buckets that are not empty, ascending.
        maximum: the largest value, exactly; 0 if there is none.
    """

    counts: tuple[tuple[int, int], ...] = ()
    maximum: int = 0

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(number for _, number in self.counts)

    def quantile(self, fraction: float) -> int:
        """The value that this fraction of all values does not exceed, rounded up to a bucket.

        Args:
            fraction: 0 to 1.

        Returns:
            The value, never above `maximum`; 0 if nothing was counted.
        """
        wanted = fraction * self.total
        below = 0
        for bucket, number in self.counts:
            below += number
            if below >= wanted:
                return min(upper_bound(bucket), self.maximum)
        return self.maximum


class HistogramCounter:
    """Counts values for a `Histogram`."""

    __slots__ = ("_counts", "_maximum")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._maximum = 0

    def add(self, value: int) -> None:
        """Count one value."""
        self._counts[bucket_of(value)] += 1
        self._maximum = max(self._maximum, value)

    def read(self) -> Histogram:
        """What has been counted so far."""
        return from_counts(self._counts, self._maximum)


def from_counts(counts: Iterable[int], maximum: int) -> Histogram:
    """The histogram of one count per bucket."""
    return Histogram(
        tuple((bucket, number) for bucket, number in enumerate(counts) if number), maximum
    )
