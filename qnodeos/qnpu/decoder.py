"""From the bytes of a subroutine to instructions."""

from __future__ import annotations

from functools import cache
from typing import Final

from qnodeos.api.netqasm import INSTRUCTION_BYTES, REGISTERS, Flavour
from qnodeos.errors import MalformedSubroutineError, WrongFlavourError
from qnodeos.qnpu.isa import FLAVOURS, Decoding, Instruction, decoding_table

_table = cache(decoding_table)

NETQASM_MAJOR: Final = 0
"""Major version of the NetQASM wire format we speak (netqasm 2.x sends 0.10)."""


def check_version(version: tuple[int, int]) -> None:
    """Refuse a wire format whose instructions may mean something else.

    Raises:
        MalformedSubroutineError: the major version is not ours.
    """
    if version[0] != NETQASM_MAJOR:
        raise MalformedSubroutineError(
            f"the subroutine is in NetQASM wire format {version[0]}.{version[1]}; this node "
            f"speaks {NETQASM_MAJOR}.x"
        )


def decode_subroutine(body: bytes, flavour: Flavour) -> list[Instruction]:
    """Decode the instructions of a subroutine.

    Args:
        body: instructions, seven bytes each. Padding bytes are ignored.
        flavour: the flavour this node speaks.

    Returns:
        The instructions in order.

    Raises:
        WrongFlavourError: an opcode exists, but only in another flavour.
        MalformedSubroutineError: truncated, unknown opcode, or no such register.
    """
    if len(body) % INSTRUCTION_BYTES:
        raise MalformedSubroutineError(
            f"subroutine of {len(body)} bytes is truncated: instructions are "
            f"{INSTRUCTION_BYTES} bytes each"
        )
    table = _table(flavour)
    instructions: list[Instruction] = []
    append = instructions.append
    new = tuple.__new__  # the named tuple's own constructor is a Python function
    for offset in range(0, len(body), INSTRUCTION_BYTES):
        decoding = table[body[offset]]
        if decoding is None:
            raise _unknown_opcode(body[offset], offset, flavour)
        mnemonic, unpack_from, registers = decoding
        operands = unpack_from(body, offset + 1)
        for position in registers:
            if operands[position] >= REGISTERS:
                raise _bad_register(decoding, operands[position], offset)
        append(new(Instruction, (mnemonic, operands)))
    return instructions


def _unknown_opcode(opcode: int, offset: int, flavour: Flavour) -> MalformedSubroutineError:
    pc = offset // INSTRUCTION_BYTES
    for other, opcodes in FLAVOURS.items():
        if opcode in opcodes:
            return WrongFlavourError(
                f"instruction {pc}: {opcodes[opcode][0]} (opcode {opcode}) belongs to the "
                f"{other.value} flavour, this node speaks {flavour.value}; compile the "
                f"program for {flavour.value}"
            )
    return MalformedSubroutineError(f"instruction {pc}: unknown opcode {opcode}")


def _bad_register(decoding: Decoding, value: int, offset: int) -> MalformedSubroutineError:
    return MalformedSubroutineError(
        f"instruction {offset // INSTRUCTION_BYTES}: {decoding.mnemonic} names register "
        f"byte {value:#04x}; registers are 0x00 to {REGISTERS - 1:#04x}"
    )
