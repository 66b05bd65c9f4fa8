"""The behavioural NV device keeps the contract of a QDevice."""

from __future__ import annotations

import random

import pytest

from qnodeos.qdevice.conformance import CHECKS, ConformanceError, Expectations, check_qdevice
from qnodeos.qdevice.instructions import Opcode
from sim.link import EntanglementLink, LinkParameters
from sim.noise import NVNoise
from sim.nv_device import BehaviouralNVDevice
from sim.nv_timing import NVTiming
from tests.conformance import FOR_REGISTERS

NOISES = {"noiseless": (NVNoise.noiseless(), 1.0), "noisy": (NVNoise(), 0.9)}
"""Noise, and a lower bound on the probability that a prepared state is read as prepared.

With the default noise: |0> is prepared with 0.99 and read with 0.95, three gates take less
than 0.5 % each and 1.5 % of the readouts ionise the centre, which reads |1>.
"""


def factory(noise: NVNoise, timing: NVTiming, *, linked: bool):
    """Makes devices; each has a link of its own to nobody, and the next seed."""
    seeds = iter(range(1_000_000))

    def make() -> BehaviouralNVDevice:
        rng = random.Random(next(seeds))
        link = EntanglementLink(LinkParameters.perfect(), random.Random(0)) if linked else None
        return BehaviouralNVDevice(timing, noise, link, rng)

    return make


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("timing", [NVTiming(), NVTiming(dd_block_ns=0)])
def test_the_behavioural_device_conforms(noise, timing):
    model, fidelity = NOISES[noise]
    report = check_qdevice(factory(model, timing, linked=True), Expectations(fidelity=fidelity))
    assert set(report.skipped) == FOR_REGISTERS
    assert set(report.checks) == {check.rule for check in CHECKS} - FOR_REGISTERS
    shortest, longest = report.ticks[Opcode.SQG]
    assert timing.gate_ticks <= shortest
    waited_ns = timing.dd_block_ns + timing.dd_lead_ns
    assert longest <= timing.gate_ticks + waited_ns // timing.tick_ns


def test_a_node_without_a_link_conforms():
    report = check_qdevice(factory(NVNoise.noiseless(), NVTiming(), linked=False))
    assert "entanglement without a partner fails in bounded time" in report.skipped


def test_a_device_that_reads_badly_does_not():
    bad = NVNoise.noiseless().model_copy(update={"readout_fidelity_1": 0.5})
    with pytest.raises(ConformanceError, match="states that are prepared"):
        check_qdevice(factory(bad, NVTiming(), linked=True), Expectations(fidelity=0.9))
