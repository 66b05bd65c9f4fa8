"""The classical messages that programs of a simulation send each other, kept for their user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from netqasm.runtime.interface.logging import ClassCommLogEntry
from netqasm.sdk.classical_communication.message import StructuredMessage

MAX_MESSAGES: Final = 10_000
"""Kept of each program in a round; a program may send more."""


class Messages:
    """The messages of one round.

    Args:
        roles: of the application.
        keeps_log: whether they are to be logged as well.

    Attributes:
        received: by role, in order: the role it came from, and its text.
        log: by role, in order: what was sent and received, as NetQASM logs it.
    """

    def __init__(self, roles: Iterable[str], *, keeps_log: bool) -> None:
        self.received: dict[str, list[tuple[str, str]]] = {role: [] for role in roles}
        self.log: dict[str, list[dict[str, Any]]] = {role: [] for role in self.received}
        self._keeps_log = keeps_log

    def note(self, key: tuple[str, str, int], message: Any, is_sent: bool) -> None:
        """A message was sent or received; see `qnodeos.cnpu.message_board.MessageBoard`."""
        source, destination, socket_id = key
        received = self.received.get(destination)
        if not is_sent and received is not None and len(received) < MAX_MESSAGES:
            received.append((source, _text(message)))
        log = self.log.get(source if is_sent else destination)
        if not self._keeps_log or log is None or len(log) >= MAX_MESSAGES:
            return
        text = _text(message)
        did = f"to {destination} was sent" if is_sent else f"from {source} was received"
        entry = ClassCommLogEntry(
            WCT=str(datetime.now()),
            HLN=None,
            HFL=None,
            INS="SEND" if is_sent else "RECV",
            MSG=text,
            SEN=source,
            REC=destination,
            SOD=socket_id,
            LOG=f"a message {did}: {text}",
        )
        log.append(asdict(entry))


def _text(message: Any) -> str:
    if isinstance(message, StructuredMessage):
        return f"{message.header}: {message.payload}"
    return str(message)
