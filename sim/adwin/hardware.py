"""The modules of an ADwin-Pro II as a program sees them, and a simple one in memory.

`Hardware` has a method for every instruction of the subset, with the name of the instruction in
lower case. The first argument is always the processor cycle at which the instruction acts, so
that pulses shorter than an event have their true width. Argument lists of the SPI instructions
are assumed: no public program uses them.
"""

from __future__ import annotations

import heapq
import inspect
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from sim.adwin.arithmetic import wrap
from sim.adwin.errors import HardwareFault

DAC_ZERO_CODE: Final = 32_768
DAC_CODES_PER_VOLT: Final = 3_277
"""Code of a voltage V is 3277 V + 32768, as public laboratory programs write it."""


class Hardware(Protocol):
    """What ADbasic instructions act on. Words and patterns are 32 bits, as signed numbers."""

    def p2_dac(self, cycle: int, module: int, channel: int, code: int) -> None:
        """Set an analogue output; code 32768 is 0 V, 3277 more is 1 V more."""

    def p2_adc(self, cycle: int, module: int, channel: int) -> int:
        """Digitise an analogue input."""

    def p2_digprog(self, cycle: int, module: int, outputs: int) -> None:
        """Choose the outputs: bit i of the pattern is for the lines 8 i to 8 i + 7."""

    def p2_digout(self, cycle: int, module: int, line: int, level: int) -> None:
        """Set one output line."""

    def p2_digout_long(self, cycle: int, module: int, word: int) -> None:
        """Set all output lines."""

    def p2_digout_bits(self, cycle: int, module: int, high: int, low: int) -> None:
        """Set the output lines of one pattern high and those of another low."""

    def p2_digin_long(self, cycle: int, module: int) -> int:
        """Levels of all lines."""

    def p2_digin_edge(self, cycle: int, module: int, rising: int) -> int:
        """Lines that had an edge since this was last asked; rising (1) or falling (0) edges."""

    def p2_cnt_enable(self, cycle: int, module: int, pattern: int) -> None:
        """Let the counters of the pattern count and stop the others."""

    def p2_cnt_clear(self, cycle: int, module: int, pattern: int) -> None:
        """Set the counters of the pattern to 0."""

    def p2_cnt_latch(self, cycle: int, module: int, pattern: int) -> None:
        """Copy the counters of the pattern to their latches."""

    def p2_cnt_mode(self, cycle: int, module: int, channel: int, mode: int) -> None:
        """Configure one counter."""

    def p2_cnt_read(self, cycle: int, module: int, channel: int) -> int:
        """Value of a counter."""

    def p2_cnt_read_latch(self, cycle: int, module: int, channel: int) -> int:
        """Value of a counter's latch."""

    def p2_spi_slave_config(self, cycle: int, module: int, mode: int) -> None:
        """Make the module an SPI slave of words of 32 bits."""

    def p2_spi_slave_infifo_full(self, cycle: int, module: int) -> int:
        """How many words the master has sent that nobody has read."""

    def p2_spi_slave_infifo_read(self, cycle: int, module: int) -> int:
        """Oldest word from the master."""

    def p2_spi_slave_outfifo_empty(self, cycle: int, module: int) -> int:
        """How many more words for the master there is room for."""

    def p2_spi_slave_outfifo_write(self, cycle: int, module: int, word: int) -> None:
        """Leave a word that the master fetches with its next one."""


class Instruction(NamedTuple):
    """Shape of an instruction.

    Attributes:
        arguments: how many it takes in ADbasic.
        returns: whether it has a value, a LONG.
    """

    arguments: int
    returns: bool


def _instructions() -> dict[str, Instruction]:
    table = {}
    for name, method in inspect.getmembers(Hardware, inspect.isfunction):
        if name.startswith("p2_"):
            signature = inspect.signature(method)
            # `self` and the cycle are ours.
            arguments = len(signature.parameters) - 2
            table[name] = Instruction(arguments, signature.return_annotation == "int")
    return table


