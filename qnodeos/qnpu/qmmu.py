"""The quantum memory management unit: who owns which physical qubit, under which name.

One invariant carries everything: a physical qubit is free or has exactly one owner, and
the two maps (virtual to physical, physical to owner) are inverses of each other.
"""

from __future__ import annotations

from collections.abc import Iterable

from qnodeos.errors import NoQubitError, QubitAccessError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qnpu.process import NETWORK_PID

MAX_VIRTUAL = 255
"""Highest virtual address; NetQASM's max_qubits is an 8-bit number."""


class QMMU:
    """Maps the virtual qubits of processes to physical ones.

    The network process has no virtual addresses: it holds physical qubits while it makes
    entanglement, then transfers them to the process that asked for it.
    """

    def __init__(self, capabilities: Capabilities) -> None:
        self._qubits = capabilities.qubits
        self._owner: dict[int, tuple[int, int | None]] = {}
        self._map: dict[tuple[int, int], int] = {}

    @property
    def size(self) -> int:
        """How many physical qubits the device has."""
        return len(self._qubits)

    def physical(self, pid: int, virtual: int) -> int | None:
        """Physical address behind a virtual one, None if not mapped."""
        return self._map.get((pid, virtual))

    def owner(self, physical: int) -> int | None:
        """Process that owns a physical qubit, None if it is free."""
        entry = self._owner.get(physical)
        return entry[0] if entry is not None else None

    def owned(self, pid: int) -> list[int]:
        """Physical qubits of a process."""
        return [physical for physical, (owner, _) in self._owner.items() if owner == pid]

    def holders(self, among: Iterable[int]) -> set[int]:
        """User processes that own one of some physical qubits."""
        owners = {self.owner(physical) for physical in among}
        return {owner for owner in owners if owner is not None and owner != NETWORK_PID}

    def first_free(self, among: Iterable[int]) -> int | None:
        """The first of some physical qubits that nobody owns, None if all are owned."""
        for physical in among:
            if physical not in self._owner:
                return physical
        return None

    def free_qubits(self, among: Iterable[int] | None = None) -> list[int]:
        """Physical qubits nobody owns, in the device's order."""
        return [q for q in (self._qubits if among is None else among) if q not in self._owner]

    def allocate(self, pid: int, virtual: int, max_qubits: int) -> int | None:
        """Map a free physical qubit to a virtual address.

        Returns:
            The physical address, or None if every qubit this process does not own is
            taken by others, who may yet free one.

        Raises:
            QubitAccessError: the virtual address is out of range or already mapped.
            NoQubitError: the process has all the qubits it may have, or all there are.
        """
        self.check_available(pid, virtual, max_qubits)
        free = self.free_qubits()
        if not free:
            return None
        self._bind(pid, virtual, free[0])
        return free[0]

    def check_available(self, pid: int, virtual: int, max_qubits: int) -> None:
        """Whether a process may have one more qubit, under this virtual address.

        Raises:
            QubitAccessError: the virtual address is out of range or already mapped.
            NoQubitError: the process has all the qubits it may have, or all there are.
        """
        if not 0 <= virtual <= MAX_VIRTUAL:
            raise QubitAccessError(f"virtual qubit {virtual} is outside 0..{MAX_VIRTUAL}")
        if (pid, virtual) in self._map:
            raise QubitAccessError(
                f"virtual qubit {virtual} is already allocated; free it or use another address"
            )
        mine = len(self.owned(pid))
        device = f"the device has {_qubits(len(self._qubits))}"
        if mine >= len(self._qubits):
            them = "it" if mine == 1 else "them all"
            raise NoQubitError(f"{device}, and this program holds {them}; measure or free one")
        if mine >= max_qubits:
            raise NoQubitError(
                f"the program registered for {_qubits(max_qubits)} and holds as many; free one, "
                f"or register with a larger max_qubits ({device})"
            )

    def reserve(self, physical: int) -> None:
        """Give a free physical qubit to the network process.

        Raises:
            NoQubitError: somebody owns it.
        """
        if physical in self._owner:
            raise NoQubitError(
                f"physical qubit {physical} belongs to process {self._owner[physical][0]}"
            )
        self._owner[physical] = (NETWORK_PID, None)

    def release(self, physical: int) -> None:
        """Take a physical qubit back from the network process.

        Raises:
            QubitAccessError: the network process does not own it.
        """
        self._require_network(physical)
        del self._owner[physical]

    def transfer(self, physical: int, pid: int, virtual: int, max_qubits: int) -> None:
        """Hand a qubit of the network process to a user process.

        Raises:
            QubitAccessError: the network process does not own it, or the virtual address
                is out of range or already mapped.
            NoQubitError: the process has all the qubits it may have.
        """
        self._require_network(physical)
        self.check_available(pid, virtual, max_qubits)
        self._bind(pid, virtual, physical)

    def move(self, old: int, new: int) -> int | None:
        """Tell that the state of a physical qubit is in another one now.

        Args:
            old: where it was; free afterwards.
            new: where it is; belonged to the network process.

        Returns:
            The process that owns the state. None if the old qubit had been freed meanwhile;
            then the new one is free, too.

        Raises:
            QubitAccessError: the network process does not own the new one.
        """
        self._require_network(new)
        name = self._owner.pop(old, None)
        if name is None:
            del self._owner[new]
            return None
        self._owner[new] = name
        pid, virtual = name
        if virtual is not None:
            self._map[pid, virtual] = new
        return pid

    def free(self, pid: int, virtual: int) -> int:
        """Unmap a virtual qubit; returns the physical address that is free now.

        Raises:
            QubitAccessError: it is not mapped.
        """
        physical = self._map.pop((pid, virtual), None)
        if physical is None:
            raise QubitAccessError(f"virtual qubit {virtual} is not allocated")
        del self._owner[physical]
        return physical

    def free_all(self, pid: int) -> list[int]:
        """Take every qubit of a process back; returns their physical addresses."""
        freed = self.owned(pid)
        for physical in freed:
            _, virtual = self._owner.pop(physical)
            if virtual is not None:
                del self._map[pid, virtual]
        return freed

    def _bind(self, pid: int, virtual: int, physical: int) -> None:
        self._map[pid, virtual] = physical
        self._owner[physical] = (pid, virtual)

    def _require_network(self, physical: int) -> None:
        if self.owner(physical) != NETWORK_PID:
            raise QubitAccessError(
                f"physical qubit {physical} does not belong to the network process"
            )


def _qubits(count: int) -> str:
    return "1 qubit" if count == 1 else f"{count} qubits"
