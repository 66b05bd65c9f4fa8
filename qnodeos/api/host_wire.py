"""CNPU to QNPU on a byte stream: what travels in the frames of `qnodeos.api.framing`.

    client                                   QNPU
    Hello                   ------------->
                            <-------------   Welcome (or Refused, and the end)
    Netqasm, Register, ...  ------------->
                            <-------------   Reply, exactly one per request, in any order
                            <-------------   TraceEvents, if subscribed
    Ping                    ------------->
                            <-------------   Pong

Messages are MessagePack arrays: a tag, then the fields in order. The NetQASM SDK's own
messages travel unchanged in `Netqasm.raw`. A connection owns the programs it registers: when
it ends, so do they. Fields are only ever appended, with a default; anything else needs a new
`PROTOCOL_VERSION`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from qnodeos.api.host import ArrayResult, ErrorReport, HostReply, RegisterResult
from qnodeos.errors import ErrorCode, MalformedMessageError

PROTOCOL_VERSION: Final = 1
MAX_TEXT: Final = 4096
"""Bound on every text of a message."""

RequestId = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
Int32 = Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)]


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all messages."""


# --- client to QNPU -------------------------------------------------------------------


class Hello(Message, tag=1, frozen=True):
    """The first message of a client."""

    version: int
    client: Name


class Netqasm(Message, tag=2, frozen=True):
    """A message of the NetQASM SDK; replied to when it is done."""

    request: RequestId
    raw: bytes


class Register(Message, tag=3, frozen=True):
    """Register a program with a priority; without one, `Netqasm` with InitNewApp does."""

    request: RequestId
    app_id: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    max_qubits: Annotated[int, msgspec.Meta(ge=0, lt=256)]
    priority: Int32


class Cancel(Message, tag=4, frozen=True):
    """Withdraw a subroutine of this connection."""

    request: RequestId
    target: RequestId


class ListProcesses(Message, tag=5, frozen=True):
    """Ask for the processes alive (`ProcessList`)."""

    request: RequestId


class GetStatistics(Message, tag=6, frozen=True):
    """Ask for the counters of the QNPU (`Statistics`)."""

    request: RequestId


class Subscribe(Message, tag=7, frozen=True):
    """Turn the stream of trace events on or off.

    Attributes:
        request: its number.
        on: whether events are to come.
        past: how many events that have happened already come first, if so many are kept.
    """

    request: RequestId
    on: bool
    past: Count = 0


class Ping(Message, tag=8, frozen=True):
    """Ask for a sign of life."""

    nonce: RequestId


ClientMessage = (
    Hello | Netqasm | Register | Cancel | ListProcesses | GetStatistics | Subscribe | Ping
)

# --- QNPU to client -------------------------------------------------------------------


class DeviceInfo(msgspec.Struct, array_like=True, frozen=True):
    """What a program may know of the device."""

    name: Name
    communication_qubits: tuple[int, ...]
    memory_qubits: tuple[int, ...]
    instructions: tuple[int, ...]
    tick_ns: int
    links: int
    angle_halvings: int = 0


class Welcome(Message, tag=64, frozen=True):
    """The answer to `Hello`.

    Attributes:
        version: of the protocol.
        server: name and version of the software.
        node_name, node_id: of this node.
        incarnation: number of this start of the QNPU.
        flavour: NetQASM flavour (`qnodeos.api.netqasm.Flavour`).
        device: of the device.
        limits: bounds a client may meet, by name (see `qnodeos.limits`).
        idle_timeout_s: a connection that is silent for longer, with no request open, is
            closed; a `Ping` keeps it.
    """

    version: int
    server: Name
    node_name: Name
    node_id: int
    incarnation: int
    flavour: Name
    device: DeviceInfo
    limits: dict[str, int]
    idle_timeout_s: float


class Refused(Message, tag=65, frozen=True):
    """The connection is not accepted, or ended because of an error: kind and text say why."""

    kind: Name
    text: Text


