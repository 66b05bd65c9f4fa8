"""The ends of the wire: rules one by one, then invariants on a wire that misbehaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnodeos.errors import FrameError
from qnodeos.qdevice.endpoint import FrameMaster, FrameSlave, Response
from qnodeos.qdevice.frames import (
    CommandFrame,
    ResponseFrame,
    decode_command,
    decode_response,
    encode_command,
    encode_response,
    session_word,
)
from qnodeos.qdevice.instructions import NOP, PhysicalInstruction, enm, ent, ini, msr
from qnodeos.qdevice.outcomes import BellState, Outcome

GARBAGE = 0xFFFFFFFF


def command_in(frame: int) -> CommandFrame:
    """What a frame says that must be valid."""
    command = decode_command(frame)
    assert command is not None
    return command


def response_in(frame: int) -> ResponseFrame:
    """What a frame says that must be valid."""
    response = decode_response(frame)
    assert response is not None
    return response


def exchange(master: FrameMaster, slave: FrameSlave, tick: int):
    """One tick on a perfect wire: what the slave is to execute, what the master learns."""
    out = master.outgoing()
    back = slave.outgoing(tick)
    instruction = slave.incoming(out)
    return instruction, master.incoming(back)


@pytest.fixture
def pair() -> tuple[FrameMaster, FrameSlave]:
    """Both ends, in session, next tick 2."""
    master, slave = FrameMaster(), FrameSlave()
    for tick in range(2):
        assert exchange(master, slave, tick) == (None, None)
    return master, slave


# --- one rule at a time ------------------------------------------------------------------


def test_session_takes_two_ticks_and_is_news():
    master, slave = FrameMaster(), FrameSlave()
    assert master.has_news
    exchange(master, slave, 0)
    assert master.has_news
    exchange(master, slave, 1)
    assert not master.has_news
    assert master.idle


def test_an_instruction_is_executed_once_and_answered_once(pair):
    master, slave = pair
    master.submit(msr(3))
    assert master.has_news
    assert not master.idle
    assert exchange(master, slave, 2) == (msr(3), None)
    assert not master.has_news
    assert slave.busy
    for tick in range(3, 9):
        assert exchange(master, slave, tick) == (None, None)
    slave.complete(Outcome.SUCCESS_ONE)
    assert exchange(master, slave, 9) == (None, Response(Outcome.SUCCESS_ONE, None))
    assert master.idle
    for tick in range(10, 14):
        assert exchange(master, slave, tick) == (None, None)


def test_an_answer_takes_one_tick_at_least(pair):
    master, slave = pair
    master.submit(ini())
    out, back = master.outgoing(), slave.outgoing(2)
    assert slave.incoming(out) == ini()
    slave.complete(Outcome.SUCCESS_ZERO)
    assert master.incoming(back) is None
    assert exchange(master, slave, 3)[1] == Response(Outcome.SUCCESS_ZERO, None)


@pytest.mark.parametrize("herald", [None, *BellState])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_and_herald_arrives(pair, outcome, herald):
    master, slave = pair
    master.submit(enm())
    exchange(master, slave, 2)
    slave.complete(outcome, herald)
    assert exchange(master, slave, 3)[1] == Response(outcome, herald)


def test_the_master_knows_the_device_tick(pair):
    master, slave = pair
    exchange(master, slave, 4096 + 77)
    assert master.device_tick_low == 77
    master.incoming(GARBAGE)
    assert master.device_tick_low == 77
    exchange(master, slave, 4096 + 79)
    assert master.device_tick_low == 79


def test_the_slave_tells_when_it_has_news(pair):
    master, slave = pair
    assert not slave.has_news
    master.submit(ini())
    exchange(master, slave, 2)
    assert slave.has_news  # busy
    exchange(master, slave, 3)
    assert not slave.has_news
    slave.complete(Outcome.SUCCESS_ZERO)
    assert slave.has_news
    exchange(master, slave, 4)
    assert not slave.has_news


def test_busy_lasts_from_acceptance_to_outcome(pair):
    master, slave = pair
    busy = []
    master.submit(ini())
    for tick in range(2, 7):
        if tick == 5:
            slave.complete(Outcome.SUCCESS_ZERO)
        busy.append(response_in(slave.outgoing(tick)).busy)
        exchange(master, slave, tick)
    assert busy == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("opcode", range(11, 16))
def test_an_unknown_opcode_is_answered_by_the_slave(pair, opcode):
    master, slave = pair
    unknown = PhysicalInstruction(opcode, 5, 1, 2)
    master.submit(unknown)
    assert exchange(master, slave, 2) == (None, None)
    assert exchange(master, slave, 3)[1] == Response(Outcome.UNSUPPORTED_REQUEST, None)
    master.submit(ini())
    assert exchange(master, slave, 4)[0] == ini()


def test_one_outstanding_at_most(pair):
    master, _ = pair
    master.submit(ini())
    with pytest.raises(FrameError, match="outstanding"):
        master.submit(ini())


def test_a_nop_is_never_an_instruction(pair):
    master, slave = pair
    with pytest.raises(FrameError, match="NOP"):
        master.submit(NOP)
    with pytest.raises(FrameError, match="NOP"):
        master.submit(NOP._replace(argument=3))
    assert slave.incoming(encode_command(NOP._replace(argument=3).word, 1, 0)) is None
    assert not slave.busy


def test_an_outcome_needs_an_instruction(pair):
    _, slave = pair
    with pytest.raises(FrameError, match="without an instruction"):
        slave.complete(Outcome.SUCCESS_ZERO)


def test_silence_limit_leaves_time_for_an_answer():
    with pytest.raises(ValueError, match="silence_limit"):
        FrameMaster(silence_limit=1)


def test_damaged_frames_are_counted_and_ignored(pair):
    master, slave = pair
    master.submit(ini())
    damaged = master.outgoing() ^ 0x700
    assert slave.incoming(damaged) is None
    assert not slave.busy
    assert slave.corrupted_frames == 1
    assert master.incoming(slave.outgoing(3) ^ 0x7) is None
    assert master.corrupted_frames == 1
    assert exchange(master, slave, 4)[0] == ini()


def test_a_second_instruction_while_busy_waits_for_its_turn(pair):
    """The master never sends one; a device must neither execute nor lose it."""
    _, slave = pair
    assert slave.incoming(encode_command(ini().word, 1, 0)) == ini()
    early = encode_command(msr().word, 0, 1)
    assert slave.incoming(early) is None
    slave.complete(Outcome.SUCCESS_ZERO)
    assert slave.incoming(early) == msr()


def test_an_instruction_of_a_master_that_missed_an_outcome_is_refused(pair):
    _, slave = pair
    assert slave.incoming(encode_command(ini().word, 1, 0)) == ini()
    slave.complete(Outcome.SUCCESS_ZERO)
    assert slave.incoming(encode_command(msr().word, 0, 0)) is None
    assert not slave.busy


def test_an_instruction_without_a_new_sequence_bit_is_refused(pair):
    _, slave = pair
    assert slave.incoming(encode_command(ini().word, 0, 0)) is None
    assert not slave.busy


def test_a_device_outside_a_session_executes_nothing():
    slave = FrameSlave()
    for sequence in (0, 1):
        assert slave.incoming(encode_command(ini().word, sequence, 1 - sequence)) is None
        assert slave.incoming(encode_command(ini().word, sequence, sequence)) is None
    assert not slave.busy


# --- restarts and silence ------------------------------------------------------------------


def test_a_restarted_master_does_not_take_an_old_outcome(pair):
    master, slave = pair
    master.submit(msr())
    exchange(master, slave, 2)
    slave.complete(Outcome.SUCCESS_ONE)

    master = FrameMaster(session=1)
    master.submit(ini())
    executed = [exchange(master, slave, tick) for tick in range(3, 8)]
    assert [instruction for instruction, _ in executed] == [None, None, ini(), None, None]
    assert all(response is None for _, response in executed)
    slave.complete(Outcome.SUCCESS_ZERO)
    assert exchange(master, slave, 8)[1] == Response(Outcome.SUCCESS_ZERO, None)


def test_a_restarted_master_waits_for_the_running_instruction(pair):
    master, slave = pair
    master.submit(msr())
    exchange(master, slave, 2)

    master = FrameMaster(session=1, silence_limit=4)
    master.submit(ini())
    for tick in range(3, 20):  # far longer than the silence limit: a busy device is not silent
        assert exchange(master, slave, tick) == (None, None)
    slave.complete(Outcome.SUCCESS_ONE)
    executed = [exchange(master, slave, tick) for tick in range(20, 24)]
    assert [instruction for instruction, _ in executed] == [None, None, ini(), None]
    assert all(response is None for _, response in executed)


def test_a_device_that_restarts_fails_the_outstanding_instruction(pair):
    master, _ = pair
    master.submit(ini())
    slave = FrameSlave()
    assert exchange(master, slave, 2) == (None, Response(Outcome.HARDWARE_FAILURE, None))
    assert master.idle
    assert master.device_restarts == 1
    master.submit(msr())
    executed = [exchange(master, slave, tick)[0] for tick in range(3, 8)]
    assert executed == [None, None, msr(), None, None]
    slave.complete(Outcome.SUCCESS_ONE)
    assert exchange(master, slave, 8)[1] == Response(Outcome.SUCCESS_ONE, None)
    assert master.device_restarts == 1


def test_a_device_that_restarts_idle_is_taken_into_a_new_session(pair):
    master, _ = pair
    slave = FrameSlave()
    for tick in range(2, 5):
        assert exchange(master, slave, tick) == (None, None)
    assert master.device_restarts == 1
    assert not master.has_news


@pytest.mark.parametrize("silent", [GARBAGE, 0, encode_response(8, 0, 5, 0, 0, 0)])
def test_a_silent_device_fails_the_instruction(pair, silent):
    """Damaged frames, or good ones of a device that does not hear: both are silence."""
    master = FrameMaster(silence_limit=10)
    slave = FrameSlave()
    for tick in range(2):
        exchange(master, slave, tick)
    master.submit(ini())
    heard = [master.incoming(silent) for _ in range(10)]
    assert heard == [None] * 9 + [Response(Outcome.HARDWARE_FAILURE, None)]
    assert master.idle
    assert command_in(master.outgoing()).word == session_word(1)


def test_silence_before_the_session_fails_the_instruction_too():
    master = FrameMaster(silence_limit=10)
    boot = FrameSlave().outgoing(0)
    master.submit(ini())
    heard = [master.incoming(boot) for _ in range(10)]
    assert heard == [None] * 9 + [Response(Outcome.HARDWARE_FAILURE, None)]


def test_silence_counts_in_a_row_only(pair):
    master, slave = FrameMaster(silence_limit=4), FrameSlave()
    for tick in range(2):
        exchange(master, slave, tick)
    master.submit(ini())
    exchange(master, slave, 2)
    for tick in range(3, 30):
        heard = GARBAGE if tick % 3 else slave.outgoing(tick)
        assert master.incoming(heard) is None


def test_silence_counts_from_the_submission():
    master, slave = FrameMaster(silence_limit=4), FrameSlave()
    for tick in range(2):
        exchange(master, slave, tick)
    for _ in range(20):
        assert master.incoming(GARBAGE) is None
    master.submit(ini())
    heard = [master.incoming(GARBAGE) for _ in range(4)]
    assert heard == [None] * 3 + [Response(Outcome.HARDWARE_FAILURE, None)]


@pytest.mark.parametrize("foreign", [7, 8])
def test_a_device_taken_over_by_another_master_brings_no_outcome(foreign):
    """Whether or not the other's session number happens to be the code of an outcome."""
    master, slave = FrameMaster(silence_limit=6), FrameSlave()
    for tick in range(2):
        exchange(master, slave, tick)
    master.submit(ini())
    exchange(master, slave, 2)
    slave.complete(Outcome.SUCCESS_ZERO)
    assert exchange(master, slave, 3)[1] == Response(Outcome.SUCCESS_ZERO, None)
    slave.incoming(encode_command(session_word(foreign), 0, 0))
    master.submit(ini())
    heard = [exchange(master, slave, tick)[1] for tick in range(4, 10)]
    assert heard == [None] * 5 + [Response(Outcome.HARDWARE_FAILURE, None)]


