"""The ADbasic program has time enough, and it shows if it has not."""

from __future__ import annotations

import pytest

from qnodeos.qdevice.instructions import Axis, enm, ent, ini, msr, pmg, sqg
from sim.lab import node as lab_node
from sim.lab.timing import NS_PER_EVENT
from tests.sim.lab_harness import link_with, lone_laboratory, node_settings, two_laboratories

X90 = sqg(Axis.X, 8)


def test_no_event_takes_longer_than_the_time_to_the_next(monkeypatch):
    longest = 0
    execute = lab_node.LabNode._execute

    def timed(node: lab_node.LabNode, event: int) -> None:
        nonlocal longest
        execute(node, event)
        longest = max(longest, node.process.cycle - event * NS_PER_EVENT)

    monkeypatch.setattr(lab_node.LabNode, "_execute", timed)
    settings = node_settings(attempts=1790, log_shots=1)
    with two_laboratories(link_with(1e-4), settings=settings, plain=True, seed=4) as runner:
        steps = [ini(), X90, msr(), pmg(Axis.X, 8), enm(), ent(), X90, msr(), ini(1), X90]
        runner.run(steps, steps)
        for node in runner.nodes:
            process = node.instruments.station.adwin.processes[0]
            assert process.lost_events() == 0
            load = node.instruments.station.adwin.workload()
            assert 10 < load < 60
    # Room for what the assumed costs of instructions leave out.
    assert 300 < longest < 700


@pytest.mark.parametrize(
    ("instruction_cycles", "least_lost", "least_load"), [(700, 1, 85), (1_500, 20, 97)]
)
def test_events_that_are_lost_are_counted(monkeypatch, instruction_cycles, least_lost, least_load):
    # Every look at the SPI module costs that much: absurd, but a slow bus would be like it.
    model = lab_node.CLOCKED_T12
    costs = model.costs.model_copy(update={"instruction": instruction_cycles})
    monkeypatch.setattr(lab_node, "CLOCKED_T12", model.model_copy(update={"costs": costs}))
    with lone_laboratory(plain=True) as runner:
        adwin = runner.nodes[0].instruments.station.adwin
        runner.pass_ticks(3)
        assert adwin.processes[0].lost_events() >= least_lost
        assert adwin.workload() >= least_load
