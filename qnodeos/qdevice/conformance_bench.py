"""The test bench of the conformance suite: one device, one rule, the protocol bit by bit.

It is an implementation of the QNPU's part of `qnodeos.qdevice.endpoint` that trusts nothing:
whatever a response says is checked against the rules, and a broken one is reported with the
rule under test and the tick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Final, NoReturn

from qnodeos.errors import DeviceError
from qnodeos.qdevice import instructions
from qnodeos.qdevice.frames import (
    DETAIL_BOOT,
    DETAIL_NONE,
    DETAIL_SESSION,
    TICK_MASK,
    ResponseFrame,
    decode_response,
    encode_command,
    session_word,
)
from qnodeos.qdevice.instructions import (
    ANGLE_STEPS,
    MAX_QUBIT,
    NOP,
    Axis,
    Opcode,
    PhysicalInstruction,
)
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.qdevice.protocols import QDevice

Z_SCORE: Final = 4.5
HALF_TURN: Final = ANGLE_STEPS // 2
_PATIENCE_TICKS: Final = 20
"""How long a device is watched for doing something it must not do."""


class ConformanceError(DeviceError, AssertionError):
    """A device broke a rule; the message names the rule and what happened."""


@dataclass(frozen=True)
class Expectations:
    """What the caller knows about the device.

    Attributes:
        axes: axes about which SQG and PMG rotate; others must be refused.
        rotations: axis and angle (in units of pi/16) of every SQG there is, if the device has
            some only; others must be refused. None if it rotates by any angle about its axes.
        fidelity: lower bound on the probability that |0> or |1>, prepared by INI and up to
            four rotations, is read as such (all errors included).
        pair_axes: axes about which TQG rotates; others must be refused.
        pair_fidelity: the same bound for two qubits after a gate on both, and for the Bell
            state that ESW names; None: as ``fidelity``.
        shots: repetitions of every statistical check.
        limit_ticks: no instruction may take longer.
        lonely: no neighbour answers, so that every ENT must end in
            ENTANGLEMENT_SYNC_FAILURE; False leaves ENT and ENM out.

    Raises:
        ValueError: no axis, rotations without a half turn about the first one, or so few shots
            that a device answering at random could pass.
    """

    axes: tuple[Axis, ...] = (Axis.X, Axis.Y)
    rotations: frozenset[tuple[Axis, int]] | None = None
    fidelity: float = 0.85
    pair_axes: tuple[Axis, ...] = (Axis.X, Axis.Y)
    pair_fidelity: float | None = None
    shots: int = 200
    limit_ticks: int = 10_000
    lonely: bool = True

    def __post_init__(self) -> None:
        if not self.axes:
            raise ValueError("a device rotates about one axis at least")
        if not self.can_rotate(self.axes[0], HALF_TURN):
            raise ValueError(
                f"a device without a half turn about {self.axes[0].name}, its first axis"
            )
        for fidelity in (self.fidelity, self.pair_bound):
            if self.least_right(fidelity) < self.shots / 2 + Z_SCORE * sqrt(self.shots) / 2:
                raise ValueError(
                    f"{self.shots} shots at fidelity {fidelity} do not tell a device that "
                    "answers at random; take more shots"
                )

    def can_rotate(self, axis: Axis, steps: int) -> bool:
        """Whether there is an SQG about this axis by ``steps`` * pi/16."""
        return axis in self.axes and (self.rotations is None or (axis, steps) in self.rotations)

    @property
    def pair_bound(self) -> float:
        """The bound for two qubits."""
        return self.fidelity if self.pair_fidelity is None else self.pair_fidelity

    def least_right(self, fidelity: float) -> float:
        """How many of the shots must be right at a fidelity."""
        mean = self.shots * fidelity
        return mean - Z_SCORE * sqrt(mean * (1 - fidelity))


@dataclass
class Bench:
    """One device under one check, and the QNPU's part of the protocol, bit by bit.

    Attributes:
        device: the device under test.
        expected: what is known about it.
        rule: the rule under test, for messages.
        ticks: shortest and longest duration of every opcode; kept up to date.
        tick: the next tick to exchange a frame at.
        bit: sequence bit of the last instruction answered.
        counter_offset: the device's tick counter less our ticks, low bits, once known.
        last: the last response.
    """

    device: QDevice
    expected: Expectations
    rule: str
    ticks: dict[Opcode, tuple[int, int]]
    tick: int = 0
    bit: int = 0
    counter_offset: int | None = None
    last: ResponseFrame = field(default_factory=lambda: ResponseFrame(0, 0, 0, 0, 0, 0))

    def fail(self, what: str) -> NoReturn:
        """Report that the rule is broken."""
        raise ConformanceError(
            f"{self.device.capabilities.name} breaks the rule {self.rule!r} "
            f"at tick {self.tick - 1}: {what}"
        )

    def require(self, condition: bool, what: str) -> None:
        """Report that the rule is broken unless the condition holds."""
        if not condition:
            self.fail(what)

    # --- frames -------------------------------------------------------------------------

    def swap(self, frame: int) -> ResponseFrame:
        """One tick, with the rules every response keeps."""
        raw = self.device.exchange(self.tick, frame)
        self.tick += 1
        response = decode_response(raw)
        if response is None:
            self.fail(f"{raw:#010x} is no valid response frame")
        offset = response.tick - (self.tick - 1) & TICK_MASK
        if self.counter_offset is None:
            self.counter_offset = offset
        if offset != self.counter_offset:
            self.fail(f"the tick counter reads {response.tick}: it slipped")
        if response.busy != response.sequence ^ response.acknowledge:
            self.fail(f"busy must tell an accepted instruction without an outcome: {response}")
        self.last = response
        return response

    def idle_frame(self) -> int:
        """The command frame that says nothing."""
        return encode_command(NOP.word, self.bit, self.bit)

    def instruction_frame(self, instruction: PhysicalInstruction) -> int:
        """The command frame of the next instruction."""
        return encode_command(instruction.word, self.bit ^ 1, self.bit)

    def enter(self, session: int = 0) -> None:
        """Open a session with a device that is not busy."""
        request = encode_command(session_word(session), 0, 0)
        self.swap(request)
        response = self.swap(request)
        self.bit = 0
        self.require(
            response._replace(tick=0) == (session, DETAIL_SESSION, 0, 0, 0, 0),
            f"session {session} was not entered: {response}",
        )

    def watch(self, frame: int, why: str) -> None:
        """Send a frame for some ticks; nothing in the responses may change but the tick."""
        self.swap(frame)
        before = self.last
        for _ in range(_PATIENCE_TICKS):
            response = self.swap(frame)
            if response._replace(tick=before.tick) != before:
                self.fail(f"{why}: {before}, then {response}")

    # --- instructions -------------------------------------------------------------------

    def run(self, instruction: PhysicalInstruction) -> Outcome:
        """Have one instruction executed; its outcome."""
        frame = self.instruction_frame(instruction)
        sent = self.tick
        response = self.swap(frame)
        if response.sequence != self.bit or response.acknowledge != self.bit:
            self.fail(f"{instruction} answered in the frame sent before it was read")
        while response.sequence == self.bit:
            self.skip(instruction, sent)
            response = self.swap(frame)
            if response.acknowledge == self.bit:
                self.fail(f"{instruction} not acknowledged: {response}")
        self.bit ^= 1
        if response.detail >= DETAIL_BOOT:
            self.fail(f"{instruction} answered without an outcome: {response}")
        outcome = Outcome(response.outcome)
        if outcome.is_success:
            ticks = self.tick - 1 - sent
            least, most = self.ticks.get(instruction.opcode, (ticks, ticks))
            self.ticks[instruction.opcode] = min(least, ticks), max(most, ticks)
        return outcome

    def skip(self, instruction: PhysicalInstruction, sent: int) -> None:
        """Go to the next tick with news, if the device tells; bound the waiting."""
        announced = self.announced()
        if announced is not None:
            self.tick = announced
        self.bound(instruction, sent)

    def bound(self, instruction: PhysicalInstruction, sent: int) -> None:
        """Report an instruction that takes longer than allowed."""
        limit = self.expected.limit_ticks
        if self.tick - sent > limit:
            self.fail(f"{instruction} not answered within {limit} ticks")

    def announced(self) -> int | None:
        """What the device says about its next news; None if it cannot."""
        next_tick: Callable[[], int | None] | None = getattr(self.device, "next_tick", None)
        if next_tick is None:
            return None
        announced = next_tick()
        if announced is None:
            self.fail("next_tick says never while an instruction is being executed")
        if announced < self.tick:
            self.fail(f"next_tick says {announced}, which is past")
        return announced

    def succeed(self, instruction: PhysicalInstruction) -> None:
        """Have an instruction without a result executed."""
        outcome = self.run(instruction)
        if outcome is not Outcome.SUCCESS_ZERO or self.last.detail != DETAIL_NONE:
            self.fail(f"{instruction} answered {outcome.name}, detail {self.last.detail}")

    def refuse(self, instruction: PhysicalInstruction, expected: Outcome) -> None:
        """Have an instruction refused with this outcome."""
        outcome = self.run(instruction)
        self.require(
            outcome is expected, f"{instruction} answered {outcome.name}, not {expected.name}"
        )

    def measure(self, qubit: int) -> int:
        """Measure a qubit."""
        outcome = self.run(instructions.msr(qubit))
        if outcome not in (Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ONE):
            self.fail(f"MSR answered {outcome.name}")
        if self.last.detail != DETAIL_NONE:
            self.fail(f"MSR answered detail {self.last.detail}")
        return int(outcome is Outcome.SUCCESS_ONE)

    def read(self, qubit: int) -> int:
        """Measure a qubit, by a communication qubit if it cannot be measured itself."""
        communication = self.device.capabilities.communication_qubits
        if qubit in communication:
            return self.measure(qubit)
        self.succeed(instructions.swp(communication[0], qubit))
        return self.measure(communication[0])

    def expect_bit(
        self, expected: int, shot: Callable[[], int], what: str, fidelity: float | None = None
    ) -> None:
        """Take shots; nearly all must give this bit, `Expectations.fidelity` of them or another."""
        shots = self.expected.shots
        least = self.expected.least_right(self.expected.fidelity if fidelity is None else fidelity)
        right = sum(shot() == expected for _ in range(shots))
        self.require(
            right >= least,
            f"{what} gave {expected} in {right} of {shots} shots; at least {least:.0f} expected",
        )

    def prepare(self, pulses: Sequence[tuple[Axis, int]], qubit: int) -> None:
        """Initialise a qubit and rotate it."""
        self.succeed(instructions.ini(qubit))
        for axis, steps in pulses:
            self.succeed(instructions.sqg(axis, steps, qubit))

    # --- what the device has --------------------------------------------------------------

    @property
    def qubits(self) -> tuple[int, ...]:
        """Physical addresses that exist."""
        return self.device.capabilities.qubits

    @property
    def readable(self) -> tuple[int, ...]:
        """Addresses whose state can be measured, if need be by swapping it."""
        communication = self.device.capabilities.communication_qubits
        return self.qubits if self.has(Opcode.SWP) else communication

    @property
    def foreign_qubits(self) -> list[int]:
        """Physical addresses that do not exist."""
        return sorted(set(range(MAX_QUBIT + 1)) - set(self.qubits))

    def has(self, *opcodes: Opcode) -> bool:
        """Whether the device declares all of these opcodes."""
        return self.device.capabilities.instructions.issuperset(opcodes)

    def local_samples(self, qubit: int) -> list[PhysicalInstruction]:
        """One instruction of every supported opcode that acts on qubits of this node."""
        axis = self.expected.axes[0]
        others = [other for other in self.qubits if other != qubit]
        every = [
            instructions.ini(qubit),
            instructions.sqg(axis, HALF_TURN, qubit),
            instructions.msr(qubit),
            instructions.pmg(axis, 8, qubit),
        ]
        own = [instruction for instruction in every if self.has(instruction.opcode)]
        return own + (self.pair_samples(qubit, others[0]) if others else [])

    def pair_samples(self, first: int, second: int) -> list[PhysicalInstruction]:
        """One instruction of every supported opcode that acts on two qubits of this node."""
        every = [
            instructions.tqg(self.expected.pair_axes[0], 8, first, second),
            instructions.swp(first, second),
            instructions.mov(first, second),
            instructions.esw(first, second),
        ]
        return [instruction for instruction in every if self.has(instruction.opcode)]

    def samples(self, qubit: int) -> list[PhysicalInstruction]:
        """The same, and the requests for entanglement if nobody answers them."""
        requests = [instructions.ent(0, qubit), instructions.enm(0, qubit)]
        return self.local_samples(qubit) + [
            request for request in requests if self.expected.lonely and self.has(request.opcode)
        ]