def test_session_numbers_wrap(pair):
    master = FrameMaster(session=15, silence_limit=2)
    master.submit(ini())
    master.incoming(GARBAGE)
    assert master.incoming(GARBAGE) == Response(Outcome.HARDWARE_FAILURE, None)
    assert command_in(master.outgoing()).word == session_word(0)


# --- invariants on a bad wire ----------------------------------------------------------------


@dataclass
class Wire:
    """One direction. A fault is applied to one frame; without faults frames pass.

    A fault is a set of at most three bits to flip, "copy" (the receiver reads its previous
    frame again) or "lost" (it reads nonsense).
    """

    decode: Callable[[int], object]
    previous: int = GARBAGE

    def carry(self, frame: int, fault) -> int:
        """What arrives."""
        if fault == "copy":
            return self.previous
        if fault == "lost":
            frame = GARBAGE
        elif fault is not None:
            for place in fault:
                frame ^= 1 << place
            assert self.decode(frame) is None
        self.previous = frame
        return frame


@dataclass
class Bench:
    """A master, a slave and a device that takes some ticks for each instruction."""

    durations: list[int]
    master: FrameMaster = field(default_factory=FrameMaster)
    slave: FrameSlave = field(default_factory=FrameSlave)
    down: Wire = field(default_factory=lambda: Wire(decode_command))
    up: Wire = field(default_factory=lambda: Wire(decode_response))
    tick: int = 0
    submitted: int = 0
    executed: list[int] = field(default_factory=list)
    answers: list[tuple[int, Response]] = field(default_factory=list)
    running: tuple[int, PhysicalInstruction] | None = None

    def step(self, fault_down=None, fault_up=None) -> None:
        """One tick. The serial number of an instruction travels as its link and qubit."""
        if self.running and self.tick >= self.running[0]:
            self.slave.complete(*answer_to(serial_of(self.running[1])))
            self.running = None
        out = self.down.carry(self.master.outgoing(), fault_down)
        back = self.up.carry(self.slave.outgoing(self.tick), fault_up)
        instruction = self.slave.incoming(out)
        if instruction is not None:
            assert self.running is None
            serial = serial_of(instruction)
            self.executed.append(serial)
            duration = self.durations[serial % len(self.durations)]
            self.running = (self.tick + duration, instruction)
        response = self.master.incoming(back)
        if response is not None:
            self.answers.append((self.submitted - 1, response))
        self.tick += 1

    def submit(self) -> None:
        """Hand the next instruction to the master, if it is idle."""
        if self.master.idle:
            self.master.submit(ent(self.submitted & 255, self.submitted >> 8))
            self.submitted += 1


