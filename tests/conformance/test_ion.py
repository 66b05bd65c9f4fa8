"""The behavioural trapped-ion device keeps the contract of a QDevice."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from drivers.trapped_ion import ION_CAPABILITIES, PULSES
from qnodeos.qdevice.conformance import CHECKS, ConformanceError, Expectations, check_qdevice
from qnodeos.qdevice.instructions import Opcode
from sim.ion.physics import IonPhysics
from sim.ion_device import BehaviouralIonDevice
from sim.ion_timing import IonTiming
from tests.conformance import FOR_REGISTERS

NEEDS_A_LINK = {
    "pre-measurement gates are set, extended and cleared",
    "entanglement without a partner fails in bounded time",
}


def expectations(fidelity: float) -> Expectations:
    return Expectations(rotations=frozenset(PULSES), fidelity=fidelity)


def factory(noise: IonPhysics, timing: IonTiming) -> Callable[[], BehaviouralIonDevice]:
    """Makes devices, each with the next seed."""
    seeds = iter(range(1_000))
    return lambda: BehaviouralIonDevice(timing, noise, random.Random(next(seeds)))


@pytest.mark.parametrize(
    ("noise", "fidelity"), [(IonPhysics.noiseless(), 0.999), (IonPhysics(), 0.96)]
)  # fmt: skip
@pytest.mark.parametrize("timing", [IonTiming(), IonTiming(measure_ticks=250, pi_ticks=3)])
def test_the_behavioural_ion_conforms(noise, fidelity, timing):
    # Of the errors, three pulses cost 1 % each.
    report = check_qdevice(factory(noise, timing), expectations(fidelity))
    assert set(report.skipped) == NEEDS_A_LINK | FOR_REGISTERS
    assert set(report.checks) == {check.rule for check in CHECKS} - set(report.skipped)
    assert report.ticks == {
        Opcode.INI: (timing.initialise_ticks,) * 2,
        Opcode.SQG: (timing.half_pi_ticks, timing.pi_ticks),
        Opcode.MSR: (timing.measure_ticks,) * 2,
    }


def test_the_device_is_what_the_driver_drives():
    capabilities = factory(IonPhysics(), IonTiming())().capabilities
    for name in ("qubits", "instructions", "tick_ns", "links"):
        assert getattr(capabilities, name) == getattr(ION_CAPABILITIES, name)


def test_an_ion_that_is_hardly_detected_does_not_conform():
    dim = IonPhysics(bright_cps=1_000)
    with pytest.raises(ConformanceError, match="states that are prepared"):
        check_qdevice(factory(dim, IonTiming()), expectations(0.9))
