"""Batches of attempts and other things for which a laboratory is set up anew."""

from __future__ import annotations

import pytest

from instruments.errors import DeviceRefused
from qnodeos.qdevice.instructions import Axis, enm, ent, ini, msr, sqg
from qnodeos.qdevice.outcomes import Outcome
from tests.sim.lab_harness import (
    link_with,
    lone_laboratory,
    node_settings,
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
