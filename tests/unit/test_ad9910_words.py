"""Registers and words of the AD9910: round trips, and errors at the limits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instruments.ad9910_words import (
    DEFAULTS,
    FULL_SCALE,
    PROFILES,
    SETUP,
    Register,
    Tone,
    amplitude,
    amplitude_word,
    check_clock,
    frequency_hz,
    frequency_word,
    phase_rad,
    phase_word,
    read_message,
    write_message,
)
from instruments.errors import ConfigurationRefused

CLOCKS_HZ = st.floats(60e6, 1e9)
REGISTERS = st.sampled_from(Register)
OUT_OF_RANGE = (math.nan, math.inf, -math.inf)

# --- words ---------------------------------------------------------------------------------


@given(CLOCKS_HZ, st.floats(0, 0.4))
def test_a_frequency_comes_back_to_half_a_step(clock_hz, share):
    wanted_hz = min(share * clock_hz, 0.4 * clock_hz)
    word = frequency_word(wanted_hz, clock_hz)
    assert 0 <= word < 1 << 31
    step_hz = clock_hz / 2**32
    assert abs(frequency_hz(word, clock_hz) - wanted_hz) <= step_hz / 2 * (1 + 1e-6)


@given(CLOCKS_HZ, st.integers(0, int(0.4 * 2**32) - 1))
def test_a_frequency_word_comes_back(clock_hz, word):
    assert frequency_word(frequency_hz(word, clock_hz), clock_hz) == word


def test_frequency_words_of_the_data_sheet():
    assert frequency_word(0, 1e9) == 0
    assert frequency_word(250e6, 1e9) == 0x4000_0000
    assert frequency_word(400e6, 1e9) == 0x6666_6666
    assert frequency_word(80e6, 1e9) == 343_597_384
    assert frequency_word(0.1, 1e9) == 0
    assert frequency_word(0.117, 1e9) == 1


@pytest.mark.parametrize("wrong", [-1e-9, 400e6 + 1, 500e6, 1e9, *OUT_OF_RANGE])
def test_a_frequency_out_of_range_is_named(wrong):
    with pytest.raises(ConfigurationRefused, match=r"a frequency of .* outside 0 to 400000000 Hz"):
        frequency_word(wrong, 1e9)


@given(CLOCKS_HZ)
def test_the_highest_frequency_goes_with_the_clock(clock_hz):
    frequency_word(0.4 * clock_hz, clock_hz)
    with pytest.raises(ConfigurationRefused, match="image"):
        frequency_word(0.4 * clock_hz + 1, clock_hz)


@pytest.mark.parametrize("wrong", [0, 59.9e6, 1e9 + 1, -1e9, *OUT_OF_RANGE])
def test_a_clock_out_of_range_is_named(wrong):
    for use in (
        lambda: check_clock(wrong),
        lambda: frequency_word(0, wrong),
        lambda: frequency_hz(0, wrong),
    ):
        with pytest.raises(ConfigurationRefused, match=r"a system clock of .* Hz is outside"):
            use()
    check_clock(60e6)
    check_clock(1e9)


@given(st.floats(-2 * math.pi, 2 * math.pi))
def test_a_phase_comes_back_to_half_a_step(wanted_rad):
    word = phase_word(wanted_rad)
    assert 0 <= word < 1 << 16
    off = (phase_rad(word) - wanted_rad + math.pi) % (2 * math.pi) - math.pi
    assert abs(off) <= math.pi / 2**16 * (1 + 1e-6)


@given(st.integers(0, 0xFFFF))
def test_a_phase_word_comes_back(word):
    assert phase_word(phase_rad(word)) == word


def test_phase_words_of_quarter_turns():
    quarters = [phase_word(turn * math.pi / 2) for turn in (0, 1, 2, 3, 4, -1)]
    assert quarters == [0, 0x4000, 0x8000, 0xC000, 0, 0xC000]


@pytest.mark.parametrize("wrong", [6.2832, -6.2832, 90.0, *OUT_OF_RANGE])
def test_a_phase_out_of_range_is_named(wrong):
    with pytest.raises(ConfigurationRefused, match=r"a phase of .* outside -2 pi to 2 pi"):
        phase_word(wrong)


@given(st.floats(0, 1))
def test_an_amplitude_comes_back_to_half_a_step(wanted):
    assert abs(amplitude(amplitude_word(wanted)) - wanted) <= 0.5 / FULL_SCALE * (1 + 1e-6)


@given(st.integers(0, 0x3FFF))
def test_an_amplitude_word_comes_back(word):
    assert amplitude_word(amplitude(word)) == word


def test_the_amplitude_one_is_full_scale():
    assert (amplitude_word(0), amplitude_word(1)) == (0, 0x3FFF)
    for wrong in (-1e-9, 1 + 1e-9, *OUT_OF_RANGE):
        with pytest.raises(ConfigurationRefused, match=r"an amplitude of .* outside 0 to 1"):
            amplitude_word(wrong)


@pytest.mark.parametrize(
    ("of", "bits"),
    [(lambda word: frequency_hz(word, 1e9), 32), (phase_rad, 16), (amplitude, 14)],
)
def test_words_beyond_their_bits_are_refused(of, bits):
    of((1 << bits) - 1)
    for wrong in (-1, 1 << bits):
        with pytest.raises(ConfigurationRefused, match=f"does not fit into {bits} bits"):
            of(wrong)


# --- tones and messages --------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(0, 0xFFFF), st.integers(0, 0x3FFF))
def test_a_tone_comes_back_from_its_register(frequency, phase, scale):
    tone = Tone(frequency, phase, scale)
    assert Tone.from_register(tone.register_value) == tone
    assert Tone.from_register(tone.register_value | 0b11 << 62) == tone


def test_the_words_of_a_tone_have_their_places():
    assert Tone(0x1234_5678, 0xABCD, 0x3FFF).register_value == 0x3FFF_ABCD_1234_5678
    for wrong in ((1 << 32, 0, 0), (0, 1 << 16, 0), (0, 0, 1 << 14), (-1, 0, 0)):
        with pytest.raises(ConfigurationRefused, match="does not fit"):
            Tone(*wrong)


@given(REGISTERS, st.data())
def test_a_message_is_the_address_and_the_value(register, data):
    value = data.draw(st.integers(0, (1 << 8 * register.width) - 1))
    message = write_message(register, value)
    assert message[0] == register < 0x20
    assert int.from_bytes(message[1:], "big") == value
    question = read_message(register)
    assert question[0] == 0x80 | register
    assert len(question) == len(message) == 1 + register.width
    for wrong in (-1, 1 << 8 * register.width):
        with pytest.raises(ConfigurationRefused, match=register.name):
            write_message(register, wrong)


def test_the_most_significant_byte_goes_first():
    assert write_message(Register.CFR2, 0x0140_08A0).hex() == "01014008a0"
    assert write_message(Register.POW, 0x1234).hex() == "081234"
    assert write_message(Register.PROFILE_7, 1).hex() == "150000000000000001"
    assert read_message(Register.POW).hex() == "880000"


def test_the_map_is_that_of_the_data_sheet():
    assert [register.value for register in PROFILES] == list(range(0x0E, 0x16))
    widths = {register.width for register in PROFILES}
    assert widths == {8}
    assert set(DEFAULTS) == set(Register)
    assert SETUP == {
        Register.CFR1: 0x0000_0002,
        Register.CFR2: 0x0140_08A0,
        Register.CFR3: 0x1F3F_C000,
    }
