"""Errors of the sequence layer: what was wrong, where, and what to do about it.

All of them are `ValueError`: somebody asked for a sequence that cannot be played.
"""

from __future__ import annotations


class SequenceError(ValueError):
    """Base of all errors raised by this package."""


class PulseError(SequenceError):
    """A pulse has an impossible length, amplitude or angle."""


class DecouplingError(SequenceError):
    """A decoupling sequence does not fit its pulse spacing."""


class TableError(SequenceError):
    """An entry of the waveform table, or the table as a whole, exceeds the hardware."""


class ProgramError(SequenceError):
    """A sequencer program and its waveforms do not fit together."""
