"""QNPU to QNPU, and controller to QNPU, on a byte stream.

    dialling end                             listening end
    PeerHello               ------------->
                            <-------------   PeerHello (or PeerRefused, and the end)
    Envelope, Heartbeat     <------------>   Envelope, Heartbeat
    ReadTick, Install       ------------->   (from the controller only)
    InstallRoutes           ------------->
                            <-------------   TickReading, Installed, RoutesInstalled

Messages are MessagePack arrays, framed as in `qnodeos.api.framing`. The epoch of a
connection is agreed in the hello: a message that carries another one was meant for an
earlier life of one of the ends, and is refused.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from qnodeos.api import peer
from qnodeos.errors import MalformedMessageError
from qnodeos.qdevice.outcomes import BellState

PROTOCOL_VERSION: Final = 2
MAX_PATTERN: Final = 4096
"""Time bins in the pattern of a schedule."""
MAX_ROUTES: Final = 4096
"""Destinations in the routes of a node."""
MAX_SCHEDULE: Final = (1 << 31) - 1
"""Number of a schedule; controllers that start count it up by one each, and stay there."""
MAX_TICKS: Final = 1 << 40
"""Bound on lengths of time in a schedule: 127 days of 10 us."""

Id = Annotated[int, msgspec.Meta(ge=-1, lt=1 << 31)]
Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
ScheduleNumber = Annotated[int, msgspec.Meta(ge=0, le=MAX_SCHEDULE)]
PairNumber = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
"""Programs are told these numbers, and theirs have 32 bits."""
Tick = Annotated[int, msgspec.Meta(ge=-(1 << 62), lt=1 << 62)]
Ticks = Annotated[int, msgspec.Meta(ge=0, le=MAX_TICKS)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Bell = Annotated[int, msgspec.Meta(ge=0, le=3)]
Kind = Annotated[int, msgspec.Meta(ge=0, le=2)]
Cause = Annotated[int, msgspec.Meta(ge=0, le=5)]
Priority = Annotated[int, msgspec.Meta(ge=0, le=255)]
WireRotations = Annotated[tuple[tuple[int, int], ...], msgspec.Meta(max_length=16)]
WireWeights = tuple[
    Annotated[int, msgspec.Meta(ge=0, le=255)], Annotated[int, msgspec.Meta(ge=0, le=255)]
]
WireRoute = tuple[
    Id,
    Id,
    Annotated[int, msgspec.Meta(ge=1, le=MAX_ROUTES)],
    Annotated[float, msgspec.Meta(ge=0, le=1)],
]
WirePath = Annotated[tuple[Id, ...], msgspec.Meta(min_length=1, max_length=peer.MAX_PATH)]
WireCircuit = tuple[Id, PairNumber]
"""See `qnodeos.api.peer.CircuitId`."""


class PeerMessageBase(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all messages."""


class PeerHello(PeerMessageBase, tag=1, frozen=True):
    """Who one is.

    Attributes:
        version: of the protocol.
        role: "qnpu" or "controller".
        node_id, node_name: of the node; -1 for a controller.
        incarnation: number of this start of the sender; another one after a restart.
        connections: how often the sender has connected to this peer since it started.
        tick_ns: length of its tick; 0 for a controller.
    """

    version: int
    role: Name
    node_id: Id
    node_name: Name
    incarnation: Number
    connections: Number
    tick_ns: Ticks


class PeerRefused(PeerMessageBase, tag=2, frozen=True):
    """The connection is not accepted, or is ended because of an error."""

    kind: Name
    text: Text


class Heartbeat(PeerMessageBase, tag=3, frozen=True):
    """A sign of life.

    Attributes:
        received: link layer messages received over this connection.
    """

    epoch: Number
    received: Number = 0


