"""Two simulated nodes and what their instruments do together."""

from __future__ import annotations

import numpy as np
import pytest

from qnodeos.qdevice.instructions import Axis, enm, ent, ini, msr, pmg, sqg
from qnodeos.qdevice.outcomes import HERALDS, BellState, Outcome
from sequences.waveform_table import FIRST_ATTEMPT, FIRST_ROTATION, READOUT
from sim.entangled_state import BELL_VECTORS
from tests.sim.lab_harness import (
    bring_up,
    decoupled,
    link_with,
    pair_state,
    record_plays,
    sample_of_tick,
    two_laboratories,
)

BASES = {"x": sqg(Axis.Y, 24), "y": sqg(Axis.X, 8), "z": sqg(Axis.X, 0)}
"""Rotations before a measurement, by what is measured then."""
SIGNS = {
    BellState.PSI_PLUS: {"x": 1, "y": 1, "z": -1},
    BellState.PSI_MINUS: {"x": -1, "y": -1, "z": -1},
}
"""Correlations; both spins are turned alike, so the sign of Y does not matter."""

Plays = list[tuple[int, int]]


@pytest.fixture(scope="module")
def pair():
    with two_laboratories(link_with(1.0)) as runner:
        yield runner


@pytest.fixture
def announcing(pair):
    """Lets both nodes say other Bell states than those their detectors herald."""

    def announce(outcomes, bells):
        for node in pair.nodes:
            node.instruments.controller.set_heralds(outcomes, bells)

    yield announce
    announce(
        (Outcome.SUCCESS_PSI_PLUS, Outcome.SUCCESS_PSI_MINUS),
        (BellState.PSI_PLUS, BellState.PSI_MINUS),
    )


@pytest.mark.parametrize("deaf", [0, 1])
def test_nodes_that_disagree_on_a_herald_do_not_synchronise(pair, deaf, monkeypatch):
    hearing = 1 - deaf
    mismatches = pair.nodes[hearing].instruments.controller.read("herald_mismatches")
    with monkeypatch.context() as patch:
        patch.setattr(pair.nodes[deaf].lab_node, "raise_herald", lambda time_ns, detector: None)
        answers = pair.tell(ent(), ent())
    assert answers[hearing].outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
    assert answers[deaf].outcome is Outcome.ENTANGLEMENT_FAILURE
    assert answers[hearing].answered < answers[deaf].answered
    assert pair.nodes[hearing].instruments.controller.read("herald_mismatches") == mismatches + 1
    # Neither is stuck.
    after = pair.tell(ent(), ent())
    assert after[0].outcome is after[1].outcome
    assert after[0].outcome.is_success


@pytest.mark.parametrize(
    ("outcomes", "bells"),
    [
        (
            (Outcome.SUCCESS_PSI_PLUS, Outcome.SUCCESS_PSI_MINUS),
            (BellState.PSI_PLUS, BellState.PSI_MINUS),
        ),
        (
            (Outcome.SUCCESS_ZERO, Outcome.SUCCESS_PHI_MINUS),
            (BellState.PHI_PLUS, BellState.PHI_MINUS),
        ),
    ],
)
def test_every_bell_state_can_be_announced(pair, announcing, outcomes, bells):
    announcing(outcomes, bells)
    seen = set()
    for _ in range(12):
        kept, measured = pair.run([ent(), msr(), enm()], [enm(), msr(), ent()])
        seen |= {kept[0].outcome, measured[2].outcome}
        for keeping, measuring in ((kept[0], measured[0]), (measured[2], kept[2])):
            assert keeping.response.herald is None
            assert keeping.answered < measuring.answered
            assert measuring.outcome in {Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ONE}
            assert measuring.response.herald is bells[outcomes.index(keeping.outcome)]
    assert seen == set(outcomes)


# --- attempts ---------------------------------------------------------------------------------


def attempts_of(plays: Plays) -> list[int]:
    return [sample for sample, entry in plays if entry == FIRST_ATTEMPT]


@pytest.fixture
def plays(pair):
    recorded = [record_plays(node.lab_node) for node in pair.nodes]
    yield recorded
    for node in pair.nodes:
        # The method of the class again.
        del node.lab_node._take_play


