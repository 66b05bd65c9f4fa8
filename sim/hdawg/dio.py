"""The 32 digital input lines, as the sequencers see them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from sim.hdawg.timing import HdawgTiming

WORD_MASK: Final = (1 << 32) - 1
MAX_REMEMBERED: Final = 4096
"""Words kept; by the time older ones are dropped every core is long past them."""


ALWAYS: Final = -(1 << 62)
"""Before every sample."""


class ValidPolarity(IntEnum):
    """Values of `/awgs/n/dio/valid/polarity`: the level of VALID that qualifies a word."""

    NONE = 0
    LOW = 1
    HIGH = 2
    BOTH = 3


class StrobeSlope(IntEnum):
    """Values of `/awgs/n/dio/strobe/slope`: bit 0 stands for rising, bit 1 for falling."""

    OFF = 0
    RISING = 1
    FALLING = 2
    BOTH = 3


@dataclass(frozen=True)
class TriggerSettings:
    """What triggers a waiting sequencer.

    With a strobe, an edge of that line while the word is valid; without one, a word that
    becomes valid; if every word is valid, one that differs from the word before.

    Attributes:
        strobe_line: number of the line.
        slope: edges that count.
        valid_line: number of the line called VALID.
        polarity: its active level, `NONE` and `BOTH` if every word is valid.
    """

    strobe_line: int = 0
    slope: StrobeSlope = StrobeSlope.OFF
    valid_line: int = 0
    polarity: ValidPolarity = ValidPolarity.NONE

    def is_valid(self, word: int) -> bool:
        """Whether a word is valid."""
        if self.polarity in {ValidPolarity.NONE, ValidPolarity.BOTH}:
            return True
        return (word >> self.valid_line & 1) == (self.polarity == ValidPolarity.HIGH)

    def triggers(self, before: int, word: int) -> bool:
        """Whether a word triggers after another one."""
        if self.slope == StrobeSlope.OFF:
            if self.polarity in {ValidPolarity.NONE, ValidPolarity.BOTH}:
                return word != before
            return self.is_valid(word) and not self.is_valid(before)
        was, is_ = before >> self.strobe_line & 1, word >> self.strobe_line & 1
        edge = StrobeSlope.RISING if is_ > was else StrobeSlope.FALLING
        return was != is_ and bool(self.slope & edge) and self.is_valid(word)


class DioInput:
    """Words on the lines, in the order and at the times at which the sequencers see them.

    The lines are sampled by a clock: of several words within one period the last is seen,
    the others are lost.

    Attributes:
        is_forwarded: the lines reach the sequencers (mode `awg_sequencer_commands`).
    """

    def __init__(self, timing: HdawgTiming) -> None:
        self._period = timing.dio_period_samples
        self._latency = timing.dio_latency_samples
        self._on_level = timing.dio_trigger == "level"
        self._times: list[int] = [ALWAYS]
        self._words: list[int] = [0]
        self._written = 0
        self.is_forwarded = False

    def write(self, sample: int, word: int) -> None:
        """Put a word on the lines from now on.

        Args:
            sample: when, not before the last one.
            word: 32 bits.

        Raises:
            ValueError: the time has passed, or the word has more than 32 bits.
        """
        if sample < self._written:
            raise ValueError(f"a DIO word at sample {sample} comes after one at {self._written}")
        if not 0 <= word <= WORD_MASK:
            raise ValueError(f"DIO word {word:#x} does not fit 32 lines")
        self._written = sample
        seen = sample + -sample % self._period + self._latency
        if self._times[-1] == seen:
            self._words[-1] = word
        elif word != self._words[-1]:
            self._times.append(seen)
            self._words.append(word)
        if len(self._times) > MAX_REMEMBERED:
            del self._times[: MAX_REMEMBERED // 2], self._words[: MAX_REMEMBERED // 2]

    def word_at(self, sample: int) -> int:
        """What a sequencer reads at a time."""
        return self._words[bisect_right(self._times, sample) - 1] if self.is_forwarded else 0

    def unchanged_at(self, sample: int) -> tuple[int, int]:
        """What a sequencer reads at a time, and since when it has read that."""
        if not self.is_forwarded:
            return ALWAYS, 0
        index = bisect_right(self._times, sample) - 1
        return self._times[index], self._words[index]

    def changes_within(self, after: int, before: int) -> int | None:
        """When the word next changes after one sample and before another, None if it does not."""
        index = bisect_right(self._times, after)
        if not self.is_forwarded or index == len(self._times):
            return None
        return self._times[index] if self._times[index] < before else None

    def next_trigger(
        self, since: int, until: int, settings: TriggerSettings
    ) -> tuple[int, int] | None:
        """The first trigger for a sequencer that waits.

        Args:
            since: sample from which it waits.
            until: sample before which the trigger must come.
            settings: what triggers.

        Returns:
            Sample and word, None if nothing comes in time.
        """
        if not self.is_forwarded:
            return None
        if self._on_level and settings.slope == StrobeSlope.OFF:
            word = self.word_at(since)
            if settings.is_valid(word):
                return since, word
        for index in range(bisect_left(self._times, since), len(self._times)):
            time, word = self._times[index], self._words[index]
            if time >= until:
                return None
            if settings.triggers(self._words[index - 1], word):
                return time, word
        return None
