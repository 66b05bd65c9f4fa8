"""Rules of the conformance suite for finer angles, memories and gates on two qubits.

Every function takes a bench with a fresh device, as those of `qnodeos.qdevice.conformance`, which
lists them. A gate on two qubits must exist on every pair whose first qubit is a communication
qubit; whether there are others is the device's own matter. A qubit that cannot be read out is
read by swapping it into one that can.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product
from typing import Final

from qnodeos.qdevice import instructions
from qnodeos.qdevice.conformance_bench import HALF_TURN, Bench
from qnodeos.qdevice.instructions import (
    ANGLE_STEPS,
    MAX_ARGUMENT,
    MAX_HALVINGS,
    Axis,
    Opcode,
    PhysicalInstruction,
)
from qnodeos.qdevice.outcomes import HERALDS, OUTCOME_OF_HERALD, BellState, Outcome

PAIR_OPCODES: Final = frozenset({Opcode.TQG, Opcode.MOV, Opcode.SWP, Opcode.ESW})
_QUARTER: Final = ANGLE_STEPS // 4
_BACK: Final = ANGLE_STEPS - _QUARTER
_MEASURED_HALVINGS: Final = 4
"""Smaller units are not seen in a measurement after two rotations."""

BELL_PREPARATIONS: Final[dict[BellState, tuple[int, int]]] = {
    BellState.PHI_PLUS: (_QUARTER, _BACK),
    BellState.PSI_PLUS: (_QUARTER, _QUARTER),
    BellState.PSI_MINUS: (_BACK, _QUARTER),
    BellState.PHI_MINUS: (_BACK, _BACK),
}
"""From |00> to each Bell state: the first about X, TQG X by a quarter turn, the second about X."""


def pairs(bench: Bench) -> Iterator[tuple[int, int]]:
    """The pairs on which gates must exist."""
    for first in bench.device.capabilities.communication_qubits:
        for second in bench.qubits:
            if second != first:
                yield first, second


# --- angles and single qubits ---------------------------------------------------------------


def finer_angles(bench: Bench) -> None:
    """A rotation in a smaller unit, and the rest of half a turn in the whole one, add up."""
    bench.enter()
    declared = bench.device.capabilities.angle_halvings
    for qubit, axis in product(bench.readable, bench.expected.axes):
        for halvings in range(1, declared + 1):
            for steps in (0, 1, ANGLE_STEPS - 1):
                bench.succeed(instructions.sqg(axis, steps, qubit, halvings))
        if axis is Axis.Z:
            continue
        for halvings in range(1, min(declared, _MEASURED_HALVINGS) + 1):
            what = f"qubit {qubit} after half a turn about {axis.name} with {halvings} halvings"
            bench.expect_bit(1, partial(_split_half_turn, bench, axis, halvings, qubit), what)


def _split_half_turn(bench: Bench, axis: Axis, halvings: int, qubit: int) -> int:
    bench.succeed(instructions.ini(qubit))
    bench.succeed(instructions.sqg(axis, HALF_TURN, qubit, halvings))
    bench.succeed(instructions.sqg(axis, HALF_TURN - (HALF_TURN >> halvings), qubit))
    return bench.read(qubit)


def unsupported_angles(bench: Bench, rotations: Iterable[tuple[Axis, int]]) -> None:
    """Angles in units that are smaller than declared are refused, not taken for others."""
    bench.enter()
    finest = bench.device.capabilities.angle_halvings
    every = list(rotations)
    asked = [(rotation, finest + 1) for rotation in every]
    asked += [(every[-1], halvings) for halvings in range(finest + 2, MAX_HALVINGS + 1)]
    for qubit, ((axis, steps), halvings) in product(bench.qubits, asked):
        instruction = instructions.sqg(axis, steps, qubit, halvings)
        bench.refuse(instruction, Outcome.UNSUPPORTED_REQUEST)


def memories_only_store(bench: Bench) -> None:
    """What needs a communication qubit is refused on a memory."""
    bench.enter()
    for qubit in bench.device.capabilities.memory_qubits:
        for instruction in (
            instructions.msr(qubit),
            instructions.ent(0, qubit),
            instructions.enm(0, qubit),
            instructions.pmg(bench.expected.axes[0], _QUARTER, qubit),
        ):
            if bench.has(instruction.opcode):
                bench.refuse(instruction, Outcome.UNSUPPORTED_REQUEST)


# --- pairs ----------------------------------------------------------------------------------


def invalid_pairs(bench: Bench) -> None:
    """The second qubit must exist and differ from the first; TQG's axis must exist."""
    bench.enter()
    first = bench.qubits[0]
    for second in [first, *bench.foreign_qubits]:
        for instruction in bench.pair_samples(first, second):
            bench.refuse(instruction, Outcome.INVALID_QUBIT)
    if bench.has(Opcode.TQG):
        for axis in sorted(set(range(MAX_ARGUMENT + 1 >> 5)) - set(bench.expected.pair_axes)):
            argument = axis << 5 | _QUARTER
            instruction = PhysicalInstruction(Opcode.TQG, argument, first, bench.qubits[1])
            bench.refuse(instruction, Outcome.UNSUPPORTED_REQUEST)


