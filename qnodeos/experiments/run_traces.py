"""The traces of a run on two nodes, as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from qnodeos.assembly import TwoNodeSystem
from qnodeos.experiments.pool import tolerate_unwritten
from qnodeos.trace.export import write_traces
from qnodeos.trace.node_traces import NodeTraces

DEFAULT_FORMATS: Final = ("csv", "perfetto")
"""What is written where nothing else is asked for, of `qnodeos.trace.export.FORMATS`."""


def node_traces(system: TwoNodeSystem, program_name: Callable[[str, int], str]) -> list[NodeTraces]:
    """What the two nodes recorded.

    Args:
        system: the nodes.
        program_name: the name of the program of a node's QNPU process.
    """
    recorded = [
        NodeTraces.from_recorders(name, handles.host_trace, handles.qnpu_trace)
        for name, handles in (("client", system.client), ("server", system.server))
    ]
    return [
        replace(node, programs={pid: program_name(node.name, pid) for pid in node.processes()})
        for node in recorded
    ]


def write_run_traces(
    directory: Path, nodes: Sequence[NodeTraces], formats: Sequence[str], description: str
) -> None:
    """Write traces, generated now (see `qnodeos.trace.export.write_traces`).

    What cannot be written does not end the run: see `pool.tolerate_unwritten`.

    Raises:
        ConfigurationError: a format is unknown, or the package for it is missing.
    """
    if formats:
        with tolerate_unwritten():
            write_traces(directory, nodes, formats, description, datetime.now(UTC))
