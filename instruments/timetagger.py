"""Time tagger: histograms of photon arrivals against a marker.

A thin driver over the Python library of Swabian Instruments' Time Tagger, which is handed in
like the ADwin's: `open_library` finds the real one, and the simulated laboratory has its own.
Of the library it uses `createTimeTagger`, `freeTimeTagger`, `Combiner` and `Histogram` (Time
Tagger programmer's reference). Not verified on hardware.

Channels are edges, as in the vendor's library: n is the rising edge at input n, -n the falling
one. A marker that says something with each of its edges has two channels.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from qcodes.instrument import Instrument
from qcodes.parameters import ManualParameter
from qcodes.validators import Ints, Lists, MultiType, Validator

from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    InstrumentInUse,
    InstrumentUnavailable,
)
from instruments.ownership import Ownership

CHANNELS: Final = 18
"""Inputs of the largest model (Time Tagger Ultra); 1 to this number."""
MAX_BINS: Final = 20_000_000
MAX_BIN_WIDTH_PS: Final = 1_000_000_000
MAX_DURATION_S: Final = 3_600.0
"""Bounds on one histogram (assumed: more is a mistake). A batch of attempts lasts some 10 ms, and
wants bins of a nanosecond."""
PS_PER_S: Final = 10**12
_GRACE_MS: Final = 10_000
"""How much longer than asked for a measurement may take."""
_LIBRARIES: Final = ("Swabian.TimeTagger", "TimeTagger")
"""The library as a package from PyPI, and as the vendor's installer puts it."""


class Library(Protocol):
    """What is used of the vendor's library."""

    def createTimeTagger(self, serial: str = "") -> Any:
        """Connect to an instrument."""
        ...

    def freeTimeTagger(self, tagger: Any) -> Any:
        """Disconnect from it."""
        ...

    def Combiner(self, tagger: Any, channels: list[int]) -> Any:
        """A virtual channel with the events of several."""
        ...

    def Histogram(
        self, tagger: Any, click_channel: int, start_channel: int, binwidth: int, n_bins: int
    ) -> Any:
        """A measurement of times from a start to the clicks after it."""
        ...


