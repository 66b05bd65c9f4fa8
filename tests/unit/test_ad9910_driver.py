"""The AD9910's driver on a mocked SPI port."""

from __future__ import annotations

import json
import math

import pytest
from qcodes.instrument import Instrument
from qcodes.utils import NumpyJSONEncoder

from instruments.ad9910 import AD9910
from instruments.ad9910_words import DEFAULTS, PROFILES, SETUP, Register, Tone, frequency_word
from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    InstrumentInUse,
    InstrumentNotReady,
    InstrumentUnavailable,
)

ADDRESS = "spidev0.1"


@pytest.fixture(autouse=True)
def close_all(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    Instrument.close_all()


@pytest.fixture
def chip():
    """What was written, by address, and the active values."""
    return {"buffers": dict(DEFAULTS), "active": dict(DEFAULTS), "messages": []}


@pytest.fixture
def port(mocker, chip):
    """A mocked port with a chip that answers every message, also before it is set up."""

    def xfer2(values):
        chip["messages"].append(bytes(values))
        register = Register(values[0] & 0x1F)
        if not values[0] & 0x80:
            chip["buffers"][register] = int.from_bytes(bytes(values[1:]), "big")
            return [0] * len(values)
        return [0, *chip["active"][register].to_bytes(register.width, "big")]

    mock = mocker.Mock(name="SpiDev")
    mock.xfer2.side_effect = xfer2
    return mock


@pytest.fixture
def dds(port):
    return AD9910("dds", ADDRESS, port=port)


@pytest.fixture
def ready(dds, chip, mocker):
    """The driver of a chip that was set up."""
    dds.connect_pins(lambda: chip["active"].update(chip["buffers"]), mocker.Mock(name="reset"))
    dds.set_up()
    chip["messages"].clear()
    return dds


# --- opening -------------------------------------------------------------------------------


def test_the_port_is_set_and_nothing_is_sent(dds, port):
    assert (port.mode, port.bits_per_word, port.lsbfirst) == (0, 8, False)
    assert port.max_speed_hz == 10_000_000
    port.xfer2.assert_not_called()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"system_clock_hz": 1.1e9}, "system clock"),
        ({"system_clock_hz": 50e6}, "system clock"),
        ({"speed_hz": 70_000_001}, "SPI clock"),
        ({"speed_hz": 0}, "SPI clock"),
    ],
)
def test_clocks_have_limits(port, arguments, message):
    with pytest.raises(ConfigurationRefused, match=message):
        AD9910("dds", ADDRESS, port=port, **arguments)
    AD9910("dds", ADDRESS, port=port)


def test_one_owner(dds, mocker):
    other = mocker.Mock(name="SpiDev")
    with pytest.raises(InstrumentInUse, match=r"spidev0\.1 is open already"):
        AD9910("another", ADDRESS, port=other)
    with pytest.raises(InstrumentInUse, match="'dds' already"):
        AD9910("dds", "spidev0.0", port=other)
    dds.close()
    AD9910("another", ADDRESS, port=other)


def test_a_controller_that_refuses_leaves_nothing_open(mocker):
    port = mocker.Mock(name="SpiDev")
    type(port).max_speed_hz = mocker.PropertyMock(side_effect=OSError("no"))
    with pytest.raises(DeviceRefused, match="max_speed_hz"):
        AD9910("dds", ADDRESS, port=port)
    port.close.assert_called_once_with()
    AD9910("dds", ADDRESS, port=mocker.Mock(name="SpiDev")).close()


def test_without_the_port_the_error_names_it():
    with pytest.raises(InstrumentUnavailable, match="spidev"):
        AD9910("dds", "spidev31.15")


def test_closing_closes_the_port(dds, port):
    dds.close()
    port.close.assert_called_once_with()


# --- setting up ----------------------------------------------------------------------------


def test_setting_up_writes_the_control_registers_and_silences_all_profiles(dds, chip):
    pulses = []

    def pulse():
        pulses.append(1)
        chip["active"].update(chip["buffers"])

    dds.connect_pins(pulse)
    chip["buffers"][Register.PROFILE_3] = 0x3FFF_0000_0000_0000
    dds.set_up()
    assert chip["messages"][0].hex() == "0000000002"
    assert {register: chip["active"][register] for register in SETUP} == SETUP
    assert [chip["active"][register] for register in PROFILES] == [0] * 8
    # One to make the chip readable, one that is read back, one for all the others.
    assert len(pulses) == 3


def test_before_it_nothing_can_be_written_or_read(dds, port):
    for use in (
        lambda: dds.read_register(Register.CFR1),
        lambda: dds.write_register(Register.CFR1, 0),
        dds.profiles[0].frequency_hz,
        lambda: dds.profiles[0].amplitude(1),
        lambda: dds.profiles[0].set_tone(1e6),
        dds.update,
    ):
        with pytest.raises(InstrumentNotReady, match=r"call set_up\(\)"):
            use()
    with pytest.raises(InstrumentNotReady, match="nothing drives IO_UPDATE"):
        dds.set_up()
    with pytest.raises(InstrumentNotReady, match="nothing drives MASTER_RESET"):
        dds.reset()
    assert port.xfer2.call_count == 1


@pytest.mark.parametrize("level", [0x00, 0xFF])
def test_a_silent_chip_is_not_set_up(dds, port, level):
    port.xfer2.side_effect = lambda values: [level] * len(values)
    dds.connect_pins(lambda: None)
    with pytest.raises(DeviceRefused, match=r"CFR1 is .* and not 0x2 as written; check the power"):
        dds.set_up()
    with pytest.raises(InstrumentNotReady):
        dds.read_register(Register.CFR1)


