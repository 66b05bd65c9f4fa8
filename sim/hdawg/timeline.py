"""What a core has played: a timeline in whole samples, and the signals it makes.

Kept as plain tuples of integers. A play lasts some microseconds and a run may hold a million
of them; as objects they would keep the garbage collector busier than the simulation. What a
loop of the program plays over and over is kept once, as a `Repeat`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.hdawg.errors import SequencerFault

MAX_RECORDED: Final = 1_000_000
"""Items a timeline may hold before somebody has to call `take` or `forget_before`."""

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


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same plays several times, at a constant period.

    Attributes:
        start_sample: first sample of the first play.
        period_samples: from one time to the next.
        count: how many times, at least once.
        plays: of one period, their `start_sample` relative to the first play's. Hashable, and
            the same object for the same loop of the same program as long as it is cached.
    """

    start_sample: int
    period_samples: int
    count: int
    plays: tuple[Play, ...]

    @property
    def stop_sample(self) -> int:
        """The sample at which another period would start."""
        return self.start_sample + self.count * self.period_samples

    def period(self, number: int) -> Iterator[Play]:
        """The plays of one period, the first being number 0, at the times they are played."""
        shift = self.start_sample + number * self.period_samples
        for start, n_samples, waveform, entry, levels, is_held in self.plays:
            yield Play(start + shift, n_samples, waveform, entry, levels, is_held)

    def unrolled(self) -> Iterator[Play]:
        """Every play of every period."""
        for number in range(self.count):
            yield from self.period(number)

    def split(self, sample: int) -> tuple[int, int]:
        """How many periods start before a sample, and how many do not."""
        before = -(-(sample - self.start_sample) // self.period_samples)
        before = min(max(before, 0), self.count)
        return before, self.count - before

    def without(self, periods: int) -> Repeat:
        """The same without its first periods."""
        start = self.start_sample + periods * self.period_samples
        return replace(self, start_sample=start, count=self.count - periods)


_Record = tuple[int, int, int, int, bool]
"""A play as it is kept, its start aside: length, waveform, entry, levels, and if it is held."""


@dataclass(frozen=True)
class Pattern:
    """One period of a loop as a timeline recorded it.

    Attributes:
        plays: as in a `Repeat`.
        starts: of the plays, relative to the first.
        records: of the plays, in the numbers of the timeline.
    """

    plays: tuple[Play, ...]
    starts: tuple[int, ...]
    records: tuple[_Record, ...]


class Timeline:
    """Plays in order of time, one after the other or with gaps, never overlapping.

    Args:
        before_reading: called before anything is read, with the sample before which the
            reader wants to see plays, None for all: a core may have put off some work.
    """

    def __init__(self, before_reading: Callable[[int | None], None] = lambda stop: None) -> None:
        self._before_reading = before_reading
        self._starts: list[int] = []
        self._items: list[_Record | Repeat] = []
        self._n_removed = 0
        self._waveforms: list[Waveform] = []
        self._levels: list[Levels] = []
        self._level_numbers: dict[Levels, int] = {}
        self.current_levels = NOTHING
        """Number of the levels of everything recorded from now on."""

    def __len__(self) -> int:
        """How many plays there are, each period of a repeat counted."""
        self._before_reading(None)
        return sum(
            item.count * len(item.plays) if isinstance(item, Repeat) else 1 for item in self._items
        )

    # --- recording --------------------------------------------------------------------

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
        self.current_levels = number

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
        self._append(start, (n_samples, waveform, entry, self.current_levels, is_held))

    def _append(self, start: int, item: _Record | Repeat) -> None:
        if len(self._starts) >= MAX_RECORDED:
            raise SequencerFault(
                f"{MAX_RECORDED} plays are recorded; call forget_before() now and then"
            )
        self._starts.append(start)
        self._items.append(item)

    @property
    def position(self) -> int:
        """Where the next item will stand, counted from the first ever recorded."""
        return self._n_removed + len(self._items)

    def pattern_since(self, position: int) -> tuple[int, Pattern] | None:
        """What was recorded since a position.

        Returns:
            Its first sample (0 if nothing was) and the plays. None if part of them has been
            removed or is a repeat itself.
        """
        first = position - self._n_removed
        if first < 0:
            return None
        items = self._items[first:]
        records = tuple(item for item in items if not isinstance(item, Repeat))
        if len(records) != len(items):
            return None
        begin = self._starts[first] if items else 0
        starts = tuple(start - begin for start in self._starts[first:])
        return begin, Pattern(tuple(map(self._play, starts, records)), starts, records)

    def repeat(self, start: int, period: int, count: int, pattern: Pattern) -> None:
        """Append a pattern some times over.

        If the plays before it are the same pattern, they become part of the repeat.

        Args:
            start: first sample of its first play.
            period: from one time to the next, in samples.
            count: how many times; with 0 only the plays before become a repeat.
            pattern: what is played; if it is nothing, nothing happens.

        Raises:
            SequencerFault: the timeline is full.
        """
        if not pattern.plays:
            return
        while self._ends_with(pattern, start - period):
            del self._starts[-len(pattern.plays) :], self._items[-len(pattern.plays) :]
            start, count = start - period, count + 1
        last = self._items[-1] if self._items else None
        if (
            isinstance(last, Repeat)
            and (last.stop_sample, last.period_samples) == (start, period)
            and last.plays == pattern.plays
        ):
            self._items[-1] = replace(last, count=last.count + count)
        elif count:
            self._append(start, Repeat(start, period, count, pattern.plays))

    def _ends_with(self, pattern: Pattern, start: int) -> bool:
        """Whether the last plays are a pattern that starts at a sample."""
        n_plays = len(pattern.plays)
        if len(self._starts) < n_plays or self._starts[-n_plays] != start:
            return False
        return tuple(self._items[-n_plays:]) == pattern.records and all(
            at - start == expected
            for at, expected in zip(self._starts[-n_plays:], pattern.starts, strict=True)
        )

    # --- reading ----------------------------------------------------------------------

    def _play(self, start: int, record: _Record) -> Play:
        n_samples, waveform, entry, levels, is_held = record
        return Play(
            start,
            n_samples,
            None if waveform == NOTHING else self._waveforms[waveform],
            None if entry == NOTHING else entry,
            self._levels[levels],
            is_held,
        )

    def plays(self, start: int | None = None, stop: int | None = None) -> Iterator[Play]:
        """The plays that touch a window, in order of time, repeats unrolled one by one.

        Args:
            start: first sample, None for all from the beginning.
            stop: sample after the last, None for all to the end.
        """
        self._before_reading(stop)
        first = 0 if start is None else max(0, bisect_right(self._starts, start) - 1)
        for index in range(first, len(self._starts)):
            item = self._items[index]
            if isinstance(item, Repeat):
                # In the period before the first that starts in the window a play may reach it.
                before = 0 if start is None else max(0, item.split(start)[0] - 1)
                found = item.without(before).unrolled()
            else:
                found = iter((self._play(self._starts[index], item),))
            for play in found:
                if stop is not None and play.start_sample >= stop:
                    return
                if start is None or play.stop_sample > start:
                    yield play

    def take(self, until_sample: int) -> list[Play | Repeat]:
        """Remove and return, in order, what starts before a sample.

        Of a repeat, the whole periods that start before it. What holds the last value is
        returned like everything else: who needs the value keeps it.
        """
        self._before_reading(until_sample)
        end = bisect_left(self._starts, until_sample)
        if not end:
            return []
        taken = [
            item if isinstance(item, Repeat) else self._play(start, item)
            for start, item in zip(self._starts[:end], self._items[:end], strict=True)
        ]
        if taken and isinstance(last := taken[-1], Repeat):
            before, after = last.split(until_sample)
            if after:
                taken[-1] = replace(last, count=before)
                end -= 1
                self._starts[end] += before * last.period_samples
                self._items[end] = last.without(before)
        self._remove(end)
        return taken

    def forget_before(self, sample: int) -> None:
        """Drop the plays that end before a sample."""
        self._before_reading(sample)
        drop = bisect_right(self._starts, sample) - 1
        # A play that holds the last value needs the one it comes from.
        while drop > 0 and self._starts_with_held(drop):
            drop -= 1
        if drop < 0:
            return
        item = self._items[drop]
        if isinstance(item, Repeat) and not self._starts_with_held(drop):
            kept = item.without(max(0, item.split(sample)[0] - 1))
            self._starts[drop], self._items[drop] = kept.start_sample, kept
        self._remove(drop)

    def _starts_with_held(self, index: int) -> bool:
        item = self._items[index]
        return item.plays[0].is_held if isinstance(item, Repeat) else item[-1]

    def _remove(self, n_items: int) -> None:
        del self._starts[:n_items], self._items[:n_items]
        self._n_removed += n_items

    def output(self, start: int, stop: int) -> NDArray[np.float64]:
        """The two channels in a window, of full scale, shape (stop - start, 2)."""
        values = np.zeros((stop - start, 2))
        level, reached = np.zeros(2), start
        for play in self.plays(start, stop):
            first, end = max(play.start_sample, start), min(play.stop_sample, stop)
            window = values[first - start : end - start]
            if play.waveform is not None:
                piece = slice(first - play.start_sample, end - play.start_sample)
                window[:] = play.waveform.values[piece] * play.levels.amplitudes
                level = play.waveform.values[play.n_samples - 1] * play.levels.amplitudes
            elif play.is_held:
                if first == start:
                    level = self._last_value_before(play.start_sample)
                elif first > reached:
                    level = np.zeros(2)
                window[:] = level
            else:
                level = np.zeros(2)
            reached = play.stop_sample
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

        Raises:
            ValueError: there are too many.
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
            if len(edges) > MAX_RECORDED:
                raise ValueError(
                    f"more than {MAX_RECORDED} marker edges in samples {start}..{stop}; ask for a "
                    "shorter window"
                )
        if word and reached < stop:
            edges.append((reached, 0))
        return edges
