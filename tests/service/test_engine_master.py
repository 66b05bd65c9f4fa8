"""The master in C does what `FrameMaster` does, on whatever a bad wire may deliver."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnodeos.qdevice.endpoint import FrameMaster, FrameSlave
from qnodeos.qdevice.frames import FRAME_BITS, HERALD_OF_DETAIL, encode_response
from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState, Outcome

native = pytest.importorskip(
    "qnodeos.engine._native", reason="the C extension was not built: no compiler"
)

instructions = st.builds(
    PhysicalInstruction,
    st.sampled_from([opcode for opcode in Opcode if opcode is not Opcode.NOP]),
    st.integers(0, 255),
    st.integers(0, 15),
    st.integers(0, 15),
)


class Both:
    """The two masters, asked the same; what they answer must be the same."""

    def __init__(self, session: int, silence_limit: int) -> None:
        self.python = FrameMaster(session, silence_limit=silence_limit)
        self.c = native.FrameMaster(session, silence_limit)

    def submit(self, instruction: PhysicalInstruction) -> None:
        self.python.submit(instruction)
        self.c.submit(instruction.word)

    def outgoing(self) -> int:
        frame = self.python.outgoing()
        assert self.c.outgoing() == frame
        return frame

    def call(self, name: str, *arguments: Any) -> Any:
        response = getattr(self.python, name)(*arguments)
        code = getattr(self.c, name)(*arguments)
        found = None if code is None else (Outcome(code & 15), HERALD_OF_DETAIL[code >> 4])
        assert found == response
        for attribute in (
            "idle", "has_news", "corrupted_frames", "device_restarts", "device_tick_low"
        ):  # fmt: skip
            assert getattr(self.c, attribute) == getattr(self.python, attribute), attribute
        return response


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    session=st.integers(0, 15),
    silence_limit=st.integers(2, 30),
    damage=st.sampled_from([0.0, 0.05, 0.3, 0.8]),
    restarts=st.sampled_from([0.0, 0.01, 0.1]),
    program=st.lists(instructions, min_size=1, max_size=12),
)
def test_a_bad_wire_to_a_real_slave(seed, session, silence_limit, damage, restarts, program):
    """Frames damaged, lost and repeated, both ends restarting, a device busy for long."""
    rng = random.Random(seed)
    both, slave = Both(session, silence_limit), FrameSlave()
    last, busy_until = 0, 0
    outcomes = [None, *Outcome]
    for tick in range(400):
        if both.python.idle and rng.random() < 0.5:
            both.submit(rng.choice(program))
        if rng.random() < restarts:
            slave = FrameSlave()
        if slave.busy and tick >= busy_until:
            herald = rng.choice([None, *BellState])
            slave.complete(rng.choice(outcomes[1:]), herald)
        response = slave.outgoing(tick)
        command = both.outgoing()
        if rng.random() >= damage and slave.incoming(command) is not None:
            busy_until = tick + rng.choice([0, 1, 5, 60])
        if rng.random() < damage:
            response = rng.choice(
                [last, response ^ 1 << rng.randrange(FRAME_BITS), rng.getrandbits(FRAME_BITS)]
            )
        last = response
        both.call("incoming", response)
        if rng.random() < 0.05:
            both.call("repeated", rng.choice([0, 1, 2, 50]))
        if rng.random() < restarts / 4:
            both.call("give_up")


responses = st.builds(
    encode_response,
    st.integers(0, 15),
    st.integers(0, 7),
    st.integers(0, 4095),
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(0, 1),
)
steps = st.one_of(
    st.tuples(st.just("incoming"), responses | st.integers(0, 2**32 - 1)),
    st.tuples(st.just("repeated"), st.integers(-1, 200)),
    st.tuples(st.just("silent"), st.integers(-1, 30)),
    st.tuples(st.just("give_up")),
    st.tuples(st.just("submit"), instructions),
    st.tuples(st.just("outgoing")),
)


@settings(max_examples=300)
@given(st.integers(0, 15), st.integers(2, 20), st.lists(steps, max_size=60))
def test_frames_without_any_sense(session, silence_limit, sequence):
    both = Both(session, silence_limit)
    for name, *arguments in sequence:
        if name == "submit":
            if both.python.idle:
                both.submit(*arguments)
        elif name == "outgoing":
            both.outgoing()
        else:
            both.call(name, *arguments)


def test_every_response_there_is():
    """All outcomes, details and bits, to a master that waits for one."""
    for info in range(1 << 10):
        outcome, detail, bits = info >> 6, info >> 3 & 7, info & 7
        both = Both(3, 5)
        both.call("incoming", encode_response(3, 7, 0, 0, 0, 0))
        both.submit(PhysicalInstruction(Opcode.MSR))
        both.outgoing()
        both.call(
            "incoming",
            encode_response(outcome, detail, info * 37, bits & 1, bits >> 1 & 1, bits >> 2),
        )
        both.outgoing()
