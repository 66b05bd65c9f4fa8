"""Reading back the CSV traces of an experiment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qnodeos.errors import ConfigurationError, MalformedTraceError
from qnodeos.files import check_readable
from qnodeos.trace.csvformat import TraceFile, read_trace_csv
from qnodeos.trace.events import HOST_EVENTS, Event
from qnodeos.trace.node_traces import NodeTraces, empty_columns

FILES_MAX: Final = 64
"""Most trace files read at once."""

TIME_NS_MAX: Final = 1 << 61
"""Times of a trace lie within +- this, so that sums and differences of them fit 64 bits."""

_FILE_NAME: Final = re.compile(r"(?:trace_)?([A-Za-z0-9][A-Za-z0-9._-]{0,63}?)_(cnpu|qnpu)\.csv")
_PART_OF_DESCRIPTION: Final = re.compile(r", [CQ]NPU of the [A-Za-z0-9._-]{1,64}$")
_HOST_UNIT_NS: Final = 1_000
_TICK_NS: Final = 10_000


@dataclass(frozen=True)
class LoadedTraces:
    """Traces read back from files.

    Attributes:
        nodes: traces of each node, by name.
        description: of the experiment, as in the first file.
        created: generation time, as in the first file.
        files: that were read.
    """

    nodes: tuple[NodeTraces, ...]
    description: str
    created: str
    files: tuple[Path, ...]


def load_traces(paths: Sequence[Path]) -> LoadedTraces:
    """Read trace files.

    Args:
        paths: CSV files, or directories of which all ``trace_*.csv`` are read. A file called
            ``trace_<node>_cnpu.csv`` or ``..._qnpu.csv`` belongs to that node, any other
            to a node with the file's name.

    Raises:
        ConfigurationError: a path does not exist or is no regular file, there are no traces, or
            too many.
        MalformedTraceError: a file is no trace, or two are of the same part of a node; the
            message has the file and the line.
        OSError: a file cannot be read.
    """
    files = [file for path in paths for file in _files(path)]
    if len(files) > FILES_MAX:
        raise ConfigurationError(
            f"{len(files)} trace files are too many; at most {FILES_MAX} can be read at once"
        )
    parts: dict[str, dict[str, TraceFile]] = {}
    loaded: list[TraceFile] = []
    for file in files:
        trace = _read(file)
        loaded.append(trace)
        match = _FILE_NAME.fullmatch(file.name)
        node = match.group(1) if match is not None else file.stem
        part = _part_of(file, trace)
        if match is not None and trace.columns["time"].size and match.group(2) != part:
            raise MalformedTraceError(
                f"{file}: has the events of a {part.upper()}, but the name of a "
                f"{match.group(2).upper()}'s trace; rename it"
            )
        if match is not None:
            part = match.group(2)
        if part in parts.setdefault(node, {}):
            raise MalformedTraceError(f"{file}: is the second {part.upper()} trace of node {node}")
        parts[node][part] = trace
    nodes = [_node(name, parts[name]) for name in sorted(parts)]
    description = _PART_OF_DESCRIPTION.sub("", loaded[0].description)
    return LoadedTraces(tuple(nodes), description, loaded[0].created, tuple(files))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(path.glob("trace_*.csv"))
        if not found:
            raise ConfigurationError(
                f"{path} has no trace_*.csv; give the directory that an experiment was told "
                "with --out, or files"
            )
        return found
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist; give trace files or their directory")
    if path.suffix in {".json", ".jsonl"}:
        raise ConfigurationError(
            "of traces only the CSV files, trace_*.csv, can be read; name those, or their "
            "directory",
            file=str(path),
        )
    return [path]


def _read(file: Path) -> TraceFile:
    check_readable(file)
    try:
        with file.open(encoding="utf-8", newline="\n") as stream:
            trace = read_trace_csv(stream)
    except MalformedTraceError as error:
        raise MalformedTraceError(f"{file}: {error}") from error
    except UnicodeDecodeError as error:
        raise MalformedTraceError(
            f"{file}: is not text in UTF-8 ({error.reason} at byte {error.start} of a block); "
            "only CSV traces can be read"
        ) from error
    times = trace.columns["time"]
    if (
        times.size
        and max(abs(int(times.min())), abs(int(times.max()))) > TIME_NS_MAX // trace.unit_ns
    ):
        raise MalformedTraceError(
            f"{file}: has times beyond {TIME_NS_MAX} ns, which is 73 years; is the file damaged?"
        )
    return trace


def _part_of(file: Path, trace: TraceFile) -> str:
    events = {Event(number) for number in set(trace.columns["event"].tolist())}
    if events & HOST_EVENTS and events - HOST_EVENTS:
        raise MalformedTraceError(
            f"{file}: has events of a CNPU and of a QNPU, whose clocks differ; keep them in two "
            "files"
        )
    return "cnpu" if events & HOST_EVENTS else "qnpu"


def _node(name: str, parts: dict[str, TraceFile]) -> NodeTraces:
    host, qnpu = parts.get("cnpu"), parts.get("qnpu")
    return NodeTraces(
        name,
        empty_columns() if host is None else host.columns,
        _HOST_UNIT_NS if host is None else host.unit_ns,
        empty_columns() if qnpu is None else qnpu.columns,
        _TICK_NS if qnpu is None else qnpu.unit_ns,
        has_details=False,
    )
