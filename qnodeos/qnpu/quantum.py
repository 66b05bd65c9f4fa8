"""Compiling the quantum and entanglement instructions.

The QDriver is asked once per (instruction, physical qubit) and its answer kept, so running
a gate is two look-ups. Asking it at compile time, for the device's first qubit, reports an
angle or gate the hardware cannot do before anything has run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from qnodeos.errors import EntanglementRequestError, QubitAccessError
from qnodeos.qdevice.instructions import Axis, PhysicalInstruction
from qnodeos.qnpu.context import Builder, CompileContext
from qnodeos.qnpu.execution import WAIT, Operation
from qnodeos.qnpu.isa import written_register

Plan = Callable[[int], Sequence[PhysicalInstruction]]
"""From a physical qubit to the physical instructions of a gate on it."""

UNMAPPED: Final = -1

NO_QUBITS: Final = 1
"""Encoded number of register C0. Where qubit ids are not needed, netqasm 2.3.0 names C0
(sdk/builder.py, _build_cmds_epr_recv_measure), and never writes to it."""


def _lookup(context: CompileContext, pc: int, virtual: int) -> int:
    """Physical address of a virtual qubit, or UNMAPPED after suspending the subroutine.

    A qubit that an outstanding entanglement request will deliver is waited for: the SDK
    emits no wait instruction for a program of a single qubit.

    Raises:
        QubitAccessError: the qubit is not allocated and nothing will deliver it.
    """
    physical = context.services.physical(virtual)
    if physical is not None:
        return physical
    if context.services.is_expected(virtual):
        context.execution.wait(pc, f"entangled qubit {virtual}")
        return UNMAPPED
    raise QubitAccessError(f"virtual qubit {virtual} is not allocated; use qalloc first")


def _single(
    context: CompileContext, pc: int, register: int, plan: Plan, result: int | None = None
) -> Operation:
    """A single-qubit operation whose physical instructions follow from the qubit alone."""
    registers, execution, following = context.memory.registers, context.execution, pc + 1
    first = context.driver.capabilities.qubits[0]
    plans = {first: plan(first)}

    def operation() -> int:
        physical = _lookup(context, pc, registers[register])
        if physical < 0:
            return WAIT
        instructions = plans.get(physical)
        if instructions is None:
            instructions = plans[physical] = plan(physical)
        if not instructions:
            return following
        return execution.issue(instructions, following, result)

    return operation


def _double(
    context: CompileContext,
    pc: int,
    first: int,
    second: int,
    plan: Callable[[int, int], Sequence[PhysicalInstruction]],
) -> Operation:
    registers, execution, following = context.memory.registers, context.execution, pc + 1

    def operation() -> int:
        virtuals = registers[first], registers[second]
        if virtuals[0] == virtuals[1]:
            raise QubitAccessError(f"a two-qubit gate needs two qubits, got {virtuals[0]} twice")
        physical = [_lookup(context, pc, virtual) for virtual in virtuals]
        if UNMAPPED in physical:
            return WAIT
        instructions = plan(physical[0], physical[1])
        return execution.issue(instructions, following) if instructions else following

    return operation


# --- qubits ---------------------------------------------------------------------------


def _qalloc(context: CompileContext, pc: int, register: int) -> Operation:
    registers, services, following = context.memory.registers, context.services, pc + 1

    def operation() -> int:
        if services.should_pause(pc):
            return context.execution.pause(pc)
        virtual = registers[register]
        if services.allocate(virtual):
            return following
        return context.execution.wait(pc, f"a free physical qubit for virtual qubit {virtual}")

    return operation


def _qfree(context: CompileContext, pc: int, register: int) -> Operation:
    registers, services, following = context.memory.registers, context.services, pc + 1

    def operation() -> int:
        virtual = registers[register]
        if _lookup(context, pc, virtual) < 0:
            return WAIT
        services.free(virtual)
        return following

    return operation


def _init(context: CompileContext, pc: int, register: int) -> Operation:
    return _single(context, pc, register, context.driver.initialise)


# --- gates and measurements -----------------------------------------------------------


def _rotation(axis: Axis) -> Builder:
    def build(
        context: CompileContext, pc: int, register: int, numerator: int, exponent: int
    ) -> Operation:
        rotate = context.driver.rotate
        return _single(context, pc, register, lambda q: rotate(axis, numerator, exponent, q))

    return build


def _gate(mnemonic: str) -> Builder:
    def build(context: CompileContext, pc: int, register: int) -> Operation:
        gate = context.driver.gate
        return _single(context, pc, register, lambda q: gate(mnemonic, q))

    return build


def _controlled_rotation(axis: Axis) -> Builder:
    def build(
        context: CompileContext, pc: int, control: int, target: int, numerator: int, exponent: int
    ) -> Operation:
        rotate = context.driver.controlled_rotate
        return _double(
            context, pc, control, target, lambda c, t: rotate(axis, numerator, exponent, c, t)
        )

    return build


def _two_qubit_gate(mnemonic: str) -> Builder:
    def build(context: CompileContext, pc: int, first: int, second: int) -> Operation:
        gate = context.driver.two_qubit_gate
        return _double(context, pc, first, second, lambda a, b: gate(mnemonic, a, b))

    return build


def _meas(context: CompileContext, pc: int, qubit: int, result: int) -> Operation:
    return _single(context, pc, qubit, context.driver.measure, result)


def _meas_basis(axes: Sequence[Axis]) -> Builder:
    def build(context: CompileContext, pc: int, qubit: int, result: int, *angles: int) -> Operation:
        *numerators, exponent = angles
        driver = context.driver

        def plan(physical: int) -> list[PhysicalInstruction]:
            rotations = [
                instruction
                for axis, numerator in zip(axes, numerators, strict=True)
                for instruction in driver.rotate(axis, numerator, exponent, physical)
            ]
            return [*rotations, *driver.measure(physical)]

        return _single(context, pc, qubit, plan, result)

    return build


# --- entanglement ---------------------------------------------------------------------


def _create_epr(
    context: CompileContext,
    pc: int,
    node: int,
    socket: int,
    qubits: int,
    arguments: int,
    results: int,
) -> Operation:
    registers, memory, services = context.memory.registers, context.memory, context.services
    following = pc + 1

    def operation() -> int:
        keep = memory.arrays.get(registers[qubits])
        memory.array(registers[results])
        services.create_entanglement(
            registers[node],
            registers[socket],
            keep or (),
            memory.array(registers[arguments]),
            registers[results],
        )
        return following

    return operation


def _recv_epr(
    context: CompileContext, pc: int, node: int, socket: int, qubits: int, results: int
) -> Operation:
    """A receive request.

    It does not say its type. But the address in C0, if that was never set, is nobody's: it is
    0, where some other array of the program may be. So a request that names C0 has its halves
    measured, and one that names an array of qubit ids keeps them there.
    """
    registers, memory, services = context.memory.registers, context.memory, context.services
    following = pc + 1
    keeps = qubits != NO_QUBITS or any(
        written_register(instruction) == NO_QUBITS for instruction in context.instructions
    )

    def operation() -> int:
        length = len(memory.array(registers[results]))
        if length == 0 or length % 10:
            raise EntanglementRequestError(
                f"result array @{registers[results]} has {length} entries; a request needs "
                "ten per pair"
            )
        services.receive_entanglement(
            registers[node],
            registers[socket],
            memory.arrays.get(registers[qubits]) if keeps else None,
            registers[results],
        )
        return following

    return operation


BUILDERS: Final[dict[str, Builder]] = {
    "qalloc": _qalloc,
    "qfree": _qfree,
    "init": _init,
    "rot_x": _rotation(Axis.X),
    "rot_y": _rotation(Axis.Y),
    "rot_z": _rotation(Axis.Z),
    "crot_x": _controlled_rotation(Axis.X),
    "crot_y": _controlled_rotation(Axis.Y),
    **{name: _gate(name) for name in ("x", "y", "z", "h", "s", "k", "t")},
    **{name: _two_qubit_gate(name) for name in ("cnot", "cphase", "mov", "swp")},
    "meas": _meas,
    "meas_basis": _meas_basis((Axis.X, Axis.Y, Axis.X)),
    "meas_basis_yzy": _meas_basis((Axis.Y, Axis.Z, Axis.Y)),
    "meas_basis_zxz": _meas_basis((Axis.Z, Axis.X, Axis.Z)),
    "create_epr": _create_epr,
    "recv_epr": _recv_epr,
}
