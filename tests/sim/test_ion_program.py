"""The trapped-ion node's program on the simulated sequencer: handshake, timing and light."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from sequences.errors import SequenceError
from sequences.ion import (
    OPERATION_OF_INSTRUCTION,
    POLL_CYCLES,
    RETURN_CYCLES,
    TRIGGER_STROBE,
    DdsProfile,
    IonOperation,
    IonSequenceSettings,
    TtlLine,
    dispatch_cycles,
    ion_program,
    operation_cycles,
)
from sequences.sequencer_assembler import assemble, disassemble
from sim.ion.sequencer import SequencerCore

STROBE = 1 << TRIGGER_STROBE
SETTINGS = IonSequenceSettings()
SHORT = IonSequenceSettings(
    doppler_us=400, reset_854_us=3, pump_us=2, sideband_cycles=3, sideband_us=5, pi_time_ns=1_020,
    detection_us=7, update_ns=50, done_ns=70,
)  # fmt: skip
LOOK = 10
"""The dispatch loop's first look at the strobe: the first word takes the lines low."""


class Recorder:
    """A core with the ion program, and the rises and falls of its lines."""

    def __init__(self, settings=SETTINGS):
        self.core = SequencerCore(ion_program(settings).words)
        self.edges: dict[TtlLine, list[int]] = {line: [] for line in TtlLine}
        self.core.on_ttl(self._record)

    def _record(self, time_ns, before, after):
        for line in TtlLine:
            if (before ^ after) & line.mask:
                self.edges[line].append(time_ns)

    def command(self, code, at_ns):
        """The code, and the strobe 10 ns later, until DONE or ERROR; then all low again."""
        self.core.set_trigger(at_ns - 10, code)
        self.core.set_trigger(at_ns, code | STROBE)
        ends = TtlLine.DONE.mask | TtlLine.ERROR.mask
        self._until(lambda: self.core.ttl & ends)
        self.core.set_trigger(self.core.time_ns, 0)
        self._until(lambda: not self.core.ttl & TtlLine.BUSY.mask)

    def _until(self, reached):
        while not reached():
            change = self.core.next_change_ns()
            assert change is not None
            self.core.run_to(change)

    def times(self, *lines):
        return [self.edges[line] for line in lines]


@pytest.mark.parametrize("settings", [SETTINGS, SHORT, replace(SHORT, sideband_cycles=0)])
@pytest.mark.parametrize("operation", IonOperation)
def test_branches_take_the_cycles_counted_by_hand(operation, settings):
    recorder = Recorder(settings)
    seen = LOOK + 60 * 100
    recorder.command(operation, seen - 5)
    busy, done = recorder.times(TtlLine.BUSY, TtlLine.DONE)
    assert dispatch_cycles(operation) == 1 + 5 + 1 + 6 + 6 + 6
    assert busy[0] == seen + 60
    begun = seen + 10 * dispatch_cycles(operation)
    first_lines = {
        IonOperation.INITIALISE: TtlLine.DOPPLER_397,
        IonOperation.MEASURE: TtlLine.PMT_GATE,
    }
    first = [
        recorder.edges[line][0]
        for line in (TtlLine.DOPPLER_397, TtlLine.PROFILE_0, TtlLine.PROFILE_1)
        if recorder.edges[line]
    ]
    assert min(first) == begun
    assert recorder.edges[first_lines.get(operation, TtlLine.RF_729)]
    assert done[0] == begun + 10 * operation_cycles(operation, settings)
    assert done[1] - done[0] == settings.done_ns
    assert not recorder.edges[TtlLine.ERROR]


@pytest.mark.parametrize("late_ns", range(0, 60, 7))
def test_the_strobe_is_seen_within_six_cycles(late_ns):
    recorder = Recorder(SHORT)
    recorder.command(IonOperation.X_PI, LOOK + 6_000 + late_ns)
    assert POLL_CYCLES == 6
    assert recorder.edges[TtlLine.BUSY][0] == LOOK + 6_060 + 60


def test_busy_falls_when_the_strobe_has_fallen():
    recorder = Recorder(SHORT)
    core = recorder.core
    core.set_trigger(1_000, IonOperation.Y_HALF | STROBE)
    core.run_to(1_000_000)
    assert core.ttl == TtlLine.BUSY.mask
    assert core.is_idle
    look = next(
        t
        for t in range(1_000_010, 1_000_080, 10)
        if (t - recorder.edges[TtlLine.DONE][1] - 10) % 60 == 0
    )
    core.set_trigger(look - 1, 0)
    core.run_to(2_000_000)
    assert recorder.edges[TtlLine.BUSY][1] == look + 10 * RETURN_CYCLES
    assert (core.ttl, core.is_idle) == (0, True)