INSTRUCTIONS: Final[Mapping[str, Instruction]] = _instructions()
"""The instructions of the subset, by name in lower case."""


class PhotonSource(Protocol):
    """What makes the counters count, under the light that the analogue outputs switch."""

    def emit(self, start_cycle: int, stop_cycle: int) -> Mapping[tuple[int, int], int]:
        """Let an interval pass, and return the pulses in it by (module, counter).

        The intervals follow each other without gaps, and no output changes within one.
        """

    def dac_changed(self, cycle: int, module: int, channel: int, code: int) -> None:
        """An analogue output has a new code; the time up to `cycle` has passed already."""


class Edge(NamedTuple):
    """A change of a module's output lines: all 32 levels from `cycle` on, without sign."""

    cycle: int
    module: int
    word: int


class InMemoryHardware:
    """Modules without a laboratory behind them (simulated).

    Every module number has 32 digital lines, 8 analogue outputs, 8 inputs, 4 counters and an
    SPI slave. Input lines change at the cycles they are scheduled for.

    Args:
        photons: drives the counters; None for counters that stay at 0.
        on_edge: told of every change of digital outputs, at once.
        spi_fifo_words: depth of the FIFOs of an SPI slave in each direction (assumed).
        max_edges: how many changes of digital outputs are kept.

    Attributes:
        dac_codes: code of every analogue output that was set, by (module, channel).
        adc_codes: code that a later P2_ADC reads, by (module, channel); 32768 if absent.
        edges: the latest changes of digital outputs, oldest first.
    """

    def __init__(
        self,
        photons: PhotonSource | None = None,
        on_edge: Callable[[Edge], None] | None = None,
        *,
        spi_fifo_words: int = 8,
        max_edges: int = 100_000,
    ) -> None:
        self.dac_codes: dict[tuple[int, int], int] = {}
        self.adc_codes: dict[tuple[int, int], int] = {}
        self.edges: deque[Edge] = deque(maxlen=max_edges)
        self._photons = photons
        self._on_edge = on_edge
        self._spi_fifo_words = spi_fifo_words
        self._scheduled: list[tuple[int, int, int, int, bool]] = []
        self._order = 0
        self._lines: dict[int, _Lines] = {}
        self._counters: dict[int, _Counters] = {}
        self._settled_at = 0
        self._spi: dict[int, _SpiSlave] = {}

    # --- the laboratory's side ----------------------------------------------------------

    def schedule_input(self, cycle: int, module: int, line: int, level: bool) -> None:
        """Let an input line change at a cycle; changes at one cycle happen in order."""
        self._order += 1
        heapq.heappush(self._scheduled, (cycle, self._order, module, _checked_line(line), level))

    def output_word(self, module: int) -> int:
        """Levels of the output lines, without sign; inputs read 0."""
        lines = self._lines.get(module)
        return lines.output if lines else 0

    def spi_exchange(self, module: int, word: int) -> int | None:
        """The SPI master exchanges one word; None if the slave had none ready.

        Raises:
            HardwareFault: the slave was not configured, or has left too many words unread.
        """
        slave = self._slave(module)
        if len(slave.received) == self._spi_fifo_words:
            raise HardwareFault(f"SPI module {module}: its program leaves words from us unread")
        slave.received.append(word)
        return slave.ready.popleft() if slave.ready else None

    def spi_fetch(self, module: int) -> int | None:
        """What the slave has ready, without sending it a word; None if there is nothing.

        Raises:
            HardwareFault: the slave was not configured.
        """
        ready = self._slave(module).ready
        return ready.popleft() if ready else None

    # --- analogue -----------------------------------------------------------------------

    def p2_dac(self, cycle: int, module: int, channel: int, code: int) -> None:
        """See `Hardware`."""
        if not 0 <= code <= 0xFFFF:
            raise HardwareFault(f"P2_DAC module {module} channel {channel}: code {code} of 16 bits")
        if self.dac_codes.get((module, channel)) == code:
            return
        self.dac_codes[module, channel] = code
        if self._photons is not None:
            self._settle(cycle)
            self._photons.dac_changed(cycle, module, channel, code)

    def p2_adc(self, cycle: int, module: int, channel: int) -> int:
        """See `Hardware`."""
        return self.adc_codes.get((module, channel), DAC_ZERO_CODE)

    # --- digital ------------------------------------------------------------------------

    def p2_digprog(self, cycle: int, module: int, outputs: int) -> None:
        """See `Hardware`."""
        mask = sum(0xFF << 8 * group for group in range(4) if outputs >> group & 1)
        self._module_lines(module, cycle).output_mask = mask

    def p2_digout(self, cycle: int, module: int, line: int, level: int) -> None:
        """See `Hardware`."""
        bit = 1 << _checked_line(line)
        self._set_outputs(cycle, module, bit if level else 0, 0 if level else bit)

    def p2_digout_long(self, cycle: int, module: int, word: int) -> None:
        """See `Hardware`; bits of input lines are ignored."""
        mask = self._module_lines(module, cycle).output_mask
        self._set_outputs(cycle, module, word & mask, ~word & mask)

    def p2_digout_bits(self, cycle: int, module: int, high: int, low: int) -> None:
        """See `Hardware`."""
        self._set_outputs(cycle, module, high & 0xFFFF_FFFF, low & 0xFFFF_FFFF)

    def p2_digin_long(self, cycle: int, module: int) -> int:
        """See `Hardware`."""
        lines = self._module_lines(module, cycle)
        return wrap(lines.output | lines.input & ~lines.output_mask)

    def p2_digin_edge(self, cycle: int, module: int, rising: int) -> int:
        """See `Hardware`."""
        lines = self._module_lines(module, cycle)
        if rising:
            edges, lines.rising = lines.rising, 0
        else:
            edges, lines.falling = lines.falling, 0
        return wrap(edges & ~lines.output_mask)

    def _set_outputs(self, cycle: int, module: int, high: int, low: int) -> None:
        lines = self._module_lines(module, cycle)
        if (high | low) & ~lines.output_mask:
            raise HardwareFault(
                f"P2_DIGOUT module {module}: line mask {high | low:#x} has lines that are inputs; "
                "make them outputs with P2_DIGPROG first"
            )
        word = lines.output & ~low | high
        if word != lines.output:
            lines.output = word
            edge = Edge(cycle, module, word)
            self.edges.append(edge)
            if self._on_edge is not None:
                self._on_edge(edge)

    def _module_lines(self, module: int, cycle: int) -> _Lines:
        while self._scheduled and self._scheduled[0][0] <= cycle:
            _, _, number, line, level = heapq.heappop(self._scheduled)
            self._lines_of(number).change_input(1 << line, level)
        return self._lines_of(module)

    def _lines_of(self, module: int) -> _Lines:
        lines = self._lines.get(module)
        if lines is None:
            lines = self._lines[module] = _Lines()
        return lines

    # --- counters -----------------------------------------------------------------------

    def p2_cnt_enable(self, cycle: int, module: int, pattern: int) -> None:
        """See `Hardware`."""
        self._settled(cycle, module).enabled = pattern & 0xF

    def p2_cnt_clear(self, cycle: int, module: int, pattern: int) -> None:
        """See `Hardware`."""
        counters = self._settled(cycle, module)
        counters.values = [0 if pattern >> i & 1 else v for i, v in enumerate(counters.values)]

    def p2_cnt_latch(self, cycle: int, module: int, pattern: int) -> None:
        """See `Hardware`."""
        counters = self._settled(cycle, module)
        for index, value in enumerate(counters.values):
            if pattern >> index & 1:
                counters.latches[index] = value

    def p2_cnt_mode(self, cycle: int, module: int, channel: int, mode: int) -> None:
        """See `Hardware`; all modes count the rising edges of the input (assumed)."""
        _checked_counter(module, channel)

    def p2_cnt_read(self, cycle: int, module: int, channel: int) -> int:
        """See `Hardware`."""
        return wrap(self._settled(cycle, module).values[_checked_counter(module, channel)])

    def p2_cnt_read_latch(self, cycle: int, module: int, channel: int) -> int:
        """See `Hardware`."""
        return wrap(self._settled(cycle, module).latches[_checked_counter(module, channel)])

    def _settled(self, cycle: int, module: int) -> _Counters:
        self._settle(cycle)
        counters = self._counters.get(module)
        if counters is None:
            counters = self._counters[module] = _Counters([0] * 4, [0] * 4)
        return counters

    def _settle(self, cycle: int) -> None:
        start = self._settled_at
        if self._photons is None or cycle <= start:
            return
        self._settled_at = cycle
        for (module, channel), pulses in self._photons.emit(start, cycle).items():
            counters = self._counters.get(module)
            index = _checked_counter(module, channel)
            if counters is not None and counters.enabled >> index & 1:
                counters.values[index] += pulses

    # --- SPI ----------------------------------------------------------------------------

    def p2_spi_slave_config(self, cycle: int, module: int, mode: int) -> None:
        """See `Hardware`; the SPI mode, 0 to 3."""
        if not 0 <= mode <= 3:
            raise HardwareFault(f"P2_SPI_SLAVE_CONFIG module {module}: mode {mode} is not 0 to 3")
        self._spi[module] = _SpiSlave(deque(), deque())

    def p2_spi_slave_infifo_full(self, cycle: int, module: int) -> int:
        """See `Hardware`."""
        return len(self._slave(module).received)

    def p2_spi_slave_infifo_read(self, cycle: int, module: int) -> int:
        """See `Hardware`."""
        slave = self._slave(module)
        if not slave.received:
            raise HardwareFault(f"P2_SPI_SLAVE_INFIFO_READ module {module}: there is no word")
        return wrap(slave.received.popleft())

    def p2_spi_slave_outfifo_empty(self, cycle: int, module: int) -> int:
        """See `Hardware`."""
        return self._spi_fifo_words - len(self._slave(module).ready)

    def p2_spi_slave_outfifo_write(self, cycle: int, module: int, word: int) -> None:
        """See `Hardware`."""
        slave = self._slave(module)
        if len(slave.ready) == self._spi_fifo_words:
            raise HardwareFault(f"P2_SPI_SLAVE_OUTFIFO_WRITE module {module}: its FIFO is full")
        slave.ready.append(word & 0xFFFF_FFFF)

    def _slave(self, module: int) -> _SpiSlave:
        slave = self._spi.get(module)
        if slave is None:
            raise HardwareFault(
                f"SPI module {module} is not a slave; call P2_SPI_SLAVE_CONFIG first"
            )
        return slave


class _SpiSlave(NamedTuple):
    received: deque[int]
    ready: deque[int]


class _Lines:
    """The 32 lines of a digital module."""

    def __init__(self) -> None:
        self.output_mask = 0
        self.output = 0
        self.input = 0
        self.rising = 0
        self.falling = 0

    def change_input(self, bit: int, level: bool) -> None:
        if level and not self.input & bit:
            self.input |= bit
            self.rising |= bit
        elif not level and self.input & bit:
            self.input &= ~bit
            self.falling |= bit


@dataclass
class _Counters:
    """The four counters of a module."""

    values: list[int]
    latches: list[int]
    enabled: int = 0


def _checked_line(line: int) -> int:
    if not 0 <= line <= 31:
        raise HardwareFault(f"digital line {line}; a module has the lines 0 to 31")
    return line


def _checked_counter(module: int, channel: int) -> int:
    if not 1 <= channel <= 4:
        raise HardwareFault(f"counter {channel} of module {module}; there are 1 to 4")
    return channel - 1
