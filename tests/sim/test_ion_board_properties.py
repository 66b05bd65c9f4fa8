"""Whatever the lines of a trapped-ion node do, the board answers in time and says nothing false."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from instruments.ion_board import BoardSettings, Failure, Register, code_register
from qnodeos.qdevice.frames import decode_response, encode_command, session_word
from qnodeos.qdevice.instructions import Axis, ini, msr, sqg
from qnodeos.qdevice.outcomes import Outcome
from sequences.ion import TRIGGER_STROBE, IonOperation
from sim.ion.board import REACTION_NS, BoardState, Line, SimulatedBoard

TICK_NS = 20_000
HANDSHAKE_NS = 5_000
DONE_US = 50
LONGEST_NS = 3 * HANDSHAKE_NS + DONE_US * 1_000 + 10 * REACTION_NS
CODES = {operation: operation.value for operation in IonOperation}
INSTRUCTIONS = {
    IonOperation.INITIALISE: ini(),
    IonOperation.X_HALF: sqg(Axis.X, 8),
    IonOperation.MEASURE: msr(),
}
LOW_BEFORE = Line.BUSY | Line.DONE | Line.ERROR


class Change(NamedTuple):
    """After a time, the board sees these lines."""

    after_ns: int
    lines: int


class Life:
    """One instruction on a board whose lines do as they like; all outputs with their times."""

    def __init__(self, operation: IonOperation, changes: list[Change]) -> None:
        self.board = board = SimulatedBoard()
        self.outputs: list[tuple[int, int]] = []
        self.lines: list[tuple[int, int]] = [(0, 0)]
        board.on_output(lambda time_ns, value: self.outputs.append((time_ns, value)))
        settings = {Register.SETUP_NS: 100, Register.HANDSHAKE_TIMEOUT_NS: HANDSHAKE_NS,
                    Register.DONE_TIMEOUT_US: DONE_US}  # fmt: skip
        for register, value in settings.items():
            assert board.answer(f"W {register.value} {value}") == "OK"
        for op, code in CODES.items():
            assert board.answer(f"W {code_register(op).value} {code}") == "OK"
        board.exchange(0, 0, encode_command(session_word(0), 0, 0))
        board.exchange(1, TICK_NS, encode_command(INSTRUCTIONS[operation].word, 1, 0))
        self._play(changes)

    def _play(self, changes: list[Change]) -> None:
        board, now_ns = self.board, TICK_NS
        for change in changes:
            until_ns = now_ns + change.after_ns
            self._act(until_ns)
            now_ns = until_ns
            if board.state is BoardState.IDLE:
                break
            self.lines.append((now_ns, change.lines))
            board.set_lines(now_ns, change.lines)
        self._act(now_ns + LONGEST_NS)

    def _act(self, until_ns: int) -> None:
        while self.board.due_ns is not None and self.board.due_ns <= until_ns:
            self.board.act(self.board.due_ns)

    def seen_at(self, time_ns: int) -> int:
        """What the board saw when it acted; lines that change then change afterwards."""
        return next(lines for begin, lines in reversed(self.lines) if begin < time_ns)

    def seen_from(self, begin_ns: int, end_ns: int) -> list[int]:
        between = [lines for time_ns, lines in self.lines if begin_ns <= time_ns < end_ns]
        return [self.seen_at(begin_ns), *between]

    def outcome(self) -> Outcome:
        tick = -(-self.board.completed_ns // TICK_NS)
        frame = self.board.exchange(tick, tick * TICK_NS, encode_command(0, 1, 1))
        response = decode_response(frame)
        assert response is not None
        assert not response.busy
        return Outcome(response.outcome)


changes = st.lists(
    st.builds(Change, st.integers(0, 12_000), st.integers(0, (1 << 6) - 1)), max_size=12
)
well_behaved = st.builds(
    lambda wait, taken, work, gate, pulse, more: [
        Change(REACTION_NS + wait, Line.BUSY * taken),
        Change(300, Line.BUSY | Line.GATE if gate else Line.BUSY),
        Change(work, Line.BUSY),
        Change(60, Line.BUSY | Line.DONE | more),
        Change(pulse, Line.BUSY),
        Change(10, 0),
    ],
    st.integers(100, 3_000),
    st.sampled_from([1, 1, 1, 0]),
    st.integers(100, 60_000),
    st.booleans(),
    st.integers(10, 2_000),
    st.sampled_from([0, 0, Line.BRIGHT, Line.ERROR, Line.OVERFLOW, Line.GATE]),
)


@settings(max_examples=400)
@given(st.sampled_from(sorted(INSTRUCTIONS)), st.one_of(changes, well_behaved))
def test_the_board_answers_in_time_and_says_nothing_false(operation, changes):
    life = Life(operation, changes)
    board = life.board
    assert board.state is BoardState.IDLE
    assert board.has_answer
    assert TICK_NS < board.completed_ns <= TICK_NS + LONGEST_NS
    code = CODES[operation]
    assert [value for _, value in life.outputs] in (
        [], [code, 0], [code, code | 1 << TRIGGER_STROBE, 0]
    )  # fmt: skip
    assert all(not life.seen_at(time_ns) & LOW_BEFORE for time_ns, _ in life.outputs[:1])
    failure = Failure(int(board.answer(f"R {Register.LAST_FAILURE.value}")))
    outcome = life.outcome()
    assert (outcome is Outcome.HARDWARE_FAILURE) == (failure is not Failure.NONE)
    assert outcome is Outcome.HARDWARE_FAILURE or outcome.is_success
    if not outcome.is_success:
        return
    (presented, _), (strobed, _), (lowered, _) = life.outputs
    assert strobed == presented + 100
    assert any(lines & Line.BUSY for lines in life.seen_from(strobed, lowered))
    at_end = life.seen_at(lowered)
    assert at_end & Line.DONE
    assert not at_end & (Line.ERROR | Line.GATE)
    assert not life.seen_at(board.completed_ns) & Line.BUSY
    gated = any(lines & Line.GATE for lines in life.seen_from(presented, lowered))
    assert gated == (operation is IonOperation.MEASURE)
    if gated:
        assert not at_end & Line.OVERFLOW
        assert (outcome is Outcome.SUCCESS_ZERO) == bool(at_end & Line.BRIGHT)
    else:
        assert outcome is Outcome.SUCCESS_ZERO


@given(st.sampled_from(sorted(INSTRUCTIONS)), st.integers(0, 40_000), st.integers(0, 63))
def test_a_good_handshake_succeeds_whatever_was_before(operation, work, before):
    measures = operation is IonOperation.MEASURE
    gate = Line.GATE if measures else 0
    life = Life(
        operation,
        [
            Change(50, before),
            Change(50, 0),
            Change(REACTION_NS + 150, Line.BUSY),
            Change(300, Line.BUSY | gate),
            Change(work, Line.BUSY | Line.BRIGHT),
            Change(60, Line.BUSY | Line.DONE | Line.BRIGHT),
            Change(1_000, Line.BUSY | Line.BRIGHT),
            Change(10, Line.BRIGHT),
        ],
    )
    assert life.outcome() is Outcome.SUCCESS_ZERO


def test_the_settings_tested_are_those_of_the_driver():
    assert BoardSettings().codes == CODES
