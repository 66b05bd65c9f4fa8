"""XY8 dynamical decoupling with a pulse spacing exact to one sample.

An AWG plays in granules of 16 samples, and the pulse spacing that suits the spin's
surroundings is no multiple of them. A spacing rounded to granules lets every XY8 block add
the same phase error: 16 samples (6.7 ns) at the 2.16 MHz of a 14N line cost most of the
coherence time. So there are 16 copies of the pi pulse (Delle Donne et al.), copy
``s`` delayed by ``s`` samples in a slot of fixed length, and the sequencer picks the copy::

    |<------------- spacing = 16 g + r ------------->|
    [ s |pulse|     ]....... zeros ........[ s' |pulse|    ]
    slot, a granule                        s' = (s + r) mod 16, and one granule more of
    multiple                               zeros whenever s + r reaches 16

Between instructions the program repeats XY8 blocks without a seam: the spacing from the last
pulse of a block to the first of the next is the same. An instruction's pulse stands where a
block begins or ends, half a spacing from its neighbours. Its waveform starts on a granule
boundary, so the half spacing before it is rounded to the nearest granule (-7 to +8
samples), once for each instruction; every spacing between decoupling pulses is exact. From
one rotation to the next this error is constant for an even spacing, whose blocks are whole
granules, and takes two values for an odd one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from sequences.errors import DecouplingError
from sequences.program import (
    GRANULE_SAMPLES,
    MAX_ZERO_SAMPLES,
    MIN_PLAY_SAMPLES,
    padded,
)
from sequences.pulses import Axis

XY8: Final = (Axis.X, Axis.Y, Axis.X, Axis.Y, Axis.Y, Axis.X, Axis.Y, Axis.X)
"""Phases of one block (Gullion, Baker and Conradi, J. Magn. Reson. 89, 479 (1990))."""

ASSUMED_SPACING_SAMPLES: Final = 24_102
"""Spacing of the pi pulses, 10.04 us. Assumed: 13 ms of coherence in some 1,300 pulses."""

GATE_EXCESS_SAMPLES: Final = 3
"""How much later than its centre a gate pulse acts, seen from a detuned spin.

