"""A trapped-ion node, instrument by instrument, on one clock; and the QDevice that it is.

The sequencer's outputs are the clock of everything else: at every change the ion has lived through
the light of before, the DDS gets its pins, the PMT counter its gate, the board its lines. The
board's outputs are the sequencer's trigger inputs. Time steps from one change, or one action of
the board, to the next.

The frame of tick k is exchanged at k ticks after the device was made. When an instruction has been
accepted, the node runs ahead to its end, and frames of the meantime are answered by the board as
long as it is busy. Every frame goes through the SPI driver of the hardware (`drivers.spi`) and a
simulated port.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Final

from drivers.spi import SpiLink
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode
from sequences.ion import TtlLine
from sim.ion.board import ION, BoardState, Line, SimulatedBoard
from sim.ion.dds import SimulatedAd9910
from sim.ion.ion import Ion, Light
from sim.ion.pmt import SimulatedPmtCounter
from sim.ion.sequencer import CoreState, SequencerCore
from sim.ion.sequencer_thread import PulseSequencerFault
from sim.spi import SimulatedSpiDev

TICK_NS: Final = 20_000
MAX_STEPS: Final = 10_000_000
"""Bound on the steps of one instruction: the board's time-outs end it long before."""

_LINES: Final = (
    (TtlLine.BUSY.mask, Line.BUSY),
    (TtlLine.DONE.mask, Line.DONE),
    (TtlLine.ERROR.mask, Line.ERROR),
    (TtlLine.PMT_GATE.mask, Line.GATE),
)
_LIGHT: Final = (
    TtlLine.DOPPLER_397,
    TtlLine.REPUMP_866,
    TtlLine.RESET_854,
    TtlLine.PUMP_397,
    TtlLine.RF_729,
)
_LIGHT_MASK: Final = sum(line.mask for line in _LIGHT)
_LIVED_MASK: Final = _LIGHT_MASK | TtlLine.PMT_GATE.mask
"""Lines at whose changes the ion's light or the counting of its photons is another."""
_PROFILE_MASK: Final = 0b111
_NS_PER_S: Final = 1_000_000_000


@dataclass
class Wiring:
    """Faults of the cables between board and sequencer, for tests; none by default.

    Attributes:
        stuck_high: trigger inputs that are high whatever the board says.
        stuck_low: trigger inputs that are low whatever the board says.
        cut: lines of the sequencer that the board sees low always.
    """

    stuck_high: int = 0
    stuck_low: int = 0
    cut: int = 0


