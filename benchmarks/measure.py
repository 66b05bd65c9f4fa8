"""Timing two pieces of work in turn, A B A B ..., and what comes out of it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: how often both pieces of work are done after one warm-up.
        fraction: of the full amount of work in each.
    """

    rounds: int = 11
    fraction: float = 1.0

    def of(self, amount: int) -> int:
        """A part of the full amount, at least 1."""
        return max(1, round(amount * self.fraction))


@dataclass(frozen=True)
class Work:
    """A piece of work to be timed.

    Attributes:
        name: what does it.
        unit: what is counted, in the singular.
        count: how many of them one call does.
        prepare: makes the function to be timed, afresh for every round.
    """

    name: str
    unit: str
    count: int
    prepare: Callable[[], Callable[[], object]]


@dataclass(frozen=True)
class Figure:
    """One ratio.

    Attributes:
        name: of the figure.
        meaning: what the ratio says, as a phrase before the reference's name.
        ours: name of our work, and its time per unit.
        reference: the other's.
        ratios: one per round.
        wanted: least and greatest median wanted, None if there is no such thing.
    """

    name: str
    meaning: str
    ours: Timing
    reference: Timing
    ratios: tuple[float, ...]
    wanted: tuple[float, float] | None = None

    @property
    def ratio(self) -> float:
        """The median over the rounds."""
        return median(self.ratios)

    @property
    def is_missed(self) -> bool:
        """Whether a ratio was wanted and this is not it."""
        return self.wanted is not None and not self.wanted[0] <= self.ratio <= self.wanted[1]


@dataclass(frozen=True)
class Timing:
    """Time of one piece of work per unit, on this machine, median over the rounds."""

    name: str
    unit: str
    ns: float


@dataclass(frozen=True)
class Outcome:
    """What a benchmark reports.

    Attributes:
        figures: its ratios.
        gc: what the garbage collector did while it ran.
        shares: parts of a whole, name to fraction, if it found any.
        notes: what a reader should know.
    """

    figures: Sequence[Figure]
    gc: str
    shares: dict[str, float] | None = None
    notes: Sequence[str] = ()


GC_OFF: Final = "off while timed, collected before each round"
GC_FROZEN: Final = "on, objects made before the round frozen (as in the experiment)"


@contextmanager
def gc_off() -> Iterator[None]:
    """Keep the garbage collector out."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def gc_paused() -> Iterator[None]:
    """Keep the garbage collector out of work that makes no garbage to collect before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def gc_frozen() -> Iterator[None]:
    """Leave the garbage collector on, but spare it what exists already."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass(frozen=True)
class Samples:
    """Times of two pieces of work per unit, one pair per round."""

    ours: Work
    reference: Work
    ours_ns: tuple[float, ...]
    reference_ns: tuple[float, ...]

    def speed(self, name: str, *, at_least: float | None = None) -> Figure:
        """How many times as fast ours is as the reference."""
        wanted = None if at_least is None else (at_least, float("inf"))
        pairs = zip(self.ours_ns, self.reference_ns, strict=True)
        ratios = tuple(reference / ours for ours, reference in pairs)
        return self._figure(name, "times as fast as", ratios, wanted)

    def cost(self, name: str, *, wanted: tuple[float, float] | None = None) -> Figure:
        """How many times the reference's time a unit of ours takes."""
        pairs = zip(self.ours_ns, self.reference_ns, strict=True)
        ratios = tuple(ours / reference for ours, reference in pairs)
        return self._figure(name, "times the time of", ratios, wanted)

    def _figure(
        self,
        name: str,
        meaning: str,
        ratios: tuple[float, ...],
        wanted: tuple[float, float] | None,
    ) -> Figure:
        return Figure(
            name,
            meaning,
            Timing(self.ours.name, self.ours.unit, median(self.ours_ns)),
            Timing(self.reference.name, self.reference.unit, median(self.reference_ns)),
            ratios,
            wanted,
        )


def compare(
    ours: Work,
    reference: Work,
    effort: Effort,
    *,
    gc_state: Callable[[], AbstractContextManager[None]] = gc_off,
    clock: Callable[[], int] = time.process_time_ns,
    warm_up: bool = True,
) -> Samples:
    """Do both in turn, once to warm up and then ``effort.rounds`` times.

    Args:
        ours: our work.
        reference: what it is compared with.
        effort: how many rounds.
        gc_state: context manager around each timed call, `gc_off` or `gc_frozen`.
        clock: nanoseconds of this process (other programs on the machine count little), or
            a wall clock where other processes do the work.
        warm_up: False leaves the round to warm up out.
    """
    ours_ns, reference_ns = [], []
    for round_number in range(-warm_up, effort.rounds):
        times = _timed(ours, gc_state, clock), _timed(reference, gc_state, clock)
        if round_number >= 0:
            ours_ns.append(times[0])
            reference_ns.append(times[1])
    return Samples(ours, reference, tuple(ours_ns), tuple(reference_ns))


def _timed(
    work: Work, gc_state: Callable[[], AbstractContextManager[None]], clock: Callable[[], int]
) -> float:
    run = work.prepare()
    with gc_state():
        start_ns = clock()
        run()
        # A coarse clock must not make a ratio infinite.
        return max(clock() - start_ns, 1) / work.count
