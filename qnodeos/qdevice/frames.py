"""The 4-byte frames on the wire between QNPU and QDevice, one each way per tick.

Bit 31 is sent first.

    command   (QNPU -> QDevice)            response  (QDevice -> QNPU)
    31..12  instruction word               31..28  outcome, or session
    11      sequence bit                   27..25  detail
    10      acknowledge bit                24..13  low bits of the tick counter
     9..0   check                          12      busy
                                           11      sequence bit of the outcome
                                           10      acknowledge bit: last instruction accepted
                                            9..0   check

``detail`` is 0 (nothing to add), 1 + `BellState` (the state an ENM heralded, whose outcome
carries the measured bit), `DETAIL_BOOT` (the device lost its state and waits for a session)
or `DETAIL_SESSION` (it has entered the session whose number stands in the outcome field and
has no outcome in it yet). A command whose word is `session_word(n)` asks for session ``n``.
`qnodeos.qdevice.endpoint` says what the bits mean over time.

The check field is a cyclic redundancy check. The generator is the best of all of degree 10
for 32-bit frames, found by computing every weight distribution (`best_generators`). Each
direction XORs its own constant into the check, so that the following are never valid either:
a line stuck at 0 or 1 or an inverted one, a frame read up to five bit times early or late,
and, at the other end, a frame of the wrong direction (a command looped back).
``python -m qnodeos.qdevice.frames`` prints the numbers, ``docs/frames.md`` explains them.
"""

from __future__ import annotations

from functools import cache
from math import comb
from typing import Final, NamedTuple

from qnodeos.errors import FrameError
from qnodeos.qdevice.instructions import WORD_BITS, Opcode
from qnodeos.qdevice.outcomes import BellState, Outcome

FRAME_BITS: Final = 32
CHECK_BITS: Final = 10
TICK_BITS: Final = 12
TICK_SHIFT: Final = 13
TICK_MASK: Final = (1 << TICK_BITS) - 1
MAX_SESSION: Final = 15

GENERATOR: Final = 0x44D
"""x^10 + x^6 + x^3 + x^2 + 1, the first that `best_generators` returns."""
COMMAND_CONSTANT: Final = 0x00B
RESPONSE_CONSTANT: Final = 0x02D
"""The smallest pair with the properties the module's docstring lists (see docs/frames.md)."""

DETAIL_NONE: Final = 0
DETAIL_BOOT: Final = 6
DETAIL_SESSION: Final = 7

HERALD_OF_DETAIL: Final[tuple[BellState | None, ...]] = (
    None, *(BellState(code) for code in range(4)), None, None, None
)  # fmt: skip
"""The Bell state each value of the detail field announces."""

_INFO_BITS: Final = FRAME_BITS - CHECK_BITS
_FRAME_MASK: Final = (1 << FRAME_BITS) - 1
_CHECK_MASK: Final = (1 << CHECK_BITS) - 1
_WORD_MASK: Final = (1 << WORD_BITS) - 1
# The 22 checked bits are looked up in two halves: 2 x 2048 entries instead of 4 million.
_HALF_BITS: Final = _INFO_BITS // 2
_HALF_MASK: Final = (1 << _HALF_BITS) - 1
_HIGH_SHIFT: Final = CHECK_BITS + _HALF_BITS
_SESSION_MARK: Final = 0xF
_SESSION_WORD_BASE: Final = Opcode.NOP | _SESSION_MARK << 16


class CommandFrame(NamedTuple):
    """What a valid command frame says."""

    word: int
    sequence: int
    acknowledge: int


class ResponseFrame(NamedTuple):
    """What a valid response frame says; ``tick`` holds `TICK_BITS` bits."""

    outcome: int
    detail: int
    tick: int
    busy: int
    sequence: int
    acknowledge: int


def _remainder(value: int, generator: int) -> int:
    """``value`` modulo ``generator``, both polynomials over GF(2)."""
    degree = generator.bit_length()
    while value.bit_length() >= degree:
        value ^= generator << value.bit_length() - degree
    return value


def _check_table(shift: int, constant: int) -> tuple[int, ...]:
    return tuple(_remainder(half << shift, GENERATOR) ^ constant for half in range(1 << _HALF_BITS))


