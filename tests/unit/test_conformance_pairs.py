"""The rules for registers catch a broken one each; the good one is in tests/conformance."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from qnodeos.qdevice.conformance import ConformanceError, Expectations, check_qdevice
from qnodeos.qdevice.instructions import Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import Outcome
from sim.register_device import RegisterDevice
from sim.register_physics import RegisterPhysics

AXES = (Axis.X, Axis.Y, Axis.Z)
STAR = Expectations(axes=AXES, fidelity=0.999, shots=40)
ALL_TO_ALL = Expectations(axes=AXES, pair_axes=AXES, fidelity=0.999, shots=40)
Change = Callable[[PhysicalInstruction], PhysicalInstruction]


def broken(physics: RegisterPhysics, change: Change) -> Callable[[], RegisterDevice]:
    """Makes devices that take every instruction for another one."""

    class Broken(RegisterDevice):
        def _start(self, tick: int, instruction: PhysicalInstruction) -> None:
            super()._start(tick, change(instruction))

    return lambda: Broken(physics, [], random.Random(3))


def of(changed: Opcode, **changes) -> Change:
    """Changes fields of one opcode's instructions, given as functions of the instruction."""

    def change(instruction: PhysicalInstruction) -> PhysicalInstruction:
        if instruction.opcode is not changed:
            return instruction
        return instruction._replace(**{name: new(instruction) for name, new in changes.items()})

    return change


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (of(Opcode.SQG, other=lambda i: max(0, i.other - 1)), "smaller units add up"),
        (of(Opcode.SQG, other=lambda i: min(i.other, 1)), "smaller units add up"),
        (of(Opcode.TQG, argument=lambda i: (i.argument & ~31) | -i.steps % 32), "by the first"),
        (of(Opcode.TQG, argument=lambda i: i.steps), "by the first"),
        (of(Opcode.TQG, qubit=lambda i: i.other, other=lambda i: i.qubit), "by the first"),
        (of(Opcode.SWP, opcode=lambda i: Opcode.MOV), "swapped and moved"),
        (of(Opcode.MOV, qubit=lambda i: i.other, other=lambda i: i.qubit), "swapped and moved"),
        (of(Opcode.MOV, argument=lambda i: 0, opcode=lambda i: Opcode.INI), "swapped and moved"),
        (of(Opcode.TQG, other=lambda i: i.other % 2), "second qubit that does not exist"),
    ],
)
def test_a_broken_register_is_caught_by_its_rule(change, rule):
    with pytest.raises(ConformanceError, match=rule):
        check_qdevice(broken(RegisterPhysics.generic(2), change), ALL_TO_ALL)


def test_wrong_names_of_bell_states_are_caught():
    swaps = {
        Outcome.SUCCESS_PSI_PLUS: Outcome.SUCCESS_PSI_MINUS,
        Outcome.SUCCESS_PSI_MINUS: Outcome.SUCCESS_PSI_PLUS,
    }

    class Misnames(RegisterDevice):
        def _read_at(self, done, qubits, read_out, herald=None) -> None:
            def misnamed() -> Outcome:
                outcome: Outcome = read_out()
                return swaps.get(outcome, outcome)

            super()._read_at(done, qubits, misnamed, herald)

    with pytest.raises(ConformanceError, match="Bell measurement names"):
        check_qdevice(
            lambda: Misnames(RegisterPhysics.generic(2), [], random.Random(3)), ALL_TO_ALL
        )


def test_angles_taken_for_coarser_ones_are_caught():
    coarse = RegisterPhysics.nv_noiseless(1).model_copy(update={"angle_halvings": 0})
    ignores = of(Opcode.SQG, other=lambda i: 0)
    with pytest.raises(ConformanceError, match="finer than declared"):
        check_qdevice(broken(coarse, ignores), STAR)


def test_a_memory_that_is_read_out_is_caught():
    through = of(Opcode.MSR, qubit=lambda i: 0 if i.qubit == 1 else i.qubit)
    with pytest.raises(ConformanceError, match="neither read out"):
        check_qdevice(broken(RegisterPhysics.nv_noiseless(1), through), STAR)


def test_a_register_below_its_stated_fidelity_is_caught():
    noisy = RegisterPhysics.generic(2).model_copy(update={"pair_depolarising": 0.4})
    with pytest.raises(ConformanceError, match="by the first"):
        check_qdevice(broken(noisy, lambda instruction: instruction), ALL_TO_ALL)
    forgetful = RegisterPhysics(memory_qubits=1, communication_qubits=1, swap_depolarising=0.5)
    with pytest.raises(ConformanceError, match="states that are prepared"):
        check_qdevice(broken(forgetful, lambda instruction: instruction), ALL_TO_ALL)
