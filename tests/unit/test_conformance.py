"""The conformance suite passes a good device and catches each broken one by its rule."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import reduce
from typing import ClassVar

import numpy as np
import pytest

from qnodeos.errors import DeviceError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.conformance import (
    CHECKS,
    PREPARATIONS,
    ConformanceError,
    Expectations,
    check_qdevice,
)
from qnodeos.qdevice.endpoint import FrameSlave
from qnodeos.qdevice.frames import TICK_PATTERN, decode_command, encode_command
from qnodeos.qdevice.instructions import Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import Outcome
from tests.conformance import FOR_REGISTERS

SIGMA = {
    Axis.X: np.array([[0, 1], [1, 0]], dtype=complex),
    Axis.Y: np.array([[0, -1j], [1j, 0]]),
    Axis.Z: np.diag([1, -1]).astype(complex),
}
ROTATIONS = {
    (axis, steps): np.cos(steps * np.pi / 32) * np.eye(2) - 1j * np.sin(steps * np.pi / 32) * sigma
    for axis, sigma in SIGMA.items()
    for steps in range(32)
}
SYNC_TICKS = 50
FEW_SHOTS = Expectations(fidelity=0.97, shots=50)
"""Enough for devices without noise."""


class FakeDevice:
    """A perfect qubit behind a slave's end of the wire; the variants below break one thing."""

    ticks: ClassVar[dict[Opcode, int]] = {
        Opcode.INI: 3,
        Opcode.SQG: 1,
        Opcode.MSR: 7,
        Opcode.PMG: 1,
        Opcode.ENT: SYNC_TICKS,
        Opcode.ENM: SYNC_TICKS,
    }
    axes: tuple[Axis, ...] = (Axis.X, Axis.Y)
    slave_type: type[FrameSlave] = FrameSlave

    def __init__(self) -> None:
        self.capabilities = Capabilities("fake", (0,), (), frozenset(self.ticks), 10_000)
        self.slave = self.slave_type()
        self.rng = random.Random(7)
        self.amplitudes = np.array([1, 0], dtype=complex)
        self.due: int | None = None
        self.outcome = Outcome.UNKNOWN_FAILURE
        self.now = -1

    def exchange(self, tick: int, frame: int) -> int:
        self.now = tick
        if self.due is not None and tick >= self.due:
            self.due = None
            self.slave.complete(self.outcome)
        answer = self.slave.outgoing(tick)
        instruction = self.slave.incoming(frame)
        if instruction is not None:
            self.start(tick, instruction)
        return answer

    def next_tick(self) -> int | None:
        if self.due is not None:
            return self.due
        return self.now + 1 if self.slave.has_news else None

    def start(self, tick: int, instruction: PhysicalInstruction) -> None:
        self.outcome = self.judge(instruction) or self.execute(instruction)
        rejected = not self.outcome.is_success
        lonely = self.outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
        quick = rejected and not lonely
        self.due = tick + (1 if quick else self.ticks[instruction.opcode])

    def judge(self, instruction: PhysicalInstruction) -> Outcome | None:
        """Why an instruction is refused, if it is."""
        opcode = instruction.opcode
        if opcode not in self.ticks:
            return Outcome.UNSUPPORTED_REQUEST
        if instruction.qubit != 0:
            return Outcome.INVALID_QUBIT
        rotates = opcode in (Opcode.SQG, Opcode.PMG)
        if rotates and instruction.argument >> 5 not in self.axes:
            return Outcome.UNSUPPORTED_REQUEST
        if instruction.halvings:
            return Outcome.UNSUPPORTED_REQUEST
        if opcode in (Opcode.ENT, Opcode.ENM) and instruction.argument:
            return Outcome.UNSUPPORTED_REQUEST
        return None

    def execute(self, instruction: PhysicalInstruction) -> Outcome:
        """Do it."""
        match instruction.opcode:
            case Opcode.INI:
                self.amplitudes = np.array([1, 0], dtype=complex)
            case Opcode.SQG:
                self.rotate(instruction.axis, instruction.steps)
            case Opcode.MSR:
                return self.measure()
            case Opcode.ENT | Opcode.ENM:
                return Outcome.ENTANGLEMENT_SYNC_FAILURE
        return Outcome.SUCCESS_ZERO

    def rotate(self, axis: Axis, steps: int) -> None:
        self.amplitudes = ROTATIONS[axis, steps] @ self.amplitudes

    def measure(self) -> Outcome:
        bit = self.rng.random() < abs(self.amplitudes[1]) ** 2
        self.amplitudes = np.array([not bit, bit], dtype=complex)
        return Outcome.SUCCESS_ONE if bit else Outcome.SUCCESS_ZERO


