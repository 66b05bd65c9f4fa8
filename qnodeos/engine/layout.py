"""The file through which a lab process and a QNPU exchange frames: its layout, and checks.

The file has four pages; numbers are in the order of the machine, which both ends share:

    page 0   what the device says once: the fields of `HEADER`, then its capabilities as JSON
    page 1   words of 8 bytes, each alone in a cache line (`Word`)
    page 2   command slots
    page 3   response slots

A slot holds a tick (8 bytes), a frame (4 bytes) and a check (4 bytes) over both and over the
number of the slot since the beginning. A reader believes a slot only if its check is right, so
neither end depends on the order in which the other's stores become visible: what is not
complete is simply not there yet.

Who is there is told by locks on single bytes of the file (open file description locks), which
the kernel takes back from a process that dies, however it dies.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec

from qnodeos.errors import ChannelError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import MAX_ARGUMENT, MAX_HALVINGS, MAX_QUBIT, Opcode

MAGIC: Final = b"QNOSCHAN"
VERSION: Final = 1
PAGE_BYTES: Final = 4096
FILE_BYTES: Final = 4 * PAGE_BYTES
SLOT_BYTES: Final = 16
SLOTS: Final = PAGE_BYTES // SLOT_BYTES
COMMANDS_AT: Final = 2 * PAGE_BYTES
RESPONSES_AT: Final = 3 * PAGE_BYTES

HEADER: Final = struct.Struct("=8sIIQqQII")
"""Magic, version, slots, tick_ns, epoch_ns, device generation, bytes of JSON, check."""
CAPABILITIES_AT: Final = 64
MAX_CAPABILITIES_BYTES: Final = 2048
MAX_NAME_LENGTH: Final = 64
MIN_TICK_NS: Final = 100
MAX_TICK_NS: Final = 1_000_000_000
MAX_EPOCH_NS: Final = 1 << 62
"""Bounds of what a header may say (assumed: beyond any device and any clock)."""

DEVICE_BYTE: Final = 0
QNPU_BYTE: Final = 1
"""The bytes of the file that the two ends lock."""

_CHECKED_BYTES: Final = HEADER.size - 4


class Word(IntEnum):
    """Places of the words of page 1, in 8 bytes from the begin of the file."""

    COMMAND_HEAD = PAGE_BYTES // 8  # commands written, by the QNPU
    COMMAND_TAIL = PAGE_BYTES // 8 + 8  # commands read, by the device
    RESPONSE_HEAD = PAGE_BYTES // 8 + 16  # responses written, by the device
    RESPONSE_TAIL = PAGE_BYTES // 8 + 24  # responses read, by the QNPU
    DEVICE_HEARTBEAT = PAGE_BYTES // 8 + 32  # CLOCK_MONOTONIC in ns, by the device
    QNPU_GENERATION = PAGE_BYTES // 8 + 40  # QNPUs that have attached, by the QNPU
    QNPU_HEARTBEAT = PAGE_BYTES // 8 + 48  # CLOCK_MONOTONIC in ns, by the QNPU


@dataclass(frozen=True)
class ChannelInfo:
    """What a device says about itself in its channel.

    Attributes:
        tick_ns: length of a device tick.
        epoch_ns: CLOCK_MONOTONIC at the begin of device tick 0.
        generation: differs from that of every other channel at the same place.
        capabilities: what the device can do.
    """

    tick_ns: int
    epoch_ns: int
    generation: int
    capabilities: Capabilities

    def tick_at(self, time_ns: int) -> int:
        """Device tick at a time of CLOCK_MONOTONIC."""
        return (time_ns - self.epoch_ns) // self.tick_ns


_Qubit = Annotated[int, msgspec.Meta(ge=0, le=MAX_QUBIT)]
_Qubits = Annotated[tuple[_Qubit, ...], msgspec.Meta(max_length=MAX_QUBIT + 1)]
_Instructions = Annotated[tuple[Opcode, ...], msgspec.Meta(max_length=len(Opcode))]


class _Document(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
    communication_qubits: _Qubits
    memory_qubits: _Qubits
    instructions: _Instructions
    links: Annotated[int, msgspec.Meta(ge=0, le=MAX_ARGUMENT + 1)]
    angle_halvings: Annotated[int, msgspec.Meta(ge=0, le=MAX_HALVINGS)] = 0


def encode_header(info: ChannelInfo) -> bytes:
    """Page 0 of a channel.

    Raises:
        ChannelError: the capabilities take too many bytes, or a number is out of its range.
    """
    known = info.capabilities
    document = msgspec.json.encode(
        _Document(
            known.name[:MAX_NAME_LENGTH],
            known.communication_qubits,
            known.memory_qubits,
            tuple(sorted(known.instructions)),
            known.links,
            known.angle_halvings,
        )
    )
    if len(document) > MAX_CAPABILITIES_BYTES:
        raise ChannelError(
            f"the capabilities of the device take {len(document)} bytes; a channel has room for "
            f"{MAX_CAPABILITIES_BYTES}"
        )
    _check_times(info.tick_ns, info.epoch_ns)
    fields = HEADER.pack(
        MAGIC, VERSION, SLOTS, info.tick_ns, info.epoch_ns, info.generation, len(document), 0
    )[:_CHECKED_BYTES]
    check = zlib.crc32(document, zlib.crc32(fields))
    page = fields + struct.pack("=I", check)
    return (page.ljust(CAPABILITIES_AT, b"\0") + document).ljust(PAGE_BYTES, b"\0")


def decode_header(page: bytes, source: str) -> ChannelInfo:
    """What page 0 of a channel says.

    Args:
        page: the first `PAGE_BYTES` bytes of the file.
        source: what to call the file in an error.

    Raises:
        ChannelError: it is no channel, of another version, or damaged.
    """
    if len(page) < PAGE_BYTES or not page.startswith(MAGIC):
        raise ChannelError(f"{source} is no channel to a lab; name the file the lab has made")
    _, version, slots, tick_ns, epoch_ns, generation, length, check = HEADER.unpack_from(page)
    if version != VERSION:
        raise ChannelError(
            f"{source} is a channel of version {version}, and this is version {VERSION}; run the "
            "same version of qnodeos at both ends"
        )
    damaged = f"{source} is damaged; start the lab again, which makes it anew"
    if slots != SLOTS or length > MAX_CAPABILITIES_BYTES:
        raise ChannelError(damaged)
    document = page[CAPABILITIES_AT : CAPABILITIES_AT + length]
    if zlib.crc32(document, zlib.crc32(page[:_CHECKED_BYTES])) != check:
        raise ChannelError(damaged)
    _check_times(tick_ns, epoch_ns)
    try:
        said = msgspec.json.decode(document, type=_Document)
        capabilities = Capabilities(
            said.name,
            said.communication_qubits,
            said.memory_qubits,
            frozenset(said.instructions),
            tick_ns,
            said.links,
            said.angle_halvings,
        )
    except (msgspec.DecodeError, ValueError) as error:
        raise ChannelError(f"{source} describes an impossible device: {error}") from error
    return ChannelInfo(tick_ns, epoch_ns, generation, capabilities)


def _check_times(tick_ns: int, epoch_ns: int) -> None:
    if not MIN_TICK_NS <= tick_ns <= MAX_TICK_NS:
        raise ChannelError(f"a tick of {tick_ns} ns is outside {MIN_TICK_NS}..{MAX_TICK_NS} ns")
    if not 0 <= epoch_ns <= MAX_EPOCH_NS:
        raise ChannelError(f"an epoch at {epoch_ns} ns is outside 0..{MAX_EPOCH_NS} ns")


def open_file(path: Path) -> int:
    """Open a channel's file and make sure that it can be mapped, and is ours.

    Returns:
        A descriptor, the caller's to close.

    Raises:
        ChannelError: there is none, or it is something else.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ChannelError(f"there is no channel {path}; start the lab that makes it") from None
    except OSError as error:
        raise ChannelError(f"the channel {path} cannot be opened: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != FILE_BYTES:
            raise ChannelError(
                f"{path} is no channel to a lab (a file of {FILE_BYTES} bytes); name the file the "
                "lab has made"
            )
        if found.st_uid not in {0, os.geteuid()}:
            raise ChannelError(
                f"the channel {path} belongs to user {found.st_uid}, and whoever can shorten it "
                "can stop this process; run lab and QNPU as the same user"
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
