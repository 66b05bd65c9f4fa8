"""Classical messages between the applications of a network in virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from qnodeos.errors import LimitError

MESSAGES_MAX = 65_536
"""Messages on the way, or not taken yet, from one application to another on one socket."""


class MessageBoard:
    """Classical messages between all applications, in order per (from, to, socket).

    Attributes:
        on_message: called with (from, to, socket) and a message when it is sent (True) and when
            it is received (False); None for nothing.
    """

    def __init__(self) -> None:
        self.on_message: Callable[[tuple[str, str, int], Any, bool], None] | None = None
        self._queues: dict[tuple[str, str, int], deque[tuple[int, Any]]] = {}
        self._waiting: dict[tuple[str, str, int], Callable[[int], None]] = {}
        self._last_arrival_ns: dict[tuple[str, str, int], int] = {}

    def post(self, key: tuple[str, str, int], arrival_ns: int, message: Any) -> None:
        """A message that will arrive; never before the one sent before it.

        Raises:
            LimitError: nobody takes the messages there.
        """
        queue = self._queues.setdefault(key, deque())
        if len(queue) >= MESSAGES_MAX:
            source, destination, socket_id = key
            raise LimitError(
                f"{MESSAGES_MAX} messages from {source} to {destination} on socket {socket_id} "
                "have not been received, the limit; does the program there receive them?"
            )
        arrival_ns = max(arrival_ns, self._last_arrival_ns.get(key, 0))
        self._last_arrival_ns[key] = arrival_ns
        queue.append((arrival_ns, message))
        if self.on_message is not None:
            self.on_message(key, message, True)
        wake = self._waiting.pop(key, None)
        if wake is not None:
            wake(arrival_ns)

    def peek(self, key: tuple[str, str, int]) -> int | None:
        """Arrival time of the next message, None if none has been sent."""
        queue = self._queues.get(key)
        return queue[0][0] if queue else None

    def take(self, key: tuple[str, str, int]) -> Any:
        """The next message."""
        message = self._queues[key].popleft()[1]
        if self.on_message is not None:
            self.on_message(key, message, False)
        return message

    def wait(self, key: tuple[str, str, int], wake: Callable[[int], None]) -> None:
        """Call ``wake`` with the arrival time of the next message when it is sent.

        Raises:
            LimitError: another program waits there; one of the two would wait in vain.
        """
        if key in self._waiting:
            source, destination, socket_id = key
            raise LimitError(
                f"two programs wait for messages from {source} to {destination} on socket "
                f"{socket_id}; programs that run at once need distinct socket ids"
            )
        self._waiting[key] = wake

    def stop_waiting(self, key: tuple[str, str, int]) -> None:
        """Forget a `wait`."""
        self._waiting.pop(key, None)

    def clear(self) -> None:
        """Forget all messages, when the programs they were meant for have ended."""
        self._queues.clear()
        self._waiting.clear()
        self._last_arrival_ns.clear()
