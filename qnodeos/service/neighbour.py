"""A neighbour of a node, and what a QNPU has to say of itself to be taken for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qnodeos.api.peer_wire import PeerHello
from qnodeos.errors import PeerRefusedError
from qnodeos.service.peer_session import Identity, SessionCounters


@dataclass
class Neighbour:
    """A neighbour and the connection to it.

    Attributes:
        node_id, name: of the neighbour.
        is_dialled: whether this end makes the connection.
        connection: number of the connection that is open, or being made.
        connections: how many there have been.
        is_connected: whether both ends have greeted.
        incarnation: of its present start, 0 if it was never connected.
        retry_ns: next wait before dialling again.
        dial_at_ns: when to dial; None while there is a connection, or if it dials.
        lost: connections that ended.
        last_error: why the last one ended or could not be made.
        counters: of messages.
    """

    node_id: int
    name: str
    is_dialled: bool
    connection: int | None = None
    connections: int = 0
    is_connected: bool = False
    incarnation: int = 0
    retry_ns: int = 0
    dial_at_ns: int | None = None
    lost: int = 0
    last_error: str = ""
    counters: SessionCounters = field(default_factory=SessionCounters)


def identify(
    hello: PeerHello, me: Identity, neighbours: Mapping[int, Neighbour], dialled: Neighbour | None
) -> Neighbour:
    """Which neighbour a QNPU is.

    Args:
        hello: what it says of itself.
        me: this node.
        neighbours: of this node, by node id.
        dialled: who was meant to answer; None if the other end made the connection.

    Raises:
        PeerRefusedError: none, or not the one that was dialled, or it cannot be worked with.
    """
    neighbour = neighbours.get(hello.node_id)
    there = f"{hello.node_name!r} (node {hello.node_id})"
    if neighbour is None:
        raise PeerRefusedError(
            f"{there} is no neighbour of {me.name!r}; it knows "
            f"{', '.join(f'{n.name!r} ({n.node_id})' for n in neighbours.values())}"
        )
    if hello.node_name != neighbour.name:
        raise PeerRefusedError(
            f"node {hello.node_id} is called {neighbour.name!r} in the node file of "
            f"{me.name!r}, and calls itself {hello.node_name!r}; use one name"
        )
    if dialled is not None and dialled is not neighbour:
        raise PeerRefusedError(
            f"{me.name!r} dialled {dialled.name!r} and reached {there}; check the "
            "addresses in peers"
        )
    if hello.tick_ns != me.tick_ns:
        raise PeerRefusedError(
            f"a tick lasts {hello.tick_ns} ns at {there} and {me.tick_ns} ns at {me.name!r}; "
            "neighbours need devices with the same"
        )
    if dialled is None and neighbour.is_dialled:
        raise PeerRefusedError(
            f"of two nodes the one with the lower node id dials, so {me.name!r} "
            f"(node {me.node_id}) dials {there}"
        )
    return neighbour
