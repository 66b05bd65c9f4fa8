"""Protocols that SquidASM-style programs call: teleportation, gates between nodes, GHZ states.

Those that wait are generators, for `yield from`. Both ends of a protocol must agree on the
messages, so these are the simulator's: see the docstrings.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from netqasm.sdk.epr_socket import EPRSocket
from netqasm.sdk.qubit import Qubit

from qnodeos.applications.squidasm.connection import StackConnection
from qnodeos.applications.squidasm.csocket import ClassicalSocket
from qnodeos.applications.squidasm.program import ProgramContext
from qnodeos.errors import ProgramError


def measXY(q: Qubit, angle: float) -> Any:
    """Measure in the basis |0> +- exp(-i angle) |1>: Rz(angle), H and a measurement.

    Args:
        q: the qubit.
        angle: in radians.

    Returns:
        The outcome, which has a value after the next flush.
    """
    q.rot_Z(angle=angle)
    q.H()
    return q.measure()


def remote_state_preparation(epr_socket: EPRSocket, theta: float) -> Any:
    """Prepare Rz(theta + m pi) |+> at the peer, where m is what this returns.

    Args:
        epr_socket: to the peer, who calls `recv_remote_state_preparation`.
        theta: in radians.

    Returns:
        The outcome, which has a value after the next flush.
    """
    return measXY(epr_socket.create_keep()[0], theta)


def recv_remote_state_preparation(epr_socket: EPRSocket) -> Qubit:
    """The qubit that the peer prepares with `remote_state_preparation`."""
    return epr_socket.recv_keep()[0]


def send_float(socket: ClassicalSocket, phi: float) -> None:
    """Send a number, as a string."""
    socket.send_float(phi)


def recv_float(socket: ClassicalSocket) -> Generator[Any, None, float]:
    """Take the next message, a number."""
    return (yield from socket.recv_float())


def send_int(socket: ClassicalSocket, outcome: int) -> None:
    """Send a whole number, as a string."""
    socket.send_int(outcome)


def recv_int(socket: ClassicalSocket) -> Generator[Any, None, int]:
    """Take the next message, a whole number."""
    return (yield from socket.recv_int())


def teleport_send(q: Qubit, context: ProgramContext, peer_name: str) -> Generator[Any, None, None]:
    """Teleport a qubit to a peer, who calls `teleport_recv`.

    One message goes to the peer: the two outcomes, that of the qubit first, as "a,b".

    Args:
        q: the qubit; it is measured.
        context: of the program.
        peer_name: the peer.
    """
    half = context.epr_sockets[peer_name].create_keep()[0]
    q.cnot(half)
    q.H()
    phase, parity = q.measure(), half.measure()
    yield from context.connection.flush()
    context.csockets[peer_name].send(f"{int(phase)},{int(parity)}")


def teleport_recv(context: ProgramContext, peer_name: str) -> Generator[Any, None, Qubit]:
    """Receive the qubit that a peer teleports with `teleport_send`.

    Args:
        context: of the program.
        peer_name: the peer.

    Returns:
        The qubit.

    Raises:
        ProgramError: the peer's message is not two outcomes.
    """
    half = context.epr_sockets[peer_name].recv_keep()[0]
    yield from context.connection.flush()
    message = yield from context.csockets[peer_name].recv()
    phase, parity = _two_outcomes(message, peer_name)
    if parity:
        half.X()
    if phase:
        half.Z()
    yield from context.connection.flush()
    return half


def _two_outcomes(message: Any, peer: str) -> tuple[bool, bool]:
    outcomes = message.split(",") if isinstance(message, str) else []
    if len(outcomes) != 2 or not set(outcomes) <= {"0", "1"}:
        raise ProgramError(
            f"expected the two outcomes of a teleportation from {peer}, as '0,1', and got "
            f"{message!r}; does {peer} call teleport_send?"
        )
    return outcomes[0] == "1", outcomes[1] == "1"


def distributed_CNOT_control(
    context: ProgramContext, peer_name: str, ctrl_qubit: Qubit
) -> Generator[Any, None, None]:
    """CNOT on a qubit of a peer, who calls `distributed_CNOT_target`.

    An outcome, "0" or "1", goes to the peer and one comes back.

    Args:
        context: of the program.
        peer_name: the peer.
        ctrl_qubit: the control.
    """
    yield from _control(context, peer_name, ctrl_qubit)


def distributed_CNOT_target(
    context: ProgramContext, peer_name: str, target_qubit: Qubit
) -> Generator[Any, None, None]:
    """CNOT controlled by a qubit of a peer, who calls `distributed_CNOT_control`.

    Args:
        context: of the program.
        peer_name: the peer.
        target_qubit: the target.
    """
    yield from _target(context, peer_name, lambda half: half.cnot(target_qubit))


def distributed_CPhase_control(
    context: ProgramContext, peer_name: str, ctrl_qubit: Qubit
) -> Generator[Any, None, None]:
    """CZ with a qubit of a peer, who calls `distributed_CPhase_target`.

    Args:
        context: of the program.
        peer_name: the peer.
        ctrl_qubit: the qubit here.
    """
    yield from _control(context, peer_name, ctrl_qubit)


def distributed_CPhase_target(
    context: ProgramContext, peer_name: str, target_qubit: Qubit
) -> Generator[Any, None, None]:
    """CZ with a qubit of a peer, who calls `distributed_CPhase_control`.

    Args:
        context: of the program.
        peer_name: the peer.
        target_qubit: the qubit here.
    """
    yield from _target(context, peer_name, lambda half: half.cphase(target_qubit))


def _control(context: ProgramContext, peer: str, qubit: Qubit) -> Generator[Any, None, None]:
    """Give the peer a copy (in the computational basis) of a qubit, and undo what that left."""
    half = context.epr_sockets[peer].create_keep()[0]
    qubit.cnot(half)
    parity = half.measure()
    yield from context.connection.flush()
    context.csockets[peer].send(str(int(parity)))
    if (yield from context.csockets[peer].recv_int()):
        qubit.Z()
    yield from context.connection.flush()


def _target(context: ProgramContext, peer: str, gate: Any) -> Generator[Any, None, None]:
    half = context.epr_sockets[peer].recv_keep()[0]
    yield from context.connection.flush()
    if (yield from context.csockets[peer].recv_int()):
        half.X()
    gate(half)
    half.H()
    phase = half.measure()
    yield from context.connection.flush()
    context.csockets[peer].send(str(int(phase)))


def create_ghz(
    connection: StackConnection,
    down_epr_socket: EPRSocket | None = None,
    up_epr_socket: EPRSocket | None = None,
    down_socket: ClassicalSocket | None = None,
    up_socket: ClassicalSocket | None = None,
    do_corrections: bool = False,
) -> Generator[Any, None, tuple[Qubit, int]]:
    """A GHZ state of a row of nodes, all of which call this.

    Each node tells the one below it by an empty message that it is ready, and that one then
    creates a pair. With corrections, the parity of the outcomes so far goes up the row.

    Args:
        connection: of the program.
        down_epr_socket: to the node below; none at the bottom.
        up_epr_socket: to the node above; none at the top.
        down_socket: to the node below.
        up_socket: to the node above.
        do_corrections: whether to make it (|0...0> + |1...1>)/sqrt(2); otherwise the nodes
            above one with outcome 1 are flipped.

    Returns:
        The qubit, and the outcome of this node: 0 at both ends of the row.

    Raises:
        ProgramError: there is neither a node below nor one above, or a socket is missing.
    """
    if down_epr_socket is None and up_epr_socket is None:
        raise ProgramError("create_ghz needs a node below or above: give its sockets")
    if (down_epr_socket is not None and down_socket is None) or (
        up_epr_socket is not None and up_socket is None
    ):
        raise ProgramError("create_ghz needs a classical socket beside each socket for pairs")
    qubit, outcome = None, None
    if down_epr_socket is not None and down_socket is not None:
        down_socket.send("")
        qubit = down_epr_socket.recv_keep()[0]
        yield from connection.flush()
    if up_epr_socket is not None and up_socket is not None:
        yield from up_socket.recv()
        upper = up_epr_socket.create_keep()[0]
        if qubit is None:
            qubit = upper
        else:
            qubit.cnot(upper)
            outcome = upper.measure()
        yield from connection.flush()
    parity = 0 if outcome is None else int(outcome)
    if do_corrections:
        yield from _correct_ghz(connection, qubit, parity, down_socket, up_socket)
    return qubit, parity


def _correct_ghz(
    connection: StackConnection,
    qubit: Any,
    outcome: int,
    down: ClassicalSocket | None,
    up: ClassicalSocket | None,
) -> Generator[Any, None, None]:
    """Flip the qubit if an odd number of the nodes below had outcome 1."""
    parity = 0
    if down is not None:
        parity = yield from down.recv_int()
        if parity:
            qubit.X()
            yield from connection.flush()
    if up is not None:
        up.send(str((parity + outcome) % 2))