_LOW: Final = _check_table(CHECK_BITS, 0)
_HIGH_COMMAND: Final = _check_table(_HIGH_SHIFT, COMMAND_CONSTANT)
_HIGH_RESPONSE: Final = _check_table(_HIGH_SHIFT, RESPONSE_CONSTANT)

# What the constructor of a named tuple does, without a Python function in between: decoding
# happens every tick.
_make: Final = tuple.__new__

_LEGAL_OUTCOME: Final = tuple(code in set(Outcome) for code in range(16))


def encode_command(word: int, sequence: int, acknowledge: int) -> int:
    """The frame that carries an instruction word.

    Raises:
        FrameError: the word does not fit in its field.
    """
    if word >> WORD_BITS:
        raise FrameError(f"instruction word {word:#x} is outside 0..{_WORD_MASK:#x}")
    info = word << 2 | (sequence & 1) << 1 | acknowledge & 1
    return info << CHECK_BITS | _HIGH_COMMAND[info >> _HALF_BITS] ^ _LOW[info & _HALF_MASK]


def decode_command(frame: int) -> CommandFrame | None:
    """What a command frame says, or None if it is damaged."""
    if frame >> FRAME_BITS:
        return None
    check = _HIGH_COMMAND[frame >> _HIGH_SHIFT] ^ _LOW[frame >> CHECK_BITS & _HALF_MASK]
    if check != frame & _CHECK_MASK:
        return None
    return _make(CommandFrame, (frame >> 12, frame >> 11 & 1, frame >> 10 & 1))


def encode_response(
    outcome: int, detail: int, tick: int, busy: int, sequence: int, acknowledge: int
) -> int:
    """The frame that carries an outcome; of ``tick`` only the low `TICK_BITS` bits travel.

    Raises:
        FrameError: the outcome or the detail does not fit in its field.
    """
    if outcome >> 4 or detail >> 3:
        raise FrameError(f"outcome {outcome} is outside 0..15 or detail {detail} is outside 0..7")
    info = (
        outcome << 18
        | detail << 15
        | (tick & TICK_MASK) << 3
        | (busy & 1) << 2
        | (sequence & 1) << 1
        | acknowledge & 1
    )
    return info << CHECK_BITS | _HIGH_RESPONSE[info >> _HALF_BITS] ^ _LOW[info & _HALF_MASK]


def decode_response(frame: int) -> ResponseFrame | None:
    """What a response frame says, or None if it is damaged.

    An outcome code that is not assigned, or detail 5, is damage too: nothing that keeps the
    contract sends them.
    """
    if frame >> FRAME_BITS:
        return None
    check = _HIGH_RESPONSE[frame >> _HIGH_SHIFT] ^ _LOW[frame >> CHECK_BITS & _HALF_MASK]
    if check != frame & _CHECK_MASK:
        return None
    outcome = frame >> 28
    detail = frame >> 25 & 7
    if detail < 5:
        if not _LEGAL_OUTCOME[outcome]:
            return None
    elif detail == 5:
        return None
    return _make(
        ResponseFrame,
        (
            outcome,
            detail,
            frame >> TICK_SHIFT & TICK_MASK,
            frame >> 12 & 1,
            frame >> 11 & 1,
            frame >> 10 & 1,
        ),
    )


TICK_PATTERN: Final = tuple(
    encode_response(0, 0, tick, 0, 0, 0) ^ encode_response(0, 0, 0, 0, 0, 0)
    for tick in range(1 << TICK_BITS)
)
"""What the low bits of the tick change in a response frame.

The check is linear: ``frame ^ TICK_PATTERN[frame >> TICK_SHIFT & TICK_MASK]`` is the same
frame at tick 0, valid if and only if the frame is. Ends of the wire that repeat themselves
tick after tick save most of the coding with it.
"""


def session_word(session: int) -> int:
    """The word of a command that asks the device to enter a session.

    Its opcode is NOP, so a device that knows no sessions does nothing on it.

    Raises:
        FrameError: the session number does not fit in its field.
    """
    if not 0 <= session <= MAX_SESSION:
        raise FrameError(f"session {session} is outside 0..{MAX_SESSION}")
    return _SESSION_WORD_BASE | session << 4