PROFILES = {
    IonOperation.X_PI: (DdsProfile.X, 1),
    IonOperation.Y_PI: (DdsProfile.Y, 1),
    IonOperation.X_HALF: (DdsProfile.X, 2),
    IonOperation.Y_HALF: (DdsProfile.Y, 2),
    IonOperation.X_MINUS_HALF: (DdsProfile.MINUS_X, 2),
}


@pytest.mark.parametrize("operation", PROFILES)
def test_a_pulse_has_its_profile_and_its_exact_length(operation):
    recorder = Recorder(SHORT)
    latched = []
    recorder.core.on_ttl(
        lambda time_ns, before, after: (
            latched.append((time_ns, after >> TtlLine.PROFILE_0 & 7))
            if after & ~before & TtlLine.IO_UPDATE.mask
            else None
        )
    )
    recorder.command(operation, 5_000)
    profile, part = PROFILES[operation]
    opened, closed = recorder.edges[TtlLine.RF_729]
    assert closed - opened == SHORT.pi_time_ns // part
    updates = recorder.edges[TtlLine.IO_UPDATE]
    assert [selected for _, selected in latched] == [profile, DdsProfile.OFF]
    assert updates[1] - updates[0] == updates[3] - updates[2] == SHORT.update_ns
    assert opened - updates[1] == SHORT.update_ns
    assert latched[1][0] > closed
    lights = (TtlLine.DOPPLER_397, TtlLine.REPUMP_866, TtlLine.RESET_854, TtlLine.PUMP_397)
    assert not any(recorder.times(*lights, TtlLine.PMT_GATE))


def test_initialisation_in_its_order():
    recorder = Recorder(SHORT)
    stages = []
    recorder.core.on_ttl(lambda time_ns, _, after: stages.append((time_ns, after)))
    recorder.command(IonOperation.INITIALISE, 5_000)
    names = {
        TtlLine.DOPPLER_397.mask | TtlLine.REPUMP_866.mask | TtlLine.RESET_854.mask: "doppler",
        TtlLine.REPUMP_866.mask | TtlLine.RESET_854.mask: "reset",
        TtlLine.PUMP_397.mask | TtlLine.REPUMP_866.mask: "pump",
        TtlLine.RF_729.mask: "sideband",
    }
    bits = sum(line.mask for line in (*TtlLine,)[: TtlLine.PROFILE_0])
    lit = [
        (names[word & bits], end - begin)
        for (begin, word), (end, _) in pairwise(stages)
        if word & bits
    ]
    turn = [("sideband", 5_000), ("reset", 3_000), ("pump", 2_000)]
    assert lit == [("doppler", 400_000), ("reset", 3_000), ("pump", 2_000), *turn * 3]
    profiles = {word >> TtlLine.PROFILE_0 & 7 for _, word in stages if word & TtlLine.RF_729.mask}
    assert profiles == {DdsProfile.RED_SIDEBAND}


def test_detection_opens_the_gate_with_the_light():
    recorder = Recorder(SHORT)
    recorder.command(IonOperation.MEASURE, 5_000)
    light, repump, gate = recorder.times(TtlLine.DOPPLER_397, TtlLine.REPUMP_866, TtlLine.PMT_GATE)
    assert light == repump == gate
    assert gate[1] - gate[0] == 7_000


def test_a_code_without_subroutine_raises_error_and_does_nothing():
    recorder = Recorder(SHORT)
    core = recorder.core
    core.set_trigger(5_000, STROBE)
    core.run_to(500_000)
    assert core.ttl == TtlLine.BUSY.mask | TtlLine.ERROR.mask
    core.set_trigger(500_000, 0)
    core.run_to(501_000)
    assert (core.ttl, core.is_idle) == (0, True)
    touched = {line for line in TtlLine if recorder.edges[line]}
    assert touched == {TtlLine.BUSY, TtlLine.ERROR}
    recorder.command(IonOperation.X_PI, 600_000)
    assert recorder.edges[TtlLine.DONE]


