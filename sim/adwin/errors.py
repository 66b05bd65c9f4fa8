"""Errors of the simulated ADwin: in a program's source, or while it runs."""

from __future__ import annotations

from typing import NamedTuple

from qnodeos.errors import ConfigurationError, DeviceError


class Location(NamedTuple):
    """A line of an ADbasic source.

    Attributes:
        file: the path as it was given, or as an include names it.
        line: counted from 1.
        text: the line, for messages.
    """

    file: str
    line: int
    text: str


class AdbasicError(ConfigurationError):
    """An ADbasic source is wrong, or outside the documented subset; names file and line."""

    def __init__(self, message: str, location: Location | None = None) -> None:
        self.location = location
        if location is None:
            super().__init__(message)
        else:
            shown = f" (in: {location.text.strip()})" if location.text.strip() else ""
            super().__init__(message + shown, file=location.file, line=location.line)


class ProcessFault(DeviceError):
    """A process did something illegal while it ran; the message names the line of the .bas."""


class HardwareFault(DeviceError):
    """A module was used in a way that its configuration does not allow."""
