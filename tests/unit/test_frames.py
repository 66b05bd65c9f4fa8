"""The frame codec: round trips, what is never valid, and how good the check is."""

from __future__ import annotations

from functools import reduce
from itertools import combinations
from math import comb
from operator import xor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.errors import FrameError
from qnodeos.qdevice import frames
from qnodeos.qdevice.frames import (
    DETAIL_BOOT,
    DETAIL_SESSION,
    FRAME_BITS,
    GENERATOR,
    HERALD_OF_DETAIL,
    decode_command,
    decode_response,
    encode_command,
    encode_response,
    session_of,
    session_word,
    unwrap_tick,
)
from qnodeos.qdevice.outcomes import BellState, Outcome

BITS = st.integers(0, 1)
WORDS = st.integers(0, 2**20 - 1)
TICKS = st.integers(0, 2**40)
DETAILS = st.sampled_from([0, 1, 2, 3, 4])
OUTCOMES = st.sampled_from([int(outcome) for outcome in Outcome])
ALL_ONES = 2**FRAME_BITS - 1

COMMANDS = st.builds(encode_command, WORDS, BITS, BITS)
OUTCOME_RESPONSES = st.builds(encode_response, OUTCOMES, DETAILS, TICKS, BITS, BITS, BITS)
SESSION_RESPONSES = st.builds(
    encode_response,
    st.integers(0, 15),
    st.sampled_from([DETAIL_BOOT, DETAIL_SESSION]),
    TICKS,
    BITS,
    BITS,
    BITS,
)
RESPONSES = OUTCOME_RESPONSES | SESSION_RESPONSES


def flipped(frame: int, places: set[int]) -> int:
    """The frame with the bits at some places inverted."""
    return frame ^ sum(1 << place for place in places)


@given(WORDS, BITS, BITS)
def test_command_round_trip(word, sequence, acknowledge):
    frame = encode_command(word, sequence, acknowledge)
    assert 0 <= frame <= ALL_ONES
    assert decode_command(frame) == (word, sequence, acknowledge)


@given(OUTCOMES, DETAILS, TICKS, BITS, BITS, BITS)
def test_response_round_trip(outcome, detail, tick, busy, sequence, acknowledge):
    frame = encode_response(outcome, detail, tick, busy, sequence, acknowledge)
    assert 0 <= frame <= ALL_ONES
    assert decode_response(frame) == (outcome, detail, tick % 4096, busy, sequence, acknowledge)


def test_layout_is_the_documented_one():
    command = encode_command(0xABCDE, 1, 0)
    assert command >> 12 == 0xABCDE
    assert command >> 10 & 0b11 == 0b10
    response = encode_response(Outcome.SUCCESS_ONE, 1 + BellState.PSI_MINUS, 0x5A5, 1, 0, 1)
    assert response >> 28 == 12
    assert response >> 25 & 7 == 3
    assert response >> 13 & 0xFFF == 0x5A5
    assert response >> 10 & 7 == 0b101


def test_check_is_the_remainder_modulo_the_generator():
    """Long division by hand, bit by bit, for a few words; independent of the tables."""
    for info in (0, 1, 0x3FFFFF, 0x2A5A5A):
        register = 0
        for place in reversed(range(22)):
            register = register << 1 | info >> place & 1
            if register >> 10:
                register ^= GENERATOR
        for _ in range(10):
            register <<= 1
            if register >> 10:
                register ^= GENERATOR
        frame = encode_command(info >> 2, info >> 1 & 1, info & 1)
        assert frame & 0x3FF == register ^ frames.COMMAND_CONSTANT


@pytest.mark.parametrize("code", sorted(set(range(16)) - {int(outcome) for outcome in Outcome}))
def test_unassigned_outcomes_are_damage(code):
    assert decode_response(encode_response(code, 0, 7, 0, 1, 1)) is None


def test_unassigned_detail_is_damage():
    assert decode_response(encode_response(Outcome.SUCCESS_ZERO, 5, 7, 0, 1, 1)) is None


def test_details_name_the_bell_states():
    assert HERALD_OF_DETAIL[:5] == (None, *BellState)


@pytest.mark.parametrize(
    "encode",
    [
        lambda: encode_command(2**20, 0, 0),
        lambda: encode_command(-1, 0, 0),
        lambda: encode_response(16, 0, 0, 0, 0, 0),
        lambda: encode_response(-1, 0, 0, 0, 0, 0),
        lambda: encode_response(8, 8, 0, 0, 0, 0),
        lambda: session_word(16),
        lambda: session_word(-1),
    ],
)
def test_what_does_not_fit_is_refused(encode):
    with pytest.raises(FrameError, match="outside"):
        encode()


@pytest.mark.parametrize("frame", [-1, 2**32, 2**40])
def test_more_than_32_bits_are_damage(frame):
    assert decode_command(frame) is None
    assert decode_response(frame) is None


@pytest.mark.parametrize("session", range(16))
def test_session_words(session):
    assert session_of(session_word(session)) == session


@given(WORDS | st.integers(0, 255).map(lambda argument: 0xF0000 | argument << 4))
def test_other_words_ask_for_no_session(word):
    session = session_of(word)
    assert session is None or word == session_word(session)


def test_a_session_word_is_a_nop():
    assert session_word(15) & 0xF == 0
    assert session_of(0) is None


# --- what is never valid ----------------------------------------------------------------


@given(COMMANDS, st.sets(st.integers(0, 31), min_size=1, max_size=3))
def test_up_to_three_wrong_bits_are_noticed_in_a_command(frame, places):
    assert decode_command(flipped(frame, places)) is None


@given(RESPONSES, st.sets(st.integers(0, 31), min_size=1, max_size=3))
def test_up_to_three_wrong_bits_are_noticed_in_a_response(frame, places):
    assert decode_response(flipped(frame, places)) is None