class Failure(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Why a request failed; see `qnodeos.api.host.ErrorReport`."""

    code: Annotated[int, msgspec.Meta(ge=0, le=2)]
    kind: Name
    text: Text
    subroutine: int | None = None
    pc: int | None = None


class Reply(Message, tag=66, frozen=True):
    """The answer to a request.

    Attributes:
        request: its number.
        results: (register, value) or (address, [values]), in order.
        error: None if all went well.
        serial: number of the subroutine in its process, if it was one.
    """

    request: RequestId
    results: tuple[tuple[Int32, Int32 | tuple[Int32 | None, ...]], ...] = ()
    error: Failure | None = None
    serial: int | None = None


class ProcessInfo(msgspec.Struct, array_like=True, frozen=True):
    """One process, as `ListProcesses` shows it.

    Attributes:
        client, client_name: number of its connection, and what that calls itself.
    """

    pid: int
    client: int
    app_id: int
    state: Name
    priority: int
    pending: int
    current: int | None
    qubits: tuple[int, ...]
    requests: int
    client_name: Name = ""


class ProcessList(Message, tag=67, frozen=True):
    """The answer to `ListProcesses`."""

    request: RequestId
    processes: tuple[ProcessInfo, ...]


class Statistics(Message, tag=68, frozen=True):
    """The answer to `GetStatistics`: counters and settings by name, grouped.

    Attributes:
        groups: for example ``{"engine": {"ticks": 1000}, "kernel": {...}}``; values are
            numbers, texts, booleans, or flat lists or dictionaries of these.
    """

    request: RequestId
    groups: dict[str, dict[str, Any]]


class TraceEvents(Message, tag=69, frozen=True):
    """Events of the QNPU's trace: (tick, event, process, detail), in order.

    Attributes:
        dropped: events lost before these, because the client read too slowly.
        epoch_ns, tick_ns: tick 0 on this machine's monotonic clock, and the length of a tick.
    """

    dropped: Count
    epoch_ns: int
    tick_ns: int
    events: tuple[tuple[int, int, int, int], ...]


class Pong(Message, tag=70, frozen=True):
    """The answer to `Ping`."""

    nonce: RequestId


ServerMessage = Welcome | Refused | Reply | ProcessList | Statistics | TraceEvents | Pong

_encoder: Final = msgspec.msgpack.Encoder()
_client_decoder: Final = msgspec.msgpack.Decoder(ClientMessage)
_server_decoder: Final = msgspec.msgpack.Decoder(ServerMessage)


def encode(message: Message) -> bytes:
    """The payload that carries a message."""
    return _encoder.encode(message)


def decode_client(payload: bytes) -> ClientMessage:
    """A message of a client.

    Raises:
        MalformedMessageError: it is none.
    """
    try:
        message: ClientMessage = _client_decoder.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"not a message of a client: {error}") from None
    return message


def decode_server(payload: bytes) -> ServerMessage:
    """A message of a QNPU.

    Raises:
        MalformedMessageError: it is none.
    """
    try:
        message: ServerMessage = _server_decoder.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"not a message of a QNPU: {error}") from None
    return message


def reply_of(host_reply: HostReply) -> Reply:
    """A kernel's reply as it travels."""
    error = host_reply.error
    return Reply(
        host_reply.request,
        tuple(
            (result.register, result.value)
            if isinstance(result, RegisterResult)
            else (result.address, result.values)
            for result in host_reply.results
        ),
        None
        if error is None
        else Failure(
            int(error.code), error.kind, error.text[:MAX_TEXT], error.subroutine, error.pc
        ),
        host_reply.serial,
    )


def host_reply_of(reply: Reply, client: int) -> HostReply:
    """A reply as the CNPU's backend takes it.

    Args:
        reply: as it came.
        client: the backend's own number of the connection.
    """
    failure = reply.error
    return HostReply(
        client,
        reply.request,
        tuple(
            ArrayResult(place, value) if isinstance(value, tuple) else RegisterResult(place, value)
            for place, value in reply.results
        ),
        None
        if failure is None
        else ErrorReport(
            ErrorCode(failure.code), failure.kind, failure.text, failure.subroutine, failure.pc
        ),
        reply.serial,
    )