class WireTerms(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """See `qnodeos.api.peer.RequestTerms`."""

    socket_id: Id
    remote_socket_id: Id
    kind: Kind
    pairs: Number
    remote_rotations: WireRotations
    remote_random_basis: int
    start_bin: Tick
    priority: Priority = 0
    remote_weights: WireWeights = (0, 0)
    segment: tuple[Id, PairNumber, PairNumber, PairNumber] | None = None
    atomic: bool = False
    consecutive: bool = False


class WireOffer(PeerMessageBase, tag=16, frozen=True):
    """See `qnodeos.api.peer.Offer`."""

    epoch: Number
    create_id: PairNumber
    terms: WireTerms


class WireAccept(PeerMessageBase, tag=17, frozen=True):
    """See `qnodeos.api.peer.Accept`."""

    epoch: Number
    create_id: PairNumber
    start_bin: Tick


class WireReject(PeerMessageBase, tag=18, frozen=True):
    """See `qnodeos.api.peer.Reject`."""

    epoch: Number
    create_id: PairNumber
    reason: Text


class WireCancel(PeerMessageBase, tag=19, frozen=True):
    """See `qnodeos.api.peer.Cancel`."""

    epoch: Number
    create_id: PairNumber


class WireAnnounce(PeerMessageBase, tag=20, frozen=True):
    """See `qnodeos.api.peer.Announce`; the tick counts from the start of the schedule."""

    epoch: Number
    create_id: PairNumber
    index: PairNumber
    sequence: PairNumber
    bell_state: Bell
    network_tick: Tick


class WirePairLost(PeerMessageBase, tag=21, frozen=True):
    """See `qnodeos.api.peer.PairLost`."""

    epoch: Number
    create_id: PairNumber
    index: PairNumber


class WireSocketOpened(PeerMessageBase, tag=29, frozen=True):
    """See `qnodeos.api.peer.SocketOpened`."""

    epoch: Number
    socket_id: Id
    remote_socket_id: Id


class WireSocketClosed(PeerMessageBase, tag=22, frozen=True):
    """See `qnodeos.api.peer.SocketClosed`."""

    epoch: Number
    socket_id: Id
    remote_socket_id: Id


class WireCircuitTerms(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """See `qnodeos.api.peer.CircuitTerms`; the tick counts from the start of the schedule."""

    socket_id: Id
    remote_socket_id: Id
    kind: Kind
    pairs: Number
    create_id: PairNumber
    network_tick: Tick
    remote_rotations: WireRotations
    remote_random_basis: int
    priority: Priority
    remote_weights: WireWeights
    atomic: bool


class WireForward(PeerMessageBase, tag=23, frozen=True):
    """See `qnodeos.api.peer.Forward`."""

    epoch: Number
    circuit: WireCircuit
    destination: Id
    path: WirePath
    terms: WireCircuitTerms


class WirePass(PeerMessageBase, tag=24, frozen=True):
    """See `qnodeos.api.peer.Pass`."""

    epoch: Number
    circuit: WireCircuit
    turn_bin: Tick


class WireTrack(PeerMessageBase, tag=25, frozen=True):
    """See `qnodeos.api.peer.Track`."""

    epoch: Number
    circuit: WireCircuit
    pair: PairNumber
    attempt: PairNumber
    bell_state: Bell


class WireComplete(PeerMessageBase, tag=26, frozen=True):
    """See `qnodeos.api.peer.Complete`; the tick counts from the start of the schedule."""

    epoch: Number
    circuit: WireCircuit
    pair: PairNumber
    attempt: PairNumber
    sequence: PairNumber
    network_tick: Tick
    turn_bin: Tick


class WireExpire(PeerMessageBase, tag=27, frozen=True):
    """See `qnodeos.api.peer.Expire`."""

    epoch: Number
    circuit: WireCircuit
    pair: PairNumber
    attempt: PairNumber
    turn_bin: Tick
    reason: Text


class WireTeardown(PeerMessageBase, tag=28, frozen=True):
    """See `qnodeos.api.peer.Teardown`."""

    epoch: Number
    circuit: WireCircuit
    cause: Cause
    reason: Text


class WireFarSocket(PeerMessageBase, tag=30, frozen=True):
    """See `qnodeos.api.peer.FarSocket`."""

    epoch: Number
    destination: Id
    path: WirePath
    socket_id: Id
    remote_socket_id: Id
    is_open: bool


class WireFarRefusal(PeerMessageBase, tag=31, frozen=True):
    """See `qnodeos.api.peer.FarRefusal`."""

    epoch: Number
    destination: Id
    path: WirePath
    create_id: PairNumber
    reason: Text


class ReadTick(PeerMessageBase, tag=32, frozen=True):
    """Controller to QNPU: which tick is it?"""

    nonce: Number


class TickReading(PeerMessageBase, tag=33, frozen=True):
    """QNPU to controller: the device's unwrapped tick counter, and the schedule in use.

    Attributes:
        nonce: of the question.
        tick: now.
        schedule: number of the schedule installed, 0 for none.
        epoch_tick: tick of this node at which bin 0 of it begins.
        bin_ticks: length of its bins; 0 for none.
    """

    nonce: Number
    tick: Tick
    schedule: ScheduleNumber
    epoch_tick: Tick = 0
    bin_ticks: Ticks = 0


class Install(PeerMessageBase, tag=34, frozen=True):
    """Controller to QNPU: use this schedule (see `qnodeos.qnpu.schedule`).

    Attributes:
        schedule: its number; never smaller than that of an earlier one.
        epoch_tick: tick of this node's device at which bin 0 begins.
        pattern: node id of the peer per bin, -1 for none.
        from_bin: bin from which it counts, if it replaces one with the same bins.
    """

    schedule: ScheduleNumber
    bin_ticks: Ticks
    guard_ticks: Ticks
    batch_ticks: Ticks
    epoch_tick: Tick
    pattern: Annotated[tuple[Id, ...], msgspec.Meta(min_length=1, max_length=MAX_PATTERN)]
    from_bin: Number = 0


class Installed(PeerMessageBase, tag=35, frozen=True):
    """QNPU to controller: done, or the reason why not."""

    schedule: ScheduleNumber
    error: Text = ""


class InstallRoutes(PeerMessageBase, tag=36, frozen=True):
    """Controller to QNPU: use these routes (see `qnodeos.qnpu.routes`).

    Attributes:
        routes: node id of the destination, node id of the next hop, hops, fidelity.
    """

    routes: Annotated[tuple[WireRoute, ...], msgspec.Meta(max_length=MAX_ROUTES)]


class RoutesInstalled(PeerMessageBase, tag=37, frozen=True):
    """QNPU to controller: done, or the reason why not."""

    error: Text = ""


LinkMessage = (
    WireOffer
    | WireAccept
    | WireReject
    | WireCancel
    | WireAnnounce
    | WirePairLost
    | WireSocketOpened
    | WireSocketClosed
    | WireForward
    | WirePass
    | WireTrack
    | WireComplete
    | WireExpire
    | WireTeardown
    | WireFarSocket
    | WireFarRefusal
)
"""What kernels say to each other."""

PeerWireMessage = (
    PeerHello
    | PeerRefused
    | Heartbeat
    | LinkMessage
    | ReadTick
    | TickReading
    | Install
    | Installed
    | InstallRoutes
    | RoutesInstalled
)

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(PeerWireMessage)


def encode(message: PeerMessageBase) -> bytes:
    """The payload that carries a message."""
    return _encoder.encode(message)


def decode(payload: bytes) -> PeerWireMessage:
    """A message of a peer or a controller.

    Raises:
        MalformedMessageError: it is none.
    """
    try:
        message: PeerWireMessage = _decoder.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"not a message of a QNPU or controller: {error}") from None
    return message


def to_wire(message: peer.PeerMessage, epoch: int, epoch_tick: int) -> LinkMessage:
    """A link layer message as it travels.

    Args:
        message: of the kernel.
        epoch: of the connection.
        epoch_tick: start of the installed schedule, in ticks of this node.
    """
    match message:
        case peer.Offer(create_id, terms):
            return WireOffer(
                epoch,
                create_id,
                WireTerms(
                    terms.socket_id,
                    terms.remote_socket_id,
                    int(terms.kind),
                    terms.pairs,
                    terms.remote_rotations,
                    terms.remote_random_basis,
                    terms.start_bin,
                    terms.priority,
                    terms.remote_weights,
                    None
                    if terms.segment is None
                    else (*terms.segment.circuit, terms.segment.pair, terms.segment.attempt),
                    terms.atomic,
                    terms.consecutive,
                ),
            )
        case peer.Accept(create_id, start_bin):
            return WireAccept(epoch, create_id, start_bin)
        case peer.Reject(create_id, reason):
            return WireReject(epoch, create_id, reason)
        case peer.Cancel(create_id):
            return WireCancel(epoch, create_id)
        case peer.Announce(create_id, index, sequence, bell_state, tick):
            return WireAnnounce(
                epoch, create_id, index, sequence, int(bell_state), tick - epoch_tick
            )
        case peer.PairLost(create_id, index):
            return WirePairLost(epoch, create_id, index)
        case peer.SocketOpened(socket_id, remote_socket_id):
            return WireSocketOpened(epoch, socket_id, remote_socket_id)
        case peer.SocketClosed(socket_id, remote_socket_id):
            return WireSocketClosed(epoch, socket_id, remote_socket_id)
        case peer.Forward(circuit, destination, path, terms):
            return WireForward(
                epoch,
                circuit,
                destination,
                path,
                WireCircuitTerms(
                    terms.socket_id,
                    terms.remote_socket_id,
                    int(terms.kind),
                    terms.pairs,
                    terms.create_id,
                    terms.since_tick - epoch_tick,
                    terms.remote_rotations,
                    terms.remote_random_basis,
                    terms.priority,
                    terms.remote_weights,
                    terms.atomic,
                ),
            )
        case peer.Pass(circuit, turn_bin):
            return WirePass(epoch, circuit, turn_bin)
        case peer.Track(circuit, pair, attempt, bell_state):
            return WireTrack(epoch, circuit, pair, attempt, int(bell_state))
        case peer.Complete(circuit, pair, attempt, sequence, tick, turn_bin):
            return WireComplete(
                epoch, circuit, pair, attempt, sequence, tick - epoch_tick, turn_bin
            )
        case peer.Expire(circuit, pair, attempt, turn_bin, reason):
            return WireExpire(epoch, circuit, pair, attempt, turn_bin, reason)
        case peer.Teardown(circuit, cause, reason):
            return WireTeardown(epoch, circuit, int(cause), reason)
        case peer.FarSocket(destination, path, socket_id, remote_socket_id, is_open):
            return WireFarSocket(epoch, destination, path, socket_id, remote_socket_id, is_open)
        case peer.FarRefusal(destination, path, create_id, reason):
            return WireFarRefusal(epoch, destination, path, create_id, reason)


def from_wire(message: LinkMessage, epoch_tick: int) -> peer.PeerMessage:
    """A link layer message as the kernel takes it; arguments as for `to_wire`."""
    match message:
        case WireOffer(_, create_id, terms):
            return peer.Offer(
                create_id,
                peer.RequestTerms(
                    terms.socket_id,
                    terms.remote_socket_id,
                    peer.EntanglementType(terms.kind),
                    terms.pairs,
                    terms.remote_rotations,
                    terms.remote_random_basis,
                    terms.start_bin,
                    terms.priority,
                    terms.remote_weights,
                    None
                    if terms.segment is None
                    else peer.Segment(peer.CircuitId(*terms.segment[:2]), *terms.segment[2:]),
                    terms.atomic,
                    terms.consecutive,
                ),
            )
        case WireAccept(_, create_id, start_bin):
            return peer.Accept(create_id, start_bin)
        case WireReject(_, create_id, reason):
            return peer.Reject(create_id, reason)
        case WireCancel(_, create_id):
            return peer.Cancel(create_id)
        case WireAnnounce(_, create_id, index, sequence, bell_state, network_tick):
            return peer.Announce(
                create_id, index, sequence, BellState(bell_state), network_tick + epoch_tick
            )
        case WirePairLost(_, create_id, index):
            return peer.PairLost(create_id, index)
        case WireSocketOpened(_, socket_id, remote_socket_id):
            return peer.SocketOpened(socket_id, remote_socket_id)
        case WireSocketClosed(_, socket_id, remote_socket_id):
            return peer.SocketClosed(socket_id, remote_socket_id)
        case WireForward(_, circuit, destination, path, terms):
            return peer.Forward(
                peer.CircuitId(*circuit),
                destination,
                path,
                peer.CircuitTerms(
                    terms.socket_id,
                    terms.remote_socket_id,
                    peer.EntanglementType(terms.kind),
                    terms.pairs,
                    terms.create_id,
                    terms.network_tick + epoch_tick,
                    terms.remote_rotations,
                    terms.remote_random_basis,
                    terms.priority,
                    terms.remote_weights,
                    terms.atomic,
                ),
            )
        case WirePass(_, circuit, turn_bin):
            return peer.Pass(peer.CircuitId(*circuit), turn_bin)
        case WireTrack(_, circuit, pair, attempt, bell_state):
            return peer.Track(peer.CircuitId(*circuit), pair, attempt, BellState(bell_state))
        case WireComplete(_, circuit, pair, attempt, sequence, network_tick, turn_bin):
            tick = network_tick + epoch_tick
            return peer.Complete(peer.CircuitId(*circuit), pair, attempt, sequence, tick, turn_bin)
        case WireExpire(_, circuit, pair, attempt, turn_bin, reason):
            return peer.Expire(peer.CircuitId(*circuit), pair, attempt, turn_bin, reason)
        case WireTeardown(_, circuit, cause, reason):
            return peer.Teardown(peer.CircuitId(*circuit), peer.TeardownCause(cause), reason)
        case WireFarSocket(_, destination, path, socket_id, remote_socket_id, is_open):
            return peer.FarSocket(destination, path, socket_id, remote_socket_id, is_open)
        case WireFarRefusal(_, destination, path, create_id, reason):
            return peer.FarRefusal(destination, path, create_id, reason)
