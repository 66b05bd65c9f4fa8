"""Clock rates of the HDAWG, and the knobs of everything that is not published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

SAMPLE_RATE_HZ: Final = 2.4e9
"""The highest rate of the HDAWG (Zurich Instruments, HDAWG user manual)."""

CYCLE_SAMPLES: Final = 8
"""One sequencer cycle of 3.33 ns, during which one instruction is executed (same manual)."""

MAX_FIFO_DEPTH: Final = 64


@dataclass(frozen=True)
class HdawgTiming:
    """Latencies in samples at 2.4 GSa/s. Nothing here has been measured on hardware.

    Attributes:
        dio_period_samples: between two moments at which the 32 DIO lines are sampled:
            150 MHz in the mode for sequencer commands (HDAWG user manual).
        dio_latency_samples: from the sampled line to the sequencer. Assumed.
        dio_trigger: without a strobe, whether `waitDIOTrigger` goes on when a word becomes
            valid while it waits, or also at a word that is valid already. Assumed; programs
            should work with both.
        play_latency_samples: from the execution of a play command to the earliest sample:
            3 cycles (vendor's LabOne Q compiler).
        fifo_depth: play commands that may wait for their start; the sequencer stalls at the
            next one. Assumed.
        output_latency_samples: from the player to the signal and marker connectors
            (vendor's zhinst-timing-models gives 610 samples, at 2 GSa/s). Assumed here.
        trigger_latency_samples: from `setTrigger` to the trigger connector. Assumed.

    Raises:
        ValueError: a latency is negative or a depth out of range.
    """

    dio_period_samples: int = 16
    dio_latency_samples: int = 24 * CYCLE_SAMPLES
    dio_trigger: Literal["edge", "level"] = "edge"
    play_latency_samples: int = 3 * CYCLE_SAMPLES
    fifo_depth: int = 4
    output_latency_samples: int = 610
    trigger_latency_samples: int = 10 * CYCLE_SAMPLES

    def __post_init__(self) -> None:
        if not 1 <= self.fifo_depth <= MAX_FIFO_DEPTH:
            raise ValueError(f"fifo_depth {self.fifo_depth} is outside 1..{MAX_FIFO_DEPTH}")
        if self.dio_period_samples < 1:
            raise ValueError(f"dio_period_samples {self.dio_period_samples} is less than 1")
        if self.dio_trigger not in {"edge", "level"}:
            raise ValueError(f"dio_trigger {self.dio_trigger!r} is neither 'edge' nor 'level'")
        for name in ("dio_latency", "play_latency", "output_latency", "trigger_latency"):
            latency = getattr(self, f"{name}_samples")
            if latency < 0:
                raise ValueError(f"{name}_samples is negative: {latency}")


def sample_at_ns(time_ns: float) -> int:
    """The sample nearest to a time, at 2.4 GSa/s."""
    return round(time_ns * SAMPLE_RATE_HZ / 1e9)
