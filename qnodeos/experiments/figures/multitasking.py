"""Fig. 5d: device utilisation with and without multitasking, and what else is published of it."""

from __future__ import annotations

from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from qnodeos.experiments.figures.results import MultitaskingResult, MultitaskingRun
from qnodeos.experiments.figures.style import (
    COLUMN_INCHES,
    SERIES,
    add_footer,
    new_figure,
    styled,
)
from qnodeos.experiments.multitasking_analysis import PUBLISHED

_SHIFT: Final = 0.07
"""Between the points of two schedulers, so that neither hides the other."""


_HEADROOM: Final = 1.1
"""Height of the axes over the largest value, so that no marker is cut."""


class _Panel(NamedTuple):
    quantity: str
    label: str
    is_shown_alone: bool
    is_from_zero: bool = True


_UTILISATION: Final = (
    _Panel("utilisation", "device utilisation", True),
    _Panel("other_process_scheduled", "another process runs\nwhile DQC waits (share)", False),
    _Panel("consecutive_lgt", "LGT subroutines\nbetween two of DQC", False),
)
_RATES: Final = (
    _Panel("dqc_per_s", "DQC circuits\nper second", True),
    _Panel("lgt_per_s", "LGT subroutines\nper second", True),
    _Panel("dqc_fidelity", "DQC fidelity", True, is_from_zero=False),
)


@styled()
def utilisation_figure(result: MultitaskingResult) -> Figure:
    """Utilisation, share of waits with another process, LGT between DQC; against N."""
    return _figure(result, _UTILISATION)


@styled()
def rates_figure(result: MultitaskingResult) -> Figure:
    """Rates of DQC and LGT and the fidelity of DQC, against N."""
    return _figure(result, _RATES)


def _figure(result: MultitaskingResult, panels: tuple[_Panel, ...]) -> Figure:
    figure = new_figure(COLUMN_INCHES, 5.2)
    every = figure.subplots(len(panels), 1, sharex=True)
    schedulers = list(dict.fromkeys(run.scheduler for run in result.runs))
    for axes, panel in zip(every, panels, strict=True):
        _draw(axes, result, panel, schedulers)
    every[-1].set_xlabel("N pairs of DQC programs, and N LGT programs")
    every[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(
        handles=_legend(schedulers, is_published=any(p.quantity in PUBLISHED for p in panels)),
        loc="outside upper center",
        ncols=3,
    )
    profile = result.settings.profile
    add_footer(
        figure,
        f"Simulated: {result.seconds:g} s of virtual time per run, seed {result.seed}"
        + (f", latency profile '{profile}'" if profile else "")
        + ("" if result.complete else ", interrupted")
        + ". Utilisation leaves entanglement attempts out. Bars: 1 sigma"
        + (
            "; the published values are those of the paper's scheduler."
            if any(panel.quantity in PUBLISHED for panel in panels)
            else "."
        ),
    )
    return figure


def _draw(axes: Axes, result: MultitaskingResult, panel: _Panel, schedulers: list[str]) -> None:
    for index, scheduler in enumerate(schedulers):
        for multitasking in (True, False) if panel.is_shown_alone else (True,):
            runs = [
                run
                for run in result.runs
                if (run.scheduler, run.multitasking) == (scheduler, multitasking)
                and getattr(run, panel.quantity) is not None
            ]
            shift = _SHIFT * (index - (len(schedulers) - 1) / 2)
            _draw_series(axes, sorted(runs, key=lambda run: run.n), panel.quantity, index, shift)
    if panel.quantity in PUBLISHED:
        shown = {run.n for run in result.runs}
        published = {n: value for n, value in PUBLISHED[panel.quantity].items() if n in shown}
        axes.plot(
            list(published),
            list(published.values()),
            linestyle="none",
            marker="x",
            color="black",
            markersize=6,
            markeredgewidth=1.2,
            zorder=5,
            label="published",
        )
    if panel.is_from_zero:
        axes.set_ylim(0, _HEADROOM * (axes.dataLim.y1 or 1.0))
    axes.set_ylabel(panel.label)


def _draw_series(
    axes: Axes, runs: list[MultitaskingRun], quantity: str, index: int, shift: float
) -> None:
    if not runs:
        return
    colour, marker = SERIES[index % len(SERIES)]
    multitasking = runs[0].multitasking
    axes.errorbar(
        [run.n + shift for run in runs],
        [getattr(run, quantity) for run in runs],
        [getattr(run, f"{quantity}_sigma", None) or 0.0 for run in runs],
        color=colour,
        marker=marker,
        markerfacecolor=colour if multitasking else "white",
        linestyle="-" if multitasking else ":",
        label=runs[0].scheduler + ("" if multitasking else ", one after another"),
    )


def _legend(schedulers: list[str], *, is_published: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker=marker, label=scheduler)
        for scheduler, (colour, marker) in zip(
            schedulers, (SERIES[i % len(SERIES)] for i in range(len(schedulers))), strict=True
        )
    ]
    handles.append(
        Line2D(
            [],
            [],
            color="grey",
            linestyle=":",
            marker="o",
            markerfacecolor="white",
            label="one after another",
        )
    )
    if is_published:
        handles.append(
            Line2D([], [], linestyle="none", marker="x", color="black", label="published")
        )
    return handles
