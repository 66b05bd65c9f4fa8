"""Simulated devices in real time, run ahead as far as is certain.

Theory of operation
-------------------
A command comes with the tick at which its QNPU put it on the wire, and the device exchanges at
that tick, however long after it the laboratory looks. The response holds from a tick on, too,
and is published for that tick, which may lie in the future. So as long as the laboratory is
less late than an instruction takes, its scheduling is not seen, neither in the physics nor in
the time at which a QNPU learns of an outcome.

*Looking ahead.* A device that has accepted an instruction looks at no frame until it has
answered. Its answer is found at once, by exchanging at the tick the device announces, with the
frame that is on the wire now. The exception is a device that waits for its neighbour: the
neighbour may still be given the same instruction, and then a batch is drawn, whose end is
announced anew and looked ahead to. Until then, whatever the device would say at tick k is held
back until the commands of tick k - 1, the last that can matter, must have come: for a *grace*.

*Order.* Everything that is known is done in the order of its ticks, over all nodes. What
becomes known later may belong before what was looked ahead to. That matters only where two
devices meet, in a pair and at the link:

* Of a pair, one qubit may be read out ahead while the other has a gate or an earlier readout
  still to come. Operations on two different qubits commute, so the joint statistics are the
  same; which results given random numbers mean may change (`sim.pauli.Qubit.settle`).
* At the link a request that failed for want of a partner has told its QNPU so. A request for a
  tick before that, which comes after the grace, is moved to the tick of the failure, too late
  for a batch in which only one of the two would believe. It is counted (`moved_commands`).
  Which link it is for does not matter: one that comes so late is moved for any of them.

The only frame that reaches a busy device is a request for a session, of a QNPU that has
restarted. If the device is ahead, the session begins in the tick after its answer instead of
the tick of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from qnodeos.errors import ChannelError
from qnodeos.qdevice.frames import TICK_MASK, TICK_PATTERN, encode_command
from qnodeos.qdevice.instructions import NOP, Opcode
from qnodeos.qdevice.protocols import SimulatedQDevice
from sim.realtime.statistics import NodeStatistics

GRACE_TICKS: Final = 20
"""How long commands may be on their way from a QNPU (assumed: 200 us at 10 us per tick)."""
MAX_AHEAD_TICKS: Final = 1_000
"""How far ahead of the clock a command may be dated; nobody plans further."""
MAX_COMMANDS_PER_TURN: Final = 64
"""Commands taken from one node before the others have their turn."""

IDLE_FRAME: Final = encode_command(NOP.word, 0, 0)
"""What is on a wire to which no QNPU has been attached yet."""

_BUSY_SHIFT: Final = 12
_WORD_SHIFT: Final = 12
_OPCODE_MASK: Final = 0xF
_ENTANGLING: Final = frozenset({int(Opcode.ENT), int(Opcode.ENM)})
_NOP: Final = int(Opcode.NOP)


class RealTimeDevice(SimulatedQDevice, Protocol):
    """A simulated device that says whether its next news is certain."""

    @property
    def waits_for_neighbour(self) -> bool:
        """Whether a request of the neighbour, if it came now, could change `next_tick`."""
        ...


class Port(Protocol):
    """The laboratory's end of the channel to one QNPU."""

    def receive(self) -> tuple[int, int] | None:
        """The next new command: its tick, and its frame; None if there is none.

        Raises:
            ChannelError: a new QNPU cannot be told what is on the wire, for it takes nothing.
        """
        ...

    def respond(self, from_tick: int, frame: int) -> None:
        """Put a response on the wire from a tick on.

        Raises:
            ChannelError: there is no room, for the QNPU takes none.
        """
        ...


@dataclass
class _Node:
    name: str
    device: RealTimeDevice
    port: Port
    commands: deque[tuple[int, int]] = field(default_factory=deque)
    frame: int = IDLE_FRAME
    last_tick: int = 0
    unsaid_tick: int | None = None
    said: int = -1
    statistics: NodeStatistics = field(default_factory=NodeStatistics)

    def own_tick(self) -> int | None:
        """When the device has something to say without a new command."""
        due, unsaid = self.device.next_tick(), self.unsaid_tick
        if due is None or (unsaid is not None and unsaid < due):
            due = unsaid
        return due if due is None else max(due, self.last_tick + 1)


