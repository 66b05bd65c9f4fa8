"""The network schedule: which link may be used in which time bin.

Time is cut into bins of equal length, counted from an epoch tick on which all nodes agree.
A pattern of peers repeats over the bins. In its first ticks (the guard) a bin lets
neighbours synchronise; attempts start after it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkSchedule:
    """An installed schedule.

    Attributes:
        bin_ticks: length of a bin; 10 ms in the paper, 1000 ticks of 10 us.
        guard_ticks: ticks at the start of a bin without attempts.
        batch_ticks: longest time one batch of attempts takes; one that would end after
            its bin is not started.
        pattern: peer node id per bin, repeating; None for a bin without entanglement.
        epoch_tick: tick at which bin 0 begins.
    """

    bin_ticks: int
    guard_ticks: int
    batch_ticks: int
    pattern: tuple[int | None, ...]
    epoch_tick: int = 0

    def __post_init__(self) -> None:
        if not self.pattern:
            raise ValueError("the schedule's pattern is empty; give at least one bin")
        if not 0 <= self.guard_ticks < self.bin_ticks:
            raise ValueError(
                f"guard_ticks={self.guard_ticks} must lie in 0..{self.bin_ticks - 1} (bin_ticks)"
            )
        if not 0 < self.batch_ticks <= self.bin_ticks - self.guard_ticks:
            raise ValueError(
                f"a batch of {self.batch_ticks} ticks does not fit a bin of {self.bin_ticks} "
                f"with a guard of {self.guard_ticks}"
            )

    def bin_at(self, tick: int) -> int:
        """Number of the bin a tick lies in."""
        return (tick - self.epoch_tick) // self.bin_ticks

    def peer(self, number: int) -> int | None:
        """Node with which entanglement may be made in a bin."""
        return self.pattern[number % len(self.pattern)]

    def attempts_from(self, number: int) -> int:
        """First tick of a bin at which attempts may start."""
        return self.epoch_tick + number * self.bin_ticks + self.guard_ticks

    def last_start(self, number: int) -> int:
        """Last tick of a bin at which a batch may start."""
        return self.epoch_tick + (number + 1) * self.bin_ticks - self.batch_ticks
