"""Processes and their states.

The state diagram is the paper's (its process manager), as a table: a user process is
idle until a subroutine arrives, ready until the scheduler picks it, running until its
subroutine ends or has to wait for entanglement, and ready again when that has come. The
network process goes through the same states; its "subroutine" is a time bin. Not in the paper:
a program may cancel its subroutines, so a process can lose its work wherever it is; and under a
policy that spares time bins a running process gives way at points where it holds no qubit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

from qnodeos.limits import Limits
from qnodeos.qnpu import diagram
from qnodeos.qnpu.execution import Execution, Operation
from qnodeos.qnpu.memory import ProcessMemory

NETWORK_PID: Final = 0
"""Process id of the network process; user processes count from 1."""


class ProcessState(Enum):
    """Where a process is in its life."""

    IDLE = "idle"
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    ENDED = "ended"

    __hash__ = object.__hash__  # Enum's own hashes the name, in Python, on every look-up


class ProcessEvent(Enum):
    """What moves a process from one state to another."""

    WORK_ARRIVED = "work arrived"
    DISPATCHED = "dispatched"
    BLOCKED = "blocked"
    WOKEN = "woken"
    PAUSED = "paused"
    WORK_DONE = "work done"
    CANCELLED = "cancelled"
    STOPPED = "stopped"

    __hash__ = object.__hash__


_S, _E = ProcessState, ProcessEvent

TRANSITIONS: Final[dict[tuple[ProcessState, ProcessEvent], ProcessState]] = {
    (_S.IDLE, _E.WORK_ARRIVED): _S.READY,
    (_S.READY, _E.DISPATCHED): _S.RUNNING,
    (_S.RUNNING, _E.BLOCKED): _S.WAITING,
    (_S.RUNNING, _E.PAUSED): _S.READY,
    (_S.WAITING, _E.WOKEN): _S.READY,
    (_S.RUNNING, _E.WORK_DONE): _S.IDLE,
    (_S.READY, _E.CANCELLED): _S.IDLE,
    (_S.RUNNING, _E.CANCELLED): _S.IDLE,
    (_S.WAITING, _E.CANCELLED): _S.IDLE,
    (_S.IDLE, _E.STOPPED): _S.ENDED,
    (_S.READY, _E.STOPPED): _S.ENDED,
    (_S.RUNNING, _E.STOPPED): _S.ENDED,
    (_S.WAITING, _E.STOPPED): _S.ENDED,
}
"""(state, event) -> next state. Whatever is not here is a defect of the kernel."""


def state_diagram() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    transitions = ((*begin, end) for begin, end in TRANSITIONS.items())
    return diagram.state_diagram(transitions, _S.IDLE, _S.ENDED)


class Process:
    """A schedulable entity: who it is, its priority and its state.

    Attributes:
        priority: higher runs first.
        arrival: order in which processes became ready, set by the scheduler.
        arrival_tick: when it became ready.
        ready_tick: the same, or when it paused since.
        prepared_tick: when it is prepared to run, if the policy prepares ahead.
        expected_ticks: how long it will run when chosen, as far as is known.
        qubit_tick: when the life of its qubits began, None if it owns none.
    """

    __slots__ = (
        "arrival",
        "arrival_tick",
        "expected_ticks",
        "pid",
        "prepared_tick",
        "priority",
        "qubit_tick",
        "ready_tick",
        "state",
    )

    def __init__(self, pid: int, priority: int) -> None:
        self.pid = pid
        self.priority = priority
        self.state = ProcessState.IDLE
        self.arrival = self.arrival_tick = self.ready_tick = self.prepared_tick = 0
        self.expected_ticks = 0
        self.qubit_tick: int | None = None

    @property
    def is_network(self) -> bool:
        """Whether this is the network process."""
        return self.pid == NETWORK_PID

    def handle(self, event: ProcessEvent) -> None:
        """Move to the next state.

        Raises:
            RuntimeError: the transition does not exist: a defect of the kernel.
        """
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise RuntimeError(
                f"process {self.pid} is {self.state.value} and cannot be {event.value}"
            ) from None


@dataclass(frozen=True, slots=True)
class PendingSubroutine:
    """A subroutine on its way through a process.

    Attributes:
        client: connection that sent it.
        request: the client's number for it.
        serial: number within the process, from 0.
        body: its instructions, encoded.
        prepared_tick: when it is prepared to run, if that began as it came.
    """

    client: int
    request: int
    serial: int
    body: bytes
    prepared_tick: int | None = None


class UserProcess(Process):
    """The process of one registered program.

    Attributes:
        owner: (client, application id) of the program.
        max_qubits: how many virtual qubits it may have mapped at once.
        current: the subroutine being run, None between two.
        pending: subroutines that wait for their turn.
        compiled: compiled subroutines by their bytes, oldest first.
        compiled_bytes: length of those bytes in all.
        next_serial: serial number of the next subroutine.
    """

    __slots__ = (
        "compiled",
        "compiled_bytes",
        "current",
        "execution",
        "max_qubits",
        "memory",
        "next_serial",
        "owner",
        "pending",
    )

    def __init__(
        self, pid: int, owner: tuple[int, int], max_qubits: int, limits: Limits, priority: int = 0
    ) -> None:
        super().__init__(pid, priority)
        self.owner = owner
        self.max_qubits = max_qubits
        self.memory = ProcessMemory(limits)
        self.execution = Execution(limits)
        self.current: PendingSubroutine | None = None
        self.pending: deque[PendingSubroutine] = deque()
        self.compiled: dict[bytes, list[Operation]] = {}
        self.compiled_bytes = 0
        self.next_serial = 0