class RealTimeLaboratory:
    """Simulated devices, one per node, and the ports to their QNPUs.

    Args:
        nodes: device and port by name; the devices have not been used.
        epoch_ns: the time, on ``clock_ns``, at which tick 0 begins.
        clock_ns: the clock of all QNPUs, in nanoseconds.
        grace_ticks: within how many ticks a command reaches the laboratory; 0 if those of the
            tick at hand have come at every turn.

    Attributes:
        tick_ns: length of a tick.

    Raises:
        ValueError: there is no node, or the devices have different ticks.
    """

    def __init__(
        self,
        nodes: Mapping[str, tuple[RealTimeDevice, Port]],
        epoch_ns: int,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        grace_ticks: int = GRACE_TICKS,
    ) -> None:
        ticks_ns = {device.capabilities.tick_ns for device, _ in nodes.values()}
        if len(ticks_ns) != 1:
            raise ValueError(f"the devices of a laboratory need one tick, not {sorted(ticks_ns)}")
        (self.tick_ns,) = ticks_ns
        self._epoch_ns = epoch_ns
        self._clock_ns = clock_ns
        self._grace_ticks = grace_ticks
        self._given_up_tick = 0
        self._nodes = [_Node(name, device, port) for name, (device, port) in nodes.items()]
        for node in self._nodes:
            self._exchange(node, 0)

    @property
    def statistics(self) -> dict[str, NodeStatistics]:
        """By the name of the node."""
        return {node.name: node.statistics for node in self._nodes}

    def time_ns(self, tick: int) -> int:
        """When a tick begins, on the clock."""
        return self._epoch_ns + tick * self.tick_ns

    def turn(self) -> int | None:
        """Do all that can be done now.

        Returns:
            The tick at which to come again if no command comes before; None if only a command
            can bring something to do.
        """
        now_ns = self._clock_ns()
        now = (now_ns - self._epoch_ns) // self.tick_ns
        is_more = False
        for node in self._nodes:
            is_more |= self._take_in(node, now, now_ns)
        while True:
            chosen: _Node | None = None
            tick, is_command = 0, False
            wake: int | None = now if is_more else None
            for node in self._nodes:
                step = self._next_step(node)
                if step is None:
                    continue
                if not step[1] and node.device.waits_for_neighbour:
                    held_until = step[0] - 1 + self._grace_ticks
                    if now < held_until:
                        wake = held_until if wake is None else min(wake, held_until)
                        continue
                if chosen is None or step[0] < tick:
                    chosen = node
                    tick, is_command = step
            if chosen is None:
                return wake
            self._carry_out(chosen, tick, is_command)

    # --- inside -----------------------------------------------------------------------------

    def _take_in(self, node: _Node, now: int, now_ns: int) -> bool:
        """Take commands from a port; whether there may be more."""
        receive, statistics = node.port.receive, node.statistics
        for _ in range(MAX_COMMANDS_PER_TURN):
            try:
                command = receive()
            except ChannelError:
                # Neither can this one stop the others; it is tried again in the next turn.
                statistics.failed_greetings += 1
                return False
            if command is None:
                return False
            tick, frame = command
            statistics.commands += 1
            if tick > now + MAX_AHEAD_TICKS:
                statistics.misdated_commands += 1
                tick = now
            statistics.lag.add(now_ns - self.time_ns(tick))
            node.commands.append((tick, frame))
        return True

    def _next_step(self, node: _Node) -> tuple[int, bool] | None:
        """The tick of a node's next exchange, and whether it brings a command."""
        own = node.own_tick()
        if node.commands:
            tick, frame = node.commands[0]
            tick = max(tick, node.last_tick + 1)
            if frame >> _WORD_SHIFT & _OPCODE_MASK in _ENTANGLING:
                tick = max(tick, self._given_up_tick)
            if own is None or tick <= own:
                return tick, True
        return None if own is None else (own, False)

    def _carry_out(self, node: _Node, tick: int, is_command: bool) -> None:
        if is_command:
            dated, node.frame = node.commands.popleft()
            node.statistics.moved_commands += tick > dated
        was_waiting = node.device.waits_for_neighbour
        self._exchange(node, tick, self._grace_ticks - 1 if was_waiting else 0)
        if was_waiting and not node.device.waits_for_neighbour:
            self._given_up_tick = max(self._given_up_tick, tick)
        if node.unsaid_tick is not None and node.unsaid_tick <= tick:
            node.unsaid_tick = None
        if is_command and node.frame >> _WORD_SHIFT & _OPCODE_MASK != _NOP:
            # The device may now be busy, or have refused, and says so in the next tick.
            node.unsaid_tick = tick + 1

    def _exchange(self, node: _Node, tick: int, allowed_ticks: int = 0) -> None:
        """Swap frames, and publish what the device says if it is new."""
        response = node.device.exchange(tick, node.frame)
        node.last_tick = tick
        says = response ^ TICK_PATTERN[tick & TICK_MASK]
        if says == node.said:
            return
        node.said = says
        try:
            node.port.respond(tick, response)
        except ChannelError:
            # Its QNPU reads nothing; that must not stop the others.
            node.statistics.untaken_responses += 1
            return
        if not response >> _BUSY_SHIFT & 1 and tick:
            late_ns = self._clock_ns() - self.time_ns(tick + allowed_ticks)
            statistics = node.statistics
            statistics.answers += 1
            statistics.late_answers += late_ns > 0
            statistics.lateness.add(max(0, late_ns))
