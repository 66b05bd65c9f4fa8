"""Fig. 5c: fidelity of every input state of LGT, alone and multitasked."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.figure import Figure

from qnodeos.experiments.figures.results import LgtResult, LgtState
from qnodeos.experiments.figures.style import (
    BLUE,
    COLUMN_INCHES,
    RED,
    add_footer,
    new_figure,
    styled,
)
from qnodeos.experiments.lgt_analysis import STATES

_STYLE: Final = {
    "alone": (BLUE, "o", -0.12, "LGT alone"),
    "multitasked": (RED, "s", 0.12, "LGT while DQC runs"),
}


@styled()
def lgt_figure(result: LgtResult) -> Figure:
    """Fidelity of every input state and their mean, for each mode that has data."""
    figure = new_figure(COLUMN_INCHES, 2.6)
    axes = figure.add_subplot()
    positions = np.arange(len(STATES) + 1, dtype=float)
    positions[-1] += 0.3
    for mode, (colour, marker, shift, label) in _STYLE.items():
        entries: list[LgtState] = getattr(result, mode)
        if not entries:
            continue
        estimates = [by_state.fidelity for by_state in sorted(entries, key=_place)]
        if mode in result.mean_fidelity:
            estimates.append(result.mean_fidelity[mode])
        axes.errorbar(
            positions[: len(estimates)] + shift,
            [estimate.value for estimate in estimates],
            [estimate.sigma for estimate in estimates],
            fmt=marker,
            color=colour,
            label=label,
        )
    axes.axhline(1, color="black", linestyle="--", linewidth=0.8)
    axes.axvline(positions[-1] - 0.65, color="grey", linewidth=0.6)
    axes.set_xticks(positions, [*STATES, "mean"])
    axes.set_xlim(-0.6, positions[-1] + 0.6)
    axes.set_xlabel("input state")
    axes.set_ylabel("fidelity")
    figure.legend(loc="outside upper center", ncols=2)
    profile = result.settings.profile
    add_footer(
        figure,
        f"Simulated: {result.results:,} results alone and {result.results_multitasked:,} "
        f"multitasked, seed {result.seed}"
        + (f", latency profile '{profile}'" if profile else "")
        + ("" if result.complete else ", interrupted")
        + ". Corrected for the client's readout, so that values above 1 are possible. "
        "Bars: 1 sigma.",
    )
    return figure


def _place(entry: LgtState) -> int:
    return STATES.index(entry.state)
