"""Length-prefixed frames on a byte stream, without the stream.

A frame is four bytes, the length of the payload (unsigned, little-endian), and the payload.
A length beyond the bound is an error at once, before anything of the payload is kept, so a
peer can make the other side hold at most one frame.
"""

from __future__ import annotations

import struct
from typing import Final

from qnodeos.errors import MalformedMessageError

_LENGTH: Final = struct.Struct("<I")
LENGTH_BYTES: Final = _LENGTH.size
MAX_FRAME_BYTES: Final = 8 << 20
"""Default bound on a payload: the longest result a kernel returns fits (`Limits`)."""


def frame(payload: bytes) -> bytes:
    """The frame that carries a payload.

    Raises:
        MalformedMessageError: the payload is empty; nothing sends such a frame.
    """
    if not payload:
        raise MalformedMessageError("an empty payload cannot be framed; send at least a byte")
    return _LENGTH.pack(len(payload)) + payload


class Deframer:
    """Cuts a byte stream into payloads.

    Args:
        max_bytes: longest payload accepted.
    """

    __slots__ = ("_buffer", "max_bytes")

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive, not {max_bytes}")
        self.max_bytes = max_bytes
        self._buffer = bytearray()

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; the payloads they complete, in order.

        Raises:
            MalformedMessageError: a frame is empty or longer than the bound. The stream
                cannot be followed any more: close it. Payloads complete before that frame
                are lost with it.
        """
        buffer = self._buffer
        if not buffer and len(data) >= LENGTH_BYTES:
            # Most often exactly one frame arrives: spare it the buffer.
            length = self._length(data, 0)
            if len(data) == LENGTH_BYTES + length:
                return [data[LENGTH_BYTES:]]
        buffer += data
        payloads = []
        start = 0
        while len(buffer) - start >= LENGTH_BYTES:
            end = start + LENGTH_BYTES + self._length(buffer, start)
            if len(buffer) < end:
                break
            payloads.append(bytes(buffer[start + LENGTH_BYTES : end]))
            start = end
        del buffer[:start]
        return payloads

    def _length(self, data: bytes | bytearray, start: int) -> int:
        length: int = _LENGTH.unpack_from(data, start)[0]
        if not 0 < length <= self.max_bytes:
            self._buffer.clear()  # whoever goes on all the same shall not make it grow
            raise MalformedMessageError(
                f"a frame announces {length} bytes; 1 to {self.max_bytes} are accepted. Is the "
                "other side a qnodeos of a compatible version?"
            )
        return length