class IonNode:
    """The instruments of a node and its ion.

    Args:
        ion: in the trap.
        sequencer: see there, and so are the others.
        dds: of the 729 nm laser.
        pmt: counts its photons.
        board: between QNPU and sequencer.

    Attributes:
        ion: see there.
        sequencer: see there.
        dds: see there.
        pmt: see there.
        board: see there.
        wiring: between board and sequencer.
        time_ns: up to which everything was done.
    """

    def __init__(
        self,
        ion: Ion,
        sequencer: SequencerCore,
        dds: SimulatedAd9910,
        pmt: SimulatedPmtCounter,
        board: SimulatedBoard,
    ) -> None:
        self.ion = ion
        self.sequencer = sequencer
        self.dds = dds
        self.pmt = pmt
        self.board = board
        self.wiring = Wiring()
        self.time_ns = sequencer.time_ns
        self._lived_ns = sequencer.time_ns
        self._triggers: int | None = None
        sequencer.on_ttl(self._on_ttl)
        board.on_output(self._on_board)

    def run_to(self, time_ns: int) -> None:
        """Let time pass.

        Raises:
            ValueError: the time has passed.
        """
        while self.time_ns < time_ns:
            self._step(time_ns)

    def run_ahead(self) -> None:
        """Let time pass until the board has an answer to the instruction it executes."""
        for _ in range(MAX_STEPS):
            if self.board.state is BoardState.IDLE:
                return
            self._step(None)
        raise RuntimeError("the board neither ends an instruction nor gives it up")

    def pass_time(self, duration_ns: int) -> None:
        """Let time pass, while a driver talks to an instrument."""
        self.run_to(self.time_ns + duration_ns)

    def sleep(self, duration_s: float) -> None:
        """Let time pass, for a driver that waits."""
        self.pass_time(max(1, round(duration_s * _NS_PER_S)))

    def _step(self, limit_ns: int | None) -> None:
        """Go to the next change, but no further than a limit."""
        sequencer, board = self.sequencer, self.board
        self._drive(self.time_ns)
        candidates = (limit_ns, board.due_ns, sequencer.next_change_ns())
        next_ns = max(self.time_ns, min(time for time in candidates if time is not None))
        if sequencer.state is not CoreState.FAULT:
            # After a fault its outputs stay as they are; the board's time-outs end the waiting.
            with suppress(PulseSequencerFault):
                sequencer.run_to(next_ns)
        if sequencer.state is CoreState.FAULT:
            sequencer.time_ns = next_ns
        self.time_ns = next_ns
        board.act(next_ns)

    # --- wires ------------------------------------------------------------------------------

    def _on_board(self, time_ns: int, value: int) -> None:
        self._triggers = (value | self.wiring.stuck_high) & ~self.wiring.stuck_low
        self._drive(time_ns)

    def _drive(self, time_ns: int) -> None:
        """Put on the trigger inputs what they do not have yet."""
        sequencer = self.sequencer
        if self._triggers is not None and sequencer.state is not CoreState.FAULT:
            sequencer.set_trigger(max(time_ns, sequencer.time_ns), self._triggers)
            self._triggers = None

    def _on_ttl(self, time_ns: int, before: int, after: int) -> None:
        changed = before ^ after
        if changed & _LIVED_MASK:
            self._live(time_ns, before)
        profile = after >> TtlLine.PROFILE_0 & _PROFILE_MASK
        if profile != before >> TtlLine.PROFILE_0 & _PROFILE_MASK:
            self.dds.set_profile(time_ns, profile)
        if changed & TtlLine.IO_UPDATE.mask:
            self.dds.set_io_update(time_ns, bool(after & TtlLine.IO_UPDATE.mask))
        if changed & TtlLine.PMT_GATE.mask:
            self.pmt.set_gate(bool(after & TtlLine.PMT_GATE.mask))
        self.board.set_lines(time_ns, self._lines(after))

    def _lines(self, ttl: int) -> int:
        lines: int = sum(line for mask, line in _LINES if ttl & mask)
        lines += Line.BRIGHT * self.pmt.bright + Line.OVERFLOW * self.pmt.overflowed
        return lines & ~self.wiring.cut

    def _live(self, time_ns: int, ttl: int) -> None:
        """The ion lives through the light of the lines until a time."""
        begin_ns, self._lived_ns = self._lived_ns, time_ns
        light = _light(ttl & _LIGHT_MASK)
        if not light.rf_729:
            self.pmt.count(self.ion.advance(time_ns - begin_ns, light))
            return
        for start_ns, end_ns, (frequency_hz, phase_rad, amplitude) in self.dds.pieces(
            begin_ns, time_ns
        ):
            shining = light._replace(
                frequency_hz=frequency_hz, phase_rad=phase_rad, amplitude=amplitude
            )
            self.pmt.count(self.ion.advance(end_ns - start_ns, shining))


@cache
def _light(ttl: int) -> Light:
    """What the lines let through, apart from what the DDS adds."""
    return Light(*(bool(ttl & line.mask) for line in _LIGHT))


class InstrumentIonDevice:
    """A node as a `SimulatedQDevice`.

    Args:
        node: set up; tick 0 is at its present time.
        name: for messages and reports.
    """

    def __init__(self, node: IonNode, name: str = "ion") -> None:
        self.node = node
        self.name = name
        self._capabilities = Capabilities(
            name="trapped ion (simulated, instrument level)",
            communication_qubits=(ION,),
            memory_qubits=(),
            instructions=frozenset({Opcode.INI, Opcode.SQG, Opcode.MSR}),
            tick_ns=TICK_NS,
            links=0,
        )
        self._zero_ns = node.time_ns
        self._last_tick = -1
        port = SimulatedSpiDev(self._swap)
        port.open(0, 0)
        self._link = SpiLink(port)

    @property
    def capabilities(self) -> Capabilities:
        """What this device can do."""
        return self._capabilities

    @property
    def waits_for_neighbour(self) -> bool:
        """Never: it has no neighbour."""
        return False

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
        node, time_ns = self.node, self._zero_ns + self._last_tick * TICK_NS
        node.run_to(time_ns)
        answer = node.board.exchange(self._last_tick, time_ns, frame)
        node.run_ahead()
        return answer

    def next_tick(self) -> int | None:
        """First tick at which `exchange` has news without new input, None if never."""
        board = self.node.board
        if board.has_answer:
            due = -(-(board.completed_ns - self._zero_ns) // TICK_NS)
            return max(due, self._last_tick + 1)
        return self._last_tick + 1 if board.has_news else None
