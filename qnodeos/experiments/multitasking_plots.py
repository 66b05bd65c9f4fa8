"""Figures of the multitasking experiment, after Fig. 5 of Nature 639, 321 (2025)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qnodeos.experiments.dqc_plots import BLUE, GREEN, ORANGE, PINK, RED
from qnodeos.experiments.multitasking_analysis import PUBLISHED

_DPI: Final = 150
_STYLES: Final = (
    (BLUE, "o"),
    (ORANGE, "s"),
    (GREEN, "D"),
    (RED, "^"),
    (PINK, "v"),
    ("black", "P"),
)
_PANELS: Final = {
    "multitasking_utilisation.png": (
        ("utilisation", "device utilisation", True),
        ("other_process_scheduled", "another process runs\nwhile DQC waits", False),
        ("consecutive_lgt", "LGT subroutines\nbetween two of DQC", False),
    ),
    "multitasking_rates.png": (
        ("dqc_per_s", "DQC circuits per second", True),
        ("lgt_per_s", "LGT subroutines per second", True),
        ("dqc_fidelity", "DQC fidelity", True),
    ),
}
"""The figures, and of each panel: the number, its label, whether it is shown without
multitasking too."""


def save_multitasking_figures(result: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write ``multitasking_utilisation.png`` and ``multitasking_rates.png``.

    Args:
        result: of the experiment.
        directory: where to write; it exists.

    Returns:
        The files written.
    """
    paths = []
    for name, panels in _PANELS.items():
        figure = Figure(figsize=(10.5, 4.0), layout="constrained")
        for axes, (quantity, label, both) in zip(figure.subplots(1, 3), panels, strict=True):
            _draw(axes, result, quantity, both=both)
            axes.set_ylabel(label)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(
            f"Multitasking, simulated ({result['seconds']:g} s of virtual time per run)"
        )
        paths.append(directory / name)
        figure.savefig(paths[-1], dpi=_DPI)
    return paths


def _draw(axes: Axes, result: Mapping[str, Any], quantity: str, *, both: bool) -> None:
    schedulers = list(dict.fromkeys(run["scheduler"] for run in result["runs"]))
    for index, scheduler in enumerate(schedulers):
        colour, marker = _STYLES[index % len(_STYLES)]
        for multitasking in (True, False) if both else (True,):
            runs = [
                run
                for run in result["runs"]
                if run["scheduler"] == scheduler
                and run["multitasking"] is multitasking
                and run[quantity] is not None
            ]
            axes.errorbar(
                [run["n"] for run in runs],
                [run[quantity] for run in runs],
                [run.get(f"{quantity}_sigma") or 0.0 for run in runs],
                color=colour,
                marker=marker,
                markerfacecolor=colour if multitasking else "white",
                linestyle="-" if multitasking else ":",
                capsize=3,
                label=scheduler + ("" if multitasking else ", one after another"),
            )
    if quantity in PUBLISHED:
        numbers = sorted({run["n"] for run in result["runs"]} & PUBLISHED[quantity].keys())
        values = [PUBLISHED[quantity][n] for n in numbers]
        axes.plot(numbers, values, "x", color="black", markersize=9, label="published")
        axes.annotate("x: published", (0.97, 0.05), xycoords="axes fraction", ha="right")
    if quantity != "dqc_fidelity":
        axes.set_ylim(bottom=0)
    axes.set_xlabel("N pairs of DQC programs, and N LGT programs")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
