"""Trace files in the CSV format of the published analysis tools.

Comment lines give the generation time, a description, the clock cycle and the channels;
a channel is one event (for the process manager's events: of one process) and owns one bit
of one group. Each row sets, for one timestamp, the bits of the events that happened then:

    # File generation date and time: 2025-01-31T12:00:00
    # Experiment description: ...
    # Clock cycle duration: 1 clock cycle of 10 us
    # Channel 0 [group_id=0; event_id=0; channel_name=QDEVICE_PRODUCE_INI_CMD]
    timestamps,group_id_0
    1500,1

What the format cannot carry: details, the process of an event whose channel does not name
one, and the order of events within one tick. An event that happens twice in a tick gets a
second row with the same timestamp. The published tools know processes 0 to 9.

Source of the format: the analysis library published with the dataset of Delle Donne et
al., Nature 639, 321 (2025).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from qnodeos.errors import MalformedTraceError
from qnodeos.trace.events import HOST_EVENTS, PER_PROCESS_EVENTS, Event

LINE_CHARS_MAX: Final = 4096
CHANNELS_MAX: Final = 4096
ROWS_MAX: Final = 1 << 26
PROCESS_MAX: Final = (1 << 31) - 1

_BITS_PER_GROUP: Final = 32
_EVENT_ID_MAX: Final = 62  # the published tools mask with signed 64-bit integers
_UNITS_NS: Final = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_CREATED: Final = re.compile(r"# File generation date and time: (.*)")
_DESCRIPTION: Final = re.compile(r"# Experiment description: ?(.*)")
_CLOCK: Final = re.compile(r"# Clock cycle duration: 1 clock cycle of ([0-9]{1,12}) (\w+)")
_CHANNEL: Final = re.compile(
    r"# Channel [0-9]{1,9} "
    r"\[group_id=([0-9]{1,9}); event_id=([0-9]{1,9}); channel_name=(\w+)\]"
)
_CHANNEL_NAME: Final = re.compile(r"([A-Z_]+?)(?:_P([0-9]{1,10}))?")
_ROW: Final = re.compile(r"-?[0-9]{1,19}(?:,[0-9]{1,19})*")


class Channel(NamedTuple):
    """What one bit stands for: an event, and its process where the format has one."""

    event: Event
    process: int = 0

    @property
    def name(self) -> str:
        """Name in the file, for example ``EGP_ENT_OK`` or ``PROCMGR_SUBROUTINE_DONE_P2``."""
        if self.event in PER_PROCESS_EVENTS:
            return f"{self.event.name}_P{self.process}"
        return self.event.name


@dataclass(frozen=True)
class TraceFile:
    """What a trace file says.

    Attributes:
        created: generation date and time, as written in the file.
        description: of the experiment.
        unit_ns: duration of one clock cycle.
        columns: ``time`` int64, ``event`` uint16, ``process`` int32 and ``detail`` int32
            (all zero), each of shape (n,), by row and within a row by channel.
    """

    created: str
    description: str
    unit_ns: int
    columns: dict[str, NDArray[Any]]


# --- writing ------------------------------------------------------------------------


def write_trace_csv(
    stream: TextIO,
    columns: Mapping[str, NDArray[Any]],
    *,
    unit_ns: int,
    created: datetime,
    description: str,
) -> None:
    """Write a trace; rows are sorted by time.

    All events of the host are declared as channels if the trace has one of them, and so
    for the QNPU, because the published tools look channels up by name.

    Args:
        stream: where to write text.
        columns: of a `TraceRecorder`; ``detail`` is ignored.
        unit_ns: duration of one unit of ``time``.
        created: generation time to write.
        description: of the experiment; runs of white space become one space.

    Raises:
        MalformedTraceError: an event number is unknown, a process id is negative, or the
            channels or the description exceed their bounds.
    """
    text = " ".join(description.split())
    if len(text) > LINE_CHARS_MAX // 2:
        raise MalformedTraceError(
            f"description has {len(text)} characters; at most {LINE_CHARS_MAX // 2} fit"
        )
    channels = _channels_of(columns)
    scale, unit = (unit_ns // 1000, "us") if unit_ns % 1000 == 0 else (unit_ns, "ns")
    stream.write(f"# File generation date and time: {created.isoformat()}\n")
    stream.write(f"# Experiment description: {text}\n")
    stream.write(f"# Clock cycle duration: 1 clock cycle of {scale} {unit}\n")
    for number, channel in enumerate(channels):
        group, bit = divmod(number, _BITS_PER_GROUP)
        stream.write(
            f"# Channel {number} [group_id={group}; event_id={bit}; channel_name={channel.name}]\n"
        )
    n_groups = -(-len(channels) // _BITS_PER_GROUP)
    stream.write(",".join(["timestamps", *(f"group_id_{g}" for g in range(n_groups))]) + "\n")
    times, masks = _rows(columns, channels, n_groups)
    for row in np.column_stack([times, masks]).tolist():
        stream.write(",".join(map(str, row)) + "\n")


def _channels_of(columns: Mapping[str, NDArray[Any]]) -> list[Channel]:
    try:
        present = {Event(number) for number in np.unique(columns["event"]).tolist()}
    except ValueError as error:
        raise MalformedTraceError(f"trace to write has an unknown event: {error}") from error
    per_process = np.isin(columns["event"], list(PER_PROCESS_EVENTS))
    processes: list[int] = np.unique(columns["process"][per_process]).tolist()
    if processes and not 0 <= processes[0] <= processes[-1] <= PROCESS_MAX:
        raise MalformedTraceError(
            f"trace to write has process ids {processes[0]}..{processes[-1]}; "
            f"they must lie in 0..{PROCESS_MAX}"
        )
    channels = [
        Channel(event)
        for event in Event
        if event not in PER_PROCESS_EVENTS
        and (present & HOST_EVENTS if event in HOST_EVENTS else present - HOST_EVENTS)
    ]
    channels += [Channel(event, p) for p in processes for event in sorted(PER_PROCESS_EVENTS)]
    if len(channels) > CHANNELS_MAX:
        raise MalformedTraceError(
            f"trace to write has {len(processes)} processes and so {len(channels)} channels; "
            f"at most {CHANNELS_MAX} are allowed"
        )
    return channels


def _rows(
    columns: Mapping[str, NDArray[Any]], channels: list[Channel], n_groups: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Timestamps (rows,) and bit masks (rows, n_groups)."""
    per_process = np.isin(columns["event"], list(PER_PROCESS_EVENTS))
    process = np.where(per_process, columns["process"], 0).astype(np.int64)
    keys = columns["event"].astype(np.int64) << 32 | process
    channel_keys = np.array([c.event << 32 | c.process for c in channels], dtype=np.int64)
    by_key = np.argsort(channel_keys)
    number = by_key[np.searchsorted(channel_keys, keys, sorter=by_key)] if keys.size else keys
    order = np.lexsort((number, columns["time"]))
    time, number = columns["time"][order], number[order]
    # The k-th repetition of a channel at one timestamp goes to the k-th row of it.
    index = np.arange(time.size)
    first = np.where(_run_starts(time, number), index, 0)
    repetition = index - np.maximum.accumulate(first)
    order = np.lexsort((repetition, time))
    time, number, repetition = time[order], number[order], repetition[order]
    new_row = _run_starts(time, repetition)
    masks = np.zeros((int(new_row.sum()), n_groups), dtype=np.int64)
    group, bit = np.divmod(number, _BITS_PER_GROUP)
    np.bitwise_or.at(masks, (np.cumsum(new_row) - 1, group), np.left_shift(np.int64(1), bit))
    return time[new_row], masks


