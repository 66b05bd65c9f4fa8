"""The waveform table: which entry is what, what each does, and what is refused."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.nv import NV_CAPABILITIES
from qnodeos.qdevice import instructions
from qnodeos.qdevice.instructions import Axis as InstructionAxis
from qnodeos.qdevice.instructions import Opcode
from sequences.errors import SequenceError, TableError
from sequences.pulses import Axis, PulseCalibration
from sequences.waveform_table import (
    COLUMNS,
    ENTRIES,
    FIRST_ATTEMPT,
    FIRST_ROTATION,
    FIRST_X_COPY,
    FIRST_Y_COPY,
    INITIALISATION,
    NO_WORD,
    READOUT,
    AttemptTiming,
    EntryKind,
    Marker,
    TableSettings,
    WaveformTable,
    build_table,
    entry_of_word,
)
from tests.unit.spin_half import (
    FULL_SCALE_RABI_HZ,
    X,
    Y,
    infidelity,
    propagator,
    rotation_matrix,
)

CALIBRATION = PulseCalibration.for_full_scale_rabi(FULL_SCALE_RABI_HZ)
ALPHAS = (0.05, 0.2256, 0.5)
TABLE = build_table(TableSettings(calibration=CALIBRATION, alphas=ALPHAS))

CALIBRATIONS = st.builds(
    PulseCalibration.for_full_scale_rabi,
    st.floats(30e6, 100e6),
    pi_ns=st.floats(126, 500),
    pi_half_ns=st.floats(60, 500),
)
SETTINGS = st.builds(
    TableSettings,
    calibration=CALIBRATIONS,
    spacing_samples=st.integers(4_000, 400_000),
    alphas=st.lists(st.floats(0, 1), max_size=4).map(tuple),
    attempt=st.builds(AttemptTiming, pump_ns=st.floats(0, 3000), gate_ns=st.floats(25, 200)),
    initialisation_ns=st.floats(0, 5000),
)


def test_the_table_has_the_published_size():
    assert len(TABLE.kind) == ENTRIES == 170
    counts = {kind: int(np.sum(TABLE.kind == kind)) for kind in EntryKind}
    assert counts == {
        EntryKind.DECOUPLING: 32,
        EntryKind.ROTATION: 64,
        EntryKind.INITIALISATION: 1,
        EntryKind.READOUT: 1,
        EntryKind.ATTEMPT: 3,
        EntryKind.RESERVED: 69,
    }


# --- words -----------------------------------------------------------------------------------


def test_every_instruction_the_driver_can_send_has_its_entry():
    kinds = {
        Opcode.INI: {EntryKind.INITIALISATION},
        Opcode.MSR: {EntryKind.READOUT},
        Opcode.SQG: {EntryKind.ROTATION},
        Opcode.ENT: {EntryKind.ATTEMPT},
        Opcode.ENM: {EntryKind.ATTEMPT},
        Opcode.PMG: set(),
    }
    assert set(kinds) == NV_CAPABILITIES.instructions
    sent = [instructions.ini(), instructions.msr(), instructions.ent(0), instructions.enm(0)]
    sent += [
        instructions.sqg(axis, steps)
        for axis in (InstructionAxis.X, InstructionAxis.Y)
        for steps in range(32)
    ]
    entries = [entry_of_word(instruction.word) for instruction in sent]
    for instruction, entry in zip(sent, entries, strict=True):
        assert EntryKind(TABLE.kind[entry]) in kinds[instruction.opcode]
        if instruction.opcode is not Opcode.ENM:
            assert TABLE.word[entry] == instruction.word
    assert len(set(entries)) == len(sent) - 1  # ENT and ENM share theirs


def test_the_published_words():
    published = {16 << 4 | 2: 48, 8 << 4 | 2: 40, 24 << 4 | 2: 56, 40 << 4 | 2: 72, 56 << 4 | 2: 88}
    assert {word: entry_of_word(word) for word in published} == published
    assert entry_of_word(1) == INITIALISATION == 96
    assert entry_of_word(4) == READOUT == 97
    assert [entry_of_word(5 | 7 << 4, alpha) for alpha in (0, 15)] == [112, 127]


@given(st.integers(0, 2**20 - 1))
def test_a_word_has_the_entry_that_holds_it_or_none(word):
    try:
        entry = entry_of_word(word)
    except TableError:
        assert word not in TABLE.word
    else:
        kind = TABLE.kind[entry]
        assert TABLE.word[entry] == (5 if kind == EntryKind.ATTEMPT else word)


@pytest.mark.parametrize(
    "instruction",
    [
        instructions.NOP,
        instructions.sqg(InstructionAxis.Z, 3),
        instructions.sqg(InstructionAxis.X, 3, qubit=1),
        instructions.pmg(InstructionAxis.X, 8),
        instructions.mov(0, 1),
    ],
)
def test_what_plays_nothing_has_no_entry(instruction):
    with pytest.raises(TableError, match="no entry plays"):
        entry_of_word(instruction.word)


def test_alphas_beyond_the_table_are_refused():
    for alpha_index in (-1, 16):
        with pytest.raises(TableError, match=f"alpha {alpha_index}"):
            entry_of_word(instructions.ent().word, alpha_index)


# --- what the entries do ------------------------------------------------------------------


def test_every_rotation_does_what_its_word_says():
    paulis = {InstructionAxis.X: X, InstructionAxis.Y: Y}
    for entry in np.flatnonzero(TABLE.kind == EntryKind.ROTATION).tolist():
        instruction = instructions.decode_word(int(TABLE.word[entry]))
        assert instruction is not None
        ideal = rotation_matrix(instruction.steps * math.pi / 16, paulis[instruction.axis])
        assert infidelity(propagator(TABLE.waveform(entry)), ideal) < 1e-9, instruction


def test_the_copies_are_one_pulse_delayed_sample_by_sample():
    for first, pauli in ((FIRST_X_COPY, X), (FIRST_Y_COPY, Y)):
        earliest = TABLE.waveform(first)
        assert infidelity(propagator(earliest), pauli) < 1e-9
        for shift in range(16):
            assert np.array_equal(TABLE.waveform(first + shift), np.roll(earliest, shift, axis=0))


@pytest.mark.parametrize("copies", [1, 2, 4, 8, 16])
def test_fewer_copies_round_the_delay_down(copies):
    table = build_table(TableSettings(shifted_copies=copies))
    for first in (FIRST_X_COPY, FIRST_Y_COPY):
        starts = table.pulse_start[first : first + 16].astype(int)
        assert len(set(starts)) == copies
        late = np.arange(16) - starts
        assert late.min() == 0
        assert late.max() == 16 // copies - 1


def test_an_attempt_is_pump_alpha_optical_gate():
    for place, alpha in enumerate(ALPHAS):
        entry = FIRST_ATTEMPT + place
        waveform = TABLE.waveform(entry)
        kept = [abs(propagator(waveform, line)[0, 0]) ** 2 for line in (-2.16e6, 0.0, 2.16e6)]
        # The pulse was chosen with a coarser propagator.
        assert np.mean(kept) == pytest.approx(alpha, abs=3e-4)
        edges = [
            TABLE.marker_start[entry, Marker.SPIN_PUMP],
            TABLE.marker_stop[entry, Marker.SPIN_PUMP],
            TABLE.pulse_start[entry],
            TABLE.pulse_start[entry] + TABLE.pulse_samples[entry],
            TABLE.marker_start[entry, Marker.OPTICAL_PULSE],
            TABLE.marker_stop[entry, Marker.OPTICAL_PULSE],
            TABLE.marker_start[entry, Marker.DETECTION_GATE],
            TABLE.marker_stop[entry, Marker.DETECTION_GATE],
            TABLE.length_samples[entry],
        ]
        assert edges == sorted(edges)
        assert TABLE.marker_start[entry, Marker.PLAYED] == 0
        assert TABLE.marker_stop[entry, Marker.PLAYED] == 0
    attempts = slice(FIRST_ATTEMPT, FIRST_ATTEMPT + len(ALPHAS))
    for column in (TABLE.marker_start, TABLE.marker_stop, TABLE.length_samples):
        assert np.all(column[attempts] == column[FIRST_ATTEMPT])
    durations_ns = (TABLE.marker_stop - TABLE.marker_start)[FIRST_ATTEMPT] / 2.4
    assert durations_ns == pytest.approx([10, 100, 1500, 0])


PLAYED, PUMP = 1 << Marker.PLAYED, 1 << Marker.SPIN_PUMP


def expected_words(length: int, *windows: tuple[int, int]) -> np.ndarray:
    words = np.zeros(length, np.uint8)
    for bit, count in windows:
        words[:count] |= bit
    return words


def shown_words(entry: int) -> np.ndarray:
    words = TABLE.marker_words(entry)
    assert words is not None
    return words


def test_an_initialisation_pumps_and_a_readout_only_tells_that_it_is_played():
    for entry, words in (
        (INITIALISATION, expected_words(4816, (PUMP, 4800), (PLAYED, 480))),
        (READOUT, expected_words(496, (PLAYED, 480))),
    ):
        assert not TABLE.waveform(entry).any()
        assert np.array_equal(shown_words(entry), words)


@pytest.mark.parametrize("initialisation_ns", [0.0, 199.0, 200.0, 201.0, 5000.0])
def test_an_initialisation_of_any_length_tells_that_it_is_played(initialisation_ns):
    table = build_table(TableSettings(initialisation_ns=initialisation_ns))
    words = table.marker_words(INITIALISATION)
    assert words is not None
    assert np.array_equal(np.flatnonzero(words & PLAYED), np.arange(480))
    assert np.sum(words & PUMP > 0) == round(initialisation_ns * 2.4)
    assert words[-1] == 0


def test_every_rotation_tells_that_it_is_played_and_makes_an_edge_of_its_own():
    rotations = np.flatnonzero(TABLE.kind == EntryKind.ROTATION).tolist()
    assert len(rotations) == 64
    for entry in rotations:
        words = expected_words(304, (PLAYED, 288))
        assert np.array_equal(shown_words(entry), words)


def test_nothing_else_tells_that_it_is_played():
    told = {EntryKind.ROTATION, EntryKind.INITIALISATION, EntryKind.READOUT}
    for entry in range(ENTRIES):
        words = TABLE.marker_words(entry)
        is_told = words is not None and bool(np.any(words & PLAYED))
        assert is_told == (EntryKind(int(TABLE.kind[entry])) in told)


def test_reserved_entries_are_silent_and_short():
    for entry in np.flatnonzero(TABLE.kind == EntryKind.RESERVED).tolist():
        assert not TABLE.waveform(entry).any()
        assert TABLE.length_samples[entry] == 32
        assert TABLE.marker_words(entry) is None
        assert TABLE.word[entry] == NO_WORD


@given(SETTINGS)
def test_any_table_can_be_played(settings):
    table = build_table(settings)
    assert np.all(table.length_samples % 16 == 0)
    assert np.all(table.length_samples >= 32)
    assert 0 < table.wave_memory_fraction <= 1
    for entry in range(ENTRIES):
        waveform = table.waveform(entry)
        assert waveform.shape == (table.length_samples[entry], 2)
        assert np.abs(waveform).max() <= 1
        words = table.marker_words(entry)
        assert words is None or words[-1] == 0


@given(SETTINGS)
def test_pulses_are_where_they_should_be_to_the_sample(settings):
    table = build_table(settings)
    twice_centre = 2 * table.pulse_start.astype(int) + table.pulse_samples
    rotations = (table.kind == EntryKind.ROTATION) & (table.pulse_samples > 0)
    assert np.all(twice_centre[rotations] == table.length_samples[rotations])
    assert len(set(table.length_samples[rotations])) == 1
    pi_samples = settings.calibration.pi_samples
    for first in (FIRST_X_COPY, FIRST_Y_COPY):
        expected = pi_samples + 2 * np.arange(16)
        assert np.array_equal(twice_centre[first : first + 16], expected)
    for entry in range(ENTRIES):
        weights = np.abs(table.waveform(entry)).sum(axis=1)
        if weights.any():
            middle = (np.arange(len(weights)) + 0.5) @ weights / weights.sum()
            assert middle == pytest.approx(twice_centre[entry] / 2, abs=1e-6)
    attempts = table.kind == EntryKind.ATTEMPT
    played = attempts & (table.pulse_samples > 0)
    assert len(set(twice_centre[played])) <= 1


def test_one_sample_changes_the_gate():
    waveform = TABLE.waveform(FIRST_ROTATION + 8)
    middle = len(waveform) // 2
    waveform[middle, 0] = 0
    assert infidelity(propagator(waveform), rotation_matrix(math.pi / 2, X)) > 1e-5


# --- the command table -----------------------------------------------------------------------


def test_the_command_table_plays_wave_k_for_entry_k():
    table = TABLE.command_table()
    assert table["header"] == {"version": "1.2"}
    assert [row["index"] for row in table["table"]] == list(range(170))
    assert all(row["waveform"] == {"index": row["index"]} for row in table["table"])


# --- refused ---------------------------------------------------------------------------------


def test_columns_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        TABLE.amplitude[0] = 0
    with pytest.raises(FrozenInstanceError):
        TABLE.amplitude = TABLE.amplitude  # type: ignore[misc]


def test_every_column_has_its_type():
    for name, limits in COLUMNS.items():
        assert getattr(TABLE, name).dtype == np.dtype(limits.dtype), name
    assert len(COLUMNS) == 10


def with_change(name, place, value, dtype=None):
    columns = {column: getattr(TABLE, column).copy() for column in COLUMNS}
    if dtype is not None:
        columns[name] = columns[name].astype(dtype)
    columns[name][place] = value
    return WaveformTable(**columns, settings=TABLE.settings)


def test_an_unchanged_copy_is_accepted():
    assert with_change("length_samples", 5, TABLE.length_samples[5]).wave_memory_fraction > 0


@pytest.mark.parametrize(
    ("name", "place", "value", "dtype", "message"),
    [
        ("length_samples", 5, 16, None, "entry 5: length_samples is 16 and must lie in 32"),
        ("length_samples", 5, 328, None, "entry 5 has a length that is no multiple of 16"),
        ("length_samples", 5, 304, None, "entry 5 has a pulse beyond its end"),
        ("length_samples", 5, 2**32 + 320, np.int64, "entry 5: length_samples is 4294967616"),
        ("length_samples", 5, -16, np.int64, "entry 5: length_samples is -16"),
        ("length_samples", 5, 320.5, np.float64, "column length_samples holds float64"),
        ("amplitude", 40, 1.0001, None, "entry 40: amplitude is 1.0001"),
        ("amplitude", 40, -1.0001, None, "entry 40: amplitude is -1.0001"),
        ("amplitude", 40, math.nan, None, "entry 40: amplitude is nan"),
        ("axis", 3, 2, None, "entry 3: axis is 2"),
        ("kind", 3, 6, None, "entry 3: kind is 6"),
        ("word", 3, 2**20, None, "entry 3: word is 1048576"),
        ("pulse_start", 40, 200, None, "entry 40 has a pulse beyond its end"),
        ("marker_stop", (96, 2), 4817, None, "entry 96 has a marker window beyond its end"),
        ("marker_start", (96, 2), 4801, None, "entry 96 has a marker window that ends before"),
        ("marker_start", (96, 2), -1, np.int64, "entry 96: marker_start is -1"),
    ],
)
def test_what_the_hardware_cannot_hold_is_refused(name, place, value, dtype, message):
    with pytest.raises(TableError, match=message):
        with_change(name, place, value, dtype)


def test_columns_of_another_length_are_refused():
    columns = {name: getattr(TABLE, name) for name in COLUMNS}
    with pytest.raises(TableError, match=r"column word has shape \(169,\)"):
        WaveformTable(**{**columns, "word": TABLE.word[:-1]})
    with pytest.raises(TableError, match=r"column marker_stop has shape \(170, 3\)"):
        WaveformTable(**{**columns, "marker_stop": TABLE.marker_stop[:, :3]})


def test_a_table_larger_than_the_cache_is_refused():
    reserved = TABLE.kind == EntryKind.RESERVED
    assert with_change("length_samples", reserved, 2048).wave_memory_fraction < 1
    short = TABLE.length_samples < 2048
    with pytest.raises(TableError, match=r"takes 1\.\d+ of the waveform cache"):
        with_change("length_samples", short, 2048)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: TableSettings(shifted_copies=3), "3 shifted copies"),
        (lambda: TableSettings(alphas=(0.1,) * 17), "17 alphas"),
        (lambda: TableSettings(initialisation_ns=-1.0), "initialisation_ns = -1.0 ns"),
        (lambda: TableSettings(initialisation_ns=1e6), "initialisation_ns = 1000000.0 ns"),
        (lambda: AttemptTiming(gate_ns=math.nan), "AttemptTiming.gate_ns = nan ns"),
        (lambda: build_table(TableSettings(alphas=(1.5,))), "population of the bright state"),
        (lambda: build_table(TableSettings(spacing_samples=100)), "pulse spacing of 100"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(SequenceError, match=message):
        wrong()


def test_rotations_are_about_the_axis_of_their_channel():
    for axis in Axis:
        entries = slice(FIRST_ROTATION + 32 * axis + 1, FIRST_ROTATION + 32 * axis + 32)
        assert set(TABLE.axis[entries]) == {axis}
        for entry in range(entries.start, entries.stop):
            assert not TABLE.waveform(entry)[:, 1 - axis].any()
