"""A node of a network as the controller sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qnodeos.api.peer_wire import TickReading
from qnodeos.service.peer_session import PeerSession, SessionState
from qnodeos.service.tick_grid import Placement, TickFix


@dataclass
class Round:
    """Some readings of a tick in a row, of which the one with the shortest way counts."""

    left: int
    nonce: int = 0
    sent_ns: int = 0
    best: TickFix | None = None


@dataclass
class NodeView:
    """A node as the controller sees it.

    Attributes:
        name: of the node.
        session: of the connection, None without one.
        fix: its last good reading.
        reading: what it said last.
        placement: where its bin 0 begins, None if that is not known.
        installed: number of the schedule it has confirmed.
        error: what is wrong with it, empty if nothing.
        said: the last error that was put into words, without its numbers.
        mismatches: readings in a row that do not fit the grid, the last being ``mismatched``.
    """

    name: str
    node_id: int
    pattern: tuple[int, ...]
    retry_ns: int
    dial_at_ns: int | None
    connection: int | None = None
    connections: int = 0
    session: PeerSession | None = None
    incarnation: int = 0
    tick_ns: int = 0
    fix: TickFix | None = None
    reading: TickReading | None = None
    placement: Placement | None = None
    round: Round | None = None
    next_round_ns: int | None = None
    installed: int = 0
    installed_epoch: int | None = None
    is_installing: bool = False
    installs: int = 0
    error: str = ""
    said: str = ""
    mismatches: int = 0
    mismatched: TickFix | None = None

    @property
    def has_link(self) -> bool:
        """Whether it makes entanglement with another; otherwise it needs no schedule."""
        return any(peer >= 0 for peer in self.pattern)

    @property
    def is_connected(self) -> bool:
        """Whether both ends have greeted."""
        return self.session is not None and self.session.state is SessionState.OPEN

    def describe(self) -> dict[str, Any]:
        """How it stands, for people and programs that look."""
        placement = self.placement
        return {
            "node_id": self.node_id,
            "connected": self.is_connected,
            "connections": self.connections,
            "schedule": self.installed,
            "installs": self.installs,
            "epoch_tick": None if placement is None else placement.epoch_tick,
            "residual_ticks": None if placement is None else round(placement.residual_ticks, 2),
            "uncertainty_ticks": None if placement is None else round(placement.error_ticks, 2),
            "round_trip_us": None if self.fix is None else round(self.fix.error_ns / 500, 1),
            "error": self.error,
        }
