"""Figures of the DQC experiment, after Fig. 4b and 4d of Nature 639, 321 (2025).

Figures are made without pyplot, so nothing here has global state. Colours are those of
Okabe and Ito, which readers with colour-blindness can tell apart; stages and segments
also differ in marker, order or label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from calibration.fidelity import CLASSICAL_BOUND
from qnodeos.errors import InsufficientDataError
from qnodeos.experiments.dqc_analysis import LATENCY_LIMIT_MS, STAGES, DqcSetData
from qnodeos.experiments.dqc_segments import PUBLISHED_SEGMENTS_MS
from qnodeos.experiments.dqc_table import STAGE_LABELS, angle_label

BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
GREEN: Final = "#009E73"
PINK: Final = "#CC79A7"
RED: Final = "#D55E00"
GREY: Final = "#D9D9D9"

_STAGE_STYLE: Final = {"ssro": (ORANGE, "o"), "cr": (BLUE, "s"), "latency": (GREEN, "D")}
_DPI: Final = 150
_LEGEND_INCHES: Final = 7.2
"""Width that a figure needs for its legend, however few sets it shows."""
_BIN_MS: Final = 0.25
_BINS_MAX: Final = 150
_TAIL_MAX: Final = 4
"""The distribution is drawn up to this many latency limits."""


class _Bar(NamedTuple):
    """One bar of a track: a segment of the result, or waiting if ``name`` is None.

    ``text`` is written inside the bar.
    """

    name: str | None
    kind: str
    text: str = ""


_KINDS: Final = {
    "quantum": (BLUE, "QNPU and QDevice"),
    "cnpu": (ORANGE, "CNPU"),
    "transfer": (GREEN, "between CNPU and QNPU"),
    "message": (PINK, "classical message"),
    "waiting": (GREY, "waiting for the client"),
}
_CLIENT: Final = (
    _Bar("c1_after_delivery", "quantum", "C1"),
    _Bar("down_client", "transfer"),
    _Bar("client_result_to_message_sent", "cnpu"),
    _Bar("classical_communication", "message"),
)
_SERVER: Final = (
    _Bar("s1_after_delivery", "quantum", "S1"),
    _Bar(None, "waiting"),
    _Bar("server_message_to_s2_attempt", "cnpu"),
    _Bar("up_server", "transfer"),
    _Bar("s2_qnpu", "quantum", "S2"),
)


def save_dqc_figures(
    result: Mapping[str, Any],
    sets: Sequence[DqcSetData],
    directory: Path,
    *,
    latency_limit_ms: float = LATENCY_LIMIT_MS,
) -> list[Path]:
    """Write ``dqc_fidelity.png`` and ``dqc_latency.png``.

    Args:
        result: of `qnodeos.experiments.dqc_analysis.analyse_dqc`.
        sets: what it analysed.
        directory: where to write; made if it does not exist.
        latency_limit_ms: the filter the analysis used.

    Returns:
        The files written.

    Raises:
        InsufficientDataError: the result lacks a segment the figure shows.
    """
    figures = {
        "dqc_fidelity.png": fidelity_figure(result),
        "dqc_latency.png": latency_figure(result, sets, latency_limit_ms=latency_limit_ms),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(directory / name, dpi=_DPI)
    return [directory / name for name in figures]


def fidelity_figure(result: Mapping[str, Any]) -> Figure:
    """Fidelity of every pair of angles and their mean, for each selection of circuits."""
    entries = [entry["fidelity"] for entry in result["sets"]] + [result["mean_fidelity"]]
    n = len(entries) - 1
    figure = Figure(
        figsize=(max(_LEGEND_INCHES, 2.2 + 0.95 * len(entries)), 4.4), layout="constrained"
    )
    axes = figure.add_subplot()
    positions = np.arange(n + 1, dtype=float)
    positions[-1] += 0.3
    for index, stage in enumerate(STAGES):
        colour, marker = _STAGE_STYLE[stage]
        axes.errorbar(
            positions + 0.2 * (index - 1),
            [entry[stage]["value"] for entry in entries],
            [entry[stage]["sigma"] for entry in entries],
            fmt=marker,
            color=colour,
            markersize=6,
            capsize=3,
            label=STAGE_LABELS[stage],
        )
    axes.axhline(
        CLASSICAL_BOUND, color="black", linestyle="--", linewidth=1, label="classical bound 2/3"
    )
    axes.axvline(positions[-1] - 0.65, color="grey", linewidth=0.8)
    labels = [
        f"$\\alpha$ = {angle_label(entry['alpha'])}\n$\\theta$ = {angle_label(entry['theta'])}"
        for entry in result["sets"]
    ]
    axes.set_xticks(positions, [*labels, "mean"])
    axes.set_xlim(-0.6, positions[-1] + 0.6)
    axes.set_ylabel("fidelity")
    axes.set_title(f"DQC fidelity, simulated ({result['circuits']} circuits)")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def latency_figure(
    result: Mapping[str, Any],
    sets: Sequence[DqcSetData],
    *,
    latency_limit_ms: float = LATENCY_LIMIT_MS,
) -> Figure:
    """Mean segments of the server qubit's live time, and the distribution of live times.

    Raises:
        InsufficientDataError: the result lacks a segment the figure shows.
    """
    figure = Figure(figsize=(9.2, 6.6), layout="constrained")
    tracks, histogram = figure.subplots(2, 1, height_ratios=[1.15, 1])
    _draw_tracks(tracks, result)
    _draw_live_times(histogram, sets, latency_limit_ms)
    return figure


def _draw_tracks(axes: Axes, result: Mapping[str, Any]) -> None:
    segments = result["segments_ms"]
    for bar in _CLIENT + _SERVER:
        if bar.name is not None and bar.name not in segments:
            raise InsufficientDataError(f"the latency figure needs the segment '{bar.name}'")
    axes.set_title(
        f"Where the server qubit's live time goes, simulated ({result['circuits']} circuits)"
    )
    axes.set_xlabel("time since the entangled pair was delivered (ms), mean ± sd of each segment")
    axes.set_yticks([1, 0], ["client", "server"])
    axes.set_ylim(-0.72, 1.95)
    if result["live_time_ms"]["mean"] is None:
        axes.text(0.5, 0.5, "no circuit within the latency filter", transform=axes.transAxes)
        return
    message_ms = _draw_track(axes, 1, _CLIENT, segments, 0.0)
    end_ms = _draw_track(axes, 0, _SERVER, segments, message_ms)
    axes.annotate(
        "", (message_ms, 0.3), (message_ms, 0.7), arrowprops={"arrowstyle": "->", "color": PINK}
    )
    live, (published, published_sd) = result["live_time_ms"], PUBLISHED_SEGMENTS_MS["live_time"]
    axes.annotate("", (0, -0.4), (live["mean"], -0.4), arrowprops={"arrowstyle": "<->"})
    axes.text(
        live["mean"] / 2,
        -0.46,
        f"server qubit live: {_mean_sd(live['mean'], live['sd'])} ms "
        f"(published {_mean_sd(published, published_sd)} ms)",
        ha="center",
        va="top",
        fontsize=9,
    )
    axes.set_xlim(0, 1.06 * max(end_ms, live["mean"]))
    axes.legend(
        handles=[Patch(facecolor=colour, label=label) for colour, label in _KINDS.values()],
        loc="upper right",
        fontsize=9,
        frameon=False,
    )


def _draw_track(
    axes: Axes,
    y: float,
    bars: Sequence[_Bar],
    segments: Mapping[str, Mapping[str, float | None]],
    waits_until_ms: float,
) -> float:
    """Draw bars end to end from 0 and return where the last one ends, in ms."""
    start = 0.0
    for bar in bars:
        if bar.name is None:
            width, sd = max(0.0, waits_until_ms - start), None
        else:
            mean, sd = segments[bar.name]["mean"], segments[bar.name]["sd"]
            width = mean or 0.0
        axes.barh(y, width, left=start, height=0.56, color=_KINDS[bar.kind][0], edgecolor="white")
        if bar.name is not None:
            middle, label = start + width / 2, _mean_sd(width, sd, "\n")
            axes.text(middle, y + 0.31, label, ha="center", va="bottom", fontsize=8)
            axes.text(middle, y, bar.text, ha="center", va="center", color="white")
        start += width
    return start


def _mean_sd(mean: float, sd: float | None, gap: str = " ") -> str:
    return f"{mean:.2f}" if sd is None else f"{mean:.2f}{gap}± {sd:.2f}"


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
    axes.hist(
        live[~kept],
        bins=bins,
        color=RED,
        hatch="//",
        edgecolor="white",
        label=f"discarded: {(~kept).sum()}",
    )
    axes.axvline(
        latency_limit_ms,
        color="black",
        linestyle="--",
        linewidth=1,
        label=f"latency filter {latency_limit_ms:g} ms",
    )
    published, _ = PUBLISHED_SEGMENTS_MS["live_time"]
    axes.axvline(published, color=ORANGE, linewidth=1.5, label=f"published mean {published:.1f} ms")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(0.7, max(12.0, 1.5 * axes.get_ylim()[1]))
    axes.set_xlim(0, bins[-1] + width)  # room for the outline of the last bar
    note = f"; the last bin includes all ({beyond}) beyond {bins[-1]:.0f}" if beyond else ""
    axes.set_xlabel("live time of the server qubit (ms)" + note)
    axes.set_ylabel(f"circuits per {width:g} ms")
    axes.set_title("Distribution of live times, simulated, all circuits")
    axes.legend(loc="upper right", fontsize=9, frameon=False)