def serial_of(instruction: PhysicalInstruction) -> int:
    """The serial number `Bench.submit` gave an instruction."""
    return instruction.argument | instruction.qubit << 8


def answer_to(serial: int) -> Response:
    """What the device answers: anything that differs between neighbours."""
    outcomes = [o for o in Outcome if o is not Outcome.HARDWARE_FAILURE]
    return Response(
        outcomes[serial * 7 % len(outcomes)], BellState(serial % 4) if serial % 5 else None
    )


FAULTS = st.one_of(
    st.none(),
    st.sets(st.integers(0, 31), min_size=1, max_size=3),
    st.just("copy"),
    st.just("lost"),
)
DURATIONS = st.lists(st.integers(0, 4), min_size=1, max_size=5)


@settings(max_examples=400, deadline=None)
@given(DURATIONS, st.lists(st.tuples(FAULTS, FAULTS, st.booleans()), max_size=60))
def test_exactly_once_on_a_bad_wire(durations, script):
    bench = Bench(durations)
    for fault_down, fault_up, submit in script:
        if submit:
            bench.submit()
        bench.step(fault_down, fault_up)
        assert bench.executed == list(range(len(bench.executed)))
        assert bench.answers == [(n, answer_to(n)) for n in range(len(bench.answers))]
        assert len(bench.answers) <= len(bench.executed) <= bench.submitted
    for _ in range(10):
        bench.step()
    bench.submit()
    for _ in range(10):
        bench.step()
    assert bench.executed == list(range(bench.submitted))
    assert bench.answers == [(n, answer_to(n)) for n in range(bench.submitted)]


