"""How punctual a laboratory in real time was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qnodeos.engine.histogram import HistogramCounter

_NS_PER_US = 1_000


@dataclass
class NodeStatistics:
    """What one node's device was asked, and when it got and gave it.

    Attributes:
        commands: frames that said something new.
        answers: outcomes and entered sessions published.
        late_answers: those published after the tick from which they hold.
        moved_commands: carried out in a later tick than that of their frame, because the
            device, or the link, was further already.
        misdated_commands: from ticks that cannot be: too far ahead.
        untaken_responses: for which there was no room, because the QNPU takes none.
        failed_greetings: tries to tell a new QNPU what is on the wire, for which there was no room.
        lag: of commands, from the beginning of their tick to when they were taken in.
        lateness: of answers, from the beginning of the tick from which they hold to when they
            were published; answers given in time count as 0.

    Delays are in nanoseconds.
    """

    commands: int = 0
    answers: int = 0
    late_answers: int = 0
    moved_commands: int = 0
    misdated_commands: int = 0
    untaken_responses: int = 0
    failed_greetings: int = 0
    lag: HistogramCounter = field(default_factory=HistogramCounter)
    lateness: HistogramCounter = field(default_factory=HistogramCounter)

    def summary(self) -> dict[str, Any]:
        """All of it, for JSON; delays in microseconds."""
        return {
            "commands": self.commands,
            "answers": self.answers,
            "late_answers": self.late_answers,
            "moved_commands": self.moved_commands,
            "misdated_commands": self.misdated_commands,
            "untaken_responses": self.untaken_responses,
            "failed_greetings": self.failed_greetings,
            "lag_us": _summary_us(self.lag),
            "lateness_us": _summary_us(self.lateness),
        }


def _summary_us(delays_ns: HistogramCounter) -> dict[str, float]:
    """Count, and quantiles in microseconds."""
    counted = delays_ns.read()
    return {
        "count": counted.total,
        "p50": counted.quantile(0.5) / _NS_PER_US,
        "p99": counted.quantile(0.99) / _NS_PER_US,
        "p999": counted.quantile(0.999) / _NS_PER_US,
        "max": counted.maximum / _NS_PER_US,
    }
