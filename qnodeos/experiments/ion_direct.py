"""A device driven without the operating system, and the times of its exchanges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Final

from qnodeos.errors import DeviceFailureError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.endpoint import FrameMaster
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.qdevice.protocols import SimulatedQDevice

PATIENCE_TICKS: Final = 1_000_000
"""Bound on the time of one instruction, 20 s."""
NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True)
class Exchanges:
    """When frames were exchanged, in ticks of the device times their length.

    Attributes:
        count: how many there were.
        grid_ns: greatest time of which all times between two of them are multiples; 0 if there
            were fewer than two.
        shortest_ns: shortest time between two; 0 if there were fewer than two.
    """

    count: int
    grid_ns: int
    shortest_ns: int

    @property
    def rate_hz(self) -> float | None:
        """Of the grid; None if there is none."""
        return NS_PER_S / self.grid_ns if self.grid_ns else None

    def joined(self, other: Exchanges) -> Exchanges:
        """Those of two runs."""
        shortest = [each.shortest_ns for each in (self, other) if each.shortest_ns]
        return Exchanges(
            self.count + other.count,
            gcd(self.grid_ns, other.grid_ns),
            min(shortest, default=0),
        )


class ObservedDevice:
    """A device whose exchanges are timed: a `SimulatedQDevice`.

    Args:
        device: what it stands for.
    """

    def __init__(self, device: SimulatedQDevice) -> None:
        self._device = device
        self._tick_ns = device.capabilities.tick_ns
        self._count = 0
        self._last_tick: int | None = None
        self._grid_ticks = 0
        self._shortest_ticks = 0

    @property
    def capabilities(self) -> Capabilities:
        """What the device can do."""
        return self._device.capabilities

    @property
    def exchanges(self) -> Exchanges:
        """Those so far."""
        unit_ns = self._tick_ns
        return Exchanges(self._count, self._grid_ticks * unit_ns, self._shortest_ticks * unit_ns)

    def exchange(self, tick: int, frame: int) -> int:
        """Swap one frame; see `SimulatedQDevice`."""
        self._count += 1
        if self._last_tick is not None:
            passed = tick - self._last_tick
            self._grid_ticks = gcd(self._grid_ticks, passed)
            if passed < self._shortest_ticks or not self._shortest_ticks:
                self._shortest_ticks = passed
        self._last_tick = tick
        return self._device.exchange(tick, frame)

    def next_tick(self) -> int | None:
        """When the device has news; see `SimulatedQDevice`."""
        return self._device.next_tick()


class DirectLine:
    """Sends instructions straight to a device and waits for their outcomes.

    Exchanges in which neither side would say anything are left out, as in `sim.node`.

    Args:
        device: new.

    Attributes:
        tick: of the next exchange.
    """

    def __init__(self, device: SimulatedQDevice) -> None:
        self._device = device
        self._master = FrameMaster()
        self.tick = 0

    def run(self, program: Sequence[PhysicalInstruction]) -> Outcome:
        """Have instructions executed, one after the other; the outcome of the last.

        Raises:
            DeviceFailureError: one is not answered, or not with success.
        """
        outcome = Outcome.UNKNOWN_FAILURE
        for instruction in program:
            outcome = self._run(instruction)
            if not outcome.is_success:
                raise DeviceFailureError(
                    f"{self._device.capabilities.name} answers {instruction} with {outcome.name}"
                )
        return outcome

    def _run(self, instruction: PhysicalInstruction) -> Outcome:
        device, master = self._device, self._master
        started = self.tick
        master.submit(instruction)
        while self.tick - started <= PATIENCE_TICKS:
            response = master.incoming(device.exchange(self.tick, master.outgoing()))
            self.tick += 1
            if response is not None:
                return response.outcome
            if not master.has_news:
                due = device.next_tick()
                self.tick = max(self.tick, self.tick if due is None else due)
        raise DeviceFailureError(
            f"{device.capabilities.name} does not answer {instruction} within {PATIENCE_TICKS} "
            "ticks"
        )
