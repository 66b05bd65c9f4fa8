"""What a SquidASM-style program is, and how one is run.

A program is a generator: it builds NetQASM with the SDK, and passes control by `yield from`
where it waits for its QNPU or for a message. Here a program waits by itself (it is a greenlet
of its own), so the generators have nothing to hand to anybody, and are run to their end.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from netqasm.sdk.epr_socket import EPRSocket

from qnodeos.applications.squidasm.connection import StackConnection
from qnodeos.applications.squidasm.csocket import ClassicalSocket
from qnodeos.errors import ProgramError


@dataclass
class ProgramMeta:
    """What a program needs.

    Attributes:
        name: of the program, for messages.
        csockets: nodes it exchanges messages with.
        epr_sockets: nodes it shares entanglement with.
        max_qubits: how many qubits it holds at once, at most.
        parameters: inputs it takes; only older programs say.
    """

    name: str
    csockets: list[str] = field(default_factory=list)
    epr_sockets: list[str] = field(default_factory=list)
    max_qubits: int = 2
    parameters: Any = None


class ProgramContext:
    """What a program is given: its connection and its sockets, by the name of the peer."""

    def __init__(
        self,
        netqasm_connection: StackConnection,
        csockets: Mapping[str, ClassicalSocket],
        epr_sockets: Mapping[str, EPRSocket],
        app_id: int,
    ) -> None:
        self._connection = netqasm_connection
        self._csockets = dict(csockets)
        self._epr_sockets = dict(epr_sockets)
        self._app_id = app_id

    @property
    def connection(self) -> StackConnection:
        """Connection to the QNPU."""
        return self._connection

    @property
    def csockets(self) -> dict[str, ClassicalSocket]:
        """Classical sockets by the name of the peer."""
        return self._csockets

    @property
    def epr_sockets(self) -> dict[str, EPRSocket]:
        """Sockets for entanglement by the name of the peer."""
        return self._epr_sockets

    @property
    def app_id(self) -> int:
        """Number of the application at its QNPU."""
        return self._app_id


class Program:
    """Base of programs: subclasses have `meta` and `run`."""

    @property
    def meta(self) -> ProgramMeta:
        """What the program needs.

        Raises:
            NotImplementedError: the subclass does not say.
        """
        raise NotImplementedError(f"{type(self).__name__} has no meta")

    def run(self, context: ProgramContext) -> Generator[Any, None, Any]:
        """Do it, and return the results.

        Raises:
            NotImplementedError: the subclass has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run")


def run_program(program: Any, node: str) -> Any:
    """Run a program once, from inside the CNPU of its node.

    Args:
        program: has `meta` and `run`.
        node: name of the node, which is the name of the application too.

    Returns:
        What its `run` returned.

    Raises:
        ProgramError: it handed something to the simulator it was written for.
        ConfigurationError: it names a peer that does not exist.
    """
    meta = program.meta
    # Programs name one socket per peer, so all are number 0 of their peer at both ends.
    epr_sockets = {peer: EPRSocket(peer) for peer in meta.epr_sockets}
    csockets = {peer: ClassicalSocket(node, peer) for peer in meta.csockets}
    with StackConnection(
        node, epr_sockets=list(epr_sockets.values()), max_qubits=meta.max_qubits
    ) as connection:
        context = ProgramContext(connection, csockets, epr_sockets, connection.app_id)
        running = program.run(context)
        return exhaust(running) if isinstance(running, Generator) else running


def exhaust(running: Generator[Any, None, Any]) -> Any:
    """Run a generator that waits by itself to its end; returns what it returned.

    Raises:
        ProgramError: it yields something, which nobody here can act on.
    """
    try:
        event = next(running)
    except StopIteration as end:
        return end.value
    is_waiting = isinstance(event, Generator)
    hint = "write `yield from`" if is_waiting else "only `yield from` of these works here"
    running.close()
    raise ProgramError(
        f"the program yields a {type(event).__name__} itself; it can wait for its connection "
        f"(flush) and its sockets (recv): {hint}"
    )
