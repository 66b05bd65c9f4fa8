"""The wave player: a queue of play commands, and the timeline of what was played.

The queue is what keeps the output without gaps: the sequencer runs ahead of the player by
up to its depth, then stalls until the next command starts. A command that arrives when the
queue has run dry starts late, and the output is zero in between.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.hdawg.errors import SequencerFault
from sim.hdawg.timing import CYCLE_SAMPLES, HdawgTiming

MIN_PLAY_SAMPLES: Final = 32
PLAY_GRANULARITY_SAMPLES: Final = 16
MAX_PLAY_SAMPLES: Final = (1 << 19) - 16
"""Limits of one play command (HDAWG user manual; the greatest from the vendor's compiler)."""

MAX_RECORDED: Final = 1_000_000
"""Plays a timeline may hold before somebody has to call `forget_before`."""


@dataclass(frozen=True, eq=False)
class Waveform:
    """A waveform in the memory of a core.

    Attributes:
        index: wave index.
        values: of full scale, shape (n_samples, 2); the second column is zero if only one
            channel is used.
        markers: marker word of each sample, shape (n_samples,), None without markers.
    """

    index: int
    values: NDArray[np.float64]
    markers: NDArray[np.uint8] | None


class Play(NamedTuple):
    """One item of the timeline.

    Attributes:
        start_sample: its first sample at the connector.
        n_samples: its length.
        waveform: what was played; None for zeros, or for the last value held.
        entry: index of the command-table entry, None if a play command of its own.
        phases_deg: of the two channels, as the command table left them. Recorded only:
            they act on digital modulation, which is not simulated.
        amplitudes: factors of the two channels, as the command table left them.
        is_held: the last value was held.
    """

    start_sample: int
    n_samples: int
    waveform: Waveform | None
    entry: int | None
    phases_deg: tuple[float, float]
    amplitudes: tuple[float, float]
    is_held: bool

    @property
    def stop_sample(self) -> int:
        """The sample after its last."""
        return self.start_sample + self.n_samples

    @property
    def wave_index(self) -> int | None:
        """Index of the waveform, None if there was none."""
        return None if self.waveform is None else self.waveform.index


class Player:
    """Plays what one sequencer orders.

    Attributes:
        plays: the timeline, in order of time.
        phases_deg: of the two channels.
        amplitudes: factors of the two channels.
    """

    def __init__(self, timing: HdawgTiming) -> None:
        self._depth = timing.fifo_depth
        self._play_latency = timing.play_latency_samples
        self._output_latency = timing.output_latency_samples
        self.clear()

    def clear(self) -> None:
        """Empty queue and timeline; phases 0, amplitudes 1."""
        self.plays: list[Play] = []
        self.phases_deg = (0.0, 0.0)
        self.amplitudes = (1.0, 1.0)
        self._waiting: deque[int] = deque()
        self._free_at: int | None = None

    @property
    def free_at(self) -> int | None:
        """When the last command ordered ends, in the sequencer's time; None if there is none."""
        return self._free_at

    def order(
        self,
        now: int,
        n_samples: int,
        waveform: Waveform | None = None,
        entry: int | None = None,
        is_held: bool = False,
    ) -> int:
        """Queue a play command.

        Args:
            now: sample at which the sequencer executes it.
            n_samples: length.
            waveform: None for zeros or the last value held.
            entry: of the command table it comes from.
            is_held: hold the last value.

        Returns:
            The sample at which the sequencer could really execute it: later than `now`, on
            its grid, if it had to wait for room in the queue.

        Raises:
            SequencerFault: the length is impossible, or the timeline is full.
        """
        if (
            n_samples < MIN_PLAY_SAMPLES
            or n_samples > MAX_PLAY_SAMPLES
            or n_samples % PLAY_GRANULARITY_SAMPLES
        ):
            raise SequencerFault(
                f"a play of {n_samples} samples; the length must be {MIN_PLAY_SAMPLES}.."
                f"{MAX_PLAY_SAMPLES} and a multiple of {PLAY_GRANULARITY_SAMPLES}"
            )
        if len(self.plays) >= MAX_RECORDED:
            raise SequencerFault(
                f"{MAX_RECORDED} plays are recorded; call forget_before() now and then"
            )
        waiting = self._waiting
        while waiting and waiting[0] <= now:
            waiting.popleft()
        if len(waiting) >= self._depth:
            room_at = waiting[-self._depth]
            now = room_at + -(room_at - now) % CYCLE_SAMPLES
        start = now + self._play_latency
        if self._free_at is not None and self._free_at > start:
            start = self._free_at
        self._free_at = start + n_samples
        waiting.append(start)
        self.plays.append(
            Play(
                start + self._output_latency,
                n_samples,
                waveform,
                entry,
                self.phases_deg,
                self.amplitudes,
                is_held,
            )
        )
        return now

    def forget_before(self, sample: int) -> None:
        """Drop the plays that end before a sample, but for the last of them."""
        keep = next(
            (i for i, play in enumerate(self.plays) if play.stop_sample > sample), len(self.plays)
        )
        # One more stays, because a value may be held from it.
        del self.plays[: max(0, keep - 1)]

    def output(self, start: int, stop: int) -> NDArray[np.float64]:
        """The two channels in a window, of full scale, shape (stop - start, 2)."""
        values = np.zeros((stop - start, 2))
        last = np.zeros(2)
        for play in self.plays:
            if play.start_sample >= stop:
                break
            if play.waveform is not None:
                values_played = play.waveform.values[: play.n_samples] * play.amplitudes
                last = values_played[-1]
            elif not play.is_held:
                last = np.zeros(2)
            first, end = max(play.start_sample, start), min(play.stop_sample, stop)
            if first < end:
                values[first - start : end - start] = (
                    last
                    if play.waveform is None
                    else values_played[first - play.start_sample : end - play.start_sample]
                )
        return values

    def marker_edges(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Changes of the marker word in a window, as (sample, new word).

        The word is 0 before the window, between plays and where a waveform has no markers.
        """
        edges: list[tuple[int, int]] = []
        word, reached = 0, start
        for play in self.plays:
            if play.start_sample >= stop:
                break
            if play.stop_sample <= start:
                continue
            if play.start_sample > reached and word:
                edges.append((reached, 0))
                word = 0
            first, end = max(play.start_sample, start), min(play.stop_sample, stop)
            markers = None if play.waveform is None else play.waveform.markers
            if markers is None:
                words = np.zeros(1, np.uint8)
            else:
                words = markers[first - play.start_sample : end - play.start_sample]
            changes = np.flatnonzero(np.diff(words, prepend=np.uint8(word)))
            edges.extend((first + int(i), int(words[i])) for i in changes)
            word, reached = int(words[-1]), end
        if word and reached < stop:
            edges.append((reached, 0))
        return edges
