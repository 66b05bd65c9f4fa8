"""The sequencer program: the vendor's compiler as an oracle, its words, its arithmetic."""

from __future__ import annotations

import importlib.resources
import json
import re
from io import BytesIO
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st
from zhinst.core import compile_seqc
from zhinst.toolkit import CommandTable

from sequences.decoupling import DecouplingPlan, Slot
from sequences.errors import DecouplingError, ProgramError
from sequences.nv_seqc import (
    ATTEMPT,
    ENTRY_MASK,
    HERALD,
    KEEP,
    REPEAT_CYCLES,
    TOGGLE,
    HeraldTiming,
    attempt_period_ns,
    decision_ns,
    dio_word,
    nv_program,
    program_constants,
)
from sequences.program import AwgProgram, padded, samples
from sequences.pulses import Axis
from sequences.waveform_table import (
    ENTRIES,
    FIRST_ATTEMPT,
    FIRST_ROTATION,
    FIRST_X_COPY,
    INITIALISATION,
    READOUT,
    EntryKind,
    TableSettings,
    attempt_alpha_centre,
    attempt_optical_start,
    build_table,
    rotation_samples,
)
from sim.hdawg.timing import HdawgTiming

ALPHAS = (0.05, 0.2256)
TABLE = build_table(TableSettings(alphas=ALPHAS))
PROGRAM = nv_program(TABLE)


class Compiled:
    """What the vendor's compiler makes of a program, without an instrument."""

    def __init__(self, source: str) -> None:
        elf, self.extra = compile_seqc(source, "HDAWG8", "", 0, samplerate=2.4e9)
        file = ELFFile(BytesIO(elf))
        section = {each.name: each.data() for each in file.iter_sections() if each.name}
        self.listing = section[".asm"].rstrip(b"\0").decode().splitlines()
        self.waveforms = json.loads(section[".waveforms"].rstrip(b"\0"))["waveforms"]

    @property
    def memory_fraction(self) -> float:
        """Part of the waveform cache the compiler counts as used."""
        return float(self.extra["wavemem"]["fpgaMemoryUsed"])


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return Compiled(PROGRAM.source)


# --- the compiler agrees ----------------------------------------------------------------------


def test_the_program_compiles_without_a_message(compiled):
    assert compiled.extra["messages"] == ""
    assert not compiled.extra["wavemem"]["exceedsFpgaMemory"]
    assert len(compiled.listing) < 16_384


def test_the_compiler_counts_the_same_wave_memory(compiled):
    print(f"waveform cache used: {compiled.memory_fraction:.4f}")
    assert compiled.memory_fraction == TABLE.wave_memory_fraction
    assert 0.1 < compiled.memory_fraction < 0.2


@settings(max_examples=20)
@given(
    st.builds(
        TableSettings,
        spacing_samples=st.integers(1_000, 400_000),
        alphas=st.just(()),
        initialisation_ns=st.floats(0, 5000),
    )
)
def test_any_table_compiles_and_agrees_on_the_memory(table_settings):
    table = build_table(table_settings)
    compiled = Compiled(nv_program(table).source)
    assert compiled.extra["messages"] == ""
    assert compiled.memory_fraction == table.wave_memory_fraction


def test_every_wave_index_has_room_for_its_waveform_and_markers(compiled):
    assert len(compiled.waveforms) == len(PROGRAM.waveforms) == ENTRIES
    for index, (room, waveform) in enumerate(
        zip(compiled.waveforms, PROGRAM.waveforms, strict=True)
    ):
        assert int(room["channels"]) == waveform.shape[1] == 2
        assert int(room["length"]) == len(waveform)
        assert room["marker_bits"] == ("2;2" if index in PROGRAM.markers else "0;0"), index
    marked = {INITIALISATION, READOUT, FIRST_ATTEMPT, FIRST_ATTEMPT + 1}
    marked |= set(range(FIRST_ROTATION, FIRST_ROTATION + 64))
    assert set(PROGRAM.markers) == marked


def test_the_command_table_passes_the_vendors_schema():
    # The schema bundled with the toolkit is older; for wave indices it says the same.
    schema = importlib.resources.files("zhinst.toolkit.resources") / "ct_schema_hdawg.json"
    table = CommandTable(schema.read_text(encoding="utf-8"))
    ours = json.loads(json.dumps(PROGRAM.command_table))
    assert re.fullmatch(r"1\.[0-2]", ours["header"]["version"])
    table.update({**ours, "header": {"version": "0.2"}})
    assert table.is_valid(raise_for_invalid=True)
    assert table.as_dict()["table"] == ours["table"]


