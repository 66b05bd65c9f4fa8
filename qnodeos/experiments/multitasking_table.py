"""The result of the multitasking experiment as tables for a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from qnodeos.experiments.multitasking_analysis import PUBLISHED

BASELINE: Final = "fcfs"
"""The scheduler that others are compared with: the paper's."""

_NONE: Final = "-"

_RATIOS: Final = ("utilisation", "dqc_per_s", "lgt_per_s")

Run = Mapping[str, Any]
Estimate = tuple[float, float]
"""A value and its standard error."""


def pairs_of_runs(result: Mapping[str, Any]) -> list[tuple[Run, Run]]:
    """The runs with multitasking, each with the one that did the same work without."""
    alone = {(run["scheduler"], run["n"]): run for run in result["runs"] if not run["multitasking"]}
    return [
        (run, alone[run["scheduler"], run["n"]]) for run in result["runs"] if run["multitasking"]
    ]


def runs_table(result: Mapping[str, Any]) -> Table:
    """Utilisation, rates, fidelity and missed bins of every run, multitasked and not."""
    table = _table(f"Multitasking, simulated, {result['seconds']:g} s of virtual time per run")
    for name in ("scheduler", "N", "", "utilisation", "DQC/s", "LGT/s", "DQC fidelity", "late"):
        table.add_column(name, justify="left" if name == "scheduler" else "right", no_wrap=True)
    for multitasked, alone in pairs_of_runs(result):
        for label, run in (("together", multitasked), ("in turn", alone)):
            first = label == "together"
            table.add_row(
                run["scheduler"] if first else "",
                str(run["n"]) if first else "",
                label,
                _with_error(run, "utilisation", ".3f"),
                _number(run["dqc_per_s"], ".1f"),
                _number(run["lgt_per_s"], ".1f"),
                _with_error(run, "dqc_fidelity", ".3f"),
                _number(run["late_ms"]["mean"], ".2f"),
            )
    table.caption = (
        "\nN pairs of DQC programs and N LGT programs, together or the same work one program "
        "after another. Utilisation is the share of the time outside entanglement attempts in "
        "which the client's device carries out instructions. DQC/s counts circuits, LGT/s "
        "subroutines of six measurements. DQC fidelity is corrected for the server's readout, "
        "all circuits together. late: mean time in ms from when an attempt was due to when "
        "the QNPU was free for it. ± is the standard error (1 sigma)."
    )
    return table


def comparison_table(result: Mapping[str, Any]) -> Table | None:
    """Every scheduler relative to `BASELINE` at the same N; None if there is nothing to compare."""
    runs = {(run["scheduler"], run["n"]): run for run, _ in pairs_of_runs(result)}
    compared: dict[str, list[tuple[Run, Run]]] = {}
    for (scheduler, n), run in runs.items():
        if scheduler != BASELINE and (BASELINE, n) in runs:
            compared.setdefault(scheduler, []).append((run, runs[BASELINE, n]))
    table = _table(f"Together, relative to {BASELINE}")
    for name in (
        "scheduler",
        "N",
        "util.",
        "DQC/s",
        "LGT/s",
        "DQC fidelity",
        "missed",
        "blocked",
    ):
        table.add_column(name, justify="left" if name == "scheduler" else "right", no_wrap=True)
    for scheduler, pairs in compared.items():
        for run, base in pairs:
            table.add_row(
                scheduler,
                str(run["n"]),
                *(_ratio(run[name], base[name]) for name in _RATIOS),
                _difference(_fidelity_difference(run, base)),
                _bins([base], [run], "missed_bins"),
                _bins([base], [run], "blocked_bins"),
            )
        if len(pairs) > 1:
            others, bases = zip(*pairs, strict=True)
            table.add_row(
                scheduler,
                "all",
                *(_NONE for _ in _RATIOS),
                _difference(_weighted_mean(starmap(_fidelity_difference, pairs))),
                _bins(bases, others, "missed_bins"),
                _bins(bases, others, "blocked_bins"),
            )
    table.caption = (
        "\nutil.: utilisation; missed: time bins that client and server had use for, but the QNPU "
        "was in use for too long; blocked: bins in which a program kept the qubit. The baseline's "
        "and this scheduler's, of both nodes together. all: every N together; the fidelity is the "
        "mean of the differences, weighted by their errors."
    )
    return table if table.row_count else None


_PUBLISHED_ROWS: Final = (
    ("other_process_scheduled", "another process runs while DQC waits", ".0%"),
    ("consecutive_lgt", "LGT subroutines between two of DQC", ".2f"),
    ("cnpu_wait_max_ms", "longest wait of the QNPU for the CNPU (ms)", ".1f"),
)


def published_table(result: Mapping[str, Any]) -> Table:
    """The published values beside those of the runs with multitasking."""
    runs = [run for run, _ in pairs_of_runs(result)]
    numbers = sorted({run["n"] for run in runs})
    schedulers = list(dict.fromkeys(run["scheduler"] for run in runs))
    table = _table("With multitasking, beside the published values")
    table.add_column("")
    table.add_column("")
    for n in numbers:
        table.add_column(f"N = {n}", justify="right", no_wrap=True)
    for name, label, form in _PUBLISHED_ROWS:
        published = [_number(PUBLISHED[name].get(n), form) for n in numbers]
        table.add_row(label, "published", *published)
        for scheduler in schedulers:
            values = {
                run["n"]: run["cnpu_wait_ms"]["max"] if name == "cnpu_wait_max_ms" else run[name]
                for run in runs
                if run["scheduler"] == scheduler
            }
            table.add_row("", scheduler, *(_number(values.get(n), form) for n in numbers))
        table.add_section()
    table.caption = (
        "\nThe published values are those of the paper's scheduler. Its utilisation, rates and "
        "the rate of its mocked entanglement are not available to us in numbers."
    )
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        box=SIMPLE_HEAD,
        caption_justify="left",
        caption_style="",
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )


def _number(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)


def _with_error(run: Run, name: str, form: str) -> str:
    value, sigma = run[name], run[f"{name}_sigma"]
    if value is None or sigma is None:
        return _number(value, form)
    return f"{value:{form}} ± {sigma:{form}}"


def _bins(bases: Sequence[Run], runs: Sequence[Run], name: str) -> str:
    return " → ".join(
        str(sum(run[name] + run["server"][name] for run in each)) for each in (bases, runs)
    )


def _ratio(value: float | None, base: float | None) -> str:
    return _NONE if value is None or not base else f"{value / base - 1:+.1%}"


def _fidelity_difference(run: Run, base: Run) -> Estimate | None:
    """Of DQC, with its error; None if one has no fidelity."""
    value, of_base = run["dqc_fidelity"], base["dqc_fidelity"]
    if value is None or of_base is None:
        return None
    return value - of_base, math.hypot(run["dqc_fidelity_sigma"], base["dqc_fidelity_sigma"])


def _weighted_mean(estimates: Iterable[Estimate | None]) -> Estimate | None:
    """Weighted by the inverse squares of their errors; None of none."""
    weights = [(value, sigma**-2) for value, sigma in filter(None, estimates) if sigma]
    total = sum(weight for _, weight in weights)
    if not total:
        return None
    return sum(value * weight for value, weight in weights) / total, total**-0.5


def _difference(estimate: Estimate | None) -> str:
    return _NONE if estimate is None else f"{estimate[0]:+.3f} ± {estimate[1]:.3f}"
