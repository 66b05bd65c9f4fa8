"""The frames of the ADbasic program: damage, its phase, and the time it takes."""

from __future__ import annotations

import random

import pytest

from instruments.nv_controller import TICK_EVENTS
from qnodeos.qdevice.frames import (
    DETAIL_SESSION,
    FRAME_BITS,
    ResponseFrame,
    decode_response,
    encode_command,
    session_word,
)
from qnodeos.qdevice.instructions import NOP, Axis, PhysicalInstruction, ini, msr, sqg
from qnodeos.qdevice.outcomes import Outcome
from sim.lab.node import LabNode
from tests.sim.lab_harness import Runner, lone_laboratory

SEED = 20260107


IDLE = encode_command(NOP.word, 0, 0)


class Wire:
    """Exchanges frames with the program of a node, before events of its own choice."""

    def __init__(self, runner: Runner) -> None:
        self.node: LabNode = runner.node
        self.controller = runner.controller
        self.response: ResponseFrame | None = None
        self.next = runner.lab.laboratory.zero_event + runner.tick * TICK_EVENTS

    def exchange(self, frame: int, shift: int = 0) -> ResponseFrame | None:
        """Exchange a tick after the last time, or so many events later; None if none was ready."""
        at = self.next + shift
        while self.node.event < at - 1:
            self.node.act(self.node.event + 1)
        waiting, self.node._response = self.node._response, None
        self.node.receive(frame)
        self.next = at + TICK_EVENTS
        if waiting is None:
            return None
        self.response = decode_response(waiting[1])
        return self.response

    def tick(self, frame: int = IDLE, shift: int = 0) -> int:
        """Exchange; the tick that the response says."""
        response = self.exchange(frame, shift)
        assert response is not None
        return response.tick

    def next_sequence(self) -> int:
        """The sequence bit that makes a frame new to the program."""
        assert self.response is not None
        return 1 ^ self.response.sequence

    def execute(self, instruction: PhysicalInstruction, ticks: int = 100) -> ResponseFrame:
        """Repeat the frame of an instruction until it is answered, as the QNPU does."""
        sequence = self.next_sequence()
        frame = encode_command(instruction.word, sequence, sequence ^ 1)
        for _ in range(ticks):
            response = self.exchange(frame)
            if response is not None and response.sequence == sequence:
                return response
        raise AssertionError(f"{instruction} is never answered")


@pytest.fixture(scope="module")
def shared():
    with lone_laboratory(plain=True) as runner:
        runner.run([ini()])
        wire = Wire(runner)
        wire.tick()
        yield runner, wire


@pytest.fixture
def wire(shared):
    return shared[1]


def test_damaged_commands_are_counted_and_never_executed(shared):
    runner, wire = shared
    rng = random.Random(SEED)
    for instruction in (ini(), sqg(Axis.X, 16)):
        assert wire.execute(instruction).outcome == Outcome.SUCCESS_ZERO
    corrupted, instructions = (
        runner.controller.read(name) for name in ("corrupted_frames", "instructions")
    )
    sequence = wire.next_sequence()
    damaged = []
    for instruction in (ini(), msr(), sqg(Axis.Y, 16)):
        frame = encode_command(instruction.word, sequence, sequence ^ 1)
        damaged += [frame ^ 1 << place for place in range(FRAME_BITS)]
        damaged += [frame ^ rng.randrange(1, 32) << rng.randrange(27) for _ in range(20)]
    for frame in damaged:
        response = wire.exchange(frame)
        assert response is not None
        assert not response.busy
    wire.exchange(IDLE)
    wire.exchange(IDLE)
    assert runner.controller.read("corrupted_frames") - corrupted == len(damaged)
    assert runner.controller.read("instructions") == instructions
    # The undamaged one is executed, and finds the state untouched.
    assert wire.execute(msr()).outcome == Outcome.SUCCESS_ONE
    assert runner.controller.read("instructions") == instructions + 1


# --- the phase --------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", range(-4, 6))
def test_the_program_follows_the_phase_of_the_frames(wire, shift):
    first = wire.tick()
    assert [wire.tick() - first & 0xFFF for _ in range(2)] == [1, 2]
    # A frame that comes before its response has been written gets none.
    assert (wire.exchange(IDLE, shift) is None) is (shift < 0)
    # From now on the phase is that of this frame, and no tick was lost or counted twice.
    assert [wire.tick() - first & 0xFFF for _ in range(4, 9)] == [4, 5, 6, 7, 8]
    # A frame an event early still finds its response gone, an event late it is there.
    assert wire.exchange(IDLE, -1) is None
    assert wire.tick(shift=1) - first & 0xFFF == 10


@pytest.mark.parametrize("missing", [1, 2, 7])
def test_ticks_go_on_without_frames(wire, missing):
    first = wire.tick()
    wire.next += missing * TICK_EVENTS
    assert wire.tick() - first & 0xFFF == 1 + missing
    assert wire.tick() - first & 0xFFF == 2 + missing


def test_frames_may_drift_for_ever(wire):
    rng = random.Random(SEED)
    first = wire.tick()
    session = encode_command(session_word(5), 0, 0)
    response = None
    for number in range(1, 300):
        shift = rng.choice((-1, 0, 0, 1))
        answer = wire.exchange(session, shift)
        assert (answer is None) is (shift < 0)
        if answer is not None:
            response = answer
            assert response.tick - first & 0xFFF == number
    assert response is not None
    assert (response.detail, response.outcome) == (DETAIL_SESSION, 5)


# --- charge checks between instructions -------------------------------------------------------


@pytest.mark.parametrize("phase", range(TICK_EVENTS))
def test_an_instruction_sent_during_a_charge_check_is_executed_after_it(wire, phase):
    instructions = wire.controller.read("instructions")
    wire.tick()
    # The check ends in any event between two frames, that of the frame included.
    while wire.node.event < wire.next - TICK_EVENTS + phase:
        wire.node.act(wire.node.event + 1)
    wire.controller.request_charge_check()
    wire.execute(sqg(Axis.X, 16))
    assert wire.controller.read("instructions") == instructions + 1
