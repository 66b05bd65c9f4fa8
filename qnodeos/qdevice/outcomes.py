"""Outcomes: what the QDevice answers, with the codes of the published system."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Outcome(IntEnum):
    """Result of one physical instruction.

    ``SUCCESS_ZERO`` also means plain success (INI, gates) and, for ENT, a Phi+ herald
    (our inference: the published list has a code for the three other Bell states).
    Codes 6, 7 and 13..15 are unassigned.
    """

    UNKNOWN_FAILURE = 0
    HARDWARE_FAILURE = 1
    UNSUPPORTED_REQUEST = 2
    INVALID_QUBIT = 3
    ENTANGLEMENT_FAILURE = 4
    ENTANGLEMENT_SYNC_FAILURE = 5
    SUCCESS_ZERO = 8
    SUCCESS_PHI_MINUS = 9
    SUCCESS_PSI_PLUS = 10
    SUCCESS_PSI_MINUS = 11
    SUCCESS_ONE = 12

    __hash__ = int.__hash__  # Enum's own hashes the name, in Python, on every look-up

    @property
    def is_success(self) -> bool:
        """Whether the instruction did what it was asked to."""
        return self >= Outcome.SUCCESS_ZERO


class BellState(IntEnum):
    """Bell states with the codes NetQASM uses in entanglement results."""

    PHI_PLUS = 0
    PSI_PLUS = 1
    PSI_MINUS = 2
    PHI_MINUS = 3

    __hash__ = int.__hash__  # Enum's own hashes the name, in Python, on every look-up


HERALDS: Final = {
    Outcome.SUCCESS_ZERO: BellState.PHI_PLUS,
    Outcome.SUCCESS_PHI_MINUS: BellState.PHI_MINUS,
    Outcome.SUCCESS_PSI_PLUS: BellState.PSI_PLUS,
    Outcome.SUCCESS_PSI_MINUS: BellState.PSI_MINUS,
}
"""Which Bell state a successful ENT announces."""

OUTCOME_OF_HERALD: Final = {bell: outcome for outcome, bell in HERALDS.items()}
