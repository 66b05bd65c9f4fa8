"""The result of the trapped-ion demonstration as a table for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

SIGNIFICANCE: Final = 0.01
"""Probability below which two runs are said to differ."""


def ion_table(result: Mapping[str, Any]) -> Table:
    """How often every sequence ends dark, through QNodeOS and without it.

    Args:
        result: of `qnodeos.experiments.ion_analysis.analyse_ion`.
    """
    table = Table(
        title=f"Trapped ion, simulated, {result['repetitions']:,} repetitions",
        box=SIMPLE_HEAD,
        caption_justify="left",
        caption_style="",
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("sequence")
    for name in ("expected", "QNodeOS", "direct", "z"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in result["sequences"]:
        table.add_row(
            each["name"],
            f"{each['expected']:.4f}",
            _estimate(each),
            _estimate(each["direct"]),
            f"{each['z']:+.2f}",
        )
    table.caption = _caption(result)
    return table


def _caption(result: Mapping[str, Any]) -> str:
    rate, exchanges = result["exchange_hz"], result["exchanges"]
    return "\n".join(
        (
            "\nProbability of the dark state; ± is 1 sigma. Direct: the same instructions sent "
            "straight to a device of its own. Expected: closed form. z: QNodeOS less direct, in "
            "standard errors.",
            _verdict("QNodeOS and direct", result["agreement"]["direct"]),
            _verdict("QNodeOS and the closed form", result["agreement"]["expected"]),
            "Frames are exchanged at multiples of "
            f"{exchanges['grid_ns'] / 1e3:g} us, {rate:,.0f} Hz ({exchanges['count']:,} exchanges; "
            "those in which nothing is said are not simulated).",
            f"{result['simulated_s']:.1f} s of ions' time in {result['wall_s']:.1f} s, "
            f"{result['simulated_s'] / result['wall_s']:.2f} times real time.",
        )
    )


def _verdict(what: str, agreement: Mapping[str, float]) -> str:
    verdict = "agree" if agreement["p_value"] >= SIGNIFICANCE else "differ"
    return (
        f"{what} {verdict}: chi-square {agreement['chi_square']:.2f} for "
        f"{agreement['degrees_of_freedom']} degrees of freedom (p = {agreement['p_value']:.2f}), "
        f"largest |z| {agreement['largest_z']:.2f}."
    )


def _estimate(entry: Mapping[str, Any]) -> str:
    return f"{entry['p_dark']:.4f} ± {entry['sigma']:.4f}"
