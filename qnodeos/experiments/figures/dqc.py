"""Fig. 4b and 4d: fidelities of DQC, and where the server qubit's live time goes."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from calibration.fidelity import CLASSICAL_BOUND
from qnodeos.experiments.dqc_analysis import LATENCY_LIMIT_MS, STAGES
from qnodeos.experiments.dqc_segments import PUBLISHED_SEGMENTS_MS
from qnodeos.experiments.dqc_table import STAGE_LABELS, angle_label
from qnodeos.experiments.figures.results import DqcResult, Statistics
from qnodeos.experiments.figures.style import (
    BLUE,
    COLUMN_INCHES,
    GREEN,
    ORANGE,
    PINK,
    add_footer,
    new_figure,
    styled,
)

_STAGE_STYLE: Final = {"ssro": (ORANGE, "o"), "cr": (BLUE, "s"), "latency": (GREEN, "D")}

PUBLISHED_TRANSFERS_MS: Final = 1.47
"""From the QNPU to the CNPU at the client and back at the server: published as one number."""

_KINDS: Final = {
    "quantum": (BLUE, "QNPU and QDevice"),
    "cnpu": (ORANGE, "CNPU"),
    "transfer": (GREEN, "between CNPU and QNPU"),
    "message": (PINK, "classical message"),
}


class _Row(NamedTuple):
    segment: str
    label: str
    kind: str


_ROWS: Final = (
    _Row("c1_after_delivery", "client: C1", "quantum"),
    _Row("down_client", "client: result of C1", "transfer"),
    _Row("client_result_to_message_sent", "client: CNPU", "cnpu"),
    _Row("classical_communication", "classical message", "message"),
    _Row("server_message_to_s2_attempt", "server: CNPU", "cnpu"),
    _Row("up_server", "server: sending S2", "transfer"),
    _Row("s2_qnpu", "server: S2", "quantum"),
)
"""What happens one after another while the server's qubit is live."""

_MEANWHILE: Final = _Row("s1_after_delivery", "server: S1, meanwhile", "quantum")
_TRANSFERS: Final = ("down_client", "up_server")


def circuits_text(result: DqcResult) -> str:
    """What a result was made from, for the footer of a figure."""
    profile = result.settings.profile
    return (
        f"Simulated: {result.circuits:,} DQC circuits of {len(result.sets)} sets, "
        f"seed {result.seed}"
        + (f", latency profile '{profile}'" if profile else "")
        + ("" if result.complete else ", interrupted")
        + "."
    )


@styled()
def fidelity_figure(result: DqcResult) -> Figure:
    """Fidelity of every pair of angles and their mean, for each selection of circuits."""
    fidelities = [entry.fidelity for entry in result.sets] + [result.mean_fidelity]
    figure = new_figure(max(COLUMN_INCHES, 0.7 + 0.4 * len(fidelities)), 2.7)
    axes = figure.add_subplot()
    positions = np.arange(len(fidelities), dtype=float)
    positions[-1] += 0.3
    for index, stage in enumerate(STAGES):
        colour, marker = _STAGE_STYLE[stage]
        estimates = [getattr(fidelity, stage) for fidelity in fidelities]
        axes.errorbar(
            positions + 0.22 * (index - 1),
            [estimate.value for estimate in estimates],
            [estimate.sigma for estimate in estimates],
            fmt=marker,
            color=colour,
            label=STAGE_LABELS[stage],
        )
    axes.axhline(
        CLASSICAL_BOUND, color="black", linestyle="--", linewidth=0.8, label="classical bound 2/3"
    )
    axes.axvline(positions[-1] - 0.65, color="grey", linewidth=0.6)
    labels = [f"{angle_label(entry.alpha)}\n{angle_label(entry.theta)}" for entry in result.sets]
    axes.set_xticks(positions, [*labels, "mean"])
    axes.set_xlim(-0.6, positions[-1] + 0.6)
    axes.set_xlabel(r"$\alpha$ (upper) and $\theta$ (lower) of each set")
    axes.set_ylabel("fidelity")
    figure.legend(loc="outside upper center", ncols=4)
    add_footer(
        figure,
        f"{circuits_text(result)} SSRO: corrected for the server's readout; + CR: charge checks "
        f"passed; + latency: and live for at most {LATENCY_LIMIT_MS:g} ms. Bars: 1 sigma.",
    )
    return figure


