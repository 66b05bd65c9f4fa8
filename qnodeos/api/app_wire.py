"""CNPU to CNPU: classical messages of applications, in the frames of `qnodeos.api.framing`.

    the node with the smaller id                     the other
    AppHello                      ------------->
                                  <-------------     AppWelcome (or AppRefused, and the end)
    TextMessage, StructuredContent, Consumed, Goodbye in either direction

All messages of two processes share one connection; a message names the applications it goes
from and to, and their socket. A sender may have `WINDOW_BYTES` on the way for each of these
channels, so that one that nobody reads fills no more than that and never holds up another;
`Consumed` gives it back.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from qnodeos.errors import CallerError, MalformedMessageError

PROTOCOL_VERSION: Final = 1
MAX_MESSAGE_BYTES: Final = 1 << 20
"""Bound on a classical message, encoded."""
WINDOW_BYTES: Final = 2 << 20
"""What one channel may have on the way, each message counted by `cost_of`."""
MAX_FRAME_BYTES: Final = MAX_MESSAGE_BYTES + 4096
MESSAGE_OVERHEAD_BYTES: Final = 64
"""What a message costs besides its payload, so that empty ones are not free."""
MAX_DEPTH: Final = 16
"""Of the payload of a structured message."""
_TUPLE: Final = 1
"""MessagePack extension: a tuple, as an encoded array."""

Name = Annotated[str, msgspec.Meta(max_length=256)]
SocketId = Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)]
Window = Annotated[int, msgspec.Meta(gt=0, le=WINDOW_BYTES)]


class AppMessage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all messages."""


class AppHello(AppMessage, tag=1, frozen=True):
    """The first message of the process that connects."""

    version: int
    node: Name


class AppWelcome(AppMessage, tag=2, frozen=True):
    """The answer to `AppHello`."""

    version: int
    node: Name


class AppRefused(AppMessage, tag=3, frozen=True):
    """The connection is not wanted: why."""

    text: Annotated[str, msgspec.Meta(max_length=1024)]


class TextMessage(AppMessage, tag=4, frozen=True):
    """A string from one application to another."""

    source: Name
    destination: Name
    socket_id: SocketId
    text: str


class StructuredContent(AppMessage, tag=5, frozen=True):
    """The SDK's structured message: a header, and a payload as `pack` makes it."""

    source: Name
    destination: Name
    socket_id: SocketId
    header: str
    payload: Any


class Consumed(AppMessage, tag=6, frozen=True):
    """The receiver has taken messages of a channel that cost so many bytes."""

    source: Name
    destination: Name
    socket_id: SocketId
    cost: Window


class Goodbye(AppMessage, tag=7, frozen=True):
    """The sender's programs have ended; nothing more will come."""


ApplicationMessage = (
    AppHello | AppWelcome | AppRefused | TextMessage | StructuredContent | Consumed | Goodbye
)

_encoder: Final = msgspec.msgpack.Encoder()


def _unpack_extension(code: int, data: memoryview) -> tuple[Any, ...]:
    if code != _TUPLE:
        raise msgspec.DecodeError(f"unknown extension {code}")
    return tuple(_list_decoder.decode(data))


_decoder: Final = msgspec.msgpack.Decoder(ApplicationMessage, ext_hook=_unpack_extension)
_list_decoder: Final = msgspec.msgpack.Decoder(list[Any], ext_hook=_unpack_extension)


def pack(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A payload as it travels: plain data, in which tuples remain tuples.

    Args:
        value: None, a truth value, number, string or bytes, or lists, tuples and dictionaries
            of these. A future with a value is a number.
        depth: how deep lists and the like may be nested.

    Raises:
        CallerError: it is something else.
    """
    if value is None or isinstance(value, bool | float | str | bytes):
        return value
    if isinstance(value, int):
        return int(value)
    if depth == 0:
        raise CallerError(f"a structured message is nested deeper than {MAX_DEPTH}; flatten it")
    if isinstance(value, tuple):
        items = [pack(item, depth - 1) for item in value]
        return msgspec.msgpack.Ext(_TUPLE, _encoder.encode(items))
    if isinstance(value, list):
        return [pack(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {pack(key, 0): pack(item, depth - 1) for key, item in value.items()}
    raise CallerError(
        f"a structured message carries plain data, not {type(value).__name__}; convert it"
    )


def encode(message: AppMessage) -> bytes:
    """The payload that carries a message."""
    return _encoder.encode(message)


def decode(payload: bytes) -> ApplicationMessage:
    """A message of another CNPU.

    Raises:
        MalformedMessageError: it is none.
    """
    try:
        message: ApplicationMessage = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, RecursionError) as error:
        raise MalformedMessageError(f"not a message of a CNPU: {error}") from None
    return message


def cost_of(payload: bytes) -> int:
    """What a message counts against the window of its channel.

    Args:
        payload: as encoded.
    """
    return len(payload) + MESSAGE_OVERHEAD_BYTES
