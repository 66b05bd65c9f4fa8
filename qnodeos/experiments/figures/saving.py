"""Writing figures: all files of a call appear as a whole, or none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from qnodeos.experiments.dqc_analysis import LATENCY_LIMIT_MS, DqcSetData
from qnodeos.experiments.figures.dqc import fidelity_figure
from qnodeos.experiments.figures.lgt import lgt_figure
from qnodeos.experiments.figures.live_times import live_time_figure
from qnodeos.experiments.figures.multitasking import rates_figure, utilisation_figure
from qnodeos.experiments.figures.results import DqcResult, LgtResult, MultitaskingResult
from qnodeos.experiments.figures.style import FORMATS, rendered
from qnodeos.files import MAKE_ROOM, holding, reporting, write_files


def save_figures(
    figures: Mapping[str, Figure], directory: Path, formats: tuple[str, ...] = FORMATS
) -> list[Path]:
    """Write figures; either all files appear in the directory or none.

    Args:
        figures: by the stem of their files' names.
        directory: where to write; made if it does not exist.
        formats: of `qnodeos.experiments.figures.style.FORMATS`.

    Returns:
        The files written.

    Raises:
        ResultsNotWrittenError: there is no space or no permission.
    """
    files = {
        directory / f"{stem}.{suffix}": content
        for stem, figure in figures.items()
        for suffix, content in rendered(figure, formats).items()
    }
    with reporting(directory, MAKE_ROOM):
        directory.mkdir(parents=True, exist_ok=True)
    return write_files({path: holding(content) for path, content in files.items()})


def save_dqc_figures(
    result: Mapping[str, Any],
    sets: Sequence[DqcSetData],
    directory: Path,
    *,
    latency_limit_ms: float = LATENCY_LIMIT_MS,
) -> list[Path]:
    """Write ``dqc_fidelity.png`` and ``dqc_latency.png``, as `save_figures` does.

    Args:
        result: of `qnodeos.experiments.dqc_analysis.analyse_dqc`.
        sets: what it analysed.
        directory: where to write.
        latency_limit_ms: the filter the analysis used.
    """
    checked = DqcResult.model_validate(result)
    return save_figures(
        {
            "dqc_fidelity": fidelity_figure(checked),
            "dqc_latency": live_time_figure(checked, sets, latency_limit_ms=latency_limit_ms),
        },
        directory,
        ("png",),
    )


def save_lgt_figures(result: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write ``lgt_fidelity.png``, as `save_figures` does.

    Args:
        result: of `qnodeos.experiments.lgt_analysis.analyse_lgt`.
        directory: where to write.
    """
    return save_figures(
        {"lgt_fidelity": lgt_figure(LgtResult.model_validate(result))}, directory, ("png",)
    )


def save_multitasking_figures(result: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write ``multitasking_utilisation.png`` and ``multitasking_rates.png``, as `save_figures`.

    Args:
        result: of the experiment.
        directory: where to write.
    """
    checked = MultitaskingResult.model_validate(result)
    return save_figures(
        {
            "multitasking_utilisation": utilisation_figure(checked),
            "multitasking_rates": rates_figure(checked),
        },
        directory,
        ("png",),
    )
