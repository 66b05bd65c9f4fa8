"""The processor of a simulated ADwin-Pro II, shared by its processes, in virtual time.

High-priority processes do not interrupt each other; of two whose events are due, the earlier
goes first, and then the lower number (assumed). Low-priority processes run when no other event
is due; the others interrupt them, so their events delay nobody (assumed).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sim.adwin.errors import HardwareFault
from sim.adwin.hardware import Hardware
from sim.adwin.memory import SharedMemory
from sim.adwin.options import ProcessorModel
from sim.adwin.process import Horizon, Process
from sim.adwin.program import Program

PROCESSES: Final = range(1, 11)
"""Numbers a process can have."""


class AdwinSystem:
    """Processor, memory and processes.

    Nothing happens until `run_until_cycle` lets time pass. Then a process runs many events in
    one call, until another process is due, the given cycle is reached, or somebody, for
    instance the hardware on an output's edge, calls `pause`.

    Args:
        hardware: what instructions act on.
        model: the processor and its options.
    """

    def __init__(self, hardware: Hardware, model: ProcessorModel | None = None) -> None:
        self.hardware = hardware
        self.model = model or ProcessorModel.t11()
        self.memory = SharedMemory(self.model)
        self.processes: dict[int, Process] = {}
        self._now = 0
        self._free_from = 0
        self._paused = False
        self._horizon = Horizon()
        self._workload_since = (0, 0)
        self._busy_before = 0

    @property
    def now_cycle(self) -> int:
        """Virtual time in processor cycles."""
        return self._now

    @property
    def now_ns(self) -> float:
        """Virtual time."""
        return self.model.time_ns(self._now)

    def reset(self) -> None:
        """Forget processes, PAR, FPAR and DATA, as booting does; time goes on."""
        self.memory = SharedMemory(self.model)
        self._busy_before += sum(process.busy_cycles for process in self.processes.values())
        self.processes = {}

    def load(self, program: Program) -> Process:
        """Load a process, in the place of one with the same number.

        Raises:
            MemoryExceeded: its arrays do not fit.
        """
        self.clear(program.number)
        process = Process(program, self.memory, self.hardware)
        self.processes[program.number] = process
        return process

    def clear(self, number: int) -> None:
        """Remove a process without running its FINISH; none is no error."""
        process = self.processes.pop(number, None)
        if process is not None:
            self._busy_before += process.busy_cycles
            self.memory.release(number)

    def start(self, number: int) -> None:
        """Start a process now, or start it anew.

        Raises:
            KeyError: it is not loaded.
            ProcessFault: LOWINIT or INIT did something illegal.
        """
        process = self.processes[number]
        self._busy_before += process.busy_cycles
        process.begin(max(self._now, self._free_from), self._horizon)
        self._occupy(process)

    def stop(self, number: int) -> None:
        """Stop a running process now, and run its FINISH.

        Raises:
            KeyError: it is not loaded.
            ProcessFault: FINISH did something illegal.
        """
        process = self.processes[number]
        if process.running:
            process.end(max(self._now, self._free_from), self._horizon)
            self._occupy(process)

    def trigger(self, number: int, cycle: int) -> None:
        """An external edge at the event input of a process, now or later.

        Raises:
            HardwareFault: there is no such process, it waits for the timer, or the edge is late.
        """
        process = self.processes.get(number)
        if process is None or not process.program.external:
            raise HardwareFault(f"process {number} does not wait for external events")
        if cycle < self._now:
            raise HardwareFault(f"an edge at cycle {cycle}; it is {self._now} already")
        if process.running:
            process.announce_edge(cycle)

    def pause(self) -> None:
        """Let `run_until_cycle` return after the event at hand."""
        self._paused = True
        self._horizon.until = 0

    def run_for_ns(self, time_ns: float) -> None:
        """Let some time pass; see `run_until_cycle`."""
        self.run_until_cycle(self._now + self.model.cycles(time_ns))

    def run_until_cycle(self, until: int) -> int:
        """Let time pass: run all events that start before a cycle.

        Returns:
            The cycle that was reached: `until`, or less after `pause`.

        Raises:
            ProcessFault: a program did something illegal; that process has stopped.
        """
        self._paused = False
        while not self._paused:
            due = [p for p in self.processes.values() if p.running and p.start < until]
            if not due:
                self._now = max(self._now, until)
                break
            process, horizon = due[0], until
            if len(due) > 1:
                process = min(due, key=self._urgency)
                horizon = min(other.start for other in due if other is not process)
            if process.start < self._free_from:
                process.start = self._free_from
                if process.start >= until:
                    continue
            # At least one event, then whoever is due next.
            self._horizon.until = horizon if horizon > process.start else process.start + 1
            try:
                process.run(self._horizon)
            finally:
                self._now = min(until, max(self._now, process.cycle))
                self._occupy(process)
        return self._now

    def run_event(self, number: int) -> None:
        """Run the next event of the only process that runs.

        Raises:
            ProcessFault: the program did something illegal; it has stopped.
        """
        process = self.processes[number]
        self._horizon.until = process.start + 1
        try:
            process.run(self._horizon)
        finally:
            self._now = max(self._now, process.cycle)
            self._occupy(process)

    def skip(self, number: int, events: int, changes: Mapping[str, int], busy_cycles: int) -> None:
        """Leave out events of the only process that runs; see `Process.skip`."""
        process = self.processes[number]
        process.skip(events, changes, busy_cycles)
        self._now = max(self._now, process.cycle)
        self._occupy(process)

    def workload(self) -> int:
        """Share of processor time used since this was last asked, in percent."""
        busy = self._busy_before + sum(process.busy_cycles for process in self.processes.values())
        then, busy_then = self._workload_since
        self._workload_since = (self._now, busy)
        elapsed = self._now - then
        return min(100, round(100 * (busy - busy_then) / elapsed)) if elapsed else 0

    def _urgency(self, process: Process) -> tuple[int, bool, int]:
        start = max(process.start, self._free_from)
        return start, process.program.low_priority, process.program.number

    def _occupy(self, process: Process) -> None:
        if process.cycle > self._free_from and not process.program.low_priority:
            self._free_from = process.cycle
