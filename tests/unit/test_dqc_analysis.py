"""DQC results to fidelities and statistics, and their tables."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from calibration.fidelity import fidelity_after
from calibration.readout import ReadoutFidelity
from qnodeos.errors import InsufficientDataError
from qnodeos.experiments.dqc_analysis import STAGES, DqcSetData, analyse_dqc
from qnodeos.experiments.dqc_segments import PUBLISHED_SEGMENTS_MS, SEGMENTS
from qnodeos.experiments.dqc_table import (
    SEGMENT_LABELS,
    STAGE_LABELS,
    angle_label,
    fidelity_table,
    segments_table,
)
from tests.unit.test_calibration_readout import assert_coverage

PERFECT = ReadoutFidelity(1, 1)
READOUT = ReadoutFidelity(0.95, 0.995, 0.003, 0.001)
ANGLES = ((0, 4), (8, 8), (8, 28), (24, 8), (4, 16), (28, 2))


def made_set(
    orientation: list[int],
    outcome: list[int],
    *,
    charge_ok: list[bool] | None = None,
    live_ms: list[float] | None = None,
    angles: tuple[int, int] = (0, 4),
) -> DqcSetData:
    n = len(outcome)
    live = np.array(live_ms if live_ms is not None else [5.0] * n)
    return DqcSetData(
        *angles,
        np.array(orientation, dtype=np.int8),
        np.array(outcome),
        np.zeros(n, dtype=int),
        np.array(charge_ok if charge_ok is not None else [True] * n),
        {"live_time": live, "entanglement": 100 * live, "s2_qnpu": live / 10},
    )


def drawn_sets(n: int, rng: np.random.Generator, readout: ReadoutFidelity) -> list[DqcSetData]:
    """Segments about the published ones, a few slow; fidelity decays with the live time."""
    sets = []
    for alpha, theta in ANGLES:
        segments = {name: rng.gamma(4, 0.15, n) for name in SEGMENTS}
        for name, (mean, _) in PUBLISHED_SEGMENTS_MS.items():
            segments[name] = rng.gamma(25, mean / 25, n)
        segments["live_time"][rng.random(n) < 0.05] += 10
        good = rng.random(n) >= 0.03
        orientation = np.arange(n) % 2
        decay = np.exp(-segments["live_time"] / 13)
        fidelity = np.where(good, 0.5 + 0.3 * decay, 0.5)
        p0 = np.where(orientation == 0, fidelity, 1 - fidelity)
        zero = rng.random(n) < readout.f0 * p0 + (1 - readout.f1) * (1 - p0)
        sets.append(
            DqcSetData(alpha, theta, orientation, 1 - zero, rng.integers(0, 2, n), good, segments)
        )
    return sets


# --- fidelities ---------------------------------------------------------------------


def test_stages_select_and_count_by_hand() -> None:
    data = made_set(
        orientation=[0, 0, 0, 0, 1, 1, 1, 1],
        outcome=[0, 0, 0, 1, 1, 1, 0, 0],
        charge_ok=[True, True, True, False, True, True, True, False],
        live_ms=[5, 8.95, 9, 5, 4, 6, 8.96, 30],
    )
    result = analyse_dqc([data], PERFECT, seed=3)
    entry = result["sets"][0]
    assert entry["kept"] == {"ssro": 8, "cr": 6, "latency": 4}
    # '+i' zeros 3/4, 3/3, 2/2; '-i' zeros 2/4, 1/3, 0/2.
    assert entry["fidelity"]["ssro"]["value"] == pytest.approx((0.75 + 1 - 0.5) / 2)
    assert entry["fidelity"]["cr"]["value"] == pytest.approx((1 + 1 - 1 / 3) / 2)
    assert entry["fidelity"]["latency"]["value"] == 1
    sigma = math.sqrt(0.75 * 0.25 / 4 + 0.5 * 0.5 / 4) / 2
    assert entry["fidelity"]["ssro"]["sigma"] == pytest.approx(sigma)
    assert result["discarded_latency"] == 3
    assert result["circuits"] == 8


def test_statistics_are_of_the_kept_circuits_but_entanglement_of_all() -> None:
    data = made_set([0, 1, 0, 1], [0, 0, 0, 0], live_ms=[2, 4, 6, 20])
    other = made_set([0, 1], [0, 0], live_ms=[8, 30], charge_ok=[False, False])
    result = analyse_dqc([data, other], PERFECT, seed=3)
    live = result["live_time_ms"]
    assert (live["mean"], live["p50"], live["max"]) == (5, 5, 8)
    assert live["sd"] == pytest.approx(math.sqrt((9 + 1 + 1 + 9) / 3))
    assert live["p90"] == pytest.approx(7.4)
    assert result["segments_ms"]["s2_qnpu"]["mean"] == pytest.approx(0.5)
    assert result["entanglement_ms"]["p50"] == pytest.approx(700)
    assert result["entanglement_ms"]["mean"] == pytest.approx(7000 / 6)


def test_result_has_exactly_the_promised_structure() -> None:
    result = analyse_dqc(
        drawn_sets(60, np.random.default_rng(1), READOUT), READOUT, seed=9, wall_s=1.5
    )
    estimate = {"value", "sigma"}
    assert list(result) == [
        "experiment",
        "seed",
        "circuits",
        "sets",
        "mean_fidelity",
        "live_time_ms",
        "segments_ms",
        "entanglement_ms",
        "discarded_latency",
        "latency_bound_ms",
        "wall_s",
    ]
    assert (result["experiment"], result["seed"], result["wall_s"]) == ("dqc", 9, 1.5)
    assert result["circuits"] == 360
    assert len(result["sets"]) == 6
    for entry in result["sets"]:
        assert set(entry) == {"alpha", "theta", "fidelity", "kept"}
        assert set(entry["kept"]) == set(STAGES) == {"ssro", "cr", "latency"}
        assert all(set(value) == estimate for value in entry["fidelity"].values())
    assert all(set(value) == estimate for value in result["mean_fidelity"].values())
    assert set(result["live_time_ms"]) == {"mean", "sd", "p50", "p90", "max"}
    assert set(result["segments_ms"]) == set(SEGMENTS)
    assert all(set(value) == {"mean", "sd"} for value in result["segments_ms"].values())
    assert set(result["entanglement_ms"]) == {"mean", "sd", "p50"}
    assert result["latency_bound_ms"] == pytest.approx(8.97, abs=0.005)
    # Plain numbers only: numpy's do not serialise, and NaN is not JSON.
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_analysis_is_deterministic() -> None:
    first, second = (
        analyse_dqc(drawn_sets(20, np.random.default_rng(4), READOUT), READOUT, seed=4)
        for _ in range(2)
    )
    assert json.dumps(first) == json.dumps(second)


def test_angles_are_given_in_radians_about_zero() -> None:
    sets = [made_set([0, 1], [0, 1], angles=angles) for angles in (*ANGLES, (16, 17), (32, -8))]
    result = analyse_dqc(sets, PERFECT, seed=0)
    found = [
        (entry["alpha"] / math.pi * 16, entry["theta"] / math.pi * 16) for entry in result["sets"]
    ]
    expected = [(0, 4), (8, 8), (8, -4), (-8, 8), (4, 16), (-4, 2), (16, -15), (0, -8)]
    assert [(round(a, 9), round(t, 9)) for a, t in found] == expected


def test_error_bars_of_sets_and_of_the_mean_cover() -> None:
    rng = np.random.default_rng(41)
    fidelity, n, sigma = 0.9, 200, 0.02
    true = ReadoutFidelity(0.88, 0.9)
    p0 = np.where(np.arange(n) % 2 == 0, fidelity, 1 - fidelity)
    seen = true.f0 * p0 + (1 - true.f1) * (1 - p0)
    pulls: dict[str, list[float]] = {"set": [], "mean": []}
    for _ in range(1000):
        # A calibration error about as large as the statistical one of the mean.
        readout = ReadoutFidelity(
            rng.normal(true.f0, sigma), rng.normal(true.f1, sigma), sigma, sigma
        )
        sets = [
            made_set((np.arange(n) % 2).tolist(), (rng.random(n) >= seen).astype(int).tolist())
            for _ in range(6)
        ]
        result = analyse_dqc(sets, readout, seed=0)
        for name, estimate in (
            ("set", result["sets"][0]["fidelity"]["cr"]),
            ("mean", result["mean_fidelity"]["cr"]),
        ):
            pulls[name].append((estimate["value"] - fidelity) / estimate["sigma"])
    for values in pulls.values():
        assert_coverage(np.array(values))


def test_selection_removes_what_charge_failures_and_decay_cost() -> None:
    sets = drawn_sets(20_000, np.random.default_rng(42), READOUT)
    result = analyse_dqc(sets, READOUT, seed=42)
    mean = result["mean_fidelity"]
    truth = {}
    for stage in STAGES:
        per_set = []
        for data in sets:
            kept = data.selected(stage, 8.95)
            live = data.segments["live_time"][kept]
            good = data.charge_ok[kept]
            values = np.array([fidelity_after(t, 0.8, 13.0) for t in live])
            per_set.append(np.where(good, values, 0.5).mean())
        truth[stage] = float(np.mean(per_set))
    assert truth["ssro"] < truth["cr"] < truth["latency"]
    for stage in STAGES:
        statistical = math.sqrt(0.25 / 120_000) / READOUT.contrast
        # The readout is known exactly here: only the draws of outcomes scatter.
        assert abs(mean[stage]["value"] - truth[stage]) < 4.5 * statistical
    assert mean["ssro"]["value"] < mean["cr"]["value"] < mean["latency"]["value"]


# --- little or bad data -------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_circuits_per_set_do_not_fail(n: int) -> None:
    result = analyse_dqc(drawn_sets(n, np.random.default_rng(5), READOUT), READOUT, seed=5)
    assert result["circuits"] == 6 * n
    for stage in STAGES:
        assert result["mean_fidelity"][stage]["sigma"] > 0
    json.dumps(result, allow_nan=False)
    rendered(segments_table(result))


def test_unanimous_outcomes_are_not_certain() -> None:
    result = analyse_dqc([made_set([0, 1], [0, 1])], PERFECT, seed=0)
    fidelity = result["sets"][0]["fidelity"]["ssro"]
    # Per orientation the posterior of one success: variance (2/3)(1/3)/4.
    assert fidelity == {"value": 1.0, "sigma": pytest.approx(math.sqrt(2 / 36 * 2) / 2)}


def test_a_set_without_one_orientation_says_nothing() -> None:
    result = analyse_dqc([made_set([0, 0], [0, 0])], PERFECT, seed=0)
    fidelity = result["sets"][0]["fidelity"]["latency"]
    assert fidelity == {"value": 0.5, "sigma": pytest.approx(1 / math.sqrt(12))}


def test_no_circuit_within_the_filter_gives_none() -> None:
    data = made_set([0, 1], [0, 1], live_ms=[50, 60])
    result = analyse_dqc([data], PERFECT, seed=0)
    assert result["live_time_ms"] == dict.fromkeys(("mean", "sd", "p50", "p90", "max"))
    assert result["segments_ms"]["s2_qnpu"] == {"mean": None, "sd": None}
    assert result["entanglement_ms"]["mean"] == 5500
    assert result["discarded_latency"] == 2
    assert result["sets"][0]["kept"]["latency"] == 0
    assert "-" in rendered(segments_table(result))


def test_one_kept_circuit_has_a_mean_but_no_deviation() -> None:
    data = made_set([0, 1], [0, 1], live_ms=[5, 60])
    live = analyse_dqc([data], PERFECT, seed=0)["live_time_ms"]
    assert (live["mean"], live["sd"]) == (5, None)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"outcome": np.array([0, 2])}, "'outcome' must hold 0 and 1"),
        ({"orientation": np.array([0, -1])}, "'orientation' must hold 0 and 1"),
        ({"client_outcome": np.array([0])}, "'client_outcome' has shape"),
        ({"charge_ok": np.array([True])}, "'charge_ok' has shape"),
        ({"outcome": np.array([], dtype=int)}, "outcomes of shape"),
        ({"segments": {"live_time": np.ones(2)}}, "'entanglement' is missing"),
        ({"segments": {"live_time": np.ones(3)}}, "'live_time' has shape"),
    ],
)
def test_bad_data_is_named(change: dict[str, Any], match: str) -> None:
    fields: dict[str, Any] = vars(made_set([0, 1], [0, 1])) | change
    with pytest.raises(InsufficientDataError, match=f"alpha 0, theta 4 .*{match}"):
        DqcSetData(**fields)


def test_sets_must_exist_and_agree() -> None:
    with pytest.raises(InsufficientDataError, match="no DQC sets"):
        analyse_dqc([], PERFECT, seed=0)
    plain = made_set([0, 1], [0, 1])
    richer = DqcSetData(**vars(plain) | {"segments": {**plain.segments, "c1": np.ones(2)}})
    with pytest.raises(InsufficientDataError, match="segments differ"):
        analyse_dqc([plain, richer], PERFECT, seed=0)


# --- tables -------------------------------------------------------------------------


def rendered(table: Table) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_tables_show_every_number() -> None:
    result = analyse_dqc(drawn_sets(60, np.random.default_rng(6), READOUT), READOUT, seed=6)
    text = rendered(fidelity_table(result))
    assert "simulated" in text
    for fidelity in [entry["fidelity"] for entry in result["sets"]] + [result["mean_fidelity"]]:
        for estimate in fidelity.values():
            assert f"{estimate['value']:.3f} ± {estimate['sigma']:.3f}" in text
    for entry in result["sets"]:
        assert " ".join(f"{entry['kept'][stage]:>3}" for stage in STAGES) in text
    text = rendered(segments_table(result))
    assert set(SEGMENT_LABELS) == set(SEGMENTS)
    for name, label in SEGMENT_LABELS.items():
        line = next(line for line in text.splitlines() if label in line)
        if name != "entanglement":
            assert f"{result['segments_ms'][name]['mean']:.3f}" in line
    assert "4.819 (0.623)" in text
    assert "36%" in text and "55%" in text


def caption(table: Table) -> str:
    assert isinstance(table.caption, str)
    return table.caption


def test_tables_explain_themselves() -> None:
    data = drawn_sets(60, np.random.default_rng(6), READOUT)
    result = analyse_dqc(data, READOUT, seed=6)
    text = caption(fidelity_table(result))
    for words in ("standard error of the mean", "0.667", "assumed", "longer than 8.95 ms"):
        assert words in text
    text = caption(segments_table(result))
    assert f"({result['discarded_latency']} of 360) are left out" in text
    assert "this is the published filter" in text
    assert f"after {result['latency_bound_ms']:.2f} ms" in text
    for words in ("C1 is", "S1 and S2 are", "CNPU share", "77 circuits of one set"):
        assert words in text


def test_another_filter_is_named_and_not_called_published() -> None:
    data = drawn_sets(60, np.random.default_rng(6), READOUT)
    result = analyse_dqc(data, READOUT, seed=6, latency_limit_ms=7.5)
    for table in (
        fidelity_table(result, latency_limit_ms=7.5),
        segments_table(result, latency_limit_ms=7.5),
    ):
        assert "longer than 7.5 ms" in caption(table)
        assert "published filter" not in caption(table)


def test_without_a_latency_bound_there_is_no_word_of_it() -> None:
    result = analyse_dqc(drawn_sets(60, np.random.default_rng(6), READOUT), READOUT, seed=6)
    assert "Computed" not in caption(segments_table(result | {"latency_bound_ms": None}))


@pytest.mark.parametrize("circuits", [2, 60, 160_000])
def test_tables_fit_80_columns_uncut(circuits: int) -> None:
    result = analyse_dqc(drawn_sets(60, np.random.default_rng(6), READOUT), READOUT, seed=6)
    for entry in result["sets"]:
        entry["kept"] = dict.fromkeys(STAGES, circuits)
    result["sets"][0]["fidelity"]["ssro"] = {"value": -0.123, "sigma": 0.1234}
    text = rendered(fidelity_table(result))
    assert "-0.123 ± 0.123" in text
    assert " ".join([str(6 * circuits)] * 3) in text
    for header in ("alpha", "theta", *STAGE_LABELS.values(), "circuits kept"):
        assert header in text
    text += rendered(segments_table(result))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


@pytest.mark.parametrize(
    ("steps", "label"),
    [(0, "0"), (16, "π"), (-8, "-π/2"), (3, "3π/16"), (12, "3π/4"), (-16, "-π"), (1, "π/16")],
)
def test_angle_labels(steps: int, label: str) -> None:
    assert angle_label(steps * math.pi / 16) == label
