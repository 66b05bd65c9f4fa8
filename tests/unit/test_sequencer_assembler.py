"""The pulse sequencer's words, assembler and disassembler."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sequences import sequencer_assembler
from sequences.errors import SequenceError
from sequences.sequencer_assembler import assemble, disassemble
from sequences.sequencer_isa import SLOTTED, Instruction, Op, decode, encode

NOPS = [0] * 5


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("nop", 0x0000_0000),
        ("nop r3", 0x0180_0000),
        ("l: btr 3, l", 0x3 << 28 | 8 << 19 | 0 << 18),
        ("l: btr !8, l", 0x3 << 28 | 256 << 19 | 1 << 18),
        ("j l\nl: nop", 0x4000_0006),
        ("call l\nl: nop", 0x5000_0006),
        ("ret", 0x6000_0000),
        ("halt", 0x8000_0000),
        ("wait 16_383", 0x9000_3FFF),
        ("bdec r15, l\nl: nop", 0xA780_0006),
        ("ldc r2, 255", 0xB100_00FF),
        ("p 3, 0xbeef", 0xC003_BEEF),
    ],
)
def test_words_have_the_documented_fields(source, word):
    assert assemble(f"{source}\nhalt").words[0] == word
    assert encode(decode(word)) == word


def test_slots_are_filled_with_nops_or_by_the_caller():
    assert assemble("wait 1\nhalt").words == (0x90000001, *NOPS, 0x80000000, *NOPS)
    source = "l: p 0, 1\nj.s l\np 0, 2\nnop\nldc r0, 1\nnop\np 0, 3"
    words = (0xC0000001, 0x40000000, 0xC0000002, 0, 0xB0000001, 0, 0xC0000003)
    assert assemble(source).words == words


def test_the_listing_counts_from_the_label_above():
    source = """
    start:  p 0, 1
            wait 7          ; and five nops
            p 0, 0
    again:
    loop:   nop r0
            bdec r0, loop
            j start
    """
    program = assemble(source)
    assert program.labels == {"start": 0, "again": 8, "loop": 8}
    rows = program.listing.splitlines()
    assert len(rows) == len(program.words)
    assert [rows[n].split() for n in (0, 1, 2, 7, 8, 9, 15)] == [
        ["0", "c0000001", "0", "start:", "p", "0,", "0x0001"],
        ["1", "90000007", "1", "wait.s", "7"],
        ["2", "00000000", "9", "nop"],
        ["7", "c0000000", "14", "p", "0,", "0x0000"],
        ["8", "00000000", "0", "again:", "loop:", "nop"],
        ["9", "a0000008", "1", "bdec.s", "r0,", "again"],
        ["15", "40000000", "7", "j.s", "start"],
    ]
    tail = assemble("j l\np 0, 1\nl: halt").listing.splitlines()
    assert [row.split()[2] for row in tail[5:8]] == ["5", "-", "0"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("halt\nj nowhere", r"line 2: there is no label 'nowhere'"),
        ("l: nop\nl: halt", r"line 2: label 'l' is in line 1 already"),
        ("halt\nend:", r"line 2: label 'end' marks no instruction"),
        ("x" * 65 + ": halt", r"line 1: a label may have 64"),
        ("jump l", r"line 1: there is no instruction 'jump'"),
        ("P 0, 1", r"line 1: there is no instruction 'P'"),
        ("j.x l", r"line 1: there is no instruction 'j.x'"),
        ("delay.s 4", r"line 1: there is no instruction 'delay.s'"),
        ("p.s 0, 1", r"line 1: p has no delay slots to fill"),
        ("j", r"line 1: it is to be `j LABEL`"),
        ("halt 1", r"line 1: it is to be `halt`"),
        ("p 0", r"line 1: it is to be `p GROUP, VALUE`"),
        ("delay", r"line 1: it is to be `delay CYCLES`"),
        ("p 0, 0x10000\nhalt", r"line 1: value 65536 of p is outside 0\.\.65535"),
        ("p 4, 0\nhalt", r"line 1: group 4 of p is outside 0\.\.3"),
        ("p 0, -1", r"line 1: '-1' is no number"),
        ("wait 16_384\nhalt", r"line 1: value 16384 of wait is outside 1\.\.16383"),
        ("wait 0\nhalt", r"line 1: value 0 of wait is outside 1\.\.16383"),
        ("ldc r0, 256\nhalt", r"line 1: value 256 of ldc is outside 1\.\.255"),
        ("ldc r0, 0\nhalt", r"line 1: value 0 of ldc is outside 1\.\.255"),
        ("ldc r16, 1\nhalt", r"line 1: register 16 of ldc is outside 0\.\.15"),
        ("ldc 0, 1", r"line 1: '0' is no register; there are r0 to r15"),
        ("l: btr 9, l", r"line 1: trigger input 9 is outside 0\.\.8"),
        ("j 7", r"line 1: '7' is no label"),
        ("delay 0", r"line 1: a delay of 0 cycles is outside 1\.\.1000000000"),
        ("l: j.s l\nnop", r"line 1: 4 of the delay slots of j are missing"),
        ("l: j.s l\nnop\nwait 3\nhalt", r"line 3: wait is in a delay slot of the j in line 1"),
        ("wait.s 3\nnop\np 0, 1", r"line 3: in the slots of the wait in line 1 belong nops"),
        ("p 0, 1", r"line 1: the program runs off its end"),
        ("l: btr 0, l", r"line 1: the program runs off its end"),
        ("", r"line 1: the program runs off its end"),
        ("delay 1_000_000_000\nhalt", r"line 1: the program is too long; .* 262144 words"),
    ],
)
def test_mistakes_are_found_with_their_line(source, message):
    with pytest.raises(SequenceError, match=message):
        assemble(source)


def test_a_source_has_a_bound(monkeypatch):
    monkeypatch.setattr(sequencer_assembler, "MAX_SOURCE_CHARACTERS", 10)
    with pytest.raises(SequenceError, match="10 characters"):
        assemble("halt       ")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (0x1000_0000, "0x10000000 has an unknown opcode"),
        (0xF000_0000, "unknown opcode"),
        (0x0000_0001, "sets bits that nop does not have"),
        (0x9000_4001, "sets bits that wait does not have"),
        (0xC800_0000, "sets bits that p does not have"),
        (0x3000_0000, "btr with mask 0x0: it must be one trigger input"),
        (0x3018_0000, "btr with mask 0x3: it must be one trigger input"),
        (0x9000_0000, "value 0 of wait"),
    ],
)
def test_words_that_are_no_instructions_are_refused(word, message):
    with pytest.raises(SequenceError, match=message):
        decode(word)
    with pytest.raises(SequenceError, match=message):
        disassemble([word])


def test_instructions_have_their_own_fields_only():
    with pytest.raises(SequenceError, match="ret has no value"):
        encode(Instruction(Op.RET, value=1))


def test_a_branch_out_of_the_program_is_not_disassembled():
    with pytest.raises(SequenceError, match="word at 0 branches to 7, out of the program"):
        disassemble([0x40000007, *NOPS])


def test_a_name_of_the_disassembler_is_no_label_of_the_program():
    program = assemble("a_12: j there\na_12_: j a_12\nthere: halt")
    assert "a_12__: " not in program.listing
    source = disassemble(program.words, {"a_12": 0, "a_12_": 6})
    assert "a_12__:" in source
    assert assemble(source).words == program.words


# --- delays -------------------------------------------------------------------------------


def counted(words):
    """Cycles of a program with one level of loops, by adding up: no simulator."""
    total, loop, turns = 0, 0, 1
    for word in words:
        cycles = 1 + (word & 0x3FFF if word >> 28 == Op.WAIT else 0)
        if word >> 28 == Op.LDC:
            turns, loop = word & 0xFF, 0
            total += cycles
            continue
        loop += cycles
        if word >> 28 == Op.BDEC:
            total += turns * (loop + 5)
            loop, turns = -5, 1
    return total + loop


@given(st.one_of(st.integers(1, 40_000), st.integers(1, 200_000_000)), st.booleans())
@example(16_389, True)
@example(16_390, True)
@example(3 * 16_396, True)
@example(3 * 16_396 + 1, True)
@example(255 * 16_396 + 1, True)
@example(256 * 16_396 + 1, True)
def test_a_delay_takes_what_it_says(cycles, with_register):
    cycles = cycles if with_register else min(cycles, 400_000)
    words = assemble(f"delay {cycles}{', r1' if with_register else ''}\nhalt").words[:-6]
    assert counted(words) == cycles
    if not with_register:
        assert not any(word >> 28 in (Op.LDC, Op.BDEC) for word in words)


def test_a_long_delay_has_few_words():
    assert len(assemble("delay 100_000_000, r0\nhalt").words) < 500


# --- round trip ---------------------------------------------------------------------------

numbers = {
    "register": st.integers(0, 15),
    "value": st.integers(1, 255),
    "group": st.integers(0, 3),
    "invert": st.integers(0, 1),
    "mask": st.integers(0, 8).map(lambda n: 1 << n),
}
fields = {
    Op.NOP: ["register"],
    Op.BTR: ["mask", "invert"],
    Op.WAIT: ["value"],
    Op.BDEC: ["register"],
    Op.LDC: ["register", "value"],
    Op.P: ["group", "value"],
}


@st.composite
def valid_words(draw):
    """Any program that keeps the rules of the slots."""
    instructions = []
    for op in [*draw(st.lists(st.sampled_from(Op), max_size=15)), Op.J]:
        drawn = {name: draw(numbers[name]) for name in fields.get(op, ())}
        instructions.append(Instruction(op, **drawn))
        if op in SLOTTED:
            nops_only = op in (Op.WAIT, Op.HALT)
            slots = [
                Instruction(Op.NOP),
                Instruction(Op.P, value=5),
                Instruction(Op.NOP, register=2),
            ]
            instructions += [
                slots[0] if nops_only else draw(st.sampled_from(slots)) for _ in range(5)
            ]
    last = len(instructions) - 1
    return [
        encode(each._replace(address=draw(st.integers(0, last))))
        if each.op in (Op.BTR, Op.J, Op.CALL, Op.BDEC)
        else encode(each)
        for each in instructions
    ]


@given(valid_words())
def test_words_survive_disassembler_and_assembler(words):
    source = disassemble(words)
    program = assemble(source)
    assert list(program.words) == words
    assert disassemble(program.words, program.labels) == source


labelled = st.lists(
    st.sampled_from(["nop", "p 1, 77", "wait 9", "j {}", "btr !2, {}", "call {}", "ret"]),
    min_size=1,
    max_size=20,
)


@given(labelled, st.randoms(use_true_random=False))
def test_sources_survive_assembler_and_disassembler(lines, random):
    names = [f"here_{n}" for n in range(len(lines))]
    source = "".join(
        f"{name}: {line.format(random.choice(names))}\n"
        for name, line in zip(names, lines, strict=True)
    )
    program = assemble(source + "delay 90_000, r3\nhalt\n")
    again = assemble(disassemble(program.words, program.labels))
    assert again.words == program.words
    assert set(program.labels.items()) <= set(again.labels.items())
    assert assemble(disassemble(again.words, again.labels)) == again
