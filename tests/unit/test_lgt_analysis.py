"""Analysis of LGT: counts, fidelities, the comparison, and how they are shown."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calibration.readout import Estimate, ReadoutFidelity
from qnodeos.errors import InsufficientDataError
from qnodeos.experiments.figures.lgt import lgt_figure
from qnodeos.experiments.figures.results import LgtResult
from qnodeos.experiments.lgt_analysis import (
    BASES,
    MODES,
    STATES,
    LgtData,
    analyse_lgt,
    bloch_vector,
    compare,
    likely_fidelity,
    merge,
    state_fidelity,
)
from qnodeos.experiments.lgt_storage import add_block, open_lgt_run
from qnodeos.experiments.lgt_table import lgt_table
from tests.unit.stored_runs import read
from tests.unit.test_calibration_readout import assert_coverage

READOUT = ReadoutFidelity(0.95, 0.995)


def data_of(seed: int, repetitions: int = 4, fidelity: float = 0.98, **other: Any) -> LgtData:
    """Results of states that are depolarised to a fidelity."""
    rng = np.random.default_rng(seed)
    state = np.tile(np.arange(6), repetitions)
    vectors = np.array([bloch_vector(name) for name in STATES])
    bases = np.array([bloch_vector(name) for name in BASES])
    p0 = (1 + (2 * fidelity - 1) * vectors[state] @ bases.T) / 2
    seen = READOUT.f0 * p0 + (1 - READOUT.f1) * (1 - p0)
    return LgtData(
        state=state,
        outcome=(rng.random(seen.shape) >= seen).astype(int),
        charge_ok=rng.random(seen.shape) < 0.9,
        qnpu_ms=np.full(state.size, 2.5),
        elapsed_ms=6.0 * state.size,
        **other,
    )


# --- counts and fidelities --------------------------------------------------------------


def test_counts_by_hand():
    outcome = np.ones((3, 6), dtype=int)
    outcome[0, 2] = outcome[2, 2] = 0
    charge_ok = np.ones((3, 6), dtype=bool)
    charge_ok[2, 2] = charge_ok[0, 5] = False
    data = LgtData(np.array([4, 0, 4]), outcome, charge_ok, np.ones(3), 1.0)
    zeros, shots = data.counts("+Y")
    assert zeros == {"+X": 0, "-X": 0, "+Y": 2, "-Y": 0, "+Z": 0, "-Z": 0}
    assert shots == dict.fromkeys(BASES, 2)
    zeros, shots = data.counts("+Y", charge_checked=True)
    assert zeros["+Y"] == 1
    assert shots == {**dict.fromkeys(BASES, 2), "+Y": 1, "-Z": 1}


@pytest.mark.parametrize("state", STATES)
def test_a_fidelity_is_that_of_the_two_bases_of_its_axis(state):
    against = {"+": "-", "-": "+"}[state[0]] + state[1]
    zeros = {basis: 500 for basis in BASES} | {state: 930, against: 25}
    shots = dict.fromkeys(BASES, 1000)
    estimate = state_fidelity(zeros, shots, state, READOUT)
    assert estimate.value == pytest.approx(0.5 + (0.930 - 0.025) / (2 * 0.945))
    variance = (0.93 * 0.07 + 0.025 * 0.975) / 1000
    assert estimate.sigma == pytest.approx(math.sqrt(variance) / (2 * 0.945))
    # The other bases do not count.
    other = zeros | {basis: 0 for basis in BASES if basis[1] != state[1]}
    assert state_fidelity(other, shots, state, READOUT) == estimate


def test_error_bars_cover():
    pulls = []
    for seed in range(150):
        data = data_of(seed, repetitions=120)
        for state in STATES:
            estimate = state_fidelity(*data.counts(state), state, READOUT)
            pulls.append((estimate.value - 0.98) / estimate.sigma)
    assert_coverage(np.array(pulls))


@pytest.mark.parametrize("state", STATES)
def test_the_most_likely_state_is_the_right_one(state):
    shots = dict.fromkeys(BASES, 100_000)
    zeros = {}
    for basis in BASES:
        p0 = (1 + 0.9 * bloch_vector(state) @ bloch_vector(basis)) / 2
        zeros[basis] = round(100_000 * float(0.95 * p0 + 0.005 * (1 - p0)))
    assert likely_fidelity(zeros, shots, state, READOUT) == pytest.approx(0.95, abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": np.array([], dtype=int)},
        {"state": np.full(24, 6)},
        {"outcome": np.zeros((24, 5), dtype=int)},
        {"outcome": np.full((24, 6), 2)},
        {"charge_ok": np.ones((23, 6), dtype=bool)},
        {"qnpu_ms": np.ones(3)},
    ],
)
def test_impossible_data_are_refused(changes):
    with pytest.raises(InsufficientDataError):
        replace(data_of(1), **changes)


def test_blocks_merge_in_order():
    first, second = data_of(1, dqc_circuits=3), data_of(2, 2, dqc_circuits=4)
    both = merge([first, second])
    assert both.outcome.tolist() == [*first.outcome.tolist(), *second.outcome.tolist()]
    assert both.elapsed_ms == 6.0 * 36
    assert both.dqc_circuits == 7


# --- the comparison ---------------------------------------------------------------------


def test_the_comparison_by_hand():
    alone = [Estimate(0.98, 0.003, 0.5), Estimate(0.97, 0.004, 0.5)]
    multitasked = [Estimate(0.985, 0.004, 0.5), Estimate(0.96, 0.003, 0.5)]
    found = compare(alone, multitasked)
    assert found["z"] == pytest.approx([1.0, -2.0])
    assert found["chi_square"] == pytest.approx(5.0)
    assert found["degrees_of_freedom"] == 2
    assert found["p_value"] == pytest.approx(math.exp(-2.5))  # of two degrees of freedom


def test_equal_fidelities_are_found_equal_and_others_not():
    p_values = [
        analyse_lgt(
            {"alone": data_of(seed, 150), "multitasked": data_of(seed + 1000, 150)},
            READOUT,
            seed=1,
        )["comparison"]["p_value"]
        for seed in range(40)
    ]
    # Uniform if the errors are right: its mean is 0.5 within 4.5 standard errors.
    assert abs(np.mean(p_values) - 0.5) < 4.5 / math.sqrt(12 * len(p_values))
    different = analyse_lgt(
        {"alone": data_of(1, 150), "multitasked": data_of(2, 150, fidelity=0.9)}, READOUT, seed=1
    )
    assert different["comparison"]["p_value"] < 1e-6
    assert max(different["comparison"]["z"]) < 0
    assert "differ." in str(lgt_table(different).caption)


# --- the result -------------------------------------------------------------------------


def test_one_mode_is_reported_without_a_comparison():
    result = analyse_lgt({"alone": data_of(1)}, READOUT, seed=4)
    assert [entry["state"] for entry in result["alone"]] == list(STATES)
    assert result["multitasked"] == []
    assert result["comparison"] is None
    assert (result["results"], result["results_multitasked"]) == (144, 0)
    assert result["subroutines_per_s"] == {"alone": pytest.approx(1000 / 6)}
    table = lgt_table(result)
    assert table.row_count == 7
    assert list(table.columns[2].cells) == ["-"] * 7
    assert lgt_figure(LgtResult.model_validate(result)).axes


def test_without_a_passed_charge_check_there_is_no_fidelity_of_those():
    nothing = replace(data_of(1), charge_ok=np.zeros((24, 6), dtype=bool))
    result = analyse_lgt({"alone": nothing, "multitasked": data_of(2)}, READOUT, seed=4)
    assert {entry["charge_checked"] for entry in result["alone"]} == {None}
    assert str(next(iter(lgt_table(result).columns[4].cells))).startswith("- ")


def test_the_table_and_the_figure_show_both_modes():
    modes = {"alone": data_of(1), "multitasked": data_of(2, dqc_circuits=17)}
    result = analyse_lgt(modes, READOUT, seed=4)
    table = lgt_table(result)
    for column, mode in enumerate(MODES, start=1):
        first = result[mode][0]["fidelity"]
        cells = list(table.columns[column].cells)
        assert cells[0] == f"{first['value']:.3f} ± {first['sigma']:.3f}"
    caption = str(table.caption)
    assert "beside 17 DQC circuits" in caption
    assert "agree within their errors" in caption
    (axes,) = lgt_figure(LgtResult.model_validate(result)).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [*STATES, "mean"]


def test_blocks_are_stored_and_read_back(tmp_path):
    path = tmp_path / "qnodeos.db"
    data = data_of(3, 2)
    with open_lgt_run(path, {"seed": 7}) as run:
        add_block(run, "alone", 50, data)
        add_block(run, "multitasked", 0, data_of(4, 1))
    frame = read(path).frame
    assert len(frame) == 12 * 6 + 36
    rows = frame[frame["mode"] == "alone"]
    assert sorted(set(rows["repetition"])) == [50, 51]
    for state in STATES:
        zeros, _ = data.counts(state)
        of_state = rows[rows["input_state"] == state]
        for basis in BASES:
            chosen = of_state[of_state["basis"] == basis]
            assert (chosen["outcome"] == 0).sum() == zeros[basis]
