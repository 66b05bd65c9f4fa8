"""Classical memory of a process: 64 registers, and arrays."""

from __future__ import annotations

from qnodeos.api.netqasm import REGISTERS
from qnodeos.errors import ArrayAccessError, LimitError
from qnodeos.limits import Limits

Array = list[int | None]


class ProcessMemory:
    """Registers and arrays; they persist over the subroutines of a process.

    Attributes:
        registers: values by encoded register number; all start at 0.
        arrays: entries by array address; None is an undefined entry.
    """

    __slots__ = ("_entries", "_limits", "arrays", "registers")

    def __init__(self, limits: Limits) -> None:
        self.registers: list[int] = [0] * REGISTERS
        self.arrays: dict[int, Array] = {}
        self._entries = 0
        self._limits = limits

    def create_array(self, address: int, length: int) -> None:
        """Create (or replace) an array of undefined entries.

        The SDK never re-uses an address, so a long program would fill any memory: beyond
        the limit on entries, the arrays created first are evicted.

        Raises:
            ArrayAccessError: negative address or length.
            LimitError: longer than an array may be.
        """
        if address < 0 or length < 0:
            raise ArrayAccessError(f"array @{address} of length {length}: neither may be negative")
        if length > self._limits.array_length:
            raise LimitError(
                f"array @{address} of length {length} exceeds array_length="
                f"{self._limits.array_length}"
            )
        previous = self.arrays.pop(address, None)
        self._entries += length - (len(previous) if previous is not None else 0)
        self.arrays[address] = [None] * length
        while self._entries > self._limits.array_entries and len(self.arrays) > 1:
            oldest = next(iter(self.arrays))
            self._entries -= len(self.arrays.pop(oldest))

    def array(self, address: int) -> Array:
        """The entries of an array.

        Raises:
            ArrayAccessError: there is no such array.
        """
        try:
            return self.arrays[address]
        except KeyError:
            raise ArrayAccessError(
                f"there is no array @{address}: it was never created, or evicted (a process "
                f"keeps array_entries={self._limits.array_entries} entries)"
            ) from None

    def entry(self, address: int, index: int) -> Array:
        """The array, after checking that it has an entry ``index``.

        Raises:
            ArrayAccessError: no such array or entry.
        """
        array = self.array(address)
        if not 0 <= index < len(array):
            raise ArrayAccessError(
                f"index {index} is outside array @{address} of length {len(array)}"
            )
        return array

    def slice(self, address: int, start: int, stop: int) -> Array:
        """The entries start..stop-1 of an array, after checking the bounds.

        Raises:
            ArrayAccessError: no such array, or the slice leaves it.
        """
        array = self.array(address)
        if not 0 <= start <= stop <= len(array):
            raise ArrayAccessError(
                f"slice {start}:{stop} does not fit array @{address} of length {len(array)}"
            )
        return array[start:stop]
