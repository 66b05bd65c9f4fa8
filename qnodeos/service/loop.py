"""The policy loop's machinery: file descriptors, timers and deferred calls in one thread.

One turn is `wait`, which may block, and `dispatch`, which never does. Between the two the
owner of the loop looks after what is more urgent than sockets. Everything that is called
from here is called in the thread that turns the loop; only `wake` may be called elsewhere.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from qnodeos.signals import STOPPING, StopSignals

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
BROKEN: Final = select.EPOLLERR | select.EPOLLHUP
"""Reported for every watched descriptor, asked for or not."""

Handler = Callable[[int], None]
"""Called with the events of a descriptor."""
Ready = list[tuple[int, int]]
"""Descriptors and their events."""

MAX_EVENTS: Final = 4
"""Descriptors, and deferred calls, served per turn; the others come first in the next ones.

Few, so that the owner of the loop comes round soon however many connections are busy.
"""
_NS_PER_S: Final = 1_000_000_000
_NEVER_S: Final = 3_600.0


class Timer:
    """A call to be made at a time; see `Loop.call_at`."""

    __slots__ = ("_callback", "when_ns")

    def __init__(self, when_ns: int, callback: Callable[[], None]) -> None:
        self.when_ns = when_ns
        self._callback: Callable[[], None] | None = callback

    @property
    def is_pending(self) -> bool:
        """Whether the call is still to be made."""
        return self._callback is not None

    def cancel(self) -> None:
        """Do not make the call; nothing happens if it was made."""
        self._callback = None

    def fire(self) -> None:
        """Make the call, unless it was cancelled or made."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def __lt__(self, other: Timer) -> bool:
        return self.when_ns < other.when_ns


class Loop:
    """Descriptors, timers and deferred calls; close it after use.

    Args:
        clock_ns: monotonic clock in nanoseconds; tests give their own.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.now_ns = clock_ns
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._handlers: dict[int, Handler] = {}
        self._timers: list[Timer] = []
        self._deferred: deque[Callable[[], None]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._wake_fd, self._woken)

    # --- descriptors ------------------------------------------------------------------

    def watch(self, fd: int, handler: Handler, events: int = READ) -> None:
        """Call a handler whenever a descriptor is ready.

        Args:
            fd: an open descriptor that is not watched.
            handler: called with the events; also with `BROKEN` ones.
            events: `READ`, `WRITE` or both.
        """
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Wait for other events of a watched descriptor; 0 for `BROKEN` only."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor; do it before closing it."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    @property
    def watched(self) -> int:
        """How many descriptors are watched, without the loop's own."""
        return len(self._handlers) - 1

    # --- calls ------------------------------------------------------------------------

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Make a call at a time of the loop's clock."""
        timer = Timer(when_ns, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def call_after(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        """Make a call after some time."""
        return self.call_at(self.now_ns() + delay_ns, callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Make a call in the next turn, which will not wait."""
        self._deferred.append(callback)

    def wake(self) -> None:
        """End a `wait`; may be called from any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def _woken(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)

    # --- turns ------------------------------------------------------------------------

    def wait(self, timeout_s: float | None) -> Ready:
        """Wait for a descriptor to be ready, a timer to be due or a deferred call.

        Args:
            timeout_s: longest time to wait, 0 not to wait; None without end. The system
                counts in milliseconds, rounded up.
        """
        if timeout_s == 0 or self._deferred:
            return self._poll(0, MAX_EVENTS)
        timers = self._timers
        while timers and not timers[0].is_pending:
            heapq.heappop(timers)
        if timers:
            until_s = max(timers[0].when_ns - self.now_ns(), 0) / _NS_PER_S
            timeout_s = min(until_s, _NEVER_S if timeout_s is None else timeout_s)
        return self._poll(timeout_s, MAX_EVENTS)

    def dispatch(self, ready: Ready) -> bool:
        """Serve descriptors, timers that are due and deferred calls.

        Args:
            ready: what `wait` returned.

        Returns:
            Whether anything was called.
        """
        handlers = self._handlers
        called = False
        for fd, events in ready:
            handler = handlers.get(fd)
            if handler is not None:  # none: another handler of this turn has closed it
                handler(events)
                called = True
        if self._deferred:
            # Those deferred by these calls wait for the next turn.
            for _ in range(min(len(self._deferred), MAX_EVENTS)):
                self._deferred.popleft()()
            called = True
        timers = self._timers
        if timers and timers[0].when_ns <= (now_ns := self.now_ns()):
            due = []
            while timers and timers[0].when_ns <= now_ns:
                due.append(heapq.heappop(timers))
            for timer in due:
                timer.fire()
            called = True
        return called

    def close(self) -> None:
        """Give the descriptors of the loop back; those it watches stay open."""
        if self._wake_fd >= 0:
            self._handlers.clear()
            self._timers.clear()
            self._deferred.clear()
            self._epoll.close()
            os.close(self._wake_fd)
            self._wake_fd = -1


@contextlib.contextmanager
def stop_signals(
    loop: Loop,
    stop: Callable[[int], None],
    numbers: tuple[int, ...] = STOPPING,
) -> Iterator[None]:
    """Turn signals into calls of the loop while the context lasts; main thread only.

    Args:
        loop: that makes the calls.
        stop: called with the number of each signal that comes.
        numbers: of the signals.
    """
    with StopSignals(numbers) as signals:

        def arrived(events: int) -> None:
            for number in signals.take():
                stop(number)

        loop.watch(signals.fileno(), arrived)
        try:
            yield
        finally:
            loop.forget(signals.fileno())
