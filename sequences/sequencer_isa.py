"""The instruction set of the FPGA pulse sequencer: words of 32 bits.

Documented by the Innsbruck group's public control software (opcodes, 10 ns cycle, five delay
slots, waits of up to 16,383 cycles, four groups of 16 outputs) and so are the places of most
fields. Nothing was verified on hardware.

=====  ====  =====================================  =====================================
mnem.  code  fields (lowest bit: width)             meaning
=====  ====  =====================================  =====================================
nop    0x0   register 23:4                          nothing; a register puts its number on
                                                    the bus, which goes before a bdec
btr    0x3   mask 19:9, invert 18:1, address 0:18   branch if the trigger input is high, or
                                                    low with invert
j      0x4   address 0:18                           jump
call   0x5   address 0:18                           jump, and remember the way back
ret    0x6                                          back behind the last call
halt   0x8                                          stop
wait   0x9   cycles 0:14                            wait for so many cycles more
bdec   0xa   register 23:4, address 0:18            decrement; branch unless it became zero
ldc    0xb   register 23:4, value 0:8               load a register
p      0xc   group 16:2, value 0:16                 set the 16 outputs of a group
=====  ====  =====================================  =====================================

Every instruction takes one cycle, and a wait `cycles` more. The five words behind btr, j, call,
ret, bdec, halt and wait are its delay slots: they are executed before the branch is, and take a
cycle each whether it is taken or not.

Assumed: a btr looks at one input, that whose bit of the mask is 1, whatever the others are (the
public software calls this field the trigger's state, and does not say how wide it is or how it is
compared); the group `g` drives outputs 16 g to 16 g + 15; an output changes and a trigger input is
looked at in the cycle of the instruction; the call's way back is the word behind its slots;
`CALL_DEPTH`; a loop with ldc n is run n times. Not documented, and therefore refused by assembler
and simulation alike: masks of several trigger inputs, other bits than the fields above, anything
but nops in the slots of a wait or halt, and an instruction with slots in the slots of another.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from sequences.errors import SequenceError

CYCLE_NS: Final = 10
"""Clock period (published)."""
DELAY_SLOTS: Final = 5
MAX_WAIT_CYCLES: Final = 16_383
MAX_ADDRESS: Final = (1 << 18) - 1
"""What a btr can reach."""
MAX_WORDS: Final = MAX_ADDRESS + 1
TRIGGER_INPUTS: Final = 9
REGISTERS: Final = 16
MAX_COUNT: Final = 255
"""Largest value of a register."""
OUTPUT_GROUPS: Final = 4
GROUP_BITS: Final = 16
CALL_DEPTH: Final = 8
"""Calls within calls (assumed)."""


class Op(IntEnum):
    """Opcodes, the high four bits of a word."""

    NOP = 0x0
    BTR = 0x3
    J = 0x4
    CALL = 0x5
    RET = 0x6
    HALT = 0x8
    WAIT = 0x9
    BDEC = 0xA
    LDC = 0xB
    P = 0xC


class _Field(NamedTuple):
    name: str
    lowest_bit: int
    maximum: int


_REGISTER: Final = _Field("register", 23, REGISTERS - 1)
_ADDRESS: Final = _Field("address", 0, MAX_ADDRESS)
_FIELDS: Final[dict[Op, tuple[_Field, ...]]] = {
    Op.NOP: (_REGISTER,),
    Op.BTR: (_Field("mask", 19, (1 << TRIGGER_INPUTS) - 1), _Field("invert", 18, 1), _ADDRESS),
    Op.J: (_ADDRESS,),
    Op.CALL: (_ADDRESS,),
    Op.RET: (),
    Op.HALT: (),
    Op.WAIT: (_Field("value", 0, MAX_WAIT_CYCLES),),
    Op.BDEC: (_REGISTER, _ADDRESS),
    Op.LDC: (_REGISTER, _Field("value", 0, MAX_COUNT)),
    Op.P: (_Field("group", 16, OUTPUT_GROUPS - 1), _Field("value", 0, (1 << GROUP_BITS) - 1)),
}
_MINIMUM_VALUE: Final = {Op.WAIT: 1, Op.LDC: 1}
TARGETED: Final = frozenset({Op.BTR, Op.J, Op.CALL, Op.BDEC})
"""Instructions with an address."""
SLOTTED: Final = TARGETED | {Op.RET, Op.HALT, Op.WAIT}
"""Instructions with delay slots."""
NOPS_ONLY: Final = frozenset({Op.WAIT, Op.HALT})
"""Those in whose slots there must be nops."""
FINAL: Final = frozenset({Op.J, Op.RET, Op.HALT})
"""Those that are never passed."""


class Instruction(NamedTuple):
    """One instruction; fields that its opcode does not have are zero.

    Attributes:
        op: opcode.
        address: where it branches to.
        register: of nop, bdec and ldc.
        mask: the trigger input of btr as a mask.
        invert: 1 if btr branches when the input is low.
        group: of outputs.
        value: of the outputs, of the register, or cycles.
    """

    op: Op
    address: int = 0
    register: int = 0
    mask: int = 0
    invert: int = 0
    group: int = 0
    value: int = 0

    @property
    def cycles(self) -> int:
        """Cycles until the next word is executed."""
        return 1 + self.value if self.op is Op.WAIT else 1

    @property
    def trigger(self) -> int:
        """Number of the trigger input of btr."""
        return self.mask.bit_length() - 1


NOP: Final = Instruction(Op.NOP)


def encode(instruction: Instruction) -> int:
    """The word of an instruction.

    Raises:
        SequenceError: a field is out of range, or the opcode has no such field.
    """
    op = instruction.op
    fields = _FIELDS[op]
    word = op << 28
    for field in fields:
        value = getattr(instruction, field.name)
        low = _MINIMUM_VALUE.get(op, 0) if field.name == "value" else 0
        if not low <= value <= field.maximum:
            raise SequenceError(
                f"{field.name} {value} of {op.name.lower()} is outside {low}..{field.maximum}"
            )
        word |= value << field.lowest_bit
    if op is Op.BTR and instruction.mask.bit_count() != 1:
        raise SequenceError(f"btr with mask {instruction.mask:#x}: it must be one trigger input")
    unused = {"address", "register", "mask", "invert", "group", "value"} - {f.name for f in fields}
    for name in sorted(unused):
        if getattr(instruction, name):
            raise SequenceError(f"{op.name.lower()} has no {name}")
    return word


def decode(word: int) -> Instruction:
    """The instruction of a word.

    Raises:
        SequenceError: its opcode is unknown, or it has bits that are not documented.
    """
    try:
        op = Op(word >> 28)
    except ValueError:
        raise SequenceError(f"word {word:#010x} has an unknown opcode") from None
    values = {
        field.name: word >> field.lowest_bit & (1 << field.maximum.bit_length()) - 1
        for field in _FIELDS[op]
    }
    instruction = Instruction(op, **values)
    if encode(instruction) != word:
        raise SequenceError(f"word {word:#010x} sets bits that {op.name.lower()} does not have")
    return instruction
