"""Errors of instruments and sequences as those the operating system and its commands report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from instruments.errors import ConfigurationRefused, InstrumentError
from qnodeos.errors import ConfigurationError, DeviceError
from sequences.errors import SequenceError


@contextmanager
def instrument_errors() -> Iterator[None]:
    """Translate what is raised inside.

    Raises:
        ConfigurationError: a setting or a sequence cannot be used.
        DeviceError: an instrument cannot be used.
    """
    try:
        yield
    except (ConfigurationRefused, SequenceError) as error:
        raise ConfigurationError(str(error)) from error
    except InstrumentError as error:
        raise DeviceError(f"{type(error).__name__}: {error}") from error