def test_after_a_reset_it_must_be_set_up_again(ready, chip):
    ready.reset()
    ready._master_reset.assert_called_once_with()
    with pytest.raises(InstrumentNotReady, match="not set up"):
        ready.profiles[1].set_tone(80e6)
    ready.set_up()
    ready.profiles[1].set_tone(80e6)


# --- profiles ------------------------------------------------------------------------------


def test_a_tone_is_one_message(ready, chip):
    ready.profiles[2].set_tone(80e6, math.pi / 2, 0.5)
    assert [message.hex() for message in chip["messages"]] == ["1020004000147ae148"]
    assert Tone.from_register(chip["buffers"][Register.PROFILE_2]) == Tone(
        frequency_word(80e6, 1e9), 0x4000, 0x2000
    )


def test_parameters_change_one_word_and_are_read_from_the_chip(ready, chip):
    profile = ready.profiles[1]
    profile.frequency_hz(80e6)
    profile.phase_rad(-math.pi / 2)
    profile.amplitude(1)
    assert profile.frequency_hz.get() == 0
    ready.update()
    assert profile.frequency_hz() == pytest.approx(80e6, abs=0.12)
    assert profile.phase_rad() == pytest.approx(1.5 * math.pi)
    assert profile.amplitude() == 1
    assert chip["active"][Register.PROFILE_0] == 0


def test_a_change_of_a_profile_keeps_what_is_not_active_yet(ready, chip):
    ready.profiles[1].set_tone(80e6, 0, 1)
    ready.profiles[1].phase_rad(math.pi)
    assert Tone.from_register(chip["buffers"][Register.PROFILE_1]) == Tone(
        frequency_word(80e6, 1e9), 0x8000, 0x3FFF
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("frequency_hz", 400e6 + 1, "a frequency of 400000001.0 Hz is outside 0 to 400000000 Hz"),
        ("frequency_hz", -1, "a frequency of -1 Hz"),
        ("phase_rad", 7, "a phase of 7 rad"),
        ("amplitude", 1.001, "an amplitude of 1.001"),
    ],
)
def test_values_out_of_range_are_typed_errors_and_not_sent(ready, chip, name, value, message):
    with pytest.raises(ConfigurationRefused, match=message):
        ready.profiles[0].parameters[name](value)
    with pytest.raises(ConfigurationRefused, match=message):
        ready.profiles[0].set_tone(**{"frequency_hz": 0, name: value})
    assert chip["buffers"][Register.PROFILE_0] == 0
    assert not any(message[0] < 0x80 for message in chip["messages"])


def test_the_limit_of_frequencies_is_that_of_the_clock(port, chip):
    dds = AD9910("slow", "spidev1.0", system_clock_hz=500e6, port=port)
    dds.connect_pins(lambda: chip["active"].update(chip["buffers"]))
    dds.set_up()
    dds.profiles[0].frequency_hz(200e6)
    with pytest.raises(ConfigurationRefused, match="outside 0 to 200000000 Hz"):
        dds.profiles[0].frequency_hz(200e6 + 1)
    dds.update()
    assert dds.profiles[0].frequency_hz() == pytest.approx(200e6, abs=0.06)


# --- reading back --------------------------------------------------------------------------


def test_a_garbled_message_is_noticed_at_the_update(ready, chip):
    ready.profiles[4].set_tone(80e6)
    chip["buffers"][Register.PROFILE_4] ^= 1 << 40
    with pytest.raises(DeviceRefused, match="dds: PROFILE_4 is 0x3fff0100147ae148 and not"):
        ready.update()


def test_an_update_that_did_not_come_is_noticed(ready, chip):
    ready.connect_pins(lambda: None)
    ready.profiles[4].set_tone(80e6)
    with pytest.raises(DeviceRefused, match=r"PROFILE_4 is 0x0 and not .* IO_UPDATE"):
        ready.update()


def test_what_was_set_can_be_verified_later(ready, chip):
    ready.profiles[4].set_tone(80e6)
    with pytest.raises(InstrumentNotReady, match=r"PROFILE_4 not active yet; call update\(\)"):
        ready.verify()
    ready.update()
    ready.verify()
    chip["active"] = dict(DEFAULTS)
    with pytest.raises(DeviceRefused, match="CFR1 is 0x0 and not 0x2"):
        ready.verify()


def test_a_failed_transfer_is_typed(ready, port):
    port.xfer2.side_effect = OSError(5, "Input/output error")
    with pytest.raises(DeviceRefused, match="Input/output error"):
        ready.profiles[0].set_tone(80e6)
    port.xfer2.side_effect = lambda values: values[:-1]
    with pytest.raises(DeviceRefused, match="8 bytes came back over SPI instead of 9"):
        ready.profiles[0].set_tone(80e6)


def test_the_snapshot_has_every_profile(ready):
    ready.profiles[1].set_tone(80e6, 0, 1)
    ready.update()
    snapshot = json.loads(json.dumps(ready.snapshot(update=True), cls=NumpyJSONEncoder))
    assert snapshot["metadata"] == {"address": ADDRESS, "system_clock_hz": 1e9}
    assert len(snapshot["submodules"]) == 8
    values = snapshot["submodules"]["profile_1"]["parameters"]
    assert values["amplitude"]["value"] == 1
    assert values["frequency_hz"]["unit"] == "Hz"
    assert snapshot["parameters"]["IDN"]["value"]["model"] == "AD9910"
