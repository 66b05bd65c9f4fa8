"""The board of a trapped-ion node: its driver, its handshake, and everything that can go wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qcodes.utils import NumpyJSONEncoder

from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentInUse,
)
from instruments.ion_board import (
    CODES,
    BoardSettings,
    Failure,
    IonBoard,
    Register,
    code_register,
)
from qnodeos.qdevice.endpoint import FrameMaster
from qnodeos.qdevice.instructions import Axis, ent, ini, msr, sqg
from qnodeos.qdevice.outcomes import Outcome
from sequences.ion import TRIGGER_STROBE, IonOperation, TtlLine, ion_program
from sequences.sequencer_assembler import assemble
from sim.ion.board import BoardState, SimulatedBoard
from sim.ion.durations import INSTRUCTIONS
from sim.ion.sequencer import CoreState
from sim.serial_line import SerialLine
from tests.sim.ion_harness import DONE_TIMEOUT_US, SHORT, Rig

STROBE = 1 << TRIGGER_STROBE
BUSY, DONE, ERROR, GATE = TtlLine.BUSY, TtlLine.DONE, TtlLine.ERROR, TtlLine.PMT_GATE


@pytest.fixture(autouse=True)
def private_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def rigs() -> Iterator[Any]:
    """Makes nodes, one at a time."""
    made: list[Rig] = []

    def make(*args: Any, **kwargs: Any) -> Rig:
        while made:
            made.pop().close()
        made.append(Rig(*args, **kwargs))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


def triggers(rig: Rig) -> list[int]:
    """Everything that appears on the trigger inputs from now on."""
    seen: list[int] = []
    forward = rig.board._on_output

    def record(time_ns: int, value: int) -> None:
        seen.append(value)
        forward(time_ns, value)

    rig.board.on_output(record)
    return seen


def program(body: str) -> tuple[int, ...]:
    """Words of a program that waits for the strobe first."""
    return assemble(f"idle: btr !{TRIGGER_STROBE}, idle\n{body}\nend: j end\n").words


def out(*lines: TtlLine) -> str:
    return f"p 0, {sum(line.mask for line in lines):#x}\n"


# --- what it does ----------------------------------------------------------------------------


@pytest.mark.parametrize("operation", IonOperation)
def test_every_instruction_is_strobed_once_under_its_code(rigs, operation):
    rig = rigs()
    seen = triggers(rig)
    assert rig.wire.run(INSTRUCTIONS[operation]).outcome is Outcome.SUCCESS_ZERO
    assert seen == [operation.value, operation.value | STROBE, 0]
    assert (rig.driver.executed(), rig.driver.failed()) == (1, 0)
    assert rig.board.state is BoardState.IDLE
    assert rig.sequencer.is_idle


def test_the_code_is_stable_before_the_strobe_and_until_busy(rigs):
    rig = rigs(board=BoardSettings(setup_ns=500))
    events: list[tuple[int, str]] = []
    forward = rig.board._on_output

    def record(time_ns: int, value: int) -> None:
        events.append((time_ns, f"out {value}"))
        forward(time_ns, value)

    rig.board.on_output(record)
    rig.sequencer.on_ttl(
        lambda time_ns, before, after: events.extend(
            (time_ns, f"{line.name} {bool(after & line.mask)}")
            for line in (TtlLine.BUSY, TtlLine.DONE)
            if (before ^ after) & line.mask
        )
    )
    rig.wire.run(INSTRUCTIONS[IonOperation.X_PI])
    names = [name for _, name in events]
    times = {name: time for time, name in events}
    assert names == [
        "out 2", f"out {2 | STROBE}", "BUSY True", "DONE True", "out 0", "DONE False", "BUSY False"
    ]  # fmt: skip
    assert times[f"out {2 | STROBE}"] - times["out 2"] == 500
    assert rig.board.completed_ns == times["DONE False"] + 200


@pytest.mark.parametrize(
    ("photons", "outcome"), [(0, Outcome.SUCCESS_ONE), (33, Outcome.SUCCESS_ONE),
                             (34, Outcome.SUCCESS_ZERO), (65_535, Outcome.SUCCESS_ZERO)]
)  # fmt: skip
def test_bright_is_zero_and_dark_is_one(rigs, photons, outcome):
    rig = rigs()
    rig.ion.photons = photons
    assert rig.wire.run(msr()).outcome is outcome


@pytest.mark.parametrize(
    ("instruction", "outcome"),
    [
        (sqg(Axis.X, 4), Outcome.UNSUPPORTED_REQUEST),
        (sqg(Axis.X, 0), Outcome.UNSUPPORTED_REQUEST),
        (sqg(Axis.Y, 24), Outcome.UNSUPPORTED_REQUEST),
        (sqg(Axis.Z, 16), Outcome.UNSUPPORTED_REQUEST),
        (ent(), Outcome.UNSUPPORTED_REQUEST),
        (ini()._replace(argument=1), Outcome.UNSUPPORTED_REQUEST),
        (msr(1), Outcome.INVALID_QUBIT),
        (sqg(Axis.X, 4, 1), Outcome.INVALID_QUBIT),
    ],
)
def test_what_the_ion_cannot_do_never_reaches_the_sequencer(rigs, instruction, outcome):
    rig = rigs()
    seen = triggers(rig)
    assert rig.wire.run(instruction).outcome is outcome
    assert seen == []
    assert rig.driver.failure() is Failure.NONE


def test_an_instruction_while_busy_is_neither_executed_nor_answered(rigs):
    rig = rigs()
    seen = triggers(rig)
    master: FrameMaster = rig.wire.master
    master.submit(ini())
    assert rig.wire.exchange() is None
    other = FrameMaster()
    other._in_session = True
    other.submit(msr())
    for _ in range(3):
        rig.device.exchange(rig.wire.tick, other.outgoing())
        rig.wire.tick += 1
    response = None
    while response is None:
        response = rig.wire.exchange()
    assert response.outcome is Outcome.SUCCESS_ZERO
    assert seen == [1, 1 | STROBE, 0]


def test_photons_are_counted_while_the_gate_is_open_whatever_the_light_does(rigs):
    lit = (TtlLine.DOPPLER_397, TtlLine.REPUMP_866)
    body = "".join(
        out(*lines) + "delay 1_000, r1\n" for lines in (lit, (*lit, GATE), lit, (GATE,), ())
    )
    rig = rigs(words=program(body))
    counts: list[int] = []
    rig.pmt.count = lambda photons: counts.append(photons if rig.pmt.is_open else 0)
    rig.sequencer.set_software_trigger(STROBE)
    rig.node.sleep(1e-3)
    stretches = [(duration, light.doppler_397) for duration, light in rig.ion.seen[1:]]
    assert stretches == [(10_010, True)] * 3 + [(10_010, False)]
    assert counts[1:] == [0, 100, 0, 0]


# --- what goes wrong ---------------------------------------------------------------------------

BROKEN_PROGRAMS = {
    "never busy": ("", Failure.NOT_TAKEN),
    "never done": (out(BUSY), Failure.NOT_DONE),
    "busy falls": (out(BUSY) + "delay 100, r1\n" + out(), Failure.NOT_DONE),
    "never released": (out(BUSY, GATE) + "delay 100, r1\n" + out(BUSY, DONE),
                       Failure.NOT_RELEASED),
    "done without a gate": (out(BUSY) + "delay 100, r1\n" + out(BUSY, DONE) + "delay 100, r1\n"
                            + out(), Failure.WRONG_GATE),
    "gate still open": (out(BUSY, GATE) + "delay 100, r1\n" + out(BUSY, DONE, GATE)
                        + "delay 100, r1\n" + out(), Failure.WRONG_GATE),
    "done and error": (out(BUSY, GATE) + "delay 100, r1\n" + out(BUSY, DONE, ERROR)
                       + "delay 100, r1\n" + out(), Failure.REFUSED),
    "error, never released": (out(BUSY) + "delay 100, r1\n" + out(BUSY, ERROR), Failure.REFUSED),
    "a word that is none": (out(BUSY) + "ret\n", Failure.NOT_DONE),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_PROGRAMS)
def test_a_sequencer_that_breaks_the_handshake_is_a_hardware_failure(rigs, name):
    body, failure = BROKEN_PROGRAMS[name]
    rig = rigs(words=program(body))
    assert rig.wire.run(msr()).outcome is Outcome.HARDWARE_FAILURE
    assert rig.driver.failure() is failure
    assert rig.driver.last_failure() == failure.name
    assert (rig.driver.executed(), rig.driver.failed()) == (0, 1)


def test_a_sequencer_that_stopped_at_a_fault_starts_without_a_strobe(rigs):
    rig = rigs(words=program(BROKEN_PROGRAMS["a word that is none"][0]))
    assert rig.wire.run(msr()).outcome is Outcome.HARDWARE_FAILURE
    assert rig.sequencer.state is CoreState.FAULT
    assert rig.wire.run(msr()).outcome is Outcome.HARDWARE_FAILURE
    assert rig.driver.failure() is Failure.NOT_READY
    rig.sequencer.stop()
    rig.sequencer.load(ion_program(SHORT).words)
    rig.sequencer.start()
    seen: list[int] = []
    rig.sequencer.on_ttl(lambda time_ns, before, after: seen.append(after))
    rig.node.sleep(1e-3)
    assert seen == []
    assert rig.wire.run(ini()).outcome is Outcome.SUCCESS_ZERO


@pytest.mark.parametrize("line", [BUSY, DONE, ERROR])
def test_lines_that_are_high_before_the_strobe(rigs, line):
    rig = rigs(words=assemble(out(line) + "halt\n").words)
    seen = triggers(rig)
    assert rig.wire.run(ini()).outcome is Outcome.HARDWARE_FAILURE
    assert rig.driver.failure() is Failure.NOT_READY
    assert seen == []


def test_a_sequencer_that_does_not_run(rigs):
    rig = rigs()
    rig.sequencer.stop()
    for _ in range(2):
        assert rig.wire.run(ini()).outcome is Outcome.HARDWARE_FAILURE
        assert rig.driver.failure() is Failure.NOT_TAKEN
    rig.sequencer.start()
    assert rig.wire.run(ini()).outcome is Outcome.SUCCESS_ZERO


def test_a_board_without_codes_strobes_nothing(rigs):
    rig = rigs(board=None)
    seen = triggers(rig)
    assert rig.wire.run(ini()).outcome is Outcome.HARDWARE_FAILURE
    assert rig.driver.failure() is Failure.NO_CODE
    assert seen == []


def test_cut_code_lines_are_code_0_which_the_sequencer_refuses(rigs):
    rig = rigs()
    rig.node.wiring.stuck_low = 0b111
    assert rig.wire.run(sqg(Axis.X, 8)).outcome is Outcome.HARDWARE_FAILURE
    assert rig.driver.failure() is Failure.REFUSED
    rig.node.wiring.stuck_low = 0
    assert rig.wire.run(sqg(Axis.X, 8)).outcome is Outcome.SUCCESS_ZERO


@pytest.mark.parametrize(("line", "failure"), [(BUSY, Failure.NOT_TAKEN), (DONE, Failure.NOT_DONE)])
def test_cut_lines_of_the_sequencer(rigs, line, failure):
    rig = rigs()
    rig.node.wiring.cut = {BUSY: 1, DONE: 2}[line]
    assert rig.wire.run(sqg(Axis.X, 8)).outcome is Outcome.HARDWARE_FAILURE
    assert rig.driver.failure() is failure


def test_a_strobe_that_does_not_arrive_or_does_not_end(rigs):
    rig = rigs()
    rig.node.wiring.stuck_low = STROBE
    assert rig.wire.run(ini()).outcome is Outcome.HARDWARE_FAILURE
    assert rig.driver.failure() is Failure.NOT_TAKEN
    rig.node.wiring.stuck_low, rig.node.wiring.stuck_high = 0, STROBE
    assert rig.wire.run(ini()).outcome is Outcome.HARDWARE_FAILURE
    assert rig.driver.failure() is Failure.NOT_RELEASED


@pytest.mark.parametrize("operation", [IonOperation.MEASURE, IonOperation.X_PI])
def test_the_code_of_a_measurement_for_another_operation_is_noticed(rigs, operation):
    swapped = {**CODES, IonOperation.MEASURE: 2, IonOperation.X_PI: 7}
    rig = rigs(board=BoardSettings(codes=swapped))
    assert rig.wire.run(INSTRUCTIONS[operation]).outcome is Outcome.HARDWARE_FAILURE
    assert rig.driver.failure() is Failure.WRONG_GATE


def test_an_overflow_of_the_counter_is_no_result(rigs):
    rig = rigs()
    rig.ion.photons = 65_536
    assert rig.wire.run(msr()).outcome is Outcome.HARDWARE_FAILURE
    assert rig.driver.failure() is Failure.OVERFLOW
    # It concerns measurements only, and the next count is a new one.
    assert rig.wire.run(sqg(Axis.X, 8)).outcome is Outcome.SUCCESS_ZERO
    rig.ion.photons = 50
    assert rig.wire.run(msr()).outcome is Outcome.SUCCESS_ZERO


def test_after_a_timeout_nothing_is_strobed_until_the_sequencer_has_come_to_rest(rigs):
    rig = rigs()
    rig.driver.done_timeout_us(50)  # a measurement takes 60
    seen = triggers(rig)
    assert rig.wire.run(msr()).outcome is Outcome.HARDWARE_FAILURE
    assert rig.driver.failure() is Failure.NOT_DONE
    del seen[:]
    assert rig.wire.run(sqg(Axis.X, 8)).outcome is Outcome.SUCCESS_ZERO
    assert seen == [4, 4 | STROBE, 0]


# --- the driver -------------------------------------------------------------------------------


def test_settings_reach_the_board(rigs):
    rig = rigs(board=BoardSettings(setup_ns=300, handshake_timeout_ns=5_000))
    driver = rig.driver
    assert (driver.setup_ns(), driver.handshake_timeout_ns()) == (300, 5_000)
    assert driver.done_timeout_us() == DONE_TIMEOUT_US
    assert driver.codes() == dict(CODES)


@pytest.mark.parametrize(
    ("settings", "timeout_us", "message"),
    [
        (BoardSettings(setup_ns=19), 100, "SETUP_NS = 19 is not a whole number from 20 to"),
        (BoardSettings(handshake_timeout_ns=10**7), 100, "HANDSHAKE_TIMEOUT_NS"),
        (BoardSettings(), 9, "DONE_TIMEOUT_US = 9"),
        (BoardSettings(), 100.0, "DONE_TIMEOUT_US = 100.0"),
        (BoardSettings(codes={**CODES, IonOperation.X_PI: 0}), 100, "code 0 of X_PI is outside"),
        (BoardSettings(codes={**CODES, IonOperation.X_PI: 8}), 100, "code 8 of X_PI is outside"),
        (BoardSettings(codes={**CODES, IonOperation.Y_PI: 2}), 100, "Y_PI and X_PI .* code 2"),
        (BoardSettings(codes={IonOperation.X_PI: 2}), 100, "none for INITIALISE, Y_PI"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_sent(rigs, settings, timeout_us, message):
    rig = rigs(board=None)
    with pytest.raises(ConfigurationRefused, match=message):
        rig.driver.configure(settings, timeout_us)
    assert set(rig.driver.codes().values()) == {0}


@pytest.mark.parametrize("name", ["setup_ns", "handshake_timeout_ns", "done_timeout_us"])
def test_times_have_limits_on_both_sides(rigs, name):
    rig = rigs()
    for value in (0, 10**9):
        with pytest.raises(ValueError, match=name):
            rig.driver.parameters[name](value)
        with pytest.raises(DeviceRefused, match="ERR"):
            rig.driver.write_register(Register[name.upper()], value)


def test_a_board_that_does_not_keep_what_is_written_is_noticed(rigs, monkeypatch):
    rig = rigs(board=None)
    monkeypatch.setattr(rig.board, "_write", lambda number, value: "OK")
    with pytest.raises(DeviceRefused, match="DONE_TIMEOUT_US = 10 after 100 was written"):
        rig.driver.configure(BoardSettings(), 100)


def test_nothing_is_written_while_an_instruction_is_executed(rigs):
    rig = rigs()
    seen: list[str] = []
    rig.sequencer.on_ttl(
        lambda time_ns, before, after: seen.append(
            rig.board.answer(f"W {code_register(IonOperation.X_PI).value} 5")
        )
    )
    rig.wire.run(ini())
    assert set(seen) == {"ERR busy"}
    assert rig.driver.codes() == dict(CODES)


def test_a_reset_forgets_the_session_but_not_the_settings(rigs):
    rig = rigs()
    rig.wire.run(ini())
    rig.driver.reset()
    assert (rig.driver.executed(), rig.driver.codes()) == (0, dict(CODES))
    assert rig.wire.master.device_restarts == 0
    rig.wire.exchange()
    assert rig.wire.master.device_restarts == 1
    rig.wire.exchange()
    rig.wire.exchange()
    assert rig.wire.run(ini()).outcome is Outcome.SUCCESS_ZERO


def test_damaged_frames_are_counted(rigs):
    rig = rigs()
    rig.device.exchange(rig.wire.tick, 0xDEAD_BEEF)
    assert rig.driver.corrupted_frames() == 1


@given(st.text(max_size=20))
def test_any_line_is_answered(line):
    answer = SimulatedBoard().answer(line)
    assert answer == "OK" or answer.isdigit() or answer.startswith("ERR ")


def test_the_snapshot_can_be_read_and_stored(rigs):
    rig = rigs()
    snapshot = json.loads(json.dumps(rig.driver.snapshot(update=True), cls=NumpyJSONEncoder))
    values = {name: entry["value"] for name, entry in snapshot["parameters"].items()}
    assert values["last_failure"] == "NONE"
    assert values["setup_ns"] == 100
    assert values["IDN"]["firmware"] == "1"


def test_one_owner_and_nothing_else_at_the_address(rigs):
    board = SimulatedBoard()
    first = IonBoard("first", "ASRL7::INSTR", resource=SerialLine(board))
    with pytest.raises(InstrumentInUse, match="ASRL7"):
        IonBoard("second", "ASRL7::INSTR", resource=SerialLine(board))
    first.close()
    line = SerialLine(board)
    line.query = lambda message: str(0x4853_0001)  # type: ignore[method-assign]
    with pytest.raises(IncompatibleInstrument, match="no SPI to TTL board"):
        IonBoard("third", "ASRL7::INSTR", resource=line)
