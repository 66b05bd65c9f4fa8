"""What a check of the doctor returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    WARNING = "warning"
    """The service runs, but not as well as it could."""
    PROBLEM = "problem"
    """The service does not run, or not as the node file asks."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        level: how grave it is.
        check: what was looked at.
        found: what was found.
        remedy: how to mend it; empty if nothing is to be mended.
    """

    level: Level
    check: str
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, check, found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """It could be better."""
    return Finding(Level.WARNING, check, found, remedy)


def problem(check: str, found: str, remedy: str) -> Finding:
    """It must be mended."""
    return Finding(Level.PROBLEM, check, found, remedy)
