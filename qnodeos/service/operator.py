"""Asking the QNPU of a node how it is: for `qnodeos ps`, `qnodeos top` and the metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from qnodeos.api.host_wire import ProcessInfo
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.errors import PeerError, QNodeOSError, QnpuUnavailableError
from qnodeos.service.node_file import NodeFile

ANSWER_TIMEOUT_S: Final = 5.0
"""Time for connecting, and for each answer (assumed)."""


@dataclass(frozen=True)
class Snapshot:
    """What a QNPU told of itself at one moment.

    Attributes:
        time_s: when, on this process's monotonic clock.
        node: name of the node.
        groups: its counters, by group and name (`qnodeos.api.host_wire.Statistics`).
        processes: those it lets us see.
    """

    time_s: float
    node: str
    groups: dict[str, dict[str, Any]]
    processes: tuple[ProcessInfo, ...]

    def number(self, group: str, name: str) -> float | None:
        """A counter; None if the QNPU does not tell it (now)."""
        value = self.groups.get(group, {}).get(name)
        return value if isinstance(value, int | float) else None


def connect_operator(node: NodeFile, name: str) -> QnpuClient:
    """Connect to the QNPU of a node, over a Unix socket if it has one.

    Only there can it tell that it is asked by the user who runs it, whom it shows the
    processes of all clients.

    Args:
        node: the node.
        name: who asks.

    Raises:
        QnpuUnavailableError: it answers at none of its addresses.
        QNodeOSError: the last address failed for another reason.
    """
    failure: QNodeOSError | None = None
    for address in sorted(node.api.listen, key=lambda each: (not each.is_unix, not each.is_local)):
        try:
            return QnpuClient.connect(
                address,
                node.tls,
                name=name,
                timeout_s=ANSWER_TIMEOUT_S,
                expected_name=node.name,
            )
        except QNodeOSError as error:
            failure = failure or error
    assert failure is not None  # a node file names at least one address
    raise failure


class Operator:
    """Asks one QNPU again and again, and connects anew when it was gone.

    Args:
        node: the node.
        name: who asks.
    """

    def __init__(self, node: NodeFile, name: str) -> None:
        self._node = node
        self._name = name
        self._client: QnpuClient | None = None

    def ask(self) -> Snapshot:
        """How the QNPU is now.

        Raises:
            PeerError: it does not answer; another time it may.
        """
        try:
            if self._client is None:
                self._client = connect_operator(self._node, self._name)
            client = self._client
            groups = client.statistics(ANSWER_TIMEOUT_S)
            processes = client.processes(ANSWER_TIMEOUT_S)
        except TimeoutError as error:
            self.close()
            raise QnpuUnavailableError(
                f"the QNPU of {self._node.name} has not answered for {ANSWER_TIMEOUT_S} s"
            ) from error
        except PeerError:
            self.close()
            raise
        return Snapshot(time.monotonic(), client.welcome.node_name, groups, processes)

    def close(self) -> None:
        """Close the connection; `ask` makes a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
