"""Fig. 4c: the sequence diagram of one DQC circuit, to scale."""

from __future__ import annotations

from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch, FancyArrowPatch, Patch

from qnodeos.experiments.figures.sequence import (
    Arrow,
    ArrowKind,
    Box,
    BoxKind,
    Lane,
    SequenceDiagram,
)
from qnodeos.experiments.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PAGE_INCHES,
    PINK,
    RED,
    SKY,
    add_footer,
    new_figure,
    styled,
)

LANE_LABELS: Final = {
    Lane.CLIENT_CNPU: "client CNPU",
    Lane.CLIENT_QNPU: "client QNPU",
    Lane.CLIENT_QDEVICE: "client QDevice",
    Lane.SERVER_QDEVICE: "server QDevice",
    Lane.SERVER_QNPU: "server QNPU",
    Lane.SERVER_CNPU: "server CNPU",
}

_BOX_COLOUR: Final = {
    BoxKind.COMPUTE: ORANGE,
    BoxKind.SEND: "#F5D58A",
    BoxKind.SUBROUTINE: GREY,
    BoxKind.RUNNING: "#8C8C8C",
    BoxKind.ENTANGLE: PINK,
    BoxKind.GATE: BLUE,
    BoxKind.MEASURE: GREEN,
}
_BOX_HEIGHT: Final = {BoxKind.RUNNING: 0.24}
_HEIGHT: Final = 0.56
_LineStyle = Literal["-", "--", "-."]

_ARROW: Final[dict[ArrowKind, tuple[str, _LineStyle, str]]] = {
    ArrowKind.SEND: ("-|>", "-", "black"),
    ArrowKind.RESULT: ("-|>", "--", "black"),
    ArrowKind.MESSAGE: ("-|>", "-.", RED),
    ArrowKind.ENTANGLEMENT: ("<|-|>", "-", SKY),
}
_MARGIN: Final = 0.06
"""Of the live time, left of the zoomed part."""
_TEXT_MS: Final = 0.03
"""Of the width of the axes: a box that is narrower has no room for text."""


