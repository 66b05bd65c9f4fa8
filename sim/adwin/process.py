"""A loaded process: the state its generated program works on, and how a section is run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

from sim.adwin.arithmetic import EndProcess, ExitSection, Fault, namespace, wrap
from sim.adwin.errors import HardwareFault, Location, ProcessFault
from sim.adwin.frames import NEVER
from sim.adwin.hardware import Hardware
from sim.adwin.memory import SharedMemory
from sim.adwin.program import Program

MAX_EDGES_WAITING: Final = 100_000
"""Bound on the external edges announced to a process."""


class Horizon:
    """The cycle at which a running program hands back control, after the event at hand."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = 0


class Process:
    """A process of a simulated ADwin. Times are in processor cycles.

    Attributes:
        running: whether it has been started and has not ended.
        cycle: when what ran last was done.
        start: when the next event starts; the generated loop keeps it up to date.
        tick: when the timer asked for the next event.
        delay: the Processdelay.
        events: how many events have run since the start.
        lost_events: how many came too early to be served.
        busy_cycles: processor time used since the start.
    """

    def __init__(self, program: Program, memory: SharedMemory, hardware: Hardware) -> None:
        self.program = program
        self.hardware = hardware
        self.par, self.fpar = memory.par, memory.fpar
        self.arrays: dict[str, Any] = memory.allocate(program.number, program.arrays)
        self.variables: tuple[int | float, ...] = tuple(program.variables.values())
        self._places = {name: place for place, name in enumerate(program.variables)}
        self.running = False
        self.delay = program.initial_processdelay
        self.cycle = self.start = self.tick = 0
        self.events = self.lost_events = self.busy_cycles = 0
        self._edges: deque[int] = deque()
        names = namespace(memory.model)
        # The only code executed is what `transpile` wrote from the parsed tree.
        exec(program.code(), names)
        self._sections: dict[str, Callable[[Process, Horizon], None]] = {
            name: names[name] for name in ("initialise", "event", "finish")
        }

    def begin(self, cycle: int, horizon: Horizon) -> None:
        """Run LOWINIT and INIT; the first timer event follows one Processdelay later (assumed).

        Raises:
            ProcessFault: the program did something illegal.
        """
        self.events = self.lost_events = self.busy_cycles = 0
        self._edges.clear()
        self.cycle = self.start = cycle
        self.running = True
        if self._run("initialise", horizon):
            self.busy_cycles = self.cycle - cycle
            self.start = self.tick = self._first_event()

    def _first_event(self) -> int:
        if self.program.external:
            return NEVER
        if self.program.clocked:
            return (self.cycle // self.delay + 1) * self.delay
        return self.cycle + self.delay

    def run(self, horizon: Horizon) -> None:
        """Run the events that start before the horizon.

        Raises:
            ProcessFault: the program did something illegal.
        """
        self._run("event", horizon)
        if self.program.external:
            self._next_edge()

    def skip(self, events: int, changes: Mapping[str, int], busy_cycles: int) -> None:
        """Leave out events of which the caller knows that they would only count.

        Args:
            events: how many.
            changes: what they would add to variables, by their Python name.
            busy_cycles: processor time each would take.
        """
        values = list(self.variables)
        for name, change in changes.items():
            place = self._places[name]
            values[place] = wrap(int(values[place]) + change)
        self.variables = tuple(values)
        self.start += events * self.delay
        self.tick += events * self.delay
        self.cycle = max(self.cycle, self.start - self.delay + busy_cycles)
        self.events += events
        self.busy_cycles += events * busy_cycles

    def variable(self, name: str) -> int | float:
        """A scalar of the program, by its Python name."""
        return self.variables[self._places[name]]

    def integers(self, names: tuple[str, ...]) -> list[int]:
        """Several LONG scalars of the program, by their Python names."""
        values, places = self.variables, self._places
        return [int(values[places[name]]) for name in names]

    def end(self, cycle: int, horizon: Horizon) -> None:
        """Run FINISH, from outside.

        Raises:
            ProcessFault: the program did something illegal.
        """
        self.cycle = max(cycle, self.cycle)
        self.running = False
        self._run("finish", horizon)

    def announce_edge(self, cycle: int) -> None:
        """An edge at the event input, not before those announced already.

        Raises:
            HardwareFault: too many are waiting, or time goes backwards.
        """
        if len(self._edges) == MAX_EDGES_WAITING or (self._edges and cycle < self._edges[-1]):
            raise HardwareFault(
                f"{self.program.file}: external edge at cycle {cycle}: edges must come in order, "
                f"and at most {MAX_EDGES_WAITING} may wait"
            )
        self._edges.append(cycle)
        if self.start == NEVER:
            self._next_edge()

    def _next_edge(self) -> None:
        """Let the next edge start an event; edges during an event are lost, but one (assumed)."""
        missed = 0
        while self._edges and self._edges[0] < self.cycle:
            missed += 1
            self._edges.popleft()
        if missed:
            self.lost_events += missed - 1
            self.start = self.tick = self.cycle
        elif self._edges:
            self.start = self.tick = self._edges.popleft()

    def _run(self, section: str, horizon: Horizon) -> bool:
        """Run one section's function; False if the process ended in it."""
        try:
            self._sections[section](self, horizon)
        except ExitSection:
            return True
        except EndProcess:
            self.busy_cycles += self.cycle - self.start
            ended = self.running
            self.running = False
            if ended and section != "finish":
                self._run("finish", horizon)
            return False
        except (Fault, HardwareFault, ArithmeticError, IndexError, ValueError) as error:
            location = self._location(error.__traceback__)
            if location is None:
                raise
            self.running = False
            raise ProcessFault(
                f"{location.file}:{location.line}: process {self.program.number} stopped: "
                f"{_reason(error)} (in: {location.text.strip()})"
            ) from error
        except Exception as error:
            self.running = False
            if location := self._location(error.__traceback__):
                error.add_note(f"while running {location.file}:{location.line}")
            raise
        return True

    def _location(self, traceback: TracebackType | None) -> Location | None:
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == self.program.python_name:
                return self.program.lines[traceback.tb_lineno - 1]
            traceback = traceback.tb_next
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, IndexError):
        return "an array index is beyond the last element"
    return str(error) or type(error).__name__
