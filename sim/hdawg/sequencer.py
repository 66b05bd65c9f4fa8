"""The sequencer of an AWG core: executes the compiled listing, one instruction per cycle.

The listing is translated, straight run by straight run, into Python functions: an order of
magnitude faster than looking at each instruction again, and exact to the cycle. A program
with an opcode, register or port outside the modelled subset is refused before it runs.
What each opcode does was found by compiling small SeqC programs; tests compare random
programs with a Python reference.

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from types import CodeType
from typing import Any, Final, Protocol

from sim.hdawg.elf import CompiledProgram, Instruction
from sim.hdawg.errors import SequencerFault
from sim.hdawg.timing import CYCLE_SAMPLES

N_REGISTERS: Final = 16
N_USER_REGISTERS: Final = 16

MAX_RUN: Final = 256
"""Instructions translated into one function."""

MAX_CODE: Final = 4096
"""Translated functions that are kept, of all programs together."""

_WORD: Final = (1 << 32) - 1
_SIGN: Final = 1 << 31

_TABLE_BY_REGISTER: Final = 2048
_TABLE_BY_DIO: Final = 1024
_REGISTER: Final = re.compile(r"R(\d+)")


class IllegalInstruction(ValueError):
    """An instruction is outside the modelled subset, or malformed."""


class _Kind(Enum):
    """What an instruction means for the run it is in."""

    INTERNAL = auto()  # works on registers and its own clock
    EXTERNAL = auto()  # sees or does something outside, so its time matters
    BRANCH = auto()
    LAST = auto()  # external, and the run ends after it


@dataclass(frozen=True)
class _Translated:
    """One instruction in Python.

    Attributes:
        kind: of instruction.
        text: a statement, of a branch its condition. Names: `R` registers, `now` the time,
            `s` the sequencer, `around` what it is wired to.
        goal: of a branch.
    """

    kind: _Kind
    text: str
    goal: int = 0


# Operands by letter: t register that is written, r register, i number, l label, 0 register R0.
_INTERNAL_OPCODES: Final = {
    "addi": ("tri", "R[{0}] = R[{1}] + {2} & WORD"),
    "addiu": ("tri", "R[{0}] = R[{1}] + ({2} << 12) & WORD"),
    "andi": ("tri", "R[{0}] = R[{1}] & {2} & WORD"),
    "ori": ("tri", "R[{0}] = (R[{1}] | {2}) & WORD"),
    "xnori": ("tri", "R[{0}] = ~(R[{1}] ^ {2}) & WORD"),
    "addr": ("tr", "R[{0}] = R[{0}] + R[{1}] & WORD"),
    "subr": ("tr", "R[{0}] = R[{0}] - R[{1}] & WORD"),
    "andr": ("tr", "R[{0}] &= R[{1}]"),
    "orr": ("tr", "R[{0}] |= R[{1}]"),
    "xnorr": ("tr", "R[{0}] = ~(R[{0}] ^ R[{1}]) & WORD"),
    "ssl": ("t0", "R[{0}] = R[{0}] << 1 & WORD"),
    "ssr": ("t0", "R[{0}] >>= 1"),
    "cwvf": ("i", "pass"),
    "prf": ("rri", "pass"),
    "nop": ("", "pass"),
}
_BRANCH_OPCODES: Final = {
    "brz": ("rl", "not R[{0}]"),
    "brnz": ("rl", "R[{0}]"),
    "brgz": ("rl", "0 < R[{0}] < SIGN"),
    "jmp": ("l", "True"),
}
_LOAD_PORTS: Final = {
    **dict.fromkeys(range(N_USER_REGISTERS), "R[{0}] = around.user_register({1}) & WORD"),
    32: "R[{0}] = around.dio_word(now)",
    104: "R[{0}] = s.triggered",
}
_STORE_PORTS: Final = {
    32: (_Kind.EXTERNAL, "around.set_dio(now, R[{0}])"),
    34: (_Kind.EXTERNAL, "around.set_triggers(now, R[{0}])"),
    92: (_Kind.LAST, "s.is_waiting = True"),
    105: (_Kind.INTERNAL, "now += R[{0}] * CYCLE"),
    146: (_Kind.INTERNAL, "pass"),
}
_PLAY_CONSTANTS: Final = {
    0: "now = around.play_constant(now, R[{1}] + {2} & WORD, False)",
    1: "now = around.play_constant(now, R[{1}] + {2} & WORD, True)",
}
_OPCODES: Final = sorted(
    {*_INTERNAL_OPCODES, *_BRANCH_OPCODES, "ld", "st", "wvfet", "wvfs", "wwvf", "end"}
)


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

    def playing_until(self) -> int:
        """When the player has nothing left, or had."""
        ...

    def pass_over(self, now: int, until: int, state: tuple[int, ...]) -> tuple[int, bool]:
        """What is known of a loop at whose head the sequencer is.

        Args:
            now: sample.
            until: sample before which instructions are due.
            state: of the sequencer.

        Returns:
            How many samples it takes to do the whole periods that end by then, which has been
            seen to, and whether what is left until then is the beginning of another period.
        """
        ...


class Sequencer:
    """One sequencer with one program.

    Attributes:
        now: the sample at which the next instruction is executed.
        is_waiting: for a DIO trigger.
        triggered: the DIO word that triggered last.
        has_ended: the program came to its end.
        at: index of the last instruction that did something outside.

    Raises:
        IllegalInstruction: the program is outside the modelled subset; names the line.
    """

    def __init__(self, program: CompiledProgram, around: Surroundings) -> None:
        self._instructions = program.instructions
        self._translated = [
            _translate(instruction, program.labels) for instruction in program.instructions
        ]
        self._around = around
        self._registers = [0] * N_REGISTERS
        self._heads = {
            step.goal
            for index, step in enumerate(self._translated)
            if step.kind is _Kind.BRANCH and step.goal <= index
        }
        # By the instruction they start at. Runs overlap: a branch or the end of the time
        # given may come anywhere, and execution goes on from there with a run of its own.
        self._runs: dict[int, Callable[[int], int]] = {}
        self.start(0)

    def start(self, now: int) -> None:
        """Begin at the first instruction, with all registers zero."""
        self._registers[:] = [0] * N_REGISTERS
        self._next = 0
        self.at = 0
        self.triggered = 0
        self.now = now
        self.is_waiting = False
        self.has_ended = False

    def run_until(self, sample: int, may_rest: bool = False) -> None:
        """Execute every instruction due before a sample.

        Instructions that only work on registers may be ahead of it; nobody can see them.

        Args:
            sample: of the sequencer's clock.
            may_rest: stop earlier at the head of a loop that is known to go on until then.

        Raises:
            SequencerFault: the program ran out, or ordered what cannot be; names the line.
        """
        runs = self._runs
        try:
            while self.now < sample and not self.has_ended:
                if self.is_waiting and not self._listen(sample):
                    break
                index = self._next
                if index in self._heads:
                    passed, goes_on = self._around.pass_over(
                        self.now, sample, (index, self.triggered, *self._registers)
                    )
                    self.now += passed
                    if self.now >= sample or (goes_on and may_rest):
                        break
                run = runs.get(index)
                if run is None:
                    run = runs[index] = self._compile_run(index)
                self._next = run(sample)
        except SequencerFault as fault:
            where = self._instructions[self.at]
            raise SequencerFault(f"at sample {self.now}, {where}: {fault}") from fault

    def _listen(self, until: int) -> bool:
        """Go on at a DIO trigger that comes in time."""
        trigger = self._around.dio_trigger(self.now, until)
        if trigger is None:
            return False
        at, self.triggered = trigger
        self.now = at + -(at - self.now) % CYCLE_SAMPLES
        self.is_waiting = False
        return self.now < until

    def after_player(self, now: int) -> int:
        """When the player has nothing left, on the sequencer's grid and not before now."""
        until = self._around.playing_until()
        return max(now, until + -(until - now) % CYCLE_SAMPLES)

    def run_out(self) -> int:
        """What comes after the last instruction."""
        raise SequencerFault("the program has no instruction after this one")

    def _compile_run(self, first: int) -> Callable[[int], int]:
        """Translate the straight run that starts at an instruction.

        The function takes the sample to run until, executes, and returns the index of the
        instruction to go on with.
        """
        body = ["now = s.now"]
        cycles = 0
        index = first
        for index in range(first, min(first + MAX_RUN, len(self._translated))):
            step = self._translated[index]
            if step.kind is _Kind.INTERNAL:
                body.append(step.text)
                cycles += 1
                continue
            if cycles:
                body.append(f"now += {cycles} * CYCLE")
                cycles = 0
            if step.kind is _Kind.BRANCH:
                body.append(f"if {step.text}: s.now = now + CYCLE; return {step.goal}")
                cycles = 1
                if step.text == "True":
                    break
                continue
            body += [
                "s.now = now",
                f"if now >= until: return {index}",
                f"s.at = {index}",
                step.text,
            ]
            cycles = 1
            if step.kind is _Kind.LAST:
                break
        index += 1
        body.append(f"s.now = now + {cycles} * CYCLE")
        body.append("return s.run_out()" if index >= len(self._translated) else f"return {index}")
        if self._translated[index - 1].kind is _Kind.LAST:
            body[-1] = f"return {index}"
        text = "def run(until):\n    " + "\n    ".join(body)
        names: dict[str, Any] = {
            "R": self._registers,
            "s": self,
            "around": self._around,
            "WORD": _WORD,
            "SIGN": _SIGN,
            "CYCLE": CYCLE_SAMPLES,
        }
        exec(_code(text, f"<listing from line {self._instructions[first].line}>"), names)
        run: Callable[[int], int] = names["run"]
        return run


