"""The result of the DQC experiment as tables for a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from calibration.fidelity import CLASSICAL_BOUND
from qnodeos.experiments.dqc_analysis import LATENCY_LIMIT_MS, STAGES
from qnodeos.experiments.dqc_segments import PUBLISHED_SEGMENTS_MS, cnpu_share

STAGE_LABELS: Final = {"ssro": "SSRO", "cr": "+ CR", "latency": "+ latency"}
"""How a stage of the selection is called in tables and figures."""

SEGMENT_LABELS: Final = {
    "entanglement": "entanglement: first attempt to delivery",
    "c1_wait_for_bin": "C1: arrived at the QNPU to first attempt",
    "c1_after_delivery": "C1: delivery of the pair to C1 done",
    "down_client": "C1: done to result at the client's CNPU",
    "client_result_to_message_sent": "client CNPU: result to message sent",
    "classical_communication": "classical message",
    "s1_after_delivery": "S1: delivery of the pair to S1 done",
    "s1_done_to_s2_added": "S1 done to S2 arrived at the QNPU",
    "server_result_to_message": "server CNPU: S1's result to message received",
    "server_message_to_s2_attempt": "server CNPU: message to start of sending S2",
    "s2_attempt_to_sent": "server CNPU: sending S2",
    "up_server": "S2: start of sending to arrived at the QNPU",
    "s2_qnpu": "S2: arrived at the QNPU to done",
    "s2_sent_to_result": "S2: sent to result",
    "overhead_c1": "C1: between CNPU and QNPU, both ways",
    "overhead_s1": "S1: between CNPU and QNPU, both ways",
    "overhead_s2": "S2: between CNPU and QNPU, both ways",
    "live_time": "server qubit live: delivery to S2 done",
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


def fidelity_table(
    result: Mapping[str, Any], *, latency_limit_ms: float = LATENCY_LIMIT_MS
) -> Table:
    """Fidelities per pair of angles and their mean, for each selection of circuits.

    Args:
        result: of `qnodeos.experiments.dqc_analysis.analyse_dqc`.
        latency_limit_ms: the filter the analysis used.
    """
    table = _table(f"DQC fidelity, simulated, {result['circuits']} circuits")
    table.add_column("alpha", justify="right")
    table.add_column("theta", justify="right")
    for stage in STAGES:
        table.add_column(STAGE_LABELS[stage], justify="right", no_wrap=True)
    table.add_column("circuits kept", justify="right", no_wrap=True)
    total = {stage: sum(entry["kept"][stage] for entry in result["sets"]) for stage in STAGES}
    width = len(str(max(total.values())))
    for entry in result["sets"]:
        table.add_row(
            angle_label(entry["alpha"]),
            angle_label(entry["theta"]),
            *(_fidelity(entry["fidelity"][stage]) for stage in STAGES),
            _kept(entry["kept"], width),
        )
    table.add_section()
    table.add_row(
        "mean",
        "",
        *(_fidelity(result["mean_fidelity"][stage]) for stage in STAGES),
        _kept(total, width),
        style="bold",
    )
    table.caption = (
        f"\nSSRO: all circuits, corrected for readout errors. {STAGE_LABELS['cr']}: without those "
        f"after which a node failed its charge-resonance check. {STAGE_LABELS['latency']}: also "
        f"without those whose server qubit lived longer than {latency_limit_ms:g} ms. The last "
        "column counts what each of the three keeps.\n"
        "± is the standard error of the mean (1 sigma); the readout calibration is taken as "
        "exact in simulation. With few circuits a corrected value may lie outside 0..1.\n"
        f"The paper's classical bound is {CLASSICAL_BOUND:.3f}: the best average fidelity for a "
        "completely unknown state without entanglement. Single pairs of angles may lie above "
        "it.\n"
        "These pairs of angles are assumed: the published ones are not available to us, and "
        "neither are the published fidelities."
    )
    return table


def segments_table(
    result: Mapping[str, Any], *, latency_limit_ms: float = LATENCY_LIMIT_MS
) -> Table:
    """Latency segments beside the published ones.

    Args:
        result: of `qnodeos.experiments.dqc_analysis.analyse_dqc`.
        latency_limit_ms: the filter the analysis used.
    """
    table = _table("DQC latencies in ms, mean (standard deviation)")
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
    table.add_row("CNPU share of the live time", _share(means), _share(published))
    table.add_row(
        "CNPU share, sending S2 included", _share(means, send=True), _share(published, send=True)
    )
    table.caption = (
        "\nC1 is the client's subroutine (entangle, two gates, measure); S1 and S2 are the "
        "server's (receive the qubit; rotate and measure it). The CNPU share is what the client "
        "needs from its result to the message and the server from the message to S2.\n"
        f"Circuits whose server qubit lived longer than {latency_limit_ms:g} ms "
        f"({result['discarded_latency']} of {result['circuits']}) are left out of the latencies"
        + ("; this is the published filter. " if latency_limit_ms == LATENCY_LIMIT_MS else ". ")
        + "The published column is from 77 circuits of one set."
    )
    if result["latency_bound_ms"] is not None:
        table.caption += (
            " Computed from the state the link delivers and the server's coherence time, "
            f"fidelity falls to {CLASSICAL_BOUND:.3f} after {result['latency_bound_ms']:.2f} ms."
        )
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        box=SIMPLE_HEAD,
        caption_justify="left",
        caption_style="",
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )


def _kept(kept: Mapping[str, int], width: int) -> str:
    return " ".join(f"{kept[stage]:>{width}}" for stage in STAGES)


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
