"""Every criterion accepts what the protocol gives and refuses what is wrong with it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from qnodeos.applications.conformance import ideal
from qnodeos.applications.conformance.catalogue import SUBJECTS, is_exact
from qnodeos.applications.conformance.observation import Observation, Verdict, all_hold
from qnodeos.applications.conformance.statistics import better_than, distribution, share
from tests.unit.conformance_runs import ideal_runs

BY_NAME = {subject.name: subject for subject in SUBJECTS}
SEEDS = (1, 2, 3)


def fresh(name: str, seed: int = 1) -> list[Observation]:
    return copy.deepcopy(ideal_runs(name, BY_NAME[name], seed))


@pytest.mark.parametrize("name", BY_NAME)
def test_what_the_protocol_gives_is_accepted(name):
    for seed in SEEDS:
        verdict = BY_NAME[name].judge(fresh(name, seed))
        assert verdict.passed, verdict.detail
        assert verdict.detail


@pytest.mark.parametrize("name", BY_NAME)
def test_no_runs_are_not_accepted(name):
    assert not BY_NAME[name].judge([]).passed


# --- states ---------------------------------------------------------------------------

STATE_AT = {
    "apps/anonymous_transmission": "qubit_state",
    "apps/blind_rotation": "output_state",
    "apps/dist_cnot": "final_state",
    "apps/teleport": "received_state",
    "qne_apps/blind_computation": "final_state",
    "qne_apps/dist_cnot": "final_state",
    "qne_apps/teleport": "received_state",
}


def alter_a_state(runs, key, change):
    """Change the state of one run in the middle, wherever a program returned it."""
    for result in runs[len(runs) // 2].results.values():
        if isinstance(result, dict) and key in result:
            result[key] = change(np.array(result[key])).tolist()


def depolarised(state):
    return 0.97 * state + 0.03 * np.eye(len(state)) / len(state)


def turned(state):
    turn = np.kron(np.diag([1, np.exp(0.2j)]), np.eye(len(state) // 2))
    tilt = np.kron(ideal.H, np.eye(len(state) // 2))
    both = turn @ tilt
    return both @ state @ both.conj().T


def one_qubit_less(state):
    return state[: len(state) // 2, : len(state) // 2]


@pytest.mark.parametrize("change", [depolarised, turned, one_qubit_less])
@pytest.mark.parametrize("name", STATE_AT)
def test_one_wrong_state_is_noticed(name, change):
    runs = fresh(name)
    alter_a_state(runs, STATE_AT[name], change)
    assert not BY_NAME[name].judge(runs).passed


@pytest.mark.parametrize("name", ["apps/blind_rotation", "qne_apps/blind_computation"])
def test_a_byproduct_that_was_not_taken_into_account_is_noticed(name):
    runs = fresh(name)
    client = runs[4].results["client"]
    if "s" in client:
        client["s"][-1] ^= 1
    else:
        client["m1"] ^= 1
    assert not BY_NAME[name].judge(runs).passed


def test_teleportation_without_randomness_is_noticed():
    runs = fresh("apps/teleport")
    for run in runs:
        run.results["sender"].update(m1=0, m2=0)
    assert not BY_NAME["apps/teleport"].judge(runs).passed


def test_a_state_that_more_than_the_receiver_has_is_noticed():
    runs = fresh("apps/anonymous_transmission")
    sender = next(role for role, given in runs[0].inputs.items() if given.get("sender"))
    results = {**runs[0].results, sender: {"qubit_state": [[1, 0], [0, 0]]}}
    runs[0] = replace(runs[0], results=results)
    assert not BY_NAME["apps/anonymous_transmission"].judge(runs).passed


def test_a_receiver_without_a_state_is_noticed():
    runs = fresh("apps/anonymous_transmission")
    runs[3] = replace(runs[3], results=dict.fromkeys(runs[3].results))
    assert not BY_NAME["apps/anonymous_transmission"].judge(runs).passed


def test_a_wrong_word_on_entanglement_is_noticed():
    runs = fresh("qne_apps/dist_cnot")
    runs[1].results["controller"]["entangled_text"] = "are *not* entangled"
    assert not BY_NAME["qne_apps/dist_cnot"].judge(runs).passed


# --- bits -----------------------------------------------------------------------------


def guess_at_chsh(runs, rng):
    for run in runs:  # the best strategy without entanglement
        run.results["alice"]["a"] = run.results["bob"]["b"] = 0
        won = not run.inputs["alice"]["x"] & run.inputs["bob"]["y"]
        run.results["bob"]["game_won"] = "won" if won else "lost"


def win_chsh_always(runs, rng):
    for run in runs:
        product = run.inputs["alice"]["x"] & run.inputs["bob"]["y"]
        run.results["alice"]["a"], run.results["bob"]["b"] = product, 0
        run.results["bob"]["game_won"] = "won"


def announce_wrongly(runs, rng):
    runs[7].results["bob"]["game_won"] = "nobody knows"
    win = runs[7].inputs["alice"]["x"] & runs[7].inputs["bob"]["y"]
    runs[7].results["alice"]["a"], runs[7].results["bob"]["b"] = win, 0


def wrong_parity(runs, rng):
    row = runs[5].results["player1"]["row"]
    other = (runs[5].inputs["player2"]["col"] + 1) % 3
    row[other] ^= 1


def shared_cell_differs(runs, rng):
    column = runs[5].results["player2"]["col"]
    column[runs[5].inputs["player1"]["row"]] ^= 1
    column[(runs[5].inputs["player1"]["row"] + 1) % 3] ^= 1


def one_flipped_bit(runs, rng):
    table = runs[2].results["bob"]["table"]
    next(row for row in table if row[2])[3] ^= 1


def bits_known_in_any_basis(runs, rng):
    for run in runs:
        for mine, theirs in zip(
            run.results["alice"]["table"], run.results["bob"]["table"], strict=True
        ):
            theirs[3] = mine[3]


def errors_seen(runs, rng):
    runs[1].results["alice"].update(qber=0.1, diff_outcome_count=1)


def basis_told_wrongly(runs, rng):
    row = runs[0].results["alice"]["table"][0]
    row[2] = not row[2]


def one_basis_only(runs, rng):
    for run in runs:
        for result in run.results.values():
            for row in result["table"]:
                row[1] = "Z"
                row[2] = True


def key_cut_short(runs, rng):
    key = runs[3].results["alice"]["raw_key"]
    runs[3].results["alice"]["raw_key"] = f"[{key[4:]}" if isinstance(key, str) else key[1:]


def keys_differ(runs, rng):
    key = runs[3].results["bob"]["raw_key"]
    flipped = key.translate(str.maketrans("01", "10")) if isinstance(key, str) else [1, *key[1:]]
    runs[3].results["bob"]["raw_key"] = flipped


def no_key(runs, rng):
    for result in runs[3].results.values():
        result["raw_key"] = "empty - there were not enough outcomes left"


def search_fails_once(runs, rng):
    runs[9].results["client"]["result1"] ^= 1


def server_always_reads_0(runs, rng):
    for run in runs:
        run.results["client"]["s1"] = 0


def uncorrelated_output(runs, rng):
    for run in runs:
        text = run.output["server"]
        run.output["server"] = "".join(
            rng.choice("01") if character in "01" else character for character in text
        )


def always_the_same_output(runs, rng):
    for run in runs:
        parity = {"Client": "0", "Server": "1"}
        for role, text in run.output.items():
            bit = parity.get(text[:6], "0")
            run.output[role] = text.replace("0", bit).replace("1", bit)


def missing_output(runs, rng):
    run = runs[4]
    run.output["server"] = run.output["server"][:-2]


def nothing_printed(runs, rng):
    runs[4].output.clear()


def one_pair_disagrees(runs, rng):
    text = runs[6].output["charlie"]
    runs[6].output["charlie"] = text[:-1] + str(1 - int(text[-1]))


def outcomes_of_another_state(runs, rng):
    for run in runs:
        run.results["alice"] = {"m1": rng.randrange(2), "m2": rng.randrange(2)}


def outcome_that_cannot_be(runs, rng):
    for run in runs:
        run.inputs["alice"]["theta"] = 0.0


def message_lost(runs, rng):
    runs[0] = replace(runs[0], received={"bob": ("hello from main()",)})


def messages_out_of_order(runs, rng):
    runs[0] = replace(runs[0], received={"bob": runs[0].received["bob"][::-1]})


def delegation_fails_once(runs, rng):
    certain = next(run for run in runs if run.inputs["client"]["alpha"] in (0.0, math.pi))
    certain.results["server"]["m2"] ^= 1


def delegation_is_a_coin(runs, rng):
    for run in runs:
        if run.inputs["client"]["alpha"] not in (0.0, math.pi):
            run.results["server"]["m2"] = rng.randrange(2)


def client_always_reads_0(runs, rng):
    for run in runs:
        run.results["client"]["p1"] = 0


WRONG = {
    "apps/bb84": [
        one_flipped_bit,
        bits_known_in_any_basis,
        errors_seen,
        basis_told_wrongly,
        one_basis_only,
        key_cut_short,
    ],
    "apps/blind_grover": [search_fails_once, server_always_reads_0],
    "apps/chsh": [guess_at_chsh, win_chsh_always],
    "apps/link_layer_ck": [
        uncorrelated_output,
        always_the_same_output,
        missing_output,
        nothing_printed,
    ],
    "apps/link_layer_md": [
        uncorrelated_output,
        always_the_same_output,
        missing_output,
        nothing_printed,
    ],
    "apps/magic_square": [wrong_parity, shared_cell_differs],
    "apps/multiple_files": [message_lost, messages_out_of_order],
    "apps/single_node": [outcomes_of_another_state, outcome_that_cannot_be],
    "apps/three_nodes": [one_pair_disagrees, nothing_printed],
    "qne_apps/chsh": [guess_at_chsh, win_chsh_always, announce_wrongly],
    "qne_apps/magic_square": [wrong_parity, shared_cell_differs],
    "qne_apps/qkd": [
        one_flipped_bit,
        bits_known_in_any_basis,
        errors_seen,
        basis_told_wrongly,
        key_cut_short,
        keys_differ,
        no_key,
    ],
    "sdk_scripts/rsp": [delegation_fails_once, delegation_is_a_coin, client_always_reads_0],
}


@pytest.mark.parametrize(
    ("name", "spoil"), [(name, spoil) for name, changes in WRONG.items() for spoil in changes]
)
def test_what_is_wrong_is_noticed(name, spoil):
    runs = fresh(name)
    spoil(runs, Random(5))
    assert not BY_NAME[name].judge(runs).passed


def test_every_subject_has_something_that_it_refuses():
    # The one left judges itself: its own assertion raises, which ends a run.
    assert set(BY_NAME) - set(STATE_AT) - set(WRONG) == {"sdk_scripts/epr"}


# --- the statistics themselves --------------------------------------------------------


def test_a_share_is_compared_with_its_probability():
    assert share(500, 1000, 0.5, "heads").passed
    assert not share(600, 1000, 0.5, "heads").passed
    assert not share(0, 0, 0.5, "heads").passed


def test_a_bound_is_refuted_only_with_enough_of_a_difference():
    assert better_than(512, 600, 0.75, "a bound").passed
    assert not better_than(17, 20, 0.75, "a bound").passed
    assert not better_than(400, 600, 0.75, "a bound").passed
    assert not better_than(0, 0, 0.75, "a bound").passed


def test_a_distribution_is_compared_group_by_group():
    # Together both groups are even, but neither is as it should be.
    swapped = [([0] * 90 + [1] * 10, [0.1, 0.9]), ([0] * 10 + [1] * 90, [0.9, 0.1])]
    right = [([0] * 90 + [1] * 10, [0.9, 0.1]), ([0] * 10 + [1] * 90, [0.1, 0.9])]
    assert distribution(right, "bits").passed
    assert not distribution(swapped, "bits").passed
    assert not distribution([([0, 2], [0.5, 0.5])], "bits").passed
    assert not distribution([([0, 1], [1.0, 0.0])], "bits").passed
    assert distribution([([0, 0], [1.0, 0.0])], "bits").passed


def test_details_are_of_what_failed_or_else_the_first_ones():
    right = [Verdict(True, name) for name in ("one", "two", "three")]
    assert all_hold(right) == Verdict(True, "one; two")
    assert all_hold([*right, Verdict(False, "wrong")]) == Verdict(False, "wrong")


# --- what the ideal states rest on ----------------------------------------------------


def test_a_trace_distance_is_that_of_the_shapes_too():
    zero, one = np.diag([1, 0]), np.diag([0, 1])
    assert ideal.trace_distance(zero, one) == pytest.approx(1)
    assert ideal.trace_distance(zero, zero) == pytest.approx(0)
    assert ideal.trace_distance(zero, np.eye(4)) == 1
    assert ideal.fidelity(np.eye(4) / 4, ideal.PLUS) == 0


def test_the_script_for_delegated_computation_takes_the_integer_part_of_an_angle():
    # A bug of its own: 5 steps of pi/16, less a rounding error, are taken as 4.
    step = math.pi / 16
    inexact = [
        (alpha, theta)
        for alpha in range(0, 32, 4)
        for theta in range(32)
        if not is_exact(alpha * step, theta * step)
    ]
    assert 100 < len(inexact) < 200
    alpha, theta = inexact[0]
    quotients = [(alpha * step - theta * step + bit * math.pi) / step for bit in range(3)]
    assert any(abs(round(q) - q) < 1e-9 and int(q) != round(q) for q in quotients)