@dataclass(frozen=True)
class ArrivalHistogram:
    """Clicks by time after the marker.

    Attributes:
        bin_width_ps: of every bin; bin k begins at k times that.
        counts: shape (bins,).
    """

    bin_width_ps: int
    counts: NDArray[np.int64]

    @property
    def times_ps(self) -> NDArray[np.int64]:
        """Beginning of every bin, shape (bins,)."""
        return np.arange(len(self.counts), dtype=np.int64) * self.bin_width_ps

    def folded(self, period_ps: float) -> ArrivalHistogram:
        """The same clicks by time after the last of the moments that follow each marker.

        A bin is counted as a whole where its middle lies, so unless the period is a whole
        number of bins, edges are smeared by up to one.

        Args:
            period_ps: from one of these moments to the next; the first is the marker.

        Raises:
            ConfigurationRefused: the period is shorter than a bin.
        """
        if not period_ps >= self.bin_width_ps:
            raise ConfigurationRefused(
                f"a period of {period_ps} ps; it cannot be shorter than a bin of "
                f"{self.bin_width_ps} ps"
            )
        filled = np.flatnonzero(self.counts)
        middles = (filled + 0.5) * self.bin_width_ps
        places = np.asarray(middles % period_ps // self.bin_width_ps, dtype=np.int64)
        counts = np.zeros(math.ceil(period_ps / self.bin_width_ps), dtype=np.int64)
        np.add.at(counts, places, self.counts[filled])
        return ArrivalHistogram(self.bin_width_ps, counts)


def open_library() -> Library:
    """The vendor's library.

    Raises:
        InstrumentUnavailable: it is not installed.
    """
    for name in _LIBRARIES:
        try:
            library: Library = importlib.import_module(name)
        except ImportError:
            continue
        return library
    raise InstrumentUnavailable(
        "the Time Tagger's library is not installed; install it (pip install Swabian-TimeTagger)"
    )


class TimeTagger(Instrument):
    """A time tagger.

    Args:
        name: of the QCoDeS instrument.
        library: the vendor's library or what behaves like it; None for the installed one.
        serial: of the instrument; "" for the only one there is.
        lock_directory: see `Ownership`.
        **kwargs: for `qcodes.Instrument`.

    Attributes:
        start_channels: edges of the marker, see the module.
        click_channels: edges of the detectors.
        bin_width_ps: of the histogram.
        bins: how many it has.

    Raises:
        InstrumentInUse: it is open already on this computer.
        InstrumentUnavailable: there is no library, or no such instrument.
    """

    def __init__(
        self,
        name: str,
        library: Library | None = None,
        *,
        serial: str = "",
        lock_directory: Path | None = None,
        **kwargs: Any,
    ) -> None:
        if self.exist(name):
            raise InstrumentInUse(f"there is a QCoDeS instrument {name!r} already; close it first")
        self._ownership = Ownership(f"timetagger-{serial}", lock_directory)
        try:
            self._library = open_library() if library is None else library
            try:
                self._tagger = self._library.createTimeTagger(serial)
            except RuntimeError as error:
                raise InstrumentUnavailable(
                    f"{name}: no time tagger {serial or '(any)'}: {error}; check its power, its "
                    "cable and the serial number"
                ) from error
            super().__init__(name, **kwargs)
        except BaseException:
            self._ownership.release()
            raise
        channels = Lists(MultiType(Ints(1, CHANNELS), Ints(-CHANNELS, -1)))
        self.start_channels = self._setting("start_channels", [1], channels)
        self.click_channels = self._setting("click_channels", [2], channels)
        width = Ints(1, MAX_BIN_WIDTH_PS)
        self.bin_width_ps = self._setting("bin_width_ps", 100, width, "ps")
        self.bins = self._setting("bins", 1_000, Ints(1, MAX_BINS))

    def _setting(
        self, name: str, value: Any, vals: Validator[Any], unit: str = ""
    ) -> ManualParameter:
        return self.add_parameter(name, ManualParameter, initial_value=value, vals=vals, unit=unit)

    def histogram(self, duration_s: float) -> ArrivalHistogram:
        """Collect clicks for some time.

        Args:
            duration_s: how long.

        Raises:
            ConfigurationRefused: the duration is out of its range, or marker and detectors
                are not told apart.
            DeviceRefused: the measurement does not end, or the library reports an error.
        """
        if not 0 < duration_s <= MAX_DURATION_S:
            raise ConfigurationRefused(
                f"{self.name}: a histogram of {duration_s} s; more than 0 and up to "
                f"{MAX_DURATION_S:g} s can be had"
            )
        with self._measurement() as measurement:
            with self._reported():
                measurement.startFor(round(duration_s * PS_PER_S))
                ended = measurement.waitUntilFinished(round(duration_s * 1_000) + _GRACE_MS)
            if not ended:
                raise DeviceRefused(
                    f"{self.name}: no histogram after {duration_s} s; is it connected?"
                )
            return self._result(measurement)

    def histogram_during(self, action: Callable[[], None]) -> ArrivalHistogram:
        """Collect clicks while something is done.

        Args:
            action: does it; what it raises is passed on.

        Raises:
            ConfigurationRefused: marker and detectors are not told apart.
            DeviceRefused: the library reports an error.
        """
        with self._measurement() as measurement:
            with self._reported():
                # The settings have reached the instrument, and nothing older is counted.
                self._tagger.sync()
                measurement.clear()
            action()
            with self._reported():
                self._tagger.sync()
            return self._result(measurement)

    @contextmanager
    def _measurement(self) -> Iterator[Any]:
        """A measurement that has begun; it is stopped in the end."""
        starts, clicks = self.start_channels.get(), self.click_channels.get()
        if not starts or not clicks or not set(starts).isdisjoint(clicks):
            raise ConfigurationRefused(
                f"{self.name}: the marker is on channels {starts} and the detectors are on "
                f"{clicks}; both need some, and none the other's"
            )
        with self._reported():
            start, click = self._combined(starts), self._combined(clicks)
            measurement = self._library.Histogram(
                self._tagger,
                click if isinstance(click, int) else click.getChannel(),
                start if isinstance(start, int) else start.getChannel(),
                self.bin_width_ps.get(),
                self.bins.get(),
            )
        try:
            yield measurement
        finally:
            # Virtual channels live as long as their objects, so these are kept until here.
            del start, click
            with self._reported():
                measurement.stop()

    def _combined(self, channels: Sequence[int]) -> Any:
        if len(channels) == 1:
            return channels[0]
        return self._library.Combiner(self._tagger, list(channels))

    def _result(self, measurement: Any) -> ArrivalHistogram:
        with self._reported():
            counts = np.array(measurement.getData(), dtype=np.int64)
        width, bins = self.bin_width_ps.get(), self.bins.get()
        if counts.shape != (bins,):
            raise DeviceRefused(f"{self.name}: {counts.shape} counts came back, not {bins}")
        return ArrivalHistogram(width, counts)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Errors of the library as ours."""
        try:
            yield
        except RuntimeError as error:
            raise DeviceRefused(f"{self.name}: {error}") from error

    def get_idn(self) -> dict[str, str | None]:
        """Vendor, model and serial number."""
        return {
            "vendor": "Swabian Instruments",
            "model": str(self._tagger.getModel()),
            "serial": str(self._tagger.getSerial()),
            "firmware": None,
        }

    def close(self) -> None:
        """Disconnect from the instrument."""
        # QCoDeS empties the object when it closes it, and may close it twice.
        if "_tagger" in self.__dict__:
            self._library.freeTimeTagger(self._tagger)
        ownership: Ownership | None = self.__dict__.get("_ownership")
        super().close()
        if ownership is not None:
            ownership.release()
