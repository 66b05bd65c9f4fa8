"""One suite that every QDevice must pass: simulated at any depth, or real.

`check_qdevice` drives a device through `exchange` alone, speaking the protocol of
`qnodeos.qdevice.endpoint` bit by bit (it does not use the master's end, so that a mistake
there cannot hide one in the device). Every check in `CHECKS` gets a device that has just
started and states one rule; the first rule broken raises `ConformanceError`. Those for finer
angles, memories and gates on two qubits stand in `qnodeos.qdevice.conformance_pairs`. Ticks
without news are skipped if the device can name its next one (`SimulatedQDevice`).

The rule for a second instruction while the device is busy, which no master ever sends: it is
neither acknowledged nor executed until the first is answered, and accepted then if it is
still being sent.

Statistical rules: a prepared state must be read as it was prepared in at least n f - z
sqrt(n f (1 - f)) of n shots, where f is the caller's lower bound on the probability of that
and z = 4.5. A device that keeps the bound fails with probability below 4e-6 per rule, by
the normal approximation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Final, NamedTuple

from qnodeos.qdevice import conformance_pairs, instructions
from qnodeos.qdevice.conformance_bench import Bench, ConformanceError, Expectations
from qnodeos.qdevice.frames import (
    DETAIL_BOOT,
    DETAIL_SESSION,
    FRAME_BITS,
    TICK_MASK,
    encode_command,
    session_word,
)
from qnodeos.qdevice.instructions import (
    ANGLE_STEPS,
    MAX_ARGUMENT,
    MAX_HALVINGS,
    MAX_QUBIT,
    NOP,
    Axis,
    Opcode,
    PhysicalInstruction,
)
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.qdevice.protocols import QDevice

__all__ = [
    "CHECKS",
    "PREPARATIONS",
    "Check",
    "ConformanceError",
    "ConformanceReport",
    "Expectations",
    "check_qdevice",
]


@dataclass(frozen=True)
class ConformanceReport:
    """What `check_qdevice` did.

    Attributes:
        checks: the rules that were checked, in order.
        skipped: the rules that do not concern a device with these capabilities.
        ticks: for every opcode that succeeded, the shortest and the longest time from the
            tick an instruction was sent to the tick its outcome was seen.
    """

    checks: tuple[str, ...]
    skipped: tuple[str, ...]
    ticks: dict[Opcode, tuple[int, int]]


class Check(NamedTuple):
    """One rule, the function that puts a fresh device to the test, and what it needs."""

    rule: str
    run: Callable[[Bench], None]
    needs: frozenset[Opcode] = frozenset()
    concerns: Callable[[Bench], bool] = lambda bench: True


def check_qdevice(
    make_device: Callable[[], QDevice], expectations: Expectations | None = None
) -> ConformanceReport:
    """Put a device through every check.

    Args:
        make_device: gives a device that has just started and never exchanged a frame. Every
            check starts a new one at tick 0 and leaves it in any state.
        expectations: what is known about the device.

    Returns:
        The checks done and the durations measured on the way.

    Raises:
        ConformanceError: a rule was broken.
    """
    ticks: dict[Opcode, tuple[int, int]] = {}
    checked: list[str] = []
    skipped: list[str] = []
    for check in CHECKS:
        bench = Bench(make_device(), expectations or Expectations(), check.rule, ticks)
        if bench.has(*check.needs) and check.concerns(bench):
            check.run(bench)
            checked.append(check.rule)
        else:
            skipped.append(check.rule)
    return ConformanceReport(tuple(checked), tuple(skipped), ticks)


# --- the rules ------------------------------------------------------------------------------


def _boot(bench: Bench) -> None:
    for sequence, acknowledge in ((1, 0), (0, 1), (1, 1), (0, 0)):
        for instruction in bench.samples(bench.qubits[0]):
            response = bench.swap(encode_command(instruction.word, sequence, acknowledge))
            bench.require(
                response.detail == DETAIL_BOOT and not response.busy, f"it answers {response}"
            )
    bench.enter()


def _idle(bench: Bench) -> None:
    bench.enter(3)
    bench.watch(bench.idle_frame(), "an idle device changed its answer")
    for gap in (1, 2, 100, TICK_MASK // 2, TICK_MASK):
        bench.tick += gap
        bench.watch(bench.idle_frame(), "an idle device changed its answer")


def _rotations(bench: Bench) -> list[tuple[Axis, int]]:
    """The rotations there are, or some about every axis if there are those by any angle."""
    if bench.expected.rotations is not None:
        return sorted(bench.expected.rotations)
    return [(axis, steps) for axis in bench.expected.axes for steps in (0, 1, 8, 16, 31)]


def _answers(bench: Bench) -> None:
    bench.enter()
    for qubit in bench.qubits:
        for _ in range(2):
            if bench.has(Opcode.INI):
                bench.succeed(instructions.ini(qubit))
            if bench.has(Opcode.SQG):
                for axis, steps in _rotations(bench):
                    bench.succeed(instructions.sqg(axis, steps, qubit))
            if bench.has(Opcode.MSR) and qubit in bench.device.capabilities.communication_qubits:
                bench.measure(qubit)
                bench.watch(bench.idle_frame(), "an answered device changed its answer")


def _pre_measurement_gates(bench: Bench) -> None:
    bench.enter()
    for qubit in bench.device.capabilities.communication_qubits:
        for axis in bench.expected.axes:
            bench.succeed(instructions.pmg(axis, 8, qubit))
            bench.succeed(instructions.pmg(axis, 24, qubit, append=True))
            bench.succeed(instructions.pmg(axis, 0, qubit))


_X, _Y, _Z = Axis.X, Axis.Y, Axis.Z
PREPARATIONS: Final[tuple[tuple[tuple[tuple[Axis, int], ...], int], ...]] = (
    ((), 0),
    (((_X, 16),), 1),
    (((_Y, 16),), 1),
    (((_Z, 16),), 0),
    (((_X, 8), (_X, 8)), 1),
    (((_X, 8), (_X, 24)), 0),
    (((_Y, 8), (_Y, 8)), 1),
    (((_Y, 8), (_Y, 24)), 0),
    (((_X, 4), (_X, 12)), 1),
    (((_X, 16), (_Y, 16)), 0),
    # X and Y are different axes: |+> does not feel X, and |-i> does not feel Y.
    (((_Y, 8), (_X, 16), (_Y, 8)), 1),
    (((_X, 8), (_Y, 16), (_X, 8)), 1),
    (((_Y, 8), (_Z, 16), (_Y, 8)), 0),
    # Handedness: +90 degrees about Z take |-i> to |+>.
    (((_X, 8), (_Z, 8), (_Y, 24)), 0),
)
"""Rotations after INI, in time order, and the bit that a measurement must then give.