EVENTS = st.sampled_from(["submit", "submit", "submit", "wait", "wait", "master", "slave"])


@settings(max_examples=400, deadline=None)
@given(DURATIONS, st.lists(st.tuples(FAULTS, FAULTS, EVENTS), max_size=80))
def test_at_most_once_when_the_ends_restart(durations, script):
    """Whatever restarts when: never twice, never another instruction's outcome, never stuck."""
    bench = Bench(durations)
    sessions = 0
    abandoned = set()
    for fault_down, fault_up, event in script:
        if event == "submit":
            bench.submit()
        elif event == "master":
            if not bench.master.idle:
                abandoned.add(bench.submitted - 1)
            sessions += 4  # a service picks a number its predecessor did not use last
            bench.master = FrameMaster(sessions % 16)
        elif event == "slave":
            bench.slave = FrameSlave()
            bench.running = None
        bench.step(fault_down, fault_up)
    for _ in range(12):
        bench.step()
    bench.submit()
    for _ in range(12):
        bench.step()

    last = bench.submitted - 1
    assert bench.answers[-1] == (last, answer_to(last))
    assert bench.executed == sorted(set(bench.executed))
    assert [n for n, _ in bench.answers] == sorted(set(range(bench.submitted)) - abandoned)
    for serial, response in bench.answers:
        if response != Response(Outcome.HARDWARE_FAILURE, None):
            assert response == answer_to(serial)
            assert serial in bench.executed


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_arbitrary_words_never_break_an_end(words):
    master, slave = FrameMaster(), FrameSlave()
    for tick, word in enumerate(words):
        master.incoming(word)
        slave.outgoing(tick)
        if slave.incoming(word) is not None:
            slave.complete(Outcome.SUCCESS_ZERO)