@styled()
def sequence_figure(diagram: SequenceDiagram, description: str) -> Figure:
    """One circuit as a whole, and its live part enlarged; time from left to right, to scale.

    Args:
        diagram: of the circuit.
        description: of the traces, for the footer.
    """
    figure = new_figure(PAGE_INCHES, 4.6)
    whole, zoom = figure.subplots(2, 1, height_ratios=[1, 1.9])
    margin_ns = _MARGIN * (diagram.live_ns[1] - diagram.live_ns[0])
    zoomed = diagram.live_ns[0] - 3 * margin_ns, diagram.stop_ns + margin_ns
    _draw(whole, diagram, (diagram.start_ns, zoomed[1]), with_texts=False)
    _draw(zoom, diagram, zoomed, with_texts=True)
    whole.xaxis.tick_top()
    whole.spines["bottom"].set_visible(False)
    whole.spines["top"].set_visible(True)
    whole.set_title("the whole circuit (ms)")
    zoom.set_title("its live part, enlarged", loc="right")
    zoom.set_xlabel("time since the pair was heralded (ms)")
    _mark_live(zoom, diagram)
    _connect(figure, whole, zoom, diagram, zoomed)
    handles: list[Patch | Line2D] = [
        *(Patch(facecolor=colour, label=str(kind)) for kind, colour in _BOX_COLOUR.items()),
        *(
            Line2D([], [], color=colour, linestyle=line, label=str(kind))
            for kind, (_, line, colour) in _ARROW.items()
        ),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    add_footer(
        figure,
        f"{description[:1].upper()}{description[1:]}. Circuit {diagram.circuit + 1} of the "
        f"{diagram.circuits} in the traces. "
        "C1: entangle, rotate, measure; S1: receive the pair; S2: rotate, measure.",
    )
    return figure


def _draw(
    axes: Axes, diagram: SequenceDiagram, window_ns: tuple[float, float], *, with_texts: bool
) -> None:
    origin = diagram.live_ns[0]
    axes.set_xlim(*((time_ns - origin) / 1e6 for time_ns in window_ns))
    axes.set_ylim(len(Lane) - 0.4, -0.6)
    axes.set_yticks(list(Lane), [LANE_LABELS[lane] for lane in Lane])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for lane in Lane:
        axes.axhline(lane, color="0.85", linewidth=0.5, zorder=0)
    for kind in BoxKind:
        for lane in Lane:
            boxes = [box for box in diagram.boxes if (box.kind, box.lane) == (kind, lane)]
            _draw_boxes(axes, boxes, kind, lane, origin)
    if with_texts:
        for box in diagram.boxes:
            _draw_text(axes, box, origin)
    for arrow in diagram.arrows:
        _draw_arrow(axes, arrow, origin)


def _draw_boxes(axes: Axes, boxes: list[Box], kind: BoxKind, lane: Lane, origin: int) -> None:
    if not boxes:
        return
    height = _BOX_HEIGHT.get(kind, _HEIGHT)
    axes.broken_barh(
        [((box.start_ns - origin) / 1e6, (box.stop_ns - box.start_ns) / 1e6) for box in boxes],
        (lane - height / 2, height),
        facecolor=_BOX_COLOUR[kind],
        edgecolor="white",
        linewidth=0.3,
        label=f"{kind} {LANE_LABELS[lane]}",
        zorder=2,
    )


def _draw_text(axes: Axes, box: Box, origin: int) -> None:
    low, high = axes.get_xlim()
    start, stop = max((box.start_ns - origin) / 1e6, low), min((box.stop_ns - origin) / 1e6, high)
    if not box.text or stop <= start:
        return
    is_subroutine = box.kind == BoxKind.SUBROUTINE
    if not is_subroutine and (stop - start) < _TEXT_MS * (high - low):
        return
    axes.text(
        (start + stop) / 2,
        box.lane - (0.22 if is_subroutine else 0),
        box.text.partition(" ")[0],
        ha="center",
        va="bottom" if is_subroutine else "center",
        color="black" if is_subroutine else "white",
        fontsize=6.5,
        zorder=4,
    )


def _draw_arrow(axes: Axes, arrow: Arrow, origin: int) -> None:
    head, line, colour = _ARROW[arrow.kind]
    axes.add_patch(
        FancyArrowPatch(
            ((arrow.source_ns - origin) / 1e6, arrow.source),
            ((arrow.target_ns - origin) / 1e6, arrow.target),
            arrowstyle=head,
            linestyle=line,
            color=colour,
            mutation_scale=6,
            linewidth=0.8,
            shrinkA=0,
            shrinkB=0,
            label=str(arrow.kind),
            zorder=3,
            clip_on=True,
        )
    )


def _mark_live(axes: Axes, diagram: SequenceDiagram) -> None:
    stop_ms = (diagram.live_ns[1] - diagram.live_ns[0]) / 1e6
    place = Lane.SERVER_QDEVICE + 0.42
    axes.annotate(
        "",
        (0, place),
        (stop_ms, place),
        arrowprops={"arrowstyle": "<->", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
    )
    axes.text(
        stop_ms / 2,
        place,
        f"server qubit live: {stop_ms:.2f} ms",
        ha="center",
        va="center",
        fontsize=6.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        zorder=4,
    )


def _connect(
    figure: Figure,
    whole: Axes,
    zoom: Axes,
    diagram: SequenceDiagram,
    zoomed_ns: tuple[float, float],
) -> None:
    start, stop = ((time_ns - diagram.live_ns[0]) / 1e6 for time_ns in zoomed_ns)
    whole.axvspan(start, stop, color=SKY, alpha=0.25, linewidth=0, zorder=1)
    for place, corner in ((start, 0.0), (stop, 1.0)):
        connection = ConnectionPatch(
            (place, 0),
            (corner, 1),
            coordsA=whole.get_xaxis_transform(),
            coordsB=zoom.transAxes,
            color=SKY,
            linewidth=0.6,
        )
        connection.set_in_layout(False)
        figure.add_artist(connection)
