"""Results as tables for people and as JSON for machines."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Figure, Outcome, Timing

_NS_UNITS: Final = ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns"))


def machine() -> dict[str, str | int]:
    """What the absolute numbers depend on."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(terse=True),
        "architecture": platform.machine(),
        "processors": os.cpu_count() or 1,
        "optimised": sys.flags.optimize,
        **{name: version(name) for name in ("netqasm", "numpy", "qnodeos")},
    }


def print_report(console: Console, outcomes: Mapping[str, Outcome]) -> None:
    """Print all figures in one table, then the shares and the notes."""
    table = Table(title="Ratios: ours against a reference, in turn, in one process")
    table.add_column("figure")
    for heading in ("median", "min - max", "wanted", "ours *", "reference *"):
        table.add_column(heading, justify="right")
    for outcome in outcomes.values():
        for figure in outcome.figures:
            table.add_row(*_row(figure))
    console.print(table)
    place = ", ".join(f"{name} {value}" for name, value in machine().items())
    console.print(f"* on this machine only, medians: {place}", soft_wrap=True)
    for name, outcome in outcomes.items():
        console.print(f"\n[bold]{name}[/bold]: garbage collector {outcome.gc}", soft_wrap=True)
        for note in outcome.notes:
            console.print(f"  {note}", soft_wrap=True)
        if outcome.shares is not None:
            console.print(_shares_table(outcome.shares))


def _row(figure: Figure) -> tuple[str, ...]:
    return (
        f"{figure.name}\n[dim]{figure.meaning} {figure.reference.name}[/dim]",
        _rounded(figure.ratio),
        f"{_rounded(min(figure.ratios))} - {_rounded(max(figure.ratios))}",
        _wanted(figure),
        _time(figure.ours),
        _time(figure.reference),
    )


def _rounded(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio < 100 else f"{ratio:.0f}"


def _wanted(figure: Figure) -> str:
    if figure.wanted is None:
        return ""
    least, greatest = figure.wanted
    bound = f">= {least:g}" if math.isinf(greatest) else f"{least:g} - {greatest:g}"
    return f"{bound}\n" + ("[red]MISSED[/red]" if figure.is_missed else "met")


def _time(timing: Timing) -> str:
    for size, unit in _NS_UNITS:
        if timing.ns >= size:
            return f"{timing.ns / size:.3g} {unit}\nper {timing.unit}"
    return f"{timing.ns:.2g} ns\nper {timing.unit}"


def _shares_table(shares: Mapping[str, float]) -> Table:
    table = Table(title="Where the time goes")
    table.add_column("part")
    table.add_column("share", justify="right")
    for part, share in shares.items():
        table.add_row(part, f"{share:.1%}")
    return table


def as_document(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "machine": machine(),
        "benchmarks": {name: _outcome(outcome) for name, outcome in outcomes.items()},
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "figures": [_figure(figure) for figure in outcome.figures],
        "gc": outcome.gc,
        "shares": outcome.shares,
        "notes": list(outcome.notes),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    wanted = figure.wanted
    return {
        "name": figure.name,
        "meaning": figure.meaning,
        "median": figure.ratio,
        "ratios": list(figure.ratios),
        "wanted_min": None if wanted is None else wanted[0],
        "wanted_max": None if wanted is None or math.isinf(wanted[1]) else wanted[1],
        "missed": figure.is_missed,
        "this_machine": {
            role: {"name": timing.name, "unit": timing.unit, "ns": timing.ns}
            for role, timing in (("ours", figure.ours), ("reference", figure.reference))
        },
    }
