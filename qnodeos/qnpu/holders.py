"""Programs that keep a qubit which others want."""

from __future__ import annotations

from qnodeos.limits import Limits
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.qmmu import QMMU


class Holders:
    """Knows since when a program has kept a qubit that is wanted.

    Args:
        qmmu: knows who owns what.
        entanglement: keeps pairs for programs that have yet to receive them.
        capabilities: of the device.
        limits: how long a program may keep a qubit; for ever if qubit_ticks is 0.
    """

    def __init__(
        self,
        qmmu: QMMU,
        entanglement: EntanglementManager,
        capabilities: Capabilities,
        limits: Limits,
    ) -> None:
        self._qmmu = qmmu
        self._entanglement = entanglement
        self._capabilities = capabilities
        self._most_ticks = limits.qubit_ticks
        self._since: dict[int, int] = {}

    def late(self, tick: int, *, is_short: bool, link_waits: bool, has_room: bool) -> list[int]:
        """Processes that have kept a wanted qubit for too long.

        Args:
            tick: now.
            is_short: whether a program or a circuit waits for a qubit: then all are wanted.
            link_waits: whether entanglement is to be made: then the communication qubits are
                wanted, and all if nothing can be moved away from there.
            has_room: whether a communication qubit is free or can be made so.
        """
        if not self._most_ticks:
            return []
        wanted = self._wanted(is_short, link_waits, has_room)
        holders = self._qmmu.holders(wanted) | self._entanglement.holders(wanted)
        self._since = {pid: self._since.get(pid, tick) for pid in holders}
        return [pid for pid, since in self._since.items() if tick - since >= self._most_ticks]

    def _wanted(self, is_short: bool, link_waits: bool, has_room: bool) -> tuple[int, ...]:
        if is_short:
            return self._capabilities.qubits
        if not link_waits:
            return ()
        if not self._capabilities.memory_qubits:
            return self._capabilities.communication_qubits
        return () if has_room else self._capabilities.qubits

    def next_tick(self) -> int | None:
        """When somebody will have kept a qubit for too long; None if nobody will."""
        if not self._since:
            return None
        return min(self._since.values()) + self._most_ticks
