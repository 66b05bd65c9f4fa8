"""The figure of LGT: fidelity of every input state, alone and multitasked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from qnodeos.experiments.lgt_analysis import STATES

LGT_FIGURE: Final = "lgt_fidelity.png"
_DPI: Final = 150
_STYLE: Final = {"alone": ("#0072B2", "o", -0.12), "multitasked": ("#D55E00", "s", 0.12)}


def save_lgt_figure(result: Mapping[str, Any], directory: Path) -> Path:
    """Write ``lgt_fidelity.png``.

    Args:
        result: of `qnodeos.experiments.lgt_analysis.analyse_lgt`.
        directory: where to write; made if it does not exist.

    Returns:
        The file written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LGT_FIGURE
    lgt_figure(result).savefig(path, dpi=_DPI)
    return path


def lgt_figure(result: Mapping[str, Any]) -> Figure:
    """Fidelity of every input state and their mean, for each mode that has data."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    positions = np.arange(len(STATES) + 1, dtype=float)
    positions[-1] += 0.3
    for mode, (colour, marker, shift) in _STYLE.items():
        if not result[mode]:
            continue
        estimates = [entry["fidelity"] for entry in result[mode]] + [result["mean_fidelity"][mode]]
        axes.errorbar(
            positions + shift,
            [estimate["value"] for estimate in estimates],
            [estimate["sigma"] for estimate in estimates],
            fmt=marker,
            color=colour,
            markersize=6,
            capsize=3,
            label="LGT alone" if mode == "alone" else "LGT while DQC runs",
        )
    axes.axhline(1, color="black", linestyle="--", linewidth=1)
    axes.axvline(positions[-1] - 0.65, color="grey", linewidth=0.8)
    axes.set_xticks(positions, [*STATES, "mean"])
    axes.set_xlabel("input state")
    axes.set_ylabel("fidelity")
    axes.set_title(
        "LGT fidelity, simulated "
        f"({result['results'] + result['results_multitasked']} results, ±1 sigma)"
    )
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
