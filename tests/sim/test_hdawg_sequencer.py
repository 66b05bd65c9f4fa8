"""The sequencer against a Python reference, and every way in which it refuses."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable

import pytest
from zhinst.core.errors import InvalidArgumentError

from sim.hdawg import HdawgTiming, SequencerFault
from sim.hdawg.core import AwgCore, UploadRefused
from sim.hdawg.dio import DioInput
from sim.hdawg.elf import MalformedElf, read_elf, read_listing
from sim.hdawg.sequencer import IllegalInstruction
from tests.sim.hdawg_setup import SERIAL, compiled, running

WORD = (1 << 32) - 1
SIGN = 1 << 31
SEED = 20260101
PROGRAMS = 300

# --- differential: random SeqC programs ---------------------------------------------------

ARITHMETIC = {"+": operator.add, "-": operator.sub, "&": operator.and_, "|": operator.or_}
COMPARISONS = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


class Expression:
    """A random SeqC expression of the variables a and b, and its value."""

    value: Callable[[dict[str, int]], int]

    def __init__(self, rng: random.Random, depth: int) -> None:
        kind = rng.choice(["leaf", "two", "two", "shift", "times", "not"]) if depth else "leaf"
        if kind == "leaf":
            name = self.text = rng.choice(["a", "b"])
            self.value = lambda v: v[name]
            return
        left = Expression(rng, depth - 1)
        if kind == "two":
            # A constant only beside a variable: the compiler folds constants in its own way.
            symbol = rng.choice(list(ARITHMETIC))
            right = Constant(rng) if rng.random() < 0.4 else Expression(rng, depth - 1)
            self.text = f"({left.text} {symbol} {right.text})"
            self.value = lambda v: ARITHMETIC[symbol](left.at(v), right.at(v))
        elif kind == "shift":
            symbol, places = rng.choice(["<<", ">>"]), rng.randint(0, 6)
            self.text = f"({left.text} {symbol} {places})"
            shift = operator.lshift if symbol == "<<" else operator.rshift
            self.value = lambda v: shift(left.at(v), places)
        elif kind == "times":
            factor = rng.choice([1, 2, 3, 4, 5, 7, 8, 10])
            self.text = f"({left.text} * {factor})"
            self.value = lambda v: left.at(v) * factor
        else:
            self.text = f"(~{left.text})"
            self.value = lambda v: ~left.at(v)

    def at(self, variables: dict[str, int]) -> int:
        return self.value(variables) & WORD


class Constant:
    """A constant, from one bit to more than the immediate operand of one instruction."""

    def __init__(self, rng: random.Random) -> None:
        values = [0, 1, 3, 15, 16, 255, 2047, 2048, 4095, 4096, 65535, 1 << 20, 0x12345678]
        self._value = rng.choice([*values, (1 << 31) - 1])
        self.text = str(self._value)

    def at(self, variables: dict[str, int]) -> int:
        return self._value


def signed(word: int) -> int:
    return word - (1 << 32) if word & SIGN else word


def random_program(rng: random.Random, a: int, b: int) -> tuple[str, list[int]]:
    """SeqC text and the words it must put on the DIO output."""
    variables = {"a": a, "b": b}
    expected: list[int] = []
    lines = []
    for _ in range(rng.randint(1, 3)):
        first, second = Expression(rng, rng.randint(1, 3)), Expression(rng, rng.randint(1, 3))
        target = rng.choice(["a", "b"])
        kind = rng.choice(["assign", "if", "repeat", "while"])
        if kind == "assign":
            lines.append(f"{target} = {first.text};")
            variables[target] = first.at(variables)
        elif kind == "if":
            symbol = rng.choice(list(COMPARISONS))
            # Small operands: a comparison is a subtraction, which may overflow.
            x, y = rng.choice([("a & 1023", "b & 1023"), ("a & 7", "3")])
            lines.append(
                f"if (({x}) {symbol} ({y})) {{ {target} = {first.text}; }} "
                f"else {{ {target} = {second.text}; }}"
            )
            left, right = (
                (variables["a"] & 1023, variables["b"] & 1023)
                if y != "3"
                else (variables["a"] & 7, 3)
            )
            chosen = first if COMPARISONS[symbol](left, right) else second
            variables[target] = chosen.at(variables)
        elif kind == "repeat":
            times = rng.randint(1, 5)
            lines.append(f"repeat ({times}) {{ {target} = {first.text}; }}")
            for _ in range(times):
                variables[target] = first.at(variables)
        else:
            times = rng.randint(0, 5)
            lines.append(f"n = {times}; while (n > 0) {{ {target} = {first.text}; n = n - 1; }}")
            for _ in range(times):
                variables[target] = first.at(variables)
        # The word before differs, so that this one is an edge whatever it is.
        lines.append(f"setDIO({target} | 1); setDIO({target} & 0xfffffffe);")
        expected += [variables[target] | 1, variables[target] & ~1]
    text = "var a = getUserReg(0); var b = getUserReg(1); var n = 0;\n" + "\n".join(lines)
    return text, expected


def test_random_programs_do_what_a_reference_says():
    rng = random.Random(SEED)
    for _ in range(PROGRAMS):
        a = rng.choice([0, 1, 5, rng.getrandbits(10), rng.getrandbits(20), rng.getrandbits(31)])
        b = rng.choice([0, 1, 5, rng.getrandbits(10), rng.getrandbits(20)])
        text, expected = random_program(rng, a, b)
        device = running(text, settings=[("awgs/0/userregs/0", a), ("awgs/0/userregs/1", b)])
        device.run_until(1_000_000)
        assert not device.cores[0].is_running, text
        assert [word for _, word in device.cores[0].dio_edges] == expected, text


# --- time -----------------------------------------------------------------------------------


def test_every_instruction_takes_one_cycle():
    device = running("setTrigger(1); setTrigger(0);", HdawgTiming(trigger_latency_samples=0))
    listing = device.nodes.read(f"/{SERIAL}/awgs/0/sequencer/assembly")
    instructions, _ = read_listing(str(listing))
    stores = [i for i, step in enumerate(instructions) if step.operands[1:] == ("34",)]
    device.run_until(10_000)
    assert device.cores[0].trigger_edges == [
        (8 * index, word) for index, word in zip(stores, (1, 0), strict=True)
    ]


def test_wait_takes_the_cycles_it_says():
    def distance(cycles: int) -> int:
        device = running(f"setTrigger(1); wait({cycles}); setTrigger(0);")
        device.run_until(10_000)
        (rise, _), (fall, _) = device.cores[0].trigger_edges
        return fall - rise

    assert distance(57) - distance(10) == 8 * 47


def test_a_branch_takes_a_cycle_too():
    def duration(times: int) -> tuple[int, int]:
        device = running(
            f"setTrigger(1); repeat ({times}) {{ wait(5); }} setTrigger(0);",
            HdawgTiming(trigger_latency_samples=0),
        )
        device.run_until(100_000)
        (rise, _), (fall, _) = device.cores[0].trigger_edges
        program = device.cores[0].program
        assert program is not None
        (label,) = program.labels.values()
        branch = next(i for i, step in enumerate(program.instructions) if step.opcode == "brgz")
        return fall - rise, branch + 1 - label

    (long, loop), (short, _) = duration(20), duration(10)
    assert long - short == 10 * 8 * (loop + 5)


def test_what_is_seen_outside_is_seen_at_its_time():
    """The sequencer does not look ahead at lines that may still change."""
    device = running("wait(1000); setDIO(getDIO()); setDIO(0);")
    device.run_until(1000)
    device.write_dio(2000, 5)
    device.run_until(50_000)
    assert [word for _, word in device.cores[0].dio_edges] == [5, 0]


def test_a_stopped_core_orders_nothing_more():
    device = running("repeat (10) { playZero(1600); }")
    device.run_until(4000)
    ordered = len(device.cores[0].player.timeline)
    assert 0 < ordered < 10
    device.nodes.write(f"/{SERIAL}/awgs/0/enable", 0)
    device.run_until(50_000)
    assert len(device.cores[0].player.timeline) == ordered


def test_a_program_started_again_makes_its_edges_again():
    device = running("setTrigger(1); setDIO(1);")
    for _ in range(2):
        device.run_until(device.now + 10_000)
        assert [word for _, word in device.cores[0].trigger_edges] == [1]
        assert [word for _, word in device.cores[0].dio_edges] == [1]
        device.nodes.write(f"/{SERIAL}/awgs/0/enable", 1)


def test_an_edge_is_recorded_though_the_one_before_was_forgotten():
    device = running("setTrigger(1); wait(2000); setTrigger(0);")
    device.run_until(10_000)
    device.forget_before(10_000)
    assert device.cores[0].trigger_edges == []
    device.run_until(50_000)
    assert [word for _, word in device.cores[0].trigger_edges] == [0]


def test_wait_for_the_player_ends_when_it_has_nothing_left():
    timing = HdawgTiming(output_latency_samples=0, trigger_latency_samples=0)
    device = running("playZero(1600); waitWave(); setTrigger(1);", timing)
    device.run_until(10_000)
    (play,) = device.cores[0].player.timeline.plays()
    (rise, _) = device.cores[0].trigger_edges[0]
    assert play.stop_sample <= rise < play.stop_sample + 8 * 8


def test_a_run_in_pieces_is_the_same_run():
    source = "var i; for (i = 0; i < 50; i = i + 1) { playZero(64 + 16 * i); setTrigger(i & 3); }"
    whole, pieces = running(source), running(source)
    whole.run_until(200_000)
    rng = random.Random(SEED)
    while pieces.now < 200_000:
        pieces.run_until(min(200_000, pieces.now + rng.randint(0, 3000)))
    assert list(pieces.cores[0].player.timeline.plays()) == list(
        whole.cores[0].player.timeline.plays()
    )
    assert pieces.cores[0].trigger_edges == whole.cores[0].trigger_edges
    assert len(whole.cores[0].player.timeline) == 50


# --- DIO ------------------------------------------------------------------------------------

ECHO = "while (true) { waitDIOTrigger(); setDIO(getDIOTriggered()); }"
STROBE = [("awgs/0/dio/strobe/index", 31), ("awgs/0/dio/strobe/slope", "rising_edge")]


@pytest.mark.parametrize(
    ("slope", "triggering"),
    [("rising_edge", [1, 3]), ("falling_edge", [2]), ("both_edges", [1, 2, 3])],
)
def test_edges_of_the_strobe_trigger(slope, triggering):
    device = running(ECHO, settings=[STROBE[0], ("awgs/0/dio/strobe/slope", slope)])
    words = {1: 1 << 31 | 1, 2: 2, 3: 1 << 31 | 3}
    for number, word in words.items():
        device.write_dio(10_000 * number, word)
    device.run_until(50_000)
    assert [word for _, word in device.cores[0].dio_edges] == [words[n] for n in triggering]


def test_a_word_that_is_not_valid_does_not_trigger():
    settings = [*STROBE, ("awgs/0/dio/valid/index", 30), ("awgs/0/dio/valid/polarity", "low")]
    device = running(ECHO, settings=settings)
    for number, word in enumerate([0b11 << 30, 0, 0b10 << 30]):
        device.write_dio(10_000 * (number + 1), word)
    device.run_until(50_000)
    assert [word for _, word in device.cores[0].dio_edges] == [0b10 << 30]


@pytest.mark.parametrize(("dio_trigger", "echoes"), [("edge", 1), ("level", 2)])
def test_without_a_strobe_the_level_may_trigger_again(dio_trigger, echoes):
    source = "repeat (2) { waitDIOTrigger(); setDIO(1); setDIO(0); }"
    settings = [("awgs/0/dio/valid/index", 31), ("awgs/0/dio/valid/polarity", "high")]
    device = running(source, HdawgTiming(dio_trigger=dio_trigger), settings=settings)
    device.write_dio(10_000, 1 << 31)
    device.run_until(50_000)
    assert len(device.cores[0].dio_edges) == 2 * echoes


@pytest.mark.parametrize("latency", [0, 1, 192, 1001])
def test_a_word_is_seen_after_the_latency(latency):
    timing = HdawgTiming(dio_latency_samples=latency, trigger_latency_samples=0)
    device = running("while (getDIO() == 0) {} setTrigger(1);", timing)
    device.write_dio(16_000, 5)
    device.run_until(50_000)
    (rise, _) = device.cores[0].trigger_edges[0]
    loop_and_trigger = 6 * 8
    assert 16_000 + latency <= rise <= 16_000 + latency + 2 * loop_and_trigger


def test_of_two_words_within_a_period_of_the_lines_the_last_is_seen():
    device = running(ECHO, settings=[("awgs/0/dio/valid/polarity", "none")])
    device.write_dio(16_001, 1)
    device.write_dio(16_009, 2)
    device.run_until(50_000)
    assert [word for _, word in device.cores[0].dio_edges] == [2]


def test_without_the_mode_no_word_reaches_the_sequencer():
    device = running(ECHO, settings=[("dios/0/mode", "manual")])
    device.write_dio(1000, 3)
    device.run_until(50_000)
    assert device.cores[0].dio_edges == []
    assert device.cores[0].is_waiting


def test_the_masked_word_selects_the_entry():
    source = (
        "assignWaveIndex(1, placeholder(32), 2, placeholder(32), 0);"
        "while (true) { waitDIOTrigger(); playWaveDIO(); }"
    )
    table = [{"index": n, "waveform": {"index": 0}} for n in range(8)]
    settings = [*STROBE, ("awgs/0/dio/mask/value", 0b111), ("awgs/0/dio/mask/shift", 4)]
    device = running(source, table=table, settings=settings)
    device.write_dio(1000, 1 << 31 | 0b1_0101_1111)
    device.run_until(50_000)
    assert [play.entry for play in device.cores[0].player.timeline.plays()] == [0b101]


def test_time_does_not_run_backwards():
    device = running(ECHO)
    device.run_until(1000)
    with pytest.raises(ValueError, match="it is 1000 already"):
        device.run_until(999)
    with pytest.raises(ValueError, match="it is 1000 already"):
        device.write_dio(999, 0)
    device.write_dio(2000, 0)
    with pytest.raises(ValueError, match="comes after one at 2000"):
        device.write_dio(1999, 0)
    with pytest.raises(ValueError, match="does not fit 32 lines"):
        device.write_dio(2000, 1 << 32)


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("resetOscPhase();", "writing port 23 is not simulated"),
        ("var a = getDIO(); switch (a) { case 0: setTrigger(1); }", "not simulated"),
        ("wave w = gauss(64, 32, 10); playWave(w, w);", "wvfe.*the opcode is not simulated"),
        ("setUserReg(1, 2);", "not simulated"),
    ],
)
def test_what_is_not_modelled_is_refused_with_its_line(source, problem):
    with pytest.raises(InvalidArgumentError, match=rf"line \d+: .*{problem}"):
        running(source)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("fly R1, R2", "the opcode is not simulated"),
        ("addi R0, R1, 3", "R0 is constant"),
        ("addi R16, R0, 3", "'R16' is not one of 16 registers"),
        ("addi R1, R0", "2 operands instead of 3"),
        ("jmp nowhere", "nowhere"),
        ("ssl R1, R2", "a shift takes R0"),
        ("ld R1, 77", "reading port 77"),
        ("wvfs 2, R0, 32", "kind 2"),
    ],
)
def test_a_malformed_instruction_is_refused_with_its_line(line, problem, monkeypatch):
    text = f"addi R1, R0, 1\n{line}\nend"
    instructions, labels = read_listing(text)
    program = read_elf(compiled("wait(1);"))
    changed = type(program)(
        program.source, text, instructions, labels, (), program.descriptors, 0.0
    )
    monkeypatch.setattr("sim.hdawg.core.read_elf", lambda data: changed)
    core = AwgCore(HdawgTiming(), DioInput(HdawgTiming()), lambda path: 0)
    with pytest.raises(UploadRefused, match=f"line 2: .*{problem}") as caught:
        core.load(b"")
    assert isinstance(caught.value.__cause__, IllegalInstruction)
    assert not core.start(0)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("executeTableEntry(getUserReg(0) + 900);", "no entry 900"),
        ("executeTableEntry(getUserReg(0) + 5000);", "no entry 5000"),
        ("executeTableEntry(1);", "plays waveform 7: not assigned"),
        ("executeTableEntry(2);", "plays 64 samples of waveform 0, which has 32"),
        ("executeTableEntry(3);", "makes the amplitudes"),
        ("playZero(getUserReg(0) + 40);", "a play of 40 samples"),
        ("playZero(getUserReg(0) + 16);", "a play of 16 samples"),
        ("playZero(getUserReg(0) + 524288);", "a play of 524288 samples"),
    ],
)
def test_what_the_hardware_cannot_play_stops_with_the_line(source, problem):
    table = [
        {"index": 1, "waveform": {"index": 7}},
        {"index": 2, "waveform": {"index": 0, "length": 64}},
        {"index": 3, "amplitude0": {"value": 0.5, "increment": True}},
    ]
    device = running(
        f"assignWaveIndex(1, placeholder(32), 2, placeholder(32), 0); {source}", table=table
    )
    with pytest.raises(SequencerFault, match=rf"at sample \d+, line \d+: .*{problem}"):
        device.run_until(100_000)
    assert not device.cores[0].is_running
    device.run_until(200_000)


def test_a_listing_without_an_end_is_noticed(monkeypatch):
    instructions, labels = read_listing("nop\nnop")
    program = read_elf(compiled("wait(1);"))
    changed = type(program)("", "", instructions, labels, (), "", 0.0)
    monkeypatch.setattr("sim.hdawg.core.read_elf", lambda data: changed)
    core = AwgCore(HdawgTiming(), DioInput(HdawgTiming()), lambda path: 0)
    core.load(b"")
    core.start(0)
    with pytest.raises(SequencerFault, match="no instruction after"):
        core.run_until(1000)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"x" * 1000])
def test_other_files_are_no_programs(data):
    with pytest.raises(MalformedElf, match="not a compiled sequencer program"):
        read_elf(data)


def test_a_loop_may_begin_with_another():
    instructions, labels = read_listing("outer: inner: \tld R1, 32\n\tjmp inner\n jmp outer")
    assert [step.opcode for step in instructions] == ["ld", "jmp", "jmp"]
    assert labels == {"outer": 0, "inner": 0}
    with pytest.raises(MalformedElf, match="line 1 of the listing is no instruction"):
        read_listing("ld R1: 32")


def test_the_instruction_memory_is_bounded():
    with pytest.raises(MalformedElf, match="16385 instructions exceed"):
        read_listing("nop\n" * 16385)


@pytest.mark.parametrize(
    "knobs",
    [
        {"fifo_depth": 0},
        {"fifo_depth": 65},
        {"dio_period_samples": 0},
        {"dio_latency_samples": -1},
        {"dio_trigger": "sometimes"},
    ],
)
def test_impossible_timing_is_refused(knobs):
    with pytest.raises(ValueError, match=next(iter(knobs))):
        HdawgTiming(**knobs)
