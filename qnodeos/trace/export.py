"""Writing the traces of an experiment in the formats that people and their tools read.

csv        trace_<node>_cnpu.csv, trace_<node>_qnpu.csv: for the published tools
perfetto   trace.json: for ui.perfetto.dev and chrome://tracing
otel       trace.otlp.jsonl: OpenTelemetry spans, one OTLP/JSON message per line
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final, TextIO

from qnodeos import __version__
from qnodeos.errors import ConfigurationError
from qnodeos.files import MAKE_ROOM, reporting, write_files
from qnodeos.trace.csvformat import write_trace_csv
from qnodeos.trace.node_traces import NodeTraces
from qnodeos.trace.perfetto import write_perfetto
from qnodeos.trace.timeline import build_timeline

__all__ = ["FORMATS", "NodeTraces", "load_otel", "parse_formats", "write_traces"]

FORMATS: Final = ("csv", "perfetto", "otel")
PERFETTO_FILE: Final = "trace.json"
OTEL_FILE: Final = "trace.otlp.jsonl"

Writer = Callable[[TextIO], None]
"""Writes the text of one file."""

_NODE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def load_otel() -> ModuleType:
    """The module `qnodeos.trace.otel`.

    Raises:
        ConfigurationError: its packages are not installed.
    """
    try:
        return import_module("qnodeos.trace.otel")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the trace format otel needs packages that are not installed ({error.name}); install "
            "the extra 'otel': pip install 'qnodeos[otel]'"
        ) from error


def parse_formats(text: str) -> tuple[str, ...]:
    """Formats from a list with commas, as on the command line; ``none`` for none.

    Raises:
        ConfigurationError: a format is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["none"]:
        return ()
    for name in names:
        if name not in FORMATS:
            raise ConfigurationError(
                f"unknown trace format {name!r}; the formats are: {', '.join(FORMATS)} "
                "(several with commas between), or none"
            )
    return tuple(dict.fromkeys(names))


def write_traces(
    directory: Path,
    nodes: Sequence[NodeTraces],
    formats: Sequence[str],
    description: str,
    created: datetime,
) -> list[Path]:
    """Write traces; either all files appear in the directory or none.

    Args:
        directory: where to write; made if it is missing.
        nodes: the traces of all nodes, with times that count from the same moment.
        formats: of ``FORMATS``.
        description: of the experiment.
        created: generation time to write.

    Returns:
        The files.

    Raises:
        ConfigurationError: a format is unknown, or the package for it is missing; or the
            name of a node cannot be part of a file's name.
        LimitError: there is more in the traces than the formats' bounds.
        ResultsNotWrittenError: the files could not be written.
    """
    parse_formats(",".join(formats))
    for node in nodes:
        if _NODE_NAME.fullmatch(node.name) is None:
            raise ConfigurationError(
                f"node name {node.name!r} cannot be part of a file's name; use letters, digits, "
                "'.', '_' and '-'"
            )
    writers: dict[str, Writer] = {}
    if "csv" in formats:
        writers |= _csv_writers(nodes, description, created)
    if "perfetto" in formats or "otel" in formats:
        timeline = build_timeline(nodes)
        metadata = {
            "description": description,
            "created": created.isoformat(),
            "version": f"qnodeos {__version__}",
        }
        if "perfetto" in formats:
            writers[PERFETTO_FILE] = lambda stream: write_perfetto(stream, timeline, metadata)
        if "otel" in formats:
            otel = load_otel()
            writers[OTEL_FILE] = lambda stream: otel.write_otlp(stream, timeline, metadata, created)
    with reporting(directory, MAKE_ROOM):
        directory.mkdir(parents=True, exist_ok=True)
    return write_files(
        {directory / name: partial(_to, write=write) for name, write in writers.items()}
    )


def _to(path: Path, write: Writer) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        write(stream)


def _csv_writers(
    nodes: Sequence[NodeTraces], description: str, created: datetime
) -> dict[str, Writer]:
    writers: dict[str, Writer] = {}
    for node in nodes:
        for part, columns, unit_ns in (
            ("cnpu", node.host, node.unit_ns),
            ("qnpu", node.qnpu, node.tick_ns),
        ):
            writers[f"trace_{node.name}_{part}.csv"] = partial(
                write_trace_csv,
                columns=columns,
                unit_ns=unit_ns,
                created=created,
                description=f"{description}, {part.upper()} of the {node.name}",
            )
    return writers
