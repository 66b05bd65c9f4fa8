"""Multitasking results: two rows per block, with multitasking and without.

A row has the sums that `qnodeos.experiments.multitasking_analysis.Observed` describes; those of
the blocks of a run add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from qnodeos.experiments.multitasking import Block, BlockResult
from qnodeos.experiments.multitasking_analysis import Observed
from qnodeos.experiments.storage import Column, RunWriter, open_run

_SETPOINTS: Final = {
    "scheduler": Column("scheduler", text=True),
    "n": Column("pairs of DQC programs, and LGT programs"),
    "multitasking": Column("at once, or one after another"),
    "block": Column("block"),
}
_NUMBERS: Final = {
    "time_ns": Column("virtual time", "ns"),
    "circuits": Column("DQC circuits"),
    "lgt_subroutines": Column("LGT subroutines"),
}
_ARRAYS: Final[Mapping[str, Mapping[str, Column]]] = {
    "client_use": {
        "client_ticks": Column("ticks of the client", "ticks"),
        "client_entanglement": Column("client attempts entanglement", "ticks"),
        "client_busy": Column("client's device busy", "ticks"),
    },
    "server_use": {
        "server_ticks": Column("ticks of the server", "ticks"),
        "server_entanglement": Column("server attempts entanglement", "ticks"),
        "server_busy": Column("server's device busy", "ticks"),
    },
    "waits": {
        "waits": Column("waits of DQC processes"),
        "waits_shared": Column("those in which another process ran"),
    },
    "counts": {
        "zeros_along": Column("zeros along the target"),
        "shots_along": Column("circuits verified along the target"),
        "zeros_against": Column("zeros against the target"),
        "shots_against": Column("circuits verified against the target"),
    },
    "bins": {
        "client_bins_used": Column("bins used by the client"),
        "client_bins_missed": Column("bins missed by the client"),
        "client_bins_blocked": Column("bins of the client while a program kept the qubit"),
        "server_bins_used": Column("bins used by the server"),
        "server_bins_missed": Column("bins missed by the server"),
        "server_bins_blocked": Column("bins of the server while a program kept the qubit"),
    },
}
_TALLIES: Final = {
    "lgt_runs": Column("LGT subroutines between two DQC"),
    "lgt_activations": Column("LGT activations between two DQC"),
    "lgt_nonzero": Column("LGT subroutines between two DQC, if there are any"),
    "cnpu_wait_ms": Column("the QNPU waits for the CNPU", "ms"),
    "late_ms": Column("the network process comes late", "ms"),
    "live_time_ms": Column("live time of the server's qubits", "ms"),
}


def open_multitasking_run(
    path: Path, metadata: Mapping[str, str | int | float]
) -> AbstractContextManager[RunWriter]:
    """Start a run in a database (see `qnodeos.experiments.storage.open_run`)."""
    columns = dict(_NUMBERS)
    for each in _ARRAYS.values():
        columns |= each
    for name, column in _TALLIES.items():
        unit = column.unit
        squared = f"{unit}^2" if unit else ""
        units = {"count": "", "total": unit, "squares": squared, "largest": unit}
        for part, part_unit in units.items():
            columns[f"{name}_{part}"] = Column(f"{column.label}: {part}", part_unit)
    return open_run(path, "multitasking", "multitasking", _SETPOINTS, columns, metadata)


def add_block(run: RunWriter, block: Block, result: BlockResult) -> None:
    """Append a block.

    Raises:
        ResultStorageError: see `RunWriter.add`.
    """
    modes = {1: result.multitasked, 0: result.alone}
    rows = [dict(_values(observed)) for observed in modes.values()]
    run.add(
        scheduler=block.scheduler,
        n=block.n,
        multitasking=list(modes),
        block=block.number,
        **{name: [row[name] for row in rows] for name in rows[0]},
    )


def _values(observed: Observed) -> Iterator[tuple[str, float]]:
    for name in _NUMBERS:
        yield name, getattr(observed, name)
    for name, columns in _ARRAYS.items():
        yield from zip(columns, getattr(observed, name).tolist(), strict=True)
    for name in _TALLIES:
        for part, value in asdict(getattr(observed, name)).items():
            yield f"{name}_{part}", value