def controlled_rotations(bench: Bench) -> None:
    """TQG turns the second qubit by +angle or -angle, as the first says, and keeps coherence."""
    bench.enter()
    expected = bench.expected
    axes = [axis for axis in expected.pair_axes if axis in expected.axes]
    for first, second in pairs(bench):
        for axis, control in product(axes, (0, 1)):
            bench.expect_bit(
                control if axis is Axis.Z else 1 - control,
                partial(_turned_if_zero, bench, axis, control, (first, second)),
                f"qubit {second} after TQG {axis.name} with qubit {first} in {control}",
                expected.pair_bound,
            )
        if Axis.X in axes and Axis.Y in expected.axes:
            bench.expect_bit(
                0,
                partial(_kickback, bench, first, second),
                f"qubit {first}, from |+> to |-> by half a turn of qubit {second},",
                expected.pair_bound,
            )


def _turned_if_zero(bench: Bench, axis: Axis, control: int, pair: tuple[int, int]) -> int:
    """A quarter turn by the gate and one more: half a turn if the control is |0>, or none.

    Half a turn about Z is seen between two quarter turns about Y, which it makes undo each other.
    """
    first, second = pair
    around = [(Axis.Y, _QUARTER)] if axis is Axis.Z else []
    bench.prepare([(bench.expected.axes[0], HALF_TURN)] * control, first)
    bench.prepare(around, second)
    bench.succeed(instructions.tqg(axis, _QUARTER, first, second))
    for then, steps in [(axis, _QUARTER), *around]:
        bench.succeed(instructions.sqg(then, steps, second))
    return bench.read(second)


def _kickback(bench: Bench, first: int, second: int) -> int:
    """Half a turn of the target either way is a phase of the control: |+> becomes |->."""
    bench.prepare([(Axis.Y, _QUARTER)], first)
    bench.prepare([], second)
    bench.succeed(instructions.tqg(Axis.X, HALF_TURN, first, second))
    bench.succeed(instructions.sqg(Axis.Y, _QUARTER, first))
    return bench.read(first)


def exchanges(bench: Bench) -> None:
    """SWP and MOV bring a state along, with its phase; SWP brings the other one back."""
    bench.enter()
    for pair in pairs(bench):
        for opcode, (source, target) in product((Opcode.SWP, Opcode.MOV), (pair, pair[::-1])):
            if bench.has(opcode):
                bench.expect_bit(
                    1,
                    partial(_brought, bench, opcode, source, target),
                    f"half a turn, in part before {opcode.name} from {source} to {target},",
                    bench.expected.pair_bound,
                )
        bench.expect_bit(
            0,
            partial(_exchanged_for, bench, *pair),
            f"qubit {pair[0]} in |1>, swapped for {pair[1]} in |0>,",
            bench.expected.pair_bound,
        )


def _brought(bench: Bench, opcode: Opcode, source: int, target: int) -> int:
    axis = bench.expected.axes[0]
    bench.prepare([], target)
    bench.prepare([(axis, _QUARTER)], source)
    bench.succeed(PhysicalInstruction(opcode, 0, source, target))
    bench.succeed(instructions.sqg(axis, _QUARTER, target))
    return bench.read(target)


def _exchanged_for(bench: Bench, first: int, second: int) -> int:
    bench.prepare([], second)
    bench.prepare([(bench.expected.axes[0], HALF_TURN)], first)
    bench.succeed(instructions.swp(first, second))
    return bench.read(first)


def bell_measurements(bench: Bench) -> None:
    """ESW names the Bell state that was prepared."""
    bench.enter()
    for pair, bell in product(pairs(bench), BELL_PREPARATIONS):
        bench.expect_bit(
            1,
            partial(_is_named, bench, bell, *pair),
            f"whether ESW of {pair[0]} and {pair[1]} named {bell.name}",
            bench.expected.pair_bound,
        )


def _is_named(bench: Bench, bell: BellState, first: int, second: int) -> int:
    before, after = BELL_PREPARATIONS[bell]
    bench.prepare([(Axis.X, before)], first)
    bench.prepare([], second)
    bench.succeed(instructions.tqg(Axis.X, _QUARTER, first, second))
    bench.succeed(instructions.sqg(Axis.X, after, second))
    outcome = bench.run(instructions.esw(first, second))
    bench.require(outcome in HERALDS, f"ESW answered {outcome.name}")
    return int(outcome is OUTCOME_OF_HERALD[bell])