# --- good devices ---------------------------------------------------------------------------


def test_a_good_device_passes_and_its_durations_are_reported():
    report = check_qdevice(FakeDevice)
    assert set(report.skipped) == FOR_REGISTERS
    assert set(report.checks) == {check.rule for check in CHECKS} - FOR_REGISTERS
    assert report.ticks == {
        Opcode.INI: (3, 3),
        Opcode.SQG: (1, 1),
        Opcode.MSR: (7, 7),
        Opcode.PMG: (1, 1),
    }


def test_a_device_that_cannot_name_its_next_tick_passes():
    class Plain:
        """The two members of a QDevice, nothing else."""

        def __init__(self) -> None:
            self.inner = FakeDevice()
            self.capabilities = self.inner.capabilities

        def exchange(self, tick: int, frame: int) -> int:
            return self.inner.exchange(tick, frame)

    report = check_qdevice(Plain)
    assert set(report.skipped) == FOR_REGISTERS | {"next_tick keeps its word"}
    assert report.ticks[Opcode.MSR] == (7, 7)


def test_a_device_with_all_axes_passes():
    class AllAxes(FakeDevice):
        axes = (Axis.X, Axis.Y, Axis.Z)

    check_qdevice(AllAxes, Expectations(axes=AllAxes.axes))


def test_a_device_without_entanglement_passes():
    class Alone(FakeDevice):
        ticks: ClassVar[dict[Opcode, int]] = {Opcode.INI: 1, Opcode.SQG: 1, Opcode.MSR: 1}

    report = check_qdevice(Alone)
    assert "entanglement without a partner fails in bounded time" in report.skipped
    assert "pre-measurement gates are set, extended and cleared" in report.skipped


def test_a_device_with_a_counter_of_its_own_passes():
    class Offset(FakeDevice):
        def exchange(self, tick: int, frame: int) -> int:
            return super().exchange(tick + 1_000_003, frame)

        def next_tick(self) -> int | None:
            announced = super().next_tick()
            return None if announced is None else announced - 1_000_003

    check_qdevice(Offset)


def test_a_noisy_device_passes_within_its_stated_fidelity():
    class Noisy(FakeDevice):
        def measure(self) -> Outcome:
            outcome = super().measure()
            wrong = self.rng.random() < 0.1
            return Outcome(
                Outcome.SUCCESS_ZERO + Outcome.SUCCESS_ONE - outcome if wrong else outcome
            )

    check_qdevice(Noisy, Expectations(fidelity=0.9))
    with pytest.raises(ConformanceError, match="states that are prepared"):
        check_qdevice(Noisy, Expectations(fidelity=0.99))


@pytest.mark.parametrize(("pulses", "bit"), PREPARATIONS)
def test_the_table_of_preparations_is_right(pulses, bit):
    state = reduce(lambda s, pulse: ROTATIONS[pulse] @ s, pulses, np.array([1, 0], dtype=complex))
    assert abs(state[bit]) ** 2 == pytest.approx(1)


# --- broken devices ---------------------------------------------------------------------------


class BootsInSession(FakeDevice):
    def __init__(self) -> None:
        super().__init__()
        self.slave._enter(0)


class StuckLine(FakeDevice):
    def exchange(self, tick: int, frame: int) -> int:
        super().exchange(tick, frame)
        return 0


class FrozenCounter(FakeDevice):
    def exchange(self, tick: int, frame: int) -> int:
        answer = super().exchange(tick, frame)
        return answer if tick < 2000 else self.slave.outgoing(2000)


class ShortCounter(FakeDevice):
    """Its counter has eleven bits."""

    def exchange(self, tick: int, frame: int) -> int:
        answer = super().exchange(tick, frame)
        return answer ^ TICK_PATTERN[tick % 4096] ^ TICK_PATTERN[tick % 2048]


class ReadsFirst(FakeDevice):
    """Prepares its answer after it has read the command of the same tick."""

    def exchange(self, tick: int, frame: int) -> int:
        super().exchange(tick, frame)
        return self.slave.outgoing(tick)


