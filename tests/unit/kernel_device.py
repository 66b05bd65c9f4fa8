"""A fake device, its driver, and a link with ideal Bell states, for the tests of the kernel.

Nothing here is physics but `Link`, which answers entanglement attempts of two devices with
one verdict for both and measures Bell states ideally. Random numbers come from the generator
a test passes in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple

import numpy as np

from qnodeos.errors import UnsupportedInstructionError
from qnodeos.qdevice import instructions as physical
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import OUTCOME_OF_HERALD, BellState, Outcome

CAPABILITIES: Final = Capabilities(
    name="fake",
    communication_qubits=(0, 1, 2),
    memory_qubits=(),
    instructions=frozenset(Opcode),
    tick_ns=10_000,
)

GATES: Final[dict[str, tuple[tuple[Axis, int], ...]]] = {
    "x": ((Axis.X, 16),),
    "y": ((Axis.Y, 16),),
    "z": ((Axis.Z, 16),),
    "h": ((Axis.Y, 8), (Axis.X, 16)),
    "s": ((Axis.Z, 8),),
    "k": ((Axis.X, 8), (Axis.Z, 8)),
    "t": ((Axis.Z, 4),),
}
TWO_QUBIT_STEPS: Final = {"cnot": (Axis.X, 8), "cphase": (Axis.Z, 8)}


class FakeDriver:
    """A QDriver that can do everything on a grid of pi/16; a rotation by 0 is nothing."""

    def __init__(self, capabilities: Capabilities = CAPABILITIES) -> None:
        self._capabilities = capabilities
        self.corrections: list[tuple[BellState, int]] = []

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @staticmethod
    def _steps(numerator: int, exponent: int) -> int:
        if exponent > 4:
            raise UnsupportedInstructionError(f"angle {numerator} pi/2^{exponent}")
        return (numerator << 4 - exponent) % 32

    def initialise(self, qubit: int) -> Sequence[PhysicalInstruction]:
        return [physical.ini(qubit)]

    def rotate(
        self, axis: Axis, numerator: int, exponent: int, qubit: int
    ) -> Sequence[PhysicalInstruction]:
        steps = self._steps(numerator, exponent)
        return [physical.sqg(axis, steps, qubit)] if steps else []

    def gate(self, mnemonic: str, qubit: int) -> Sequence[PhysicalInstruction]:
        return [physical.sqg(axis, steps, qubit) for axis, steps in GATES[mnemonic]]

    def controlled_rotate(
        self, axis: Axis, numerator: int, exponent: int, control: int, target: int
    ) -> Sequence[PhysicalInstruction]:
        steps = self._steps(numerator, exponent)
        return [physical.tqg(axis, steps, control, target)] if steps else []

    def two_qubit_gate(
        self, mnemonic: str, first: int, second: int
    ) -> Sequence[PhysicalInstruction]:
        if mnemonic == "mov":
            return [physical.mov(first, second)]
        if mnemonic == "swp":
            return [physical.swp(first, second)]
        axis, steps = TWO_QUBIT_STEPS[mnemonic]
        return [physical.tqg(axis, steps, first, second), physical.sqg(axis, 32 - steps, second)]

    def measure(self, qubit: int) -> Sequence[PhysicalInstruction]:
        return [physical.msr(qubit)]

    def entangle(self, link: int, qubit: int) -> PhysicalInstruction:
        return physical.ent(link, qubit)

    def entangle_and_measure(self, link: int, qubit: int) -> PhysicalInstruction:
        return physical.enm(link, qubit)

    def measurement_basis(
        self, rotations: Sequence[tuple[Axis, int]], qubit: int
    ) -> Sequence[PhysicalInstruction]:
        return [
            physical.pmg(axis, steps, qubit, append=number > 0)
            for number, (axis, steps) in enumerate(rotations or [(Axis.X, 0)])
        ]

    def swap_entanglement(self, first: int, second: int) -> PhysicalInstruction:
        return physical.esw(first, second)

    def correct(self, state: BellState, qubit: int) -> Sequence[PhysicalInstruction]:
        self.corrections.append((state, qubit))
        gates = {
            BellState.PHI_PLUS: "",
            BellState.PSI_PLUS: "x",
            BellState.PHI_MINUS: "z",
            BellState.PSI_MINUS: "xz",
        }
        return [instruction for name in gates[state] for instruction in self.gate(name, qubit)]


class Answer(NamedTuple):
    """What the device reports of an instruction."""

    outcome: Outcome
    herald: BellState | None = None


SUCCESS: Final = Answer(Outcome.SUCCESS_ZERO)


class FakeDevice:
    """Takes one instruction at a time and answers it some ticks later.

    Attributes:
        ticks: time from sending an instruction to its outcome, unless a link decides.
        answers: what to answer, from the instruction; `SUCCESS` unless a test says more.
        measurements: results of the next MSRs; 0 when they run out.
        log: (tick, instruction) of everything received.
        link: decides what becomes of ENT and ENM; without one they are just answered.
    """

    def __init__(self, ticks: int = 1) -> None:
        self.ticks = ticks
        self.answers: Callable[[PhysicalInstruction], Answer] = self._measure
        self.measurements: deque[int] = deque()
        self.log: list[tuple[int, PhysicalInstruction]] = []
        self.link: Link | None = None
        self.busy: PhysicalInstruction | None = None
        self.since_tick = 0
        self.due_tick: int | None = None
        self.answer = SUCCESS
        self.basis: list[tuple[Axis, int]] = []

    def _measure(self, instruction: PhysicalInstruction) -> Answer:
        if instruction.opcode is Opcode.MSR and self.measurements:
            bit = self.measurements.popleft()
            return Answer(Outcome.SUCCESS_ONE if bit else Outcome.SUCCESS_ZERO)
        return SUCCESS

    @property
    def instructions(self) -> list[PhysicalInstruction]:
        """Everything received, without the times."""
        return [instruction for _, instruction in self.log]

    def send(self, tick: int, instruction: PhysicalInstruction) -> None:
        """Take an instruction; there must be none outstanding."""
        assert self.busy is None, f"{instruction} was sent while {self.busy} is outstanding"
        self.log.append((tick, instruction))
        self.busy = instruction
        self.since_tick = tick
        if instruction.opcode is Opcode.PMG:
            if not instruction.other:
                self.basis = []
            self.basis.append((instruction.axis, instruction.steps))
        if self.link is not None and instruction.opcode in (Opcode.ENT, Opcode.ENM):
            self.link.attempt(self, tick)
        else:
            self.due_tick = tick + self.ticks
            self.answer = self.answers(instruction)

    def poll(self, tick: int) -> Answer | None:
        """The answer, if it is due."""
        if self.due_tick is None or tick < self.due_tick:
            return None
        self.busy = self.due_tick = None
        return self.answer


PAULI: Final = {
    Axis.X: np.array([[0, 1], [1, 0]], dtype=complex),
    Axis.Y: np.array([[0, -1j], [1j, 0]]),
    Axis.Z: np.diag([1, -1]).astype(complex),
}
BELL: Final = {
    BellState.PHI_PLUS: np.array([1, 0, 0, 1]) / np.sqrt(2),
    BellState.PSI_PLUS: np.array([0, 1, 1, 0]) / np.sqrt(2),
    BellState.PSI_MINUS: np.array([0, 1, -1, 0]) / np.sqrt(2),
    BellState.PHI_MINUS: np.array([1, 0, 0, -1]) / np.sqrt(2),
}


def rotation(rotations: Sequence[tuple[Axis, int]]) -> np.ndarray:
    """The unitary of rotations (axis, steps of pi/16) in order of time, shape (2, 2)."""
    unitary = np.eye(2, dtype=complex)
    for axis, steps in rotations:
        half = steps * np.pi / 32
        unitary = (np.cos(half) * np.eye(2) - 1j * np.sin(half) * PAULI[axis]) @ unitary
    return unitary


def outcome_probabilities(
    state: BellState, first: Sequence[tuple[Axis, int]], second: Sequence[tuple[Axis, int]]
) -> np.ndarray:
    """Probabilities of 00, 01, 10, 11 after rotating both halves, shape (4,)."""
    amplitudes = np.kron(rotation(first), rotation(second)) @ BELL[state]
    probabilities: np.ndarray = np.abs(amplitudes) ** 2
    return probabilities


class Verdict(NamedTuple):
    """What becomes of one batch of attempts: does each device see a herald, and which."""

    first: bool = True
    second: bool = True
    bell_state: BellState = BellState.PSI_PLUS


FAILED: Final = Verdict(False, False)


class Link:
    """Joins two devices: attempts that meet are answered together, others do not sync.

    Args:
        decide: the verdict on each batch, in turn.
        rng: draws the measurement results of ENM.
        batch_ticks: how long a batch takes once both devices attempt.
        patience_ticks: how long a device waits for its neighbour.
    """

    def __init__(
        self,
        first: FakeDevice,
        second: FakeDevice,
        decide: Callable[[], Verdict],
        rng: Random,
        batch_ticks: int = 3,
        patience_ticks: int = 10,
    ) -> None:
        self._devices = first, second
        self._decide = decide
        self._rng = rng
        self._batch_ticks = batch_ticks
        self._patience_ticks = patience_ticks
        self.verdicts: list[Verdict] = []
        first.link = second.link = self

    def attempt(self, device: FakeDevice, tick: int) -> None:
        """A device starts a batch."""
        other = self._devices[1 - self._devices.index(device)]
        meets = (
            other.busy is not None
            and other.busy.opcode in (Opcode.ENT, Opcode.ENM)
            and other.answer.outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
            and other.due_tick is not None
            and tick < other.due_tick
        )
        if not meets:
            device.due_tick = tick + self._patience_ticks
            device.answer = Answer(Outcome.ENTANGLEMENT_SYNC_FAILURE)
            return
        verdict = self._decide()
        self.verdicts.append(verdict)
        first, second = self._devices
        weights = outcome_probabilities(verdict.bell_state, first.basis, second.basis)
        [drawn] = self._rng.choices(range(4), weights=[float(weight) for weight in weights])
        for end, success, bit in zip(self._devices, verdict[:2], divmod(drawn, 2), strict=True):
            end.due_tick = tick + self._batch_ticks
            end.answer = self._answer(end, success, verdict.bell_state, bit)

    @staticmethod
    def _answer(device: FakeDevice, success: bool, state: BellState, bit: int) -> Answer:
        if not success:
            return Answer(Outcome.ENTANGLEMENT_FAILURE)
        assert device.busy is not None
        if device.busy.opcode is Opcode.ENT:
            return Answer(OUTCOME_OF_HERALD[state])
        return Answer(Outcome.SUCCESS_ONE if bit else Outcome.SUCCESS_ZERO, state)
