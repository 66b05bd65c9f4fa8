"""Loops of a program that repeat exactly, so that they need not be executed again.

A core that decouples a spin, repeats attempts or waits in a loop is a deterministic machine
with constant inputs. When it comes back to the head of a loop in a state it was in before,
relative to the time, it will do so for ever, until an input changes. The state is

* the registers, and the word of the last DIO trigger;
* what the player has still to do, relative to now, and its phases and amplitudes;
* the levels of the trigger and DIO outputs;
* the word on the DIO lines, which must not have changed in between.

Other inputs (user registers, settings of the DIO lines, waveforms, the command table) change
only between two runs of a core, which then calls `forget`. A loop that waits for a trigger
or makes an edge at an output is not looked at: see `leave`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from sim.hdawg.timeline import Pattern, Timeline

MAX_VISITS: Final = 64
"""Different states remembered of the way into a loop."""

MAX_LOOPS: Final = 4096
"""Loops remembered. The NV program has some for each of its words."""


@dataclass(frozen=True)
class Loop:
    """A loop with all its states.

    Attributes:
        period_samples: from one visit of its head in this state to the next.
        lead_samples: from the visit to the first play ordered after it.
        pattern: what is ordered in one period; no plays if nothing is.
    """

    period_samples: int
    lead_samples: int
    pattern: Pattern


@dataclass(frozen=True)
class _Visit:
    now: int
    position: int


class LoopFinder:
    """Watches the heads of the loops of one core.

    Attributes:
        steady: the loop the core is in, None if it is in none that is known.
        visited_at: sample at which it last was in the state the loop is known by.
    """

    def __init__(self) -> None:
        self.steady: Loop | None = None
        self.visited_at = 0
        self._visits: dict[Hashable, _Visit] = {}
        self._loops: dict[Hashable, Loop] = {}
        self._patterns: dict[Pattern, Pattern] = {}

    def leave(self) -> None:
        """Something happened that a loop must not do, or an input has changed.

        The visits are forgotten too: between them periods may have been passed over.
        """
        self.steady = None
        self._visits.clear()

    def forget(self) -> None:
        """Something has changed that makes every known loop another one."""
        self.leave()
        self._loops.clear()
        self._patterns.clear()

    def visit(
        self, state: Hashable, now: int, unchanged_since: int, timeline: Timeline
    ) -> Loop | None:
        """Come to the head of a loop.

        Args:
            state: of the core, relative to now.
            now: sample.
            unchanged_since: when the DIO word last changed.
            timeline: of the core.

        Returns:
            The loop that begins now and goes on until an input changes, None if none is known.
        """
        loop = self._loops.get(state)
        if loop is None:
            if self.steady is not None and unchanged_since <= self.visited_at:
                return None  # a loop with several heads, or several rounds to a period
            if self.steady is not None:
                self.leave()
            earlier = self._visits.get(state)
            if earlier is not None and unchanged_since <= earlier.now < now:
                loop = self._found(state, earlier, now, timeline)
        if loop is not None:
            self.steady, self.visited_at = loop, now
            return loop
        if len(self._visits) >= MAX_VISITS:
            self._visits.clear()
        self._visits[state] = _Visit(now, timeline.position)
        return None

    def _found(self, state: Hashable, earlier: _Visit, now: int, timeline: Timeline) -> Loop | None:
        recorded = timeline.pattern_since(earlier.position)
        if recorded is None:
            return None
        first_sample, pattern = recorded
        if len(self._loops) >= MAX_LOOPS:
            self.forget()
        # One object for the same plays, whatever the registers were.
        pattern = self._patterns.setdefault(pattern, pattern)
        loop = Loop(now - earlier.now, first_sample - earlier.now, pattern)
        self._loops[state] = loop
        return loop