class AnswersTwice(FakeDevice):
    """Repeats an outcome as a new one, ten ticks later."""

    def exchange(self, tick: int, frame: int) -> int:
        answer = super().exchange(tick, frame)
        if self.due is None and self.outcome.is_success and self.now > 40:
            self.slave._accepted ^= 1
            self.slave.complete(self.outcome)
        return answer


class SlowMeasurement(FakeDevice):
    ticks = FakeDevice.ticks | {Opcode.MSR: 10_001}


class HangsOnMeasurement(FakeDevice):
    def start(self, tick: int, instruction: PhysicalInstruction) -> None:
        super().start(tick, instruction)
        if instruction.opcode is Opcode.MSR:
            self.due = None

    def next_tick(self) -> int | None:
        return self.due if self.due is not None else self.now + 1


class WrongMeasurementCode(FakeDevice):
    def measure(self) -> Outcome:
        return Outcome.SUCCESS_PSI_PLUS


class GateReportsOne(FakeDevice):
    def execute(self, instruction: PhysicalInstruction) -> Outcome:
        outcome = super().execute(instruction)
        return Outcome.SUCCESS_ONE if instruction.opcode is Opcode.SQG else outcome


class NoAppend(FakeDevice):
    def judge(self, instruction: PhysicalInstruction) -> Outcome | None:
        return Outcome.UNSUPPORTED_REQUEST if instruction.other else super().judge(instruction)


class RandomReadout(FakeDevice):
    def measure(self) -> Outcome:
        return self.rng.choice([Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ONE])


class InvertedReadout(FakeDevice):
    def measure(self) -> Outcome:
        return Outcome(Outcome.SUCCESS_ZERO + Outcome.SUCCESS_ONE - super().measure())


class NeverInitialises(FakeDevice):
    def execute(self, instruction: PhysicalInstruction) -> Outcome:
        if instruction.opcode is Opcode.INI:
            return Outcome.SUCCESS_ZERO
        return super().execute(instruction)


class OneAxisOnly(FakeDevice):
    def rotate(self, axis: Axis, steps: int) -> None:
        super().rotate(Axis.X, steps)


class InvertedX(FakeDevice):
    def rotate(self, axis: Axis, steps: int) -> None:
        super().rotate(axis, -steps % 32 if axis is Axis.X else steps)


