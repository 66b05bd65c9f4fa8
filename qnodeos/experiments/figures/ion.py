"""The trapped-ion demonstration: how often every sequence ends dark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from qnodeos.experiments.figures.style import (
    BLUE,
    COLUMN_INCHES,
    ORANGE,
    add_footer,
    new_figure,
    styled,
)

_SHIFT: Final = 0.14
_REACH: Final = 3.0
"""Standard errors that the lower axes show at least."""


@styled()
def ion_figure(result: Mapping[str, Any]) -> Figure:
    """Probability of the dark state: through QNodeOS, without it, and in closed form.

    Args:
        result: of `qnodeos.experiments.ion_analysis.analyse_ion`.
    """
    sequences = result["sequences"]
    positions = np.arange(len(sequences), dtype=float)
    figure = new_figure(COLUMN_INCHES, 2.9)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    above.bar(
        positions,
        [each["expected"] for each in sequences],
        width=0.7,
        facecolor="none",
        edgecolor="black",
        label="expected",
    )
    for entries, colour, marker, shift, label in (
        (sequences, BLUE, "o", -_SHIFT, "QNodeOS"),
        ([each["direct"] for each in sequences], ORANGE, "s", _SHIFT, "without QNodeOS"),
    ):
        above.errorbar(
            positions + shift,
            [each["p_dark"] for each in entries],
            [each["sigma"] for each in entries],
            fmt=marker,
            color=colour,
            label=label,
        )
        below.plot(
            positions + shift,
            [each["z_expected"] for each in entries],
            marker,
            color=colour,
        )
    above.set_ylabel("probability of dark")
    above.set_ylim(-0.03, 1.05)
    below.axhline(0, color="black", linewidth=0.6)
    largest = max(abs(z) for each in sequences for z in _residuals(each))
    reach = max(_REACH, largest + 0.5)
    below.set_ylim(-reach, reach)
    below.set_ylabel("less expected\n(sigma)")
    below.set_xticks(positions, [each["name"].replace(" ", "\n") for each in sequences])
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    add_footer(
        figure,
        f"Simulated: {result['repetitions']:,} repetitions, seed {result['seed']}"
        + ("" if result.get("complete", True) else ", interrupted")
        + ". Bars: 1 sigma, mostly smaller than the markers.",
    )
    return figure


def _residuals(entry: Mapping[str, Any]) -> tuple[float, float]:
    return entry["z_expected"], entry["direct"]["z_expected"]
