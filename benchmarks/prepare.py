"""Preparing quantum blocks: with templates that are filled in, and by the SDK alone.

The block is the one of the DQC server that depends on the client's message: three rotations
and a measurement. It is timed from the program's first call until the flush returns, with a
CNPU that answers at once, so what is left is what the program and the SDK do. Angles change
from block to block, as in the experiment.

The second figure is the SDK's explicit way: a subroutine compiled before the message comes,
with a template for the angle, then instantiated and committed.

Both ways must send the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from netqasm.lang.operand import Template
from netqasm.sdk import Qubit

from benchmarks.measure import GC_OFF, Effort, Figure, Outcome, Work, compare
from drivers.nv import NV_CAPABILITIES
from qnodeos.api.host import HostReply, RegisterResult
from qnodeos.api.netqasm import Flavour
from qnodeos.cnpu.backend import QNodeOSConnection
from qnodeos.cnpu.host import NetworkDirectory

BLOCKS: Final = 1_000
"""Per round."""
CHECKED: Final = 40
WANTED_SPEED: Final = 3

_M0: Final = 3
"""Encoded register that the outcome comes back in."""


class AnsweringHost:
    """A CNPU for one connection, which takes every subroutine and answers it at once.

    Attributes:
        sent: what was submitted.
    """

    node_name = "server"
    flavour = Flavour.NV
    capabilities = NV_CAPABILITIES
    directory = NetworkDirectory({"server": 1}, {"server": "server"})

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self._reply = HostReply(0, 0, (RegisterResult(_M0, 1),))

    def open_client(self) -> int:
        """Connect."""
        return 0

    def close_client(self, client: int) -> None:
        """Disconnect."""

    def submit(self, client: int, raw: bytes) -> int:
        """Take a message."""
        self.sent.append(raw)
        return 0

    def await_reply(self, request: int) -> HostReply:
        """Answer."""
        return self._reply

    def _no(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("the block that is timed does nothing of the kind")

    register = open_socket = send = receive = _no


def _connect(host: AnsweringHost, prepared: bool) -> QNodeOSConnection:
    return QNodeOSConnection("server", host=host, max_qubits=1, prepared=prepared)


def flushed(host: AnsweringHost, prepared: bool, blocks: int) -> Callable[[], None]:
    """Blocks that are built and flushed."""
    connection = _connect(host, prepared)

    def run() -> None:
        for number in range(blocks):
            qubit = Qubit(connection, add_new_command=False, virtual_address=0)
            qubit.rot_Y(n=8, d=4)
            qubit.rot_X(n=number % 32, d=4)
            qubit.rot_X(n=number * 7 % 32, d=4)
            outcome = qubit.measure(store_array=False)
            connection.flush()
            int(outcome)

    return run


def instantiated(host: AnsweringHost, prepared: bool, blocks: int) -> Callable[[], None]:
    """Blocks that were compiled before, and get their angle now."""
    connection = _connect(host, prepared)
    compiled = []
    for _ in range(blocks):  # the SDK's can be instantiated only once
        qubit = Qubit(connection, add_new_command=False, virtual_address=0)
        qubit.rot_Y(n=8, d=4)
        qubit.rot_X(n=Template("delta"), d=4)
        qubit.rot_X(n=3, d=4)
        qubit.measure(store_array=False)
        compiled.append(connection.compile())

    def run() -> None:
        for number, subroutine in enumerate(compiled):
            subroutine.instantiate(connection.app_id, arguments={"delta": number % 32})
            connection.commit_subroutine(subroutine)

    return run


def run(effort: Effort) -> Outcome:
    """Measure."""
    return Outcome(
        [
            _compare("block, transparent", flushed, effort),
            _compare("block, template", instantiated, effort),
        ],
        GC_OFF,
        notes=["the block of the DQC server that depends on the client's message"],
    )


def _compare(
    name: str, make: Callable[[AnsweringHost, bool, int], Callable[[], None]], effort: Effort
) -> Figure:
    hosts = AnsweringHost(), AnsweringHost()
    for host, prepared in zip(hosts, (True, False), strict=True):
        make(host, prepared, CHECKED)()
    if hosts[0].sent != hosts[1].sent:
        raise RuntimeError(f"{name}: prepared blocks are not those of the SDK")
    blocks = effort.of(BLOCKS)

    def work(words: str, prepared: bool) -> Work:
        return Work(words, "block", blocks, partial(_fresh, make, prepared, blocks))

    return compare(work("prepared", True), work("the SDK's way", False), effort).speed(
        name, at_least=WANTED_SPEED
    )


def _fresh(
    make: Callable[[AnsweringHost, bool, int], Callable[[], None]], prepared: bool, blocks: int
) -> Callable[[], None]:
    return make(AnsweringHost(), prepared, blocks)
