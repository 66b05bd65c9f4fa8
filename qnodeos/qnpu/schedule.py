"""The network schedule: which link may be used in which time bin.

Time is cut into bins of equal length, counted from an epoch tick on which all nodes agree.
A pattern of peers repeats over the bins. In its first ticks (the guard) a bin lets
neighbours synchronise; attempts start after it. Before the epoch there are no bins.

Every node counts the ticks of its own device. Network ticks count from the epoch, so they mean
the same at all nodes; they are what nodes tell each other.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field


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
    _places: dict[int, list[int]] = field(init=False, repr=False, compare=False, hash=False)

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
        places: dict[int, list[int]] = {}
        for place, peer in enumerate(self.pattern):
            if peer is not None:
                places.setdefault(peer, []).append(place)
        object.__setattr__(self, "_places", places)

    def bin_at(self, tick: int) -> int:
        """Number of the bin a tick lies in."""
        return (tick - self.epoch_tick) // self.bin_ticks

    def peer(self, number: int) -> int | None:
        """Node with which entanglement may be made in a bin."""
        return self.pattern[number % len(self.pattern)] if number >= 0 else None

    def next_bin(self, peer: int, number: int) -> int | None:
        """First bin of a peer that is not before a number; None if it has none at all."""
        places = self._places.get(peer)
        if places is None:
            return None
        repeats, place = divmod(max(number, 0), len(self.pattern))
        index = bisect_left(places, place)
        if index == len(places):
            repeats, index = repeats + 1, 0
        return repeats * len(self.pattern) + places[index]

    def has_bins_of(self, other: NetworkSchedule) -> bool:
        """Whether a bin number means the same time in both schedules."""
        return (self.bin_ticks, self.epoch_tick) == (other.bin_ticks, other.epoch_tick)

    def to_network(self, tick: int) -> int:
        """Network tick of a tick of this node."""
        return tick - self.epoch_tick

    def to_local(self, network_tick: int) -> int:
        """Tick of this node of a network tick."""
        return network_tick + self.epoch_tick

    def begins(self, number: int) -> int:
        """First tick of a bin."""
        return self.epoch_tick + number * self.bin_ticks

    def attempts_from(self, number: int) -> int:
        """First tick of a bin at which attempts may start."""
        return self.epoch_tick + number * self.bin_ticks + self.guard_ticks

    def last_start(self, number: int) -> int:
        """Last tick of a bin at which a batch may start."""
        return self.epoch_tick + (number + 1) * self.bin_ticks - self.batch_ticks
