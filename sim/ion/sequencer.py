"""The FPGA pulse sequencer, executing its words cycle by cycle.

`sequences.sequencer_isa` says what the instructions do; what is not documented there is a fault.
Time is exact: every change of an output has the nanosecond of its cycle. Three things are taken
in one step, and change no cycle: a run of nops, an instruction whose delay slots are nops (so a
wait as well), and the turns of an instruction that branches to itself as long as an input has its
level. A test compares with a plain loop over cycles.

Inputs that change in the nanosecond in which a cycle begins are seen in the next cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from sequences.sequencer_isa import CYCLE_NS, GROUP_BITS, MAX_WORDS, TRIGGER_INPUTS, Op
from sim.ion.sequencer_thread import Prepared, PulseSequencerFault, Thread, prepared

LOOK_AHEAD_STEPS: Final = 100_000
"""How far `SequencerCore.next_change_ns` follows a program that changes nothing."""
WORD_BITS: Final = 32

_GROUP_MASK: Final = (1 << GROUP_BITS) - 1

TtlCallback = Callable[[int, int, int], None]
"""Called with the time in ns, the outputs before, and the outputs after."""


class CoreState(IntEnum):
    """What the sequencer is doing."""

    EMPTY = 0
    STOPPED = 1
    RUNNING = 2
    HALTED = 3
    FAULT = 4


class _Ahead(NamedTuple):
    """Where the program stands before an output may change next, and whether it does at all."""

    thread: Thread
    changes: bool


class SequencerCore:
    """The sequencer. It starts with the program, if it is given one, at time 0.

    Attributes:
        time_ns: up to which it was run: every cycle that begins then or earlier was executed.
        ttl: the 64 outputs.
        state: what it is doing.
        fault: what went wrong, if something did.
        words: its program.

    Args:
        words: of a program.

    Raises:
        ValueError: there are too many words, or one has more than 32 bits.
    """

    def __init__(self, words: Sequence[int] = ()) -> None:
        self.time_ns = 0
        self.ttl = 0
        self.state = CoreState.EMPTY
        self.fault = ""
        self.words: tuple[int, ...] = ()
        self._program: Prepared = ()
        self._thread = Thread(0)
        self._ahead: _Ahead | None = None
        self._lines = 0
        self._software = 0
        self._callbacks: list[TtlCallback] = []
        self._in_callback = False
        if words:
            self.load(words)
            self.state = CoreState.RUNNING

    # --- control ----------------------------------------------------------------------

    def load(self, words: Sequence[int]) -> None:
        """Replace the program of a sequencer that does not run.

        Raises:
            ValueError: it runs; there are too many words; one has more than 32 bits.
        """
        if self.state is CoreState.RUNNING:
            raise ValueError("the sequencer runs; stop it before its program is replaced")
        if len(words) > MAX_WORDS:
            raise ValueError(f"{len(words)} words do not fit into {MAX_WORDS}")
        if not all(0 <= word < 1 << WORD_BITS for word in words):
            raise ValueError(f"a word has more than {WORD_BITS} bits")
        self.words = tuple(words)
        self._program = prepared(self.words)
        self._thread, self._ahead, self.fault = Thread(0), None, ""
        self.state = CoreState.STOPPED if words else CoreState.EMPTY

    def start(self) -> None:
        """Begin at address 0 in the next cycle, also if the program runs already.

        Raises:
            ValueError: there is no program, or this is a callback.
        """
        self._refuse_in_callback()
        if not self.words:
            raise ValueError("there is no program to start")
        self.state, self.fault, self._ahead = CoreState.RUNNING, "", None
        self._thread = Thread(self.time_ns // CYCLE_NS + 1)

    def stop(self) -> None:
        """Stop, and take all outputs low (assumed).

        Raises:
            ValueError: this is a callback.
        """
        self._refuse_in_callback()
        self.state = CoreState.STOPPED if self.words else CoreState.EMPTY
        self._set_ttl(self.time_ns, 0)

    # --- inputs and outputs -----------------------------------------------------------

    @property
    def inputs(self) -> int:
        """What the program sees on the trigger inputs."""
        return self._lines | self._software

    @property
    def software_trigger(self) -> int:
        """The inputs that software holds high."""
        return self._software

    @property
    def address(self) -> int:
        """Of the next word (it may be some nops further on)."""
        self._settle()
        return self._thread.address

    @property
    def is_idle(self) -> bool:
        """Whether it branches to the same place until an input changes, as the dispatch loop."""
        if self.state is not CoreState.RUNNING or (self._ahead and self._ahead.changes):
            return False
        return self._thread.spins(self._program, self.inputs)

    def set_trigger(self, time_ns: int, value: int) -> None:
        """The trigger inputs change.

        Args:
            time_ns: when; cycles that begin then or earlier see the old value. Within a callback
                it can only be the time that this was called with.
            value: all inputs, input 0 in the lowest bit.

        Raises:
            ValueError: the time has passed, or there are no such inputs.
            PulseSequencerFault: see `run_to`.
        """
        _check_inputs(value)
        if not self._in_callback:
            self.run_to(time_ns)
        elif time_ns != self.time_ns:
            raise ValueError(
                f"a callback of {self.time_ns} ns cannot change inputs at {time_ns} ns"
            )
        self._before_inputs(value | self._software)
        self._lines = value

    def set_software_trigger(self, value: int) -> None:
        """Inputs that look high from now on, whatever their lines are.

        Raises:
            ValueError: there are no such inputs.
        """
        _check_inputs(value)
        self._before_inputs(value | self._lines)
        self._software = value

    def on_ttl(self, callback: TtlCallback) -> None:
        """Have every change of an output reported, in order of time."""
        self._callbacks.append(callback)

    # --- time -------------------------------------------------------------------------

    def run_to(self, time_ns: int) -> None:
        """Execute every cycle that begins at this time or earlier.

        Raises:
            ValueError: the time has passed, or this is a callback.
            PulseSequencerFault: the program cannot go on. Its outputs stay as they are.
        """
        self._refuse_in_callback()
        if time_ns < self.time_ns:
            raise ValueError(f"{time_ns} ns is before {self.time_ns} ns, which has passed")
        if self.state is CoreState.FAULT:
            raise PulseSequencerFault(self.fault)
        if self.state is CoreState.RUNNING:
            limit = time_ns // CYCLE_NS + 1
            ahead = self._ahead
            if ahead and ahead.thread.cycle < limit:
                self._thread, self._ahead = ahead.thread, None
            if not (self._ahead and self._ahead.changes):
                self._execute(limit)
        self.time_ns = time_ns

    def next_change_ns(self) -> int | None:
        """When an output changes next, if the inputs stay as they are.

        Returns:
            None if never. A program that does nothing visible for very long may be given a time
            at which nothing happens either. A fault is due at the time given, too.
        """
        if self.state is not CoreState.RUNNING:
            return None
        if self._ahead is None:
            self._ahead = self._look_ahead()
        return self._ahead.thread.cycle * CYCLE_NS if self._ahead.changes else None

    def _look_ahead(self) -> _Ahead:
        thread, program, inputs = self._thread.copy(), self._program, self.inputs
        for _ in range(LOOK_AHEAD_STEPS):
            step = program[thread.address] if thread.address < len(program) else None
            if step and step.op is Op.P and self._outputs(step.number, step.value) != self.ttl:
                break
            if step and step.slotted and thread.spins(program, inputs):
                return _Ahead(thread, changes=False)
            try:
                thread.execute(program, inputs, thread.cycle + 1)
            except PulseSequencerFault:
                break
            if step and step.op is Op.HALT:
                return _Ahead(thread, changes=False)
        return _Ahead(thread, changes=True)

    def _execute(self, limit: int) -> None:
        """Execute the words whose cycle is below the limit."""
        thread, program, inputs = self._thread, self._program, self.inputs
        while thread.cycle < limit:
            cycle = thread.cycle
            try:
                step = thread.execute(program, inputs, limit)
            except PulseSequencerFault as fault:
                self.state, self.fault, self.time_ns = CoreState.FAULT, str(fault), cycle * CYCLE_NS
                raise
            if step.op is Op.P:
                self._set_ttl(cycle * CYCLE_NS, self._outputs(step.number, step.value))
                inputs = self.inputs
            elif step.op is Op.HALT:
                self.state = CoreState.HALTED
                return

    def _outputs(self, group: int, value: int) -> int:
        shift = group * GROUP_BITS
        return self.ttl & ~(_GROUP_MASK << shift) | value << shift

    def _set_ttl(self, time_ns: int, value: int) -> None:
        before, self.ttl = self.ttl, value
        self._ahead = None
        if before == value:
            return
        self.time_ns, self._in_callback = time_ns, True
        try:
            for callback in self._callbacks:
                callback(time_ns, before, value)
        finally:
            self._in_callback = False

    def _before_inputs(self, value: int) -> None:
        """Execute what still sees the inputs of before, if the program is to see others."""
        if value != self.inputs:
            self._settle()
            self._ahead = None

    def _settle(self) -> None:
        if self.state is CoreState.RUNNING and not self._in_callback:
            self._execute(self.time_ns // CYCLE_NS + 1)

    def _refuse_in_callback(self) -> None:
        if self._in_callback:
            raise ValueError("a callback cannot start or stop the sequencer or let time pass")


def _check_inputs(value: int) -> None:
    if not 0 <= value < 1 << TRIGGER_INPUTS:
        raise ValueError(f"trigger value {value:#x} has more than {TRIGGER_INPUTS} inputs")
