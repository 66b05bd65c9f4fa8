"""Runs through what every program does once, so that the first real time is not the slowest.

The first block a process assembles takes several times as long as those after it: tables are
built, code is loaded. In a program that happens while its qubit waits.
"""

from __future__ import annotations

from typing import Any, Final

from netqasm.sdk import EPRSocket
from netqasm.sdk.qubit import Qubit

from qnodeos.api.app_wire import TextMessage, decode, encode
from qnodeos.api.host import HostReply, RegisterResult
from qnodeos.api.netqasm import Flavour
from qnodeos.cnpu.backend import QNodeOSConnection
from qnodeos.cnpu.host import NetworkDirectory
from qnodeos.qdevice.capabilities import Capabilities

_ROUNDS: Final = 3
"""The first is assembled, the second finds what was prepared, the third is as all later."""
_HERE, _THERE = "here", "there"
_M0: Final = 3
"""Encoded register that an outcome comes back in."""


class _NowhereHost:
    """A CNPU without a QNPU: every request is answered with an outcome."""

    node_name = _HERE
    directory = NetworkDirectory({_HERE: 0, _THERE: 1}, {_HERE: _HERE, _THERE: _THERE})

    def __init__(self, flavour: Flavour, capabilities: Capabilities) -> None:
        self.flavour = flavour
        self.capabilities = capabilities
        self._reply = HostReply(0, 0, (RegisterResult(_M0, 1),))

    def open_client(self) -> int:
        return 0

    def close_client(self, client: int) -> None:
        pass

    def submit(self, client: int, raw: bytes) -> int:
        return 0

    def await_reply(self, request: int) -> HostReply:
        return self._reply

    def _no(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nobody does that here")

    register = open_socket = send = receive = _no


def warm_up(flavour: Flavour, capabilities: Capabilities) -> None:
    """Build, assemble, prepare and fill in blocks that are sent nowhere.

    Args:
        flavour: of the node.
        capabilities: of its device.
    """
    socket = EPRSocket(_THERE)
    with QNodeOSConnection(
        _HERE, host=_NowhereHost(flavour, capabilities), epr_sockets=[socket], max_qubits=1
    ) as connection:
        for round_ in range(_ROUNDS):
            qubit = socket.create_keep()[0]
            connection.flush()
            qubit.rot_Y(n=8, d=4)
            qubit.rot_X(n=round_, d=4)
            qubit.H()
            outcome = qubit.measure(store_array=False)
            connection.flush()
            message = TextMessage(_HERE, _THERE, 0, str(int(outcome)))
            decode(encode(message))
            qubit = Qubit(connection)
            qubit.measure()
            connection.flush()
            qubit = socket.recv_keep()[0]
            qubit.measure(store_array=False)
            connection.flush()
