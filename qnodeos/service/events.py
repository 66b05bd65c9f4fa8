"""The trace as a stream: to each subscriber what it has not seen yet, from the recorder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from qnodeos.api.host_wire import Subscribe, TraceEvents, encode
from qnodeos.errors import QNodeOSError
from qnodeos.service.clients import Client, ServerCounters
from qnodeos.service.loop import Loop
from qnodeos.trace import TraceRecorder

MAX_EVENTS: Final = 2_048
"""Trace events in one message: 30 kB."""


class EventStream:
    """Reads a recorder's ring by the number of the event, counted from the start.

    Recording costs nothing more for it.

    Args:
        recorder: of the QNPU's trace.
        epoch_ns: tells when tick 0 was, on the monotonic clock.
        interval_ns: how often subscribers should be served (assumed: 20 ms).
    """

    def __init__(
        self,
        recorder: TraceRecorder,
        epoch_ns: Callable[[], int],
        interval_ns: int = 20_000_000,
    ) -> None:
        self._recorder = recorder
        self._epoch_ns = epoch_ns
        self.interval_ns = interval_ns

    @property
    def next_number(self) -> int:
        """Number of the next event that will be recorded."""
        return self._recorder.recorded

    def catch_up(self, number: int, most: int) -> tuple[int, int]:
        """Where a reader is after dropping what it is too late for.

        Args:
            number: of the next event it has not seen.
            most: events that may wait for it.

        Returns:
            The number to go on with, and how many were dropped before it.
        """
        oldest = self._recorder.recorded - min(most, self._recorder.capacity)
        return (oldest, oldest - number) if oldest > number else (number, 0)

    def take(self, number: int, dropped: int) -> TraceEvents | None:
        """The events from a number on, at most `MAX_EVENTS`.

        Args:
            number: of the first; `catch_up` has made sure that it is still there.
            dropped: what the reader missed before.

        Returns:
            None if there is nothing to tell.
        """
        events = self._recorder.since(number, MAX_EVENTS)
        if not events and not dropped:
            return None
        return TraceEvents(dropped, self._epoch_ns(), self._recorder.unit_ns, events)


class Subscriptions:
    """Sends the trace to the connections that have subscribed to it.

    Args:
        loop: in whose thread everything happens.
        events: the trace.
        most: events that may wait for a connection; beyond that it misses some.
        served: the connections that are served, by number.
        counters: of the server.
        send: sends a payload to a connection.
        fail: ends a connection because of an error.
    """

    def __init__(
        self,
        loop: Loop,
        events: EventStream,
        most: int,
        served: Mapping[int, Client],
        counters: ServerCounters,
        send: Callable[[Client, bytes], None],
        fail: Callable[[Client, QNodeOSError], None],
    ) -> None:
        self._loop = loop
        self._events = events
        self._most = most
        self._served = served
        self._counters = counters
        self._send = send
        self._fail = fail
        self._timer = loop.call_after(0, lambda: None)

    def set(self, client: Client, wish: Subscribe) -> None:
        """A connection wants events from now on, or none any more."""
        client.events_from = None
        if wish.on:
            client.events_from = max(self._events.next_number - wish.past, 0)
        client.events_dropped = 0

    def start(self) -> None:
        """Send events now, and again and again as long as anybody wants them."""
        if not self._timer.is_pending:
            self._pump()

    def close(self) -> None:
        """Send no more."""
        self._timer.cancel()

    def _pump(self) -> None:
        """Send the new events to those who want them."""
        subscribers = [c for c in self._served.values() if c.events_from is not None]
        if subscribers:
            self._timer = self._loop.call_after(self._events.interval_ns, self._pump)
        for client in subscribers:
            try:
                self._send_events(client)
            except QNodeOSError as error:
                self._fail(client, error)

    def _send_events(self, client: Client) -> None:
        assert client.events_from is not None
        following, dropped = self._events.catch_up(client.events_from, self._most)
        client.events_from = following
        client.events_dropped += dropped
        self._counters.events_dropped += dropped
        if client.stream.wants_write:
            return  # it is behind; what waits too long is dropped
        message = self._events.take(client.events_from, client.events_dropped)
        if message is not None:
            client.events_from += len(message.events)
            client.events_dropped = 0
            self._send(client, encode(message))
