"""The result of the DQC experiment as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from rich.table import Table

from calibration.fidelity import CLASSICAL_BOUND
from qnodeos.experiments.dqc_analysis import STAGES
from qnodeos.experiments.dqc_segments import PUBLISHED_SEGMENTS_MS, cnpu_share

STAGE_LABELS: Final = {"ssro": "SSRO-corrected", "cr": "+ CR check", "latency": "+ latency filter"}
"""How a stage of the selection is called in tables and figures."""

SEGMENT_LABELS: Final = {
    "entanglement": "entanglement: first attempt to delivery",
    "c1_wait_for_bin": "C1: added to first attempt",
    "c1_after_delivery": "C1: delivery to done",
    "down_client": "client QNPU to CNPU",
    "client_result_to_message_sent": "client CNPU: result to message sent",
    "classical_communication": "classical message",
    "s1_after_delivery": "S1: delivery to done",
    "s1_done_to_s2_added": "S1 done to S2 added",
    "server_result_to_message": "server CNPU: S1 result to message",
    "server_message_to_s2_attempt": "server CNPU: message to sending S2",
    "s2_attempt_to_sent": "server CNPU: sending S2",
    "up_server": "server CNPU to QNPU",
    "s2_qnpu": "S2 on the QNPU",
    "s2_sent_to_result": "S2: sent to result",
    "overhead_c1": "C1: CNPU-QNPU overhead",
    "overhead_s1": "S1: CNPU-QNPU overhead",
    "overhead_s2": "S2: CNPU-QNPU overhead",
    "live_time": "server qubit live",
}
"""What a latency segment spans, in the order of the table."""


def angle_label(radians: float) -> str:
    """An angle as a fraction of pi, for example ``-π/2`` or ``3π/16``."""
    steps = round(radians * 16 / math.pi)
    if steps == 0:
        return "0"
    divisor = 16
    while divisor > 1 and steps % 2 == 0:
        steps, divisor = steps // 2, divisor // 2
    sign, factor = "-" if steps < 0 else "", "" if abs(steps) == 1 else str(abs(steps))
    return f"{sign}{factor}π" + (f"/{divisor}" if divisor > 1 else "")


def fidelity_table(result: Mapping[str, Any]) -> Table:
    """Fidelities per pair of angles and their mean, for each selection of circuits.

    Args:
        result: of `qnodeos.experiments.dqc_analysis.analyse_dqc`.
    """
    table = Table(title=f"DQC fidelity, simulated, {result['circuits']} circuits")
    table.add_column("alpha", justify="right")
    table.add_column("theta", justify="right")
    for stage in STAGES:
        table.add_column(STAGE_LABELS[stage], justify="right")
    table.add_column("kept", justify="right")
    for entry in result["sets"]:
        table.add_row(
            angle_label(entry["alpha"]),
            angle_label(entry["theta"]),
            *(_fidelity(entry["fidelity"][stage]) for stage in STAGES),
            " / ".join(str(entry["kept"][stage]) for stage in STAGES),
        )
    table.add_section()
    kept = [sum(entry["kept"][stage] for entry in result["sets"]) for stage in STAGES]
    table.add_row(
        "mean",
        "",
        *(_fidelity(result["mean_fidelity"][stage]) for stage in STAGES),
        " / ".join(map(str, kept)),
        style="bold",
    )
    table.caption = f"Classical bound: {CLASSICAL_BOUND:.3f}."
    return table


def segments_table(result: Mapping[str, Any]) -> Table:
    """Latency segments beside the published ones.

    Args:
        result: of `qnodeos.experiments.dqc_analysis.analyse_dqc`.
    """
    table = Table(title="Latencies in ms, mean (sd)")
    table.add_column("segment")
    table.add_column("simulated", justify="right")
    table.add_column("published", justify="right")
    segments = result["segments_ms"]
    for name, label in SEGMENT_LABELS.items():
        if name == "live_time":
            table.add_section()
        if name in segments:
            mean, sd = PUBLISHED_SEGMENTS_MS.get(name, (None, None))
            values = segments[name]
            table.add_row(label, _mean_sd(values["mean"], values["sd"]), _mean_sd(mean, sd))
    means = {name: values["mean"] for name, values in segments.items()}
    published = {name: mean for name, (mean, _) in PUBLISHED_SEGMENTS_MS.items()}
    table.add_row("CNPU share of it", _share(means), _share(published))
    table.add_row("with sending S2", _share(means, send=True), _share(published, send=True))
    table.caption = (
        f"Circuits live longer than the latency filter ({result['discarded_latency']} of "
        f"{result['circuits']}) are left out. Computed latency bound: "
        f"{result['latency_bound_ms']:.2f} ms. Published: 77 circuits of one set."
    )
    return table


def _fidelity(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.3f} ± {estimate['sigma']:.3f}"


def _mean_sd(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "-"
    digits = 0 if mean >= 100 else 3
    return f"{mean:.{digits}f}" + (f" ({sd:.{digits}f})" if sd is not None else "")


def _share(means: Mapping[str, float | None], *, send: bool = False) -> str:
    known = {name: mean for name, mean in means.items() if mean is not None}
    try:
        return f"{cnpu_share(known, count_send=send):.0%}"
    except (KeyError, ZeroDivisionError):
        return "-"
