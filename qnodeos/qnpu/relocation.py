"""Moving a qubit away from where entanglement is made, to make room for the next pair.

Many devices make entanglement with few of their qubits and have others to store it: an NV
centre with its electron, and with 13C memories. When a time bin begins and every communication
qubit is taken, but a memory qubit is free, the state of a communication qubit is moved there.
Whoever owns it does not notice: the QMMU maps the same virtual qubit to another physical one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qnodeos.errors import DeviceFailureError, QNodeOSError
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.process import NETWORK_PID, UserProcess
from qnodeos.qnpu.qmmu import QMMU


@dataclass(frozen=True, slots=True)
class _Move:
    """From one physical qubit to another."""

    old: int
    new: int


class Relocation:
    """Makes room for entanglement; one move at a time, when no program runs.

    Args:
        driver: the QDriver of the device.
        qmmu: knows who owns what.
        entanglement: keeps qubits of pairs that nobody has received yet.
        processes: the user processes alive, by process id.
        fault: ends a process because of an error.

    Attributes:
        layer_moved: told of the old and new place of a qubit that belongs to the network
            process and no ER socket keeps; the new one is None if the qubit was lost.
    """

    def __init__(
        self,
        driver: QDriver,
        qmmu: QMMU,
        entanglement: EntanglementManager,
        processes: Mapping[int, UserProcess],
        fault: Callable[[UserProcess, QNodeOSError], None],
    ) -> None:
        self._driver = driver
        self._communication_qubits = driver.capabilities.communication_qubits
        self._memory_qubits = driver.capabilities.memory_qubits
        self._qmmu = qmmu
        self._entanglement = entanglement
        self._processes = processes
        self._fault = fault
        self._move: _Move | None = None
        self.layer_moved: Callable[[int, int | None], None] = lambda old, new: None

    @property
    def is_possible(self) -> bool:
        """Whether a communication qubit is free, or can be made so."""
        return (
            self._qmmu.first_free(self._communication_qubits) is not None
            or self._qmmu.first_free(self._memory_qubits) is not None
        )

    def begin(self) -> Sequence[PhysicalInstruction]:
        """What the device has to do to free a communication qubit; nothing if it cannot be."""
        new = self._qmmu.first_free(self._memory_qubits)
        if new is None:
            return ()
        old = self._communication_qubits[0]
        self._qmmu.reserve(new)
        self._move = _Move(old, new)
        return self._driver.two_qubit_gate("mov", old, new)

    def done(self, outcome: Outcome) -> bool:
        """The device has made the move, or failed; returns whether it was made."""
        move, self._move = self._move, None
        assert move is not None
        if not outcome.is_success:
            self._qmmu.release(move.new)
            self._lose(move.old, outcome)
            return False
        owner = self._qmmu.move(move.old, move.new)
        if owner == NETWORK_PID:
            if self._entanglement.keeper(move.old) is not None:
                self._entanglement.moved(move.old, move.new)
            else:
                self.layer_moved(move.old, move.new)
        return True

    def _lose(self, old: int, outcome: Outcome) -> None:
        owner = self._qmmu.owner(old)
        keeper = self._entanglement.keeper(old)
        process = keeper if owner == NETWORK_PID else self._processes.get(owner or NETWORK_PID)
        if process is not None:
            self._fault(
                process,
                DeviceFailureError(
                    f"the device answered {outcome.name} when a qubit of the program was moved "
                    "to make room for entanglement"
                ),
            )
        elif owner == NETWORK_PID:
            self.layer_moved(old, None)
