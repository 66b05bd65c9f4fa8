"""CNPU to QNPU: the NetQASM SDK's messages, and the replies to them.

The SDK's ctypes structures use natural alignment (their ``_pack = 1`` has no effect in
netqasm 2.3), little-endian. A subroutine message is a type byte, two version bytes, a
16-bit application id and seven bytes per instruction.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from qnodeos.errors import ErrorCode, MalformedMessageError

_INIT_APP: Final = struct.Struct("<B3xIB3x")
_OPEN_SOCKET: Final = struct.Struct("<B3xIiiiB3x")
_STOP_APP: Final = struct.Struct("<B3xI")
_SIGNAL: Final = struct.Struct("<BB")
_SUBROUTINE_HEADER: Final = struct.Struct("<BBBH")
SUBROUTINE_HEADER_BYTES: Final = _SUBROUTINE_HEADER.size


@dataclass(frozen=True, slots=True)
class InitApp:
    """Register a program; its process is created."""

    app_id: int
    max_qubits: int


@dataclass(frozen=True, slots=True)
class OpenErSocket:
    """Open one end of an ER socket for a registered program."""

    app_id: int
    socket_id: int
    remote_node_id: int
    remote_socket_id: int
    min_fidelity: int


@dataclass(frozen=True, slots=True)
class SubmitSubroutine:
    """Run a subroutine; ``body`` is its instructions, seven bytes each."""

    app_id: int
    version: tuple[int, int]
    body: bytes


@dataclass(frozen=True, slots=True)
class StopApp:
    """End a program's process."""

    app_id: int


@dataclass(frozen=True, slots=True)
class Signal:
    """The SDK sends this whenever a connection closes; a shared QNPU ignores it."""

    number: int


HostMessage = InitApp | OpenErSocket | SubmitSubroutine | StopApp | Signal

_FIXED: Final = {0: _INIT_APP, 1: _OPEN_SOCKET, 3: _STOP_APP, 4: _SIGNAL}
_REGISTRATION_TYPE: Final = 0
_SUBROUTINE_TYPE: Final = 2


def is_registration(raw: bytes) -> bool:
    """Whether a message of the NetQASM SDK wants to register a program."""
    return raw[:1] == bytes([_REGISTRATION_TYPE])


def decode_host_message(raw: bytes, *, max_bytes: int) -> HostMessage:
    """Decode one message of the NetQASM SDK.

    Args:
        raw: the serialised message.
        max_bytes: longest message accepted.

    Raises:
        MalformedMessageError: empty, oversized, truncated, or of an unknown type.
    """
    if not raw:
        raise MalformedMessageError("empty host message; send at least a type byte")
    if len(raw) > max_bytes:
        raise MalformedMessageError(
            f"host message of {len(raw)} bytes exceeds the limit of {max_bytes} bytes "
            "(subroutine_bytes); split the subroutine"
        )
    kind = raw[0]
    if kind == _SUBROUTINE_TYPE:
        if len(raw) < SUBROUTINE_HEADER_BYTES:
            raise MalformedMessageError(
                f"subroutine message of {len(raw)} bytes is shorter than its "
                f"{SUBROUTINE_HEADER_BYTES}-byte header"
            )
        _, major, minor, app_id = _SUBROUTINE_HEADER.unpack_from(raw)
        return SubmitSubroutine(app_id, (major, minor), raw[SUBROUTINE_HEADER_BYTES:])
    layout = _FIXED.get(kind)
    if layout is None:
        raise MalformedMessageError(
            f"unknown host message type {kind}; known are 0 to 4 (NetQASM 2)"
        )
    if len(raw) != layout.size:
        raise MalformedMessageError(
            f"host message of type {kind} has {len(raw)} bytes, expected {layout.size}"
        )
    fields = layout.unpack(raw)[1:]
    if layout is _INIT_APP:
        return InitApp(*fields)
    if layout is _OPEN_SOCKET:
        return OpenErSocket(*fields)
    if layout is _STOP_APP:
        return StopApp(*fields)
    return Signal(*fields)


@dataclass(frozen=True, slots=True)
class RegisterResult:
    """A register returned by ``ret_reg``; ``register`` is the encoded byte."""

    register: int
    value: int


@dataclass(frozen=True, slots=True)
class ArrayResult:
    """An array returned by ``ret_arr``; None marks an undefined entry."""

    address: int
    values: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Why a request failed.

    Attributes:
        code: NetQASM's error code.
        kind: name of the error class.
        text: the message.
        subroutine: serial number of the subroutine in its process, or None.
        pc: index of the instruction at fault, or None.
    """

    code: ErrorCode
    kind: str
    text: str
    subroutine: int | None = None
    pc: int | None = None


@dataclass(frozen=True, slots=True)
class HostReply:
    """The one answer to one host message.

    Attributes:
        client: the connection the request came over.
        request: the number its sender gave it.
        results: what a subroutine returned, in order.
        error: None if all went well.
        serial: serial number of the subroutine, or None for other messages.
    """

    client: int
    request: int
    results: tuple[RegisterResult | ArrayResult, ...] = ()
    error: ErrorReport | None = None
    serial: int | None = None
