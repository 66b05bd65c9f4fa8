"""How all figures look, and how they become files.

Figures have the width of a column or of a page in print and are not meant to be scaled: the
smallest text is 5.5 points. Colours are those of Okabe and Ito, which readers with
colour-blindness can tell apart; what they distinguish also differs in marker, place or label.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ContextDecorator
from io import BytesIO
from textwrap import fill
from typing import Any, Final

import matplotlib.style
from matplotlib.figure import Figure

BLUE: Final = "#0072B2"
SKY: Final = "#56B4E9"
ORANGE: Final = "#E69F00"
GREEN: Final = "#009E73"
PINK: Final = "#CC79A7"
RED: Final = "#D55E00"
GREY: Final = "#D9D9D9"
BLACK: Final = "#000000"

SERIES: Final = (
    (BLUE, "o"),
    (ORANGE, "s"),
    (GREEN, "D"),
    (RED, "^"),
    (PINK, "v"),
    (SKY, "P"),
    (BLACK, "X"),
)
"""Colour and marker of the first, second, ... of things that are compared."""

COLUMN_INCHES: Final = 3.5
PAGE_INCHES: Final = 7.2
"""Widths of a column and of a page in print: 89 and 183 mm."""

FOOTER_POINTS: Final = 5.5
_FOOTER_CHARS_PER_INCH: Final = 23

_STYLE: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.0,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "errorbar.capsize": 1.8,
    "hatch.linewidth": 0.5,
    "patch.linewidth": 0.6,
    "figure.dpi": 300,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # text stays text
}

_METADATA: Final[dict[str, dict[str, None]]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
"""What matplotlib writes into files besides the figure: nothing, or the bytes would differ."""

_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "png": {"pil_kwargs": {"compress_level": 9}},
    "pdf": {},
}

FORMATS: Final = tuple(_METADATA)


class styled(AbstractContextManager[None], ContextDecorator):
    """The style, whatever matplotlib is configured with; a context or a decorator."""

    def __enter__(self) -> None:
        """Use the style."""
        self._context = matplotlib.style.context(_STYLE, after_reset=True)
        self._context.__enter__()

    def __exit__(self, *exception: Any) -> None:
        """Back to what it was."""
        self._context.__exit__(*exception)


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure."""
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def add_footer(figure: Figure, text: str) -> None:
    """Say below a figure what it was made from, in as many lines as that takes."""
    width = int(figure.get_figwidth() * _FOOTER_CHARS_PER_INCH)
    figure.supxlabel(
        fill(text, width),
        x=0.01,
        ha="left",
        fontsize=FOOTER_POINTS,
        color="0.25",
        parse_math=False,  # a footer may quote what somebody wrote
    )


def rendered(figure: Figure, formats: tuple[str, ...] = FORMATS) -> dict[str, bytes]:
    """The bytes of a figure's files, by format.

    Args:
        figure: to be drawn.
        formats: of ``FORMATS``.
    """
    files = {}
    with styled():
        for name in formats:
            buffer = BytesIO()
            figure.savefig(buffer, format=name, metadata=_METADATA[name], **_OPTIONS[name])
            files[name] = buffer.getvalue()
    return files
