"""The sequencer of an AWG core: executes the compiled listing, one instruction per cycle.

Each instruction becomes one Python function when the program is loaded, so a program with
an opcode, register or port outside the modelled subset is refused before it runs. What each
opcode does was found by compiling small SeqC programs; tests compare random programs with
a Python reference.

| opcode | does |
|---|---|
| addi, addiu, andi, ori, xnori | register and immediate; addiu shifts the immediate by 12 |
| addr, subr, andr, orr, xnorr | register and register, into the first |
| ssl, ssr | shift by one bit |
| brz, brnz, brgz, jmp | branches; brgz takes the register as signed |
| ld, st | read and write a port, see below |
| wvfet | execute a command-table entry, by register, by number or by the masked DIO word |
| wvfs | play zeros (0) or hold the last value (1) |
| wwvf | wait until the player has nothing left to do |
| cwvf, prf, nop | configure, prefetch, nothing: one cycle each |
| end | stop |

Ports: `ld` 0-15 user registers, 32 DIO lines now, 104 DIO word that triggered; `st` 32 DIO
output, 34 trigger outputs, 92 wait for a DIO trigger, 105 wait some cycles, 146 no effect
here (written once at the start of every program).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from sim.hdawg.elf import CompiledProgram, Instruction
from sim.hdawg.errors import SequencerFault
from sim.hdawg.timing import CYCLE_SAMPLES

N_REGISTERS: Final = 16
N_USER_REGISTERS: Final = 16

_WORD: Final = (1 << 32) - 1
_SIGN: Final = 1 << 31
_UPPER_SHIFT: Final = 12

_PORT_DIO: Final = 32
_PORT_TRIGGER: Final = 34
_PORT_ARM: Final = 92
_PORT_DIO_TRIGGERED: Final = 104
_PORT_WAIT: Final = 105
_PORT_START: Final = 146

_TABLE_BY_REGISTER: Final = 2048
_TABLE_BY_DIO: Final = 1024
_KEPT_ZERO: Final = 0
_KEPT_LAST: Final = 1

_REGISTER: Final = re.compile(r"R(\d+)")

_Step: TypeAlias = Callable[[], int]
_Builder: TypeAlias = Callable[["Sequencer", Instruction, int], _Step]


class IllegalInstruction(ValueError):
    """An instruction is outside the modelled subset, or malformed."""


class _Interrupted(Exception):
    """The instruction just executed ends the inner loop."""


class Surroundings(Protocol):
    """What a sequencer is wired to. Times are in samples of its own clock."""

    def dio_word(self, now: int) -> int:
        """The word on the DIO lines."""
        ...

    def dio_trigger(self, since: int, until: int) -> tuple[int, int] | None:
        """Sample and word of the first DIO trigger in [since, until), None without one."""
        ...

    def dio_table_index(self, word: int) -> int:
        """The part of a DIO word that selects a table entry."""
        ...

    def user_register(self, index: int) -> int:
        """The value of a user register."""
        ...

    def set_dio(self, now: int, word: int) -> None:
        """Drive the DIO output."""
        ...

    def set_triggers(self, now: int, word: int) -> None:
        """Drive the trigger outputs."""
        ...

    def execute_entry(self, now: int, index: int) -> int:
        """Execute a table entry; the sample at which there was room for it."""
        ...

    def play_constant(self, now: int, n_samples: int, is_held: bool) -> int:
        """Play zeros or the last value; the sample at which there was room for it."""
        ...

    def playing_until(self) -> int | None:
        """When the player has nothing left, None if it never had."""
        ...


class Sequencer:
    """One sequencer with one program.

    Attributes:
        now: the sample at which the next instruction is executed.
        is_waiting: for a DIO trigger.
        has_ended: the program came to its end.

    Raises:
        IllegalInstruction: the program is outside the modelled subset; names the line.
    """

    def __init__(self, program: CompiledProgram, around: Surroundings) -> None:
        self._instructions = program.instructions
        self._labels = program.labels
        self._around = around
        self._registers = [0] * N_REGISTERS
        self._steps = [
            _build(self, instruction, index)
            for index, instruction in enumerate(program.instructions)
        ]
        self._steps.append(self._run_out)
        self.start(0)

    def start(self, now: int) -> None:
        """Begin at the first instruction, with all registers zero."""
        self._registers[:] = [0] * N_REGISTERS
        self._next = 0
        self._triggered = 0
        self.now = now
        self.is_waiting = False
        self.has_ended = False

    def run_until(self, sample: int) -> None:
        """Execute every instruction due before a sample.

        Raises:
            SequencerFault: the program ran out, or ordered what cannot be; names the line.
        """
        steps, step = self._steps, self._next
        try:
            while self.now < sample and not self.has_ended:
                if self.is_waiting and not self._listen(sample):
                    break
                try:
                    # The inner loop is most of the simulation's time, and does no more than
                    # it must: what interrupts it does so by an exception.
                    while self.now < sample:
                        step = steps[step]()
                        self.now += CYCLE_SAMPLES
                except _Interrupted:
                    step += 1
                    self.now += CYCLE_SAMPLES
        except SequencerFault as fault:
            where = self._instructions[min(step, len(self._instructions) - 1)]
            raise SequencerFault(f"at sample {self.now}, {where}: {fault}") from fault
        finally:
            self._next = step

    def _listen(self, until: int) -> bool:
        """Go on at a DIO trigger that comes in time."""
        trigger = self._around.dio_trigger(self.now, until)
        if trigger is None:
            return False
        at, self._triggered = trigger
        self.now += at - self.now + -(at - self.now) % CYCLE_SAMPLES
        self.is_waiting = False
        return self.now < until

    def _run_out(self) -> int:
        raise SequencerFault("the program has no instruction after this one")


def _build(sequencer: Sequencer, instruction: Instruction, index: int) -> _Step:
    builder = _BUILDERS.get(instruction.opcode)
    if builder is None:
        raise IllegalInstruction(
            f"listing, {instruction}: the opcode is not simulated; "
            f"known are {', '.join(sorted(_BUILDERS))}"
        )
    try:
        return builder(sequencer, instruction, index + 1)
    except (IndexError, KeyError, ValueError) as error:
        raise IllegalInstruction(f"listing, {instruction}: {error}") from error


def _register(name: str) -> int:
    match = _REGISTER.fullmatch(name)
    if match is None or int(match[1]) >= N_REGISTERS:
        raise ValueError(f"{name!r} is not one of {N_REGISTERS} registers")
    return int(match[1])


def _target(name: str) -> int:
    number = _register(name)
    if number == 0:
        raise ValueError("R0 is constant")
    return number


def _add_immediate(s: Sequencer, i: Instruction, then: int) -> _Step:
    registers, target, source = s._registers, _target(i.operands[0]), _register(i.operands[1])
    value = int(i.operands[2]) << (_UPPER_SHIFT if i.opcode == "addiu" else 0)

    def step() -> int:
        registers[target] = registers[source] + value & _WORD
        return then

    return step


def _logic_immediate(s: Sequencer, i: Instruction, then: int) -> _Step:
    registers, target, source = s._registers, _target(i.operands[0]), _register(i.operands[1])
    value = int(i.operands[2]) & _WORD

    def and_() -> int:
        registers[target] = registers[source] & value
        return then

    def or_() -> int:
        registers[target] = registers[source] | value
        return then

    def xnor() -> int:
        registers[target] = ~(registers[source] ^ value) & _WORD
        return then

    return {"andi": and_, "ori": or_, "xnori": xnor}[i.opcode]


def _two_registers(s: Sequencer, i: Instruction, then: int) -> _Step:
    registers, target, source = s._registers, _target(i.operands[0]), _register(i.operands[1])

    def add() -> int:
        registers[target] = registers[target] + registers[source] & _WORD
        return then

    def subtract() -> int:
        registers[target] = registers[target] - registers[source] & _WORD
        return then

    def and_() -> int:
        registers[target] &= registers[source]
        return then

    def or_() -> int:
        registers[target] |= registers[source]
        return then

    def xnor() -> int:
        registers[target] = ~(registers[target] ^ registers[source]) & _WORD
        return then

    return {"addr": add, "subr": subtract, "andr": and_, "orr": or_, "xnorr": xnor}[i.opcode]


def _shift(s: Sequencer, i: Instruction, then: int) -> _Step:
    registers, target = s._registers, _target(i.operands[0])
    if i.operands[1] != "R0":
        raise ValueError("a shift takes R0 as its second operand")

    def left() -> int:
        registers[target] = registers[target] << 1 & _WORD
        return then

    def right() -> int:
        registers[target] >>= 1
        return then

    return left if i.opcode == "ssl" else right


def _branch(s: Sequencer, i: Instruction, then: int) -> _Step:
    registers, source, goal = s._registers, _register(i.operands[0]), s._labels[i.operands[1]]

    def if_zero() -> int:
        return then if registers[source] else goal

    def if_not_zero() -> int:
        return goal if registers[source] else then

    def if_greater_zero() -> int:
        return goal if 0 < registers[source] < _SIGN else then

    return {"brz": if_zero, "brnz": if_not_zero, "brgz": if_greater_zero}[i.opcode]


def _jump(s: Sequencer, i: Instruction, then: int) -> _Step:
    goal = s._labels[i.operands[0]]
    return lambda: goal


def _load(s: Sequencer, i: Instruction, then: int) -> _Step:
    registers, target, port = s._registers, _target(i.operands[0]), int(i.operands[1])
    around = s._around

    def user_register() -> int:
        registers[target] = around.user_register(port) & _WORD
        return then

    def dio() -> int:
        registers[target] = around.dio_word(s.now)
        return then

    def dio_triggered() -> int:
        registers[target] = s._triggered
        return then

    if 0 <= port < N_USER_REGISTERS:
        return user_register
    ports = {_PORT_DIO: dio, _PORT_DIO_TRIGGERED: dio_triggered}
    if port not in ports:
        raise ValueError(f"reading port {port} is not simulated")
    return ports[port]


def _store(s: Sequencer, i: Instruction, then: int) -> _Step:
    registers, source, port = s._registers, _register(i.operands[0]), int(i.operands[1])
    around = s._around

    def dio() -> int:
        around.set_dio(s.now, registers[source])
        return then

    def trigger() -> int:
        around.set_triggers(s.now, registers[source])
        return then

    def arm() -> int:
        s.is_waiting = True
        raise _Interrupted

    def wait() -> int:
        s.now += registers[source] * CYCLE_SAMPLES
        return then

    ports = {
        _PORT_DIO: dio,
        _PORT_TRIGGER: trigger,
        _PORT_ARM: arm,
        _PORT_WAIT: wait,
        _PORT_START: lambda: then,
    }
    if port not in ports:
        raise ValueError(f"writing port {port} is not simulated")
    return ports[port]


def _table(s: Sequencer, i: Instruction, then: int) -> _Step:
    registers, source, selector = s._registers, _register(i.operands[0]), int(i.operands[1])
    around = s._around

    def by_register() -> int:
        s.now = around.execute_entry(s.now, registers[source] + offset)
        return then

    def by_dio() -> int:
        s.now = around.execute_entry(s.now, around.dio_table_index(s._triggered))
        return then

    def by_number() -> int:
        s.now = around.execute_entry(s.now, selector)
        return then

    offset = selector & _TABLE_BY_REGISTER - 1
    if selector & _TABLE_BY_REGISTER:
        return by_register
    return by_dio if selector & _TABLE_BY_DIO else by_number


def _play_constant(s: Sequencer, i: Instruction, then: int) -> _Step:
    registers, source, length = s._registers, _register(i.operands[1]), int(i.operands[2])
    kind = int(i.operands[0])
    if kind not in {_KEPT_ZERO, _KEPT_LAST}:
        raise ValueError(f"play constant of kind {kind} is not simulated")
    around, is_held = s._around, kind == _KEPT_LAST

    def step() -> int:
        s.now = around.play_constant(s.now, registers[source] + length & _WORD, is_held)
        return then

    return step


def _wait_for_player(s: Sequencer, i: Instruction, then: int) -> _Step:
    around = s._around

    def step() -> int:
        until = around.playing_until()
        if until is not None and until > s.now:
            s.now += until - s.now + -(until - s.now) % CYCLE_SAMPLES
        return then

    return step


def _nothing(s: Sequencer, i: Instruction, then: int) -> _Step:
    return lambda: then


def _end(s: Sequencer, i: Instruction, then: int) -> _Step:
    def step() -> int:
        s.has_ended = True
        raise _Interrupted

    return step


_BUILDERS: Final[dict[str, _Builder]] = {
    "addi": _add_immediate,
    "addiu": _add_immediate,
    "andi": _logic_immediate,
    "ori": _logic_immediate,
    "xnori": _logic_immediate,
    "addr": _two_registers,
    "subr": _two_registers,
    "andr": _two_registers,
    "orr": _two_registers,
    "xnorr": _two_registers,
    "ssl": _shift,
    "ssr": _shift,
    "brz": _branch,
    "brnz": _branch,
    "brgz": _branch,
    "jmp": _jump,
    "ld": _load,
    "st": _store,
    "wvfet": _table,
    "wvfs": _play_constant,
    "wwvf": _wait_for_player,
    "cwvf": _nothing,
    "prf": _nothing,
    "nop": _nothing,
    "end": _end,
}