class CoarseAngles(FakeDevice):
    def rotate(self, axis: Axis, steps: int) -> None:
        super().rotate(axis, steps // 8 * 8)


class UnsignedAngles(FakeDevice):
    def rotate(self, axis: Axis, steps: int) -> None:
        super().rotate(axis, min(steps, 32 - steps))


class AcceptsAnything(FakeDevice):
    """Answers success to opcodes it does not support."""

    def start(self, tick: int, instruction: PhysicalInstruction) -> None:
        if instruction.opcode in self.ticks:
            super().start(tick, instruction)
        else:
            self.outcome, self.due = Outcome.SUCCESS_ZERO, tick + 1


class AcceptsZ(FakeDevice):
    def judge(self, instruction: PhysicalInstruction) -> Outcome | None:
        if instruction.opcode is Opcode.SQG and instruction.axis is Axis.Z:
            return None
        return super().judge(instruction)


class AcceptsAnyLink(FakeDevice):
    def judge(self, instruction: PhysicalInstruction) -> Outcome | None:
        if instruction.opcode is Opcode.ENT:
            instruction = instruction._replace(argument=0)
        return super().judge(instruction)


class AnyQubitIsTheFirst(FakeDevice):
    def judge(self, instruction: PhysicalInstruction) -> Outcome | None:
        return super().judge(instruction._replace(qubit=0))


class RefusesButExecutes(FakeDevice):
    def judge(self, instruction: PhysicalInstruction) -> Outcome | None:
        refusal = super().judge(instruction)
        if refusal is Outcome.INVALID_QUBIT:
            self.execute(instruction)
        return refusal


class WaitsForItsPartner(FakeDevice):
    def start(self, tick: int, instruction: PhysicalInstruction) -> None:
        super().start(tick, instruction)
        if self.outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE:
            self.due = None


class EntanglesAlone(FakeDevice):
    def execute(self, instruction: PhysicalInstruction) -> Outcome:
        if instruction.opcode is Opcode.ENT:
            return Outcome.SUCCESS_PSI_PLUS
        return super().execute(instruction)


class BelievingSlave(FrameSlave):
    """Does not look at the check field."""

    def incoming(self, frame: int) -> PhysicalInstruction | None:
        return super().incoming(encode_command(frame >> 12 & 0xFFFFF, frame >> 11, frame >> 10))


class BelievesDamage(FakeDevice):
    slave_type = BelievingSlave


class ForgetfulSlave(FrameSlave):
    """Takes an instruction for a new one when it has come often enough."""

    seen_often = 0

    def incoming(self, frame: int) -> PhysicalInstruction | None:
        command = decode_command(frame)
        repeated = command is not None and command.sequence == self._accepted != command.acknowledge
        self.seen_often = self.seen_often + 1 if repeated and not self.busy else 0
        if self.seen_often == 5:
            self._accepted = self._answered = 1 - self._accepted
            self._prepare()
        return super().incoming(frame)


class AnswersRepetitions(FakeDevice):
    slave_type = ForgetfulSlave


class ExecutesRepetitions(FakeDevice):
    """Keeps the protocol, but runs the pulses once for every frame that asks for them."""

    last_word = 0

    def exchange(self, tick: int, frame: int) -> int:
        answer = super().exchange(tick, frame)
        command = decode_command(frame)
        if command is not None and not self.slave.busy and command.sequence != command.acknowledge:
            word = command.word
            if word & 0xF == Opcode.SQG and self.capabilities.qubits[0] == word >> 12 & 0xF:
                again = tick > self.started + 1
                if again and word >> 9 & 7 in self.axes:
                    self.rotate(Axis(word >> 9 & 7), word >> 4 & 31)
        return answer

    started = 0

    def start(self, tick: int, instruction: PhysicalInstruction) -> None:
        self.started = tick
        super().start(tick, instruction)


class NopSlave(FrameSlave):
    """Acknowledges and answers NOPs whose sequence bit is new."""

    def _accept(self, word: int, sequence: int, acknowledge: int) -> PhysicalInstruction | None:
        instruction = super()._accept(word, sequence, acknowledge)
        is_new = self._in_session and sequence != self._accepted and acknowledge == self._accepted
        if word == 1 << 4 and is_new:
            self._accepted = sequence
            self.complete(Outcome.SUCCESS_ZERO)
        return instruction


class AnswersNops(FakeDevice):
    slave_type = NopSlave


class GreedyDevice(FakeDevice):
    """Drops what it is doing for a newer instruction."""

    def exchange(self, tick: int, frame: int) -> int:
        command = decode_command(frame)
        answer = self.slave.outgoing(tick) if self.slave.busy else None
        if self.slave.busy and command is not None and command.sequence != self.slave._accepted:
            self.slave.complete(Outcome.UNKNOWN_FAILURE)
        later = super().exchange(tick, frame)
        return later if answer is None or self.due is None else answer


class KeepsOutcomeSlave(FrameSlave):
    """Does not forget its last outcome when a session begins."""

    def _enter(self, session: int) -> None:
        if self._detail == 0:
            self._in_session = True
            return
        super()._enter(session)


class KeepsOutcomes(FakeDevice):
    slave_type = KeepsOutcomeSlave


class AbandonsSlave(FrameSlave):
    """Enters a session while busy, and lets the old outcome into it."""

    def incoming(self, frame: int) -> PhysicalInstruction | None:
        command = decode_command(frame)
        if command is not None and self.busy and command.word >> 16 == 0xF:
            self._enter(command.word >> 4 & 0xF)
            self._accepted = 1
            return None
        return super().incoming(frame)


class AnswersIntoTheNextSession(FakeDevice):
    slave_type = AbandonsSlave


class NamesTooLate(FakeDevice):
    def next_tick(self) -> int | None:
        announced = super().next_tick()
        return None if announced is None else announced + 1


class NamesTooEarly(FakeDevice):
    def next_tick(self) -> int | None:
        announced = super().next_tick()
        return None if announced is None else max(self.now + 1, announced - 1)


class NamesThePast(FakeDevice):
    def next_tick(self) -> int | None:
        return self.now


SESSION = "executes nothing before a session"
COUNTER = "tick counter advances"
ONCE = "answered exactly once"
STATES = "states that are prepared"
LONELY = "without a partner"

BROKEN: list[tuple[Callable[[], FakeDevice], str]] = [
    (BootsInSession, SESSION),
    (StuckLine, "no valid response"),
    (FrozenCounter, COUNTER),
    (ShortCounter, COUNTER),
    (ReadsFirst, ONCE),
    (AnswersTwice, ONCE),
    (SlowMeasurement, "not answered within 10000 ticks"),
    (HangsOnMeasurement, "not answered within 10000 ticks"),
    (WrongMeasurementCode, ONCE),
    (GateReportsOne, ONCE),
    (NoAppend, "pre-measurement gates"),
    (RandomReadout, STATES),
    (InvertedReadout, STATES),
    (NeverInitialises, STATES),
    (OneAxisOnly, STATES),
    (CoarseAngles, STATES),
    (UnsignedAngles, STATES),
    (AcceptsAnything, "unknown or not supported"),
    (AcceptsZ, "axes and links"),
    (AcceptsAnyLink, "axes and links"),
    (AnyQubitIsTheFirst, "qubits that do not exist"),
    (RefusesButExecutes, "changes no qubit"),
    (WaitsForItsPartner, LONELY),
    (EntanglesAlone, LONELY),
    (BelievesDamage, "damaged command"),
    (AnswersRepetitions, "not answered again"),
    (ExecutesRepetitions, "not executed again"),
    (AnswersNops, "NOP"),
    (GreedyDevice, "second instruction"),
    (KeepsOutcomes, "new session"),
    (AnswersIntoTheNextSession, "new session"),
    (NamesTooLate, "next_tick keeps its word"),
    (NamesTooEarly, "next_tick keeps its word"),
    (NamesThePast, "which is past"),
]


@pytest.mark.parametrize(("make", "rule"), BROKEN)
def test_a_broken_device_is_caught_by_its_rule(make, rule):
    with pytest.raises(ConformanceError, match=rule) as caught:
        check_qdevice(make, FEW_SHOTS)
    assert isinstance(caught.value, DeviceError)
    assert isinstance(caught.value, AssertionError)


def test_a_left_handed_set_of_axes_is_caught():
    class LeftHanded(InvertedX):
        axes = (Axis.X, Axis.Y, Axis.Z)

    with pytest.raises(ConformanceError, match=STATES):
        check_qdevice(LeftHanded, Expectations(axes=LeftHanded.axes, fidelity=0.97, shots=50))


# --- a device with some rotations only ----------------------------------------------------------


FIVE = frozenset({(Axis.X, 16), (Axis.Y, 16), (Axis.X, 8), (Axis.Y, 8), (Axis.X, 24)})
FIVE_EXPECTED = Expectations(rotations=FIVE, fidelity=0.97, shots=50)


class FiveRotations(FakeDevice):
    """Has no others; the variants below do another rotation in place of one of them."""

    instead: ClassVar[dict[tuple[Axis, int], tuple[Axis, int]]] = {}

    def judge(self, instruction: PhysicalInstruction) -> Outcome | None:
        reason = super().judge(instruction)
        if reason is None and instruction.opcode is Opcode.SQG:
            known = (instruction.axis, instruction.steps) in FIVE
            return None if known else Outcome.UNSUPPORTED_REQUEST
        return reason

    def rotate(self, axis: Axis, steps: int) -> None:
        super().rotate(*self.instead.get((axis, steps), (axis, steps)))


def test_a_device_with_five_rotations_passes():
    check_qdevice(FiveRotations, FIVE_EXPECTED)


def test_five_rotations_are_not_all():
    with pytest.raises(ConformanceError, match="UNSUPPORTED_REQUEST"):
        check_qdevice(FiveRotations, FEW_SHOTS)
    with pytest.raises(ConformanceError, match="axes and links"):
        check_qdevice(FakeDevice, FIVE_EXPECTED)


@pytest.mark.parametrize(
    ("asked", "done"),
    [(asked, done) for asked in sorted(FIVE) for done in sorted(FIVE) if asked != done],
)
def test_each_of_five_rotations_in_place_of_another_is_caught(asked, done):
    class Confused(FiveRotations):
        instead: ClassVar[dict[tuple[Axis, int], tuple[Axis, int]]] = {asked: done}

    with pytest.raises(ConformanceError, match=STATES):
        check_qdevice(Confused, FIVE_EXPECTED)


# --- what the caller expects --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"axes": ()}, "axis"),
        ({"rotations": frozenset()}, "half turn about X"),
        ({"shots": 20}, "random"),
        ({"fidelity": 0.6}, "random"),
    ],
)
def test_expectations_that_test_nothing_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        Expectations(**arguments)
