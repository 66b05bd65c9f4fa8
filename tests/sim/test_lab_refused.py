"""Laboratories that could not work are refused before anything is opened."""

from __future__ import annotations

import pytest

from drivers.nv_setup import NVSettings
from qnodeos.errors import ConfigurationError
from sequences.errors import SequenceError
from sequences.nv_seqc import HeraldTiming
from sim.lab.build import NodeSpec, SimulatedLaboratory
from sim.lab.timing import LabTiming


@pytest.mark.parametrize(
    ("specs", "timing", "message"),
    [
        ([], LabTiming(), "0 nodes"),
        ([NodeSpec("relay")], LabTiming(), "no second node 'relay'"),
        ([NodeSpec("client"), NodeSpec("client")], LabTiming(), "no second node 'client'"),
        ([NodeSpec("client")], LabTiming(herald_ns=1100), "decides after 1500 ns"),
        ([NodeSpec("client")], LabTiming(photon_flight_ns=1000), "decides after 1500 ns"),
    ],
)
def test_a_laboratory_that_could_not_work_is_refused(specs, timing, message):
    with pytest.raises(ConfigurationError, match=message):
        SimulatedLaboratory(specs, timing=timing)
    # Nothing is left open.
    SimulatedLaboratory([NodeSpec("client")]).close()


@pytest.mark.parametrize("first", [[], [NodeSpec("client")]])
def test_a_node_that_cannot_be_set_up_leaves_nothing_open(first):
    impossible = NVSettings(herald=HeraldTiming(attempt_period_ns=1_000))
    specs = [*first, NodeSpec("server", settings=impossible)]
    with pytest.raises(SequenceError, match="attempt_period_ns"):
        SimulatedLaboratory(specs)
    SimulatedLaboratory([NodeSpec("client"), NodeSpec("server")]).close()
