"""The figures by their numbers in the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from matplotlib.figure import Figure

from qnodeos.errors import ConfigurationError, IncompleteTraceError, LimitError
from qnodeos.experiments.figures.dqc import fidelity_figure, latency_figure
from qnodeos.experiments.figures.lgt import lgt_figure
from qnodeos.experiments.figures.multitasking import utilisation_figure
from qnodeos.experiments.figures.sequence import sequence_diagram
from qnodeos.experiments.figures.sequence_plot import sequence_figure
from qnodeos.experiments.figures.sources import (
    DQC,
    LGT,
    MULTITASKING,
    TRACES,
    Source,
    StoredTraces,
)


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper.

    Attributes:
        stem: of its files' names.
        title: what it shows.
        source: its data.
        draw: from what the source loads.
    """

    stem: str
    title: str
    source: Source
    draw: Callable[[Any], Figure]


def _draw_sequence(traces: StoredTraces) -> Figure:
    try:
        diagram = sequence_diagram(traces.nodes)
    except (IncompleteTraceError, LimitError) as error:
        raise ConfigurationError(str(error), file=str(traces.folder)) from error
    return sequence_figure(diagram, traces.description)


FIGURES: Final[Mapping[str, PaperFigure]] = MappingProxyType(
    {
        "4b": PaperFigure("fig4b_dqc_fidelity", "DQC fidelities", DQC, fidelity_figure),
        "4c": PaperFigure("fig4c_dqc_sequence", "one DQC circuit", TRACES, _draw_sequence),
        "4d": PaperFigure("fig4d_dqc_latency", "latencies of DQC", DQC, latency_figure),
        "5c": PaperFigure("fig5c_lgt_fidelity", "LGT fidelities", LGT, lgt_figure),
        "5d": PaperFigure(
            "fig5d_utilisation", "device utilisation", MULTITASKING, utilisation_figure
        ),
    }
)


def parse_names(text: str) -> tuple[str, ...]:
    """Numbers of figures from a list with commas, in the order of the catalogue.

    Raises:
        ConfigurationError: there is no such figure, or none is named.
    """
    names = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := names - FIGURES.keys():
        raise ConfigurationError(
            f"there is no figure '{min(unknown)}'; the figures are {', '.join(FIGURES)} (several "
            "with commas between)"
        )
    if not names:
        raise ConfigurationError(f"no figure is named; the figures are {', '.join(FIGURES)}")
    return tuple(name for name in FIGURES if name in names)
