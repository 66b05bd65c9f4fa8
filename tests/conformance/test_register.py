"""Simulated registers keep the contract of a QDevice, in the shape of an NV centre and generic."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from drivers.generic import GENERIC_CAPABILITIES
from qnodeos.qdevice.conformance import CHECKS, Expectations, check_qdevice
from qnodeos.qdevice.instructions import Axis, Opcode
from sim.link import EntanglementLink, LinkParameters
from sim.register_device import RegisterDevice
from sim.register_physics import RegisterPhysics

AXES = (Axis.X, Axis.Y, Axis.Z)
ANGLES_ARE_COARSE = {"angles in smaller units add up"}
ANGLES_ARE_FINE = {"angles that are finer than declared are refused"}
ALL_ARE_READ = {"a memory is neither read out nor entangled"}


def factory(physics: RegisterPhysics, *, links: int = 2) -> Callable[[], RegisterDevice]:
    """Makes devices; each has links of its own to nobody, and the next seed."""
    seeds = iter(range(1_000_000))

    def make() -> RegisterDevice:
        rng = random.Random(next(seeds))
        made = [EntanglementLink(LinkParameters.perfect(), random.Random(0)) for _ in range(links)]
        return RegisterDevice(physics, made, rng)

    return make


def rules_but(skipped: set[str]) -> tuple[str, ...]:
    return tuple(check.rule for check in CHECKS if check.rule not in skipped)


def test_a_generic_register_conforms():
    expected = Expectations(axes=AXES, pair_axes=AXES, fidelity=0.999, shots=40)
    report = check_qdevice(factory(RegisterPhysics.generic(3)), expected)
    assert report.checks == rules_but(ANGLES_ARE_FINE | ALL_ARE_READ)
    local = GENERIC_CAPABILITIES.instructions - {Opcode.ENT, Opcode.ENM}
    assert report.ticks == {opcode: (1, 1) for opcode in local}


def test_an_nv_register_without_noise_conforms():
    expected = Expectations(axes=AXES, fidelity=0.999, shots=40)
    report = check_qdevice(factory(RegisterPhysics.nv_noiseless(2)), expected)
    assert report.checks == rules_but(ANGLES_ARE_FINE)


def test_a_noisy_nv_register_conforms():
    """Its durations are those of its physics, for each kind of qubit.

    Of a memory that is rotated thrice, each rotation errs with 1 %, the swap for the readout with
    3 % and the readout with 5 %; two qubits see two gates and a Bell measurement two readouts.
    """
    physics = RegisterPhysics.nv(2)
    expected = Expectations(axes=AXES, fidelity=0.85, pair_fidelity=0.82)
    report = check_qdevice(factory(physics), expected)
    assert report.checks == rules_but(ANGLES_ARE_COARSE)
    assert report.ticks == {
        Opcode.INI: (2, 31),
        Opcode.SQG: (1, 50),
        Opcode.MSR: (20, 20),
        Opcode.TQG: (50, 50),
        Opcode.MOV: (100, 100),
        Opcode.SWP: (150, 150),
        Opcode.ESW: (140, 140),
        Opcode.PMG: (1, 1),
    }


@pytest.mark.parametrize("physics", [RegisterPhysics.generic(1), RegisterPhysics.nv_noiseless(0)])
def test_a_single_qubit_without_a_link_conforms(physics):
    expected = Expectations(axes=AXES, fidelity=0.999, shots=40)
    report = check_qdevice(factory(physics, links=0), expected)
    assert "states are swapped and moved" in report.skipped
    assert "entanglement without a partner fails in bounded time" in report.skipped
