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

    Attributes:
        received: by role, in order: the role it came from, and its text.
        log: by role, in order: what was sent and received, as NetQASM logs it.
    """

    def __init__(self, roles: Iterable[str]) -> None:
        self.received: dict[str, list[tuple[str, str]]] = {role: [] for role in roles}
        self.log: dict[str, list[dict[str, Any]]] = {role: [] for role in self.received}

    def note(self, key: tuple[str, str, int], message: Any, is_sent: bool) -> None:
        """A message was sent or received; see `qnodeos.cnpu.virtual.MessageBoard`."""
        source, destination, socket_id = key
        owner = source if is_sent else destination
        if len(self.log.get(owner, ())) >= MAX_MESSAGES:
            return
        text = _text(message)
        if not is_sent and destination in self.received:
            self.received[destination].append((source, text))
        if owner in self.log:
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
            self.log[owner].append(asdict(entry))


def _text(message: Any) -> str:
    if isinstance(message, StructuredMessage):
        return f"{message.header}: {message.payload}"
    return str(message)
