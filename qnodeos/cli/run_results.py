"""What became of the programs of `qnodeos run`: on the screen, and in files."""

from __future__ import annotations

import json as json_module
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import typer

from qnodeos.cnpu.remote import TRACE_UNIT_NS
from qnodeos.cnpu.results import plain
from qnodeos.cnpu.runner import ProgramRun, ProgramRunner
from qnodeos.service.node_file import NodeFile
from qnodeos.trace.csvformat import write_trace_csv

_SHOWN_CHARACTERS: Final = 200


def report(one: ProgramRun) -> None:
    """One line for a program that has ended."""
    took = ""
    if one.started_s is not None and one.ended_s is not None:
        took = f" after {one.ended_s - one.started_s:.3g} s"
    line = f"{one.task.name}: {one.state}{took}"
    if one.error is not None:
        typer.echo(f"{line}: {type(one.error).__name__}: {one.error}", err=True)
        return
    result = repr(plain(one.result))
    if len(result) > _SHOWN_CHARACTERS:
        result = f"{result[:_SHOWN_CHARACTERS]}... (all of it: --json FILE)"
    typer.echo(line if one.result is None else f"{line}: {result}")


def write(runner: ProgramRunner, node: NodeFile, out: Path | None, json: Path | None) -> None:
    """Write the results, and into a directory errors and the host's trace as well.

    Args:
        runner: has run the programs.
        node: on which they ran.
        out: the directory, None for none.
        json: file for the results alone, None for none.
    """
    results = json_module.dumps(_results(runner, node), indent=1) + "\n"
    if json is not None:
        json.write_text(results, "utf-8")
    if out is None:
        return
    (out / "results.json").write_text(results, "utf-8")
    errors = "\n".join(one.details for one in runner.runs if one.details)
    (out / "errors.log").write_text(errors, "utf-8")
    with (out / f"{node.name}-host.csv").open("w", encoding="utf-8") as stream:
        write_trace_csv(
            stream,
            runner.trace_columns,
            unit_ns=TRACE_UNIT_NS,
            created=datetime.now().replace(microsecond=0),
            description=f"Host of node {node.name}; times of its monotonic clock",
        )


def _results(runner: ProgramRunner, node: NodeFile) -> dict[str, Any]:
    return {
        "node": node.name,
        "dropped_trace_events": runner.dropped_events,
        "programs": [
            {
                "number": one.number,
                "name": one.task.name,
                "inputs": plain({k: v for k, v in one.task.inputs.items() if k != "app_config"}),
                "state": one.state.value,
                "result": plain(one.result),
                "error": None
                if one.error is None
                else {"kind": type(one.error).__name__, "text": str(one.error)},
                "started_s": one.started_s,
                "ended_s": one.ended_s,
            }
            for one in runner.runs
        ],
    }
