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
from instruments.timetagger import ArrivalHistogram, TimeTagger
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
        self.library.arrive(DETECTOR, self.now_ps - 1)  # before the first marker
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
    instrument.start_channels([MARKER])
    instrument.click_channels([DETECTOR])
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


def test_clicks_are_counted_while_something_is_done(tagger, laboratory):
    def action():
        assert laboratory.library.is_listening
        laboratory.run(4 * PERIOD_PS)

    laboratory.run(PERIOD_PS)
    histogram = tagger.histogram_during(action)
    laboratory.run(PERIOD_PS)
    assert np.flatnonzero(histogram.counts).tolist() == [2, 12]
    assert histogram.counts[[2, 12]].tolist() == [8, 4]
    with pytest.raises(RuntimeError, match="of the action"):
        tagger.histogram_during(lambda: (_ for _ in ()).throw(RuntimeError("of the action")))
    assert not laboratory.library.is_listening


def test_several_edges_can_be_one_marker_or_one_detector(tagger, laboratory):
    """Clicks count from the last edge before them, in whatever order they are told."""
    tagger.start_channels([MARKER, -MARKER])
    tagger.click_channels([DETECTOR, OTHER])

    def action():
        for channel, time_ps in (
            (OTHER, 1_350),
            (DETECTOR, 250),
            (-MARKER, 1_000),
            (MARKER, 0),
            (-DETECTOR, 400),
            (DETECTOR, 1_000),
        ):
            laboratory.library.arrive(channel, time_ps)

    counts = tagger.histogram_during(action).counts
    assert np.flatnonzero(counts).tolist() == [0, 2, 3]
    assert counts.sum() == 3


@pytest.mark.parametrize("period_ps", [300.0, 333.4, 100.0])
def test_a_histogram_is_folded_by_a_period(period_ps):
    counts = np.zeros(1_000, np.int64)
    counts[[0, 3, 500, 999]] = 1, 2, 3, 4
    folded = ArrivalHistogram(100, counts).folded(period_ps)
    assert len(folded.counts) == np.ceil(period_ps / 100)
    expected = np.zeros_like(folded.counts)
    for place, count in ((0, 1), (3, 2), (500, 3), (999, 4)):
        expected[int((100 * place + 50) % period_ps // 100)] += count
    assert folded.counts.tolist() == expected.tolist()
    with pytest.raises(ConfigurationRefused, match=r"a period of 99\.9 ps"):
        folded.folded(99.9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start_channels", [0]),
        ("click_channels", [19]),
        ("bin_width_ps", 0),
        ("bins", 20_000_001),
    ],
)
def test_settings_have_limits(tagger, name, value):
    with pytest.raises(ValueError, match=name):
        tagger.parameters[name](value)


def test_what_cannot_be_measured_is_refused(tagger, laboratory):
    for duration_s in (0, -1, 3_601, float("nan")):
        with pytest.raises(ConfigurationRefused, match="more than 0 and up to 3600 s"):
            tagger.histogram(duration_s)
    for starts, clicks in (([MARKER], [DETECTOR, MARKER]), ([], [DETECTOR]), ([MARKER], [])):
        tagger.start_channels(starts)
        tagger.click_channels(clicks)
        with pytest.raises(ConfigurationRefused, match="none the other's"):
            tagger.histogram(1e-3)
    assert not laboratory.library.is_listening


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
