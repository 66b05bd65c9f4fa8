"""Two simulated nodes and what their instruments do together."""

from __future__ import annotations

import pytest

from qnodeos.qdevice.instructions import enm, ent, msr
from qnodeos.qdevice.outcomes import BellState, Outcome
from tests.sim.lab_harness import link_with, two_laboratories


@pytest.fixture(scope="module")
def pair():
    with two_laboratories(link_with(1.0)) as runner:
        yield runner


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
def test_every_bell_state_can_be_announced(pair, outcomes, bells):
    for node in pair.nodes:
        node.instruments.controller.set_heralds(outcomes, bells)
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
