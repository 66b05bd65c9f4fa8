"""The charge state of a simulated NV centre and the log of its checks.

A readout may ionise the centre (GOOD -> BAD). A BAD centre reads dark and fails the next
charge-resonance (CR) check, after which it is repumped and GOOD again. Every INI, ENT and
ENM begins with a check, so a batch of attempts never runs on a BAD centre: it starts late
instead. Experiments drop the iterations whose check afterwards failed (Delle Donne et al.,
Nature 639, 321 (2025)), and the log tells which those are.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_CHARGE_CHECKS: Final = 1_000_000
"""Bound on the log; beyond it the older half is dropped and counted."""


class ChargeCheck(NamedTuple):
    """One CR check after a readout."""

    tick: int
    passed: bool


class ChargeState:
    """Charge state of one centre.

    Attributes:
        good: whether the centre is NV-; simulation only, no device can read this directly.
        checks: for every readout, in order, the first check after it.
        dropped: how many of the oldest entries are no longer in ``checks``.
    """

    __slots__ = ("_max_checks", "_unchecked", "checks", "dropped", "good")

    def __init__(self, max_checks: int = MAX_CHARGE_CHECKS) -> None:
        self.good = True
        self.checks: list[ChargeCheck] = []
        self.dropped = 0
        self._max_checks = max_checks
        self._unchecked = 0

    def read_out(self, ionised: bool) -> None:
        """Note a readout, and whether it ionised the centre."""
        self._unchecked += 1
        if ionised:
            self.good = False

    def check(self, tick: int) -> bool:
        """Do a CR check and repump if it fails; returns whether it passed."""
        passed = self.good
        if self._unchecked:
            self.checks += [ChargeCheck(tick, passed)] * self._unchecked
            self._unchecked = 0
            if len(self.checks) > self._max_checks:
                excess = len(self.checks) - self._max_checks // 2
                del self.checks[:excess]
                self.dropped += excess
        self.good = True
        return passed