@pytest.mark.parametrize("late", [0, 1, 2, 13, 25, 47, 48, 49])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_both_nodes_attempt_on_the_same_sample_and_answer_in_the_same_tick(
    pair, plays, late, order
):
    # One of them holds a state and has to end the decoupling first.
    pair.run([ini(), sqg(Axis.X, 8)], [ini()])
    first, second = pair.run([ent()], [late, ent()], order=order)
    [starts, others] = [attempts_of(each) for each in plays]
    assert starts == others
    assert len(starts) == 1
    assert first[0].outcome is second[0].outcome
    assert first[0].outcome in {Outcome.SUCCESS_PSI_PLUS, Outcome.SUCCESS_PSI_MINUS}
    assert first[0].answered == second[0].answered


@pytest.mark.parametrize("late", [52, 60, 99])
def test_a_node_that_is_too_late_is_alone(pair, plays, late):
    pair.run([ini()], [ini()])
    first, second = pair.run([ent()], [late, ent()])
    assert first[0].outcome is second[0].outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
    assert attempts_of(plays[0]) == attempts_of(plays[1]) == []


def test_requests_one_after_the_other_do_not_meet(pair, plays):
    # A node that gave up takes its line back; what it says later is another request.
    first, second = pair.run([ent(), ent()], [52 + 20, ent()])
    assert first[0].outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
    assert first[1].outcome is second[0].outcome
    assert second[0].outcome.is_success
    assert attempts_of(plays[0]) == attempts_of(plays[1])


def test_nothing_decouples_from_the_readout_word_to_the_herald(pair, plays):
    pair.run([ini(), sqg(Axis.X, 8)], [ini(), sqg(Axis.Y, 3)])
    for each in plays:
        each.clear()
    pair.run([ent(), 30], [ent(), 30])
    for node, each in zip(pair.nodes, plays, strict=True):
        bring_up(node.lab_node)
        entries = [entry for _, entry in sorted(each)]
        ended = entries.index(READOUT)
        assert entries[ended + 1] == FIRST_ATTEMPT
        assert all(entry < FIRST_ROTATION for entry in entries[:ended] + entries[ended + 2 :])
        assert len(entries) > ended + 2


def test_a_repump_of_one_node_keeps_the_other_waiting(pair):
    before = [node.instruments.controller.read("failed_charge_checks") for node in pair.nodes]
    node = pair.nodes[1].lab_node
    node.centre.ionise(max(node.event, node.centre.spin.sample * 5 // 12_000) * 1_000 + 999)
    first, second = pair.tell(ent(), ent())
    assert first.outcome.is_success
    assert first.outcome is second.outcome
    assert first.answered == second.answered
    assert first.answered - first.sent > pair.controller.read("repump_us") // 10
    after = [node.instruments.controller.read("failed_charge_checks") for node in pair.nodes]
    assert [b - a for a, b in zip(before, after, strict=True)] == [0, 1]


def test_two_repumps_take_longer_than_the_other_waits(pair, monkeypatch):
    node = pair.nodes[1].lab_node
    node.centre.ionise(max(node.event, node.centre.spin.sample * 5 // 12_000) * 1_000 + 999)
    # The first repump is too dark to bring it back.
    light = pair.nodes[1].instruments.station.lasers["repump"].levels["repump"]
    light.voltage_v(0.0)
    first, second = pair.run([ent()], [ent()])
    light.voltage_v(1.0)
    assert first[0].outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
    assert second[0].outcome is Outcome.HARDWARE_FAILURE
    assert pair.tell(ent(), ent())[0].outcome.is_success


# --- pairs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [0, 3, 50, 1000])
def test_a_heralded_pair_is_the_bell_state_announced_and_decoupling_keeps_it(pair, plays, wait):
    [[answer, *_], _] = pair.run([ent(), wait], [ent(), wait])
    bell = HERALDS[answer.outcome]
    sample = sample_of_tick(pair.lab, pair.tick) + 17
    state = pair_state(pair, sample)
    flips = [decoupled(each, sample) for each in plays]
    expected = np.kron(*flips) @ BELL_VECTORS[bell]
    assert state.fidelity(expected) > 0.9995
    if wait > 10:
        assert all(len(each) > 8 for each in plays)


def test_pairs_are_correlated_in_every_basis(pair):
    seen = set()
    for _ in range(6):
        for basis, gate in BASES.items():
            for program in ([ent(), gate, msr()], [pmg(gate.axis, gate.steps), enm()]):
                other = [ent(), gate, msr()]
                first, second = pair.run(program, other)
                bell = HERALDS[second[0].outcome]
                agreed = first[-1].outcome is second[-1].outcome
                assert agreed is (SIGNS[bell][basis] == 1), (bell, basis, program)
                seen.add(bell)
    assert seen == set(SIGNS)
