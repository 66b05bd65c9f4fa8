"""The requests of all links of a node, and until when each of them may take.

Both are sorted, so that no operation on one request looks at all of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from typing import Final

from qnodeos.errors import EntanglementTimeoutError, QNodeOSError
from qnodeos.limits import Limits
from qnodeos.qnpu.isa import INT32_MAX
from qnodeos.qnpu.link_queue import Link, LinkRequest
from qnodeos.qnpu.process import UserProcess

Deadline = tuple[int, int]
"""A tick, and the number of one of our create requests."""


class RequestQueues:
    """See the module's docstring.

    Args:
        peers: ids of the neighbours.
        limits: all bounds.
        fault: aborts a process because of an error in one of its requests.
        next_bin: number of the time bin after the current one. Changes of the queue take
            effect so late that the neighbour has heard of them, if a message takes less
            than a bin; if it takes longer, a pair may be lost, which is noticed.
        has_schedule: whether there are time bins.
    """

    def __init__(
        self,
        peers: Iterable[int],
        limits: Limits,
        fault: Callable[[UserProcess, QNodeOSError], None],
        next_bin: Callable[[], int],
        has_schedule: Callable[[], bool],
    ) -> None:
        self._limits = limits
        self._fault = fault
        self._next_bin = next_bin
        self._has_schedule = has_schedule
        most_ends = limits.processes * limits.er_sockets
        self.links: Final = {peer: Link(most_ends) for peer in peers}
        self._places = {peer: place for place, peer in enumerate(self.links)}
        self._queued = 0
        self._mine: dict[int, LinkRequest] = {}
        self._deadlines: list[Deadline] = []
        self.deadline_tick: int | None = None
        """First tick at which `expire` has something to do."""
        self.has_requests = False
        """Whether any link's queue holds a request."""

    @property
    def is_creating(self) -> bool:
        """Whether one of our own create requests is outstanding."""
        return bool(self._mine)

    def first_bin(self, peer: int) -> int | None:
        """First bin in which `head` has a request, None if there is none as things are."""
        link = self.links[peer]
        return None if link.first is None else max(link.first.start_bin, link.quiet_before_bin)

    def head(self, peer: int, number: int) -> LinkRequest | None:
        """The request both ends attempt in a bin, None if there is none."""
        return self.links[peer].head(number)

    # --- the queue --------------------------------------------------------------------

    def _enqueue(self, request: LinkRequest) -> None:
        self.links[request.peer].add(request)
        self._queued += 1
        self.has_requests = True
        if request.user is not None:
            self._mine[request.create_id] = request
            if not request.accepted or not self._has_schedule():
                insort(self._deadlines, (request.deadline_tick, request.create_id))
            if request.user.deadline_tick is not None:
                insort(self._deadlines, (request.user.deadline_tick, request.create_id))
        self._find_deadline()

    def _dequeue(self, request: LinkRequest) -> None:
        if not self.links[request.peer].remove(request):
            return
        self._queued -= 1
        self.has_requests = self._queued > 0
        if request.user is not None:
            del self._mine[request.create_id]
            for tick in (request.deadline_tick, request.user.deadline_tick):
                if tick is not None:
                    self._forget_deadline((tick, request.create_id))
        self._find_deadline()

    def _postpone(self, request: LinkRequest, deadline_tick: int) -> None:
        """A pair has come in time; the next has as long again."""
        user = request.user
        assert user is not None
        assert user.deadline_tick is not None
        self._forget_deadline((user.deadline_tick, request.create_id))
        user.deadline_tick = deadline_tick
        insort(self._deadlines, (deadline_tick, request.create_id))
        self._find_deadline()

    def _forget_deadline(self, deadline: Deadline) -> None:
        place = bisect_left(self._deadlines, deadline)
        if self._deadlines[place : place + 1] == [deadline]:
            del self._deadlines[place]

    def _withdraw(self, request: LinkRequest) -> None:
        next_bin = self._next_bin()
        if request in (self.head(request.peer, next_bin - 1), self.head(request.peer, next_bin)):
            self.links[request.peer].quiet_before_bin = next_bin + 1
        request.cancelled = True
        self._dequeue(request)

    def _find_deadline(self) -> None:
        deadlines = self._deadlines
        while deadlines and not self._still_counts(*deadlines[0]):
            del deadlines[0]
        self.deadline_tick = deadlines[0][0] if deadlines else None

    def _still_counts(self, tick: int, create_id: int) -> bool:
        """Whether a deadline is one still: not that of a schedule that has come since."""
        request = self._mine[create_id]
        assert request.user is not None
        return (
            tick == request.user.deadline_tick or not request.accepted or not self._has_schedule()
        )

    # --- deadlines --------------------------------------------------------------------

    def expire(self, tick: int) -> None:
        """Fail requests whose time is up."""
        if self.deadline_tick is None or tick < self.deadline_tick:
            return
        due = self._deadlines[: bisect_right(self._deadlines, (tick, INT32_MAX))]
        requests = {self._mine[number] for _, number in due}
        for request in sorted(requests, key=lambda r: (self._places[r.peer], r.order)):
            error = self._expiry(request, tick)
            if error is not None and request.user is not None:
                self._fault(request.user.socket.process, error)
        self._find_deadline()

    def _expiry(self, request: LinkRequest, tick: int) -> EntanglementTimeoutError | None:
        assert request.user is not None
        if not request.accepted and tick >= request.deadline_tick:
            return EntanglementTimeoutError(
                f"node {request.peer} did not open ER socket {request.terms.remote_socket_id} "
                f"within offer_timeout_ticks={self._limits.offer_timeout_ticks}; does the "
                "program there run, and do the socket ids match?"
            )
        if tick >= request.deadline_tick and not self._has_schedule():
            return EntanglementTimeoutError(
                "no network schedule was installed within offer_timeout_ticks="
                f"{self._limits.offer_timeout_ticks}; does the controller run, and does it know "
                "this node?"
            )
        deadline = request.user.deadline_tick
        if deadline is not None and tick >= deadline:
            return EntanglementTimeoutError(
                f"{request.done} of {request.terms.pairs} pairs with node {request.peer} came "
                "within max_time; the next did not"
            )
        return None
