"""The instruction table and the decoder, against netqasm's own instruction classes."""

from __future__ import annotations

from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netqasm.lang.encoding import RegisterName
from netqasm.lang.instr import core
from netqasm.lang.instr.flavour import CORE_INSTRUCTIONS, NVFlavour, VanillaFlavour
from netqasm.lang.operand import Address, ArrayEntry, ArraySlice, Immediate, Register

from qnodeos.api.netqasm import INSTRUCTION_BYTES, REGISTERS, Flavour, register_name
from qnodeos.errors import ErrorCode, MalformedSubroutineError, WrongFlavourError
from qnodeos.qnpu.compiler import _BUILDERS
from qnodeos.qnpu.decoder import check_version, decode_subroutine
from qnodeos.qnpu.isa import CORE, FLAVOURS, decoding_table
from tests.unit.kernel_programs import encode

THEIRS = {Flavour.VANILLA: VanillaFlavour(), Flavour.NV: NVFlavour()}
CLASSES = [
    (flavour, instruction)
    for flavour, theirs in THEIRS.items()
    for instruction in [*CORE_INSTRUCTIONS, *theirs.instrs]
]
MNEMONICS = {
    "meas_basis_yzy": core.MeasBasisYZYInstruction,
    "meas_basis_zxz": core.MeasBasisZXZInstruction,
}
"""Mnemonics we may choose, because netqasm gives them nowhere but in its classes."""

REGISTER = st.builds(Register, st.sampled_from(RegisterName), st.integers(0, 15))
I32 = st.integers(-(2**31), 2**31 - 1)
ADDRESS = st.builds(Address, I32)
OPERANDS = {
    Register: REGISTER,
    Address: ADDRESS,
    ArrayEntry: st.builds(ArrayEntry, ADDRESS, REGISTER),
    ArraySlice: st.builds(ArraySlice, ADDRESS, REGISTER, REGISTER),
}
I32_IMMEDIATES = {core.SetInstruction, core.JmpInstruction}


def number(register: Register) -> int:
    return int(register.name.value | register.index << 2)


def flat(operand) -> list[int]:
    """An operand as the decoder gives it."""
    if isinstance(operand, Register):
        return [number(operand)]
    if isinstance(operand, Address):
        return [operand.address]
    if isinstance(operand, ArrayEntry):
        return [operand.address.address, number(operand.index)]
    if isinstance(operand, ArraySlice):
        return [operand.address.address, number(operand.start), number(operand.stop)]
    return [operand.value if isinstance(operand, Immediate) else operand]


def draw_instruction(data: st.DataObject, cls: type):
    """An instruction of a class with random operands."""
    is_branch = issubclass(
        cls, core.BranchUnaryInstruction | core.BranchBinaryInstruction | core.JmpInstruction
    )
    wide = is_branch or cls in I32_IMMEDIATES
    immediate = st.builds(Immediate, I32 if wide else st.integers(0, 255))
    fields = {
        name: hint
        for name, hint in get_type_hints(cls).items()
        if name not in ("id", "mnemonic", "lineno")
    }
    return cls(
        lineno=None,
        **{
            name: data.draw(OPERANDS.get(hint, immediate), label=name)
            for name, hint in fields.items()
        },
    )


@pytest.mark.parametrize("flavour", Flavour)
def test_the_table_has_netqasms_instructions_and_no_others(flavour):
    ours = {code: name for code, (name, _) in {**CORE, **FLAVOURS[flavour]}.items()}
    theirs = {code: cls.mnemonic for code, cls in THEIRS[flavour].id_map.items()}
    assert ours.keys() == theirs.keys()
    for code, mnemonic in theirs.items():
        cls = THEIRS[flavour].id_map[code]
        assert ours[code] == mnemonic or MNEMONICS.get(ours[code]) is cls


@pytest.mark.parametrize(
    ("flavour", "cls"), CLASSES, ids=[f"{f.value}-{c.mnemonic}-{c.id}" for f, c in CLASSES]
)
@settings(max_examples=25)
@given(data=st.data())
def test_every_instruction_netqasm_serialises_is_decoded(flavour, cls, data):
    instruction = draw_instruction(data, cls)
    raw = bytes(instruction.serialize())
    assert len(raw) == INSTRUCTION_BYTES
    [decoded] = decode_subroutine(raw, flavour)
    expected = [value for operand in instruction.operands for value in flat(operand)]
    assert list(decoded.operands) == expected
    assert decoded.mnemonic == {**CORE, **FLAVOURS[flavour]}[cls.id][0]
    assert encode((decoded.mnemonic, *decoded.operands), flavour=flavour) == raw


@pytest.mark.parametrize("flavour", Flavour)
def test_every_instruction_can_be_compiled(flavour):
    assert {d.mnemonic for d in decoding_table(flavour) if d is not None} <= _BUILDERS.keys()


@given(REGISTER)
def test_register_names(register):
    assert register_name(number(register)) == str(register)


def test_padding_is_ignored():
    body = encode(("ret_reg", 3))
    assert decode_subroutine(body[:2] + b"\xff" * 5, Flavour.NV) == decode_subroutine(
        body, Flavour.NV
    )


def test_an_empty_subroutine_is_one():
    assert decode_subroutine(b"", Flavour.NV) == []


# --- what does not decode -------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 6, 8, 20])
def test_a_truncated_subroutine(length):
    with pytest.raises(MalformedSubroutineError, match=f"{length} bytes is truncated"):
        decode_subroutine(b"\x01" * length, Flavour.VANILLA)


def test_an_unknown_opcode_and_where():
    body = encode(("jmp", 0), ("jmp", 0)) + b"\xf0" + b"\0" * 6
    with pytest.raises(MalformedSubroutineError, match="instruction 2: unknown opcode 240"):
        decode_subroutine(body, Flavour.VANILLA)


def test_an_instruction_of_the_other_flavour():
    with pytest.raises(WrongFlavourError, match=r"instruction 0: h \(opcode 23\).*vanilla") as info:
        decode_subroutine(encode(("h", 2)), Flavour.NV)
    assert info.value.code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize("flavour", Flavour)
def test_every_register_field_is_checked(flavour):
    for code, (mnemonic, layout) in {**CORE, **FLAVOURS[flavour]}.items():
        fields = layout.format.count("B") + layout.format.count("i")
        for place in layout.registers:
            operands = [0] * fields
            operands[place] = REGISTERS
            body = encode((mnemonic, *operands), flavour=flavour)
            assert body[0] == code
            with pytest.raises(MalformedSubroutineError, match=f"{mnemonic} names register.*0x40"):
                decode_subroutine(body, flavour)
            operands[place] = REGISTERS - 1
            assert decode_subroutine(encode((mnemonic, *operands), flavour=flavour), flavour)


@given(st.binary(max_size=70), st.sampled_from(Flavour))
def test_any_bytes_decode_or_give_a_typed_error(body, flavour):
    try:
        instructions = decode_subroutine(body, flavour)
    except MalformedSubroutineError as error:
        assert "instruction" in str(error)
    else:
        assert len(instructions) * INSTRUCTION_BYTES == len(body)


def test_another_major_version_of_the_wire_format_is_refused():
    check_version((0, 10))
    with pytest.raises(MalformedSubroutineError, match=r"wire format 1\.0; this node speaks 0\.x"):
        check_version((1, 0))