The handedness of X and Y alone is not among them: turning one of them round conjugates all
amplitudes, which no measurement in the Z basis of one qubit can tell.
"""


def _states(bench: Bench) -> None:
    bench.enter()
    for qubit in bench.readable:
        for pulses, expected in PREPARATIONS:
            if not all(bench.expected.can_rotate(*pulse) for pulse in pulses):
                continue

            def shot(pulses: tuple[tuple[Axis, int], ...] = pulses, qubit: int = qubit) -> int:
                bench.prepare(pulses, qubit)
                return bench.read(qubit)

            name = " ".join(f"{axis.name}{steps}" for axis, steps in pulses) or "INI"
            bench.expect_bit(expected, shot, f"qubit {qubit} after {name}")


def _unknown_opcodes(bench: Bench) -> None:
    bench.enter()
    known = {int(opcode) for opcode in bench.device.capabilities.instructions | {Opcode.NOP}}
    for code in sorted(set(range(16)) - known):
        for argument, qubit in ((0, bench.qubits[0]), (MAX_ARGUMENT, MAX_QUBIT)):
            # Codes without a name are what the rule is about, so the type is overruled.
            word = PhysicalInstruction(code, argument, qubit)  # type: ignore[arg-type]
            bench.refuse(word, Outcome.UNSUPPORTED_REQUEST)


def _unsupported_arguments(bench: Bench) -> None:
    bench.enter()
    qubit = bench.qubits[0]
    for axis in sorted(set(range(MAX_ARGUMENT + 1 >> 5)) - set(bench.expected.axes)):
        for opcode in (Opcode.SQG, Opcode.PMG):
            if bench.has(opcode):
                instruction = PhysicalInstruction(opcode, axis << 5 | 16, qubit)
                bench.refuse(instruction, Outcome.UNSUPPORTED_REQUEST)
    if bench.has(Opcode.SQG):
        for axis, steps in product(bench.expected.axes, range(ANGLE_STEPS)):
            if not bench.expected.can_rotate(axis, steps):
                instruction = instructions.sqg(axis, steps, qubit)
                bench.refuse(instruction, Outcome.UNSUPPORTED_REQUEST)
    for opcode in (Opcode.ENT, Opcode.ENM):
        links = bench.device.capabilities.links
        if bench.has(opcode) and links <= MAX_ARGUMENT:
            instruction = PhysicalInstruction(opcode, links, qubit)
            bench.refuse(instruction, Outcome.UNSUPPORTED_REQUEST)


def _invalid_qubits(bench: Bench) -> None:
    bench.enter()
    for qubit in bench.foreign_qubits:
        for instruction in bench.samples(qubit):
            bench.refuse(instruction, Outcome.INVALID_QUBIT)


def _refusals_are_harmless(bench: Bench) -> None:
    bench.enter()
    qubit, axis = bench.qubits[0], bench.expected.axes[0]
    for refused in bench.local_samples(bench.foreign_qubits[0]):

        def shot(refused: PhysicalInstruction = refused) -> int:
            bench.prepare([(axis, 16)], qubit)
            bench.run(refused)
            return bench.measure(qubit)

        bench.expect_bit(1, shot, f"{refused}, refused between preparation and measurement,")


def _lonely(bench: Bench) -> None:
    bench.enter()
    for qubit in bench.device.capabilities.communication_qubits:
        for instruction in (instructions.ent(0, qubit), instructions.enm(0, qubit)):
            if bench.has(instruction.opcode):
                for _ in range(2):
                    bench.refuse(instruction, Outcome.ENTANGLEMENT_SYNC_FAILURE)


def _damaged(bench: Bench) -> None:
    bench.enter()
    for instruction in bench.samples(bench.qubits[0]):
        frame = bench.instruction_frame(instruction)
        damaged = [frame ^ 1 << place for place in range(FRAME_BITS)]
        damaged += [frame ^ 0b111 << place for place in range(FRAME_BITS - 2)]
        damaged += [0, (1 << FRAME_BITS) - 1, frame ^ 0xFFFF_FFFF]
        bench.swap(bench.idle_frame())
        before = bench.last
        for bad in damaged:
            bench.swap(bad)
            response = bench.swap(bench.idle_frame())
            bench.require(
                response._replace(tick=before.tick) == before,
                f"{instruction} damaged to {bad:#010x}: {before}, then {response}",
            )


def _nops(bench: Bench) -> None:
    bench.enter()
    for argument, qubit, other in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (255, 15, 14)):
        word = NOP._replace(argument=argument, qubit=qubit, other=other)
        bench.watch(bench.instruction_frame(word), f"{word} with a new sequence bit did something")


def _repetition(bench: Bench) -> None:
    bench.enter()
    for instruction in bench.samples(bench.qubits[0]):
        frame = bench.instruction_frame(instruction)
        bench.run(instruction)
        bench.watch(frame, f"{instruction} answered and sent on")


def _repeated_gate(bench: Bench) -> None:
    bench.enter()
    qubit, axis = bench.qubits[0], bench.expected.axes[0]

    def shot() -> int:
        bench.prepare([], qubit)
        half_turn = instructions.sqg(axis, 16, qubit)
        frame = bench.instruction_frame(half_turn)
        bench.succeed(half_turn)
        bench.swap(frame)
        return bench.measure(qubit)

    bench.expect_bit(1, shot, "a half turn whose frame was repeated")


def _busy(bench: Bench) -> None:
    bench.enter()
    samples = bench.local_samples(bench.qubits[0])
    for first in samples:
        for second in samples:
            bench.swap(bench.instruction_frame(first))
            bench.bit ^= 1
            sent, early = bench.tick, bench.instruction_frame(second)
            answered = False
            while True:
                response = bench.swap(early)
                if response.acknowledge != bench.bit:
                    break
                answered = answered or response.sequence == bench.bit
                bench.skip(second, sent)
            bench.require(answered, f"{second} accepted before {first} was answered")
            while response.sequence == bench.bit:
                bench.skip(second, sent)
                response = bench.swap(early)
            bench.bit ^= 1


def _new_session(bench: Bench) -> None:
    bench.enter(1)
    for place, instruction in enumerate(bench.local_samples(bench.qubits[0])):
        session = 2 + place % 7
        bench.run(instruction)
        bench.enter(session)
        bench.watch(bench.idle_frame(), "an outcome survived the end of its session")
        # The same while it is being executed: the session waits, the outcome is dropped.
        bench.swap(bench.instruction_frame(instruction))
        sent = bench.tick
        request = encode_command(session_word(session + 7), 0, 0)
        response = bench.swap(request)
        while (response.detail, response.outcome) != (DETAIL_SESSION, session + 7):
            bench.bound(instruction, sent)
            response = bench.swap(request)
        bench.bit = 0
        bench.watch(bench.idle_frame(), "an outcome of the session before was reported")


def _next_tick(bench: Bench) -> None:
    bench.enter()
    for instruction in bench.samples(bench.qubits[0]):
        frame = bench.instruction_frame(instruction)
        bench.swap(frame)
        announced = bench.announced()
        assert announced is not None
        while bench.tick < announced:
            response = bench.swap(frame)
            bench.require(
                response.sequence == bench.bit,
                f"{instruction} answered before the tick {announced} that next_tick named",
            )
        response = bench.swap(frame)
        bench.require(
            response.sequence != bench.bit,
            f"{instruction} not answered at the tick {announced} that next_tick named",
        )
        bench.bit ^= 1


_QUBIT_CONTROL: Final = frozenset({Opcode.INI, Opcode.SQG, Opcode.MSR})

CHECKS: Final = (
    Check("a device that has just started executes nothing before a session", _boot),
    Check("an idle device sends valid frames and its tick counter advances", _idle),
    Check("every supported instruction is answered exactly once, a tick later or more", _answers),
    Check(
        "pre-measurement gates are set, extended and cleared",
        _pre_measurement_gates,
        needs=frozenset({Opcode.PMG}),
    ),
    Check("states that are prepared are measured", _states, needs=_QUBIT_CONTROL),
    Check(
        "angles in smaller units add up",
        conformance_pairs.finer_angles,
        needs=_QUBIT_CONTROL,
        concerns=lambda bench: bench.device.capabilities.angle_halvings > 0,
    ),
    Check(
        "a gate on two qubits rotates the second by the first",
        conformance_pairs.controlled_rotations,
        needs=_QUBIT_CONTROL | {Opcode.TQG},
    ),
    Check(
        "states are swapped and moved",
        conformance_pairs.exchanges,
        needs=_QUBIT_CONTROL | {Opcode.SWP},
    ),
    Check(
        "a Bell measurement names the Bell state",
        conformance_pairs.bell_measurements,
        needs=_QUBIT_CONTROL | {Opcode.TQG, Opcode.ESW},
    ),
    Check("opcodes that are unknown or not supported are refused", _unknown_opcodes),
    Check("axes and links that do not exist are refused", _unsupported_arguments),
    Check(
        "angles that are finer than declared are refused",
        lambda bench: conformance_pairs.unsupported_angles(bench, _rotations(bench)),
        needs=frozenset({Opcode.SQG}),
        concerns=lambda bench: bench.device.capabilities.angle_halvings < MAX_HALVINGS,
    ),
    Check("qubits that do not exist are refused", _invalid_qubits),
    Check(
        "a second qubit that does not exist, or is the first, is refused",
        conformance_pairs.invalid_pairs,
        concerns=lambda bench: any(bench.has(code) for code in conformance_pairs.PAIR_OPCODES),
    ),
    Check(
        "a memory is neither read out nor entangled",
        conformance_pairs.memories_only_store,
        concerns=lambda bench: bool(bench.device.capabilities.memory_qubits),
    ),
    Check(
        "a refused instruction changes no qubit",
        _refusals_are_harmless,
        needs=_QUBIT_CONTROL,
        concerns=lambda bench: bool(bench.foreign_qubits),
    ),
    Check(
        "entanglement without a partner fails in bounded time",
        _lonely,
        needs=frozenset({Opcode.ENT}),
        concerns=lambda bench: bench.expected.lonely,
    ),
    Check("a damaged command is ignored", _damaged),
    Check("a NOP is no instruction", _nops),
    Check("a repeated command is not answered again", _repetition),
    Check("a repeated command is not executed again", _repeated_gate, needs=_QUBIT_CONTROL),
    Check("a second instruction waits until the first is answered", _busy),
    Check("a new session drops old outcomes", _new_session),
    Check(
        "next_tick keeps its word",
        _next_tick,
        concerns=lambda bench: hasattr(bench.device, "next_tick"),
    ),
)
"""Every check, in the order in which they run: each relies on those before it."""
