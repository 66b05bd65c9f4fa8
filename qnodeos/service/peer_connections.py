"""The connections of a node to its neighbours and its controller, on the loop of its service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qnodeos.api.peer import PeerMessage
from qnodeos.errors import ConfigurationError
from qnodeos.service.dialling import Endpoint
from qnodeos.service.loop import Loop
from qnodeos.service.node_file import NodeFile
from qnodeos.service.peer_session import DEFAULT_TIMING, ROLE_QNPU, Identity, PeerTiming
from qnodeos.service.peer_sockets import Connections
from qnodeos.service.peers import PeerKernel, PeerManager
from qnodeos.transport import listen


class PeerConnections(Connections):
    """Connects a node to its neighbours and serves its controller; close it after use.

    Args:
        node: the node.
        kernel: its kernel.
        loop: of the service.
        incarnation: number of this start.
        tick_ns: length of the device's tick.
        tick: now, for the kernel.
        read_tick: the device's counter at this very moment.
        timing: times of the protocol.
        say: takes lines about what changes, for people.

    Raises:
        ConfigurationError: an address cannot be used, or is not known.
    """

    def __init__(
        self,
        node: NodeFile,
        kernel: PeerKernel,
        *,
        loop: Loop,
        incarnation: int,
        tick_ns: int,
        tick: Callable[[], int],
        read_tick: Callable[[], int],
        timing: PeerTiming = DEFAULT_TIMING,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        if node.peer is None and any(peer.node_id < node.node_id for peer in node.peers.values()):
            raise ConfigurationError(
                f"neighbours with lower node ids dial {node.name}, so it must listen: give "
                "peer.listen in its node file"
            )
        endpoints = {
            peer.node_id: Endpoint.of(peer.address, name, node.tls)
            for name, peer in node.peers.items()
            if node.node_id < peer.node_id
        }
        self._manager = PeerManager(
            Identity(ROLE_QNPU, node.node_id, node.name, incarnation, tick_ns),
            {peer.node_id: name for name, peer in node.peers.items()},
            kernel,
            loop.now_ns(),
            tick=tick,
            read_tick=read_tick,
            controller=node.peer.controller if node.peer is not None else "controller",
            timing=timing,
            say=say,
        )
        super().__init__(
            self._manager,
            endpoints,
            loop,
            node.tls,
            timing=timing,
            listener=listen(node.peer.listen, node.tls) if node.peer is not None else None,
            accepts_tls=node.peer is not None and not node.peer.listen.is_local,
        )

    def send(self, messages: Sequence[tuple[int, PeerMessage]]) -> None:
        """See `qnodeos.service.service.Peers`."""
        self._manager.send(messages, self._loop.now_ns())
        self.carry_out()

    def statistics(self) -> dict[str, Any]:
        """See `qnodeos.service.service.Peers`."""
        return self._manager.statistics()
