"""What the behavioural devices share: frames, and one instruction at a time (simulated)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.endpoint import FrameSlave
from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState, Outcome
from sim.link import Batch, LinkEnd
from sim.pauli import Qubit

LOCAL: Final = frozenset({Opcode.INI, Opcode.SQG, Opcode.MSR})
"""What every device can do."""
ENTANGLING: Final = frozenset({Opcode.ENT, Opcode.ENM, Opcode.PMG})
"""What a device with links can do besides."""
MAX_PMG_ROTATIONS: Final = 8
"""Bound on the rotations a chain of PMG may store for a qubit."""


class FrameDevice(ABC):
    """A `SimulatedQDevice`; what its instructions do and how long they take, a subclass says.

    Args:
        name: for messages and reports.
        capabilities: what it can do.
    """

    def __init__(self, name: str, capabilities: Capabilities) -> None:
        self.name = name
        self._capabilities = capabilities
        self._slave = FrameSlave()
        self._last_tick = -1
        self._due: int | None = None
        self._outcome = Outcome.UNKNOWN_FAILURE
        self._herald: BellState | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What this device can do."""
        return self._capabilities

    @property
    def waits_for_neighbour(self) -> bool:
        """Whether a request of a neighbour, if it came now, could change `next_tick`."""
        return False

    def exchange(self, tick: int, frame: int) -> int:
        """Swap one 32-bit frame. Ticks of successive calls increase.

        Raises:
            LimitError: a gate joined more qubits than one state can have.
            ValueError: the tick is not later than that of the call before.
        """
        if tick <= self._last_tick:
            raise ValueError(f"{self.name}: exchange at tick {tick} after {self._last_tick}")
        self._last_tick = tick
        slave = self._slave
        if self._due is not None and self._due <= tick:
            self._finish()
        answer = slave.outgoing(tick)
        instruction = slave.incoming(frame)
        if instruction is not None:
            self._start(tick, instruction)
        return answer

    def next_tick(self) -> int | None:
        """First tick at which `exchange` has news without new input, None if never."""
        if self._due is not None:
            return self._due
        return self._last_tick + 1 if self._slave.has_news else None

    @abstractmethod
    def _start(self, tick: int, instruction: PhysicalInstruction) -> None:
        """Carry out an instruction, and say with `_complete_at` when its outcome is due."""

    def _complete_at(self, tick: int, outcome: Outcome, herald: BellState | None = None) -> None:
        self._due = tick
        self._outcome = outcome
        self._herald = herald

    def _finish(self) -> None:
        """The outcome is due."""
        self._due = None
        self._slave.complete(self._outcome, self._herald)


class LinkedDevice(FrameDevice):
    """A device with links, one of which may be in use at a time.

    Args:
        name: for messages and reports.
        capabilities: what it can do.

    Attributes:
        on_wake: called with the tick of the next news when that changes outside `exchange`,
            which happens when a neighbour's request starts a batch.
    """

    def __init__(self, name: str, capabilities: Capabilities) -> None:
        super().__init__(name, capabilities)
        self.on_wake: Callable[[int], None] | None = None
        self._is_alone = False

    @property
    def waits_for_neighbour(self) -> bool:
        """Whether a request of a neighbour, if it came now, could change `next_tick`."""
        return self._is_alone

    @abstractmethod
    def _take_pair(self, tick: int, qubit: Qubit, bell: BellState) -> None:
        """Our half of a pair exists from a tick on, when its herald can be known."""

    def _ask(self, end: LinkEnd, tick: int, ready_tick: int) -> None:
        """Begin a batch of attempts, which can start at ``ready_tick``."""
        answer = end.request(tick, ready_tick)
        if isinstance(answer, Batch):
            self._take(answer)
        else:
            self._is_alone = True
            self._complete_at(answer, Outcome.ENTANGLEMENT_SYNC_FAILURE)

    def _on_batch(self, batch: Batch) -> None:
        """A neighbour's request has started the batch that we asked for."""
        self._take(batch)
        if self.on_wake is not None and self._due is not None:
            self.on_wake(self._due)

    def _take(self, batch: Batch) -> None:
        self._is_alone = False
        if batch.qubit is None or batch.bell is None:
            self._complete_at(batch.tick, Outcome.ENTANGLEMENT_FAILURE)
        else:
            self._take_pair(batch.tick, batch.qubit, batch.bell)

    def _finish(self) -> None:
        self._is_alone = False
        super()._finish()