A pi/2 Hermite pulse of 60 ns equals an instantaneous one between 31.5 ns of free evolution
on either side, 1.5 ns (3.5 samples) more than half its length; less for smaller angles.
"""


class Lead(NamedTuple):
    """Zeros to play from the end of an entry to the next slot, and the copy to play there."""

    zero_samples: int
    shift: int


class Step(NamedTuple):
    """Zeros to play from the end of a slot, and what to add to the shift first.

    One granule more is played if the sum reaches 16.
    """

    zero_samples: int
    shift_increment: int


class Slot(NamedTuple):
    """One decoupling pulse: where its slot starts, which copy is played, about which axis."""

    start_sample: int
    shift: int
    axis: Axis


@dataclass(frozen=True)
class DecouplingPlan:
    """The integers that the sequencer program needs for XY8.

    Attributes:
        spacing_samples: centre to centre of two pi pulses, 2 tau.
        pulse_samples: length of the pi pulse, even.
        gate_excess_samples: taken off the half spacings on either side of a gate.

    Raises:
        DecouplingError: the spacing is too short for the pulse, or too long to play.
    """

    spacing_samples: int = ASSUMED_SPACING_SAMPLES
    pulse_samples: int = 302
    gate_excess_samples: int = GATE_EXCESS_SAMPLES

    def __post_init__(self) -> None:
        if self.pulse_samples % 2 or self.pulse_samples <= 0:
            raise DecouplingError(
                f"a pi pulse of {self.pulse_samples} samples has no centre; use an even number"
            )
        longest = MAX_ZERO_SAMPLES + self.slot_samples
        if not self.slot_samples + MIN_PLAY_SAMPLES <= self.spacing_samples <= longest:
            raise DecouplingError(
                f"pulse spacing of {self.spacing_samples} samples; pulses of "
                f"{self.pulse_samples} samples can be "
                f"{self.slot_samples + MIN_PLAY_SAMPLES}..{longest} samples apart"
            )
        if not 0 <= self.gate_excess_samples < self.spacing_samples // 2:
            raise DecouplingError(
                f"gate_excess_samples = {self.gate_excess_samples} must be a small part of the "
                f"half spacing of {self.spacing_samples // 2} samples"
            )

    @property
    def slot_samples(self) -> int:
        """Length of a slot: holds the pulse at every shift."""
        return padded(self.pulse_samples + GRANULE_SAMPLES - 1)

    @property
    def gap(self) -> Step:
        """From a slot to the next slot."""
        granules, increment = divmod(self.spacing_samples, GRANULE_SAMPLES)
        return Step(granules * GRANULE_SAMPLES - self.slot_samples, increment)

    def lead_in(self, entry_samples: int, gate_centre_samples: int) -> Lead:
        """From the end of an instruction's entry to the first slot.

        Args:
            entry_samples: length of the entry.
            gate_centre_samples: from the start of the entry to the centre of its pulse.

        Raises:
            DecouplingError: the entry leaves no room before the first decoupling pulse.
        """
        first_centre = gate_centre_samples + self.spacing_samples // 2 - self.gate_excess_samples
        pulse_start = first_centre - self.pulse_samples // 2 - entry_samples
        granules, shift = divmod(pulse_start, GRANULE_SAMPLES)
        return Lead(self._playable(granules * GRANULE_SAMPLES, "after an entry"), shift)

    def lead_out(self, gate_centre_samples: int) -> Step:
        """From the last slot to the entry of the next instruction, to the nearest granule.

        Args:
            gate_centre_samples: from the start of that entry to the centre of its pulse.

        Raises:
            DecouplingError: there is no room between the last pulse and the entry.
        """
        half_spacing = self.spacing_samples - self.spacing_samples // 2
        start_to_entry = (
            self.pulse_samples // 2 + half_spacing - self.gate_excess_samples - gate_centre_samples
        )
        # Half a granule more, and the program's rounding down rounds to the nearest.
        after_slot = start_to_entry - self.slot_samples + GRANULE_SAMPLES // 2
        granules, increment = divmod(after_slot, GRANULE_SAMPLES)
        return Step(self._playable(granules * GRANULE_SAMPLES, "before an entry"), increment)

    def slots(self, first_slot_sample: int, shift: int) -> Iterator[Slot]:
        """Every pulse from the first, without end: the sequencer's arithmetic in Python.

        Args:
            first_slot_sample: where the first slot starts.
            shift: the copy it plays, from `lead_in`.
        """
        start = first_slot_sample
        gap = self.gap
        while True:
            for axis in XY8:
                yield Slot(start, shift, axis)
                start, shift = self._advance(start, shift, gap)

    def entry_after(self, slot: Slot, gate_centre_samples: int) -> int:
        """Where the entry of an instruction starts if ``slot`` is the last before it."""
        start, _ = self._advance(slot.start_sample, slot.shift, self.lead_out(gate_centre_samples))
        return start

    def _advance(self, start: int, shift: int, step: Step) -> tuple[int, int]:
        carry, shift = divmod(shift + step.shift_increment, GRANULE_SAMPLES)
        return start + self.slot_samples + step.zero_samples + carry * GRANULE_SAMPLES, shift

    def _playable(self, zero_samples: int, where: str) -> int:
        if not MIN_PLAY_SAMPLES <= zero_samples <= MAX_ZERO_SAMPLES - GRANULE_SAMPLES:
            raise DecouplingError(
                f"a pulse spacing of {self.spacing_samples} samples leaves {zero_samples} samples "
                f"of silence {where}, and {MIN_PLAY_SAMPLES} are the least that can be played; "
                "use a longer spacing, or a shorter entry (an attempt: decide earlier)"
            )
        return zero_samples