def session_of(word: int) -> int | None:
    """The session a word asks for, or None if it is no such request."""
    if word & ~(MAX_SESSION << 4) != _SESSION_WORD_BASE:
        return None
    return word >> 4 & MAX_SESSION


def unwrap_tick(low_bits: int, near: int) -> int:
    """The tick with these low bits that is nearest to ``near`` (half a turn away: the later)."""
    half = 1 << TICK_BITS - 1
    return near + (low_bits - near + half - 1 & TICK_MASK) - half + 1


# --- how good the check is ------------------------------------------------------------


def weight_distribution(generator: int) -> list[int]:
    """How many error patterns of each weight leave a 32-bit frame valid.

    Enumerates the 2^10 words of the dual code and applies MacWilliams' identity, which is
    exact; entry 0 is the one "pattern" without an error.

    Args:
        generator: polynomial of degree 10, as bits (`GENERATOR` is one).

    Returns:
        Counts, shape (33,).
    """
    remainders = [_remainder(1 << place, generator) for place in range(FRAME_BITS)]
    rows = [
        sum((remainder >> row & 1) << place for place, remainder in enumerate(remainders))
        for row in range(CHECK_BITS)
    ]
    dual = [0] * (FRAME_BITS + 1)
    word = 0
    for count in range(1, (1 << CHECK_BITS) + 1):
        dual[word.bit_count()] += 1
        word ^= rows[min((count & -count).bit_length() - 1, CHECK_BITS - 1)]
    occupied = [(weight, number) for weight, number in enumerate(dual) if number]
    return [
        sum(number * _krawtchouk(order, weight) for weight, number in occupied) >> CHECK_BITS
        for order in range(FRAME_BITS + 1)
    ]


@cache
def _krawtchouk(order: int, weight: int) -> int:
    """Coefficient of z^order in (1 - z)^weight (1 + z)^(32 - weight)."""
    return sum(
        (-1) ** j * comb(weight, j) * comb(FRAME_BITS - weight, order - j) for j in range(order + 1)
    )


def hamming_distance(distribution: list[int]) -> int:
    """The smallest number of wrong bits that can leave a frame valid."""
    return next(weight for weight, number in enumerate(distribution) if weight and number)


def best_generators() -> list[int]:
    """All generators of degree 10 with the largest distance and fewest patterns at it."""

    def badness(generator: int) -> tuple[int, int]:
        distribution = weight_distribution(generator)
        distance = hamming_distance(distribution)
        return -distance, distribution[distance]

    ranked = {g: badness(g) for g in range(1 << CHECK_BITS | 1, 2 << CHECK_BITS, 2)}
    best = min(ranked.values())
    return [generator for generator, value in ranked.items() if value == best]


def residual_error_probability(bit_error_rate: float) -> float:
    """Probability that a frame is damaged and still valid, for independent bit errors."""
    return sum(
        number * bit_error_rate**weight * (1 - bit_error_rate) ** (FRAME_BITS - weight)
        for weight, number in enumerate(weight_distribution(GENERATOR))
        if weight
    )


def report() -> str:
    """The choice of the generator and what the check leaves undetected, as text."""
    distribution = weight_distribution(GENERATOR)
    best = ", ".join(f"{generator:#x}" for generator in best_generators())
    lines = [
        f"frame {FRAME_BITS} bits, check {CHECK_BITS} bits, generator {GENERATOR:#x}",
        f"best of the 512 generators of degree {CHECK_BITS}: {best}",
        f"Hamming distance {hamming_distance(distribution)}",
        "",
        "wrong bits  undetected patterns  of all patterns",
    ]
    for weight, number in enumerate(distribution[1:], start=1):
        lines.append(f"{weight:10}  {number:19}  {number / comb(FRAME_BITS, weight):15.2e}")
    lines += ["", "bit error rate  residual error probability per frame"]
    for exponent in range(3, 10):
        probability = residual_error_probability(10.0**-exponent)
        lines.append(f"{f'1e-{exponent}':>14}  {probability:.2e}")
    lines.append(f"random garbage  {2.0**-CHECK_BITS:.2e}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
