"""The AD9910's driver on the simulated chip, and what the chip plays."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instruments.ad9910 import AD9910
from instruments.ad9910_words import (
    DEFAULTS,
    SETUP,
    Register,
    Tone,
    read_message,
    write_message,
)
from instruments.errors import ConfigurationRefused, DeviceRefused
from sim.ion.dds import Ad9910Fault, DdsOutput, DdsPort, SimulatedAd9910

CARRIER_HZ = 80e6
STEP_HZ = 1e9 / 2**32
LATENCY_NS = 91


@pytest.fixture(autouse=True)
def private_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def chip():
    return SimulatedAd9910()


@pytest.fixture
def dds(chip):
    instrument = AD9910("dds", "spidev0.1", port=DdsPort(chip))
    instrument.connect_pins(chip.pulse_io_update, chip.master_reset)
    yield instrument
    instrument.close()


@pytest.fixture
def ready(dds, chip):
    """The carrier at 0, 90 and 180 degrees in the profiles 1 to 3; 0 has amplitude 0."""
    dds.set_up()
    dds.profiles[0].set_tone(CARRIER_HZ, amplitude=0)
    for number, phase_rad in ((1, 0), (2, math.pi / 2), (3, math.pi)):
        dds.profiles[number].set_tone(CARRIER_HZ, phase_rad)
    dds.update()
    return chip


def send(chip: SimulatedAd9910, register: Register, value: int) -> None:
    chip.transfer(write_message(register, value))


def read(chip: SimulatedAd9910, register: Register) -> int:
    return int.from_bytes(bytes(chip.transfer(read_message(register)))[1:], "big")


# --- the driver ----------------------------------------------------------------------------


def test_the_driver_sets_the_chip_up(dds, chip):
    dds.set_up()
    assert {register: read(chip, register) for register in SETUP} == SETUP
    assert chip.system_clock_hz == 1e9
    assert chip.output(1_000).amplitude == 0


def test_without_its_set_up_the_chip_is_silent_loud_and_slow(chip):
    assert read(chip, Register.CFR3) == 0
    assert chip.system_clock_hz == 0.5e9
    assert chip.output(0) == DdsOutput(0.0, 0.0, 1.0)


@given(st.floats(0, 400e6), st.floats(0, 6.28), st.floats(0, 1))
def test_what_is_set_comes_out(frequency_hz, phase_rad, amplitude):
    chip = SimulatedAd9910()
    dds = AD9910("dds_any", "spidev1.1", port=DdsPort(chip))
    try:
        dds.connect_pins(chip.pulse_io_update)
        dds.set_up()
        dds.profiles[5].set_tone(frequency_hz, phase_rad, amplitude)
        dds.update()
        chip.set_profile(1_000, 5)
        out = chip.output(2_000)
        assert out.frequency_hz == pytest.approx(frequency_hz, abs=STEP_HZ / 2 * 1.001)
        assert out.phase_rad == pytest.approx(phase_rad, abs=math.pi / 2**16 * 1.001)
        assert out.amplitude == pytest.approx(amplitude, abs=0.5 / 0x3FFF * 1.001)
        read_back = [dds.profiles[5].parameters[name]() for name in ("frequency_hz", "phase_rad")]
        assert read_back == [out.frequency_hz, out.phase_rad]
    finally:
        dds.close()


def test_a_reset_forgets_everything(ready, dds):
    ready.set_profile(1_000, 1)
    dds.reset()
    assert ready.system_clock_hz == 0.5e9
    assert ready.output(10_000).frequency_hz == 0
    dds.set_up()
    assert ready.output(10_000).amplitude == 0


def test_a_chip_that_another_reset_is_noticed(ready, dds):
    ready.master_reset()
    with pytest.raises(DeviceRefused, match="CFR1 is 0x0"):
        dds.verify()


def test_a_closed_port_is_an_error(ready, dds):
    dds._port.close()
    with pytest.raises(DeviceRefused, match="Bad file descriptor"):
        dds.profiles[0].set_tone(CARRIER_HZ)


# --- buffers and pins ----------------------------------------------------------------------


def test_a_write_waits_for_io_update(ready):
    send(ready, Register.PROFILE_1, Tone(1 << 28, 0, 0x3FFF).register_value)
    ready.set_io_update(1_000, False)
    before = read(ready, Register.PROFILE_1)
    ready.set_io_update(1_010, True)
    assert read(ready, Register.PROFILE_1) == Tone(1 << 28, 0, 0x3FFF).register_value != before
    ready.set_io_update(1_110, False)
    # Only the edge counts: what is written while the line is high waits for the next one.
    ready.set_io_update(2_000, True)
    send(ready, Register.PROFILE_1, 0)
    ready.set_io_update(2_050, True)
    ready.set_io_update(2_100, False)
    assert read(ready, Register.PROFILE_1) != 0
    ready.set_io_update(2_200, True)
    assert read(ready, Register.PROFILE_1) == 0


def test_a_change_of_the_profile_pins_makes_buffers_active_too(ready):
    send(ready, Register.PROFILE_7, 1)
    ready.set_profile(1_000, 0)
    assert read(ready, Register.PROFILE_7) == 0
    ready.set_profile(1_010, 2)
    assert read(ready, Register.PROFILE_7) == 1


def test_profiles_come_out_after_the_latency(ready):
    ready.set_profile(1_000, 2)
    ready.set_profile(1_500, 3)
    assert ready.profile == 3
    tones = [ready.output(time_ns) for time_ns in (1_090, 1_091, 1_590, 1_591)]
    assert [tone.amplitude for tone in tones] == [0, 1, 1, 1]
    assert [tone.phase_rad for tone in tones[1:]] == [math.pi / 2, math.pi / 2, math.pi]
    frequencies = {tone.frequency_hz for tone in tones}
    assert frequencies == {343_597_384 * STEP_HZ}


def test_pieces_are_cut_where_the_output_changes(ready):
    ready.set_profile(1_000, 2)
    ready.set_io_update(1_010, True)
    ready.set_io_update(1_110, False)
    ready.set_profile(1_500, 3)
    assert [(begin, end, tone.phase_rad) for begin, end, tone in ready.pieces(1_200, 2_000)] == [
        (1_200, 1_591, math.pi / 2),
        (1_591, 2_000, math.pi),
    ]
    assert ready.pieces(1_091, 1_591) == [(1_091, 1_591, ready.output(1_200))]
    assert ready.pieces(1_600, 1_600) == [(1_600, 1_600, ready.output(1_600))]
    with pytest.raises(ValueError, match="1000 is before 1001"):
        ready.pieces(1_001, 1_000)


def test_changes_of_one_moment_are_one_change(ready):
    ready.set_profile(1_000, 2)
    ready.set_profile(1_000, 3)
    assert [tone.phase_rad for _, _, tone in ready.pieces(1_000, 2_000)] == [0, math.pi]


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3)), max_size=20),
    st.integers(0, 3_000),
    st.integers(0, 3_000),
)
def test_pieces_and_outputs_agree(edges, begin, length):
    chip = SimulatedAd9910(latency_cycles=10)
    for register, value in SETUP.items():
        send(chip, register, value)
    for number in range(4):
        send(chip, Register(Register.PROFILE_0 + number), Tone(number, 0, 7).register_value)
    chip.pulse_io_update()
    time_ns = 0
    for step, profile in edges:
        time_ns += step
        chip.set_profile(time_ns, profile)
    pieces = chip.pieces(begin, begin + length)
    assert (pieces[0][0], pieces[-1][1]) == (begin, begin + length)
    assert all(one[1] == other[0] for one, other in pairwise(pieces))
    for start, end, tone in pieces:
        assert {chip.output(time) for time in (start, max(start, end - 1))} == {tone}


def test_a_tone_beyond_half_of_the_clock_comes_out_as_its_image(ready):
    send(ready, Register.PROFILE_1, Tone(3 << 30, 0x4000, 0x3FFF).register_value)
    ready.set_profile(1_000, 1)
    assert ready.output(2_000) == DdsOutput(250e6, 1.5 * math.pi, 1.0)


def test_an_io_update_that_is_too_short_is_a_fault():
    chip = SimulatedAd9910(reference_hz=200e6)
    send(chip, Register.CFR3, SETUP[Register.CFR3])
    chip.pulse_io_update()
    chip.set_io_update(0, True)
    chip.set_io_update(20, False)
    chip.set_io_update(40, True)
    with pytest.raises(Ad9910Fault, match="high for 19 ns; below 20 ns it may be missed"):
        chip.set_io_update(59, False)


def test_pins_have_limits(ready):
    ready.set_profile(1_000, 1)
    with pytest.raises(Ad9910Fault, match="no profile 8"):
        ready.set_profile(1_000, 8)
    with pytest.raises(Ad9910Fault, match="at 999 ns comes after one at 1000 ns"):
        ready.set_profile(999, 1)
    ready.set_io_update(1_010, True)
    with pytest.raises(Ad9910Fault, match="high already"):
        ready.pulse_io_update()


def test_old_outputs_are_forgotten_and_not_invented(ready):
    for number in range(2_000):
        ready.set_profile(1_000 + 10 * number, 1 + number % 2)
    with pytest.raises(Ad9910Fault, match="the output at 1200 ns is forgotten"):
        ready.output(1_200)
    assert ready.output(30_000).phase_rad == math.pi / 2


# --- messages ------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 255), min_size=1, max_size=12))
def test_any_bytes_are_taken_or_refused_as_a_whole(message):
    chip = SimulatedAd9910()
    before = dict(chip._buffers)
    address = message[0] & 0x1F
    try:
        answer = chip.transfer(message)
    except Ad9910Fault:
        assert chip._buffers == before
        known = address in set(Register)
        assert not known or len(message) != 1 + Register(address).width
        return
    register = Register(address)
    assert answer == [0] * len(message)
    written = (
        before if message[0] & 0x80 else {**before, register: int(bytes(message[1:]).hex(), 16)}
    )
    assert chip._buffers == written
    assert chip._active == dict(DEFAULTS)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ([0x05, 0, 0, 0, 0], "no register 0x05"),
        ([0x16, 0, 0, 0, 0], "no register 0x16"),
        ([0x0E, 0, 0, 0, 0], "4 bytes for PROFILE_0, which has 8"),
        ([0x08, 0, 0, 0, 0], "4 bytes for POW, which has 2"),
        ([0x80], "0 bytes for CFR1"),
    ],
)
def test_what_the_chip_would_garble_is_a_fault(chip, message, text):
    with pytest.raises(Ad9910Fault, match=text):
        DdsPort(chip).xfer2(message)


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (Register.CFR1, 0x8000_0002),  # RAM
        (Register.CFR1, 0x0000_0003),  # LSB first
        (Register.CFR2, 0x0148_08A0),  # ramp
        (Register.CFR2, 0x0140_08B0),  # parallel port
        (Register.CFR3, 0x1F3F_C100),  # PLL
    ],
)
def test_modes_that_are_not_modelled_are_faults(ready, register, value):
    send(ready, register, value)
    with pytest.raises(Ad9910Fault, match=f"{register.name} = {value:#x} switches on"):
        ready.pulse_io_update()


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("mode", 1, "mode 1"),
        ("lsbfirst", True, "LSB first True"),
        ("bits_per_word", 16, "16 bits"),
        ("max_speed_hz", 70_000_001, "above 70000000 Hz"),
    ],
)
def test_a_port_that_is_set_wrongly_is_a_fault(chip, setting, value, message):
    port = DdsPort(chip)
    setattr(port, setting, value)
    with pytest.raises(Ad9910Fault, match=message):
        port.xfer2(list(read_message(Register.CFR1)))
    with pytest.raises(TypeError):
        port.xfer2([])


def test_the_reference_has_limits():
    with pytest.raises(ConfigurationRefused, match="system clock"):
        SimulatedAd9910(reference_hz=2e9)
