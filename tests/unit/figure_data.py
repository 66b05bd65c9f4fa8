"""Small results as the experiments write them, and what a figure shows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from qnodeos.experiments.dqc_analysis import STAGES
from qnodeos.experiments.lgt_analysis import STATES

SEGMENT_MEANS_MS = {
    "c1_after_delivery": 0.7,
    "down_client": 0.6,
    "client_result_to_message_sent": 0.4,
    "classical_communication": 0.2,
    "s1_after_delivery": 0.5,
    "server_message_to_s2_attempt": 1.5,
    "up_server": 0.9,
    "s2_qnpu": 0.8,
}


def _stages(value: float, sigma: float) -> dict[str, dict[str, float]]:
    return {
        stage: {"value": value + 0.01 * place, "sigma": sigma + 0.001 * place}
        for place, stage in enumerate(STAGES)
    }


def dqc_result() -> dict[str, Any]:
    angles = ((0, 4), (8, 8), (16, -4), (-8, 8), (4, 16), (-4, 2))
    return {
        "experiment": "dqc",
        "seed": 17,
        "circuits": 7200,
        "sets": [
            {
                "alpha": alpha * math.pi / 16,
                "theta": theta * math.pi / 16,
                "fidelity": _stages(0.65 + 0.02 * place, 0.02),
                "kept": {},
            }
            for place, (alpha, theta) in enumerate(angles)
        ],
        "mean_fidelity": _stages(0.7, 0.007),
        "live_time_ms": {"mean": 5.1, "sd": 0.6, "p50": 5.0},
        "segments_ms": {
            name: {"mean": mean, "sd": mean / 10} for name, mean in SEGMENT_MEANS_MS.items()
        },
        "settings": {"profile": "paper", "seed": 17},
    }


def lgt_result() -> dict[str, Any]:
    def states(first: float) -> list[dict[str, Any]]:
        # Not in the order of the figure.
        return [
            {
                "state": state,
                "fidelity": {"value": first + 0.002 * STATES.index(state), "sigma": 0.004},
            }
            for state in reversed(STATES)
        ]

    return {
        "experiment": "lgt",
        "seed": 18,
        "alone": states(0.98),
        "multitasked": states(0.97),
        "mean_fidelity": {
            "alone": {"value": 0.985, "sigma": 0.002},
            "multitasked": {"value": 0.975, "sigma": 0.003},
        },
        "results": 36000,
        "results_multitasked": 36000,
    }


def multitasking_result() -> dict[str, Any]:
    return {
        "experiment": "multitasking",
        "seed": 19,
        "seconds": 60.0,
        "runs": [
            {
                "n": n,
                "scheduler": scheduler,
                "multitasking": multitasking,
                "utilisation": (0.1 + 0.1 * n + 0.05 * place) / (1 if multitasking else 2),
                "utilisation_sigma": 0.01,
                "other_process_scheduled": 0.5 + 0.08 * n if multitasking else 0.0,
                "consecutive_lgt": 0.8 + 0.2 * n if multitasking else None,
                "dqc_per_s": 10.0 * n,
                "lgt_per_s": 30.0 * n,
                "dqc_fidelity": 0.7,
                "dqc_fidelity_sigma": 0.01,
                "missed_bins": 0,
            }
            for place, scheduler in enumerate(("fcfs", "combined"))
            for multitasking in (True, False)
            for n in (5, 1, 3)  # not in the order of the figure
        ],
    }


def write_results(folder: Path) -> None:
    """The three results as files."""
    folder.mkdir(parents=True, exist_ok=True)
    results = {"dqc": dqc_result(), "lgt": lgt_result(), "multitasking": multitasking_result()}
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result), "utf-8")


def texts(figure: Figure) -> list[Text]:
    """What is written on a figure."""
    figure.draw_without_rendering()
    return [
        text
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_text() and text.get_visible()
    ]


def assert_nothing_cut_off(figure: Figure) -> None:
    for text in texts(figure):
        box = text.get_window_extent()
        inside = (
            box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        )
        assert inside or text in _undrawn_tick_labels(figure), text


def _undrawn_tick_labels(figure: Figure) -> list[Text]:
    """Labels of ticks beyond the limits of an axis, which exist but are not drawn."""
    labels = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            undrawn = [tick for tick in ticks if not low <= tick.get_loc() <= high]
            labels += [label for tick in undrawn for label in (tick.label1, tick.label2)]
    return labels


def points(container: Any) -> tuple[list[float], list[float], list[float]]:
    """Where the points of an error bar plot are, and the half lengths of their bars."""
    assert isinstance(container, ErrorbarContainer)
    line, _, (bars,) = container.lines
    half = [float(segment[1, 1] - segment[0, 1]) / 2 for segment in bars.get_segments()]
    drawn = np.asarray(line.get_xydata())
    return drawn[:, 0].tolist(), drawn[:, 1].tolist(), half


def bars(figure: Figure, *, published: bool) -> list[tuple[float, float]]:
    """Start and length of the bars of the first axes, from top to bottom."""
    return [
        (bar.get_x(), bar.get_width())
        for container in figure.axes[0].containers
        if isinstance(container, BarContainer)
        and (container.get_label() == "published") == published
        for bar in container
    ]
