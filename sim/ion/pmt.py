"""The photon counter of a simulated trapped-ion node.

`SimulatedPmtCounter` is what the driver `instruments.pmt_counter` and the simulated node share: the
sequencer opens its gate, the ion gives it photons, the board reads its comparator, and the driver
asks it through `sim.serial_line.SerialLine`.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from instruments.pmt_counter import (
    IDENTITY,
    KEPT_GATES,
    MAX_COUNT,
    MAX_COUNTS,
    MAX_THRESHOLD,
    OVERFLOWED,
    VERSION,
    Flag,
    Register,
)

_COUNTER_MASK: Final = (1 << 32) - 1
_COUNTERS: Final = (Register.GATES, Register.BRIGHT_GATES, Register.OVERFLOWS)
_NO_COUNT: Final = -1
"""Takes the place of the count of a gate that overflowed."""


class PmtCounterFault(RuntimeError):
    """The gate was driven in a way that cannot be."""


class SimulatedPmtCounter:
    """The counter.

    Attributes:
        threshold: highest count that is dark.

    Args:
        threshold: see there.
    """

    def __init__(self, threshold: int = 0) -> None:
        if not 0 <= threshold <= MAX_THRESHOLD:
            raise ValueError(f"a threshold of {threshold} is outside 0..{MAX_THRESHOLD}")
        self.threshold = threshold
        self._is_open = False
        self._count = 0
        self._overflowed = False
        self._bright = False
        self._counters = dict.fromkeys(_COUNTERS, 0)
        self._kept: deque[int] = deque(maxlen=KEPT_GATES)

    # --- for the node -----------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Level of PMT_GATE."""
        return self._is_open

    @property
    def bright(self) -> bool:
        """Level of the comparator's line: low from the opening of a gate to its end."""
        return self._bright

    @property
    def overflowed(self) -> bool:
        """Level of the overflow's line: high until the next gate opens."""
        return self._overflowed

    def set_gate(self, level: bool) -> None:
        """Level of PMT_GATE; a rising edge begins a count, a falling one ends it."""
        if level and not self._is_open:
            self._count, self._overflowed, self._bright = 0, False, False
        elif not level and self._is_open:
            self._end()
        self._is_open = level

    def count(self, photons: int) -> None:
        """Photons reach the photomultiplier; outside of a gate they are not counted.

        Raises:
            PmtCounterFault: there are less than none.
        """
        if photons < 0:
            raise PmtCounterFault(f"{photons} photons cannot be counted")
        if self._is_open:
            total = self._count + photons
            self._overflowed |= total > MAX_COUNT
            self._count = min(total, MAX_COUNT)

    def _end(self) -> None:
        self._bright = self._count > self.threshold
        self._kept.append(_NO_COUNT if self._overflowed else self._count)
        self._add(Register.GATES, True)
        self._add(Register.BRIGHT_GATES, self._bright)
        self._add(Register.OVERFLOWS, self._overflowed)

    def _add(self, register: Register, happened: bool) -> None:
        self._counters[register] = self._counters[register] + happened & _COUNTER_MASK

    # --- for the serial line ----------------------------------------------------------

    def answer(self, line: str) -> str:
        """What the counter sends back for a line."""
        words = line.split(" ")
        if not all(word.isascii() and word.isdigit() and len(word) <= 10 for word in words[1:]):
            return "ERR no numbers"
        match words[0], [int(word) for word in words[1:]]:
            case "R", [number] if number in self._readable():
                return str(self._readable()[number])
            case "W", [Register.THRESHOLD, value]:
                if value > MAX_THRESHOLD:
                    return f"ERR {value} is outside 0..{MAX_THRESHOLD}"
                self.threshold = value
                return "OK"
            case "W", [Register.RESET, 1]:
                self._reset()
                return "OK"
            case "C", [age, number]:
                return self._counts(age, number)
        return "ERR unknown command"

    def _readable(self) -> dict[int, int]:
        flags = {
            Flag.OVERFLOW: self._overflowed,
            Flag.GATE_OPEN: self._is_open,
            Flag.BRIGHT: self._bright,
            Flag.ANY_GATE: bool(self._kept),
        }
        return {
            Register.IDENTITY.value: IDENTITY << 16 | VERSION,
            Register.THRESHOLD.value: self.threshold,
            Register.FLAGS.value: sum(flag for flag, is_set in flags.items() if is_set),
            **{register.value: value for register, value in self._counters.items()},
        }

    def _counts(self, age: int, number: int) -> str:
        if not 1 <= number <= MAX_COUNTS:
            return f"ERR {number} counts at once; 1..{MAX_COUNTS}"
        if not number <= age <= len(self._kept):
            return f"ERR {number} counts from {age} gates ago; {len(self._kept)} are kept"
        begin = len(self._kept) - age
        counts = islice(self._kept, begin, begin + number)
        words = (OVERFLOWED if count == _NO_COUNT else str(count) for count in counts)
        return " ".join([str(self._counters[Register.GATES]), *words])

    def _reset(self) -> None:
        self._count, self._overflowed, self._bright = 0, False, False
        self._counters = dict.fromkeys(_COUNTERS, 0)
        self._kept.clear()
