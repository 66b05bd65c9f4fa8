"""The circuits of a node: by their ids, with their deadlines, and what they say to neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

from qnodeos.api.peer import (
    CircuitId,
    CircuitMessage,
    Complete,
    Expire,
    Forward,
    Pass,
    PeerMessage,
    Track,
)
from qnodeos.errors import QNodeOSError
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import Opcode
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.circuits import Circuit, CircuitState
from qnodeos.qnpu.device_jobs import Job
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.isa import INT32_MAX
from qnodeos.qnpu.link_layer import LinkLayer
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.trace.events import Event

_REASON_CHARACTERS: Final = 1_000

_STALE_DEADLINES: Final = 64
"""Deadlines that do not count any more are swept out when there are more than about that many."""

_Deadline = tuple[int, int, Circuit]
"""A tick, a number that orders equal ones, and whose deadline it is."""

SENT: Final[Mapping[type[PeerMessage], Event]] = {
    Forward: Event.QNPD_FORWARD_SENT,
    Pass: Event.QNPD_PASS_SENT,
    Track: Event.QNPD_TRACK_SENT,
    Complete: Event.QNPD_COMPLETE_SENT,
    Expire: Event.QNPD_EXPIRE_SENT,
}
RECEIVED: Final[Mapping[type[PeerMessage], Event]] = {
    Forward: Event.QNPD_FORWARD_RECEIVED,
    Pass: Event.QNPD_PASS_RECEIVED,
    Track: Event.QNPD_TRACK_RECEIVED,
    Complete: Event.QNPD_COMPLETE_RECEIVED,
    Expire: Event.QNPD_EXPIRE_RECEIVED,
}
"""Events of the messages; the published system has none of a teardown."""


@dataclass(frozen=True)
class Surroundings:
    """What the network layer needs of the kernel.

    Attributes:
        node_id: of this node.
        driver: makes the instructions of swaps, corrections and measurements.
        qmmu: knows who owns which qubit.
        entanglement: knows the ER sockets.
        link_layer: makes the segments.
        limits: all bounds.
        now: the present tick.
        next_bin: number of the time bin after the current one.
        send: sends a message to a neighbour.
        add_job: has the network process do something.
        fault: aborts a process because of an error in one of its requests.
        record: puts an event into the trace, with a number.
        random_choice: a random integer below its argument.
        count_pair: a pair with that node has been delivered.
    """

    node_id: int
    driver: QDriver
    qmmu: QMMU
    entanglement: EntanglementManager
    link_layer: LinkLayer
    limits: Limits
    now: Callable[[], int]
    next_bin: Callable[[], int]
    send: Callable[[int, PeerMessage], None]
    add_job: Callable[[Job], None]
    fault: Callable[[UserProcess, QNodeOSError], None]
    record: Callable[[Event, int], None]
    random_choice: Callable[[int], int]
    count_pair: Callable[[int], None]

    @property
    def usable_qubits(self) -> Sequence[int]:
        """Qubits that can hold halves: memories only if states can be moved to them."""
        capabilities = self.driver.capabilities
        if Opcode.MOV in capabilities.instructions:
            return capabilities.qubits
        return capabilities.communication_qubits

    @property
    def can_swap(self) -> bool:
        """Whether the device can join two pairs."""
        has_swap = Opcode.ESW in self.driver.capabilities.instructions
        return has_swap and len(self.usable_qubits) >= 2


class CircuitTable:
    """See the module's docstring.

    Attributes:
        deadline_tick: when the first of all deadlines is.
    """

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._circuits: dict[CircuitId, Circuit] = {}
        self._number = 0
        self._deadlines: list[_Deadline] = []
        self._armed = 0
        self.deadline_tick: int | None = None

    def __len__(self) -> int:
        return len(self._circuits)

    def __iter__(self) -> Iterator[Circuit]:
        """The circuits as they are now; they may end meanwhile."""
        return iter(list(self._circuits.values()))

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another."""
        return len(self._circuits) >= self._around.limits.circuits

    def new_id(self) -> CircuitId:
        """For a circuit that begins here."""
        number = self._number
        self._number = (number + 1) & INT32_MAX
        return CircuitId(self._around.node_id, number)

    def get(self, number: CircuitId) -> Circuit | None:
        """The circuit of an id."""
        return self._circuits.get(number)

    def add(self, circuit: Circuit) -> None:
        """Keep a circuit."""
        self._circuits[circuit.id] = circuit

    def remove(self, circuit: Circuit) -> None:
        """Forget a circuit."""
        del self._circuits[circuit.id]
        self._find_deadline()

    # --- deadlines --------------------------------------------------------------------

    def arm(self, circuit: Circuit) -> None:
        """Watch the first deadline of a circuit, which may have changed."""
        if circuit.state is CircuitState.ENDED:
            return
        due = circuit.due_tick
        if due != circuit.armed_tick:
            circuit.armed_tick = due
            if due is not None:
                self._armed += 1
                heappush(self._deadlines, (due, self._armed, circuit))
                if len(self._deadlines) > 2 * len(self._circuits) + _STALE_DEADLINES:
                    self._deadlines = [each for each in self._deadlines if _counts(each)]
                    heapify(self._deadlines)
            self._find_deadline()

    def pop_due(self, tick: int) -> Circuit | None:
        """A circuit whose deadline has come; it has to be armed again."""
        if self.deadline_tick is None or tick < self.deadline_tick:
            return None
        _, _, circuit = heappop(self._deadlines)
        circuit.armed_tick = None
        self._find_deadline()
        return circuit

    def _find_deadline(self) -> None:
        deadlines = self._deadlines
        while deadlines and not _counts(deadlines[0]):
            heappop(deadlines)
        self.deadline_tick = deadlines[0][0] if deadlines else None

    # --- messages ---------------------------------------------------------------------

    def is_up(self, peer: int) -> bool:
        """Whether there is a connection to a neighbour."""
        link = self._around.link_layer.links.get(peer)
        return link is not None and link.is_up

    def send(self, peer: int, message: CircuitMessage) -> None:
        """Send a message; one that cannot be sent is of a circuit that ends, or has ended."""
        if not self.is_up(peer):
            return
        event = SENT.get(type(message))
        if event is not None:
            self._around.record(event, message.circuit.number)
        self._around.send(peer, message)

    def send_along(
        self, circuit: Circuit, message: CircuitMessage, source: int | None = None
    ) -> None:
        """Send a message to the neighbours on the path, except where it has come from."""
        for peer in (circuit.predecessor, circuit.successor):
            if peer is not None and peer != source:
                self.send(peer, message)


def _counts(deadline: _Deadline) -> bool:
    """Whether a deadline is that of its circuit still."""
    due_tick, _, circuit = deadline
    return circuit.state is not CircuitState.ENDED and circuit.armed_tick == due_tick


def short(reason: str) -> str:
    """A reason as it travels: what a peer says is bounded, and it may be part of ours."""
    return reason[:_REASON_CHARACTERS]
