"""The simulated heralding station's registers.

`SimulatedCpld` is what the driver `instruments.heralding` and the simulated laboratory share:
the driver sets the window through `sim.serial_line.SerialLine`, the laboratory asks for it and
counts.
"""

from __future__ import annotations

from typing import Final

from instruments.heralding import (
    IDENTITY,
    MAX_DELAY_NS,
    MAX_LENGTH_NS,
    MIN_LENGTH_NS,
    VERSION,
    Register,
)

DETECTORS: Final = 2
_COUNTER_MASK: Final = (1 << 32) - 1
_WINDOW: Final = {
    Register.WINDOW_DELAY_NS: (0, MAX_DELAY_NS),
    Register.WINDOW_LENGTH_NS: (MIN_LENGTH_NS, MAX_LENGTH_NS),
}
_COUNTERS: Final = (Register.CLICKS_0, Register.CLICKS_1, Register.HERALDS, Register.ATTEMPTS)


class SimulatedCpld:
    """The chip's registers.

    Attributes:
        resets: how often the counters were reset, for whoever holds a herald line up.
    """

    def __init__(self) -> None:
        self.resets = 0
        self._registers: dict[Register, int] = dict.fromkeys(_COUNTERS, 0)
        self._registers |= {
            Register.IDENTITY: IDENTITY << 16 | VERSION,
            Register.WINDOW_DELAY_NS: 0,
            Register.WINDOW_LENGTH_NS: MIN_LENGTH_NS,
        }

    # --- for the laboratory -----------------------------------------------------------

    @property
    def window_ns(self) -> tuple[int, int]:
        """Beginning and end of the window, from the marker of an attempt."""
        delay = self._registers[Register.WINDOW_DELAY_NS]
        return delay, delay + self._registers[Register.WINDOW_LENGTH_NS]

    def count_attempts(self, number: int = 1) -> None:
        """Markers of attempts were seen."""
        self._count(Register.ATTEMPTS, number)

    def click(self, detector: int, time_ns: float) -> bool:
        """A detector clicked.

        Args:
            detector: 0 or 1.
            time_ns: since the marker of the attempt.

        Returns:
            Whether that is within the window; clicks outside are not counted.

        Raises:
            ValueError: there is no such detector.
        """
        if detector not in range(DETECTORS):
            raise ValueError(f"there is no detector {detector}; there are 0 and 1")
        begin, end = self.window_ns
        if not begin <= time_ns < end:
            return False
        self._count((Register.CLICKS_0, Register.CLICKS_1)[detector], 1)
        return True

    def count_herald(self) -> None:
        """A herald was given."""
        self._count(Register.HERALDS, 1)

    def counter(self, register: Register) -> int:
        """Value of a counter."""
        return self._registers[register]

    def _count(self, register: Register, number: int) -> None:
        self._registers[register] = self._registers[register] + number & _COUNTER_MASK

    # --- for the serial line ----------------------------------------------------------

    def answer(self, line: str) -> str:
        """What the chip sends back for a line."""
        words = line.split(" ")
        if not all(word.isascii() and word.isdigit() for word in words[1:]):
            return "ERR no numbers"
        match words[0], [int(word) for word in words[1:]]:
            case "R", [number] if number in self._registers:
                return str(self._registers[Register(number)])
            case "W", [Register.RESET, 1]:
                self._registers |= dict.fromkeys(_COUNTERS, 0)
                self.resets += 1
                return "OK"
            case "W", [number, value] if number in _WINDOW:
                low, high = _WINDOW[Register(number)]
                if not low <= value <= high:
                    return f"ERR {value} is outside {low}..{high}"
                self._registers[Register(number)] = value
                return "OK"
        return "ERR unknown command"
