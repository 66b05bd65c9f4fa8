"""The Python functions around the sections of a generated program.

Each takes the `Process` and the `Horizon`, copies the state it needs to local variables, and
writes it back whatever happens. That of EVENT loops over events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from sim.adwin.errors import Location
from sim.adwin.options import ProcessorModel

NEVER: Final = 1 << 62
"""A cycle that does not come."""

Line = tuple[str, Location | None]
"""A line of Python, and what it comes from."""


class SectionFrame(NamedTuple):
    """A section's statements, and what the function around them has to provide.

    Attributes:
        name: of the function; "event" for the loop over events.
        body: its statements, indented for a `try` within the function or its loop.
        exits: whether EXIT leaves it.
        loops: whether it has loops, which need a bound.
        external: whether an external edge starts its events.
        arrays: Python names of the arrays in it.
        instructions: instructions to modules in it.
    """

    name: str
    body: list[Line]
    exits: bool
    loops: bool
    external: bool
    arrays: tuple[str, ...]
    instructions: tuple[str, ...]

    def lines(self, model: ProcessorModel, variables: list[str]) -> list[Line]:
        """The whole function.

        Args:
            model: the processor.
            variables: Python names of all scalars of the program.
        """
        write = self._event if self.name == "event" else self._once
        opening, closing = write(model, variables)
        indent = " " * (12 if self.name == "event" else 8)
        return [*_plain(opening), *self._guarded(indent), *_plain(closing)]

    def _opening(self, variables: list[str]) -> list[str]:
        return [
            f"def {self.name}(process, horizon):",
            "    par, fpar = process.par, process.fpar",
            *([f"    {_tuple(variables)} = process.variables"] if variables else []),
            *(
                f"    {array} = process.arrays[{array.removeprefix('a_')!r}]"
                for array in self.arrays
            ),
            *(f"    {name} = process.hardware.{name}" for name in self.instructions),
        ]

    def _guarded(self, indent: str) -> list[Line]:
        body = self.body or [(indent + "    pass", None)]
        if not self.exits:
            return [(line.removeprefix("    "), location) for line, location in body]
        handler = [f"{indent}except ExitSection:", f"{indent}    pass"]
        return [(f"{indent}try:", None), *body, *_plain(handler)]

    def _once(self, model: ProcessorModel, variables: list[str]) -> tuple[list[str], list[str]]:
        opening = [*self._opening(variables), "    cycle, delay = process.cycle, process.delay"]
        if self.loops:
            opening.append(f"    deadline = cycle + {model.max_section_cycles}")
        closing = [
            "    finally:",
            f"        process.variables = {_tuple(variables)}",
            "        process.cycle, process.delay = cycle, delay",
        ]
        return [*opening, "    try:"], closing

    def _event(self, model: ProcessorModel, variables: list[str]) -> tuple[list[str], list[str]]:
        opening = [
            *self._opening(variables),
            "    start, tick, delay = process.start, process.tick, process.delay",
            "    lost, busy, events = process.lost_events, process.busy_cycles, process.events",
            "    cycle = start",
            "    try:",
            "        while start < horizon.until:",
            f"            cycle = start + {model.costs.event}",
            "            events += 1",
        ]
        if self.loops:
            opening.append(f"            deadline = start + {model.max_section_cycles}")
        following = [
            "            tick += delay",
            "            if cycle <= tick:",
            "                start = tick",
            "            else:",
            "                start, tick, lost = overrun(cycle, tick, delay, lost)",
        ]
        if self.external:
            following = [f"            start = tick = {NEVER}"]
        closing = [
            "            busy += cycle - start",
            *following,
            "    finally:",
            f"        process.variables = {_tuple(variables)}",
            "        process.cycle, process.delay = cycle, delay",
            "        process.start, process.tick = start, tick",
            "        process.lost_events, process.busy_cycles, process.events = lost, busy, events",
        ]
        return opening, closing


def _plain(lines: Iterable[str]) -> list[Line]:
    return [(line, None) for line in lines]


def _tuple(names: list[str]) -> str:
    """A tuple of names, to unpack or to build."""
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"
