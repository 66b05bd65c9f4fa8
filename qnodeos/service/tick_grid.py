"""How the ticks of different nodes relate: readings over a network, and counters in step.

A reading of a node's tick is off by at most half its round trip. The counters of all devices
are started by a common SYNC edge, so their low 12 bits agree; the reading only has to settle
the multiple of 4096 ticks between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qnodeos.errors import TickMismatchError, UncertainTickError

COMMON_TICKS: Final = 4_096
"""The low 12 bits of the devices' counters agree: a frame carries as many (docs/frames.md)."""
DRIFT: Final = 200e-6
"""How far clocks of devices and controller may run apart (assumed; quartz: below 100 ppm)."""
TOO_UNCERTAIN_TICKS: Final = COMMON_TICKS // 4
"""A reading this uncertain cannot tell one multiple from the next for sure."""


@dataclass(frozen=True)
class TickFix:
    """A node's tick at a time of the controller's clock.

    Attributes:
        tick: of the node's device.
        at_ns: when that was, give or take ``error_ns``.
        error_ns: half the round trip of the reading.
    """

    tick: int
    at_ns: int
    error_ns: int


@dataclass(frozen=True)
class Placement:
    """Where bin 0 begins in the ticks of a node.

    Attributes:
        epoch_tick: that tick.
        residual_ticks: how far the reading is from it.
        error_ticks: how far it may be.
    """

    epoch_tick: int
    residual_ticks: float
    error_ticks: float


@dataclass
class Grid:
    """The time bins of the network, in the controller's clock.

    Attributes:
        tick_ns: length of a tick, the same at all nodes.
        epoch_ns: when bin 0 begins, give or take ``error_ns`` at ``as_of_ns``.
        low_ticks: low 12 bits of the tick at which it begins, the same at all nodes.
    """

    tick_ns: int
    epoch_ns: int
    error_ns: int
    as_of_ns: int
    low_ticks: int

    @classmethod
    def of(cls, fix: TickFix, epoch_tick: int, tick_ns: int) -> Grid:
        """The grid that a node with this reading and this epoch is on."""
        return cls(
            tick_ns,
            fix.at_ns + (epoch_tick - fix.tick) * tick_ns,
            fix.error_ns,
            fix.at_ns,
            epoch_tick % COMMON_TICKS,
        )

    def place(self, fix: TickFix, tolerance_ticks: int) -> Placement:
        """Where bin 0 begins for a node with this reading.

        Raises:
            TickMismatchError: the devices are not synchronised.
            UncertainTickError: the reading cannot tell.
        """
        age_ns = abs(fix.at_ns - self.as_of_ns)
        error = (fix.error_ns + self.error_ns + DRIFT * age_ns) / self.tick_ns + tolerance_ticks
        # Of the few nanoseconds that this loses, nothing is left in ticks.
        estimate = fix.tick + (self.epoch_ns - fix.at_ns) / self.tick_ns
        turns = round((estimate - self.low_ticks) / COMMON_TICKS)
        epoch_tick = self.low_ticks + turns * COMMON_TICKS
        residual = estimate - epoch_tick
        # With less than a quarter of uncertainty, one multiple at most is within it.
        if error >= TOO_UNCERTAIN_TICKS:
            raise UncertainTickError(
                f"its tick is known to {error:.0f} ticks only, and less than "
                f"{TOO_UNCERTAIN_TICKS} are needed; the way to it is too slow, or it too busy"
            )
        if abs(residual) > error:
            raise TickMismatchError(
                f"its device is {residual:+.0f} ticks off those of the other nodes, which at most "
                f"{error:.0f} ticks of uncertainty cannot explain; start the counters of all "
                "devices with a common SYNC edge"
            )
        return Placement(epoch_tick, residual, error)
