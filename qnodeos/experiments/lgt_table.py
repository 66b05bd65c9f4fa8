"""The result of LGT as a table for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from qnodeos.experiments.lgt_analysis import MODES, STATES

_NOTHING: Final = "-"
SIGNIFICANCE: Final = 0.01
"""Probability below which the fidelities alone and multitasked are said to differ."""


def lgt_table(result: Mapping[str, Any]) -> Table:
    """Fidelity of every input state, alone and multitasked.

    Args:
        result: of `qnodeos.experiments.lgt_analysis.analyse_lgt`.
    """
    table = Table(
        title=f"LGT fidelity, simulated, {result['results'] + result['results_multitasked']} "
        "results",
        box=SIMPLE_HEAD,
        caption_justify="left",
        caption_style="",
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("state", justify="right")
    for mode in MODES:
        table.add_column(mode, justify="right", no_wrap=True)
    table.add_column("z", justify="right")
    table.add_column("+ CR", justify="right", no_wrap=True)
    table.add_column("most likely", justify="right", no_wrap=True)
    comparison = result["comparison"]
    for index, state in enumerate(STATES):
        entries = [result[mode][index] if result[mode] else None for mode in MODES]
        table.add_row(
            state,
            *(_estimate(entry and entry["fidelity"]) for entry in entries),
            f"{comparison['z'][index]:.2f}" if comparison else _NOTHING,
            " ".join(_value(entry and entry["charge_checked"]) for entry in entries),
            " ".join(_number(entry and entry["maximum_likelihood"]) for entry in entries),
        )
    table.add_section()
    means = [result["mean_fidelity"].get(mode) for mode in MODES]
    table.add_row("mean", *(_estimate(mean) for mean in means), "", "", "", style="bold")
    table.caption = _caption(result)
    return table


def _caption(result: Mapping[str, Any]) -> str:
    parts = [
        "\nFidelities are from the two bases of the state's axis, all readouts, corrected for "
        "readout errors; ± is 1 sigma, and the readout calibration is taken as exact in "
        "simulation. With few readouts they may exceed 1. + CR: without readouts after which the "
        "node failed its charge-resonance check, alone and multitasked. Most likely: fidelity of "
        "the state of maximum likelihood of all six bases, alone and multitasked."
    ]
    comparison = result["comparison"]
    if comparison:
        verdict = "agree" if comparison["p_value"] >= SIGNIFICANCE else "differ"
        parts.append(
            "z: multitasked less alone, in standard errors. Chi-square "
            f"{comparison['chi_square']:.2f} for {comparison['degrees_of_freedom']} degrees of "
            f"freedom (p = {comparison['p_value']:.2f}): alone and multitasked {verdict}"
            + (f" within their errors (p >= {SIGNIFICANCE:g})." if verdict == "agree" else ".")
        )
    for mode in MODES:
        if mode in result["subroutine_ms"]:
            parts.append(
                f"LGT {mode}: a subroutine has the QNPU for "
                f"{result['subroutine_ms'][mode]['p50']:.2f} ms (median), "
                f"{result['subroutines_per_s'][mode]:.0f} subroutines per second"
                + (
                    f", beside {result['dqc_circuits']} DQC circuits."
                    if mode == "multitasked"
                    else "."
                )
            )
    return "\n".join(parts)


def _estimate(estimate: Mapping[str, float] | None) -> str:
    return f"{estimate['value']:.3f} ± {estimate['sigma']:.3f}" if estimate else _NOTHING


def _value(estimate: Mapping[str, float] | None) -> str:
    return _number(estimate["value"] if estimate else None)


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"