@lru_cache(maxsize=MAX_CODE)
def _code(text: str, name: str) -> CodeType:
    """Compiled once for every core that runs the same program; that is what takes the time."""
    # The text holds nothing but the templates above and numbers that were parsed.
    return compile(text, name, "exec")


def _translate(instruction: Instruction, labels: Mapping[str, int]) -> _Translated:
    try:
        return _translated(instruction.opcode, instruction.operands, labels)
    except (KeyError, ValueError) as error:
        raise IllegalInstruction(f"listing, {instruction}: {error}") from error


def _translated(opcode: str, operands: tuple[str, ...], labels: Mapping[str, int]) -> _Translated:
    def read(kinds: str) -> list[int]:
        if len(operands) != len(kinds):
            raise ValueError(f"{len(operands)} operands instead of {len(kinds)}")
        return [
            labels[text] if kind == "l" else int(text) if kind == "i" else _register(text, kind)
            for kind, text in zip(kinds, operands, strict=True)
        ]

    if opcode in _INTERNAL_OPCODES:
        kinds, text = _INTERNAL_OPCODES[opcode]
        return _Translated(_Kind.INTERNAL, text.format(*read(kinds)))
    if opcode in _BRANCH_OPCODES:
        kinds, text = _BRANCH_OPCODES[opcode]
        numbers = read(kinds)
        return _Translated(_Kind.BRANCH, text.format(*numbers), numbers[-1])
    if opcode == "ld":
        target, port = read("ti")
        if port not in _LOAD_PORTS:
            raise ValueError(f"reading port {port} is not simulated")
        return _Translated(_Kind.EXTERNAL, _LOAD_PORTS[port].format(target, port))
    if opcode == "st":
        source, port = read("ri")
        if port not in _STORE_PORTS:
            raise ValueError(f"writing port {port} is not simulated")
        kind, text = _STORE_PORTS[port]
        return _Translated(kind, text.format(source))
    if opcode == "wvfet":
        return _Translated(
            _Kind.EXTERNAL, f"now = around.execute_entry(now, {_entry(*read('ri'))})"
        )
    if opcode == "wvfs":
        numbers = read("iri")
        if numbers[0] not in _PLAY_CONSTANTS:
            raise ValueError(f"a constant of kind {numbers[0]} is not simulated")
        return _Translated(_Kind.EXTERNAL, _PLAY_CONSTANTS[numbers[0]].format(*numbers))
    if opcode == "wwvf":
        read("")
        return _Translated(_Kind.EXTERNAL, "now = s.after_player(now)")
    if opcode == "end":
        read("")
        return _Translated(_Kind.LAST, "s.has_ended = True")
    raise ValueError(f"the opcode is not simulated; known are {', '.join(_OPCODES)}")


def _entry(register: int, selector: int) -> str:
    """The expression for the table entry that `wvfet` executes."""
    if selector & _TABLE_BY_REGISTER:
        return f"R[{register}] + {selector & _TABLE_BY_REGISTER - 1}"
    if selector & _TABLE_BY_DIO:
        return "around.dio_table_index(s.triggered)"
    return str(selector)


def _register(name: str, kind: str) -> int:
    match = _REGISTER.fullmatch(name)
    if match is None or int(match[1]) >= N_REGISTERS:
        raise ValueError(f"{name!r} is not one of {N_REGISTERS} registers")
    number = int(match[1])
    if kind == "t" and number == 0:
        raise ValueError("R0 is constant")
    if kind == "0" and number != 0:
        raise ValueError("a shift takes R0 as its second operand")
    return number
