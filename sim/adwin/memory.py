"""What the processes of a simulated ADwin share with each other and with the host."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from sim.adwin.options import ProcessorModel
from sim.adwin.program import ArrayShape
from sim.adwin.tree import Kind

_PLACES = {"pm_local": 1, "em_local": 2, "dm_local": 3, "dram_extern": 4, "cacheable": 5}


class MemoryExceeded(Exception):
    """The arrays of a process do not fit."""


@dataclass
class DataArray:
    """A DATA array.

    Attributes:
        values: a list with the element n at index n (index 0 is unused), or a deque for a FIFO.
        owners: numbers of the processes that declare it.
    """

    shape: ArrayShape
    values: list[Any] | deque[Any]
    owners: set[int] = field(default_factory=set)


@dataclass
class SharedMemory:
    """PAR, FPAR and DATA.

    Attributes:
        par: PAR_n at index n.
        fpar: FPAR_n at index n.
        data: DATA_n by number.
        used: bytes in use by kind of memory and process.
    """

    model: ProcessorModel
    par: list[int] = field(default_factory=lambda: [0] * 81)
    fpar: list[float] = field(default_factory=lambda: [0.0] * 81)
    data: dict[int, DataArray] = field(default_factory=dict)
    used: dict[int, dict[int, int]] = field(default_factory=dict)

    def elements(self, number: int) -> list[Any]:
        """The values of a DATA array, element n at index n; index 0 is unused.

        Raises:
            KeyError: no process declares it, or it is a FIFO.
        """
        values = self.data[number].values
        if not isinstance(values, list):
            raise KeyError(f"DATA_{number} is a FIFO")
        return values

    def free(self, memory: int) -> int:
        """Free bytes of one kind of memory."""
        used = sum(sizes.get(memory, 0) for sizes in self.used.values())
        return self.model.memory_bytes[memory] - used

    def allocate(self, process: int, shapes: dict[str, ArrayShape]) -> dict[str, Any]:
        """The arrays of a process, by name; DATA that another process declares alike is shared.

        Raises:
            MemoryExceeded: there is not enough memory, or another process declares a DATA
                array in another way.
        """
        self.release(process)
        sizes: dict[int, int] = {}
        for name, shape in shapes.items():
            shared = self.data.get(_data_number(name))
            if shared is not None and shared.owners and shared.shape != shape:
                raise MemoryExceeded(
                    f"{name} is declared otherwise by process {min(shared.owners)}; make the "
                    "declarations equal or clear that process"
                )
            if shared is None or not shared.owners:
                memory = self._place(shape, _data_number(name) > 0)
                sizes[memory] = sizes.get(memory, 0) + shape.length * self._element_bytes(shape)
        for memory, size in sizes.items():
            if size > self.free(memory):
                raise MemoryExceeded(
                    f"the arrays need {size} bytes of memory {memory}, and {self.free(memory)} are "
                    "free; shorten them or place them elsewhere with AT"
                )
        self.used[process] = sizes
        return {name: self._array(process, name, shape) for name, shape in shapes.items()}

    def release(self, process: int) -> None:
        """Forget what a process declared; DATA keeps its values for the host to read."""
        self.used.pop(process, None)
        for array in self.data.values():
            array.owners.discard(process)

    def _array(self, process: int, name: str, shape: ArrayShape) -> Any:
        number = _data_number(name)
        if not number:
            return _values(shape)
        array = self.data.get(number)
        if array is None or (not array.owners and array.shape != shape):
            array = self.data[number] = DataArray(shape, _values(shape))
        array.owners.add(process)
        return array.values

    def _place(self, shape: ArrayShape, is_data: bool) -> int:
        memories = self.model.memory_bytes
        place = _PLACES.get(shape.place or ("dram_extern" if is_data else "dm_local"), 0)
        # A T12 has one kind of memory, whatever AT says (assumed).
        return place if place in memories else max(memories)

    def _element_bytes(self, shape: ArrayShape) -> int:
        return self.model.semantics.float_bits // 8 if shape.kind is Kind.FLOAT else 4


def _data_number(name: str) -> int:
    word, _, number = name.partition("_")
    return int(number) if word == "data" and number.isdecimal() else 0


def _values(shape: ArrayShape) -> list[Any] | deque[Any]:
    zero = 0.0 if shape.kind is Kind.FLOAT else 0
    return deque(maxlen=shape.length) if shape.fifo else [zero] * (shape.length + 1)
