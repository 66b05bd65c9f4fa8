"""Batches of attempts and other things for which a laboratory is set up anew."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from instruments.errors import DeviceRefused
from qnodeos.qdevice.instructions import Axis, enm, ent, ini, msr, sqg
from qnodeos.qdevice.outcomes import HERALDS, Outcome
from sim.entangled_state import SinglePhotonProtocol
from sim.link import LinkParameters
from tests.sim.bench import assert_proportion
from tests.sim.lab_harness import (
    Runner,
    decoupled,
    link_with,
    lone_laboratory,
    node_settings,
    pair_state,
    record_plays,
    sample_of_tick,
    two_laboratories,
)

X180 = sqg(Axis.X, 16)


def test_a_state_that_does_not_exist_is_an_unknown_failure():
    with lone_laboratory(plain=True) as runner:
        runner.send(msr(), ticks=2)
        runner.controller.adwin.set_par(3, 99)
        with pytest.raises(DeviceRefused, match="in state 99, which does not exist"):
            assert runner.controller.state
        assert [each.outcome for each in runner.pass_ticks(2)] == [Outcome.UNKNOWN_FAILURE]
        assert runner.controller.state == "idle"
        assert runner.outcomes([ini(), X180, msr()]) == [
            [Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ONE]
        ]


@pytest.mark.parametrize("request_", [ent(), enm()])
def test_a_batch_without_a_herald_fails(request_):
    with two_laboratories(link_with(1e-12), settings=node_settings(attempts=25)) as runner:
        first, second = runner.tell(request_, ent())
        assert first.outcome is second.outcome is Outcome.ENTANGLEMENT_FAILURE
        assert first.answered == second.answered
        assert runner.lab.laboratory.station.attempts == 25
        batch_ticks = runner.controller.read("batch_us") / 10
        assert batch_ticks < first.answered - first.sent < batch_ticks + 6
        assert runner.outcomes([ini(), X180, msr()], [ini(), msr()]) == [
            [Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ONE],
            [Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ZERO],
        ]


# --- heralds ----------------------------------------------------------------------------------

BRIGHT = SinglePhotonProtocol(p_det_a=0.12, p_det_b=0.2)
"""Detected far more often than in reality, so that there are heralds to count."""
ALPHAS = (0.15, 0.3)


@pytest.fixture
def unequal():
    link = LinkParameters(protocol=BRIGHT)
    settings = [node_settings(attempts=60, alpha=alpha) for alpha in ALPHAS]
    with two_laboratories(link, settings=settings) as runner:
        yield runner


def as_played() -> SinglePhotonProtocol:
    alphas = dict(zip(("alpha_a", "alpha_b"), ALPHAS, strict=True))
    return SinglePhotonProtocol.model_validate({**BRIGHT.model_dump(), **alphas})


def test_heralds_are_as_frequent_as_the_protocol_says(unequal):
    station = unequal.lab.laboratory.station
    attempts, heralds = station.attempts, station.heralds
    answers = unequal.run([ent()] * 300, [ent()] * 300)
    outcomes = Counter(answer.outcome for answer in answers[0])
    assert outcomes == Counter(answer.outcome for answer in answers[1])
    assert set(outcomes) <= {*HERALDS, Outcome.ENTANGLEMENT_FAILURE}
    found = outcomes[Outcome.SUCCESS_PSI_PLUS] + outcomes[Outcome.SUCCESS_PSI_MINUS]
    assert found == station.heralds - heralds
    # As many attempts as it took to get so many heralds: close enough to binomial.
    assert_proportion(found, station.attempts - attempts, as_played().success_probability)
    assert_proportion(outcomes[Outcome.SUCCESS_PSI_PLUS], found, 0.5)


def test_the_pair_is_that_of_the_alphas_that_were_played(unequal):
    recorded = [record_plays(node.lab_node) for node in unequal.nodes]
    seen = set()
    for _ in range(8):
        for plays in recorded:
            plays.clear()
        [[answer], _] = unequal.run([ent()], [ent()])
        if not answer.outcome.is_success:
            continue
        bell = HERALDS[answer.outcome]
        seen.add(bell)
        sample = sample_of_tick(unequal.lab, unequal.tick)
        state = pair_state(unequal, sample).density_matrix()
        flips = np.kron(*(decoupled(plays, sample) for plays in recorded))
        expected = as_played().state(bell).density_matrix()
        np.testing.assert_allclose(flips.conj().T @ state @ flips, expected, rtol=0, atol=2e-3)
        # The populations tell the two nodes apart.
        assert abs(expected[1, 1] - expected[2, 2]) > 0.1
    assert len(seen) == 2
    for node in unequal.nodes:
        del node.lab_node._take_play


@pytest.fixture
def preparing():
    link = link_with(1.0, preparation_ms=0.5, idle_reset_ms=30.0)
    with two_laboratories(link, settings=node_settings(attempts=40)) as runner:
        yield runner


def batches_to_herald(runner: Runner) -> int:
    for batch in range(1, 10):
        first, second = runner.tell(ent(), ent())
        assert first.outcome is second.outcome
        if first.outcome.is_success:
            return batch
        assert first.outcome is Outcome.ENTANGLEMENT_FAILURE
    raise AssertionError("no herald in 9 batches")


def test_nothing_is_heralded_before_the_link_is_prepared(preparing):
    # 40 attempts of 5.5 us are 220 us, and there are some 30 us between batches.
    assert batches_to_herald(preparing) == 3
    # After a herald once more.
    assert batches_to_herald(preparing) == 3
    preparing.tell(ent(), ent())
    preparing.tell(ent(), ent())
    preparing.run([100], [100])
    # A short rest does no harm, a long one does.
    assert batches_to_herald(preparing) == 1
    preparing.tell(ent(), ent())
    preparing.tell(ent(), ent())
    preparing.run([3_100], [3_100])
    assert batches_to_herald(preparing) == 3
