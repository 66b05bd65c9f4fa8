"""What a core has played: a timeline in whole samples, and the signals it makes.

Kept as plain tuples of integers. A play lasts some microseconds and a run may hold a million
of them; as objects they would keep the garbage collector busier than the simulation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.hdawg.errors import SequencerFault

MAX_RECORDED: Final = 1_000_000
"""Plays a timeline may hold before somebody has to call `forget_before`."""

NOTHING: Final = -1
"""Instead of the number of a waveform or an entry."""


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


@dataclass(frozen=True)
class Levels:
    """What the command table has set for the two channels.

    Attributes:
        phases_deg: recorded only; they act on digital modulation, which is not simulated.
        amplitudes: factors.
    """

    phases_deg: tuple[float, float] = (0.0, 0.0)
    amplitudes: tuple[float, float] = (1.0, 1.0)


class Play(NamedTuple):
    """One item of the timeline.

    Attributes:
        start_sample: its first sample at the connector.
        n_samples: its length.
        waveform: what was played; None for zeros, or for the last value held.
        entry: index of the command-table entry, None if a play command of its own.
        levels: phases and amplitudes.
        is_held: the last value was held.
    """

    start_sample: int
    n_samples: int
    waveform: Waveform | None
    entry: int | None
    levels: Levels
    is_held: bool

    @property
    def stop_sample(self) -> int:
        """The sample after its last."""
        return self.start_sample + self.n_samples

    @property
    def wave_index(self) -> int | None:
        """Index of the waveform, None if there was none."""
        return None if self.waveform is None else self.waveform.index


class Timeline:
    """Plays in order of time, one after the other or with gaps, never overlapping."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        # Of each play: length, waveform, entry, levels (numbers or NOTHING), and if it is held.
        self._records: list[tuple[int, int, int, int, bool]] = []
        self._waveforms: list[Waveform] = []
        self._levels: list[Levels] = []
        self._level_numbers: dict[Levels, int] = {}
        self._current_levels = NOTHING

    def __len__(self) -> int:
        return len(self._starts)

    def number_of(self, waveform: Waveform) -> int:
        """A number for a waveform, under which it can be recorded."""
        self._waveforms.append(waveform)
        return len(self._waveforms) - 1

    def set_levels(self, levels: Levels) -> None:
        """Set the levels of everything recorded from now on.

        Raises:
            SequencerFault: there were too many different ones.
        """
        number = self._level_numbers.get(levels)
        if number is None:
            if len(self._levels) >= MAX_RECORDED:
                raise SequencerFault(f"{MAX_RECORDED} different phases and amplitudes were set")
            number = self._level_numbers[levels] = len(self._levels)
            self._levels.append(levels)
        self._current_levels = number

    def record(self, start: int, n_samples: int, waveform: int, entry: int, is_held: bool) -> None:
        """Append a play.

        Args:
            start: its first sample.
            n_samples: its length.
            waveform: the waveform's number, or `NOTHING`.
            entry: index of the command-table entry, or `NOTHING`.
            is_held: the last value is held.

        Raises:
            SequencerFault: the timeline is full.
        """
        if len(self._starts) >= MAX_RECORDED:
            raise SequencerFault(
                f"{MAX_RECORDED} plays are recorded; call forget_before() now and then"
            )
        self._starts.append(start)
        self._records.append((n_samples, waveform, entry, self._current_levels, is_held))

    def plays(self, start: int | None = None, stop: int | None = None) -> Iterator[Play]:
        """The plays that touch a window, in order of time.

        Args:
            start: first sample, None for all from the beginning.
            stop: sample after the last, None for all to the end.
        """
        first = 0 if start is None else max(0, bisect_right(self._starts, start) - 1)
        for index in range(first, len(self._starts)):
            begins = self._starts[index]
            if stop is not None and begins >= stop:
                return
            n_samples, waveform, entry, levels, is_held = self._records[index]
            if start is None or begins + n_samples > start:
                yield Play(
                    begins,
                    n_samples,
                    None if waveform == NOTHING else self._waveforms[waveform],
                    None if entry == NOTHING else entry,
                    self._levels[levels],
                    is_held,
                )

    def forget_before(self, sample: int) -> None:
        """Drop the plays that end before a sample."""
        drop = bisect_right(self._starts, sample) - 1
        # A play that holds the last value needs the one it comes from.
        while drop > 0 and self._records[drop][-1]:
            drop -= 1
        if drop > 0:
            del self._starts[:drop], self._records[:drop]

    def output(self, start: int, stop: int) -> NDArray[np.float64]:
        """The two channels in a window, of full scale, shape (stop - start, 2)."""
        values = np.zeros((stop - start, 2))
        for play in self.plays(start, stop):
            first, end = max(play.start_sample, start), min(play.stop_sample, stop)
            window = values[first - start : end - start]
            if play.waveform is not None:
                piece = slice(first - play.start_sample, end - play.start_sample)
                window[:] = play.waveform.values[piece] * play.levels.amplitudes
            elif play.is_held:
                window[:] = self._last_value_before(play.start_sample)
        return values

    def _last_value_before(self, sample: int) -> NDArray[np.float64]:
        """What a play that holds the last value finds at its start."""
        reached = sample
        while previous := next(iter(self.plays(reached - 1, reached)), None):
            if previous.waveform is not None:
                last = previous.waveform.values[previous.n_samples - 1]
                return np.asarray(last * previous.levels.amplitudes)
            if not previous.is_held:
                break
            reached = previous.start_sample
        return np.zeros(2)

    def marker_edges(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Changes of the marker word in a window, as (sample, new word).

        The word is 0 before the window, between plays and where a waveform has no markers.
        """
        edges: list[tuple[int, int]] = []
        word, reached = 0, start
        for play in self.plays(start, stop):
            first, end = max(play.start_sample, start), min(play.stop_sample, stop)
            if word and first > reached:
                edges.append((reached, 0))
                word = 0
            words = np.zeros(1, np.uint8)
            if play.waveform is not None and play.waveform.markers is not None:
                words = play.waveform.markers[first - play.start_sample : end - play.start_sample]
            for i in np.flatnonzero(np.diff(words, prepend=np.uint8(word))):
                edges.append((first + int(i), int(words[i])))
            word, reached = int(words[-1]), end
        if word and reached < stop:
            edges.append((reached, 0))
        return edges
