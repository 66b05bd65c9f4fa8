"""The network schedule in use, and when it next has a bin with something to do."""

from __future__ import annotations

from collections.abc import Iterable

from qnodeos.qnpu.link_layer import LinkLayer
from qnodeos.qnpu.schedule import NetworkSchedule


class TimeBins:
    """A schedule, and the one that takes over from it.

    Args:
        peers: ids of the neighbours.
        link_layer: knows what there is to do.

    Attributes:
        schedule: the one in use, None before the first.
    """

    def __init__(self, peers: Iterable[int], link_layer: LinkLayer) -> None:
        self._peers = tuple(peers)
        self._link_layer = link_layer
        self._following: tuple[int, NetworkSchedule] | None = None
        self.schedule: NetworkSchedule | None = None

    def install(self, schedule: NetworkSchedule, from_bin: int | None) -> None:
        """Use a schedule, from a bin on (of the same length and number as now) or now."""
        if from_bin is None:
            self.schedule, self._following = schedule, None
        else:
            self._following = from_bin, schedule

    def at(self, tick: int) -> NetworkSchedule | None:
        """The schedule that counts at a tick, which must not go back."""
        schedule = self.schedule
        if self._following is not None and schedule is not None:
            from_bin, following = self._following
            if schedule.bin_at(tick) >= from_bin:
                schedule = self.schedule = following
                self._following = None
        return schedule

    def start_bin(self, tick: int) -> int:
        """First bin for a request made now: the next one, so that the peer hears of it."""
        return 0 if self.schedule is None else max(self.schedule.bin_at(tick) + 1, 0)

    def next_due(self, tick: int) -> int | None:
        """The next first attempt of a bin that has something to do, None if there is none."""
        if not self._link_layer.has_requests:
            return None
        schedule = self.at(tick)
        if schedule is None:
            return None
        now = schedule.bin_at(tick)
        if schedule.attempts_from(now) <= tick:
            now += 1
        due = self._next_start(schedule, now)
        if self._following is not None:
            from_bin, following = self._following
            if due is None or due >= following.attempts_from(from_bin):
                due = self._next_start(following, max(now, from_bin))
        return due

    def _next_start(self, schedule: NetworkSchedule, number: int) -> int | None:
        """First attempt of the first bin, not before a number, that has something to do."""
        soonest: int | None = None
        for peer in self._peers:
            first = self._link_layer.first_bin(peer)
            if first is not None:
                found = schedule.next_bin(peer, max(first, number))
                if found is not None and (soonest is None or found < soonest):
                    soonest = found
        return None if soonest is None else schedule.attempts_from(soonest)