@given(COMMANDS, st.integers(0, 31), st.integers(1, 2**10 - 1))
def test_bursts_up_to_the_length_of_the_check_are_noticed(frame, place, burst):
    error = burst << place & ALL_ONES
    assert (decode_command(frame ^ error) is None) == (error != 0)


@pytest.mark.parametrize("line", [0, ALL_ONES])
def test_a_stuck_line_is_never_valid_even_with_two_glitches(line):
    patterns = [set(), *({a} for a in range(32)), *(set(p) for p in combinations(range(32), 2))]
    for places in patterns:
        assert decode_command(flipped(line, places)) is None
        assert decode_response(flipped(line, places)) is None


@given(COMMANDS, st.sets(st.integers(0, 31), max_size=2))
def test_a_command_looped_back_is_no_response(frame, places):
    assert decode_response(flipped(frame, places)) is None


@given(RESPONSES, st.sets(st.integers(0, 31), max_size=2))
def test_a_response_looped_back_is_no_command(frame, places):
    assert decode_command(flipped(frame, places)) is None


@given(COMMANDS, RESPONSES)
def test_an_inverted_line_is_never_valid(command, response):
    assert decode_command(command ^ ALL_ONES) is None
    assert decode_response(response ^ ALL_ONES) is None


@given(COMMANDS, RESPONSES, st.integers(1, 5), st.integers(0, 31))
def test_a_frame_read_early_or_late_is_never_valid(command, response, slip, foreign):
    foreign &= (1 << slip) - 1
    for frame, decode in ((command, decode_command), (response, decode_response)):
        assert decode((frame << slip | foreign) & ALL_ONES) is None
        assert decode(frame >> slip | foreign << FRAME_BITS - slip) is None


def test_the_constants_are_the_smallest_pair_with_these_properties():
    """The search behind the two constants, on remainders instead of frames.

    A valid frame leaves its constant as remainder; x^k is the remainder of one wrong bit.
    """

    def times_x(remainder: int) -> int:
        return remainder << 1 ^ (GENERATOR if remainder >> 9 else 0)

    def over_x(remainder: int) -> int:
        return (remainder ^ (GENERATOR if remainder & 1 else 0)) >> 1

    power = [1]
    while len(power) <= FRAME_BITS:
        power.append(times_x(power[-1]))
    single = power[:FRAME_BITS]
    near_zero = {0, *single, *(a ^ b for a, b in combinations(single, 2))}
    inverted = reduce(xor, single)

    def survives_slips(constant: int) -> bool:
        late, early = {constant}, {constant}
        for _ in range(5):
            lost_and_found = [(a, b) for a in (0, 1) for b in (0, 1)]
            early = {times_x(r) ^ a ^ b * power[32] for r in early for a, b in lost_and_found}
            late = {over_x(r ^ a) ^ b * power[31] for r in late for a, b in lost_and_found}
            if constant in early or constant in late:
                return False
        return True

    good = [
        constant
        for constant in range(1 << 10)
        if constant not in near_zero
        and constant ^ inverted not in near_zero
        and survives_slips(constant)
    ]
    pair = next(pair for pair in combinations(good, 2) if pair[0] ^ pair[1] not in near_zero)
    assert pair == (frames.COMMAND_CONSTANT, frames.RESPONSE_CONSTANT)


@given(RESPONSES, st.integers(0, 4095))
def test_tick_patterns_change_the_tick_only(frame, tick):
    before = decode_response(frame)
    assert before is not None
    moved = frame ^ frames.TICK_PATTERN[before.tick] ^ frames.TICK_PATTERN[tick]
    assert decode_response(moved) == before._replace(tick=tick)


# --- how good the check is ---------------------------------------------------------------


def test_weight_distribution_by_brute_force_at_low_weights():
    """Count the undetected patterns of weight 1 to 4 one by one, with the decoder itself."""
    frame = encode_command(0x12345, 1, 0)
    counts = [
        sum(decode_command(flipped(frame, set(p))) is not None for p in combinations(range(32), w))
        for w in range(1, 5)
    ]
    assert counts == frames.weight_distribution(GENERATOR)[1:5] == [0, 0, 0, 8]


def test_weight_distribution_is_complete():
    distribution = frames.weight_distribution(GENERATOR)
    assert sum(distribution) == 2**22
    assert distribution[0] == 1
    assert all(0 <= n <= comb(32, w) for w, n in enumerate(distribution))


def test_the_generator_is_the_best_of_its_degree():
    best = frames.best_generators()
    assert best[0] == GENERATOR
    reciprocal = int(f"{GENERATOR:011b}"[::-1], 2)
    assert best == [GENERATOR, reciprocal]
    assert frames.hamming_distance(frames.weight_distribution(GENERATOR)) == 4


@pytest.mark.parametrize("rate", [1e-3, 1e-6, 1e-9])
def test_residual_error_is_dominated_by_eight_patterns_of_four(rate):
    assert frames.residual_error_probability(rate) == pytest.approx(8 * rate**4, rel=rate * 30)


def test_half_of_all_bits_wrong_is_random_garbage():
    assert frames.residual_error_probability(0.5) == pytest.approx(2**-10, rel=1e-6)


def test_report_states_what_the_documentation_quotes():
    text = frames.report()
    assert "generator 0x44d" in text
    assert "Hamming distance 4" in text
    assert "8.00e-12" in text
    assert "9.77e-04" in text


# --- ticks -------------------------------------------------------------------------------


@given(TICKS, st.integers(-2047, 2048))
def test_unwrap_tick_finds_the_nearest(near, offset):
    assert unwrap_tick((near + offset) & 4095, near) == near + offset
