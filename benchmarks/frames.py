"""One exchange on the wire: a command and a response, each encoded and decoded.

The reference packs the same fields and computes the same check bit by bit, by polynomial
division, as the definition says. A second figure compares what the two ends of the wire
really do per idle tick, which is mostly remembering, with the codec alone.
"""

from __future__ import annotations

from typing import Final

from benchmarks.measure import GC_OFF, Effort, Outcome, Work, compare
from qnodeos.qdevice.endpoint import FrameMaster, FrameSlave
from qnodeos.qdevice.frames import (
    CHECK_BITS,
    COMMAND_CONSTANT,
    FRAME_BITS,
    GENERATOR,
    RESPONSE_CONSTANT,
    TICK_MASK,
    decode_command,
    decode_response,
    encode_command,
    encode_response,
)
from qnodeos.qdevice.instructions import Axis, sqg
from qnodeos.qdevice.outcomes import Outcome as DeviceOutcome

EXCHANGES: Final = 20_000
_WORD: Final = sqg(Axis.X, 8).word
_SUCCESS: Final = int(DeviceOutcome.SUCCESS_ZERO)
_CHECK_MASK: Final = (1 << CHECK_BITS) - 1


def divided(info: int, constant: int) -> int:
    """Append the check to 22 bits of information, by long division."""
    remainder = info << CHECK_BITS
    for place in range(FRAME_BITS - 1, CHECK_BITS - 1, -1):
        if remainder >> place & 1:
            remainder ^= GENERATOR << place - CHECK_BITS
    return info << CHECK_BITS | remainder ^ constant


def exchange_bitwise(tick: int) -> tuple[int, ...]:
    """One exchange with the check computed bit by bit; word, outcome and tick received."""
    sequence = tick & 1
    command = divided(_WORD << 2 | sequence << 1 | sequence ^ 1, COMMAND_CONSTANT)
    if divided(command >> CHECK_BITS, COMMAND_CONSTANT) != command:
        raise RuntimeError("a good command was found damaged")
    response = divided(
        _SUCCESS << 18 | (tick & TICK_MASK) << 3 | sequence << 1 | sequence, RESPONSE_CONSTANT
    )
    if divided(response >> CHECK_BITS, RESPONSE_CONSTANT) != response:
        raise RuntimeError("a good response was found damaged")
    return command >> 12, response >> 28, response >> 13 & TICK_MASK


def exchange_codec(tick: int) -> tuple[int, ...]:
    """One exchange with our codec; word, outcome and tick received."""
    sequence = tick & 1
    command = decode_command(encode_command(_WORD, sequence, sequence ^ 1))
    response = decode_response(encode_response(_SUCCESS, 0, tick, 0, sequence, sequence))
    assert command is not None
    assert response is not None
    return command.word, response.outcome, response.tick


def _codec_work(exchanges: int) -> Work:
    def run() -> None:
        for tick in range(exchanges):
            exchange_codec(tick)

    return Work("codec", "exchange", exchanges, lambda: run)


def _bitwise_work(exchanges: int) -> Work:
    def run() -> None:
        for tick in range(exchanges):
            exchange_bitwise(tick)

    return Work("bit by bit", "exchange", exchanges, lambda: run)


def _idle_work(exchanges: int) -> Work:
    master, slave = FrameMaster(), FrameSlave()

    def exchange(tick: int) -> None:
        response = slave.outgoing(tick)
        slave.incoming(master.outgoing())
        master.incoming(response)

    def run() -> None:
        for tick in range(exchanges):
            exchange(tick)

    return Work("both ends, idle", "exchange", exchanges, lambda: run)


def run(effort: Effort) -> Outcome:
    """Measure."""
    exchanges = effort.of(EXCHANGES)
    if any(exchange_codec(tick) != exchange_bitwise(tick) for tick in range(TICK_MASK + 1)):
        raise RuntimeError("the two codecs disagree; nothing to compare")
    codec = _codec_work(exchanges)
    return Outcome(
        [
            compare(codec, _bitwise_work(exchanges), effort).speed("frame codec"),
            compare(_idle_work(exchanges), codec, effort).speed("idle tick on the wire"),
        ],
        GC_OFF,
    )