def test_the_sequencer_is_faster_than_the_fastest_decoupling(compiled):
    """Every line of the listing takes a cycle; a slot and its silence last 44 or more."""
    plays = [i for i, line in enumerate(compiled.listing) if "wvfet" in line]
    assert len(plays) == 1 + 8
    shortest_spacing_cycles = (TABLE.settings.plan.slot_samples + 32) / 8
    within_a_block = max(later - earlier for earlier, later in pairwise(plays[1:]))
    # Both branches after the poll and the way back, and what precedes the first pulse of a
    # block or the entry of a word: more than any path from the last pulse of a block onwards.
    entry = next(i for i, line in enumerate(compiled.listing) if line.startswith("while3:"))
    assert plays[0] - entry == 6
    between_blocks = len(compiled.listing) - plays[-1] + 6
    assert within_a_block < shortest_spacing_cycles
    assert between_blocks < shortest_spacing_cycles


WRONG = {
    "an unknown function": (r"getDIO\(\)", "getDIOO()"),
    "a missing constant": (r"const GAP_ZERO.*", ""),
    "a syntax error": (r"while \(true\) \{", "while (true {"),
    "a wave index twice": (r"placeholder\(32\), 169", "placeholder(32), 168"),
    "a wave index too large": (r"placeholder\(32\), 169", "placeholder(32), 16000"),
    "a table index too large": (r"executeTableEntry\(X \+ s\)", "executeTableEntry(2048)"),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_compiler_refuses(what):
    pattern, replacement = WRONG[what]
    source, count = re.subn(pattern, replacement, PROGRAM.source)
    assert count
    with pytest.raises(RuntimeError):
        Compiled(source)


def test_the_compiler_flags_too_much_wave_memory():
    source = re.sub(r"placeholder\(32\)", "placeholder(4096)", PROGRAM.source)
    source = re.sub(r"placeholder\(304, true, true\)", "placeholder(4096, true, true)", source)
    assert Compiled(source).extra["wavemem"]["exceedsFpgaMemory"]


# --- the arithmetic of the program is that of the plan ------------------------------------


class Player:
    """Runs the straight-line statements of the SeqC source, which are Python as well."""

    BODY = re.compile(r"^ *(?:executeTableEntry\([XY] \+ s\)|s = s \+).*;$", re.MULTILINE)

    def __init__(self, constants: dict[str, int], shift: int) -> None:
        self.names: dict[str, Any] = {**constants, "s": shift}
        self.names |= {"executeTableEntry": self.execute, "playZero": self.zero}
        self.now = 0
        self.played: list[tuple[int, int]] = []

    def execute(self, entry: int) -> None:
        self.played.append((self.now, entry))
        self.now += int(TABLE.length_samples[entry])

    def zero(self, count: int) -> None:
        assert count % 16 == 0
        assert count >= 32
        self.now += count

    def run(self, statements: str) -> None:
        for statement in filter(None, (part.strip() for part in statements.split(";"))):
            exec(statement, self.names)  # ours, read from the package


*BLOCK, NEXT_BLOCK, BEFORE_ENTRY = map(str.strip, Player.BODY.findall(PROGRAM.source))


def play(spacing: int, n_blocks: int, shift: int) -> tuple[Player, int]:
    """Blocks by the program's statements: the player, and the shift of the last pulse."""
    constants = program_constants(
        build_table(TableSettings(spacing_samples=spacing, alphas=())), HeraldTiming()
    )
    player = Player(constants, shift)
    for block in range(n_blocks):
        for line in BLOCK:
            player.run(line)
        last_shift = player.names["s"]
        player.run(NEXT_BLOCK if block < n_blocks - 1 else BEFORE_ENTRY)
    return player, last_shift


def test_the_block_has_eight_pulses_in_xy8_order():
    axes = [line.removeprefix("executeTableEntry(")[0] for line in BLOCK]
    assert "".join(axes) == "XYXYYXYX"


@given(st.integers(1_000, 400_000), st.integers(1, 4), st.integers(0, 15))
def test_the_program_plays_what_the_plan_says(spacing, n_blocks, shift):
    plan = DecouplingPlan(spacing)
    player, last_shift = play(spacing, n_blocks, shift)
    slots = list(islice(plan.slots(0, shift), 8 * n_blocks))
    first = {Axis.X: FIRST_X_COPY, Axis.Y: FIRST_X_COPY + 16}
    assert player.played == [(slot.start_sample, first[slot.axis] + slot.shift) for slot in slots]
    last = Slot(player.played[-1][0], last_shift, Axis.X)
    centre = rotation_samples(TABLE.settings) // 2
    assert player.now == plan.entry_after(last, centre)


# --- constants ------------------------------------------------------------------------------


def test_the_first_pulse_after_a_rotation_and_after_a_herald_is_half_a_spacing_away():
    constants = program_constants(TABLE, HeraldTiming())
    plan = TABLE.settings.plan
    half = plan.spacing_samples // 2 - plan.gate_excess_samples
    length = rotation_samples(TABLE.settings)
    pulse = length + constants["ROTATION_ZERO"] + constants["ROTATION_SHIFT"] + 302 // 2
    assert pulse - length // 2 == half
    for place in range(len(ALPHAS)):
        entry = FIRST_ATTEMPT + place
        length = TABLE.length_samples[entry] + constants["DECISION_ZERO"]
        pulse = length + constants["HERALDED_ZERO"] + constants["HERALDED_SHIFT"] + 302 // 2
        assert pulse - TABLE.pulse_start[entry] - TABLE.pulse_samples[entry] // 2 == half


@given(st.floats(0, 2500), st.floats(100, 1000))
def test_the_silence_after_an_attempt_outlasts_the_decision(optical_ns, margin_ns):
    herald = HeraldTiming(optical_ns, margin_ns)
    constants = program_constants(TABLE, herald)
    decision = attempt_optical_start(TABLE.settings) + samples(optical_ns)
    assert constants["DECISION_CYCLES"] == decision // 8
    queued = int(TABLE.length_samples[FIRST_ATTEMPT]) + constants["DECISION_ZERO"]
    assert queued - decision >= samples(margin_ns)
    assert constants["DECISION_ZERO"] == padded(constants["DECISION_ZERO"])
    assert decision_ns(TABLE, herald) == pytest.approx(decision / 2.4)


@pytest.mark.parametrize("period_ns", [5500.0, 76_520.0])
def test_the_published_periods_are_reached_exactly(period_ns):
    # 5.5 us (Delle Donne et al.), and one with a longer way of the light.
    herald = HeraldTiming(attempt_period_ns=period_ns)
    assert attempt_period_ns(TABLE, herald) == pytest.approx(period_ns, rel=1e-12)


def test_the_middle_of_the_alpha_pulse():
    assert attempt_alpha_centre(TABLE.settings) == 3600 + 720 + 151


@given(st.floats(5000, 218_000), st.floats(0, 1000), st.floats(100, 1000))
def test_any_period_is_reached_to_the_granule(period_ns, optical_ns, margin_ns):
    herald = HeraldTiming(optical_ns, margin_ns, period_ns)
    constants = program_constants(TABLE, herald)
    assert constants["REST_ZERO"] == padded(constants["REST_ZERO"])
    half_granule_ns = 8.5 / 2.4
    assert abs(attempt_period_ns(TABLE, herald) - period_ns) <= half_granule_ns


def test_from_one_attempt_to_the_next_it_is_three_instructions(compiled):
    """`REPEAT_CYCLES` counts them: they are executed while nothing is played."""
    start = next(i for i, line in enumerate(compiled.listing) if "wwvf" in line)
    opcodes = [line.split(":")[-1].split()[0] for line in compiled.listing[start : start + 4]]
    assert opcodes == ["wwvf", "andi", "andi", "wvfet"]
    assert 3 + HdawgTiming().play_latency_samples // 8 == REPEAT_CYCLES


def test_a_period_shorter_than_an_attempt_is_refused():
    with pytest.raises(ProgramError, match=r"attempt_period_ns = 3000.0 ns, but .* use a longer"):
        nv_program(TABLE, HeraldTiming(attempt_period_ns=3000.0))
    shortest = HeraldTiming(attempt_period_ns=4150.0)
    assert attempt_period_ns(TABLE, shortest) == pytest.approx(4150, abs=3.6)
    without = build_table(TableSettings(alphas=()))
    with pytest.raises(ProgramError, match="has no attempts"):
        attempt_period_ns(without, HeraldTiming())


def test_a_decision_later_than_the_first_decoupling_pulse_is_refused():
    with pytest.raises(DecouplingError, match="decide earlier"):
        nv_program(TABLE, HeraldTiming(5000, attempt_period_ns=10_000))
    with pytest.raises(DecouplingError, match="decide earlier"):
        nv_program(build_table(TableSettings(spacing_samples=1921)))
    assert nv_program(build_table(TableSettings(spacing_samples=1921, alphas=())))


@pytest.mark.parametrize("value", [-1.0, 1e9, float("nan")])
@pytest.mark.parametrize(
    "name", ["optical_to_decision_ns", "decision_margin_ns", "attempt_period_ns"]
)
def test_impossible_herald_timings_are_refused(name, value):
    with pytest.raises(ProgramError, match=rf"HeraldTiming\.{name}"):
        HeraldTiming(**{name: value})


# --- DIO words ------------------------------------------------------------------------------


def test_words_command_what_follows_the_entry():
    assert dio_word(TABLE, FIRST_ROTATION + 16, 1) == 48 | KEEP | TOGGLE
    assert dio_word(TABLE, FIRST_ROTATION + 16, 0) == 48 | KEEP
    assert dio_word(TABLE, INITIALISATION, 1) == 96 | TOGGLE
    assert dio_word(TABLE, READOUT, 0) == 97
    assert dio_word(TABLE, FIRST_ATTEMPT + 1, 1) == 113 | ATTEMPT | TOGGLE


def test_the_lines_of_a_word_do_not_overlap():
    lines = [ENTRY_MASK, KEEP, ATTEMPT, HERALD, TOGGLE]
    assert sum(lines) == 2**12 - 1
    assert ENTRY_MASK >= ENTRIES - 1


@pytest.mark.parametrize("toggle", [0, 1])
def test_a_word_never_raises_the_herald_line(toggle):
    for entry in np.flatnonzero(TABLE.kind > EntryKind.DECOUPLING).tolist():
        assert not dio_word(TABLE, entry, toggle) & HERALD


@pytest.mark.parametrize(
    ("entry", "toggle", "message"),
    [
        (0, 1, "entry 0 is decoupling"),
        (169, 1, "entry 169 is reserved"),
        (FIRST_ATTEMPT + 2, 1, "entry 114 is reserved"),
        (170, 1, "outside 0..169"),
        (-1, 1, "outside 0..169"),
        (48, 2, "toggle line"),
    ],
)
def test_words_for_no_instruction_are_refused(entry, toggle, message):
    with pytest.raises(ProgramError, match=message):
        dio_word(TABLE, entry, toggle)


# --- the seam ----------------------------------------------------------------------------------


def a_program(**changes) -> AwgProgram:
    parts = {
        "source": "",
        "waveforms": (np.zeros((32, 2)), np.ones((48, 2))),
        "command_table": {},
        "markers": {1: np.full(48, 15, np.uint8)},
    }
    return AwgProgram(**{**parts, **changes})


def test_a_well_formed_program_is_accepted():
    assert len(a_program().waveforms) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"waveforms": (np.zeros(32),), "markers": {}}, r"waveform 0 has shape \(32,\)"),
        ({"waveforms": (np.zeros((32, 3)),), "markers": {}}, r"waveform 0 has shape \(32, 3\)"),
        ({"waveforms": (np.full((32, 2), 1.01),), "markers": {}}, "waveform 0 leaves the range"),
        ({"waveforms": (np.full((32, 2), np.nan),), "markers": {}}, "waveform 0 leaves the range"),
        ({"markers": {2: np.zeros(32, np.uint8)}}, "there are 2 waveforms"),
        ({"markers": {1: np.zeros(32, np.uint8)}}, r"waveform 1 have shape \(32,\)"),
        ({"markers": {1: np.full(48, 16, np.uint8)}}, "waveform 1 use bits beyond"),
    ],
)
def test_a_malformed_program_is_refused(changes, message):
    with pytest.raises(ProgramError, match=message):
        a_program(**changes)
