"""The QDevice of a simulated node at instrument level: frames in, frames out.

Everything is done by the ADwin program of the node (`sim.lab.node`); here its time is brought
together with that of the QNPU. The frame of tick k is exchanged just before the event with which
tick k begins, so the response to it was written by the event before. When an instruction has
been accepted, the laboratory runs ahead to its outcome; frames of the meantime, which the
program would ignore, are answered with what it would say: the same as in the tick before, one
tick later.

Every frame goes through the SPI driver of the hardware (`drivers.spi`) and a simulated port.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from drivers.spi import SpiLink
from instruments.nv_controller import TICK_EVENTS, NVController
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.frames import TICK_MASK, TICK_SHIFT, encode_response
from qnodeos.qdevice.instructions import Opcode
from sim.charge import MAX_CHARGE_CHECKS, ChargeCheck
from sim.lab.laboratory import Laboratory
from sim.lab.node import IDLE, LabNode
from sim.spi import SimulatedSpiDev

TICK_NS: Final = 10_000
MAX_CHECK_EVENTS: Final = 10_000
"""Bound on the events of a charge check: the program gives up after `max_repumps`."""

_STATUS: Final = ("v_outcome", "v_detail", "v_busy", "v_answered", "v_accepted")

_LOCAL: Final = frozenset({Opcode.INI, Opcode.SQG, Opcode.MSR})
_ENTANGLING: Final = frozenset({Opcode.ENT, Opcode.ENM, Opcode.PMG})


class InstrumentNVDevice:
    """A node as a `SimulatedQDevice`.

    Args:
        laboratory: begun.
        node: which of its nodes.
        controller: the driver of its ADwin program.
        links: neighbours, 0 or 1.

    Attributes:
        on_wake: called with the tick of the next news when that changes outside `exchange`.
    """

    def __init__(
        self, laboratory: Laboratory, node: LabNode, controller: NVController, links: int = 1
    ) -> None:
        self.node = node
        self.name = node.name
        self.on_wake: Callable[[int], None] | None = None
        self._checks: list[ChargeCheck] = []
        self._laboratory = laboratory
        self._controller = controller
        self._capabilities = Capabilities(
            name="NV centre, electron spin (simulated, instrument level)",
            communication_qubits=(0,),
            memory_qubits=(),
            instructions=_LOCAL | _ENTANGLING if links else _LOCAL,
            tick_ns=TICK_NS,
            links=links,
        )
        self._last_tick = -1
        self._said = (0, (0, 0, 0, 0, 0))
        self._said_tick = 0
        self._announced: int | None = None
        self._has_news = True
        self._peers: tuple[InstrumentNVDevice, ...] = ()
        port = SimulatedSpiDev(self._swap)
        port.open(0, 0)
        self._link = SpiLink(port)

    def connect(self, *others: InstrumentNVDevice) -> None:
        """Name the devices whose next news a run ahead of this one may change."""
        self._peers = others

    @property
    def capabilities(self) -> Capabilities:
        """What this device can do."""
        return self._capabilities

    def exchange(self, tick: int, frame: int) -> int:
        """Swap one 32-bit frame. Ticks of successive calls increase.

        Raises:
            ValueError: the tick is not later than that of the call before.
        """
        if tick <= self._last_tick:
            raise ValueError(f"{self.name}: exchange at tick {tick} after {self._last_tick}")
        self._last_tick = tick
        return self._link.swap(frame)

    def _swap(self, frame: int) -> int:
        """The other end of the SPI cable, at the tick at hand."""
        tick, node, laboratory = self._last_tick, self.node, self._laboratory
        begins = laboratory.zero_event + tick * TICK_EVENTS
        if node.event < begins - 1:
            laboratory.run_to(node, begins - 1)
        self._has_news = False
        if self._announced is not None and tick >= self._announced:
            self._announced = None
        if node.event >= begins:
            # The node is ahead: it does in this tick what it did in the last, and says the same.
            return self._repeated(tick)
        response = node.response_for(begins)
        before = self._status()
        node.receive(frame)
        node.act(begins)
        self._said, self._said_tick = (response, self._status()), tick
        if node.state != IDLE:
            laboratory.run_ahead()
            for device in (self, *self._peers):
                device.announce()
        else:
            self._has_news = self._said[1] != before
        return response

    def next_tick(self) -> int | None:
        """First tick at which `exchange` has news without new input, None if never."""
        if self._announced is not None:
            return self._announced
        return self._last_tick + 1 if self._has_news else None

    @property
    def waits_for_neighbour(self) -> bool:
        """Whether an instruction to the neighbour, if it came now, could change `next_tick`."""
        return self._laboratory.is_parked(self.node)

    def announce(self) -> None:
        """Find out when the instruction at hand will have been answered."""
        node = self.node
        event = node.idle_since if node.state == IDLE else node.due_event
        tick = (event - self._laboratory.zero_event) // TICK_EVENTS + 1
        if tick <= self._last_tick or tick == self._announced:
            return
        self._announced = tick
        if self.on_wake is not None:
            self.on_wake(tick)

    # --- for experiments and inspection -------------------------------------------------------

    @property
    def charge_checks(self) -> list[ChargeCheck]:
        """For every readout, in order, the first charge check after it (see `sim.charge`)."""
        tick = self._last_tick
        log = self._controller.take_charge_log().tolist()
        self._checks += [ChargeCheck(tick, bool(passed)) for passed in log]
        del self._checks[:-MAX_CHARGE_CHECKS]
        return self._checks

    def verify_charge(self, tick: int) -> bool:
        """Do a charge check, as at the end of an experiment; whether it passed at once.

        Args:
            tick: when; the device must have nothing else to do.

        Raises:
            ValueError: it executes an instruction then.
        """
        node = self.node
        begins = self._laboratory.zero_event + tick * TICK_EVENTS
        if node.event < begins:
            self._laboratory.run_to(node, begins)
        if node.state != IDLE:
            raise ValueError(f"{self.name} is busy at tick {tick}; wait for its outcome")
        failed = self._controller.read("failed_charge_checks")
        self._controller.request_charge_check()
        node.act(node.event + 1)
        for _ in range(MAX_CHECK_EVENTS):
            if node.state == IDLE:
                break
            node.act(node.next_action())
        return self._controller.read("failed_charge_checks") == failed

    # --- inside ---------------------------------------------------------------------------------

    def _status(self) -> tuple[int, int, int, int, int]:
        """What a response says besides the tick."""
        outcome, detail, busy, answered, accepted = self.node.process.integers(_STATUS)
        return outcome, detail, busy, answered, accepted

    def _repeated(self, tick: int) -> int:
        """What the program says as long as nothing changes, in another tick."""
        word, (outcome, detail, busy, answered, accepted) = self._said
        number = (word >> TICK_SHIFT) + tick - self._said_tick & TICK_MASK
        return encode_response(outcome, detail, number, busy, answered, accepted)
