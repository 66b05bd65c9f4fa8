"""Running a controller: `ControllerCore` on sockets, until it is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any, Final, Protocol

from qnodeos.service.controller import ControllerCore
from qnodeos.service.controller_file import ControllerFile
from qnodeos.service.dialling import Endpoint
from qnodeos.service.loop import Loop
from qnodeos.service.notify import Notifier
from qnodeos.service.peer_session import DEFAULT_TIMING, PeerTiming
from qnodeos.service.peer_sockets import Connections

_TURN_S: Final = 0.1
"""Longest time until a request to stop is seen."""
_READY_ANYWAY_NS: Final = 10_000_000_000
"""How long the supervisor waits for nodes that do not come (assumed)."""


class StopEvent(Protocol):
    """For example `threading.Event`."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


def run_controller(
    file: ControllerFile,
    stop: StopEvent,
    *,
    incarnation: int,
    say: Callable[[str], None] = lambda line: None,
    notifier: Notifier | None = None,
    timing: PeerTiming = DEFAULT_TIMING,
    on_status: Callable[[dict[str, Any]], None] = lambda status: None,
) -> dict[str, Any]:
    """Give the nodes of a network their time bins, and look after them.

    Args:
        file: the network.
        stop: looked at ten times a second.
        incarnation: number of this start; those before had others.
        say: takes lines about what changes, for people.
        notifier: to the supervisor: READY when all nodes have the schedule, or after 10 s.
        timing: times of the protocol.
        on_status: takes `ControllerCore.status` whenever it may have changed.

    Returns:
        The last status.

    Raises:
        ConfigurationError: an address cannot be used, or TLS is not configured properly.
    """
    endpoints = {
        node.node_id: Endpoint.of(node.address, name, file.tls) for name, node in file.nodes.items()
    }
    if file.tls is not None:
        file.tls.client_context()
    with closing(Loop()) as loop:
        core = ControllerCore(
            file, incarnation=incarnation, now_ns=loop.now_ns(), timing=timing, say=say
        )
        with closing(Connections(core, endpoints, loop, file.tls, timing=timing)) as connections:
            ready_ns = loop.now_ns() + _READY_ANYWAY_NS
            told_ready, summary = False, ""
            while not stop.is_set():
                connections.carry_out()
                loop.dispatch(loop.wait(_TURN_S))
                on_status(core.status())
                if notifier is None:
                    continue
                if not told_ready and (core.is_ready or loop.now_ns() >= ready_ns):
                    told_ready = notifier.ready(core.summary())
                if core.summary() != summary:
                    summary = core.summary()
                    notifier.status(summary)
                notifier.alive()
            status = core.status()
    return status
