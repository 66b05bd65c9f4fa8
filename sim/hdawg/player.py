"""The wave player: the queue of play commands between sequencer and output.

The queue is what keeps the output without gaps: the sequencer runs ahead of the player by
up to its depth, then stalls until the next command starts. A command that arrives when the
queue has run dry starts late, and the output is zero in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from sim.hdawg.errors import SequencerFault
from sim.hdawg.timeline import NOTHING, Levels, Timeline
from sim.hdawg.timing import CYCLE_SAMPLES, HdawgTiming

MIN_PLAY_SAMPLES: Final = 32
PLAY_GRANULARITY_SAMPLES: Final = 16
MAX_PLAY_SAMPLES: Final = (1 << 19) - 16
"""Limits of one play command (HDAWG user manual; the greatest from the vendor's compiler)."""

LONG_AGO: Final = -(1 << 62)


class Player:
    """Plays what one sequencer orders.

    Attributes:
        timeline: what was played, in the time of the connector.
        levels: phases and amplitudes from now on, see `set_levels`.
        free_at: when the last command ordered ends, in the time of the sequencer;
            `LONG_AGO` before the first.

    Args:
        timing: knobs.
        before_reading: see `Timeline`.
    """

    def __init__(
        self,
        timing: HdawgTiming,
        before_reading: Callable[[int | None], None] = lambda stop: None,
    ) -> None:
        self._before_reading = before_reading
        self._depth = timing.fifo_depth
        self._play_latency = timing.play_latency_samples
        self._output_latency = timing.output_latency_samples
        self.clear()

    def clear(self) -> None:
        """Empty queue and timeline; phases 0, amplitudes 1."""
        self.timeline = Timeline(self._before_reading)
        self.set_levels(Levels())
        self.free_at = LONG_AGO
        self._last_starts = deque([LONG_AGO] * self._depth, maxlen=self._depth)

    def set_levels(self, levels: Levels) -> None:
        """Set phases and amplitudes for everything ordered from now on."""
        self.levels = levels
        self.timeline.set_levels(levels)

    def state(self, now: int) -> tuple[int, ...]:
        """Everything that decides what becomes of the next commands, relative to now.

        What lies in the past is as good as now.
        """
        free = self.free_at - now
        return (
            self.timeline.current_levels,
            free if free > 0 else 0,
            *[start - now if start > now else 0 for start in self._last_starts],
        )

    def earliest_start(self, now: int) -> int:
        """No command given from now on starts before this sample of the connector."""
        return max(now + self._play_latency, self.free_at) + self._output_latency

    def pass_over(self, n_samples: int) -> None:
        """Be in the same state, relative to the time, some samples later."""
        self.free_at += n_samples
        self._last_starts = deque(
            [start + n_samples for start in self._last_starts], maxlen=self._depth
        )

    def order(
        self,
        now: int,
        n_samples: int,
        waveform: int = NOTHING,
        entry: int = NOTHING,
        is_held: bool = False,
    ) -> int:
        """Queue a play command.

        Args:
            now: sample at which the sequencer executes it.
            n_samples: length.
            waveform: its number in the timeline; `NOTHING` for zeros or the last value held.
            entry: of the command table it comes from, or `NOTHING`.
            is_held: hold the last value.

        Returns:
            The sample at which the sequencer could really execute it: later than `now`, on
            its grid, if it had to wait for room in the queue.

        Raises:
            SequencerFault: the length is impossible, or the timeline is full.
        """
        if (
            n_samples % PLAY_GRANULARITY_SAMPLES
            or not MIN_PLAY_SAMPLES <= n_samples <= MAX_PLAY_SAMPLES
        ):
            raise SequencerFault(
                f"a play of {n_samples} samples; the length must be {MIN_PLAY_SAMPLES}.."
                f"{MAX_PLAY_SAMPLES} and a multiple of {PLAY_GRANULARITY_SAMPLES}"
            )
        # There is room as soon as the command that is the queue's depth back has started.
        room_at = self._last_starts[0]
        if room_at > now:
            now = room_at + -(room_at - now) % CYCLE_SAMPLES
        start = now + self._play_latency
        start = max(start, self.free_at)
        self.free_at = start + n_samples
        self._last_starts.append(start)
        self.timeline.record(start + self._output_latency, n_samples, waveform, entry, is_held)
        return now