def _run_starts(*keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a sorted sequence differs from its predecessor in any key, shape (n,)."""
    starts = np.zeros(keys[0].size, dtype=bool)
    starts[:1] = True
    for key in keys:
        starts[1:] |= key[1:] != key[:-1]
    return starts


# --- reading ------------------------------------------------------------------------


def read_trace_csv(stream: TextIO) -> TraceFile:
    """Read a trace file.

    Args:
        stream: text, at its beginning.

    Raises:
        MalformedTraceError: the text does not follow the format, names an unknown event,
            sets a bit no channel owns, or exceeds a bound; the message has the line.
    """
    lines = _LineReader(stream)
    created = _header(lines, _CREATED, "generation date and time").group(1)
    description = _header(lines, _DESCRIPTION, "experiment description").group(1)
    clock = _header(lines, _CLOCK, "clock cycle duration")
    if clock.group(2) not in _UNITS_NS or int(clock.group(1)) == 0:
        raise lines.error(f"clock cycle must be a positive number of {', '.join(_UNITS_NS)}")
    unit_ns = int(clock.group(1)) * _UNITS_NS[clock.group(2)]
    channels: dict[tuple[int, int], Channel] = {}
    line = lines.next()
    while line.startswith("#"):
        _add_channel(lines, line, channels)
        line = lines.next()
    groups = _group_columns(lines, line, channels)
    cells = _read_rows(lines, len(groups))
    return TraceFile(created, description, unit_ns, _unpack(cells, groups, channels))


class _LineReader:
    """Lines of bounded length, with their number for messages."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._number = 0

    def next(self) -> str:
        """The next line without its end; empty at the end of the file."""
        self._number += 1
        line = self._stream.readline(LINE_CHARS_MAX + 1)
        if len(line) > LINE_CHARS_MAX:
            raise self.error(f"line is longer than {LINE_CHARS_MAX} characters")
        return line.rstrip("\r\n")

    def error(self, problem: str) -> MalformedTraceError:
        return MalformedTraceError(f"trace file, line {self._number}: {problem}")


def _header(lines: _LineReader, pattern: re.Pattern[str], what: str) -> re.Match[str]:
    match = pattern.fullmatch(lines.next())
    if match is None:
        raise lines.error(f"expected the comment line with the {what}")
    return match


def _add_channel(lines: _LineReader, line: str, channels: dict[tuple[int, int], Channel]) -> None:
    match = _CHANNEL.fullmatch(line)
    if match is None:
        raise lines.error("expected '# Channel K [group_id=G; event_id=E; channel_name=NAME]'")
    place = int(match.group(1)), int(match.group(2))
    name = _CHANNEL_NAME.fullmatch(match.group(3))
    if name is None or name.group(1) not in Event.__members__:
        raise lines.error(f"unknown channel name '{match.group(3)}'")
    event = Event[name.group(1)]
    if (event in PER_PROCESS_EVENTS) != (name.group(2) is not None):
        raise lines.error(f"'{match.group(3)}' must end in _P<n> if and only if it is per process")
    channel = Channel(event, int(name.group(2) or 0))
    if place[1] > _EVENT_ID_MAX or channel.process > PROCESS_MAX:
        raise lines.error(f"event_id is at most {_EVENT_ID_MAX}, a process at most {PROCESS_MAX}")
    if place in channels or channel in channels.values():
        raise lines.error(f"bit {place[1]} of group {place[0]} or '{channel.name}' comes twice")
    if len(channels) >= CHANNELS_MAX:
        raise lines.error(f"more than {CHANNELS_MAX} channels")
    channels[place] = channel


def _group_columns(
    lines: _LineReader, line: str, channels: dict[tuple[int, int], Channel]
) -> list[int]:
    names = line.split(",")
    matches = [re.fullmatch(r"group_id_([0-9]{1,9})", name) for name in names[1:]]
    groups = [int(match.group(1)) for match in matches if match is not None]
    if names[0] != "timestamps" or None in matches or len(set(groups)) != len(groups):
        raise lines.error("expected the column names 'timestamps,group_id_G,...'")
    if missing := {group for group, _ in channels} - set(groups):
        raise lines.error(f"no column for group {min(missing)}, which has channels")
    return groups


def _read_rows(lines: _LineReader, n_groups: int) -> NDArray[np.int64]:
    """Timestamps and masks as they stand, shape (rows, 1 + n_groups)."""
    cells = array("q")
    rows = 0
    while line := lines.next():
        if _ROW.fullmatch(line) is None:
            raise lines.error("expected integers separated by commas")
        values = [int(cell) for cell in line.split(",")]
        if len(values) != 1 + n_groups:
            raise lines.error(f"expected {1 + n_groups} columns, found {len(values)}")
        rows += 1
        if rows > ROWS_MAX:
            raise lines.error(f"more than {ROWS_MAX} rows")
        try:
            cells.extend(values)
        except OverflowError:
            raise lines.error("a number does not fit 64 bits") from None
    if lines.next():
        raise lines.error("text after an empty line")
    return np.array(cells, dtype=np.int64).reshape(rows, 1 + n_groups)


def _unpack(
    cells: NDArray[np.int64], groups: list[int], channels: dict[tuple[int, int], Channel]
) -> dict[str, NDArray[Any]]:
    owned = np.zeros(len(groups), dtype=np.int64)
    rows: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    for (group, bit), _ in channels.items():
        column = groups.index(group)
        owned[column] |= np.int64(1) << bit
        rows.append(np.flatnonzero(cells[:, 1 + column] >> bit & 1))
    stray = (cells[:, 1:] & ~owned).any(axis=1)
    if stray.any():
        raise MalformedTraceError(
            f"trace file: the row of timestamp {cells[stray.argmax(), 0]} sets a bit that no "
            "channel owns; declare the channel in the header"
        )
    counts = [found.size for found in rows[1:]]
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    events = np.array([c.event for c in channels.values()], dtype=np.uint16)
    processes = np.array([c.process for c in channels.values()], dtype=np.int32)
    return {
        "time": cells[row[order], 0],
        "event": np.repeat(events, counts)[order],
        "process": np.repeat(processes, counts)[order],
        "detail": np.zeros(row.size, dtype=np.int32),
    }
