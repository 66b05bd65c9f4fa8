"""A simulated time tagger with the interface of the vendor's library.

Give a `SimulatedTaggerLibrary` to `instruments.timetagger.TimeTagger`. While a measurement runs,
the simulated laboratory says what arrives; a measurement of a certain duration lets the
laboratory run for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.errors import LimitError

MAX_BINS: Final = 100_000_000
MAX_TAGS: Final = 10_000_000
"""Bound on what arrives during one measurement."""
_FIRST_VIRTUAL: Final = 1_001


def _no_time(duration_ps: int) -> None:
    """Nothing arrives by itself."""


class SimulatedTaggerLibrary:
    """The library, with one instrument.

    Args:
        run: lets time pass, in ps; during it the laboratory calls `arrive`. Without it nothing
            arrives in measurements of a certain duration.
        serial: of the instrument.
    """

    def __init__(self, run: Callable[[int], None] = _no_time, serial: str = "simulated") -> None:
        self.run = run
        self.serial = serial
        self._running: list[SimulatedHistogram] = []
        self._virtual: list[frozenset[int]] = []

    # --- for the laboratory -----------------------------------------------------------

    @property
    def is_listening(self) -> bool:
        """Whether any measurement runs."""
        return bool(self._running)

    def arrive(self, channel: int, time_ps: int) -> None:
        """An edge arrives at an input: rising for n, falling for -n. In any order of time."""
        for histogram in self._running:
            histogram.take(channel, time_ps)

    # --- for the driver ---------------------------------------------------------------

    def createTimeTagger(self, serial: str = "") -> SimulatedTagger:
        """Connect.

        Raises:
            RuntimeError: there is no instrument of that serial number.
        """
        if serial not in ("", self.serial):
            raise RuntimeError(f"no Time Tagger {serial}; there is {self.serial}")
        return SimulatedTagger(self.serial)

    def freeTimeTagger(self, tagger: SimulatedTagger) -> bool:
        """Disconnect; whether it was connected."""
        was_open, tagger.is_open = tagger.is_open, False
        return was_open

    def Combiner(self, tagger: SimulatedTagger, channels: Sequence[int]) -> SimulatedCombiner:
        """A virtual channel with the events of several.

        Raises:
            RuntimeError: the tagger is not connected.
        """
        tagger.check_open()
        self._virtual.append(self.edges_of(*channels))
        return SimulatedCombiner(_FIRST_VIRTUAL + len(self._virtual) - 1)

    def Histogram(
        self,
        tagger: SimulatedTagger,
        click_channel: int,
        start_channel: int,
        binwidth: int = 1_000,
        n_bins: int = 1_000,
    ) -> SimulatedHistogram:
        """A measurement, which begins at once; clicks count from the last start before them.

        Raises:
            RuntimeError: the tagger is not connected, or a size is out of its range.
        """
        tagger.check_open()
        if binwidth < 1 or not 1 <= n_bins <= MAX_BINS:
            raise RuntimeError(f"{n_bins} bins of {binwidth} ps")
        starts, clicks = self.edges_of(start_channel), self.edges_of(click_channel)
        histogram = SimulatedHistogram(self, clicks, starts, binwidth, n_bins)
        histogram.start()
        return histogram

    # --- for its measurements ---------------------------------------------------------

    def edges_of(self, *channels: int) -> frozenset[int]:
        """The inputs' edges that make up channels."""
        edges: set[int] = set()
        for channel in channels:
            if channel >= _FIRST_VIRTUAL:
                edges |= self._virtual[channel - _FIRST_VIRTUAL]
            else:
                edges.add(channel)
        return frozenset(edges)

    def begin(self, histogram: SimulatedHistogram) -> None:
        """A measurement listens from now on."""
        if histogram not in self._running:
            self._running.append(histogram)

    def end(self, histogram: SimulatedHistogram) -> None:
        """It listens no longer."""
        if histogram in self._running:
            self._running.remove(histogram)


class SimulatedTagger:
    """The connection to the instrument."""

    def __init__(self, serial: str) -> None:
        self.is_open = True
        self._serial = serial

    def check_open(self) -> None:
        """Raise what the library raises for a tagger that was freed."""
        if not self.is_open:
            raise RuntimeError("the Time Tagger was freed")

    def sync(self, timeout: int = -1) -> bool:
        """Wait until everything up to now has been counted, which it always has."""
        self.check_open()
        return True

    def getSerial(self) -> str:
        """Serial number."""
        return self._serial

    def getModel(self) -> str:
        """Name of the model."""
        return "Time Tagger (simulated)"


class SimulatedCombiner:
    """A virtual channel."""

    def __init__(self, channel: int) -> None:
        self._channel = channel

    def getChannel(self) -> int:
        """Its number."""
        return self._channel


class SimulatedHistogram:
    """One measurement."""

    def __init__(
        self,
        library: SimulatedTaggerLibrary,
        clicks: frozenset[int],
        starts: frozenset[int],
        width_ps: int,
        bins: int,
    ) -> None:
        self._library = library
        self._click_edges, self._start_edges = clicks, starts
        self._width_ps, self._bins = width_ps, bins
        self._starts_ps: list[int] = []
        self._clicks_ps: list[int] = []
        self._duration_ps = 0

    def take(self, channel: int, time_ps: int) -> None:
        """An edge arrives at an input.

        Raises:
            LimitError: too many have arrived.
        """
        if len(self._starts_ps) + len(self._clicks_ps) >= MAX_TAGS:
            raise LimitError(f"more than {MAX_TAGS} edges in one measurement; measure for less")
        if channel in self._start_edges:
            self._starts_ps.append(time_ps)
        elif channel in self._click_edges:
            self._clicks_ps.append(time_ps)

    def start(self) -> None:
        """Listen from now on."""
        self._library.begin(self)

    def stop(self) -> None:
        """Listen no longer."""
        self._library.end(self)

    def clear(self) -> None:
        """Forget everything."""
        self._starts_ps.clear()
        self._clicks_ps.clear()

    def startFor(self, capture_duration: int, clear: bool = True) -> None:
        """Collect for some time, in ps, from the next wait on."""
        if clear:
            self.clear()
        self._duration_ps = capture_duration

    def waitUntilFinished(self, timeout: int = -1) -> bool:
        """Let that time pass; whether the measurement has ended, which it always has."""
        duration_ps, self._duration_ps = self._duration_ps, 0
        self.start()
        self._library.run(duration_ps)
        self.stop()
        return True

    def getData(self) -> NDArray[Any]:
        """Counts, shape (n_bins,)."""
        starts = np.sort(np.array(self._starts_ps, np.int64))
        clicks = np.array(self._clicks_ps, np.int64)
        last = np.searchsorted(starts, clicks, side="right") - 1
        started = last >= 0
        places = (clicks[started] - starts[last[started]]) // self._width_ps
        places = places[places < self._bins]
        return np.bincount(places, minlength=self._bins).astype(np.int32)
