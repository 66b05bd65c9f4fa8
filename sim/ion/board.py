"""The simulated board between SPI and TTL.

It keeps the wire's protocol with `FrameSlave` and the sequencer's handshake with a state
machine, whose states are left when lines have the levels they wait for, or the time is up
(`_WAITS`)::

    IDLE -> READY -> SETUP -> STROBED -> RUNNING -> RELEASING -> IDLE
            lines    code     strobe     BUSY is    strobe low,
            low?     out      high       high       BUSY low?

It acts on a change of a line `reaction_ns` later, by the levels of then. Only the gate is watched
all the time: that it opened is remembered until the instruction has ended. After a failure the
strobe is low, and the next instruction has to wait in READY until the sequencer has come to rest.

The driver asks it through `sim.serial_line.SerialLine`.

Frames are exchanged at their own time. When the board has been run ahead to the end of an
instruction, frames of before are still answered as those of a busy board.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from instruments.ion_board import (
    IDENTITY,
    MAX_CODE,
    TIMES,
    BoardSettings,
    Failure,
    Register,
    code_register,
)
from qnodeos.qdevice.endpoint import FrameSlave
from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import Outcome
from sequences.ion import OPERATION_OF_INSTRUCTION, TRIGGER_STROBE, IonOperation

ION: Final = 0
"""Physical address of the ion, the only qubit."""
REACTION_NS: Final = 200
"""From a change of a line to what the board does about it (assumed)."""
_COUNTER_MASK: Final = (1 << 32) - 1
_LOCAL: Final = frozenset({Opcode.INI, Opcode.SQG, Opcode.MSR})


class Line(IntEnum):
    """Lines that the board sees; each is a bit of a word."""

    BUSY = 1
    DONE = 2
    ERROR = 4
    GATE = 8
    BRIGHT = 16
    OVERFLOW = 32


class BoardState(IntEnum):
    """What the board waits for."""

    IDLE = 0
    READY = 1
    SETUP = 2
    STROBED = 3
    RUNNING = 4
    RELEASING = 5


_LOW_BEFORE: Final = Line.BUSY | Line.DONE | Line.ERROR


class _Wait(NamedTuple):
    """How a state is left.

    Attributes:
        timeout: register with the longest time in it.
        scale_ns: unit of that register.
        over: whether the levels are those it waits for.
        late: what has failed if they do not come in time.
    """

    timeout: Register
    scale_ns: int
    over: Callable[[int], bool]
    late: Failure


_WAITS: Final[Mapping[BoardState, _Wait]] = MappingProxyType(
    {
        BoardState.READY: _Wait(
            Register.HANDSHAKE_TIMEOUT_NS,
            1,
            lambda lines: not lines & _LOW_BEFORE,
            Failure.NOT_READY,
        ),
        BoardState.STROBED: _Wait(
            Register.HANDSHAKE_TIMEOUT_NS,
            1,
            lambda lines: bool(lines & Line.BUSY),
            Failure.NOT_TAKEN,
        ),
        BoardState.RUNNING: _Wait(
            Register.DONE_TIMEOUT_US,
            1_000,
            lambda lines: bool(lines & (Line.DONE | Line.ERROR)) or not lines & Line.BUSY,
            Failure.NOT_DONE,
        ),
        BoardState.RELEASING: _Wait(
            Register.HANDSHAKE_TIMEOUT_NS,
            1,
            lambda lines: not lines & Line.BUSY,
            Failure.NOT_RELEASED,
        ),
    }
)


class SimulatedBoard:
    """The board.

    Args:
        reaction_ns: from a change of a line to what the board does about it.

    Attributes:
        state: what it waits for.
        due_ns: when `act` must be called, if no line changes before; None for never.
        completed_ns: when the last instruction was ready to be answered.
    """

    def __init__(self, reaction_ns: int = REACTION_NS) -> None:
        self.state = BoardState.IDLE
        self.due_ns: int | None = None
        self.completed_ns = 0
        self._reaction_ns = reaction_ns
        self._slave = FrameSlave()
        self._corrupted_before = 0
        self._lines = 0
        self._output = 0
        self._on_output: Callable[[int, int], None] = lambda time_ns, value: None
        self._deadline_ns = 0
        self._operation = IonOperation.INITIALISE
        self._gated = False
        self._outcome = Outcome.SUCCESS_ZERO
        self._pending: Outcome | None = None
        default = BoardSettings()
        self._registers: dict[int, int] = {
            Register.IDENTITY: IDENTITY.code << 16 | IDENTITY.version,
            Register.STATE: BoardState.IDLE,
            Register.SETUP_NS: default.setup_ns,
            Register.HANDSHAKE_TIMEOUT_NS: default.handshake_timeout_ns,
            Register.DONE_TIMEOUT_US: TIMES[Register.DONE_TIMEOUT_US][0],
            **dict.fromkeys(_RESET, 0),
            **dict.fromkeys(map(code_register, IonOperation), 0),
        }
        self._leave: Mapping[BoardState, Callable[[int], None]] = {
            BoardState.READY: self._present,
            BoardState.STROBED: self._taken,
            BoardState.RUNNING: self._done,
            BoardState.RELEASING: self._released,
        }

    # --- the wire -----------------------------------------------------------------------

    def exchange(self, tick: int, time_ns: int, frame: int) -> int:
        """Swap a frame.

        Args:
            tick: number of the frame.
            time_ns: when; earlier than the last `act` if the board was run ahead.
            frame: received.
        """
        if self._pending is not None and self.completed_ns <= time_ns:
            self._slave.complete(self._pending)
            self._pending = None
        answer = self._slave.outgoing(tick)
        instruction = self._slave.incoming(frame)
        if instruction is not None:
            self._begin(time_ns, instruction)
        return answer

    @property
    def has_news(self) -> bool:
        """Whether the next frame says something, besides the tick, that none has said yet."""
        return self._slave.has_news

    @property
    def has_answer(self) -> bool:
        """Whether an instruction has ended that no frame has answered yet."""
        return self._pending is not None

    # --- lines ----------------------------------------------------------------------------

    def on_output(self, callback: Callable[[int, int], None]) -> None:
        """Who is told, with the time in ns, what is on the sequencer's trigger inputs now."""
        self._on_output = callback

    def set_lines(self, time_ns: int, lines: int) -> None:
        """The lines that the board sees have these levels from now on; see `Line`."""
        changed = self._lines ^ lines
        self._lines = lines
        self._gated = self._gated or bool(lines & Line.GATE)
        if changed and self.state in _WAITS and self.due_ns is not None:
            self.due_ns = min(time_ns + self._reaction_ns, self.due_ns)

    def act(self, time_ns: int) -> None:
        """Do what is due now."""
        if self.due_ns is None or time_ns < self.due_ns:
            return
        if self.state is BoardState.SETUP:
            self._strobe(time_ns)
            return
        wait = _WAITS[self.state]
        if wait.over(self._lines):
            self._leave[self.state](time_ns)
        elif time_ns >= self._deadline_ns:
            self._fail(time_ns, wait.late)
        else:
            self.due_ns = self._deadline_ns

    # --- the state machine ------------------------------------------------------------------

    def _begin(self, time_ns: int, instruction: PhysicalInstruction) -> None:
        operation = OPERATION_OF_INSTRUCTION.get((instruction.opcode, instruction.argument))
        if instruction.opcode not in _LOCAL:
            self._answer(time_ns, Outcome.UNSUPPORTED_REQUEST)
        elif instruction.qubit != ION:
            self._answer(time_ns, Outcome.INVALID_QUBIT)
        elif operation is None or instruction.halvings:
            self._answer(time_ns, Outcome.UNSUPPORTED_REQUEST)
        elif not self._registers[code_register(operation)]:
            self._fail(time_ns, Failure.NO_CODE)
        else:
            self._operation = operation
            self._enter(time_ns, BoardState.READY)
            self.due_ns = time_ns + self._reaction_ns

    def _present(self, time_ns: int) -> None:
        self._put(time_ns, self._registers[code_register(self._operation)])
        self._gated = bool(self._lines & Line.GATE)
        self.state = BoardState.SETUP
        self.due_ns = time_ns + self._registers[Register.SETUP_NS]

    def _strobe(self, time_ns: int) -> None:
        # First the state, because BUSY may follow within this call.
        self._enter(time_ns, BoardState.STROBED)
        self._put(time_ns, self._output | 1 << TRIGGER_STROBE)

    def _taken(self, time_ns: int) -> None:
        self._enter(time_ns, BoardState.RUNNING)
        self.due_ns = time_ns + self._reaction_ns

    def _done(self, time_ns: int) -> None:
        failure = self._failure()
        if failure:
            self._outcome = self._failed(failure)
        elif self._operation is IonOperation.MEASURE and not self._lines & Line.BRIGHT:
            self._outcome = Outcome.SUCCESS_ONE
        self._enter(time_ns, BoardState.RELEASING)
        self.due_ns = time_ns + self._reaction_ns
        self._put(time_ns, 0)

    def _failure(self) -> Failure:
        """What is wrong with the levels at the end of the subroutine."""
        lines, measures = self._lines, self._operation is IonOperation.MEASURE
        if lines & Line.ERROR:
            return Failure.REFUSED
        if not lines & Line.DONE:
            return Failure.NOT_DONE
        if self._gated is not measures or lines & Line.GATE:
            return Failure.WRONG_GATE
        return Failure.OVERFLOW if measures and lines & Line.OVERFLOW else Failure.NONE

    def _released(self, time_ns: int) -> None:
        if self._outcome.is_success:
            self._count(Register.EXECUTED)
        self._answer(time_ns, self._outcome)

    def _fail(self, time_ns: int, failure: Failure) -> None:
        outcome = self._failed(failure) if self._outcome.is_success else self._outcome
        self._put(time_ns, 0)
        self._answer(time_ns, outcome)

    def _failed(self, failure: Failure) -> Outcome:
        self._registers[Register.LAST_FAILURE] = failure
        self._count(Register.FAILED)
        return Outcome.HARDWARE_FAILURE

    def _answer(self, time_ns: int, outcome: Outcome) -> None:
        self.state, self.due_ns = BoardState.IDLE, None
        self.completed_ns, self._pending = time_ns, outcome
        self._outcome = Outcome.SUCCESS_ZERO

    def _enter(self, time_ns: int, state: BoardState) -> None:
        wait = _WAITS[state]
        self.state = state
        self._deadline_ns = time_ns + self._registers[wait.timeout] * wait.scale_ns
        self.due_ns = self._deadline_ns

    def _put(self, time_ns: int, value: int) -> None:
        if value != self._output:
            self._output = value
            self._on_output(time_ns, value)

    def _count(self, register: Register) -> None:
        self._registers[register] = self._registers[register] + 1 & _COUNTER_MASK

    # --- for the serial line ------------------------------------------------------------------

    def answer(self, line: str) -> str:
        """What the board sends back for a line."""
        words = line.split(" ")
        if not all(word.isascii() and word.isdigit() and len(word) < 12 for word in words[1:]):
            return "ERR no numbers"
        match words[0], [int(word) for word in words[1:]]:
            case "R", [number] if number in self._registers:
                return str(self._read(number))
            case "W", [Register.RESET, 1]:
                self._reset()
                return "OK"
            case "W", [number, value] if number in _WRITABLE:
                return self._write(number, value)
        return "ERR unknown command"

    def _read(self, number: int) -> int:
        if number == Register.STATE:
            return int(self.state)
        if number == Register.CORRUPTED_FRAMES:
            return self._slave.corrupted_frames & _COUNTER_MASK
        return self._registers[number]

    def _write(self, number: int, value: int) -> str:
        low, high = _WRITABLE[number]
        if self.state is not BoardState.IDLE:
            return "ERR busy"
        if not low <= value <= high:
            return f"ERR {value} is outside {low}..{high}"
        self._registers[number] = value
        return "OK"

    def _reset(self) -> None:
        """As after power-on, but for the settings. The sequencer sees the strobe fall."""
        self._slave = FrameSlave()
        self._registers |= dict.fromkeys(_RESET, 0)
        self.state, self.due_ns, self._pending = BoardState.IDLE, None, None
        self._outcome = Outcome.SUCCESS_ZERO
        self._put(self.completed_ns, 0)


_RESET: Final = (
    Register.EXECUTED,
    Register.FAILED,
    Register.LAST_FAILURE,
    Register.CORRUPTED_FRAMES,
)
"""What a reset sets to zero."""

_WRITABLE: Final[Mapping[int, tuple[int, int]]] = MappingProxyType(
    {
        **{int(register): limits for register, limits in TIMES.items()},
        **{code_register(operation): (0, MAX_CODE) for operation in IonOperation},
    }
)