@styled()
def latency_figure(result: DqcResult) -> Figure:
    """Mean segments of the server qubit's live time beside the published ones."""
    figure = new_figure(COLUMN_INCHES, 3.0)
    axes = figure.add_subplot()
    draw_latency_split(axes, result)
    figure.legend(handles=latency_legend(), loc="outside upper center", ncols=3)
    add_footer(figure, f"{circuits_text(result)} {LATENCY_NOTE}")
    return figure


LATENCY_NOTE: Final = (
    "Means, in ms, of the circuits within the latency filter; whiskers: standard deviation. "
    f"Published: 77 circuits of one set. * published as their sum, {PUBLISHED_TRANSFERS_MS} ms."
)


def latency_legend() -> list[Patch]:
    """The kinds of segments, and how published values are drawn."""
    return [
        *(Patch(facecolor=colour, label=label) for colour, label in _KINDS.values()),
        Patch(facecolor="white", edgecolor="black", hatch="////", label="published"),
    ]


def draw_latency_split(axes: Axes, result: DqcResult) -> None:
    """Draw the segments from top to bottom, each from where the one above ends."""
    rows = [*_ROWS, _MEANWHILE]
    places = [float(-index) for index in range(len(rows) + 1)]
    axes.set_yticks(places, [*(row.label for row in rows), "server qubit live"])
    axes.set_ylim(places[-1] - 0.6, 1.2)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("time since the delivery of the pair (ms)")
    if result.live_time_ms.mean is None:
        axes.text(
            0.5, 0.5, "no circuit within the latency filter", transform=axes.transAxes, ha="center"
        )
        return
    start_ms = 0.0
    texts = []
    for place, row in zip(places, rows, strict=False):
        statistics: Statistics = getattr(result.segments_ms, row.segment)
        from_ms = 0.0 if row is _MEANWHILE else start_ms
        _draw_bar(axes, place, from_ms, statistics, _KINDS[row.kind][0])
        published = PUBLISHED_SEGMENTS_MS.get(row.segment)
        texts.append(_numbers(statistics, published, row.segment in _TRANSFERS))
        if published is not None:
            _draw_published(axes, place, from_ms, published[0])
        if row is not _MEANWHILE:
            start_ms += statistics.mean or 0.0
    published_live = PUBLISHED_SEGMENTS_MS["live_time"]
    _draw_bar(axes, places[-1], 0.0, result.live_time_ms, "0.35")
    _draw_published(axes, places[-1], 0.0, published_live[0])
    texts.append(_numbers(result.live_time_ms, published_live, False))
    axes.axhline(places[-1] + 0.5, color="grey", linewidth=0.6)
    right = axes.secondary_yaxis("right")
    right.set_yticks([0.9, *places], ["sim. | publ.", *texts])
    right.tick_params(axis="y", length=0)
    right.spines["right"].set_visible(False)
    longest = max(start_ms, result.live_time_ms.mean + (result.live_time_ms.sd or 0.0))
    axes.set_xlim(0, 1.03 * max(longest, published_live[0]))


def _draw_bar(
    axes: Axes, place: float, start_ms: float, statistics: Statistics, colour: str
) -> BarContainer:
    return axes.barh(
        place + 0.14,
        statistics.mean or 0.0,
        left=start_ms,
        height=0.42,
        color=colour,
        xerr=statistics.sd or 0.0,
        error_kw={"elinewidth": 0.6, "capthick": 0.6, "ecolor": "black"},
    )


def _draw_published(axes: Axes, place: float, start_ms: float, mean_ms: float) -> None:
    axes.barh(
        place - 0.22,
        mean_ms,
        left=start_ms,
        height=0.26,
        facecolor="white",
        edgecolor="black",
        hatch="//////",
        label="published",
    )


def _numbers(
    statistics: Statistics, published: tuple[float, float | None] | None, starred: bool
) -> str:
    simulated = "-" if statistics.mean is None else f"{statistics.mean:.2f}"
    known = "*" if starred else "-" if published is None else f"{published[0]:.2f}"
    return f"{simulated} | {known}"
