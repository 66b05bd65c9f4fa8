"""Figures of calibration measurements, as PNG files.

Made without pyplot, so nothing here has global state or needs a display. Colours are those
of Okabe and Ito; markers differ too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
GREEN: Final = "#009E73"
PINK: Final = "#CC79A7"

_STYLES: Final = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D"), (PINK, "^"))
_DPI: Final = 150


def figure(title: str, x: str, y: str, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with plots below each other; the labels are those of the first."""
    made = Figure(figsize=(7.2, 4.2 if rows == 1 else 3.1 * rows), layout="constrained")
    axes: list[Any] = list(np.atleast_1d(made.subplots(rows, 1)))
    made.suptitle(title)
    axes[0].set_xlabel(x)
    axes[0].set_ylabel(y)
    return made, axes


def points(
    axes: Axes, x: ArrayLike, y: ArrayLike, sigma: ArrayLike, label: str, style: int = 0
) -> None:
    """Measured points with error bars."""
    colour, marker = _STYLES[style % len(_STYLES)]
    axes.errorbar(
        x, y, sigma, fmt=marker, color=colour, markersize=4, capsize=2, linewidth=1, label=label
    )


def proportions(
    axes: Axes, x: ArrayLike, successes: ArrayLike, shots: ArrayLike, label: str, style: int = 0
) -> None:
    """Measured proportions with the error bars of binomial counts."""
    k, n = np.asarray(successes, float), np.asarray(shots, float)
    smoothed = (k + 1) / (n + 2)
    points(axes, x, k / n, np.sqrt(smoothed * (1 - smoothed) / (n + 3)), label, style)


def curve(axes: Axes, x: ArrayLike, y: ArrayLike, label: str | None = None, style: int = 0) -> None:
    """A fitted curve."""
    axes.plot(x, y, color=_STYLES[style % len(_STYLES)][0], linewidth=1.2, label=label)


def mark(axes: Axes, x: float, label: str) -> None:
    """A vertical line at a result."""
    axes.axvline(x, color="black", linestyle="--", linewidth=1, label=label)


def save(made: Figure, path: Path) -> None:
    """Write a figure; its directory is made if it does not exist."""
    for axes in made.axes:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path, dpi=_DPI, format="png")
