"""The result of the multitasking experiment as tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from qnodeos.experiments.multitasking_analysis import PUBLISHED

BASELINE: Final = "fcfs"
"""The scheduler that others are compared with: the paper's."""

_NONE: Final = "-"

Run = Mapping[str, Any]


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
    table = _table(f"Together, relative to {BASELINE}")
    for name in (
        "scheduler",
        "N",
        "utilisation",
        "DQC/s",
        "LGT/s",
        "DQC fidelity",
        "missed",
        "blocked",
    ):
        table.add_column(name, justify="left" if name == "scheduler" else "right", no_wrap=True)
    for (scheduler, n), run in runs.items():
        base = runs.get((BASELINE, n))
        if scheduler == BASELINE or base is None:
            continue
        table.add_row(
            scheduler,
            str(n),
            *(_ratio(run[name], base[name]) for name in ("utilisation", "dqc_per_s", "lgt_per_s")),
            _difference(run, base, "dqc_fidelity"),
            _bins(base, run, "missed_bins"),
            _bins(base, run, "blocked_bins"),
        )
    table.caption = (
        "\nmissed: time bins that client and server had use for, but the QNPU was in use for too "
        "long; blocked: bins in which a program kept the qubit. The baseline's and this "
        "scheduler's, of both nodes together."
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


def _bins(base: Run, run: Run, name: str) -> str:
    return " → ".join(str(each[name] + each["server"][name]) for each in (base, run))


def _ratio(value: float | None, base: float | None) -> str:
    return _NONE if value is None or not base else f"{value / base - 1:+.1%}"


def _difference(run: Run, base: Run, name: str) -> str:
    values: Sequence[float | None] = (run[name], base[name])
    if values[0] is None or values[1] is None:
        return _NONE
    sigma = (run[f"{name}_sigma"] ** 2 + base[f"{name}_sigma"] ** 2) ** 0.5
    return f"{values[0] - values[1]:+.3f} ± {sigma:.3f}"
