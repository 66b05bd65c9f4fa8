"""Assembler and disassembler of the FPGA pulse sequencer (`sequences.sequencer_isa`).

A line holds labels, an instruction, a comment, or several of these in this order::

    idle:                       ; a label marks the next instruction
            btr !3, idle        ; branch while input 3 is low; btr 3 branches while it is high
            p 0, 0x0400         ; outputs 0..15
            ldc r0, 10
    again:  delay 500_000, r1   ; exactly so many cycles, made of waits and a loop on r1
            nop r0
            bdec r0, again
            j.s idle            ; the five words that follow are its delay slots
            p 0, 0
            nop
            nop
            nop
            nop

Behind an instruction with delay slots the assembler puts five nops. With `.s` the next five
instructions of the source stand there instead; those of wait and halt must be nops.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from sequences.errors import SequenceError
from sequences.sequencer_isa import (
    DELAY_SLOTS,
    FINAL,
    MAX_COUNT,
    MAX_WAIT_CYCLES,
    MAX_WORDS,
    NOP,
    NOPS_ONLY,
    REGISTERS,
    SLOTTED,
    TARGETED,
    TRIGGER_INPUTS,
    Instruction,
    Op,
    decode,
    encode,
)

MAX_SOURCE_CHARACTERS: Final = 16_000_000
MAX_DELAY_CYCLES: Final = 1_000_000_000
"""Ten seconds, the longest `delay`."""
MAX_LABEL_CHARACTERS: Final = 64

WAIT_CYCLES: Final = 1 + DELAY_SLOTS
"""What a wait and its slots take, beside the cycles that it is asked for."""
LOOP_CYCLES: Final = 1 + 1 + DELAY_SLOTS
"""What `nop r`, `bdec r` and its slots take."""
_LONGEST_WAIT: Final = MAX_WAIT_CYCLES + WAIT_CYCLES
_LONGEST_TURN: Final = _LONGEST_WAIT + LOOP_CYCLES
_FEWEST_TURNS: Final = 3
"""A shorter loop has no fewer words than the waits alone."""

_SYNTAX: Final = {
    Op.NOP: "nop",
    Op.BTR: "btr INPUT, LABEL",
    Op.J: "j LABEL",
    Op.CALL: "call LABEL",
    Op.RET: "ret",
    Op.HALT: "halt",
    Op.WAIT: "wait CYCLES",
    Op.BDEC: "bdec rN, LABEL",
    Op.LDC: "ldc rN, COUNT",
    Op.P: "p GROUP, VALUE",
}
_LABEL: Final = re.compile(r"\s*([A-Za-z_]\w*)\s*:", re.ASCII)
_NUMBER: Final = re.compile(r"0x[0-9a-fA-F_]{1,20}|[0-9][0-9_]{0,20}")
_REGISTER: Final = re.compile(r"r([0-9]{1,3})")
_SYMBOL: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class SequencerProgram:
    """What is loaded into the sequencer.

    Attributes:
        words: from address 0 on, where execution begins.
        labels: address of every label.
        listing: address, word, cycle, labels and instruction, one line for each word. The cycle
            counts from the label above, if every branch in between is passed by; it is "-" where
            nothing leads to. Loops of `delay` have labels such as `a_17`.
    """

    words: tuple[int, ...]
    labels: Mapping[str, int]
    listing: str


class _Item(NamedTuple):
    """A word to be.

    Attributes:
        instruction: its address is missing if there is a `target`.
        line: of the source.
        target: label of its address.
        filled: the five items behind it are its delay slots already.
    """

    instruction: Instruction
    line: int
    target: str | None = None
    filled: bool = False


def assemble(source: str) -> SequencerProgram:
    """The program of a source text.

    Raises:
        SequenceError: a line cannot be understood, a label is unknown, there twice, or marks
            nothing, a number is out of range, slots are filled wrongly, the program is too long,
            or it would run off its end. The message names the line.
    """
    if len(source) > MAX_SOURCE_CHARACTERS:
        raise SequenceError(f"a source may have {MAX_SOURCE_CHARACTERS} characters")
    items: list[_Item] = []
    labels: dict[str, int] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(source.splitlines(), 1):
        text = line.split(";", 1)[0]
        while match := _LABEL.match(text):
            name = match[1]
            text = text[match.end() :]
            if name in labels:
                raise _error(number, f"label {name!r} is in line {lines[name]} already")
            if len(name) > MAX_LABEL_CHARACTERS:
                raise _error(number, f"a label may have {MAX_LABEL_CHARACTERS} characters")
            labels[name], lines[name] = len(items), number
        if text := text.strip():
            items += _parsed(text, number, len(items))
        if len(items) > MAX_WORDS:
            raise _error(number, f"the program is too long; there is room for {MAX_WORDS} words")
    for name, address in labels.items():
        if address >= len(items):
            raise _error(lines[name], f"label {name!r} marks no instruction")
    _check_slots(items)
    words = tuple(_word(item, labels) for item in items)
    return SequencerProgram(words, MappingProxyType(labels), _listing(words, labels))


def disassemble(words: Sequence[int], labels: Mapping[str, int] | None = None) -> str:
    """Source text of a program: what `assemble` makes the same words of.

    Args:
        words: of the program.
        labels: names of addresses; an address that is branched to and has none is called
            `a_` and its number.

    Raises:
        SequenceError: a word is no instruction, or branches out of the program.
    """
    lines = []
    names = _names(words, labels or {})
    for address, word in enumerate(words):
        lines += [f"{name}:" for name in names.get(address, ())]
        lines.append(f"        {_text(decode(word), names)}")
    return "\n".join(lines) + "\n"


def _names(words: Sequence[int], labels: Mapping[str, int]) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, address in labels.items():
        names.setdefault(address, []).append(name)
    for address, word in enumerate(words):
        instruction = decode(word)
        if instruction.op not in TARGETED:
            continue
        if instruction.address >= len(words):
            raise SequenceError(
                f"the word at {address} branches to {instruction.address}, out of the program"
            )
        if instruction.address not in names:
            name = f"a_{instruction.address}"
            while name in labels:
                name += "_"
            names[instruction.address] = [name]
    return names


def _text(instruction: Instruction, names: Mapping[int, list[str]]) -> str:
    op = instruction.op
    mnemonic = op.name.lower() + (".s" if op in SLOTTED else "")
    target = names[instruction.address][0] if op in TARGETED else ""
    match op:
        case Op.NOP:
            return f"nop r{instruction.register}" if instruction.register else "nop"
        case Op.BTR:
            return f"{mnemonic} {'!' * instruction.invert}{instruction.trigger}, {target}"
        case Op.J | Op.CALL:
            return f"{mnemonic} {target}"
        case Op.BDEC:
            return f"{mnemonic} r{instruction.register}, {target}"
        case Op.LDC:
            return f"{mnemonic} r{instruction.register}, {instruction.value}"
        case Op.WAIT:
            return f"{mnemonic} {instruction.value}"
        case Op.P:
            return f"{mnemonic} {instruction.group}, {instruction.value:#06x}"
        case _:
            return mnemonic


def _listing(words: Sequence[int], labels: Mapping[str, int]) -> str:
    names = _names(words, labels)
    rows = []
    cycle: int | None = 0
    unreached = len(words)
    for address, word in enumerate(words):
        if address in names:
            cycle = 0
        elif address == unreached:
            cycle = None
        instruction = decode(word)
        label = " ".join(f"{name}:" for name in names.get(address, ()))
        counted = "-" if cycle is None else str(cycle)
        text = _text(instruction, names)
        rows.append(f"{address:6d}  {word:08x}  {counted:>9s}  {label:<16s}  {text}\n")
        if cycle is not None:
            cycle += instruction.cycles
        if instruction.op in FINAL:
            unreached = address + 1 + DELAY_SLOTS
    return "".join(rows)


# --- words --------------------------------------------------------------------------------


def _word(item: _Item, labels: Mapping[str, int]) -> int:
    instruction = item.instruction
    if item.target is not None:
        if item.target not in labels:
            raise _error(item.line, f"there is no label {item.target!r}")
        instruction = instruction._replace(address=labels[item.target])
    try:
        return encode(instruction)
    except SequenceError as error:
        raise _error(item.line, str(error)) from None


def _check_slots(items: Sequence[_Item]) -> None:
    owner: _Item | None = None
    left = 0
    for item in items:
        op = item.instruction.op
        if left and owner is not None:
            if op in SLOTTED:
                raise _error(
                    item.line,
                    f"{op.name.lower()} is in a delay slot of the {_name(owner)} in line "
                    f"{owner.line}; what that does is not documented",
                )
            if owner.instruction.op in NOPS_ONLY and item.instruction != NOP:
                raise _error(
                    item.line,
                    f"in the slots of the {_name(owner)} in line {owner.line} belong nops",
                )
            left -= 1
        if op in SLOTTED:
            owner, left = item, DELAY_SLOTS
    last = items[-1].line if items else 1
    if left and owner is not None:
        raise _error(owner.line, f"{left} of the delay slots of {_name(owner)} are missing")
    if len(items) <= DELAY_SLOTS or items[-1 - DELAY_SLOTS].instruction.op not in FINAL:
        raise _error(last, "the program runs off its end; end it with j, ret or halt")


def _name(item: _Item) -> str:
    return item.instruction.op.name.lower()


def _error(line: int, what: str) -> SequenceError:
    return SequenceError(f"line {line}: {what}")


# --- source -------------------------------------------------------------------------------


def _parsed(text: str, line: int, address: int) -> list[_Item]:
    mnemonic, *rest = text.split(None, 1)
    operands = [operand.strip() for operand in rest[0].split(",")] if rest else []
    name, _, suffix = mnemonic.partition(".")
    if name == "delay" and not suffix:
        return _delay(operands, line, address)
    op = Op.__members__.get(name.upper()) if name.islower() else None
    if op is None or mnemonic not in (name, f"{name}.s"):
        raise _error(line, f"there is no instruction {mnemonic!r}")
    if suffix and op not in SLOTTED:
        raise _error(line, f"{name} has no delay slots to fill")
    instruction, target = _operands(op, operands, line)
    item = _Item(instruction, line, target, filled=bool(suffix))
    slots = 0 if suffix or op not in SLOTTED else DELAY_SLOTS
    return [item, *[_Item(NOP, line)] * slots]


def _operands(op: Op, operands: Sequence[str], line: int) -> tuple[Instruction, str | None]:
    match op, operands:
        case Op.RET | Op.HALT | Op.NOP, []:
            return Instruction(op), None
        case Op.NOP, [register]:
            return Instruction(op, register=_register(register, line)), None
        case Op.BTR, [trigger, target]:
            number = _number(trigger.removeprefix("!"), line)
            if number >= TRIGGER_INPUTS:
                raise _error(line, f"trigger input {number} is outside 0..{TRIGGER_INPUTS - 1}")
            inverted = int(trigger.startswith("!"))
            return Instruction(op, mask=1 << number, invert=inverted), _symbol(target, line)
        case Op.J | Op.CALL, [target]:
            return Instruction(op), _symbol(target, line)
        case Op.BDEC, [register, target]:
            return Instruction(op, register=_register(register, line)), _symbol(target, line)
        case Op.LDC, [register, value]:
            number = _number(value, line)
            return Instruction(op, register=_register(register, line), value=number), None
        case Op.WAIT, [value]:
            return Instruction(op, value=_number(value, line)), None
        case Op.P, [group, value]:
            return Instruction(op, group=_number(group, line), value=_number(value, line)), None
    raise _error(line, f"it is to be `{_SYNTAX[op]}`")


def _delay(operands: Sequence[str], line: int, address: int) -> list[_Item]:
    if len(operands) not in (1, 2):
        raise _error(line, "it is to be `delay CYCLES` or `delay CYCLES, rN`")
    cycles = _number(operands[0], line)
    if not 1 <= cycles <= MAX_DELAY_CYCLES:
        raise _error(line, f"a delay of {cycles} cycles is outside 1..{MAX_DELAY_CYCLES}")
    register = _register(operands[1], line) if len(operands) == 2 else None
    return [_Item(each, line, filled=True) for each in _waits(cycles, register, address)]


def _waits(cycles: int, register: int | None, address: int) -> list[Instruction]:
    """Instructions that take exactly `cycles`, the first of them at `address`."""
    slots = [NOP] * DELAY_SLOTS
    longest = [Instruction(Op.WAIT, value=MAX_WAIT_CYCLES), *slots]
    result: list[Instruction] = []
    while cycles > _LONGEST_WAIT:
        turns = 0 if register is None else min(MAX_COUNT, (cycles - 1) // _LONGEST_TURN)
        if register is None or turns < _FEWEST_TURNS:
            result += longest
            cycles -= _LONGEST_WAIT
            continue
        result.append(Instruction(Op.LDC, register=register, value=turns))
        top = address + len(result)
        result += [*longest, Instruction(Op.NOP, register=register)]
        result += [Instruction(Op.BDEC, register=register, address=top), *slots]
        cycles -= 1 + turns * _LONGEST_TURN
    if cycles > WAIT_CYCLES:
        return [*result, Instruction(Op.WAIT, value=cycles - WAIT_CYCLES), *slots]
    return [*result, *[NOP] * cycles]


def _number(text: str, line: int) -> int:
    if not _NUMBER.fullmatch(text):
        raise _error(line, f"{text!r} is no number")
    return int(text.replace("_", ""), 16 if text.startswith("0x") else 10)


def _register(text: str, line: int) -> int:
    match = _REGISTER.fullmatch(text)
    if not match:
        raise _error(line, f"{text!r} is no register; there are r0 to r{REGISTERS - 1}")
    return int(match[1])


def _symbol(text: str, line: int) -> str:
    if not _SYMBOL.fullmatch(text):
        raise _error(line, f"{text!r} is no label")
    return text
