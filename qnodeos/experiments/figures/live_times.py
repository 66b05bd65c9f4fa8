"""The distribution of the server qubit's live times, below the split of their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from qnodeos.experiments.dqc_analysis import LATENCY_LIMIT_MS, DqcSetData
from qnodeos.experiments.dqc_segments import PUBLISHED_SEGMENTS_MS
from qnodeos.experiments.figures.dqc import (
    LATENCY_NOTE,
    circuits_text,
    draw_latency_split,
    latency_legend,
)
from qnodeos.experiments.figures.results import DqcResult
from qnodeos.experiments.figures.style import (
    BLUE,
    COLUMN_INCHES,
    ORANGE,
    RED,
    add_footer,
    new_figure,
    styled,
)

_BIN_MS: Final = 0.25
_BINS_MAX: Final = 150
_TAIL_MAX: Final = 4
"""The distribution is drawn up to this many latency limits."""


@styled()
def live_time_figure(
    result: DqcResult,
    sets: Sequence[DqcSetData],
    *,
    latency_limit_ms: float = LATENCY_LIMIT_MS,
) -> Figure:
    """Mean segments of the server qubit's live time, and the distribution of live times.

    Args:
        result: of the analysis.
        sets: what it analysed.
        latency_limit_ms: the filter it used.
    """
    figure = new_figure(COLUMN_INCHES, 5.0)
    split, histogram = figure.subplots(2, 1, height_ratios=[1.15, 1])
    draw_latency_split(split, result)
    _draw_live_times(histogram, sets, latency_limit_ms)
    figure.legend(handles=latency_legend(), loc="outside upper center", ncols=3)
    add_footer(figure, f"{circuits_text(result)} {LATENCY_NOTE} Distribution: all circuits.")
    return figure


def _draw_live_times(axes: Axes, sets: Sequence[DqcSetData], latency_limit_ms: float) -> None:
    live = np.concatenate([data.segments["live_time"] for data in sets])
    kept = live <= latency_limit_ms
    # The tail may be very long: what lies beyond the last bin is shown in it.
    end_ms = min(max(live.max(), 1.5 * latency_limit_ms), _TAIL_MAX * latency_limit_ms)
    width = _BIN_MS * max(1, math.ceil(end_ms / (_BIN_MS * _BINS_MAX)))
    # An edge at the limit, so that no bin holds both kept and discarded circuits.
    below = math.ceil(latency_limit_ms / width)
    above = math.ceil((end_ms - latency_limit_ms) / width)
    bins = [latency_limit_ms + width * index for index in range(-below, above + 1)]
    beyond = int(np.count_nonzero(live > bins[-1]))
    live = np.clip(live, bins[0], bins[-1])
    axes.hist(live[kept], bins=bins, color=BLUE, label=f"kept: {kept.sum()}")
    axes.hist(live[~kept], bins=bins, color=RED, label=f"discarded: {(~kept).sum()}")
    axes.axvline(
        latency_limit_ms,
        color="black",
        linestyle="--",
        linewidth=0.8,
        label=f"latency filter {latency_limit_ms:g} ms",
    )
    published, _ = PUBLISHED_SEGMENTS_MS["live_time"]
    axes.axvline(published, color=ORANGE, label=f"published mean {published:.1f} ms")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(0.7, max(12.0, 1.5 * axes.get_ylim()[1]))
    axes.set_xlim(0, bins[-1] + width)  # room for the outline of the last bar
    note = f"\n(the last bin includes all ({beyond}) beyond {bins[-1]:.0f})" if beyond else ""
    axes.set_xlabel("live time of the server qubit (ms)" + note)
    axes.set_ylabel(f"circuits per {width:g} ms")
    axes.legend(loc="upper right")
