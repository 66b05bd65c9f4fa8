"""What is loaded into one AWG core, and the limits of that core.

The seam between sequences and instruments. The limits are those of a Zurich Instruments
HDAWG (user manual; LabOne sequencer documentation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sequences.errors import ProgramError

SAMPLE_RATE_HZ: Final = 2.4e9
CYCLE_SAMPLES: Final = 8
"""Samples played during one sequencer cycle of 3.33 ns."""
GRANULE_SAMPLES: Final = 16
"""Every play command lasts a multiple of this."""
MIN_PLAY_SAMPLES: Final = 32
MAX_ZERO_SAMPLES: Final = 2**19 - GRANULE_SAMPLES
"""Longest playZero, as LabOne's compiler accepts it."""
WAVE_MEMORY_SAMPLES: Final = 512 * 1024
"""Waveform cache of one core; a two-channel waveform takes two samples at a time."""
STREAMED_FROM_SAMPLES: Final = 2048
"""Of a longer waveform only this much is kept in the cache, and the rest is fetched while it
plays: so counts LabOne's compiler (zhinst-core 26.7)."""
MAX_TABLE_ENTRIES: Final = 1024
MARKERS: Final = 4
"""Marker bits of one core, two for each of its two channels."""


def samples(duration_ns: float) -> int:
    """The number of samples nearest to a duration."""
    return round(duration_ns * SAMPLE_RATE_HZ * 1e-9)


def padded(n_samples: int) -> int:
    """The shortest length that can be played and holds ``n_samples``."""
    return max(MIN_PLAY_SAMPLES, -(-n_samples // GRANULE_SAMPLES) * GRANULE_SAMPLES)


@dataclass(frozen=True, eq=False)
class AwgProgram:
    """What an HDAWG AWG core needs: SeqC source, waveforms by wave index, command table.

    Attributes:
        source: SeqC text. It assigns a placeholder of the right length, with the markers
            used, to every wave index.
        waveforms: index -> I and Q, shape (n_samples, 2), in units of full scale, |value| <= 1.
        command_table: JSON-able, schema version 1.x.
        markers: index -> marker word of each sample, shape (n_samples,): bits 0 and 1 are
            markers 1 and 2 of the first channel, bits 2 and 3 those of the second. An index
            that is not a key has no marker memory.

    Raises:
        ProgramError: an array has another shape, or holds something that cannot be played.
    """

    source: str
    waveforms: tuple[NDArray[np.float64], ...]
    command_table: Mapping[str, Any]
    markers: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, waveform in enumerate(self.waveforms):
            if waveform.ndim != 2 or waveform.shape[1] != 2:
                raise ProgramError(
                    f"waveform {index} has shape {waveform.shape}; give I and Q as (n_samples, 2)"
                )
            # Written so that a NaN is refused too.
            if not np.all(np.abs(waveform) <= 1):
                raise ProgramError(
                    f"waveform {index} leaves the range -1..1 of full scale; lower its amplitude"
                )
        for index, words in self.markers.items():
            if not 0 <= index < len(self.waveforms):
                raise ProgramError(
                    f"markers for wave index {index}, but there are {len(self.waveforms)} waveforms"
                )
            if words.shape != (len(self.waveforms[index]),):
                raise ProgramError(
                    f"markers of waveform {index} have shape {words.shape}; give one word for "
                    f"each of its {len(self.waveforms[index])} samples"
                )
            if np.any(words >= 1 << MARKERS):
                raise ProgramError(
                    f"markers of waveform {index} use bits beyond the {MARKERS} a core has"
                )
