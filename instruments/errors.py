"""Errors of the instrument layer: what was wrong, on which instrument, and what to do.

All of them are `InstrumentError`. The group says who has to act: whoever wrote the
configuration or program, whoever looks after the laboratory, or whoever called us.
"""

from __future__ import annotations


class InstrumentError(RuntimeError):
    """Base of all errors raised by this package."""


# --- what was asked for cannot be done ------------------------------------------------


class ConfigurationRefused(InstrumentError):
    """A setting, program or table was found wrong before it was sent to the instrument."""


class CompilationRefused(ConfigurationRefused):
    """The vendor's compiler refused a program, or warned of something that is never harmless."""


class InstrumentInUse(InstrumentError):
    """The instrument is open already; one process owns one instrument, once."""


# --- the laboratory --------------------------------------------------------------------


class InstrumentUnavailable(InstrumentError):
    """The instrument, its server or its vendor's library cannot be reached."""


class IncompatibleInstrument(InstrumentError):
    """The instrument is of another type, or of a version this driver does not know."""


class InstrumentNotReady(InstrumentError):
    """The instrument must be set up first: booted, or its program loaded."""


class DeviceRefused(InstrumentError):
    """The instrument was asked, and said no or did something else."""


class CounterOverflow(InstrumentError):
    """A counter stands at its end: how much there was to count is not known."""
