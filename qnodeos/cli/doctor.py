"""`qnodeos doctor`: is this machine fit for a QNPU, and how to mend what is not."""

from __future__ import annotations

import json as json_module
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from qnodeos.service.doctor import Finding

_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "problem": typer.colors.RED}


def doctor(
    node_file: Annotated[
        Path | None, typer.Argument(metavar="[NODE.yaml]", help="Also look at this node.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the findings here.")
    ] = None,
) -> None:
    """Examine this machine, and a node file; say how to mend what is not right.

    Exit codes: 0 all is well, or could be better (warnings); 1 there are problems.
    """
    from qnodeos.assembly import PLATFORMS
    from qnodeos.service.doctor import Level, ThisSystem, check_machine, check_node

    system = ThisSystem()
    findings = check_machine(system)
    if node_file is not None:
        findings += check_node(node_file, system, time.time(), PLATFORMS)
    for finding in findings:
        _print(finding)
    counts = {level: sum(f.level is level for f in findings) for level in Level}
    typer.echo(
        f"\n{counts[Level.OK]} ok, {counts[Level.WARNING]} warnings, "
        f"{counts[Level.PROBLEM]} problems"
    )
    if json is not None:
        report = {
            "findings": [{**asdict(f), "level": f.level.value} for f in findings],
            "counts": {level.value: count for level, count in counts.items()},
        }
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(json_module.dumps(report, indent=1) + "\n", "utf-8")
    if counts[Level.PROBLEM]:
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    level = typer.style(f"{finding.level:8}", fg=_COLOURS[finding.level])
    typer.echo(f"{level} {finding.check}: {finding.found}")
    if finding.remedy:
        typer.echo(f"{'':8} to mend: {finding.remedy}")
