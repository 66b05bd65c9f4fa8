"""The time tagger's driver on the simulated library."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    InstrumentInUse,
    InstrumentUnavailable,
)
from instruments.timetagger import TimeTagger
from sim.timetagger import SimulatedHistogram, SimulatedTaggerLibrary

MARKER, DETECTOR, OTHER = 3, 5, 6
PERIOD_PS = 5_500_000
DELAYS_PS = (250, 250, 1_299, 40_000)


@pytest.fixture(autouse=True)
def private_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


class Laboratory:
    """A marker every period, and behind it clicks at the same delays each time."""

    def __init__(self):
        self.library = SimulatedTaggerLibrary(self.run)
        self.now_ps = 0

    def run(self, duration_ps):
        self.library.arrive(DETECTOR, self.now_ps)
        end_ps = self.now_ps + duration_ps
        while self.now_ps + PERIOD_PS <= end_ps:
            self.library.arrive(MARKER, self.now_ps)
            for delay_ps in DELAYS_PS:
                self.library.arrive(DETECTOR, self.now_ps + delay_ps)
                self.library.arrive(OTHER, self.now_ps + delay_ps)
            self.now_ps += PERIOD_PS


@pytest.fixture
def laboratory():
    return Laboratory()


@pytest.fixture
def tagger(laboratory):
    instrument = TimeTagger("tagger", laboratory.library)
    instrument.start_channel(MARKER)
    instrument.click_channel(DETECTOR)
    instrument.bin_width_ps(100)
    instrument.bins(20)
    yield instrument
    instrument.close()


def test_arrivals_are_counted_by_time_after_the_marker(tagger):
    for periods in (7, 3):
        histogram = tagger.histogram(periods * PERIOD_PS / 1e12)
        expected = np.zeros(20, int)
        expected[2], expected[12] = 2 * periods, periods
        assert histogram.counts.tolist() == expected.tolist()
    assert histogram.times_ps[[0, 1, 19]].tolist() == [0, 100, 1_900]


@pytest.mark.parametrize(
    ("name", "value"),
    [("start_channel", 0), ("click_channel", 19), ("bin_width_ps", 0), ("bins", 100_001)],
)
def test_settings_have_limits(tagger, name, value):
    with pytest.raises(ValueError, match=name):
        tagger.parameters[name](value)


def test_what_cannot_be_measured_is_refused(tagger):
    for duration_s in (0, -1, 3_601, float("nan")):
        with pytest.raises(ConfigurationRefused, match="more than 0 and up to 3600 s"):
            tagger.histogram(duration_s)
    tagger.click_channel(MARKER)
    with pytest.raises(ConfigurationRefused, match="both on 3"):
        tagger.histogram(1e-3)


def test_a_measurement_that_fails_is_an_error(tagger, laboratory, monkeypatch):
    monkeypatch.setattr(SimulatedHistogram, "waitUntilFinished", lambda self, timeout: False)
    with pytest.raises(DeviceRefused, match=r"no histogram after 0\.001 s"):
        tagger.histogram(1e-3)
    monkeypatch.setattr(SimulatedHistogram, "waitUntilFinished", lambda self, timeout: True)
    monkeypatch.setattr(SimulatedHistogram, "getData", lambda self: [1, 2])
    with pytest.raises(DeviceRefused, match=r"\(2,\) counts came back, not 20"):
        tagger.histogram(1e-3)
    laboratory.library.freeTimeTagger(tagger._tagger)
    with pytest.raises(DeviceRefused, match="was freed"):
        tagger.histogram(1e-3)


def test_one_owner_and_the_right_one(tagger, laboratory):
    with pytest.raises(InstrumentInUse, match="timetagger- is open already"):
        TimeTagger("another", laboratory.library)
    for _ in range(2):
        with pytest.raises(InstrumentUnavailable, match="no time tagger 1234"):
            TimeTagger("another", laboratory.library, serial="1234")
    assert tagger.get_idn()["serial"] == "simulated"
    connection = tagger._tagger
    tagger.close()
    tagger.close()
    assert not connection.is_open
    TimeTagger("another", laboratory.library).close()


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    for name in ("Swabian", "Swabian.TimeTagger", "TimeTagger"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InstrumentUnavailable, match="pip install Swabian-TimeTagger"):
        TimeTagger("tagger")
