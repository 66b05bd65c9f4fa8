"""The SPI link on a simulated spidev: the real class compared, and a whole device behind it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.spi import SpiLink, SpiQDevice
from qnodeos.errors import DeviceError
from qnodeos.qdevice.conformance import CHECKS, Expectations, check_qdevice
from sim.link import EntanglementLink, LinkParameters
from sim.noise import NVNoise
from sim.nv_device import BehaviouralNVDevice
from sim.nv_timing import NVTiming
from sim.spi import SimulatedSpiDev
from tests.conformance import FOR_REGISTERS


def opened(exchange=lambda frame: frame, **settings: Any) -> SimulatedSpiDev:
    port = SimulatedSpiDev(exchange, **settings)
    port.open(0, 0)
    return port


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_every_frame_arrives_as_it_was_sent(sent, answer):
    seen = []

    def exchange(frame):
        seen.append(frame)
        return answer

    assert SpiLink(opened(exchange)).swap(sent) == answer
    assert seen == [sent]


def test_the_bit_order_of_bytes_matters():
    port = opened(lambda frame: frame + 1)
    port.mode, port.bits_per_word, port.lsbfirst = 1, 8, True
    assert port.xfer2([0, 0, 0, 0x80]) == [0, 0, 0, 0x40]


def test_another_mode_than_the_devices_does_not_get_through():
    def unreached(frame: int) -> int:
        raise AssertionError(frame)

    assert SpiLink(opened(unreached, device_mode=0), mode=1).swap(0xFFFFFFFF) == 0


def test_a_list_that_is_used_again_is_changed():
    port = opened(lambda frame: 0x01020304)
    port.mode = 1
    values = [256, 0, 0, 0]
    assert port.xfer2(values) is values
    assert values == [1, 2, 3, 4]


REFUSED: list[tuple[str, Any]] = [
    ("mode", 4),
    ("mode", -1),
    ("mode", "1"),
    ("mode", 1),
    ("bits_per_word", 7),
    ("bits_per_word", 33),
    ("bits_per_word", 8),
    ("max_speed_hz", 1.5),
    ("max_speed_hz", 1_000),
    ("lsbfirst", 0),
    ("no_such_attribute", 1),
]
"""What cannot be set on a closed device."""


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_settings_are_refused_as_by_the_real_class(name, value):
    spidev = pytest.importorskip("spidev")
    refused = []
    for port in (spidev.SpiDev(), SimulatedSpiDev(lambda frame: frame)):
        with pytest.raises((TypeError, OSError, AttributeError)) as caught:
            setattr(port, name, value)
        refused.append((caught.type, getattr(caught.value, "errno", None)))
    assert refused[0] == refused[1]


@pytest.mark.parametrize("values", [[], [1.5], ["a"], [1, 2, 3, 4], [256], [0] * 4_097])
def test_transfers_are_refused_as_by_the_real_class(values):
    spidev = pytest.importorskip("spidev")
    refused = []
    for port in (spidev.SpiDev(), SimulatedSpiDev(lambda frame: frame)):
        with pytest.raises((TypeError, OSError, OverflowError)) as caught:
            port.xfer2(values)
        refused.append((caught.type, getattr(caught.value, "errno", None)))
    assert refused[0] == refused[1]


def test_opening_and_closing_are_those_of_the_real_class():
    spidev = pytest.importorskip("spidev")
    states = []
    for port in (spidev.SpiDev(), SimulatedSpiDev(lambda frame: frame, bus=30)):
        with pytest.raises(FileNotFoundError):
            port.open(31, 15)
        port.close()
        port.close()
        states.append(
            (port.fileno(), port.mode, port.bits_per_word, port.max_speed_hz, port.lsbfirst)
        )
    assert states[0] == states[1]


def test_nothing_goes_over_a_closed_link():
    link = SpiLink(opened())
    link.close()
    link.close()
    with pytest.raises(DeviceError, match="Bad file descriptor"):
        link.swap(0)


class OverTheWire:
    """A simulated device behind an SPI link; its ticks are those of the last exchange."""

    def __init__(self, device: BehaviouralNVDevice) -> None:
        self._tick = 0
        port = opened(lambda frame: device.exchange(self._tick, frame))
        self._wire = SpiQDevice(SpiLink(port), device.capabilities)
        self.capabilities = self._wire.capabilities

    def exchange(self, tick: int, frame: int) -> int:
        self._tick = tick
        return self._wire.exchange(tick, frame)


def test_a_device_behind_the_wire_conforms():
    seeds = iter(range(1_000))

    def make() -> OverTheWire:
        link = EntanglementLink(LinkParameters.perfect(), random.Random(0))
        rng = random.Random(next(seeds))
        return OverTheWire(BehaviouralNVDevice(NVTiming(), NVNoise.noiseless(), link, rng))

    report = check_qdevice(make, Expectations(fidelity=1.0))
    assert set(report.skipped) == FOR_REGISTERS | {"next_tick keeps its word"}
    assert len(report.checks) + len(report.skipped) == len(CHECKS)
