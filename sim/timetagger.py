"""A simulated time tagger with the interface of the vendor's library.

Give a `SimulatedTaggerLibrary` to `instruments.timetagger.TimeTagger`. A measurement lets the
simulated laboratory run for its duration, and the laboratory says what arrives meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_BINS: Final = 1_000_000


class SimulatedTaggerLibrary:
    """The library, with one instrument.

    Args:
        run: lets time pass, in ps; during it the laboratory calls `arrive`.
        serial: of the instrument.
    """

    def __init__(self, run: Callable[[int], None], serial: str = "simulated") -> None:
        self.run = run
        self.serial = serial
        self._running: list[SimulatedHistogram] = []

    # --- for the laboratory -----------------------------------------------------------

    def arrive(self, channel: int, time_ps: int) -> None:
        """An edge arrives at an input; times must not go back."""
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

    def Histogram(
        self,
        tagger: SimulatedTagger,
        click_channel: int,
        start_channel: int,
        binwidth: int = 1_000,
        n_bins: int = 1_000,
    ) -> SimulatedHistogram:
        """A measurement; every start begins a new histogram's time, and counts all its clicks.

        Raises:
            RuntimeError: the tagger is not connected, or a size is out of its range.
        """
        if not tagger.is_open:
            raise RuntimeError("the Time Tagger was freed")
        if binwidth < 1 or not 1 <= n_bins <= MAX_BINS:
            raise RuntimeError(f"{n_bins} bins of {binwidth} ps")
        return SimulatedHistogram(self, click_channel, start_channel, binwidth, n_bins)

    def run_with(self, histogram: SimulatedHistogram, duration_ps: int) -> None:
        """Let time pass while a histogram collects."""
        self._running.append(histogram)
        try:
            self.run(duration_ps)
        finally:
            self._running.remove(histogram)


class SimulatedTagger:
    """The connection to the instrument."""

    def __init__(self, serial: str) -> None:
        self.is_open = True
        self._serial = serial

    def getSerial(self) -> str:
        """Serial number."""
        return self._serial

    def getModel(self) -> str:
        """Name of the model."""
        return "Time Tagger (simulated)"


class SimulatedHistogram:
    """One measurement."""

    def __init__(
        self, library: SimulatedTaggerLibrary, click: int, start: int, width_ps: int, bins: int
    ) -> None:
        self._library = library
        self._click, self._start = click, start
        self._width_ps = width_ps
        self._counts: NDArray[np.int32] = np.zeros(bins, np.int32)
        self._started_ps: int | None = None
        self._duration_ps = 0

    def take(self, channel: int, time_ps: int) -> None:
        """An edge arrives at an input."""
        if channel == self._start:
            self._started_ps = time_ps
        elif channel == self._click and self._started_ps is not None:
            place = (time_ps - self._started_ps) // self._width_ps
            if place < len(self._counts):
                self._counts[place] += 1

    def startFor(self, capture_duration: int, clear: bool = True) -> None:
        """Collect for some time, in ps, from the next wait on."""
        if clear:
            self._counts[:] = 0
            self._started_ps = None
        self._duration_ps = capture_duration

    def waitUntilFinished(self, timeout: int = -1) -> bool:
        """Let that time pass; whether the measurement has ended, which it always has."""
        duration_ps, self._duration_ps = self._duration_ps, 0
        self._library.run_with(self, duration_ps)
        return True

    def getData(self) -> NDArray[Any]:
        """Counts, shape (n_bins,)."""
        return self._counts.copy()
