"""What the AWG has played, given to the spin in time with the light.

The AWG's output is known before its time has come, because orders wait in its queue. It acts on
the spin when its time has come: up to the moment at which the light changes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

from qnodeos.errors import LimitError
from sim.hdawg import Play
from sim.hdawg.timeline import Repeat
from sim.lab.played import Meanings
from sim.lab.timing import SAMPLES_PER_NS
from sim.nv.centre import NVCentre

MAX_WAITING: Final = 1_000_000
"""Bound on what waits; a program that only ever rotates gets there in some hours."""


class SpinFeed:
    """Holds what was played and has not acted on the spin yet, in order of time.

    Args:
        centre: whose spin it is.
        meanings: of the waveforms.
    """

    def __init__(self, centre: NVCentre, meanings: Meanings) -> None:
        self._centre = centre
        self._meanings = meanings
        self._waiting: deque[Play | Repeat] = deque()

    def append(self, item: Play | Repeat) -> None:
        """Take what was played next.

        Raises:
            LimitError: too much is waiting.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise LimitError(f"{MAX_WAITING} plays wait for the spin; let light or a readout come")
        self._waiting.append(item)

    def bring_to(self, limit: int) -> None:
        """Let everything act that ends by a sample; what light interrupted is dropped."""
        spin, waiting = self._centre.spin, self._waiting
        ready: list[Play | Repeat] = []
        while waiting:
            item = waiting[0]
            if isinstance(item, Repeat):
                pieces = _cut(item, spin.sample if item.start_sample < spin.sample else limit)
                if len(pieces) > 1:
                    waiting.popleft()
                    waiting.extendleft(reversed(pieces))
                    item = waiting[0]
            if item.start_sample < spin.sample:
                waiting.popleft()  # light took the spin while this was played
                continue
            if item.stop_sample > limit:
                break
            waiting.popleft()
            pump = None
            if isinstance(item, Play) and item.waveform is not None:
                pump = self._meanings.of(item.waveform).pump
            if pump is None:
                ready.append(item)
            else:
                spin.play(ready)
                ready = []
                start = item.start_sample / SAMPLES_PER_NS
                self._centre.pump(
                    start + pump[0] / SAMPLES_PER_NS, start + pump[1] / SAMPLES_PER_NS
                )
        spin.play(ready)


def _cut(item: Repeat, sample: int) -> list[Play | Repeat]:
    """A repeat in pieces: whole periods that end by a sample, the plays of one, what follows."""
    whole = min(item.count, max(0, sample - item.start_sample) // item.period_samples)
    left = item.count - whole
    if not left or sample <= item.start_sample + whole * item.period_samples:
        middle: list[Play] = []
    else:
        middle = list(item.period(whole))
        left -= 1
    before = [replace(item, count=whole)] if whole else []
    after = [item.without(item.count - left)] if left else []
    return [*before, *middle, *after]
