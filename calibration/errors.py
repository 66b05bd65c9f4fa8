"""Errors of the calibration: the data of a measurement do not support a value.

The data are recorded before they are analysed, and a calibration file is written only
from a result, so neither error loses anything or spoils the values in use.
"""

from __future__ import annotations

from qnodeos.errors import InsufficientDataError


class CalibrationError(InsufficientDataError):
    """A measurement does not give what it was made for; the values in use stay."""


class FitError(CalibrationError):
    """A fit failed, ended at a bound, had too few data, or does not describe the data.

    Args:
        message: what was wrong and what to do.
        report: of the fit, many lines; empty if there was none.
    """

    def __init__(self, message: str, report: str = "") -> None:
        self.report = report
        super().__init__(message)