def test_error_is_up_for_a_while_even_if_the_strobe_was_short():
    recorder = Recorder(SETTINGS)
    recorder.core.set_trigger(5_000, STROBE)
    recorder.core.set_trigger(5_080, 0)
    recorder.core.run_to(100_000)
    risen, fallen = recorder.edges[TtlLine.ERROR]
    assert fallen - risen >= SETTINGS.done_ns


def test_a_trigger_while_busy_is_never_executed():
    recorder = Recorder(SHORT)
    core = recorder.core
    core.set_trigger(5_000, IonOperation.MEASURE | STROBE)
    core.set_trigger(6_000, 0)
    core.set_trigger(7_000, IonOperation.X_PI)
    core.set_trigger(7_010, IonOperation.X_PI | STROBE)
    core.run_to(1_000_000)
    assert len(recorder.edges[TtlLine.DONE]) == 2
    assert core.ttl == TtlLine.BUSY.mask, "it waits for the strobe to fall"
    core.set_trigger(1_000_000, 0)
    core.run_to(2_000_000)
    assert core.ttl == 0
    assert not recorder.edges[TtlLine.RF_729]
    recorder.command(IonOperation.Y_PI, 2_100_000)
    assert len(recorder.edges[TtlLine.DONE]) == 4


def test_a_trigger_that_came_and_went_while_busy_leaves_nothing():
    recorder = Recorder(SHORT)
    core = recorder.core
    core.set_trigger(5_000, IonOperation.MEASURE | STROBE)
    core.set_trigger(6_000, 0)
    core.set_trigger(7_000, IonOperation.X_PI | STROBE)
    core.set_trigger(8_000, 0)
    core.run_to(1_000_000)
    assert len(recorder.edges[TtlLine.DONE]) == 2
    assert (core.ttl, core.is_idle) == (0, True)
    assert not recorder.edges[TtlLine.RF_729]


def test_a_trigger_at_the_very_end_of_busy_is_the_next_code():
    recorder = Recorder(SHORT)
    core = recorder.core
    core.set_trigger(5_000, IonOperation.MEASURE | STROBE)
    core.run_to(1_000_000)
    core.set_trigger(1_000_000, 0)
    core.run_to(1_000_070)  # it was looked at
    assert core.ttl == TtlLine.BUSY.mask
    core.set_trigger(1_000_070, IonOperation.X_PI | STROBE)
    core.run_to(2_000_000)
    assert len(recorder.edges[TtlLine.RF_729]) == 2


def test_codes_that_follow_each_other_at_once_are_all_executed():
    recorder = Recorder(SHORT)
    for _ in range(3):
        for operation in IonOperation:
            recorder.command(operation, recorder.core.time_ns + 20)
    assert len(recorder.edges[TtlLine.DONE]) == 2 * 3 * len(IonOperation)
    assert len(recorder.edges[TtlLine.PMT_GATE]) == 2 * 3


def test_the_program_survives_disassembler_and_assembler():
    program = ion_program(SETTINGS)
    assert assemble(disassemble(program.words, program.labels)).words == program.words
    assert {operation.name.lower() for operation in IonOperation} <= set(program.labels)
    assert len(program.words) < 1_000


def test_instructions_of_the_wire_have_their_operations():
    assert set(OPERATION_OF_INSTRUCTION.values()) == set(IonOperation)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("doppler_us", 0),
        ("doppler_us", 100_001),
        ("doppler_us", 1.5),
        ("pi_time_ns", 10_010),
        ("pi_time_ns", 980),
        ("update_ns", 30),
        ("update_ns", 105),
        ("sideband_cycles", 256),
        ("sideband_cycles", True),
        ("detection_us", "7"),
    ],
)
def test_settings_are_bounded(name, value):
    with pytest.raises(SequenceError, match=f"{name} = {value!r} is not a whole number"):
        replace(SETTINGS, **{name: value})


def test_the_longest_settings_fit():
    longest = IonSequenceSettings(
        doppler_us=100_000, reset_854_us=10_000, pump_us=10_000, sideband_cycles=255,
        sideband_us=10_000, pi_time_ns=100_000, detection_us=100_000, update_ns=10_000,
        done_ns=10_000,
    )  # fmt: skip
    recorder = Recorder(longest)
    recorder.command(IonOperation.INITIALISE, 5_000)
    done = recorder.edges[TtlLine.DONE][0] - recorder.edges[TtlLine.BUSY][0]
    cycles = operation_cycles(IonOperation.INITIALISE, longest)
    assert done == 10 * (cycles + dispatch_cycles(IonOperation.INITIALISE) - 6)
