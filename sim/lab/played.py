"""What a waveform that an AWG plays means to the laboratory: its markers, and its alpha.

The marker bits and what they are wired to are those of `sequences.waveform_table.Marker`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sequences.waveform_table import Marker
from sim.hdawg.timeline import Waveform
from sim.nv.physics import NVPhysics
from sim.nv.propagator import Drive, PulseLibrary

MAX_KNOWN: Final = 4096
"""Bound on the waveforms remembered; all are forgotten when a table is loaded again."""

_UNITY: Final = (1.0, 1.0)


@dataclass(frozen=True)
class Meaning:
    """What one waveform does besides driving the spin.

    Attributes:
        waveform: which; kept, so that its identity stays its own.
        pump: samples between which the spin-pump laser shines; None for never.
        played: samples between which the ADwin is told that an instruction is played.
        optical_sample: where the optical pulse starts; None if it is no attempt.
        gate: samples between which the detectors are looked at; None for never.
        pulse_centre_sample: middle of its microwave pulse, 0 without one.
    """

    waveform: Waveform
    pump: tuple[int, int] | None
    played: tuple[int, int] | None
    optical_sample: int | None
    gate: tuple[int, int] | None
    pulse_centre_sample: int


class Meanings:
    """The meaning of every waveform, found once."""

    def __init__(self) -> None:
        self._known: dict[int, Meaning] = {}

    def of(self, waveform: Waveform) -> Meaning:
        """The meaning of a waveform."""
        known = self._known.get(id(waveform))
        if known is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            known = self._known[id(waveform)] = _meaning(waveform)
        return known


class Alphas:
    """Bright-state populations that attempts make, averaged over the 14N lines.

    Args:
        physics: of the centre.
    """

    def __init__(self, physics: NVPhysics) -> None:
        self._library = PulseLibrary(physics.hyperfine_hz)

    def of(self, waveform: Waveform, drive: Drive) -> float:
        """The population of |0> after the microwave pulse of an attempt."""
        pulse = self._library.pulse(waveform, drive, _UNITY)
        if pulse is None:
            return 1.0
        return 1 - sum(line.flip_probability for line in pulse.lines) / len(pulse.lines)


def _meaning(waveform: Waveform) -> Meaning:
    optical = _window(waveform, Marker.OPTICAL_PULSE)
    return Meaning(
        waveform=waveform,
        pump=_window(waveform, Marker.SPIN_PUMP),
        played=_window(waveform, Marker.PLAYED),
        optical_sample=None if optical is None else optical[0],
        gate=_window(waveform, Marker.DETECTION_GATE),
        pulse_centre_sample=_centre(waveform),
    )


def _window(waveform: Waveform, marker: Marker) -> tuple[int, int] | None:
    if waveform.markers is None:
        return None
    high = np.flatnonzero(waveform.markers >> marker & 1)
    return (int(high[0]), int(high[-1]) + 1) if high.size else None


def _centre(waveform: Waveform) -> int:
    driven = np.flatnonzero(np.any(waveform.values != 0, axis=1))
    return int(driven[0] + driven[-1] + 1) // 2 if driven.size else 0
