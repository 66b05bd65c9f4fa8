"""A transpiled ADbasic program: Python text, and what is needed to run it."""

from __future__ import annotations

from dataclasses import dataclass
from types import CodeType

from sim.adwin.errors import Location
from sim.adwin.tree import Kind

SECTIONS = ("initialise", "event", "finish")
"""The functions of a generated module."""


@dataclass(frozen=True)
class ArrayShape:
    """A declared array.

    Attributes:
        length: number of elements, over both dimensions.
        columns: length of the second dimension; None with one dimension.
        place: memory named by AT, or None.
    """

    kind: Kind
    length: int
    columns: int | None
    fifo: bool
    place: str | None


@dataclass(frozen=True)
class Program:
    """What the transpiler makes of a source.

    Attributes:
        file: path of the source.
        number: process number, 1 to 10.
        initial_processdelay: in cycles, from the header.
        external: whether announced external edges start events instead of the timer.
        clocked: whether an external clock does, with edges at multiples of the Processdelay.
        low_priority: whether other processes go first and may interrupt it.
        variables: scalars in the order in which `Process` keeps them, with their initial value.
        arrays: by name.
        python: the generated module.
        lines: place in the source of every line of it, if it has one.
    """

    file: str
    number: int
    initial_processdelay: int
    external: bool
    clocked: bool
    low_priority: bool
    variables: dict[str, int | float]
    arrays: dict[str, ArrayShape]
    python: str
    lines: tuple[Location | None, ...]

    @property
    def python_name(self) -> str:
        """What tracebacks call the generated module."""
        return f"<generated from {self.file}>"

    def code(self) -> CodeType:
        """The generated module, compiled."""
        return compile(self.python, self.python_name, "exec")
